"""Registering what a template asks for, shared by both doors, and RegisterThing over HTTP.

Both look up what exists, plan, ask whether every step of the plan is allowed, and carry it out,
all in one transaction: everything or nothing. Over MQTT (operations/provisioning.py) a stored
template is worked through with the rights of its provisioning role; over HTTP the caller gives
the template and it is their own rights that count.

Source: AWS IoT API reference, RegisterThing; AWS IoT developer guide, "Provisioning templates".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from fleetgate.domain import provisioning as domain
from fleetgate.domain import steps, template
from fleetgate.domain.events import Event
from fleetgate.domain.policy import Values
from fleetgate.domain.provisioning_failures import certificate_path, failure
from fleetgate.domain.resources import Resources
from fleetgate.errors import (
    AccessDeniedException,
    CertificateConflictException,
    CertificateStateException,
    CertificateValidationException,
    ConflictingResourceUpdateException,
    InvalidCsr,
    InvalidRequestException,
    InvalidTemplate,
    ResourceAlreadyExistsException,
    ResourceRegistrationFailureException,
    told,
)
from fleetgate.operations import certificate_registration, events
from fleetgate.operations.authorization import allow_by, require, role_policies
from fleetgate.operations.call import Call
from fleetgate.operations.certificate_registration import Registration
from fleetgate.operations.certificates import (
    certificate_arn,
    issue_certificate,
    parse_csr,
    registered,
)
from fleetgate.pki.trust import CertificateFacts
from fleetgate.store import billing_groups, certificates, groups, policies, things
from fleetgate.store.engine import Tx

New = CertificateFacts | Registration
"""A certificate to be registered: one that was issued, or one that others signed."""

Allow = Callable[[str, str, Values], None]
"""Asked for the IAM action and resource of each step, with the condition keys it fills; raises
AccessDeniedException."""

_MANY = 1000
_TEMPLATE_ROLE = "the provisioning role of the template"
UNUSABLE = (
    CertificateConflictException,
    CertificateStateException,
    CertificateValidationException,
    InvalidCsr,
)
_parsed = lru_cache(maxsize=128)(template.parse)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, and what was there when it was planned.

    `events` are the registry events of it, once it is carried out (see `announce`).
    """

    steps: Sequence[steps.Step]
    existing: domain.Existing
    events: list[Event] = field(default_factory=list)

    @property
    def changes_connections(self) -> bool:
        """Whether open connections may get other rights by it.

        They do when a thing or a certificate changes that was in use before: a device that is
        new has not been able to connect.
        """
        thing = steps.UpdateThing | steps.AddThingToGroup | steps.RemoveThingFromGroup
        certificate = steps.AttachPolicy | steps.AttachThingPrincipal
        in_use = self.existing.certificate_status == "ACTIVE"
        return any(
            (isinstance(step, thing) and self.existing.thing is not None)
            or (isinstance(step, certificate) and in_use)
            for step in self.steps
        )


# --- RegisterThing over HTTP ---------------------------------------------------------------------


