"""The provisioning operations a device calls over MQTT.

A certificate made here is PENDING_ACTIVATION, with an ownership token as the proof that its
holder was given it. RegisterThing takes certificate and template and does everything the template
asks in one transaction: everything or nothing. A certificate nobody registered is deleted when
its token ends (`sweep`).

Source: AWS IoT developer guide, "Device provisioning MQTT API".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from fleetgate.domain import provisioning as domain
from fleetgate.domain import template as domain_template
from fleetgate.domain.resources import Resources
from fleetgate.errors import (
    AccessDeniedException,
    InvalidCertificateOwnershipTokenException,
    InvalidCsr,
    InvalidCsrException,
    InvalidParametersException,
    InvalidTemplate,
    InvalidToken,
    ResourceNotFoundException,
    ResourceRegistrationFailureException,
)
from fleetgate.operations.call import Call, Services
from fleetgate.operations.certificates import (
    certificate_arn,
    issue_certificate,
    load_public_key,
    parse_csr,
    registered,
)
from fleetgate.pki import token
from fleetgate.pki.trust import CertificateFacts
from fleetgate.store import certificates, groups, policies, templates, things
from fleetgate.store.engine import Tx

MAX_CONFIGURATION = 100_000
"""Bytes of JSON a device configuration may have: the reply has to fit into an MQTT message, whose
payload is 128 KB at most (AWS IoT quotas)."""

SWEEP_BATCH = 500
"""Certificates one sweep deletes in one transaction."""

_parsed = lru_cache(maxsize=512)(domain_template.parse)


async def create_keys_and_certificate(
    call: Call,
    payload_format: str,  # noqa: ARG001 - the door has used it
) -> dict[str, Any]:
    """CreateKeysAndCertificate: an RSA-2048 key pair, its certificate and the token for it."""
    pair = await call.services.rsa_keys.take()
    facts = issue_certificate(call, call.services.device_profile, load_public_key(pair.public_der))
    return {**await _pending(call, facts), "privateKey": pair.private_pem}


async def create_certificate_from_csr(
    call: Call,
    payload_format: str,  # noqa: ARG001 - the door has used it
    certificate_signing_request: str = "",
) -> dict[str, Any]:
    """CreateCertificateFromCsr: a certificate for the CSR's key and subject, and the token."""
    try:
        request = parse_csr(call, certificate_signing_request)
    except InvalidCsr as error:
        raise InvalidCsrException(error.message) from None
    facts = issue_certificate(
        call, call.services.device_profile, request.public_key, request.subject
    )
    return await _pending(call, facts)


