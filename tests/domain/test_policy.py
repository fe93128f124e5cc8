from __future__ import annotations

import json
from typing import Any

import pytest

from fleetgate.domain import policy
from fleetgate.domain.policy import CONNECT, PUBLISH, RECEIVE, SUBSCRIBE, Decision, Policies
from fleetgate.errors import MalformedPolicyException

ARN = "arn:aws:iot:us-east-1:000000000000:"


def document(*statements: dict[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def statement(
    effect: object = "Allow", action: object = "iot:*", resource: object = "*", **others: object
) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **others}


def compiled(*statements: dict[str, Any], **variables: str) -> Policies:
    named = {name.replace("_", ":"): (value,) for name, value in variables.items()}
    return policy.compile_policies([("p", policy.parse(document(*statements)))], named)


def allows(pattern: str, resource: str, **variables: str) -> bool:
    return compiled(statement(resource=pattern), **variables).evaluate(PUBLISH, resource).allowed


# AWS IoT Developer Guide, "Provisioning devices that don't have device certificates using fleet
# provisioning": the sample policy of a claim certificate.
CLAIM = document(
    statement(action=["iot:Connect"], resource="*"),
    statement(
        action=["iot:Publish", "iot:Receive"],
        resource=[
            ARN + "topic/$aws/certificates/create/*",
            ARN + "topic/$aws/provisioning-templates/T/provision/*",
        ],
    ),
    statement(
        action="iot:Subscribe",
        resource=[
            ARN + "topicfilter/$aws/certificates/create/*",
            ARN + "topicfilter/$aws/provisioning-templates/T/provision/*",
        ],
    ),
)


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        (CONNECT, "client/anything", True),
        (PUBLISH, "topic/$aws/certificates/create/json", True),
        (PUBLISH, "topic/$aws/certificates/create-from-csr/json", False),
        (PUBLISH, "topic/$aws/provisioning-templates/T/provision/cbor", True),
        (PUBLISH, "topic/$aws/provisioning-templates/U/provision/cbor", False),
        (RECEIVE, "topic/$aws/certificates/create/json/accepted", True),
        (SUBSCRIBE, "topicfilter/$aws/certificates/create/json/accepted", True),
        (SUBSCRIBE, "topicfilter/$aws/certificates/create/#", True),
        (SUBSCRIBE, "topicfilter/#", False),
        (SUBSCRIBE, "topic/$aws/certificates/create/json/accepted", False),
        ("iot:RetainPublish", "topic/$aws/certificates/create/json", False),
    ],
)
def test_the_sample_claim_policy(action: str, resource: str, allowed: bool) -> None:
    policies = policy.compile_policies([("claim", policy.parse(CLAIM))], {})
    assert policies.evaluate(action, ARN + resource).allowed is allowed


# AWS IoT Developer Guide, "Using wildcard characters in MQTT and AWS IoT Core policies" and
# "AWS IoT Core policy variables".
@pytest.mark.parametrize(
    ("pattern", "resource", "allowed"),
    [
        ("*", "anything at all", True),
        (ARN + "topic/a", ARN + "topic/a", True),
        (ARN + "topic/a", ARN + "topic/A", False),
        (ARN + "topic/a", ARN + "topic/ab", False),
        (ARN + "topic/a*", ARN + "topic/a", True),
        (ARN + "topic/a*", ARN + "topic/a/b/c", True),
        (ARN + "topic/*/c", ARN + "topic/a/b/c", True),
        (ARN + "topic/a?c", ARN + "topic/a/c", True),
        (ARN + "topic/a?c", ARN + "topic/ac", False),
        (ARN + "topicfilter/a/#", ARN + "topicfilter/a/#", True),
        (ARN + "topicfilter/a/#", ARN + "topicfilter/a/b", False),
        (ARN + "topicfilter/a/+/c", ARN + "topicfilter/a/+/c", True),
        (ARN + "topicfilter/a/+/c", ARN + "topicfilter/a/b/c", False),
        (ARN + "topicfilter/a/*", ARN + "topicfilter/a/#", True),
        (ARN + "topic/a${*}", ARN + "topic/a*", True),
        (ARN + "topic/a${*}", ARN + "topic/ab", False),
        (ARN + "topic/a${?}", ARN + "topic/a?", True),
        (ARN + "topic/a${?}", ARN + "topic/ab", False),
        (ARN + "topic/${$}aws", ARN + "topic/$aws", True),
        (ARN + "topic/$aws/*", ARN + "topic/$aws/things", True),
        ("arn:aws:iot:*:*:topic/a", ARN + "topic/a", True),
        ("arn:*/a", ARN + "topic/a", True),
    ],
)
def test_patterns(pattern: str, resource: str, allowed: bool) -> None:
    assert allows(pattern, resource) is allowed


