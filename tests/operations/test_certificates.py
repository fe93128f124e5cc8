"""Device certificates: registered under a CA, described, changed, deleted, listed.

Sources: AWS IoT API Reference (RegisterCertificate, UpdateCertificate, DeleteCertificate,
ListCertificatesByCA, DescribeCertificate); AWS IoT Core Developer Guide, "Register a client
certificate".
"""

import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.errors import (
    CertificateConflictException,
    CertificateStateException,
    CertificateValidationException,
    DeleteConflictException,
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from tests.operations.conftest import ALLOW, START, Registry
from tests.operations.foreign import authority, register


def pem_id(pem: str) -> str:
    der = x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
    return hashlib.sha256(der).hexdigest()


def describe(registry: Registry, certificate_id: str) -> dict[str, Any]:
    answer = registry.call("DescribeCertificate", certificate_id=certificate_id)
    description: dict[str, Any] = answer["certificateDescription"]
    return description


@pytest.mark.parametrize("mode", ["DEFAULT", "SNI_ONLY"])
@pytest.mark.parametrize("given", [True, False])
def test_a_certificate_is_registered_under_its_ca(
    registry: Registry, mode: str, given: bool
) -> None:
    """ "in the same certificate mode as the signing CA" (RegisterCertificate)."""
    foreign = authority()
    ca_id = register(registry, foreign, certificate_mode=mode)
    pem = foreign.sign("lamp")
    which = {"ca_certificate_pem": foreign.pem} if given else {}
    answer = registry.call("RegisterCertificate", certificate_pem=pem, **which)
    id_ = pem_id(pem)
    assert answer == {"certificateId": id_, "certificateArn": registry.arn(f"cert/{id_}")}
    described = describe(registry, id_)
    assert described["caCertificateId"] == ca_id
    assert described["certificateMode"] == mode
    assert described["status"] == "INACTIVE"
    assert described["certificatePem"] == pem
    assert described["ownedBy"] == "123456789012"
    assert described["transferData"] == {}
    assert described["customerVersion"] == 1


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, "INACTIVE"),
        ({"set_as_active": False}, "INACTIVE"),
        ({"set_as_active": True}, "ACTIVE"),
        ({"set_as_active": True, "status": "ACTIVE"}, "ACTIVE"),
        ({"set_as_active": False, "status": "ACTIVE"}, "ACTIVE"),
        ({"status": "INACTIVE"}, "INACTIVE"),
        ({"status": "REVOKED"}, "REVOKED"),
    ],
)
def test_the_status_of_a_registered_certificate(
    registry: Registry, params: dict[str, Any], status: str
) -> None:
    foreign = authority()
    register(registry, foreign)
    pem = foreign.sign("lamp")
    registry.call("RegisterCertificate", certificate_pem=pem, **params)
    assert describe(registry, pem_id(pem))["status"] == status


@pytest.mark.parametrize("operation", ["RegisterCertificate", "RegisterCertificateWithoutCA"])
@pytest.mark.parametrize("status", ["PENDING_ACTIVATION", "PENDING_TRANSFER", "REGISTER_INACTIVE"])
def test_a_status_nobody_registers_with(registry: Registry, operation: str, status: str) -> None:
    with pytest.raises(InvalidRequestException, match=status):
        registry.call(operation, certificate_pem=authority().sign("lamp"), status=status)


def test_flag_and_status_that_contradict_each_other(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException, match="contradict"):
        registry.call(
            "RegisterCertificate",
            certificate_pem=authority().sign("lamp"),
            set_as_active=True,
            status="INACTIVE",
        )


def test_the_ca_has_to_be_registered(registry: Registry) -> None:
    """AWS's words, as users have published them."""
    foreign, other = authority(), authority("Other CA")
    register(registry, other)
    pem = foreign.sign("lamp")
    for given in ({}, {"ca_certificate_pem": foreign.pem}):
        with pytest.raises(CertificateStateException) as caught:
            registry.call("RegisterCertificate", certificate_pem=pem, **given)
        assert caught.value.message == "No CA certificate exists for the given certificate"


def test_the_ca_has_to_be_active(registry: Registry) -> None:
    foreign = authority()
    ca_id = register(registry, foreign, set_as_active=False)
    pem = foreign.sign("lamp")
    for given in ({}, {"ca_certificate_pem": foreign.pem}):
        with pytest.raises(CertificateStateException, match="INACTIVE, not ACTIVE"):
            registry.call("RegisterCertificate", certificate_pem=pem, **given)
    registry.call("UpdateCACertificate", certificate_id=ca_id, new_status="ACTIVE")
    registry.call("RegisterCertificate", certificate_pem=pem)


