"""The provisioning operations a device calls over MQTT.

A certificate made here is PENDING_ACTIVATION, with an ownership token as the proof that its
holder was given it. RegisterThing takes certificate and template and does everything the template
asks, with the rights of its provisioning role. A certificate nobody registered is deleted when
its token ends (`sweep`).

A token registers once. What RegisterThing answered is kept with it, in the same transaction as
everything it built, until the token ends: a device that lost the answer asks again and hears it
again, word for word. Nothing is built or looked up for that, so it does not matter what became of
template version, role, thing or policies since; it matters whether the answer is still true: the
template is there and enabled, the certificate may be used and is attached to its thing.

Source: AWS IoT developer guide, "Device provisioning MQTT API".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
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
from fleetgate.names import Account
from fleetgate.operations.call import Call, Services
from fleetgate.operations.certificates import (
    certificate_arn,
    issue_certificate,
    load_public_key,
    parse_csr,
    registered,
)
from fleetgate.operations.registration import (
    Plan,
    allow_by_role,
    announce,
    carry_out,
    parsed_template,
    plan,
)
from fleetgate.operations.templates import template_arn
from fleetgate.pki import token
from fleetgate.pki.trust import CertificateFacts
from fleetgate.store import certificates, policies, registration_answers, templates, things
from fleetgate.store.engine import Tx
from fleetgate.store.registration_answers import RegistrationAnswer

log = logging.getLogger("fleetgate.provisioning")

MAX_CONFIGURATION = 100_000
"""Bytes of JSON a device configuration may have: the reply has to fit into an MQTT message, whose
payload is 128 KB at most (AWS IoT quotas)."""

SWEEP_BATCH = 500
"""Certificates, and answers kept for devices that ask again, one sweep deletes in a transaction."""


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

    Repeating it with the same token and template gives the same answer: a device that lost the
    first one may ask again while the token lives.
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
    answer, done = await call.write(_register, call, template_name, ownership, parameters or {})
    if done is None:
        log.info(
            "event=registered-before template=%s thing=%s certificate=%s request=%s",
            *(template_name, answer["thingName"], ownership.certificate_id, call.request_id),
        )
    else:
        announce(call, done)
    return answer


def _register(
    tx: Tx,
    call: Call,
    template_name: str,
    ownership: token.Ownership,
    parameters: Mapping[str, str],
) -> tuple[dict[str, Any], Plan | None]:
    """The whole registration, inside one transaction: the answer, and what was done for it.

    The latter is None when it had been done before.
    """
    certificate_id = ownership.certificate_id
    certificate = certificates.find_certificate(tx, certificate_id)
    if certificate is None:
        raise InvalidCertificateOwnershipTokenException(
            f"the certificate of the token, {certificate_id}, does not exist any more"
        )
    found = templates.find_in_force(tx, template_name)
    if found is None:
        raise ResourceNotFoundException(f"template `{template_name}` does not exist")
    if found.kind is not domain_template.Kind.FLEET:
        raise AccessDeniedException(
            f"template `{template_name}` is of type {found.kind}, not FLEET_PROVISIONING"
        )
    if not found.enabled:
        raise AccessDeniedException(f"template `{template_name}` is disabled")
    if certificate.template_name is not None:
        return _answer_again(tx, call, template_name, found, certificate, parameters), None
    resources = _resources(call, found, certificate_id, parameters)
    status = _check_use(certificate, template_name, resources)
    size = len(msgspec.json.encode(resources.device_configuration))
    if size > MAX_CONFIGURATION:
        raise InvalidParametersException(
            f"the device configuration has {size} bytes as JSON; the limit is {MAX_CONFIGURATION}"
        )
    planned = plan(tx, call, resources, certificate)
    arn = template_arn(call.account, template_name)
    carry_out(tx, call, planned, allow_by_role(tx, call, found.role_arn, arn))
    thing_name = resources.thing.name if resources.thing is not None else None
    certificates.update_certificate_registration(tx, certificate_id, template_name, thing_name)
    answer = {
        "deviceConfiguration": dict(resources.device_configuration),
        "thingName": thing_name,
    }
    kept = RegistrationAnswer(
        certificate_id,
        template_name,
        found.created_at,
        _digest(parameters),
        _digest(resources),
        status,
        msgspec.json.encode(answer).decode(),
        ownership.expires_at.timestamp(),
    )
    registration_answers.add_registration_answer(tx, kept)
    return answer, planned


def _answer_again(
    tx: Tx,
    call: Call,
    template_name: str,
    found: templates.InForce,
    certificate: certificates.Certificate,
    parameters: Mapping[str, str],
) -> dict[str, Any]:
    """The answer the token's registration had, if this request is the same and it is still true.

    Nothing is changed. Raises InvalidCertificateOwnershipTokenException for another template or
    parameters that ask for something else, and AccessDeniedException when an operator has taken
    back what was registered: a device does not overrule that.
    """
    certificate_id, thing_name = certificate.certificate_id, certificate.thing_name
    kept = registration_answers.find_registration_answer(tx, certificate_id)
    # a template that was deleted and made again under its name is another one
    if kept is None or (kept.template_name, kept.template_created_at) != (
        template_name,
        found.created_at,
    ):
        raise _used(certificate)
    if kept.parameters != _digest(parameters):
        # what makes no difference, a time of day, may differ
        try:
            outcome = _digest(_resources(call, found, certificate_id, parameters))
        except InvalidParametersException:
            outcome = ""
        if outcome != kept.outcome:
            raise _used(certificate, "with other parameters")
    if certificate.status not in ("ACTIVE", kept.status):
        raise _not_to_be_used(certificate)
    if thing_name is not None:
        arn = certificate_arn(call.account, certificate_id)
        if not things.find_attachment(tx, thing_name, arn):
            raise AccessDeniedException(
                f"certificate {certificate_id} has been registered for thing `{thing_name}` and "
                "was detached from it afterwards"
            )
    answer: dict[str, Any] = msgspec.json.decode(kept.body)
    return answer


def _resources(
    call: Call, found: templates.InForce, certificate_id: str, parameters: Mapping[str, str]
) -> Resources:
    """What the template makes of the parameters; raises InvalidParametersException."""
    try:
        # what a device sends under the name of a pseudo parameter is not believed
        known = {**parameters, domain_template.CERTIFICATE_ID: certificate_id}
        parsed = parsed_template(call, found.body, domain_template.Kind.FLEET)
        return domain_template.render(parsed, known)
    except InvalidTemplate as error:
        raise InvalidParametersException(_rule(error)) from None


def _check_use(
    certificate: certificates.Certificate, template_name: str, resources: Resources
) -> str:
    """Whether the certificate may be registered; the status it is to have."""
    if resources.certificate is None:
        raise ResourceRegistrationFailureException(
            f"template `{template_name}` has no AWS::IoT::Certificate resource: "
            "the certificate would never be activated"
        )
    if certificate.status not in ("PENDING_ACTIVATION", resources.certificate.status):
        # an operator has decided on this certificate since: a device does not overrule that
        raise _not_to_be_used(certificate)
    return resources.certificate.status


def _used(
    certificate: certificates.Certificate, how: str = ""
) -> InvalidCertificateOwnershipTokenException:
    return InvalidCertificateOwnershipTokenException(
        f"the token has been used already{how and f' {how}'}: it registered "
        f"thing `{certificate.thing_name}` by template `{certificate.template_name}`"
    )


def _not_to_be_used(certificate: certificates.Certificate) -> AccessDeniedException:
    return AccessDeniedException(
        f"certificate {certificate.certificate_id} is {certificate.status}"
    )


def _digest(value: object) -> str:
    """A short text that is the same for equal values alone."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep deleted: ids of certificates; `more`: there is more to be deleted at once."""

    certificates: list[str]
    more: bool


def sweep(tx: Tx, account: Account, now: float) -> Swept:
    """Deletes what has ended: certificates whose token did so unused, answers, claims.

    What an operator attached to such a certificate goes with it: nobody could detach it later.
    """
    certificates.remove_ended_provisioning_claims(tx, now)
    answers = registration_answers.remove_ended_registration_answers(tx, now, SWEEP_BATCH)
    removed = certificates.remove_pending_certificates(tx, now, SWEEP_BATCH)
    for certificate_id in removed:
        arn = certificate_arn(account, certificate_id)
        policies.remove_policy_attachments(tx, arn)
        things.remove_principal_attachments(tx, arn)
    return Swept(removed, more=max(answers, len(removed)) >= SWEEP_BATCH)


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
