"""Registry events as subscribers get them: paho-mqtt and awsiotsdk on one side, boto3 on the other.

Sources: AWS IoT Developer Guide, "Event messages" (off until switched on; a policy is needed to
get them), "Registry events" (topics, payloads) and "Reserved topics" (clients subscribe to
``$aws/events/...`` and never publish there).
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awscrt import mqtt

from tests.integration.crt_device import WITHIN, crt_311
from tests.integration.fleet import Fleet, Identity, arn, create_identity, policy_document
from tests.integration.paho_device import PahoDevice, onboard
from tests.integration.server import Server, http

TYPES = (
    "THING",
    "THING_TYPE",
    "THING_TYPE_ASSOCIATION",
    "THING_GROUP",
    "THING_GROUP_MEMBERSHIP",
    "THING_GROUP_HIERARCHY",
)
FILTERS = tuple(
    f"$aws/events/{kind}/#"
    for kind in (
        *("thing", "thingType", "thingTypeAssociation"),
        *("thingGroup", "thingGroupMembership", "thingGroupHierarchy"),
    )
)


def switch(iot: Any, on: bool, *event_types: str) -> None:
    wanted = {each: {"Enabled": on} for each in event_types or TYPES}
    iot.update_event_configurations(eventConfigurations=wanted)


@pytest.fixture
def events_on(iot: Any) -> Iterator[None]:
    switch(iot, True)
    yield
    switch(iot, False)


@pytest.fixture
def subscriber(server: Server, operator: Identity, name: str) -> Iterator[PahoDevice]:
    """A client that may hear everything, and does of events and of what is below `name`."""
    with PahoDevice(server, operator, f"{name}-subscriber") as device:
        assert device.subscribe(*FILTERS, f"{name}/#") == [1] * 7
        yield device


def nothing_came(device: PahoDevice, name: str) -> None:
    """Messages keep their order, so what had been published would be there before this one."""
    device.publish(f"{name}/end", b"")
    assert device.message().topic == f"{name}/end"


def test_events_of_every_kind_arrive_in_order(
    events_on: None, iot: Any, subscriber: PahoDevice, name: str
) -> None:
    kind, root, leaf, thing = (f"{name}-{what}" for what in ("kind", "root", "leaf", "thing"))

    def heard() -> tuple[str, dict[str, Any]]:
        message = subscriber.message()
        assert (message.qos, message.retain) == (1, False)
        payload: dict[str, Any] = json.loads(message.payload)
        assert message.topic.endswith("/" + payload["operation"].lower())
        return message.topic.removeprefix("$aws/events/"), payload

    def topics(count: int) -> list[str]:
        return [heard()[0] for _ in range(count)]

    iot.create_thing_type(thingTypeName=kind)
    assert topics(1) == [f"thingType/{kind}/created"]
    root_id = iot.create_thing_group(thingGroupName=root)["thingGroupId"]
    assert topics(1) == [f"thingGroup/{root}/created"]
    leaf_id = iot.create_thing_group(thingGroupName=leaf, parentGroupName=root)["thingGroupId"]
    topic, payload = heard()
    assert topic == f"thingGroup/{leaf}/created"
    assert payload["rootToParentThingGroups"] == [
        {"groupArn": arn(f"thinggroup/{root}"), "groupId": root_id}
    ]
    topic, payload = heard()
    assert topic == f"thingGroupHierarchy/thingGroup/{root}/childThingGroup/{leaf}/added"
    assert (payload["thingGroupId"], payload["childGroupId"]) == (root_id, leaf_id)

    thing_id = iot.create_thing(
        thingName=thing, thingTypeName=kind, attributePayload={"attributes": {"a": "1"}}
    )["thingId"]
    topic, payload = heard()
    # whoever hears of it finds it in the registry
    assert iot.describe_thing(thingName=thing)["thingId"] == payload["thingId"] == thing_id
    assert topic == f"thing/{thing}/created"
    assert payload["attributes"] == {"a": "1"}
    assert topics(1) == [f"thingTypeAssociation/thing/{thing}/thingType/{kind}/added"]

    iot.add_thing_to_thing_group(thingName=thing, thingGroupName=leaf)
    topic, payload = heard()
    assert topic == f"thingGroupMembership/thingGroup/{leaf}/thing/{thing}/added"
    assert (payload["groupId"], payload["thingArn"]) == (leaf_id, arn(f"thing/{thing}"))
    iot.update_thing(thingName=thing, removeThingType=True)
    assert topics(2) == [
        f"thing/{thing}/updated",
        f"thingTypeAssociation/thing/{thing}/thingType/{kind}/removed",
    ]
    iot.update_thing_group(thingGroupName=leaf, thingGroupProperties={"thingGroupDescription": "d"})
    assert topics(1) == [f"thingGroup/{leaf}/updated"]
    iot.deprecate_thing_type(thingTypeName=kind)
    topic, payload = heard()
    assert (topic, payload["isDeprecated"]) == (f"thingType/{kind}/updated", True)
    iot.delete_thing(thingName=thing)
    iot.delete_thing_group(thingGroupName=leaf)
    assert topics(4) == [
        f"thingGroupMembership/thingGroup/{leaf}/thing/{thing}/removed",
        f"thing/{thing}/deleted",
        f"thingGroupHierarchy/thingGroup/{root}/childThingGroup/{leaf}/removed",
        f"thingGroup/{leaf}/deleted",
    ]
    nothing_came(subscriber, name)


def test_a_device_that_registers_is_an_event(
    events_on: None, server: Server, fleet: Fleet, subscriber: PahoDevice, tmp_path: Path, name: str
) -> None:
    onboard(server, fleet, "1", tmp_path / "device")
    message = subscriber.message()
    assert message.topic == f"$aws/events/thing/{fleet.thing('1')}/created"
    assert json.loads(message.payload)["thingName"] == fleet.thing("1")
    nothing_came(subscriber, name)


def test_nothing_arrives_of_what_is_switched_off(
    iot: Any, subscriber: PahoDevice, name: str
) -> None:
    described = iot.describe_event_configurations()["eventConfigurations"]
    assert not any(each["Enabled"] for each in described.values())
    iot.create_thing(thingName=f"{name}-off")
    nothing_came(subscriber, name)
    switch(iot, True, "THING_GROUP")
    iot.create_thing(thingName=f"{name}-still-off")
    iot.create_thing_group(thingGroupName=name)
    switch(iot, False, "THING_GROUP")
    iot.create_thing_group(thingGroupName=f"{name}-off")
    assert subscriber.message().topic == f"$aws/events/thingGroup/{name}/created"
    nothing_came(subscriber, name)


def test_a_refused_change_is_no_event(
    events_on: None, iot: Any, subscriber: PahoDevice, name: str
) -> None:
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.create_thing(thingName=name, thingTypeName=f"{name}-none")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.add_thing_to_thing_group(thingName=name, thingGroupName=f"{name}-none")
    nothing_came(subscriber, name)


@pytest.mark.parametrize("version", [4, 5])
def test_a_policy_is_needed_to_subscribe_and_to_receive(
    events_on: None, server: Server, iot: Any, name: str, tmp_path: Path, version: int
) -> None:
    """As in the guide: iot:Subscribe and iot:Receive on the events' topics."""
    events = "$aws/events/thing/*"
    iot.create_policy(
        policyName=f"{name}-narrow",
        policyDocument=policy_document(
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
            {
                "Effect": "Allow",
                "Action": "iot:Subscribe",
                "Resource": arn(f"topicfilter/{events}"),
            },
            {
                "Effect": "Allow",
                "Action": "iot:Receive",
                "Resource": [arn("topic/$aws/events/thing/*/deleted"), arn(f"topic/{name}/*")],
            },
            {
                "Effect": "Allow",
                "Action": ["iot:Subscribe", "iot:Publish"],
                "Resource": [arn(f"topicfilter/{name}/*"), arn(f"topic/{name}/*")],
            },
        ),
    )
    identity = create_identity(server, tmp_path, name, f"{name}-narrow")
    with PahoDevice(server, identity, f"{name}-narrow", version=version) as device:
        assert device.subscribe("$aws/events/thingGroup/#") == [0x80 if version == 4 else 0x87]
        assert device.subscribe("$aws/events/thing/#", f"{name}/#") == [1, 1]
        iot.create_thing(thingName=name)
        iot.delete_thing(thingName=name)
        assert device.message().topic == f"$aws/events/thing/{name}/deleted"
        nothing_came(device, name)