async def register_thing(
    call: Call,
    payload_format: str,  # noqa: ARG001 - the door has used it
    template_name: str,
    certificate_ownership_token: str = "",
    certificate_id: str | None = None,
    parameters: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """RegisterThing: builds what the template asks for and activates the certificate.

    Repeating it with the same token, template and outcome gives the same answer: a device that
    lost the first one may ask again while the token lives.
    """
    try:
        ownership = token.open_(
            call.services.token_key,
            certificate_ownership_token,
            account=call.account.id,
            region=call.account.region,
            now=datetime.fromtimestamp(call.now, UTC),
        )
    except InvalidToken as error:
        raise InvalidCertificateOwnershipTokenException(error.message) from None
    if certificate_id is not None and certificate_id != ownership.certificate_id:
        raise InvalidCertificateOwnershipTokenException(
            f"the token is for another certificate than certificateId `{certificate_id[:80]}`"
        )
    claim_template = call.identity.template_name if call.identity is not None else None
    if claim_template is not None and claim_template != template_name:
        raise AccessDeniedException(
            f"the temporary claim is for template `{claim_template}`, not `{template_name}`"
        )
    resources, regrouped = await call.write(
        _register, call, template_name, ownership.certificate_id, parameters or {}
    )
    if regrouped:
        call.policies_changed()
    return {
        "deviceConfiguration": dict(resources.device_configuration),
        "thingName": resources.thing.name if resources.thing is not None else None,
    }


def _register(
    tx: Tx, call: Call, template_name: str, certificate_id: str, parameters: Mapping[str, str]
) -> tuple[Resources, bool]:
    """The whole registration, inside one transaction.

    Tells, beside what was built, whether policies of open connections may have changed by it:
    only if a thing that was there already changed its groups. The certificate itself, with
    policies of its own, has not been able to connect before.
    """
    certificate = certificates.find_certificate(tx, certificate_id)
    if certificate is None:
        raise InvalidCertificateOwnershipTokenException(
            f"the certificate of the token, {certificate_id}, does not exist any more"
        )
    found = templates.find_default_body(tx, template_name)
    if found is None:
        raise ResourceNotFoundException(f"template `{template_name}` does not exist")
    enabled, body = found
    if not enabled:
        raise AccessDeniedException(f"template `{template_name}` is disabled")
    try:
        # what a device sends under the name of a pseudo parameter is not believed
        known = {**parameters, domain_template.CERTIFICATE_ID: certificate_id}
        resources = domain_template.render(_parsed(body), known)
    except InvalidTemplate as error:
        raise InvalidParametersException(_rule(error)) from None
    thing_name = resources.thing.name if resources.thing is not None else None
    _check_use(certificate, template_name, thing_name, resources)
    size = len(msgspec.json.encode(resources.device_configuration))
    if size > MAX_CONFIGURATION:
        raise InvalidParametersException(
            f"the device configuration has {size} bytes as JSON; the limit is {MAX_CONFIGURATION}"
        )
    existing = _existing(tx, call, resources, certificate)
    steps = domain.plan(resources, existing)
    if certificate.template_name is not None and steps:
        # what was built has been changed since; a device does not overrule an operator
        raise AccessDeniedException(
            f"certificate {certificate_id} has been registered, and thing, groups, policies or "
            "attachments were changed afterwards"
        )
    for step in steps:
        _apply(tx, call, step)
    if certificate.template_name is None:
        certificates.update_certificate_registration(tx, certificate_id, template_name, thing_name)
    groups_changed = any(
        isinstance(step, domain.AddThingToGroup | domain.RemoveThingFromGroup) for step in steps
    )
    return resources, groups_changed and existing.thing is not None


def _check_use(
    certificate: certificates.Certificate,
    template_name: str,
    thing_name: str | None,
    resources: Resources,
) -> None:
    """A token registers one certificate once: again only with the same outcome."""
    if resources.certificate is None:
        raise ResourceRegistrationFailureException(
            f"template `{template_name}` has no AWS::IoT::Certificate resource: "
            "the certificate would never be activated"
        )
    used = (certificate.template_name, certificate.thing_name)
    if certificate.template_name is not None and used != (template_name, thing_name):
        raise InvalidCertificateOwnershipTokenException(
            "the token has been used already: it registered "
            f"thing `{certificate.thing_name}` by template `{certificate.template_name}`"
        )
    if certificate.status not in ("PENDING_ACTIVATION", resources.certificate.status):
        # an operator has decided on this certificate since: a device does not overrule that
        raise AccessDeniedException(
            f"certificate {certificate.certificate_id} is {certificate.status}"
        )


def _existing(
    tx: Tx, call: Call, resources: Resources, certificate: certificates.Certificate
) -> domain.Existing:
    """What the registry knows of everything the template names."""
    wanted = domain.lookups(resources)
    arn = certificate_arn(call.account, certificate.certificate_id)
    thing = things.find_thing(tx, wanted.thing) if wanted.thing is not None else None
    types = {name: things.find_thing_type(tx, name) for name in wanted.thing_types}
    return domain.Existing(
        thing=None
        if thing is None
        else domain.ExistingThing(
            attributes=thing.attributes,
            type_name=thing.thing_type_name,
            groups=frozenset(groups.list_groups_of_thing(tx, thing.thing_name, "", 1000)),
        ),
        certificate_id=certificate.certificate_id,
        certificate_status=certificate.status,
        thing_types=frozenset(
            name for name, found in types.items() if found and found.deprecated_at is None
        ),
        deprecated_thing_types=frozenset(
            name for name, found in types.items() if found and found.deprecated_at is not None
        ),
        thing_groups=frozenset(
            name for name in wanted.thing_groups if groups.find_thing_group(tx, name) is not None
        ),
        policies={name: policies.find_default_document(tx, name) for name in wanted.policies},
        attached_policies=frozenset(policies.list_attached_policies(tx, arn, "", 1000)),
        attached_things=frozenset(things.list_principal_things(tx, arn, "", 1000)),
    )


def _apply(tx: Tx, call: Call, step: domain.Step) -> None:
    """One step of a plan."""
    new_id = call.services.new_id
    match step:
        case domain.CreateThing(name, type_name, attributes):
            thing = things.Thing(name, new_id(), type_name, attributes, 1, call.now)
            things.add_thing(tx, thing)
        case domain.UpdateThing(name, type_name, attributes):
            current = things.find_thing(tx, name)
            if current is None:
                raise LookupError(name)
            things.update_thing(
                tx,
                things.Thing(
                    name,
                    current.thing_id,
                    type_name,
                    attributes,
                    current.version + 1,
                    current.created_at,
                ),
            )
        case domain.AddThingToGroup(name, group):
            groups.add_group_member(tx, group, name)
        case domain.RemoveThingFromGroup(name, group):
            groups.remove_group_member(tx, group, name)
        case domain.CreatePolicy(name, document):
            policies.add_policy(tx, name, document, new_id(), call.now)
        case domain.AttachPolicy(name, certificate_id):
            policies.add_policy_attachment(tx, name, certificate_arn(call.account, certificate_id))
        case domain.AttachThingPrincipal(name, certificate_id):
            things.add_thing_principal(tx, name, certificate_arn(call.account, certificate_id))
        case domain.UpdateCertificateStatus(certificate_id, status):
            certificates.update_certificate_status(tx, certificate_id, status, call.now)
        case domain.AddThingToBillingGroup(name, group):
            # plan() yields it for known billing groups only, and this server keeps none
            raise ResourceRegistrationFailureException(
                f"billing group `{group}` of thing `{name}` does not exist"
            )


def sweep(tx: Tx, now: float) -> list[str]:
    """Deletes certificates whose token ended unused, and ended claims; returns the former."""
    certificates.remove_ended_provisioning_claims(tx, now)
    return certificates.remove_pending_certificates(tx, now, SWEEP_BATCH)


async def _pending(call: Call, facts: CertificateFacts) -> dict[str, Any]:
    """Stores a new certificate as PENDING_ACTIVATION; the members both Create* answers share."""
    services: Services = call.services
    expires_at = call.now + services.ownership_token_seconds
    ownership = token.Ownership(
        call.account.id,
        call.account.region,
        facts.certificate_id,
        datetime.fromtimestamp(expires_at, UTC),
    )
    sealed = token.seal(services.token_key, ownership, services.random_bytes(token.NONCE_BYTES))
    certificate = registered(call, facts, "PENDING_ACTIVATION", pending_until=expires_at)
    await call.write(certificates.add_certificate, certificate)
    return {
        "certificateId": facts.certificate_id,
        "certificatePem": facts.pem,
        "certificateOwnershipToken": sealed,
    }


def _rule(error: InvalidTemplate) -> str:
    """AWS's own words for a reference nothing resolves, else with the place in the template."""
    unresolved = error.rule.startswith("Cannot resolve reference value")
    return error.rule if unresolved else error.message
