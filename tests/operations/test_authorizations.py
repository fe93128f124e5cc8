"""GetEffectivePolicies and TestAuthorization.

Sources: AWS IoT API Reference, GetEffectivePolicies and TestAuthorization; AWS CLI reference,
`test-authorization`, example.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from fleetgate.operations.admission import connection_policies
from fleetgate.operations.identity import Identity, Peer
from fleetgate.pki import pem
from tests.operations.conftest import START, Registry, fresh


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def statement(effect: str = "Allow", **others: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "iot:*", "Resource": "*", **others}


@pytest.fixture
def fleet(registry: Registry) -> dict[str, Any]:
    """A certificate on the thing `lamp` in group `child` below `root`, each with a policy."""
    made = registry.certificate(set_as_active=True)
    arn = made["certificateArn"]
    registry.call("CreateThing", thing_name="lamp")
    registry.call("CreateThing", thing_name="stray")
    registry.call("CreateThingGroup", thing_group_name="root")
    registry.call("CreateThingGroup", thing_group_name="child", parent_group_name="root")
    for thing in ("lamp", "stray"):
        registry.call("AddThingToThingGroup", thing_group_name="child", thing_name=thing)
    registry.call("AttachThingPrincipal", thing_name="lamp", principal=arn)
    own = statement(Resource=registry.arn("client/${iot:Connection.Thing.ThingName}"))
    publish = statement(Action="iot:Publish", Resource=registry.arn("topic/a/*"))
    secret = statement("Deny", Resource=registry.arn("topic/a/secret"))
    for name, target, each in (
        ("own", arn, own),
        ("publish", registry.arn("thinggroup/child"), publish),
        ("secret", registry.arn("thinggroup/root"), secret),
    ):
        registry.call("CreatePolicy", policy_name=name, policy_document=document(each))
        registry.call("AttachPolicy", policy_name=name, target=target)
    return made


def effective(registry: Registry, **params: Any) -> list[str]:
    found = registry.call("GetEffectivePolicies", **params)["effectivePolicies"]
    for each in found:
        assert each["policyArn"] == registry.arn(f"policy/{each['policyName']}")
        policy = registry.call("GetPolicy", policy_name=each["policyName"])
        assert each["policyDocument"] == policy["policyDocument"]
    return [each["policyName"] for each in found]


def test_effective_policies(registry: Registry, fleet: dict[str, Any]) -> None:
    arn = fleet["certificateArn"]
    assert effective(registry, principal=arn) == ["own"]
    assert effective(registry, principal=arn, thing_name="lamp") == ["own", "publish", "secret"]
    assert effective(registry, principal=arn, thing_name="stray") == ["own"]
    assert effective(registry, thing_name="lamp") == ["publish", "secret"]
    child, root = registry.arn("thinggroup/child"), registry.arn("thinggroup/root")
    assert effective(registry, principal=child) == ["publish", "secret"]
    assert effective(registry, principal=root) == ["secret"]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({}, InvalidRequestException, "`principal` or `thingName` must be given"),
        ({"thing_name": "none"}, ResourceNotFoundException, "none"),
        ({"principal": "CERT/" + "0" * 64}, ResourceNotFoundException, "Certificate not found"),
        ({"principal": "CERT"}, InvalidRequestException, "is not the ARN of"),
        ({"principal": "us-east-1:" + "0" * 8}, InvalidRequestException, "Invalid Target"),
        ({"cognito_identity_pool_id": "p"}, InvalidRequestException, "no Cognito identities"),
    ],
)
def test_effective_policies_of_nothing(
    registry: Registry, params: dict[str, str], error: type[Exception], message: str
) -> None:
    given = {name: value.replace("CERT", registry.arn("cert")) for name, value in params.items()}
    with pytest.raises(error, match=message):
        registry.call("GetEffectivePolicies", **given)


def result_of(registry: Registry, action: str, *resources: str, **params: Any) -> dict[str, Any]:
    info = {"actionType": action, "resources": [registry.arn(each) for each in resources]}
    answer = registry.call("TestAuthorization", auth_infos=[info], **params)
    (result,) = answer["authResults"]
    assert result["authInfo"] == info
    return dict(result)


def names(listed: dict[str, Any]) -> list[str]:
    return [each["policyName"] for each in listed["policies"]]


# action, resources, client id: decision, allowing, silent and denying policies
RESULTS: list[tuple[str, tuple[str, ...], str, str, str, str, str]] = [
    ("CONNECT", ("client/lamp",), "lamp", "ALLOWED", "own", "publish secret", ""),
    ("CONNECT", ("client/x",), "lamp", "IMPLICIT_DENY", "", "own publish secret", ""),
    ("CONNECT", ("client/lamp",), "x", "IMPLICIT_DENY", "", "own", ""),
    ("PUBLISH", ("topic/a/b",), "lamp", "ALLOWED", "publish", "own secret", ""),
    ("PUBLISH", ("topic/a/secret",), "lamp", "EXPLICIT_DENY", "publish", "own", "secret"),
    ("PUBLISH", ("topic/a/b", "topic/a/c"), "lamp", "ALLOWED", "publish", "own secret", ""),
    ("PUBLISH", ("topic/a/b", "topic/c"), "lamp", "IMPLICIT_DENY", "publish", "own secret", ""),
    ("PUBLISH", ("topic/c", "topic/a/secret"), "lamp", "EXPLICIT_DENY", "publish", "own", "secret"),
    ("SUBSCRIBE", ("topicfilter/a/b",), "lamp", "IMPLICIT_DENY", "", "own publish secret", ""),
    ("RECEIVE", ("topic/a/secret",), "lamp", "EXPLICIT_DENY", "", "own publish", "secret"),
    ("PUBLISH", (), "lamp", "IMPLICIT_DENY", "", "own publish secret", ""),
]


@pytest.mark.parametrize(
    ("action", "resources", "client_id", "decision", "allowed", "silent", "denied"), RESULTS
)
def test_authorization_results(
    registry: Registry,
    fleet: dict[str, Any],
    action: str,
    resources: tuple[str, ...],
    client_id: str,
    decision: str,
    allowed: str,
    silent: str,
    denied: str,
) -> None:
    principal = fleet["certificateArn"]
    result = result_of(registry, action, *resources, principal=principal, client_id=client_id)
    assert result["authDecision"] == decision
    assert names(result["allowed"]) == allowed.split()
    assert names(result["denied"]["implicitDeny"]) == silent.split()
    assert names(result["denied"]["explicitDeny"]) == denied.split()


def test_policies_added_and_skipped(registry: Registry, fleet: dict[str, Any]) -> None:
    principal = fleet["certificateArn"]
    registry.call("CreatePolicy", policy_name="more", policy_document=document(statement()))
    asked = {"principal": principal, "client_id": "lamp"}
    result = result_of(registry, "PUBLISH", "topic/c", **asked, policy_names_to_add=["more"])
    assert result["authDecision"] == "ALLOWED"
    skipped = result_of(
        registry, "PUBLISH", "topic/a/secret", **asked, policy_names_to_skip=["secret"]
    )
    assert skipped["authDecision"] == "ALLOWED"
    alone = result_of(registry, "PUBLISH", "topic/c", policy_names_to_add=["more"])
    assert names(alone["allowed"]) == ["more"]
    nobody = result_of(registry, "PUBLISH", "topic/c")
    assert nobody["authDecision"] == "IMPLICIT_DENY"
    of_group = result_of(
        registry, "PUBLISH", "topic/a/b", principal=registry.arn("thinggroup/child")
    )
    assert of_group["authDecision"] == "ALLOWED"


def test_an_added_policy_sees_the_thing_and_the_certificate(
    registry: Registry, fleet: dict[str, Any]
) -> None:
    bare = registry.certificate()["certificateArn"]
    registry.call("AttachThingPrincipal", thing_name="lamp", principal=bare)
    payload = {"attributes": {"room": "kitchen"}}
    registry.call("UpdateThing", thing_name="lamp", attribute_payload=payload)
    topics = [
        registry.arn("topic/${iot:Connection.Thing.Attributes[room]}"),
        registry.arn("topic/of/${iot:Certificate.Subject.CommonName}"),
    ]
    added = document(statement(Resource=topics))
    registry.call("CreatePolicy", policy_name="more", policy_document=added)
    asked = {"principal": bare, "client_id": "lamp", "policy_names_to_add": ["more"]}
    for topic in ("topic/kitchen", "topic/of/device"):
        assert result_of(registry, "PUBLISH", topic, **asked)["authDecision"] == "ALLOWED"


def test_missing_context_values(registry: Registry, fleet: dict[str, Any]) -> None:
    conditions = {
        "IpAddress": {"aws:SourceIp": "192.0.2.0/24"},
        "StringEquals": {"iot:DomainName": "${iot:ClientId}"},
        "ForAllValues:StringEquals": {"iot:ConnectAttributes": []},
    }
    text = document(statement(Action="iot:Connect", Condition=conditions))
    registry.call("CreatePolicy", policy_name="more", policy_document=text)
    result = result_of(registry, "CONNECT", "client/lamp", policy_names_to_add=["more"])
    assert result["missingContextValues"] == ["aws:SourceIp", "iot:ClientId", "iot:DomainName"]
    known = result_of(
        registry, "CONNECT", "client/lamp", policy_names_to_add=["more"], client_id="lamp"
    )
    assert known["missingContextValues"] == ["aws:SourceIp", "iot:DomainName"]
    other = result_of(registry, "PUBLISH", "topic/a", policy_names_to_add=["more"])
    assert other["missingContextValues"] == []


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"auth_infos": [{"resources": []}]}, InvalidRequestException, "`actionType` must be"),
        ({"auth_infos": []}, InvalidRequestException, "authInfos"),
        ({"policy_names_to_add": ["none"]}, ResourceNotFoundException, "Policy not found"),
        ({"cognito_identity_pool_id": "p"}, InvalidRequestException, "no Cognito identities"),
        ({"principal": "anna"}, InvalidRequestException, "`anna` is not the ARN of"),
    ],
)
def test_authorization_of_nothing(
    registry: Registry, params: dict[str, Any], error: type[Exception], message: str
) -> None:
    infos = [{"actionType": "PUBLISH", "resources": ["x"]}]
    with pytest.raises(error, match=message):
        registry.call("TestAuthorization", **{"auth_infos": infos, **params})


RESOURCES = st.sampled_from(
    ["client/lamp", "client/other", "topic/a", "topic/lamp", "topicfilter/a"]
)
PATTERNS = st.sampled_from(
    ["client/*", "*/lamp", "topic/${iot:ClientId}", "topic/?", "${iot:Connection.Thing.ThingName}"]
)
STATEMENTS = st.builds(
    lambda effect, pattern, attached: (effect, pattern, attached),
    st.sampled_from(["Allow", "Allow", "Deny"]),
    PATTERNS,
    st.sampled_from(["true", "false", None]),
)
ACTIONS = {
    "CONNECT": "iot:Connect",
    "PUBLISH": "iot:Publish",
    "RECEIVE": "iot:Receive",
    "SUBSCRIBE": "iot:Subscribe",
}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(STATEMENTS, min_size=1, max_size=3),
    st.lists(st.tuples(st.sampled_from(sorted(ACTIONS)), RESOURCES), min_size=1, max_size=4),
    st.sampled_from(["lamp", "other"]),
)
def test_it_decides_as_for_a_connection(
    registry: Registry,
    statements: list[tuple[str, str, str | None]],
    asked: list[tuple[str, str]],
    client_id: str,
) -> None:
    made = registry.certificate()
    registry.call("CreateThing", thing_name="lamp")
    registry.call("AttachThingPrincipal", thing_name="lamp", principal=made["certificateArn"])
    written = [
        statement(
            effect,
            Resource=registry.arn(pattern),
            Condition=({"Bool": {"iot:Connection.Thing.IsAttached": attached}} if attached else {}),
        )
        for effect, pattern, attached in statements
    ]
    name = fresh("policy")
    registry.call("CreatePolicy", policy_name=name, policy_document=document(*written))
    registry.call("AttachPolicy", policy_name=name, target=made["certificateArn"])
    peer = Peer("192.0.2.1", "", pem.decode(made["certificatePem"], "CERTIFICATE"))
    identity = Identity(made["certificateId"], None, START * 2)
    connection = registry.runner.run(
        connection_policies(registry.services, identity, client_id, peer)
    )
    for action, resource in asked:
        result = result_of(
            registry, action, resource, principal=made["certificateArn"], client_id=client_id
        )
        decision = connection.evaluate(ACTIONS[action], registry.arn(resource))
        expected = "EXPLICIT_DENY" if decision.explicit_deny else "IMPLICIT_DENY"
        assert result["authDecision"] == ("ALLOWED" if decision.allowed else expected)
