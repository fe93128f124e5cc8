"""The forms in which keys are handed out."""

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetgate.pki import keys
from tests.pki.der import tlv
from tests.pki.openssl import openssl


def test_a_private_key_is_pkcs1(rsa_key: rsa.RSAPrivateKey) -> None:
    text = keys.rsa_private_pem(rsa_key)
    assert text.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert text.endswith("\n-----END RSA PRIVATE KEY-----\n")
    again = serialization.load_pem_private_key(text.encode(), None)
    assert isinstance(again, rsa.RSAPrivateKey)
    assert again.private_numbers() == rsa_key.private_numbers()


def test_a_public_key_is_subject_public_key_info(
    rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    for key in (rsa_key, ec_key):
        text = keys.public_pem(key.public_key())
        assert text.startswith("-----BEGIN PUBLIC KEY-----\n")
        assert serialization.load_pem_public_key(text.encode()) == key.public_key()


@pytest.mark.needs("openssl")
def test_openssl_derives_the_same_public_key(rsa_key: rsa.RSAPrivateKey) -> None:
    derived = openssl("rsa -pubout", stdin=keys.rsa_private_pem(rsa_key))
    assert derived == keys.public_pem(rsa_key.public_key())


def test_a_key_is_the_same_however_it_is_written(
    rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    """RFC 5480 section 2.2 (compressed points), RFC 4055 section 1.2 (id-RSASSA-PSS)."""
    der, info = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    plain = rsa_key.public_key().public_bytes(der, info)
    assert keys.key_id(rsa_key.public_key()) == hashlib.sha256(plain).hexdigest()
    rsa_encryption = bytes.fromhex("300d06092a864886f70d0101010500")
    assert plain[4:].startswith(rsa_encryption)
    pss = tlv(0x30, bytes.fromhex("300b06092a864886f70d01010a"), plain[4 + len(rsa_encryption) :])
    x962 = serialization.Encoding.X962
    point = ec_key.public_key().public_bytes(x962, serialization.PublicFormat.CompressedPoint)
    p256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    compressed = tlv(0x30, p256, tlv(3, b"\0", point))
    for written, key in ((pss, rsa_key.public_key()), (compressed, ec_key.public_key())):
        read = serialization.load_der_public_key(written)
        assert isinstance(read, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        assert keys.key_id(read) == keys.key_id(key)
    assert keys.key_id(rsa_key.public_key()) != keys.key_id(ec_key.public_key())
