"""The constraints a service model puts on the parameters of an operation.

They are checked on decoded parameters, so they hold for every door. The messages are in the
style of AWS's own front end; every violation is named, not only the first.

Source: botocore ``service-2.json`` (``required``, ``min``, ``max``, ``pattern``, ``enum``);
Smithy specification, "Constraint traits" (lengths of strings count Unicode scalar values).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleetgate.errors import InvalidRequestException, ServiceError
from fleetgate.wire import patterns
from fleetgate.wire.model import Member, Shape

MAXIMUM_VIOLATIONS = 10
"""How many violations one message names; the check stops there."""

LONGEST_WITHOUT_MAXIMUM = 2048
"""Characters of a value that has a pattern and no maximum: a pattern that backtracks may take
time quadratic in the length, so no value of any length a caller likes is put to one."""

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Style:
    """How a service tells of a broken constraint.

    `lower` says that the names of members begin with a small letter, whatever the model's do, and
    that an element which must not be null is told with the rules of elements; `values` that the
    value is told.
    """

    lower: bool
    values: bool

    def name(self, member: Member) -> str:
        """What a member is called."""
        return member.name[:1].lower() + member.name[1:] if self.lower else member.name


PLAIN = Style(lower=False, values=True)
"""AWS IoT."""

STS = Style(lower=True, values=True)
IAM = Style(lower=True, values=False)
"""As recorded from AWS."""


def validate(
    shape: Shape,
    params: Mapping[str, Any],
    refusal: type[ServiceError] = InvalidRequestException,
    style: Style = PLAIN,
) -> None:
    """Check the parameters of an operation against its input `shape`.

    `params` has snake_case names at the top (as ``restjson.decode_request`` returns them) and
    the model's names below. Unknown parameters are not looked at.

    Raises `refusal`, whose message names every violation (at most :data:`MAXIMUM_VIOLATIONS`).
    """
    found = violations(shape, params, style)
    if found:
        plural = "" if len(found) == 1 else "s"
        raise refusal(f"{len(found)} validation error{plural} detected: {'; '.join(found)}")


def violations(shape: Shape, params: Mapping[str, Any], style: Style = PLAIN) -> tuple[str, ...]:
    """The sentences :func:`validate` puts into its message; empty when all is well."""
    found: list[str] = []
    for member in shape.members.values():
        value = params.get(member.python_name)
        path, required = style.name(member), member.required
        for violation in _member_violations(member.shape, value, path, required, style):
            found.append(violation)
            if len(found) == MAXIMUM_VIOLATIONS:
                return tuple(found)
    return tuple(found)


def _member_violations(
    shape: Shape, value: Any, path: str, required: bool, style: Style
) -> Iterator[str]:
    if value is None:
        if required:
            null = " null" if style.values else ""
            yield f"Value{null} at '{path}' failed to satisfy constraint: {_NOT_NULL}"
        return
    rule = _broken_rule(shape, value)
    if rule:
        yield _violation(shape, value, path, rule, style)
    if not _is_of_type(shape, value):
        return
    if shape.type == "structure":
        for member in shape.members.values():
            at = f"{path}.{style.name(member)}"
            yield from _member_violations(
                member.shape, value.get(member.name), at, member.required, style
            )
    elif shape.type == "list":
        yield from _entry_violations(shape, value, path, style)
    elif shape.type == "map":
        yield from _key_violations(shape, value, path, style)
        yield from _entry_violations(shape, value, path, style)


def _key_violations(shape: Shape, value: Any, path: str, style: Style) -> Iterator[str]:
    key = shape.key
    if key is not None and any(_broken_rule(key, entry) for entry in value):
        rules = ", ".join(_rules(key))
        rule = f"Map keys must satisfy constraint: [{rules}]"
        yield _violation(shape, value, path, rule, style)


def _entry_violations(shape: Shape, value: Any, path: str, style: Style) -> Iterator[str]:
    """Of the elements of a list or the values of a map: structures one by one, with the path
    into them, simple ones together."""
    element = shape.element
    if element is None:
        return
    listed = shape.type == "list"
    if element.type in {"structure", "list", "map"}:
        entries = enumerate(value, 1) if listed else value.items()
        for name, entry in entries:
            at = f"{path}.{name}.member" if listed else f"{path}.{_cut(str(name))}.value"
            yield from _member_violations(element, entry, at, True, style)
    elif any(_broken_rule(element, entry) for entry in (value if listed else value.values())):
        rules = ", ".join((*_rules(element), *((_NOT_NULL,) if style.lower else ())))
        rule = f"{'Member' if listed else 'Map value'} must satisfy constraint: [{rules}]"
        yield _violation(shape, value, path, rule, style)


def _broken_rule(shape: Shape, value: Any) -> str | None:
    """The first rule of this shape itself that the value breaks."""
    if not _is_of_type(shape, value):
        return f"Member must be of type {shape.type}"
    if shape.enum:
        return None if value in shape.enum else _enum_rule(shape)
    minimum, maximum = shape.minimum, shape.maximum
    if maximum is None and shape.pattern is not None:
        maximum = LONGEST_WITHOUT_MAXIMUM
    if minimum is not None or maximum is not None:
        measure = value if shape.type in _NUMBERS else len(value)
        # Written so that NaN breaks both.
        if maximum is not None and not measure <= maximum:
            return _bound_rule(shape, "less", maximum)
        if minimum is not None and not measure >= minimum:
            return _bound_rule(shape, "greater", minimum)
    if shape.pattern is not None and not patterns.matches(shape.pattern, value):
        return _pattern_rule(shape)
    return None


def _rules(shape: Shape) -> Iterator[str]:
    if shape.enum:
        yield _enum_rule(shape)
    if shape.maximum is not None:
        yield _bound_rule(shape, "less", shape.maximum)
    elif shape.pattern is not None:
        yield _bound_rule(shape, "less", LONGEST_WITHOUT_MAXIMUM)
    if shape.minimum is not None:
        yield _bound_rule(shape, "greater", shape.minimum)
    if shape.pattern is not None:
        yield _pattern_rule(shape)


_NOT_NULL = "Member must not be null"
_NUMBERS = frozenset({"integer", "long", "float", "double"})
_PYTHON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "structure": Mapping,
    "map": Mapping,
    "list": (list, tuple),
    "string": str,
    "blob": bytes,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
}


def _is_of_type(shape: Shape, value: Any) -> bool:
    return isinstance(value, _PYTHON_TYPES[shape.type]) and (
        shape.type == "boolean" or not isinstance(value, bool)
    )


def _bound_rule(shape: Shape, side: str, bound: float) -> str:
    measure = "value" if shape.type in _NUMBERS else "length"
    return f"Member must have {measure} {side} than or equal to {bound}"


def _pattern_rule(shape: Shape) -> str:
    return f"Member must satisfy regular expression pattern: {shape.pattern}"


def _enum_rule(shape: Shape) -> str:
    return f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"


def _violation(shape: Shape, value: Any, path: str, rule: str, style: Style) -> str:
    told = style.values and not _is_sensitive(shape)
    shown = f" '{_cut(_shown(value))}'" if told else ""
    return f"Value{shown} at '{path}' failed to satisfy constraint: {rule}"


def _is_sensitive(shape: Shape) -> bool:
    return (
        shape.sensitive
        or (shape.element is not None and _is_sensitive(shape.element))
        or any(_is_sensitive(member.shape) for member in shape.members.values())
    )


def _shown(value: Any) -> str:
    """A value the way Java prints it; no more of it than will be shown."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value[:_SHOWN]))}]"
    if isinstance(value, dict):
        pairs = list(value.items())[:_SHOWN]
        return f"{{{', '.join(f'{key}={_shown(entry)}' for key, entry in pairs)}}}"
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
