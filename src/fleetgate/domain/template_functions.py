"""The values of provisioning templates: strings, ``Ref`` and the ``Fn::`` functions.

`parse` turns the JSON of a value into an Expression, checking all that does not depend on
parameters; `text` and `texts` evaluate it in a Scope. Evaluation is bounded: no string is longer
than MAX_VALUE characters, and all functions of one evaluation together produce at most MAX_TOTAL.

Sources: AWS IoT Developer Guide, "Provisioning templates" (which functions there are, ``Fn::Join``
not in policies); AWS CloudFormation User Guide, "Intrinsic function reference" (what they do).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fleetgate.domain.document import quoted
from fleetgate.errors import InvalidTemplate

MAX_VALUE: Final = 65_536
"""Characters of one value."""
MAX_TOTAL: Final = 262_144
"""Characters that the functions of one evaluation may produce together."""

UNRESOLVED: Final = "Cannot resolve reference value"
"""How the rule of an unresolved reference begins: AWS's own words, which clients get to see."""

Mappings = Mapping[str, Mapping[str, Mapping[str, str | list[str]]]]

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
# Variables and literals of IoT policies, which Fn::Sub leaves for the policy.
_POLICY_VARIABLE = re.compile(r"(?:iot|aws):(?!:)|[*?$]\Z", re.IGNORECASE)
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
        if not _is_index(index):
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


# --- parsing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Context:
    """Where a value stands: the template's mappings, and whether in a policy (no Fn::Join)."""

    mappings: Mappings
    in_policy: bool = False


def is_function(value: Any) -> bool:
    """Whether a JSON value is written as a function (rightly or wrongly)."""
    return isinstance(value, dict) and any(key == "Ref" or key.startswith("Fn::") for key in value)


def parse(value: Any, path: str, context: Context) -> Expression:
    """The expression in a JSON value that must give a string; raises InvalidTemplate."""
    if isinstance(value, str):
        return value
    if not is_function(value):
        raise InvalidTemplate(path, "it must be a string, a Ref or a function")
    function = parse_function(value, path, context)
    if isinstance(function, Split):
        raise InvalidTemplate(function.path, "it gives a list where a string must be")
    return function


def parse_list(value: Any, path: str, context: Context) -> List:
    """The expression in a JSON value that must give a list; raises InvalidTemplate."""
    if isinstance(value, list):
        return tuple(parse(each, f"{path}[{index}]", context) for index, each in enumerate(value))
    if is_function(value):
        function = parse_function(value, path, context)
        if isinstance(function, Split | FindInMap):
            return function
    raise InvalidTemplate(path, "it must be a list, Fn::Split or Fn::FindInMap")


def parse_function(value: dict[str, Any], path: str, context: Context) -> Function:
    """The function in a JSON object for which `is_function` holds; raises InvalidTemplate."""
    if len(value) != 1:
        raise InvalidTemplate(path, "a Ref or function must be alone in its object")
    ((name, argument),) = value.items()
    path = f"{path}.{name}" if name in _FUNCTIONS else path
    if name == "Ref":
        return Ref(path, _literal(argument, path, "the name of a parameter"))
    if name == "Fn::Join":
        if context.in_policy:
            raise InvalidTemplate(path, "Fn::Join is not supported in policies; use Fn::Sub")
        delimiter, items = _arguments(argument, path, "delimiter", "list")
        delimiter = _literal(delimiter, f"{path}[0]", "a delimiter")
        return Join(path, delimiter, parse_list(items, f"{path}[1]", context))
    if name == "Fn::Select":
        index, items = _arguments(argument, path, "index", "list")
        return _parse_select(index, items, path, context)
    if name == "Fn::FindInMap":
        listed = _arguments(argument, path, "mapping", "key", "name")
        map_name, key, entry = (
            parse(each, f"{path}[{index}]", context) for index, each in enumerate(listed)
        )
        return _parse_find_in_map(map_name, key, entry, path, context)
    if name == "Fn::Split":
        delimiter, source = _arguments(argument, path, "delimiter", "string")
        delimiter = _literal(delimiter, f"{path}[0]", "a delimiter")
        if not delimiter:
            raise InvalidTemplate(f"{path}[0]", "the delimiter must not be empty")
        return Split(path, delimiter, parse(source, f"{path}[1]", context))
    if name == "Fn::Sub":
        return _parse_sub(argument, path, context)
    raise InvalidTemplate(
        path, f"unknown function {quoted(name)}; there are {', '.join(_FUNCTIONS)}"
    )


_FUNCTIONS = ("Ref", "Fn::Join", "Fn::Select", "Fn::FindInMap", "Fn::Split", "Fn::Sub")


def _arguments(value: Any, path: str, *names: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != len(names):
        raise InvalidTemplate(path, f"it must be a list of {len(names)}: {', '.join(names)}")
    return value


def _literal(value: Any, path: str, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidTemplate(path, f"it must be {what}, a plain string")
    return value


def _is_index(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 9


def _parse_select(index: Any, items: Any, path: str, context: Context) -> Select:
    if isinstance(index, int) and not isinstance(index, bool):
        index = str(index)
    index = parse(index, f"{path}[0]", context)
    if isinstance(index, str) and not _is_index(index):
        raise InvalidTemplate(f"{path}[0]", f"index {quoted(index)} is not a number from 0 on")
    items = parse_list(items, f"{path}[1]", context)
    if isinstance(index, str) and isinstance(items, tuple) and int(index) >= len(items):
        raise InvalidTemplate(path, f"index {index} is outside a list of {len(items)} elements")
    return Select(path, index, items)


def _parse_find_in_map(
    map_name: Expression, key: Expression, name: Expression, path: str, context: Context
) -> FindInMap:
    if isinstance(map_name, str):
        if map_name not in context.mappings:
            raise InvalidTemplate(path, f"there is no mapping {quoted(map_name)}")
        if isinstance(key, str) and isinstance(name, str):
            find_in_map(context.mappings, path, map_name, key, name)
    return FindInMap(path, map_name, key, name)


def _parse_sub(argument: Any, path: str, context: Context) -> Sub:
    values: Any = {}
    if isinstance(argument, list):
        argument, values = _arguments(argument, path, "string", "variables")
        if not isinstance(values, dict) or is_function(values):
            raise InvalidTemplate(f"{path}[1]", "it must be an object of names and values")
    source = _literal(argument, path, "a string, or a list of a string and its variables")
    parts = _sub_parts(source, path)
    parsed = tuple(
        (name, parse(value, step(f"{path}[1]", name), context)) for name, value in values.items()
    )
    return Sub(path, parts, parsed)


def _sub_parts(source: str, path: str) -> tuple[str | Ref, ...]:
    parts: list[str | Ref] = []
    end = 0
    for found in _PLACEHOLDER.finditer(source):
        parts.append(source[end : found.start()])
        end = found.end()
        name = found.group(1)
        if not name:
            raise InvalidTemplate(path, "`${}` names nothing")
        if name.startswith("!"):
            parts.append(f"${{{name[1:]}}}")
        elif _POLICY_VARIABLE.match(name):
            parts.append(found.group())
        else:
            parts.append(Ref(path, name))
    parts.append(source[end:])
    return tuple(part for part in parts if part)


def step(path: str, key: str) -> str:
    """The path of a member; keys are the user's, so a long one is cut."""
    return f"{path}.{key}" if len(key) <= 80 else f"{path}.{key[:80]}..."
