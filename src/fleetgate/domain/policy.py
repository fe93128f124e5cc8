"""IoT policies: parse a document, bind it to a connection, decide.

Theory of operation. `parse` turns a document into statements whose patterns are already split
into literal text, wildcards and variables; a pattern without variables is turned into its matcher
there and then, and the Document may be kept and shared. `compile_policies` binds the documents
that apply to a connection to that connection's variables. `Policies.evaluate` files the
statements under each action the first time it is asked about it (resources by exact text, by
prefix, and the rest), so that a decision is a dictionary look-up and a `str.startswith`.

A policy never gets wider by what a client chooses to be called: a pattern with a variable that is
unknown, empty, longer than 1024 characters or that holds one of ``* ? + # $`` matches nothing,
and an Allow with such a pattern in NotResource allows nothing.

Sources: AWS IoT Developer Guide, "AWS IoT Core policies", "Policy actions", "Policy resources",
"Policy variables"; IAM User Guide, "IAM JSON policy elements reference" and "Grammar".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetgate.domain import document as json_document
from fleetgate.domain import wildcards
from fleetgate.domain.document import quoted
from fleetgate.domain.wildcards import Matcher, Wildcard
from fleetgate.errors import MalformedPolicyException

CONNECT: Final = "iot:Connect"
PUBLISH: Final = "iot:Publish"
RECEIVE: Final = "iot:Receive"
SUBSCRIBE: Final = "iot:Subscribe"

MAX_DOCUMENT: Final = 2048
"""Characters of a document, not counting white space (AWS IoT Core quotas)."""
MAX_VARIABLE_VALUE: Final = 1024
"""Characters of a variable's value (AWS IoT Developer Guide, "X.509 certificate variables")."""

MAX_DEPTH: Final = 16
"""Nesting of a document."""

_MAX_TEXT = 404_600  # white space included: PolicyDocument of the service model
_MAX_FILED_ACTIONS = 64
_VERSIONS = ("2012-10-17", "2008-10-17")
_STATEMENT_KEYS = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource"}
_TOKENS = re.compile(r"\$\{([^{}]*)\}|([*?])")
_ACTION = re.compile(r"[a-zA-Z0-9*?-]+:[a-zA-Z0-9*?]+")
_ESCAPED = {"*", "?", "$"}
_UNSAFE_VALUE = re.compile(r"[*?+#$]")


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str


_Part = str | Wildcard | _Variable


@dataclass(frozen=True, slots=True)
class _Pattern:
    parts: tuple[_Part, ...]
    matcher: Matcher | None
    """None when there are variables to be filled in first."""


