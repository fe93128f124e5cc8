"""What a client may ask for once it is connected, packet by packet.

Each rule has the answer that MQTT 5.0 and AWS IoT have for it. In 3.1.1, which has no DISCONNECT
from the server, the connection is closed without a word; the log says why.
Sources: AWS IoT developer guide ("MQTT", "Reserved topics", "Publish/Subscribe policy
examples"), AWS IoT Core quotas, MQTT 5.0 chapter 3.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fleetgate.broker.session import Granted
from fleetgate.domain.policy import PUBLISH, SUBSCRIBE
from fleetgate.errors import ProtocolError
from fleetgate.gateway import fault_injection, opening
from fleetgate.gateway.lifecycle import Cause, Event, tell_subscriptions
from fleetgate.gateway.services import MAX_PAYLOAD
from fleetgate.mqtt.fields import shown
from fleetgate.mqtt.packets import (
    Auth,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from fleetgate.mqtt.reasons import Reason
from fleetgate.mqtt.topics import check_filter, check_topic

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection

logger = logging.getLogger("fleetgate.gateway")

_MAX_FILTERS: Final = 8
"""Topic filters in one SUBSCRIBE (AWS IoT Core quotas)."""
_ABSURD_FILTERS: Final = 64
"""Topic filters in one SUBSCRIBE or UNSUBSCRIBE that end the connection: more than it can have."""
_MAX_SUBSCRIPTIONS: Final = 50
"""Subscriptions of one connection (AWS IoT Core quotas)."""
_SERVED: Final = ("$aws/certificates/", "$aws/provisioning-templates/", "$aws/events/")
"""The reserved topics on which something can arrive."""


def handle(connection: MqttConnection, packet: Packet) -> None:
    """Do what `packet` asks. Raises ProtocolError when it breaks a rule that ends everything."""
    handler = _HANDLERS[type(packet)]
    if (faults := connection.services.faults) is None:
        handler(connection, packet)
    else:
        fault_injection.handle(faults, connection, packet, handler)


def _publish(connection: MqttConnection, packet: Publish) -> None:
    topic = packet.topic
    if packet.qos > 1:
        connection.fail(Reason.QOS_NOT_SUPPORTED, f"PUBLISH with QoS {packet.qos}")
        return
    if packet.retain:
        connection.fail(Reason.RETAIN_NOT_SUPPORTED, "PUBLISH with retain: not offered")
        return
    if len(packet.payload) > MAX_PAYLOAD:
        connection.fail(
            Reason.PACKET_TOO_LARGE,
            f"PUBLISH with {len(packet.payload)} bytes of payload, more than {MAX_PAYLOAD}",
        )
        return
    try:
        check_topic(topic)
    except ProtocolError as error:
        connection.fail(error.reason, error.message)
        return
    decision = connection.rights.decide(PUBLISH, "topic/" + topic)
    if not decision.allowed:
        if packet.packet_id is not None and connection.version == 5:
            reason = {"reason_string": decision.reason[:500]}
            connection.outgoing.send(Puback(packet.packet_id, Reason.NOT_AUTHORIZED, reason))
        connection.fail(Reason.NOT_AUTHORIZED, decision.reason, cause=Cause.AUTH_ERROR)
        return
    reserved = topic.startswith("$")
    if reserved and not connection.services.is_request(topic):
        connection.fail(Reason.TOPIC_NAME_INVALID, f"the topic {shown(topic)} is reserved")
        return
    if packet.packet_id is not None:
        connection.outgoing.send(Puback(packet.packet_id))
    if reserved:
        try:
            connection.answer(topic, packet.payload)
        except ProtocolError as error:
            connection.fail(error.reason, error.message)
        return
    connection.router.publish(
        *(topic, packet.payload, packet.qos, packet.properties),
        publisher=connection.client_id,
        now=connection.services.clock(),
    )


def _subscribe(connection: MqttConnection, packet: Subscribe) -> None:
    if "subscription_identifier" in packet.properties:
        connection.fail(
            Reason.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED, "SUBSCRIBE with an identifier"
        )
        return
    wanted = packet.subscriptions
    if connection.version == 5 and any(each.qos > 1 for each in wanted):
        connection.fail(Reason.QOS_NOT_SUPPORTED, "SUBSCRIBE with QoS 2")
        return
    codes: list[int] = []
    granted: list[str] = []
    causes: dict[str, None] = {}  # each one once, in order
    if len(wanted) > _MAX_FILTERS:
        cause = f"SUBSCRIBE with {len(wanted)} topic filters, more than {_MAX_FILTERS}"
        if len(wanted) > _ABSURD_FILTERS:
            connection.fail(Reason.QUOTA_EXCEEDED, cause)
            return
        causes[cause] = None
        codes = [_refused(connection, "", Reason.QUOTA_EXCEEDED, cause)] * len(wanted)
        wanted = ()
    for each in wanted:
        try:
            codes.append(_subscribe_one(connection, each))
            granted.append(each.topic_filter)
        except ProtocolError as error:
            causes[error.message] = None
            codes.append(_refused(connection, each.topic_filter, error.reason, error.message))
    properties: dict[str, Any] = {"reason_string": "; ".join(causes)[:500]} if causes else {}
    connection.outgoing.send(Suback(packet.packet_id, tuple(codes), properties))
    tell_subscriptions(Event.SUBSCRIBED, connection, granted)


def _refused(connection: MqttConnection, topic_filter: str, reason: int, cause: str) -> int:
    """Log that a subscription is refused; the code for SUBACK."""
    logger.info(
        "event=subscribe-refused client=%r certificate=%s topic_filter=%s reason=0x%02x cause=%r",
        connection.client_id,
        connection.rights.identity.logged,
        shown(topic_filter),
        reason,
        cause,
    )
    return reason if connection.version == 5 else Reason.UNSPECIFIED_ERROR


def _subscribe_one(connection: MqttConnection, wanted: Subscription) -> int:
    """The granted QoS. Raises ProtocolError with the reason for SUBACK."""
    topic_filter = wanted.topic_filter
    session = connection.session
    assert session is not None  # noqa: S101  # there is one as soon as packets are handled
    check_filter(topic_filter)
    if topic_filter.startswith("$share/"):
        raise ProtocolError(
            Reason.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, "shared subscriptions are not offered"
        )
    if wanted.qos > 1:
        raise ProtocolError(Reason.QOS_NOT_SUPPORTED, "QoS 2 is not offered")
    decision = connection.rights.decide(SUBSCRIBE, "topicfilter/" + topic_filter)
    if not decision.allowed:
        raise ProtocolError(Reason.NOT_AUTHORIZED, decision.reason)
    if topic_filter.startswith("$") and not topic_filter.startswith(_SERVED):
        raise ProtocolError(
            Reason.NOT_AUTHORIZED, f"nothing is offered under {shown(topic_filter)}"
        )
    if topic_filter not in session.filters and len(session.filters) >= _MAX_SUBSCRIPTIONS:
        raise ProtocolError(Reason.QUOTA_EXCEEDED, f"more than {_MAX_SUBSCRIPTIONS} subscriptions")
    connection.router.subscribe(session, topic_filter, Granted(wanted.qos, wanted.no_local))
    return wanted.qos


def _unsubscribe(connection: MqttConnection, packet: Unsubscribe) -> None:
    session = connection.session
    assert session is not None  # noqa: S101  # there is one as soon as packets are handled
    if (count := len(packet.topic_filters)) > _ABSURD_FILTERS:
        connection.fail(
            Reason.QUOTA_EXCEEDED,
            f"UNSUBSCRIBE with {count} topic filters, more than {_ABSURD_FILTERS}",
        )
        return
    ended = [
        topic_filter
        for topic_filter in packet.topic_filters
        if connection.router.unsubscribe(session, topic_filter)
    ]
    codes: tuple[int, ...] = ()
    if connection.version == 5:
        # AWS IoT never says 0x11, no subscription existed (developer guide, "MQTT 5 reason
        # codes").
        codes = (Reason.SUCCESS,) * len(packet.topic_filters)
    connection.outgoing.send(Unsuback(packet.packet_id, codes))
    tell_subscriptions(Event.UNSUBSCRIBED, connection, ended)


def _ping(connection: MqttConnection, _packet: Pingreq) -> None:
    connection.outgoing.send(Pingresp())


def _disconnect(connection: MqttConnection, packet: Disconnect) -> None:
    asked = packet.properties.get("session_expiry_interval")
    if asked is None or connection.rights.identity.is_temporary_claim:
        expiry = None  # what CONNACK granted
    else:
        expiry = opening.cap_expiry(asked)
    connection.goodbye(with_will=packet.reason_code != Reason.SUCCESS, expiry_interval=expiry)


def _no_quality_2(connection: MqttConnection, packet: Pubrec | Pubrel | Pubcomp) -> None:
    connection.fail(
        Reason.QOS_NOT_SUPPORTED, f"{type(packet).__name__.upper()}, which belongs to QoS 2"
    )


def _no_authentication(connection: MqttConnection, _packet: Auth) -> None:
    connection.fail(Reason.PROTOCOL_ERROR, "AUTH: enhanced authentication is not offered")


_HANDLERS: Final[dict[type[Packet], Callable[[MqttConnection, Any], None]]] = {
    Publish: _publish,
    Subscribe: _subscribe,
    Unsubscribe: _unsubscribe,
    Pingreq: _ping,
    Disconnect: _disconnect,
    Pubrec: _no_quality_2,
    Pubrel: _no_quality_2,
    Pubcomp: _no_quality_2,
    Auth: _no_authentication,
}