@pytest.mark.parametrize(
    ("client_id", "resource", "allowed"),
    [
        ("lamp", "client/lamp", True),
        ("lamp", "client/lamp2", False),
        ("a/b:c", "client/a/b:c", True),
        ("*", "client/lamp", False),
        ("*", "client/*", False),
        ("?", "client/?", False),
        ("a+b", "client/a+b", False),
        ("a#", "client/a#", False),
        ("$a", "client/$a", False),
        ("${iot:ClientId}", "client/${iot:ClientId}", False),
        ("", "client/", False),
        ("x" * 1024, "client/" + "x" * 1024, True),
        ("x" * 1025, "client/" + "x" * 1025, False),
    ],
)
def test_a_variable_stands_for_its_value_or_for_nothing(
    client_id: str, resource: str, allowed: bool
) -> None:
    pattern = ARN + "client/${iot:ClientId}"
    assert allows(pattern, ARN + resource, iot_ClientId=client_id) is allowed


def test_an_unknown_variable_matches_nothing_but_other_resources_still_do() -> None:
    policies = compiled(statement(resource=[ARN + "topic/${iot:Nothing}*", ARN + "topic/b"]))
    assert not policies.evaluate(PUBLISH, ARN + "topic/a").allowed
    assert not policies.evaluate(PUBLISH, ARN + "topic/${iot:Nothing}").allowed
    assert policies.evaluate(PUBLISH, ARN + "topic/b").allowed


def test_the_variables_of_a_document_are_known() -> None:
    resources = [ARN + "topic/${iot:ClientId}/${iot:Connection.Thing.Attributes[a]}", "*${*}"]
    parsed = policy.parse(document(statement(resource=resources)))
    assert parsed.variables == {"iot:ClientId", "iot:Connection.Thing.Attributes[a]"}


# IAM User Guide, "Version": policy variables need 2012-10-17, before they are literal text.
def test_the_older_version_has_no_variables() -> None:
    text = document(statement(resource=ARN + "client/${iot:ClientId}"), version="2008-10-17")
    policies = policy.compile_policies([("p", policy.parse(text))], {"iot:ClientId": ("a",)})
    assert not policies.evaluate(CONNECT, ARN + "client/a").allowed
    assert policies.evaluate(CONNECT, ARN + "client/${iot:ClientId}").allowed


def test_what_an_allow_excepts_by_an_unknown_variable_allows_nothing() -> None:
    excepting = {"Effect": "Allow", "Action": "*", "NotResource": ARN + "topic/${iot:ClientId}"}
    assert not compiled(excepting).evaluate(PUBLISH, ARN + "topic/a").allowed
    assert not compiled(excepting, iot_ClientId="*").evaluate(PUBLISH, ARN + "topic/a").allowed
    assert compiled(excepting, iot_ClientId="b").evaluate(PUBLISH, ARN + "topic/a").allowed
    assert not compiled(excepting, iot_ClientId="a").evaluate(PUBLISH, ARN + "topic/a").allowed


def test_what_a_deny_excepts_by_an_unknown_variable_is_denied() -> None:
    excepting = {"Effect": "Deny", "Action": "*", "NotResource": ARN + "topic/${iot:ClientId}"}
    assert not compiled(statement(), excepting).evaluate(PUBLISH, ARN + "topic/a").allowed
    known = compiled(statement(), excepting, iot_ClientId="a")
    assert known.evaluate(PUBLISH, ARN + "topic/a").allowed
    assert not known.evaluate(PUBLISH, ARN + "topic/b").allowed


