"""Authorities that are not the server's, and what they sign."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.operations.conftest import START, Registry

_serials = itertools.count(1)


@dataclass(frozen=True)
class ForeignAuthority:
    """An authority of somebody's own: its name, key and certificate."""

    name: str
    key: ec.EllipticCurvePrivateKey
    pem: str

    def sign(self, common_name: str | None, days: float = 100) -> str:
        """A certificate (PEM) that is valid until `days` after START."""
        return _sign(
            self.key, self.name, common_name, ec.generate_private_key(ec.SECP256R1()), days
        )


def authority(name: str = "Lamp CA", days: float = 1000, *, is_ca: bool = True) -> ForeignAuthority:
    """A new authority; two of one name have different keys."""
    key = ec.generate_private_key(ec.SECP256R1())
    return ForeignAuthority(name, key, _sign(key, name, name, key, days, is_ca=is_ca))


def _sign(
    signer: ec.EllipticCurvePrivateKey,
    issuer: str,
    subject: str | None,
    key: ec.EllipticCurvePrivateKey,
    days: float,
    *,
    is_ca: bool = False,
) -> str:
    start = datetime.fromtimestamp(START, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(start - timedelta(days=2000))
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


def _name(common_name: str | None) -> x509.Name:
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def register(registry: Registry, foreign: ForeignAuthority, **params: Any) -> str:
    """Registers an authority, in DEFAULT mode and ACTIVE unless `params` say otherwise; its id."""
    params = {"set_as_active": True, **params}
    if params.get("certificate_mode") != "SNI_ONLY":
        code = registry.call("GetRegistrationCode")["registrationCode"]
        params.setdefault("verification_certificate", foreign.sign(code))
    answer = registry.call("RegisterCACertificate", ca_certificate=foreign.pem, **params)
    return str(answer["certificateId"])
