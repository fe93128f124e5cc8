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

MAX_LARGE = 144 * MAX_BODY
"""Bytes of all larger bodies together, from their arrival to their answer: two uploads of the
largest code there is, also where the limit of that was raised."""

MAX_THROWN_AWAY = 16 * MAX_BODY
"""Bytes over the limit that are still read, so that the caller hears of it."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Disconnected(Exception):
    """The caller went away before the request was complete."""


@dataclass(slots=True)
class Body:
    """The body of a request, which is awaited only when it is asked for.

    `awaited` says that the caller waits for 100 (RFC 9110 section 10.1.1), which `part` sends.
    `limit` is how many bytes it may have, once that is known.
    """

    receive: Receive
    awaited: bool
    ended: bool = False
    limit: int = MAX_BODY
    large: int = 0
    """Bytes of it that are counted as those of a large body."""

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
    """Reads bodies, and counts the bytes of those that are being read.

    Of a body that may have more than MAX_BODY bytes, and has, all bytes are counted until
    `release`: what is made of it takes as much room.
    """

    unverified: int = field(default=0, init=False)
    large: int = field(default=0, init=False)

    async def read(
        self,
        sent: Body,
        limit: int = MAX_BODY,
        digest: Callable[[bytes], None] = lambda _: None,
    ) -> bytes:
        """The body, at most `limit` bytes; the rest is read and thrown away.

        `digest` is given every piece of it. Raises RequestEntityTooLargeException, and
        ServiceUnavailableException when too much is being read at the same time.
        """
        parts: list[bytes] = []
        size = kept = 0
        sent.limit = limit
        try:
            while not sent.ended and size <= limit + MAX_THROWN_AWAY:
                part = await sent.part()
                size += len(part)
                if size > limit:
                    self.release(sent)
                    parts.clear()
                    continue
                digest(part)
                parts.append(part)
                if size > MAX_BODY:
                    self._count_large(sent, size, max(MAX_LARGE, 2 * limit))
                    continue
                kept += len(part)
                self.unverified += len(part)
                if self.unverified > MAX_UNVERIFIED:
                    raise ServiceUnavailableException(
                        f"the server is reading request bodies of more than {MAX_UNVERIFIED} bytes"
                    )
        finally:
            self.unverified -= kept
        if size > limit:
            raise RequestEntityTooLargeException(f"the request body is larger than {limit} bytes")
        return b"".join(parts)

    def release(self, sent: Body) -> None:
        """Nothing of a body is kept any more."""
        self.large -= sent.large
        sent.large = 0

    def _count_large(self, sent: Body, size: int, most: int) -> None:
        self.large += size - sent.large
        sent.large = size
        if self.large > most:
            raise ServiceUnavailableException(
                f"the server is working on request bodies of more than {most} bytes"
            )