# IAM User Guide, "IAM JSON policy elements: Action", "NotAction".
@pytest.mark.parametrize(
    ("element", "action", "allowed"),
    [
        ({"Action": "iot:publish"}, "iot:Publish", True),
        ({"Action": "IOT:PUBLISH"}, "iot:Publish", True),
        ({"Action": "iot:Pub*"}, "iot:Publish", True),
        ({"Action": "iot:*"}, "iot:Publish", True),
        ({"Action": "*"}, "iot:Publish", True),
        ({"Action": "iot:?ublish"}, "iot:Publish", True),
        ({"Action": ["iot:Connect", "iot:Receive"]}, "iot:Publish", False),
        ({"Action": "greengrass:*"}, "iot:Publish", False),
        ({"NotAction": "iot:Connect"}, "iot:Publish", True),
        ({"NotAction": ["iot:Connect", "iot:Pub*"]}, "iot:Publish", False),
    ],
)
def test_actions(element: dict[str, Any], action: str, allowed: bool) -> None:
    policies = compiled({"Effect": "Allow", "Resource": "*", **element})
    assert policies.evaluate(action, ARN + "topic/a").allowed is allowed


def test_a_decision_names_policy_and_statement() -> None:
    policies = compiled(
        statement(action="iot:Connect", resource=ARN + "client/a"),
        statement("Deny", "iot:Connect", ARN + "client/b*", Sid="Deny1"),
    )
    assert policies.evaluate(CONNECT, ARN + "client/a") == Decision(
        True, "p", "0", "statement `0` of policy `p` allows iot:Connect"
    )
    assert policies.evaluate(CONNECT, ARN + "client/b1") == Decision(
        False,
        "p",
        "Deny1",
        f"statement `Deny1` of policy `p` denies iot:Connect on `{ARN}client/b1`",
    )
    assert policies.evaluate(PUBLISH, ARN + "topic/a") == Decision(
        False, None, None, f"no statement allows iot:Publish on `{ARN}topic/a`"
    )


def test_a_decision_names_the_statement_that_fits() -> None:
    policies = compiled(
        *[statement(resource=f"{ARN}topic/{name}/*", Sid=name.upper()) for name in "abc"]
    )
    for name in "abc":
        assert policies.evaluate(PUBLISH, f"{ARN}topic/{name}/x").statement == name.upper()


def test_values_of_a_request_may_be_bound_for_several_questions() -> None:
    text = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "iot:*", "Resource": "arn:aws:iot:r:a:t/${k:x}?"},
                {"Effect": "Allow", "Action": "iot:Get*", "Resource": "*"},
                {
                    "Effect": "Deny",
                    "Action": "iot:*",
                    "Resource": "*",
                    "Condition": {"StringEquals": {"k:y": "${k:x}"}},
                },
            ],
        }
    )
    policies = policy.compile_policies([("p", policy.parse(text))], {"k:x": ("a",)})
    asked = [("iot:Publish", "a1"), ("iot:Publish", "b1"), ("iot:GetThing", "c"), ("iot:Get", "a")]
    for values in ({}, {"k:z": ("b",)}, {"K:X": ("b",)}, {"k:x": ("b",), "k:y": ("b",)}):
        bound = policies.under(values)
        for later in ({}, {"k:y": ("a",)}, {"k:x": ("c",)}):
            for action, rest in asked:
                arn = f"arn:aws:iot:r:a:t/{rest}"
                # later values take the place of earlier ones of the same name
                given = {key.lower(): value for key, value in {**values, **later}.items()}
                assert bound.evaluate(action, arn, later) == policies.evaluate(action, arn, given)
    assert policies.under({}) is policies
    assert policies.under({"k:z": ("b",)}) is policies


def test_what_policies_look_at_is_known() -> None:
    text = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Action": "iot:*",
                "Resource": "*",
                "Condition": {"StringEquals": {"AWS:ResourceTag/Env": "prod"}},
            },
        }
    )
    policies = policy.compile_policies([("p", policy.parse(text))], {})
    assert policies.mentions("aws:ResourceTag/")
    assert policies.mentions("")
    assert not policies.mentions("aws:RequestTag/")
    assert not policy.compile_policies([], {}).mentions("")


