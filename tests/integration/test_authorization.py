"""Every served operation, asked by callers who may and by callers who may not.

The callers are real ones over HTTP: users with keys, temporary credentials, presigned requests.
What each operation needs comes from the copy of AWS's reference in `service_authorization`, not
from the server's own table; what it is about is there (`targets`), so that who may call it
succeeds. All of it with SQLite and with PostgreSQL.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from fleetgate.functions.runner import runtimes
from fleetgate.operations.dispatch import SERVED
from fleetgate.operations.session_tokens import Claims, seal
from tests.integration.databases import KINDS as DATABASES
from tests.integration.databases import settings_of
from tests.integration.fleet import create_role, template_body
from tests.integration.refusal import refusal
from tests.integration.server import ACCOUNT, EXECUTABLES, REGION, Server, http, run
from tests.integration.service_authorization import ACTIONS, RESOURCE_TYPES, TAGS_ON_CREATION
from tests.integration.targets import CODE, PERMISSION, REFUSED, TAGS, Targets, function_arn

SERVICES = ("iot", "iam", "lambda", "sts")
OPERATIONS = [(service, name) for service in SERVICES for name in SERVED[service]]
FREE = {("sts", "GetCallerIdentity"), ("sts", "GetSessionToken")}
"""STS API Reference: no permission is needed, and none can be taken away."""

CODES = {
    "denied": ("AccessDeniedException", "AccessDenied"),
    "expired": ("ExpiredTokenException", "ExpiredToken"),
    "signature": ("InvalidSignatureException", "SignatureDoesNotMatch"),
    "unknown": ("UnrecognizedClientException", "InvalidClientTokenId"),
}
"""What the same refusal is called by iot and lambda, and by iam and sts."""

ROLE = f"arn:aws:iam::{ACCOUNT}:role/matrix"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
USER = f"arn:aws:iam::{ACCOUNT}:user/matrix"


def code(service: str, refused: str) -> tuple[int, str]:
    return 403, CODES[refused][service in ("iam", "sts")]


def document(*statements: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def statement(effect: str, action: str | list[str], resource: str | list[str] = "*") -> Any:
    return {"Effect": effect, "Action": action, "Resource": resource}


ALL = statement("Allow", "*")


# --- valid parameters for everything --------------------------------------------------------------


def arn(resource: str) -> str:
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:{resource}"


ABSENT_KEY = "AKIAABSENTABSENT0000"

# Names of what is not there: who may gets another error, or an answer.
NAMED: dict[str, Any] = {
    "thingName": "absent",
    "thingGroupName": "absent",
    "billingGroupName": "absent",
    "thingTypeName": "absent",
    "policyName": "absent",
    "templateName": "absent",
    "roleAlias": "absent",
    "certificateProviderName": "absent",
    "lambdaFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:absent",
    "accountDefaultForOperations": ["CreateCertificateFromCsr"],
    "domainConfigurationName": "absent",
    "certificateId": "a" * 64,
    "caCertificateId": "a" * 64,
    "principal": arn(f"cert/{'a' * 64}"),
    "target": arn(f"cert/{'a' * 64}"),
    "resourceArn": arn("policy/absent"),
    "roleArn": ROLE,
    "provisioningRoleArn": ROLE,
    "templateBody": "{}",
    "policyDocument": "{}",
    "loggingOptionsPayload": {"roleArn": ROLE, "logLevel": "ERROR"},
    "targetAwsAccount": "210987654321",
    "versionId": 1,
    "policyVersionId": "1",
    "targetType": "THING_GROUP",
    "reportType": "ERRORS",
    "certificateMode": "SNI_ONLY",
    "targetName": "absent",
    "thingGroupProperties": {},
    "billingGroupProperties": {},
    "tags": [{"Key": "k", "Value": "v"}],
    "tagKeys": ["k"],
    "authInfos": [{"resources": [arn("topic/t")]}],
    "logTarget": {"targetType": "DEFAULT"},
    "logLevel": "ERROR",
    "newStatus": "INACTIVE",
    "UserName": "absent",
    "RoleName": "absent",
    "PolicyName": "absent",
    "PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/absent",
    "PolicyDocument": document(ALL),
    "AssumeRolePolicyDocument": document(ALL),
    "AccessKeyId": ABSENT_KEY,
    "VersionId": "v1",
    "Status": "Inactive",
    "Password": "correct horse battery",
    "OldPassword": "correct horse battery",
    "NewPassword": "correct horse battery",
    "Description": "d",
    "Tags": [{"Key": "k", "Value": "v"}],
    "TagKeys": ["k"],
    "RoleArn": ROLE,
    "RoleSessionName": "matrix",
    "FunctionName": "absent",
    "Code": CODE,
    "ZipFile": CODE["ZipFile"],
    "Role": ROLE,
    "Runtime": runtimes()[0],
    "Handler": "f.handler",
    "Resource": function_arn("absent"),
    **PERMISSION,
}

# what the model does not call required, but the operation needs to be about something
ADDED = {
    "AddThingToBillingGroup": ("thingName", "billingGroupName"),
    "AddThingToThingGroup": ("thingName", "thingGroupName"),
    "RemoveThingFromBillingGroup": ("thingName", "billingGroupName"),
    "RemoveThingFromThingGroup": ("thingName", "thingGroupName"),
    "UpdateThingGroupsForThing": ("thingName",),
    "GetUser": ("UserName",),
    "CreateLoginProfile": ("UserName", "Password"),
    "DeleteLoginProfile": ("UserName",),
    "GetLoginProfile": ("UserName",),
    "UpdateProvisioningTemplate": ("provisioningRoleArn",),
    "UpdateRoleAlias": ("roleArn",),
    "SetV2LoggingOptions": ("roleArn",),
    "GetEffectivePolicies": ("principal",),
    "RegisterCACertificate": ("certificateMode",),
    "TestAuthorization": ("principal",),
    "CreateFunction": ("Runtime", "Handler"),
    "UpdateFunctionCode": ("ZipFile",),
    "UpdateFunctionConfiguration": ("Role",),
}

OWN = {
    *("ChangePassword", "CreateAccessKey", "ListAccessKeys", "DeleteAccessKey", "UpdateAccessKey"),
    "GetAccessKeyLastUsed",
}
"""About the caller, when nobody is named, or whose key the access key is."""


@cache
def model(service: str) -> Any:
    return botocore.session.Session().get_service_model(service)


def members_of(service: str, operation: str) -> tuple[str, ...]:
    """The members a call has to have."""
    shape = model(service).operation_model(operation).input_shape
    return () if shape is None else (*shape.required_members, *ADDED.get(operation, ()))


def parameters(service: str, operation: str) -> dict[str, Any]:
    """Parameters that name nothing that is there."""
    params = {name: NAMED.get(name, "absent") for name in members_of(service, operation)}
    return params | ({"Tags": {"k": "v"}} if service == "lambda" and "Tags" in params else {})


KINDS = {
    "thing": "thingName",
    "thinggroup": "thingGroupName",
    "thingtype": "thingTypeName",
    "billinggroup": "billingGroupName",
    "policy": "policyName",
    "provisioningtemplate": "templateName",
    "rolealias": "roleAlias",
    "certificateprovider": "certificateProviderName",
    "cert": "certificateId",
    "cacert": "certificateId",
}


def resources(service: str, operation: str, params: dict[str, Any]) -> list[str]:
    """The ARNs a policy has to name for this call, and no more."""
    types = RESOURCE_TYPES[service].get(operation, "").replace("*", "").split()
    if not types:
        return ["*"]
    for whole in ("resourceArn", "target", "principal", "PolicyArn", "RoleArn"):
        if whole in params and (whole != "PolicyArn" or types == ["policy"]):
            return [params[whole]]
    if service == "lambda":
        return [params.get("Resource") or function_arn(params["FunctionName"])]
    if service == "iam":
        kind = types[0]
        name = params.get(f"{kind.capitalize()}Name")
        if name is None:
            assert operation in OWN
            return [USER]
        return [f"arn:aws:iam::{ACCOUNT}:{kind}/{name}"]
    if types == ["domainconfiguration"]:
        return [arn(f"domainconfiguration/{params['domainConfigurationName']}/*")]
    found = [f"{kind}/{params[KINDS[kind]]}" for kind in types if KINDS[kind] in params]
    return [arn(each) for each in found] or ["*"]


# --- callers --------------------------------------------------------------------------------------


@dataclass
class Callers:
    """A server of its own, and clients for it that are made once."""

    server: Server
    clients: dict[tuple[str, ...], Any] = field(default_factory=dict)
    tampering: bool = False

    def client(self, who: str, service: str, region: str = REGION, **credentials: Any) -> Any:
        client = self.clients.get((who, service, region))
        if client is None:
            client = self.server.client(service, region=region, **credentials)
            client.meta.events.register("before-send.*.*", self.tamper)
            self.clients[who, service, region] = client
        return client

    def tamper(self, request: Any, **_: Any) -> None:
        """Changes what has been signed."""
        if not self.tampering:
            return
        if request.body:
            body = request.body if isinstance(request.body, bytes) else request.body.encode()
            request.body = body[:-1] + bytes([body[-1] ^ 1])
        else:
            request.url += "&" if "?" in request.url else "?"
            request.url += "x=y"

    def user(self, name: str, *statements: Any) -> dict[str, str]:
        """A user with these rights; the keys."""
        iam = self.client("root", "iam")
        iam.create_user(UserName=name)
        self.allow(name, *statements)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"],
        }

    def allow(self, name: str, *statements: Any) -> None:
        """The user has exactly these rights."""
        iam = self.client("root", "iam")
        if statements:
            iam.put_user_policy(
                UserName=name, PolicyName="rights", PolicyDocument=document(*statements)
            )
        elif iam.list_user_policies(UserName=name)["PolicyNames"]:
            iam.delete_user_policy(UserName=name, PolicyName="rights")

    def session(self, **changes: Any) -> dict[str, str]:
        """Credentials of the root user that this server's key sealed, whenever that was."""
        now = time.time()
        values = {
            "access_key_id": "ASIAMATRIXMATRIX0000",
            "principal_arn": ROOT,
            "principal_id": ACCOUNT,
            "session_name": "",
            "policies": (),
            "tags": {},
            "issued_at": now,
            "expires_at": now + 900,
        }
        claims = Claims(**{**values, **changes})
        secret, token = seal((self.server.data / "token.key").read_bytes(), claims, bytes(12))
        return {
            "aws_access_key_id": claims.access_key_id,
            "aws_secret_access_key": secret,
            "aws_session_token": token,
        }


