"""A TLS socket for clients that are built on paho-mqtt, which watches what the server sends.

paho-mqtt makes its socket itself: it connects by TCP and lets an ``ssl.SSLContext`` make TLS of
it. :class:`MqttContext` is such a context. On the way it asks a proxy for a tunnel, if there is
one, and says in words what is wrong with a handshake. The sockets it makes are
:class:`MqttSocket` (``SSLContext.sslsocket_class``), which reads as every other does and shows a
:class:`Watch` what it reads. From that is known what paho-mqtt does not tell:

* the size of a packet as soon as its first bytes are there: one that is too large is refused
  before it fills the memory (paho-mqtt would take 256 MB);
* why a connection ended: DISCONNECT with its reason, what TLS said, or just the end;
* the codes of CONNACK and PUBACK: paho-mqtt hides some return codes of MQTT 3.1.1, and aiomqtt
  those of PUBACK.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from fleetgate.device import tls, tunnel
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import ConnectionFailed
from fleetgate.errors import ProtocolError
from fleetgate.mqtt.codec import decode
from fleetgate.mqtt.packets import Connack, Disconnect, Packet, Puback, Version

_CONNACK: Final = 2
_KEPT: Final = {_CONNACK, 4, 14}  # CONNACK, PUBACK, DISCONNECT (MQTT 5 section 2.1.2)
_MAX_KEPT: Final = 70_000  # a reason string has 65535 bytes at most, and the rest is small
_MORE: Final = 0x80

_WOULD_BLOCK = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)


class TooLarge(OSError):
    """The server began to send a packet that is larger than allowed."""


class Watch:
    """What the server sends, seen from beside: sizes, and the few packets that say why.

    ``connack`` and ``disconnect`` are these packets when they have come; ``ended`` is how the
    stream ended, in words; ``too_large`` the size of the packet for which it was given up.
    `on_puback`, when it is set, is called with each PUBACK before the client reads it, and `on_end`
    once when the stream has ended, was given up, or brought a CONNACK that refuses.
    """

    def __init__(self, version: Version, max_packet_size: int) -> None:
        self.version = version
        self.max_packet_size = max_packet_size
        self.connack: Connack | None = None
        self.disconnect: Disconnect | None = None
        self.on_puback: Callable[[Puback], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.too_large: int | None = None
        self.ended: str | None = None
        self._packet = bytearray()  # what is there of a fixed header, or of a packet to be kept
        self._left = 0  # bytes of the present packet that are still to come
        self._keep = False

    def receive(self, data: bytes) -> None:
        """Look at bytes that have come. Raises TooLarge."""
        at = 0
        while at < len(data):
            if not self._left:
                if self.connack is None and not self._packet and data[at] != _CONNACK << 4:
                    self.end("the server did not answer with MQTT")
                self._packet.append(data[at])
                at += 1
                self._measure()
                continue
            taken = min(self._left, len(data) - at)
            if self._keep:
                self._packet += data[at : at + taken]
            at += taken
            self._left -= taken
            if not self._left:
                self._finish()

    def _measure(self) -> None:
        """See whether the fixed header is complete, and how large its packet is (2.1.4)."""
        header = self._packet
        if len(header) < 2 or (header[-1] & _MORE and len(header) < 5):
            return
        size = len(header)
        for place, digit in enumerate(header[1:]):
            size += (digit & 0x7F) << (7 * place)
        if size > self.max_packet_size:
            self.too_large = size
            self._end()
            raise TooLarge(f"a packet of {size} bytes")
        self._left = size - len(header)
        self._keep = header[0] >> 4 in _KEPT and size <= _MAX_KEPT
        if not self._left:
            self._finish()

    def _finish(self) -> None:
        packet = self._kept() if self._keep else None
        self._packet.clear()
        if self.connack is None:
            self._begin(packet)
        elif isinstance(packet, Disconnect):
            self.disconnect = packet
        elif isinstance(packet, Puback) and self.on_puback is not None:
            self.on_puback(packet)

    def _begin(self, packet: Packet | None) -> None:
        """The first packet, which has to be CONNACK (MQTT 5 section 3.2)."""
        if not isinstance(packet, Connack):
            self.end("the server did not answer with MQTT")
            return
        self.connack = packet
        if packet.reason_code:
            self._end()

    def agreed(self, name: str, otherwise: int) -> int:
        """What CONNACK says in its property `name`, if it says that."""
        return int(self.connack.properties.get(name, otherwise)) if self.connack else otherwise

    @property
    def refused(self) -> bool:
        """Whether this is no connection that could be used (any more)."""
        refused = self.connack is not None and self.connack.reason_code != 0
        return refused or self.ended is not None or self.too_large is not None

    def end(self, why: str) -> None:
        """The stream has ended."""
        self.ended = self.ended or why
        self._end()

    def _end(self) -> None:
        told, self.on_end = self.on_end, None
        if told is not None:
            told()

    def _kept(self) -> Packet | None:
        try:
            found = decode(self._packet, self.version, self.max_packet_size)
        except ProtocolError:
            return None  # the client will find that, too
        return found[0] if found else None


class MqttSocket(ssl.SSLSocket):
    """TLS to an MQTT server, as :class:`MqttContext` makes it."""

    watch: Watch
    endpoint: Endpoint
    deadline: float | None

    def do_handshake(self, block: bool = False) -> None:
        """As it is, but raises ConnectionFailed in words, after having closed the socket."""
        try:
            self.settimeout(tls.left(self.endpoint, self.deadline))
            super().do_handshake(block)
        except (OSError, ValueError) as error:
            self.close()
            raise tls.handshake_failed(error, self.endpoint) from error

    def send(self, data: Any, flags: int = 0) -> int:
        """As it is, and tells the :class:`Watch` when there is nobody any more."""
        try:
            return super().send(data, flags)
        except _WOULD_BLOCK:
            raise
        except OSError as error:
            self.watch.end(tls.explain(error))
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As it is, and shows the :class:`Watch` what has come. Raises TooLarge, OSError."""
        try:
            data = super().recv(buflen, flags)
        except _WOULD_BLOCK:
            raise
        except OSError as error:
            self.watch.end(tls.explain(error))
            raise
        if not data:
            self.watch.end("the server closed the connection")
        self.watch.receive(data)
        return data


