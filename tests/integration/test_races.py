"""Two hundred devices want the same thing, or use the same token: one defined outcome each time.

After every race the whole registry is looked at (`races.look`): nothing is orphaned. What the
rules of a template do to a thing that exists is in the AWS IoT Core developer guide,
"Provisioning templates" ("Override settings"); what EXCLUSIVE_THING means in the API reference,
AttachThingPrincipal: the thing is the only one of the principal, not the other way round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import (
    ROLE,
    Fleet,
    create_fleet,
    policy_document,
    register_topic,
    template_body,
)
from tests.integration.paho_device import PahoDevice, decode
from tests.integration.races import (
    Seen,
    ask,
    connected,
    is_accepted,
    kinds,
    look,
    new_tokens,
    started,
)
from tests.integration.refusal import refusal
from tests.integration.server import Server

RACERS = 200
FAILED = (400, "ResourceRegistrationFailure")
USED = (400, "InvalidCertificateOwnershipToken")


@dataclass(frozen=True, slots=True)
class Arena:
    """A server with nobody else on it, and two hundred connected clients."""

    server: Server
    fleet: Fleet
    devices: list[PahoDevice]

    def template(self, name: str, body: dict[str, Any]) -> str:
        """A template of this name and body; the topic to register by it."""
        self.server.iot.create_provisioning_template(
            templateName=name,
            templateBody=json.dumps(body),
            provisioningRoleArn=ROLE,
            enabled=True,
        )
        statement = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
        policy = f"claim-{name}"
        self.server.iot.create_policy(policyName=policy, policyDocument=policy_document(statement))
        self.server.iot.attach_policy(policyName=policy, target=self.fleet.claim.arn)
        topic = register_topic(name)
        for device in self.devices:
            device.listen(topic)
        return topic

    def look(self) -> Seen:
        return look(self.server.iot, beside={self.fleet.claim.id})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def arena(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Arena]:
    tmp_path = tmp_path_factory.mktemp("arena")
    with started(tmp_path, request.param, request) as server:
        fleet = create_fleet(server, tmp_path, "racing")
        with connected(server, fleet, RACERS) as devices:
            yield Arena(server, fleet, devices)


def body(name: str, override: str | None = None, **changes: Any) -> dict[str, Any]:
    """A template for things whose attribute `mac` the device tells."""
    template: dict[str, Any] = json.loads(template_body(name, "racing-device"))
    thing = template["Resources"]["thing"]
    thing["Properties"]["AttributePayload"] = {"mac": {"Ref": "Mac"}}
    if override is not None:
        thing["OverrideSettings"] = {"AttributePayload": override}
    for resource, properties in changes.items():
        template["Resources"][resource]["Properties"] |= properties
    return template


def requests(tokens: list[str], serials: list[str], macs: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "certificateOwnershipToken": token,
            "parameters": {"SerialNumber": serial, "Mac": mac},
        }
        for token, serial, mac in zip(tokens, serials, macs, strict=True)
    ]


SAME = ["1"] * RACERS
OWN = [str(number) for number in range(RACERS)]


@pytest.mark.parametrize("exclusive", [False, True], ids=["shared", "exclusive"])
def test_replaced_devices_share_the_thing(arena: Arena, *, exclusive: bool) -> None:
    """All say the same of the thing: there is nothing to disagree about, and all are let in."""
    before = arena.look()
    name = "exclusive" if exclusive else "shared"
    kind = "EXCLUSIVE_THING" if exclusive else "NON_EXCLUSIVE_THING"
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": f"*{name}*"}],
    }
    template = body(name, certificate={"ThingPrincipalType": kind})
    # a policy that all of them would have to create
    template["Resources"]["policy"]["Properties"] = {"PolicyDocument": document}
    policies = len(arena.server.iot.list_policies(pageSize=250)["policies"])
    topic = arena.template(name, template)
    tokens = new_tokens(arena.devices)
    answers = ask(arena.devices, topic, requests(tokens, SAME, SAME))
    assert kinds(answers) == {}
    assert len({each.payload for each in answers}) == 1
    after = arena.look()
    assert set(after.things) - set(before.things) == {f"{name}-1"}
    assert len(after.things[f"{name}-1"]) == RACERS
    assert after.pending == before.pending
    found = arena.server.iot.list_thing_principals_v2(thingName=f"{name}-1", maxResults=250)
    assert {each["thingPrincipalType"] for each in found["thingPrincipalObjects"]} == {kind}
    assert arena.server.iot.describe_thing(thingName=f"{name}-1")["version"] == 1
    # that of the claim is the other one
    assert len(arena.server.iot.list_policies(pageSize=250)["policies"]) == policies + 2


@pytest.mark.parametrize("override", [None, "FAIL"])
def test_who_comes_first_has_the_thing(arena: Arena, override: str | None) -> None:
    """Each says something else of it: the first one's word stands, the others are refused."""
    before = arena.look()
    name = f"first-{override}"
    topic = arena.template(name, body(name, override))
    tokens = new_tokens(arena.devices)
    answers = ask(arena.devices, topic, requests(tokens, SAME, OWN))
    assert kinds(answers) == {FAILED: RACERS - 1}
    [winner] = [number for number, each in enumerate(answers) if is_accepted(each)]
    after = arena.look()
    assert len(after.things[f"{name}-1"]) == 1
    assert len(after.active - before.active) == 1
    assert len(after.pending - before.pending) == RACERS - 1
    thing = arena.server.iot.describe_thing(thingName=f"{name}-1")
    assert (thing["attributes"], thing["version"]) == ({"mac": str(winner)}, 1)
    # a loser's token is not used up: it may become another thing
    [again] = ask(arena.devices[:1], topic, requests([tokens[winner - 1]], ["2"], ["a"]))
    assert is_accepted(again), again.payload
    assert len(arena.look().things[f"{name}-2"]) == 1


