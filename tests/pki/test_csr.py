"""Signing requests: what is accepted, and the words with which the rest is refused."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetgate.errors import InvalidCsr
from fleetgate.pki import csr, pem
from tests.pki.conftest import RequestWith
from tests.pki.der import ECDSA_WITH_SHA256, subject_der, tlv
from tests.pki.openssl import openssl

CN, COUNTRY, ORG = "550403", "550406", "55040a"
UTF8, PRINTABLE, T61, IA5, UNIVERSAL, BMP = 12, 19, 20, 22, 28, 30

PLAIN = subject_der((CN, UTF8, b"lamp"))
FIXED_KEY = ec.derive_private_key(4711, ec.SECP256R1())


def csr_of(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    algorithm: hashes.SHA256 | hashes.SHA512 | None,
    rsa_padding: padding.PSS | None = None,
) -> str:
    builder = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lamp")])
    )
    request = builder.sign(key, algorithm, rsa_padding=rsa_padding)
    return request.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_nist_curves_are_accepted(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    request = csr.parse(csr_of(key, hashes.SHA256()))
    assert request.public_key == key.public_key()
    assert request.spki_der == key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert request.subject.rfc4514_string() == "CN=lamp"


def test_rsa_2048_is_accepted_with_pkcs1_and_pss_signatures(rsa_key: rsa.RSAPrivateKey) -> None:
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), 32)
    for each in (csr_of(rsa_key, hashes.SHA512()), csr_of(rsa_key, hashes.SHA512(), pss)):
        assert csr.parse(each).public_key == rsa_key.public_key()


@pytest.mark.needs("openssl")
def test_a_request_of_the_openssl_command_is_accepted(tmp_path: Path) -> None:
    """With text before the block, and a label from the 1990s."""
    made = openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -text -newhdr "
        "-subj '/C=DE/O=Acme/CN=lamp 1' -keyout",
        tmp_path / "key",
    )
    assert made.startswith("Certificate Request:")
    assert csr.parse(made).subject.rfc4514_string() == "CN=lamp 1,O=Acme,C=DE"


SUBJECTS = {
    "empty": subject_der(),
    "utf8": subject_der((CN, UTF8, "Lämpchen".encode())),
    "printable": subject_der((CN, PRINTABLE, b"lamp")),
    "ia5": subject_der((CN, IA5, b"lamp@home")),
    "teletex": subject_der((CN, T61, b"lamp")),
    "bmp": subject_der((CN, BMP, "lamp".encode("utf-16-be"))),
    "universal": subject_der((CN, UNIVERSAL, "lamp".encode("utf-32-be"))),
    "order": subject_der((CN, UTF8, b"lamp"), (COUNTRY, PRINTABLE, b"DE"), (CN, IA5, b"twice")),
    "unique identifier": subject_der(("55042d", 3, b"\0abc")),
    "longest": subject_der((CN, UTF8, b"x" * 64)),
    "unknown attribute": subject_der(("2a0304", UTF8, b"what is this")),
}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_a_subject_keeps_its_order_and_string_types(
    subject: bytes, request_with: RequestWith
) -> None:
    assert csr.parse(request_with(subject)).subject.public_bytes() == subject


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (subject_der((CN, UTF8, b"x" * 65)), "commonName has 65 bytes, allowed are 1 to 64"),
        (subject_der((CN, UTF8, b"")), "commonName has 0 bytes"),
        (subject_der((CN, BMP, ("€" * 22).encode("utf-16-be"))), "commonName has 66 bytes"),
        (subject_der((COUNTRY, PRINTABLE, b"DEU")), "countryName has 3 bytes, allowed are 2 to 2"),
        (subject_der((ORG, UTF8, b"a\0b")), "the subject's O contains a NUL"),
        (subject_der((CN, PRINTABLE, b"lamp@home")), "invalid certificate signing request"),
        (subject_der((CN, UTF8, b"\xff")), "invalid certificate signing request"),
        (subject_der((CN, T61, b"\xe4")), "invalid certificate signing request"),
        (subject_der((CN, 2, b"\x01")), "invalid certificate signing request"),
        (tlv(0x30, tlv(0x31)), "invalid certificate signing request"),
    ],
)
def test_a_subject_that_is_no_name_is_refused(
    subject: bytes, message: str, request_with: RequestWith
) -> None:
    with pytest.raises(InvalidCsr, match=message):
        csr.parse(request_with(subject))


def rsa_spki(exponent: int, modulus: int) -> bytes:
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("exponent", "bits", "message"),
    [
        (65537, 2047, "at least 2048 bits, not 2047"),
        (65537, 1024, "at least 2048 bits, not 1024"),
        (65537, 8193, "at most 8192 bits, not 8193"),
        ((1 << 64) + 1, 2048, r"from 3 to 2\*\*64, not 18446744073709551617"),
        (65537, 2048, "the signature does not match"),
        (3, 8192, "the signature does not match"),
    ],
)
def test_the_size_of_an_rsa_key_is_checked_before_its_signature(
    exponent: int, bits: int, message: str, request_with: RequestWith
) -> None:
    with pytest.raises(InvalidCsr, match=message):
        csr.parse(request_with(PLAIN, rsa_spki(exponent, (1 << (bits - 1)) + 1)))


@pytest.mark.parametrize(
    ("curve", "name"), [(ec.SECP256K1(), "secp256k1"), (ec.SECP224R1(), "secp224r1")]
)
def test_other_curves_are_refused(curve: ec.EllipticCurve, name: str) -> None:
    with pytest.raises(InvalidCsr, match=rf"P-256, P-384, P-521, not `{name}`"):
        csr.parse(csr_of(ec.generate_private_key(curve), hashes.SHA256()))


@pytest.mark.needs("openssl")
def test_other_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCsr, match="signature algorithm `ED25519` is not one of"):
        csr.parse(csr_of(ed25519.Ed25519PrivateKey.generate(), None))
    pss = openssl(
        "req -new -newkey rsa-pss -pkeyopt rsa_keygen_bits:2048 -nodes -subj /CN=lamp -keyout",
        tmp_path / "key",
    )
    with pytest.raises(InvalidCsr, match="not one for RSASSA-PSS alone"):
        csr.parse(pss)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "sha3-256"])
def test_weak_and_unknown_signature_algorithms_are_refused(algorithm: str, tmp_path: Path) -> None:
    made = openssl(
        f"req -new -newkey rsa:2048 -{algorithm} -nodes -subj /CN=lamp -keyout", tmp_path / "key"
    )
    with pytest.raises(InvalidCsr, match="the signature algorithm `RSA_WITH_"):
        csr.parse(made)


@pytest.mark.needs("openssl")
def test_a_pss_signature_over_sha1_is_refused(tmp_path: Path) -> None:
    made = openssl(
        "req -new -newkey rsa:2048 -sha1 -sigopt rsa_padding_mode:pss -nodes -subj /CN=lamp "
        "-keyout",
        tmp_path / "key",
    )
    with pytest.raises(InvalidCsr, match="RSASSA-PSS signature needs SHA-256"):
        csr.parse(made)


def test_what_is_not_one_whole_request_is_refused() -> None:
    good = csr_of(FIXED_KEY, hashes.SHA256())
    der = pem.decode(good, "CERTIFICATE REQUEST")
    refused = {
        "": "no `-----BEGIN CERTIFICATE REQUEST-----` line",
        "gibberish": "no `-----BEGIN",
        good + good: "2 PEM blocks",
        good + "tail": "text after the PEM block: `tail`",
        good.replace(" REQUEST", ""): "is a `CERTIFICATE`, not a `CERTIFICATE REQUEST`",
        pem.encode("CERTIFICATE REQUEST", der + b"\0"): "invalid certificate signing request",
        pem.encode("CERTIFICATE REQUEST", der[:-1]): "invalid certificate signing request",
        pem.encode("CERTIFICATE REQUEST", b""): "invalid certificate signing request",
        "x" * 4097: "at most 4096 characters, not 4097",
    }
    for text, message in refused.items():
        with pytest.raises(InvalidCsr, match=message):
            csr.parse(text)


def test_a_request_signed_by_another_key_is_refused(request_with: RequestWith) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(InvalidCsr, match="the signature does not match the request's own key"):
        csr.parse(request_with(PLAIN, spki))


GOOD_DER = pem.decode(csr_of(FIXED_KEY, hashes.SHA256()), "CERTIFICATE REQUEST")


@settings(max_examples=4 * settings().max_examples)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD_DER) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(GOOD_DER)),
    st.binary(max_size=8),
)
def test_damaged_bytes_raise_only_invalid_csr(
    changes: list[tuple[int, int]], cut: int, insert: bytes
) -> None:
    damaged = bytearray(GOOD_DER)
    for at, value in changes:
        damaged[at] = value
    damaged[cut:cut] = insert
    if bytes(damaged) == GOOD_DER:
        return
    with pytest.raises(InvalidCsr):
        csr.parse(pem.encode("CERTIFICATE REQUEST", bytes(damaged)))


@given(st.binary(max_size=200))
def test_any_subject_is_refused_or_kept_byte_by_byte(content: bytes) -> None:
    subject = tlv(0x30, content)
    info = tlv(
        0x30,
        b"\x02\x01\x00",
        subject,
        FIXED_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        b"\xa0\x00",
    )
    signature = FIXED_KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    der = tlv(0x30, info, ECDSA_WITH_SHA256, tlv(3, b"\0" + signature))
    try:
        request = csr.parse(pem.encode("CERTIFICATE REQUEST", der))
    except InvalidCsr:
        return
    assert request.subject.public_bytes() == subject


@pytest.mark.parametrize(
    ("common_name", "claimed"),
    [
        ("fleet.example.com", "fleet.example.com"),
        ("FLEET.Example.COM.", "fleet.example.com"),
        ("*.example.com", "fleet.example.com"),
        ("f*t.example.com", "fleet.example.com"),
        ("*", "fleet.example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("lamp", None),
        ("fleet.example.com.evil", None),
        ("fleetxexample.com", None),
        ("[a-z]*", None),
        ("fleet?example.com", None),
        ("*a" * 32, None),
    ],
)
def test_a_subject_that_could_pass_for_a_host_is_noticed(
    common_name: str, claimed: str | None
) -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "harmless"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    assert csr.claimed_host(subject, ["fleet.example.com", "127.0.0.1"]) == claimed
