"""What a certificate provider answers.

Sources of the rules: AWS IoT Core Developer Guide, "Self-managed certificate signing using AWS IoT
Core certificate provider" ("must have the same subject name and public key as the Certificate
Signing Request"), "X.509 client certificates" (signing algorithms, keys); RFC 5280 section 7.1
(names), RFC 8446 section 4.4.2 (order of a chain); the size is that of the model's CertificatePem.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetgate.errors import CertificateValidationException
from fleetgate.pki import csr, pem, provider_certificate
from tests.pki.der import tlv
from tests.provider_authority import (
    ProviderAuthority,
    common_name,
    provider_authority,
    request_for,
)

ECDSA_WITH_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")  # RFC 5758 section 3.2

Answer = Callable[[ProviderAuthority, str, datetime], str]


@pytest.fixture(scope="module")
def root(now: datetime) -> ProviderAuthority:
    return provider_authority(now)


@pytest.fixture(scope="module")
def request_pem(ec_key: ec.EllipticCurvePrivateKey) -> str:
    return request_for(ec_key, common_name("device"))


def read(text: str, request: str, now: datetime) -> provider_certificate.ProviderCertificate:
    return provider_certificate.read(text, csr.parse(request), now)


def refused(text: str, request: str, now: datetime) -> str:
    with pytest.raises(CertificateValidationException) as caught:
        read(text, request, now)
    return caught.value.message


def test_a_certificate_for_the_request(
    root: ProviderAuthority, request_pem: str, now: datetime
) -> None:
    answer = root.sign(request_pem, now)
    found = read(answer, request_pem, now)
    assert found.leaf.facts.pem == answer
    assert found.leaf.facts.not_after == now + timedelta(days=365)
    assert found.chain == ()


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "Certificate:\n    Data:\n" + text,  # openssl ca
        lambda text: "\n" + text + "\n\n",
    ],
    ids=["crlf", "openssl", "white-space"],
)
def test_whatever_way_it_is_written(
    root: ProviderAuthority, request_pem: str, now: datetime, written: Callable[[str], str]
) -> None:
    answer = root.sign(request_pem, now)
    assert read(written(answer), request_pem, now).leaf.facts.pem == answer


def test_its_chain_follows_it(root: ProviderAuthority, request_pem: str, now: datetime) -> None:
    middle = provider_authority(now, "middle", root)
    low = provider_authority(now, "low", middle)
    leaf = low.sign(request_pem, now)
    for chain in ([low], [low, middle], [low, middle, root]):
        found = read("".join([leaf, *(each.pem for each in chain)]), request_pem, now)
        assert [each.facts.pem for each in found.chain] == [each.pem for each in chain]
    other = provider_authority(now, "low", middle)
    for text, rule in (
        (leaf + middle.pem, "number 2: The certificate is not signed by the CA"),
        (leaf + other.pem, "signature does not match"),
        (leaf + low.pem + root.pem, "number 3: The certificate is not signed by the CA"),
        (leaf + leaf, "number 2: The CA certificate does not have the basicConstraints"),
        (low.pem + leaf, "its public key is not the one of the signing request"),
        (leaf + root.pem * 10, "10 certificates follow the device's own; the limit is 9"),
    ):
        assert rule in refused(text, request_pem, now)


def test_a_ca_may_write_the_subject_in_other_string_types(
    root: ProviderAuthority, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    def name(kind: _ASN1Type, text: str = "device") -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, kind)])

    request = request_for(ec_key, name(_ASN1Type.UTF8String))
    answer = root.sign(request, now, subject=name(_ASN1Type.PrintableString))
    assert read(answer, request, now).leaf.certificate.subject == name(_ASN1Type.UTF8String)
    for other in ("Device", "device ", "devic"):
        answer = root.sign(request, now, subject=name(_ASN1Type.UTF8String, other))
        assert f"its subject is `CN={other.replace(' ', chr(92) + ' ')}`" in refused(
            answer, request, now
        )


def test_the_order_of_a_subject_counts(
    root: ProviderAuthority, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    parts = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lamps"),
        x509.NameAttribute(NameOID.COMMON_NAME, "device"),
    ]
    request = request_for(ec_key, x509.Name(parts))
    assert read(root.sign(request, now), request, now).chain == ()
    for subject in (x509.Name(parts[::-1]), x509.Name(parts[1:]), x509.Name([])):
        assert "its subject is" in refused(root.sign(request, now, subject=subject), request, now)
    empty = request_for(ec_key, x509.Name([]))
    assert read(root.sign(empty, now), empty, now).leaf.certificate.subject == x509.Name([])
    answer = root.sign(empty, now, subject=common_name("AWS IoT Certificate"))
    assert "signing request is ``" in refused(answer, empty, now)


def other_key() -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def private_key(root: ProviderAuthority) -> str:
    return root.key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


WRONG: list[tuple[str, Answer, str]] = [
    ("key", lambda ca, r, now: ca.sign(r, now, key=other_key()), "public key is not the one"),
    (
        "subject",
        lambda ca, r, now: ca.sign(r, now, subject=common_name("other")),
        "its subject is `CN=other`, that of the signing request is `CN=device`",
    ),
    (
        "expired",
        lambda ca, r, now: ca.sign(r, now, starts=timedelta(days=-365)),
        "it expired at 2026-11-20T12:00:00Z, now is 2026-11-20T12:00:00Z",
    ),
    (
        "not-yet",
        lambda ca, r, now: ca.sign(r, now, starts=timedelta(seconds=1)),
        "it is not valid before 2026-11-20T12:00:01Z, now is 2026-11-20T12:00:00Z",
    ),
    ("ca", lambda ca, r, now: ca.sign(r, now, is_ca=True), "basicConstraints has CA:TRUE"),
    (
        "sha224",
        lambda ca, r, now: ca.sign(r, now, algorithm=hashes.SHA224()),
        "the signature algorithm `ECDSA_WITH_SHA224` is not one of",
    ),
    (
        "sha3",
        lambda ca, r, now: ca.sign(r, now, algorithm=hashes.SHA3_256()),
        "is not one of RSA_WITH_SHA256",
    ),
    ("empty", lambda *_: "", "there is no `-----BEGIN CERTIFICATE-----` line"),
    ("garbage", lambda *_: "garbage", "there is no `-----BEGIN CERTIFICATE-----` line"),
    (
        "no-der",
        lambda *_: pem.encode("CERTIFICATE", b"garbage"),
        "The certificate could not be parsed",
    ),
    ("a-csr", lambda _ca, r, _now: r, "there is a PEM block `CERTIFICATE REQUEST`"),
    (
        "with-a-key",
        lambda ca, r, now: ca.sign(r, now) + private_key(ca),
        "there is a PEM block `PRIVATE KEY`, not a `CERTIFICATE`",
    ),
    (
        "cut-off",
        lambda ca, r, now: ca.sign(r, now)[:-20],
        "1 of 1 PEM blocks are broken",
    ),
    ("tail", lambda ca, r, now: ca.sign(r, now) + "tail", "text after the last PEM block"),
    ("not-ascii", lambda ca, r, now: "\ud800" + ca.sign(r, now), "ASCII"),
    ("nothing-of-it", lambda ca, r, now: ca.sign(r, now).replace("M", "*"), "broken"),
    (
        "too-long",
        lambda ca, r, now: " " * 65536 + ca.sign(r, now),
        "characters; the limit is 65536",
    ),
]


@pytest.mark.parametrize(
    ("answer", "rule"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
def test_anything_else_is_refused_with_rule_and_value(
    root: ProviderAuthority, request_pem: str, now: datetime, answer: Answer, rule: str
) -> None:
    assert rule in refused(answer(root, request_pem, now), request_pem, now)


def test_a_version_1_certificate_is_refused(
    root: ProviderAuthority, request_pem: str, now: datetime
) -> None:
    """One without extensions, whose version is cut off, signed anew."""
    request = x509.load_pem_x509_csr(request_pem.encode())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(root.name)
        .public_key(request.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(root.key, hashes.SHA384())
    )
    version_3 = bytes.fromhex("a003020102")
    _, _, rest = certificate.tbs_certificate_bytes.partition(version_3)
    shorter = tlv(0x30, rest)
    signature = root.key.sign(shorter, ec.ECDSA(hashes.SHA384()))
    text = pem.encode(
        "CERTIFICATE", tlv(0x30, shorter, ECDSA_WITH_SHA384, tlv(3, b"\0" + signature))
    )
    assert "it is of version 1, not 3" in refused(text, request_pem, now)


def test_the_same_rsa_key_for_pss_alone_is_another_one(
    root: ProviderAuthority, rsa_key: rsa.RSAPrivateKey, now: datetime
) -> None:
    """A TLS library does not match it with the device's key (RFC 4055 section 1.2)."""
    request = x509.CertificateSigningRequestBuilder().subject_name(common_name("device"))
    text = request.sign(rsa_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    answer = root.sign(text, now)
    assert read(answer, text, now).chain == ()
    certificate = x509.load_pem_x509_certificate(answer.encode())
    tbs = certificate.tbs_certificate_bytes
    rsa_encryption = bytes.fromhex("300d06092a864886f70d0101010500")
    assert rsa_encryption in tbs
    changed = tbs.replace(rsa_encryption, bytes.fromhex("300d06092a864886f70d01010a0500"))
    signature = root.key.sign(changed, ec.ECDSA(hashes.SHA384()))
    other = pem.encode(
        "CERTIFICATE", tlv(0x30, changed, ECDSA_WITH_SHA384, tlv(3, b"\0" + signature))
    )
    refused(other, text, now)


@settings(max_examples=50)
@given(at=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_changed_anywhere_it_is_read_or_refused(
    root: ProviderAuthority, request_pem: str, now: datetime, at: float, flipped: int
) -> None:
    der = bytearray(pem.decode(root.sign(request_pem, now), "CERTIFICATE"))
    der[int(at * len(der))] ^= flipped
    text = pem.encode("CERTIFICATE", bytes(der))
    try:
        found = read(text, request_pem, now)
    except CertificateValidationException:
        return
    request = csr.parse(request_pem)
    assert found.leaf.certificate.subject == request.subject
