"""Payloads of the MQTT provisioning operations: one map with text keys, as JSON or CBOR.

Sources: RFC 8259 (JSON), RFC 8949 (CBOR), AWS IoT developer guide "Device provisioning MQTT
API". CBOR answers use definite lengths and text strings only, which is what the parsers of
embedded clients expect. Of CBOR input no tag is followed: a tag may stand for work (big numbers,
regular expressions, shared references) that nobody asked for.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, NoReturn

import cbor2
import msgspec

from fleetgate.errors import InvalidPayloadException

MAX_DEPTH = 16
"""Nesting a payload may have; those of the provisioning operations have 2."""

FORMATS = ("json", "cbor")

_KNOWN_TAGS = (
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54),
    *(100, 256, 258, 260, 261, 1004, 43000, 55799),
)
_json = msgspec.json.Decoder()


def decode(payload_format: str, payload: bytes) -> dict[str, Any]:
    """The map inside a payload; `payload_format` is ``json`` or ``cbor``.

    Raises InvalidPayloadException for anything but one map with text keys.
    """
    name = payload_format.upper()
    if not payload:
        raise InvalidPayloadException(f"the payload is empty; expected is a {name} object")
    try:
        value = _json.decode(payload) if payload_format == "json" else _decode_cbor(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidPayloadException(f"the payload is not valid JSON: {_cut(error)}") from None
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as error:
        raise InvalidPayloadException(f"the payload is not valid CBOR: {_cut(error)}") from None
    if not isinstance(value, dict):
        raise InvalidPayloadException(
            f"the payload is a {name} {_kind(value)}; expected is an object"
        )
    _check_depth(value, MAX_DEPTH)
    for key in value:
        if not isinstance(key, str):
            raise InvalidPayloadException(f"a key of the payload is no text but {_kind(key)}")
    return value


def encode(payload_format: str, value: Mapping[str, Any]) -> bytes:
    """A payload of text, integers and maps of text; members with the value None are left out."""
    members = {name: member for name, member in value.items() if member is not None}
    return msgspec.json.encode(members) if payload_format == "json" else cbor2.dumps(members)


def _decode_cbor(payload: bytes) -> object:
    stream = io.BytesIO(payload)
    decoder = cbor2.CBORDecoder(
        stream,
        tag_hook=_refuse_tag,
        semantic_decoders=dict.fromkeys(_KNOWN_TAGS, _refuse_known_tag),
        max_depth=MAX_DEPTH,
        strict_hashable_types=True,
        read_size=1,
    )
    value: object = decoder.decode()
    if stream.read(1):
        raise ValueError("there are bytes behind the first value")
    return value


def _refuse_tag(decoder: object, tag: object) -> NoReturn:  # noqa: ARG001 - cbor2's signature
    raise ValueError("tags are not accepted")


def _refuse_known_tag(decoder: object) -> NoReturn:  # noqa: ARG001 - cbor2's signature
    raise ValueError("tags are not accepted")


def _check_depth(value: object, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if left == 0:
        raise InvalidPayloadException(f"the payload is nested deeper than {MAX_DEPTH}")
    for item in value.values() if isinstance(value, dict) else value:
        _check_depth(item, left - 1)


def _kind(value: object) -> str:
    return type(value).__name__


def _cut(error: Exception) -> str:
    return str(error)[:120]
