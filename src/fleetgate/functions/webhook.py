"""A function that is an HTTPS server of the operator: the event is sent to it, signed.

The signature is the HMAC-SHA256 of ``TIMESTAMP.BODY`` under a secret both sides know, in hex; the
timestamp (seconds since 1970) is a header beside it. Signing both keeps a request that was
recorded from being sent again later, and a body from being exchanged. docs/functions.md shows how
it is checked.

The file of the secret is read for every request: a new secret counts from the next one on.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path

from fleetgate import __version__
from fleetgate.functions.configured import Webhook
from fleetgate.functions.https import HttpsServer, Resolve, Response, resolve, shown
from fleetgate.functions.options import read_secret
from fleetgate.functions.target import Failure, FunctionError, Run

MIN_SECRET = 32
"""Bytes a secret has at least."""

_MARGIN = 0.05
"""Seconds left for whoever waits, so that they hear at which step the time ended."""


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """The hex HMAC-SHA256 (RFC 2104) over timestamp, a dot and the body."""
    return hmac.new(secret, timestamp.encode("ascii") + b"." + body, hashlib.sha256).hexdigest()


def target(
    name: str,
    configured: Webhook,
    *,
    now: Callable[[], float] = time.time,
    resolve: Resolve = resolve,
) -> WebhookTarget:
    """What runs a webhook of the configuration.

    `now` is the clock (seconds since 1970), `resolve` finds the addresses of a name. Raises
    ValueError, naming the function, for files that cannot be used.
    """
    try:
        return WebhookTarget(name, configured, now, resolve)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from None


class WebhookTarget:
    """One webhook; see `functions.target.Target`."""

    def __init__(
        self, name: str, configured: Webhook, now: Callable[[], float], resolve: Resolve
    ) -> None:
        self._name = name
        self._seconds = configured.timeout_seconds
        self._most = configured.concurrency
        self._free = asyncio.Semaphore(configured.concurrency)
        self._secret_file = configured.secret_file
        self._now = now
        self._server = HttpsServer(
            configured.url,
            allow_networks=configured.allow_networks,
            ca_file=configured.ca_file,
            client_certificate=configured.client_certificate,
            client_key=configured.client_key,
            resolve=resolve,
        )
        _secret(self._secret_file)

    @property
    def description(self) -> str:
        """The URL, without its query."""
        return str(self._server.url)

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        """Sends an event; the JSON object of a response with status 200 is the answer."""
        loop = asyncio.get_running_loop()
        end = loop.time() + min(seconds - _MARGIN, self._seconds)
        try:
            async with asyncio.timeout_at(end):
                await self._free.acquire()
        except TimeoutError:
            raise FunctionError(
                Failure.THROTTLED,
                f"function `{self._name}`: {self._most} calls (concurrency) are under way at "
                f"{self.description}, and none of them ended in time",
            ) from None
        try:
            response = await self._server.post(
                self._headers(event, request_id), event, seconds=max(end - loop.time(), 0)
            )
        except FunctionError as error:
            raise FunctionError(error.kind, f"function `{self._name}`: {error.message}") from None
        finally:
            self._free.release()
        return self._answer(response)

    async def close(self) -> None:
        """Nothing is kept between two calls."""

    def _headers(self, event: bytes, request_id: str) -> dict[str, str]:
        try:
            secret = _secret(self._secret_file)
        except ValueError as error:
            raise FunctionError(Failure.NOT_STARTED, str(error)) from None
        timestamp = str(int(self._now()))
        return {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": f"Fleetgate/{__version__}",
            "X-Fleetgate-Function": self._name,
            "X-Fleetgate-Request-Id": request_id,
            "X-Fleetgate-Timestamp": timestamp,
            "X-Fleetgate-Signature": signature(secret, timestamp, event),
        }

    def _answer(self, response: Response) -> Run:
        if response.status != 200:
            said = f"status {response.status}, not 200, with `{shown(response.body)}`"
            failed = {
                "errorType": "UnexpectedStatus",
                "errorMessage": f"{self.description} answered {said}",
            }
            return Run(json.dumps(failed).encode(), error="Unhandled")
        try:
            value = json.loads(response.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise FunctionError(
                Failure.MALFORMED,
                f"function `{self._name}`: {self.description} answered "
                f"`{shown(response.body)}`, which is no JSON object",
            )
        return Run(response.body)


def _secret(path: Path) -> bytes:
    """The key of the signature. Raises ValueError; the secret is not in its message."""
    secret = read_secret("`secret_file`", path).strip().encode()
    if len(secret) < MIN_SECRET:
        raise ValueError(
            f"`secret_file`: `{path}` holds {len(secret)} bytes, at least {MIN_SECRET} are "
            "expected (openssl rand -hex 32)"
        )
    return secret
