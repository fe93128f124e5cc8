"""Provisioning templates: `parse` a body once, `render` it per device.

Theory of operation. `parse` checks everything that does not depend on a device and returns a
Template whose values are Expressions (see template_functions); names, statuses and policy
documents without functions are checked, and such documents are made ready, there and then.
`examine` is the same with all problems at once, where `parse` raises the first. `render` evaluates
a Template with one device's parameters into Resources, plain values for `provisioning.plan`. All
are pure and raise nothing but InvalidTemplate. The Kind of a template
decides which certificates it may ask for, which sections it has, and whether its parameters come
from a device, which is not believed, from the subject of a certificate, or from a caller with
rights of its own.

Parts of CloudFormation's template format without an effect here are accepted and have none:
``AWSTemplateFormatVersion``, ``Description``, ``Conditions``, ``Outputs`` at the top, ``DependsOn``
in a resource (the order of provisioning is fixed), ``Description`` in a parameter. Anything else
that is unknown is refused, as is what this server does not offer (``PackageVersions``).

Source: AWS IoT Developer Guide, "Provisioning templates".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fleetgate.domain import document as json_document
from fleetgate.domain import template_policies, template_resources
from fleetgate.domain.document import quoted
from fleetgate.domain.policy import MAX_DOCUMENT
from fleetgate.domain.resources import Kind, Resources
from fleetgate.domain.template_functions import (
    MAX_VALUE,
    UNRESOLVED,
    Expression,
    Mappings,
    Scope,
    references,
    step,
    text,
)
from fleetgate.domain.template_parsing import Context, Enough
from fleetgate.domain.template_policies import NEITHER, parse_policy, render_policy
from fleetgate.domain.template_resources import (
    CERTIFICATE_ID,
    PSEUDO_PARAMETERS,
    parse_certificate,
    parse_object,
    parse_thing,
    parse_values,
    render_certificate,
    render_thing,
)
from fleetgate.errors import InvalidTemplate

__all__ = [
    "CERTIFICATE_ID",
    "IGNORED",
    "MAX_BODY",
    "PSEUDO_PARAMETERS",
    "UNRESOLVED",
    "Examined",
    "Kind",
    "Template",
    "examine",
    "parse",
    "registration_message",
    "render",
    "values",
]

MAX_BODY: Final = 10_240
"""Characters of a template body (TemplateBody of the service model)."""

_MAX_READ = 2 * MAX_BODY
"""Characters up to which a template that is too long is looked at for other problems."""
_MAX_DEPTH = 32
_SECTIONS = {"Parameters", "Mappings", "Resources", "DeviceConfiguration"}
_RESOURCE = {"Type", "Properties", "OverrideSettings", "DependsOn"}
IGNORED: Final = frozenset({"AWSTemplateFormatVersion", "Description", "Conditions", "Outputs"})
"""Sections of CloudFormation that are accepted and have no effect."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template body. Immutable: keep it and render it for every device."""

    kind: Kind
    parameters: Mapping[str, str | None]
    """The declared parameters with their defaults."""
    mappings: Mappings
    thing: template_resources.Thing | None
    certificate: template_resources.Certificate | None
    policies: tuple[template_policies.Policy, ...]
    device_configuration: Mapping[str, Expression]


@dataclass(frozen=True, slots=True)
class Examined:
    """What a template's body says, and everything that is wrong with it, in its order."""

    root: Any
    """The JSON value of the body; None when it cannot be read."""
    template: Template | None
    """What could be made of it. Only to be rendered when there are no problems."""
    problems: tuple[InvalidTemplate, ...]
    whole: bool
    """Whether there are no others: it was read to its end."""


def parse(
    body: str, kind: Kind = Kind.FLEET, max_policy_characters: int = MAX_DOCUMENT
) -> Template:
    """Reads the body of a provisioning template (JSON); raises InvalidTemplate.

    `max_policy_characters` is the quota of the policies it makes, white space not counted.
    """
    examined = examine(body, kind, max_policy_characters, most=1)
    if examined.problems or examined.template is None:
        raise examined.problems[0]
    return examined.template


