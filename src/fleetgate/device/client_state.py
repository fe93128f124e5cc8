"""What every adapter for an MQTT library keeps: who waits for what, who listens to what.

:mod:`fleetgate.device.mqtt_client` promises more than a library does: each future is done exactly
once, all of them fail when the connection ends, listeners are called once, callbacks run without
a lock. :class:`ClientState` does that part for all adapters alike. It does no I/O and knows no
library. Every method may be called from any thread. An adapter sends what is tried, and tells the
:class:`Attempt` of it what became of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import BadRequest, ConnectionFailed, ConnectionLost
from fleetgate.device.mqtt_client import (
    OnLost,
    OnMessage,
    begun,
    failed,
    message_refused,
    subscription_refused,
)
from fleetgate.errors import ProtocolError
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.packets import Connack, Disconnect, Publish, Version
from fleetgate.mqtt.reasons import ConnectReturnCode, Reason
from fleetgate.mqtt.topics import check_filter, check_topic, matches, split_shared

logger = logging.getLogger("fleetgate.device")

Answered: TypeAlias = Callable[[int, str | None], None]
"""Called with the reason code of an acknowledgement (0 for a good one) and the reason string."""

_REFUSED: Final = 0x80  # reason codes from here on are failures (MQTT 5 section 2.4)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A SUBSCRIBE, UNSUBSCRIBE or PUBLISH and its `future`; nothing is to be sent when that is
    done already.

    Else ``begin()`` comes first, immediately before it is given to the library and in that order;
    then ``acknowledged(code, said)``, with reason code and reason string (0 and None where there
    are none), or ``fail(error)``; or neither, when the connection ends.
    """

    future: Future[None]
    begin: Callable[[], None]
    acknowledged: Answered
    fail: Callable[[Exception], None]


