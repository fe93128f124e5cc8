"""The authority, and the facts read from certificates of others."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetgate.errors import CertificateValidationException, Error
from fleetgate.pki import issue, keys, trust
from fleetgate.pki.trust import Authority
from tests.pki.openssl import openssl


def test_an_authority_is_one_ou_and_may_sign(authority: Authority, now: datetime) -> None:
    certificate = authority.certificate
    assert certificate.subject == certificate.issuer
    assert (
        certificate.subject.public_bytes()[:15].hex() == "302b3129302706035504" + "0b0c20" + "466c"
    )
    assert certificate.subject.rfc4514_string() == f"OU={trust.ISSUER}"
    assert certificate.not_valid_before_utc == now - timedelta(days=1)
    assert authority.not_after == datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    find = certificate.extensions.get_extension_for_class
    assert find(x509.BasicConstraints).critical
    assert find(x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    assert find(x509.KeyUsage).critical
    assert find(x509.KeyUsage).value.public_bytes().hex() == "03020106"  # keyCertSign, cRLSign
    certificate.verify_directly_issued_by(certificate)


def test_the_text_of_the_issuer_can_be_aws_s(rsa_key: rsa.RSAPrivateKey, now: datetime) -> None:
    text = "Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US"
    authority = Authority.create(rsa_key, now=now, serial=1, issuer=text)
    (name,) = authority.certificate.subject
    assert (name.oid, name.value) == (NameOID.ORGANIZATIONAL_UNIT_NAME, text)
    assert len(authority.certificate.subject.rdns) == 1


@pytest.mark.parametrize("issuer", ["", "x" * 201])
def test_the_text_of_the_issuer_has_a_size(
    issuer: str, rsa_key: rsa.RSAPrivateKey, now: datetime
) -> None:
    with pytest.raises(Error, match="1 to 200 characters"):
        Authority.create(rsa_key, now=now, serial=1, issuer=issuer)


def test_an_authority_survives_being_written_down(authority: Authority) -> None:
    key = authority.private_key_pem()
    assert key.startswith("-----BEGIN PRIVATE KEY-----\n")
    again = Authority.load(authority.certificate_pem(), key)
    assert again.certificate == authority.certificate
    assert again.private_key_pem() == key


def test_an_authority_does_not_show_its_key(authority: Authority) -> None:
    assert "private_key" not in repr(authority)


def test_an_authority_that_cannot_sign_is_refused(
    authority: Authority,
    rsa_key: rsa.RSAPrivateKey,
    ec_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> None:
    other = rsa.generate_private_key(65537, 2048)
    leaf = x509.load_der_x509_certificate(
        issue.issue(issue.DEVICE, authority, rsa_key.public_key(), now=now, serial=9)
    )
    name = x509.Name([])
    end = now + timedelta(days=1)
    bare = x509.CertificateBuilder(name, name, rsa_key.public_key(), 5, now, end).sign(
        rsa_key, hashes.SHA256()
    )
    with pytest.raises(Error, match="is for another key"):
        Authority(authority.certificate, other)
    with pytest.raises(Error, match="may not sign certificates"):
        Authority(leaf, rsa_key)
    with pytest.raises(Error, match="cannot be used"):
        Authority(bare, rsa_key)
    with pytest.raises(Error, match="cannot be read"):
        Authority.load("gibberish", authority.private_key_pem())
    with pytest.raises(Error, match="cannot be read"):
        Authority.load(authority.certificate_pem(), "gibberish")
    with pytest.raises(Error, match="has to be an RSA key"):
        Authority.load(authority.certificate_pem(), _pkcs8(ec_key))


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        Encoding.PEM,
        PrivateFormat.PKCS8,
        NoEncryption(),
    ).decode()


def self_signed(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    algorithm: hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | None,
    rsa_padding: padding.PSS | None = None,
) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 77, begin, begin.replace(year=2027))
        .sign(key, algorithm, rsa_padding=rsa_padding)
        .public_bytes(Encoding.PEM)
        .decode()
    )


def test_the_facts_of_a_certificate(ec_key: ec.EllipticCurvePrivateKey) -> None:
    text = self_signed(ec_key, hashes.SHA256())
    facts = trust.inspect("Certificate:\n" + text.replace("\n", "\r\n") + "\r\n")
    assert facts.pem == text
    assert facts.certificate_id == hashlib.sha256(facts.der).hexdigest()
    assert facts.not_before == datetime(2026, 1, 1, tzinfo=UTC)
    assert facts.not_after == datetime(2027, 1, 1, tzinfo=UTC)
    assert facts.public_key == ec_key.public_key()
    assert trust.inspect(facts.der) == facts


@pytest.mark.needs("openssl")
def test_the_id_is_the_fingerprint_openssl_shows(
    ec_key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    facts = trust.inspect(self_signed(ec_key, hashes.SHA256()))
    (tmp_path / "certificate.pem").write_text(facts.pem)
    shown = openssl("x509 -noout -fingerprint -sha256 -in", tmp_path / "certificate.pem")
    assert shown.split("=")[1].strip().replace(":", "").lower() == facts.certificate_id


# AWS IoT Core Developer Guide, "X.509 client certificates": supported signing algorithms.
def test_the_signature_algorithms_aws_supports_are_accepted(rsa_key: rsa.RSAPrivateKey) -> None:
    p521 = ec.generate_private_key(ec.SECP521R1())
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    for text in (
        self_signed(rsa_key, hashes.SHA256()),
        self_signed(rsa_key, hashes.SHA384()),
        self_signed(rsa_key, hashes.SHA384(), pss),
        self_signed(p521, hashes.SHA384()),
    ):
        assert trust.inspect(text).pem == text


def test_other_certificates_are_refused_with_their_rule(
    rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    good = self_signed(ec_key, hashes.SHA256())
    k256 = ec.generate_private_key(ec.SECP256K1())
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    mixed = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    refused = {
        "": "no `-----BEGIN CERTIFICATE-----` line",
        good + good: "2 PEM blocks",
        good + "x": "text after",
        "x" * 65537: "65537 characters",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "could not be parsed",
        keys.public_pem(ec_key.public_key()): "is a `PUBLIC KEY`, not a `CERTIFICATE`",
        self_signed(ec_key, hashes.SHA224()): "`ECDSA_WITH_SHA224` is not one of",
        self_signed(rsa_key, hashes.SHA224(), mixed): "needs SHA-256",
        self_signed(ed25519.Ed25519PrivateKey.generate(), None): "`ED25519` is not one of",
        self_signed(k256, hashes.SHA256()): "not `secp256k1`",
        self_signed(weak, hashes.SHA256()): "at least 2048 bits, not 1024",
    }
    for text, message in refused.items():
        with pytest.raises(CertificateValidationException, match=message):
            trust.inspect(text)


def test_a_serial_number_has_to_be_positive() -> None:
    negative = GOOD.replace(b"\x02\x01\x4d", b"\x02\x01\xff", 1)
    with pytest.raises(CertificateValidationException, match="has to be positive, not -1"):
        trust.inspect(negative)


GOOD = trust.inspect(self_signed(ec.derive_private_key(1, ec.SECP256R1()), hashes.SHA256())).der


@settings(max_examples=4 * settings().max_examples)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(GOOD)),
)
def test_damaged_bytes_raise_only_a_validation_error(
    changes: list[tuple[int, int]], size: int
) -> None:
    damaged = bytearray(GOOD)
    for at, value in changes:
        damaged[at] = value
    for each in (bytes(damaged), bytes(damaged[:size])):
        try:
            assert trust.inspect(each).der == each
        except CertificateValidationException:
            continue
