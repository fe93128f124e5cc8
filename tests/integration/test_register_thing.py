"""RegisterThing over HTTP with boto3: the methods of its certificate, and whose rights count.

Source: AWS IoT API reference, RegisterThing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.integration.fleet import (
    Fleet,
    arn,
    create_identity,
    key_pem,
    policy_document,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice
from tests.integration.refusal import members, refusal
from tests.integration.server import Server


def body(policy: str, certificate: dict[str, Any] | None) -> str:
    resources: dict[str, Any] = {
        "device": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "ThingName"},
                "AttributePayload": {"serial": {"Ref": "Serial"}},
            },
        },
        "rights": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy}},
    }
    if certificate is not None:
        resources["identity"] = {"Type": "AWS::IoT::Certificate", "Properties": certificate}
    return json.dumps(
        {
            "Parameters": {
                "ThingName": {"Type": "String"},
                "Serial": {"Type": "String", "Default": "none"},
            },
            "Resources": resources,
        }
    )


def register(
    iot: Any, fleet: Fleet, certificate: dict[str, Any] | None, **parameters: str
) -> dict[str, Any]:
    return members(
        iot.register_thing(
            templateBody=body(fleet.device_policy, certificate),
            parameters={"ThingName": fleet.thing("1"), **parameters},
        )
    )


def test_a_device_connects_with_the_certificate_of_its_signing_request(
    server: Server, iot: Any, fleet: Fleet, tmp_path: Path
) -> None:
    request = signing_request("lamp")
    method = {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"}
    answer = register(iot, fleet, method, CSR=request.csr, Serial="7")
    assert set(answer) == {"certificatePem", "resourceArns"}
    assert set(answer["resourceArns"]) == {"device", "rights", "identity"}
    assert answer["resourceArns"]["device"] == arn(f"thing/{fleet.thing('1')}")
    assert answer["resourceArns"]["rights"] == arn(f"policy/{fleet.device_policy}")
    certificate = x509.load_pem_x509_certificate(answer["certificatePem"].encode())
    assert certificate.subject.rfc4514_string() == "CN=lamp"
    thing = iot.describe_thing(thingName=fleet.thing("1"))
    assert thing["attributes"] == {"serial": "7"}
    own = write_identity(
        tmp_path,
        "own",
        answer["certificatePem"],
        request.key,
        answer["resourceArns"]["identity"].rpartition("/")[2],
    )
    topic = f"devices/{fleet.thing('1')}/state"
    with PahoDevice(server, own, fleet.thing("1")) as device:
        assert device.subscribe(topic) == [1]
        device.publish(topic, b"on")
        assert device.message().payload == b"on"


def test_an_existing_certificate_twice(
    server: Server, iot: Any, fleet: Fleet, tmp_path: Path
) -> None:
    own = create_identity(server, tmp_path, "own")
    method = {"CertificateId": {"Ref": "Id"}}
    first = register(iot, fleet, method, Id=own.id)
    assert first["certificatePem"] == own.certificate.read_text()
    assert first["resourceArns"]["identity"] == own.arn
    assert register(iot, fleet, method, Id=own.id) == first
    with PahoDevice(server, own, fleet.thing("1")):
        pass
    principals = iot.list_thing_principals(thingName=fleet.thing("1"))["principals"]
    assert principals == [own.arn]


def signed(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
) -> str:
    """A certificate for a day, signed by an authority of this test's own."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_device_connects_with_a_certificate_of_a_registered_authority(
    server: Server, iot: Any, fleet: Fleet, name: str, tmp_path: Path
) -> None:
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_pem = signed(name, authority, name, authority, ca=True)
    pem = signed("lamp", key, name, authority)
    method = {"CertificatePem": {"Ref": "Pem"}, "CACertificatePem": {"Ref": "CA"}}
    unknown = refusal(
        iot.register_thing,
        templateBody=body(fleet.device_policy, method),
        parameters={"ThingName": fleet.thing("1"), "Pem": pem, "CA": ca_pem},
    )
    assert unknown.kind == (400, "ResourceRegistrationFailureException")
    iot.register_ca_certificate(caCertificate=ca_pem, certificateMode="SNI_ONLY", setAsActive=True)
    first = register(iot, fleet, method, Pem=pem, CA=ca_pem)
    assert register(iot, fleet, method, Pem=pem, CA=ca_pem) == first
    id_ = first["resourceArns"]["identity"].rpartition("/")[2]
    own = write_identity(tmp_path, "own", pem, key_pem(key), id_)
    with PahoDevice(server, own, fleet.thing("1")):
        pass


def test_no_certificate(iot: Any, fleet: Fleet) -> None:
    assert register(iot, fleet, None) == {
        "resourceArns": {
            "device": arn(f"thing/{fleet.thing('1')}"),
            "rights": arn(f"policy/{fleet.device_policy}"),
        }
    }


def test_a_reference_nothing_resolves(iot: Any, fleet: Fleet) -> None:
    no = refusal(
        iot.register_thing, templateBody=body(fleet.device_policy, {"CertificateId": {"Ref": "Id"}})
    )
    assert no.kind == (400, "InvalidRequestException")
    assert no.message == (
        "Invalid registration template. Cannot resolve reference value: {Ref=ThingName}"
    )


def test_a_failed_registration_leaves_nothing(iot: Any, fleet: Fleet) -> None:
    no = refusal(
        iot.register_thing,
        templateBody=body("absent", {"CertificateSigningRequest": signing_request().csr}),
        parameters={"ThingName": fleet.thing("1")},
    )
    assert no.kind == (400, "ResourceRegistrationFailureException")
    assert "policy `absent` does not exist" in no.message
    gone = refusal(iot.describe_thing, thingName=fleet.thing("1"))
    assert gone.kind == (404, "ResourceNotFoundException")


@pytest.fixture
def user(server: Server, name: str) -> Iterator[tuple[Any, Any]]:
    """An IAM user without rights: clients of `iam` as root and of `iot` as the user."""
    iam = server.client("iam")
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    own = server.client(
        aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"]
    )
    yield iam, own
    own.close()
    iam.close()


def test_the_callers_own_rights_count(
    server: Server, iot: Any, fleet: Fleet, name: str, user: tuple[Any, Any]
) -> None:
    iam, own = user
    parameters = {"ThingName": fleet.thing("1"), "CSR": signing_request().csr}
    template = body(fleet.device_policy, {"CertificateSigningRequest": {"Ref": "CSR"}})
    rights = [
        "iot:RegisterThing",
        "iot:DescribeThing",
        "iot:CreateCertificateFromCsr",
        "iot:CreateThing",
        "iot:AttachPolicy",
        "iot:AttachThingPrincipal",
    ]
    for number, missing in enumerate(rights):
        document = policy_document(
            {"Effect": "Allow", "Action": rights[:number], "Resource": "*"}
            if number
            else {"Effect": "Deny", "Action": "*", "Resource": "*"}
        )
        iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=document)
        no = refusal(own.register_thing, templateBody=template, parameters=parameters)
        assert no.kind == (403, "AccessDeniedException")
        assert f"is not authorized to perform: {missing}" in no.message
        gone = refusal(iot.describe_thing, thingName=fleet.thing("1"))
        assert gone.kind == (404, "ResourceNotFoundException")
    document = policy_document({"Effect": "Allow", "Action": rights, "Resource": "*"})
    iam.put_user_policy(UserName=name, PolicyName="rights", PolicyDocument=document)
    answer = own.register_thing(templateBody=template, parameters=parameters)
    assert answer["resourceArns"]["device"] == arn(f"thing/{fleet.thing('1')}")