def test_the_ca_has_to_have_signed(registry: Registry) -> None:
    foreign, other, same_name = authority(), authority("Other CA"), authority()
    for each in (foreign, other):
        register(registry, each)
    pem = foreign.sign("lamp")
    with pytest.raises(CertificateValidationException, match="its issuer is `CN=Lamp CA`"):
        registry.call("RegisterCertificate", certificate_pem=pem, ca_certificate_pem=other.pem)
    with pytest.raises(CertificateValidationException, match="its signature does not match"):
        registry.call("RegisterCertificate", certificate_pem=same_name.sign("lamp"))


def test_of_two_cas_with_one_subject_one_has_to_be_named(registry: Registry) -> None:
    """ "If you have more than one CA certificate that has the same subject field, you must
    specify the CA certificate that was used" (RegisterCertificate)."""
    first, second = authority(), authority()
    register(registry, first)
    ca_id = register(registry, second)
    pem = second.sign("lamp")
    with pytest.raises(CertificateConflictException, match=ca_id):
        registry.call("RegisterCertificate", certificate_pem=pem)
    with pytest.raises(CertificateValidationException):
        registry.call("RegisterCertificate", certificate_pem=pem, ca_certificate_pem=first.pem)
    registry.call("RegisterCertificate", certificate_pem=pem, ca_certificate_pem=second.pem)
    assert describe(registry, pem_id(pem))["caCertificateId"] == ca_id


def test_a_certificate_is_registered_once(registry: Registry) -> None:
    foreign = authority()
    register(registry, foreign)
    pem = foreign.sign("lamp")
    own = registry.certificate()["certificatePem"]
    registry.call("RegisterCertificate", certificate_pem=pem)
    for operation in ("RegisterCertificate", "RegisterCertificateWithoutCA"):
        for each in (pem, own):
            with pytest.raises(ResourceAlreadyExistsException) as caught:
                registry.call(operation, certificate_pem=each)
            assert caught.value.message == "The certificate is already provisioned or registered"
            assert caught.value.members == {
                "resourceId": pem_id(each),
                "resourceArn": registry.arn(f"cert/{pem_id(each)}"),
            }


@pytest.mark.parametrize("operation", ["RegisterCertificate", "RegisterCertificateWithoutCA"])
def test_what_cannot_be_used_is_not_registered(registry: Registry, operation: str) -> None:
    foreign = authority()
    register(registry, foreign)
    for pem, message in (
        ("gibberish", "could not be parsed"),
        (foreign.pem + foreign.pem, "could not be parsed"),
        (foreign.sign("lamp", days=-1), "expired"),
    ):
        with pytest.raises(CertificateValidationException, match=message):
            registry.call(operation, certificate_pem=pem)


def test_a_broken_ca_certificate_is_told(registry: Registry) -> None:
    with pytest.raises(CertificateValidationException, match="could not be parsed"):
        registry.call(
            "RegisterCertificate",
            certificate_pem=authority().sign("lamp"),
            ca_certificate_pem="gibberish",
        )


def test_certificates_are_listed_by_ca(registry: Registry) -> None:
    foreign, other = authority(), authority("Other CA")
    ca_id, other_id = register(registry, foreign), register(registry, other)
    registry.certificate()
    registry.call("RegisterCertificate", certificate_pem=other.sign("x"))
    made = []
    for number in range(5):
        registry.clock.now += 1
        answer = registry.call("RegisterCertificate", certificate_pem=foreign.sign(str(number)))
        made.append(answer["certificateId"])

    def listed(**params: Any) -> list[str]:
        ids: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = registry.call(
                "ListCertificatesByCA", ca_certificate_id=ca_id, page_size=2, **params, **marker
            )
            ids += [each["certificateId"] for each in page["certificates"]]
            if page["nextMarker"] is None:
                return ids
            marker = {"marker": page["nextMarker"]}

    assert listed() == made[::-1]
    assert listed(ascending_order=True) == made
    others = registry.call("ListCertificatesByCA", ca_certificate_id=other_id)["certificates"]
    assert len(others) == 1
    assert registry.call("ListCertificatesByCA", ca_certificate_id="0" * 64)["certificates"] == []
    (newest, *_) = registry.call("ListCertificatesByCA", ca_certificate_id=ca_id)["certificates"]
    assert newest == {
        "certificateArn": registry.arn(f"cert/{made[4]}"),
        "certificateId": made[4],
        "status": "INACTIVE",
        "certificateMode": "DEFAULT",
        "creationDate": START + 5,
    }


