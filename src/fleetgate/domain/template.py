"""Provisioning templates: `parse` a body once, `render` it per device.

Theory of operation. `parse` checks everything that does not depend on a device and returns a
Template whose values are Expressions (see template_functions); names, statuses and policy
documents without functions are checked, and such documents are made ready, there and then.
`render` evaluates a Template with one device's parameters into Resources, plain values for
`provisioning.plan`. Both are pure and raise nothing but InvalidTemplate. The Kind of a template
decides which certificates it may ask for, and whether its parameters come from a device, which is
not believed, or from a caller with rights of its own.

Parts of CloudFormation's template format without an effect here are accepted and have none:
``AWSTemplateFormatVersion``, ``Description``, ``Conditions``, ``Outputs`` at the top, ``DependsOn``
in a resource (the order of provisioning is fixed), ``Description`` in a parameter. Anything else
that is unknown is refused, as is what this server does not offer (``PackageVersions``).

Source: AWS IoT Developer Guide, "Provisioning templates".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetgate.domain import document as json_document
from fleetgate.domain import template_policies, template_resources
from fleetgate.domain.document import quoted
from fleetgate.domain.policy import MAX_DOCUMENT
from fleetgate.domain.resources import Kind, Resources
from fleetgate.domain.template_functions import (
    MAX_VALUE,
    UNRESOLVED,
    Context,
    Expression,
    Mappings,
    Scope,
    step,
    text,
)
from fleetgate.domain.template_policies import parse_policy, render_policy
from fleetgate.domain.template_resources import (
    CERTIFICATE_ID,
    parse_certificate,
    parse_object,
    parse_thing,
    parse_values,
    render_certificate,
    render_thing,
)
from fleetgate.errors import InvalidTemplate

__all__ = ["CERTIFICATE_ID", "MAX_BODY", "UNRESOLVED", "Kind", "Template", "parse", "render"]

MAX_BODY: Final = 10_240
"""Characters of a template body (TemplateBody of the service model)."""

_MAX_DEPTH = 32
_RESOURCE = {"Type", "Properties", "OverrideSettings", "DependsOn"}
_IGNORED = {"AWSTemplateFormatVersion", "Description", "Conditions", "Outputs"}


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


def parse(
    body: str, kind: Kind = Kind.FLEET, max_policy_characters: int = MAX_DOCUMENT
) -> Template:
    """Reads the body of a provisioning template (JSON); raises InvalidTemplate.

    `max_policy_characters` is the quota of the policies it makes, white space not counted.
    """
    if len(body) > MAX_BODY:
        raise InvalidTemplate(
            "", f"the template has {len(body)} characters; the limit is {MAX_BODY}"
        )
    try:
        root = json_document.read(body, max_depth=_MAX_DEPTH)
    except ValueError as error:
        raise InvalidTemplate("", f"the template cannot be read: {error}") from None
    sections = {"Parameters", "Mappings", "Resources", "DeviceConfiguration"}
    root = parse_object(root, "", sections | _IGNORED)
    mappings = _parse_mappings(root.get("Mappings", {}))
    context = Context(mappings)
    if "Resources" not in root:
        raise InvalidTemplate("", "`Resources` is missing")
    resources = parse_object(root["Resources"], "Resources")
    if not resources:
        raise InvalidTemplate("Resources", "it must have at least one resource")
    things: list[template_resources.Thing] = []
    certificates: list[template_resources.Certificate] = []
    policies: list[template_policies.Policy] = []
    for logical_id, value in resources.items():
        path = step("Resources", logical_id)
        resource = parse_object(value, path, _RESOURCE)
        type_ = resource.get("Type")
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
            raise InvalidTemplate("Resources", f"there are {len(listed)} {what}s; one is the limit")
    configuration = parse_values(
        root.get("DeviceConfiguration", {}), "DeviceConfiguration", context
    )
    if configuration and kind is not Kind.FLEET:
        raise InvalidTemplate(
            "DeviceConfiguration", "only a fleet provisioning template has one: nobody would get it"
        )
    return Template(
        kind=kind,
        parameters=_parse_parameters(root.get("Parameters", {})),
        mappings=mappings,
        thing=things[0] if things else None,
        certificate=certificates[0] if certificates else None,
        policies=tuple(policies),
        device_configuration=configuration,
    )


def render(template: Template, parameters: Mapping[str, str]) -> Resources:
    """Evaluates a template for one device.

    In fleet provisioning `parameters` are those of the device with the hook's laid over them, and
    under `CERTIFICATE_ID` the true id of the device's certificate. No other name that begins with
    ``AWS::`` is looked up: what a device sends is no pseudo parameter. A template given inline
    has no pseudo parameters; its caller may use any name. Declared defaults are applied here.
    Raises InvalidTemplate; its `rule` is AWS's text for a reference that nothing
    resolves.
    """
    given = {
        name: value
        for name, value in parameters.items()
        if template.kind is Kind.INLINE or name == CERTIFICATE_ID or not name.startswith("AWS::")
    }
    defaults = {name: value for name, value in template.parameters.items() if value is not None}
    scope = Scope(given, defaults, template.mappings)
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


# --- parameters, mappings, configuration ---------------------------------------------------------


def _parse_parameters(value: Any) -> dict[str, str | None]:
    parameters: dict[str, str | None] = {}
    for name, declared in parse_object(value, "Parameters").items():
        path = step("Parameters", name)
        declaration = parse_object(declared, path, {"Type", "Default", "Description"})
        if declaration.get("Type") != "String":
            raise InvalidTemplate(f"{path}.Type", "it must be `String`")
        default = declaration.get("Default")
        if "Default" in declaration and not isinstance(default, str):
            raise InvalidTemplate(f"{path}.Default", "it must be a string")
        if "Default" in declaration and name.startswith("AWS::"):
            raise InvalidTemplate(f"{path}.Default", "a pseudo parameter has no default")
        parameters[name] = default
    return parameters


def _parse_mappings(value: Any) -> Mappings:
    mappings: dict[str, dict[str, dict[str, str | list[str]]]] = {}
    for map_name, keys in parse_object(value, "Mappings").items():
        map_path = step("Mappings", map_name)
        mappings[map_name] = {}
        for key, names in parse_object(keys, map_path).items():
            key_path = step(map_path, key)
            for name, entry in parse_object(names, key_path).items():
                strings = entry if isinstance(entry, list) else [entry]
                if not all(isinstance(each, str) for each in strings):
                    raise InvalidTemplate(
                        step(key_path, name),
                        "it must be a string or a list of strings; functions are not evaluated "
                        "in mappings",
                    )
            mappings[map_name][key] = names
    return mappings
