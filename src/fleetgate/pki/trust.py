"""The authority that signs certificates, and the facts read from certificates of others."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from fleetgate.errors import CertificateValidationException, Error
from fleetgate.names import certificate_id
from fleetgate.pki import pem, strength
from fleetgate.pki.strength import PublicKey

END_OF_TIME = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The notAfter of AWS IoT's certificates: the last moment a UTCTime can express."""

ISSUER = "Fleetgate device provisioning CA"
"""The default text of the authority's name."""

_MAX_ISSUER_CHARACTERS = 200
_BACKDATE = timedelta(days=1)  # for devices whose clock is late
_MAX_PEM_CHARACTERS = 65536  # iot service model, shape `CertificatePem`
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: an RSA key and the self-signed certificate for it.

    Making one raises Error unless the certificate is an authority's and belongs to the key.
    ``key_identifier`` is the extension by which the certificates it signs name it.
    """

    certificate: x509.Certificate
    private_key: rsa.RSAPrivateKey = field(repr=False)
    key_identifier: x509.AuthorityKeyIdentifier = field(init=False, repr=False)
    not_after: datetime = field(init=False)

    def __post_init__(self) -> None:
        try:
            strength.check_key(self.certificate.public_key())
            find = self.certificate.extensions.get_extension_for_class
            is_authority = (
                find(x509.BasicConstraints).value.ca and find(x509.KeyUsage).value.key_cert_sign
            )
            identifier = find(x509.SubjectKeyIdentifier).value
        except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
            raise Error(f"the certificate of the authority cannot be used: {error}") from error
        if not is_authority:
            raise Error("the certificate of the authority may not sign certificates")
        if self.certificate.public_key() != self.private_key.public_key():
            raise Error("the certificate of the authority is for another key than the one given")
        # A frozen dataclass sets what it derives from its fields in this way.
        derive = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier
        object.__setattr__(self, "key_identifier", derive(identifier))
        object.__setattr__(self, "not_after", self.certificate.not_valid_after_utc)

    @classmethod
    def create(
        cls, private_key: rsa.RSAPrivateKey, *, now: datetime, serial: int, issuer: str = ISSUER
    ) -> Authority:
        """A new authority, valid until the end of 2049, named by one ``OU`` of text `issuer`.

        `serial` is a random number from 1 to 2**159 - 1. Raises Error when `issuer` is empty or
        too long.
        """
        if not 0 < len(issuer) <= _MAX_ISSUER_CHARACTERS:
            raise Error(
                f"the name of the authority has 1 to {_MAX_ISSUER_CHARACTERS} characters, "
                f"not {len(issuer)}"
            )
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, issuer)])
        public_key = private_key.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public_key)
            .serial_number(serial)
            .not_valid_before(now.astimezone(UTC) - _BACKDATE)
            .not_valid_after(END_OF_TIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .sign(private_key, hashes.SHA256())
        )
        return cls(certificate, private_key)

    @classmethod
    def load(cls, certificate_pem: str, private_key_pem: str) -> Authority:
        """The authority that `certificate_pem` and `private_key_pem` wrote down.

        Raises Error when they cannot be read or do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem.encode("utf-8"))
            key = serialization.load_pem_private_key(private_key_pem.encode("utf-8"), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Error(f"the authority cannot be read: {error}") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise Error("the key of the authority has to be an RSA key")
        return cls(certificate, key)

    def certificate_pem(self) -> str:
        """The certificate, for those who trust it (``ca.pem``)."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def private_key_pem(self) -> str:
        """The key as PKCS#8 (RFC 5958), not encrypted: keep it secret."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode("ascii")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What the registry keeps of a certificate. The two datetimes are in UTC."""

    certificate_id: str
    der: bytes
    pem: str
    not_before: datetime
    not_after: datetime
    public_key: PublicKey = field(repr=False)


def inspect(certificate: str | bytes) -> CertificateFacts:
    """The facts of one certificate, PEM text or DER bytes.

    ``pem`` is in the one form that RFC 7468 asks generators for, whatever came in. Whether the
    certificate is valid now, and who signed it, is for the caller to ask. Raises
    CertificateValidationException when it cannot be read, its key is of a type or size that is
    not allowed, or it is signed by an algorithm that is not; see `strength`.
    Source: AWS IoT API Reference, RegisterCertificateWithoutCA.
    """
    with warnings.catch_warnings():
        # `cryptography` warns of what it may refuse some day. It is refused here or allowed.
        warnings.simplefilter("ignore")
        try:
            der = certificate if isinstance(certificate, bytes) else _from_pem(certificate)
            read = x509.load_der_x509_certificate(der)
        except (ValueError, x509.InvalidVersion) as error:
            raise CertificateValidationException(
                f"The certificate could not be parsed: {error}"  # AWS's words
            ) from error
        try:
            return _facts(der, read)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateValidationException(f"invalid certificate: {error}") from error


def _facts(der: bytes, certificate: x509.Certificate) -> CertificateFacts:
    strength.check_signature(certificate)
    serial = certificate.serial_number
    if serial <= 0:
        raise ValueError(f"the serial number has to be positive, not {serial}")
    return CertificateFacts(
        certificate_id=certificate_id(der),
        der=der,
        pem=pem.encode("CERTIFICATE", der),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        public_key=strength.check_key(certificate.public_key()),
    )


def _from_pem(text: str) -> bytes:
    if len(text) > _MAX_PEM_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters, allowed are {_MAX_PEM_CHARACTERS}")
    return pem.decode(text, "CERTIFICATE", "X509 CERTIFICATE")