async def register_thing(
    call: Call, template_body: str, parameters: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """RegisterThing: builds what the template in the call asks for, with the caller's rights.

    Repeating it is no error and changes nothing, except that a signing request gets a further
    certificate each time.
    """
    parsed = inline_template(call, template_body)
    wanted, new = await with_certificate(call, rendered(parsed, parameters or {}))
    try:
        pem, done = await call.write(_register, call, wanted, new)
    except UNUSABLE as error:
        raise ResourceRegistrationFailureException(error.message) from None
    announce(call, done)
    return {"certificatePem": pem, "resourceArns": resource_arns(call, wanted)}


def inline_template(call: Call, template_body: str) -> template.Template:
    """A template given in a call; raises InvalidRequestException."""
    try:
        return parsed_template(call, template_body, template.Kind.INLINE)
    except InvalidTemplate as error:
        raise _invalid(error) from None


def rendered(parsed: template.Template, parameters: Mapping[str, str]) -> Resources:
    """What such a template asks for with these parameters; raises InvalidRequestException."""
    try:
        return template.render(parsed, parameters)
    except InvalidTemplate as error:
        raise _invalid(error) from None


def announce(call: Call, done: Plan) -> None:
    """Tells everybody of a plan that was carried out: to be called when it is stored, not before.

    Everything that runs a template ends with it: RegisterThing at both doors, just-in-time
    provisioning, bulk registration. Open connections get their new rights, those of a certificate
    that lost its own end, and the registry events of the plan are published.
    """
    if done.changes_connections:
        call.policies_changed()
    for step in done.steps:
        if isinstance(step, steps.UpdateCertificateStatus) and step.status == "INACTIVE":
            call.services.certificate_changed(step.certificate_id)
    events.publish(call, done.events)


def _register(tx: Tx, call: Call, wanted: Resources, new: New | None) -> tuple[str | None, Plan]:
    """The whole registration, inside one transaction; the certificate's PEM and what was done."""
    certificate_id = None if wanted.certificate is None else wanted.certificate.certificate_id
    certificate = None
    if certificate_id is not None:
        certificate = certificates.find_certificate(tx, certificate_id)
    allow = require(tx, call)
    _require_reading(call, wanted, allow)
    made = plan_for(tx, call, wanted, certificate, allow)
    carry_out(tx, call, made, allow, new)
    if certificate is None and certificate_id is not None:
        certificate = certificates.find_certificate(tx, certificate_id)
    return None if certificate is None else certificate.pem, made


def _require_reading(call: Call, wanted: Resources, allow: Allow) -> None:
    """Asks for the right to see what the template names, before anything is told of it.

    Like the rights of the steps these are among those of AWSIoTThingsRegistration. What was
    issued for a signing request is the caller's own.
    """
    if wanted.thing is not None:
        allow("iot:DescribeThing", call.account.arn(f"thing/{wanted.thing.name}"), {})
    if wanted.certificate is not None and wanted.certificate.csr is None:
        arn = certificate_arn(call.account, wanted.certificate.certificate_id or "")
        allow("iot:DescribeCertificate", arn, {})


async def with_certificate(call: Call, wanted: Resources) -> tuple[Resources, New | None]:
    """The resources with the id of the certificate they ask for, and that certificate if new.

    Raises ResourceRegistrationFailureException for a signing request or a certificate that
    cannot be used.
    """
    asked = wanted.certificate
    if asked is None:
        return wanted, None
    new: New | None = None
    try:
        if asked.csr is not None:
            request = parse_csr(call, asked.csr)
            profile = call.services.device_profile
            new = issue_certificate(call, profile, request.public_key, request.subject)
            certificate_id = new.certificate_id
        elif asked.pem is not None:
            new = await certificate_registration.prepare(call, asked.pem, asked.ca_pem)
            certificate_id = new.facts.certificate_id
        else:
            return wanted, None
    except ResourceAlreadyExistsException as error:
        certificate_id = error.members["resourceId"]
    except UNUSABLE as error:
        raise failure(certificate_path(asked), error.message) from None
    return replace(wanted, certificate=replace(asked, certificate_id=certificate_id)), new


def resource_arns(call: Call, wanted: Resources) -> dict[str, str]:
    """The ARNs of what a template asks for, by the names the template gives them."""
    arn = call.account.arn
    arns = {policy.logical_id: arn(f"policy/{policy.name}") for policy in wanted.policies}
    if wanted.certificate is not None:
        arns[wanted.certificate.logical_id] = arn(f"cert/{wanted.certificate.certificate_id}")
    if wanted.thing is not None:
        arns[wanted.thing.logical_id] = arn(f"thing/{wanted.thing.name}")
    return arns


def _invalid(error: InvalidTemplate) -> InvalidRequestException:
    return InvalidRequestException(template.registration_message(error))


# --- shared by both doors ------------------------------------------------------------------------


def parsed_template(call: Call, body: str, kind: template.Kind) -> template.Template:
    """The parsed form of a template, kept by its body; raises InvalidTemplate."""
    return _parsed(body, kind, call.services.limits.policy_document_characters)


def allow_by_role(
    tx: Tx, call: Call, role_arn: str, template_arn: str, name: str = _TEMPLATE_ROLE
) -> Allow:
    """Allows what the policies of a role allow, which errors call by this name.

    Raises AccessDeniedException when there is no such role any more, or when it does not trust
    AWS IoT.
    """
    try:
        found = role_policies(tx, call, role_arn, source_arn=template_arn)
    except AccessDeniedException as error:
        raise _denied(f"{name} cannot be assumed", error.message) from None

    decide = allow_by(tx, call, found)

    def allow(action: str, arn: str, keys: Values) -> None:
        decision = decide(action, arn, keys)
        if not decision.allowed:
            detail = f"role `{role_arn}`, action {action}, resource `{arn}`: {decision.reason}"
            raise _denied(f"{name} is not authorized to perform {action}", detail)

    return allow


def _denied(message: str, detail: str) -> AccessDeniedException:
    """The device hears the message alone: role and resource are for the log."""
    error = AccessDeniedException(message)
    error.add_note(detail)
    return error


def plan(
    tx: Tx, call: Call, wanted: Resources, certificate: certificates.Certificate | None
) -> Plan:
    """What has to be done for the resources; `certificate` is theirs if it is registered.

    Raises ResourceRegistrationFailureException.
    """
    existing = _existing(tx, call, wanted, certificate)
    return Plan(domain.plan(wanted, existing, call.services.limits), existing)


def plan_for(
    tx: Tx,
    call: Call,
    wanted: Resources,
    certificate: certificates.Certificate | None,
    allow: Allow,
) -> Plan:
    """`plan`, for an answer that whoever is asked for by `allow` is going to read.

    A failure tells what the registry knows of the thing to those who may look it up, and to
    nobody else.
    """
    try:
        return plan(tx, call, wanted, certificate)
    except ResourceRegistrationFailureException as error:
        message = error.message
        with contextlib.suppress(AccessDeniedException):
            if wanted.thing is not None:
                arn = call.account.arn(f"thing/{wanted.thing.name}")
                allow("iot:DescribeThing", arn, {})
                allow("iot:ListThingGroupsForThing", arn, {})
                message = told(error)
        raise ResourceRegistrationFailureException(message) from None


def carry_out(
    tx: Tx,
    call: Call,
    made: Plan,
    allow: Allow,
    new: New | None = None,
) -> None:
    """Asks whether all steps are allowed, and takes them; `new` is a certificate to be added."""
    require_steps(call, made, allow)
    take_steps(tx, call, made, new)


def require_steps(call: Call, made: Plan, allow: Allow) -> None:
    """Asks whether all steps are allowed, and changes nothing."""
    for step in made.steps:
        keys = steps.condition_keys(step, call.account)
        for action, arn in steps.rights(step, call.account):
            allow(action, arn, keys)


def take_steps(tx: Tx, call: Call, made: Plan, new: New | None = None) -> None:
    """Takes the steps, whose rights have been asked; `new` is a certificate to be added."""
    for step in made.steps:
        _take(tx, call, step, new)
    made.events.extend(events.of_steps(tx, call, made.steps, made.existing.thing))


def _existing(
    tx: Tx, call: Call, wanted: Resources, certificate: certificates.Certificate | None
) -> domain.Existing:
    """What the registry knows of everything the template names."""
    names = domain.lookups(wanted)
    thing = things.find_thing(tx, names.thing) if names.thing is not None else None
    types = {name: things.find_thing_type(tx, name) for name in names.thing_types}
    members = [] if thing is None else groups.list_groups_of_thing(tx, thing.thing_name, "", _MANY)
    arn = "" if certificate is None else certificate_arn(call.account, certificate.certificate_id)
    return domain.Existing(
        thing=None
        if thing is None
        else domain.ExistingThing(
            attributes=thing.attributes,
            type_name=thing.thing_type_name,
            groups=frozenset(members),
            billing_group=thing.billing_group_name,
        ),
        certificate_id=None if certificate is None else certificate.certificate_id,
        certificate_status=None if certificate is None else certificate.status,
        thing_types=frozenset(
            name for name, found in types.items() if found and found.deprecated_at is None
        ),
        deprecated_thing_types=frozenset(
            name for name, found in types.items() if found and found.deprecated_at is not None
        ),
        thing_groups=_roots(tx, names.thing_groups, members),
        billing_groups=frozenset(
            name
            for name in names.billing_groups
            if billing_groups.find_billing_group(tx, name) is not None
        ),
        policies={name: policies.find_default_document(tx, name) for name in names.policies},
        attached_policies=frozenset(
            policies.list_attached_policies(tx, arn, "", _MANY) if arn else ()
        ),
        attached_things=dict(things.list_principal_attachments(tx, arn, "", _MANY) if arn else ()),
    )


def _roots(tx: Tx, named: frozenset[str], members: Sequence[str]) -> dict[str, str]:
    """The groups that exist, with the root of each; a single group needs no root."""
    several = len(named.union(members)) > 1
    roots: dict[str, str] = {}
    for name in named:
        found = groups.find_thing_group(tx, name)
        if found is not None:
            roots[name] = name
            if several and found.parent_group_name is not None:
                roots[name] = groups.list_group_ancestors(tx, name)[0].thing_group_name
    if several and not named.issubset(members):
        for name in members:
            above = groups.list_group_ancestors(tx, name)
            roots[name] = above[0].thing_group_name if above else name
    return roots


def _take(tx: Tx, call: Call, step: steps.Step, new: New | None) -> None:
    """One step of a plan."""
    new_id = call.services.new_id
    match step:
        case steps.IssueCertificate(_, status) if isinstance(new, CertificateFacts):
            certificates.add_certificate(tx, registered(call, new, status))
        case steps.RegisterCertificate(_, status) if isinstance(new, Registration):
            certificate_registration.add(tx, call, new, status)
        case steps.RegisterCertificate(certificate_id):
            # it was registered when it was looked at, and so it was not verified
            raise ConflictingResourceUpdateException(
                f"certificate {certificate_id} was deleted while this registration of it was "
                "under way; try again"
            )
        case steps.IssueCertificate():
            raise TypeError(f"{step} without the certificate it is about")
        case steps.CreateThing(name, type_name, attributes):
            thing = things.Thing(name, new_id(), type_name, attributes, 1, call.now)
            things.add_thing(tx, thing)
        case steps.UpdateThing(name, type_name, attributes):
            current = things.find_thing(tx, name)
            if current is None:
                raise LookupError(name)
            things.update_thing(
                tx,
                replace(
                    current,
                    thing_type_name=type_name,
                    attributes=attributes,
                    version=current.version + 1,
                ),
            )
        case steps.AddThingToGroup(name, group):
            groups.add_group_member(tx, group, name)
        case steps.RemoveThingFromGroup(name, group):
            groups.remove_group_member(tx, group, name)
        case steps.AddThingToBillingGroup(name, group):
            billing_groups.update_billing_group_of_thing(tx, name, group)
        case steps.CreatePolicy(name, document):
            policies.add_policy(tx, name, document, new_id(), call.now)
        case steps.AttachPolicy(name, certificate_id):
            policies.add_policy_attachment(tx, name, certificate_arn(call.account, certificate_id))
        case steps.AttachThingPrincipal(name, certificate_id, exclusive):
            arn = certificate_arn(call.account, certificate_id)
            things.add_thing_principal(tx, name, arn, exclusive=exclusive)
        case steps.UpdateCertificateStatus(certificate_id, status):
            certificates.update_certificate_status(tx, certificate_id, status, call.now)
