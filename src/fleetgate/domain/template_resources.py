"""Things and certificates in a provisioning template: how they are parsed and rendered.

Sources: AWS IoT Developer Guide, "Provisioning templates", sections "Resources section",
"Resource override settings" and "Properties".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fleetgate.domain import registry, resources
from fleetgate.domain.document import quoted
from fleetgate.domain.resources import Kind, Override, Overrides, PrincipalType
from fleetgate.domain.template_functions import (
    Context,
    Expression,
    List,
    Scope,
    is_function,
    parse_list,
    step,
    text,
    texts,
)
from fleetgate.domain.template_functions import parse as parse_expression
from fleetgate.errors import InvalidRequestException, InvalidTemplate

CERTIFICATE_ID: Final = "AWS::IoT::Certificate::Id"
"""The pseudo parameter that stands for the id of the device's new certificate."""

_METHODS = ("CertificateId", "CertificateSigningRequest", "CertificatePem")


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing in a template; `path` is that of its properties."""

    logical_id: str
    path: str
    name: Expression
    attributes: Mapping[str, Expression] | None
    type_name: Expression | None
    groups: List | None
    billing_group: Expression | None
    overrides: Overrides


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate in a template; `path` is that of its properties.

    `method` is the property that says which certificate, `source` its value.
    """

    logical_id: str
    path: str
    method: str
    source: Expression
    ca_pem: Expression | None
    status: Expression
    principal_type: Expression | None
    override: Override | None


