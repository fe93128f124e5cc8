"""IAM policies: identity policies, trust policies, policies of resources.

Sources: IAM User Guide, "IAM JSON policy elements reference", "Grammar of the IAM JSON policy
language", "Principal", "NotPrincipal"; messages as IAM answers them.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fleetgate.domain import policy
from fleetgate.domain.policy import IDENTITY, RESOURCE, TRUST, Dialect, Principal
from fleetgate.errors import MalformedPolicyDocument

ALLOW = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
ASSUME = {
    "Effect": "Allow",
    "Principal": {"Service": "iot.amazonaws.com"},
    "Action": "sts:AssumeRole",
}
IOT_SERVICE = Principal("Service", "iot.amazonaws.com")
ACCOUNT = ("123456789012", "arn:aws:iam::123456789012:root")
USER = Principal("AWS", "AIDAQJSCHAWKZ3ANNA234", ACCOUNT)
SESSION = Principal(
    "AWS",
    "AROAQJSCHAWKZ3FLEET23:session",
    ("AROAQJSCHAWKZ3FLEET23", *ACCOUNT),
)


def document(*statements: dict[str, Any], version: str | None = "2012-10-17") -> str:
    written: dict[str, Any] = {"Statement": list(statements)}
    return json.dumps(written if version is None else {"Version": version, **written})


def identity(*statements: dict[str, Any], **values: str) -> policy.Policies:
    named = {name.replace("_", ":"): (value,) for name, value in values.items()}
    return policy.compile_policies([("p", policy.parse(document(*statements), IDENTITY))], named)


@pytest.mark.parametrize(
    ("action", "asked", "allowed"),
    [
        ("iot:*", "iot:CreateThing", True),
        ("iot:Create*", "iot:CreateThing", True),
        ("iot:creatething", "iot:CreateThing", True),
        ("IOT:CreateThing", "iot:CreateThing", True),
        ("iam:*AccessKey*", "iam:CreateAccessKey", True),
        ("*", "s3:GetObject", True),
        ("*:*", "s3:GetObject", True),
        ("iam:Get?ser", "iam:GetUser", True),
        ("iam:*", "iot:CreateThing", False),
    ],
)
def test_actions_of_any_service(action: str, asked: str, allowed: bool) -> None:
    policies = identity({**ALLOW, "Action": action})
    assert policies.evaluate(asked, "arn:aws:iam::123456789012:user/a").allowed is allowed


# "Variables and tags": ``user/${aws:username}``. Names of users may hold ``+=,.@-``.
@pytest.mark.parametrize("name", ["David", "a+b@c.d"])
def test_the_user_s_own_name(name: str) -> None:
    own = {**ALLOW, "Action": "iam:*", "Resource": "arn:aws:iam::1:user/${aws:username}"}
    policies = identity(own, aws_username=name)
    assert policies.evaluate("iam:CreateAccessKey", f"arn:aws:iam::1:user/{name}").allowed
    assert not policies.evaluate("iam:CreateAccessKey", "arn:aws:iam::1:user/other").allowed
    assert not identity(own).evaluate("iam:CreateAccessKey", "arn:aws:iam::1:user/").allowed


def test_values_of_a_request_replace_those_of_the_caller() -> None:
    tagged = {
        **ALLOW,
        "Condition": {"StringEquals": {"aws:RequestTag/team": "${aws:PrincipalTag/team}"}},
    }
    policies = identity(tagged, **{"aws:PrincipalTag/team": "blue"})
    values = {"aws:RequestTag/team": ("blue",)}
    assert policies.evaluate("iot:CreateThing", "x", values).allowed
    assert not policies.evaluate("iot:CreateThing", "x", {"aws:requesttag/team": ("red",)}).allowed
    assert not policies.evaluate("iot:CreateThing", "x").allowed
    red = {**values, "aws:PrincipalTag/team": ("red",)}
    assert not policies.evaluate("iot:CreateThing", "x", red).allowed


def test_a_late_deny_names_its_statement() -> None:
    denied = {
        **ALLOW,
        "Sid": "Outside",
        "Effect": "Deny",
        "Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
    }
    policies = identity(ALLOW, denied)
    decision = policies.evaluate("iot:X", "arn:x", {"aws:SourceIp": ("192.0.2.1",)})
    assert (decision.policy, decision.statement, decision.explicit_deny) == ("p", "Outside", True)
    assert decision.reason == "statement `Outside` of policy `p` denies iot:X on `arn:x`"
    assert policies.evaluate("iot:X", "arn:x", {"aws:SourceIp": ("10.1.1.1",)}).allowed
    # without an address the negated condition is true
    assert policies.evaluate("iot:X", "arn:x").explicit_deny


def test_what_nobody_allows_is_no_explicit_deny() -> None:
    decision = identity(ALLOW).evaluate("iam:GetUser", "x", {"aws:SourceIp": ("10.1.1.1",)})
    assert not decision.allowed
    assert not decision.explicit_deny


# "Version": without it, the version is 2008-10-17, and variables are literal text.
@pytest.mark.parametrize("version", [None, "2008-10-17"])
def test_older_versions_have_no_variables(version: str | None) -> None:
    text = document({**ALLOW, "Resource": "arn:aws:s3:::${aws:username}"}, version=version)
    parsed = policy.parse(text, IDENTITY)
    assert parsed.version == "2008-10-17"
    policies = policy.compile_policies([("p", parsed)], {"aws:username": ("a",)})
    assert not policies.evaluate("iot:X", "arn:aws:s3:::a").allowed
    assert policies.evaluate("iot:X", "arn:aws:s3:::${aws:username}").allowed


# "Principal": services, accounts (number, root ARN), users, roles and sessions by id, everyone.
@pytest.mark.parametrize(
    ("principals", "principal", "allowed"),
    [
        ({"Service": "iot.amazonaws.com"}, IOT_SERVICE, True),
        ({"Service": ["lambda.amazonaws.com", "iot.amazonaws.com"]}, IOT_SERVICE, True),
        ({"Service": "lambda.amazonaws.com"}, IOT_SERVICE, False),
        ({"AWS": "*"}, IOT_SERVICE, False),
        ({"AWS": "123456789012"}, USER, True),
        ({"AWS": "arn:aws:iam::123456789012:root"}, USER, True),
        ({"AWS": "AIDAQJSCHAWKZ3ANNA234"}, USER, True),
        ({"AWS": "AIDAQJSCHAWKZ3ANNA"}, USER, False),
        # operations/role_trust.py keeps ids: an ARN is that of somebody else's
        ({"AWS": "arn:aws:iam::123456789012:user/anna"}, USER, False),
        ({"AWS": "210987654321"}, USER, False),
        ({"AWS": "AROAQJSCHAWKZ3FLEET23"}, SESSION, True),
        ({"AWS": "AROAQJSCHAWKZ3FLEET23:session"}, SESSION, True),
        ({"AWS": "AROAQJSCHAWKZ3FLEET23:other"}, SESSION, False),
        ({"AWS": "AROAQJSCHAWKZ3OTHER23"}, SESSION, False),
        ("*", USER, True),
        ({"AWS": "*"}, USER, True),
        ({"Federated": "cognito-identity.amazonaws.com"}, USER, False),
    ],
)
def test_who_is_trusted(principals: object, principal: Principal, allowed: bool) -> None:
    parsed = policy.parse(document({**ASSUME, "Principal": principals}), TRUST)
    decision = policy.evaluate_trust(parsed, principal, "sts:AssumeRole")
    assert decision.allowed is allowed
    assert not policy.evaluate_trust(parsed, principal, "sts:TagSession").allowed
    everyone = {**ASSUME, "Principal": "*"}
    everyone_else = {**ASSUME, "Effect": "Deny", "NotPrincipal": principals}
    del everyone_else["Principal"]
    negated = policy.parse(document(everyone, ASSUME, everyone_else), RESOURCE)
    decision = policy.evaluate_trust(negated, principal, "sts:AssumeRole")
    assert decision.explicit_deny is not allowed


# "Confused deputy": the trust policy of the provisioning role in AWS's guide.
@pytest.mark.parametrize(
    ("account", "arn", "allowed"),
    [
        ("123456789012", "arn:aws:iot:us-east-1:123456789012:provisioningtemplate/t", True),
        ("123456789012", "arn:aws:iot:us-west-2:123456789012:provisioningtemplate/t", False),
        ("210987654321", "arn:aws:iot:us-east-1:123456789012:provisioningtemplate/t", False),
        ("123456789012", None, False),
    ],
)
def test_trust_with_conditions(account: str, arn: str | None, allowed: bool) -> None:
    condition = {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnLike": {"aws:SourceArn": "arn:aws:iot:us-east-1:123456789012:*"},
    }
    parsed = policy.parse(document({**ASSUME, "Condition": condition}), TRUST)
    values = {"aws:SourceAccount": (account,)}
    if arn is not None:
        values["aws:SourceArn"] = (arn,)
    decision = policy.evaluate_trust(parsed, IOT_SERVICE, "sts:AssumeRole", values)
    assert decision.allowed is allowed
    if allowed:
        assert (decision.policy, decision.statement) == ("trust policy", "0")


def test_the_policy_of_a_resource() -> None:
    invoke = {**ASSUME, "Action": "lambda:InvokeFunction", "Resource": "arn:aws:lambda:r:1:f"}
    parsed = policy.parse(document(invoke), RESOURCE)
    for resource, allowed in (("arn:aws:lambda:r:1:f", True), ("arn:aws:lambda:r:1:g", False)):
        decision = policy.evaluate_trust(
            parsed, IOT_SERVICE, "lambda:InvokeFunction", resource=resource, name="f"
        )
        assert decision.allowed is allowed


def test_statements_with_principals_are_for_nobody_in_particular() -> None:
    parsed = policy.parse(document({**ASSUME, "Principal": "*"}), TRUST)
    assert not policy.compile_policies([("p", parsed)], {}).evaluate("sts:AssumeRole", "x").allowed


MALFORMED: list[tuple[Dialect, object, str]] = [
    (IDENTITY, {**ALLOW, "Principal": "*"}, "Policy document should not specify a principal."),
    (IDENTITY, {**ALLOW, "Sid": "a b"}, "Statement IDs .SID. must be alpha-numeric"),
    (IDENTITY, {"Effect": "Allow", "Resource": "*"}, "Policy statement must contain actions."),
    (IDENTITY, {**ALLOW, "Action": []}, "Policy statement must contain actions."),
    (IDENTITY, {"Effect": "Allow", "Action": "*"}, "Policy statement must contain resources."),
    (IDENTITY, {**ALLOW, "Action": "all"}, "Actions/Conditions must be prefaced by a vendor"),
    (IDENTITY, {**ALLOW, "Condition": {"Is": {"a": "1"}}}, "`Is` is not a condition operator"),
    (TRUST, {**ASSUME, "Resource": "*"}, "Has prohibited field Resource"),
    (TRUST, {**ASSUME, "Action": "iot:*"}, "may only specify STS AssumeRole actions"),
    (TRUST, {**ASSUME, "Action": "sts:*"}, "may only specify STS AssumeRole actions"),
    (TRUST, {k: v for k, v in ASSUME.items() if k != "Principal"}, "required field Principal"),
    (RESOURCE, {**ASSUME, "NotPrincipal": "*"}, "exactly one of `Principal` and `NotPrincipal`"),
    # IAM User Guide, "NotPrincipal": "nor in an IAM role trust policy"
    (TRUST, {**ASSUME, "NotPrincipal": "*"}, "Has prohibited field NotPrincipal"),
    (TRUST, {**ASSUME, "Principal": "iot.amazonaws.com"}, "must be `.` or a JSON object"),
    (TRUST, {**ASSUME, "Principal": {}}, "must be `.` or a JSON object"),
    (TRUST, {**ASSUME, "Principal": {"Group": "a"}}, "`Group` names no principals"),
    (TRUST, {**ASSUME, "Principal": {"Service": "*"}}, 'Invalid principal in policy: "SERVICE":'),
    # aws/aws-cdk and terraform-aws-modules/eks issues, e.g. "SERVICE":"eks.amazonaws.com.cn"
    (TRUST, {**ASSUME, "Principal": {"Service": "nosuch"}}, '^Invalid .* "SERVICE":"nosuch"$'),
    (TRUST, {**ASSUME, "Principal": {"AWS": "anna"}}, 'in policy: "AWS":"anna"'),
    (TRUST, {**ASSUME, "Principal": {"AWS": "arn:aws:iam::123456789012:user/*"}}, '"AWS":"arn'),
]


@pytest.mark.parametrize(
    ("dialect", "statement", "message"), MALFORMED, ids=[str(n) for n in range(len(MALFORMED))]
)
def test_a_malformed_statement(dialect: Dialect, statement: Any, message: str) -> None:
    with pytest.raises(MalformedPolicyDocument, match=message):
        policy.parse(document(statement), dialect)


# Recorded from AWS, CreatePolicy (localstack, tests/aws/services/iam/test_iam_policies.py). What
# stands in parentheses behind IAM's sentence is ours.
SYNTAX = r"Syntax errors in policy\. \(.*\)"
ACTIONS, RESOURCES = (
    "Policy statement must contain actions.",
    "Policy statement must contain resources.",
)
VENDOR = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
LEGACY = r"The policy failed legacy parsing( \(.*\))?"
IAM_SAYS: list[tuple[dict[str, Any], str]] = [
    ({"Extra": "value"}, SYNTAX),
    ({"Effect": "invalid"}, SYNTAX),
    ({"Effect": None}, SYNTAX),
    ({"Sid": {}}, SYNTAX),
    ({"Action": {}}, SYNTAX),
    ({"Action": [[]]}, SYNTAX),
    ({"NotAction": "iot:Connect"}, SYNTAX),
    ({"Resource": {"a": "x"}}, SYNTAX),
    ({"Resource": ["adfdf", {}]}, SYNTAX),
    ({"NotResource": []}, SYNTAX),
    ({"Condition": []}, SYNTAX),
    ({"Condition": {"a": "b"}}, SYNTAX),
    ({"Condition": {"x": {"a": "1"}}}, SYNTAX),
    ({"Condition": {"DateGreaterThan": {"a": {}}}}, SYNTAX),
    ({"Condition": {"ForAnyValue::StringEqualsIfExists": {"a": "b"}}}, SYNTAX),
    ({"Condition": {"DateGreaterThan": {"a": "sdfdsf"}}}, LEGACY),
    ({"Action": []}, re.escape(ACTIONS)),
    ({"Resource": []}, re.escape(RESOURCES)),
    ({"Action": "invalid", "Resource": []}, re.escape(RESOURCES)),
    ({"Action": "invalid"}, re.escape(VENDOR)),
    ({"Action": ""}, re.escape(VENDOR)),
    ({"Action": "a a:ListBucket"}, "Vendor a a is not valid"),
    ({"Action": "s3:List:Bucket"}, r"Actions/Condition can contain only one colon\."),
    (
        {"Resource": "invalid resource"},
        r'Resource invalid resource must be in ARN format or "\*"\.',
    ),
    ({"Resource": ""}, r'Resource  must be in ARN format or "\*"\.'),
    (
        {"Resource": "a:bsdf"},
        r'Partition "bsdf" is not valid for resource "arn:bsdf:\*:\*:\*:\*"\.',
    ),
    (
        {"Resource": "aws:s3:::bucket"},
        r'Partition "s3" is not valid for resource "arn:s3:::bucket:\*"\.',
    ),
    (
        {"Resource": "arn:error:s3:::b"},
        r'Partition "error" is not valid for resource "arn:error:s3:::b"\.',
    ),
    (
        {"Resource": "arn:aws"},
        r"Resource vendor must be fully qualified and cannot contain regexes\.",
    ),
    (
        {"Resource": "arn:aws:iam:::bucket"},
        r'IAM resource path must either be "\*", root, or start with user/, .*, access-report/\.',
    ),
    (
        {"Resource": "arn:aws:iam:us-east-1::bucket"},
        "IAM resource arn:aws:iam:us-east-1::bucket cannot contain region information.",
    ),
    (
        {"Resource": "arn:aws:s3:us-east-1::bucket"},
        "Resource arn:aws:s3:us-east-1::bucket can not contain region information.",
    ),
    ({"Resource": "arn:aws:s3::bucket"}, LEGACY),
    ({"Resource": "arn:aws::fdsasf"}, LEGACY),
    ({"Resource": "arn:aws::::bucket"}, LEGACY),
]


@pytest.mark.parametrize(("element", "message"), IAM_SAYS)
def test_iam_s_own_sentence_comes_first(element: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedPolicyDocument) as caught:
        policy.parse(document({**ALLOW, **element}), IDENTITY)
    assert re.fullmatch(message, caught.value.message), caught.value.message


@pytest.mark.parametrize(
    ("dialect", "text", "message"),
    [
        (IDENTITY, "This is not a json document", SYNTAX),
        (IDENTITY, '{"Version":"2012-10-17"}', SYNTAX),
        (IDENTITY, '{"Version":"2012-10-17","Statement":[]}', SYNTAX),
        (IDENTITY, '{"Version":"2012-10-17","Statement":["afd"]}', SYNTAX),
        (IDENTITY, document(ALLOW, version="2013-10-17"), SYNTAX),
        # all statements are looked at for one thing before the next
        (IDENTITY, document({"Effect": "Deny"}, ALLOW), re.escape(ACTIONS)),
        (
            IDENTITY,
            document({**ALLOW, "Sid": "a"}, {"Sid": "a", "Effect": "Allow"}),
            r"Statement IDs \(SID\) in a single policy must be unique\.",
        ),
        (TRUST, "not valid json", r"This policy contains invalid Json \(.*\)"),
    ],
)
def test_iam_s_own_sentence_for_a_document(dialect: Dialect, text: str, message: str) -> None:
    with pytest.raises(MalformedPolicyDocument) as caught:
        policy.parse(text, dialect)
    assert re.fullmatch(message, caught.value.message), caught.value.message


# As above: what IAM takes, though it names nothing there is.
@pytest.mark.parametrize(
    "element",
    [
        {"Action": "iam: asdf safdsf af "},
        {"Action": "s3-s:ListBucket"},
        {"Resource": "arn:aws:s33:::bucket"},
        {"Resource": "arn:aws:fdsasf"},
        {"Resource": "arn:aws:invalid-service:us-east-1::bucket"},
        {"Condition": {"x": {}, "y": {}}},
        {"Condition": {"DateGreaterThan": {"a": []}}},
        {"Condition": {"StringEquals": {"a": "x"}}},
    ],
)
def test_what_names_nothing_matches_nothing(element: dict[str, Any]) -> None:
    for name in ("arn:aws:s3:::bucket", "arn:aws:iot:eu-west-1:123456789012:thing/a"):
        decision = identity({**ALLOW, **element}).evaluate("iot:Connect", name)
        assert decision.allowed is (element == {"Condition": {"x": {}, "y": {}}})


@pytest.mark.parametrize("values", [{}, {"aws:SourceIp": ("x",)}])
def test_a_condition_key_without_a_vendor_is_always_absent(values: dict[str, Any]) -> None:
    """As is any key nobody fills (IAM User Guide, "...IfExists condition operators")."""
    for operator, holds in (("StringEquals", False), ("StringEqualsIfExists", True)):
        policies = identity({**ALLOW, "Condition": {operator: {"a": "x"}}})
        assert policies.evaluate("iot:X", "arn:x", values).allowed is holds


def test_statement_ids_are_unique() -> None:
    with pytest.raises(MalformedPolicyDocument, match="in a single policy must be unique"):
        policy.parse(document({**ALLOW, "Sid": "a"}, {**ALLOW, "Sid": "a"}), IDENTITY)


def test_the_caller_may_bound_the_size() -> None:
    text = document(ALLOW)
    size = policy.characters(text)
    policy.parse(text, IDENTITY, max_characters=size)
    with pytest.raises(MalformedPolicyDocument, match=f"it has {size} characters"):
        policy.parse(text, IDENTITY, max_characters=size - 1)
