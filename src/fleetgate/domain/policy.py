"""Policies of IAM and AWS IoT: bind documents to a connection or caller, decide.

Theory of operation. `parse` turns a document into statements (see `policy_document`).
`compile_policies` binds the documents that apply to somebody to what is known of them: variables
get their values, conditions are settled. `Policies.evaluate` files the statements under each
action the first time it is asked about it (resources by exact text, by prefix, and the rest), so
that a decision is a dictionary look-up and a `str.startswith`. Values of a single request, laid
over those, are looked at only when a statement asks for one of them; then the statements that do
are bound anew. Who asks more than once with the same values binds them once (`Policies.under`).

A policy never gets wider by what a client chooses to be called: a pattern with a variable that has
no usable value (see `policy_variables`) matches nothing, and an Allow with such a pattern in
NotResource allows nothing.

Sources: IAM User Guide, "Policy evaluation logic"; AWS IoT Developer Guide, "AWS IoT Core
policies", "Policy variables".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fleetgate.domain import wildcards
from fleetgate.domain.document import quoted
from fleetgate.domain.policy_document import (
    IDENTITY,
    IOT,
    MAX_DEPTH,
    MAX_DOCUMENT,
    RESOURCE,
    TRUST,
    Dialect,
    Document,
    Statement,
    characters,
    parse,
)
from fleetgate.domain.policy_principals import Principal
from fleetgate.domain.policy_variables import MAX_VALUE, Context, Values, fold, folded, substitute
from fleetgate.domain.wildcards import Matcher

__all__ = [
    "CONNECT",
    "IDENTITY",
    "IOT",
    "MAX_DEPTH",
    "MAX_DOCUMENT",
    "MAX_VALUE",
    "NO_VALUES",
    "PUBLISH",
    "RECEIVE",
    "RESOURCE",
    "RETAIN_PUBLISH",
    "SUBSCRIBE",
    "TRUST",
    "Decision",
    "Dialect",
    "Document",
    "Policies",
    "Principal",
    "Values",
    "characters",
    "compile_policies",
    "evaluate_trust",
    "parse",
]

CONNECT: Final = "iot:Connect"
PUBLISH: Final = "iot:Publish"
RECEIVE: Final = "iot:Receive"
RETAIN_PUBLISH: Final = "iot:RetainPublish"
SUBSCRIBE: Final = "iot:Subscribe"

NO_VALUES: Final[Values] = {}

_MAX_FILED_ACTIONS: Final = 64


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

    @property
    def explicit_deny(self) -> bool:
        """A statement denies; it is not only that none allows."""
        return not self.allowed and self.policy is not None


def compile_policies(policies: Iterable[tuple[str, Document]], values: Values) -> Policies:
    """The policies (name and document) of a connection or caller, bound to its values.

    Statements that name principals concern nobody here: see `evaluate_trust`.
    """
    entries = [
        (name, statement)
        for name, document in policies
        for statement in document.statements
        if statement.principals is None
    ]
    return Policies(entries, folded(values))


class Policies:
    """The policies that apply to one connection or caller. Made by `compile_policies`."""

    __slots__ = ("_context", "_entries", "_filed", "_names", "_rules")

    def __init__(
        self,
        entries: Sequence[tuple[str, Statement]],
        context: Context,
        rules: Sequence[_Rule | None] | None = None,
    ) -> None:
        self._context = context
        self._entries = entries
        if rules is None:
            rules = [_bind(name, statement, context) for name, statement in entries]
        self._rules = rules
        self._filed: dict[str, tuple[_File, _File]] = {}
        self._names: frozenset[str] = frozenset(
            [name for _, statement in entries for name in statement.names]
        )

    def evaluate(self, action: str, resource: str, values: Values = NO_VALUES) -> Decision:
        """Decides whether `action` (e.g. ``iot:Publish``) is allowed on the ARN `resource`.

        `values` are those of this request; they replace what was given at compile time. Never
        raises. A statement that denies wins over any that allow; what no statement allows is
        denied. Actions are compared without regard to case, resources exactly.
        """
        if values and self._names and not self._names.isdisjoint(later := folded(values)):
            rules = self._bound({**self._context, **later}, later)
            return _decide(filter(None, rules), action, resource)
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
        return _nothing_allows(action, resource)

    def denial(self, action: str, resource: str, values: Values = NO_VALUES) -> Decision | None:
        """The decision of a statement that denies `resource` by naming it (`Resource`), if any.

        For a second name of what has been decided on by its first one: a statement that tells what
        it spares (`NotResource`) has spoken about that one already.
        """
        later = folded(values)
        rules = [
            rule
            for rule in self._bound({**self._context, **later}, later)
            if rule and not rule.statement.allows and not rule.statement.not_resources
        ]
        found = _decide(rules, action, resource)
        return found if found.explicit_deny else None

    def under(self, values: Values) -> Policies:
        """The same policies with the values of a request laid over the others, bound once."""
        if not self._names or self._names.isdisjoint(later := folded(values)):
            return self
        context: Context = {**self._context, **later}
        return Policies(self._entries, context, self._bound(context, later))

    def mentions(self, prefix: str) -> bool:
        """Does a statement look at a condition key or variable that begins like that?

        With an empty prefix: at any.
        """
        start = fold(prefix)
        return any(name.startswith(start) for name in self._names)

    def may_allow(self, action: str) -> bool:
        """Does a statement allow the action on some resource, whatever its conditions?"""
        lowered = action.lower()
        return any(
            statement.allows and _is_on(statement, lowered) for _, statement in self._entries
        )

    def speaking(
        self, action: str, resource: str, values: Values = NO_VALUES
    ) -> tuple[frozenset[str], frozenset[str]]:
        """The names of the policies with a statement that allows, and with one that denies."""
        lowered = action.lower()
        later = folded(values)
        rules = filter(None, self._bound({**self._context, **later}, later))
        spoken = [rule for rule in rules if _concerns(rule, lowered, resource)]
        return (
            frozenset(rule.policy for rule in spoken if rule.statement.allows),
            frozenset(rule.policy for rule in spoken if not rule.statement.allows),
        )

    def missing(self, action: str, values: Values = NO_VALUES) -> list[str]:
        """Keys and variables, as written, that statements on `action` ask for and nobody gave."""
        lowered = action.lower()
        known = {**self._context, **folded(values)}
        return sorted(
            {
                written
                for _, statement in self._entries
                if _is_on(statement, lowered)
                for name, written in statement.names.items()
                if name not in known
            }
        )

    def _bound(self, context: Context, later: Context) -> list[_Rule | None]:
        """The rules under `context`, where `later` is what is new in it."""
        return [
            bound if statement.names.keys().isdisjoint(later) else _bind(name, statement, context)
            for (name, statement), bound in zip(self._entries, self._rules, strict=True)
        ]

    def _file(self, action: str) -> tuple[_File, _File]:
        lowered = action.lower()
        denies, allows = _File(), _File()
        for rule in self._rules:
            if rule is None or not _is_on(rule.statement, lowered):
                continue
            (allows if rule.statement.allows else denies).add(rule, _decision(rule, action))
        # A connection is asked about iot:Connect once, and there are many connections.
        if action != CONNECT and len(self._filed) < _MAX_FILED_ACTIONS:
            self._filed[action] = denies, allows
        return denies, allows


def evaluate_trust(
    document: Document,
    principal: Principal,
    action: str,
    values: Values = NO_VALUES,
    *,
    resource: str = "",
    name: str = "trust policy",
) -> Decision:
    """Decides whether a policy with principals lets `principal` do `action`.

    For a role's trust policy (``sts:AssumeRole``), and, with the ARN `resource`, for the policy
    of a resource. `name` is what the decision calls it. Never raises; any Deny wins.
    """
    context = folded(values)
    bound = (
        _bind(name, statement, context)
        for statement in document.statements
        if statement.principals is not None and statement.principals.include(principal)
    )
    return _decide([rule for rule in bound if rule is not None], action, resource)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A statement that is in force, with its resources as matchers."""

    policy: str
    statement: Statement
    matchers: tuple[Matcher, ...]


