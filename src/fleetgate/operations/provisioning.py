"""The provisioning operations a device calls over MQTT.

A certificate made here is PENDING_ACTIVATION, with an ownership token as the proof that its
holder was given it. RegisterThing takes certificate and template and does everything the template
asks, with the rights of its provisioning role. A certificate nobody registered is deleted when
its token ends (operations/sweep.py).

A token registers once. What RegisterThing answered is kept with it (operations/kept_answers.py), in
the same transaction as everything it built, until the token ends: a device that lost the answer
asks again and hears it again, word for word. Nothing is built or looked up for that, so it does not
matter what became of template version, role, thing or policies since; it matters whether the answer
is still true: the template is there and enabled, the certificate may be used and is attached to its
thing.

A template with a pre-provisioning hook is worked through twice: the first time ends, before
anything is built, with the question for the hook (operations/hooks.py), which is not asked when
the registration cannot succeed anyhow, nor for a device that asks again.

Source: AWS IoT developer guide, "Device provisioning MQTT API".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from time import monotonic
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
from fleetgate.operations import hooks, kept_answers, provider_signing
from fleetgate.operations.call import Call, Services
from fleetgate.operations.certificates import (
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
from fleetgate.store import certificates, templates
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.provisioning")

MAX_CONFIGURATION = 100_000
"""Bytes of JSON a device configuration may have: the reply has to fit into an MQTT message, whose
payload is 128 KB at most (AWS IoT quotas)."""


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
    provider = call.services.certificate_provider
    if provider is not None:
        signed = await provider_signing.sign(call, provider, request, certificate_signing_request)
        return await _pending(call, signed.facts, signed)
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
    done = await _registered(call, template_name, ownership, parameters or {})
    if done.plan is None:
        log.info(
            "event=registered-before template=%s thing=%s certificate=%s request=%s",
            *(template_name, done.answer["thingName"], ownership.certificate_id, call.request_id),
        )
    else:
        announce(call, done.plan)
        if done.consent is not None:
            hooks.settled(call, done.consent, done.ended)
    return done.answer


@dataclass(frozen=True, slots=True)
class _Done:
    """A registration: the answer, and what was done for it, None when that had been before.

    `consent` is that of the hook it was done with; `ended` are the ids of other certificates that
    have become INACTIVE by it.
    """

    answer: dict[str, Any]
    plan: Plan | None = None
    consent: hooks.Consent | None = None
    ended: Sequence[str] = ()


async def _registered(
    call: Call,
    template_name: str,
    ownership: token.Ownership,
    parameters: Mapping[str, str],
) -> _Done:
    """The registration, once the hook has consented if there is one."""
    consent: hooks.Consent | None = None
    deadline: float | None = None
    while True:
        began = monotonic()
        try:
            done = await call.write(_register, call, template_name, ownership, parameters, consent)
        except hooks.Unsettled as error:
            raise hooks.taken_back(call, error, began) from None
        if isinstance(done, _Done):
            return done
        if deadline is None:
            deadline = monotonic() + call.services.hook_seconds
        consent = await hooks.ask(call, done, parameters, deadline)


def _register(
    tx: Tx,
    call: Call,
    template_name: str,
    ownership: token.Ownership,
    parameters: Mapping[str, str],
    consent: hooks.Consent | None,
) -> _Done | hooks.Question:
    """The whole registration, inside one transaction.

    When the template has a hook that has not consented yet: what is to be asked, and nothing done.
    """
    if consent is not None:
        hooks.require_standing(tx, call, consent)
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
        rendered = partial(resources_of, call, found, certificate_id, parameters)
        return _Done(
            kept_answers.find(tx, call, template_name, found, certificate, parameters, rendered)
        )
    arn = template_arn(call.account, template_name)
    if found.hook is None:
        consent = None
    elif consent is None or not consent.covers(found.hook, found.created_at):
        check_before_hook(tx, call, template_name, found, certificate)
        return hooks.Question(found.hook, template_name, arn, found.created_at, certificate)
    overrides = {} if consent is None else consent.overrides
    resources = resources_of(call, found, certificate_id, parameters, overrides)
    status, planned = build(tx, call, template_name, found, certificate, resources)
    thing_name = resources.thing.name if resources.thing is not None else None
    certificates.update_certificate_registration(tx, certificate_id, template_name, thing_name)
    answer = {
        "deviceConfiguration": dict(resources.device_configuration),
        "thingName": thing_name,
    }
    kept_answers.keep(
        *(tx, certificate_id, template_name, found, parameters, overrides),
        *(resources, status, answer, ownership.expires_at.timestamp()),
    )
    if consent is None:
        return _Done(answer, planned)
    ended = hooks.settle(tx, call, consent, certificate_id, resources)
    return _Done(answer, planned, consent, ended)


def build(
    tx: Tx,
    call: Call,
    template_name: str,
    found: templates.InForce,
    certificate: certificates.Certificate,
    resources: Resources,
) -> tuple[str, Plan]:
    """Makes what the template asks for: the status of the certificate, and what was done.

    Raises what a device is refused with.
    """
    status = _check_use(certificate, template_name, resources)
    size = len(msgspec.json.encode(resources.device_configuration))
    if size > MAX_CONFIGURATION:
        raise InvalidParametersException(
            f"the device configuration has {size} bytes as JSON; the limit is {MAX_CONFIGURATION}"
        )
    planned = plan(tx, call, resources, certificate)
    arn = template_arn(call.account, template_name)
    carry_out(tx, call, planned, allow_by_role(tx, call, found.role_arn, arn))
    return status, planned


def resources_of(
    call: Call,
    found: templates.InForce,
    certificate_id: str,
    parameters: Mapping[str, str],
    overrides: Mapping[str, str],
) -> Resources:
    """What the template makes of the parameters; raises InvalidParametersException.

    `overrides` are those of the hook. They win over what the device sends, and over entries of
    the same name in the device configuration.
    """
    try:
        # what a device sends under the name of a pseudo parameter is not believed
        known = {**parameters, **overrides, domain_template.CERTIFICATE_ID: certificate_id}
        parsed = parsed_template(call, found.body, domain_template.Kind.FLEET)
        resources = domain_template.render(parsed, known)
    except InvalidTemplate as error:
        raise InvalidParametersException(_rule(error)) from None
    if not overrides:
        return resources
    return replace(resources, device_configuration={**resources.device_configuration, **overrides})


def check_before_hook(
    tx: Tx,
    call: Call,
    template_name: str,
    found: templates.InForce,
    certificate: certificates.Certificate,
) -> None:
    """Raises what the registration would raise whatever the hook says: it is not asked then."""
    try:
        parsed = parsed_template(call, found.body, domain_template.Kind.FLEET)
    except InvalidTemplate as error:
        raise InvalidParametersException(_rule(error)) from None
    if parsed.certificate is None:
        raise _without_certificate(template_name)
    if certificate.status not in ("PENDING_ACTIVATION", "ACTIVE", "INACTIVE"):
        raise kept_answers.not_to_be_used(certificate)
    allow_by_role(tx, call, found.role_arn, template_arn(call.account, template_name))


def _check_use(
    certificate: certificates.Certificate, template_name: str, resources: Resources
) -> str:
    """Whether the certificate may be registered; the status it is to have."""
    if resources.certificate is None:
        raise _without_certificate(template_name)
    if certificate.status not in ("PENDING_ACTIVATION", resources.certificate.status):
        # an operator has decided on this certificate since: a device does not overrule that
        raise kept_answers.not_to_be_used(certificate)
    return resources.certificate.status


def _without_certificate(template_name: str) -> ResourceRegistrationFailureException:
    return ResourceRegistrationFailureException(
        f"template `{template_name}` has no AWS::IoT::Certificate resource: "
        "the certificate would never be activated"
    )


async def _pending(
    call: Call, facts: CertificateFacts, signed: provider_signing.Signed | None = None
) -> dict[str, Any]:
    """Stores a new certificate as PENDING_ACTIVATION; the members both Create* answers share.

    `signed` says more of one that a certificate provider has signed.
    """
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
    if signed is None:
        await call.write(certificates.add_certificate, certificate)
    else:
        await provider_signing.register(call, signed, certificate)
    return {
        "certificateId": facts.certificate_id,
        "certificatePem": facts.pem if signed is None else signed.pem,
        "certificateOwnershipToken": sealed,
    }


def _rule(error: InvalidTemplate) -> str:
    """AWS's own words for a reference nothing resolves, else with the place in the template."""
    unresolved = error.rule.startswith(domain_template.UNRESOLVED)
    return error.rule if unresolved else error.message
