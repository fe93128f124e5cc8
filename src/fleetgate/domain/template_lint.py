"""What a person who writes a provisioning template should know before a device does.

`lint` finds every problem at once: what the server would refuse (errors), and what is allowed
but hardly meant (warnings). It evaluates what no device can change, so that a name made of
defaults and mappings is checked like a plain one. It needs neither a server nor parameters.

Sources: AWS IoT Developer Guide, "Provisioning templates" and "Just-in-time provisioning"; what
goes wrong in practice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fleetgate.domain import registry
from fleetgate.domain.document import minified
from fleetgate.domain.limits import Limits
from fleetgate.domain.resources import Kind
from fleetgate.domain.template import (
    CERTIFICATE_ID,
    IGNORED,
    MAX_BODY,
    PSEUDO_PARAMETERS,
    UNRESOLVED,
    Template,
    examine,
    values,
)
from fleetgate.domain.template_constants import Constants, Named
from fleetgate.domain.template_functions import (
    UNREADABLE,
    FindInMap,
    expressions,
    references,
    step,
)
from fleetgate.domain.template_parsing import is_function
from fleetgate.domain.template_policies import Policy
from fleetgate.errors import InvalidRequestException

Severity = Literal["error", "warning"]

_SHOWN = 80
_PLACEHOLDER = re.compile(r"\$\{([^{}!]+)\}")
_FUNCTION = re.compile(r"\.Fn::\w+\Z")


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: where (path into the template), which rule, and the value that is there."""

    severity: Severity
    path: str
    rule: str
    value: str | None = None
    """JSON, cut to what fits a line; None when the rule says it, or it is an object or a list."""

    @property
    def line(self) -> str:
        """``path: rule, value``."""
        place = f"{self.path}: " if self.path else ""
        return f"{place}{self.rule}" + (f", it is `{self.value}`" if self.value else "")


@dataclass(frozen=True, slots=True)
class Linted:
    """What there is to say about a template."""

    findings: tuple[Finding, ...]
    """Errors first, each in the order of the template."""
    names: tuple[Named, ...]
    """What has to exist beforehand, as far as no device decides on it."""
    parameters: tuple[str, ...]
    """Those referred to that have no default: somebody has to bring them."""
    thing_name: str | None
    device_configuration: Mapping[str, str]
    """With nothing for what devices bring, and the longest entry where a device chooses one."""

    @property
    def failed(self) -> bool:
        """Whether there are errors."""
        return any(each.severity == "error" for each in self.findings)


def lint(body: str, kind: Kind, limits: Limits) -> Linted:
    """Everything there is to say about the body of a template; raises nothing."""
    examined = examine(body, kind, limits.policy_document_characters)
    written = dict(_written("", examined.root))
    errors = [(each.path, each.rule) for each in examined.problems]
    template = examined.template
    if template is None or len(body) > MAX_BODY:  # what is bounded by its size stays bounded
        return Linted(tuple(_findings("error", errors, written)), (), (), None, {})
    constants = Constants(template)
    errors += _unresolvable(template)
    errors += _never(template)
    errors += constants.problems()
    errors += _over_limits(template, limits)
    warnings = [*_unused(template), *_without_effect(template, examined.root)]
    warnings += _doubtful(template)
    warnings += _miswritten(template, written)
    brought = [
        each.name
        for each in references(tuple(values(template)))
        if template.parameters.get(each.name) is None and each.name != CERTIFICATE_ID
    ]
    findings = _findings("error", errors, written), _findings("warning", warnings, written)
    return Linted(
        findings=tuple(each for listed in findings for each in listed),
        names=tuple(constants.names()),
        parameters=tuple(dict.fromkeys(brought)),
        thing_name=None if template.thing is None else constants.longest(template.thing.name),
        device_configuration={
            name: constants.longest(value) for name, value in template.device_configuration.items()
        },
    )


_Problem = tuple[str, str]


def _findings(
    severity: Severity, problems: list[_Problem], written: Mapping[str, Any]
) -> Iterator[Finding]:
    order = {path: index for index, path in enumerate(written)}
    once = dict.fromkeys(problems)
    for path, rule in sorted(once, key=lambda each: order.get(each[0], len(order))):
        yield Finding(severity, path, rule, _value(path, rule, written))


