"""Certificates of other authorities, most of them made by openssl.

Sources of the rules: AWS IoT Core Developer Guide, "X.509 client certificates" (algorithms),
"Create a CA certificate" (basicConstraints), "Register a CA certificate in DEFAULT mode"
(verification certificate); RFC 5280 sections 4.2.1.9 and 7.1.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetgate.errors import CertificateValidationException
from fleetgate.names import certificate_id
from fleetgate.pki import registration
from tests.pki.openssl_ca import Made, make

CODE = "0123456789abcdef" * 4
NOW = datetime.now(UTC)

Maker = Callable[..., Made]


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    """A function (name, signer, ...) -> Made, in a directory of the test's own."""
    return lambda name, *rest, **more: make(tmp_path, name, *rest, **more)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("kind", ["rsa-2048", "rsa-3072", "p-256", "p-384", "p-521"])
def test_an_authority_and_what_it_signed(maker: Maker, kind: str) -> None:
    made = maker("ca", kind=kind)
    authority = registration.read_authority(made.pem)
    certificate = x509.load_pem_x509_certificate(made.pem.encode())
    assert authority.facts.certificate_id == certificate_id(authority.facts.der)
    assert authority.subject == authority.issuer
    assert authority.certificate == certificate
    for other in ("p-256", "rsa-2048"):
        leaf = registration.read(maker(f"leaf-{other}", made, kind=other, extensions="leaf").pem)
        assert leaf.issuer == authority.subject != leaf.subject
        registration.check_signed(leaf, authority)
        registration.check_current(leaf, NOW)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    "options",
    [
        "-sha384",
        "-sha512",
        "-sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32",
        "-sha512 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:64",
    ],
)
def test_signatures_of_every_kind_are_verified(maker: Maker, options: str) -> None:
    made = maker("ca", kind="rsa-2048", options=options)
    other = maker("other", kind="rsa-2048", subject="/CN=ca", options=options)
    authority = registration.read_authority(made.pem)
    leaf = registration.read(maker("leaf", made, extensions="leaf", options=options).pem)
    registration.check_signed(leaf, authority)
    with pytest.raises(CertificateValidationException, match="does not match the key of the CA"):
        registration.check_signed(leaf, registration.read_authority(other.pem))


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("rsa-1024", "-sha256", "at least 2048 bits, not 1024"),
        ("k-256", "-sha256", "not `secp256k1`"),
        ("ed25519", "", "`ED25519` is not one of"),
        ("rsa-2048", "-sha224", "`RSA_WITH_SHA224` is not one of"),
    ],
)
def test_weak_ones_are_refused_as_authority_and_as_certificate(
    maker: Maker, kind: str, options: str, message: str
) -> None:
    pem = maker("weak", kind=kind, options=options).pem
    for read in (registration.read, registration.read_authority):
        with pytest.raises(CertificateValidationException, match=message):
            read(pem)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("extensions", ["leaf", "none"])
def test_without_the_basic_constraint_it_is_no_authority(maker: Maker, extensions: str) -> None:
    made = maker("ca", extensions=extensions)
    registration.read(made.pem)
    with pytest.raises(CertificateValidationException) as caught:
        registration.read_authority(made.pem)
    assert caught.value.message == (
        "The CA certificate does not have the basicConstraints extension as true"
    )


@pytest.mark.needs("openssl")
def test_an_intermediate_authority_is_one_too(maker: Maker) -> None:
    root = maker("root")
    made = maker("intermediate", root)
    authority = registration.read_authority(made.pem)
    leaf = registration.read(maker("leaf", made, extensions="leaf").pem)
    registration.check_signed(leaf, authority)
    with pytest.raises(CertificateValidationException, match="its issuer is `CN=intermediate`"):
        registration.check_signed(leaf, registration.read_authority(root.pem))


@pytest.mark.needs("openssl")
def test_one_that_calls_itself_its_issuer_has_to_have_signed_itself(maker: Maker) -> None:
    root = maker("root")
    made = maker("impostor", root, subject="/CN=root")
    with pytest.raises(CertificateValidationException, match="its signature does not match"):
        registration.read_authority(made.pem)


@pytest.mark.needs("openssl")
def test_names_are_compared_as_bytes(maker: Maker) -> None:
    made = maker("ca", subject="/O=Lamps/CN=CA")
    same = maker("same", subject="/O=Lamps/CN=CA")
    turned = maker("turned", subject="/CN=CA/O=Lamps")
    subjects = [registration.read_authority(each.pem).subject for each in (made, same, turned)]
    assert subjects[0] == subjects[1] != subjects[2]
    assert all(len(bytes.fromhex(each)) == 32 for each in subjects)


@pytest.mark.needs("openssl")
def test_an_expired_certificate_is_not_current(maker: Maker) -> None:
    leaf = registration.read(maker("leaf", days=10).pem)
    registration.check_current(leaf, leaf.facts.not_before - timedelta(days=365))
    registration.check_current(leaf, leaf.facts.not_after - timedelta(seconds=1))
    with pytest.raises(CertificateValidationException, match="The certificate expired at 20"):
        registration.check_current(leaf, leaf.facts.not_after)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("subject", "said"),
    [(f"/CN={CODE}", CODE), (f"/C=DE/O=Lamps/CN={CODE}", CODE), ("/O=Lamps", None)],
)
def test_a_verification_certificate_says_its_common_name(
    maker: Maker, subject: str, said: str | None
) -> None:
    made = maker("ca")
    authority = registration.read_authority(made.pem)
    verification = maker("verification", made, subject=subject, extensions="none")
    assert registration.verified_code(verification.pem, authority, NOW) == said


@pytest.mark.needs("openssl")
def test_a_verification_certificate_proves_nothing_about_another_authority(maker: Maker) -> None:
    made, same_name, other = maker("ca"), maker("same", subject="/CN=ca"), maker("other")
    verification = maker("verification", made, subject=f"/CN={CODE}", extensions="none").pem
    for foreign, message in ((same_name, "its signature does not match"), (other, "its issuer is")):
        with pytest.raises(CertificateValidationException, match=message):
            registration.verified_code(verification, registration.read_authority(foreign.pem), NOW)
    authority = registration.read_authority(made.pem)
    with pytest.raises(CertificateValidationException, match="expired"):
        registration.verified_code(verification, authority, NOW + timedelta(days=400))
    with pytest.raises(CertificateValidationException, match="could not be parsed"):
        registration.verified_code("gibberish", authority, NOW)


@pytest.mark.parametrize(
    "text", ["", "gibberish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
)
def test_what_is_no_certificate_is_neither(text: str) -> None:
    for read in (registration.read, registration.read_authority):
        with pytest.raises(CertificateValidationException, match="could not be parsed"):
            read(text)


def _root() -> bytes:
    key = ec.derive_private_key(1, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), 77)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


ROOT = _root()


@settings(max_examples=4 * settings().max_examples)
@given(
    st.lists(st.tuples(st.integers(0, len(ROOT) - 1), st.integers(0, 255)), max_size=4),
    st.integers(0, len(ROOT)),
)
def test_damaged_bytes_raise_only_a_validation_error(
    changes: list[tuple[int, int]], size: int
) -> None:
    damaged = bytearray(ROOT)
    for at, value in changes:
        damaged[at] = value
    root = registration.read_authority(ROOT)
    for each in (bytes(damaged), bytes(damaged[:size])):
        try:
            registration.check_signed(registration.read_authority(each), root)
        except CertificateValidationException:
            continue
        assert each == ROOT or registration.read(each).facts.der == each
