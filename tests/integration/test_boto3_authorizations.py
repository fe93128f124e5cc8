"""GetEffectivePolicies and TestAuthorization through boto3, beside what a real device may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import Identity, arn, create_identity, policy_document
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.refusal import refusal
from tests.integration.server import Server

THING = "iot:Connection.Thing."


@pytest.fixture
def lamp(server: Server, name: str, tmp_path: Path) -> Identity:
    """A device on the thing `name`, in a room, under one policy for all devices."""
    iot = server.iot
    document = policy_document(
        {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": arn(f"client/${{{THING}ThingName}}"),
            "Condition": {
                "Bool": {f"{THING}IsAttached": "true"},
                "IpAddress": {"aws:SourceIp": ["127.0.0.1", "::1"]},
                "ForAllValues:StringNotEquals": {"iot:ConnectAttributes": "PersistentConnect"},
            },
        },
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": arn(f"topic/rooms/${{{THING}Attributes[room]}}/*"),
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": arn(f"topicfilter/rooms/${{{THING}Attributes[room]}}/*"),
        },
    )
    iot.create_policy(policyName=name, policyDocument=document)
    iot.create_thing(thingName=name, attributePayload={"attributes": {"room": "kitchen"}})
    identity = create_identity(server, tmp_path, name, name)
    iot.attach_thing_principal(thingName=name, principal=identity.arn)
    return identity


def test_what_is_told_is_what_happens(server: Server, lamp: Identity, name: str) -> None:
    iot = server.iot
    effective = iot.get_effective_policies(principal=lamp.arn, thingName=name)
    assert [each["policyName"] for each in effective["effectivePolicies"]] == [name]

    def decisions(client_id: str) -> list[tuple[str, list[str]]]:
        infos = [
            {"actionType": "CONNECT", "resources": [arn(f"client/{client_id}")]},
            {"actionType": "PUBLISH", "resources": [arn("topic/rooms/kitchen/light")]},
            {"actionType": "SUBSCRIBE", "resources": [arn("topicfilter/rooms/kitchen/#")]},
            {"actionType": "SUBSCRIBE", "resources": [arn("topicfilter/rooms/attic/#")]},
        ]
        answer: Any = iot.test_authorization(
            principal=lamp.arn, clientId=client_id, authInfos=infos
        )
        return [
            (result["authDecision"], result["missingContextValues"])
            for result in answer["authResults"]
        ]

    assert decisions(name) == [
        ("IMPLICIT_DENY", ["aws:SourceIp"]),  # the address of a connection is not known here
        ("ALLOWED", []),
        ("ALLOWED", []),
        ("IMPLICIT_DENY", []),
    ]
    assert {decision for decision, _ in decisions(f"{name}-2")} == {"IMPLICIT_DENY"}

    with PahoDevice(server, lamp, name) as device:
        assert device.subscribe("rooms/kitchen/#") == [1]
        assert device.subscribe("rooms/attic/#") == [128]
        iot.update_thing(thingName=name, attributePayload={"attributes": {"room": "attic"}})
        assert device.subscribe("rooms/attic/#") == [1]
    for client_id, clean in ((f"{name}-2", True), (name, False)):
        with pytest.raises(Refused), PahoDevice(server, lamp, client_id, clean=clean):
            pass


def test_refusals_read_as_with_aws(server: Server) -> None:
    gone = refusal(server.iot.get_effective_policies, principal=arn(f"cert/{'0' * 64}"))
    assert gone.kind == (404, "ResourceNotFoundException")
    infos = [{"actionType": "CONNECT", "resources": ["*"]}]
    wrong = refusal(server.iot.test_authorization, principal="anna", authInfos=infos)
    assert wrong.kind == (400, "InvalidRequestException")
