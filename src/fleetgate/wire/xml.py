"""Values of the model's types as XML elements, as the Query protocol answers them.

Source: Smithy specification, "AWS query protocol", response serialization, and "XML bindings";
XML 1.0 sections 2.2 (characters) and 2.11 (line ends).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from fleetgate.wire.model import Member, Shape
from fleetgate.wire.values import refuse_unknown, to_document

# Most control characters cannot be in a document, not even escaped; a bare carriage return
# would be read as a line feed.
_TRANSLATED = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF], "\ufffd")
_CARRIAGE_RETURN = {"\r": "&#13;"}


def text(value: str) -> str:
    """Character data for an element; what XML cannot carry becomes U+FFFD."""
    return escape(value.translate(_TRANSLATED), _CARRIAGE_RETURN)


def members(shape: Shape, value: Mapping[str, Any], path: str) -> str:
    """The members of a structure, an element each; those that are None are left out.

    Timestamps may be aware datetimes or seconds since the epoch and leave in ISO 8601. Raises
    TypeError or ValueError, naming `path`, when the value is not what the model says: that is a
    defect of the operation and no answer.
    """
    refuse_unknown(shape, value, path)
    return "".join(
        part
        for member in shape.members.values()
        if (entry := value.get(member.name)) is not None
        for part in _elements(member, entry, f"{path}.{member.name}")
    )


def _elements(member: Member, value: Any, path: str) -> Iterator[str]:
    shape = member.shape
    if not shape.flattened:
        yield _element(member.location_name, _content(shape, value, path, member.timestamp_format))
        return
    name = member.location_name
    if shape.type == "list":
        name = shape.element_name or name
    yield from (_element(name, content) for content in _entries(shape, value, path))


def _content(shape: Shape, value: Any, path: str, timestamp_format: str | None = None) -> str:
    """What stands between the tags of an element that holds `value`."""
    if shape.type == "structure" and isinstance(value, Mapping):
        return members(shape, value, path)
    if shape.type in {"list", "map"}:
        name = (shape.element_name or "member") if shape.type == "list" else "entry"
        return "".join(_element(name, content) for content in _entries(shape, value, path))
    sent = to_document(shape, value, path, timestamp_format or shape.timestamp_format or "iso8601")
    if isinstance(sent, bool):
        return "true" if sent else "false"
    if shape.type == "timestamp" and isinstance(sent, str):
        return text(sent.replace(".000Z", "Z"))
    return text(str(sent))


def _entries(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """The contents of the elements of a list or of the entries of a map."""
    element = shape.element
    if shape.type == "list" and isinstance(value, (list, tuple)) and element is not None:
        yield from (_content(element, entry, path) for entry in value)
    elif shape.type == "map" and isinstance(value, Mapping) and element is not None:
        for key, entry in value.items():
            yield _element(shape.key_name or "key", text(str(key))) + _element(
                shape.element_name or "value", _content(element, entry, f"{path}.{key}")
            )
    else:
        raise TypeError(f"{path}: {type(value).__name__} is not a {shape.type}")


def _element(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>" if content else f"<{name}/>"
