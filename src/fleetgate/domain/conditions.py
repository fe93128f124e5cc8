"""The ``Condition`` of a policy statement: operators, how they compare, what an absent key means.

`parse_condition` turns one operator, key and list of values into a closure over what is constant;
`Condition.holds` is then asked with the values of a connection or request.

A condition on a key compares every value the request has for it with the operands; an operand
that matches makes the value match, and a negated operator wants that none matches. Then

* without a quantifier every value of the request has to pass, so that a further value permits
  nothing; in a statement that denies, one is enough. An absent key fails, passes with a negated
  operator, and passes with ``...IfExists``;
* ``ForAllValues:`` passes when every value does, so also when there is none;
* ``ForAnyValue:`` passes when one value does, so never when there is none.

An operand with a variable that has no usable value matches nothing. With a negated operator that
would let more pass, so in a statement that allows the condition fails instead.

Sources: IAM User Guide, "IAM JSON policy elements: Condition operators" and "Single-valued vs.
multivalued context keys"; AWS IoT Developer Guide, "Connect policy examples".
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Final, TypeVar

from fleetgate.domain import wildcards
from fleetgate.domain.document import quoted
from fleetgate.domain.policy_variables import Context, Part, fold, split, substitute, variables_of
from fleetgate.domain.wildcards import Wildcard

T = TypeVar("T")
Test = Callable[[str], bool]

CONNECT_ATTRIBUTES: Final = fold("iot:ConnectAttributes")


class Quantifier(Enum):
    """How the values of a key are taken together."""

    NONE = ""
    ALL = "forallvalues"
    ANY = "foranyvalue"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition. `key` is folded; `mentions` are all names it looks at, as written."""

    key: str
    mentions: tuple[str, ...]
    holds: Callable[[Context, bool], bool]
    """Asked with the values there are, and whether the statement allows."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """A value in the policy: its test, or what makes one once variables have values."""

    test: Test | None
    variables: tuple[str, ...] = ()
    bind: Callable[[Context], Test | None] = lambda _: None


_Make = Callable[[str, bool, re.Pattern[str] | None], _Operand]
"""An operand from the policy's text; raises ValueError with the rule that the text breaks."""


def parse_condition(
    name: str,
    key: str,
    values: Sequence[str],
    *,
    with_variables: bool,
    unusable: re.Pattern[str] | None,
) -> Condition:
    """The condition `name` (an operator such as ``ForAnyValue:StringLike``) on `key`.

    `values` are the operands as text. `with_variables` says whether the policy's version has
    variables, `unusable` what a value put in for one may not hold. Raises ValueError with a rule
    to show: an unknown operator, an operand that is not of the operator's kind.
    """
    named = _parse_name(name)
    if named is None:
        raise ValueError(f"{quoted(name)} is not a condition operator")
    quantifier, base, if_exists = named
    if base == _NULL:
        wanted = tuple(_read(value, _parse_bool) for value in values)
        return Condition(fold(key), (key,), _null(fold(key), wanted))
    make, negated = _OPERATORS[base]
    operands = [_read(value, lambda text: make(text, with_variables, unusable)) for value in values]
    mentions = (key, *(each for operand in operands for each in operand.variables))
    comparison = _comparison(fold(key), tuple(operands), quantifier, negated, if_exists)
    return Condition(fold(key), mentions, comparison)


def is_operator(name: str) -> bool:
    """Is this the name of an operator, with its quantifier and ``IfExists`` if it has them?"""
    return _parse_name(name) is not None


