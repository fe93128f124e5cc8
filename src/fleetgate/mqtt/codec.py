"""MQTT 3.1.1 and 5.0 packets to bytes and back: pure functions, strict in both directions.

Clause numbers are those of MQTT 5.0; the sections of 3.1.1 have the same numbers. Only
ProtocolError leaves this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fleetgate.errors import ProtocolError
from fleetgate.mqtt import connect_codec, publish_codec, subscribe_codec
from fleetgate.mqtt.fields import malformed
from fleetgate.mqtt.packets import (
    Auth,
    Connack,
    Connect,
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
    Unsuback,
    Unsubscribe,
    Version,
)
from fleetgate.mqtt.parts import finish
from fleetgate.mqtt.reasons import Reason

# Section 2.1.3: the flags every packet but PUBLISH must have, by packet type.
_FLAGS: Final = (0, 0, 0, -1, 0, 0, 2, 0, 2, 0, 2, 0, 0, 0, 0, 0)


def decode(
    buffer: bytes | bytearray, version: Version | None, max_size: int, start: int = 0
) -> tuple[Packet, int] | None:
    """Decode the packet that begins at `start`; return it and its length in bytes.

    None means that its bytes are not all there. `version` is None until a CONNECT has been
    seen: only that is accepted then. A packet of more than `max_size` bytes is refused as soon
    as its fixed header is there. Raises ProtocolError with the reason of MQTT 5.0 section 4.13.
    """
    available = len(buffer)
    if start >= available:
        return None
    first = buffer[start]
    if version is None and first != 0x10:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR,
            f"the first packet must be CONNECT, got first byte 0x{first:02x} (3.1)",
        )
    at = start + 1
    if at >= available:
        return None
    length = buffer[at]
    at += 1
    padded = False
    if length > 127:
        length &= 127
        shift = 7
        while True:
            if at >= available:
                return None
            digit = buffer[at]
            at += 1
            length |= (digit & 127) << shift
            if digit < 128:
                padded = digit == 0
                break
            shift += 7
            if shift > 21:
                malformed("the remaining length is longer than four bytes (2.1.4)")
    end = at + length
    if end - start > max_size:
        raise ProtocolError(
            Reason.PACKET_TOO_LARGE,
            f"a packet of {end - start} bytes is larger than the limit of {max_size}",
        )
    if end > available:
        return None
    kind = first >> 4
    flags = first & 15
    if kind != 3 and flags != _FLAGS[kind]:
        malformed(f"packet type {kind} with flags {flags:#x} (2.1.3)")
    packet = _DECODERS[kind](flags, bytes(buffer[at:end]), version or 4)
    # Only MQTT 5.0 demands the shortest form (1.5.5); 3.1.1 (2.2.3) does not.
    if padded and (packet.version if isinstance(packet, Connect) else version) == 5:
        malformed("the remaining length is longer than necessary (1.5.5)")
    return packet, end - start


def encode(packet: Packet, version: Version) -> bytes:
    """The bytes of `packet` in `version`; a Connect is encoded in the version it carries.

    What 3.1.1 has no room for is left out: properties, reason codes of acknowledgements and of
    DISCONNECT, subscription options. Raises ProtocolError for a packet `decode` would refuse.
    """
    return _ENCODERS[type(packet)](packet, version)


def _decode_pingreq(_flags: int, body: bytes, _version: Version) -> Pingreq:
    finish(body, 0)
    return Pingreq()


def _decode_pingresp(_flags: int, body: bytes, _version: Version) -> Pingresp:
    finish(body, 0)
    return Pingresp()


def _decode_reserved(_flags: int, _body: bytes, _version: Version) -> Packet:
    malformed("packet type 0 is reserved (2.1.2)")


_DECODERS: Final[tuple[Callable[[int, bytes, Version], Packet], ...]] = (
    _decode_reserved,
    connect_codec.decode_connect,
    connect_codec.decode_connack,
    publish_codec.decode_publish,
    publish_codec.decode_puback,
    publish_codec.decode_pubrec,
    publish_codec.decode_pubrel,
    publish_codec.decode_pubcomp,
    subscribe_codec.decode_subscribe,
    subscribe_codec.decode_suback,
    subscribe_codec.decode_unsubscribe,
    subscribe_codec.decode_unsuback,
    _decode_pingreq,
    _decode_pingresp,
    connect_codec.decode_disconnect,
    connect_codec.decode_auth,
)
_ENCODERS: Final[dict[type[Packet], Callable[[Any, Version], bytes]]] = {
    Connect: connect_codec.encode_connect,
    Connack: connect_codec.encode_connack,
    Publish: publish_codec.encode_publish,
    Puback: publish_codec.encode_puback,
    Pubrec: publish_codec.encode_pubrec,
    Pubrel: publish_codec.encode_pubrel,
    Pubcomp: publish_codec.encode_pubcomp,
    Subscribe: subscribe_codec.encode_subscribe,
    Suback: subscribe_codec.encode_suback,
    Unsubscribe: subscribe_codec.encode_unsubscribe,
    Unsuback: subscribe_codec.encode_unsuback,
    Pingreq: lambda _packet, _version: b"\xc0\x00",
    Pingresp: lambda _packet, _version: b"\xd0\x00",
    Disconnect: connect_codec.encode_disconnect,
    Auth: connect_codec.encode_auth,
}