class _File:
    """Decisions by resource: exact texts, prefixes, and whatever needs a test of its own."""

    __slots__ = ("_exact", "_prefixed", "_prefixes", "_tested")

    def __init__(self) -> None:
        self._exact: dict[str, Decision] = {}
        self._prefixes: tuple[str, ...] | None = None
        self._prefixed: dict[str, Decision] = {}
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
                self._prefixed.setdefault(matcher.prefix, decision)
            else:
                self._tested.append((matcher.test, decision))

    def find(self, resource: str) -> Decision | None:
        decision = self._exact.get(resource)
        if decision is not None:
            return decision
        if self._prefixes is None:
            self._prefixes = tuple(self._prefixed)
        if resource.startswith(self._prefixes):
            for prefix, decision in self._prefixed.items():
                if resource.startswith(prefix):
                    return decision
        for test, decision in self._tested:
            if test(resource):
                return decision
        return None


def _decide(rules: Iterable[_Rule], action: str, resource: str) -> Decision:
    """The decision of rules that were not filed."""
    lowered = action.lower()
    allowing = None
    for rule in rules:
        if (rule.statement.allows and allowing) or not _concerns(rule, lowered, resource):
            continue
        if not rule.statement.allows:
            found = _decision(rule, action)
            reason = f"{found.reason} on {quoted(resource, 400)}"
            return Decision(False, found.policy, found.statement, reason)
        allowing = rule
    return _nothing_allows(action, resource) if allowing is None else _decision(allowing, action)


def _decision(rule: _Rule, action: str) -> Decision:
    allows, label = rule.statement.allows, rule.statement.label
    verb = "allows" if allows else "denies"
    reason = f"statement {quoted(label)} of policy {quoted(rule.policy)} {verb} {action}"
    return Decision(allows, rule.policy, label, reason)


def _nothing_allows(action: str, resource: str) -> Decision:
    reason = f"no statement allows {action} on {quoted(resource, 400)}"
    return Decision(False, None, None, reason)


def _is_on(statement: Statement, lowered_action: str) -> bool:
    named = any(test(lowered_action) for test in statement.actions)
    return named is not statement.not_actions


def _concerns(rule: _Rule, lowered_action: str, resource: str) -> bool:
    statement = rule.statement
    if not _is_on(statement, lowered_action):
        return False
    named = any(matcher.test(resource) for matcher in rule.matchers)
    return named is not statement.not_resources


def _bind(policy: str, statement: Statement, context: Context) -> _Rule | None:
    """The statement with values put in; None when it is not in force."""
    for condition in statement.conditions:
        if not condition.holds(context, statement.allows):
            return None
    matchers = []
    for pattern in statement.resources:
        matcher = pattern.matcher
        if matcher is None:
            parts = substitute(pattern.parts, context, statement.unusable)
            if parts is None:
                if statement.not_resources and statement.allows:
                    # What is excepted from the permission is unknown: allow nothing.
                    return None
                continue
            matcher = wildcards.matcher(parts)
        matchers.append(matcher)
    if not matchers and not statement.not_resources:
        return None
    return _Rule(policy, statement, tuple(matchers))