def test_no_policy_allows_nothing() -> None:
    assert not policy.compile_policies([], {}).evaluate(CONNECT, ARN + "client/a").allowed


MALFORMED: list[tuple[object, str]] = [
    ([], "must be a JSON object"),
    ({}, "`Version` is missing"),
    ({"Version": "2012-10-18", "Statement": []}, "Version: .*`2012-10-18`"),
    ({"Version": ["2012-10-17"], "Statement": []}, "Version"),
    ({"Version": "2012-10-17"}, "`Statement` is missing"),
    ({"Version": "2012-10-17", "Statement": []}, "Statement"),
    ({"Version": "2012-10-17", "Statement": ["x"]}, r"Statement\[0\]: it must be a JSON object"),
    ({"Version": "2012-10-17", "Statement": [statement()], "Extra": 1}, "unknown element `Extra`"),
    ({"Version": "2012-10-17", "Statement": [statement()], "Id": 1}, "Id"),
]
MALFORMED_STATEMENTS: list[tuple[dict[str, Any], str]] = [
    (statement("allow"), r"Statement\[1\]\.Effect: .*`allow`"),
    (statement(["Allow"]), r"\.Effect"),
    ({"Action": "*", "Resource": "*"}, r"\.Effect.*`None`"),
    ({"Effect": "Allow", "Resource": "*"}, "exactly one of `Action` and `NotAction`"),
    ({"Effect": "Allow", "Action": "*"}, "exactly one of `Resource` and `NotResource`"),
    (statement(NotAction="*"), "exactly one of `Action`"),
    (statement(NotResource="*"), "exactly one of `Resource`"),
    (statement(action=[]), r"Statement\[1\]: exactly one of `Action` .* name something"),
    (statement(action=[1]), r"\.Action"),
    (statement(action="publish"), "`publish` is not an action"),
    (statement(action="iot:Publish "), "not an action"),
    (statement(resource={"Ref": "x"}), r"\.Resource: it must be a string or a list"),
    (statement(resource="topic/a"), "`topic/a` is not an ARN"),
    (statement(resource="topic/*"), "not an ARN"),
    (statement(resource=""), "not an ARN"),
    (statement(resource="arn:aws:iot:us-east-1:topic"), "not an ARN"),
    (statement(resource="arn:aws:iot:us-east-1:000000000000:"), "not an ARN"),
    (statement(resource=ARN + "topic/${iot:ClientId"), "not a variable"),
    (statement(resource=ARN + "topic/${}"), "not a variable"),
    (statement(Sid=1), r"\.Sid"),
    (statement(Principal="*"), "an IoT policy has no `Principal`"),
    (statement(Efect="Deny"), "unknown element `Efect`"),
]


@pytest.mark.parametrize(("value", "message"), MALFORMED)
def test_a_malformed_document_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(MalformedPolicyException, match=message):
        policy.parse(json.dumps(value))


@pytest.mark.parametrize(("value", "message"), MALFORMED_STATEMENTS)
def test_a_malformed_statement_is_refused_with_its_place(
    value: dict[str, Any], message: str
) -> None:
    with pytest.raises(MalformedPolicyException, match=message):
        policy.parse(document(statement(), value))


@pytest.mark.parametrize("text", ["", "{", '{"Version":"2012-10-17","Version":"2012-10-17"}'])
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    with pytest.raises(MalformedPolicyException, match=r"^Policy document is Malformed: "):
        policy.parse(text)


def test_one_statement_needs_no_list() -> None:
    text = json.dumps({"Version": "2012-10-17", "Id": "i", "Statement": statement()})
    assert policy.compile_policies([("p", policy.parse(text))], {}).evaluate(CONNECT, "x").allowed


# AWS IoT Core quotas: 2048 characters, not counting white space.
def test_the_size_of_a_document_does_not_count_white_space() -> None:
    text = document(statement(Sid=""))
    room = 2048 - len("".join(text.split()))
    fitting = document(statement(Sid="s" * room))
    policy.parse(fitting.replace(" ", " \n\t" * 100))
    with pytest.raises(MalformedPolicyException, match="2049 characters"):
        policy.parse(document(statement(Sid="s" * (room + 1))))