def examine(
    body: str,
    kind: Kind = Kind.FLEET,
    max_policy_characters: int = MAX_DOCUMENT,
    *,
    most: int = 100,
) -> Examined:
    """Reads the body of a provisioning template and finds all that breaks a rule.

    It ends at the `most`-th problem: how many there can be is up to whoever wrote it.
    """
    context = Context({}, most=most)
    root = template = None
    whole = True
    try:
        with context.noting():
            if len(body) > MAX_BODY:
                rule = f"the template has {len(body)} characters; the limit is {MAX_BODY}"
                context.note("", rule)
            if len(body) > _MAX_READ:
                return Examined(None, None, tuple(context.problems), whole)
            try:
                root = json_document.read(body, max_depth=_MAX_DEPTH)
            except ValueError as error:
                raise InvalidTemplate("", f"the template cannot be read: {error}") from None
            template = _template(root, kind, max_policy_characters, context)
    except Enough:
        whole = False
    return Examined(root, template, tuple(context.problems), whole)


def _template(root: Any, kind: Kind, max_policy_characters: int, context: Context) -> Template:
    """The parsed template; problems are noted in `context`, or raised as InvalidTemplate."""
    root = parse_object(root, "", context, _SECTIONS | IGNORED)
    mappings: Mappings = {}
    with context.noting():
        mappings = _parse_mappings(root.get("Mappings", {}), context)
    context = replace(context, mappings=mappings)
    things: list[template_resources.Thing] = []
    certificates: list[template_resources.Certificate] = []
    policies: list[template_policies.Policy] = []
    for logical_id, resource, path in _resources(root, context):
        type_ = resource.get("Type")
        with context.noting():
            if type_ == "AWS::IoT::Thing":
                things.append(parse_thing(logical_id, resource, path, context))
            elif type_ == "AWS::IoT::Certificate":
                certificates.append(parse_certificate(logical_id, resource, path, context, kind))
            elif type_ == "AWS::IoT::Policy":
                policies.append(
                    parse_policy(logical_id, resource, path, context, max_policy_characters)
                )
            else:
                raise InvalidTemplate(
                    f"{path}.Type",
                    "it must be AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy, "
                    f"not {quoted(type_)}",
                )
    for what, listed in (("thing", things), ("certificate", certificates)):
        if len(listed) > 1:
            context.note("Resources", f"there are {len(listed)} {what}s; one is the limit")
    configuration: Mapping[str, Expression] = {}
    with context.noting():
        configuration = parse_values(
            root.get("DeviceConfiguration", {}), "DeviceConfiguration", context
        )
    parameters: dict[str, str | None] = {}
    with context.noting():
        parameters = _parse_parameters(root.get("Parameters", {}), context)
    template = Template(
        kind=kind,
        parameters=parameters,
        mappings=mappings,
        thing=things[0] if things else None,
        certificate=certificates[0] if certificates else None,
        policies=tuple(policies),
        device_configuration=configuration,
    )
    _check_kind(template, context)
    return template


