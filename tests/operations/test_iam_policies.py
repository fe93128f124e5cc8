"""Managed IAM policies: the account's own and AWS's."""

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.domain.policy import IDENTITY, compile_policies, parse
from fleetgate.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    InvalidInput,
    LimitExceeded,
    MalformedPolicyDocument,
    NoSuchEntity,
    ValidationError,
)
from fleetgate.store import managed_policies
from tests.operations.conftest import Registry, elsewhere
from tests.operations.iam import ACCOUNT, TRUST, Iam, allow

THINGS = "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration"


@pytest.fixture
def iam(registry: Registry) -> Iam:
    return Iam(registry)


def create(iam: Iam, name: str, **members: str) -> str:
    document = allow("iot:One")
    created = iam("CreatePolicy", PolicyName=name, PolicyDocument=document, **members)
    return str(created["Policy"]["Arn"])


def test_a_policy_is_created_found_and_deleted(iam: Iam) -> None:
    arn = create(iam, "P", Path="/a/b/", Description="d")
    assert arn == f"arn:aws:iam::{ACCOUNT}:policy/a/b/P"
    found = iam("GetPolicy", PolicyArn=arn)["Policy"]
    assert re.fullmatch("ANPA[A-Z2-7]{17}", found["PolicyId"])
    assert found["DefaultVersionId"] == "v1"
    assert (found["AttachmentCount"], found["IsAttachable"]) == (0, True)
    assert found["Description"] == "d"
    with pytest.raises(EntityAlreadyExists, match="A policy called p already exists"):
        create(iam, "p")
    iam("DeletePolicy", PolicyArn=arn)
    with pytest.raises(NoSuchEntity, match=f"Policy {arn} was not found"):
        iam("GetPolicy", PolicyArn=arn)


