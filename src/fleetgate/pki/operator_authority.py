"""An operator's own authority: a certificate they made, and a key that may be anywhere.

The key only has to be able to sign: it is in a file, or an object that asks a token to sign and
has never seen the key itself (`cryptography` signs with any implementation of its interfaces).

Source of the rules: RFC 5280 section 4.2.1.9 (``cA`` asserted where the key verifies signatures on
certificates), 4.2.1.3 (``keyCertSign``), 4.1.2.5 (validity), 4.2.1.1 (authority key identifier).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from fleetgate.pki import strength
from fleetgate.pki.strength import PublicKey

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_PROOF = b"fleetgate: does this key belong to the certificate?"


@dataclass(frozen=True, slots=True)
class OperatorAuthority:
    """A CA certificate and its key; `check` says whether the two may be used together.

    ``chain`` are the certificates above it, nearest first; ``not_before`` and ``not_after`` are in
    UTC; ``key_identifier`` is the extension by which the certificates it signs name it.
    """

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()
    key_identifier: x509.AuthorityKeyIdentifier = field(init=False, repr=False)
    not_before: datetime = field(init=False)
    not_after: datetime = field(init=False)

    def __post_init__(self) -> None:
        # A frozen dataclass sets what it derives from its fields in this way.
        object.__setattr__(self, "key_identifier", _key_identifier(self.certificate))
        object.__setattr__(self, "not_before", self.certificate.not_valid_before_utc)
        object.__setattr__(self, "not_after", self.certificate.not_valid_after_utc)


def signing_hash(key: PublicKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    """The hash that goes with a key: as strong as its curve, SHA-256 with RSA.

    Source: FIPS 186-5 section 6.1.1 and NIST SP 800-57 part 1, table 3.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.key_size > 384:
            return hashes.SHA512()
        if key.curve.key_size > 256:
            return hashes.SHA384()
    return hashes.SHA256()


def read_certificates(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file: an authority's, then those above it, nearest first.

    Raises ValueError when there is none, or one did not sign the certificate before it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it may refuse some day; `check` decides today
        found = tuple(x509.load_pem_x509_certificates(pem))
    for below, above in pairwise(found):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise ValueError(
                "a certificate has to be followed by that of the authority that signed it, but "
                f"`{_named(below)}` is followed by `{_named(above)}`"
            ) from None
    return found


def check(certificate: x509.Certificate, *, now: datetime) -> PublicKey:
    """The key of a certificate that may sign others at `now` (aware).

    Raises ValueError naming the rule and the value.
    """
    try:
        key = strength.check_key(certificate.public_key())
        find = certificate.extensions.get_extension_for_class
        constraints = find(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise ValueError("it has no basic constraints; an authority's says CA:TRUE") from None
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not constraints.ca:
        raise ValueError("its basic constraints say CA:FALSE; an authority's say CA:TRUE")
    try:
        usage = find(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise ValueError("it has no key usage; an authority's names keyCertSign") from None
    if not usage.key_cert_sign:
        raise ValueError("its key usage does not name keyCertSign")
    if now < certificate.not_valid_before_utc:
        raise ValueError(f"it is not valid before {_moment(certificate.not_valid_before_utc)}")
    if now >= certificate.not_valid_after_utc:
        raise ValueError(f"it ended at {_moment(certificate.not_valid_after_utc)}")
    return key


def check_key(key: PrivateKey, public_key: PublicKey) -> None:
    """Lets the key sign, since one on a token cannot be looked at. Raises ValueError when what it
    signed is not of `public_key`."""
    algorithm = signing_hash(public_key)
    try:
        if isinstance(public_key, rsa.RSAPublicKey) and isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(_PROOF, padding.PKCS1v15(), algorithm)
            public_key.verify(signature, _PROOF, padding.PKCS1v15(), algorithm)
            return
        if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(
            key, ec.EllipticCurvePrivateKey
        ):
            signature = key.sign(_PROOF, ec.ECDSA(algorithm))
            public_key.verify(signature, _PROOF, ec.ECDSA(algorithm))
            return
    except InvalidSignature:
        pass
    raise ValueError("the key is not the one of the certificate")


def _key_identifier(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The certificate's own identifier where it has one; RFC 5280 wants the two to be equal."""
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = strength.check_key(certificate.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def names(certificates: Sequence[x509.Certificate]) -> str:
    """Subjects for operators to read."""
    return ", ".join(_named(each) for each in certificates)


def _named(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:100]


def _moment(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
