"""A transport for a protocol that writes an answer in pieces: one call of the system for all."""

from __future__ import annotations

import asyncio
from typing import Any


class JoinedWrites:
    """A transport whose writes of one turn of the event loop leave together."""

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends `data` before the next turn of the loop."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Sends what was written."""
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()

    def write_eof(self) -> None:
        """Shuts the write side behind what was written."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Closes the connection behind what was written."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._parts.clear()
        self._transport.abort()