def test_versions(iam: Iam) -> None:
    arn = create(iam, "p")
    for at in range(2, 6):
        made = iam("CreatePolicyVersion", PolicyArn=arn, PolicyDocument=allow(f"iot:V{at}"))
        assert made["PolicyVersion"]["VersionId"] == f"v{at}"
        assert made["PolicyVersion"]["IsDefaultVersion"] is False
    with pytest.raises(LimitExceeded, match="A managed policy can have up to 5 versions"):
        iam("CreatePolicyVersion", PolicyArn=arn, PolicyDocument=allow("iot:V6"))
    iam("SetDefaultPolicyVersion", PolicyArn=arn, VersionId="v3")
    assert iam("GetPolicy", PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v3"
    with pytest.raises(DeleteConflict, match="Cannot delete the default version of a policy"):
        iam("DeletePolicyVersion", PolicyArn=arn, VersionId="v3")
    iam("DeletePolicyVersion", PolicyArn=arn, VersionId="v5")
    first = iam("ListPolicyVersions", PolicyArn=arn, MaxItems=2)
    rest = iam("ListPolicyVersions", PolicyArn=arn, Marker=first["Marker"])
    listed = [*first["Versions"], *rest["Versions"]]
    assert [each["VersionId"] for each in listed] == ["v4", "v3", "v2", "v1"]
    assert [each["IsDefaultVersion"] for each in listed] == [False, True, False, False]
    found = iam("GetPolicyVersion", PolicyArn=arn, VersionId="v4")["PolicyVersion"]
    assert json.loads(unquote(found["Document"]))["Statement"][0]["Action"] == ["iot:V4"]
    with pytest.raises(DeleteConflict, match="This policy has more than one version"):
        iam("DeletePolicy", PolicyArn=arn)
    for operation in ("GetPolicyVersion", "DeletePolicyVersion", "SetDefaultPolicyVersion"):
        with pytest.raises(NoSuchEntity, match=f"Policy {arn} version v9 does not exist"):
            iam(operation, PolicyArn=arn, VersionId="v9")
    # numbers are not given twice
    iam("CreatePolicyVersion", PolicyArn=arn, PolicyDocument=allow("iot:V6"), SetAsDefault=True)
    assert iam("GetPolicy", PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v6"


@pytest.mark.parametrize("document", ["{", TRUST, allow("nothing")])
def test_a_document_that_is_none_is_refused(iam: Iam, document: str) -> None:
    with pytest.raises(MalformedPolicyDocument):
        iam("CreatePolicy", PolicyName="p", PolicyDocument=document)
    arn = create(iam, "p")
    with pytest.raises(MalformedPolicyDocument):
        iam("CreatePolicyVersion", PolicyArn=arn, PolicyDocument=document)


def test_quotas_hold(iam: Iam, registry: Registry) -> None:
    limits = Limits(iam_policies=1, iam_managed_policy_characters=100)
    iam.registry.services = elsewhere(registry.services, limits=limits)
    create(iam, "p")
    with pytest.raises(LimitExceeded, match="Cannot exceed quota for PoliciesPerAccount: 1"):
        create(iam, "q")
    with pytest.raises(LimitExceeded, match="Cannot exceed quota for PolicySize: 100"):
        document = allow(*[f"iot:Action{at}" for at in range(9)])
        iam("CreatePolicy", PolicyName="q", PolicyDocument=document)


def names(found: dict[str, object]) -> list[str]:
    policies = found["Policies"]
    assert isinstance(policies, list)
    return [policy["PolicyName"] for policy in policies]


def test_policies_are_listed_by_scope_path_and_attachment(iam: Iam) -> None:
    for name in ("b", "A"):
        create(iam, name, Path="/x/")
    assert names(iam("ListPolicies", Scope="Local")) == ["A", "b"]
    built_in = names(iam("ListPolicies", Scope="AWS"))
    assert built_in == sorted(built_in)
    assert "AWSIoTThingsRegistration" in built_in
    assert names(iam("ListPolicies")) == [*built_in, "A", "b"]
    assert names(iam("ListPolicies", PathPrefix="/x/")) == ["A", "b"]
    roles = names(iam("ListPolicies", PathPrefix="/service-role/"))
    assert "AWSIoTThingsRegistration" in roles
    assert names(iam("ListPolicies", OnlyAttached=True)) == []
    iam.role("r")
    for arn in (THINGS, f"arn:aws:iam::{ACCOUNT}:policy/x/b"):
        iam("AttachRolePolicy", RoleName="r", PolicyArn=arn)
    attached = iam("ListPolicies", OnlyAttached=True)
    assert names(attached) == ["AWSIoTThingsRegistration", "b"]
    assert [each["AttachmentCount"] for each in attached["Policies"]] == [1, 1]
    assert names(iam("ListPolicies", PolicyUsageFilter="PermissionsBoundary")) == []


def test_pages_of_policies_meet(iam: Iam) -> None:
    for name in ("b", "a"):
        create(iam, name)
    whole = names(iam("ListPolicies"))
    for size in (1, 3, len(whole) - 1):
        found: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = iam("ListPolicies", MaxItems=size, **marker)
            found += names(page)
            if not page["IsTruncated"]:
                break
            marker = {"Marker": page["Marker"]}
        assert found == whole


def test_the_entities_of_a_policy(iam: Iam) -> None:
    arn = create(iam, "p")
    for name in ("r1", "r2"):
        iam.role(name, Path="/x/")
        iam("AttachRolePolicy", RoleName=name, PolicyArn=arn)
    iam("CreateUser", UserName="u")
    iam("AttachUserPolicy", UserName="u", PolicyArn=arn)
    found = iam("ListEntitiesForPolicy", PolicyArn=arn)
    assert [each["UserName"] for each in found["PolicyUsers"]] == ["u"]
    assert sorted(each["RoleName"] for each in found["PolicyRoles"]) == ["r1", "r2"]
    assert found["PolicyGroups"] == []
    only = iam("ListEntitiesForPolicy", PolicyArn=arn, EntityFilter="Role", MaxItems=1)
    assert (len(only["PolicyRoles"]), only["PolicyUsers"]) == (1, [])
    rest = iam("ListEntitiesForPolicy", PolicyArn=arn, EntityFilter="Role", Marker=only["Marker"])
    both = [*only["PolicyRoles"], *rest["PolicyRoles"]]
    assert sorted(each["RoleName"] for each in both) == ["r1", "r2"]
    below = iam("ListEntitiesForPolicy", PolicyArn=arn, PathPrefix="/x/")
    assert (len(below["PolicyRoles"]), below["PolicyUsers"]) == (2, [])
    assert iam("ListEntitiesForPolicy", PolicyArn=arn, EntityFilter="Group")["PolicyRoles"] == []
    with pytest.raises(InvalidInput, match="`AWSManagedPolicy`"):
        iam("ListEntitiesForPolicy", PolicyArn=arn, EntityFilter="AWSManagedPolicy")


def test_tags(iam: Iam) -> None:
    arn = create(iam, "p")
    iam("TagPolicy", PolicyArn=arn, Tags=[{"Key": "a", "Value": "1"}])
    assert iam("GetPolicy", PolicyArn=arn)["Policy"]["Tags"] == [{"Key": "a", "Value": "1"}]
    iam("UntagPolicy", PolicyArn=arn, TagKeys=["a"])
    assert iam("ListPolicyTags", PolicyArn=arn)["Tags"] == []


def test_keys_of_tags_of_policies_differ_in_case(iam: Iam) -> None:
    """Recorded from AWS (localstack, test_iam_policies.py, TestPolicyTags)."""
    tags = [{"Key": "a", "Value": "lowercase"}, {"Key": "A", "Value": "uppercase"}]
    made = iam("CreatePolicy", PolicyName="p", PolicyDocument=allow("iot:*"), Tags=tags)["Policy"]
    arn = made["Arn"]
    assert made["Tags"] == tags
    assert iam("ListPolicyTags", PolicyArn=arn)["Tags"] == [tags[1], tags[0]]
    iam("TagPolicy", PolicyArn=arn, Tags=[{"Key": "a", "Value": "new"}])
    iam("UntagPolicy", PolicyArn=arn, TagKeys=["a"])
    assert iam("ListPolicyTags", PolicyArn=arn)["Tags"] == [tags[1]]
    twice = [tags[0], tags[0]]
    with pytest.raises(InvalidInput, match=r"^Duplicate tag keys found\.$"):
        iam("TagPolicy", PolicyArn=arn, Tags=twice)
    with pytest.raises(InvalidInput, match=r"^Duplicate tag keys found\.$"):
        iam("CreatePolicy", PolicyName="q", PolicyDocument=allow("iot:*"), Tags=twice)


def test_a_policy_without_tags(iam: Iam) -> None:
    """Recorded from AWS (as above): GetPolicy alone answers an empty list."""
    made = iam("CreatePolicy", PolicyName="p", PolicyDocument=allow("iot:*"))["Policy"]
    assert made.get("Tags") is None
    assert iam("GetPolicy", PolicyArn=made["Arn"])["Policy"]["Tags"] == []
    assert iam("GetPolicy", PolicyArn=THINGS)["Policy"]["Tags"] == []
    (listed,) = iam("ListPolicies", Scope="Local")["Policies"]
    assert listed.get("Tags") is None


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        ("GetPolicy", {}, "Policy {} was not found."),
        ("DeletePolicy", {}, "Policy {} was not found."),
        ("TagPolicy", {"Tags": [{"Key": "a", "Value": ""}]}, "Policy {} was not found."),
        (
            "GetPolicyVersion",
            {"VersionId": "v1"},
            "Policy {} version v1 does not exist or is not attachable.",
        ),
        (
            "SetDefaultPolicyVersion",
            {"VersionId": "v1"},
            "Policy {} version v1 does not exist or is not attachable.",
        ),
        ("ListEntitiesForPolicy", {}, "Policy {} does not exist or is not attachable."),
    ],
)
def test_a_policy_that_is_not_there(
    iam: Iam, operation: str, members: dict[str, Any], message: str
) -> None:
    """Recorded from AWS (localstack, test_iam_policies.py)."""
    arn = f"arn:aws:iam::{ACCOUNT}:policy/TestNonExistingPolicy"
    with pytest.raises(NoSuchEntity) as caught:
        iam(operation, PolicyArn=arn, **members)
    assert caught.value.message == message.format(arn)


