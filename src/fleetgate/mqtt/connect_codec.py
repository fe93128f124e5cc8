"""CONNECT, CONNACK, DISCONNECT and AUTH to bytes and back (sections 3.1, 3.2, 3.14, 3.15).

Decoders take the flags and the bytes behind the fixed header, encoders return whole packets;
both raise ProtocolError only. They are called through :mod:`fleetgate.mqtt.codec`.
"""

from __future__ import annotations

from fleetgate.errors import ProtocolError
from fleetgate.mqtt import reasons
from fleetgate.mqtt.fields import (
    malformed,
    pack_binary,
    pack_integer,
    pack_string,
    read_binary,
    read_byte,
    read_string,
    read_two,
    shown,
)
from fleetgate.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Properties,
    Version,
    Will,
)
from fleetgate.mqtt.parts import (
    check_code,
    check_qos,
    check_topic_name,
    finish,
    frame,
    pack_outcome,
    read_outcome,
)
from fleetgate.mqtt.properties import WILL, pack_properties, read_properties
from fleetgate.mqtt.reasons import Reason


def decode_connect(_flags: int, body: bytes, _version: Version) -> Connect:
    name, at = read_binary(body, 0)
    level, at = read_byte(body, at)
    if name != b"MQTT" or level not in (4, 5):
        raise ProtocolError(
            Reason.UNSUPPORTED_PROTOCOL_VERSION,
            f"protocol {shown(name.decode(errors='replace'))} level {level}: "
            "only `MQTT` levels 4 (3.1.1) and 5 are served (3.1.2.2)",
        )
    version: Version = 5 if level == 5 else 4
    flags, at = read_byte(body, at)
    if flags & 0x01:
        malformed("the reserved flag of CONNECT is set (3.1.2.3)")
    if not flags & 0x04 and flags & 0x38:
        malformed("will QoS or will retain without a will (3.1.2.6)")
    if version == 4 and flags & 0xC0 == 0x40:
        malformed("a password without a user name (MQTT-3.1.2-22 of 3.1.1)")
    keep_alive, at = read_two(body, at)
    properties: Properties = {}
    if version == 5:
        properties, at = read_properties(body, at, Connect.code)
    client_id, at = read_string(body, at)
    will = None
    if flags & 0x04:
        will_properties: Properties = {}
        if version == 5:
            will_properties, at = read_properties(body, at, WILL)
        topic, at = read_string(body, at)
        payload, at = read_binary(body, at)
        will = Will(topic, payload, flags >> 3 & 3, bool(flags & 0x20), will_properties)
        _check_will(will)
    username = password = None
    if flags & 0x80:
        username, at = read_string(body, at)
    if flags & 0x40:
        password, at = read_binary(body, at)
    finish(body, at)
    clean = bool(flags & 0x02)
    return Connect(client_id, clean, keep_alive, username, password, will, version, properties)


def _check_will(will: Will) -> None:
    check_topic_name(will.topic)
    check_qos(will.qos, "will")


def encode_connect(packet: Connect, _version: Version) -> bytes:
    five = packet.version == 5
    if packet.password is not None and packet.username is None and not five:
        malformed("a password without a user name (MQTT-3.1.2-22 of 3.1.1)")
    flags = 0x02 if packet.clean_start else 0
    payload = bytearray(pack_string(packet.client_id))
    if packet.will is not None:
        _check_will(packet.will)
        flags |= 0x04 | packet.will.qos << 3 | (0x20 if packet.will.retain else 0)
        if five:
            payload += pack_properties(packet.will.properties, WILL)
        payload += pack_string(packet.will.topic) + pack_binary(packet.will.payload)
    if packet.username is not None:
        flags |= 0x80
        payload += pack_string(packet.username)
    if packet.password is not None:
        flags |= 0x40
        payload += pack_binary(packet.password)
    body = bytearray(b"\x00\x04MQTT")
    body += bytes((packet.version, flags)) + pack_integer(packet.keep_alive, 2)
    if five:
        body += pack_properties(packet.properties, Connect.code)
    return frame(0x10, body + payload)


def _check_connack(session_present: bool, reason_code: int, version: Version) -> None:
    allowed = reasons.CONNACK_CODES if version == 5 else reasons.CONNACK_RETURN_CODES
    check_code(reason_code, allowed, "CONNACK")
    if session_present and reason_code:
        malformed("session present on a refusal (MQTT-3.2.2-6)")


def decode_connack(_flags: int, body: bytes, version: Version) -> Connack:
    flags, at = read_byte(body, 0)
    if flags > 1:
        malformed("reserved flags of CONNACK are set (3.2.2.1)")
    reason_code, at = read_byte(body, at)
    _check_connack(flags == 1, reason_code, version)
    properties: Properties = {}
    if version == 5:
        properties, at = read_properties(body, at, Connack.code)
    finish(body, at)
    return Connack(flags == 1, reason_code, properties)


def encode_connack(packet: Connack, version: Version) -> bytes:
    _check_connack(packet.session_present, packet.reason_code, version)
    body = bytes((packet.session_present, packet.reason_code))
    if version == 5:
        body += pack_properties(packet.properties, Connack.code)
    return frame(0x20, body)


def decode_disconnect(_flags: int, body: bytes, version: Version) -> Disconnect:
    if version == 4:
        finish(body, 0)
    reason_code, properties = read_outcome(body, 0, Disconnect.code)
    check_code(reason_code, reasons.DISCONNECT_CODES, "DISCONNECT")
    return Disconnect(reason_code, properties)


def encode_disconnect(packet: Disconnect, version: Version) -> bytes:
    if version == 4:
        return b"\xe0\x00"
    check_code(packet.reason_code, reasons.DISCONNECT_CODES, "DISCONNECT")
    return frame(0xE0, pack_outcome(packet.reason_code, packet.properties, Disconnect.code))


def _check_auth(reason_code: int, version: Version) -> None:
    if version == 4:
        malformed("MQTT 3.1.1 has no AUTH packet")
    check_code(reason_code, reasons.AUTH_CODES, "AUTH")


def decode_auth(_flags: int, body: bytes, version: Version) -> Auth:
    reason_code, properties = read_outcome(body, 0, Auth.code)
    _check_auth(reason_code, version)
    return Auth(reason_code, properties)


def encode_auth(packet: Auth, version: Version) -> bytes:
    _check_auth(packet.reason_code, version)
    return frame(0xF0, pack_outcome(packet.reason_code, packet.properties, Auth.code))
