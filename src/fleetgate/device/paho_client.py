"""MQTT by paho-mqtt 2: the adapter that is always there.

Theory of operation. paho-mqtt is run through its interface for external event loops, on one thread
of ours: everything of it (calls, callbacks, the socket) happens there and nowhere else, so nothing
of it needs a lock. The methods of :class:`PahoClient` only put a command into a queue and wake the
thread by a byte through a socket pair. (paho-mqtt's own thread would leave that pair behind, waits
by ``select``, which knows file descriptors below 1024 alone, and its acknowledgements may overtake
the return of the call they belong to.) The thread ends with the connection, and takes everything
with it: socket, subscriptions, futures. Nothing reconnects.

What paho-mqtt does not tell is seen by :mod:`fleetgate.device.mqtt_socket`. That shows PUBACK when
its last byte is read, which is after everything that came before it was delivered.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fleetgate.device import client_ids, client_state, tls
from fleetgate.device.client_state import Answered, Attempt, ClientState
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import BadRequest, ConnectionFailed
from fleetgate.device.in_flight import MOST, InFlight, send_with_paho
from fleetgate.device.mqtt_client import OnLost, OnMessage, begun
from fleetgate.device.mqtt_socket import MqttContext, Watch
from fleetgate.device.paho_endings import (
    failed_opening,
    how_it_ended,
    kind_of_end,
    ping_seconds,
    why_failed,
)

logger = logging.getLogger("fleetgate.device")

SESSION_SECONDS = 3600
"""How long the server keeps a session on MQTT 5 without ``clean``: AWS IoT's own default."""

_GOODBYE_SECONDS: Final = 1.0
_LONGEST_PAUSE: Final = 5.0


def connect(
    endpoint: Endpoint, credentials: AnyCredentials, client_id: str, *, clean: bool = True
) -> PahoClient:
    """Connect to `endpoint` and wait until the server has agreed.

    Without `clean` the server goes on with the session it has of this client id, if any.

    Raises ConnectionFailed with what went wrong: the file that cannot be used, name, TCP, proxy,
    TLS, or what the server said to CONNECT; BadRequest for a key on a token, which Python's TLS
    cannot use.
    """
    client_ids.check(client_id)
    context = MqttContext.of(endpoint, files(credentials))
    client = PahoClient(endpoint, client_id, context)
    client.open(clean=clean)
    return client


def files(credentials: AnyCredentials) -> Credentials:
    """`credentials`, if they are files. Raises BadRequest."""
    if isinstance(credentials, Credentials):
        return credentials
    raise BadRequest(
        f"the key `{credentials.key}` is on the token `{credentials.token}`, and Python's TLS "
        "needs it in a file; connect with fleetgate.device.awscrt_client"
    )