@pytest.mark.parametrize("version", ["2008-10-17", None])
def test_a_managed_policy_has_a_document_of_today(iam: Iam, version: str | None) -> None:
    """Recorded from AWS (localstack, test_iam_policies.py); inline ones may be older."""
    written = json.loads(allow("iot:*"))
    del written["Version"]
    text = json.dumps({**written, **({"Version": version} if version else {})})
    arn = create(iam, "p")
    sentence = r"^Policy document must be version 2012-10-17 or greater\.$"
    with pytest.raises(MalformedPolicyDocument, match=sentence):
        iam("CreatePolicy", PolicyName="q", PolicyDocument=text)
    with pytest.raises(MalformedPolicyDocument, match=sentence):
        iam("CreatePolicyVersion", PolicyArn=arn, PolicyDocument=text)
    iam.role("r")
    iam("PutRolePolicy", RoleName="r", PolicyName="p", PolicyDocument=text)


# --- AWS's own ------------------------------------------------------------------------------------


def test_the_policy_of_provisioning_roles(iam: Iam) -> None:
    """AWS Managed Policy Reference, "AWSIoTThingsRegistration": version v3 of 2020-10-05."""
    policy = iam("GetPolicy", PolicyArn=THINGS)["Policy"]
    assert policy["DefaultVersionId"] == "v3"
    version = iam("GetPolicyVersion", PolicyArn=THINGS, VersionId="v3")["PolicyVersion"]
    document = json.loads(unquote(version["Document"]))
    (statement,) = document["Statement"]
    assert statement["Resource"] == ["*"]
    assert len(statement["Action"]) == 30
    assert "iot:CreateThingGroup" not in statement["Action"]
    (listed,) = iam("ListPolicyVersions", PolicyArn=THINGS)["Versions"]
    assert (listed["VersionId"], listed["IsDefaultVersion"]) == ("v3", True)


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("DeletePolicy", {}),
        ("CreatePolicyVersion", {"PolicyDocument": allow("iot:*")}),
        ("SetDefaultPolicyVersion", {"VersionId": "v1"}),
        ("DeletePolicyVersion", {"VersionId": "v1"}),
        ("TagPolicy", {"Tags": [{"Key": "a", "Value": ""}]}),
    ],
)
def test_nobody_changes_the_policies_of_aws(
    iam: Iam, operation: str, members: dict[str, object]
) -> None:
    with pytest.raises(ValidationError, match="Cannot perform operation on AWS managed policy"):
        iam(operation, PolicyArn=THINGS, **members)


