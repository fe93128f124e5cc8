"""The provisioning operations a device calls over MQTT.

A certificate made here is PENDING_ACTIVATION, with an ownership token as the proof that its
holder was given it. RegisterThing takes certificate and template and does everything the template
asks, with the rights of its provisioning role. A certificate nobody registered is deleted when
its token ends (`sweep`).

Source: AWS IoT developer guide, "Device provisioning MQTT API".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

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
    issue_certificate,
    load_public_key,
    parse_csr,
    registered,
)
from fleetgate.operations.registration import Plan, allow_by_role, carry_out, parsed_template, plan
from fleetgate.operations.templates import template_arn
from fleetgate.pki import token
from fleetgate.pki.trust import CertificateFacts
from fleetgate.store import certificates, templates
from fleetgate.store.engine import Tx

MAX_CONFIGURATION = 100_000
"""Bytes of JSON a device configuration may have: the reply has to fit into an MQTT message, whose
payload is 128 KB at most (AWS IoT quotas)."""

SWEEP_BATCH = 500
"""Certificates one sweep deletes in one transaction."""


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
    resources, done = await call.write(
        _register, call, template_name, ownership.certificate_id, parameters or {}
    )
    if done.changes_connections:
        call.policies_changed()
    return {
        "deviceConfiguration": dict(resources.device_configuration),
        "thingName": resources.thing.name if resources.thing is not None else None,
    }


def _register(
    tx: Tx, call: Call, template_name: str, certificate_id: str, parameters: Mapping[str, str]
) -> tuple[Resources, Plan]:
    """The whole registration, inside one transaction."""
    certificate = certificates.find_certificate(tx, certificate_id)
    if certificate is None:
        raise InvalidCertificateOwnershipTokenException(
            f"the certificate of the token, {certificate_id}, does not exist any more"
        )
    found = templates.find_in_force(tx, template_name)
    if found is None:
        raise ResourceNotFoundException(f"template `{template_name}` does not exist")
    if not found.enabled:
        raise AccessDeniedException(f"template `{template_name}` is disabled")
    try:
        # what a device sends under the name of a pseudo parameter is not believed
        known = {**parameters, domain_template.CERTIFICATE_ID: certificate_id}
        parsed = parsed_template(call, found.body, domain_template.Kind.FLEET)
        resources = domain_template.render(parsed, known)
    except InvalidTemplate as error:
        raise InvalidParametersException(_rule(error)) from None
    thing_name = resources.thing.name if resources.thing is not None else None
    _check_use(certificate, template_name, thing_name, resources)
    size = len(msgspec.json.encode(resources.device_configuration))
    if size > MAX_CONFIGURATION:
        raise InvalidParametersException(
            f"the device configuration has {size} bytes as JSON; the limit is {MAX_CONFIGURATION}"
        )
    planned = plan(tx, call, resources, certificate)
    if certificate.template_name is not None and planned.steps:
        # what was built has been changed since; a device does not overrule an operator
        raise AccessDeniedException(
            f"certificate {certificate_id} has been registered, and thing, groups, policies or "
            "attachments were changed afterwards"
        )
    arn = template_arn(call.account, template_name)
    carry_out(tx, call, planned, allow_by_role(tx, call, found.role_arn, arn))
    if certificate.template_name is None:
        certificates.update_certificate_registration(tx, certificate_id, template_name, thing_name)
    return resources, planned


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
    unresolved = error.rule.startswith(domain_template.UNRESOLVED)
    return error.rule if unresolved else error.message
