"""An authority of somebody's own, and what it signs: what the manufacturer of devices has."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.fleet import Identity, key_pem, write_identity

NEVER = datetime(2049, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Own:
    """An authority: what the manufacturer of the devices has."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def id(self) -> str:
        return id_of(self.certificate)


def id_of(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def subject(common_name: str, **others: str) -> x509.Name:
    """A name; `others` by the names that `NameOID` has for them."""
    more = [x509.NameAttribute(getattr(NameOID, oid), text) for oid, text in others.items()]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name), *more])


def sign(
    by: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    not_after: datetime = NEVER,
    *,
    is_ca: bool = False,
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .sign(by, hashes.SHA256())
    )


def authority(name: str, not_after: datetime = NEVER) -> Own:
    key = ec.generate_private_key(ec.SECP256R1())
    own = subject(name)
    return Own(own, key, sign(key, own, own, key, not_after, is_ca=True))


def device(
    directory: Path, own: Own, name: x509.Name, *chain: Own, not_after: datetime = NEVER
) -> Identity:
    """A device's files; the certificate's one has the `chain` behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = sign(own.key, own.name, name, key, not_after)
    pems = [leaf.public_bytes(serialization.Encoding.PEM).decode(), *(each.pem for each in chain)]
    return write_identity(
        directory, f"device-{id_of(leaf)[:8]}", "".join(pems), key_pem(key), id_of(leaf)
    )


def register(iot: Any, own: Own, **options: Any) -> str:
    """Registers an authority, ACTIVE and with auto registration; its id."""
    options = {"setAsActive": True, "allowAutoRegistration": True, **options}
    if options.get("certificateMode") != "SNI_ONLY":
        code = iot.get_registration_code()["registrationCode"]
        key = ec.generate_private_key(ec.SECP256R1())
        proof = sign(own.key, own.name, subject(code), key)
        pem = proof.public_bytes(serialization.Encoding.PEM).decode()
        options["verificationCertificate"] = pem
    made = iot.register_ca_certificate(caCertificate=own.pem, **options)
    assert made["certificateId"] == own.id
    return own.id


def template_body(policy: str) -> str:
    """Things by common name, in the style of the guide's sample."""
    return json.dumps(
        {
            "Parameters": {
                "AWS::IoT::Certificate::CommonName": {"Type": "String"},
                "AWS::IoT::Certificate::SerialNumber": {"Type": "String"},
                "AWS::IoT::Certificate::Id": {"Type": "String"},
            },
            "Resources": {
                "thing": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {
                        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
                        "AttributePayload": {
                            "serial": {"Ref": "AWS::IoT::Certificate::SerialNumber"}
                        },
                    },
                },
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
                },
                "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy}},
            },
        }
    )
