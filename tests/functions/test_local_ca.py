"""`local-ca` with its key in a file, and its profile."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    SignatureAlgorithmOID,
)

from fleetgate.functions import local_ca
from fleetgate.functions.target import Run
from tests.functions import authorities
from tests.functions.authorities import NEVER_SIGNS, NOW, SIGNS, Files, event

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def function(directory: Path, **options: Any) -> local_ca.LocalCa:
    given = {"certificate": "ca.pem", "key": "ca.key", **options}
    return local_ca.from_options(
        "mine",
        {name: value for name, value in given.items() if value is not None},
        directory,
        now=lambda: NOW,
        random_bytes=lambda count: b"\xf1" * count,
    )


def run(directory: Path, csr: str = "", **options: Any) -> Run:
    asked = event(csr or authorities.request())
    return asyncio.run(function(directory, **options).invoke(asked, request_id="1", seconds=5))


@pytest.fixture
def ca(tmp_path: Path) -> Files:
    return authorities.make(tmp_path)


def test_a_request_is_signed_with_its_own_key_and_subject(ca: Files, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = authorities.request(key=key)

    (signed,) = authorities.certificates(run(tmp_path, csr))

    signed.verify_directly_issued_by(ca.certificate)
    assert signed.public_key() == key.public_key()
    asked = x509.load_pem_x509_csr(csr.encode())
    assert signed.subject.public_bytes() == asked.subject.public_bytes()
    assert signed.not_valid_before_utc == NOW - timedelta(seconds=120)
    assert signed.not_valid_after_utc == NOW + timedelta(days=365)
    assert signed.serial_number == int.from_bytes(b"\x71" + b"\xf1" * 19)  # 159 bits
    found = {each.value.__class__.__name__: each for each in signed.extensions}
    assert found["BasicConstraints"].critical
    assert found["BasicConstraints"].value == x509.BasicConstraints(False, None)
    assert found["KeyUsage"].value == NEVER_SIGNS
    assert found["ExtendedKeyUsage"].value == x509.ExtendedKeyUsage([CLIENT])
    assert set(found) == {
        "BasicConstraints",
        "KeyUsage",
        "ExtendedKeyUsage",
        "AuthorityKeyIdentifier",
        "SubjectKeyIdentifier",
    }


def test_extensions_of_a_request_do_not_survive(ca: Files, tmp_path: Path) -> None:
    wanted = [
        x509.SubjectAlternativeName([x509.DNSName("gateway.example")]),
        x509.BasicConstraints(True, None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ]
    (signed,) = authorities.certificates(run(tmp_path, authorities.request(extensions=wanted)))
    find = signed.extensions.get_extension_for_class
    assert not find(x509.BasicConstraints).value.ca
    assert list(find(x509.ExtendedKeyUsage).value) == [CLIENT]
    with pytest.raises(x509.ExtensionNotFound):
        find(x509.SubjectAlternativeName)


def test_an_empty_subject_stays_empty(ca: Files, tmp_path: Path) -> None:
    (signed,) = authorities.certificates(run(tmp_path, authorities.request(x509.Name([]))))
    assert list(signed.subject) == []


def test_the_profile_says_what_else_a_certificate_holds(ca: Files, tmp_path: Path) -> None:
    (signed,) = authorities.certificates(
        run(
            tmp_path,
            validity_days=30,
            backdate_seconds=0,
            key_usage=["digitalSignature", "keyEncipherment"],
            extended_key_usage=["clientAuth", "1.3.6.1.4.1.99999.7"],
            policies=["2.5.29.32.0"],
            crl_url="http://crl.example/ca.crl",
            ocsp_url="http://ocsp.example",
            issuer_url="http://ca.example/ca.cer",
        )
    )
    find = signed.extensions.get_extension_for_class
    assert signed.not_valid_before_utc == NOW
    assert signed.not_valid_after_utc == NOW + timedelta(days=30)
    assert find(x509.KeyUsage).value.key_encipherment
    usage = [each.dotted_string for each in find(x509.ExtendedKeyUsage).value]
    assert usage == [CLIENT.dotted_string, "1.3.6.1.4.1.99999.7"]
    assert find(x509.CertificatePolicies).value[0].policy_identifier.dotted_string == "2.5.29.32.0"
    (point,) = find(x509.CRLDistributionPoints).value
    assert point.full_name == [x509.UniformResourceIdentifier("http://crl.example/ca.crl")]
    places = {each.access_method: each.access_location.value for each in find(_AIA).value}
    assert places == {
        AuthorityInformationAccessOID.OCSP: "http://ocsp.example",
        AuthorityInformationAccessOID.CA_ISSUERS: "http://ca.example/ca.cer",
    }


_AIA = x509.AuthorityInformationAccess

# The hash is as strong as the curve: FIPS 186-5 section 6.1.1, SP 800-57 part 1 table 3.
ALGORITHMS: list[tuple[Callable[[], authorities.Key], x509.ObjectIdentifier]] = [
    (lambda: ec.generate_private_key(ec.SECP256R1()), SignatureAlgorithmOID.ECDSA_WITH_SHA256),
    (lambda: ec.generate_private_key(ec.SECP384R1()), SignatureAlgorithmOID.ECDSA_WITH_SHA384),
    (lambda: ec.generate_private_key(ec.SECP521R1()), SignatureAlgorithmOID.ECDSA_WITH_SHA512),
    (lambda: rsa.generate_private_key(65537, 2048), SignatureAlgorithmOID.RSA_WITH_SHA256),
]


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(("make", "algorithm"), ALGORITHMS, ids=["p256", "p384", "p521", "rsa"])
def test_openssl_verifies_what_any_kind_of_key_signs(
    make: Callable[[], authorities.Key], algorithm: x509.ObjectIdentifier, tmp_path: Path
) -> None:
    authorities.make(tmp_path, make())
    (signed,) = authorities.certificates(run(tmp_path))
    assert signed.signature_algorithm_oid == algorithm
    file = tmp_path / "device.pem"
    file.write_bytes(signed.public_bytes(Encoding.PEM))
    openssl = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient"]
    moment = ["-attime", str(int(NOW.timestamp()))]
    command = [*openssl, *moment, "-CAfile", str(tmp_path / "ca.pem"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("identified", [True, False])
def test_a_certificate_names_the_key_that_signed_it(identified: bool, tmp_path: Path) -> None:
    """RFC 5280 section 4.2.1.1; without an identifier of its own the authority's key gives it."""
    ca = authorities.make(tmp_path, identified=identified)
    (signed,) = authorities.certificates(run(tmp_path))
    found = signed.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found == x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())


