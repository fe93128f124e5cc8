"""Device certificates, as the HTTP API handles them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import Name

from fleetgate.errors import (
    CertificateStateException,
    DeleteConflictException,
    InvalidCsr,
    InvalidRequestException,
    ResourceNotFoundException,
)
from fleetgate.names import Account
from fleetgate.operations import pages, public_keys
from fleetgate.operations.call import Call
from fleetgate.pki import csr, issue, keys, trust
from fleetgate.pki.issue import Profile
from fleetgate.pki.strength import PublicKey
from fleetgate.store import certificates, policies, things
from fleetgate.store.engine import Tx

SETTABLE = ("ACTIVE", "INACTIVE", "REVOKED")
"""The statuses UpdateCertificate may set (AWS IoT API reference, UpdateCertificate)."""

PENDING_TRANSFER = "PENDING_TRANSFER"
"""The status of a certificate that is being transferred to another account."""

PAGE = 25
"""Certificates of a page when the caller names no size (AWS IoT API Reference,
ListCertificates and ListCACertificates)."""


def certificate_arn(account: Account, certificate_id: str) -> str:
    """The ARN of a certificate."""
    return account.arn(f"cert/{certificate_id}")


async def create_keys_and_certificate(call: Call, set_as_active: bool = False) -> dict[str, Any]:
    """CreateKeysAndCertificate: an RSA-2048 key pair and its certificate."""
    pair = await call.services.rsa_keys.take()
    public_key = load_public_key(pair.public_der)
    facts = issue_certificate(call, call.services.device_profile, public_key)
    await call.write(_add, registered(call, facts, "ACTIVE" if set_as_active else "INACTIVE"))
    return {
        **_issued(call, facts),
        "keyPair": {"PublicKey": keys.public_pem(public_key), "PrivateKey": pair.private_pem},
    }


async def create_certificate_from_csr(
    call: Call, certificate_signing_request: str, set_as_active: bool = False
) -> dict[str, Any]:
    """CreateCertificateFromCsr: a certificate for the key and subject of the request."""
    try:
        request = parse_csr(call, certificate_signing_request)
    except InvalidCsr as error:
        raise InvalidRequestException(error.message) from None
    facts = issue_certificate(
        call, call.services.device_profile, request.public_key, request.subject
    )
    await call.write(_add, registered(call, facts, "ACTIVE" if set_as_active else "INACTIVE"))
    return _issued(call, facts)


async def describe_certificate(call: Call, certificate_id: str) -> dict[str, Any]:
    """DescribeCertificate."""

    def find(tx: Tx) -> tuple[certificates.Certificate, certificates.Transfer | None]:
        certificate = require_certificate(tx, certificate_id)
        pending = certificate.status == PENDING_TRANSFER
        return certificate, certificates.find_transfer(tx, certificate_id) if pending else None

    certificate, transfer = await call.read(find)
    transfer_data: dict[str, Any] = {}  # AWS answers an empty one for an ordinary certificate
    if transfer is not None:
        transfer_data["transferDate"] = transfer.transferred_at
        transfer_data["transferMessage"] = transfer.message
    return {
        "certificateDescription": {
            **_summary(call.account, certificate),
            "caCertificateId": certificate.ca_certificate_id,
            "certificatePem": certificate.pem,
            "ownedBy": call.account.id,
            "lastModifiedDate": certificate.modified_at,
            "customerVersion": certificate.customer_version,
            "transferData": transfer_data,
            "generationId": certificate.generation_id,
            "validity": {"notBefore": certificate.not_before, "notAfter": certificate.not_after},
        }
    }


async def update_certificate(call: Call, certificate_id: str, new_status: str) -> dict[str, Any]:
    """UpdateCertificate: ACTIVE, INACTIVE or REVOKED; connections that lose the right end."""
    if new_status not in SETTABLE:
        raise InvalidRequestException(
            f"newStatus `{new_status}` cannot be set; allowed are {', '.join(SETTABLE)}"
        )

    def change(tx: Tx) -> None:
        _refuse_transferred(require_certificate(tx, certificate_id), "updated")
        certificates.update_certificate_status(tx, certificate_id, new_status, call.now)

    await call.write(change)
    if new_status != "ACTIVE":
        call.services.certificate_changed(certificate_id)
    return {}


async def delete_certificate(
    call: Call, certificate_id: str, force_delete: bool = False
) -> dict[str, Any]:
    """DeleteCertificate: one that is not ACTIVE and has no thing and no policy attached.

    `force_delete` detaches policies by itself; it deletes neither an ACTIVE certificate nor one
    that is attached to a thing (AWS IoT API reference, DeleteCertificate).
    """
    arn = certificate_arn(call.account, certificate_id)

    def change(tx: Tx) -> None:
        certificate = require_certificate(tx, certificate_id)
        if certificate.status == "ACTIVE":
            raise CertificateStateException(
                "Certificate must be deactivated (not ACTIVE) before deletion. "
                f"(certificateId={certificate_id})"
            )
        _refuse_transferred(certificate, "deleted")
        if things.list_principal_things(tx, arn, "", 1):
            raise DeleteConflictException(f"Things must be detached before deletion (arn: {arn})")
        if not force_delete and policies.list_attached_policies(tx, arn, "", 1):
            raise DeleteConflictException(
                f"Certificate policies must be detached before deletion (arn: {arn})"
            )
        policies.remove_policy_attachments(tx, arn)
        public_keys.remember(tx, certificate, call.now)
        certificates.remove_certificate(tx, certificate_id)

    await call.write(change)
    call.services.certificate_changed(certificate_id)
    return {}


async def list_certificates(
    call: Call,
    page_size: int = PAGE,
    marker: str | None = None,
    ascending_order: bool = False,
) -> dict[str, Any]:
    """ListCertificates: by age, newest first unless `ascending_order`."""
    found = await call.read(
        certificates.list_certificates,
        _after(call, "ListCertificates", marker),
        page_size + 1,
        ascending=ascending_order,
    )
    return _page(call, "ListCertificates", found, page_size)


async def list_certificates_by_ca(
    call: Call,
    ca_certificate_id: str,
    page_size: int = pages.PAGE,
    marker: str | None = None,
    ascending_order: bool = False,
) -> dict[str, Any]:
    """ListCertificatesByCA: those registered under a CA certificate, which may be gone."""
    found = await call.read(
        certificates.list_certificates_of_ca,
        ca_certificate_id,
        _after(call, "ListCertificatesByCA", marker),
        page_size + 1,
        ascending=ascending_order,
    )
    return _page(call, "ListCertificatesByCA", found, page_size)


def require_certificate(tx: Tx, certificate_id: str) -> certificates.Certificate:
    """The certificate; raises ResourceNotFoundException when there is none of this id."""
    certificate = certificates.find_certificate(tx, certificate_id)
    if certificate is None:
        raise ResourceNotFoundException(f"The certificate does not exist (id={certificate_id})")
    return certificate


def load_public_key(der: bytes) -> PublicKey:
    """The public key of an RSA key pair made by this server."""
    key = load_der_public_key(der)
    if not isinstance(key, PublicKey):
        raise TypeError(f"a public key of type {type(key).__name__}")
    return key


def parse_csr(call: Call, text: str) -> csr.SigningRequest:
    """The signing request; raises InvalidCsr.

    One whose common name is a name of this server is refused: the certificate, signed by the
    authority that devices trust, would pass for the server's with clients that look at the
    common name.
    """
    request = csr.parse(text)
    host_name = csr.claimed_host(request.subject, call.services.host_names)
    if host_name is not None:
        raise InvalidCsr(
            f"the common name of the subject could be taken for the server's name `{host_name}`"
        )
    return request


def issue_certificate(
    call: Call, profile: Profile, public_key: PublicKey, subject: Name | None = None
) -> trust.CertificateFacts:
    """Issues a certificate of the server's authority; nothing is stored yet."""
    services = call.services
    der = issue.issue(
        profile,
        services.authority,
        public_key,
        subject,
        now=datetime.fromtimestamp(call.now, UTC),
        serial=services.new_serial(),
    )
    return trust.inspect(der)