def call(client: Any, operation: str, params: dict[str, Any]) -> tuple[int, str, str]:
    """Status, error code and message; 200 with an answer."""
    try:
        client._make_api_call(operation, params)
    except ClientError as error:
        answer = error.response
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        return status, answer["Error"]["Code"], answer["Error"]["Message"]
    return 200, "", ""


@pytest.fixture(scope="module", params=DATABASES)
def callers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callers]:
    settings = settings_of(request.param, request)
    with Server(tmp_path_factory.mktemp("matrix") / "data", env=settings) as server:
        made = Callers(server)
        create_role(server)
        iam = made.client("root", "iam")
        services = [f"{name}.amazonaws.com" for name in ("iot", "credentials.iot", "lambda")]
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": ROOT, "Service": services},
            "Action": "sts:AssumeRole",
        }
        iam.create_role(RoleName="matrix", AssumeRolePolicyDocument=document(trust))
        yield made
        for client in made.clients.values():
            client.close()


@dataclass
class Matrix:
    """Who asks, and what there is to ask for."""

    callers: Callers
    credentials: dict[str, dict[str, str]]
    targets: Targets

    def __call__(self, who: str, service: str, region: str = REGION) -> Any:
        return self.callers.client(who, service, region, **self.credentials[who])


@pytest.fixture(scope="module")
def matrix(callers: Callers) -> Matrix:
    iam = callers.client("root", "iam")
    keys = callers.user("matrix")
    credentials: dict[str, dict[str, str]] = {
        "nobody": callers.user("nobody"),
        "denied": callers.user("denied", ALL, statement("Deny", [f"{s}:*" for s in SERVICES])),
        "matrix": keys,
        "inactive": callers.user("inactive", ALL),
        "deleted": callers.user("deleted", ALL),
        "expired": callers.session(
            principal_arn=ROLE,
            principal_id=iam.get_role(RoleName="matrix")["Role"]["RoleId"],
            session_name="over",
            expires_at=time.time() - 1,
        ),
        "root": {},
    }
    key = {who: credentials[who]["aws_access_key_id"] for who in ("matrix", "inactive", "deleted")}
    iam.update_access_key(UserName="inactive", AccessKeyId=key["inactive"], Status="Inactive")
    iam.delete_access_key(UserName="deleted", AccessKeyId=key["deleted"])
    iot, functions = callers.client("root", "iot"), callers.client("root", "lambda")
    targets = Targets(iot, iam, functions, ROLE, "matrix", key["matrix"])
    return Matrix(callers, credentials, targets)