def _read(text: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{quoted(text)} {error}") from None


def _parse_name(name: str) -> tuple[Quantifier, str, bool] | None:
    prefix, colon, ending = name.lower().rpartition(":")
    base = ending.removesuffix("ifexists")
    if base not in _OPERATORS and ending != _NULL:
        return None
    if not colon:
        return Quantifier.NONE, base, base != ending
    for quantifier in (Quantifier.ALL, Quantifier.ANY):
        if prefix == quantifier.value:
            return quantifier, base, base != ending
    return None


def _null(key: str, wanted: tuple[bool, ...]) -> Callable[[Context, bool], bool]:
    # ``true`` asks for a key that is not there.
    return lambda context, _: (not context.get(key)) in wanted


def _comparison(
    key: str,
    operands: tuple[_Operand, ...],
    quantifier: Quantifier,
    negated: bool,
    if_exists: bool,
) -> Callable[[Context, bool], bool]:
    constant = tuple(operand.test for operand in operands if operand.test is not None)
    variable = tuple(operand.bind for operand in operands if operand.test is None)

    def holds(context: Context, allows: bool) -> bool:
        tests = constant
        for bind in variable:
            test = bind(context)
            if test is not None:
                tests += (test,)
            elif negated and allows:
                return False  # what is excepted from the permission is unknown
        values = context.get(key)
        passes = [
            any(test(value) for test in tests) is not negated
            for value in values or ()
            if value or quantifier is Quantifier.NONE  # an empty string is no member of a set
        ]
        if quantifier is Quantifier.ALL:
            return all(passes)
        if quantifier is Quantifier.ANY:
            return any(passes)
        if not passes:
            # A connection that uses no features has a list of none, and the guide's example for
            # "clean connect by clients with or without LastWill" takes it.
            uses_none = values is not None and key == CONNECT_ATTRIBUTES
            return if_exists or negated or uses_none
        return all(passes) if allows else any(passes)

    return holds


# --- operands -----------------------------------------------------------------------------------


def _of_text(
    parts: tuple[Part, ...],
    unusable: re.Pattern[str] | None,
    compare: Callable[[Sequence[str | Wildcard]], Test],
) -> _Operand:
    """An operand that may hold variables; `compare` makes the test of the text without them."""
    variables = variables_of(parts)
    known = [part for part in parts if isinstance(part, str | Wildcard)]
    if not variables:
        return _Operand(compare(known))

    def bind(context: Context) -> Test | None:
        substituted = substitute(parts, context, unusable)
        return None if substituted is None else compare(substituted)

    return _Operand(None, tuple(variable.name for variable in variables), bind)


def _joined(parts: Sequence[str | Wildcard]) -> str:
    return "".join(part if isinstance(part, str) else part.value for part in parts)


def _equal(text: str, with_variables: bool, unusable: re.Pattern[str] | None) -> _Operand:
    def compare(parts: Sequence[str | Wildcard]) -> Test:
        wanted = _joined(parts)
        return lambda value: value == wanted

    parts = split(text, with_variables=with_variables, with_wildcards=False)
    return _of_text(parts, unusable, compare)


def _equal_ignoring_case(
    text: str, with_variables: bool, unusable: re.Pattern[str] | None
) -> _Operand:
    def compare(parts: Sequence[str | Wildcard]) -> Test:
        wanted = _joined(parts).lower()
        return lambda value: value.lower() == wanted

    parts = split(text, with_variables=with_variables, with_wildcards=False)
    return _of_text(parts, unusable, compare)


def _like(text: str, with_variables: bool, unusable: re.Pattern[str] | None) -> _Operand:
    parts = split(text, with_variables=with_variables)
    return _of_text(parts, unusable, lambda known: wildcards.matcher(known).test)


def _arn(text: str, with_variables: bool, unusable: re.Pattern[str] | None) -> _Operand:
    """Each of the six parts of an ARN is compared by itself, with wildcards."""
    sections: list[list[Part]] = [[]]
    for part in split(text, with_variables=with_variables):
        if isinstance(part, str):
            # A colon in the resource, the sixth part, belongs to it.
            head, *others = part.split(":", 6 - len(sections))
            sections[-1].append(head)
            sections += [[other] for other in others]
        else:
            sections[-1].append(part)
    matching = [_of_text(tuple(section), unusable, _matches) for section in sections]

    def test_of(tests: Sequence[Test]) -> Test:
        def test(value: str) -> bool:
            found = value.split(":", 5)
            return len(found) == len(tests) == 6 and all(
                matches(each) for matches, each in zip(tests, found, strict=True)
            )

        return test

    constant = [operand.test for operand in matching if operand.test is not None]
    if len(constant) == len(matching):
        return _Operand(test_of(constant))

    def bind(context: Context) -> Test | None:
        tests = [operand.test or operand.bind(context) for operand in matching]
        bound = [test for test in tests if test is not None]
        return test_of(bound) if len(bound) == len(tests) else None

    return _Operand(None, tuple(each for operand in matching for each in operand.variables), bind)


def _matches(parts: Sequence[str | Wildcard]) -> Test:
    return wildcards.matcher(parts).test


def _bool(text: str, with_variables: bool, unusable: re.Pattern[str] | None) -> _Operand:
    if not variables_of(split(text, with_variables=with_variables)):
        _parse_bool(text)
    return _equal_ignoring_case(text, with_variables, unusable)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("is neither `true` nor `false`")
    return text.lower() == "true"


def _ordered(
    parse: Callable[[str], Decimal | None], kind: str, compare: Callable[[Decimal, Decimal], bool]
) -> _Make:
    """Operands that are numbers or dates; a value of the request that is none does not match."""

    def make(text: str, _with_variables: bool, _unusable: re.Pattern[str] | None) -> _Operand:
        wanted = parse(text)
        if wanted is None:
            raise ValueError(f"is not {kind}")

        def test(value: str) -> bool:
            found = parse(value)
            return found is not None and compare(found, wanted)

        return _Operand(test)

    return make


_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_EPOCH: Final = re.compile(r"[0-9]{1,19}(\.[0-9]{1,9})?")
_DATE: Final = re.compile(
    r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2})"
    r"(?:[Tt]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]{1,9})?)?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))?)?)?)?"
)
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _parse_number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _parse_date(text: str) -> Decimal | None:
    """Seconds since the epoch. Four digits are a year (W3C NOTE-datetime), other numbers seconds.

    A time without a zone is UTC.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        return Decimal(text) if _EPOCH.fullmatch(text) else None
    year, month, day, hour, minute, second = (int(each or 0) for each in found.groups()[:6])
    try:
        moment = datetime(year, month or 1, day or 1, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    offset = timedelta(hours=int(found[9] or 0), minutes=int(found[10] or 0))
    since = moment - _BEGINNING - (-offset if found[8] == "-" else offset)
    return since.days * 86400 + since.seconds + Decimal(found[7] or 0)


def _ip(text: str, _with_variables: bool, _unusable: re.Pattern[str] | None) -> _Operand:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("is not an IP address or a range such as `203.0.113.0/24`") from None

    def test(value: str) -> bool:
        try:
            address = ipaddress.ip_address(value.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address in network

    return _Operand(test)


def _binary(text: str, _with_variables: bool, _unusable: re.Pattern[str] | None) -> _Operand:
    wanted = _parse_base64(text)
    if wanted is None:
        raise ValueError("is not base64")
    return _Operand(lambda value: _parse_base64(value) == wanted)


def _parse_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None


_KINDS: Final = (("Numeric", _parse_number, "a number"), ("Date", _parse_date, "a date or a time"))
_ORDERS: Final = {
    "Equals": operator.eq,
    "LessThan": operator.lt,
    "LessThanEquals": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanEquals": operator.ge,
}
_NAMED: Final[dict[str, tuple[_Make, bool]]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringEqualsIgnoreCase": (_equal_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_equal_ignoring_case, True),
    "StringLike": (_like, False),
    "StringNotLike": (_like, True),
    **{
        prefix + name: (_ordered(parse, kind, compare), False)
        for prefix, parse, kind in _KINDS
        for name, compare in _ORDERS.items()
    },
    **{
        f"{prefix}NotEquals": (_ordered(parse, kind, operator.eq), True)
        for prefix, parse, kind in _KINDS
    },
    "Bool": (_bool, False),
    "BinaryEquals": (_binary, False),
    "IpAddress": (_ip, False),
    "NotIpAddress": (_ip, True),
    "ArnEquals": (_arn, False),
    "ArnLike": (_arn, False),
    "ArnNotEquals": (_arn, True),
    "ArnNotLike": (_arn, True),
}
OPERATORS: Final = (*_NAMED, "Null")
"""The names of all operators. Their case does not count."""
_NULL: Final = "null"
_OPERATORS: Final = {name.lower(): how for name, how in _NAMED.items()}
