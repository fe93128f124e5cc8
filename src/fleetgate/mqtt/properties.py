"""The properties of MQTT 5 packets (MQTT 5.0 section 2.2.2).

One table says everything: number, name, type, the packets that may carry it, the values it may
have. Properties are a ``dict`` from name to value; ``user_property`` is a list of pairs, and
``subscription_identifier`` a list of integers on PUBLISH (section 3.3.2.3.8 allows several) and
one integer on SUBSCRIBE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fleetgate.errors import ProtocolError
from fleetgate.mqtt import fields
from fleetgate.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from fleetgate.mqtt.reasons import Reason

WILL: Final = 0
"""Stands for the will inside a CONNECT where a packet's code is asked for."""


@dataclass(frozen=True, slots=True)
class Property:
    """One row of the table in MQTT 5.0 section 2.2.2.2. `values` is an inclusive range."""

    number: int
    name: str
    read: Callable[[bytes, int], tuple[Any, int]]
    pack: Callable[[Any], bytes]
    kind: type
    packets: frozenset[int]
    values: tuple[int, int] | None


def _integer(size: int) -> Callable[[Any], bytes]:
    return lambda value: fields.pack_integer(value, size)


_BYTE = (fields.read_byte, _integer(1), int)
_TWO = (fields.read_two, _integer(2), int)
_FOUR = (fields.read_four, _integer(4), int)
_VARINT = (fields.read_varint, fields.pack_varint, int)
_STRING = (fields.read_string, fields.pack_string, str)
_BINARY = (fields.read_binary, fields.pack_binary, bytes)
_PAIR = (fields.read_pair, fields.pack_pair, tuple)

_MESSAGE = (Publish.code, WILL)
_OPENING = (Connect.code, Connack.code)
_AUTHENTICATION = (*_OPENING, Auth.code)
_SUBSCRIBED = (Publish.code, Subscribe.code)
_ANSWERS = (
    *(Connack.code, Puback.code, Pubrec.code, Pubrel.code, Pubcomp.code),
    *(Suback.code, Unsuback.code, Disconnect.code, Auth.code),
)
_ALL = (*_ANSWERS, *_MESSAGE, Connect.code, Subscribe.code, Unsubscribe.code)
_FLAG = (0, 1)

PROPERTIES: Final = tuple(
    Property(number, name, read, pack, kind, frozenset(packets), values)
    for number, name, (read, pack, kind), packets, values in (
        (0x01, "payload_format_indicator", _BYTE, _MESSAGE, _FLAG),
        (0x02, "message_expiry_interval", _FOUR, _MESSAGE, None),
        (0x03, "content_type", _STRING, _MESSAGE, None),
        (0x08, "response_topic", _STRING, _MESSAGE, None),
        (0x09, "correlation_data", _BINARY, _MESSAGE, None),
        (0x0B, "subscription_identifier", _VARINT, _SUBSCRIBED, (1, fields.MAX_VARINT)),
        (0x11, "session_expiry_interval", _FOUR, (*_OPENING, Disconnect.code), None),
        (0x12, "assigned_client_identifier", _STRING, (Connack.code,), None),
        (0x13, "server_keep_alive", _TWO, (Connack.code,), None),
        (0x15, "authentication_method", _STRING, _AUTHENTICATION, None),
        (0x16, "authentication_data", _BINARY, _AUTHENTICATION, None),
        (0x17, "request_problem_information", _BYTE, (Connect.code,), _FLAG),
        (0x18, "will_delay_interval", _FOUR, (WILL,), None),
        (0x19, "request_response_information", _BYTE, (Connect.code,), _FLAG),
        (0x1A, "response_information", _STRING, (Connack.code,), None),
        (0x1C, "server_reference", _STRING, (Connack.code, Disconnect.code), None),
        (0x1F, "reason_string", _STRING, _ANSWERS, None),
        (0x21, "receive_maximum", _TWO, _OPENING, (1, 0xFFFF)),
        (0x22, "topic_alias_maximum", _TWO, _OPENING, None),
        (0x23, "topic_alias", _TWO, (Publish.code,), (1, 0xFFFF)),
        (0x24, "maximum_qos", _BYTE, (Connack.code,), _FLAG),
        (0x25, "retain_available", _BYTE, (Connack.code,), _FLAG),
        (0x26, "user_property", _PAIR, _ALL, None),
        (0x27, "maximum_packet_size", _FOUR, _OPENING, (1, 0xFFFFFFFF)),
        (0x28, "wildcard_subscription_available", _BYTE, (Connack.code,), _FLAG),
        (0x29, "subscription_identifier_available", _BYTE, (Connack.code,), _FLAG),
        (0x2A, "shared_subscription_available", _BYTE, (Connack.code,), _FLAG),
    )
)
_BY_NUMBER: Final = {row.number: row for row in PROPERTIES}
_BY_NAME: Final = {row.name: row for row in PROPERTIES}


