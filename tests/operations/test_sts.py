"""STS: who calls, and temporary credentials."""

import json
from typing import Any

import pytest

from fleetgate.errors import (
    AccessDeniedException,
    ExpiredTokenException,
    InvalidParameterValue,
    MalformedPolicyDocument,
    NotImplementedException,
    PackedPolicyTooLarge,
    ServiceError,
    ValidationError,
)
from fleetgate.operations.caller import Caller
from fleetgate.operations.credentials import Found, Keyring
from tests.operations.conftest import START, Registry
from tests.operations.iam import ACCOUNT, TRUST, Iam, allow

HOUR = 3600
MAY = allow("sts:AssumeRole", "sts:TagSession")


@pytest.fixture
def iam(registry: Registry) -> Iam:
    return Iam(registry)


def trust(principal: str, *actions: str, **condition: Any) -> str:
    """A trust policy with one statement; conditions are operators with their keys."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": list(actions) or "sts:AssumeRole",
        "Condition": condition,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def assume(iam: Iam, caller: Caller | None, arn: str, **members: Any) -> dict[str, Any]:
    return iam.sts("AssumeRole", caller, RoleArn=arn, RoleSessionName="session", **members)


def signed_with(iam: Iam, credentials: dict[str, Any], at: float = START) -> Found | None:
    """What the HTTP door finds for a request with these credentials."""
    keys = Keyring(iam.registry.services, "root", "secret")
    return iam.registry.runner.run(
        keys.find(credentials["AccessKeyId"], credentials["SessionToken"], at)
    )


def caller_of(iam: Iam, answer: dict[str, Any]) -> Caller:
    found = signed_with(iam, answer["Credentials"])
    assert found is not None
    assert found.secret_access_key == answer["Credentials"]["SecretAccessKey"]
    return found.caller


def may(caller: Caller, action: str) -> bool:
    """By its own policies and those of its session."""
    assert caller.policies is not None
    decisions = [each.evaluate(action, "*") for each in (caller.policies, caller.session) if each]
    return all(each.allowed for each in decisions)


def test_who_calls(iam: Iam) -> None:
    assert iam.sts("GetCallerIdentity") == {
        "UserId": ACCOUNT,
        "Account": ACCOUNT,
        "Arn": f"arn:aws:iam::{ACCOUNT}:root",
    }
    ann = iam.user("ann")  # needs no permission
    assert iam.sts("GetCallerIdentity", ann) == {
        "UserId": ann.user_id,
        "Account": ACCOUNT,
        "Arn": ann.arn,
    }


# --- AssumeRole -----------------------------------------------------------------------------------


def test_a_role_is_assumed(iam: Iam) -> None:
    ann = iam.user("ann", MAY)
    arn = iam.role("r", trust(ACCOUNT), Path="/p/")
    document = allow("iot:CreateThing", "iam:GetUser")
    iam("PutRolePolicy", RoleName="r", PolicyName="p", PolicyDocument=document)
    answer = assume(iam, ann, arn)
    role_id = iam("GetRole", RoleName="r")["Role"]["RoleId"]
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/r/session"
    assert answer["AssumedRoleUser"] == {"AssumedRoleId": f"{role_id}:session", "Arn": session}
    assert answer["Credentials"]["AccessKeyId"].startswith("ASIA")
    assert answer["Credentials"]["Expiration"] == START + HOUR
    assert answer["PackedPolicySize"] is None
    caller = caller_of(iam, answer)
    assert iam.sts("GetCallerIdentity", caller)["Arn"] == session
    assert may(caller, "iot:CreateThing")
    assert not may(caller, "iot:DeleteThing")
    with pytest.raises(ExpiredTokenException):
        signed_with(iam, answer["Credentials"], START + HOUR)
    with pytest.raises(ValidationError, match="Must specify userName"):
        iam("GetUser", caller)


@pytest.mark.parametrize(
    ("rights", "trusted", "allowed"),
    [
        # IAM User Guide, "Policy evaluation logic": in one account, a trust policy that names the
        # account leaves it to the caller's policies, one that names the caller grants it
        (MAY, ACCOUNT, True),
        (MAY, f"arn:aws:iam::{ACCOUNT}:root", True),
        (MAY, f"arn:aws:iam::{ACCOUNT}:user/ann", True),
        (allow("iot:*"), f"arn:aws:iam::{ACCOUNT}:user/ann", True),
        (allow("iot:*"), ACCOUNT, False),
        (allow("sts:*", effect="Deny"), f"arn:aws:iam::{ACCOUNT}:user/ann", False),
        (MAY, f"arn:aws:iam::{ACCOUNT}:user/bob", False),
        (MAY, "210987654321", False),
    ],
)
def test_both_the_role_and_the_caller_have_a_say(
    iam: Iam, rights: str, trusted: str, allowed: bool
) -> None:
    ann = iam.user("ann", rights)
    iam.user("bob")
    arn = iam.role("r", trust(trusted))
    if allowed:
        assert assume(iam, ann, arn)["Credentials"]
    else:
        with pytest.raises(AccessDeniedException, match=r"ann is not authorized to perform: sts:A"):
            assume(iam, ann, arn)


def test_a_role_for_a_service_is_not_for_users(iam: Iam) -> None:
    with pytest.raises(AccessDeniedException, match="is not authorized to perform: sts:Assume"):
        assume(iam, iam.user("ann", MAY), iam.role("r", TRUST))


@pytest.mark.parametrize(
    "arn",
    [
        f"arn:aws:iam::{ACCOUNT}:role/nothing",
        f"arn:aws:iam::{ACCOUNT}:role/other/path/r",
        "arn:aws:iam::210987654321:role/r",
        "arn:aws:iot:eu-west-1:210987654321:thing/r",
    ],
)
def test_a_role_that_is_not_there_is_refused_in_the_same_words(iam: Iam, arn: str) -> None:
    iam.role("r", trust(ACCOUNT))
    with pytest.raises(AccessDeniedException, match=f"sts:AssumeRole on resource: {arn}"):
        assume(iam, iam.user("ann", MAY), arn)


@pytest.mark.parametrize(
    "arn",
    [
        # localstack, test_sts.py, test_sts_invalid_parameters
        "nothing-valid-in-here",
        "arn::b:::something/test-role",
        "arn:a::::something/test-role",
        "arn:a:::something/test-role",
        "arn:a:a::aaaaaaaaaa:",
    ],
)
def test_what_is_no_arn_is_told_before_anybody_is_asked(iam: Iam, arn: str) -> None:
    """Recorded from AWS."""
    for caller in (None, iam.user("ann")):
        with pytest.raises(ValidationError) as caught:
            assume(iam, caller, arn)
        assert caught.value.message == f"{arn} is invalid"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        # localstack, test_sts.py, test_assume_role_tag_validation
        (
            {"Tags": [{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "2"}]},
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
        ),
        (
            {"Tags": [{"Key": "a", "Value": "1"}], "TransitiveTagKeys": ["b"]},
            "The specified transitive tag key must be included in the requested tags.",
        ),
    ],
)
def test_tags_at_odds_are_told(iam: Iam, members: dict[str, Any], message: str) -> None:
    """Recorded from AWS."""
    with pytest.raises(InvalidParameterValue) as caught:
        assume(iam, iam.user("ann"), f"arn:aws:iam::{ACCOUNT}:role/r", **members)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        # localstack, test_sts.py, test_sts_invalid_parameters and ..._session_name_too_long
        ("Session1:2", r"Member must satisfy regular expression pattern: [\w+=,.@-]*"),
        ("s" * 65, "Member must have length less than or equal to 64"),
    ],
)
def test_members_are_named_as_aws_names_them(iam: Iam, name: str, rule: str) -> None:
    """Recorded from AWS."""
    with pytest.raises(ValidationError) as caught:
        iam.sts("AssumeRole", RoleArn=f"arn:aws:iam::{ACCOUNT}:role/r", RoleSessionName=name)
    assert caught.value.message == (
        f"1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy "
        f"constraint: {rule}"
    )


def test_the_account_of_an_access_key(iam: Iam) -> None:
    """STS API Reference, "GetAccessKeyInfo"."""
    ann = iam.user("ann", allow("sts:GetAccessKeyInfo"))
    key = iam("CreateAccessKey", UserName="ann")["AccessKey"]["AccessKeyId"]
    assert iam.sts("GetAccessKeyInfo", ann, AccessKeyId=key) == {"Account": ACCOUNT}
    assert iam.sts("GetAccessKeyInfo", AccessKeyId=key) == {"Account": ACCOUNT}
    with pytest.raises(ValidationError, match=f"`AKIAIOSFODNN7EXAMPLE` is not one of .*{ACCOUNT}"):
        iam.sts("GetAccessKeyInfo", AccessKeyId="AKIAIOSFODNN7EXAMPLE")
    with pytest.raises(AccessDeniedException):
        iam.sts("GetAccessKeyInfo", iam.user("bob"), AccessKeyId=key)


def test_the_root_user_assumes_no_role(iam: Iam) -> None:
    with pytest.raises(AccessDeniedException, match="Roles may not be assumed by root accounts"):
        assume(iam, None, iam.role("r", trust(ACCOUNT)))


def test_conditions_of_the_trust_policy(iam: Iam) -> None:
    """IAM User Guide, "Available keys for AWS STS"."""
    condition: dict[str, Any] = {
        "StringEquals": {"sts:ExternalId": "ours", "aws:PrincipalTag/team": "fleet"},
        "StringLike": {"sts:RoleSessionName": "s*"},
        "DateLessThan": {"aws:CurrentTime": "2100-01-01T00:00:00Z"},
    }
    arn = iam.role("r", trust(ACCOUNT, **condition))
    ann = iam.user("ann", MAY)
    tagged = Caller(
        ann.account_id,
        ann.arn,
        ann.user_id,
        ann.access_key_id,
        ann.policies,
        values={"aws:PrincipalTag/team": ("fleet",)},
        principal_arn=ann.arn,
    )
    assert assume(iam, tagged, arn, ExternalId="ours")
    for caller, external_id in ((tagged, {}), (tagged, {"ExternalId": "theirs"}), (ann, {})):
        with pytest.raises(AccessDeniedException):
            assume(iam, caller, arn, **external_id)


def test_how_long_a_session_lasts(iam: Iam) -> None:
    ann = iam.user("ann", MAY)
    arn = iam.role("r", trust(ACCOUNT), MaxSessionDuration=7200)
    iam("PutRolePolicy", RoleName="r", PolicyName="p", PolicyDocument=MAY)
    answer = assume(iam, ann, arn, DurationSeconds=7200)
    assert answer["Credentials"]["Expiration"] == START + 7200
    with pytest.raises(ValidationError, match="exceeds the MaxSessionDuration set for this role"):
        assume(iam, ann, arn, DurationSeconds=7201)
    for seconds in (899, 43201):
        with pytest.raises(ValidationError, match="1 validation error"):
            assume(iam, ann, arn, DurationSeconds=seconds)
    chained = caller_of(iam, answer)
    assert assume(iam, chained, arn, DurationSeconds=3600)
    with pytest.raises(ValidationError, match=r"1 hour session limit .* role chaining"):
        assume(iam, chained, arn, DurationSeconds=3601)


def test_session_policies_bound_the_session(iam: Iam) -> None:
    ann = iam.user("ann", MAY)
    arn = iam.role("r", trust(ACCOUNT))
    document = allow("iot:CreateThing", "iot:DeleteThing", "iot:Publish")
    iam("PutRolePolicy", RoleName="r", PolicyName="p", PolicyDocument=document)
    answer = assume(
        iam,
        ann,
        arn,
        Policy=allow("iot:CreateThing", "iot:ListThings"),
        PolicyArns=[{"arn": "arn:aws:iam::aws:policy/AWSIoTDataAccess"}],
    )
    assert answer["PackedPolicySize"] in range(1, 101)
    caller = caller_of(iam, answer)
    assert may(caller, "iot:CreateThing")
    assert may(caller, "iot:Publish")
    assert not may(caller, "iot:DeleteThing")  # not of the session
    assert not may(caller, "iot:ListThings")  # not of the role


def test_a_session_policy_may_be_one_of_the_account(iam: Iam) -> None:
    ann = iam.user("ann", MAY)
    arn = iam.role("r", trust(ACCOUNT))
    iam("PutRolePolicy", RoleName="r", PolicyName="p", PolicyDocument=allow("iot:*"))
    own = iam("CreatePolicy", PolicyName="p", PolicyDocument=allow("iot:A"))["Policy"]["Arn"]
    iam("CreatePolicyVersion", PolicyArn=own, PolicyDocument=allow("iot:B"), SetAsDefault=True)
    caller = caller_of(iam, assume(iam, ann, arn, PolicyArns=[{"arn": own}]))
    assert may(caller, "iot:B")
    assert not may(caller, "iot:A")


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"Policy": "{"}, MalformedPolicyDocument),
        ({"Policy": TRUST}, MalformedPolicyDocument),
        ({"Policy": allow("iot:" + "a" * 2048)}, ValidationError),
        ({"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/No"}]}, MalformedPolicyDocument),
        (
            {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/IAMFullAccess"}] * 11},
            PackedPolicyTooLarge,
        ),
        (
            {"Tags": [{"Key": "a", "Value": ""}], "TransitiveTagKeys": ["a"]},
            ValidationError,
        ),
        ({"TokenCode": "123456"}, ValidationError),
        ({"SourceIdentity": "ann"}, ValidationError),
    ],
)
def test_what_a_session_can_not_have(
    iam: Iam, members: dict[str, Any], error: type[ServiceError]
) -> None:
    arn = iam.role("r", trust(ACCOUNT, "sts:AssumeRole", "sts:TagSession"))
    with pytest.raises(error):
        assume(iam, iam.user("ann", MAY), arn, **members)


def test_tags_of_a_session(iam: Iam) -> None:
    """IAM User Guide, "Pass session tags in AWS STS": sts:TagSession on both sides."""
    ann = iam.user("ann", MAY)
    tags = [{"Key": "team", "Value": "fleet"}]
    arn = iam.role("r", trust(ACCOUNT, "sts:AssumeRole", "sts:TagSession"))
    caller = caller_of(iam, assume(iam, ann, arn, Tags=tags))
    assert caller.values["aws:PrincipalTag/team"] == ("fleet",)
    plain = iam.role("plain", trust(ACCOUNT))
    with pytest.raises(AccessDeniedException, match="sts:TagSession"):
        assume(iam, ann, plain, Tags=tags)


def test_a_session_ends_with_its_role(iam: Iam) -> None:
    answer = assume(iam, iam.user("ann", MAY), iam.role("r", trust(ACCOUNT)))
    iam("DeleteRole", RoleName="r")
    iam.role("r", trust(ACCOUNT))
    assert signed_with(iam, answer["Credentials"]) is None


# --- GetSessionToken ------------------------------------------------------------------------------


def test_a_user_has_a_session_of_twelve_hours(iam: Iam) -> None:
    """STS API Reference, "GetSessionToken"."""
    ann = iam.user("ann")
    answer = iam.sts("GetSessionToken", ann)
    assert answer["Credentials"]["Expiration"] == START + 12 * HOUR
    caller = caller_of(iam, answer)
    assert (caller.arn, caller.user_id) == (ann.arn, ann.user_id)
    longest = iam.sts("GetSessionToken", ann, DurationSeconds=129600)
    assert longest["Credentials"]["Expiration"] == START + 129600
    with pytest.raises(AccessDeniedException, match="with session credentials"):
        iam.sts("GetSessionToken", caller)


@pytest.mark.parametrize("members", [{}, {"DurationSeconds": 7200}])
def test_the_root_user_has_one_of_an_hour(iam: Iam, members: dict[str, int]) -> None:
    """STS API Reference, "GetSessionToken", DurationSeconds."""
    answer = iam.sts("GetSessionToken", **members)
    assert answer["Credentials"]["Expiration"] == START + HOUR
    assert caller_of(iam, answer).is_root


def test_a_second_factor_is_refused(iam: Iam) -> None:
    with pytest.raises(ValidationError, match="`TokenCode` of GetSessionToken"):
        iam.sts("GetSessionToken", TokenCode="123456")


def test_federation_is_named_when_it_is_refused(iam: Iam) -> None:
    with pytest.raises(NotImplementedException, match="GetFederationToken is not offered"):
        iam.sts("GetFederationToken", Name="ann")
