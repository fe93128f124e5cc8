"""The values of provisioning templates: strings, ``Ref`` and the ``Fn::`` functions.

`text` and `texts` evaluate an Expression in a Scope; template_parsing makes Expressions of JSON.
Evaluation is bounded: no string is longer than MAX_VALUE characters, and all functions of one
evaluation together produce at most MAX_TOTAL.

Sources: AWS IoT Developer Guide, "Provisioning templates" (which functions there are, ``Fn::Join``
not in policies); AWS CloudFormation User Guide, "Intrinsic function reference" (what they do).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleetgate.domain.document import quoted
from fleetgate.errors import InvalidTemplate

MAX_VALUE: Final = 65_536
"""Characters of one value."""
MAX_TOTAL: Final = 262_144
"""Characters that the functions of one evaluation may produce together."""
MAX_PATH: Final = 400
"""Characters of a path to which no further member is added."""

UNRESOLVED: Final = "Cannot resolve reference value"
"""How the rule of an unresolved reference begins: AWS's own words, which clients get to see."""

Mappings = Mapping[str, Mapping[str, Mapping[str, str | list[str]]]]

# Wildcards of policies and of topic filters, what makes a policy variable, what ends JSON text.
_WIDENING = re.compile(r'[*?$+#{}"\\\x00-\x1f\x7f]')


@dataclass(slots=True)
class Scope:
    """What an evaluation may refer to, and what it has produced so far."""

    parameters: Mapping[str, str]
    defaults: Mapping[str, str]
    mappings: Mappings
    in_policy: bool = False
    produced: int = field(default=0)

    def reference(self, name: str, path: str) -> str:
        """The value of a parameter, or its default; raises InvalidTemplate.

        In a policy, a value from outside the template may hold neither wildcards, nor the signs
        of policy variables, nor what ends a JSON string: a device could widen its own policy.
        """
        value = self.parameters.get(name)
        if value is None:
            value = self.defaults.get(name)
            if value is None:
                raise InvalidTemplate(path, f"{UNRESOLVED}: {name}")
        elif self.in_policy and _WIDENING.search(value):
            raise InvalidTemplate(
                path,
                f"value {quoted(value)} of parameter {quoted(name)} may not stand in a policy: "
                'it has one of * ? $ + # { } " \\ or a control character',
            )
        return self.made(value, path)

    def made(self, value: str, path: str) -> str:
        """Accounts for a produced string; raises InvalidTemplate when there is too much of it."""
        self.account(len(value), path)
        return value

    def account(self, length: int, path: str) -> None:
        """Like `made`, before the string exists."""
        if length > MAX_VALUE:
            raise InvalidTemplate(path, f"the value has more than {MAX_VALUE} characters")
        self.produced += length
        if self.produced > MAX_TOTAL:
            raise InvalidTemplate(path, f"the template expands to more than {MAX_TOTAL} characters")


@dataclass(frozen=True, slots=True)
class Ref:
    """``{"Ref": name}``: a parameter."""

    path: str
    name: str

    def evaluate(self, scope: Scope) -> str:
        return scope.reference(self.name, self.path)


@dataclass(frozen=True, slots=True)
class Join:
    """``{"Fn::Join": [delimiter, list]}``."""

    path: str
    delimiter: str
    items: List

    def evaluate(self, scope: Scope) -> str:
        items = texts(self.items, scope)
        length = sum(map(len, items)) + len(self.delimiter) * max(0, len(items) - 1)
        scope.account(length, self.path)
        return self.delimiter.join(items)


@dataclass(frozen=True, slots=True)
class Select:
    """``{"Fn::Select": [index, list]}``; the index counts from 0."""

    path: str
    index: Expression
    items: List

    def evaluate(self, scope: Scope) -> str:
        index = text(self.index, scope)
        items = texts(self.items, scope)
        if not is_index(index):
            raise InvalidTemplate(self.path, f"index {quoted(index)} is not a number")
        if int(index) >= len(items):
            raise InvalidTemplate(
                self.path, f"index {index} is outside a list of {len(items)} elements"
            )
        return scope.made(items[int(index)], self.path)


@dataclass(frozen=True, slots=True)
class FindInMap:
    """``{"Fn::FindInMap": [mapping, key, name]}``: a string or a list."""

    path: str
    map_name: Expression
    key: Expression
    name: Expression

    def evaluate(self, scope: Scope) -> str | list[str]:
        map_name, key, name = (text(each, scope) for each in (self.map_name, self.key, self.name))
        value = find_in_map(scope.mappings, self.path, map_name, key, name)
        scope.account(len(value) if isinstance(value, str) else sum(map(len, value)), self.path)
        return value