def _repeats(row: Property, packet: int) -> bool:
    return row.number == 0x26 or (row.number == 0x0B and packet == Publish.code)


def _check_value(row: Property, value: Any) -> None:
    """Protocol errors of single values, from the sections of the properties (3.x.2.3)."""
    if row.values is not None and not row.values[0] <= value <= row.values[1]:
        reason = Reason.TOPIC_ALIAS_INVALID if row.number == 0x23 else Reason.PROTOCOL_ERROR
        low, high = row.values
        raise ProtocolError(reason, f"{row.name} must be {low} to {high}, got {value}")
    if row.number == 0x08 and (not value or "+" in value or "#" in value):
        raise ProtocolError(
            Reason.PROTOCOL_ERROR,
            f"response_topic {fields.shown(value)} must be a topic name without wildcards",
        )


def _check_together(properties: Properties) -> None:
    """Authentication data needs a method (MQTT 5.0 section 3.1.2.11.10)."""
    if "authentication_data" in properties and "authentication_method" not in properties:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR, "authentication_data without authentication_method"
        )


def read_properties(body: bytes, at: int, packet: int) -> tuple[Properties, int]:
    """Read the property length and the properties at `at` of a packet with code `packet`.

    Returns them and the position after them. Raises ProtocolError: 0x81 for what is unknown,
    belongs to another packet or is cut short (section 2.2.2.2), 0x82 (or 0x94 for a topic alias)
    for a property given twice or out of its range.
    """
    length, at = fields.read_varint(body, at)
    if not length:
        return {}, at
    end = at + length
    if end > len(body):
        fields.malformed(f"the packet ends inside its {length} bytes of properties")
    found: Properties = {}
    while at < end:
        number, at = fields.read_varint(body, at)
        row = _BY_NUMBER.get(number)
        if row is None:
            fields.malformed(f"0x{number:02x} is not a property of MQTT 5")
        if packet not in row.packets:
            fields.malformed(f"property {row.name} does not belong into this packet")
        value, at = row.read(body, at)
        _check_value(row, value)
        if _repeats(row, packet):
            found.setdefault(row.name, []).append(value)
        elif row.name in found:
            raise ProtocolError(Reason.PROTOCOL_ERROR, f"property {row.name} is given twice")
        else:
            found[row.name] = value
    if at != end:
        fields.malformed("the last property is longer than the property length says")
    _check_together(found)
    return found, at


def pack_properties(properties: Properties, packet: int) -> bytes:
    """The property length and `properties` as bytes, for a packet with code `packet`.

    Raises ProtocolError for what `read_properties` would refuse.
    """
    if not properties:
        return b"\0"
    packed = bytearray()
    for name, value in properties.items():
        row = _BY_NAME.get(name)
        if row is None:
            fields.malformed(f"{fields.shown(name)} is not a property of MQTT 5")
        if packet not in row.packets:
            fields.malformed(f"property {name} does not belong into this packet")
        for item in value if _repeats(row, packet) else (value,):
            if not isinstance(item, row.kind):
                fields.malformed(f"property {name} must be {row.kind.__name__}")
            _check_value(row, item)
            packed.append(row.number)
            packed += row.pack(item)
    _check_together(properties)
    return fields.pack_varint(len(packed)) + packed
