"""IoT policies: documents, versions, attachments.

Sources: AWS IoT API Reference (CreatePolicyVersion, DeletePolicy, DeletePolicyVersion,
ListAttachedPolicies); AWS General Reference, "AWS IoT Core endpoints and quotas"; messages as
Terraform's AWS provider and users have published them.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import (
    DeleteConflictException,
    InvalidRequestException,
    LimitExceededException,
    MalformedPolicyException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionsLimitExceededException,
)
from tests.operations.conftest import ALLOW, START, Registry

DENY = ALLOW.replace("Allow", "Deny")


@pytest.fixture
def policy(registry: Registry) -> str:
    registry.call("CreatePolicy", policy_name="lamps", policy_document=ALLOW)
    return "lamps"


@pytest.fixture
def certificate(registry: Registry) -> str:
    """The ARN of a new certificate."""
    return str(registry.certificate()["certificateArn"])


def limited(registry: Registry, **limits: int) -> None:
    services = registry.services
    services.limits = replace(services.limits, **limits)


def group(registry: Registry, name: str, parent: str | None = None) -> str:
    below = {"parent_group_name": parent} if parent else {}
    answer = registry.call("CreateThingGroup", thing_group_name=name, **below)
    return str(answer["thingGroupArn"])


def test_a_name_is_taken_once(registry: Registry, policy: str) -> None:
    with pytest.raises(ResourceAlreadyExistsException) as caught:
        registry.call("CreatePolicy", policy_name=policy, policy_document=ALLOW)
    assert caught.value.members == {
        "resourceId": policy,
        "resourceArn": registry.arn(f"policy/{policy}"),
    }


def test_the_size_of_a_document_is_a_setting(registry: Registry, policy: str) -> None:
    size = len("".join(ALLOW.split()))
    limited(registry, policy_document_characters=size - 1)
    for operation in ("CreatePolicy", "CreatePolicyVersion"):
        with pytest.raises(MalformedPolicyException, match=f"the limit is {size - 1}"):
            registry.call(operation, policy_name=policy, policy_document=ALLOW)
    limited(registry, policy_document_characters=size)
    registry.call("CreatePolicyVersion", policy_name=policy, policy_document=ALLOW)


def test_five_versions(registry: Registry, policy: str) -> None:
    for number in range(2, 6):
        registry.clock.now += 1
        answer = registry.call(
            "CreatePolicyVersion", policy_name=policy, policy_document=DENY, set_as_default=False
        )
        assert answer["policyVersionId"] == str(number)
    with pytest.raises(VersionsLimitExceededException) as caught:
        registry.call("CreatePolicyVersion", policy_name=policy, policy_document=DENY)
    assert caught.value.message == (
        "The policy lamps already has the maximum number of versions (5)"
    )
    listed = registry.call("ListPolicyVersions", policy_name=policy)["policyVersions"]
    assert listed[0] == {"versionId": "5", "isDefaultVersion": False, "createDate": START + 4}
    assert listed[4] == {"versionId": "1", "isDefaultVersion": True, "createDate": START}
    with pytest.raises(DeleteConflictException) as conflict:
        registry.call("DeletePolicy", policy_name=policy)
    assert conflict.value.message == (
        "Cannot delete the policy because it has one or more policy versions attached to it "
        "(name=lamps)"
    )


def test_the_number_of_versions_is_a_setting(registry: Registry, policy: str) -> None:
    limited(registry, policy_versions=1)
    with pytest.raises(VersionsLimitExceededException, match=r"\(1\)"):
        registry.call("CreatePolicyVersion", policy_name=policy, policy_document=DENY)


def test_the_version_in_force(registry: Registry, policy: str) -> None:
    epoch = registry.services.policy_epoch
    registry.call("CreatePolicyVersion", policy_name=policy, policy_document=DENY)
    assert registry.call("GetPolicy", policy_name=policy)["policyDocument"] == ALLOW
    assert registry.services.policy_epoch == epoch
    with pytest.raises(DeleteConflictException, match="default version"):
        registry.call("DeletePolicyVersion", policy_name=policy, policy_version_id="1")
    registry.call("SetDefaultPolicyVersion", policy_name=policy, policy_version_id="2")
    assert registry.services.policy_epoch > epoch
    got = registry.call("GetPolicy", policy_name=policy)
    assert (got["policyDocument"], got["defaultVersionId"]) == (DENY, "2")
    registry.call("DeletePolicyVersion", policy_name=policy, policy_version_id="1")
    registry.call("DeletePolicy", policy_name=policy)


@pytest.mark.parametrize(
    "operation", ["GetPolicyVersion", "SetDefaultPolicyVersion", "DeletePolicyVersion"]
)
@pytest.mark.parametrize("version", ["0", "2", "9" * 400])
def test_an_unknown_version_is_not_found(
    registry: Registry, policy: str, operation: str, version: str
) -> None:
    with pytest.raises(ResourceNotFoundException, match="version"):
        registry.call(operation, policy_name=policy, policy_version_id=version)


def test_an_attached_policy_is_not_deleted(
    registry: Registry, policy: str, certificate: str
) -> None:
    registry.call("AttachPolicy", policy_name=policy, target=certificate)
    with pytest.raises(DeleteConflictException) as caught:
        registry.call("DeletePolicy", policy_name=policy)
    assert caught.value.message == (
        "The policy cannot be deleted as the policy is attached to one or more principals "
        "(name=lamps)"
    )
    registry.call("DetachPolicy", policy_name=policy, target=certificate)
    registry.call("DeletePolicy", policy_name=policy)


def test_tags_live_and_die_with_a_policy(registry: Registry) -> None:
    tags = [{"Key": "site", "Value": "Basel"}]
    registry.call("CreatePolicy", policy_name="lamps", policy_document=ALLOW, tags=tags)
    arn = registry.arn("policy/lamps")
    assert registry.call("ListTagsForResource", resource_arn=arn)["tags"] == tags
    registry.call("DeletePolicy", policy_name="lamps")
    registry.call("CreatePolicy", policy_name="lamps", policy_document=ALLOW)
    assert registry.call("ListTagsForResource", resource_arn=arn)["tags"] == []


def test_attaching_and_detaching_again_succeeds(
    registry: Registry, policy: str, certificate: str
) -> None:
    for operation, targets in (("AttachPolicy", [certificate]), ("DetachPolicy", [])):
        for _ in range(2):
            epoch = registry.services.policy_epoch
            assert registry.call(operation, policy_name=policy, target=certificate) == {}
            assert registry.services.policy_epoch > epoch
            listed = registry.call("ListTargetsForPolicy", policy_name=policy)
            assert listed["targets"] == targets


def test_detaching_a_policy_that_is_not_there_succeeds(
    registry: Registry, certificate: str
) -> None:
    """Terraform's AWS provider: "DetachPolicy doesn't return an error if the policy doesn't
    exist, but it returns an error if the Target is not found" (InvalidRequestException, "Invalid
    Target"); the model declares no ResourceNotFoundException."""
    registry.call("DetachPolicy", policy_name="none", target=certificate)
    gone = registry.arn(f"cert/{'a' * 64}")
    with pytest.raises(InvalidRequestException, match="Invalid Target"):
        registry.call("DetachPolicy", policy_name="none", target=gone)


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("cert/" + "a" * 64, ResourceNotFoundException),
        ("thinggroup/none", ResourceNotFoundException),
        ("thing/lamp", InvalidRequestException),
        ("cert/", InvalidRequestException),
    ],
)
def test_what_policies_cannot_be_attached_to(
    registry: Registry, policy: str, target: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        registry.call("AttachPolicy", policy_name=policy, target=registry.arn(target))
    with pytest.raises(InvalidRequestException, match="Invalid Target"):
        registry.call("DetachPolicy", policy_name=policy, target=registry.arn(target))
    with pytest.raises(error):
        registry.call("ListAttachedPolicies", target=registry.arn(target))


def test_cognito_identities_are_refused_by_name(registry: Registry, policy: str) -> None:
    identity = "eu-west-1:12345678-1234-1234-1234-1234567890ab"
    for operation in ("AttachPolicy", "DetachPolicy"):
        with pytest.raises(InvalidRequestException, match="is a Cognito identity"):
            registry.call(operation, policy_name=policy, target=identity)
    with pytest.raises(InvalidRequestException, match="is a Cognito identity"):
        registry.call("ListAttachedPolicies", target=identity)


def test_an_unknown_policy_is_not_attached(registry: Registry, certificate: str) -> None:
    with pytest.raises(ResourceNotFoundException, match="none"):
        registry.call("AttachPolicy", policy_name="none", target=certificate)
    with pytest.raises(ResourceNotFoundException, match="none"):
        registry.call("ListTargetsForPolicy", policy_name="none")


def test_policies_per_target_are_a_setting(registry: Registry, certificate: str) -> None:
    limited(registry, policies_per_principal=2)
    for name in ("a", "b", "c"):
        registry.call("CreatePolicy", policy_name=name, policy_document=ALLOW)
    for target in (certificate, group(registry, "g")):
        for name in ("a", "b", "a"):
            registry.call("AttachPolicy", policy_name=name, target=target)
        with pytest.raises(LimitExceededException, match="the limit is 2"):
            registry.call("AttachPolicy", policy_name="c", target=target)


def test_recursion_goes_up_the_groups(registry: Registry, certificate: str) -> None:
    """AWS IoT Core Developer Guide, "Thing groups": a policy of a group holds below it."""
    arns = [group(registry, "a"), group(registry, "b", "a"), group(registry, "c", "b")]
    for name, target in zip("xyz", arns, strict=True):
        registry.call("CreatePolicy", policy_name=name, policy_document=ALLOW)
        registry.call("AttachPolicy", policy_name=name, target=target)
    registry.call("AttachPolicy", policy_name="x", target=arns[2])

    def listed(target: str, **params: Any) -> list[str]:
        names: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = registry.call(
                "ListAttachedPolicies", target=target, page_size=1, **params, **marker
            )
            assert all(
                each["policyArn"] == registry.arn(f"policy/{each['policyName']}")
                for each in page["policies"]
            )
            names += [each["policyName"] for each in page["policies"]]
            if page["nextMarker"] is None:
                return names
            marker = {"marker": page["nextMarker"]}

    assert listed(arns[2]) == ["x", "z"]
    assert listed(arns[2], recursive=True) == ["x", "y", "z"]
    assert listed(arns[1], recursive=True) == ["x", "y"]
    assert listed(arns[0], recursive=True) == ["x"]
    assert listed(certificate, recursive=True) == []


def test_targets_are_listed_page_by_page(registry: Registry, policy: str) -> None:
    targets = [str(registry.certificate()["certificateArn"]) for _ in range(3)]
    targets += [group(registry, name) for name in "ab"]
    for target in targets:
        registry.call("AttachPolicy", policy_name=policy, target=target)
    found: list[str] = []
    marker: dict[str, str] = {}
    for size in (2, 2, 1):
        page = registry.call("ListTargetsForPolicy", policy_name=policy, page_size=2, **marker)
        assert len(page["targets"]) == size
        found += page["targets"]
        marker = {"marker": page["nextMarker"]}
    assert page["nextMarker"] is None
    assert found == sorted(targets)


def test_policies_are_listed_by_age(registry: Registry) -> None:
    for name in ("b", "a", "c"):
        registry.clock.now += 1
        registry.call("CreatePolicy", policy_name=name, policy_document=ALLOW)
    for params, order in (({}, "cab"), ({"ascending_order": True}, "bac")):
        names: list[str] = []
        page = registry.call("ListPolicies", page_size=2, **params)
        names += [each["policyName"] for each in page["policies"]]
        page = registry.call("ListPolicies", page_size=2, marker=page["nextMarker"], **params)
        names += [each["policyName"] for each in page["policies"]]
        assert names == list(order)


def test_a_malformed_document_says_where(registry: Registry) -> None:
    document = json.loads(ALLOW)
    document["Statement"]["Effect"] = "Maybe"
    with pytest.raises(MalformedPolicyException, match="Effect"):
        registry.call("CreatePolicy", policy_name="x", policy_document=json.dumps(document))