@dataclass(frozen=True, slots=True)
class _Statement:
    label: str
    allows: bool
    actions: tuple[Callable[[str], bool], ...]
    not_actions: bool
    resources: tuple[_Pattern, ...]
    not_resources: bool


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed policy document. Immutable: keep it and share it between connections."""

    statements: tuple[_Statement, ...]
    variables: frozenset[str]
    """The names of the policy variables it uses, e.g. ``iot:ClientId``."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request is allowed, and who said so.

    `policy` and `statement` (its Sid, or its index) name the deciding statement; both are None
    when no statement spoke. `reason` is a sentence for the log.
    """

    allowed: bool
    policy: str | None
    statement: str | None
    reason: str


def parse(document: str) -> Document:
    """Reads an IoT policy document (JSON).

    Raises MalformedPolicyException, whose message says what is wrong and where. Elements this
    server would have to ignore are refused: conditions, principals, unknown names.
    """
    size = len("".join(document.split()))
    if size > MAX_DOCUMENT or len(document) > _MAX_TEXT:
        raise MalformedPolicyException(
            f"policy document: it has {size} characters without white space; "
            f"the limit is {MAX_DOCUMENT}"
        )
    try:
        root = json_document.read(document, max_depth=MAX_DEPTH)
    except ValueError as error:
        raise MalformedPolicyException(f"policy document: {error}") from None
    if not isinstance(root, dict):
        raise _malformed("", "it must be a JSON object")
    for key in root:
        if key not in {"Version", "Id", "Statement"}:
            raise _malformed("", f"unknown element {quoted(key)}")
    if "Version" not in root:
        raise _malformed("", "`Version` is missing; it must be `2012-10-17`")
    version = root["Version"]
    if version not in _VERSIONS:
        raise _malformed("Version", f"it must be `2012-10-17`, not {quoted(version)}")
    if not isinstance(root.get("Id", ""), str):
        raise _malformed("Id", "it must be a string")
    if "Statement" not in root:
        raise _malformed("", "`Statement` is missing")
    listed = root["Statement"]
    if isinstance(listed, dict):
        listed = [listed]
    if not isinstance(listed, list) or not listed:
        raise _malformed("Statement", "it must be a statement or a list of statements")
    with_variables = version == "2012-10-17"
    statements = tuple(
        _parse_statement(index, each, with_variables) for index, each in enumerate(listed)
    )
    variables = frozenset(
        part.name
        for statement in statements
        for pattern in statement.resources
        for part in pattern.parts
        if isinstance(part, _Variable)
    )
    return Document(statements, variables)


def compile_policies(
    policies: Sequence[tuple[str, Document]], variables: Mapping[str, str]
) -> Policies:
    """The policies (name and document) of a connection, bound to its variables.

    `variables` maps names such as ``iot:ClientId`` to their values. Connections whose documents
    use no variables may share the result.
    """
    return Policies(
        [
            rule
            for name, document in policies
            for statement in document.statements
            for rule in _bind(name, statement, variables)
        ]
    )


class Policies:
    """The policies that apply to one connection. Made by `compile_policies`."""

    __slots__ = ("_filed", "_rules")

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = rules
        self._filed: dict[str, tuple[_File, _File]] = {}

    def evaluate(self, action: str, resource: str) -> Decision:
        """Decides whether `action` (e.g. ``iot:Publish``) is allowed on the ARN `resource`.

        Never raises. A statement that denies wins over any that allow; what no statement allows
        is denied. Actions are compared without regard to case, resources exactly.
        """
        filed = self._filed.get(action)
        if filed is None:
            filed = self._file(action)
        denies, allows = filed
        found = denies.find(resource)
        if found is not None:
            reason = f"{found.reason} on {quoted(resource, 400)}"
            return Decision(False, found.policy, found.statement, reason)
        found = allows.find(resource)
        if found is not None:
            return found
        reason = f"no statement allows {action} on {quoted(resource, 400)}"
        return Decision(False, None, None, reason)

    def _file(self, action: str) -> tuple[_File, _File]:
        lowered = action.lower()
        denies, allows = _File(), _File()
        for rule in self._rules:
            statement = rule.statement
            if any(test(lowered) for test in statement.actions) is statement.not_actions:
                continue
            verb = "allows" if statement.allows else "denies"
            decision = Decision(
                statement.allows,
                rule.policy,
                statement.label,
                f"statement {quoted(statement.label)} of policy {quoted(rule.policy)} "
                f"{verb} {action}",
            )
            (allows if statement.allows else denies).add(rule, decision)
        if len(self._filed) < _MAX_FILED_ACTIONS:
            self._filed[action] = denies, allows
        return denies, allows


@dataclass(frozen=True, slots=True)
class _Rule:
    policy: str
    statement: _Statement
    matchers: tuple[Matcher, ...]


class _File:
    """Decisions by resource: exact texts, prefixes, and whatever needs a test of its own."""

    __slots__ = ("_exact", "_prefixed", "_prefixes", "_tested")

    def __init__(self) -> None:
        self._exact: dict[str, Decision] = {}
        self._prefixes: tuple[str, ...] = ()
        self._prefixed: list[tuple[str, Decision]] = []
        self._tested: list[tuple[Callable[[str], bool], Decision]] = []

    def add(self, rule: _Rule, decision: Decision) -> None:
        if rule.statement.not_resources:
            tests = tuple(matcher.test for matcher in rule.matchers)
            self._tested.append((lambda text: not any(test(text) for test in tests), decision))
            return
        for matcher in rule.matchers:
            if matcher.exact is not None:
                self._exact.setdefault(matcher.exact, decision)
            elif matcher.prefix is not None:
                self._prefixes += (matcher.prefix,)
                self._prefixed.append((matcher.prefix, decision))
            else:
                self._tested.append((matcher.test, decision))

    def find(self, resource: str) -> Decision | None:
        decision = self._exact.get(resource)
        if decision is not None:
            return decision
        if resource.startswith(self._prefixes):
            return next(found for prefix, found in self._prefixed if resource.startswith(prefix))
        for test, decision in self._tested:
            if test(resource):
                return decision
        return None


def _bind(policy: str, statement: _Statement, variables: Mapping[str, str]) -> Iterator[_Rule]:
    matchers = []
    for pattern in statement.resources:
        matcher = pattern.matcher
        if matcher is None:
            parts = _substitute(pattern.parts, variables)
            if parts is None:
                if statement.not_resources and statement.allows:
                    # What is excepted from the permission is unknown: allow nothing.
                    return
                continue
            matcher = wildcards.matcher(parts)
        matchers.append(matcher)
    if matchers or statement.not_resources:
        yield _Rule(policy, statement, tuple(matchers))


def _substitute(
    parts: tuple[_Part, ...], variables: Mapping[str, str]
) -> list[str | Wildcard] | None:
    substituted: list[str | Wildcard] = []
    for part in parts:
        if isinstance(part, _Variable):
            value = variables.get(part.name, "")
            if not value or len(value) > MAX_VARIABLE_VALUE or _UNSAFE_VALUE.search(value):
                return None
            substituted.append(value)
        else:
            substituted.append(part)
    return substituted


def _parse_statement(index: int, value: Any, with_variables: bool) -> _Statement:
    where = f"Statement[{index}]"
    if not isinstance(value, dict):
        raise _malformed(where, "it must be a JSON object")
    for key in value:
        if key == "Condition":
            raise _malformed(
                where, "`Condition`: this server does not evaluate conditions, nor ignore them"
            )
        if key in {"Principal", "NotPrincipal"}:
            raise _malformed(where, f"an IoT policy has no {quoted(key)}")
        if key not in _STATEMENT_KEYS:
            raise _malformed(where, f"unknown element {quoted(key)}")
    sid = value.get("Sid", "")
    if not isinstance(sid, str):
        raise _malformed(f"{where}.Sid", "it must be a string")
    effect = value.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise _malformed(f"{where}.Effect", f"it must be `Allow` or `Deny`, not {quoted(effect)}")
    action_key, actions = _one_of(value, "Action", "NotAction", where)
    resource_key, resources = _one_of(value, "Resource", "NotResource", where)
    return _Statement(
        label=sid or str(index),
        allows=effect == "Allow",
        actions=tuple(_parse_action(each, f"{where}.{action_key}") for each in actions),
        not_actions=action_key == "NotAction",
        resources=tuple(
            _parse_resource(each, f"{where}.{resource_key}", with_variables) for each in resources
        ),
        not_resources=resource_key == "NotResource",
    )


def _one_of(value: dict[str, Any], key: str, other: str, where: str) -> tuple[str, list[str]]:
    if (key in value) == (other in value):
        raise _malformed(where, f"exactly one of `{key}` and `{other}` must be present")
    key = key if key in value else other
    listed = value[key]
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, list) or not listed or not all(isinstance(x, str) for x in listed):
        raise _malformed(f"{where}.{key}", "it must be a string or a list of strings")
    return key, listed


def _parse_action(text: str, where: str) -> Callable[[str], bool]:
    if text != "*" and not _ACTION.fullmatch(text):
        raise _malformed(where, f"{quoted(text)} is not an action such as `iot:Publish` or `*`")
    parts = [Wildcard(c) if c in "*?" else c for c in re.split(r"([*?])", text.lower()) if c]
    return wildcards.matcher(parts).test


def _parse_resource(text: str, where: str, with_variables: bool) -> _Pattern:
    if text.count("${") != sum(1 for name, _ in _TOKENS.findall(text) if name):
        raise _malformed(where, f"{quoted(text)} has a `${{` that is not a variable `${{name}}`")
    _check_arn(text, where)
    parts: list[_Part] = []
    end = 0
    for token in _TOKENS.finditer(text):
        if end < token.start():
            parts.append(text[end : token.start()])
        end = token.end()
        name, wildcard = token.groups()
        if wildcard is not None:
            parts.append(Wildcard(wildcard))
        elif not with_variables:
            # IAM User Guide, "Version": before 2012-10-17 a variable is literal text.
            parts.append(token.group())
        elif name in _ESCAPED:
            parts.append(name)
        else:
            parts.append(_Variable(name))
    parts.append(text[end:])
    known = [part for part in parts if not isinstance(part, _Variable)]
    matcher = wildcards.matcher(known) if len(known) == len(parts) else None
    return _Pattern(tuple(parts), matcher)


def _check_arn(text: str, where: str) -> None:
    """`arn:partition:service:region:account:resource`; a wildcard or variable may span parts."""
    token = _TOKENS.search(text)
    head = text[: token.start()] if token else text
    parts = text.split(":", 5)
    complete = len(parts) == 6 and parts[5] != ""
    if not (
        (head.startswith("arn:") and (complete or token is not None))
        or (token is not None and "arn:".startswith(head))
    ):
        raise _malformed(where, f"{quoted(text)} is not an ARN such as `arn:aws:iot:...` or `*`")


def _malformed(where: str, rule: str) -> MalformedPolicyException:
    place = f"policy document, {where}" if where else "policy document"
    return MalformedPolicyException(f"{place}: {rule}")
