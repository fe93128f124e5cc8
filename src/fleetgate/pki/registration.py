"""Certificates of other authorities: what has to hold before the registry takes them in.

Everything here is a function of the certificates alone: which of them are registered, and what
the registration code is, only the registry knows.

Sources: AWS IoT Core Developer Guide, "Register your CA certificate", "Create a CA certificate"
and "Register a client certificate"; AWS IoT API Reference, RegisterCACertificate and
RegisterCertificate; RFC 5280.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from fleetgate.errors import CertificateValidationException
from fleetgate.pki import trust
from fleetgate.pki.trust import CertificateFacts


@dataclass(frozen=True, slots=True)
class ForeignCertificate:
    """A certificate that somebody else signed.

    `subject` and `issuer` tell names apart: the SHA-256 of a Name's DER form as 64 hex digits.
    Names are compared as bytes (RFC 5280 section 7.1 allows it, and authorities copy their
    subject into what they sign byte by byte). `content` does the same for what is signed: who has
    a certificate can write down an ECDSA signature in two ways (r, s and r, n - s), which makes two
    ids of one certificate.
    """

    facts: CertificateFacts
    subject: str
    issuer: str
    content: str
    certificate: x509.Certificate = field(repr=False)


def read(text: str | bytes) -> ForeignCertificate:
    """The certificate in the PEM `text`, or in DER bytes.

    Raises CertificateValidationException as `trust.inspect` does.
    """
    facts = trust.inspect(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        certificate = x509.load_der_x509_certificate(facts.der)
        try:
            subject, issuer = _key(certificate.subject), _key(certificate.issuer)
        except ValueError as error:
            raise CertificateValidationException(f"invalid certificate: {error}") from error
    content = hashlib.sha256(certificate.tbs_certificate_bytes).hexdigest()
    return ForeignCertificate(facts, subject, issuer, content, certificate)


def read_authority(text: str | bytes) -> ForeignCertificate:
    """The same for the certificate of an authority, be it a root's or an intermediate one's.

    Raises CertificateValidationException also when its basic constraints do not say that it is
    one, or when it names itself as its issuer and did not sign itself.
    """
    found = read(text)
    if not _is_authority(found.certificate):
        raise CertificateValidationException(
            "The CA certificate does not have the basicConstraints extension as true"
        )
    if found.subject == found.issuer:
        check_signed(found, found)
    return found


def check_current(certificate: ForeignCertificate, now: datetime) -> None:
    """Raises CertificateValidationException when the certificate has expired at `now`.

    One that is not valid yet may be registered ahead of its time.
    """
    not_after = certificate.facts.not_after
    if now >= not_after:
        raise CertificateValidationException(
            f"The certificate expired at {not_after:%Y-%m-%dT%H:%M:%SZ} "
            f"(id={certificate.facts.certificate_id})"
        )


def check_signed(certificate: ForeignCertificate, authority: ForeignCertificate) -> None:
    """Raises CertificateValidationException unless `authority` issued and signed `certificate`."""
    if certificate.issuer != authority.subject:
        raise CertificateValidationException(
            "The certificate is not signed by the CA certificate: its issuer is "
            f"`{certificate.certificate.issuer.rfc4514_string()}`, the subject of the CA is "
            f"`{authority.certificate.subject.rfc4514_string()}`"
        )
    try:
        certificate.certificate.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateValidationException(
            "The certificate is not signed by the CA certificate: its signature does not match "
            f"the key of the CA (id={authority.facts.certificate_id})"
        ) from None


def verified_code(text: str, authority: ForeignCertificate, now: datetime) -> str | None:
    """What a private key verification certificate says: its common name, None without one.

    It proves that whoever registers the authority holds its key: only that key can have signed
    a registration code. Raises CertificateValidationException when it cannot be read, has
    expired or is not signed by `authority`.
    Source: AWS IoT Core Developer Guide, "Register a CA certificate in DEFAULT mode".
    """
    verification = read(text)
    check_current(verification, now)
    check_signed(verification, authority)
    names = verification.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[-1].value) if names else None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CertificateValidationException(
            f"invalid certificate: its extensions cannot be read: {error}"
        ) from error


def _key(name: x509.Name) -> str:
    return hashlib.sha256(name.public_bytes()).hexdigest()
