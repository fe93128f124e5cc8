"""The two MQTT clients of awscrt, for 3.1.1 and for 5, brought to one form.

awscrt reconnects by itself. Both classes here stop that as soon as the connection is lost: within
the callback that tells of it, because the client for 3.1.1 would otherwise first wait for its next
attempt to be over.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, Protocol, TypeAlias

from fleetgate.device import client_state, extras
from fleetgate.device.client_state import Answered
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import ConnectionFailed
from fleetgate.device.paho_client import SESSION_SECONDS

Failed: TypeAlias = Callable[[Exception], None]
"""Called when an operation was not acknowledged."""

_MAX_PING_MS: Final = 10_000
_STOPPED_WITHIN: Final = 5.0
_NO_ACK_TIMEOUT: Final = 86_400  # seconds; whoever waits has a time-out of their own

_CLOSED = {"AWS_ERROR_MQTT_UNEXPECTED_HANGUP", "AWS_IO_SOCKET_CLOSED", "AWS_IO_BROKEN_PIPE"}
_BROKEN = {
    "AWS_ERROR_SHORT_BUFFER",  # a packet that is shorter than what has to be in it
    "AWS_ERROR_MQTT_PROTOCOL_ERROR",
    "AWS_ERROR_MQTT_INVALID_PACKET_TYPE",
    "AWS_ERROR_MQTT_INVALID_QOS",
    "AWS_ERROR_MQTT_INVALID_REMAINING_LENGTH",
    "AWS_ERROR_MQTT_INVALID_RESERVED_BITS",
    "AWS_ERROR_MQTT5_DECODE_PROTOCOL_ERROR",
}
_PING = {"AWS_ERROR_MQTT_TIMEOUT", "AWS_ERROR_MQTT5_PING_RESPONSE_TIMEOUT"}


class Events(Protocol):
    """Who is told what happens, on awscrt's thread."""

    def agreed(self, largest: int | None) -> None:
        """CONNACK has come; `largest` is the largest packet that the server takes."""

    def refused(self, error: ConnectionFailed) -> None:
        """CONNACK has come and says no."""

    def failed(self, error: Exception) -> None:
        """There is no connection."""

    def lost(self, why: str) -> None:
        """The connection has ended."""

    def message(self, topic: str | None, payload: bytes, *, retained: bool) -> None:
        """A message has come; its topic is None when it could not be decoded."""


class Transport(Protocol):
    """One connection. An operation calls one of its last two arguments once, on any thread."""

    def start(self) -> None: ...

    def subscribe(
        self, topic_filter: str, qos: int, answered: Answered, failed: Failed
    ) -> None: ...

    def unsubscribe(self, topic_filter: str, answered: Answered, failed: Failed) -> None: ...

    def publish(
        self, topic: str, payload: bytes, qos: int, answered: Answered, failed: Failed
    ) -> None: ...

    def stop(self) -> None:
        """Disconnect, wait for it, and let go of everything. Not on awscrt's thread."""
        ...


def ping_timeout_ms(endpoint: Endpoint) -> int:
    """How long a PINGRESP may take; awscrt wants it to be less than keep-alive.

    On MQTT 3.1.1 it is the time for CONNACK as well.
    """
    most = _MAX_PING_MS
    if endpoint.mqtt_version == 4:
        most = max(most, int(endpoint.connect_timeout * 1000))
    return min(most, endpoint.keep_alive * 500)


def why_lost(error: Any, endpoint: Endpoint) -> str:
    """What ended a connection, in words."""
    name = getattr(error, "name", "")
    if name in _CLOSED:
        return "the server closed the connection"
    if name in _PING:
        return f"the server did not answer a ping within {ping_timeout_ms(endpoint) / 1000:g} s"
    if name in _BROKEN:
        return f"the server broke the MQTT protocol ({words(error)})"
    return words(error)


def words(error: Exception) -> str:
    """What awscrt says of an error, without its name in capitals unless there is nothing else."""
    message = str(getattr(error, "message", "") or error).strip()
    return message.rstrip(".") or type(error).__name__


