"""Trust policies name users and roles by ARN and mean who they are.

Source: IAM User Guide, "AWS JSON policy elements: Principal": an ARN becomes the unique id, so that
nobody inherits trust with a name; the ARN comes back when the policy is shown.
"""

import json
from typing import Any
from urllib.parse import unquote

import pytest

from fleetgate.errors import AccessDeniedException, MalformedPolicyDocument
from fleetgate.operations.caller import Caller
from tests.operations.conftest import Registry
from tests.operations.iam import ACCOUNT, Iam, allow

IAM = f"arn:aws:iam::{ACCOUNT}:"
STS = f"arn:aws:sts::{ACCOUNT}:"


@pytest.fixture
def iam(registry: Registry) -> Iam:
    return Iam(registry)


def trust(*principals: str, **more: Any) -> str:
    named: Any = principals[0] if len(principals) == 1 else list(principals)
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": named},
        "Action": "sts:AssumeRole",
        **more,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def shown(iam: Iam, role: str) -> Any:
    """The principals of kind AWS, as GetRole tells them."""
    document = iam("GetRole", RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    return json.loads(unquote(document))["Statement"][0]["Principal"]["AWS"]


def enters(iam: Iam, caller: Caller, role: str) -> bool:
    try:
        iam.sts("AssumeRole", caller, RoleArn=f"{IAM}role/{role}", RoleSessionName="session")
    except AccessDeniedException:
        return False
    return True


def renewed(iam: Iam, caller: Caller, name: str) -> Caller:
    """The same user after a change: what the HTTP door would find for its key."""
    user = iam("GetUser", UserName=name)["User"]
    return Caller(
        ACCOUNT,
        user["Arn"],
        user["UserId"],
        caller.access_key_id,
        caller.policies,
        principal_arn=user["Arn"],
    )


def test_a_user_made_anew_is_somebody_else(iam: Iam) -> None:
    first = iam.user("pu")
    iam.role("r", trust(first.arn))
    assert shown(iam, "r") == first.arn
    assert enters(iam, first, "r")
    iam("DeleteUser", UserName="pu")
    assert shown(iam, "r") == first.user_id
    second = iam.user("pu", allow("sts:AssumeRole"))
    assert second.arn == first.arn
    assert not enters(iam, second, "r")
    assert shown(iam, "r") == first.user_id


def test_a_user_who_is_renamed_stays_trusted(iam: Iam) -> None:
    before = iam.user("pu")
    iam.role("r", trust(before.arn))
    iam("UpdateUser", UserName="pu", NewUserName="qu", NewPath="/p/")
    after = renewed(iam, before, "qu")
    assert shown(iam, "r") == f"{IAM}user/p/qu"
    assert enters(iam, after, "r")
    listed = iam("ListRoles")["Roles"][0]["AssumeRolePolicyDocument"]
    assert f"{IAM}user/p/qu" in unquote(listed)
    assert not enters(iam, iam.user("pu", allow("sts:AssumeRole")), "r")


def test_roles_and_sessions_are_meant_too(iam: Iam) -> None:
    iam.role("caller", trust(ACCOUNT), Path="/p/")
    names = [f"{IAM}role/p/caller", f"{STS}assumed-role/caller/phone"]
    iam.role("r", trust(*names))
    assert shown(iam, "r") == names
    role_id = iam("GetRole", RoleName="caller")["Role"]["RoleId"]
    iam("DeleteRole", RoleName="caller")
    assert shown(iam, "r") == [role_id, f"{role_id}:phone"]
    iam.role("caller", trust(ACCOUNT), Path="/p/")
    assert shown(iam, "r") == [role_id, f"{role_id}:phone"]


@pytest.mark.parametrize(
    "principal",
    [
        "*",
        ACCOUNT,
        f"{IAM}root",
        "210987654321",
        "arn:aws:iam::210987654321:user/theirs",
        "arn:aws:iam::210987654321:root",
    ],
)
def test_what_names_no_one_of_the_account_stays_as_it_is(iam: Iam, principal: str) -> None:
    text = trust(principal)
    created = iam("CreateRole", RoleName="r", AssumeRolePolicyDocument=text)["Role"]
    assert unquote(created["AssumeRolePolicyDocument"]) == text
    found = iam("GetRole", RoleName="r")["Role"]["AssumeRolePolicyDocument"]
    assert unquote(found) == text


def test_only_principals_are_turned_into_ids(iam: Iam) -> None:
    ann = iam.user("ann")
    condition = {"ArnEquals": {"aws:PrincipalArn": [ann.arn, ann.user_id]}}
    text = trust(ann.arn, Sid="s", Condition=condition)
    iam.role("r", text)
    found = iam("GetRole", RoleName="r")["Role"]["AssumeRolePolicyDocument"]
    assert json.loads(unquote(found)) == json.loads(text)


@pytest.mark.parametrize(
    "principal",
    [
        f"{IAM}user/doesnotexist",
        f"{IAM}user/p/ann",  # has another path
        f"{IAM}user/ANN",
        f"{IAM}role/ann",
        f"{IAM}role/",
        f"{IAM}group/g",
        f"{STS}assumed-role/none/session",
        f"{STS}assumed-role/other",
        f"{STS}assumed-role/other/",
        f"{STS}assumed-role/other/a/b",
        f"{STS}federated-user/ann",
        "AIDAIIIIIIIIIIIIIIIII",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_somebody_who_is_not_there_is_refused(iam: Iam, principal: str) -> None:
    """Terraform waits for a new user or role as long as it reads these words."""
    iam("CreateUser", UserName="ann")
    iam.role("other")
    expected = f'Invalid principal in policy: "AWS":"{principal}"'
    text = trust(f"{IAM}user/ann", principal)
    with pytest.raises(MalformedPolicyDocument) as caught:
        iam.role("r", text)
    assert caught.value.message == expected
    with pytest.raises(MalformedPolicyDocument) as caught:
        iam("UpdateAssumeRolePolicy", RoleName="other", PolicyDocument=text)
    assert caught.value.message == expected


def test_an_id_names_who_has_it(iam: Iam) -> None:
    ann = iam.user("ann")
    iam.role("r", trust(ann.user_id))
    assert shown(iam, "r") == ann.arn
    assert enters(iam, ann, "r")