def _value(path: str, rule: str, written: Mapping[str, Any]) -> str | None:
    value = written.get(path) if path else None
    if value is None or (isinstance(value, dict | list) and not is_function(value)):
        return None
    shown = value if isinstance(value, str) else minified(value)
    if shown[:_SHOWN] in rule:
        return None
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _written(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every value of a JSON document by its path, spelled as problems spell it."""
    yield path, value
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _written(step(path, key) if path else key, each)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _written(f"{path}[{index}]", each)


# --- errors --------------------------------------------------------------------------------------


def _unresolvable(template: Template) -> Iterator[_Problem]:
    pseudo = PSEUDO_PARAMETERS[template.kind]
    if template.kind is Kind.JITP:
        return  # reading the template has found them
    for reference in references(tuple(values(template))):
        name = reference.name
        if name in pseudo:
            continue
        if template.kind is Kind.FLEET and name.startswith("AWS::"):
            yield (
                reference.path,
                (
                    f"{UNRESOLVED}: {name}; the only pseudo parameter of a fleet provisioning "
                    f"template is {CERTIFICATE_ID}"
                ),
            )
        elif name not in template.parameters:
            yield reference.path, f"parameter `{name}` is not declared in Parameters"


def _never(template: Template) -> Iterator[_Problem]:
    """What could not be carried out for any device."""
    certificate = template.certificate
    if template.kind is Kind.FLEET and certificate is None:
        yield (
            "Resources",
            "there is no AWS::IoT::Certificate resource: the certificate would never be activated",
        )
    if template.kind is not Kind.INLINE and certificate is not None:
        source = certificate.source
        if source is not UNREADABLE and not any(references(source)):
            yield (
                f"{certificate.path}.CertificateId",
                f'it must be the device\'s own certificate, {{"Ref": "{CERTIFICATE_ID}"}}',
            )


def _over_limits(template: Template, limits: Limits) -> Iterator[_Problem]:
    thing = template.thing
    if thing is not None:
        try:
            count, typed = len(thing.attributes or ()), thing.type_name is not None
            registry.check_attribute_count(count, typed=typed, limits=limits)
        except InvalidRequestException as error:
            yield f"{thing.path}.AttributePayload", error.message
        groups = thing.groups if isinstance(thing.groups, tuple) else ()
        certain = {each for each in groups if isinstance(each, str)}
        if len(certain) > limits.groups_per_thing:
            yield (
                f"{thing.path}.ThingGroups",
                (
                    f"there are {len(certain)} thing groups; a thing may be in "
                    f"{limits.groups_per_thing}"
                ),
            )
    if len(template.policies) > limits.policies_per_principal:
        yield (
            "Resources",
            (
                f"there are {len(template.policies)} policies; a certificate may have "
                f"{limits.policies_per_principal}"
            ),
        )


# --- warnings ------------------------------------------------------------------------------------


def _unused(template: Template) -> Iterator[_Problem]:
    used = {each.name for each in references(tuple(values(template)))}
    for name in template.parameters:
        if name not in used and template.kind is Kind.JITP:
            rule = "nothing refers to it, yet a certificate without a value for it is refused"
            yield step("Parameters", name), rule
        elif name not in used:
            yield step("Parameters", name), "nothing refers to it"
    found = expressions(tuple(values(template)))
    maps = {each.map_name for each in found if isinstance(each, FindInMap)}
    if all(isinstance(each, str) for each in maps):
        for name in template.mappings:
            if name not in maps:
                yield step("Mappings", name), "no Fn::FindInMap looks into it"


def _without_effect(template: Template, root: dict[str, Any]) -> Iterator[_Problem]:
    for name in sorted((IGNORED & root.keys()) - {"Description", "AWSTemplateFormatVersion"}):
        yield name, "it has no effect in a provisioning template"
    for name, resource in root["Resources"].items():
        if isinstance(resource, dict) and "DependsOn" in resource:
            path = f"{step('Resources', name)}.DependsOn"
            yield path, "it has no effect: the order of provisioning is fixed"
    thing = template.thing
    if thing is None:
        return
    for name, override, value in (
        ("AttributePayload", thing.overrides.attributes, thing.attributes),
        ("ThingTypeName", thing.overrides.type_name, thing.type_name),
        ("ThingGroups", thing.overrides.groups, thing.groups),
    ):
        if override is not None and value is None:
            path = f"{thing.path.removesuffix('.Properties')}.OverrideSettings"
            yield path, f"the setting for `{name}` has no effect: the thing has no such property"


def _doubtful(template: Template) -> Iterator[_Problem]:
    thing, certificate = template.thing, template.certificate
    for policy in template.policies:
        yield from _policy_per_device(policy, template)
    if template.kind is Kind.INLINE:
        return
    if thing is None:
        yield "Resources", "there is no AWS::IoT::Thing resource: devices get no thing"
    elif thing.name is not UNREADABLE and not any(references(thing.name)):
        yield f"{thing.path}.ThingName", "all devices would be the same thing"
    if not template.policies:
        yield (
            "Resources",
            (
                "there is no AWS::IoT::Policy resource: unless a thing group has policies, "
                "devices may not even connect"
            ),
        )
    if certificate is None:
        return
    if str(certificate.status).upper() == "INACTIVE":
        yield f"{certificate.path}.Status", "devices cannot connect with such a certificate"
    named = {each.name for each in references(certificate.source)}
    if named and CERTIFICATE_ID not in named:
        yield (
            f"{certificate.path}.CertificateId",
            f'it has to be the device\'s own, which {{"Ref": "{CERTIFICATE_ID}"}} always is',
        )


def _policy_per_device(policy: Policy, template: Template) -> Iterator[_Problem]:
    for reference in references(policy.document):
        if template.parameters.get(reference.name) is None:
            yield (
                reference.path,
                (
                    f"each value of `{reference.name}` makes a policy of its own; a policy "
                    "variable such as ${iot:Connection.Thing.ThingName} makes one for all devices"
                ),
            )
            return


def _miswritten(template: Template, written: Mapping[str, Any]) -> Iterator[_Problem]:
    names = {*template.parameters, *PSEUDO_PARAMETERS[template.kind]}
    for path, value in written.items():
        if template.kind is not Kind.FLEET and _FUNCTION.search(path):
            yield path, "AWS documents functions for fleet provisioning templates alone"
        if isinstance(value, str) and ".Fn::Sub" not in path and path.startswith("Resources."):
            for name in dict.fromkeys(_PLACEHOLDER.findall(value)):
                if name in names:
                    yield path, f"`${{{name}}}` stays as it is: only Fn::Sub puts parameters in"
