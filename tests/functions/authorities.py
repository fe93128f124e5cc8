"""Authorities of operators for tests: a key and a certificate of any content, in files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from fleetgate.functions.target import Run

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    """A name of a country, two organizations and the common name `text`, in that odd order."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, text),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Beispiel GmbH"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Zweite"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        ]
    )


@dataclass(frozen=True)
class Files:
    """An authority: `key_file` has mode 0600."""

    certificate_file: Path
    key_file: Path
    certificate: x509.Certificate
    key: Key


SIGNS = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
NEVER_SIGNS = x509.KeyUsage(True, False, False, False, False, False, False, False, False)


def make(
    directory: Path,
    key: Key | None = None,
    *,
    by: Files | None = None,
    called: str = "ca",
    begin: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=3650),
    extensions: Sequence[x509.ExtensionType] = (x509.BasicConstraints(True, None), SIGNS),
    identified: bool = True,
) -> Files:
    """An authority in files, self-signed or signed `by` another."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    subject = name(called)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    if identified:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    certificate = builder.sign(by.key if by else key, hashes.SHA256())
    files = Files(directory / f"{called}.pem", directory / f"{called}.key", certificate, key)
    files.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    write_key(files.key_file, key)
    return files


def write_key(path: Path, key: Key, passphrase: str = "") -> None:
    """The key as PKCS#8, encrypted with a passphrase."""
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)


def request(
    subject: x509.Name | None = None,
    key: Key | None = None,
    extensions: Iterable[x509.ExtensionType] = (),
) -> str:
    """A signing request (PEM)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        name("device-1") if subject is None else subject
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    key = key or ec.generate_private_key(ec.SECP256R1())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def event(csr: str) -> bytes:
    """What a certificate provider is given."""
    return msgspec.json.encode(
        {"certificateSigningRequest": csr, "principalId": "c" * 64, "clientId": "device-1"}
    )


def certificates(run: Run) -> list[x509.Certificate]:
    """The certificates of an answer."""
    assert run.error == "", run.payload
    answer = msgspec.json.decode(run.payload)
    assert list(answer) == ["certificatePem"]
    return x509.load_pem_x509_certificates(answer["certificatePem"].encode())


def refusal(run: Run) -> tuple[str, str]:
    """Type and message of an answer without certificate."""
    assert run.error == "Unhandled"
    answer = msgspec.json.decode(run.payload)
    return answer["errorType"], answer["errorMessage"]