def test_certificates_outlive_their_ca(registry: Registry) -> None:
    """DeleteCACertificate declares no conflict: what was registered stays registered."""
    foreign = authority()
    ca_id = register(registry, foreign)
    answer = registry.call("RegisterCertificate", certificate_pem=foreign.sign("lamp"))
    registry.call("UpdateCACertificate", certificate_id=ca_id, new_status="INACTIVE")
    registry.call("DeleteCACertificate", certificate_id=ca_id)
    assert describe(registry, answer["certificateId"])["caCertificateId"] == ca_id
    listed = registry.call("ListCertificatesByCA", ca_certificate_id=ca_id)["certificates"]
    assert [each["certificateId"] for each in listed] == [answer["certificateId"]]


def test_a_page_has_25_when_no_size_is_given(registry: Registry) -> None:
    """AWS IoT API Reference, ListCertificates: "a default page size of 25"."""
    for _ in range(26):
        registry.certificate()
    page = registry.call("ListCertificates")
    assert len(page["certificates"]) == 25
    rest = registry.call("ListCertificates", marker=page["nextMarker"])
    assert len(rest["certificates"]) == 1
    assert rest["nextMarker"] is None


@pytest.mark.parametrize(
    ("status", "ends"), [("ACTIVE", False), ("INACTIVE", True), ("REVOKED", True)]
)
def test_a_change_counts_and_ends_connections(registry: Registry, status: str, ends: bool) -> None:
    id_ = registry.certificate(set_as_active=True)["certificateId"]
    registry.clock.now += 60
    assert registry.call("UpdateCertificate", certificate_id=id_, new_status=status) == {}
    described = describe(registry, id_)
    assert described["status"] == status
    assert described["customerVersion"] == 2
    assert described["lastModifiedDate"] == START + 60
    assert described["creationDate"] == START
    assert registry.ended == ([id_] if ends else [])


@pytest.mark.parametrize("status", ["PENDING_ACTIVATION", "PENDING_TRANSFER", "REGISTER_INACTIVE"])
def test_statuses_of_aws_alone_cannot_be_set(registry: Registry, status: str) -> None:
    id_ = registry.certificate()["certificateId"]
    with pytest.raises(InvalidRequestException, match=status):
        registry.call("UpdateCertificate", certificate_id=id_, new_status=status)


def test_what_keeps_a_certificate_from_being_deleted(registry: Registry) -> None:
    made = registry.certificate(set_as_active=True)
    id_, arn = made["certificateId"], made["certificateArn"]
    registry.call("CreateThing", thing_name="lamp")
    registry.call("AttachThingPrincipal", thing_name="lamp", principal=arn)
    registry.call("CreatePolicy", policy_name="all", policy_document=ALLOW)
    registry.call("AttachPolicy", policy_name="all", target=arn)
    for force in (False, True):
        with pytest.raises(CertificateStateException, match="must be deactivated"):
            registry.call("DeleteCertificate", certificate_id=id_, force_delete=force)
    registry.call("UpdateCertificate", certificate_id=id_, new_status="INACTIVE")
    for force in (False, True):
        with pytest.raises(DeleteConflictException) as caught:
            registry.call("DeleteCertificate", certificate_id=id_, force_delete=force)
        assert caught.value.message == f"Things must be detached before deletion (arn: {arn})"
    registry.call("DetachThingPrincipal", thing_name="lamp", principal=arn)
    with pytest.raises(DeleteConflictException) as caught:
        registry.call("DeleteCertificate", certificate_id=id_)
    assert caught.value.message == (
        f"Certificate policies must be detached before deletion (arn: {arn})"
    )
    registry.ended.clear()
    registry.call("DeleteCertificate", certificate_id=id_, force_delete=True)
    assert registry.ended == [id_]
    assert registry.call("ListTargetsForPolicy", policy_name="all")["targets"] == []
    with pytest.raises(ResourceNotFoundException):
        registry.call("DescribeCertificate", certificate_id=id_)


def test_a_certificate_that_was_deleted_may_be_registered_again(registry: Registry) -> None:
    foreign = authority()
    register(registry, foreign)
    pem = foreign.sign("lamp")
    for _ in range(2):
        registry.call("RegisterCertificate", certificate_pem=pem)
        registry.call("DeleteCertificate", certificate_id=pem_id(pem))