def test_a_certificate_ends_with_its_authority_and_does_not_begin_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begin, end = NOW - timedelta(seconds=5), NOW + timedelta(days=100)
    authorities.make(tmp_path, begin=begin, end=end)
    with caplog.at_level(logging.WARNING, "fleetgate"):
        done = run(tmp_path)
    (signed,) = authorities.certificates(done)
    assert (signed.not_valid_before_utc, signed.not_valid_after_utc) == (begin, end)
    assert "ends with the authority's" in done.log
    assert "event=authority.short function=mine not_after=2027-02-28" in caplog.text


def test_an_authority_that_ends_soon_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authorities.make(tmp_path, end=NOW + timedelta(days=29, hours=1))
    with caplog.at_level(logging.WARNING, "fleetgate"):
        function(tmp_path, validity_days=1)
    assert "event=authority.ends function=mine not_after=2026-12-19T13:00:00" in caplog.text
    assert "days=29" in caplog.text


def test_an_authority_whose_purposes_do_not_fit_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    authorities.make(tmp_path, extensions=[x509.BasicConstraints(True, None), SIGNS, purpose])
    with caplog.at_level(logging.WARNING, "fleetgate"):
        function(tmp_path)
    assert "event=authority.purpose function=mine purposes=1.3.6.1.5.5.7.3.2" in caplog.text


