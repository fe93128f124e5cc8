"""Certificates on their way to another account, seen by the sender.

Sources: AWS IoT Core Developer Guide, "Transfer a certificate to another account"; AWS IoT API
Reference (TransferCertificate, CancelCertificateTransfer, AcceptCertificateTransfer,
RejectCertificateTransfer); the AWS CLI's examples (ARNs are those of the account it goes to).
"""

from typing import Any

import pytest

from fleetgate.errors import (
    CertificateStateException,
    InvalidRequestException,
    ResourceNotFoundException,
    TransferConflictException,
)
from tests.operations.conftest import ALLOW, START, Registry

OWN, OTHER = "123456789012", "210987654321"


def describe(registry: Registry, certificate_id: str) -> dict[str, Any]:
    answer = registry.call("DescribeCertificate", certificate_id=certificate_id)
    description: dict[str, Any] = answer["certificateDescription"]
    return description


def transfer(registry: Registry, certificate_id: str, **params: Any) -> dict[str, Any]:
    params = {"target_aws_account": OTHER, **params}
    return registry.call("TransferCertificate", certificate_id=certificate_id, **params)


def test_a_transfer_begins_and_is_cancelled(registry: Registry) -> None:
    id_ = registry.certificate()["certificateId"]
    registry.clock.now += 10
    answer = transfer(registry, id_, transfer_message="as agreed")
    assert answer == {"transferredCertificateArn": f"arn:aws:iot:eu-west-1:{OTHER}:cert/{id_}"}
    described = describe(registry, id_)
    assert described["status"] == "PENDING_TRANSFER"
    assert described["ownedBy"] == OWN
    assert described["transferData"] == {
        "transferDate": START + 10,
        "transferMessage": "as agreed",
    }
    assert registry.call("ListOutgoingCertificates") == {
        "outgoingCertificates": [
            {
                "certificateArn": f"arn:aws:iot:eu-west-1:{OTHER}:cert/{id_}",
                "certificateId": id_,
                "transferredTo": OTHER,
                "transferDate": START + 10,
                "transferMessage": "as agreed",
                "creationDate": START,
            }
        ],
        "nextMarker": None,
    }
    assert registry.call("CancelCertificateTransfer", certificate_id=id_) == {}
    described = describe(registry, id_)
    assert described["status"] == "INACTIVE"
    assert described["transferData"] == {}
    assert registry.call("ListOutgoingCertificates")["outgoingCertificates"] == []
    transfer(registry, id_)


def test_to_oneself_there_is_no_transfer(registry: Registry) -> None:
    id_ = registry.certificate()["certificateId"]
    with pytest.raises(InvalidRequestException, match=OWN):
        transfer(registry, id_, target_aws_account=OWN)


def test_a_certificate_in_use_is_not_transferred(registry: Registry) -> None:
    made = registry.certificate(set_as_active=True)
    id_, arn = made["certificateId"], made["certificateArn"]
    registry.call("CreateThing", thing_name="lamp")
    registry.call("AttachThingPrincipal", thing_name="lamp", principal=arn)
    registry.call("CreatePolicy", policy_name="all", policy_document=ALLOW)
    registry.call("AttachPolicy", policy_name="all", target=arn)
    with pytest.raises(CertificateStateException, match="ACTIVE cannot be transferred"):
        transfer(registry, id_)
    registry.call("UpdateCertificate", certificate_id=id_, new_status="INACTIVE")
    with pytest.raises(TransferConflictException, match="policies must be detached"):
        transfer(registry, id_)
    registry.call("DetachPolicy", policy_name="all", target=arn)
    with pytest.raises(TransferConflictException, match="Things must be detached"):
        transfer(registry, id_)
    registry.call("DetachThingPrincipal", thing_name="lamp", principal=arn)
    transfer(registry, id_)


def test_a_pending_certificate_is_not_transferred(registry: Registry) -> None:
    id_ = registry.device("CreateKeysAndCertificate")["certificateId"]
    with pytest.raises(CertificateStateException, match="PENDING_ACTIVATION"):
        transfer(registry, id_)


def test_while_it_is_transferred_it_stays_as_it_is(registry: Registry) -> None:
    made = registry.certificate()
    id_, arn = made["certificateId"], made["certificateArn"]
    registry.call("CreatePolicy", policy_name="all", policy_document=ALLOW)
    transfer(registry, id_)
    with pytest.raises(CertificateStateException, match="PENDING_TRANSFER"):
        transfer(registry, id_)
    for status in ("ACTIVE", "INACTIVE", "REVOKED"):
        with pytest.raises(CertificateStateException, match="cancel the transfer first"):
            registry.call("UpdateCertificate", certificate_id=id_, new_status=status)
    with pytest.raises(CertificateStateException, match="cancel the transfer first"):
        registry.call("DeleteCertificate", certificate_id=id_, force_delete=True)
    for operation, key in (("AttachPolicy", "target"), ("AttachPrincipalPolicy", "principal")):
        with pytest.raises(InvalidRequestException, match="is being transferred"):
            registry.call(operation, policy_name="all", **{key: arn})
    assert describe(registry, id_)["status"] == "PENDING_TRANSFER"
    listed = registry.call("ListCertificates")["certificates"]
    assert [each["status"] for each in listed] == ["PENDING_TRANSFER"]


def test_only_a_transfer_can_be_cancelled(registry: Registry) -> None:
    id_ = registry.certificate()["certificateId"]
    with pytest.raises(InvalidRequestException, match="is not being transferred"):
        registry.call("CancelCertificateTransfer", certificate_id=id_)


@pytest.mark.parametrize("operation", ["AcceptCertificateTransfer", "RejectCertificateTransfer"])
def test_nothing_is_transferred_to_this_account(registry: Registry, operation: str) -> None:
    id_ = registry.certificate()["certificateId"]
    for _ in range(2):
        with pytest.raises(InvalidRequestException, match="not being transferred to it"):
            registry.call(operation, certificate_id=id_)
        before = describe(registry, id_)
        if before["status"] == "INACTIVE":
            transfer(registry, id_)
    assert describe(registry, id_)["status"] == "PENDING_TRANSFER"


@pytest.mark.parametrize(
    "operation",
    [
        "AcceptCertificateTransfer",
        "CancelCertificateTransfer",
        "RejectCertificateTransfer",
        "TransferCertificate",
    ],
)
def test_an_unknown_certificate_is_not_found(registry: Registry, operation: str) -> None:
    more = {"target_aws_account": OTHER} if operation == "TransferCertificate" else {}
    with pytest.raises(ResourceNotFoundException, match="a" * 64):
        registry.call(operation, certificate_id="a" * 64, **more)


def test_transfers_are_listed_by_the_age_of_the_certificate(registry: Registry) -> None:
    made = []
    for _ in range(5):
        registry.clock.now += 1
        made.append(registry.certificate()["certificateId"])
    for id_ in (made[2], made[0], made[4], made[1], made[3]):
        registry.clock.now += 1
        transfer(registry, id_)

    def listed(**params: Any) -> list[str]:
        ids: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = registry.call("ListOutgoingCertificates", page_size=2, **params, **marker)
            ids += [each["certificateId"] for each in page["outgoingCertificates"]]
            if page["nextMarker"] is None:
                return ids
            marker = {"marker": page["nextMarker"]}

    assert listed() == made[::-1]
    assert listed(ascending_order=True) == made
