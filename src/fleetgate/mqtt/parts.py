"""What several packets have in common: identifiers, outcomes, topic names, the frame.

``check_*`` functions serve decoding and encoding alike. All raise ProtocolError only.
"""

from __future__ import annotations

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.fields import (
    malformed,
    pack_varint,
    read_byte,
    read_two,
    shown,
)
from fleetgate.mqtt.packets import (
    Properties,
)
from fleetgate.mqtt.properties import pack_properties, read_properties
from fleetgate.mqtt.reasons import Reason


def frame(first: int, body: bytes | bytearray) -> bytes:
    """A packet: first byte, remaining length, body (section 2.1)."""
    return bytes((first,)) + pack_varint(len(body)) + body


def read_packet_id(body: bytes, at: int) -> tuple[int, int]:
    """A packet identifier, which is not 0 (section 2.2.1)."""
    packet_id, at = read_two(body, at)
    if not packet_id:
        malformed("packet identifier 0 (2.2.1)")
    return packet_id, at


def pack_packet_id(packet_id: int | None) -> bytes:
    """A packet identifier in two bytes (section 2.2.1)."""
    if packet_id is None or not 0 < packet_id < 0x10000:
        malformed(f"packet identifier {packet_id} is not in 1 to 65535 (2.2.1)")
    return packet_id.to_bytes(2, "big")


def finish(body: bytes, at: int) -> None:
    """Refuse bytes after the last field."""
    if at != len(body):
        malformed(f"{len(body) - at} bytes left over at the end of the packet")


def check_code(reason_code: int, allowed: frozenset[int], name: str) -> None:
    """Refuse a reason code that the packet `name` cannot carry (section 2.4)."""
    if reason_code not in allowed:
        malformed(f"reason code 0x{reason_code:02x} does not belong to {name}")


def check_topic_name(topic: str) -> None:
    """Section 4.7.1.1: wildcards are for filters; section 4.7.3: at least one character."""
    if not topic:
        raise ProtocolError(Reason.PROTOCOL_ERROR, "empty topic name (4.7.3)")
    if "+" in topic or "#" in topic:
        raise ProtocolError(
            Reason.TOPIC_NAME_INVALID, f"topic name {shown(topic)} has a wildcard (3.3.2.1)"
        )


def check_qos(qos: int, name: str) -> None:
    """Refuse what is not QoS 0, 1 or 2 (section 4.3)."""
    if not 0 <= qos <= 2:
        malformed(f"{name} with QoS {qos} (4.3)")


def read_outcome(body: bytes, at: int, code: int) -> tuple[int, Properties]:
    """Reason code and properties to the end of the packet; both may be left out (3.4.2)."""
    reason_code = 0
    properties: Properties = {}
    if at < len(body):
        reason_code, at = read_byte(body, at)
    if at < len(body):
        properties, at = read_properties(body, at, code)
    finish(body, at)
    return reason_code, properties


def pack_outcome(reason_code: int, properties: Properties, code: int) -> bytes:
    """Reason code and properties, as short as they can be (3.4.2)."""
    if properties:
        return bytes((reason_code,)) + pack_properties(properties, code)
    return bytes((reason_code,)) if reason_code else b""
