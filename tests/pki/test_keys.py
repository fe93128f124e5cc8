"""The forms in which keys are handed out."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetgate.pki import keys
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
