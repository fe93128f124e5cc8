"""The values of provisioning templates, read: from JSON to Expressions.

All that does not depend on parameters is checked. What is wrong is noted in the Context, and
something UNREADABLE stands in for it, so that one pass finds every problem.

Sources: as in template_functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from fleetgate.domain.document import quoted
from fleetgate.domain.template_functions import (
    UNREADABLE,
    Expression,
    FindInMap,
    Function,
    Join,
    List,
    Mappings,
    Ref,
    Select,
    Split,
    Sub,
    find_in_map,
    is_index,
    step,
)
from fleetgate.errors import InvalidTemplate

_PLACEHOLDER = re.compile(r"\$\{([^{}]*)\}")
# Variables and literals of IoT policies, which Fn::Sub leaves for the policy.
_POLICY_VARIABLE = re.compile(r"(?:iot|aws):(?!:)|[*?$]\Z", re.IGNORECASE)


class Enough(Exception):
    """As many problems have been found as are wanted: nothing behind them is read."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a value stands: the template's mappings, and whether in a policy (no Fn::Join)."""

    mappings: Mappings
    in_policy: bool = False
    problems: list[InvalidTemplate] = field(default_factory=list)
    """What has been found wrong so far, in the order of the template."""
    most: int = 1
    """The problem of this number raises Enough."""

    def of_policy(self) -> Context:
        """The same, inside a policy."""
        return replace(self, in_policy=True)

    def note(self, path: str, rule: str) -> None:
        """Notes a problem; raises Enough when it is the last one wanted."""
        self.add(InvalidTemplate(path, rule))

    def add(self, problem: InvalidTemplate) -> None:
        """The same for a problem that was raised."""
        self.problems.append(problem)
        if len(self.problems) >= self.most:
            raise Enough

    def noting(self) -> _Noting:
        """``with`` this an InvalidTemplate raised inside is noted, and things go on behind it."""
        return _Noting(self)


@dataclass(frozen=True, slots=True)
class _Noting:
    context: Context

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if not isinstance(error, InvalidTemplate):
            return False
        self.context.add(error)
        return True


def is_function(value: Any) -> bool:
    """Whether a JSON value is written as a function (rightly or wrongly)."""
    return isinstance(value, dict) and any(key == "Ref" or key.startswith("Fn::") for key in value)


def parse(value: Any, path: str, context: Context) -> Expression:
    """The expression in a JSON value that must give a string; UNREADABLE when there is none."""
    if isinstance(value, str):
        return value
    with context.noting():
        if not is_function(value):
            raise InvalidTemplate(path, "it must be a string, a Ref or a function")
        function = parse_function(value, path, context)
        if isinstance(function, Split):
            raise InvalidTemplate(function.path, "it gives a list where a string must be")
        return function
    return UNREADABLE


def parse_list(value: Any, path: str, context: Context) -> List:
    """The expression in a JSON value that must give a list; UNREADABLE when there is none."""
    if isinstance(value, list):
        return tuple(parse(each, f"{path}[{index}]", context) for index, each in enumerate(value))
    with context.noting():
        if is_function(value):
            function = parse_function(value, path, context)
            if isinstance(function, Split | FindInMap):
                return function
        raise InvalidTemplate(path, "it must be a list, Fn::Split or Fn::FindInMap")
    return UNREADABLE


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


def _parse_select(index: Any, items: Any, path: str, context: Context) -> Select:
    if isinstance(index, int) and not isinstance(index, bool):
        index = str(index)
    index = parse(index, f"{path}[0]", context)
    if isinstance(index, str) and not is_index(index):
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
