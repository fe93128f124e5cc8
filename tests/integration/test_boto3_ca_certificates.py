"""CA certificates, what they signed, and transfers, through boto3 and the aws command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import ROLE, arn, signing_request
from tests.integration.refusal import everything, members, pages, refusal
from tests.integration.server import ACCOUNT, REGION, Server, run
from tests.pki.openssl_ca import Made, make

Maker = Callable[..., Made]
UNKNOWN = "0" * 64
BODY = json.dumps(
    {
        "Parameters": {"AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
            },
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": {"Ref": "AWS::IoT::Certificate::Id"}},
            },
        },
    }
)

pytestmark = pytest.mark.needs("openssl")


@pytest.fixture
def maker(tmp_path: Path, name: str) -> Maker:
    """A function (name, signer, ...) -> Made; names of certificates are this test's own."""
    return lambda each, *rest, **more: make(
        tmp_path, each, *rest, **{"subject": f"/CN={each} {name}", **more}
    )


@pytest.fixture
def registered(iot: Any, maker: Maker) -> tuple[Made, str]:
    """An active CA in DEFAULT mode, and its id."""
    made = maker("CA")
    return made, register(iot, maker, made, setAsActive=True)


def register(iot: Any, maker: Maker, made: Made, **options: Any) -> str:
    code = iot.get_registration_code()["registrationCode"]
    proof = maker("verification", made, subject=f"/CN={code}", extensions="none")
    answer = iot.register_ca_certificate(
        caCertificate=made.pem, verificationCertificate=proof.pem, **options
    )
    return str(answer["certificateId"])


def test_a_ca_certificate_lives_and_dies(iot: Any, maker: Maker) -> None:
    made = maker("CA")
    tags = [{"Key": "site", "Value": "Basel"}]
    config = {"templateBody": BODY, "roleArn": ROLE}
    id_ = register(
        iot, maker, made, allowAutoRegistration=True, registrationConfig=config, tags=tags
    )
    answer = members(iot.describe_ca_certificate(certificateId=id_))
    description = answer["certificateDescription"]
    for moment in (description.pop("creationDate"), description.pop("lastModifiedDate")):
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert description.pop("validity")["notAfter"] > datetime.now(UTC)
    assert re.fullmatch("[0-9a-f-]+", description.pop("generationId"))
    assert answer == {
        "certificateDescription": {
            "certificateArn": arn(f"cacert/{id_}"),
            "certificateId": id_,
            "status": "INACTIVE",
            "certificatePem": made.pem,
            "ownedBy": ACCOUNT,
            "autoRegistrationStatus": "ENABLE",
            "customerVersion": 1,
            "certificateMode": "DEFAULT",
        },
        "registrationConfig": config,
    }
    assert iot.list_tags_for_resource(resourceArn=arn(f"cacert/{id_}"))["tags"] == tags
    changed = iot.update_ca_certificate(
        certificateId=id_, newStatus="ACTIVE", newAutoRegistrationStatus="DISABLE"
    )
    assert members(changed) == {}
    iot.update_ca_certificate(certificateId=id_, removeAutoRegistration=True)
    answer = members(iot.describe_ca_certificate(certificateId=id_))
    assert "registrationConfig" not in answer
    assert answer["certificateDescription"]["status"] == "ACTIVE"
    assert answer["certificateDescription"]["customerVersion"] == 3
    active = refusal(iot.delete_ca_certificate, certificateId=id_)
    assert active.kind == (406, "CertificateStateException")
    iot.update_ca_certificate(certificateId=id_, newStatus="INACTIVE")
    assert members(iot.delete_ca_certificate(certificateId=id_)) == {}
    gone = refusal(iot.describe_ca_certificate, certificateId=id_)
    assert gone.kind == (404, "ResourceNotFoundException")


def test_refusals_of_a_registration(iot: Any, maker: Maker, registered: tuple[Made, str]) -> None:
    made, id_ = registered
    twice = refusal(register, iot=iot, maker=maker, made=made)
    assert twice.kind == (409, "ResourceAlreadyExistsException")
    assert twice.response["resourceId"] == id_
    assert twice.response["resourceArn"] == arn(f"cacert/{id_}")

    other = maker("other")
    unproved = refusal(iot.register_ca_certificate, caCertificate=other.pem)
    assert unproved.kind == (400, "InvalidRequestException")
    wrong = refusal(
        iot.register_ca_certificate,
        caCertificate=other.pem,
        verificationCertificate=maker("x", other, extensions="none").pem,
    )
    assert wrong.kind == (400, "RegistrationCodeValidationException")
    foreign = refusal(
        iot.register_ca_certificate,
        caCertificate=other.pem,
        verificationCertificate=maker("y", made, extensions="none").pem,
    )
    assert foreign.kind == (400, "CertificateValidationException")
    leaf = refusal(
        iot.register_ca_certificate,
        caCertificate=maker("leaf", extensions="leaf").pem,
        certificateMode="SNI_ONLY",
    )
    assert leaf.kind == (400, "CertificateValidationException")