@dataclass(frozen=True, slots=True)
class Split:
    """``{"Fn::Split": [delimiter, string]}``: a list."""

    path: str
    delimiter: str
    source: Expression

    def evaluate(self, scope: Scope) -> list[str]:
        source = text(self.source, scope)
        scope.account(len(source), self.path)
        return source.split(self.delimiter)


@dataclass(frozen=True, slots=True)
class Sub:
    """``{"Fn::Sub": string}`` or ``{"Fn::Sub": [string, variables]}``."""

    path: str
    parts: tuple[str | Ref, ...]
    values: tuple[tuple[str, Expression], ...]

    def evaluate(self, scope: Scope) -> str:
        values = {name: text(value, scope) for name, value in self.values}
        made: list[str] = []
        length = 0
        for part in self.parts:
            if isinstance(part, str):
                made.append(part)
            elif part.name in values:
                made.append(values[part.name])
            else:
                made.append(part.evaluate(scope))
            length += len(made[-1])
            if length > MAX_VALUE:
                break
        scope.account(length, self.path)
        return "".join(made)


Function = Ref | Join | Select | FindInMap | Split | Sub
Expression = str | Function
List = tuple[Expression, ...] | Function


_PLAIN: Final = frozenset({str, int, float, bool, type(None)})

UNREADABLE: Final = Ref("", "")
"""Stands in for a value that was noted as a problem; a template that has one is never rendered."""


def text(expression: Expression, scope: Scope) -> str:
    """The string an expression stands for; raises InvalidTemplate."""
    if isinstance(expression, str):
        return expression
    value = expression.evaluate(scope)
    if not isinstance(value, str):
        raise InvalidTemplate(expression.path, "it gives a list where a string must be")
    return value


def texts(expressions: List, scope: Scope) -> list[str]:
    """The strings a list stands for; raises InvalidTemplate."""
    if isinstance(expressions, tuple):
        return [text(each, scope) for each in expressions]
    value = expressions.evaluate(scope)
    if isinstance(value, str):
        raise InvalidTemplate(expressions.path, "it gives a string where a list must be")
    return value


def expressions(value: Any) -> Iterator[Function]:
    """Every function in a value, those inside others too, in the order they are written.

    `value` is an expression, or lists and objects of them.
    """
    match value:
        case Join():
            yield value
            yield from expressions(value.items)
        case Select():
            yield value
            yield from expressions((value.index, value.items))
        case FindInMap():
            yield value
            yield from expressions((value.map_name, value.key, value.name))
        case Split():
            yield value
            yield from expressions(value.source)
        case Sub():
            yield value
            near = {name for name, _ in value.values}
            for part in value.parts:
                if isinstance(part, Ref) and part.name not in near:
                    yield part
            yield from expressions([each for _, each in value.values])
        case Ref():
            yield value
        case Mapping():
            yield from expressions(list(value.values()))
        case tuple() | list():
            for each in value:
                if type(each) not in _PLAIN:  # most values: that no generator is made for
                    yield from expressions(each)


def references(value: Any) -> Iterator[Ref]:
    """Every reference to a parameter in a value, also inside other functions."""
    for each in expressions(value):
        if isinstance(each, Ref) and each is not UNREADABLE:
            yield each


def find_in_map(
    mappings: Mappings, path: str, map_name: str, key: str, name: str
) -> str | list[str]:
    """The entry of a mapping; raises InvalidTemplate naming the step that is missing."""
    keys = mappings.get(map_name)
    if keys is None:
        raise InvalidTemplate(path, f"there is no mapping {quoted(map_name)}")
    names = keys.get(key)
    if names is None:
        raise InvalidTemplate(path, f"mapping {quoted(map_name)} has no key {quoted(key)}")
    value = names.get(name)
    if value is None:
        raise InvalidTemplate(
            path, f"mapping {quoted(map_name)}, key {quoted(key)}, has no {quoted(name)}"
        )
    return value


def is_index(value: str) -> bool:
    """Whether a string is a number that Fn::Select takes."""
    return value.isascii() and value.isdigit() and len(value) <= 9


def step(path: str, key: str) -> str:
    """The path of a member; keys are the user's, so a long one is cut, and many end in dots."""
    if len(path) > MAX_PATH:
        return path if path.endswith("...") else f"{path}..."
    return f"{path}.{key}" if len(key) <= 80 else f"{path}.{key[:80]}..."
