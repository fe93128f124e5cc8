"""What a certificate provider answers: a certificate for a signing request, its chain behind it.

Every rule is a function of the answer, the request and the moment; what is registered already,
only the registry knows. Who signed the certificate does not matter: devices are trusted by
registry, and the authority of a provider need not be registered.

Sources: AWS IoT Core Developer Guide, "Self-managed certificate signing using AWS IoT Core
certificate provider" (same subject name and public key) and "X.509 client certificates"
(signing algorithms, keys); RFC 5280; RFC 7468; RFC 8446 section 4.4.2 (order of a chain).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import PublicKeyAlgorithmOID

from fleetgate.errors import CertificateValidationException
from fleetgate.pki import pem, registration
from fleetgate.pki.csr import SigningRequest
from fleetgate.pki.registration import ForeignCertificate

MAX_CHARACTERS = 65536
"""Of the answer. Source: iot service model, shape ``CertificatePem``."""

MAX_CHAIN = 9
"""Certificates behind the device's own: ten in all are looked at when a device connects."""

# the key of a request is never one for RSASSA-PSS alone (`csr`), so the certificate's is not either
_KEY_ALGORITHMS = (PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5, PublicKeyAlgorithmOID.EC_PUBLIC_KEY)


@dataclass(frozen=True, slots=True)
class ProviderCertificate:
    """The certificate for the device, and the certificates of authorities that follow it."""

    leaf: ForeignCertificate
    chain: tuple[ForeignCertificate, ...]


def read(text: str, request: SigningRequest, now: datetime) -> ProviderCertificate:
    """The certificate in the PEM `text`, which is one for `request` and valid at `now` (aware).

    Raises CertificateValidationException naming the rule that is broken and the value.
    """
    if len(text) > MAX_CHARACTERS:
        raise _refused(f"it has {len(text)} characters; the limit is {MAX_CHARACTERS}")
    try:
        first, *others = pem.decode_all(text, "CERTIFICATE", "X509 CERTIFICATE")
    except ValueError as error:
        raise _refused(str(error)) from None
    if len(others) > MAX_CHAIN:
        raise _refused(
            f"{len(others)} certificates follow the device's own; the limit is {MAX_CHAIN}"
        )
    leaf = registration.read(first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `trust.inspect` has refused what is to be refused
        _check_request(leaf, request)
        _check_profile(leaf)
    _check_validity(leaf, now)
    return ProviderCertificate(leaf, _chain(leaf, others))


def _check_request(leaf: ForeignCertificate, request: SigningRequest) -> None:
    """Key and subject are those of the request, whatever string types a CA writes names in."""
    found = leaf.certificate
    spki = leaf.facts.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if spki != request.spki_der or found.public_key_algorithm_oid not in _KEY_ALGORITHMS:
        raise _refused(
            "its public key is not the one of the signing request (of several certificates the "
            "device's own comes first)"
        )
    if found.subject != request.subject:
        raise _refused(
            f"its subject is {_shown(found.subject)}, that of the signing request is "
            f"{_shown(request.subject)}"
        )


def _check_profile(leaf: ForeignCertificate) -> None:
    """A device's certificate: version 3, and not an authority's."""
    found = leaf.certificate
    if found.version is not x509.Version.v3:
        raise _refused(f"it is of version {found.version.value + 1}, not 3")
    try:
        authority = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise _refused(f"its extensions cannot be read: {error}") from None
    if authority:
        raise _refused("it is the certificate of an authority: basicConstraints has CA:TRUE")


def _check_validity(leaf: ForeignCertificate, now: datetime) -> None:
    facts = leaf.facts
    if now < facts.not_before:
        raise _refused(f"it is not valid before {_moment(facts.not_before)}, now is {_moment(now)}")
    if now >= facts.not_after:
        raise _refused(f"it expired at {_moment(facts.not_after)}, now is {_moment(now)}")


def _chain(leaf: ForeignCertificate, others: list[bytes]) -> tuple[ForeignCertificate, ...]:
    """The certificates behind the leaf, each of which has issued the one before it."""
    chain: list[ForeignCertificate] = []
    last = leaf
    for number, der in enumerate(others, 2):
        try:
            authority = registration.read_authority(der)
            registration.check_signed(last, authority)
        except CertificateValidationException as error:
            raise _refused(f"its certificate number {number}: {error.message}") from None
        chain.append(authority)
        last = authority
    return tuple(chain)


def _refused(rule: str) -> CertificateValidationException:
    return CertificateValidationException(f"the certificate cannot be used: {rule}")


def _shown(name: x509.Name) -> str:
    return f"`{name.rfc4514_string()[:300]}`"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