@pytest.mark.parametrize("policy", managed_policies.every().values(), ids=lambda p: p.policy_name)
def test_every_policy_of_aws_can_be_compiled(policy: managed_policies.ManagedPolicy) -> None:
    assert policy.arn.startswith(managed_policies.PREFIX)
    assert policy.path.startswith("/")
    assert policy.path.endswith("/")
    parse(policy.document, IDENTITY)


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("AdministratorAccess", "iot:CreateThing", None),
        ("AWSIoTFullAccess", "iot:CreateThing", "iam:CreateUser"),
        ("AWSIoTConfigAccess", "iot:CreatePolicy", "iot:Publish"),
        ("AWSIoTConfigReadOnlyAccess", "iot:DescribeThing", "iot:CreateThing"),
        ("AWSIoTDataAccess", "iot:Publish", "iot:CreateThing"),
        ("service-role/AWSIoTThingsRegistration", "iot:CreateThing", "iot:CreateThingGroup"),
        ("service-role/AWSLambdaRole", "lambda:InvokeFunction", "lambda:CreateFunction"),
        ("IAMFullAccess", "iam:CreateUser", "iot:CreateThing"),
        ("IAMReadOnlyAccess", "iam:GetUser", "iam:CreateUser"),
    ],
)
def test_what_the_policies_of_aws_allow(name: str, allowed: str, refused: str | None) -> None:
    """AWS Managed Policy Reference."""
    policy = managed_policies.find(f"{managed_policies.PREFIX}/{name}")
    assert policy is not None
    rights = compile_policies([(name, parse(policy.document, IDENTITY))], {})
    assert rights.evaluate(allowed, "arn:aws:iot:r:1:thing/t").allowed
    assert refused is None or not rights.evaluate(refused, "arn:aws:iot:r:1:thing/t").allowed