class Transport311:
    """A connection of ``awscrt.mqtt``: MQTT 3.1.1."""

    def __init__(
        self,
        events: Events,
        endpoint: Endpoint,
        client_id: str,
        bootstrap: Any,
        tls: Any,
        common: dict[str, Any],
        *,
        clean: bool,
    ) -> None:
        self._mqtt = extras.load("awscrt.mqtt", "awscrt")
        self._events = events
        self._endpoint = endpoint
        self._client_id = client_id
        self._stopping: Future[Any] | None = None
        self._connection = self._mqtt.Connection(
            self._mqtt.Client(bootstrap, tls),
            endpoint.host,
            endpoint.port,
            client_id,
            clean_session=clean,
            keep_alive_secs=endpoint.keep_alive,
            ping_timeout_ms=ping_timeout_ms(endpoint),
            on_connection_interrupted=self._interrupted,
            on_connection_success=self._success,
            **common,
        )
        self._connection.on_message(self._message)

    def start(self) -> None:
        self._connection.connect().add_done_callback(self._connected)

    def _connected(self, future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            self._events.agreed(None)
        elif error.args and isinstance(error.args[0], self._mqtt.ConnectReturnCode):
            code = error.args[0].value
            self._events.refused(
                client_state.said_refused(self._endpoint, self._client_id, code, None)
            )
        else:
            self._events.failed(_exception(error))

    def _success(self, connection: Any, **_more: Any) -> None:
        # A connection that comes after the first was lost: it must not be (see the module).
        if self._stopping is not None:
            connection.disconnect()

    def _interrupted(self, connection: Any, error: Exception, **_more: Any) -> None:
        if self._stopping is None:
            self._stopping = connection.disconnect()
        self._events.lost(why_lost(error, self._endpoint))

    def _message(self, topic: str | None, payload: bytes, *, retain: bool, **_more: Any) -> None:
        self._events.message(topic, bytes(payload), retained=retain)

    def subscribe(self, topic_filter: str, qos: int, answered: Answered, failed: Failed) -> None:
        future, _ = self._connection.subscribe(topic_filter, self._mqtt.QoS(qos))
        refused = self._mqtt.SubscribeError

        def done(future: Future[Any]) -> None:
            error = future.exception()
            if isinstance(error, refused):
                answered(0x80, None)  # the only code that there is (3.1.1 section 3.9.3)
            elif error is not None:
                failed(_exception(error))
            else:
                answered(0, None)

        future.add_done_callback(done)

    def unsubscribe(self, topic_filter: str, answered: Answered, failed: Failed) -> None:
        future, _ = self._connection.unsubscribe(topic_filter)
        _tell(future, answered, failed)

    def publish(
        self, topic: str, payload: bytes, qos: int, answered: Answered, failed: Failed
    ) -> None:
        future, _ = self._connection.publish(topic, payload, self._mqtt.QoS(qos))
        _tell(future, answered, failed)

    def stop(self) -> None:
        stopping = self._stopping or self._connection.disconnect()
        self._connection = self._stopping = None
        with contextlib.suppress(TimeoutError):
            error = stopping.exception(_STOPPED_WITHIN)
            if error is not None:
                # It was not connected. What was raised within awscrt refers to the connection,
                # which would live, and its threads with it, until the next collection of garbage.
                error.__traceback__ = None


class Transport5:
    """A client of ``awscrt.mqtt5``: MQTT 5."""

    def __init__(
        self,
        events: Events,
        endpoint: Endpoint,
        client_id: str,
        bootstrap: Any,
        tls: Any,
        common: dict[str, Any],
        *,
        clean: bool,
    ) -> None:
        self._mqtt5 = mqtt5 = extras.load("awscrt.mqtt5", "awscrt")
        self._events = events
        self._endpoint = endpoint
        self._client_id = client_id
        self._stopped = threading.Event()
        self._connected = False
        behaviour = mqtt5.ClientSessionBehaviorType
        proxy = common.get("proxy_options")
        self._client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name=endpoint.host,
                port=endpoint.port,
                bootstrap=bootstrap,
                tls_ctx=tls,
                socket_options=common["socket_options"],
                http_proxy_options=proxy,
                disable_metrics=common["disable_metrics"],
                connect_options=mqtt5.ConnectPacket(
                    client_id=client_id,
                    keep_alive_interval_sec=endpoint.keep_alive,
                    session_expiry_interval_sec=None if clean else SESSION_SECONDS,
                    request_problem_information=True,
                ),
                session_behavior=behaviour.CLEAN if clean else behaviour.REJOIN_ALWAYS,
                offline_queue_behavior=(
                    mqtt5.ClientOperationQueueBehaviorType.FAIL_ALL_ON_DISCONNECT
                ),
                ping_timeout_ms=ping_timeout_ms(endpoint),
                connack_timeout_ms=int(endpoint.connect_timeout * 1000),
                ack_timeout_sec=_NO_ACK_TIMEOUT,
                on_publish_callback_fn=self._message,
                on_lifecycle_event_connection_success_fn=self._success,
                on_lifecycle_event_connection_failure_fn=self._failure,
                on_lifecycle_event_disconnection_fn=self._disconnection,
                on_lifecycle_event_stopped_fn=lambda _event: self._stopped.set(),
            )
        )

    def start(self) -> None:
        self._client.start()

    def _success(self, event: Any) -> None:
        self._connected = True
        self._events.agreed(event.negotiated_settings.maximum_packet_size_to_server)

    def _failure(self, event: Any) -> None:
        self._halt()
        connack = event.connack_packet
        if connack is not None and connack.reason_code:
            self._events.refused(
                client_state.said_refused(
                    self._endpoint, self._client_id, connack.reason_code, connack.reason_string
                )
            )
        else:
            self._events.failed(event.exception)

    def _disconnection(self, event: Any) -> None:
        self._halt()
        packet = event.disconnect_packet
        server_said = packet is not None and "DISCONNECT_RECEIVED" in getattr(
            event.exception, "name", ""
        )
        if server_said:
            why = client_state.said_disconnect(
                packet.reason_code or 0, packet.reason_string, self._client_id
            )
        else:
            why = why_lost(event.exception, self._endpoint)
        self._events.lost(why)

    def _halt(self) -> None:
        client = self._client
        if client is not None:
            client.stop()

    def _message(self, event: Any) -> None:
        packet = event.publish_packet
        self._events.message(
            packet.topic, bytes(packet.payload or b""), retained=bool(packet.retain)
        )

    def subscribe(self, topic_filter: str, qos: int, answered: Answered, failed: Failed) -> None:
        mqtt5 = self._mqtt5
        subscription = mqtt5.Subscription(topic_filter, mqtt5.QoS(qos))
        future = self._client.subscribe(mqtt5.SubscribePacket([subscription]))

        def good(packet: Any) -> None:
            codes = [0x80 if each is None else int(each) for each in packet.reason_codes]
            answered(max(codes), packet.reason_string)

        _tell(future, lambda _code, _said: good(future.result()), failed)

    def unsubscribe(self, topic_filter: str, answered: Answered, failed: Failed) -> None:
        future = self._client.unsubscribe(self._mqtt5.UnsubscribePacket([topic_filter]))
        _tell(future, answered, failed)

    def publish(
        self, topic: str, payload: bytes, qos: int, answered: Answered, failed: Failed
    ) -> None:
        mqtt5 = self._mqtt5
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS(qos))
        future = self._client.publish(packet)

        def good(puback: Any) -> None:
            answered(int(puback.reason_code or 0) if qos else 0, puback.reason_string)

        _tell(future, lambda _code, _said: good(future.result().puback), failed)

    def stop(self) -> None:
        self._halt()
        self._stopped.wait(_STOPPED_WITHIN)
        self._client = None


def _tell(future: Future[Any], answered: Answered, failed: Failed) -> None:
    def done(future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            answered(0, None)
        else:
            failed(_exception(error))

    future.add_done_callback(done)


def _exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(str(error))