def registered(
    call: Call,
    facts: trust.CertificateFacts,
    status: str,
    *,
    mode: str = "DEFAULT",
    pending_until: float | None = None,
    ca_certificate_id: str | None = None,
) -> certificates.Certificate:
    """The registry's entry for a certificate."""
    return certificates.Certificate(
        certificate_id=facts.certificate_id,
        status=status,
        pem=facts.pem,
        mode=mode,
        not_before=facts.not_before.timestamp(),
        not_after=facts.not_after.timestamp(),
        created_at=call.now,
        modified_at=call.now,
        customer_version=1,
        generation_id=call.services.new_id(),
        pending_until=pending_until,
        ca_certificate_id=ca_certificate_id,
        public_key=keys.key_id(facts.public_key),
    )


def _add(tx: Tx, certificate: certificates.Certificate) -> None:
    if not certificates.add_certificate(tx, certificate):
        raise AssertionError(f"two certificates with the id {certificate.certificate_id}")


def _refuse_transferred(certificate: certificates.Certificate, done: str) -> None:
    if certificate.status == PENDING_TRANSFER:
        raise CertificateStateException(
            f"A certificate that is being transferred cannot be {done}; cancel the transfer first "
            f"(certificateId={certificate.certificate_id})"
        )


def _after(call: Call, operation: str, marker: str | None) -> tuple[float, str] | None:
    position = pages.start(call, operation, marker)
    return None if position is None else (float(position[0]), str(position[1]))


def _page(
    call: Call, operation: str, found: list[certificates.Certificate], page_size: int
) -> dict[str, Any]:
    items, following = pages.page(
        call, operation, found, page_size, lambda item: (item.created_at, item.certificate_id)
    )
    return {
        "certificates": [_summary(call.account, item) for item in items],
        "nextMarker": following,
    }


def _issued(call: Call, facts: trust.CertificateFacts) -> dict[str, Any]:
    return {
        "certificateArn": certificate_arn(call.account, facts.certificate_id),
        "certificateId": facts.certificate_id,
        "certificatePem": facts.pem,
    }


def _summary(account: Account, certificate: certificates.Certificate) -> dict[str, Any]:
    return {
        "certificateArn": certificate_arn(account, certificate.certificate_id),
        "certificateId": certificate.certificate_id,
        "status": certificate.status,
        "certificateMode": certificate.mode,
        "creationDate": certificate.created_at,
    }
