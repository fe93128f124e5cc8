"""Keys and an authority, made once, and requests that no library makes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fleetgate.pki import pem
from fleetgate.pki.trust import Authority
from tests.pki.der import ECDSA_WITH_SHA256, tlv

RequestWith: TypeAlias = Callable[..., str]


@pytest.fixture(scope="session")
def now() -> datetime:
    return datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="session")
def authority(rsa_key: rsa.RSAPrivateKey, now: datetime) -> Authority:
    return Authority.create(rsa_key, now=now, serial=4711)


@pytest.fixture(scope="session")
def request_with(ec_key: ec.EllipticCurvePrivateKey) -> RequestWith:
    """A function (Name DER, SPKI DER = the key's own) -> CSR PEM, signed by `ec_key`."""
    own = ec_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def make(subject: bytes, spki: bytes = own) -> str:
        info = tlv(0x30, b"\x02\x01\x00", subject, spki, b"\xa0\x00")
        signature = ec_key.sign(info, ec.ECDSA(hashes.SHA256()))
        der = tlv(0x30, info, ECDSA_WITH_SHA256, tlv(3, b"\x00" + signature))
        return pem.encode("CERTIFICATE REQUEST", der)

    return make