class ClientState:
    """The futures, listeners and subscriptions of one connection.

    `lost` is why the connection ended, None as long as it has not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Future[None], str] = {}
        self._subscriptions: dict[str, OnMessage] = {}
        self._listeners: dict[object, OnLost] = {}
        self._lost: tuple[str, type[ConnectionLost]] | None = None

    # --- futures ---

    def begin(self, waits_for: str) -> Future[None]:
        """A new future, which fails when the connection ends, or has already if that has ended.

        `waits_for` ends the sentence "the server closed the connection before ...".
        """
        future = begun()
        with self._lock:
            lost = self._lost
            if lost is None:
                self._waiting[future] = waits_for
        if lost is not None:
            why, kind = lost
            future.set_exception(kind(f"the connection has ended already: {why}"))
        return future

    def succeed(self, future: Future[None]) -> None:
        """Done, unless it is already."""
        if self._take(future):
            future.set_result(None)

    def fail(self, future: Future[None], error: Exception) -> None:
        """Failed, unless it is done already."""
        if self._take(future):
            future.set_exception(error)

    def _take(self, future: Future[None]) -> bool:
        with self._lock:
            return self._waiting.pop(future, None) is not None

    # --- attempts ---

    def subscribing(self, topic_filter: str, qos: int, on_message: OnMessage) -> Attempt:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.subscribe`."""
        future = self._begin_unless(
            refuse_subscription(topic_filter, qos),
            f"the subscription to `{topic_filter}` was acknowledged; does the certificate's policy "
            f"allow iot:Subscribe on `topicfilter/{topic_filter}`?",
        )
        listener = partial(on_message)  # an object of its own, though the callback may be the same

        def acknowledged(code: int, said: str | None) -> None:
            if code < _REFUSED:
                self.succeed(future)
            else:
                fail(subscription_refused(topic_filter, code, said))

        def fail(error: Exception) -> None:
            self._forget(topic_filter, listener)
            self.fail(future, error)

        return Attempt(future, partial(self._listen, topic_filter, listener), acknowledged, fail)

    def unsubscribing(self, topic_filter: str) -> Attempt:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.unsubscribe`."""
        waits_for = f"the end of the subscription to `{topic_filter}` was acknowledged"
        future = self._begin_unless(refuse_filter(topic_filter), waits_for)
        listener: OnMessage | None = None

        def begin() -> None:
            nonlocal listener
            with self._lock:
                listener = self._subscriptions.get(topic_filter)

        def acknowledged(_code: int, _said: str | None) -> None:
            self._forget(topic_filter, listener)
            self.succeed(future)

        return Attempt(future, begin, acknowledged, partial(self.fail, future))

    def publishing(
        self, topic: str, payload: bytes, qos: int, version: Version, largest: int | None
    ) -> Attempt:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.publish`.

        `largest` is the largest packet in bytes that the server takes, None for any.
        """
        future = self._begin_unless(
            refuse_message(topic, payload, qos, version, largest),
            f"the message to `{topic}` was acknowledged; does the certificate's policy allow "
            f"iot:Publish on `topic/{topic}`?",
        )

        def acknowledged(code: int, said: str | None) -> None:
            if code < _REFUSED:
                self.succeed(future)
            else:
                self.fail(future, message_refused(topic, code, said))

        return Attempt(future, lambda: None, acknowledged, partial(self.fail, future))

    def _begin_unless(self, error: BadRequest | None, waits_for: str) -> Future[None]:
        return self.begin(waits_for) if error is None else failed(error)

    # --- the end ---

    def lose(self, why: str, kind: type[ConnectionLost] = ConnectionLost) -> None:
        """The connection has ended; only the first reason counts. Everybody gets a `kind`."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost = (why, kind)
            waiting = list(self._waiting.items())
            listeners = list(self._listeners.values())
            self._waiting.clear()
            self._listeners.clear()
            self._subscriptions.clear()
        for future, waits_for in waiting:
            future.set_exception(kind(f"{why} before {waits_for}"))
        for listener in listeners:
            self._call(listener, kind(why))

    @property
    def is_lost(self) -> bool:
        return self._lost is not None

    def on_lost(self, listener: OnLost) -> Callable[[], None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.on_lost`."""
        key = object()
        with self._lock:
            lost = self._lost
            if lost is None:
                self._listeners[key] = listener
        if lost is not None:
            why, kind = lost
            self._call(listener, kind(why))

        def forget() -> None:
            with self._lock:
                self._listeners.pop(key, None)

        return forget

    def _call(self, listener: OnLost, error: ConnectionLost) -> None:
        try:
            listener(error)
        except Exception:
            logger.exception("event=listener_failed listener=%r", listener)

    # --- messages ---

    def _listen(self, topic_filter: str, on_message: OnMessage) -> None:
        with self._lock:
            if self._lost is None:
                self._subscriptions[topic_filter] = on_message

    def _forget(self, topic_filter: str, on_message: OnMessage | None) -> None:
        """Do not deliver to `on_message` any more; nothing if another has replaced it."""
        with self._lock:
            if self._subscriptions.get(topic_filter) is on_message:
                self._subscriptions.pop(topic_filter, None)

    def deliver(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Give a message to everybody who subscribed to it; `retained` is its RETAIN flag.

        With that flag it was kept by the server and is older than the subscription (MQTT 3.1.1 and
        5, section 3.3.1.3), hence no answer to anything, and nobody gets it.
        """
        if retained:
            logger.info("event=retained-ignored topic=%r bytes=%d", topic, len(payload))
            return
        with self._lock:
            receivers = [
                on_message
                for topic_filter, on_message in self._subscriptions.items()
                if matches(split_shared(topic_filter)[1], topic)
            ]
        for on_message in receivers:
            try:
                on_message(topic, payload)
            except Exception:
                logger.exception("event=message_callback_failed topic=%r", topic)


# --- what can be sent ---


def refuse_subscription(topic_filter: str, qos: int) -> BadRequest | None:
    """Why this is no subscription that could be sent, if so."""
    if qos not in (0, 1):
        return BadRequest(f"messages are received at QoS 0 or 1, not {qos!r}")
    return refuse_filter(topic_filter)


def refuse_filter(topic_filter: str) -> BadRequest | None:
    """Why this is no topic filter, if so."""
    try:
        check_filter(topic_filter)
    except ProtocolError as error:
        return BadRequest(error.message, topic=topic_filter)
    return None


def refuse_message(
    topic: str, payload: bytes, qos: int, version: Version, largest: int | None
) -> BadRequest | None:
    """Why this message cannot be sent, if so; `largest` is the largest packet the server takes."""
    if qos not in (0, 1):
        return BadRequest(f"a message is published at QoS 0 or 1, not {qos!r}", topic=topic)
    try:
        check_topic(topic)
        packet = Publish(topic, payload, qos, packet_id=1 if qos else None)
        size = len(encode(packet, version))
    except ProtocolError as error:
        return BadRequest(error.message, topic=topic)
    if largest is not None and size > largest:
        return BadRequest(
            f"the message to `{topic}` is a packet of {size} bytes, and the server takes at most "
            f"{largest} (its Maximum Packet Size)",
            topic=topic,
        )
    return None


# --- what the server said ---


def too_large(size: int, largest: int) -> str:
    """Why the connection is given up when a packet of `size` bytes comes."""
    return (
        f"the server sent a packet of {size} bytes, and this device takes at most {largest} "
        "(max_packet_size)"
    )


def disconnected(packet: Disconnect, client_id: str) -> str:
    """What a DISCONNECT of the server means (MQTT 5 section 3.14.2.1)."""
    said = packet.properties.get("reason_string")
    return said_disconnect(packet.reason_code, str(said) if said else None, client_id)


def said_disconnect(code: int, said: str | None, client_id: str) -> str:
    """As :func:`disconnected`, of reason code and reason string."""
    hint = ""
    if code == Reason.SESSION_TAKEN_OVER:
        hint = f"; another connection uses the client id `{client_id}`"
    return f"the server disconnected ({_words(code, 5, said)}){hint}"


def refused(endpoint: Endpoint, client_id: str, packet: Connack) -> ConnectionFailed:
    """The error for a CONNACK that says no, with what usually is the cause."""
    said = packet.properties.get("reason_string")
    return said_refused(endpoint, client_id, packet.reason_code, str(said) if said else None)


def said_refused(
    endpoint: Endpoint, client_id: str, code: int, said: str | None
) -> ConnectionFailed:
    """As :func:`refused`, of code and reason string."""
    version = endpoint.mqtt_version
    if version == 4 and code == ConnectReturnCode.UNACCEPTABLE_PROTOCOL_VERSION:
        hint, retry = "does the server speak MQTT 3.1.1? try mqtt_version=5", False
    elif version == 5 and code == Reason.UNSUPPORTED_PROTOCOL_VERSION:
        hint, retry = "does the server speak MQTT 5? try mqtt_version=4", False
    elif code in _BUSY[version]:
        hint, retry = "try again later", True
    elif code in _BAD_CLIENT_ID[version]:
        hint, retry = f"may a client be called `{client_id}`?", False
    else:
        hint, retry = may_connect(client_id), True  # a certificate may become active
    error = ConnectionFailed(
        f"{endpoint.shown} refused the connection ({_words(code, version, said)}); {hint}",
        retry=retry,
    )
    error.refused = code in _NOT_ALLOWED[version] | _BAD_CLIENT_ID[version]
    return error


_BUSY: dict[Version, set[int]] = {
    4: {ConnectReturnCode.SERVER_UNAVAILABLE},
    5: {
        Reason.SERVER_UNAVAILABLE,
        Reason.SERVER_BUSY,
        Reason.QUOTA_EXCEEDED,
        Reason.CONNECTION_RATE_EXCEEDED,
    },
}
_NOT_ALLOWED: dict[Version, set[int]] = {
    4: {ConnectReturnCode.NOT_AUTHORIZED, ConnectReturnCode.BAD_USER_NAME_OR_PASSWORD},
    5: {Reason.NOT_AUTHORIZED, Reason.BAD_USER_NAME_OR_PASSWORD, Reason.BANNED},
}
_BAD_CLIENT_ID: dict[Version, set[int]] = {
    4: {ConnectReturnCode.IDENTIFIER_REJECTED},
    5: {Reason.CLIENT_IDENTIFIER_NOT_VALID},
}


def closed_instead(endpoint: Endpoint, client_id: str, why: str) -> ConnectionFailed:
    """The error for a connection that ended before CONNACK."""
    return ConnectionFailed(
        f"{endpoint.shown} did not answer CONNECT: {why}; {may_connect(client_id)}"
    )


def no_answer(endpoint: Endpoint, client_id: str, waited: float | None = None) -> ConnectionFailed:
    """The error for a CONNACK that did not come in time: ``endpoint.connect_timeout`` seconds,
    unless `waited` says otherwise."""
    timeout = endpoint.connect_timeout if waited is None else waited
    return ConnectionFailed(
        f"{endpoint.shown} did not answer CONNECT within {timeout:g} s; {may_connect(client_id)}",
        waited=timeout,
    )


def may_connect(client_id: str) -> str:
    """What usually is the cause when a server does not want a client, as a question."""
    return (
        "is the client certificate registered and ACTIVE, does its policy allow iot:Connect on "
        f"`client/{client_id}`, and is this client id not in use elsewhere?"
    )


def _words(code: int, version: Version, said: str | None) -> str:
    """A reason code in words: ``not authorized, 0x87: what the server said``."""
    try:
        name = (Reason(code) if version == 5 else ConnectReturnCode(code)).name
    except ValueError:
        name = "unknown code"
    words = f"{name.replace('_', ' ').lower()}, {code:#04x}"
    return f"{words}: {said}" if said else words
