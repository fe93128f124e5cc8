"""Resource policies of functions: what they are, and whom they let in.

Sources: Lambda API reference, AddPermission, RemovePermission, GetPolicy; Lambda developer guide,
"Working with resource-based IAM policies in Lambda".
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    PolicyLengthExceededException,
    PreconditionFailedException,
    ResourceConflictException,
    ResourceNotFoundException,
    ServiceError,
)
from fleetgate.operations.authorization import authorize
from fleetgate.operations.call import Call
from fleetgate.operations.function_permissions import CONFIGURED, UPLOADED, invocable
from tests.operations.conftest import Registry
from tests.operations.lambda_functions import Lambda, caller_who, configure

ACCOUNT = "123456789012"
TEMPLATE = f"arn:aws:iot:eu-west-1:{ACCOUNT}:provisioningtemplate/fleet"
IOT = "iot.amazonaws.com"


@pytest.fixture
def aws(registry: Registry) -> Lambda:
    """The Lambda API with one function, ``hook``, and one of the configuration, ``allow``."""
    configure(registry, "allow")
    api = Lambda(registry)
    api.create("hook")
    return api


def permit(aws: Lambda, name: str = "hook", **members: Any) -> dict[str, Any]:
    wanted = {"Action": "lambda:InvokeFunction", "Principal": IOT, "StatementId": "iot"}
    answer = aws("AddPermission", FunctionName=name, **(wanted | members))
    statement: dict[str, Any] = json.loads(answer["Statement"])
    return statement


def lets_in(
    aws: Lambda,
    name: str = "hook",
    origin: str = UPLOADED,
    service: str = IOT,
    source: str = TEMPLATE,
    account: str = "",
) -> bool:
    services = aws.registry.services
    call = Call(services, "request", aws.registry.clock())
    decision = aws.registry.runner.run(
        services.store.read(invocable, call, name, origin, service, source, source_account=account)
    )
    assert decision.allowed or (source in decision.reason and aws.arn(name) in decision.reason)
    return decision.allowed


def test_a_statement_is_shaped_as_lambda_does(aws: Lambda) -> None:
    """The example of the developer guide, with the names of AWS IoT."""
    given = permit(aws, SourceArn=TEMPLATE, SourceAccount=ACCOUNT)
    assert given == {
        "Sid": "iot",
        "Effect": "Allow",
        "Principal": {"Service": IOT},
        "Action": "lambda:InvokeFunction",
        "Resource": aws.arn("hook"),
        "Condition": {
            "StringEquals": {"AWS:SourceAccount": ACCOUNT},
            "ArnLike": {"AWS:SourceArn": TEMPLATE},
        },
    }
    permit(aws, StatementId="more-of_it")
    policy = json.loads(aws("GetPolicy", FunctionName="hook")["Policy"])
    assert (policy["Version"], policy["Id"]) == ("2012-10-17", "default")
    assert [each["Sid"] for each in policy["Statement"]] == ["iot", "more-of_it"]
    assert policy["Statement"][0] == given
    assert "Condition" not in policy["Statement"][1]


@pytest.mark.parametrize(
    ("principal", "named"),
    [
        ("iot.amazonaws.com", {"Service": "iot.amazonaws.com"}),
        ("210987654321", {"AWS": "arn:aws:iam::210987654321:root"}),
        ("arn:aws:iam::210987654321:root", {"AWS": "arn:aws:iam::210987654321:root"}),
        ("*", "*"),
    ],
)
def test_principals_are_named_as_lambda_does(aws: Lambda, principal: str, named: object) -> None:
    assert permit(aws, Principal=principal)["Principal"] == named


@pytest.mark.parametrize("name", ["hook", "allow"])
@pytest.mark.parametrize(
    ("members", "asked", "allowed"),
    [
        ({}, {}, True),
        ({"SourceArn": TEMPLATE}, {}, True),
        ({"SourceArn": TEMPLATE, "SourceAccount": ACCOUNT}, {}, True),
        ({"SourceArn": TEMPLATE.replace("fleet", "fl*")}, {}, True),
        ({"Action": "lambda:*"}, {}, True),
        ({"Action": "*"}, {}, True),
        ({"Principal": "*"}, {}, True),
        ({"Principal": "*", "SourceArn": TEMPLATE}, {}, True),
        ({"Principal": "*", "SourceArn": TEMPLATE}, {"source": TEMPLATE + "2"}, False),
        ({"SourceArn": TEMPLATE}, {"source": TEMPLATE + "2"}, False),
        ({"SourceArn": TEMPLATE}, {"account": "210987654321"}, True),
        ({"SourceAccount": ACCOUNT}, {"account": "210987654321"}, False),
        ({"SourceAccount": "210987654321"}, {}, False),
        ({"Action": "lambda:GetFunction"}, {}, False),
        ({"Principal": "s3.amazonaws.com"}, {}, False),
        ({}, {"service": "s3.amazonaws.com"}, False),
        ({"Principal": ACCOUNT}, {}, False),
    ],
)
def test_a_service_is_let_in_by_a_statement_alone(
    aws: Lambda, name: str, members: dict[str, Any], asked: dict[str, Any], allowed: bool
) -> None:
    origin = CONFIGURED if name == "allow" else UPLOADED
    assert not lets_in(aws, name, origin, **asked)
    permit(aws, name, **members)
    assert lets_in(aws, name, origin, **asked) is allowed
    aws("RemovePermission", FunctionName=name, StatementId="iot")
    assert not lets_in(aws, name, origin, **asked)


def test_statements_belong_to_a_function_and_not_to_its_name(aws: Lambda) -> None:
    permit(aws)
    configure(aws.registry, "hook")
    with pytest.raises(ResourceNotFoundException):
        aws("GetPolicy", FunctionName="hook")
    assert not lets_in(aws, origin=CONFIGURED)
    del aws.registry.services.functions.configured["hook"]
    del aws.registry.services.functions.targets["hook"]
    assert lets_in(aws)
    aws("DeleteFunction", FunctionName="hook")
    aws.create("hook")
    assert not lets_in(aws)


def test_the_functions_revision_changes_with_its_policy(aws: Lambda) -> None:
    for name in ("hook", "allow"):
        revision = aws("GetFunctionConfiguration", FunctionName=name)["RevisionId"]
        permit(aws, name, RevisionId=revision)
        policy = aws("GetPolicy", FunctionName=name)
        assert policy["RevisionId"] != revision
        for operation, more in (
            ("AddPermission", {"Action": "lambda:*", "Principal": IOT, "StatementId": "b"}),
            ("RemovePermission", {"StatementId": "iot"}),
        ):
            with pytest.raises(PreconditionFailedException, match="does not match the latest"):
                aws(operation, FunctionName=name, RevisionId=revision, **more)
        aws(
            "RemovePermission",
            FunctionName=name,
            StatementId="iot",
            RevisionId=policy["RevisionId"],
        )


ADD: dict[str, Any] = {
    "FunctionName": "hook",
    "StatementId": "s",
    "Action": "lambda:InvokeFunction",
    "Principal": IOT,
}


@pytest.mark.parametrize(
    ("operation", "members", "error", "message"),
    [
        ("AddPermission", ADD | {"StatementId": "iot"}, ResourceConflictException, "already exist"),
        ("AddPermission", ADD | {"FunctionName": "x"}, ResourceNotFoundException, ":function:x"),
        (
            "AddPermission",
            ADD | {"Principal": "iot"},
            InvalidParameterValueException,
            "The provided principal was invalid.",
        ),
        (
            "AddPermission",
            ADD | {"Principal": "arn:aws:iam::123456789012:user/ann"},
            InvalidParameterValueException,
            "identity-based policy",
        ),
        (
            "AddPermission",
            ADD | {"Principal": "a b.amazonaws.com".replace(" ", "$")},
            InvalidParameterValueException,
            "",
        ),
        (
            "AddPermission",
            ADD | {"Qualifier": "$LATEST"},
            InvalidParameterValueException,
            "adding policies for $LATEST",
        ),
        ("AddPermission", ADD | {"Qualifier": "live"}, ResourceNotFoundException, "hook:live"),
        (
            "AddPermission",
            ADD | {"EventSourceToken": "t"},
            InvalidParameterValueException,
            "`EventSourceToken` of AddPermission is not offered",
        ),
        (
            "AddPermission",
            ADD | {"PrincipalOrgID": "o-0123456789"},
            InvalidParameterValueException,
            "`PrincipalOrgID` of AddPermission is not offered",
        ),
        (
            "AddPermission",
            ADD | {"SourceArn": "arn:aws:iot:eu-west-1:123456789012:${x"},
            InvalidParameterValueException,
            "",
        ),
        (
            "RemovePermission",
            {"FunctionName": "hook", "StatementId": "s"},
            ResourceNotFoundException,
            "Statement s is not found in resource policy.",
        ),
        ("GetPolicy", {"FunctionName": "x"}, ResourceNotFoundException, "Function not found"),
    ],
)
def test_what_is_refused(
    aws: Lambda,
    operation: str,
    members: dict[str, Any],
    error: type[ServiceError],
    message: str,
) -> None:
    permit(aws)
    with pytest.raises(error) as refused:
        aws(operation, **members)
    assert message in refused.value.message


def test_a_policy_has_a_bound(aws: Lambda) -> None:
    aws.registry.services = replace(
        aws.registry.services, limits=replace(aws.registry.services.limits, function_policy=300)
    )
    permit(aws)
    with pytest.raises(PolicyLengthExceededException, match=r"\(\d+\) is bigger .*\(300\)"):
        permit(aws, StatementId="two")
    assert len(json.loads(aws("GetPolicy", FunctionName="hook")["Policy"])["Statement"]) == 1


# --- callers of the account -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "members", "says", "session", "let_in"),
    [
        ("hook", {"Principal": "*"}, [], None, True),
        ("allow", {"Principal": "*"}, [], None, True),
        ("hook", {"Principal": "*"}, ["Deny lambda:InvokeFunction"], None, False),
        # what everybody is granted a session policy bounds
        ("hook", {"Principal": "*"}, [], ["Allow lambda:InvokeFunction"], True),
        ("hook", {"Principal": "*"}, [], ["Allow lambda:ListFunctions"], False),
        ("hook", {"Principal": "*"}, ["Allow lambda:InvokeFunction"], None, True),
        # for callers there is neither a source account nor a source ARN
        ("hook", {"Principal": "*", "SourceAccount": ACCOUNT}, [], None, False),
        ("hook", {"Principal": "*", "Action": "lambda:GetFunction"}, [], None, False),
        # the account hands it on by its own policies
        ("hook", {"Principal": ACCOUNT}, [], None, False),
        ("hook", {"Principal": IOT}, [], None, False),
        ("hook", None, [], None, False),
    ],
)
def test_what_is_open_to_everybody_is_open_to_callers_of_the_account(
    aws: Lambda,
    name: str,
    members: dict[str, str] | None,
    says: list[str],
    session: list[str] | None,
    let_in: bool,
) -> None:
    """IAM User Guide, "Policy evaluation for requests within a single account"."""
    if members is not None:
        permit(aws, name, **members)
    who = caller_who(*says)
    if session is not None:
        who = replace(who, session=caller_who(*session).policies)
    call = Call(aws.registry.services, "request", aws.registry.clock(), caller=who)

    def may(operation: str, **params: str) -> bool:
        try:
            aws.registry.runner.run(authorize(call, "lambda", operation, params))
        except AccessDeniedException:
            return False
        return True

    assert may("Invoke", function_name=name) is let_in
    assert may("GetFunction", function_name=name) is False
    # the statement is about the function, not about a version of it
    qualified = may("Invoke", function_name=name, qualifier="$LATEST")
    assert qualified is ("Allow lambda:InvokeFunction" in says)
