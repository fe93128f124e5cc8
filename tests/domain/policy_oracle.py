"""A second reading of the policy language: slow, literal, and without a line of the first one.

It takes statements as JSON values and decides by going through the rules of the IAM User Guide
one after the other. Nothing is compiled, and texts are compared letter by letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

Values = Mapping[str, tuple[str, ...]]
Letters = list[tuple[str, str]]
"""("is", letter), ("one", "?") or ("run", "*")."""


def verdict(
    statements: Sequence[Mapping[str, Any]], action: str, resource: str, values: Values
) -> str:
    """``DENY`` when a statement denies, else ``ALLOW`` when one allows, else ``SILENT``."""
    known = {key.lower(): found for key, found in values.items()}
    effects = {each["Effect"] for each in statements if speaks(each, action, resource, known)}
    if "Deny" in effects:
        return "DENY"
    return "ALLOW" if "Allow" in effects else "SILENT"


def speaks(statement: Mapping[str, Any], action: str, resource: str, values: Values) -> bool:
    """Is the statement about this request?"""
    allows = statement["Effect"] == "Allow"
    if "Action" in statement:
        if not any(fits(plain(each.lower()), action.lower()) for each in statement["Action"]):
            return False
    elif any(fits(plain(each.lower()), action.lower()) for each in statement["NotAction"]):
        return False
    for name, keys in statement.get("Condition", {}).items():
        for key, operands in keys.items():
            if not holds(name, key, operands, values, allows):
                return False
    listed = statement.get("Resource", statement.get("NotResource"))
    patterns = [letters(each, values) for each in listed]
    if "NotResource" in statement:
        if allows and None in patterns:
            return False
        return not any(each is not None and fits(each, resource) for each in patterns)
    return any(each is not None and fits(each, resource) for each in patterns)


def holds(name: str, key: str, operands: Sequence[str], values: Values, allows: bool) -> bool:
    """Is the condition true?"""
    found = values.get(key.lower())
    operator, quantifier = name, ""
    if ":" in name:
        quantifier, operator = name.split(":")
    if operator == "Null":
        return any((each == "true") == (not found) for each in operands)
    if_exists = operator.endswith("IfExists")
    operator = operator.replace("IfExists", "")
    negated = "Not" in operator
    operator = operator.replace("Not", "")
    compared = []
    for operand in operands:
        like = operator in ("StringLike", "ArnLike", "ArnEquals")
        read = letters(operand, values, wildcards=like)
        if read is None and negated and allows:
            return False
        if read is not None:
            compared.append(read)
    results = []
    for value in found or ():
        same = any(compare(operator, value, each) for each in compared)
        if quantifier and value == "":
            continue
        results.append(same != negated)
    if quantifier == "ForAllValues":
        return False not in results
    if quantifier == "ForAnyValue":
        return True in results
    if not results:
        return if_exists or negated or (found == () and key.lower() == "iot:connectattributes")
    return False not in results if allows else True in results


def compare(operator: str, value: str, operand: Letters) -> bool:
    """One value of the request and one of the policy."""
    text = "".join(letter for _, letter in operand)
    if operator == "StringEquals":
        return value == text
    if operator in ("StringEqualsIgnoreCase", "Bool"):
        return value.lower() == text.lower()
    if operator == "StringLike":
        return fits(operand, value)
    if operator in ("ArnEquals", "ArnLike"):
        return arn_fits(operand, value)
    if operator == "IpAddress":
        network, _, length = text.partition("/")
        size = int(length or 32)
        return "." in value and bits(value)[:size] == bits(network)[:size]
    if operator.startswith("Numeric"):
        try:
            left, right = Fraction(value), Fraction(text)
        except ValueError:
            return False
        return ordered(operator.removeprefix("Numeric"), left, right)
    if operator.startswith("Date"):
        try:
            return ordered(operator.removeprefix("Date"), moment(value), moment(text))
        except ValueError:
            return False
    raise AssertionError(operator)


def ordered(operator: str, left: Fraction, right: Fraction) -> bool:
    if operator == "Equals":
        return left == right
    if operator == "LessThan":
        return left < right
    if operator == "LessThanEquals":
        return left <= right
    if operator == "GreaterThan":
        return left > right
    return left >= right


def moment(text: str) -> Fraction:
    if text.replace(".", "", 1).isdigit() and len(text) != 4:
        return Fraction(text)
    if len(text) == 4:
        text += "-01-01T00:00:00+00:00"
    return Fraction(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def bits(address: str) -> str:
    return "".join(f"{int(part):08b}" for part in address.split("."))


def plain(text: str) -> Letters:
    kinds = {"*": "run", "?": "one"}
    return [(kinds.get(letter, "is"), letter) for letter in text]


def letters(text: str, values: Values, *, wildcards: bool = True) -> Letters | None:
    """The letters of a text with values in place of variables, None when there is no value."""
    found: Letters = []
    at = 0
    while at < len(text):
        if text[at : at + 2] == "${":
            end = text.index("}", at)
            name = text[at + 2 : end]
            at = end + 1
            if name in ("*", "?", "$"):
                found.append(("is", name))
                continue
            value = values.get(name.lower(), ())
            if len(value) != 1 or value[0] == "" or len(value[0]) > 1024:
                return None
            if any(letter in "*?+#$" for letter in value[0]):
                return None
            found += [("is", letter) for letter in value[0]]
        else:
            found += plain(text[at]) if wildcards else [("is", text[at])]
            at += 1
    return found


def fits(pattern: Letters, text: str) -> bool:
    """Does the whole text fit the pattern?"""
    if not pattern:
        return text == ""
    kind, letter = pattern[0]
    if kind == "run":
        return any(fits(pattern[1:], text[at:]) for at in range(len(text) + 1))
    if text == "" or (kind == "is" and text[0] != letter):
        return False
    return fits(pattern[1:], text[1:])


def arn_fits(pattern: Letters, text: str) -> bool:
    """Six parts between colons, each by itself. (Values here have no colons.)"""
    parts: list[Letters] = [[]]
    for kind, letter in pattern:
        if letter == ":" and len(parts) < 6:
            parts.append([])
        else:
            parts[-1].append((kind, letter))
    found = text.split(":", 5)
    return len(parts) == len(found) == 6 and all(map(fits, parts, found))