def test_wildcards_do_not_reach_events(
    events_on: None, server: Server, operator: Identity, iot: Any, name: str
) -> None:
    """MQTT 5.0 section 4.7.2: ``#`` and ``+/...`` match no topic that begins with ``$``."""
    with PahoDevice(server, operator, f"{name}-wild") as device:
        assert device.subscribe("#", "+/events/thing/#") == [1, 1]
        iot.create_thing(thingName=name)
        device.publish(f"{name}/end", b"")
        topics = [device.message().topic]
        while topics[-1] != f"{name}/end":
            topics.append(device.message().topic)
        assert not [topic for topic in topics if topic.startswith("$")]


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("topic", ["thing/{}/created", "{}", "thingGroup/{}/created"])
def test_clients_publish_no_events(
    server: Server, operator: Identity, subscriber: PahoDevice, name: str, version: int, topic: str
) -> None:
    forged = "$aws/events/" + topic.format(name)
    with PahoDevice(server, operator, f"{name}-forger", version=version) as device:
        assert device.publish(forged, b'{"eventType": "THING_EVENT"}') is None
        assert device.disconnected.is_set()
    nothing_came(subscriber, name)


def test_awss_own_sdk_hears_of_new_things(
    events_on: None, server: Server, operator: Identity, iot: Any, name: str
) -> None:
    heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
    with crt_311(server, operator, f"{name}-crt") as device:
        future, _ = device.transport.subscribe(
            topic="$aws/events/thing/+/created",
            qos=mqtt.QoS.AT_LEAST_ONCE,
            callback=lambda topic, payload, **_more: heard.put((topic, payload)),
        )
        assert future.result(WITHIN)["qos"] == mqtt.QoS.AT_LEAST_ONCE
        thing_id = iot.create_thing(thingName=name)["thingId"]
        topic, payload = heard.get(timeout=WITHIN)
    assert topic == f"$aws/events/thing/{name}/created"
    assert json.loads(payload)["thingId"] == thing_id


def test_what_is_switched_on_outlives_the_server_and_ends_with_the_registry(
    tmp_path: Path,
) -> None:
    everything = policy_document({"Effect": "Allow", "Action": "iot:*", "Resource": "*"})

    def hears(server: Server, thing: str) -> bool:
        server.iot.create_policy(policyName=thing, policyDocument=everything)
        identity = create_identity(server, tmp_path, thing, thing)
        with PahoDevice(server, identity, thing) as device:
            assert device.subscribe("$aws/events/thing/#", "end/#") == [1, 1]
            server.iot.create_thing(thingName=thing)
            device.publish("end/now", b"")
            return device.message().topic == f"$aws/events/thing/{thing}/created"

    with Server(tmp_path / "data", "--allow-reset") as server:
        switch(server.iot, True, "THING")
        server.terminate()
        server.start()
        assert hears(server, "before")
        assert http(f"{server.http_url}/_fleetgate/reset", method="POST").status == 200
        assert not hears(server, "after")