def test_an_authority_that_ended_meanwhile_signs_no_more(tmp_path: Path) -> None:
    authorities.make(tmp_path, end=NOW + timedelta(hours=1))
    clock = [NOW]
    mine = local_ca.from_options(
        "mine", {"certificate": "ca.pem", "key": "ca.key"}, tmp_path, now=lambda: clock[0]
    )
    clock[0] += timedelta(hours=1)
    asked = event(authorities.request())
    kind, message = authorities.refusal(asyncio.run(mine.invoke(asked, request_id="1", seconds=5)))
    assert kind == "AuthorityNotValid"
    assert message.endswith("it ended at 2026-11-20T13:00:00Z")


def test_the_chain_is_what_stands_in_the_file(tmp_path: Path) -> None:
    root = authorities.make(tmp_path, called="root")
    ca = authorities.make(tmp_path, by=root)
    both = ca.certificate_file.read_bytes() + root.certificate_file.read_bytes()
    ca.certificate_file.write_bytes(both)
    signed, *above = authorities.certificates(run(tmp_path, chain=True))
    assert above == [ca.certificate, root.certificate]
    signed.verify_directly_issued_by(ca.certificate)
    assert len(authorities.certificates(run(tmp_path, chain=False))) == 1


def test_an_encrypted_key_needs_its_passphrase(ca: Files, tmp_path: Path) -> None:
    authorities.write_key(ca.key_file, ca.key, "tuer-und-tor")
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("tuer-und-tor\n")
    passphrase.chmod(0o600)
    authorities.certificates(run(tmp_path, passphrase_file="passphrase"))
    with pytest.raises(ValueError, match=r"^`key`: `.*/ca.key` is encrypted; `passphrase_file` is"):
        function(tmp_path)
    passphrase.write_text("falsch")
    with pytest.raises(ValueError, match=r"no private key in PEM .* with the passphrase") as caught:
        function(tmp_path, passphrase_file="passphrase")
    assert "falsch" not in str(caught.value)
    authorities.write_key(ca.key_file, ca.key)
    with pytest.raises(ValueError, match=r"is not encrypted, but `passphrase_file` is given"):
        function(tmp_path, passphrase_file="passphrase")


WRONG_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"certificate": None}, "`certificate` is required: a file is expected"),
    ({"certificate": 5}, "`certificate` has to be a text, not 5"),
    ({"certificate": "no.pem"}, "`certificate`: `{dir}/no.pem` cannot be read: No such file"),
    ({"certificate": "ca.key"}, "`certificate`: `{dir}/ca.key`: "),
    ({"key": None}, "one of `key` (a file) and `pkcs11` (a token) is required"),
    ({"pkcs11": {}}, "one of `key` (a file) and `pkcs11` (a token) is required"),
    ({"key": "ca.pem"}, "`key`: `{dir}/ca.pem` holds a secret and has mode 0644; others than"),
    ({"key": "text"}, "`key`: `{dir}/text`: no private key in PEM that can be read"),
    ({"key": "other.key"}, "`key`: `{dir}/other.key` is not the key of the certificate in `{dir}/"),
    ({"key": "ed.key"}, "`key`: `{dir}/ed.key` has to be an RSA or an EC key"),
    ({"validity_days": 0}, "`validity_days` has to be a whole number from 1 to 36500, not 0"),
    ({"validity_days": True}, "`validity_days` has to be a whole number from 1 to 36500, not True"),
    ({"backdate_seconds": -1}, "`backdate_seconds` has to be a whole number from 0 to 604800"),
    ({"chain": "yes"}, "`chain` has to be true or false, not `yes`"),
    ({"key_usage": ["keyCertSign"]}, "`key_usage` is one or more of digitalSignature, "),
    ({"key_usage": []}, "`key_usage` is one or more of digitalSignature, "),
    ({"extended_key_usage": ["x"]}, "`extended_key_usage` is a list of clientAuth, serverAuth, "),
    ({"extended_key_usage": "clientAuth"}, "`extended_key_usage` has to be a list of texts, not"),
    ({"policies": ["1.2.x"]}, "`policies` is a list of OIDs like 1.3.6.1.4.1.99999.1, not `1.2.x`"),
    ({"crl_url": "ldap://x"}, "`crl_url`: a URL that begins with http:// is expected, not `ldap:"),
    ({"days": 5}, "`days` is not an option; there are `backdate_seconds`, `certificate`, `chain`,"),
]


