"""Provisioning: what has to be done so that a device's resources are as its template asks.

`lookups` says what to look up, the caller answers with an Existing, and `plan` returns the steps
in the order of AWS's just-in-time provisioning: a new certificate, thing, its groups, policies,
attachments, and the certificate's status last. Applying a plan and planning again gives an empty
plan, so a device may repeat a registration whose answer it lost.

Source: AWS IoT Developer Guide, "Provisioning templates" (override settings) and "Just-in-time
provisioning" (order). Where OverrideSettings are silent AWS's behaviour is not documented; here a
thing that already is as the template asks is left alone, and one that differs is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fleetgate.domain import registry
from fleetgate.domain.document import quoted
from fleetgate.domain.limits import Limits
from fleetgate.domain.provisioning_failures import (
    certificate_path,
    checking,
    failure,
    names_of,
    other_attributes,
    other_value,
    property_path,
    resource_path,
)
from fleetgate.domain.resources import Certificate, Override, Policy, Resources, Thing
from fleetgate.domain.steps import (
    AddThingToBillingGroup,
    AddThingToGroup,
    AttachPolicy,
    AttachThingPrincipal,
    CreatePolicy,
    CreateThing,
    IssueCertificate,
    RegisterCertificate,
    RemoveThingFromGroup,
    Step,
    UpdateCertificateStatus,
    UpdateThing,
)

# --- what exists ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lookups:
    """The names of everything `plan` must know about; look them up to make an Existing."""

    thing: str | None
    certificate_id: str | None
    thing_types: frozenset[str]
    thing_groups: frozenset[str]
    billing_groups: frozenset[str]
    policies: frozenset[str]


@dataclass(frozen=True, slots=True)
class ExistingThing:
    """A thing as the registry has it."""

    attributes: Mapping[str, str]
    type_name: str | None = None
    groups: frozenset[str] = frozenset()
    billing_group: str | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """What the registry knows about the names in Lookups; names it does not know are left out."""

    thing: ExistingThing | None
    certificate_id: str | None
    """None when the certificate is not registered."""
    certificate_status: str | None
    """As AWS spells it: PENDING_ACTIVATION, ACTIVE, INACTIVE, REVOKED, ..."""
    thing_types: frozenset[str] = frozenset()
    """Those that exist and are not deprecated."""
    deprecated_thing_types: frozenset[str] = frozenset()
    thing_groups: Mapping[str, str] = field(default_factory=dict)
    """Group to the root of its hierarchy: those looked up, and those the thing is in."""
    billing_groups: frozenset[str] = frozenset()
    policies: Mapping[str, str | None] = field(default_factory=dict)
    """Name to default document; None, or no entry, where there is no such policy."""
    attached_policies: frozenset[str] = frozenset()
    """All policies attached to the certificate."""
    attached_things: Mapping[str, bool] = field(default_factory=dict)
    """All things the certificate is attached to, and whether exclusively."""


def lookups(resources: Resources) -> Lookups:
    """What the caller must look up before it plans for `resources`."""
    thing, certificate = resources.thing, resources.certificate
    return Lookups(
        thing=thing.name if thing else None,
        certificate_id=certificate.certificate_id if certificate else None,
        thing_types=frozenset((thing.type_name,) if thing and thing.type_name else ()),
        thing_groups=frozenset((thing.groups or ()) if thing else ()),
        billing_groups=frozenset((thing.billing_group,) if thing and thing.billing_group else ()),
        policies=frozenset(policy.name for policy in resources.policies),
    )


# --- the plan ------------------------------------------------------------------------------------


def plan(resources: Resources, existing: Existing, limits: Limits) -> tuple[Step, ...]:
    """The steps that lead from what exists to what a template asks for; none when it is there.

    The id of a new certificate has to be in `resources` by now. Raises
    ResourceRegistrationFailureException when that cannot or may not be: a type, group or policy
    that does not exist, a limit, an existing thing that differs and may not be changed.
    """
    steps: list[Step] = []
    certificate = resources.certificate
    if certificate is not None:
        steps += _plan_new_certificate(certificate, existing)
    if resources.thing is not None:
        steps += _plan_thing(resources.thing, existing, limits)
    steps += _plan_policies(resources.policies, certificate, existing, limits)
    if certificate is not None:
        steps += _plan_certificate(certificate, resources.thing, existing)
    return tuple(steps)


# --- the thing -----------------------------------------------------------------------------------


def _plan_thing(thing: Thing, existing: Existing, limits: Limits) -> Iterator[Step]:
    current = existing.thing
    with checking(property_path(thing, "ThingName")):
        registry.check_thing_name(thing.name)
    attributes = _attributes(thing, current)
    type_name = _type_name(thing, current)
    if current is None or (attributes, type_name) != (current.attributes, current.type_name):
        if type_name is not None and (current is None or type_name != current.type_name):
            _check_type(thing, type_name, existing)
        with checking(property_path(thing, "AttributePayload")):
            registry.check_attributes(attributes)
            registry.check_attribute_count(
                len(attributes), typed=type_name is not None, limits=limits
            )
        step = CreateThing if current is None else UpdateThing
        yield step(thing.name, type_name, attributes)
    yield from _plan_groups(thing, existing, limits)
    yield from _plan_billing_group(thing, existing)


def _attributes(thing: Thing, current: ExistingThing | None) -> dict[str, str]:
    if current is None:
        return registry.updated_attributes({}, thing.attributes or {}, merge=False)
    if thing.attributes is None:
        return dict(current.attributes)
    wanted = registry.updated_attributes({}, thing.attributes, merge=False)
    match thing.overrides.attributes:
        case _ if wanted == current.attributes:
            return wanted
        case Override.DO_NOTHING:
            return dict(current.attributes)
        case Override.REPLACE:
            return wanted
        case Override.MERGE:
            return registry.updated_attributes(current.attributes, thing.attributes, merge=True)
    raise other_attributes(thing, current.attributes, wanted)


def _type_name(thing: Thing, current: ExistingThing | None) -> str | None:
    if current is None or thing.type_name is None or thing.type_name == current.type_name:
        return thing.type_name if current is None else current.type_name
    match override := thing.overrides.type_name:
        case Override.DO_NOTHING:
            return current.type_name
        case Override.REPLACE:
            return thing.type_name
    known = "no thing type"
    if current.type_name is not None:
        known = f"thing type {quoted(current.type_name)}"
    rule = f"thing type than the template's {quoted(thing.type_name)}"
    raise other_value(thing, "ThingTypeName", override, rule, known)


def _check_type(thing: Thing, name: str, existing: Existing) -> None:
    what = f"thing type {quoted(name)}"
    if name in existing.deprecated_thing_types:
        raise failure(property_path(thing, "ThingTypeName"), f"{what} is deprecated")
    if name not in existing.thing_types:
        raise failure(property_path(thing, "ThingTypeName"), f"{what} does not exist")


def _plan_groups(thing: Thing, existing: Existing, limits: Limits) -> Iterator[Step]:
    if thing.groups is None:
        return
    path = property_path(thing, "ThingGroups")
    current = existing.thing.groups if existing.thing is not None else frozenset()
    wanted = thing.groups
    if existing.thing is not None:
        wanted = _groups(thing, thing.groups, current)
    with checking(path):
        registry.check_groups_per_thing(thing.name, set(wanted), limits=limits)
    added = [group for group in wanted if group not in current]
    for group in added:
        if group not in existing.thing_groups:
            raise failure(path, f"thing group {quoted(group)} does not exist")
    if added:
        roots = {group: existing.thing_groups.get(group, group) for group in wanted}
        with checking(path):
            registry.check_hierarchies(
                thing.name, {group: roots[group] for group in thing.groups if group in roots}
            )
        with checking(
            path,
            f"thing {quoted(thing.name)} is in another thing group of the same hierarchy as one "
            f"of {names_of(added)}, and a thing cannot be in more than one; REPLACE as "
            "OverrideSettings.ThingGroups would take it out",
        ):
            registry.check_hierarchies(thing.name, roots)
    # Removing first keeps the thing within its limit at every step.
    for group in sorted(current.difference(wanted)):
        yield RemoveThingFromGroup(thing.name, group)
    for group in added:
        yield AddThingToGroup(thing.name, group)


def _groups(thing: Thing, wanted: tuple[str, ...], current: frozenset[str]) -> tuple[str, ...]:
    """The groups a thing that exists is to be in."""
    match override := thing.overrides.groups:
        case Override.MERGE:
            return wanted + tuple(current.difference(wanted))
        case _ if set(wanted) == current:
            return wanted
        case Override.DO_NOTHING:
            return tuple(current)
        case Override.REPLACE:
            return wanted
    missing = [group for group in wanted if group not in current]
    said = [f"it is to be in {names_of(missing)}"] if missing else []
    if current.difference(wanted):
        said.append(f"it is to be in no {'other' if wanted else 'group'}")
    rule = f"groups than the template's: {', and '.join(said)}"
    raise other_value(
        thing, "ThingGroups", override, rule, f"the groups {names_of(sorted(current))}"
    )


def _plan_billing_group(thing: Thing, existing: Existing) -> Iterator[Step]:
    name = thing.billing_group
    current = existing.thing.billing_group if existing.thing is not None else None
    if name is None or name == current:
        return
    path = property_path(thing, "BillingGroup")
    if name not in existing.billing_groups:
        raise failure(path, f"billing group {quoted(name)} does not exist")
    if current is not None:
        raise failure(
            path,
            f"thing {quoted(thing.name)} is in another billing group than the template's "
            f"{quoted(name)}, and a template does not move it; RemoveThingFromBillingGroup first",
            f"the thing is in billing group {quoted(current)}",
        )
    yield AddThingToBillingGroup(thing.name, name)


# --- policies and certificate --------------------------------------------------------------------


def _plan_policies(
    policies: tuple[Policy, ...],
    certificate: Certificate | None,
    existing: Existing,
    limits: Limits,
) -> Iterator[Step]:
    documents = {policy.name: policy.document for policy in policies if policy.document}
    names: dict[str, Policy] = {}
    for policy in policies:
        names.setdefault(policy.name, policy)
    for name, policy in names.items():
        if existing.policies.get(name) is None:
            if name not in documents:
                path = property_path(policy, "PolicyName")
                raise failure(path, f"policy {quoted(name)} does not exist")
            yield CreatePolicy(name, documents[name])
    if certificate is None:
        return
    certificate_id = _id(certificate)
    attached = len(existing.attached_policies | names.keys())
    if attached > limits.policies_per_principal:
        raise failure(
            resource_path(certificate),
            f"certificate {quoted(certificate_id)} would have {attached} policies "
            f"attached; the limit is {limits.policies_per_principal}",
        )
    for name in names:
        if name not in existing.attached_policies:
            yield AttachPolicy(name, certificate_id)


def _id(certificate: Certificate) -> str:
    if certificate.certificate_id is None:
        raise ValueError("a plan needs the id of the certificate, of a new one too")
    return certificate.certificate_id


def _plan_new_certificate(certificate: Certificate, existing: Existing) -> Iterator[Step]:
    certificate_id = _id(certificate)
    if existing.certificate_status == "PENDING_TRANSFER":
        raise failure(
            certificate_path(certificate),
            f"certificate {quoted(certificate_id)} is PENDING_TRANSFER: it is on its way to "
            "another account",
        )
    if existing.certificate_id == certificate_id:
        return  # the certificate of `pem` may be registered already
    if certificate.csr is not None:
        yield IssueCertificate(certificate_id, certificate.status)
    elif certificate.pem is not None:
        yield RegisterCertificate(certificate_id, certificate.status)
    else:
        raise failure(
            certificate_path(certificate),
            f"certificate {quoted(certificate_id)} does not exist",
        )


def _plan_certificate(
    certificate: Certificate, thing: Thing | None, existing: Existing
) -> Iterator[Step]:
    if thing is not None:
        certificate_id, kind = _id(certificate), certificate.principal_type
        exclusive = None if kind is None else kind == "EXCLUSIVE_THING"
        attached = existing.attached_things
        with checking(property_path(certificate, "ThingPrincipalType")):
            registry.check_attachment(thing.name, certificate_id, attached, exclusive)
        if thing.name not in attached:
            yield AttachThingPrincipal(thing.name, certificate_id, bool(exclusive))
    status = existing.certificate_status
    if existing.certificate_id is None or status == certificate.status:
        return
    # A pending certificate is new: an override is about what was there before. AWS's own
    # example with `Status: DO_NOTHING` activates it.
    if status != "PENDING_ACTIVATION":
        if certificate.override is Override.DO_NOTHING:
            return
        # Silent settings replace: what CreateKeysAndCertificate makes is INACTIVE, and the
        # example of `aws iot register-thing` activates it without any.
        if certificate.override is Override.FAIL or status not in ("ACTIVE", "INACTIVE"):
            why = f"a certificate that is {status} is not changed"
            if certificate.override is Override.FAIL:
                why = "OverrideSettings.Status is FAIL in the template"
            raise failure(
                property_path(certificate, "Status"),
                f"certificate {quoted(_id(certificate))} is {status}, "
                f"and the template may not make it {certificate.status}: {why}",
            )
    yield UpdateCertificateStatus(_id(certificate), certificate.status)