def test_the_operations_that_cannot_succeed_are_served() -> None:
    assert REFUSED.keys() <= {operation for _, operation in OPERATIONS}


# rights are evaluated above the store: tests/operations/test_authorization.py has both databases
@pytest.mark.parametrize("callers", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_who_may_and_who_may_not(
    callers: Callers, matrix: Matrix, service: str, operation: str
) -> None:
    params = matrix.targets.parameters(operation, members_of(service, operation))
    action = ACTIONS.get(operation, f"{service}:{operation}")
    free = (service, operation) in FREE
    expected = REFUSED.get(operation, (200, ""))
    further = []
    if tagging := TAGS_ON_CREATION.get(service, {}).get(operation):
        params["tags" if service == "iot" else "Tags"] = {"k": "v"} if service == "lambda" else TAGS
        on = resources(service, operation, params)
        further.append((tagging, arn("cacert/*") if on == ["*"] else on[0]))
    if service in ("iot", "lambda") and ROLE in str(params):
        further.append(("iam:PassRole", ROLE))

    answer = call(matrix("nobody", service), operation, params)
    if free:
        assert answer[:2] == expected
    else:
        assert answer[:2] == code(service, "denied")
        assert f":user/nobody is not authorized to perform: {action} on resource: " in answer[2]
        assert f"no identity-based policy allows the {action} action" in answer[2]

    exact = [statement("Allow", action, resources(service, operation, params))]
    for needed, resource in further:
        # the action alone is not enough to tag what is made, or to hand a role on
        callers.allow("matrix", *exact)
        answer = call(matrix("matrix", service), operation, params)
        assert answer[:2] == code(service, "denied")
        assert f"{needed} on resource: {resource} because" in answer[2]
        exact.append(statement("Allow", needed, resource))
    callers.allow("matrix", *exact)
    answer = call(matrix("matrix", service), operation, params)
    assert answer[:2] == expected, answer

    answer = call(matrix("denied", service), operation, params)
    if free:
        assert answer[:2] == expected
    else:
        assert answer[:2] == code(service, "denied")
        assert "with an explicit deny in an identity-based policy" in answer[2]

    answer = call(matrix("expired", service), operation, params)
    assert answer[:2] == code(service, "expired")
    assert answer[2] == "The security token included in the request is expired"
    for who in ("inactive", "deleted"):
        answer = call(matrix(who, service), operation, params)
        assert answer[:2] == code(service, "unknown"), who

    callers.tampering = True
    answer = call(matrix("root", service), operation, params)
    callers.tampering = False
    assert answer[:2] == code(service, "signature")

    answer = call(matrix("root", service, "eu-west-1"), operation, params)
    assert answer[:2] == code(service, "signature")
    assert "eu-west-1" in answer[2]


# --- exactly one right ----------------------------------------------------------------------------


def test_a_user_who_may_make_claims_of_one_template_may_do_just_that(
    callers: Callers, matrix: Matrix
) -> None:
    """AWS IoT Developer Guide, "Provisioning by trusted user"."""
    iot = matrix("root", "iot")
    iot.create_policy(
        policyName="device",
        policyDocument=document(statement("Allow", "iot:Connect")),
    )
    for name in ("mine", "other"):
        iot.create_provisioning_template(
            templateName=name,
            templateBody=template_body(name, "device"),
            provisioningRoleArn=f"arn:aws:iam::{ACCOUNT}:role/Provisioning",
            enabled=True,
        )
    claims = statement("Allow", "iot:CreateProvisioningClaim", arn("provisioningtemplate/mine"))
    credentials = callers.user("trusted", claims)

    def trusted(service: str) -> Any:
        return callers.client("trusted", service, **credentials)

    claim = trusted("iot").create_provisioning_claim(templateName="mine")
    assert "BEGIN CERTIFICATE" in claim["certificatePem"]
    refused = refusal(trusted("iot").create_provisioning_claim, templateName="other")
    assert refused.kind == (403, "AccessDeniedException")
    for service, operation in OPERATIONS:
        if (service, operation) in FREE:
            continue
        params = parameters(service, operation)
        for name in ("mine", "other"):
            if "templateName" in params:
                params["templateName"] = name
            if (operation, params.get("templateName")) == ("CreateProvisioningClaim", "mine"):
                continue
            answer = call(trusted(service), operation, params)
            assert answer[:2] == code(service, "denied"), (operation, params)
    listed = iot.list_provisioning_templates()["templates"]
    names = {each["templateName"] for each in listed}
    assert {"mine", "other"} <= names
    assert "absent" not in names


# --- keys come and go -----------------------------------------------------------------------------


def test_a_key_that_is_switched_off_and_a_user_who_is_deleted(callers: Callers) -> None:
    iam = callers.client("root", "iam")
    credentials = callers.user("leaver", ALL)
    key = credentials["aws_access_key_id"]
    iot = callers.client("leaver", "iot", **credentials)
    sts = callers.client("leaver", "sts", **credentials)
    iot.list_things()
    session = sts.get_session_token()["Credentials"]
    temporary = callers.client(
        "leaver's session",
        "iot",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )
    temporary.list_things()

    iam.update_access_key(UserName="leaver", AccessKeyId=key, Status="Inactive")
    assert refusal(iot.list_things).kind == code("iot", "unknown")
    assert refusal(sts.get_caller_identity).kind == code("sts", "unknown")
    iam.update_access_key(UserName="leaver", AccessKeyId=key, Status="Active")
    iot.list_things()

    iam.delete_user_policy(UserName="leaver", PolicyName="rights")
    assert refusal(iot.list_things).kind == code("iot", "denied")
    assert refusal(temporary.list_things).kind == code("iot", "denied")
    iam.delete_access_key(UserName="leaver", AccessKeyId=key)
    assert refusal(iot.list_things).kind == code("iot", "unknown")
    assert refusal(temporary.list_things).kind == code("iot", "denied")
    iam.delete_user(UserName="leaver")
    assert refusal(temporary.list_things).kind == code("iot", "unknown")


def test_the_use_of_a_key_shows(callers: Callers) -> None:
    iam = callers.client("root", "iam")
    credentials = callers.user("seen", ALL)
    key = credentials["aws_access_key_id"]
    assert "LastUsedDate" not in iam.get_access_key_last_used(AccessKeyId=key)["AccessKeyLastUsed"]
    callers.client("seen", "iot", **credentials).list_things()
    used = iam.get_access_key_last_used(AccessKeyId=key)
    assert used["UserName"] == "seen"
    assert used["AccessKeyLastUsed"]["ServiceName"] == "iot"
    assert used["AccessKeyLastUsed"]["Region"] == REGION


# --- temporary credentials ------------------------------------------------------------------------


def test_sessions_of_roles_with_boto3_and_the_command_line(
    callers: Callers, tmp_path: Path
) -> None:
    iam = callers.client("root", "iam")
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": ROOT},
        "Action": "sts:AssumeRole",
    }
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=document(trust))["Role"]
    rights = document(statement("Allow", ["iot:List*", "iam:ListUsers"]))
    iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=rights)
    user = callers.user("assumer", statement("Allow", "sts:AssumeRole", role["Arn"]))
    sts = callers.client("assumer", "sts", **user)
    only_things = document(statement("Allow", "iot:ListThings"))
    answers = [
        sts.assume_role(RoleArn=role["Arn"], RoleSessionName="phone-1", DurationSeconds=900),
        sts.assume_role(RoleArn=role["Arn"], RoleSessionName="phone-2", Policy=only_things),
    ]
    clients = [
        {
            service: callers.client(
                f"session {at}",
                service,
                aws_access_key_id=answer["Credentials"]["AccessKeyId"],
                aws_secret_access_key=answer["Credentials"]["SecretAccessKey"],
                aws_session_token=answer["Credentials"]["SessionToken"],
            )
            for service in ("iot", "iam", "sts")
        }
        for at, answer in enumerate(answers)
    ]
    wide, narrow = clients
    identity = wide["sts"].get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/phone-1"
    for each in clients:
        each["iot"].list_things()
        assert refusal(each["iot"].create_thing, thingName="t").kind == code("iot", "denied")
    wide["iot"].list_policies()
    wide["iam"].list_users()
    refused = refusal(narrow["iot"].list_policies)
    assert refused.kind == code("iot", "denied")
    assert "because no session policy allows the iot:ListPolicies action" in refused.message
    refused = refusal(wide["sts"].get_session_token)
    assert refused.message == "Cannot call GetSessionToken with session credentials"

    def aws(*command: str, token: str) -> Any:
        given = answers[0]["Credentials"]
        return run(
            str(EXECUTABLES / "aws"),
            *command,
            cwd=tmp_path,
            env={
                "AWS_ENDPOINT_URL": callers.server.http_url,
                "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
                "AWS_SESSION_TOKEN": token,
                "AWS_DEFAULT_REGION": REGION,
            },
        )

    token = answers[0]["Credentials"]["SessionToken"]
    done = aws("iot", "list-things", token=token)
    assert done.returncode == 0, done.stderr
    done = aws("iot", "create-thing", "--thing-name", "t", token=token)
    assert "(AccessDeniedException)" in done.stderr
    assert "because no identity-based policy allows the iot:CreateThing action" in done.stderr
    other = answers[1]["Credentials"]["SessionToken"]
    for service, command, error in (
        ("iot", "list-things", "UnrecognizedClientException"),
        ("sts", "get-caller-identity", "InvalidClientTokenId"),
    ):
        assert f"({error})" in aws(service, command, token=other).stderr


