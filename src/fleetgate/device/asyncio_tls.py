"""TLS as a client on a TCP connection of an event loop, by way of memory.

asyncio's own TLS takes a context per connection that differs, here a context is needed for a moment
only: an ``ssl.SSLObject`` between two memory buffers keeps the certificate that its context had
when it was made. Contexts are large, and slow to make; one does for thousands of devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, cast

from fleetgate.device import tls

OpenTls: TypeAlias = Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject]
"""Begins TLS as a client: what comes from the server is read from the first, what goes to it is
written to the second. Called when the TCP connection is there."""

_READ_BYTES: Final = 64 * 1024


class User(Protocol):
    """Who uses a link; these are called on the loop."""

    def begin(self) -> None:
        """TCP is there: the user calls :meth:`TlsLink.begin_tls`."""

    def secured(self) -> None:
        """TLS is there: bytes may be written."""

    def handshake_failed(self, error: Exception) -> None:
        """TLS cannot be; the user calls :meth:`TlsLink.abort`."""

    def receive(self, data: bytes) -> None:
        """Plain bytes have come."""

    def ended(self, why: str) -> None:
        """The socket is closed; called once, last."""


class TlsLink(asyncio.Protocol):
    """The transport protocol of one connection."""

    def __init__(self, client: User) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._secured = False
        self._end: str | None = None

    # --- the loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._client.begin()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        self._close("the server closed the connection", ssl.SSLEOFError())
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if error is not None and not self._secured:
            self._client.handshake_failed(error)
        said = self._end or (tls.explain(error) if error is not None else None)
        self._client.ended(said or "the server closed the connection")

    # --- the client calls ---

    def begin_tls(self, open_tls: OpenTls) -> None:
        """Raises OSError, ValueError."""
        self._tls = open_tls(self._incoming, self._outgoing)
        self._advance()

    def write(self, data: bytes) -> None:
        """Plain bytes to the server; nothing when it is too late for that."""
        if self._tls is None or self._transport is None or not data:
            return
        try:
            self._tls.write(data)
        except OSError as error:
            self._end = self._end or tls.explain(error)
            self.abort()
            return
        self._flush()

    def goodbye(self) -> None:
        """Say that TLS ends; the server closes then, or the client's timer does."""
        if self._tls is not None and self._secured:
            with contextlib.suppress(OSError):  # the other side's goodbye is still to come
                self._tls.unwrap()
            self._flush()

    def abort(self) -> None:
        """Close at once; ``connection_lost`` follows."""
        if self._transport is not None:
            self._flush()
            self._transport.abort()

    # --- how it is done ---

    def _advance(self) -> None:
        stream = self._tls
        assert stream is not None  # noqa: S101 - begun by connection_made
        try:
            if not self._secured:
                stream.do_handshake()
                self._secured = True
                self._client.secured()
            while data := stream.read(_READ_BYTES):
                self._client.receive(data)
                if self._transport is None:
                    return
            self._close("the server closed the connection", ssl.SSLEOFError())
        except ssl.SSLWantReadError:
            self._flush()
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
            self._close("the server closed the connection", error)
        except OSError as error:
            self._close(tls.explain(error), error)

    def _close(self, why: str, error: OSError) -> None:
        if not self._secured:
            self._client.handshake_failed(error)
        self._end = self._end or why
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