class MqttContext(ssl.SSLContext):
    """Makes one connection to `endpoint` with the files of `credentials`; see the module.

    ``address`` is where the TCP connection has to go: to the server, or to its proxy. ``watch``
    belongs to the connection. ``deadline``, if it is set, is a time of ``time.monotonic()`` at
    which proxy and TLS have to be through, whatever the endpoint grants each of them. Raises
    ConnectionFailed naming the file that cannot be used.
    """

    endpoint: Endpoint
    deadline: float | None = None
    watch: Watch
    address: tuple[str, int]
    stream: MqttSocket | None
    _given_up = False

    @classmethod
    def of(cls, endpoint: Endpoint, credentials: Credentials | None) -> MqttContext:
        """A context for one connection; None shows no certificate."""
        if credentials is None:
            context = tls.trusting(endpoint.ca, cls)
        else:
            context = tls.context(endpoint.ca, credentials.certificate, credentials.key, cls)
        if endpoint.offered_alpn:
            context.set_alpn_protocols([endpoint.offered_alpn])
        context.sslsocket_class = MqttSocket
        context.endpoint = endpoint
        context.watch = Watch(endpoint.mqtt_version, endpoint.max_packet_size)
        context.address = tls.address(endpoint)
        context.stream = None
        return context

    def wrap_socket(self, sock: socket.socket, *_rest: Any, **_more: Any) -> MqttSocket:
        """TLS on `sock`, a plain connection to ``address``; the handshake has to follow.

        What else is wanted of the server (its name, and that it be checked) is in the endpoint.
        """
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.endpoint.proxy:
                tunnel.open_through(sock, self.endpoint, self.endpoint.proxy, self.deadline)
            made = super().wrap_socket(
                sock, server_hostname=self.endpoint.host, do_handshake_on_connect=False
            )
        except ConnectionFailed:
            sock.close()
            raise
        except (OSError, ValueError) as error:  # the server's name is none for TLS
            sock.close()
            raise tls.handshake_failed(error, self.endpoint) from error
        assert isinstance(made, MqttSocket)  # noqa: S101 - sslsocket_class says so
        made.watch = self.watch
        made.endpoint = self.endpoint
        made.deadline = self.deadline
        self.stream = made
        if self._given_up:
            self.hang_up()  # which fails the handshake
        return made

    def give_up(self) -> None:
        """Cut the connection, and let none be made that is still being made. Any thread."""
        self._given_up = True
        self.hang_up()

    def hang_up(self) -> None:
        """Cut the connection, if there is one; whoever reads from it sees its end. Any thread."""
        stream = self.stream
        if stream is not None:
            with contextlib.suppress(OSError):  # it is closed already
                # not SSLSocket.shutdown, which would take TLS away under the reader
                socket.socket.shutdown(stream, socket.SHUT_RDWR)