def test_credentials_of_get_session_token_are_not_for_iam(callers: Callers) -> None:
    credentials = callers.user("careful", ALL)
    given = callers.client("careful", "sts", **credentials).get_session_token()["Credentials"]
    temporary = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    callers.client("careful session", "iot", **temporary).list_things()
    refused = refusal(callers.client("careful session", "iam", **temporary).list_users)
    assert refused.kind == code("iam", "unknown")


# --- presigned requests ---------------------------------------------------------------------------


def test_a_presigned_query(callers: Callers) -> None:
    user = callers.user("sender", statement("Allow", "iot:ListThings"))
    for who, credentials in (("root", {}), ("sender", user), ("session", callers.session())):
        iot = callers.client(f"presigning {who}", "iot", **credentials)
        url = iot.generate_presigned_url("list_things", {"maxResults": 3}, HttpMethod="GET")
        assert http(url).status == 200
        assert http(url.replace("maxResults=3", "maxResults=4")).status == 403
        sts = callers.client(f"presigning {who}", "sts", **credentials)
        url = sts.generate_presigned_url("get_caller_identity", HttpMethod="GET")
        answer = http(url)
        assert answer.status == 200
        assert b"<GetCallerIdentityResult>" in answer.body
        posted = http(sts.generate_presigned_url("get_caller_identity"), method="POST", body=b"")
        assert posted.status == 200
        answer = http(url.replace("GetCallerIdentity", "GetSessionToken"))
        assert answer.status == 403
        assert b"<Code>SignatureDoesNotMatch</Code>" in answer.body
    iot = callers.client("presigning sender", "iot", **user)
    url = iot.generate_presigned_url("list_policies", HttpMethod="GET")
    answer = http(url)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")


