"""Bodies of HTTP requests: awaited when they are wanted, bounded, thrown away when they are not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fleetgate.errors import RequestEntityTooLargeException, ServiceUnavailableException

MAX_BODY = 1 << 20
"""Bytes of a request body. The largest members of the model (documents, PEM) stay far below."""

MAX_UNVERIFIED = 64 * MAX_BODY
"""Bytes of all bodies together that are kept while their signature is not verified."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Disconnected(Exception):
    """The caller went away before the request was complete."""


@dataclass(slots=True)
class Body:
    """The body of a request, which is awaited only when it is asked for.

    `awaited` says that the caller waits for 100 (RFC 9110 section 10.1.1), which `part` sends.
    """

    receive: Receive
    awaited: bool
    ended: bool = False

    async def part(self) -> bytes:
        """The next bytes. Raises Disconnected."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        self.awaited = False
        self.ended = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def throw_away(self, limit: int) -> None:
        """Reads what is left, unless it is more than `limit` bytes or not sent yet."""
        while not self.ended and not self.awaited and limit >= 0:
            limit -= len(await self.part())


@dataclass(slots=True)
class Bodies:
    """Reads bodies, and counts the bytes of those that are being read."""

    unverified: int = field(default=0, init=False)

    async def read(self, sent: Body) -> bytes:
        """The body, at most MAX_BODY bytes; the rest is read and thrown away.

        Raises RequestEntityTooLargeException, and ServiceUnavailableException when too much is
        being read at the same time.
        """
        parts: list[bytes] = []
        size = kept = 0
        try:
            while not sent.ended and size <= 16 * MAX_BODY:
                part = await sent.part()
                size += len(part)
                if size > MAX_BODY:
                    continue
                parts.append(part)
                kept += len(part)
                self.unverified += len(part)
                if self.unverified > MAX_UNVERIFIED:
                    raise ServiceUnavailableException(
                        f"the server is reading request bodies of more than {MAX_UNVERIFIED} bytes"
                    )
        finally:
            self.unverified -= kept
        if size > MAX_BODY:
            raise RequestEntityTooLargeException(
                f"the request body is larger than {MAX_BODY} bytes"
            )
        return b"".join(parts)
