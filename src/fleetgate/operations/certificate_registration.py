"""Certificates that others signed: registered under a registered CA certificate, or without one.

A registration has two parts, so that nothing slow happens in a transaction: `prepare` reads the
certificate and verifies its signature, `add` stores it after asking once more what may have
changed meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fleetgate.errors import (
    CertificateConflictException,
    CertificateStateException,
    CertificateValidationException,
    InvalidRequestException,
    ResourceAlreadyExistsException,
)
from fleetgate.operations.call import Call
from fleetgate.operations.certificates import SETTABLE, certificate_arn, registered
from fleetgate.pki import registration
from fleetgate.pki.registration import ForeignCertificate
from fleetgate.pki.trust import CertificateFacts
from fleetgate.store import ca_certificates, certificates
from fleetgate.store.ca_certificates import CaCertificate
from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class Registration:
    """A certificate that may be registered: verified, and not registered when it was looked at.

    `content` is that of the ForeignCertificate. `ca_certificate_id` is the id of the CA certificate
    it was verified against, None when it is registered without one.
    """

    facts: CertificateFacts
    content: str
    mode: str
    ca_certificate_id: str | None = None


async def register_certificate(
    call: Call,
    certificate_pem: str,
    ca_certificate_pem: str | None = None,
    set_as_active: bool = False,
    status: str | None = None,
) -> dict[str, Any]:
    """RegisterCertificate: one that a registered, active CA certificate signed."""
    check_status(status)
    if set_as_active and status not in (None, "ACTIVE"):
        raise InvalidRequestException(
            f"setAsActive (deprecated) and status `{status}` contradict each other"
        )
    prepared = await prepare(call, certificate_pem, ca_certificate_pem)
    chosen = "ACTIVE" if set_as_active else status or "INACTIVE"
    await call.write(add, call, prepared, chosen)
    return _answer(call, prepared)


async def register_certificate_without_ca(
    call: Call, certificate_pem: str, status: str = "INACTIVE"
) -> dict[str, Any]:
    """RegisterCertificateWithoutCA: a certificate of any issuer, trusted by its id."""
    check_status(status)
    foreign = registration.read(certificate_pem)
    registration.check_current(foreign, _moment(call))
    prepared = Registration(foreign.facts, foreign.content, "SNI_ONLY")
    await call.write(add, call, prepared, status)
    return _answer(call, prepared)


def check_status(status: str | None) -> None:
    """Raises InvalidRequestException unless a certificate may be registered with `status`.

    Source: AWS IoT API Reference, RegisterCertificate.
    """
    if status is not None and status not in SETTABLE:
        raise InvalidRequestException(
            f"a certificate cannot be registered with status `{status}`; "
            f"allowed are {', '.join(SETTABLE)}"
        )


async def prepare(
    call: Call, certificate_pem: str, ca_certificate_pem: str | None = None
) -> Registration:
    """Verifies a certificate against the registered CA certificate that signed it.

    Without `ca_certificate_pem` it is the one with the name of the issuer. Raises
    CertificateValidationException when a certificate cannot be read or used, has expired or is
    not signed by the CA; ResourceAlreadyExistsException when it is registered;
    CertificateStateException when the CA is not registered or not ACTIVE;
    CertificateConflictException when several have the name of the issuer.
    """
    foreign = registration.read(certificate_pem)
    given = None if ca_certificate_pem is None else registration.read(ca_certificate_pem)
    registration.check_current(foreign, _moment(call))
    ca_certificate = await call.read(_signer, call, foreign, given)
    registration.check_signed(foreign, given or registration.read(ca_certificate.pem))
    return Registration(
        foreign.facts, foreign.content, ca_certificate.mode, ca_certificate.certificate_id
    )


def add(
    tx: Tx,
    call: Call,
    prepared: Registration,
    status: str,
    provisioning_state: str | None = None,
) -> certificates.Certificate:
    """Stores a prepared certificate, and returns what was stored.

    Raises ResourceAlreadyExistsException when it is registered by now,
    CertificateStateException when its CA certificate is gone or not ACTIVE any more, and
    CertificateValidationException when it is a temporary provisioning claim, also one whose
    template was deleted: that is for one template and nothing else, whatever it could be attached
    to. One that has ended is refused like all that have expired.
    """
    if certificates.find_provisioning_claim(tx, prepared.facts.certificate_id) is not None:
        raise CertificateValidationException(
            "the certificate is a temporary provisioning claim, which cannot be registered "
            f"(id={prepared.facts.certificate_id})"
        )
    if prepared.ca_certificate_id is not None:
        _require_active(ca_certificates.find_ca_certificate(tx, prepared.ca_certificate_id))
    certificate = replace(
        registered(
            call,
            prepared.facts,
            status,
            mode=prepared.mode,
            ca_certificate_id=prepared.ca_certificate_id,
        ),
        provisioning_state=provisioning_state,
        content=prepared.content,
    )
    if not certificates.add_certificate(tx, certificate):
        certificate_id = certificate.certificate_id
        found = certificates.find_registered(tx, certificate_id, prepared.content)
        raise _already(call, found or certificate_id)
    return certificate


def _signer(
    tx: Tx, call: Call, foreign: ForeignCertificate, given: ForeignCertificate | None
) -> CaCertificate:
    found_id = certificates.find_registered(tx, foreign.facts.certificate_id, foreign.content)
    if found_id is not None:
        raise _already(call, found_id)
    if given is not None:
        return _require_active(ca_certificates.find_ca_certificate(tx, given.facts.certificate_id))
    found = ca_certificates.list_ca_certificates_of_subject(tx, foreign.issuer)
    if len(found) > 1:
        raise CertificateConflictException(
            f"{len(found)} CA certificates have the issuer of the certificate as their subject: "
            f"caCertificatePem has to say which one (ids={', '.join(_ids(found))})"
        )
    return _require_active(found[0] if found else None)


def _require_active(ca_certificate: CaCertificate | None) -> CaCertificate:
    if ca_certificate is None:
        raise CertificateStateException("No CA certificate exists for the given certificate")
    if ca_certificate.status != "ACTIVE":
        raise CertificateStateException(
            f"The CA certificate is {ca_certificate.status}, not ACTIVE "
            f"(id={ca_certificate.certificate_id})"
        )
    return ca_certificate


def _ids(found: list[CaCertificate]) -> list[str]:
    return [each.certificate_id for each in found]


def _already(call: Call, certificate_id: str) -> ResourceAlreadyExistsException:
    return ResourceAlreadyExistsException(
        "The certificate is already provisioned or registered",
        resourceId=certificate_id,
        resourceArn=certificate_arn(call.account, certificate_id),
    )


def _answer(call: Call, prepared: Registration) -> dict[str, Any]:
    certificate_id = prepared.facts.certificate_id
    return {
        "certificateArn": certificate_arn(call.account, certificate_id),
        "certificateId": certificate_id,
    }


def _moment(call: Call) -> datetime:
    return datetime.fromtimestamp(call.now, UTC)
