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
    UNREADABLE,
    Expression,
    FindInMap,
    Ref,
    Scope,
    expressions,
    references,
    text,
)
from fleetgate.domain.template_policies import render_policy
from fleetgate.domain.template_resources import (
    Thing,
    checked,
    render_certificate,
    render_thing,
)
from fleetgate.errors import InvalidTemplate

SOME_ID: Final = "0123456789abcdef" * 4
"""Stands in for the id of a certificate that does not exist yet."""

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

    def problems(self) -> Iterator[tuple[str, str]]:
        """Path and rule of what is wrong with values of functions that bring in no device."""
        for parts, attempt in self._attempts():
            if any(expressions(parts)) and self._known(parts):
                try:
                    attempt()
                except InvalidTemplate as error:
                    yield error.path, error.rule

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
            found = [each for each in self._entries(expression) if isinstance(each, str)]
            return max(found, key=len, default="")
        names = [each.name for each in references(expression) if each.name not in self._defaults]
        scope = Scope({**dict.fromkeys(names, ""), **self._given}, self._defaults, self._mappings)
        try:
            return text(expression, scope)
        except InvalidTemplate:
            return ""

    def _check_group(self, group: Expression, index: int) -> None:
        path = f"{self._template.thing.path}.ThingGroups[{index}]" if self._template.thing else ""
        checked(registry.check_thing_group_name, text(group, self._scope()), path)

    def _known(self, value: Any) -> bool:
        """Whether all that a value needs is known, and it can be read at all."""
        names = self._given.keys() | self._defaults.keys()
        return all(
            each is not UNREADABLE and (not isinstance(each, Ref) or each.name in names)
            for each in expressions(value)
        )

    def _text(self, expression: Expression) -> str | None:
        if self._known(expression):
            try:
                return text(expression, self._scope())
            except InvalidTemplate:
                pass
        return None

    def _scope(self, *, in_policy: bool = False) -> Scope:
        return Scope(self._given, self._defaults, self._mappings, in_policy)

    def _attempts(self) -> Iterator[tuple[Any, Callable[[], object]]]:
        """Everything that can be evaluated by itself, and how."""
        template = self._template
        for thing in _properties(template.thing):
            parts = (thing.name, thing.attributes, thing.type_name, thing.groups)
            yield (*parts, thing.billing_group), partial(render_thing, thing, self._scope())
        for index, group in enumerate(_listed_groups(template.thing)):
            yield group, partial(self._check_group, group, index)
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
                    partial(render_certificate, certificate, self._scope(), template.kind),
                )
        for policy in template.policies:
            if policy.ready is None:
                attempt = partial(render_policy, policy, self._scope(in_policy=True))
                yield (policy.name, policy.document), attempt
        for value in template.device_configuration.values():
            yield value, partial(text, value, self._scope())

    def _entries(self, function: FindInMap) -> Iterator[str | list[str]]:
        """The entries of a mapping that a device may choose from."""

        def chosen(expression: Expression, among: Mapping[str, Any]) -> list[Any]:
            if any(references(expression)):  # a default is no bound: devices may bring another
                return list(among.values())
            name = self._text(expression)
            return [among[name]] if name is not None and name in among else []

        for keys in chosen(function.map_name, self._mappings):
            for names in chosen(function.key, keys):
                yield from chosen(function.name, names)


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
