"""SUBSCRIBE, UNSUBSCRIBE and their answers to bytes and back (sections 3.8 to 3.11).

Decoders take the flags and the bytes behind the fixed header, encoders return whole packets;
both raise ProtocolError only. They are called through :mod:`fleetgate.mqtt.codec`.
"""

from __future__ import annotations

from fleetgate.errors import ProtocolError
from fleetgate.mqtt import reasons
from fleetgate.mqtt.fields import (
    malformed,
    pack_string,
    read_byte,
    read_string,
)
from fleetgate.mqtt.packets import (
    Properties,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
)
from fleetgate.mqtt.parts import (
    check_code,
    check_qos,
    finish,
    frame,
    pack_packet_id,
    read_packet_id,
)
from fleetgate.mqtt.properties import pack_properties, read_properties
from fleetgate.mqtt.reasons import Reason


def _check_subscription(subscription: Subscription) -> None:
    if not subscription.topic_filter:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "empty topic filter (4.7.3)")
    check_qos(subscription.qos, "SUBSCRIBE")
    if not 0 <= subscription.retain_handling <= 2:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR, f"retain handling {subscription.retain_handling} (3.8.3.1)"
        )
    if subscription.no_local and subscription.topic_filter.startswith("$share/"):
        raise ProtocolError(Reason.PROTOCOL_ERROR, "no local on a shared subscription (3.8.3.1)")


def decode_subscribe(_flags: int, body: bytes, version: Version) -> Subscribe:
    packet_id, at = read_packet_id(body, 0)
    properties: Properties = {}
    if version == 5:
        properties, at = read_properties(body, at, Subscribe.code)
    subscriptions = []
    while at < len(body):
        topic_filter, at = read_string(body, at)
        options, at = read_byte(body, at)
        if options & (0xC0 if version == 5 else 0xFC):
            malformed(f"reserved subscription options are set: 0x{options:02x} (3.8.3.1)")
        subscription = Subscription(
            topic_filter, options & 3, options & 4 == 4, options & 8 == 8, options >> 4 & 3
        )
        _check_subscription(subscription)
        subscriptions.append(subscription)
    if not subscriptions:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a topic filter (3.8.3)")
    return Subscribe(packet_id, tuple(subscriptions), properties)


def encode_subscribe(packet: Subscribe, version: Version) -> bytes:
    if not packet.subscriptions:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a topic filter (3.8.3)")
    body = bytearray(pack_packet_id(packet.packet_id))
    if version == 5:
        body += pack_properties(packet.properties, Subscribe.code)
    for subscription in packet.subscriptions:
        _check_subscription(subscription)
        options = subscription.qos
        if version == 5:
            options |= subscription.no_local << 2 | subscription.retain_as_published << 3
            options |= subscription.retain_handling << 4
        body += pack_string(subscription.topic_filter)
        body.append(options)
    return frame(0x82, body)


def decode_suback(_flags: int, body: bytes, version: Version) -> Suback:
    packet_id, at = read_packet_id(body, 0)
    properties: Properties = {}
    if version == 5:
        properties, at = read_properties(body, at, Suback.code)
    return Suback(packet_id, _check_suback(tuple(body[at:]), version), properties)


def _check_suback(codes: tuple[int, ...], version: Version) -> tuple[int, ...]:
    if not codes:
        malformed("SUBACK without a reason code (3.9.3)")
    allowed = reasons.SUBACK_CODES if version == 5 else reasons.SUBACK_RETURN_CODES
    for code in codes:
        check_code(code, allowed, "SUBACK")
    return codes


def encode_suback(packet: Suback, version: Version) -> bytes:
    body = pack_packet_id(packet.packet_id)
    if version == 5:
        body += pack_properties(packet.properties, Suback.code)
    return frame(0x90, body + bytes(_check_suback(packet.reason_codes, version)))


def decode_unsubscribe(_flags: int, body: bytes, version: Version) -> Unsubscribe:
    packet_id, at = read_packet_id(body, 0)
    properties: Properties = {}
    if version == 5:
        properties, at = read_properties(body, at, Unsubscribe.code)
    topic_filters = []
    while at < len(body):
        topic_filter, at = read_string(body, at)
        topic_filters.append(topic_filter)
    return Unsubscribe(packet_id, _check_filters(tuple(topic_filters)), properties)


def _check_filters(topic_filters: tuple[str, ...]) -> tuple[str, ...]:
    if not topic_filters:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE without a topic filter (3.10.3)")
    if "" in topic_filters:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "empty topic filter (4.7.3)")
    return topic_filters


def encode_unsubscribe(packet: Unsubscribe, version: Version) -> bytes:
    body = bytearray(pack_packet_id(packet.packet_id))
    if version == 5:
        body += pack_properties(packet.properties, Unsubscribe.code)
    for topic_filter in _check_filters(packet.topic_filters):
        body += pack_string(topic_filter)
    return frame(0xA2, body)


def decode_unsuback(_flags: int, body: bytes, version: Version) -> Unsuback:
    packet_id, at = read_packet_id(body, 0)
    if version == 4:
        finish(body, at)
        return Unsuback(packet_id)
    properties, at = read_properties(body, at, Unsuback.code)
    return Unsuback(packet_id, _check_unsuback(tuple(body[at:])), properties)


def _check_unsuback(codes: tuple[int, ...]) -> tuple[int, ...]:
    if not codes:
        malformed("UNSUBACK without a reason code (3.11.3)")
    for code in codes:
        check_code(code, reasons.UNSUBACK_CODES, "UNSUBACK")
    return codes


def encode_unsuback(packet: Unsuback, version: Version) -> bytes:
    body = pack_packet_id(packet.packet_id)
    if version == 5:
        body += pack_properties(packet.properties, Unsuback.code)
        body += bytes(_check_unsuback(packet.reason_codes))
    return frame(0xB0, body)