def _resources(root: dict[str, Any], context: Context) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Logical id, resource and path of each resource that is an object."""
    if "Resources" not in root:
        raise InvalidTemplate("", "`Resources` is missing")
    resources = parse_object(root["Resources"], "Resources", context)
    if not resources:
        raise InvalidTemplate("Resources", "it must have at least one resource")
    for logical_id, value in resources.items():
        path = step("Resources", logical_id)
        resource: dict[str, Any] | None = None
        with context.noting():
            resource = parse_object(value, path, context, _RESOURCE)
        if resource is not None:
            yield logical_id, resource, path


def _check_kind(template: Template, context: Context) -> None:
    """Notes what a template has that does not belong to its kind, and what it lacks."""
    if template.kind is not Kind.FLEET:
        if template.device_configuration:
            context.note(
                "DeviceConfiguration",
                "only a fleet provisioning template has one: nobody would get it",
            )
        if template.mappings:
            context.note("Mappings", "only a fleet provisioning template has them")
    if template.kind is not Kind.JITP:
        return
    if template.certificate is None:
        context.note(
            "Resources",
            "there is no AWS::IoT::Certificate resource: the certificate would never be activated",
        )
    # nobody but the certificate brings values: what it cannot bring can never be resolved
    pseudo = PSEUDO_PARAMETERS[template.kind]
    for name, default in template.parameters.items():
        if default is None and name not in pseudo:
            context.note(step("Parameters", name), f"{UNRESOLVED}: {name}")
    for reference in references(tuple(values(template))):
        if reference.name not in pseudo and template.parameters.get(reference.name) is None:
            context.note(reference.path, f"{UNRESOLVED}: {reference.name}")


def values(template: Template) -> Iterator[Any]:
    """Everything in a template that may hold functions, in its order."""
    if template.thing is not None:
        thing = template.thing
        yield from (thing.name, thing.attributes, thing.type_name, thing.groups)
        yield thing.billing_group
    if template.certificate is not None:
        certificate = template.certificate
        yield from (certificate.source, certificate.ca_pem, certificate.status)
        yield certificate.principal_type
    for policy in template.policies:
        yield from (policy.name, policy.document)
    yield template.device_configuration


def render(template: Template, parameters: Mapping[str, str]) -> Resources:
    """Evaluates a template for one device.

    In fleet provisioning `parameters` are those of the device with the hook's laid over them, and
    under `CERTIFICATE_ID` the true id of the device's certificate. No other name that begins with
    ``AWS::`` is looked up: what a device sends is no pseudo parameter. In just-in-time
    provisioning `parameters` are the pseudo parameters the certificate has values for, and no
    other name is looked up; the certificate must have a value for all that are declared. A
    template given inline has no pseudo parameters; its caller may use any name. Declared defaults
    are applied here. Raises InvalidTemplate; its `rule` is AWS's text for a reference that
    nothing resolves.
    """
    given = _believed(template.kind, parameters)
    defaults = {name: value for name, value in template.parameters.items() if value is not None}
    scope = Scope(given, defaults, template.mappings)
    if template.kind is Kind.JITP:
        for name in template.parameters:
            scope.reference(name, step("Parameters", name))
    thing = None if template.thing is None else render_thing(template.thing, scope)
    certificate = None
    if template.certificate is not None:
        certificate = render_certificate(template.certificate, scope, template.kind)
    scope.in_policy = True
    policies = tuple(render_policy(each, scope) for each in template.policies)
    scope.in_policy = False
    configuration = {
        name: text(value, scope) for name, value in template.device_configuration.items()
    }
    size = sum(len(name) + len(value) for name, value in configuration.items())
    if size > MAX_VALUE:
        raise InvalidTemplate(
            "DeviceConfiguration", f"it has {size} characters; the limit is {MAX_VALUE}"
        )
    return Resources(thing, certificate, policies, configuration)


def registration_message(error: InvalidTemplate) -> str:
    """What RegisterThing and UpdateCACertificate say to a template that cannot be used.

    In AWS's own words where they are known, else ours with the place in the template. Source:
    answers quoted in public issues (aws-samples/aws-iot-device-management-workshop #1).
    """
    said = error.message
    words, _, name = error.rule.partition(": ")
    if error.rule == NEITHER:
        said = error.rule
    elif words == UNRESOLVED:
        said = f"{words}: {{Ref={name}}}"
    return f"Invalid registration template. {said}"


def _believed(kind: Kind, parameters: Mapping[str, str]) -> dict[str, str]:
    """The parameters that a template of this kind may refer to."""
    if kind is Kind.INLINE:
        return dict(parameters)
    pseudo = PSEUDO_PARAMETERS[kind]
    return {
        name: value
        for name, value in parameters.items()
        if name in pseudo or (kind is Kind.FLEET and not name.startswith("AWS::"))
    }


# --- parameters, mappings ------------------------------------------------------------------------


def _parse_parameters(value: Any, context: Context) -> dict[str, str | None]:
    parameters: dict[str, str | None] = {}
    for name, declared in parse_object(value, "Parameters", context).items():
        path = step("Parameters", name)
        parameters[name] = None
        with context.noting():
            declaration = parse_object(declared, path, context, {"Type", "Default", "Description"})
            if declaration.get("Type") != "String":
                context.note(f"{path}.Type", "it must be `String`")
            if "Default" not in declaration:
                continue
            default = declaration["Default"]
            if not isinstance(default, str):
                raise InvalidTemplate(f"{path}.Default", "it must be a string")
            parameters[name] = default
    return parameters


def _parse_mappings(value: Any, context: Context) -> Mappings:
    mappings: dict[str, dict[str, dict[str, str | list[str]]]] = {}
    for map_name, keys in parse_object(value, "Mappings", context).items():
        map_path = step("Mappings", map_name)
        entries = mappings[map_name] = {}
        with context.noting():
            for key, names in parse_object(keys, map_path, context).items():
                entries[key] = {}
                with context.noting():
                    entries[key] = _parse_entries(names, step(map_path, key), context)
    return mappings


def _parse_entries(value: Any, path: str, context: Context) -> dict[str, str | list[str]]:
    entries = parse_object(value, path, context)
    for name, entry in entries.items():
        strings = entry if isinstance(entry, list) else [entry]
        if not all(isinstance(each, str) for each in strings):
            context.note(
                step(path, name),
                "it must be a string or a list of strings; functions are not evaluated in mappings",
            )
    return entries
