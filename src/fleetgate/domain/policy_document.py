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
from fleetgate.domain.policy_principals import InvalidPrincipal, Principals, parse_principals
from fleetgate.domain.policy_resources import check_iam_resource, may_be_arn
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
_VENDOR: Final = re.compile(r"[a-zA-Z0-9.-]+|\*")
_SID: Final = re.compile(r"[A-Za-z0-9]*")
_RESOURCE_SID: Final = re.compile(r"[A-Za-z0-9_-]*")  # StatementId of the lambda model
_TRUST_ACTIONS: Final = {
    "sts:assumerole",
    "sts:assumerolewithsaml",
    "sts:assumerolewithwebidentity",
    "sts:setsourceidentity",
    "sts:tagsession",
}

_SYNTAX: Final = "Syntax errors in policy."
_DATE: Final = "The policy failed legacy parsing"
_NO_VENDOR: Final = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."


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
        raise reader.malformed(
            "", f"it has {size} characters without white space; the limit is {max_characters}"
        )
    try:
        root = json_document.read(document, max_depth=MAX_DEPTH)
    except ValueError as error:
        invalid = "This policy contains invalid Json" if dialect is TRUST else _SYNTAX
        raise reader.malformed("", str(error), invalid) from None
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

    def malformed(self, where: str, rule: str, iam: str = _SYNTAX) -> ServiceError:
        """The error for a place that breaks a rule; `iam` is IAM's sentence, which comes first."""
        detail = f"{where}: {rule}" if where else rule
        if self._dialect is IOT:
            return self.error(f"Policy document is Malformed: {detail}")
        return self.error(f"{iam} ({detail})")

    def document(self, root: Any) -> Document:
        """The whole document."""
        if not isinstance(root, dict):
            raise self.malformed("", "it must be a JSON object")
        for key in root:
            if key not in {"Version", "Id", "Statement"}:
                raise self.malformed("", f"unknown element {quoted(key)}")
        if "Version" not in root and self._dialect is IOT:
            raise self.malformed("", "`Version` is missing; it must be `2012-10-17`")
        # IAM User Guide, "Version": left out, it is 2008-10-17.
        version = root.get("Version", "2008-10-17")
        if version not in _VERSIONS:
            raise self.malformed("Version", f"it must be `2012-10-17`, not {quoted(version)}")
        if not isinstance(root.get("Id", ""), str):
            raise self.malformed("Id", "it must be a string")
        if "Statement" not in root:
            raise self.malformed("", "`Statement` is missing")
        listed = root["Statement"]
        if isinstance(listed, dict):
            listed = [listed]
        if not isinstance(listed, list) or not listed:
            raise self.malformed("Statement", "it must be a statement or a list of statements")
        self._with_variables = version == "2012-10-17"
        for index, each in enumerate(listed):
            self._check_syntax(each, f"Statement[{index}]")
        self._check_labels(listed)
        for index, each in enumerate(listed):
            self._check_presence(each, f"Statement[{index}]")
        statements = tuple(self._statement(index, each) for index, each in enumerate(listed))
        keys = frozenset(
            condition.mentions[0] for each in statements for condition in each.conditions
        )
        return Document(self._dialect, version, statements, frozenset(self._variables), keys)

    def _check_labels(self, listed: list[dict[str, Any]]) -> None:
        if self._dialect is IOT:
            return
        labels = [each["Sid"] for each in listed if each.get("Sid")]
        for label in labels:
            sid = _RESOURCE_SID if self._dialect is RESOURCE else _SID
            if not sid.fullmatch(label):
                raise self.error(
                    f"Statement IDs (SID) must be alpha-numeric. Check that your input satisfies "
                    f"the regular expression [0-9A-Za-z]*: {quoted(label)}"
                )
        if len(set(labels)) != len(labels):
            raise self.error("Statement IDs (SID) in a single policy must be unique.")

    def _check_syntax(self, value: Any, where: str) -> None:
        """What IAM tells before anything else, of all statements."""
        if not isinstance(value, dict):
            raise self.malformed(where, "it must be a JSON object")
        self._check_elements(value, where)
        if not isinstance(value.get("Sid", ""), str):
            raise self.malformed(f"{where}.Sid", "it must be a string")
        effect = value.get("Effect")
        if effect not in ("Allow", "Deny"):
            rule = f"it must be `Allow` or `Deny`, not {quoted(effect)}"
            raise self.malformed(f"{where}.Effect", rule)
        for key in ("Action", "Resource"):
            if key in value and f"Not{key}" in value:
                raise self.malformed(where, _exactly_one(key))
            for name in (key, f"Not{key}"):
                if not _is_texts(value.get(name, "")):
                    rule = "it must be a string or a list of strings"
                    raise self.malformed(f"{where}.{name}", rule)

    def _check_presence(self, value: dict[str, Any], where: str) -> None:
        for key in ("Action", "Resource"):
            name, listed = _one_of(value, key)
            optional = key == "Resource" and self._dialect in (TRUST, RESOURCE)
            if listed or (optional and name not in value):
                continue
            if self._dialect is not IOT:
                raise self.error(f"Policy statement must contain {key.lower()}s.")
            raise self.malformed(where, f"{_exactly_one(key)} and name something")

    def _statement(self, index: int, value: dict[str, Any]) -> Statement:
        where = f"Statement[{index}]"
        action_key, actions = _one_of(value, "Action")
        resource_key, resources = _one_of(value, "Resource")
        patterns = tuple(self._resource(each, f"{where}.{resource_key}") for each in resources)
        used = [each for pattern in patterns for each in variables_of(pattern.parts)]
        self._variables.update(each.name for each in used)
        conditions = self._conditions(value.get("Condition", {}), f"{where}.Condition")
        return Statement(
            label=value.get("Sid") or str(index),
            allows=value["Effect"] == "Allow",
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
                    if self._dialect is IDENTITY:
                        raise self.error("Policy document should not specify a principal.")
                    raise self.malformed(where, f"an IoT policy has no {quoted(key)}")
                if key == "NotPrincipal" and self._dialect is TRUST:
                    # IAM User Guide, "NotPrincipal": not in a role trust policy
                    raise self.error(f"Has prohibited field {key}")
            elif key in {"Resource", "NotResource"}:
                if self._dialect is TRUST:
                    raise self.error(f"Has prohibited field {key}")
            elif key not in known:
                raise self.malformed(where, f"unknown element {quoted(key)}")

    def _action(self, text: str, where: str) -> Callable[[str], bool]:
        if self._dialect is not IOT:
            self._check_iam_action(text)
        elif text != "*" and not _ACTION.fullmatch(text):
            rule = f"{quoted(text)} is not an action such as `iot:Publish` or `*`"
            raise self.malformed(where, rule)
        parts = [Wildcard(c) if c in "*?" else c for c in re.split(r"([*?])", text.lower()) if c]
        return wildcards.matcher(parts).test

    def _check_iam_action(self, text: str) -> None:
        vendor, colon, name = text.partition(":")
        if not colon and text != "*":
            raise self.error(_NO_VENDOR)
        if ":" in name:
            raise self.error("Actions/Condition can contain only one colon.")
        if not _VENDOR.fullmatch(vendor):
            raise self.error(f"Vendor {vendor[:200]} is not valid")
        if self._dialect is TRUST and text.lower() not in _TRUST_ACTIONS:
            raise self.error("AssumeRole policy may only specify STS AssumeRole actions.")

    def _resource(self, text: str, where: str) -> Pattern:
        if self._dialect is IDENTITY:
            try:
                check_iam_resource(text)
            except ValueError as error:
                raise self.error(str(error)) from None
        elif not may_be_arn(text):
            rule = f"{quoted(text)} is not an ARN such as `arn:aws:iot:...` or `*`"
            raise self.malformed(where, rule, f'Resource {text} must be in ARN format or "*".')
        try:
            parts = split(text, with_variables=self._with_variables)
        except ValueError as error:
            raise self.malformed(where, f"{quoted(text)} {error}") from None
        known = [part for part in parts if not isinstance(part, Variable)]
        return Pattern(parts, wildcards.matcher(known) if len(known) == len(parts) else None)

    def _conditions(self, value: Any, where: str) -> tuple[Condition, ...]:
        if not isinstance(value, dict):
            raise self.malformed(where, "it must be a JSON object")
        conditions = []
        for name, keys in value.items():
            place = f"{where}.{name[:80]}"
            if not isinstance(keys, dict):
                raise self.malformed(place, "it must be a JSON object")
            if not is_operator(name) and (keys or self._dialect is IOT):
                raise self.malformed(where, f"{quoted(name)} is not a condition operator")
            for key, listed in keys.items():
                # IAM takes it; it is a key no request has
                if ":" not in key[1:-1] and self._dialect is IOT:
                    rule = f"{quoted(key)} is not a condition key such as `aws:SourceIp`"
                    raise self.malformed(place, rule)
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
                    iam = _DATE if "date" in name.lower() else _SYNTAX
                    raise self.malformed(f"{place}.{key[:80]}", str(error), iam) from None
                self._variables.update(condition.mentions[1:])
                conditions.append(condition)
        return tuple(conditions)

    def _operands(self, listed: Any, where: str) -> list[str]:
        if not isinstance(listed, list):
            listed = [listed]
        operands = []
        for each in listed:
            if not isinstance(each, str | int | float):
                raise self.malformed(where, "it must be strings, numbers or booleans")
            operands.append(str(each).lower() if isinstance(each, bool) else str(each))
        return operands

    def _principals(self, value: dict[str, Any], where: str) -> Principals | None:
        if self._dialect in (IOT, IDENTITY):
            return None
        key = "Principal" if "Principal" in value else "NotPrincipal"
        if key not in value:
            raise self.error("Missing required field Principal")
        if "Principal" in value and "NotPrincipal" in value:
            raise self.malformed(where, _exactly_one("Principal"))
        try:
            return parse_principals(value[key], negated=key == "NotPrincipal")
        except InvalidPrincipal as error:
            raise self.error(str(error)) from None
        except ValueError as error:
            raise self.malformed(f"{where}.{key}", str(error)) from None


def _one_of(value: dict[str, Any], key: str) -> tuple[str, list[str]]:
    """The name of the element that is there, and its texts; all but nothing without one."""
    name = key if key in value else f"Not{key}"
    found = value.get(name, [])
    return name, [found] if isinstance(found, str) else found


def _exactly_one(key: str) -> str:
    return f"exactly one of `{key}` and `Not{key}` must be present"


def _is_texts(value: Any) -> bool:
    return all(isinstance(each, str) for each in (value if isinstance(value, list) else [value]))