def test_certificates_are_registered_and_listed_by_ca(
    iot: Any, maker: Maker, registered: tuple[Made, str]
) -> None:
    made, ca_id = registered
    ids = []
    for number in range(3):
        leaf = maker(f"lamp-{number}", made, extensions="leaf")
        answer = members(iot.register_certificate(certificatePem=leaf.pem, status="ACTIVE"))
        assert answer["certificateArn"] == arn(f"cert/{answer['certificateId']}")
        ids.append(answer["certificateId"])
    described = iot.describe_certificate(certificateId=ids[0])["certificateDescription"]
    assert described["caCertificateId"] == ca_id
    assert described["status"] == "ACTIVE"
    listed = pages(iot, "list_certificates_by_ca", "certificates", 2, caCertificateId=ca_id)
    assert [len(page) for page in listed] == [2, 1]
    assert {each["certificateId"] for page in listed for each in page} == set(ids)
    twice = refusal(iot.register_certificate, certificatePem=leaf.pem)
    assert twice.kind == (409, "ResourceAlreadyExistsException")
    assert twice.response["resourceId"] == ids[-1]
    own = refusal(iot.register_certificate, certificatePem=maker("stray", extensions="leaf").pem)
    assert own.kind == (406, "CertificateStateException")
    assert own.message == "No CA certificate exists for the given certificate"


def test_two_cas_of_one_subject_conflict(
    iot: Any, maker: Maker, registered: tuple[Made, str], name: str
) -> None:
    first, _ = registered
    iot.register_ca_certificate(
        caCertificate=maker("twin", subject=f"/CN=CA {name}").pem,
        certificateMode="SNI_ONLY",
        setAsActive=True,
    )
    leaf = maker("lamp", first, extensions="leaf").pem
    refused = refusal(iot.register_certificate, certificatePem=leaf)
    assert refused.kind == (409, "CertificateConflictException")
    iot.register_certificate(certificatePem=leaf, caCertificatePem=first.pem)


def test_ca_certificates_are_listed(iot: Any, registered: tuple[Made, str]) -> None:
    _, id_ = registered
    for ascending in (True, False):
        listed = everything(iot, "list_ca_certificates", "certificates", ascendingOrder=ascending)
        dates = [each["creationDate"] for each in listed]
        assert dates == sorted(dates, reverse=not ascending)
        (found,) = [each for each in listed if each["certificateId"] == id_]
        assert set(found) == {"certificateArn", "certificateId", "status", "creationDate"}
    assert iot.list_ca_certificates(templateName="nowhere")["certificates"] == []


def test_the_registration_code(iot: Any) -> None:
    code = iot.get_registration_code()["registrationCode"]
    assert re.fullmatch("[0-9a-f]{64}", code)
    assert members(iot.delete_registration_code()) == {}
    assert iot.get_registration_code()["registrationCode"] != code


