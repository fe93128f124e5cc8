"""Policy documents of IAM and AWS IoT: from JSON to statements that are ready to be compiled.

The language is one; a `Dialect` says which elements a kind of policy has. What is constant is
turned into matchers and closures here, once, so that a Document may be kept and shared. Elements
this server would have to ignore are refused.

Sources: IAM User Guide, "IAM JSON policy elements reference" and "Grammar of the IAM JSON policy
language"; AWS IoT Developer Guide, "AWS IoT Core policies", "Policy actions", "Policy resources".
Messages for IAM policies are IAM's own where they are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from fleetgate.domain import document as json_document
from fleetgate.domain import wildcards
from fleetgate.domain.conditions import Condition, is_operator, parse_condition
from fleetgate.domain.document import quoted
from fleetgate.domain.policy_principals import Principals, parse_principals
from fleetgate.domain.policy_variables import (
    IOT_UNUSABLE,
    Part,
    Variable,
    fold,
    split,
    variables_of,
)
from fleetgate.domain.wildcards import Matcher, Wildcard
from fleetgate.errors import MalformedPolicyDocument, MalformedPolicyException, ServiceError

MAX_DOCUMENT: Final = 2048
"""Characters of an IoT policy, not counting white space (AWS IoT Core quotas)."""

MAX_DEPTH: Final = 16
"""Nesting of a document."""

_MAX_TEXT: Final = 404_600  # white space included: PolicyDocument of the service model
_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_ACTION: Final = re.compile(r"[a-zA-Z0-9*?.-]+:[a-zA-Z0-9*?_-]+")
_SID: Final = re.compile(r"[A-Za-z0-9]*")
_TRUST_ACTIONS: Final = {
    "sts:assumerole",
    "sts:assumerolewithsaml",
    "sts:assumerolewithwebidentity",
    "sts:setsourceidentity",
    "sts:tagsession",
}
_TOKEN: Final = re.compile(r"\$\{[^{}]*\}|[*?]")


class Dialect(Enum):
    """A kind of policy: which elements its statements have."""

    IOT = "IoT policy"
    """Attached to certificates and thing groups: no Principal, `Version` has to be there."""
    IDENTITY = "identity policy"
    """Of an IAM user or role: no Principal."""
    TRUST = "trust policy"
    """Of an IAM role, who may assume it: Principal, no Resource."""
    RESOURCE = "resource policy"
    """Of what is called, a function: Principal; Resource may be left out."""


IOT: Final = Dialect.IOT
IDENTITY: Final = Dialect.IDENTITY
TRUST: Final = Dialect.TRUST
RESOURCE: Final = Dialect.RESOURCE


@dataclass(frozen=True, slots=True)
class Pattern:
    """A resource in a statement; without a matcher there are variables to be filled in first."""

    parts: tuple[Part, ...]
    matcher: Matcher | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `label` is its Sid, or its index.

    Without a Resource element `resources` are none and `not_resources` is true: every resource.
    `names` are the condition keys and variables it looks at, folded, with how they were written.
    """

    label: str
    allows: bool
    actions: tuple[Callable[[str], bool], ...]
    not_actions: bool
    resources: tuple[Pattern, ...]
    not_resources: bool
    conditions: tuple[Condition, ...]
    principals: Principals | None
    names: Mapping[str, str]
    unusable: re.Pattern[str] | None


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed policy document. Immutable: keep it and share it between connections."""

    dialect: Dialect
    version: str
    """``2012-10-17`` or ``2008-10-17``, which is also what a document without Version has."""
    statements: tuple[Statement, ...]
    variables: frozenset[str]
    """The names of the policy variables it uses, as written, e.g. ``iot:ClientId``."""
    keys: frozenset[str]
    """The condition keys it asks for, as written, e.g. ``aws:SourceIp``."""

    def mentions(self, prefix: str) -> bool:
        """Does it use a variable or condition key that begins like that?"""
        start = fold(prefix)
        return any(name.startswith(start) for each in self.statements for name in each.names)


def characters(document: str) -> int:
    """The size of a document as quotas count it: white space is free."""
    return len("".join(document.split()))


def parse(
    document: str, dialect: Dialect = Dialect.IOT, *, max_characters: int | None = None
) -> Document:
    """Reads a policy document (JSON).

    `max_characters` bounds `characters(document)`; an IoT policy has 2048 when nothing is said,
    other kinds are for the caller to bound. Raises MalformedPolicyException for an IoT policy,
    MalformedPolicyDocument for another; the message says what is wrong and where.
    """
    reader = _Reader(dialect)
    if max_characters is None:
        max_characters = MAX_DOCUMENT if dialect is IOT else _MAX_TEXT
    size = characters(document)
    if size > max_characters or len(document) > _MAX_TEXT:
        raise reader.error(
            f"policy document: it has {size} characters without white space; "
            f"the limit is {max_characters}"
        )
    try:
        root = json_document.read(document, max_depth=MAX_DEPTH)
    except ValueError as error:
        raise reader.error(f"policy document: {error}") from None
    return reader.document(root)


class _Reader:
    """Reads what JSON holds as a document of one dialect."""

    __slots__ = ("_dialect", "_unusable", "_variables", "_with_variables")

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._unusable = IOT_UNUSABLE if dialect is IOT else None
        self._with_variables = True
        self._variables: set[str] = set()

    def error(self, message: str) -> ServiceError:
        """The error of this dialect."""
        if self._dialect is IOT:
            return MalformedPolicyException(message)
        return MalformedPolicyDocument(message)

    def _malformed(self, where: str, rule: str, iam: str = "") -> ServiceError:
        """`iam` is what IAM says."""
        if iam and self._dialect is not IOT:
            return self.error(iam)
        place = f"policy document, {where}" if where else "policy document"
        return self.error(f"{place}: {rule}")

    def document(self, root: Any) -> Document:
        """The whole document."""
        if not isinstance(root, dict):
            raise self._malformed("", "it must be a JSON object")
        for key in root:
            if key not in {"Version", "Id", "Statement"}:
                raise self._malformed("", f"unknown element {quoted(key)}")
        if "Version" not in root and self._dialect is IOT:
            raise self._malformed("", "`Version` is missing; it must be `2012-10-17`")
        # IAM User Guide, "Version": left out, it is 2008-10-17.
        version = root.get("Version", "2008-10-17")
        if version not in _VERSIONS:
            raise self._malformed("Version", f"it must be `2012-10-17`, not {quoted(version)}")
        if not isinstance(root.get("Id", ""), str):
            raise self._malformed("Id", "it must be a string")
        if "Statement" not in root:
            raise self._malformed("", "`Statement` is missing")
        listed = root["Statement"]
        if isinstance(listed, dict):
            listed = [listed]
        if not isinstance(listed, list) or not listed:
            raise self._malformed("Statement", "it must be a statement or a list of statements")
        self._with_variables = version == "2012-10-17"
        statements = tuple(self._statement(index, each) for index, each in enumerate(listed))
        self._check_labels(listed)
        keys = frozenset(
            condition.mentions[0] for each in statements for condition in each.conditions
        )
        return Document(self._dialect, version, statements, frozenset(self._variables), keys)

    def _check_labels(self, listed: list[dict[str, Any]]) -> None:
        if self._dialect is IOT:
            return
        labels = [each["Sid"] for each in listed if each.get("Sid")]
        for label in labels:
            if not _SID.fullmatch(label):
                raise self.error(
                    f"Statement IDs (SID) must be alpha-numeric. Check that your input satisfies "
                    f"the regular expression [0-9A-Za-z]*: {quoted(label)}"
                )
        if len(set(labels)) != len(labels):
            raise self.error("Statement IDs (SID) in a single policy must be unique.")

    def _statement(self, index: int, value: Any) -> Statement:
        where = f"Statement[{index}]"
        if not isinstance(value, dict):
            raise self._malformed(where, "it must be a JSON object")
        self._check_elements(value, where)
        sid = value.get("Sid", "")
        if not isinstance(sid, str):
            raise self._malformed(f"{where}.Sid", "it must be a string")
        effect = value.get("Effect")
        if effect not in ("Allow", "Deny"):
            rule = f"it must be `Allow` or `Deny`, not {quoted(effect)}"
            raise self._malformed(f"{where}.Effect", rule)
        action_key, actions = self._one_of(
            value, "Action", where, "Policy statement must contain actions."
        )
        resource_key, resources = "NotResource", list[str]()
        if self._dialect in (IOT, IDENTITY) or "Resource" in value or "NotResource" in value:
            resource_key, resources = self._one_of(
                value, "Resource", where, "Policy statement must contain resources."
            )
        patterns = tuple(self._resource(each, f"{where}.{resource_key}") for each in resources)
        used = [each for pattern in patterns for each in variables_of(pattern.parts)]
        self._variables.update(each.name for each in used)
        conditions = self._conditions(value.get("Condition", {}), f"{where}.Condition")
        return Statement(
            label=sid or str(index),
            allows=effect == "Allow",
            actions=tuple(self._action(each, f"{where}.{action_key}") for each in actions),
            not_actions=action_key == "NotAction",
            resources=patterns,
            not_resources=resource_key == "NotResource",
            conditions=conditions,
            principals=self._principals(value, where),
            names={
                **{each.key: each.name for each in used},
                **{fold(name): name for each in conditions for name in each.mentions},
            },
            unusable=self._unusable,
        )

    def _check_elements(self, value: dict[str, Any], where: str) -> None:
        known = {"Sid", "Effect", "Action", "NotAction", "Condition"}
        for key in value:
            if key in {"Principal", "NotPrincipal"}:
                if self._dialect in (IOT, IDENTITY):
                    raise self._malformed(
                        where,
                        f"an IoT policy has no {quoted(key)}",
                        "Policy document should not specify a principal.",
                    )
            elif key in {"Resource", "NotResource"}:
                if self._dialect is TRUST:
                    raise self.error(f"Has prohibited field {key}")
            elif key not in known:
                raise self._malformed(where, f"unknown element {quoted(key)}")

    def _one_of(
        self, value: dict[str, Any], key: str, where: str, missing: str
    ) -> tuple[str, list[str]]:
        other = f"Not{key}"
        if (key in value) == (other in value):
            rule = f"exactly one of `{key}` and `{other}` must be present"
            raise self._malformed(where, rule, "" if key in value else missing)
        key = key if key in value else other
        listed = value[key]
        if isinstance(listed, str):
            listed = [listed]
        if (
            not isinstance(listed, list)
            or not listed
            or not all(isinstance(x, str) for x in listed)
        ):
            raise self._malformed(
                f"{where}.{key}",
                "it must be a string or a list of strings",
                missing if listed == [] else "",
            )
        return key, listed

    def _action(self, text: str, where: str) -> Callable[[str], bool]:
        if text != "*" and not _ACTION.fullmatch(text):
            iam = ""
            if ":" not in text:
                iam = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
            rule = f"{quoted(text)} is not an action such as `iot:Publish` or `*`"
            raise self._malformed(where, rule, iam)
        if self._dialect is TRUST and text.lower() not in _TRUST_ACTIONS:
            raise self.error("AssumeRole policy may only specify STS AssumeRole actions.")
        parts = [Wildcard(c) if c in "*?" else c for c in re.split(r"([*?])", text.lower()) if c]
        return wildcards.matcher(parts).test

    def _resource(self, text: str, where: str) -> Pattern:
        try:
            parts = split(text, with_variables=self._with_variables)
        except ValueError as error:
            raise self._malformed(where, f"{quoted(text)} {error}") from None
        if not _may_be_arn(text):
            raise self._malformed(
                where,
                f"{quoted(text)} is not an ARN such as `arn:aws:iot:...` or `*`",
                f'Resource {text[:200]} must be in ARN format or "*".',
            )
        known = [part for part in parts if not isinstance(part, Variable)]
        return Pattern(parts, wildcards.matcher(known) if len(known) == len(parts) else None)

    def _conditions(self, value: Any, where: str) -> tuple[Condition, ...]:
        if not isinstance(value, dict):
            raise self._malformed(where, "it must be a JSON object")
        conditions = []
        for name, keys in value.items():
            place = f"{where}.{name[:80]}"
            if not isinstance(keys, dict):
                raise self._malformed(place, "it must be a JSON object")
            if not is_operator(name):
                raise self._malformed(where, f"{quoted(name)} is not a condition operator")
            for key, listed in keys.items():
                if ":" not in key[1:-1]:
                    rule = f"{quoted(key)} is not a condition key such as `aws:SourceIp`"
                    iam = "Actions/Conditions must be prefaced by a vendor, "
                    raise self._malformed(place, rule, iam + "e.g., iam, sdb, ec2, etc.")
                values = self._operands(listed, f"{place}.{key[:80]}")
                try:
                    condition = parse_condition(
                        name,
                        key,
                        values,
                        with_variables=self._with_variables,
                        unusable=self._unusable,
                    )
                except ValueError as error:
                    raise self._malformed(f"{place}.{key[:80]}", str(error)) from None
                self._variables.update(condition.mentions[1:])
                conditions.append(condition)
        return tuple(conditions)

    def _operands(self, listed: Any, where: str) -> list[str]:
        if not isinstance(listed, list):
            listed = [listed]
        operands = []
        for each in listed:
            if not isinstance(each, str | int | float):
                raise self._malformed(where, "it must be strings, numbers or booleans")
            operands.append(str(each).lower() if isinstance(each, bool) else str(each))
        return operands

    def _principals(self, value: dict[str, Any], where: str) -> Principals | None:
        if self._dialect in (IOT, IDENTITY):
            return None
        if ("Principal" in value) == ("NotPrincipal" in value):
            rule = "exactly one of `Principal` and `NotPrincipal` must be present"
            iam = "" if "Principal" in value else "Missing required field Principal"
            raise self._malformed(where, rule, iam)
        key = "Principal" if "Principal" in value else "NotPrincipal"
        try:
            return parse_principals(value[key], negated=key == "NotPrincipal")
        except ValueError as error:
            raise self._malformed(f"{where}.{key}", str(error)) from None


def _may_be_arn(text: str) -> bool:
    """`arn:partition:service:region:account:resource`; a wildcard or variable may span parts."""
    token = _TOKEN.search(text)
    head = text[: token.start()] if token else text
    parts = text.split(":", 5)
    complete = len(parts) == 6 and parts[5] != ""
    return (head.startswith("arn:") and (complete or token is not None)) or (
        token is not None and "arn:".startswith(head)
    )
