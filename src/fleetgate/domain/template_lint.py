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
from typing import Any, Final, Literal

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
    MAX_PATH,
    UNREADABLE,
    FindInMap,
    expressions,
    references,
    step,
)
from fleetgate.domain.template_parsing import is_function
from fleetgate.domain.template_policies import Policy
from fleetgate.domain.template_possibilities import impossible
from fleetgate.errors import InvalidRequestException

Severity = Literal["error", "warning"]

MOST: Final = 100
"""Findings about a template; one more says how many there are beyond them."""

_SHOWN = 80
_MAX_RULE = 500
_PLACEHOLDER = re.compile(r"\$\{([^{}!]+)\}")
_FUNCTION = re.compile(r"Fn::\w+")  # the last member of a path


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
    """Errors first, each in the order of the template; MOST of them, and whether there are more."""
    names: tuple[Named, ...]
    """What has to exist beforehand, as far as no device decides on it."""
    parameters: tuple[str, ...]
    """Those referred to that have no default: somebody has to bring them."""
    thing_name: str | None
    device_configuration: Mapping[str, str]
    """With nothing for what devices bring, and the longest entry where a device chooses one."""
    readable: bool = True
    """Whether a template could be made of it; if not, there are findings and nothing else."""

    @property
    def failed(self) -> bool:
        """Whether there are errors."""
        return any(each.severity == "error" for each in self.findings)


def lint(body: str, kind: Kind, limits: Limits) -> Linted:
    """Everything there is to say about the body of a template; raises nothing."""
    examined = examine(body, kind, limits.policy_document_characters, most=MOST)
    written: dict[str, Any] = {}
    _write("", examined.root, written)
    errors = [(each.path, each.rule) for each in examined.problems]
    template = examined.template
    if template is None or len(body) > MAX_BODY:  # what is bounded by its size stays bounded
        found = _findings(errors, [], written)
        if not examined.whole:
            found.append(Finding("error", "", "there are more problems behind these"))
        return Linted(tuple(found), (), (), None, {}, readable=False)
    constants = Constants(template)
    errors += _unresolvable(template)
    errors += _never(template)
    errors += constants.problems()
    told = {path for path, _ in errors}
    errors += [each for each in impossible(template) if each[0] not in told]
    errors += _over_limits(template, limits)
    warnings = [*_unused(template, written), *_without_effect(template, examined.root)]
    warnings += _doubtful(template)
    warnings += _miswritten(template, written)
    own = () if kind is Kind.INLINE else (CERTIFICATE_ID,)
    brought = [
        each.name
        for each in references(tuple(values(template)))
        if template.parameters.get(each.name) is None and each.name not in own
    ]
    return Linted(
        findings=tuple(_findings(errors, warnings, written)),
        names=tuple(constants.names()),
        parameters=tuple(dict.fromkeys(brought)),
        thing_name=None if template.thing is None else constants.longest(template.thing.name),
        device_configuration={
            name: constants.longest(value) for name, value in template.device_configuration.items()
        },
    )


_Problem = tuple[str, str]


def _findings(
    errors: list[_Problem], warnings: list[_Problem], written: Mapping[str, Any]
) -> list[Finding]:
    order = {path: index for index, path in enumerate(written)}
    every: list[tuple[Severity, str, str]] = []
    severities: tuple[tuple[Severity, list[_Problem]], ...]
    severities = ("error", errors), ("warning", warnings)
    for severity, problems in severities:
        once = dict.fromkeys(problems)
        listed = sorted(once, key=lambda each: order.get(each[0], len(order)))
        every += [(severity, path, rule) for path, rule in listed]
    shown = {path: _shown(path, written) for path in {path for _, path, _ in every[:MOST]}}
    found = [
        Finding(severity, path, _cut(rule), _value(shown[path], rule))
        for severity, path, rule in every[:MOST]
    ]
    if len(every) > MOST:
        more = f"there are {len(every) - MOST} more problems"
        found.append(Finding(every[MOST][0], "", more))
    return found


def _cut(rule: str) -> str:
    return rule if len(rule) <= _MAX_RULE else f"{rule[:_MAX_RULE]}..."


def _value(shown: str | None, rule: str) -> str | None:
    if shown is None or shown[:_SHOWN] in rule:
        return None
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def _shown(path: str, written: Mapping[str, Any]) -> str | None:
    # a path that was cut may be that of several
    value = written.get(path) if path and len(path) <= MAX_PATH else None
    if value is None or (isinstance(value, dict | list) and not is_function(value)):
        return None
    return value if isinstance(value, str) else minified(value)


def _write(path: str, value: Any, written: dict[str, Any]) -> None:
    """Adds every value of a JSON document by its path, spelled as problems spell it."""
    written[path] = value
    if isinstance(value, dict):
        for key, each in value.items():
            _write(step(path, key) if path else key, each, written)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            _write(f"{path}[{index}]", each, written)


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


def _unused(template: Template, written: Mapping[str, Any]) -> Iterator[_Problem]:
    used = {each.name for each in references(tuple(values(template)))}
    used.update(_refused(written))
    for name in template.parameters:
        if name not in used and template.kind is Kind.JITP:
            rule = "nothing refers to it, yet a certificate without a value for it is refused"
            yield step("Parameters", name), rule
        elif name not in used:
            yield step("Parameters", name), "nothing refers to it"
    found = expressions(tuple(values(template)))
    maps = {each.map_name for each in found if isinstance(each, FindInMap)}
    maps |= {
        value
        for path, value in written.items()
        if path.endswith("Fn::FindInMap[0]") and isinstance(value, str)
    }
    if all(isinstance(each, str) for each in maps):
        for name in template.mappings:
            if name not in maps:
                yield step("Mappings", name), "no Fn::FindInMap looks into it"


def _refused(written: Mapping[str, Any]) -> Iterator[str]:
    """What is referred to as it is written, in what is refused too."""
    sections = ("Resources.", "DeviceConfiguration.")
    for path, value in written.items():
        if not isinstance(value, str) or not path.startswith(sections):
            continue
        if path.endswith(".Ref"):
            yield value
        elif ".Fn::Sub" in path:
            yield from _PLACEHOLDER.findall(value)


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
        if template.kind is not Kind.FLEET and _FUNCTION.fullmatch(path.rpartition(".")[2]):
            yield path, "AWS documents functions for fleet provisioning templates alone"
        if not isinstance(value, str) or "${" not in value:
            continue
        if path.startswith("Resources.") and ".Fn::Sub" not in path:
            for name in dict.fromkeys(_PLACEHOLDER.findall(value)):
                if name in names:
                    yield path, f"`${{{name}}}` stays as it is: only Fn::Sub puts parameters in"
