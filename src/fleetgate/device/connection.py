"""A blocking MQTT connection of a device, over TLS with its certificate.

The protocol is :class:`fleetgate.mqtt.connection.Connection` in the client's role; here are the
socket, TLS, and time. Nothing happens in the background: bytes move while a method runs, and so
do acknowledgements and keep-alive. A message that arrives while a method waits for something else
is kept for :meth:`DeviceConnection.wait`. Every wait ends: with what was waited for, or after
`timeout` seconds with :class:`~fleetgate.device.errors.NoAnswer`, after which the connection can
still be used; every other error but NotAuthorized closes it.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

from fleetgate.device import tls
from fleetgate.device.credentials import Path
from fleetgate.device.endpoint import MQTT_ALPN
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    NoAnswer,
    NotAuthorized,
)
from fleetgate.errors import ProtocolError
from fleetgate.mqtt.connection import MAX_PACKET_SIZE, Connection, Role
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from fleetgate.mqtt.reasons import ConnectReturnCode, Reason

_READ_BYTES = 16 * 1024  # a TLS record (RFC 8446 section 5.1)
_MAX_KEPT_MESSAGES = 1000
_GOODBYE_SECONDS = 1.0

_P = TypeVar("_P", Connack, Suback, Puback, Pingresp)


def connect(
    host: str,
    port: int,
    *,
    ca: Path,
    certificate: Path,
    key: Path,
    client_id: str,
    version: Version = 5,
    clean: bool = True,
    keep_alive: int = 60,
    alpn: str | None = None,
    timeout: float = 10.0,
    max_packet_size: int = MAX_PACKET_SIZE,
) -> DeviceConnection:
    """Connect to the MQTT server at `host`:`port` with a certificate.

    `ca`, `certificate` and `key` are PEM files: the authorities trusted for the server, the
    device's certificate (with its chain) and its key. `version` is 4 for MQTT 3.1.1 and 5 for
    MQTT 5. `keep_alive` is in seconds, 0 for none. `alpn` is offered to the server; on port 443
    the default is the name AWS IoT wants there. `timeout` (seconds) bounds each of the TCP
    connection, the TLS handshake and the answer to CONNECT. A larger packet than
    `max_packet_size` bytes from the server is an error.

    Raises ConnectionFailed with what went wrong.
    """
    context: ssl.SSLContext = tls.context(ca, certificate, key)
    protocol = alpn or (MQTT_ALPN if port == 443 else None)
    if protocol:
        context.set_alpn_protocols([protocol])
    packet = Connect(client_id, clean, keep_alive, version=version)
    stream = tls.open_(context, host, port, timeout)
    try:
        return DeviceConnection(stream, packet, timeout, max_packet_size)
    except BaseException:
        stream.close()
        raise


class DeviceConnection:
    """An established connection; made by :func:`connect`. Leaving ``with`` disconnects.

    ``session_present`` says that the server kept a session of this client (section 3.2.2.1.1).
    """

    def __init__(
        self, stream: ssl.SSLSocket, packet: Connect, timeout: float, max_packet_size: int
    ) -> None:
        self._stream = stream
        self._mqtt = Connection(Role.CLIENT, max_packet_size=max_packet_size)
        self._max_packet_size = max_packet_size
        self._send_timeout = timeout
        self._ping_after = packet.keep_alive / 2 or float("inf")
        self._last_sent = time.monotonic()
        self._messages: deque[Publish] = deque()
        self.session_present = self._connect(packet, timeout)

    def __enter__(self) -> DeviceConnection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.disconnect()

    # --- what a device does ---

    def subscribe(self, filters: Sequence[str], *, qos: int = 1, timeout: float = 10.0) -> None:
        """Subscribe to topic filters, all in one packet, and wait for the server's consent.

        Raises NotAuthorized naming the filters that the server refused (its ``topic`` is the
        first) and the policy action that is probably missing, NoAnswer, ConnectionLost.
        """
        packet_id = self._mqtt.next_packet_id()
        subscriptions = tuple(Subscription(each, qos) for each in filters)
        listed = ", ".join(f"`{each}`" for each in filters)
        hint = "does the certificate's policy allow iot:Subscribe on these topic filters?"
        packet = Subscribe(packet_id, subscriptions)
        answer = self._ask(packet, Suback, timeout, f"SUBSCRIBE to {listed}", hint)
        refused = [
            (topic_filter, code)
            for topic_filter, code in zip(filters, answer.reason_codes, strict=False)
            if code >= 0x80
        ]
        if refused:
            raise _refused_subscriptions(refused, answer)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, timeout: float = 10.0) -> None:
        """Publish a message at QoS 0 or 1; at 1 wait until the server has acknowledged it.

        Raises NotAuthorized when the server refused it (MQTT 5 alone can say so; otherwise the
        server closes the connection), NoAnswer, ConnectionLost, and BadRequest when the topic is
        no topic name or the message is larger than the server takes.
        """
        if qos not in (0, 1):
            raise BadRequest(f"a message is published at QoS 0 or 1, not {qos}")
        packet_id = self._mqtt.next_packet_id() if qos else None
        hint = f"does the certificate's policy allow iot:Publish on `topic/{topic}`?"
        packet = Publish(topic, payload, qos, packet_id=packet_id)
        if packet_id is None:
            self._send(packet, f"PUBLISH to `{topic}`; {hint}")
            return
        answer = self._ask(packet, Puback, timeout, f"PUBLISH to `{topic}`", hint)
        if answer.reason_code >= 0x80:
            raise NotAuthorized(
                f"the server refused the message to `{topic}` "
                f"({_reason(answer.reason_code)}{_said(answer)}); {hint}",
                topic=topic,
                action="iot:Publish",
            )

    def wait(self, topics: Collection[str], *, timeout: float = 10.0) -> Publish:
        """The first message on one of `topics` (names, not filters) that came or comes in.

        Raises NoAnswer, ConnectionLost, BadAnswer (larger than ``max_packet_size``).
        """
        deadline = time.monotonic() + timeout
        while True:
            for message in self._messages:
                if message.topic in topics:
                    self._messages.remove(message)
                    return message
            listed = " or ".join(f"`{each}`" for each in topics)
            if time.monotonic() >= deadline:
                raise NoAnswer(
                    f"no message on {listed} within {timeout:g} s; does the certificate's policy "
                    "allow iot:Receive on these topics?",
                    topic=next(iter(topics), None),
                    waited=timeout,
                )
            self._receive(deadline, f"the wait for a message on {listed} began")

    def ping(self, *, timeout: float = 10.0) -> None:
        """Make sure that the server still is there. Raises NoAnswer, ConnectionLost."""
        self._ask(Pingreq(), Pingresp, timeout, "PINGREQ", "is the client id in use elsewhere?")

    def disconnect(self) -> None:
        """Say goodbye, if that is still possible, and close the connection."""
        try:
            self._stream.settimeout(_GOODBYE_SECONDS)
            self._stream.sendall(self._mqtt.send(Disconnect()))
            # Closing while something is unread would reset the connection, and with it what the
            # server has not read yet: DISCONNECT.
            self._stream.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + _GOODBYE_SECONDS
            while time.monotonic() < deadline and self._stream.recv(_READ_BYTES):
                pass
        except (OSError, ProtocolError):
            pass  # it is closed already: nothing is left to say
        finally:
            self._stream.close()

    # --- how it is done ---

    def _connect(self, packet: Connect, timeout: float) -> bool:
        hint = (
            "is the client certificate registered and ACTIVE, and does its policy allow "
            f"iot:Connect on `client/{packet.client_id}`?"
        )
        try:
            answer = self._ask(packet, Connack, timeout, "CONNECT", hint)
        except (ConnectionLost, NoAnswer) as error:
            raise ConnectionFailed(error.message, waited=error.waited) from error
        if answer.reason_code:
            said = _reason(answer.reason_code, packet.version)
            raise ConnectionFailed(
                f"the server refused the connection ({said}{_said(answer)}); {hint}"
            )
        return answer.session_present

    def _ask(self, packet: Packet, answer: type[_P], timeout: float, request: str, hint: str) -> _P:
        """Send `packet` and give the packet of type `answer` that answers it."""
        deadline = time.monotonic() + timeout
        context = f"{request}; {hint}"
        packet_id = getattr(packet, "packet_id", None)
        self._send(packet, context)
        while time.monotonic() < deadline:
            for other in self._receive(deadline, context):
                if isinstance(other, answer) and getattr(other, "packet_id", None) == packet_id:
                    return other
        raise NoAnswer(f"the server did not answer {request} within {timeout:g} s", waited=timeout)

    def _receive(self, deadline: float, context: str) -> list[Packet]:
        """Wait for bytes until `deadline` at most; keep messages, return the other packets.

        `context` is what happened last, for the message when the connection gets lost.
        """
        now = time.monotonic()
        if now - self._last_sent >= self._ping_after:
            self._send(Pingreq(), context)
            now = self._last_sent
        until = min(deadline, self._last_sent + self._ping_after)
        try:
            self._stream.settimeout(max(until - now, 0.001))
            data = self._stream.recv(_READ_BYTES)
        except TimeoutError:
            return []
        except OSError as error:
            raise self._lost(tls.explain(error), context) from error
        if not data:
            raise self._lost("the server closed the connection", context)
        try:
            packets = self._mqtt.receive(data)
        except ProtocolError as error:
            raise self._broken(error) from error
        others: list[Packet] = []
        for packet in packets:
            if isinstance(packet, Publish):
                self._keep(packet, context)
            elif isinstance(packet, Disconnect):
                said = f"{_reason(packet.reason_code)}{_said(packet)}"
                raise self._lost(f"the server disconnected ({said})", context)
            else:
                others.append(packet)
        return others

    def _keep(self, message: Publish, context: str) -> None:
        if len(self._messages) >= _MAX_KEPT_MESSAGES:
            raise self._lost(f"{_MAX_KEPT_MESSAGES} messages came that nobody waits for", context)
        self._messages.append(message)
        if message.qos == 1 and message.packet_id is not None:
            self._send(Puback(message.packet_id), context)

    def _send(self, packet: Packet, context: str) -> None:
        if self._stream.fileno() < 0:
            raise ConnectionLost("the connection is closed")
        try:
            data = self._mqtt.send(packet)
        except ProtocolError as error:
            raise BadRequest(error.message) from error
        try:
            self._stream.settimeout(self._send_timeout)
            self._stream.sendall(data)
        except OSError as error:
            raise self._lost(tls.explain(error), context) from error
        self._last_sent = time.monotonic()

    def _lost(self, what: str, context: str) -> ConnectionLost:
        self._stream.close()
        return ConnectionLost(f"{what} after {context}")

    def _broken(self, error: ProtocolError) -> ConnectionLost | BadAnswer:
        """The server broke the protocol: tell it, if possible, and hang up."""
        try:
            self._stream.settimeout(_GOODBYE_SECONDS)
            self._stream.sendall(self._mqtt.closing(error))
        except OSError:
            pass  # it does not listen any more; what it did is what counts
        finally:
            self._stream.close()
        if error.reason == Reason.PACKET_TOO_LARGE:
            return BadAnswer(
                f"the server sent a larger packet than the {self._max_packet_size} bytes that "
                f"this device takes: {error.message}"
            )
        return ConnectionLost(f"the server broke the MQTT protocol: {error.message}")


def _refused_subscriptions(refused: Sequence[tuple[str, int]], answer: Suback) -> NotAuthorized:
    """One sentence about the refused topic filters and their reason codes."""
    filters = [each for each, _code in refused]
    codes = ", and ".join(dict.fromkeys(_reason(code) for _filter, code in refused))
    if len(filters) == 1:
        what = f"subscription to `{filters[0]}`"
        said = _said(answer)
        resources = f"`topicfilter/{filters[0]}`"
    else:
        what = "subscriptions to " + " and ".join(f"`{each}`" for each in _grouped(filters))
        said = _said(answer).partition("; ")[0]  # one reason per filter, and all alike
        resources = "these topic filters"
    return NotAuthorized(
        f"the server refused the {what} ({codes}{said}); "
        f"does the certificate's policy allow iot:Subscribe on {resources}?",
        topic=filters[0],
        action="iot:Subscribe",
    )


def _grouped(filters: Iterable[str]) -> list[str]:
    """Topic filters that differ in the last level only, put together: ``a/b/{c,d}``."""
    levels: dict[str, list[str]] = {}
    for each in filters:
        parent, slash, level = each.rpartition("/")
        levels.setdefault(parent + slash, []).append(level)
    return [
        parent + (last[0] if len(last) == 1 else f"{{{','.join(last)}}}")
        for parent, last in levels.items()
    ]


def _reason(code: int, version: Version = 5) -> str:
    """A reason code in words: ``not authorized, 0x87``."""
    try:
        word = Reason(code).name if version == 5 else ConnectReturnCode(code).name
    except ValueError:
        word = "unknown code"
    return f"{word.replace('_', ' ').lower()}, {code:#04x}"


def _said(packet: Connack | Suback | Puback | Disconnect) -> str:
    text = packet.properties.get("reason_string")
    return f": {text}" if text else ""
