"""Issued certificates: their profile, byte by byte where it matters, and what OpenSSL says."""

import hashlib
import ipaddress
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetgate.errors import Error
from fleetgate.pki import csr, issue, pem, token, trust
from fleetgate.pki.trust import Authority
from tests.pki.conftest import RequestWith
from tests.pki.der import subject_der
from tests.pki.openssl import openssl

SERIAL = (1 << 158) + 1


@pytest.fixture
def certificate(
    authority: Authority, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> x509.Certificate:
    der = issue.issue(issue.DEVICE, authority, ec_key.public_key(), now=now, serial=SERIAL)
    return x509.load_der_x509_certificate(der)


def test_a_device_certificate_is_what_aws_issues(
    certificate: x509.Certificate, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    assert certificate.version is x509.Version.v3
    assert certificate.serial_number == SERIAL
    assert certificate.subject.rfc4514_string() == "CN=AWS IoT Certificate"
    assert certificate.not_valid_before_utc == now - timedelta(minutes=2)
    assert certificate.not_valid_after_utc.isoformat() == "2049-12-31T23:59:59+00:00"
    assert certificate.signature_algorithm_oid == SignatureAlgorithmOID.RSA_WITH_SHA256
    assert certificate.public_key() == ec_key.public_key()


def test_the_last_moment_is_written_as_aws_writes_it(certificate: x509.Certificate) -> None:
    assert b"\x17\x0d491231235959Z" in certificate.tbs_certificate_bytes


def test_the_extensions_are_aws_s_in_aws_s_order(
    certificate: x509.Certificate, authority: Authority, ec_key: ec.EllipticCurvePrivateKey
) -> None:
    assert [(each.oid, each.critical) for each in certificate.extensions] == [
        (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, False),
        (ExtensionOID.SUBJECT_KEY_IDENTIFIER, False),
        (ExtensionOID.BASIC_CONSTRAINTS, True),
        (ExtensionOID.KEY_USAGE, True),
    ]
    # RFC 5280 section 4.2.1.2 (1): SHA-1 of the bits of subjectPublicKey.
    point = ec_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier.digest == hashlib.sha1(point).digest()  # noqa: S324
    of_authority = authority.certificate.extensions.get_extension_for_class(
        x509.SubjectKeyIdentifier
    )
    assert certificate.extensions[0].value == x509.AuthorityKeyIdentifier(
        of_authority.value.digest, None, None
    )
    assert certificate.extensions[2].value == x509.BasicConstraints(ca=False, path_length=None)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.public_bytes().hex() == "03020780"  # digitalSignature alone


def test_the_signature_is_the_authority_s(
    certificate: x509.Certificate, authority: Authority
) -> None:
    certificate.verify_directly_issued_by(authority.certificate)
    authority.private_key.public_key().verify(
        certificate.signature,
        certificate.tbs_certificate_bytes,
        padding.PKCS1v15(),
        certificate.signature_hash_algorithm,  # type: ignore[arg-type]  # not None for RSA
    )


@pytest.mark.needs("openssl")
def test_openssl_accepts_and_describes_it(
    certificate: x509.Certificate, authority: Authority, now: datetime, tmp_path: Path
) -> None:
    authority_file, device_file = tmp_path / "ca.pem", tmp_path / "device.pem"
    authority_file.write_text(authority.certificate_pem())
    device_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    verified = openssl(
        f"verify -attime {now.timestamp():.0f} -x509_strict -purpose sslclient -CAfile",
        authority_file,
        device_file,
    )
    assert verified == f"{device_file}: OK\n"
    text = openssl("x509 -noout -text -nameopt show_type,utf8 -in", device_file)
    facts = [
        "Version: 3 (0x2)",
        "Signature Algorithm: sha256WithRSAEncryption",
        f"Issuer: OU=UTF8STRING:{trust.ISSUER}",
        "Not Before: Nov 20 11:58:00 2026 GMT",
        "Not After : Dec 31 23:59:59 2049 GMT",
        "Subject: CN=UTF8STRING:AWS IoT Certificate",
        "Public Key Algorithm: id-ecPublicKey",
        "NIST CURVE: P-256",
        "X509v3 Authority Key Identifier:",
        "X509v3 Subject Key Identifier:",
        "X509v3 Basic Constraints: critical",
        "CA:FALSE",
        "X509v3 Key Usage: critical",
        "Digital Signature",
    ]
    found = re.search(".*?".join(map(re.escape, facts)), text, re.DOTALL)
    assert found, text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    scalar=st.integers(1, 1 << 255),
    attributes=st.lists(
        st.tuples(
            st.sampled_from(["550403", "55040a", "55040b", "2a0304"]),
            st.sampled_from([(12, "utf-8"), (30, "utf-16-be")]),
            st.text(st.characters(exclude_characters="\0", codec="utf-16"), min_size=1, max_size=8),
        ),
        max_size=4,
    ),
)
def test_a_certificate_carries_the_key_and_the_subject_of_its_request(
    authority: Authority,
    now: datetime,
    scalar: int,
    attributes: list[tuple[str, tuple[int, str], str]],
) -> None:
    wide = [each for each in attributes if each[1][0] != 30 or max(each[2]) < "\U00010000"]
    subject = x509.Name.from_bytes(
        subject_der(*((oid, tag, text.encode(codec)) for oid, (tag, codec), text in wide))
    )
    key = ec.derive_private_key(scalar, ec.SECP256R1())
    der = issue.issue(issue.DEVICE, authority, key.public_key(), subject, now=now, serial=SERIAL)
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.public_key() == key.public_key()
    expected = subject if len(subject.rdns) else issue.DEVICE.subject
    assert certificate.subject.public_bytes() == expected.public_bytes()


@pytest.mark.parametrize("tag", [12, 19, 20, 22])
def test_the_string_types_of_a_request_survive(
    tag: int, request_with: RequestWith, authority: Authority, now: datetime
) -> None:
    subject = subject_der(("550403", tag, b"lamp"), ("550406", 19, b"DE"), ("550403", 12, b"x"))
    request = csr.parse(request_with(subject))
    der = issue.issue(
        issue.DEVICE, authority, request.public_key, request.subject, now=now, serial=SERIAL
    )
    assert x509.load_der_x509_certificate(der).subject.public_bytes() == subject
    assert request.spki_der in der


@pytest.mark.needs("openssl")
def test_a_request_s_extensions_do_not_survive(
    authority: Authority, ec_key: ec.EllipticCurvePrivateKey, now: datetime, tmp_path: Path
) -> None:
    asked = openssl(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lamp "
        "-addext basicConstraints=critical,CA:TRUE -addext subjectAltName=DNS:a.b -keyout",
        tmp_path / "key",
    )
    request = csr.parse(asked)
    der = issue.issue(
        issue.DEVICE, authority, request.public_key, request.subject, now=now, serial=SERIAL
    )
    certificate = x509.load_der_x509_certificate(der)
    assert len(certificate.extensions) == 4
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_claim_lives_five_minutes(
    authority: Authority, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    der = issue.issue(issue.CLAIM, authority, ec_key.public_key(), now=now, serial=1)
    facts = trust.inspect(der)
    assert facts.not_before == now - timedelta(minutes=2)
    assert facts.not_after == now + timedelta(minutes=5)


def test_a_certificate_does_not_outlive_its_authority(
    rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    name = x509.Name([])
    end = now + timedelta(days=30)
    public_key = rsa_key.public_key()
    short_lived = (
        x509.CertificateBuilder(name, name, public_key, 5, now, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(trust._SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .sign(rsa_key, hashes.SHA256())
    )
    authority = Authority(short_lived, rsa_key)
    der = issue.issue(issue.DEVICE, authority, ec_key.public_key(), now=now, serial=1)
    assert trust.inspect(der).not_after == end


@pytest.mark.parametrize("serial", [0, -1, 1 << 159])
def test_a_serial_number_has_at_most_20_octets(
    serial: int, authority: Authority, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    with pytest.raises(ValueError, match="a serial number is from 1"):
        issue.issue(issue.DEVICE, authority, ec_key.public_key(), now=now, serial=serial)


def test_the_reply_to_a_request_fits_into_2048_bytes(
    certificate: x509.Certificate, authority: Authority, now: datetime
) -> None:
    """The network buffer of AWS's demos for embedded devices."""
    text = pem.encode("CERTIFICATE", certificate.public_bytes(Encoding.DER))
    facts = trust.inspect(text)
    ownership = token.Ownership("123456789012", "ap-southeast-1", facts.certificate_id, now)
    reply = {
        "certificateOwnershipToken": token.seal(bytes(32), ownership, bytes(12)),
        "certificateId": facts.certificate_id,
        "certificatePem": text,
    }
    packet = len("$aws/certificates/create-from-csr/json/accepted") + 16 + len(json.dumps(reply))
    assert packet < 2048


HOSTS = ["localhost", "fleet.example.com", "*.iot.example.com", "127.0.0.1", "::1"]


@pytest.mark.needs("openssl")
def test_a_server_certificate_names_its_hosts_in_order(
    authority: Authority, ec_key: ec.EllipticCurvePrivateKey, now: datetime, tmp_path: Path
) -> None:
    der = issue.issue(
        issue.SERVER, authority, ec_key.public_key(), now=now, serial=2, host_names=HOSTS
    )
    certificate = x509.load_der_x509_certificate(der)
    find = certificate.extensions.get_extension_for_class
    assert find(x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH]
    )
    names = find(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == [
        *HOSTS[:3],
        ipaddress.ip_address("127.0.0.1"),
        ipaddress.ip_address("::1"),
    ]
    (tmp_path / "ca.pem").write_text(authority.certificate_pem())
    (tmp_path / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    for check in ("-verify_hostname a.iot.example.com", "-verify_ip ::1"):
        openssl(
            f"verify -attime {now.timestamp():.0f} -x509_strict -purpose sslserver {check} -CAfile",
            tmp_path / "ca.pem",
            tmp_path / "server.pem",
        )


@pytest.mark.parametrize(
    "host",
    ["", "a b", "-", "a..b", "x" * 64, "a." * 127 + "b", "*", "a.*.b", "münchen", "1.2.3.4/8"],
)
def test_a_host_that_is_none_is_refused(
    host: str, authority: Authority, ec_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    with pytest.raises(Error, match="is neither a DNS name nor an IP address"):
        issue.issue(
            issue.SERVER, authority, ec_key.public_key(), now=now, serial=2, host_names=[host]
        )