@pytest.mark.parametrize("override", ["REPLACE", "MERGE", "DO_NOTHING"])
def test_a_template_may_let_all_of_them_in(arena: Arena, override: str) -> None:
    """The last one's word stands, or the first one's."""
    before = arena.look()
    name = f"all-{override}"
    topic = arena.template(name, body(name, override))
    tokens = new_tokens(arena.devices)
    answers = ask(arena.devices, topic, requests(tokens, SAME, OWN))
    assert kinds(answers) == {}
    after = arena.look()
    assert len(after.things[f"{name}-1"]) == RACERS
    assert after.pending == before.pending
    thing = arena.server.iot.describe_thing(thingName=f"{name}-1")
    assert thing["attributes"]["mac"] in OWN
    assert thing["version"] == (1 if override == "DO_NOTHING" else RACERS)


def test_one_token_on_two_hundred_connections_registers_once(arena: Arena) -> None:
    before = arena.look()
    topic = arena.template("once", body("once"))
    [token] = new_tokens(arena.devices[:1])
    answers = ask(arena.devices, topic, requests([token] * RACERS, SAME, SAME))
    assert kinds(answers) == {}
    assert len({each.payload for each in answers}) == 1
    assert decode(answers[0].payload, "json")["thingName"] == "once-1"
    after = arena.look()
    assert len(after.active - before.active) == 1
    assert len(after.things["once-1"]) == 1
    assert after.pending == before.pending
    assert arena.server.iot.describe_thing(thingName="once-1")["version"] == 1


def test_one_token_for_two_hundred_things_registers_one_of_them(arena: Arena) -> None:
    before = arena.look()
    topic = arena.template("one", body("one"))
    [token] = new_tokens(arena.devices[:1])
    answers = ask(arena.devices, topic, requests([token] * RACERS, OWN, SAME))
    assert kinds(answers) == {USED: RACERS - 1}
    [winner] = [number for number, each in enumerate(answers) if is_accepted(each)]
    after = arena.look()
    assert set(after.things) - set(before.things) == {f"one-{winner}"}
    assert len(after.active - before.active) == 1


LIFE = 4.0
FEW = 30


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_losers_certificates_are_swept(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    """AWS IoT Core developer guide, "Device provisioning MQTT API": a certificate that was not
    activated is deleted when its token ends."""
    env = {"FLEETGATE_OWNERSHIP_TOKEN_SECONDS": str(LIFE)}
    with started(tmp_path, database, request, **env) as server:
        fleet = create_fleet(server, tmp_path, "racing")
        with connected(server, fleet, FEW) as devices:
            arena = Arena(server, fleet, devices)
            topic = arena.template("swept", body("swept"))
            tokens = new_tokens(devices)
            given = requests(tokens, SAME[:FEW], OWN[:FEW])
            answers = ask(devices, topic, given)
            assert kinds(answers) == {FAILED: FEW - 1}
            [winner] = [number for number, each in enumerate(answers) if is_accepted(each)]
            [again] = ask(devices[:1], topic, [given[winner]])
            assert again.payload == answers[winner].payload
            assert len(arena.look().pending) == FEW - 1
            end = time.monotonic() + 3 * LIFE
            while arena.look().pending:
                assert time.monotonic() < end, "pending certificates are left"
                time.sleep(LIFE / 4)  # a look is some sixty requests
            # by now the token is worth nothing, used or not
            answers = ask(devices, topic, given)
            assert kinds(answers) == {USED: FEW}
        after = arena.look()
        assert list(after.things) == ["swept-1"]
        assert len(after.active) == 1
        gone = refusal(server.iot.describe_thing, thingName="swept-2")
        assert gone.kind == (404, "ResourceNotFoundException")
