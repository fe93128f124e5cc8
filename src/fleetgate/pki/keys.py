"""Keys as PEM text, in the forms AWS hands them out (``KeyPair`` of CreateKeysAndCertificate)."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fleetgate.pki.strength import PublicKey


def rsa_private_pem(key: rsa.RSAPrivateKey) -> str:
    """``-----BEGIN RSA PRIVATE KEY-----``: PKCS#1 (RFC 8017 appendix A.1.2), not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode(
        "ascii"
    )


def public_pem(key: PublicKey) -> str:
    """``-----BEGIN PUBLIC KEY-----``: SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def key_id(key: PublicKey) -> str:
    """What tells public keys apart: the SHA-256 of SubjectPublicKeyInfo in DER, 64 hex digits.

    The same for every way to write a key down in a certificate: a compressed point (RFC 5480
    section 2.2) or an RSA key for PSS alone (RFC 4055 section 1.2) is the key it is.
    """
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
