"""Policy variables: the names that stand for values, and texts that have such names in them.

A text is split once into literal text, wildcards and variables; `substitute` puts the values of
a connection or a request in. A substituted value is literal text: whatever it holds, it never
acts as a wildcard. Where a value cannot be used (`unusable`) the whole text stands for nothing.

Sources: IAM User Guide, "IAM policy elements: Variables and tags" (escapes ``${*} ${?} ${$}``,
default values, names without regard to case, one value only); AWS IoT Developer Guide, "AWS IoT
Core policy variables" and "Using X.509 certificate policy variables", limitations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fleetgate.domain.wildcards import Wildcard

Values = Mapping[str, tuple[str, ...]]
"""Condition keys and variables (``iot:ClientId``) to their values; see `fold` for the names.

A key that is not there is absent; an empty tuple is a list without members."""

Context = Mapping[str, tuple[str, ...]]
"""`Values` with folded names."""

MAX_VALUE: Final = 1024
"""Characters of a value that is put into a text (AWS IoT Developer Guide, limitations)."""

IOT_UNUSABLE: Final = re.compile(r"[*?+#$]")
"""An IoT policy does not use values with these: they mean more than themselves in topic filters."""

_TOKENS: Final = re.compile(r"\$\{([^{}]*)\}|([*?])")
_NAME: Final = re.compile(r"(.+?)(?:\s*,\s*'([^']*)')?", re.DOTALL)
_ESCAPED: Final = {"*", "?", "$"}


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in a text: its name as written, the name folded, its default value if any."""

    name: str
    key: str
    default: str | None


Part = str | Wildcard | Variable


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """The name as it is compared: case does not count, except for that of a thing's attribute."""
    head, bracket, attribute = name.partition("[")
    return head.lower() + bracket + attribute


def folded(values: Values) -> dict[str, tuple[str, ...]]:
    """The values under folded names; those of names that are the same then are put together."""
    found: dict[str, tuple[str, ...]] = {}
    for name, value in values.items():
        key = fold(name)
        found[key] = found[key] + value if key in found else value
    return found


def split(text: str, *, with_variables: bool, with_wildcards: bool = True) -> tuple[Part, ...]:
    """The parts of a text. Raises ValueError, with a rule to show, for a broken variable.

    Without variables (policies of a version before 2012-10-17) these are literal text; without
    wildcards (operators that compare for equality) ``*`` and ``?`` are.
    """
    if text.count("${") != sum(1 for name, _ in _TOKENS.findall(text) if name):
        raise ValueError("has a `${` that is not a variable `${name}`")
    parts: list[Part] = []
    end = 0
    for token in _TOKENS.finditer(text):
        if end < token.start():
            parts.append(text[end : token.start()])
        end = token.end()
        name, wildcard = token.groups()
        if wildcard is not None:
            parts.append(Wildcard(wildcard) if with_wildcards else wildcard)
        elif not with_variables:
            parts.append(token.group())
        elif name in _ESCAPED:
            parts.append(name)
        else:
            named = _NAME.fullmatch(name)
            assert named is not None  # noqa: S101 - a name has at least one character
            parts.append(Variable(named[1], fold(named[1]), named[2]))
    if end < len(text) or not parts:
        parts.append(text[end:])
    return tuple(parts)


def variables_of(parts: tuple[Part, ...]) -> list[Variable]:
    """The variables among the parts."""
    return [part for part in parts if isinstance(part, Variable)]


def substitute(
    parts: tuple[Part, ...], context: Context, unusable: re.Pattern[str] | None
) -> list[str | Wildcard] | None:
    """The parts with values in place of variables; None when a variable has no usable value.

    A value is usable when it is the only one of its name, is not empty, has no more than 1024
    characters and nothing in it that `unusable` finds. A default value is the policy's own text
    and used as it is.
    """
    substituted: list[str | Wildcard] = []
    for part in parts:
        if not isinstance(part, Variable):
            substituted.append(part)
            continue
        values = context.get(part.key, ())
        if len(values) == 1 and _is_usable(values[0], unusable):
            substituted.append(values[0])
        elif part.default is not None and not values:
            substituted.append(part.default)
        else:
            return None
    return substituted


def _is_usable(value: str, unusable: re.Pattern[str] | None) -> bool:
    return 0 < len(value) <= MAX_VALUE and (unusable is None or not unusable.search(value))
