"""TLS for the gateway: pyOpenSSL on memory BIOs inside an asyncio protocol.

The standard library's `ssl` cannot accept a client certificate whose issuer it does not know,
and AWS IoT trusts certificates by registry, not by chain. So the transport is plain TCP, and
`TlsConnection` moves bytes between it and an `SSL.Connection`. That makes these things ours:

* budgets before authentication: a deadline, and a number of bytes, which bounds the work too: see
  docs/decisions/0010-client-chains.md;
* the server name: a client that asks for another server is turned away (RFC 6066 section 3);
* backpressure: while the peer does not read, it is not read from either; what it cannot be
  spared (`write`) has a bound, and the connection is cut when that is passed;
* the end: close_notify, then the write side is shut and what still arrives is thrown away for a
  moment. Closing a socket with unread input makes the kernel send RST, and the peer would lose
  the last packet, the one which says why it is refused;
* turns: what a peer sends is worked off for 2 ms and in slices, then everybody else has a turn. A
  megabyte of the smallest packets is seconds of work, and the loop delivers megabytes at once;
* TCP_QUICKACK while handshaking and whenever there is nothing to say in return: a client without
  TCP_NODELAY waits for the ACK of one packet before it sends the next one, and the kernel delays
  it by 40 ms. That hits the CONNECT after the client's Finished (we send no tickets) and the
  PUBLISH after a PUBACK.

A connection is in one of four states, and only moves on: handshaking, open, closing (the last
moment described above), closed. There are no tasks and no timers of its own: see
`fleetgate.broker.deadlines`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol, cast

from OpenSSL import SSL, crypto

from fleetgate.broker.deadlines import Deadlines
from fleetgate.gateway.server_names import ServerNames, told
from fleetgate.gateway.tls_context import cause_of

logger = logging.getLogger("fleetgate.gateway")

TURN: Final = 0.002
"""Seconds one connection works before the others have their turn."""

_RECORD: Final = 16384  # RFC 8446 section 5.1: the plaintext of one record
_SEGMENT: Final = 1200  # what Nagle's algorithm holds back is smaller than a TCP segment
_SLICE: Final = 4096  # handed to the application at once: the smallest packets, 2048 of them
_FLIGHT: Final = _RECORD + 1024  # one record with what TLS adds, or a whole handshake flight
_CHAIN: Final = 10  # certificates behind the client's own; longer chains are not looked at
# The fatal alert unrecognized_name, RFC 8446 section 6: not encrypted before the ServerHello.
_UNRECOGNIZED_NAME: Final = b"\x15\x03\x03\x00\x02\x02\x70"


class State(IntEnum):
    """Where a `TlsConnection` is in its life."""

    HANDSHAKING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class TlsLimits:
    """Bounds of one connection: seconds and bytes."""

    handshake_timeout: float = 10.0
    handshake_bytes: int = 32768
    """Received until the end of the handshake: room for 12 certificates with RSA keys of 4096 bits.
    Whatever a stranger sends, reading it costs no more per byte than a usual handshake does."""
    outgoing_bytes: int = 1 << 20
    """Written and not yet taken by the peer."""
    closing_timeout: float = 5.0
    """For the peer to take what was written, and to close."""
    closing_bytes: int = 1 << 18
    """Received and thrown away while closing."""


def shown_address(transport: asyncio.BaseTransport) -> str:
    """The peer's address and port for the log."""
    address = transport.get_extra_info("peername")
    if not address:
        return "?"
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


class Application(Protocol):
    """What a `TlsConnection` carries."""

    def received(self, data: bytes) -> bool:
        """The peer has sent `data`; was that no more than a part of something large?"""

    def writable(self) -> None:
        """The peer reads again; see `TlsConnection.congested`."""

    def due(self, now: float) -> float | None:
        """The time given to `TlsConnection.wake_at` has come; the next time or None."""

    def lost(self, cause: str) -> None:
        """The connection ended otherwise than by `close`. Nothing follows."""