def test_a_certificate_is_transferred_and_comes_back(iot: Any) -> None:
    made = iot.create_certificate_from_csr(certificateSigningRequest=signing_request().csr)
    id_ = made["certificateId"]
    answer = iot.transfer_certificate(
        certificateId=id_, targetAwsAccount="210987654321", transferMessage="take it"
    )
    there = f"arn:aws:iot:{REGION}:210987654321:cert/{id_}"
    assert members(answer) == {"transferredCertificateArn": there}
    listed = everything(iot, "list_outgoing_certificates", "outgoingCertificates")
    (outgoing,) = [each for each in listed if each["certificateId"] == id_]
    assert outgoing["transferredTo"] == "210987654321"
    assert outgoing["transferMessage"] == "take it"
    described = iot.describe_certificate(certificateId=id_)["certificateDescription"]
    assert described["status"] == "PENDING_TRANSFER"
    assert described["transferData"]["transferMessage"] == "take it"
    for operation in (iot.accept_certificate_transfer, iot.reject_certificate_transfer):
        refused = refusal(operation, certificateId=id_)
        assert refused.kind == (400, "InvalidRequestException")
    assert members(iot.cancel_certificate_transfer(certificateId=id_)) == {}
    described = iot.describe_certificate(certificateId=id_)["certificateDescription"]
    assert (described["status"], described["transferData"]) == ("INACTIVE", {})


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("describe_ca_certificate", {}),
        ("update_ca_certificate", {"newStatus": "ACTIVE"}),
        ("delete_ca_certificate", {}),
        ("transfer_certificate", {"targetAwsAccount": "210987654321"}),
        ("cancel_certificate_transfer", {}),
        ("accept_certificate_transfer", {}),
        ("reject_certificate_transfer", {}),
    ],
)
def test_an_unknown_one_is_not_found(iot: Any, operation: str, more: dict[str, Any]) -> None:
    refused = refusal(getattr(iot, operation), certificateId=UNKNOWN, **more)
    assert refused.kind == (404, "ResourceNotFoundException")
    assert UNKNOWN in refused.message


PROCEDURE = """
set -euo pipefail
eval "$(fleetgate env --data "$1")"
code=$(aws iot get-registration-code --query registrationCode --output text)
openssl genrsa -out root_CA_key_filename.key 2048
printf '[ req ]\\ndistinguished_name = req_distinguished_name\\nextensions = v3_ca\\n' > openssl.cnf
printf 'req_extensions = v3_ca\\n[ v3_ca ]\\nbasicConstraints = CA:TRUE\\n' >> openssl.cnf
printf '[ req_distinguished_name ]\\ncountryName = Country Name\\n' >> openssl.cnf
openssl req -new -sha256 -key root_CA_key_filename.key -nodes -out root_CA_req_filename.csr \\
    -config openssl.cnf -subj "/C=DE/O=Lamps/CN=$2"
openssl x509 -req -days 3650 -extfile openssl.cnf -extensions v3_ca -in root_CA_req_filename.csr \\
    -signkey root_CA_key_filename.key -out root_CA_cert_filename.pem
openssl genrsa -out verification_cert_key_filename.key 2048
openssl req -new -key verification_cert_key_filename.key \\
    -out verification_cert_csr_filename.csr -subj "/CN=$code"
openssl x509 -req -in verification_cert_csr_filename.csr -CA root_CA_cert_filename.pem \\
    -CAkey root_CA_key_filename.key -CAcreateserial -out verification_cert_filename.pem \\
    -days 500 -sha256
aws iot register-ca-certificate --ca-certificate file://root_CA_cert_filename.pem \\
    --verification-cert file://verification_cert_filename.pem --set-as-active \\
    --query certificateId --output text > ca.id
openssl genrsa -out device_cert_key_filename.key 2048
openssl req -new -key device_cert_key_filename.key -out device_cert_csr_filename.csr \\
    -subj "/CN=lamp"
openssl x509 -req -in device_cert_csr_filename.csr -CA root_CA_cert_filename.pem \\
    -CAkey root_CA_key_filename.key -CAcreateserial -out device_cert_filename.pem \\
    -days 500 -sha256
aws iot register-certificate --certificate-pem file://device_cert_filename.pem \\
    --ca-certificate-pem file://root_CA_cert_filename.pem --set-as-active
aws iot describe-ca-certificate --certificate-id "$(cat ca.id)" > ca.json
aws iot list-certificates-by-ca --ca-certificate-id "$(cat ca.id)" > devices.json
"""
"""AWS IoT Core Developer Guide, "Create a CA certificate", "Register a CA certificate in DEFAULT
mode", "Create a client certificate", "Register a client certificate signed by a registered CA"."""


def test_the_procedure_of_awss_guide(server: Server, name: str, tmp_path: Path) -> None:
    done = run("bash", "-c", PROCEDURE, "x", str(server.data), name, cwd=tmp_path, seconds=120)
    assert done.returncode == 0, done.stderr
    ca_id = (tmp_path / "ca.id").read_text().strip()
    described = json.loads((tmp_path / "ca.json").read_text())["certificateDescription"]
    assert described["certificateId"] == ca_id
    assert described["status"] == "ACTIVE"
    (device,) = json.loads((tmp_path / "devices.json").read_text())["certificates"]
    assert device["status"] == "ACTIVE"
    assert device["certificateMode"] == "DEFAULT"
