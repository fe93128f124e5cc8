"""CA certificates of other authorities, and the registration code that proves they are ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fleetgate.domain import template
from fleetgate.errors import (
    CertificateStateException,
    CertificateValidationException,
    InvalidRequestException,
    InvalidTemplate,
    LimitExceededException,
    RegistrationCodeValidationException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.authorization import require_role
from fleetgate.operations.call import Call
from fleetgate.operations.certificates import PAGE
from fleetgate.operations.registration import parsed_template
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.operations.templates import require_jitp_template
from fleetgate.pki import registration
from fleetgate.store import ca_certificates
from fleetgate.store.ca_certificates import CaCertificate
from fleetgate.store.engine import Tx
from fleetgate.store.tags import remove_tags

_CODE_BYTES = 32
"""Random bytes of a registration code, which has twice as many hex digits (RegistrationCode of
the service model: 64)."""


def ca_certificate_arn(account: Account, certificate_id: str) -> str:
    """The ARN of a CA certificate."""
    return account.arn(f"cacert/{certificate_id}")


async def get_registration_code(call: Call) -> dict[str, Any]:
    """GetRegistrationCode: the same one until it is deleted."""
    code = await call.read(ca_certificates.find_registration_code)
    if code is None:
        fresh = call.services.random_bytes(_CODE_BYTES).hex()

        def change(tx: Tx) -> str | None:
            ca_certificates.add_registration_code(tx, fresh)
            return ca_certificates.find_registration_code(tx)

        code = await call.write(change)
    return {"registrationCode": code}


async def delete_registration_code(call: Call) -> dict[str, Any]:
    """DeleteRegistrationCode: the next GetRegistrationCode makes another one."""

    def change(tx: Tx) -> None:
        if not ca_certificates.remove_registration_code(tx):
            raise ResourceNotFoundException("There is no registration code to delete")

    await call.write(change)
    return {}


async def register_ca_certificate(
    call: Call,
    ca_certificate: str,
    verification_certificate: str | None = None,
    set_as_active: bool = False,
    allow_auto_registration: bool = False,
    registration_config: Mapping[str, str] | None = None,
    tags: Tags | None = None,
    certificate_mode: str = "DEFAULT",
) -> dict[str, Any]:
    """RegisterCACertificate: in DEFAULT mode it takes a certificate that proves one has the key."""
    _check_mode(certificate_mode, verification_certificate)
    checked = checked_tags(call, tags)
    authority = registration.read_authority(ca_certificate)
    if authority.facts.public_key == call.services.authority.private_key.public_key():
        # what it signed is known by its id; a deleted certificate would come back just in time
        raise CertificateValidationException(
            "The CA certificate is for the key of this server's own authority, whose certificates "
            "are registered when they are issued"
        )
    now = datetime.fromtimestamp(call.now, UTC)
    registration.check_current(authority, now)
    said = None
    if verification_certificate is not None:
        said = registration.verified_code(verification_certificate, authority, now)
    facts = authority.facts
    arn = ca_certificate_arn(call.account, facts.certificate_id)
    config = await _checked_config(call, registration_config, arn)
    registered = CaCertificate(
        certificate_id=facts.certificate_id,
        status="ACTIVE" if set_as_active else "INACTIVE",
        auto_registration="ENABLE" if allow_auto_registration else "DISABLE",
        pem=facts.pem,
        subject=authority.subject,
        mode=certificate_mode,
        not_before=facts.not_before.timestamp(),
        not_after=facts.not_after.timestamp(),
        created_at=call.now,
        modified_at=call.now,
        customer_version=1,
        generation_id=call.services.new_id(),
        template_body=config.get("templateBody"),
        template_name=config.get("templateName"),
        role_arn=config.get("roleArn"),
    )

    def change(tx: Tx) -> None:
        if certificate_mode == "DEFAULT":
            _check_code(said, ca_certificates.find_registration_code(tx))
        same = ca_certificates.list_ca_certificates_of_subject(tx, authority.subject)
        if any(each.certificate_id == facts.certificate_id for each in same):
            raise ResourceAlreadyExistsException(
                f"The CA certificate is already registered (id={facts.certificate_id})",
                resourceId=facts.certificate_id,
                resourceArn=arn,
            )
        limit = call.services.limits.ca_certificates_per_subject
        if len(same) >= limit:
            raise LimitExceededException(
                f"Limit reached for number of CA Certificates with same subject ({limit})"
            )
        _require_template(tx, registered.template_name)
        ca_certificates.add_ca_certificate(tx, registered)
        add_tags(tx, call, arn, checked)

    await call.write(change)
    return {"certificateArn": arn, "certificateId": facts.certificate_id}


async def describe_ca_certificate(call: Call, certificate_id: str) -> dict[str, Any]:
    """DescribeCACertificate."""
    found = await call.read(require_ca_certificate, certificate_id)
    return {
        "certificateDescription": {
            **_summary(call.account, found),
            "certificatePem": found.pem,
            "ownedBy": call.account.id,
            "autoRegistrationStatus": found.auto_registration,
            "lastModifiedDate": found.modified_at,
            "customerVersion": found.customer_version,
            "generationId": found.generation_id,
            "validity": {"notBefore": found.not_before, "notAfter": found.not_after},
            "certificateMode": found.mode,
        },
        "registrationConfig": found.registration_config,
    }


async def update_ca_certificate(
    call: Call,
    certificate_id: str,
    new_status: str | None = None,
    new_auto_registration_status: str | None = None,
    registration_config: Mapping[str, str] | None = None,
    remove_auto_registration: bool = False,
) -> dict[str, Any]:
    """UpdateCACertificate: what is left out stays; `remove_auto_registration` removes the config.

    It also turns auto registration off, unless `new_auto_registration_status` says otherwise.
    """
    if remove_auto_registration and registration_config is not None:
        raise InvalidRequestException(
            "removeAutoRegistration and registrationConfig cannot be given together"
        )
    config: Mapping[str, str] = {}
    if registration_config is not None:
        await call.read(require_ca_certificate, certificate_id)
        arn = ca_certificate_arn(call.account, certificate_id)
        config = await _checked_config(call, registration_config, arn)

    def change(tx: Tx) -> None:
        found = require_ca_certificate(tx, certificate_id)
        if registration_config is not None or remove_auto_registration:
            found = replace(
                found,
                template_body=config.get("templateBody"),
                template_name=config.get("templateName"),
                role_arn=config.get("roleArn"),
            )
            _require_template(tx, found.template_name)
        kept = "DISABLE" if remove_auto_registration else found.auto_registration
        found = replace(
            found,
            status=new_status or found.status,
            auto_registration=new_auto_registration_status or kept,
            modified_at=call.now,
            customer_version=found.customer_version + 1,
        )
        ca_certificates.update_ca_certificate(tx, found)

    await call.write(change)
    return {}


async def delete_ca_certificate(call: Call, certificate_id: str) -> dict[str, Any]:
    """DeleteCACertificate: one that is INACTIVE; certificates registered under it stay."""

    def change(tx: Tx) -> None:
        if require_ca_certificate(tx, certificate_id).status == "ACTIVE":
            raise CertificateStateException(
                "Certificate must be deactivated (not ACTIVE) before deletion. "
                f"(certificateId={certificate_id})"
            )
        ca_certificates.remove_ca_certificate(tx, certificate_id)
        remove_tags(tx, ca_certificate_arn(call.account, certificate_id))

    await call.write(change)
    return {}


async def list_ca_certificates(
    call: Call,
    page_size: int = PAGE,
    marker: str | None = None,
    ascending_order: bool = False,
    template_name: str | None = None,
) -> dict[str, Any]:
    """ListCACertificates: by age, newest first unless `ascending_order`."""
    after = pages.start(call, "ListCACertificates", marker)
    found = await call.read(
        ca_certificates.list_ca_certificates,
        template_name,
        None if after is None else (float(after[0]), str(after[1])),
        page_size + 1,
        ascending=ascending_order,
    )
    items, following = pages.page(
        call,
        "ListCACertificates",
        found,
        page_size,
        lambda item: (item.created_at, item.certificate_id),
    )
    return {
        "certificates": [_summary(call.account, item) for item in items],
        "nextMarker": following,
    }


def require_ca_certificate(tx: Tx, certificate_id: str) -> CaCertificate:
    """The CA certificate; raises ResourceNotFoundException when there is none of this id."""
    found = ca_certificates.find_ca_certificate(tx, certificate_id)
    if found is None:
        raise ResourceNotFoundException(f"The CA certificate does not exist (id={certificate_id})")
    return found


def _check_mode(mode: str, verification_certificate: str | None) -> None:
    """Source: AWS IoT API Reference, RegisterCACertificate."""
    if mode == "DEFAULT" and verification_certificate is None:
        raise InvalidRequestException(
            "verificationCertificate must not be empty when certificateMode is DEFAULT or left out"
        )
    if mode == "SNI_ONLY" and verification_certificate is not None:
        raise InvalidRequestException(
            "verificationCertificate must be empty when certificateMode is SNI_ONLY"
        )


def _check_code(said: str | None, code: str | None) -> None:
    if code is None:
        raise RegistrationCodeValidationException(
            "The account has no registration code; GetRegistrationCode makes one"
        )
    if said != code:
        raise RegistrationCodeValidationException(
            "The common name of the verification certificate has to be the registration code of "
            f"the account, `{code}`, not `{(said or '')[:64]}`"
        )


async def _checked_config(
    call: Call, config: Mapping[str, str] | None, arn: str
) -> Mapping[str, str]:
    """A registration configuration that can be used; None is an empty one.

    A body needs a role; a template of that name brings its own, and a role beside it is checked
    and kept all the same, but not used. Source: AWS IoT Core Developer Guide, "Just-in-time
    provisioning".
    """
    if config is None:
        return {}
    body, role_arn = config.get("templateBody"), config.get("roleArn")
    if (body is None) == (config.get("templateName") is None):
        raise InvalidRequestException(
            "registrationConfig needs either templateBody or templateName, not both"
        )
    if body is not None:
        if role_arn is None:
            raise InvalidRequestException("registrationConfig with templateBody needs roleArn")
        try:
            parsed_template(call, body, template.Kind.JITP)
        except InvalidTemplate as error:
            raise InvalidRequestException(template.registration_message(error)) from None
    if role_arn is not None:
        await require_role(call, role_arn, source_arn=arn)
    return config


def _require_template(tx: Tx, template_name: str | None) -> None:
    if template_name is not None:
        require_jitp_template(tx, template_name)


def _summary(account: Account, found: CaCertificate) -> dict[str, Any]:
    return {
        "certificateArn": ca_certificate_arn(account, found.certificate_id),
        "certificateId": found.certificate_id,
        "status": found.status,
        "creationDate": found.created_at,
    }