# --- conditions of the request --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({"StringLike": {"aws:UserAgent": "Boto3/*"}}, True),
        ({"StringEquals": {"aws:username": "conditional"}}, True),
        ({"StringEquals": {"aws:PrincipalTag/team": "x"}}, True),
        ({"StringEquals": {"aws:PrincipalTag/team": "y"}}, False),
        ({"StringEquals": {"aws:RequestedRegion": REGION}}, True),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, True),
        ({"Null": {"aws:TokenIssueTime": "true"}}, True),
    ],
)
def test_conditions_of_a_request(callers: Callers, condition: Any, allowed: bool) -> None:
    if ("conditional", "iot", REGION) not in callers.clients:
        credentials = callers.user("conditional")
        callers.client("root", "iam").tag_user(
            UserName="conditional", Tags=[{"Key": "team", "Value": "x"}]
        )
        callers.client("conditional", "iot", **credentials)
    callers.allow("conditional", {**statement("Allow", "iot:*"), "Condition": condition})
    iot = callers.clients["conditional", "iot", REGION]
    if allowed:
        iot.list_things()
    else:
        assert refusal(iot.list_things).kind == code("iot", "denied")


def test_tags_say_who_may_touch_what(callers: Callers) -> None:
    """IAM User Guide, "Controlling access to AWS resources using tags"."""
    root = callers.client("root", "iot")
    for name in ("a", "b"):
        root.create_thing_group(thingGroupName=name, tags=[{"Key": "site", "Value": name}])
    condition = {"StringEquals": {"aws:ResourceTag/site": "${aws:PrincipalTag/site}"}}
    rights = {**statement("Allow", "iot:DeleteThingGroup"), "Condition": condition}
    credentials = callers.user("tagged", rights)
    callers.client("root", "iam").tag_user(UserName="tagged", Tags=[{"Key": "site", "Value": "a"}])
    iot = callers.client("tagged", "iot", **credentials)
    assert refusal(iot.delete_thing_group, thingGroupName="b").kind == code("iot", "denied")
    iot.delete_thing_group(thingGroupName="a")
