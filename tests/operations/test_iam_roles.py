"""IAM roles, and the policies of users and roles."""

import json
import re
from urllib.parse import unquote

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    InvalidInput,
    LimitExceeded,
    MalformedPolicyDocument,
    NoSuchEntity,
    ServiceError,
    ValidationError,
)
from fleetgate.store import iam_roles
from tests.operations.conftest import START, Registry, elsewhere
from tests.operations.iam import ACCOUNT, TRUST, Iam, allow

THINGS = "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration"


@pytest.fixture
def iam(registry: Registry) -> Iam:
    return Iam(registry)


def test_a_role_is_created_found_and_deleted(iam: Iam) -> None:
    members = {"Path": "/service-role/", "Description": "d", "MaxSessionDuration": 7200}
    tags = [{"Key": "k", "Value": "v"}]
    created = iam("CreateRole", RoleName="R", AssumeRolePolicyDocument=TRUST, Tags=tags, **members)[
        "Role"
    ]
    assert re.fullmatch("AROA[A-Z2-7]{17}", created["RoleId"])
    assert created["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/service-role/R"
    found = iam("GetRole", RoleName="R")["Role"]
    # recorded from AWS: CreateRole tells neither (localstack, test_iam_roles.py)
    untold = {"Description": None, "MaxSessionDuration": None}
    assert {**found, **untold} == {**created, "RoleLastUsed": {}}
    assert {name: found[name] for name in members} == members
    assert (found["CreateDate"], found["Tags"]) == (START, tags)
    with pytest.raises(EntityAlreadyExists, match="Role with name r already exists"):
        iam.role("r")
    iam("DeleteRole", RoleName="R")
    with pytest.raises(NoSuchEntity, match="The role with name R cannot be found"):
        iam("GetRole", RoleName="R")


def test_documents_are_answered_percent_encoded(iam: Iam) -> None:
    """IAM API Reference, "GetRole": URL-encoded as of RFC 3986."""
    iam.role("r")
    encoded = iam("GetRole", RoleName="r")["Role"]["AssumeRolePolicyDocument"]
    assert encoded.startswith("%7B%22Version%22%3A%20%222012-10-17%22")
    assert unquote(encoded) == TRUST
    assert not set(encoded) & set(' "{}:*/+')


def test_roles_are_listed_by_path_in_pages(iam: Iam) -> None:
    for name in ("b", "A", "c"):
        iam.role(name, Path="/x/")
    iam.role("d")
    first = iam("ListRoles", PathPrefix="/x/", MaxItems=2)
    assert [role["RoleName"] for role in first["Roles"]] == ["A", "b"]
    rest = iam("ListRoles", PathPrefix="/x/", MaxItems=2, Marker=first["Marker"])
    assert [role["RoleName"] for role in rest["Roles"]] == ["c"]
    assert rest["IsTruncated"] is False


def test_a_role_is_updated(iam: Iam) -> None:
    iam.role("r", Description="old")
    iam("UpdateRole", RoleName="r", MaxSessionDuration=43200)
    described = iam("UpdateRoleDescription", RoleName="r", Description="new")["Role"]
    # recorded from AWS (localstack, test_iam_roles.py, test_update_role)
    assert (described["Description"], described["MaxSessionDuration"]) == ("new", None)
    other = TRUST.replace("iot.amazonaws.com", "lambda.amazonaws.com")
    iam("UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=other)
    role = iam("GetRole", RoleName="r")["Role"]
    assert (role["Description"], role["MaxSessionDuration"]) == ("new", 43200)
    assert unquote(role["AssumeRolePolicyDocument"]) == other
    iam("UpdateRole", RoleName="r", Description="")
    assert iam("GetRole", RoleName="r")["Role"]["Description"] == ""


@pytest.mark.parametrize(
    "document",
    [
        "{",
        allow("sts:AssumeRole"),
        TRUST.replace("sts:AssumeRole", "iot:Connect"),
        TRUST.replace('"Principal": {"Service": "iot.amazonaws.com"}, ', ""),
    ],
)
def test_a_trust_policy_that_is_none_is_refused(iam: Iam, document: str) -> None:
    with pytest.raises(MalformedPolicyDocument):
        iam.role("r", document)
    iam.role("r")
    with pytest.raises(MalformedPolicyDocument):
        iam("UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=document)


def test_a_role_with_policies_is_not_deleted(iam: Iam) -> None:
    iam.role("r")
    iam("PutRolePolicy", RoleName="r", PolicyName="p", PolicyDocument=allow("iot:*"))
    iam("AttachRolePolicy", RoleName="r", PolicyArn=THINGS)
    with pytest.raises(DeleteConflict, match="must delete policies first"):
        iam("DeleteRole", RoleName="r")
    iam("DeleteRolePolicy", RoleName="r", PolicyName="p")
    with pytest.raises(DeleteConflict, match="must detach all policies first"):
        iam("DeleteRole", RoleName="r")
    iam("DetachRolePolicy", RoleName="r", PolicyArn=THINGS)
    assert iam("ListInstanceProfilesForRole", RoleName="r")["InstanceProfiles"] == []
    iam("DeleteRole", RoleName="r")


# --- inline ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["User", "Role"])
def test_inline_policies(iam: Iam, kind: str) -> None:
    owner = {f"{kind}Name": "o"}
    iam.role("o")
    iam("CreateUser", UserName="o")
    for name in ("b", "a", "c"):
        document = allow(f"iot:{name}")
        iam(f"Put{kind}Policy", PolicyName=name, PolicyDocument=document, **owner)
    iam(f"Put{kind}Policy", PolicyName="a", PolicyDocument=allow("iot:Other"), **owner)
    first = iam(f"List{kind}Policies", MaxItems=2, **owner)
    assert first["PolicyNames"] == ["a", "b"]
    rest = iam(f"List{kind}Policies", MaxItems=2, Marker=first["Marker"], **owner)
    assert (rest["PolicyNames"], rest["IsTruncated"]) == (["c"], False)
    found = iam(f"Get{kind}Policy", PolicyName="a", **owner)
    assert found[f"{kind}Name"] == "o"
    assert json.loads(unquote(found["PolicyDocument"]))["Statement"][0]["Action"] == ["iot:Other"]
    iam(f"Delete{kind}Policy", PolicyName="a", **owner)
    for operation in (f"Get{kind}Policy", f"Delete{kind}Policy"):
        with pytest.raises(NoSuchEntity, match=f"The {kind.lower()} policy with name a cannot"):
            iam(operation, PolicyName="a", **owner)
    with pytest.raises(MalformedPolicyDocument):
        iam(f"Put{kind}Policy", PolicyName="x", PolicyDocument=TRUST, **owner)
    with pytest.raises(NoSuchEntity):
        missing = {f"{kind}Name": "nobody"}
        iam(f"Put{kind}Policy", PolicyName="x", PolicyDocument=allow("iot:*"), **missing)


def test_inline_policies_share_a_quota(iam: Iam) -> None:
    """IAM User Guide, "IAM and AWS STS quotas": 2048 characters a user, white space is free."""
    iam("CreateUser", UserName="u")
    half = allow(*[f"iot:{'A' * 90}{at}" for at in range(10)])
    for name in ("a", "b"):
        padded = half + " " * 5000 if name == "a" else half
        if name == "b":
            with pytest.raises(LimitExceeded, match="Maximum policy size of 2048 bytes exceeded"):
                iam("PutUserPolicy", UserName="u", PolicyName=name, PolicyDocument=half)
        else:
            iam("PutUserPolicy", UserName="u", PolicyName=name, PolicyDocument=padded)
    iam("PutUserPolicy", UserName="u", PolicyName="a", PolicyDocument=half)


# --- attached -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["User", "Role"])
def test_attached_policies(iam: Iam, kind: str, registry: Registry) -> None:
    owner = {f"{kind}Name": "o"}
    iam.role("o")
    iam("CreateUser", UserName="o")
    own = iam("CreatePolicy", PolicyName="Own", Path="/p/", PolicyDocument=allow("iot:*"))
    arn = own["Policy"]["Arn"]
    for policy in (THINGS, arn, arn):
        iam(f"Attach{kind}Policy", PolicyArn=policy, **owner)
    listed = iam(f"ListAttached{kind}Policies", **owner)["AttachedPolicies"]
    assert listed == [
        {"PolicyName": "AWSIoTThingsRegistration", "PolicyArn": THINGS},
        {"PolicyName": "Own", "PolicyArn": arn},
    ]
    first = iam(f"ListAttached{kind}Policies", MaxItems=1, **owner)
    rest = iam(f"ListAttached{kind}Policies", MaxItems=1, Marker=first["Marker"], **owner)
    assert [*first["AttachedPolicies"], *rest["AttachedPolicies"]] == listed
    below = iam(f"ListAttached{kind}Policies", PathPrefix="/p/", **owner)["AttachedPolicies"]
    assert [each["PolicyName"] for each in below] == ["Own"]
    with pytest.raises(DeleteConflict, match="Cannot delete a policy attached to entities"):
        iam("DeletePolicy", PolicyArn=arn)
    iam(f"Detach{kind}Policy", PolicyArn=arn, **owner)
    with pytest.raises(NoSuchEntity, match=f"Policy {arn} was not found"):
        iam(f"Detach{kind}Policy", PolicyArn=arn, **owner)
    iam("DeletePolicy", PolicyArn=arn)


@pytest.mark.parametrize(
    ("arn", "error"),
    [
        (f"arn:aws:iam::{ACCOUNT}:policy/nothing", NoSuchEntity),
        ("arn:aws:iam::aws:policy/Nothing", NoSuchEntity),
        ("arn:aws:iot:us-east-1:1:policy/p", InvalidInput),
    ],
)
def test_only_policies_that_are_there_are_attached(
    iam: Iam, arn: str, error: type[ServiceError]
) -> None:
    iam.role("r")
    with pytest.raises(error, match=re.escape(arn)):
        iam("AttachRolePolicy", RoleName="r", PolicyArn=arn)


def test_ten_managed_policies_are_attached_at_most(iam: Iam, registry: Registry) -> None:
    iam.registry.services = elsewhere(registry.services, limits=Limits(iam_attached_policies=1))
    iam.role("r")
    iam("AttachRolePolicy", RoleName="r", PolicyArn=THINGS)
    iam("AttachRolePolicy", RoleName="r", PolicyArn=THINGS)
    with pytest.raises(LimitExceeded, match="Cannot exceed quota for PoliciesPerRole: 1"):
        iam("AttachRolePolicy", RoleName="r", PolicyArn="arn:aws:iam::aws:policy/IAMFullAccess")


def test_the_documents_of_a_role_are_those_in_force(iam: Iam, registry: Registry) -> None:
    iam.role("r")
    iam("PutRolePolicy", RoleName="r", PolicyName="in", PolicyDocument=allow("iot:A"))
    arn = iam("CreatePolicy", PolicyName="p", PolicyDocument=allow("iot:B"))["Policy"]["Arn"]
    iam("CreatePolicyVersion", PolicyArn=arn, PolicyDocument=allow("iot:C"), SetAsDefault=True)
    for policy in (arn, THINGS):
        iam("AttachRolePolicy", RoleName="r", PolicyArn=policy)
    store = registry.services.store
    documents = dict(registry.runner.run(store.read(iam_roles.list_role_documents, "r")))
    assert list(documents) == ["in", arn, THINGS]
    assert documents["in"] == allow("iot:A")
    assert documents[arn] == allow("iot:C")
    assert "iot:RegisterThing" in documents[THINGS]


def test_quotas_hold(iam: Iam, registry: Registry) -> None:
    iam.registry.services = elsewhere(
        registry.services, limits=Limits(iam_roles=1, iam_trust_policy_characters=200)
    )
    iam.role("r")
    with pytest.raises(LimitExceeded, match="Cannot exceed quota for RolesPerAccount: 1"):
        iam.role("s")
    long = TRUST.replace('"Allow"', f'"Allow", "Sid": "{"a" * 200}"')
    with pytest.raises(LimitExceeded, match="Cannot exceed quota for ACLSizePerRole: 200"):
        iam("UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=long)


def test_boundaries_are_refused(iam: Iam) -> None:
    with pytest.raises(ValidationError, match="`PermissionsBoundary` of CreateRole"):
        iam.role("r", PermissionsBoundary=THINGS)
