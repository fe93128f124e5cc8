"""Who may call what, by IAM policies: every operation, its resources and its condition keys.

Sources: Service Authorization Reference, "Actions, resources, and condition keys for AWS IoT"
and "... for AWS Identity and Access Management"; IAM User Guide, "Policy evaluation logic".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from fleetgate.domain.policy import IDENTITY, Policies, compile_policies, parse
from fleetgate.errors import (
    AccessDeniedException,
    InvalidRequestException,
    ServiceError,
    UnrecognizedClientException,
)
from fleetgate.operations.asked import MAX_NAMED
from fleetgate.operations.authorization import authorize, require
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.dispatch import SERVED, invoke
from fleetgate.operations.required_rights import RIGHTS
from fleetgate.wire.model import Service
from tests.operations.conftest import Registry
from tests.operations.iam import ACCOUNT, Iam, allow

IOT = f"arn:aws:iot:eu-west-1:{ACCOUNT}:"
IAM = f"arn:aws:iam::{ACCOUNT}:"
ANN = f"{IAM}user/ann"
CERTIFICATE = f"{IOT}cert/{'a' * 64}"


def statement(action: str | list[str], resource: str | list[str] = "*", **more: Any) -> Any:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def document(*statements: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def policies(*statements: Any) -> Policies:
    text = document(*statements)
    return compile_policies([("p", parse(text, IDENTITY))], {"aws:username": ("ann",)})


def caller(*statements: Any, session: Sequence[Any] | None = None, **more: Any) -> Caller:
    """The user ann with these statements, and with those of a session policy."""
    return Caller(
        ACCOUNT,
        ANN,
        "AIDAANN",
        "AKIAANN",
        policies(*statements) if statements else compile_policies([], {}),
        None if session is None else policies(*session),
        principal_arn=ANN,
        **more,
    )


REQUEST = {
    "aws:SourceIp": ("192.0.2.7",),
    "aws:SecureTransport": ("false",),
    "aws:UserAgent": ("Boto3/1.40",),
}
"""The condition keys of every request here."""


class Asker:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __call__(self, who: Caller, operation: str, service: str = "iot", /, **params: Any) -> None:
        call = Call(
            self.registry.services,
            "request",
            self.registry.clock(),
            caller=who,
            conditions=REQUEST,
        )
        self.registry.runner.run(authorize(call, service, operation, params))

    def refuses(self, who: Caller, operation: str, service: str = "iot", /, **params: Any) -> str:
        with pytest.raises(AccessDeniedException) as caught:
            self(who, operation, service, **params)
        return caught.value.message


@pytest.fixture
def ask(registry: Registry) -> Asker:
    return Asker(registry)


# --- the table ------------------------------------------------------------------------------------


def test_every_served_operation_has_its_rights_and_no_other() -> None:
    for service, rights in RIGHTS.items():
        assert sorted(rights) == sorted(SERVED[service]), service
    # what devices ask for over MQTT is a matter of IoT policies
    assert set(SERVED) - set(RIGHTS) == {"provisioning"}


def test_rights_name_members_of_the_model(models: dict[str, Service]) -> None:
    for service, rows in RIGHTS.items():
        for operation, rights in rows.items():
            shape = models[service].operation(operation).input
            members = {} if shape is None else shape.members
            known = {member.python_name: member for member in members.values()}
            for resource in rights.resources:
                if operation == "ChangePassword":  # always one's own
                    continue
                assert resource.member in known, operation
                assert resource.arn_member in ("", *known), operation
                if not resource.arn_member and resource.required:
                    optional = {"user_name", "path_prefix", "thing_name"}
                    assert known[resource.member].required or resource.member in optional, operation
            for passed in rights.passes:
                assert passed.member.partition(".")[0] in known, operation
            for _, member in rights.keys:
                assert "{" in member or member in known, operation


def test_an_operation_nobody_knows_is_refused_to_all_but_root(ask: Asker) -> None:
    assert "iot:NoSuchThing" in ask.refuses(caller(statement("*")), "NoSuchThing")
    assert "s3:ListBuckets" in ask.refuses(caller(statement("*")), "ListBuckets", "s3")
    ask(Caller(ACCOUNT, f"{IAM}root", ACCOUNT, "AKIA"), "NoSuchThing")


FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:"


@pytest.mark.parametrize(
    ("params", "arn"),
    [
        ({"function_name": "f"}, f"{FUNCTION}f"),
        ({"function_name": f"{ACCOUNT}:function:f"}, f"{FUNCTION}f"),
        ({"function_name": f"{FUNCTION}f"}, f"{FUNCTION}f"),
        ({"function_name": "f", "qualifier": "$LATEST"}, f"{FUNCTION}f:$LATEST"),
        ({"function_name": "f:live"}, f"{FUNCTION}f:live"),
        # of another account: what it says it is
        ({"function_name": f"{FUNCTION}f".replace("eu", "us")}, f"{FUNCTION}f".replace("eu", "us")),
    ],
)
def test_a_function_is_one_resource_by_any_of_its_names(
    ask: Asker, params: dict[str, Any], arn: str
) -> None:
    """Service Authorization Reference: ``function:NAME``, with the qualifier that was given."""
    ask(caller(statement("lambda:InvokeFunction", arn)), "Invoke", "lambda", **params)
    other = statement("lambda:InvokeFunction", f"{arn}2")
    refused = ask.refuses(caller(other), "Invoke", "lambda", **params)
    assert f"lambda:InvokeFunction on resource: {arn} because" in refused


def test_tags_of_a_function_are_condition_keys(ask: Asker) -> None:
    params: dict[str, Any] = {"function_name": "f", "tags": {"team": "fleet", "stage": ""}}
    actions = ["lambda:CreateFunction", "lambda:TagResource"]
    for value, keys, allowed in (
        ("fleet", ["team", "stage"], True),
        ("other", ["team", "stage"], False),
        ("fleet", ["team"], False),
    ):
        condition = {
            "StringEquals": {"aws:RequestTag/team": value},
            "ForAllValues:StringEquals": {"aws:TagKeys": keys},
        }
        who = caller(statement(actions, f"{FUNCTION}f", Condition=condition))
        if allowed:
            ask(who, "CreateFunction", "lambda", **params)
        else:
            ask.refuses(who, "CreateFunction", "lambda", **params)


A, B, C = "a" * 64, "b" * 64, "c" * 64

RESOURCES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("CreateThing", {"thing_name": "t"}, {"thing/t"}),
    (
        "CreateThing",
        {"thing_name": "t", "billing_group_name": "b"},
        {"thing/t", "billinggroup/b"},
    ),
    ("DescribeThing", {"thing_name": "a/b"}, {"thing/a/b"}),
    (
        "AddThingToThingGroup",
        {"thing_name": "t", "thing_group_name": "g"},
        {"thing/t", "thinggroup/g"},
    ),
    (
        "AddThingToThingGroup",
        {"thing_arn": f"{IOT}thing/t", "thing_group_arn": f"{IOT}thinggroup/g"},
        {"thing/t", "thinggroup/g"},
    ),
    (
        # both are given: whichever the operation takes was asked for
        "RemoveThingFromBillingGroup",
        {"thing_name": "t", "thing_arn": f"{IOT}thing/u", "billing_group_name": "b"},
        {"thing/t", "thing/u", "billinggroup/b"},
    ),
    (
        "UpdateThingGroupsForThing",
        {"thing_name": "t", "thing_groups_to_add": ["g", "h"], "thing_groups_to_remove": ["i"]},
        {"thing/t", "thinggroup/g", "thinggroup/h", "thinggroup/i"},
    ),
    ("AttachPolicy", {"policy_name": "p", "target": CERTIFICATE}, {f"cert/{A}"}),
    ("DetachPolicy", {"policy_name": "p", "target": f"{IOT}thinggroup/g"}, {"thinggroup/g"}),
    ("AttachPrincipalPolicy", {"policy_name": "p", "principal": CERTIFICATE}, {f"cert/{A}"}),
    ("AttachThingPrincipal", {"thing_name": "t", "principal": CERTIFICATE}, {f"cert/{A}"}),
    ("ListPrincipalThings", {"principal": CERTIFICATE}, {f"cert/{A}"}),
    ("CreatePolicyVersion", {"policy_name": "p", "policy_document": "{}"}, {"policy/p"}),
    ("ListTargetsForPolicy", {"policy_name": "p"}, {"policy/p"}),
    ("UpdateCertificate", {"certificate_id": B, "new_status": "ACTIVE"}, {f"cert/{B}"}),
    ("UpdateCACertificate", {"certificate_id": C}, {f"cacert/{C}"}),
    ("CreateProvisioningClaim", {"template_name": "T"}, {"provisioningtemplate/T"}),
    ("DeleteThingType", {"thing_type_name": "y"}, {"thingtype/y"}),
    ("DescribeRoleAlias", {"role_alias": "r"}, {"rolealias/r"}),
    ("CreateDomainConfiguration", {"domain_configuration_name": "d"}, {"domainconfiguration/d/*"}),
    ("TagResource", {"resource_arn": f"{IOT}policy/p", "tags": []}, {"policy/p"}),
    ("ListTagsForResource", {"resource_arn": f"{IOT}thinggroup/g"}, {"thinggroup/g"}),
    ("TestAuthorization", {"principal": CERTIFICATE, "auth_infos": []}, {f"cert/{A}"}),
]


@pytest.mark.parametrize(("operation", "params", "expected"), RESOURCES)
def test_resources_of_iot(
    ask: Asker, operation: str, params: dict[str, Any], expected: set[str]
) -> None:
    """Each resource is needed, and they are enough."""
    arns = [IOT + name for name in expected]
    action = f"iot:{operation}"
    ask(caller(statement(action, arns)), operation, **params)
    for missing in arns:
        rest = [arn for arn in arns if arn != missing] or [f"{IOT}thing/other"]
        assert missing in ask.refuses(caller(statement(action, rest)), operation, **params)
        denies = statement(action, missing, Effect="Deny")
        who = caller(statement("*"), denies)
        assert "explicit deny" in ask.refuses(who, operation, **params)


@pytest.mark.parametrize(
    "operation",
    [
        *("CreateKeysAndCertificate", "CreateCertificateFromCsr", "RegisterThing", "ListThings"),
        *("DescribeEndpoint", "GetRegistrationCode", "RegisterCertificateWithoutCA"),
        *("UpdateEventConfigurations", "SetV2LoggingLevel", "ListAttachedPolicies"),
        *("GetEffectivePolicies", "TestAuthorization"),
    ],
)
def test_actions_without_resources_are_asked_on_all(ask: Asker, operation: str) -> None:
    action = f"iot:{operation}"
    ask(caller(statement(action)), operation)
    message = ask.refuses(caller(statement(action, f"{IOT}thing/*")), operation)
    # AWS's words (aws/aws-connected-device-framework issue 36)
    assert message == (
        f"User: {ANN} is not authorized to perform: {action} on resource: * "
        f"because no identity-based policy allows the {action} action"
    )


def test_a_target_that_is_no_arn_is_taken_as_it_is(ask: Asker) -> None:
    """As AWS names it when it refuses (aws-amplify/aws-sdk-android issue 640)."""
    target = "ap-southeast-1:81084a40-f161-4960-90f9-835f3d8de579"
    params = {"policy_name": "p", "target": target}
    message = ask.refuses(caller(), "AttachPolicy", **params)
    assert f"iot:AttachPolicy on resource: {target} because" in message
    ask(caller(statement("iot:AttachPolicy")), "AttachPolicy", **params)


def test_a_domain_configuration_has_its_whole_arn(ask: Asker, registry: Registry) -> None:
    created = registry.call("CreateDomainConfiguration", domain_configuration_name="d")
    arn = created["domainConfigurationArn"]
    params = {"domain_configuration_name": "d"}
    ask(
        caller(statement("iot:DescribeDomainConfiguration", arn)),
        "DescribeDomainConfiguration",
        **params,
    )
    message = ask.refuses(caller(), "DescribeDomainConfiguration", **params)
    assert f"on resource: {IOT}domainconfiguration/d/* " in message


# --- tags on creation -----------------------------------------------------------------------------

TAGGED: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("iot", "CreateBillingGroup", {"billing_group_name": "x"}, "TagResource", "billinggroup/x"),
    (
        "iot",
        "CreateDomainConfiguration",
        {"domain_configuration_name": "x"},
        "TagResource",
        "domainconfiguration/x/*",
    ),
    ("iot", "CreatePolicy", {"policy_name": "x"}, "TagResource", "policy/x"),
    (
        "iot",
        "CreateProvisioningTemplate",
        {"template_name": "x"},
        "TagResource",
        "provisioningtemplate/x",
    ),
    (
        "iot",
        "CreateCertificateProvider",
        {"certificate_provider_name": "x"},
        "TagResource",
        "certificateprovider/x",
    ),
    ("iot", "CreateRoleAlias", {"role_alias": "x"}, "TagResource", "rolealias/x"),
    ("iot", "CreateThingGroup", {"thing_group_name": "x"}, "TagResource", "thinggroup/x"),
    ("iot", "CreateThingType", {"thing_type_name": "x"}, "TagResource", "thingtype/x"),
    ("iot", "RegisterCACertificate", {}, "TagResource", "cacert/*"),
    ("iam", "CreatePolicy", {"policy_name": "x", "path": "/p/"}, "TagPolicy", "policy/p/x"),
    ("iam", "CreateRole", {"role_name": "x"}, "TagRole", "role/x"),
    ("iam", "CreateUser", {"user_name": "x", "path": "/p/"}, "TagUser", "user/p/x"),
]


@pytest.mark.parametrize("separator", [":", "/"], ids=["of-answers", "of-policies"])
def test_a_certificate_provider_is_one_resource_by_either_form_of_its_arn(
    ask: Asker, separator: str
) -> None:
    """Service Authorization Reference: ``certificateprovider/NAME``; the API answers the other."""
    arn = f"{IOT}certificateprovider{separator}x"
    rights = statement("iot:ListTagsForResource", f"{IOT}certificateprovider/x")
    ask(caller(rights), "ListTagsForResource", "iot", resource_arn=arn)
    denies = statement("iot:*", f"{IOT}certificateprovider/x", Effect="Deny")
    ask.refuses(caller(statement("*"), denies), "ListTagsForResource", "iot", resource_arn=arn)
    described = {"certificate_provider_name": "x"}
    ask(
        caller(statement("iot:DescribeCertificateProvider", f"{IOT}certificateprovider/x")),
        "DescribeCertificateProvider",
        "iot",
        **described,
    )


def test_every_operation_that_takes_tags_is_in_the_table(models: dict[str, Service]) -> None:
    taking = {
        (service, name)
        for service in ("iot", "iam")
        for name in SERVED[service]
        if (shape := models[service].operation(name).input) is not None
        and not name.startswith("Tag")
        and {"tags", "Tags"} & set(shape.members)
    }
    assert taking == {row[:2] for row in TAGGED}


@pytest.mark.parametrize(("service", "operation", "params", "tagging", "resource"), TAGGED)
def test_tags_on_creation_need_the_right_to_tag(
    ask: Asker, service: str, operation: str, params: dict[str, Any], tagging: str, resource: str
) -> None:
    """IAM User Guide, "IAM: Create new users only with specific tags"; AWS IoT Developer Guide,
    "Managing a stream in the AWS Cloud": without ``iot:TagResource`` a call with tags is refused.
    """
    creates, tags = f"{service}:{operation}", f"{service}:{tagging}"
    arn = (IOT if service == "iot" else IAM) + resource
    tagged = {**params, "tags": [{"Key": "site", "Value": "A"}]}
    for without in (params, {**params, "tags": []}):
        ask(caller(statement(creates)), operation, service, **without)
        denies = statement(f"{service}:Tag*", Effect="Deny")
        ask(caller(statement("*"), denies), operation, service, **without)
    ask(caller(statement(creates), statement(tags, arn)), operation, service, **tagged)
    for who in (caller(statement(creates)), caller(statement(creates), statement(tags, f"{arn}y"))):
        message = ask.refuses(who, operation, service, **tagged)
        assert f"not authorized to perform: {tags} on resource: {arn} because no " in message
    denies = statement(f"{service}:Tag*", Effect="Deny")
    message = ask.refuses(caller(statement("*"), denies), operation, service, **tagged)
    assert f"{tags} on resource: {arn} with an explicit deny" in message
    # a session's own policies have to allow it too
    session = [statement(creates)]
    message = ask.refuses(caller(statement("*"), session=session), operation, service, **tagged)
    assert f"no session policy allows the {tags} action" in message


def test_tags_on_creation_can_be_limited_to_some(ask: Asker) -> None:
    """The example of "IAM: Create new users only with specific tags"."""
    condition = {"StringEquals": {"aws:RequestTag/site": "A"}}
    who = caller(statement(["iam:CreateUser", "iam:TagUser"], Condition=condition))
    params: dict[str, Any] = {"user_name": "x"}
    ask(who, "CreateUser", "iam", **params, tags=[{"Key": "site", "Value": "A"}])
    ask.refuses(who, "CreateUser", "iam", **params, tags=[{"Key": "site", "Value": "B"}])


# --- IAM and STS ----------------------------------------------------------------------------------

OF_IAM: list[tuple[str, dict[str, Any], str]] = [
    ("CreateUser", {"user_name": "u", "path": "/x/"}, "user/x/u"),
    ("CreateUser", {"user_name": "u"}, "user/u"),
    ("CreateRole", {"role_name": "r", "path": "/x/"}, "role/x/r"),
    ("CreatePolicy", {"policy_name": "p", "path": "/x/"}, "policy/x/p"),
    ("GetUser", {"user_name": "bob"}, "user/team/bob"),
    ("GetUser", {"user_name": "nobody"}, "user/nobody"),
    ("GetUser", {}, "user/ann"),
    ("CreateAccessKey", {}, "user/ann"),
    ("CreateAccessKey", {"user_name": "bob"}, "user/team/bob"),
    ("GetRole", {"role_name": "installer"}, "role/team/installer"),
    ("PutRolePolicy", {"role_name": "nobody"}, "role/nobody"),
    ("GetPolicy", {"policy_arn": f"{IAM}policy/p"}, "policy/p"),
    ("ListUsers", {}, "user/"),
    ("ListRoles", {"path_prefix": "/x/"}, "role/x/"),
]


@pytest.mark.parametrize(("operation", "params", "expected"), OF_IAM)
def test_resources_of_iam(
    ask: Asker, registry: Registry, operation: str, params: dict[str, Any], expected: str
) -> None:
    iam = Iam(registry)
    iam("CreateUser", UserName="bob", Path="/team/")
    iam.role("installer", Path="/team/")
    action = f"iam:{operation}"
    ask(caller(statement(action, IAM + expected)), operation, "iam", **params)
    # a path that the caller did not say is not told: AWS names such a user or role by its name
    # (aws/aws-cdk issue 27067, hashicorp/boundary pull request 3877)
    shown = IAM + expected
    kind, _, name = expected.partition("/")
    if (
        kind in ("user", "role")
        and name
        and operation not in ("CreateUser", "CreateRole", "ListRoles")
    ):
        shown = f"{kind} {name.rpartition('/')[2]}"
    for who in (caller(), caller(statement(action, f"{IAM}user/eve"))):
        assert f"on resource: {shown} " in ask.refuses(who, operation, "iam", **params)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, []),
        ({"new_user_name": "eve"}, ["user/team/eve"]),
        ({"new_path": "/admin/"}, ["user/admin/bob"]),
        ({"new_path": "/admin/", "new_user_name": "eve"}, ["user/admin/eve"]),
    ],
)
def test_renaming_is_a_right_on_what_a_user_becomes(
    ask: Asker, registry: Registry, changes: dict[str, str], needed: list[str]
) -> None:
    """IAM API Reference, "UpdateUser": permissions on both the source and the target object."""
    Iam(registry)("CreateUser", UserName="bob", Path="/team/")
    source = f"{IAM}user/team/bob"
    targets = [IAM + each for each in needed]
    params = {"user_name": "bob", **changes}
    ask(caller(statement("iam:UpdateUser", [source, *targets])), "UpdateUser", "iam", **params)
    for target in targets:
        ask.refuses(caller(statement("iam:UpdateUser", source)), "UpdateUser", "iam", **params)
        ask.refuses(caller(statement("iam:UpdateUser", target)), "UpdateUser", "iam", **params)
        denies = statement("iam:*", target, Effect="Deny")
        ask.refuses(caller(statement("*"), denies), "UpdateUser", "iam", **params)


def test_who_is_renamed_keeps_the_tags(ask: Asker, registry: Registry) -> None:
    iam = Iam(registry)
    iam("CreateUser", UserName="bob", Path="/team/", Tags=[{"Key": "team", "Value": "x"}])
    params = {"user_name": "bob", "new_user_name": "eve"}
    ask(caller(when("StringEquals", "iam:ResourceTag/team", "x")), "UpdateUser", "iam", **params)
    denies = {**when("StringEquals", "aws:ResourceTag/team", "x"), "Effect": "Deny"}
    ask.refuses(caller(statement("*"), denies), "UpdateUser", "iam", **params)


def test_a_key_is_of_its_user(ask: Asker, registry: Registry) -> None:
    iam = Iam(registry)
    iam("CreateUser", UserName="bob", Path="/team/")
    key = iam("CreateAccessKey", UserName="bob")["AccessKey"]["AccessKeyId"]
    who = caller(statement("iam:GetAccessKeyLastUsed", f"{IAM}user/team/bob"))
    ask(who, "GetAccessKeyLastUsed", "iam", access_key_id=key)
    unknown = "AKIAUNKNOWNUNKNOWN00"
    ask.refuses(who, "GetAccessKeyLastUsed", "iam", access_key_id=unknown)
    # whose it is, and whether it is one, is not told
    words = [
        ask.refuses(caller(), "GetAccessKeyLastUsed", "iam", access_key_id=each)
        for each in (key, unknown)
    ]
    assert f"iam:GetAccessKeyLastUsed on resource: access key {key} because" in words[0]
    assert words[0].replace(key, unknown) == words[1]


def test_users_may_be_let_at_themselves(ask: Asker) -> None:
    """IAM User Guide, "Allows IAM users to manage their own credentials"."""
    own = statement("iam:*AccessKey*", f"{IAM}user/${{aws:username}}")
    for params in ({}, {"user_name": "ann"}):
        ask(caller(own), "CreateAccessKey", "iam", **params)
    ask.refuses(caller(own), "CreateAccessKey", "iam", user_name="bob")


def test_no_permission_is_needed_to_ask_who_one_is(ask: Asker) -> None:
    denies = statement("*", Effect="Deny")
    for who in (caller(), caller(denies)):
        ask(who, "GetCallerIdentity", "sts")
        ask(who, "GetSessionToken", "sts")


def trust(*principals: str, **more: Any) -> str:
    return document(
        {
            "Effect": "Allow",
            "Principal": {"AWS": list(principals)},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
            **more,
        }
    )


@pytest.mark.parametrize(
    ("principal", "statements", "allowed"),
    [
        # the account stands for what its policies allow
        (f"{IAM}root", (), False),
        (f"{IAM}root", (statement("sts:AssumeRole", f"{IAM}role/installer"),), True),
        (f"{IAM}root", (statement("sts:AssumeRole", f"{IAM}role/other"),), False),
        # a user who is named needs no policy, but must not be denied
        (ANN, (), True),
        (ANN, (statement("sts:*", Effect="Deny"),), False),
        ("*", (), True),
    ],
)
def test_assuming_a_role(
    ask: Asker, registry: Registry, principal: str, statements: tuple[Any, ...], allowed: bool
) -> None:
    """IAM User Guide, "Policy evaluation logic": resource-based policies."""
    iam = Iam(registry)
    ann = iam.user("ann")
    arn = iam.role("installer", trust(principal))
    params = {"role_arn": arn, "role_session_name": "s"}
    who = replace(caller(*statements), user_id=ann.user_id)
    if allowed:
        ask(who, "AssumeRole", "sts", **params)
    else:
        assert f"sts:AssumeRole on resource: {arn}" in ask.refuses(
            who, "AssumeRole", "sts", **params
        )


LISTS = (statement("iot:List*"),)


@pytest.mark.parametrize(
    ("principals", "session", "allowed"),
    [
        # named is the role: its own policies need not allow it, those of a session have to
        (["role/first"], None, True),
        (["role/first"], LISTS, False),
        (["role/first"], (statement("sts:AssumeRole"),), True),
        (["*"], LISTS, False),
        # named is the session
        (["first/s"], LISTS, True),
        (["role/first", "first/s"], LISTS, True),
        (["first/other"], None, False),
        (["first/s"], (statement("*"), statement("sts:*", Effect="Deny")), False),
    ],
)
def test_what_a_session_policy_does_not_allow_is_not_got_by_another_role(
    ask: Asker, registry: Registry, principals: list[str], session: Any, allowed: bool
) -> None:
    """IAM User Guide, "Session policies": a role's ARN as the principal, and a session's."""
    iam = Iam(registry)
    iam.role("first")
    role = iam("GetRole", RoleName="first")["Role"]
    forms = {"role/first": role["Arn"], "*": "*"}
    sts = f"arn:aws:sts::{ACCOUNT}:assumed-role/"
    trusted = trust(*(forms.get(each, sts + each) for each in principals))
    params = {"role_arn": iam.role("second", trusted), "role_session_name": "t"}
    who = Caller(
        ACCOUNT,
        f"{sts}first/s",
        f"{role['RoleId']}:s",
        "ASIA",
        compile_policies([], {}),
        None if session is None else policies(*session),
        principal_arn=role["Arn"],
        session_kind="role",
    )
    if allowed:
        ask(who, "AssumeRole", "sts", **params)
    else:
        ask.refuses(who, "AssumeRole", "sts", **params)


def test_trust_policies_look_at_the_tags_of_the_role(ask: Asker, registry: Registry) -> None:
    iam = Iam(registry)
    ann = iam.user("ann")
    condition = {"StringEquals": {"aws:ResourceTag/env": "prod"}}
    denies = {**json.loads(trust(ann.arn))["Statement"][0], "Effect": "Deny"}
    allows = json.loads(trust(ann.arn))["Statement"][0]
    both = document(allows, {**denies, "Condition": condition})
    for name, text, allowed in (
        ("only", document({**allows, "Condition": condition}), True),
        ("never", both, False),
    ):
        tagged = iam.role(f"{name}-prod", text, Tags=[{"Key": "env", "Value": "prod"}])
        plain = iam.role(f"{name}-test", text, Tags=[{"Key": "env", "Value": "test"}])
        for arn, good in ((tagged, allowed), (plain, not allowed)):
            params = {"RoleArn": arn, "RoleSessionName": "sess"}
            if good:
                iam.sts("AssumeRole", ann, **params)
            else:
                with pytest.raises(AccessDeniedException):
                    iam.sts("AssumeRole", ann, **params)


def test_tags_of_a_session_are_a_right_of_their_own(ask: Asker, registry: Registry) -> None:
    arn = Iam(registry).role("installer", trust(f"{IAM}root"))
    params = {"role_arn": arn, "role_session_name": "s"}
    who = caller(statement("sts:AssumeRole"))
    ask(who, "AssumeRole", "sts", **params)
    tagged = {**params, "tags": [{"Key": "site", "Value": "A"}]}
    assert "sts:TagSession" in ask.refuses(who, "AssumeRole", "sts", **tagged)
    ask(caller(statement(["sts:AssumeRole", "sts:TagSession"])), "AssumeRole", "sts", **tagged)


def test_what_a_session_may_never(ask: Asker) -> None:
    """IAM User Guide, "Compare AWS STS credentials"."""
    for kind in ("user", "role"):
        who = caller(statement("*"), session_kind=kind)
        message = ask.refuses(who, "GetSessionToken", "sts")
        assert message == "Cannot call GetSessionToken with session credentials"
        ask(who, "ListThings")
    ask(caller(statement("*"), session_kind="role"), "ListUsers", "iam")
    with pytest.raises(UnrecognizedClientException):
        ask(caller(statement("*"), session_kind="user"), "ListUsers", "iam")
    root = Caller(ACCOUNT, f"{IAM}root", ACCOUNT, "ASIA", session_kind="user")
    with pytest.raises(UnrecognizedClientException):
        ask(root, "ListUsers", "iam")


# --- how policies come together -------------------------------------------------------------------

CREATE = "CreateThing"
PARAMS = {"thing_name": "t"}


@pytest.mark.parametrize(
    ("own", "session", "words"),
    [
        ((), None, "because no identity-based policy allows the iot:CreateThing action"),
        (
            (statement("*"), statement("iot:Create*", Effect="Deny")),
            None,
            "with an explicit deny in an identity-based policy",
        ),
        (
            (statement("*"),),
            (statement("iot:List*"),),
            "because no session policy allows the iot:CreateThing action",
        ),
        (
            (statement("*"),),
            (statement("*"), statement("*", Effect="Deny")),
            "with an explicit deny in a session policy",
        ),
        (
            (),
            (statement("*"),),
            "because no identity-based policy allows the iot:CreateThing action",
        ),
        ((statement("iot:*", Effect="Deny"),), (statement("iot:List*"),), "an identity-based"),
    ],
)
def test_why_it_is_refused(ask: Asker, own: Any, session: Any, words: str) -> None:
    """IAM User Guide, "Troubleshoot access denied error messages"."""
    message = ask.refuses(caller(*own, session=session), CREATE, **PARAMS)
    assert message.startswith(
        f"User: {ANN} is not authorized to perform: iot:CreateThing on resource: {IOT}thing/t "
    )
    assert words in message


def test_what_both_allow_is_allowed(ask: Asker) -> None:
    ask(caller(statement("iot:*"), session=(statement("iot:CreateThing"),)), CREATE, **PARAMS)
    ask(caller(statement(["iot:Create*", "IOT:creatething"])), CREATE, **PARAMS)


def test_require_asks_for_further_actions(registry: Registry) -> None:
    """What operations ask beside their own action: RegisterThing, say."""

    def ask(who: Caller | None, action: str, **keys: tuple[str, ...]) -> None:
        call = Call(registry.services, "r", registry.clock(), caller=who)
        registry.runner.run(call.read(lambda tx: require(tx, call)(action, "x", keys)))

    who = caller(statement("iot:A*", "*"))
    ask(who, "iot:AttachPolicy")
    with pytest.raises(AccessDeniedException, match=r"iot:CreatePolicy on resource: x because"):
        ask(who, "iot:CreatePolicy")
    ask(None, "iot:CreatePolicy")


# --- conditions -----------------------------------------------------------------------------------


def when(operator: str, key: str, *values: str) -> Any:
    return statement("*", Condition={operator: {key: list(values)}})


CONDITIONS: list[tuple[Any, str, str, dict[str, Any], bool]] = [
    (when("IpAddress", "aws:SourceIp", "192.0.2.0/24"), "iot", CREATE, PARAMS, True),
    (when("IpAddress", "aws:SourceIp", "198.51.100.0/24"), "iot", CREATE, PARAMS, False),
    (when("NotIpAddress", "aws:SourceIp", "192.0.2.7/32"), "iot", CREATE, PARAMS, False),
    (when("Bool", "aws:SecureTransport", "false"), "iot", CREATE, PARAMS, True),
    (when("Bool", "aws:SecureTransport", "true"), "iot", CREATE, PARAMS, False),
    (when("StringLike", "aws:UserAgent", "Boto3/*"), "iot", CREATE, PARAMS, True),
    (when("DateLessThan", "aws:CurrentTime", "2027-01-01T00:00:00Z"), "iot", CREATE, PARAMS, True),
    (when("DateLessThan", "aws:CurrentTime", "2026-01-01T00:00:00Z"), "iot", CREATE, PARAMS, False),
    (when("NumericGreaterThan", "aws:EpochTime", "1700000000"), "iot", CREATE, PARAMS, True),
    (when("StringEquals", "aws:RequestedRegion", "eu-west-1"), "iot", CREATE, PARAMS, True),
    (when("StringEquals", "aws:RequestedRegion", "us-east-1"), "iot", CREATE, PARAMS, False),
    (when("StringEquals", "aws:RequestedRegion", "us-east-1"), "iam", "ListUsers", {}, True),
    (when("Null", "aws:MultiFactorAuthPresent", "true"), "iot", CREATE, PARAMS, True),
    (
        when("ArnEquals", "iot:thingArn", f"{IOT}thing/t"),
        "iot",
        "AttachThingPrincipal",
        {"thing_name": "t", "principal": CERTIFICATE},
        True,
    ),
    (
        when("ArnEquals", "iot:thingArn", f"{IOT}thing/other"),
        "iot",
        "DetachThingPrincipal",
        {"thing_name": "t", "principal": CERTIFICATE},
        False,
    ),
    (
        when("StringEquals", "iot:DomainName", "a.example"),
        "iot",
        "CreateDomainConfiguration",
        {"domain_configuration_name": "d", "domain_name": "a.example"},
        True,
    ),
    (
        when("ArnEquals", "iam:PolicyARN", "arn:aws:iam::aws:policy/service-role/X"),
        "iam",
        "AttachRolePolicy",
        {"role_name": "r", "policy_arn": "arn:aws:iam::aws:policy/service-role/X"},
        True,
    ),
    (
        when("ArnEquals", "iam:PolicyARN", "arn:aws:iam::aws:policy/service-role/X"),
        "iam",
        "AttachRolePolicy",
        {"role_name": "r", "policy_arn": "arn:aws:iam::aws:policy/AdministratorAccess"},
        False,
    ),
    (
        when("StringEquals", "aws:RequestTag/site", "A"),
        "iot",
        "CreateThingGroup",
        {"thing_group_name": "g", "tags": [{"Key": "site", "Value": "A"}]},
        True,
    ),
    (
        when("StringEquals", "aws:RequestTag/site", "A"),
        "iot",
        "CreateThingGroup",
        {"thing_group_name": "g"},
        False,
    ),
    (
        when("ForAllValues:StringEquals", "aws:TagKeys", "site", "owner"),
        "iot",
        "TagResource",
        {"resource_arn": f"{IOT}policy/p", "tags": [{"Key": "cost", "Value": ""}]},
        False,
    ),
    (
        when("ForAnyValue:StringEquals", "aws:TagKeys", "site"),
        "iot",
        "UntagResource",
        {"resource_arn": f"{IOT}policy/p", "tag_keys": ["site", "owner"]},
        True,
    ),
    (
        when("StringEquals", "sts:RoleSessionName", "${aws:username}"),
        "sts",
        "AssumeRole",
        {"role_arn": f"{IAM}role/r", "role_session_name": "ann"},
        True,
    ),
    (
        when("StringEquals", "sts:RoleSessionName", "${aws:username}"),
        "sts",
        "AssumeRole",
        {"role_arn": f"{IAM}role/r", "role_session_name": "eve"},
        False,
    ),
]


@pytest.mark.parametrize(("condition", "service", "operation", "params", "allowed"), CONDITIONS)
def test_conditions(
    ask: Asker,
    condition: Any,
    service: str,
    operation: str,
    params: dict[str, Any],
    allowed: bool,
) -> None:
    """IAM User Guide, "AWS global condition context keys"; Service Authorization Reference."""
    who = caller(condition)
    if allowed:
        ask(who, operation, service, **params)
    else:
        ask.refuses(who, operation, service, **params)


def test_tags_of_the_resource(ask: Asker, registry: Registry) -> None:
    registry.call("CreateThingGroup", thing_group_name="g", tags=[{"Key": "site", "Value": "A"}])
    registry.call("CreateThingGroup", thing_group_name="h")
    who = caller(when("StringEquals", "aws:ResourceTag/site", "A"))
    ask(who, "DeleteThingGroup", thing_group_name="g")
    ask.refuses(who, "DeleteThingGroup", thing_group_name="h")
    ask.refuses(who, "DeleteThingGroup", thing_group_name="nobody")
    registry.call(
        "TagResource", resource_arn=f"{IOT}thinggroup/g", tags=[{"Key": "site", "Value": "B"}]
    )
    ask.refuses(who, "DeleteThingGroup", thing_group_name="g")


def test_tags_of_users(ask: Asker, registry: Registry) -> None:
    iam = Iam(registry)
    iam("CreateUser", UserName="bob", Path="/team/", Tags=[{"Key": "team", "Value": "x"}])
    for key in ("aws:ResourceTag/team", "iam:ResourceTag/team"):
        who = caller(when("StringEquals", key, "x"))
        ask(who, "DeleteUser", "iam", user_name="bob")
        ask.refuses(who, "DeleteUser", "iam", user_name="ann")


TWICE = [{"Key": "Team", "Value": "red"}, {"Key": "team", "Value": "blue"}]


@pytest.mark.parametrize("tags", [TWICE, TWICE[::-1], [{**each, "Key": "team"} for each in TWICE]])
def test_a_tag_that_is_given_twice_passes_for_neither(
    ask: Asker, tags: list[dict[str, str]]
) -> None:
    """The names of condition keys have no case; those of tags have."""
    params = {"thing_group_name": "g", "tags": tags}
    for value in ("red", "blue"):
        only = when("StringEquals", "aws:RequestTag/team", value)
        ask.refuses(caller(only), "CreateThingGroup", **params)
        denies = {**only, "Effect": "Deny"}
        ask.refuses(caller(statement("*"), denies), "CreateThingGroup", **params)
    ask(
        caller(when("StringEquals", "aws:RequestTag/team", "red", "blue")),
        "CreateThingGroup",
        **params,
    )


def test_tags_of_a_resource_in_two_spellings(ask: Asker, registry: Registry) -> None:
    registry.call("CreateThingGroup", thing_group_name="g", tags=TWICE)
    for value in ("red", "blue"):
        only = when("StringEquals", "aws:ResourceTag/team", value)
        ask.refuses(caller(only), "DeleteThingGroup", thing_group_name="g")
        denies = {**only, "Effect": "Deny"}
        ask.refuses(caller(statement("*"), denies), "DeleteThingGroup", thing_group_name="g")


# --- how much one call may ask --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "params", "words"),
    [
        (
            "UpdateThingGroupsForThing",
            {"thing_name": "t", "thing_groups_to_add": ["g"] * (MAX_NAMED + 1)},
            "`thingGroupsToAdd` of iot:UpdateThingGroupsForThing names 101 at once",
        ),
        (
            "UpdateThingGroupsForThing",
            {"thing_name": "t", "thing_groups_to_remove": ["g"] * (MAX_NAMED + 1)},
            "the limit is 100",
        ),
        (
            "TagResource",
            {"resource_arn": f"{IOT}policy/p", "tags": [{"Key": "k"}] * (MAX_NAMED + 1)},
            "`tags` of iot:TagResource names 101",
        ),
        (
            "UntagResource",
            {"resource_arn": f"{IOT}policy/p", "tag_keys": ["k"] * (MAX_NAMED + 1)},
            "`tagKeys` of iot:UntagResource",
        ),
        ("AttachPolicy", {"policy_name": "p", "target": "x" * 2049}, "has 2049 characters"),
        (
            "AddThingToThingGroup",
            {"thing_name": "t", "thing_group_arn": "x" * 2049},
            "the limit is 2048",
        ),
    ],
)
def test_a_call_names_no_more_than_any_may(
    ask: Asker, operation: str, params: dict[str, Any], words: str
) -> None:
    root = Caller(ACCOUNT, f"{IAM}root", ACCOUNT, "AKIA")
    for who in (caller(), caller(statement("*")), root):
        with pytest.raises(InvalidRequestException) as caught:
            ask(who, operation, **params)
        assert words in caught.value.message


# --- roles that are passed on ---------------------------------------------------------------------

ROLE = f"{IAM}role/provisioning"

PASSES: list[tuple[str, dict[str, Any], str]] = [
    (
        "CreateProvisioningTemplate",
        {"template_name": "T", "template_body": "{}", "provisioning_role_arn": ROLE},
        "iot.amazonaws.com",
    ),
    (
        "UpdateProvisioningTemplate",
        {"template_name": "T", "provisioning_role_arn": ROLE},
        "iot.amazonaws.com",
    ),
    (
        "RegisterCACertificate",
        {"ca_certificate": "", "registration_config": {"roleArn": ROLE}},
        "iot.amazonaws.com",
    ),
    (
        "UpdateCACertificate",
        {"certificate_id": "a" * 64, "registration_config": {"roleArn": ROLE}},
        "iot.amazonaws.com",
    ),
    (
        "CreateRoleAlias",
        {"role_alias": "r", "role_arn": ROLE},
        "credentials.iot.amazonaws.com",
    ),
    (
        "UpdateRoleAlias",
        {"role_alias": "r", "role_arn": ROLE},
        "credentials.iot.amazonaws.com",
    ),
    ("SetV2LoggingOptions", {"role_arn": ROLE}, "iot.amazonaws.com"),
    ("SetLoggingOptions", {"logging_options_payload": {"roleArn": ROLE}}, "iot.amazonaws.com"),
]


@pytest.mark.parametrize(("operation", "params", "service"), PASSES)
def test_a_role_has_to_be_passed(
    ask: Asker, operation: str, params: dict[str, Any], service: str
) -> None:
    """IAM User Guide, "Grant a user permissions to pass a role to an AWS service"."""
    own = statement("iot:*")
    message = ask.refuses(caller(own), operation, **params)
    assert f"not authorized to perform: iam:PassRole on resource: {ROLE} because" in message
    ask(caller(own, statement("iam:PassRole", ROLE)), operation, **params)
    ask.refuses(caller(own, statement("iam:PassRole", f"{IAM}role/other")), operation, **params)
    to = {"StringEquals": {"iam:PassedToService": service}}
    ask(caller(own, statement("iam:PassRole", Condition=to)), operation, **params)
    other = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    ask.refuses(caller(own, statement("iam:PassRole", Condition=other)), operation, **params)


def test_without_a_role_none_is_passed(ask: Asker) -> None:
    who = caller(statement("iot:*"))
    ask(who, "UpdateProvisioningTemplate", template_name="T", enabled=True)
    ask(who, "UpdateCACertificate", certificate_id="a" * 64)


# --- through the one way in -----------------------------------------------------------------------


def test_nothing_of_the_registry_shows_before(registry: Registry) -> None:
    """What is there and what is not is refused with the same words; and nothing happens."""
    registry.call("CreateThing", thing_name="there")
    who = Iam(registry).user("ann", allow("iot:ListThings"))

    def ask_for(operation: str, **params: Any) -> dict[str, Any]:
        call = Call(registry.services, "request", registry.clock(), caller=who)
        described = registry.models["iot"].operation(operation)
        return registry.runner.run(invoke(call, "iot", described, params))

    def refusal(name: str) -> str:
        for operation in ("DescribeThing", "DeleteThing", "CreateThing"):
            with pytest.raises(ServiceError) as caught:
                ask_for(operation, thing_name=name)
            assert type(caught.value) is AccessDeniedException
        return caught.value.message.replace(name, "")

    assert refusal("there") == refusal("away")
    listed = ask_for("ListThings")["things"]
    assert [each["thingName"] for each in listed] == ["there"]


def test_devices_are_not_asked_for_iam_policies(registry: Registry) -> None:
    """Over MQTT the IoT policies of the certificate say what may be asked."""
    with pytest.raises(ServiceError) as caught:
        registry.device("RegisterThing", template_name="T", certificate_ownership_token="")
    assert not isinstance(caught.value, AccessDeniedException)