class TlsConnection(asyncio.Protocol):
    """One TLS connection of the server; see the module for its duties.

    `start` is called with it when the handshake is done, and returns the application; `ended`
    when the TCP connection is gone.
    `clock` counts the seconds of `deadlines`. `names` are those of the server, None: any name is.
    Attributes: `peer` (address and port, for logs),
    `state`, and once open `certificate`, the DER form of the peer's certificate.
    """

    __slots__ = (
        "_application",
        "_cause",
        "_clock",
        "_deadline",
        "_deadlines",
        "_ended",
        "_held",
        "_limits",
        "_names",
        "_received",
        "_resting",
        "_silent",
        "_ssl",
        "_start",
        "_transport",
        "bucket",
        "certificate",
        "congested",
        "peer",
        "state",
    )

    def __init__(
        self,
        context: SSL.Context,
        start: Callable[[TlsConnection], Application],
        ended: Callable[[TlsConnection], None],
        deadlines: Deadlines,
        clock: Callable[[], float],
        limits: TlsLimits,
        names: ServerNames | None = None,
    ) -> None:
        self._ssl = SSL.Connection(context, None)
        self._ssl.set_accept_state()
        self._start = start
        self._ended = ended
        self._deadlines = deadlines
        self._clock = clock
        self._limits = limits
        self._names = names
        self._application: Application | None = None
        self._transport: asyncio.Transport | None = None
        self._cause = "connection closed by the client"
        self._deadline = 0.0
        self._held = False
        self._received = 0
        self._resting = False
        self._silent = False
        self.bucket: int | None = None
        self.certificate = b""
        self.congested = False
        """The peer does not read: what can be left out should be."""
        self.peer = "?"
        self.state = State.HANDSHAKING

    # --- for the application -----------------------------------------------------------------

    @property
    def address(self) -> str:
        """The peer's IP address; an IPv4 one in IPv6 form (RFC 4291 section 2.5.5.2) as IPv4."""
        address = self.peer.rpartition(":")[0].strip("[]").partition("%")[0]
        mapped = address.lower().removeprefix("::ffff:")
        return mapped if "." in mapped else address

    @property
    def server_name(self) -> str:
        """The name the client wants to talk to (RFC 6066 section 3), empty when it did not say.

        Addresses are no names, except those which are among the server's own.
        """
        name = told(self._ssl.get_servername())
        return name if self._names is None or name in self._names else ""

    def chain(self) -> tuple[bytes, ...]:
        """The certificates (DER) that the peer sent behind its own: the first 10 at most.

        None of them is checked, and nothing says that one signed another. Reading them takes time.
        """
        sent = self._ssl.get_peer_cert_chain() or []
        # On the side of a server OpenSSL leaves the peer's own certificate out, but is not bound to
        # (SSL_get_peer_cert_chain(3)).
        found = (crypto.dump_certificate(crypto.FILETYPE_ASN1, x509) for x509 in sent[: _CHAIN + 1])
        return tuple(der for der in found if der != self.certificate)[:_CHAIN]

    def write(self, data: bytes) -> None:
        """Send `data`; nothing happens when the connection is no longer open."""
        if self.state is not State.OPEN or not data:
            return
        try:
            if len(data) <= _RECORD:
                self._ssl.send(data)
            else:
                view = memoryview(data)
                while view:  # a memory BIO takes everything, one record at a time
                    view = view[self._ssl.send(view) :]
        except SSL.Error as error:
            self._abort(f"tls: {cause_of(error)}")
            return
        self._flush()

    def hold(self) -> None:
        """Take no more from the peer until `release`. What has been read already waits."""
        self._held = True
        self._regulate()

    def release(self) -> None:
        """The end of `hold`."""
        self._held = False
        self._regulate()

    def wake_at(self, at: float) -> None:
        """Call the application's `due` at `at`, or earlier."""
        self._deadlines.set(self, at)

    def close(self) -> None:
        """Send what was written and close_notify, then end. `lost` is not called."""
        if self.state is not State.OPEN:
            return
        try:
            self._ssl.shutdown()
        except SSL.Error as error:
            logger.debug("event=no-close-notify peer=%s cause=%r", self.peer, cause_of(error))
        self._linger()

    def abort(self, *, reset: bool = False) -> None:
        """End at once, whatever is still to be sent; `reset`: by RST. `lost` is not called."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSING
            self._application = None
            if self._transport is not None:
                if reset:
                    sock = self._transport.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()

    # --- called by the loop ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.peer = shown_address(transport)
        self._deadline = self._clock() + self._limits.handshake_timeout
        self._deadlines.set(self, self._deadline)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        match self.state:
            case State.OPEN:
                self._ssl.bio_write(data)
                self._silent = True
                self._read()
                if self._silent and len(data) < _SEGMENT:
                    self._quick_ack()
            case State.HANDSHAKING:
                self._handshake(data)
            case State.CLOSING if self._received > self._limits.closing_bytes:
                self.abort()

    def eof_received(self) -> bool:
        return False  # the transport sends what it has and closes

    def pause_writing(self) -> None:
        self.congested = True
        self._regulate()

    def resume_writing(self) -> None:
        self.congested = False
        self._regulate()
        if self._application is not None and self.state is State.OPEN:
            self._application.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadlines.clear(self)
        self._ended(self)
        was, self.state = self.state, State.CLOSED
        application, self._application = self._application, None
        self._transport = None
        if was is State.OPEN and application is not None:
            application.lost(str(exc).lower() if exc else self._cause)
        elif was is State.HANDSHAKING and self._received:
            logger.info("event=handshake-failed peer=%s cause='connection closed'", self.peer)

    # --- called by the deadlines -------------------------------------------------------------

    def due(self, now: float) -> float | None:
        """See `fleetgate.broker.deadlines.Waiting`."""
        if self.state is State.OPEN and self._application is not None:
            return self._application.due(now)
        if now < self._deadline:
            return self._deadline
        if self.state is State.HANDSHAKING:
            logger.info(
                "event=handshake-failed peer=%s cause='not finished within %g s'",
                self.peer,
                self._limits.handshake_timeout,
            )
        self.abort()
        return None

    # --- inside ------------------------------------------------------------------------------

    def _handshake(self, data: bytes) -> None:
        self._quick_ack()
        # no more than the budget: OpenSSL would work off all it is given
        budget = self._limits.handshake_bytes - (self._received - len(data))
        self._ssl.bio_write(data[:budget])
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            if self._wants_another_server():
                return
            self._flush()
            if len(data) >= budget:
                self._refuse(f"more than {self._limits.handshake_bytes} bytes")
            return
        except SSL.Error as error:
            self._flush()  # the alert which tells the peer why
            burden = self._ssl.get_app_data()
            self._refuse(burden if isinstance(burden, str) else cause_of(error))
            return
        if len(data) > budget:
            self._ssl.bio_write(data[budget:])
        certificate = self._ssl.get_app_data()  # see `tls_context`
        if not isinstance(
            certificate, bytes
        ):  # OpenSSL refuses that by itself: VERIFY_FAIL_IF_NO_PEER_CERT
            self._refuse("no client certificate")
            return
        self.certificate = certificate
        self.state = State.OPEN
        self._flush()
        self._application = self._start(self)
        self._read()  # its first packet may have come with the client's Finished

    def _wants_another_server(self) -> bool:
        """Turn away a client that asks for a name which is none of the server's.

        OpenSSL has its answer to the ClientHello ready by now; the client gets the alert instead.
        """
        name = told(self._ssl.get_servername())
        if self._names is None or not self._names.refuses(name):
            return False
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self._ssl.bio_read(_FLIGHT)
        if self._transport is not None:
            self._transport.write(_UNRECOGNIZED_NAME)
        self._refuse(
            f"the client asks for the server name `{name}`, which this server does not have; if it "
            f"is to have it, add it to the setting host_names (--host-name {name})"
        )
        return True

    def _quick_ack(self) -> None:
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_QUICKACK"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _read(self) -> None:
        """Hand on what has arrived, until the turn is over."""
        application = self._application
        until = self._clock() + TURN
        size = _SLICE
        while (
            application is not None
            and self.state is State.OPEN
            and not self._held
            and not self.congested
        ):
            try:
                data = self._ssl.recv(size)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:  # close_notify: answered by ours, RFC 8446 section 6.1
                self.close()
                if self._transport is not None:
                    self._transport.close()  # nothing more comes: no need to linger
                application.lost("closed by the client")
                return
            except SSL.Error as error:
                self._flush()
                self._abort(f"tls: {cause_of(error)}")
                return
            size = _RECORD if application.received(data) else _SLICE
            if self._clock() >= until:
                self._rest()
                break
        self._flush()  # an answer to a key update

    def _flush(self) -> None:
        transport = self._transport
        if transport is None:
            return
        while True:
            try:
                data = self._ssl.bio_read(_FLIGHT)
            except SSL.WantReadError:
                break
            self._silent = False
            transport.write(data)
            if len(data) < _FLIGHT:
                break
        if (
            self.congested
            and self.state is State.OPEN
            and transport.get_write_buffer_size() > self._limits.outgoing_bytes
        ):
            self._abort("the client does not read")

    def _regulate(self) -> None:
        """Read from the peer, or not."""
        if not (self._held or self.congested):
            self._rest()
        elif (transport := self._reading_from()) is not None:
            transport.pause_reading()

    def _rest(self) -> None:
        """Let the others have their turn, then go on."""
        transport = self._reading_from()
        if transport is not None and not self._resting:
            self._resting = True
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self._read()  # first what is in the BIO: no more is taken from the peer before
        transport = self._reading_from()
        if transport is not None and not (self._resting or self._held or self.congested):
            transport.resume_reading()

    def _reading_from(self) -> asyncio.Transport | None:
        """The transport while its input counts."""
        transport = self._transport
        if transport is None or transport.is_closing() or self.state is not State.OPEN:
            return None
        return transport

    def _refuse(self, cause: str) -> None:
        logger.info("event=handshake-failed peer=%s cause=%r", self.peer, cause)
        self._linger()

    def _linger(self) -> None:
        self._flush()
        self.state = State.CLOSING
        self._application = None
        self._received = 0
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._deadline = self._clock() + self._limits.closing_timeout
        self._deadlines.set(self, self._deadline)
        transport.write_eof()
        transport.resume_reading()

    def _abort(self, cause: str) -> None:
        """Cut the connection; the application hears it when the transport is gone."""
        self._cause = cause
        if self._transport is not None:
            self._transport.abort()
