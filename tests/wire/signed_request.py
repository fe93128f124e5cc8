"""A signed request as the HTTP door sees it, for the tests of ``wire.sigv4``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from fleetgate.wire import sigv4
from fleetgate.wire.restjson import parse_query

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Request:
    """A request as the HTTP door sees it."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def parse(self) -> sigv4.Signed:
        return sigv4.parse_authorization(
            self.method, self.path, parse_query(self.query), self.headers
        )

    def verify(
        self,
        *,
        secret: str | None = SECRET,
        now: float = NOW.timestamp(),
        region: str = "us-east-1",
        service: str = "iot",
    ) -> sigv4.Signed:
        signed = self.parse()
        body = hashlib.sha256(self.body).hexdigest()
        sigv4.verify(signed, secret, body_sha256=body, now=now, region=region, service=service)
        return signed

    def header(self, name: str, value: str | None) -> Request:
        """With another value for a header, or without it."""
        kept = tuple(entry for entry in self.headers if entry[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def value(self, name: str) -> str:
        return next(value for key, value in self.headers if key.lower() == name.lower())


Signer = Callable[..., Request]
