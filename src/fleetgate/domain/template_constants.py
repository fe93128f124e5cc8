"""What is known of a template before any device comes: values made of defaults and mappings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from fleetgate.domain import registry
from fleetgate.domain.resources import Kind, Overrides
from fleetgate.domain.template import CERTIFICATE_ID, Template
from fleetgate.domain.template_functions import (
    MAX_TOTAL,
    UNREADABLE,
    Expression,
    FindInMap,
    Ref,
    Scope,
    expressions,
    references,
    text,
)
from fleetgate.domain.template_policies import Policy, render_policy
from fleetgate.domain.template_resources import (
    Thing,
    checked,
    render_certificate,
    render_thing,
)
from fleetgate.errors import InvalidTemplate

SOME_ID: Final = "0123456789abcdef" * 4
"""Stands in for the id of a certificate that does not exist yet."""

_ANY: Final = object()  # whatever name a device brings

ResourceType = Literal["thingtype", "thinggroup", "billinggroup", "policy"]
"""As ARNs have it."""


@dataclass(frozen=True, slots=True)
class Named:
    """Something a template wants to exist: what it is, its name, the path where it is named."""

    type: ResourceType
    name: str
    path: str


class Constants:
    """Evaluates what no device can change."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._mappings = template.mappings
        self._given = {} if template.kind is Kind.INLINE else {CERTIFICATE_ID: SOME_ID}
        self._defaults = {
            name: value for name, value in template.parameters.items() if value is not None
        }
        self._names = self._given.keys() | self._defaults.keys()
        # each has the bound of one evaluation, as a device has it
        self._naming = Scope(self._given, self._defaults, self._mappings)
        self._told = 0
        self._entries: dict[tuple[object, ...], str] = {}

    def problems(self) -> Iterator[tuple[str, str]]:
        """Path and rule of what is wrong with values of functions that bring in no device.

        They share the bound of one evaluation, since a device evaluates all of them.
        """
        scope = Scope(self._given, self._defaults, self._mappings)
        for parts, attempt in self._attempts():
            if any(expressions(parts)) and self._known(parts):
                try:
                    attempt(scope)
                except InvalidTemplate as error:
                    yield error.path, error.rule
                if scope.produced > MAX_TOTAL:
                    return

    def names(self) -> Iterator[Named]:
        """What has to exist beforehand, as far as it is known."""
        thing = self._template.thing
        if thing is not None:
            groups = _listed_groups(thing)
            wanted: list[tuple[ResourceType, Expression | None, str]] = [
                ("thingtype", thing.type_name, "ThingTypeName"),
                *(("thinggroup", each, f"ThingGroups[{at}]") for at, each in enumerate(groups)),
                ("billinggroup", thing.billing_group, "BillingGroup"),
            ]
            for type_, expression, place in wanted:
                if expression is not None and (name := self._text(expression)):
                    yield Named(type_, name, f"{thing.path}.{place}")
        for policy in self._template.policies:
            if policy.name is not None and (name := self._text(policy.name)):
                yield Named("policy", name, f"{policy.path}.PolicyName")

    def longest(self, expression: Expression) -> str:
        """The longest text that can be told: what devices bring adds nothing.

        Where a device chooses one of several entries of a mapping, the longest is taken.
        """
        if isinstance(expression, FindInMap):
            return self._longest_entry(expression)
        names = [each.name for each in references(expression) if each.name not in self._defaults]
        given = {**dict.fromkeys(names, ""), **self._given}
        scope = Scope(given, self._defaults, self._mappings, produced=self._told)
        try:
            return text(expression, scope)
        except InvalidTemplate:
            return ""
        finally:
            self._told = scope.produced

    def _longest_entry(self, function: FindInMap) -> str:
        """The longest entry of a mapping that a device may choose."""
        asked = (function.map_name, function.key, function.name)
        # a default is no bound: devices may bring another
        names = tuple(_ANY if any(references(each)) else self._text(each) for each in asked)
        if names not in self._entries:
            found: list[Any] = [self._mappings]
            for name in names:
                found = [each for among in found for each in _chosen(among, name)]
            texts = (each for each in found if isinstance(each, str))
            self._entries[names] = max(texts, key=len, default="")
        return self._entries[names]

    def _known(self, value: Any) -> bool:
        """Whether all that a value needs is known, and it can be read at all."""
        return all(
            each is not UNREADABLE and (not isinstance(each, Ref) or each.name in self._names)
            for each in expressions(value)
        )

    def _text(self, expression: Expression) -> str | None:
        if self._known(expression):
            try:
                return text(expression, self._naming)
            except InvalidTemplate:
                pass
        return None

    def _attempts(self) -> Iterator[tuple[Any, Callable[[Scope], object]]]:
        """Everything that can be evaluated by itself, and how."""
        template = self._template
        for thing in _properties(template.thing):
            parts = (thing.name, thing.attributes, thing.type_name, thing.groups)
            yield (*parts, thing.billing_group), partial(render_thing, thing)
        for index, group in enumerate(_listed_groups(template.thing)):
            path = "" if template.thing is None else f"{template.thing.path}.ThingGroups[{index}]"
            yield group, partial(_check_group, group, path)
        if template.certificate is not None:
            own = Ref("", CERTIFICATE_ID) if self._given else ""
            bare = replace(
                template.certificate, source=own, ca_pem=None, status="ACTIVE", principal_type=None
            )
            for certificate in (
                replace(bare, status=template.certificate.status),
                replace(bare, principal_type=template.certificate.principal_type),
            ):
                yield (
                    (certificate.status, certificate.principal_type),
                    partial(render_certificate, certificate, kind=template.kind),
                )
        for policy in template.policies:
            if policy.ready is None:
                yield (policy.name, policy.document), partial(_render_policy, policy)
        for value in template.device_configuration.values():
            yield value, partial(text, value)


def _chosen(among: Mapping[str, Any], name: object) -> list[Any]:
    if name is _ANY:
        return list(among.values())
    return [among[name]] if isinstance(name, str) and name in among else []


def _check_group(group: Expression, path: str, scope: Scope) -> None:
    checked(registry.check_thing_group_name, text(group, scope), path)


def _render_policy(policy: Policy, scope: Scope) -> None:
    scope.in_policy = True
    try:
        render_policy(policy, scope)
    finally:
        scope.in_policy = False


def _listed_groups(thing: Thing | None) -> tuple[Expression, ...]:
    return thing.groups if thing is not None and isinstance(thing.groups, tuple) else ()


def _properties(thing: Thing | None) -> Iterator[Thing]:
    """The thing with one property at a time, but for groups that are written one by one."""
    if thing is None:
        return
    bare = Thing(thing.logical_id, thing.path, "t", None, None, None, None, Overrides())
    yield replace(bare, name=thing.name)
    for name, value in (thing.attributes or {}).items():
        yield replace(bare, attributes={name: value})
    yield replace(bare, type_name=thing.type_name)
    if not isinstance(thing.groups, tuple):
        yield replace(bare, groups=thing.groups)
    yield replace(bare, billing_group=thing.billing_group)
