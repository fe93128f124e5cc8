"""Values of the model's types: read from text, read from and written to a parsed document.

A document is what a JSON or CBOR parser returns. A timestamp is a float inside, seconds since
the epoch; a blob is bytes.

Source: Smithy specification, "AWS restJson1 protocol" and "HTTP bindings"; the texts of
SerializationException are those of AWS's front end, with the path of the member before them.
"""

from __future__ import annotations

import binascii
import math
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fleetgate.errors import SerializationException
from fleetgate.wire import timestamps
from fleetgate.wire.model import Shape

_INTEGER_BITS = {"integer": 31, "long": 63}
_DECIMAL = re.compile(r"-?[0-9]{1,32}(\.[0-9]{1,32})?([eE][+-]?[0-9]{1,3})?")
_REALS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def from_text(shape: Shape, text: str, path: str, timestamp_format: str) -> Any:
    """A value that travels as text: in the path, the query or a header.

    Raises SerializationException, naming `path`, when the text is not of the shape's type.
    """
    if shape.type == "string":
        return text
    if shape.type == "boolean" and text in {"true", "false"}:
        return text == "true"
    if shape.type in _INTEGER_BITS and len(text) <= 20 and text.isascii():
        digits = text.removeprefix("-")
        if digits.isdigit():
            return _integer(shape, int(text), path)
    if shape.type == "timestamp":
        if timestamp_format.lower() != "unixtimestamp":
            return _timestamp(shape, text, path, timestamp_format)
        if _DECIMAL.fullmatch(text):
            return _timestamp(shape, float(text), path, timestamp_format)
    if shape.type in {"float", "double"}:
        if text in _REALS:
            return _REALS[text]
        if _DECIMAL.fullmatch(text):
            return float(text)
    raise not_convertible(path, f"`{text[:80]}`", shape)


def from_document(shape: Shape, value: Any, path: str, timestamp_format: str | None = None) -> Any:
    """A value of a parsed document, as the model has it; unknown members are left behind.

    The model, not the document, bounds the recursion. Raises SerializationException, naming the
    `path` of the offending member.
    """
    match shape.type:
        case "string" if isinstance(value, str):
            return value
        case "structure" if isinstance(value, dict):
            return {
                member.name: from_document(
                    member.shape, entry, f"{path}.{member.name}", member.timestamp_format
                )
                for member in shape.members.values()
                if (entry := value.get(member.location_name)) is not None
            }
        case "list" if isinstance(value, list) and shape.element:
            return [
                from_document(shape.element, entry, f"{path}[{at}]")
                for at, entry in enumerate(value)
            ]
        case "map" if isinstance(value, dict) and shape.key and shape.element:
            return {
                from_document(shape.key, key, f"{path} (key)"): from_document(
                    shape.element, entry, f"{path}.{str(key)[:80]}"
                )
                for key, entry in value.items()
            }
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" | "long" if isinstance(value, int) and not isinstance(value, bool):
            return _integer(shape, value, path)
        case "float" | "double" if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _real(value, shape, path)
        case "float" | "double" if isinstance(value, str) and value in _REALS:
            return _REALS[value]
        case "timestamp":
            return _timestamp(
                shape, value, path, timestamp_format or shape.timestamp_format or "unixTimestamp"
            )
        case "blob" if isinstance(value, bytes):
            return value
        case "blob" if isinstance(value, str):
            try:
                return b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise not_convertible(path, "text that is not base64", shape) from None
    raise not_convertible(path, kind_of(value), shape)


def _integer(shape: Shape, value: int, path: str) -> int:
    bits = _INTEGER_BITS[shape.type]
    if not -(1 << bits) <= value < 1 << bits:
        raise not_convertible(path, "a number out of range", shape)
    return value


def _real(value: float, shape: Shape, path: str) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        raise not_convertible(path, "a number out of range", shape) from None


def _timestamp(shape: Shape, value: Any, path: str, timestamp_format: str) -> float:
    shown = kind_of(value)
    try:
        match timestamp_format.lower():
            case "iso8601" | "rfc822" as form if isinstance(value, str):
                shown = f"`{value[:80]}`"
                read = timestamps.from_iso8601 if form == "iso8601" else timestamps.from_http_date
                return read(value)
            case "unixtimestamp" if isinstance(value, (int, float)) and not isinstance(value, bool):
                shown = "a number out of range"
                moment = float(value)
                if timestamps.EARLIEST <= moment <= timestamps.LATEST:
                    return moment
    except (ValueError, OverflowError):
        raise not_convertible(path, shown, shape) from None
    raise not_convertible(path, shown, shape)


def kind_of(value: Any) -> str:
    """What was found in a document, in the words of AWS's front end."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    for kind, name in _KINDS:
        if isinstance(value, kind):
            return name
    return f"{type(value).__name__.upper()}_VALUE"


_KINDS: tuple[tuple[type, str], ...] = (
    (str, "STRING_VALUE"),
    (int, "NUMBER_VALUE"),
    (float, "DECIMAL_VALUE"),
    (dict, "START_OBJECT"),
    (list, "START_ARRAY"),
)


def not_convertible(path: str, what: str, shape: Shape) -> SerializationException:
    """The error to raise for `what` was found where a value of this shape belongs."""
    return SerializationException(
        f"{path}: {what} can not be converted to {_ARTICLES.get(shape.type, 'a')} {shape.type}"
    )


_ARTICLES = {"integer": "an"}


def refuse_unknown(shape: Shape, result: Mapping[str, Any], path: str) -> None:
    """Raises ValueError when a result has members the model does not know."""
    unknown = result.keys() - shape.members.keys()
    if unknown:
        raise ValueError(f"{path}: {shape.name} has no member {', '.join(sorted(unknown))}")


def to_document(shape: Shape, value: Any, path: str, timestamp_format: str | None = None) -> Any:
    """What a serialiser writes for a result; members that are None are left out.

    Timestamps may be aware datetimes or seconds since the epoch and leave as seconds with
    milliseconds unless the model wants a text.

    Raises TypeError or ValueError, naming `path`, when the value is not what the model says.
    """
    match shape.type:
        case "structure" if isinstance(value, Mapping):
            refuse_unknown(shape, value, path)
            return {
                member.location_name: to_document(
                    member.shape, entry, f"{path}.{member.name}", member.timestamp_format
                )
                for member in shape.members.values()
                if (entry := value.get(member.name)) is not None
            }
        case "list" if isinstance(value, (list, tuple)) and shape.element:
            return [to_document(shape.element, entry, path) for entry in value]
        case "map" if isinstance(value, Mapping) and shape.element:
            return {
                str(key): to_document(shape.element, entry, f"{path}.{key}")
                for key, entry in value.items()
            }
        case "timestamp" if isinstance(value, (datetime, int, float)):
            moment = _moment(value, path)
            match (timestamp_format or shape.timestamp_format or "unixTimestamp").lower():
                case "iso8601":
                    return timestamps.to_iso8601(moment)
                case "rfc822":
                    return timestamps.to_http_date(moment)
            return moment
        case "blob" if isinstance(value, bytes):
            return b64encode(value).decode()
        case "string" if isinstance(value, str):
            return value
        case "boolean" if isinstance(value, bool):
            return value
        case "integer" | "long" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "float" | "double" if isinstance(value, (int, float)):
            return value if math.isfinite(value) else _words(value)
    raise TypeError(f"{path}: {type(value).__name__} is not a {shape.type}")


def _moment(value: datetime | float, path: str) -> float:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{path}: a datetime without a time zone")
        value = value.timestamp()
    return round(float(value), 3)


def _words(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
