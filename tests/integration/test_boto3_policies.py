"""Policies, their versions and attachments through boto3."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.fleet import ALLOW_ALL, arn, policy_document, signing_request
from tests.integration.refusal import everything, members, pages, refusal

DOCUMENT = policy_document(ALLOW_ALL)
OTHER = policy_document({"Effect": "Deny", "Action": "iot:*", "Resource": "*"})


@pytest.fixture
def policy(iot: Any, name: str) -> str:
    iot.create_policy(policyName=name, policyDocument=DOCUMENT)
    return name


@pytest.fixture
def target(iot: Any) -> str:
    """The ARN of a new certificate."""
    made = iot.create_certificate_from_csr(certificateSigningRequest=signing_request().csr)
    return str(made["certificateArn"])


def recent(moment: datetime) -> bool:
    return abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


def test_a_policy_lives_and_dies(iot: Any, name: str) -> None:
    created = members(iot.create_policy(policyName=name, policyDocument=DOCUMENT))
    assert created == {
        "policyName": name,
        "policyArn": arn(f"policy/{name}"),
        "policyDocument": DOCUMENT,
        "policyVersionId": "1",
    }
    got = members(iot.get_policy(policyName=name))
    assert recent(got.pop("creationDate"))
    assert recent(got.pop("lastModifiedDate"))
    assert got.pop("generationId")
    assert got == {
        "policyName": name,
        "policyArn": arn(f"policy/{name}"),
        "policyDocument": DOCUMENT,
        "defaultVersionId": "1",
    }
    listed = everything(iot, "list_policies", "policies")
    assert {"policyName": name, "policyArn": arn(f"policy/{name}")} in listed
    assert members(iot.delete_policy(policyName=name)) == {}
    gone = refusal(iot.get_policy, policyName=name)
    assert gone.kind == (404, "ResourceNotFoundException")
    assert name in gone.message


def test_a_name_is_taken_once(iot: Any, policy: str) -> None:
    twice = refusal(iot.create_policy, policyName=policy, policyDocument=OTHER)
    assert twice.kind == (409, "ResourceAlreadyExistsException")
    assert iot.get_policy(policyName=policy)["policyDocument"] == DOCUMENT


@pytest.mark.parametrize(
    "document",
    [
        "not json",
        "{}",
        policy_document({"Effect": "Maybe", "Action": "iot:*", "Resource": "*"}),
        policy_document({"Effect": "Allow", "Action": "iot:*"}),
        policy_document({**ALLOW_ALL, "Principal": "*"}),
        policy_document({**ALLOW_ALL, "Rocket": "*"}),
        json.dumps({"Version": "1999-01-01", "Statement": [ALLOW_ALL]}),
        policy_document({**ALLOW_ALL, "Resource": "x" * 2100}),
        policy_document({**ALLOW_ALL, "Condition": {"StringRocket": {"aws:SourceIp": "::1"}}}),
    ],
    ids=[
        "text",
        "empty",
        "effect",
        "no-resource",
        "principal",
        "unknown-key",
        "version",
        "too-long",
        "condition",
    ],
)
def test_a_malformed_document_is_refused(iot: Any, policy: str, document: str) -> None:
    refused = refusal(iot.create_policy, policyName=f"{policy}-2", policyDocument=document)
    assert refused.kind == (400, "MalformedPolicyException")
    refused = refusal(iot.create_policy_version, policyName=policy, policyDocument=document)
    assert refused.kind == (400, "MalformedPolicyException")


def test_versions_come_and_go(iot: Any, policy: str) -> None:
    for number in range(2, 6):
        created = members(
            iot.create_policy_version(
                policyName=policy, policyDocument=OTHER, setAsDefault=number == 3
            )
        )
        assert created == {
            "policyArn": arn(f"policy/{policy}"),
            "policyDocument": OTHER,
            "policyVersionId": str(number),
            "isDefaultVersion": number == 3,
        }
    sixth = refusal(iot.create_policy_version, policyName=policy, policyDocument=DOCUMENT)
    assert sixth.kind == (409, "VersionsLimitExceededException")

    got = members(iot.get_policy_version(policyName=policy, policyVersionId="1"))
    assert recent(got.pop("creationDate"))
    assert recent(got.pop("lastModifiedDate"))
    assert got.pop("generationId")
    assert got == {
        "policyArn": arn(f"policy/{policy}"),
        "policyName": policy,
        "policyDocument": DOCUMENT,
        "policyVersionId": "1",
        "isDefaultVersion": False,
    }
    assert iot.get_policy(policyName=policy)["policyDocument"] == OTHER
    assert iot.get_policy(policyName=policy)["defaultVersionId"] == "3"

    listed = iot.list_policy_versions(policyName=policy)["policyVersions"]
    assert all(recent(entry["createDate"]) for entry in listed)
    assert sorted((entry["versionId"], entry["isDefaultVersion"]) for entry in listed) == [
        (str(number), number == 3) for number in range(1, 6)
    ]

    default = refusal(iot.delete_policy_version, policyName=policy, policyVersionId="3")
    assert default.kind == (409, "DeleteConflictException")
    changed = iot.set_default_policy_version(policyName=policy, policyVersionId="1")
    assert members(changed) == {}
    assert iot.get_policy(policyName=policy)["policyDocument"] == DOCUMENT
    assert members(iot.delete_policy_version(policyName=policy, policyVersionId="3")) == {}
    gone = refusal(iot.get_policy_version, policyName=policy, policyVersionId="3")
    assert gone.kind == (404, "ResourceNotFoundException")

    whole = refusal(iot.delete_policy, policyName=policy)  # its other versions have to go first
    assert whole.kind == (409, "DeleteConflictException")
    for version in ("2", "4", "5"):
        iot.delete_policy_version(policyName=policy, policyVersionId=version)
    iot.delete_policy(policyName=policy)


def test_attachments_come_and_go(iot: Any, policy: str, target: str) -> None:
    entry = {"policyName": policy, "policyArn": arn(f"policy/{policy}")}
    for _ in range(2):  # attaching twice is attaching
        assert members(iot.attach_policy(policyName=policy, target=target)) == {}
    assert iot.list_attached_policies(target=target)["policies"] == [entry]
    assert iot.list_targets_for_policy(policyName=policy)["targets"] == [target]

    attached = refusal(iot.delete_policy, policyName=policy)
    assert attached.kind == (409, "DeleteConflictException")

    for _ in range(2):
        assert members(iot.detach_policy(policyName=policy, target=target)) == {}
    assert iot.list_attached_policies(target=target)["policies"] == []
    assert iot.list_targets_for_policy(policyName=policy)["targets"] == []
    iot.delete_policy(policyName=policy)


def test_the_deprecated_operations_are_the_same_ones(iot: Any, policy: str, target: str) -> None:
    """Principal and policy are in headers: x-amzn-iot-principal, x-amzn-iot-policy."""
    entry = {"policyName": policy, "policyArn": arn(f"policy/{policy}")}
    for _ in range(2):
        made = iot.attach_principal_policy(policyName=policy, principal=target)
        assert members(made) == {}
    assert iot.list_attached_policies(target=target)["policies"] == [entry]
    assert everything(iot, "list_principal_policies", "policies", principal=target) == [entry]
    assert everything(iot, "list_policy_principals", "principals", policyName=policy) == [target]
    assert members(iot.detach_principal_policy(policyName=policy, principal=target)) == {}
    assert iot.list_policy_principals(policyName=policy)["principals"] == []
    gone = refusal(iot.detach_principal_policy, policyName=policy, principal=target)
    assert gone.kind == (404, "ResourceNotFoundException")


def test_detaching_from_nothing_is_refused_as_terraform_expects(iot: Any, policy: str) -> None:
    gone = refusal(iot.detach_policy, policyName=policy, target=arn("cert/" + "0" * 64))
    assert gone.kind == (400, "InvalidRequestException")
    assert "Invalid Target" in gone.message


def test_a_policy_has_tags(iot: Any, name: str) -> None:
    tags = [{"Key": "site", "Value": "Basel"}]
    made = iot.create_policy(policyName=name, policyDocument=DOCUMENT, tags=tags)
    assert iot.list_tags_for_resource(resourceArn=made["policyArn"])["tags"] == tags


def test_a_principal_has_at_most_ten_policies(iot: Any, name: str, target: str) -> None:
    names = [f"{name}-{number:02}" for number in range(11)]
    for each in names:
        iot.create_policy(policyName=each, policyDocument=DOCUMENT)
    for each in names[:10]:
        iot.attach_policy(policyName=each, target=target)
    refused = refusal(iot.attach_policy, policyName=names[10], target=target)
    assert refused.kind == (410, "LimitExceededException")
    listed = pages(iot, "list_attached_policies", "policies", 4, target=target)
    assert [len(page) for page in listed] == [4, 4, 2]
    assert {entry["policyName"] for page in listed for entry in page} == set(names[:10])


def test_policies_and_targets_are_listed_page_by_page(iot: Any, name: str) -> None:
    names = [f"{name}-{number}" for number in range(5)]
    for each in names:
        iot.create_policy(policyName=each, policyDocument=DOCUMENT)
    for ascending in (True, False):
        listed = pages(iot, "list_policies", "policies", 2, ascendingOrder=ascending)
        assert all(len(page) <= 2 for page in listed)
        flat = [entry["policyName"] for page in listed for entry in page]
        assert len(flat) == len(set(flat))
        assert set(names) <= set(flat)
    csr = signing_request().csr
    targets = {
        iot.create_certificate_from_csr(certificateSigningRequest=csr)["certificateArn"]
        for _ in range(5)
    }
    for each in targets:
        iot.attach_policy(policyName=names[0], target=each)
    listed = pages(iot, "list_targets_for_policy", "targets", 2, policyName=names[0])
    assert [len(page) for page in listed] == [2, 2, 1]
    assert {each for page in listed for each in page} == targets


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("get_policy", {}),
        ("delete_policy", {}),
        ("create_policy_version", {"policyDocument": DOCUMENT}),
        ("get_policy_version", {"policyVersionId": "1"}),
        ("delete_policy_version", {"policyVersionId": "1"}),
        ("set_default_policy_version", {"policyVersionId": "1"}),
        ("list_policy_versions", {}),
        ("list_targets_for_policy", {}),
        ("attach_policy", {"target": arn("cert/" + "0" * 64)}),
    ],
)
def test_an_unknown_policy_is_not_found(
    iot: Any, name: str, operation: str, more: dict[str, Any]
) -> None:
    refused = refusal(getattr(iot, operation), policyName=name, **more)
    assert refused.kind == (404, "ResourceNotFoundException")


def test_targets_that_do_not_exist_are_refused(iot: Any, policy: str) -> None:
    unknown = refusal(iot.attach_policy, policyName=policy, target=arn("cert/" + "0" * 64))
    assert unknown.kind == (404, "ResourceNotFoundException")
    nonsense = refusal(iot.attach_policy, policyName=policy, target="nonsense")
    assert nonsense.kind == (400, "InvalidRequestException")
    assert "`nonsense`" in nonsense.message
