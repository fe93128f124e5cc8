"""PUBLISH and its acknowledgements to bytes and back (sections 3.3 to 3.7).

Decoders take the flags and the bytes behind the fixed header, encoders return whole packets;
both raise ProtocolError only. They are called through :mod:`fleetgate.mqtt.codec`. PUBLISH is the
hot path: it reads its strings in place instead of through :mod:`fleetgate.mqtt.fields`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fleetgate.errors import ProtocolError
from fleetgate.mqtt import reasons
from fleetgate.mqtt.fields import (
    malformed,
    pack_string,
    pack_varint,
)
from fleetgate.mqtt.packets import (
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Version,
)
from fleetgate.mqtt.parts import (
    check_code,
    check_qos,
    check_topic_name,
    finish,
    frame,
    pack_outcome,
    pack_packet_id,
    read_outcome,
    read_packet_id,
)
from fleetgate.mqtt.properties import pack_properties, read_properties
from fleetgate.mqtt.reasons import Reason


def decode_publish(flags: int, body: bytes, version: Version) -> Publish:
    size = len(body)
    if size < 2:
        malformed("the packet ends inside the length of the topic name")
    at = 2 + (body[0] << 8 | body[1])
    if size < at:
        malformed("the packet ends inside the topic name")
    try:
        topic = body[2:at].decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(
            Reason.MALFORMED_PACKET, f"a topic name is not UTF-8: {error.reason}"
        ) from error
    if "\0" in topic:
        malformed("a topic name contains U+0000")
    packet_id = None
    qos = flags >> 1 & 3
    if qos:
        if qos == 3:
            malformed("PUBLISH with QoS 3 (3.3.1.2)")
        packet_id, at = read_packet_id(body, at)
    elif flags & 8:
        malformed("PUBLISH with QoS 0 and DUP (MQTT-3.3.1-2)")
    properties: Properties = {}
    if version == 5:
        if at < size and not body[at]:
            at += 1  # the common case: no properties
        else:
            properties, at = read_properties(body, at, 3)
    if not topic or "+" in topic or "#" in topic:
        _check_publish_topic(topic, properties)
    return Publish(topic, body[at:], qos, flags & 1 == 1, flags & 8 == 8, packet_id, properties)


def _check_publish_topic(topic: str, properties: Properties) -> None:
    """An empty topic name stands for a topic alias (3.3.2.1)."""
    if topic or "topic_alias" not in properties:
        check_topic_name(topic)


def encode_publish(packet: Publish, version: Version) -> bytes:
    topic = packet.topic
    qos = packet.qos
    check_qos(qos, "PUBLISH")
    _check_publish_topic(topic, packet.properties if version == 5 else {})
    first = 0x30 | qos << 1 | packet.retain
    head = pack_string(topic)
    if qos:
        head += pack_packet_id(packet.packet_id)
        if packet.dup:
            first |= 8
    elif packet.dup or packet.packet_id is not None:
        malformed("DUP or a packet identifier on a PUBLISH with QoS 0 (MQTT-3.3.1-2, 2.2.1)")
    if version == 5:
        head += pack_properties(packet.properties, 3)
    length = pack_varint(len(head) + len(packet.payload))
    return b"".join((bytes((first,)), length, head, packet.payload))


_Acknowledgement = TypeVar("_Acknowledgement", Puback, Pubrec, Pubrel, Pubcomp)


def _acknowledgement(
    kind: type[_Acknowledgement], allowed: frozenset[int], flags: int = 0
) -> tuple[
    Callable[[int, bytes, Version], _Acknowledgement],
    Callable[[_Acknowledgement, Version], bytes],
]:
    """Decoder and encoder of PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7)."""
    name = kind.__name__.upper()
    first = kind.code << 4 | flags

    def decode_one(_flags: int, body: bytes, version: Version) -> _Acknowledgement:
        packet_id, at = read_packet_id(body, 0)
        if at == len(body):
            return kind(packet_id)
        if version == 4:
            finish(body, at)
        reason_code, properties = read_outcome(body, at, kind.code)
        check_code(reason_code, allowed, name)
        return kind(packet_id, reason_code, properties)

    def encode_one(packet: _Acknowledgement, version: Version) -> bytes:
        body = pack_packet_id(packet.packet_id)
        if version == 5:
            check_code(packet.reason_code, allowed, name)
            body += pack_outcome(packet.reason_code, packet.properties, kind.code)
        return frame(first, body)

    return decode_one, encode_one


decode_puback, encode_puback = _acknowledgement(Puback, reasons.PUBACK_CODES)
decode_pubrec, encode_pubrec = _acknowledgement(Pubrec, reasons.PUBREC_CODES)
decode_pubrel, encode_pubrel = _acknowledgement(Pubrel, reasons.PUBREL_CODES, flags=2)
decode_pubcomp, encode_pubcomp = _acknowledgement(Pubcomp, reasons.PUBCOMP_CODES)
