"""The data representation of MQTT: integers, strings, binary data (section 1.5 of both versions).

``read_*`` functions take the bytes of one whole packet and a position and return the value with
the position after it; ``pack_*`` functions return the bytes of a value. Both raise ProtocolError
0x81 (malformed packet) for what the representation does not allow.
"""

from __future__ import annotations

from typing import NoReturn

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.reasons import Reason

MAX_VARINT = 268_435_455


def malformed(message: str) -> NoReturn:
    """Raise ProtocolError 0x81."""
    raise ProtocolError(Reason.MALFORMED_PACKET, message)


def shown(text: str) -> str:
    """`text` in back-ticks for a message: cut to 80 characters, unprintable ones replaced."""
    clean = "".join(char if char.isprintable() else "\ufffd" for char in text[:80])
    return f"`{clean}...`" if len(text) > 80 else f"`{clean}`"


def read_byte(body: bytes, at: int) -> tuple[int, int]:
    """A one byte integer."""
    if at >= len(body):
        malformed("the packet ends inside a one byte integer")
    return body[at], at + 1


def read_two(body: bytes, at: int) -> tuple[int, int]:
    """A two byte integer, big-endian (section 1.5.2)."""
    if at + 2 > len(body):
        malformed("the packet ends inside a two byte integer")
    return body[at] << 8 | body[at + 1], at + 2


def read_four(body: bytes, at: int) -> tuple[int, int]:
    """A four byte integer, big-endian (section 1.5.3)."""
    if at + 4 > len(body):
        malformed("the packet ends inside a four byte integer")
    return int.from_bytes(body[at : at + 4], "big"), at + 4


def read_varint(body: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer in its shortest form (MQTT 5.0 section 1.5.5)."""
    value = shift = 0
    for size in range(1, 5):
        digit, at = read_byte(body, at)
        value |= (digit & 0x7F) << shift
        if digit < 0x80:
            if digit == 0 and size > 1:
                malformed("a variable byte integer is longer than necessary")
            return value, at
        shift += 7
    malformed("a variable byte integer is longer than four bytes")


def read_binary(body: bytes, at: int) -> tuple[bytes, int]:
    """Binary data with its length in two bytes (section 1.5.6)."""
    length, at = read_two(body, at)
    end = at + length
    if end > len(body):
        malformed(f"the packet ends inside a field of {length} bytes")
    return body[at:end], end


def read_string(body: bytes, at: int) -> tuple[str, int]:
    """A UTF-8 string: no surrogates, nothing overlong, no U+0000 (MQTT 5.0 section 1.5.4)."""
    raw, at = read_binary(body, at)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(
            Reason.MALFORMED_PACKET, f"a string is not UTF-8: {error.reason}"
        ) from error
    if "\0" in text:
        malformed("a string contains U+0000")
    return text, at


def read_pair(body: bytes, at: int) -> tuple[tuple[str, str], int]:
    """A UTF-8 string pair (section 1.5.7)."""
    name, at = read_string(body, at)
    value, at = read_string(body, at)
    return (name, value), at


def pack_integer(value: int, size: int) -> bytes:
    """`value` in `size` bytes, big-endian."""
    if not 0 <= value < 1 << 8 * size:
        malformed(f"{value} does not fit an integer of {size} bytes")
    return value.to_bytes(size, "big")


def pack_varint(value: int) -> bytes:
    """A variable byte integer in its shortest form (MQTT 5.0 section 1.5.5)."""
    if 0 <= value < 0x80:
        return bytes((value,))
    if not 0 <= value <= MAX_VARINT:
        malformed(f"{value} does not fit a variable byte integer (at most {MAX_VARINT})")
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def pack_binary(value: bytes) -> bytes:
    """Binary data with its length in two bytes (section 1.5.6)."""
    if len(value) > 0xFFFF:
        malformed(f"a field of {len(value)} bytes is longer than 65535")
    return len(value).to_bytes(2, "big") + value


def pack_string(value: str) -> bytes:
    """A UTF-8 string with its length in two bytes (section 1.5.4)."""
    if "\0" in value:
        malformed(f"{shown(value)} contains U+0000")
    try:
        return pack_binary(value.encode())
    except UnicodeEncodeError as error:
        raise ProtocolError(
            Reason.MALFORMED_PACKET, f"a string is not Unicode: {error.reason}"
        ) from error


def pack_pair(value: tuple[str, str]) -> bytes:
    """A UTF-8 string pair (section 1.5.7)."""
    return pack_string(value[0]) + pack_string(value[1])
