"""Authorities that are not the server's, and what they sign."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fleetgate.pki import pem
from tests.operations.conftest import START, Registry
from tests.pki.der import ECDSA_WITH_SHA256, tlv

_serials = itertools.count(1)
SHA256 = hashes.SHA256()
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256 (SEC 2, section 2.4.2)."""


@dataclass(frozen=True)
class ForeignAuthority:
    """An authority of somebody's own: its name, key and certificate."""

    subject: x509.Name
    key: ec.EllipticCurvePrivateKey
    pem: str

    def sign(self, common_name: str | None, days: float = 100) -> str:
        """A certificate (PEM) that is valid until `days` after START."""
        return self.issue(name_of(common_name), days)

    def issue(
        self,
        subject: x509.Name,
        days: float = 100,
        *,
        starts: float = -2000,
        key: CertificatePublicKeyTypes | None = None,
        algorithm: hashes.HashAlgorithm | None = None,
    ) -> str:
        """A certificate (PEM) with a subject and key of one's own, valid from `starts` on."""
        key = key or ec.generate_private_key(ec.SECP256R1()).public_key()
        return _sign(
            self.key, self.subject, subject, key, days, starts=starts, algorithm=algorithm or SHA256
        )


def authority(
    name: str = "Lamp CA",
    days: float = 1000,
    *,
    is_ca: bool = True,
    key: ec.EllipticCurvePrivateKey | None = None,
    starts: float = -2000,
) -> ForeignAuthority:
    """A new authority; two of one name have different keys unless they are given one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = name_of(name)
    made = _sign(key, subject, subject, key.public_key(), days, starts=starts, is_ca=is_ca)
    return ForeignAuthority(subject, key, made)


def _sign(
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    days: float,
    *,
    starts: float,
    algorithm: hashes.HashAlgorithm = SHA256,
    is_ca: bool = False,
) -> str:
    start = datetime.fromtimestamp(START, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(next(_serials))
        .not_valid_before(start + timedelta(days=starts))
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(signer, algorithm)  # type: ignore[arg-type] # those that are refused, too
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def name_of(common_name: str | None) -> x509.Name:
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def with_other_signature(text: str) -> str:
    """The same certificate (PEM, signed on P-256), its signature (r, s) written as (r, n - s)."""
    certificate = x509.load_pem_x509_certificate(text.encode())
    r, s = decode_dss_signature(certificate.signature)
    other = encode_dss_signature(r, _ORDER - s)
    signature = tlv(3, b"\0" + other)
    der = tlv(0x30, certificate.tbs_certificate_bytes, ECDSA_WITH_SHA256, signature)
    return pem.encode("CERTIFICATE", der)


def register(registry: Registry, foreign: ForeignAuthority, **params: Any) -> str:
    """Registers an authority, in DEFAULT mode and ACTIVE unless `params` say otherwise; its id."""
    params = {"set_as_active": True, **params}
    if params.get("certificate_mode") != "SNI_ONLY":
        code = registry.call("GetRegistrationCode")["registrationCode"]
        params.setdefault("verification_certificate", foreign.sign(code))
    answer = registry.call("RegisterCACertificate", ca_certificate=foreign.pem, **params)
    return str(answer["certificateId"])
