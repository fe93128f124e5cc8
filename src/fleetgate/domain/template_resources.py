"""Things and certificates in a provisioning template: how they are parsed and rendered.

Parsing notes every problem in the Context and raises InvalidTemplate only where nothing can be
made of what is there.

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
    UNREADABLE,
    Expression,
    List,
    Scope,
    step,
    text,
    texts,
)
from fleetgate.domain.template_parsing import Context, is_function, parse_list
from fleetgate.domain.template_parsing import parse as parse_expression
from fleetgate.errors import InvalidRequestException, InvalidTemplate

CERTIFICATE_ID: Final = "AWS::IoT::Certificate::Id"
"""The pseudo parameter that stands for the id of the device's own certificate."""

_SUBJECT = (
    *("Country", "Organization", "OrganizationalUnit", "DistinguishedNameQualifier"),
    *("StateName", "CommonName", "SerialNumber"),
)

PSEUDO_PARAMETERS: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.FLEET: frozenset({CERTIFICATE_ID}),
    Kind.JITP: frozenset(
        {CERTIFICATE_ID, *(f"AWS::IoT::Certificate::{name}" for name in _SUBJECT)}
    ),
    Kind.INLINE: frozenset(),
}
"""What the service itself knows of a device, by kind of template.

Source: AWS IoT Developer Guide, "Just-in-time provisioning" (the list, from the certificate's
subject) and "Provisioning templates" (fleet).
"""

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


def parse_object(
    value: Any, path: str, context: Context, keys: Iterable[str] | None = None
) -> dict[str, Any]:
    """A JSON object; members other than `keys` (None: any) are noted. Raises InvalidTemplate."""
    if not isinstance(value, dict):
        raise InvalidTemplate(path, "it must be a JSON object")
    if keys is None:
        return value
    known = ", ".join(sorted(keys)) or "none"
    for key in value:
        if key not in keys:
            context.note(path, f"unknown element {quoted(key)}; known: {known}")
    return {key: each for key, each in value.items() if key in keys}


def parse_values(value: Any, path: str, context: Context) -> dict[str, Expression]:
    """An object of names and values; raises InvalidTemplate."""
    if is_function(value):
        raise InvalidTemplate(path, "it must be an object of names and values, not a function")
    return {
        name: parse_expression(each, step(path, name), context)
        for name, each in parse_object(value, path, context).items()
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
    """A property that holds a name, checked if it can be; None when it is not there."""
    if key not in properties:
        return None
    expression = parse_expression(properties[key], f"{path}.{key}", context)
    if isinstance(expression, str):
        with context.noting():
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
        context,
        mergeable=("AttributePayload", "ThingGroups"),
    )
    path = f"{path}.Properties"
    keys = {"ThingName", "AttributePayload", "ThingTypeName", "ThingGroups", "BillingGroup"}
    properties = resource.get("Properties", {})
    if isinstance(properties, dict) and "PackageVersions" in properties:
        # packages are no part of this server: what would be kept here nobody could look at
        context.note(f"{path}.PackageVersions", "this server does not offer it")
        properties = {key: properties[key] for key in properties if key != "PackageVersions"}
    properties = parse_object(properties, path, context, keys)
    name = parse_named(properties, "ThingName", registry.check_thing_name, path, context)
    if name is None:
        context.note(path, "`ThingName` is missing")
        name = UNREADABLE
    attributes = groups = None
    if "AttributePayload" in properties:
        at = f"{path}.AttributePayload"
        with context.noting():
            attributes = parse_values(properties["AttributePayload"], at, context)
        for attribute, value in (attributes or {}).items():
            with context.noting():
                checked(registry.check_attribute_name, attribute, at)
                if isinstance(value, str):
                    check_attribute(attribute, value, at)
    if "ThingGroups" in properties:
        groups = parse_list(properties["ThingGroups"], f"{path}.ThingGroups", context)
        for index, group in enumerate(groups if isinstance(groups, tuple) else ()):
            if isinstance(group, str):
                with context.noting():
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


def check_attribute(name: str, value: str, path: str) -> None:
    """The value of an attribute, which the registry accepts; raises InvalidTemplate."""
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
                check_attribute(name, value, f"{path}.AttributePayload")
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
    override = _parse_overrides(settings, f"{path}.OverrideSettings", {"Status": "STATUS"}, context)
    path = f"{path}.Properties"
    keys = {*_METHODS, "CACertificatePem", "Status", "ThingPrincipalType"}
    properties = parse_object(resource.get("Properties", {}), path, context, keys)

    def expression(name: str) -> Expression | None:
        if name not in properties:
            return None
        return parse_expression(properties[name], f"{path}.{name}", context)

    method = _method(properties, path, context, kind)
    source = expression(method)
    certificate = Certificate(
        logical_id=logical_id,
        path=path,
        method=method,
        source=UNREADABLE if source is None else source,
        ca_pem=expression("CACertificatePem"),
        status=parse_expression(properties.get("Status", "ACTIVE"), f"{path}.Status", context),
        principal_type=expression("ThingPrincipalType"),
        override=override.get("Status"),
    )
    with context.noting():
        if isinstance(certificate.status, str):
            _status(certificate.status, path)
    with context.noting():
        if isinstance(certificate.principal_type, str):
            _principal_type(certificate.principal_type, path)
    return certificate


def _method(properties: Mapping[str, Any], path: str, context: Context, kind: Kind) -> str:
    """The one property that says which certificate."""
    given = [method for method in _METHODS if method in properties]
    if kind is not Kind.INLINE:
        what = "fleet provisioning" if kind is Kind.FLEET else "JITP"
        for method in (*_METHODS[1:], "CACertificatePem"):
            if method in properties:
                context.note(f"{path}.{method}", f"a {what} template takes only `CertificateId`")
        if not given:
            context.note(path, "`CertificateId` is missing")
        return "CertificateId"
    if len(given) != 1:
        found = " and ".join(f"`{method}`" for method in given) or "none"
        context.note(path, f"it must have exactly one of {', '.join(_METHODS)}; it has {found}")
    elif "CACertificatePem" in properties and given != ["CertificatePem"]:
        context.note(
            f"{path}.CACertificatePem", f"it belongs to `CertificatePem`, not to `{given[0]}`"
        )
    return given[0] if given else "CertificateId"


def render_certificate(parsed: Certificate, scope: Scope, kind: Kind) -> resources.Certificate:
    """The certificate for one device; raises InvalidTemplate.

    In fleet and just-in-time provisioning it can be no other than the device's own.
    """
    path = parsed.path
    source = text(parsed.source, scope)
    if kind is not Kind.INLINE:
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
    value: Any,
    path: str,
    keys: Mapping[str, str],
    context: Context,
    mergeable: tuple[str, ...] = (),
) -> dict[str, Override]:
    """`keys` maps the names in AWS's examples to those in its prose; both are accepted."""
    settings: dict[str, Any] = {}
    with context.noting():
        settings = parse_object(value, path, context, [*keys, *keys.values()])
    overrides: dict[str, Override] = {}
    for key, other in keys.items():
        if key in settings and other in settings:
            context.note(path, f"`{key}` and `{other}` are the same setting")
        spelled = key if key in settings else other
        if spelled not in settings:
            continue
        allowed = [each for each in Override if each is not Override.MERGE or key in mergeable]
        if settings[spelled] in allowed:
            overrides[key] = Override(settings[spelled])
        else:
            context.note(
                f"{path}.{spelled}",
                f"it must be one of {', '.join(allowed)}, not {quoted(settings[spelled])}",
            )
    return overrides
