"""IAM and STS through boto3, with the access keys they make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.refusal import everything, members, pages, refusal
from tests.integration.server import ACCOUNT, Answer, Server, http

ANYBODY = "arn:aws:iam::aws:policy/AdministratorAccess"


def document(*actions: str, resource: str = "*") -> str:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(principal: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture(scope="module")
def iam(server: Server) -> Iterator[Any]:
    client = server.client("iam")
    yield client
    client.close()


@pytest.fixture
def clients(server: Server) -> Iterator[Any]:
    """Makes clients of a service for credentials as IAM and STS answer them."""
    made = []

    def client(service: str, credentials: dict[str, Any] | None = None) -> Any:
        given = {}
        if credentials is not None:
            given["aws_access_key_id"] = credentials["AccessKeyId"]
            given["aws_secret_access_key"] = credentials["SecretAccessKey"]
            if "SessionToken" in credentials:
                given["aws_session_token"] = credentials["SessionToken"]
        made.append(server.client(service, **given))
        return made[-1]

    yield client
    for each in made:
        each.close()


def test_the_root_user_knows_who_it_is(clients: Any) -> None:
    root = f"arn:aws:iam::{ACCOUNT}:root"
    identity = members(clients("sts").get_caller_identity())
    assert identity == {"UserId": ACCOUNT, "Account": ACCOUNT, "Arn": root}
    assert clients("iam").get_user()["User"]["Arn"] == root


def test_a_user_with_an_access_key_does_what_it_may(
    server: Server, iam: Any, clients: Any, name: str
) -> None:
    user = iam.create_user(UserName=name, Path="/installers/")["User"]
    assert abs(datetime.now(UTC) - user["CreateDate"]) < timedelta(minutes=1)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    sts, iot = clients("sts", key), clients("iot", key)
    assert sts.get_caller_identity()["Arn"] == user["Arn"]
    denied = refusal(iot.describe_endpoint)
    assert denied.kind == (403, "AccessDeniedException")
    denied = refusal(clients("iam", key).list_users)
    assert denied.kind == (403, "AccessDenied")
    assert denied.message.startswith(f"User: {user['Arn']} is not authorized to perform: iam:L")
    policy = document("iot:DescribeEndpoint")
    iam.put_user_policy(UserName=name, PolicyName="endpoint", PolicyDocument=policy)
    assert iot.describe_endpoint()["endpointAddress"] == server.mqtt_host
    last = iam.get_access_key_last_used(AccessKeyId=key["AccessKeyId"])
    assert last["UserName"] == name
    assert last["AccessKeyLastUsed"]["ServiceName"] in {"sts", "iot", "iam"}
    iam.update_access_key(UserName=name, AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert refusal(sts.get_caller_identity).kind == (403, "InvalidClientTokenId")
    assert refusal(iot.describe_endpoint).kind == (403, "UnrecognizedClientException")


def test_documents_come_back_as_they_were_given(iam: Any, name: str) -> None:
    """boto3 decodes what IAM encodes for the URL."""
    given = json.loads(document("iot:*"))
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(ACCOUNT))
    role = iam.get_role(RoleName=name)["Role"]
    assert role["AssumeRolePolicyDocument"] == json.loads(trust(ACCOUNT))
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(given))
    assert iam.get_role_policy(RoleName=name, PolicyName="p")["PolicyDocument"] == given
    made = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(given))
    arn = made["Policy"]["Arn"]
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    assert version["Document"] == given


def test_waiters_and_paginators_work(iam: Any, name: str) -> None:
    names = [f"{name}-{at}" for at in range(5)]
    for each in names:
        iam.create_user(UserName=each, Path=f"/{name}/")
    iam.get_waiter("user_exists").wait(UserName=names[-1])
    found = pages(iam, "list_users", "Users", 2, PathPrefix=f"/{name}/")
    assert [len(page) for page in found] == [2, 2, 1]
    assert [user["UserName"] for page in found for user in page] == names
    policies = everything(iam, "list_policies", "Policies", Scope="AWS")
    assert {"AWSIoTThingsRegistration", "AdministratorAccess"} <= {
        policy["PolicyName"] for policy in policies
    }


def test_a_role_is_assumed_and_its_session_used(
    iam: Any, clients: Any, server: Server, name: str
) -> None:
    user = iam.create_user(UserName=name)["User"]
    key = iam.create_access_key(UserName=name)["AccessKey"]
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(user["Arn"]))["Role"]
    iam.attach_role_policy(RoleName=name, PolicyArn=ANYBODY)
    sts = clients("sts", key)
    answer = sts.assume_role(
        RoleArn=role["Arn"], RoleSessionName="phone", Policy=document("iot:DescribeEndpoint")
    )
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/phone"
    assert answer["AssumedRoleUser"]["Arn"] == session
    ends = answer["Credentials"]["Expiration"] - datetime.now(UTC)
    assert timedelta(minutes=59) < ends <= timedelta(hours=1)
    assumed = answer["Credentials"]
    assert clients("sts", assumed).get_caller_identity()["Arn"] == session
    assert clients("iot", assumed).describe_endpoint()["endpointAddress"] == server.mqtt_host
    assert refusal(clients("iot", assumed).list_things).kind == (403, "AccessDeniedException")
    other = iam.create_user(UserName=f"{name}-else")["User"]
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust(other["Arn"]))
    denied = refusal(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="phone")
    assert denied.kind == (403, "AccessDenied")


def test_a_session_of_a_user(iam: Any, clients: Any, server: Server, name: str) -> None:
    user = iam.create_user(UserName=name)["User"]
    iam.attach_user_policy(UserName=name, PolicyArn=ANYBODY)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    session = clients("sts", key).get_session_token()["Credentials"]
    assert clients("sts", session).get_caller_identity()["Arn"] == user["Arn"]
    assert clients("iot", session).describe_endpoint()["endpointAddress"] == server.mqtt_host


def test_a_password_is_set_and_changed(iam: Any, clients: Any, name: str) -> None:
    iam.create_user(UserName=name)
    iam.attach_user_policy(UserName=name, PolicyArn="arn:aws:iam::aws:policy/IAMUserChangePassword")
    weak = refusal(iam.create_login_profile, UserName=name, Password="password")
    assert weak.kind == (400, "PasswordPolicyViolation")
    iam.create_login_profile(UserName=name, Password="Passw0rd+ %&", PasswordResetRequired=True)
    own = clients("iam", iam.create_access_key(UserName=name)["AccessKey"])
    own.change_password(OldPassword="Passw0rd+ %&", NewPassword="An0ther/one")
    assert iam.get_login_profile(UserName=name)["LoginProfile"]["PasswordResetRequired"] is False


@pytest.mark.parametrize(
    ("operation", "parameters", "kind", "message"),
    [
        ("get_user", {"UserName": "nobody"}, (404, "NoSuchEntity"),
         "The user with name nobody cannot be found."),
        ("get_role", {"RoleName": "nobody"}, (404, "NoSuchEntity"),
         "The role with name nobody cannot be found."),
        ("list_users", {"Marker": "forged"}, (400, "ValidationError"),
         "`forged` is not a page token of ListUsers"),
        ("create_group", {"GroupName": "g"}, (501, "NotImplementedException"),
         "CreateGroup is not offered by this server"),
        ("create_policy", {"PolicyName": "p", "PolicyDocument": "{"},
         (400, "MalformedPolicyDocument"), "Syntax errors in policy. ("),
        ("create_role",
         {"RoleName": "r", "AssumeRolePolicyDocument": trust(f"arn:aws:iam::{ACCOUNT}:user/no")},
         (400, "MalformedPolicyDocument"),
         f'Invalid principal in policy: "AWS":"arn:aws:iam::{ACCOUNT}:user/no"'),
    ],
)  # fmt: skip
def test_errors_have_iams_codes_and_statuses(
    iam: Any, operation: str, parameters: dict[str, str], kind: tuple[int, str], message: str
) -> None:
    refused = refusal(getattr(iam, operation), **parameters)
    assert refused.kind == kind
    assert message in refused.message


def test_a_user_is_emptied_as_terraform_does_it(iam: Any, name: str) -> None:
    """What aws_iam_user asks for with force_destroy, before it deletes the user."""
    iam.create_user(UserName=name)
    for operation, member in (
        ("list_groups_for_user", "Groups"),
        ("list_access_keys", "AccessKeyMetadata"),
        ("list_ssh_public_keys", "SSHPublicKeys"),
        ("list_mfa_devices", "MFADevices"),
        ("list_virtual_mfa_devices", "VirtualMFADevices"),
        ("list_signing_certificates", "Certificates"),
        ("list_service_specific_credentials", "ServiceSpecificCredentials"),
    ):
        named = {} if operation == "list_virtual_mfa_devices" else {"UserName": name}
        assert getattr(iam, operation)(**named)[member] == []
    iam.delete_user(UserName=name)


def test_errors_are_the_exceptions_of_the_client(iam: Any, name: str) -> None:
    with pytest.raises(iam.exceptions.NoSuchEntityException):
        iam.delete_user(UserName=name)
    iam.create_user(UserName=name)
    with pytest.raises(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=name)
    iam.create_access_key(UserName=name)
    with pytest.raises(iam.exceptions.DeleteConflictException):
        iam.delete_user(UserName=name)


def test_a_presigned_question_who_one_is(server: Server, clients: Any) -> None:
    """As services do that let others prove who they are (a GET with the form as query)."""
    url = clients("sts").generate_presigned_url("get_caller_identity", HttpMethod="GET")
    answer: Answer = http(url)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("text/xml")
    assert f"<Arn>arn:aws:iam::{ACCOUNT}:root</Arn>".encode() in answer.body
    refused = http(url.replace("GetCallerIdentity", "GetSessionToken"))
    assert refused.status == 403
    assert b"<Code>SignatureDoesNotMatch</Code>" in refused.body