@pytest.mark.parametrize(
    ("options", "message"), WRONG_OPTIONS, ids=[str(o) for o, _ in WRONG_OPTIONS]
)
def test_a_wrong_option_is_told(
    options: dict[str, Any], message: str, ca: Files, tmp_path: Path
) -> None:
    authorities.write_key(tmp_path / "other.key", ec.generate_private_key(ec.SECP384R1()))
    ed = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "ed.key").write_bytes(
        ed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (tmp_path / "text").write_text("no key")
    for file in ("ed.key", "text"):
        (tmp_path / file).chmod(0o600)
    with pytest.raises(ValueError) as caught:
        function(tmp_path, **options)
    assert str(caught.value).startswith(message.replace("{dir}", str(tmp_path)))


CA = x509.BasicConstraints(True, None)
# Source: RFC 5280 sections 4.2.1.9, 4.2.1.3 and 4.1.2.5.
WEAK: dict[str, Callable[[], authorities.Key]] = {
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - refused
}
WRONG_AUTHORITIES: list[tuple[dict[str, Any], str]] = [
    ({"extensions": [SIGNS]}, "it has no basic constraints; an authority's says CA:TRUE"),
    ({"extensions": [x509.BasicConstraints(False, None), SIGNS]}, "its basic constraints say CA:F"),
    ({"extensions": [CA]}, "it has no key usage; an authority's names keyCertSign"),
    ({"extensions": [CA, NEVER_SIGNS]}, "its key usage does not name keyCertSign"),
    ({"begin": NOW + timedelta(1)}, "it is not valid before 2026-11-21T12:00:00Z"),
    ({"end": NOW}, "it ended at 2026-11-20T12:00:00Z"),
    ({"key": "secp256k1"}, "an EC key needs one of the curves P-256, "),
    ({"key": "rsa-1024"}, "an RSA key needs at least 2048 bits, not 1024"),
]


@pytest.mark.parametrize(("made", "rule"), WRONG_AUTHORITIES, ids=[r for _, r in WRONG_AUTHORITIES])
def test_a_certificate_that_is_no_authoritys_is_told(
    made: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    if "key" in made:
        made = {**made, "key": WEAK[made["key"]]()}
    authorities.make(tmp_path, **made)
    with pytest.raises(ValueError) as caught:
        function(tmp_path)
    assert str(caught.value).startswith(f"`certificate`: `{tmp_path}/ca.pem`: {rule}")


def test_a_chain_that_does_not_fit_is_told(ca: Files, tmp_path: Path) -> None:
    other = authorities.make(tmp_path, called="other")
    both = ca.certificate_file.read_bytes() + other.certificate_file.read_bytes()
    ca.certificate_file.write_bytes(both)
    with pytest.raises(ValueError, match=r"but `.*CN=ca` is followed by `.*CN=other`"):
        function(tmp_path)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        (b"no json", "InvalidEvent", "a certificate provider is given an object with"),
        (b"[]", "InvalidEvent", "a certificate provider is given an object with"),
        (b"{}", "InvalidEvent", "a certificate provider is given an object with"),
        (event("text"), "InvalidCsr", "invalid certificate signing request: exactly one PEM block"),
    ],
)
def test_what_is_no_request_is_refused(
    asked: bytes, kind: str, message: str, ca: Files, tmp_path: Path
) -> None:
    done = asyncio.run(function(tmp_path).invoke(asked, request_id="1", seconds=5))
    told = authorities.refusal(done)
    assert told[0] == kind
    assert told[1].startswith(message)
    assert done.log.startswith(kind)


def test_a_signature_is_logged_with_its_serial_number(
    ca: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fleetgate"):
        (signed,) = authorities.certificates(run(tmp_path))
    line = f"event=signed function=mine request=1 serial={signed.serial_number:x}"
    assert line in caplog.text
    assert isinstance(signed.signature_hash_algorithm, hashes.SHA384)
