"""The certificate of a CSR: what it says, who signed it, and when it opens the door."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtensionOID, NameOID

from tests.integration.fleet import (
    CSR,
    Fleet,
    register_topic,
    rsa_key,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.server import Server, run

SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lampen & Söhne"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, "4711"),
        x509.NameAttribute(NameOID.COMMON_NAME, "lamp"),
    ]
)

KEYS = [
    pytest.param(ec.generate_private_key(ec.SECP256R1()), id="P-256"),
    pytest.param(ec.generate_private_key(ec.SECP384R1()), id="P-384"),
    pytest.param(ec.generate_private_key(ec.SECP521R1()), id="P-521"),
    pytest.param(rsa_key(2048), id="RSA-2048"),
]


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("key", KEYS)
def test_it_carries_key_and_subject_and_chains_to_the_authority(
    server: Server,
    shared_fleet: Fleet,
    name: str,
    tmp_path: Path,
    *,
    key: CertificateIssuerPrivateKeyTypes,
) -> None:
    request = signing_request(key=key, subject=SUBJECT)
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(CSR)
        made, _ = device.create(request=request)
    pem = made["certificatePem"]
    certificate = x509.load_pem_x509_certificate(pem.encode())
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert certificate.public_key().public_bytes(*spki) == key.public_key().public_bytes(*spki)
    assert certificate.subject.public_bytes() == SUBJECT.public_bytes()
    assert certificate.version is x509.Version.v3
    assert certificate.not_valid_before_utc <= datetime.now(UTC) - timedelta(seconds=30)
    assert certificate.not_valid_after_utc == datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert [(each.oid, each.critical) for each in certificate.extensions] == [
        (ExtensionOID.AUTHORITY_KEY_IDENTIFIER, False),
        (ExtensionOID.SUBJECT_KEY_IDENTIFIER, False),
        (ExtensionOID.BASIC_CONSTRAINTS, True),
        (ExtensionOID.KEY_USAGE, True),
    ]
    lines = pem.splitlines()
    assert pem.endswith("-----END CERTIFICATE-----\n")
    assert "\r" not in pem
    assert {len(line) for line in lines[1:-2]} == {64}

    file = tmp_path / "device.pem"
    file.write_text(pem)
    verified = run(
        *("openssl", "verify", "-x509_strict", "-purpose", "sslclient"),
        *("-CAfile", str(server.ca_file), str(file)),
        cwd=tmp_path,
    )
    assert verified.returncode == 0, verified.stderr
    shown = run("openssl", "x509", "-in", str(file), "-noout", "-subject", cwd=tmp_path)
    assert "CN = lamp" in shown.stdout


def test_it_opens_the_door_only_once_registered(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path
) -> None:
    thing, register = shared_fleet.thing(name), register_topic(shared_fleet.template)
    with PahoDevice(server, shared_fleet.claim, f"claim-{name}") as device:
        device.listen(CSR, register)
        made, key = device.create()
        id_ = made["certificateId"]
        own = write_identity(tmp_path, thing, made["certificatePem"], key, id_)
        described = server.iot.describe_certificate(certificateId=id_)["certificateDescription"]
        assert described["status"] == "PENDING_ACTIVATION"
        for version in (4, 5):
            with pytest.raises(Refused), PahoDevice(server, own, thing, version=version):
                pass

        token = made["certificateOwnershipToken"]
        device.accepted(
            register,
            {"certificateOwnershipToken": token, "parameters": {"SerialNumber": name}},
        )
        with PahoDevice(server, own, thing) as registered:
            assert registered.publish(f"devices/{thing}/data", b"in") == 0
    described = server.iot.describe_certificate(certificateId=id_)["certificateDescription"]
    assert described["status"] == "ACTIVE"
    assert server.iot.list_thing_principals(thingName=thing)["principals"] == [own.arn]
    assert server.iot.list_principal_things(principal=own.arn)["things"] == [thing]
    policies = server.iot.list_attached_policies(target=own.arn)["policies"]
    assert [entry["policyName"] for entry in policies] == [shared_fleet.device_policy]
    assert server.iot.describe_thing(thingName=thing)["attributes"] == {"serial": name}


def test_activated_by_hand_it_may_still_do_nothing(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path
) -> None:
    """It has no policy: default deny, at CONNECT already."""
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(CSR)
        made, key = device.create()
    own = write_identity(tmp_path, name, made["certificatePem"], key, made["certificateId"])
    server.iot.update_certificate(certificateId=own.id, newStatus="ACTIVE")
    with pytest.raises(Refused), PahoDevice(server, own, name):
        pass


def test_an_empty_subject_gets_the_service_name(
    server: Server, shared_fleet: Fleet, name: str
) -> None:
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(CSR)
        made, _ = device.create(request=signing_request(subject=x509.Name([])))
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    assert certificate.subject.rfc4514_string() == "CN=AWS IoT Certificate"


def test_extensions_a_csr_asks_for_are_dropped(
    server: Server, shared_fleet: Fleet, name: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(SUBJECT)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM).decode()
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(CSR)
        made = device.accepted(CSR, {"certificateSigningRequest": pem})
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not constraints.value.ca
    assert len(list(certificate.extensions)) == 4
