"""What the provisioning operations need of an MQTT client, whichever library it is of.

An :class:`MqttClient` is one established connection. Adapters exist for paho-mqtt, awscrt and
aiomqtt; anything else with these five methods will do. They are thread-safe and answer through
:class:`concurrent.futures.Future`, which serves blocking users (``future.result(timeout)``) and
asynchronous ones (``asyncio.wrap_future``) alike.

Threads. Every method may be called from any thread, also from within a callback. None of them
waits for the network, and none raises for what happens there: that is in the future. A client has
at most the threads that its library has, and none once the future of
:meth:`~MqttClient.disconnect` is done.

Callbacks. `on_message`, the listeners of :meth:`~MqttClient.on_lost` and what is added to a future
with ``add_done_callback`` run on a thread of the client's choice: its network thread, the event
loop's, or the calling one when the future is done already. The client holds no lock meanwhile. A
callback must not block, and must never wait for a future of the same client. What it raises is
logged by the client and changes nothing else.

Order. Messages are delivered one after the other, in the order in which they arrived; every
delivery counts, also the repeated one of QoS 1. What arrived before an acknowledgement is delivered
before the future of that is done: who publishes a request when its subscriptions are granted must
not take a message that is older than the request for its answer. A message that arrived after an
acknowledgement may be delivered before or after that future is done. Packets are sent in the order
of the calls, except for messages at QoS 1 that have to wait (see below).

Messages at QoS 1 do not wait for each other: one that is not acknowledged holds up nothing. Only
when as many are unacknowledged as the server takes (Receive Maximum, MQTT 5 section 4.9; 65535
otherwise) do further ones wait for their turn, in the client. Such a message is sent when its turn
comes, if that comes before the connection ends, also when nobody waits for its future any more: a
future says nothing of that, and several may wait for it. (awscrt lets everything that is called
later wait behind it, on MQTT 5.) Who must not ask too late disconnects.

Retained messages. A message whose RETAIN flag is set is never delivered. The server had kept it
and sends it because of the subscription, so it is older than that, and older than whatever the
subscriber is about to ask: an answer to somebody's former question. A message that is published
later has the flag cleared on its way, though its publisher had set it (MQTT 3.1.1 section 3.3.1.3;
MQTT 5 section 3.3.1.3, with Retain As Published 0, which a client has to leave as it is).

Futures. They are running from the beginning, so that ``cancel()`` does nothing and ``result()``
never raises CancelledError: who loses interest just stops waiting. They have no time-out of their
own, and each is done at the latest when the connection ends. What they raise is a
:class:`~fleetgate.device.errors.ProvisioningError`:

* ConnectionLost: the connection ended before the acknowledgement, or had ended before the call;
  it is PacketTooLarge, for these and for the listeners, when the client gave the connection up
  because the server sent more than ``max_packet_size``;
* NotAuthorized: the server refused the subscription or the message. It is the class for every
  reason code of 0x80 and above of SUBACK and PUBACK, and ``reason_code`` tells which;
* BadRequest: this cannot be sent by MQTT (a bad topic or QoS, a larger packet than is allowed).

The end. A client does not reconnect: subscriptions and requests would be gone unnoticed. When the
connection ends, be it lost, closed by the server or by :meth:`~MqttClient.disconnect`, first every
future that is not done fails with ConnectionLost, then every listener of
:meth:`~MqttClient.on_lost` is called once. Of what is called afterwards, the futures fail at once,
except that of ``disconnect``, which succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

from fleetgate.device.errors import ConnectionLost, NotAuthorized
from fleetgate.mqtt.reasons import Reason

OnMessage: TypeAlias = Callable[[str, bytes], None]
"""Called with topic and payload of every message that matches the subscription."""

OnLost: TypeAlias = Callable[[ConnectionLost], None]
"""Called with why the connection ended."""


def begun() -> Future[None]:
    """A new future as the methods of an :class:`MqttClient` return them: it cannot be cancelled."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def failed(error: Exception) -> Future[None]:
    """A future that has failed with `error` already."""
    future = begun()
    future.set_exception(error)
    return future


def done() -> Future[None]:
    """A future that has succeeded already."""
    future = begun()
    future.set_result(None)
    return future


def subscription_refused(topic_filter: str, code: int, said: str | None = None) -> NotAuthorized:
    """The error for a SUBACK whose `code` (MQTT 3.1.1 section 3.9.3, MQTT 5 section 3.9.3) is 0x80
    or above. `said` is the server's reason string, if any (MQTT 5)."""
    return NotAuthorized(
        f"the server refused the subscription to `{topic_filter}` ({_reason(code, said)}); "
        f"does the certificate's policy allow iot:Subscribe on `topicfilter/{topic_filter}`?",
        topic=topic_filter,
        action="iot:Subscribe",
        reason_code=code,
    )


def message_refused(topic: str, code: int, said: str | None = None) -> NotAuthorized:
    """The error for a PUBACK whose `code` (MQTT 5 section 3.4.2.1) is 0x80 or above.

    `said` is the server's reason string, if any.
    """
    return NotAuthorized(
        f"the server refused the message to `{topic}` ({_reason(code, said)}); "
        f"does the certificate's policy allow iot:Publish on `topic/{topic}`?",
        topic=topic,
        action="iot:Publish",
        reason_code=code,
    )


def _reason(code: int, said: str | None) -> str:
    try:
        word = Reason(code).name.replace("_", " ").lower()
    except ValueError:
        word = "unknown code"
    return f"{word}, {code:#04x}" + (f": {said}" if said else "")


class MqttClient(Protocol):
    """A connected MQTT client. The module says what holds for threads, callbacks and futures."""

    def subscribe(self, topic_filter: str, qos: int, on_message: OnMessage) -> Future[None]:
        """Subscribe to `topic_filter`; done when the server has granted it (at whichever QoS).

        `on_message` is called for every message whose topic matches, from before the future is
        done until that of :meth:`unsubscribe` is. It is forgotten again when the future fails.
        Subscribing to the same filter again replaces it; the acknowledgement of an UNSUBSCRIBE that
        was sent before then forgets nothing.

        Raises (the future) NotAuthorized naming the filter and ``iot:Subscribe``, ConnectionLost,
        BadRequest.
        """
        ...

    def unsubscribe(self, topic_filter: str) -> Future[None]:
        """Take a subscription back; done at UNSUBACK, whatever code is in it.

        Harmless for a filter that is not subscribed to: the packet is sent all the same.
        Raises (the future) ConnectionLost, BadRequest.
        """
        ...

    def publish(self, topic: str, payload: bytes, qos: int) -> Future[None]:
        """Publish a message; done at PUBACK (`qos` 1), or when it was handed to the socket (0).

        Raises (the future) NotAuthorized naming the topic and ``iot:Publish`` when PUBACK says no
        (MQTT 5; on MQTT 3.1.1 the server can only close the connection), ConnectionLost,
        BadRequest.
        """
        ...

    def disconnect(self) -> Future[None]:
        """Say goodbye and close; done when socket and threads of the client are gone.

        Never fails, may be called again, and after the connection was lost.
        """
        ...

    def on_lost(self, listener: OnLost) -> Callable[[], Any]:
        """Call `listener` once when the connection ends, in whichever way; at once if it has.

        Calling what is returned takes the listener back; harmless when that is too late.
        """
        ...
