"""What stands behind a certificate provider: an authority of somebody's own on P-384, signing CSRs.

It signs for a year, and what it is told to do wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

YEAR = timedelta(days=365)

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
class ProviderAuthority:
    """An authority: its name, key and certificate."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    pem: str

    def sign(
        self,
        csr: str,
        now: datetime,
        *,
        subject: x509.Name | None = None,
        key: CertificatePublicKeyTypes | None = None,
        starts: timedelta = timedelta(0),
        lifetime: timedelta = YEAR,
        is_ca: bool = False,
        algorithm: hashes.HashAlgorithm | None = None,
    ) -> str:
        """A certificate (PEM) for a CSR (PEM), but for what is given here."""
        request = x509.load_pem_x509_csr(csr.encode())
        return _sign(
            self,
            request.subject if subject is None else subject,
            key or request.public_key(),
            now + starts,
            now + starts + lifetime,
            is_ca=is_ca,
            algorithm=algorithm or hashes.SHA384(),
        )


def provider_authority(
    now: datetime, name: str = "Provider CA", by: ProviderAuthority | None = None
) -> ProviderAuthority:
    """A new authority, below another one or a root."""
    key = ec.generate_private_key(ec.SECP384R1())
    own = common_name(name)
    start, end = now - YEAR, now + 10 * YEAR
    signer = by or ProviderAuthority(own, key, "")
    public = key.public_key()
    pem = _sign(signer, own, public, start, end, is_ca=True, algorithm=hashes.SHA384())
    return ProviderAuthority(own, key, pem)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def request_for(key: ec.EllipticCurvePrivateKey, subject: x509.Name) -> str:
    """A CSR (PEM)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _sign(
    by: ProviderAuthority,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    start: datetime,
    end: datetime,
    *,
    is_ca: bool,
    algorithm: hashes.HashAlgorithm,
) -> str:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if is_ca:
        builder = builder.add_extension(_SIGNS_CERTIFICATES, critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key), critical=False
        )
    certificate = builder.sign(by.key, algorithm)  # type: ignore[arg-type] # refused ones, too
    return certificate.public_bytes(Encoding.PEM).decode()