def parse_object(value: Any, path: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """A JSON object with no members but `keys` (None: any); raises InvalidTemplate."""
    if not isinstance(value, dict):
        raise InvalidTemplate(path, "it must be a JSON object")
    if keys is not None:
        for key in value:
            if key not in keys:
                known = ", ".join(sorted(keys)) or "none"
                raise InvalidTemplate(path, f"unknown element {quoted(key)}; known: {known}")
    return value


def parse_values(value: Any, path: str, context: Context) -> dict[str, Expression]:
    """An object of names and values; raises InvalidTemplate."""
    if is_function(value):
        raise InvalidTemplate(path, "it must be an object of names and values, not a function")
    return {
        name: parse_expression(each, step(path, name), context)
        for name, each in parse_object(value, path).items()
    }


def checked(check: Callable[[str], None], value: str, path: str) -> str:
    """`value`, which a function of `registry` accepts; raises InvalidTemplate."""
    try:
        check(value)
    except InvalidRequestException as error:
        raise InvalidTemplate(path, error.message) from None
    return value


def parse_named(
    properties: dict[str, Any],
    key: str,
    check: Callable[[str], None],
    path: str,
    context: Context,
) -> Expression | None:
    """A property that holds a name, checked if it can be; raises InvalidTemplate."""
    if key not in properties:
        return None
    expression = parse_expression(properties[key], f"{path}.{key}", context)
    if isinstance(expression, str):
        checked(check, expression, f"{path}.{key}")
    return expression


def parse_thing(logical_id: str, resource: dict[str, Any], path: str, context: Context) -> Thing:
    """A resource of type AWS::IoT::Thing; raises InvalidTemplate."""
    settings = resource.get("OverrideSettings", {})
    override = _parse_overrides(
        settings,
        f"{path}.OverrideSettings",
        {
            "AttributePayload": "ATTRIBUTE_PAYLOAD",
            "ThingTypeName": "THING_TYPE_NAME",
            "ThingGroups": "THING_GROUPS",
        },
        mergeable=("AttributePayload", "ThingGroups"),
    )
    path = f"{path}.Properties"
    keys = {"ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "BillingGroup"}
    properties = parse_object(resource.get("Properties", {}), path, keys | {"PackageVersions"})
    if "PackageVersions" in properties:
        raise InvalidTemplate(f"{path}.PackageVersions", "this server does not offer it")
    name = parse_named(properties, "ThingName", registry.check_thing_name, path, context)
    if name is None:
        raise InvalidTemplate(path, "`ThingName` is missing")
    attributes = groups = None
    if "AttributePayload" in properties:
        at = f"{path}.AttributePayload"
        attributes = parse_values(properties["AttributePayload"], at, context)
        for attribute, value in attributes.items():
            checked(registry.check_attribute_name, attribute, at)
            if isinstance(value, str):
                _check_attribute(attribute, value, at)
    if "ThingGroups" in properties:
        groups = parse_list(properties["ThingGroups"], f"{path}.ThingGroups", context)
        for index, group in enumerate(groups if isinstance(groups, tuple) else ()):
            if isinstance(group, str):
                checked(registry.check_thing_group_name, group, f"{path}.ThingGroups[{index}]")
    return Thing(
        logical_id=logical_id,
        path=path,
        name=name,
        attributes=attributes,
        type_name=parse_named(
            properties, "ThingTypeName", registry.check_thing_type_name, path, context
        ),
        groups=groups,
        billing_group=parse_named(
            properties, "BillingGroup", registry.check_billing_group_name, path, context
        ),
        overrides=Overrides(
            override.get("AttributePayload"),
            override.get("ThingTypeName"),
            override.get("ThingGroups"),
        ),
    )


def _check_attribute(name: str, value: str, path: str) -> None:
    checked(lambda it: registry.check_attribute_value(name, it), value, step(path, name))


def render_thing(parsed: Thing, scope: Scope) -> resources.Thing:
    """The thing for one device; raises InvalidTemplate."""
    path = parsed.path
    attributes: dict[str, str] | None = None
    if parsed.attributes is not None:
        attributes = {}
        for name, expression in parsed.attributes.items():
            value = text(expression, scope)
            if not isinstance(expression, str):
                _check_attribute(name, value, f"{path}.AttributePayload")
            attributes[name] = value
    groups: list[str] | None = None
    if parsed.groups is not None:
        groups = texts(parsed.groups, scope)
        for index, group in enumerate(groups):
            checked(registry.check_thing_group_name, group, f"{path}.ThingGroups[{index}]")
    return resources.Thing(
        logical_id=parsed.logical_id,
        name=checked(registry.check_thing_name, text(parsed.name, scope), f"{path}.ThingName"),
        attributes=attributes,
        type_name=_render_named(
            parsed.type_name, registry.check_thing_type_name, f"{path}.ThingTypeName", scope
        ),
        # In the order of the template, each once.
        groups=None if groups is None else tuple(dict.fromkeys(groups)),
        billing_group=_render_named(
            parsed.billing_group, registry.check_billing_group_name, f"{path}.BillingGroup", scope
        ),
        overrides=parsed.overrides,
    )


def _render_named(
    expression: Expression | None, check: Callable[[str], None], path: str, scope: Scope
) -> str | None:
    return None if expression is None else checked(check, text(expression, scope), path)


def parse_certificate(
    logical_id: str, resource: dict[str, Any], path: str, context: Context, kind: Kind
) -> Certificate:
    """A resource of type AWS::IoT::Certificate; raises InvalidTemplate."""
    settings = resource.get("OverrideSettings", {})
    override = _parse_overrides(settings, f"{path}.OverrideSettings", {"Status": "STATUS"})
    path = f"{path}.Properties"
    keys = {*_METHODS, "CACertificatePem", "Status", "ThingPrincipalType"}
    properties = parse_object(resource.get("Properties", {}), path, keys)

    def expression(name: str) -> Expression | None:
        if name not in properties:
            return None
        return parse_expression(properties[name], f"{path}.{name}", context)

    method = _method(properties, path, kind)
    certificate = Certificate(
        logical_id=logical_id,
        path=path,
        method=method,
        source=parse_expression(properties[method], f"{path}.{method}", context),
        ca_pem=expression("CACertificatePem"),
        status=parse_expression(properties.get("Status", "ACTIVE"), f"{path}.Status", context),
        principal_type=expression("ThingPrincipalType"),
        override=override.get("Status"),
    )
    if isinstance(certificate.status, str):
        _status(certificate.status, path)
    if isinstance(certificate.principal_type, str):
        _principal_type(certificate.principal_type, path)
    return certificate


def _method(properties: Mapping[str, Any], path: str, kind: Kind) -> str:
    """The one property that says which certificate; raises InvalidTemplate."""
    given = [method for method in _METHODS if method in properties]
    if kind is Kind.FLEET:
        for method in (*_METHODS[1:], "CACertificatePem"):
            if method in properties:
                raise InvalidTemplate(
                    f"{path}.{method}", "a fleet provisioning template takes only `CertificateId`"
                )
        if not given:
            raise InvalidTemplate(path, "`CertificateId` is missing")
    if len(given) != 1:
        found = " and ".join(f"`{method}`" for method in given) or "none"
        raise InvalidTemplate(
            path, f"it must have exactly one of {', '.join(_METHODS)}; it has {found}"
        )
    if "CACertificatePem" in properties and given != ["CertificatePem"]:
        raise InvalidTemplate(
            f"{path}.CACertificatePem", f"it belongs to `CertificatePem`, not to `{given[0]}`"
        )
    return given[0]


def render_certificate(parsed: Certificate, scope: Scope, kind: Kind) -> resources.Certificate:
    """The certificate for one device; raises InvalidTemplate.

    In fleet provisioning it can be no other than the one just created.
    """
    path = parsed.path
    source = text(parsed.source, scope)
    if kind is Kind.FLEET:
        true_id = scope.reference(CERTIFICATE_ID, f"{path}.CertificateId")
        if source != true_id:
            raise InvalidTemplate(
                f"{path}.CertificateId",
                f'it must be the device\'s own certificate, {{"Ref": "{CERTIFICATE_ID}"}}, '
                f"not {quoted(source)}",
            )
    principal_type = None
    if parsed.principal_type is not None:
        principal_type = _principal_type(text(parsed.principal_type, scope), path)
    return resources.Certificate(
        logical_id=parsed.logical_id,
        certificate_id=source if parsed.method == "CertificateId" else None,
        status=_status(text(parsed.status, scope), path),
        override=parsed.override,
        principal_type=principal_type,
        csr=source if parsed.method == "CertificateSigningRequest" else None,
        pem=source if parsed.method == "CertificatePem" else None,
        ca_pem=None if parsed.ca_pem is None else text(parsed.ca_pem, scope),
    )


def _status(value: str, path: str) -> Literal["ACTIVE", "INACTIVE"]:
    # AWS's own examples write `Active`.
    match value.upper():
        case "ACTIVE":
            return "ACTIVE"
        case "INACTIVE":
            return "INACTIVE"
    raise InvalidTemplate(f"{path}.Status", f"it must be ACTIVE or INACTIVE, not {quoted(value)}")


def _principal_type(value: str, path: str) -> PrincipalType:
    match value:
        case "EXCLUSIVE_THING":
            return "EXCLUSIVE_THING"
        case "NON_EXCLUSIVE_THING":
            return "NON_EXCLUSIVE_THING"
    raise InvalidTemplate(
        f"{path}.ThingPrincipalType",
        f"it must be EXCLUSIVE_THING or NON_EXCLUSIVE_THING, not {quoted(value)}",
    )


def _parse_overrides(
    value: Any, path: str, keys: Mapping[str, str], mergeable: tuple[str, ...] = ()
) -> dict[str, Override]:
    """`keys` maps the names in AWS's examples to those in its prose; both are accepted."""
    settings = parse_object(value, path, [*keys, *keys.values()])
    overrides: dict[str, Override] = {}
    for key, other in keys.items():
        if key in settings and other in settings:
            raise InvalidTemplate(path, f"`{key}` and `{other}` are the same setting")
        spelled = key if key in settings else other
        if spelled not in settings:
            continue
        allowed = [each for each in Override if each is not Override.MERGE or key in mergeable]
        if settings[spelled] not in allowed:
            raise InvalidTemplate(
                f"{path}.{spelled}",
                f"it must be one of {', '.join(allowed)}, not {quoted(settings[spelled])}",
            )
        overrides[key] = Override(settings[spelled])
    return overrides
