"""Certificates through boto3: made, registered, looked at, changed, deleted."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.fleet import arn, signing_request
from tests.integration.refusal import everything, members, pages, refusal
from tests.integration.server import ACCOUNT

UNKNOWN = "0" * 64


@pytest.fixture
def certificate(iot: Any) -> dict[str, Any]:
    """A new INACTIVE certificate of a CSR."""
    return members(iot.create_certificate_from_csr(certificateSigningRequest=signing_request().csr))


@pytest.fixture
def attached(iot: Any, certificate: dict[str, Any], name: str) -> dict[str, Any]:
    """The certificate, attached to a thing and with a policy."""
    iot.create_thing(thingName=name)
    iot.create_policy(policyName=name, policyDocument=POLICY)
    iot.attach_thing_principal(thingName=name, principal=certificate["certificateArn"])
    iot.attach_policy(policyName=name, target=certificate["certificateArn"])
    return certificate


POLICY = (
    '{"Version": "2012-10-17", "Statement": '
    '[{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]}'
)


def pem_id(pem: str) -> str:
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(der).hexdigest()


def self_signed(common_name: str = "own") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=10))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


@pytest.mark.parametrize(
    ("options", "status"),
    [({}, "INACTIVE"), ({"setAsActive": False}, "INACTIVE"), ({"setAsActive": True}, "ACTIVE")],
)
def test_keys_and_certificate(iot: Any, options: dict[str, bool], status: str) -> None:
    made = members(iot.create_keys_and_certificate(**options))
    assert set(made) == {"certificateArn", "certificateId", "certificatePem", "keyPair"}
    assert set(made["keyPair"]) == {"PublicKey", "PrivateKey"}
    assert made["certificateId"] == pem_id(made["certificatePem"])
    assert made["certificateArn"] == arn(f"cert/{made['certificateId']}")
    assert made["keyPair"]["PrivateKey"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert made["keyPair"]["PublicKey"].startswith("-----BEGIN PUBLIC KEY-----\n")
    private = serialization.load_pem_private_key(made["keyPair"]["PrivateKey"].encode(), None)
    public = serialization.load_pem_public_key(made["keyPair"]["PublicKey"].encode())
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    assert private.public_key() == public == certificate.public_key()
    assert certificate.subject.rfc4514_string() == "CN=AWS IoT Certificate"
    described = iot.describe_certificate(certificateId=made["certificateId"])
    assert described["certificateDescription"]["status"] == status


def test_a_certificate_is_described_in_full(iot: Any, certificate: dict[str, Any]) -> None:
    assert set(certificate) == {"certificateArn", "certificateId", "certificatePem"}
    answer = members(iot.describe_certificate(certificateId=certificate["certificateId"]))
    [(outer, described)] = answer.items()
    assert outer == "certificateDescription"
    for moment in (described.pop("creationDate"), described.pop("lastModifiedDate")):
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    validity = described.pop("validity")
    assert validity["notBefore"] <= datetime.now(UTC)
    assert validity["notAfter"] == datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert re.fullmatch("[0-9a-f-]+", described.pop("generationId"))
    assert described == {
        "certificateArn": certificate["certificateArn"],
        "certificateId": certificate["certificateId"],
        "certificatePem": certificate["certificatePem"],
        "status": "INACTIVE",
        "ownedBy": ACCOUNT,
        "customerVersion": 1,
        "certificateMode": "DEFAULT",
        "transferData": {},
    }


def test_the_same_csr_gives_another_certificate_each_time(iot: Any) -> None:
    csr = signing_request().csr
    ids = {
        iot.create_certificate_from_csr(certificateSigningRequest=csr)["certificateId"]
        for _ in range(3)
    }
    assert len(ids) == 3


def test_a_csr_that_is_none_is_refused(iot: Any) -> None:
    refused = refusal(iot.create_certificate_from_csr, certificateSigningRequest="gibberish")
    assert refused.kind == (400, "InvalidRequestException")


def test_a_certificate_of_another_authority_is_registered(iot: Any) -> None:
    pem = self_signed()
    made = members(iot.register_certificate_without_ca(certificatePem=pem, status="ACTIVE"))
    assert made == {
        "certificateId": pem_id(pem),
        "certificateArn": arn(f"cert/{pem_id(pem)}"),
    }
    described = iot.describe_certificate(certificateId=pem_id(pem))["certificateDescription"]
    assert described["status"] == "ACTIVE"
    assert described["certificateMode"] == "SNI_ONLY"
    assert pem_id(described["certificatePem"]) == pem_id(pem)
    twice = refusal(iot.register_certificate_without_ca, certificatePem=pem)
    assert twice.kind == (409, "ResourceAlreadyExistsException")
    assert twice.response["resourceId"] == pem_id(pem)
    assert twice.response["resourceArn"] == arn(f"cert/{pem_id(pem)}")


def test_a_registered_certificate_is_inactive_by_default(iot: Any) -> None:
    made = iot.register_certificate_without_ca(certificatePem=self_signed())
    described = iot.describe_certificate(certificateId=made["certificateId"])
    assert described["certificateDescription"]["status"] == "INACTIVE"


def test_what_is_no_certificate_is_not_registered(iot: Any) -> None:
    refused = refusal(iot.register_certificate_without_ca, certificatePem="gibberish")
    assert refused.kind == (400, "CertificateValidationException")


@pytest.mark.parametrize("status", ["ACTIVE", "INACTIVE", "REVOKED"])
def test_the_status_changes(iot: Any, certificate: dict[str, Any], status: str) -> None:
    id_ = certificate["certificateId"]
    assert members(iot.update_certificate(certificateId=id_, newStatus=status)) == {}
    described = iot.describe_certificate(certificateId=id_)["certificateDescription"]
    assert described["status"] == status


@pytest.mark.parametrize(
    "status", ["PENDING_ACTIVATION", "PENDING_TRANSFER", "REGISTER_INACTIVE", "ROCKET"]
)
def test_a_status_that_nobody_may_set_is_refused(
    iot: Any, certificate: dict[str, Any], status: str
) -> None:
    """AWS IoT API reference, UpdateCertificate: the first two are for internal use only."""
    id_ = certificate["certificateId"]
    refused = refusal(iot.update_certificate, certificateId=id_, newStatus=status)
    assert refused.kind == (400, "InvalidRequestException")
    described = iot.describe_certificate(certificateId=id_)["certificateDescription"]
    assert described["status"] == "INACTIVE"


def test_an_active_certificate_is_not_deleted(iot: Any, certificate: dict[str, Any]) -> None:
    id_ = certificate["certificateId"]
    iot.update_certificate(certificateId=id_, newStatus="ACTIVE")
    for force in (False, True):
        refused = refusal(iot.delete_certificate, certificateId=id_, forceDelete=force)
        assert refused.kind == (406, "CertificateStateException")
        assert refused.message.startswith(
            "Certificate must be deactivated (not ACTIVE) before deletion."
        )


def test_an_attached_certificate_is_not_deleted(
    iot: Any, attached: dict[str, Any], name: str
) -> None:
    id_, certificate_arn = attached["certificateId"], attached["certificateArn"]
    refused = refusal(iot.delete_certificate, certificateId=id_)
    assert refused.kind == (409, "DeleteConflictException")
    assert refused.message == (f"Things must be detached before deletion (arn: {certificate_arn})")
    iot.detach_thing_principal(thingName=name, principal=certificate_arn)
    refused = refusal(iot.delete_certificate, certificateId=id_)
    assert refused.kind == (409, "DeleteConflictException")
    assert refused.message == (
        f"Certificate policies must be detached before deletion (arn: {certificate_arn})"
    )
    iot.detach_policy(policyName=name, target=certificate_arn)
    assert members(iot.delete_certificate(certificateId=id_)) == {}
    gone = refusal(iot.describe_certificate, certificateId=id_)
    assert gone.kind == (404, "ResourceNotFoundException")


def test_a_forced_delete_takes_the_policies_off(
    iot: Any, attached: dict[str, Any], name: str
) -> None:
    """AWS IoT API reference, DeleteCertificate: force deletes when no *thing* is attached."""
    iot.detach_thing_principal(thingName=name, principal=attached["certificateArn"])
    iot.delete_certificate(certificateId=attached["certificateId"], forceDelete=True)
    assert iot.list_targets_for_policy(policyName=name)["targets"] == []


def test_certificates_are_listed_page_by_page(iot: Any) -> None:
    csr = signing_request().csr
    made = [iot.create_certificate_from_csr(certificateSigningRequest=csr) for _ in range(5)]
    for ascending in (True, False):
        listed = pages(iot, "list_certificates", "certificates", 3, ascendingOrder=ascending)
        assert all(len(page) <= 3 for page in listed)
        flat = [entry for page in listed for entry in page]
        assert len({entry["certificateId"] for entry in flat}) == len(flat)
        dates = [entry["creationDate"] for entry in flat]
        assert dates == sorted(dates, reverse=not ascending)
        found = {entry["certificateId"]: entry for entry in flat}
        for each in made:
            entry = dict(found[each["certificateId"]])
            del entry["creationDate"]
            assert entry == {
                "certificateArn": each["certificateArn"],
                "certificateId": each["certificateId"],
                "certificateMode": "DEFAULT",
                "status": "INACTIVE",
            }


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("describe_certificate", {}),
        ("update_certificate", {"newStatus": "ACTIVE"}),
        ("delete_certificate", {}),
    ],
)
def test_an_unknown_certificate_is_not_found(
    iot: Any, operation: str, more: dict[str, Any]
) -> None:
    refused = refusal(getattr(iot, operation), certificateId=UNKNOWN, **more)
    assert refused.kind == (404, "ResourceNotFoundException")
    assert UNKNOWN in refused.message


def test_deleted_certificates_leave_the_list(iot: Any, certificate: dict[str, Any]) -> None:
    iot.delete_certificate(certificateId=certificate["certificateId"])
    listed = everything(iot, "list_certificates", "certificates")
    assert certificate["certificateId"] not in {entry["certificateId"] for entry in listed}