class PahoClient:
    """An :class:`~fleetgate.device.mqtt_client.MqttClient`; made by :func:`connect`."""

    def __init__(self, endpoint: Endpoint, client_id: str, context: MqttContext) -> None:
        self._endpoint = endpoint
        self._client_id = client_id
        self._context = context
        self._state = ClientState()
        self._opened = begun()
        self._closed = begun()
        self._commands: deque[Callable[[paho.Client], None]] = deque()
        self._acknowledging: dict[int, Answered] = {}
        self._in_flight = InFlight()
        context.watch.on_puback = self._in_flight.acknowledge
        self._largest: int | None = None
        self._why: str | None = None
        self._hang_up_at: float | None = None
        self._hears, self._wakes = socket.socketpair()
        self._hears.setblocking(False)
        self._wakes.setblocking(False)

    # --- the interface; any thread ---

    def subscribe(self, topic_filter: str, qos: int, on_message: OnMessage) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.subscribe`."""

        def send(mqtt: paho.Client) -> int | None:
            if self._endpoint.mqtt_version == 5:
                return mqtt.subscribe(topic_filter, options=SubscribeOptions(qos))[1]
            return mqtt.subscribe(topic_filter, qos)[1]

        return self._send(self._state.subscribing(topic_filter, qos, on_message), send)

    def unsubscribe(self, topic_filter: str) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.unsubscribe`."""
        attempt = self._state.unsubscribing(topic_filter)
        return self._send(attempt, lambda mqtt: mqtt.unsubscribe(topic_filter)[1])

    def publish(self, topic: str, payload: bytes, qos: int) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.publish`."""
        version = self._endpoint.mqtt_version
        attempt = self._state.publishing(topic, payload, qos, version, self._largest)
        if qos == 0:
            return self._send(attempt, lambda mqtt: mqtt.publish(topic, payload, 0).mid)

        def run(mqtt: paho.Client) -> None:
            attempt.begin()
            self._in_flight.publish(
                lambda: send_with_paho(mqtt, topic, payload), attempt.acknowledged
            )

        if not attempt.future.done():
            self._do(run)
        return attempt.future

    def disconnect(self) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.disconnect`."""

        def run(mqtt: paho.Client) -> None:
            self._why = self._why or "this client disconnected"
            self._hang_up_at = time.monotonic() + _GOODBYE_SECONDS
            mqtt.disconnect()

        self._do(run)
        return self._closed

    def on_lost(self, listener: OnLost) -> Callable[[], None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.on_lost`."""
        return self._state.on_lost(listener)

    def _send(self, attempt: Attempt, send: Callable[[paho.Client], int | None]) -> Future[None]:
        """`send` returns the packet's id, or None when the connection has ended."""

        def run(mqtt: paho.Client) -> None:
            attempt.begin()
            packet_id = send(mqtt)
            if packet_id is not None:
                self._acknowledging[packet_id] = attempt.acknowledged

        if not attempt.future.done():
            self._do(run)
        return attempt.future

    def _do(self, command: Callable[[paho.Client], None]) -> None:
        self._commands.append(command)
        with contextlib.suppress(OSError):  # it has enough bytes to wake up, or has ended
            self._wakes.send(b"\0")

    # --- connecting; the caller's thread ---

    def open(self, *, clean: bool) -> None:
        """Connect; see :func:`connect`, which is the only one to call it."""
        mqtt: paho.Client | None = None
        try:
            mqtt = self._dial(clean=clean)
            thread = threading.Thread(
                target=self._run, args=(mqtt,), name=f"mqtt-{self._client_id}", daemon=True
            )
            thread.start()
        except BaseException:
            self._end(mqtt)
            raise
        try:
            self._opened.result(self._endpoint.connect_timeout)
        except TimeoutError:
            self._context.hang_up()
            raise client_state.no_answer(self._endpoint, self._client_id) from None
        except BaseException:
            self._context.hang_up()
            raise
        finally:
            if not self._opened.done() or self._opened.exception() is not None:
                thread.join()

    def _dial(self, *, clean: bool) -> paho.Client:
        endpoint = self._endpoint
        version = endpoint.mqtt_version
        mqtt = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=MQTTProtocolVersion(version),
            clean_session=clean if version == 4 else None,
            reconnect_on_failure=False,
        )
        mqtt.tls_set_context(self._context)
        mqtt.max_inflight_messages_set(MOST)
        dial_by(mqtt, endpoint)
        # that it is set makes paho-mqtt leave writing to the thread
        mqtt.on_socket_register_write = _nothing
        mqtt.on_connect = self._on_connect
        mqtt.on_message = self._on_message
        mqtt.on_subscribe = self._on_subscribe
        mqtt.on_unsubscribe = self._on_unsubscribe
        mqtt.on_publish = self._on_publish
        more = connect_options(endpoint, clean=clean)
        host, port = self._context.address
        try:
            mqtt.connect(host, port, endpoint.keep_alive, **more)
        except ConnectionFailed:
            raise
        except (OSError, ValueError) as error:
            raise tls.unreachable(error, endpoint) from error
        return mqtt

    # --- paho's side; the thread alone ---

    def _run(self, mqtt: paho.Client) -> None:
        try:
            self._exchange(mqtt)
        except Exception as error:
            # A library that stumbles over what it was sent is the end of this connection alone.
            logger.exception("event=mqtt_client_failed client_id=%r", self._client_id)
            self._why = self._why or why_failed(error)
        finally:
            self._end(mqtt)

    def _exchange(self, mqtt: paho.Client) -> None:
        """Read, write and run commands until paho-mqtt has closed its socket."""
        stream = self._context.stream
        assert stream is not None  # noqa: S101 - paho-mqtt has connected it
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            selector.register(self._hears, selectors.EVENT_READ)
            writing = False
            while mqtt.socket() is not None:
                wants_to_write = mqtt.want_write()
                if wants_to_write != writing:
                    writing = wants_to_write
                    events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
                    selector.modify(stream, events)
                ready = selector.select(self._patience())
                for key, events in ready:
                    if key.fileobj is self._hears:
                        with contextlib.suppress(BlockingIOError):
                            self._hears.recv(4096)
                    elif events & selectors.EVENT_READ:
                        self._read(mqtt)
                while self._commands and mqtt.socket() is not None:
                    self._commands.popleft()(mqtt)
                self._in_flight.go_on()
                if mqtt.want_write():
                    mqtt.loop_write()
                mqtt.loop_misc()
                if self._hang_up_at is not None and time.monotonic() >= self._hang_up_at:
                    self._context.hang_up()

    def _patience(self) -> float:
        """Seconds. paho-mqtt looks whether a ping is due when it is asked to, and only then."""
        pause = ping_seconds(self._context.watch, self._endpoint) / 4
        pause = min(pause or _LONGEST_PAUSE, _LONGEST_PAUSE)
        if self._hang_up_at is None:
            return pause
        return min(pause, max(self._hang_up_at - time.monotonic(), 0.0))

    def _read(self, mqtt: paho.Client) -> None:
        """Everything that is there: what TLS has already decrypted wakes nobody up."""
        while True:
            mqtt.loop_read()
            stream = mqtt.socket()
            if stream is None or not self._context.stream or not self._context.stream.pending():
                return

    def _end(self, mqtt: paho.Client | None) -> None:
        why = how_it_ended(self._context.watch, self._client_id, self._endpoint, self._why, mqtt)
        if mqtt is not None:
            for event in ("on_connect", "on_message", "on_subscribe", "on_unsubscribe"):
                setattr(mqtt, event, None)
            mqtt.on_publish = None
        if self._context.stream is not None:
            self._context.stream.close()
        self._hears.close()
        self._wakes.close()
        self._commands.clear()
        self._acknowledging.clear()
        if not self._opened.done():
            self._opened.set_exception(
                failed_opening(self._context.watch, self._endpoint, self._client_id, why)
            )
        self._state.lose(why, kind_of_end(self._context.watch))
        self._closed.set_result(None)

    def _on_connect(
        self, mqtt: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, more: Any
    ) -> None:
        if not reason.is_failure and not self._opened.done():
            self._largest = getattr(more, "MaximumPacketSize", None)
            self._in_flight.most = agree(mqtt, self._context.watch, self._endpoint)
            self._opened.set_result(None)

    def _on_message(self, _mqtt: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self._state.deliver(message.topic, bytes(message.payload), retained=message.retain)

    def _on_subscribe(
        self, _mqtt: Any, _data: Any, packet_id: int, reasons: list[ReasonCode], more: Any
    ) -> None:
        # more than one code would be against the protocol: one filter was asked for
        self._acknowledge(packet_id, max(each.value for each in reasons), more)

    def _on_unsubscribe(
        self, _mqtt: Any, _data: Any, packet_id: int, _reasons: Any, more: Any
    ) -> None:
        self._acknowledge(packet_id, 0, more)

    def _on_publish(
        self, _mqtt: Any, _data: Any, packet_id: int, reason: ReasonCode, more: Any
    ) -> None:
        # a message at QoS 0 was sent; of PUBACK the Watch knows already
        self._acknowledge(packet_id, reason.value, more)

    def _acknowledge(self, packet_id: int, code: int, more: Any) -> None:
        acknowledged = self._acknowledging.pop(packet_id, None)
        if acknowledged is not None:
            acknowledged(code, getattr(more, "ReasonString", None))


def dial_by(mqtt: Any, endpoint: Endpoint) -> None:
    """Let paho-mqtt's client connect by :func:`fleetgate.device.tls.open_tcp`.

    Its own way grants the time-out to each address of the name anew, and takes proxies of the
    environment that nobody has named. It calls a method for it that is not documented; should that
    be called otherwise one day, it is the old way again.
    """
    mqtt.connect_timeout = endpoint.connect_timeout
    mqtt._create_socket_connection = lambda: tls.open_tcp(endpoint)  # noqa: SLF001


def agree(mqtt: Any, watch: Watch, endpoint: Endpoint) -> int:
    """Let paho-mqtt's client do as CONNACK says; returns how many messages may be in flight.

    It is to ping early enough for the server's time, whoever asks it whether a ping is due: MQTT 5
    section 3.1.2.10 has it that a packet is sent within that. It refuses to be told by its property
    once it is connected; paho-mqtt 2.1 ignores what the server says.
    """
    mqtt._keepalive = ping_seconds(watch, endpoint)  # noqa: SLF001
    return watch.agreed("receive_maximum", MOST)


def connect_options(endpoint: Endpoint, *, clean: bool) -> dict[str, Any]:
    """What paho-mqtt's ``connect`` takes on MQTT 5 and refuses on 3.1.1."""
    if endpoint.mqtt_version != 5:
        return {}
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if not clean:
        properties.SessionExpiryInterval = SESSION_SECONDS
    return {"clean_start": clean, "properties": properties}


def _nothing(*_arguments: Any) -> None:
    pass
