"""Which registry events operations publish, in which order, and when they publish none.

Sources: AWS IoT Developer Guide, "Registry events" (what is published) and "Event messages" (off
until switched on). The payloads have tests of their own (tests/domain/test_events.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import pytest

from fleetgate.errors import ServiceError, ServiceUnavailableException
from fleetgate.operations.event_configurations import EVENT_TYPES, load_enabled_events
from fleetgate.store.engine import Store, Tx
from tests.operations.conftest import ALLOW, START, Registry, csr
from tests.operations.roles import add_provisioning_role, set_rights

P = ParamSpec("P")
T = TypeVar("T")
Message = tuple[str, dict[str, Any]]

CHANGES = [
    "THING",
    "THING_TYPE",
    "THING_TYPE_ASSOCIATION",
    "THING_GROUP",
    "THING_GROUP_MEMBERSHIP",
    "THING_GROUP_HIERARCHY",
]


class Heard:
    """What the services published since they were last asked."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __call__(self, topic: str, payload: bytes) -> None:
        self.messages.append((topic, json.loads(payload)))

    def take(self) -> list[Message]:
        taken, self.messages = self.messages, []
        return taken

    def topics(self) -> list[str]:
        """Their topics, below ``$aws/events/``."""
        return [topic.removeprefix("$aws/events/") for topic, _ in self.take()]


def switch(registry: Registry, *event_types: str, on: bool = True) -> None:
    wanted = {name: {"Enabled": on} for name in event_types}
    registry.call("UpdateEventConfigurations", event_configurations=wanted)


@pytest.fixture
def heard(registry: Registry) -> Heard:
    """Everything published, with every type switched on."""
    heard = Heard()
    registry.services.publish = heard
    switch(registry, *EVENT_TYPES)
    return heard


def refused(registry: Registry, operation: str, **params: Any) -> None:
    with pytest.raises(ServiceError):
        registry.call(operation, **params)


def group(registry: Registry, name: str, parent: str | None = None) -> dict[str, Any]:
    return registry.call("CreateThingGroup", thing_group_name=name, parent_group_name=parent)


# --- switched on and off -------------------------------------------------------------------------


def everything(registry: Registry, suffix: str) -> None:
    """One change of each kind."""
    thing, kind, root, leaf = (f"{name}{suffix}" for name in ("t", "k", "root", "leaf"))
    registry.call("CreateThingType", thing_type_name=kind)
    group(registry, root)
    group(registry, leaf, root)
    registry.call("CreateThing", thing_name=thing, thing_type_name=kind)
    registry.call("AddThingToThingGroup", thing_name=thing, thing_group_name=leaf)


OF_TYPE = {
    "THING": ["thing/t{0}/created"],
    "THING_TYPE": ["thingType/k{0}/created"],
    "THING_TYPE_ASSOCIATION": ["thingTypeAssociation/thing/t{0}/thingType/k{0}/added"],
    "THING_GROUP": ["thingGroup/root{0}/created", "thingGroup/leaf{0}/created"],
    "THING_GROUP_MEMBERSHIP": ["thingGroupMembership/thingGroup/leaf{0}/thing/t{0}/added"],
    "THING_GROUP_HIERARCHY": [
        "thingGroupHierarchy/thingGroup/root{0}/childThingGroup/leaf{0}/added"
    ],
}


def test_nothing_is_published_until_it_is_switched_on(registry: Registry) -> None:
    registry.services.publish = heard = Heard()
    everything(registry, "1")
    assert heard.take() == []
    for number, event_type in enumerate(EVENT_TYPES):
        switch(registry, event_type)
        everything(registry, f"-{number}")
        expected = [topic.format(f"-{number}") for topic in OF_TYPE.get(event_type, [])]
        assert heard.topics() == expected
        switch(registry, event_type, on=False)
    everything(registry, "2")
    assert heard.take() == []


def test_a_server_that_starts_knows_what_is_switched_on(registry: Registry) -> None:
    switch(registry, "THING", "THING_GROUP")
    switch(registry, "THING_GROUP", on=False)
    registry.services.enabled_events = frozenset()
    registry.runner.run(load_enabled_events(registry.services))
    assert registry.services.enabled_events == {"THING"}


# --- things --------------------------------------------------------------------------------------


def test_the_life_of_a_thing(registry: Registry, heard: Heard) -> None:
    registry.call("CreateThingType", thing_type_name="lamp")
    registry.call("CreateThingType", thing_type_name="bulb")
    groups = {name: group(registry, name)["thingGroupId"] for name in ("north", "south")}
    heard.take()

    created = registry.call("CreateThing", thing_name="t", thing_type_name="lamp")
    [(topic, first), (bound, association)] = heard.take()
    assert topic == "$aws/events/thing/t/created"
    assert bound == "$aws/events/thingTypeAssociation/thing/t/thingType/lamp/added"
    assert first == {
        "eventType": "THING_EVENT",
        "eventId": first["eventId"],
        "timestamp": int(START * 1000),
        "operation": "CREATED",
        "accountId": "123456789012",
        "thingId": created["thingId"],
        "thingName": "t",
        "versionNumber": 1,
        "thingTypeName": "lamp",
        "attributes": {},
    }
    assert association["thingId"] == created["thingId"]
    assert association["eventId"] != first["eventId"]

    registry.clock.now = START + 2.5
    registry.call("UpdateThing", thing_name="t", attribute_payload={"attributes": {"a": "1"}})
    [(topic, updated)] = heard.take()
    assert (topic, updated["versionNumber"]) == ("$aws/events/thing/t/updated", 2)
    assert (updated["attributes"], updated["timestamp"]) == ({"a": "1"}, int(START * 1000) + 2500)

    registry.call("UpdateThing", thing_name="t", thing_type_name="bulb")
    assert heard.topics() == [
        "thing/t/updated",
        "thingTypeAssociation/thing/t/thingType/lamp/removed",
        "thingTypeAssociation/thing/t/thingType/bulb/added",
    ]
    registry.call("UpdateThing", thing_name="t", remove_thing_type=True)
    [(_, updated), (topic, _)] = heard.take()
    assert (updated["thingTypeName"], updated["versionNumber"]) == (None, 4)
    assert topic == "$aws/events/thingTypeAssociation/thing/t/thingType/bulb/removed"
    registry.call("UpdateThing", thing_name="t", thing_type_name="lamp")
    heard.take()

    registry.call(
        "UpdateThingGroupsForThing", thing_name="t", thing_groups_to_add=["north", "south"]
    )
    joined = heard.take()
    registry.call("DeleteThing", thing_name="t")
    *left, (unbound, _), (topic, deleted) = heard.take()
    assert [payload["groupId"] for _, payload in left] == list(groups.values())
    assert [payload["membershipId"] for _, payload in left] == [
        payload["membershipId"] for _, payload in joined
    ]
    assert unbound == "$aws/events/thingTypeAssociation/thing/t/thingType/lamp/removed"
    assert topic == "$aws/events/thing/t/deleted"
    assert (deleted["versionNumber"], deleted["attributes"]) == (5, {"a": "1"})


def test_what_changes_no_thing_is_no_event(registry: Registry, heard: Heard) -> None:
    registry.call("CreateThingType", thing_type_name="lamp")
    registry.call("CreateThing", thing_name="t")
    certificate = registry.certificate(set_as_active=True)["certificateArn"]
    registry.call("AttachThingPrincipal", thing_name="t", principal=certificate)
    heard.take()
    registry.call("CreateThing", thing_name="t")  # the same once more
    refused(registry, "CreateThing", thing_name="t", thing_type_name="lamp")
    refused(registry, "CreateThing", thing_name="new", thing_type_name="none")
    refused(registry, "UpdateThing", thing_name="t", expected_version=9)
    refused(registry, "UpdateThing", thing_name="t", thing_type_name="none")
    refused(registry, "DeleteThing", thing_name="t")  # a certificate is attached
    refused(registry, "DeleteThing", thing_name="t", expected_version=9)
    registry.call("DeleteThing", thing_name="none")
    assert heard.take() == []


# --- thing types ---------------------------------------------------------------------------------


def test_the_life_of_a_thing_type(registry: Registry, heard: Heard) -> None:
    properties: dict[str, Any] = {"thingTypeDescription": "shines", "searchableAttributes": ["a"]}
    created = registry.call(
        "CreateThingType", thing_type_name="lamp", thing_type_properties=properties
    )
    [(topic, payload)] = heard.take()
    assert topic == "$aws/events/thingType/lamp/created"
    assert payload["thingTypeId"] == created["thingTypeId"]
    assert (payload["description"], payload["searchableAttributes"]) == ("shines", ["a"])
    assert (payload["isDeprecated"], payload["deprecationDate"]) == (False, None)

    passed_on = [{"userPropertyKey": "k", "thingAttribute": "a"}]
    more = {"mqtt5Configuration": {"propagatingAttributes": passed_on}}
    for _ in range(2):
        registry.call("UpdateThingType", thing_type_name="lamp", thing_type_properties=more)
    [(topic, payload)] = heard.take()
    assert topic == "$aws/events/thingType/lamp/updated"
    assert payload["propagatingAttributes"] == passed_on

    for _ in range(2):
        registry.call("DeprecateThingType", thing_type_name="lamp")
    [(topic, payload)] = heard.take()
    assert topic == "$aws/events/thingType/lamp/updated"
    assert (payload["isDeprecated"], payload["deprecationDate"]) == (True, int(START * 1000))

    for _ in range(2):
        registry.call("DeprecateThingType", thing_type_name="lamp", undo_deprecate=True)
    [(topic, payload)] = heard.take()
    assert topic == "$aws/events/thingType/lamp/updated"
    assert (payload["isDeprecated"], payload["deprecationDate"]) == (False, None)

    refused(registry, "DeleteThingType", thing_type_name="lamp")
    registry.call("DeprecateThingType", thing_type_name="lamp")
    heard.take()
    refused(registry, "DeleteThingType", thing_type_name="lamp")  # too early
    assert heard.take() == []
    registry.clock.now = START + 400
    registry.call("DeleteThingType", thing_type_name="lamp")
    [(topic, payload)] = heard.take()
    assert (topic, payload["operation"]) == ("$aws/events/thingType/lamp/deleted", "DELETED")
    assert payload["isDeprecated"] is True


def test_what_changes_no_thing_type_is_no_event(registry: Registry, heard: Heard) -> None:
    registry.call("CreateThingType", thing_type_name="lamp")
    heard.take()
    registry.call("CreateThingType", thing_type_name="lamp")
    registry.call("UpdateThingType", thing_type_name="lamp")
    registry.call("DeprecateThingType", thing_type_name="lamp", undo_deprecate=True)
    refused(
        registry,
        "UpdateThingType",
        thing_type_name="lamp",
        thing_type_properties={"thingTypeDescription": "other"},
    )
    refused(registry, "DeprecateThingType", thing_type_name="none")
    assert heard.take() == []


# --- thing groups --------------------------------------------------------------------------------


def test_the_life_of_a_thing_group(registry: Registry, heard: Heard) -> None:
    root = group(registry, "root")["thingGroupId"]
    assert heard.topics() == ["thingGroup/root/created"]
    middle = group(registry, "middle", "root")["thingGroupId"]
    heard.take()
    leaf = group(registry, "leaf", "middle")["thingGroupId"]
    [(topic, created), (below, hierarchy)] = heard.take()
    assert topic == "$aws/events/thingGroup/leaf/created"
    assert (created["parentGroupName"], created["parentGroupId"]) == ("middle", middle)
    assert created["rootToParentThingGroups"] == [
        {"groupArn": registry.arn("thinggroup/root"), "groupId": root},
        {"groupArn": registry.arn("thinggroup/middle"), "groupId": middle},
    ]
    assert below == "$aws/events/thingGroupHierarchy/thingGroup/middle/childThingGroup/leaf/added"
    assert (hierarchy["thingGroupId"], hierarchy["childGroupId"]) == (middle, leaf)

    registry.call(
        "UpdateThingGroup",
        thing_group_name="leaf",
        thing_group_properties={"thingGroupDescription": "d"},
    )
    [(topic, updated)] = heard.take()
    assert topic == "$aws/events/thingGroup/leaf/updated"
    assert (updated["versionNumber"], updated["description"]) == (2, "d")
    assert len(updated["rootToParentThingGroups"]) == 2

    registry.call("DeleteThingGroup", thing_group_name="leaf")
    [(above, removed), (topic, deleted)] = heard.take()
    assert above == "$aws/events/thingGroupHierarchy/thingGroup/middle/childThingGroup/leaf/removed"
    assert removed["childGroupId"] == leaf
    assert topic == "$aws/events/thingGroup/leaf/deleted"
    assert (deleted["versionNumber"], deleted["parentGroupId"]) == (2, middle)


def test_the_members_of_a_group_that_is_deleted_have_no_event_each(
    registry: Registry, heard: Heard
) -> None:
    group(registry, "fleet")
    registry.call("CreateThing", thing_name="t")
    registry.call("AddThingToThingGroup", thing_name="t", thing_group_name="fleet")
    heard.take()
    registry.call("DeleteThingGroup", thing_group_name="fleet")
    assert heard.topics() == ["thingGroup/fleet/deleted"]


def test_what_changes_no_group_is_no_event(registry: Registry, heard: Heard) -> None:
    group(registry, "root")
    group(registry, "leaf", "root")
    heard.take()
    group(registry, "leaf", "root")
    refused(registry, "CreateThingGroup", thing_group_name="leaf")  # other properties
    refused(registry, "CreateThingGroup", thing_group_name="x", parent_group_name="none")
    refused(registry, "DeleteThingGroup", thing_group_name="root")  # leaf is below it
    refused(
        registry,
        "UpdateThingGroup",
        thing_group_name="leaf",
        thing_group_properties={},
        expected_version=9,
    )
    registry.call("DeleteThingGroup", thing_group_name="none")
    assert heard.take() == []


# --- members -------------------------------------------------------------------------------------


def test_things_that_join_and_leave_groups(registry: Registry, heard: Heard) -> None:
    thing = registry.call("CreateThing", thing_name="t")
    ids = {name: group(registry, name)["thingGroupId"] for name in ("a", "b", "c")}
    heard.take()
    registry.call("AddThingToThingGroup", thing_name="t", thing_group_name="a")
    [(topic, payload)] = heard.take()
    assert topic == "$aws/events/thingGroupMembership/thingGroup/a/thing/t/added"
    assert payload["groupArn"] == registry.arn("thinggroup/a")
    assert payload["groupId"] == ids["a"]
    assert payload["thingArn"] == registry.arn("thing/t")
    assert payload["thingId"] == thing["thingId"]
    registry.call("RemoveThingFromThingGroup", thing_name="t", thing_group_name="a")
    [(topic, removed)] = heard.take()
    assert topic == "$aws/events/thingGroupMembership/thingGroup/a/thing/t/removed"
    assert removed["membershipId"] == payload["membershipId"]

    def update(add: list[str], remove: list[str]) -> list[str]:
        registry.call(
            "UpdateThingGroupsForThing",
            thing_name="t",
            thing_groups_to_add=add,
            thing_groups_to_remove=remove,
        )
        return [topic.removeprefix("thingGroupMembership/thingGroup/") for topic in heard.topics()]

    assert update(["a", "b", "a"], []) == ["a/thing/t/added", "b/thing/t/added"]
    assert update(["b", "c"], ["a"]) == ["a/thing/t/removed", "c/thing/t/added"]
    assert update(["b"], ["b", "b"]) == ["b/thing/t/removed", "b/thing/t/added"]
    assert update(["a"], ["a"]) == ["a/thing/t/added"]  # it was not in there


def test_what_changes_no_membership_is_no_event(registry: Registry, heard: Heard) -> None:
    registry.call("CreateThing", thing_name="t")
    for name in ("a", "b"):
        group(registry, name)
    registry.call("AddThingToThingGroup", thing_name="t", thing_group_name="a")
    heard.take()
    registry.call("AddThingToThingGroup", thing_name="t", thing_group_name="a")
    registry.call("RemoveThingFromThingGroup", thing_name="t", thing_group_name="b")
    refused(registry, "AddThingToThingGroup", thing_name="none", thing_group_name="a")
    refused(
        registry,
        "UpdateThingGroupsForThing",
        thing_name="t",
        thing_groups_to_remove=["a"],
        thing_groups_to_add=["none"],
    )
    assert heard.take() == []


# --- templates -----------------------------------------------------------------------------------

TEMPLATE: dict[str, Any] = {
    "Parameters": {"Name": {"Type": "String"}, "Site": {"Type": "String", "Default": "A"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "Name"},
                "ThingTypeName": "lamp",
                "AttributePayload": {"site": {"Ref": "Site"}},
                "ThingGroups": [{"Ref": "Site"}],
            },
            "OverrideSettings": {
                "AttributePayload": "REPLACE",
                "ThingTypeName": "REPLACE",
                "ThingGroups": "REPLACE",
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
        },
    },
}
CREATED = [
    "thing/t/created",
    "thingTypeAssociation/thing/t/thingType/lamp/added",
    "thingGroupMembership/thingGroup/A/thing/t/added",
]


@pytest.fixture
def ready(registry: Registry, heard: Heard) -> Heard:
    """A template, its role, and the type and groups it names."""
    add_provisioning_role(registry)
    registry.call("CreatePolicy", policy_name="device", policy_document=ALLOW)
    registry.call("CreateThingType", thing_type_name="lamp")
    registry.call("CreateThingType", thing_type_name="bulb")
    for name in ("A", "B"):
        group(registry, name)
    registry.call(
        "CreateProvisioningTemplate",
        template_name="T",
        template_body=json.dumps(TEMPLATE),
        provisioning_role_arn="arn:aws:iam::123456789012:role/provisioning",
        enabled=True,
    )
    heard.take()
    return heard


def register(registry: Registry, token: str = "", site: str = "A") -> str:
    """RegisterThing over MQTT; its token."""
    if not token:
        made = registry.device("CreateCertificateFromCsr", certificate_signing_request=csr())
        token = made["certificateOwnershipToken"]
    registry.device(
        "RegisterThing",
        template_name="T",
        certificate_ownership_token=token,
        parameters={"Name": "t", "Site": site},
    )
    return token


def test_a_registration_over_mqtt(registry: Registry, ready: Heard) -> None:
    token = register(registry)
    described = registry.call("DescribeThing", thing_name="t")
    messages = ready.take()
    assert [topic.removeprefix("$aws/events/") for topic, _ in messages] == CREATED
    assert {payload["thingId"] for _, payload in messages} == {described["thingId"]}
    register(registry, token)  # the device lost the answer
    assert ready.take() == []


def test_a_registration_that_changes_a_thing(registry: Registry, ready: Heard) -> None:
    registry.call("CreateThing", thing_name="t", thing_type_name="bulb")
    registry.call("AddThingToThingGroup", thing_name="t", thing_group_name="A")
    ready.take()
    register(registry, site="B")
    messages = ready.take()
    assert [topic.removeprefix("$aws/events/") for topic, _ in messages] == [
        "thing/t/updated",
        "thingTypeAssociation/thing/t/thingType/bulb/removed",
        "thingTypeAssociation/thing/t/thingType/lamp/added",
        "thingGroupMembership/thingGroup/A/thing/t/removed",
        "thingGroupMembership/thingGroup/B/thing/t/added",
    ]
    assert messages[0][1]["versionNumber"] == 2
    assert messages[0][1]["attributes"] == {"site": "B"}


def register_over_http(registry: Registry) -> None:
    """RegisterThing over HTTP, with the same template but for the certificate."""
    certificate = registry.certificate(set_as_active=True)["certificateId"]
    wanted = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "Id"}}}
    registry.call(
        "RegisterThing",
        template_body=json.dumps({"Resources": {**TEMPLATE["Resources"], "certificate": wanted}}),
        parameters={"Name": "t", "Site": "A", "Id": certificate},
    )


def test_a_registration_over_http(registry: Registry, ready: Heard) -> None:
    register_over_http(registry)
    assert ready.topics() == CREATED
    register_over_http(registry)  # with another certificate, which is no event
    assert ready.take() == []


def test_a_registration_that_is_refused_is_no_event(registry: Registry, ready: Heard) -> None:
    set_rights(
        registry,
        "provisioning",
        {"Effect": "Allow", "Action": "iot:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "iot:AttachThingPrincipal", "Resource": "*"},
    )
    with pytest.raises(ServiceError):
        register(registry)
    with pytest.raises(ServiceError):
        register(registry, site="none")  # no such group
    assert ready.take() == []


# --- stored or not -------------------------------------------------------------------------------


class _Undone(Exception):
    pass


class Undoing:
    """A store that carries transactions out and then cannot store them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read = store.read
        self.reset = store.reset
        self.close = store.close

    async def write(
        self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def undone(tx: Tx) -> T:
            fn(tx, *args, **kwargs)
            raise _Undone

        try:
            return await self._store.write(undone)
        except _Undone:
            raise ServiceUnavailableException("the disk is full") from None


def test_what_could_not_be_stored_is_no_event(registry: Registry, ready: Heard) -> None:
    registry.call("CreateThing", thing_name="old")
    registry.call("CreateThingType", thing_type_name="type")
    ready.take()
    works = registry.services.store
    registry.services.store = Undoing(works)
    only_a_thing = {
        "Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "other"}}}
    }
    calls: list[tuple[str, dict[str, Any]]] = [
        ("CreateThing", {"thing_name": "t", "thing_type_name": "lamp"}),
        ("UpdateThing", {"thing_name": "old", "thing_type_name": "lamp"}),
        ("DeleteThing", {"thing_name": "old"}),
        ("CreateThingType", {"thing_type_name": "new"}),
        ("DeprecateThingType", {"thing_type_name": "type"}),
        ("CreateThingGroup", {"thing_group_name": "C", "parent_group_name": "A"}),
        ("UpdateThingGroup", {"thing_group_name": "A", "thing_group_properties": {}}),
        ("DeleteThingGroup", {"thing_group_name": "A"}),
        ("AddThingToThingGroup", {"thing_name": "old", "thing_group_name": "A"}),
    ]
    for operation, params in calls:
        with pytest.raises(ServiceUnavailableException):
            registry.call(operation, **params)
    with pytest.raises(ServiceUnavailableException):
        registry.call("RegisterThing", template_body=json.dumps(only_a_thing))
    assert ready.take() == []
    registry.services.store = works
    for operation, params in calls[:3]:
        registry.call(operation, **params)
    assert ready.topics() == [
        "thing/t/created",
        "thingTypeAssociation/thing/t/thingType/lamp/added",
        "thing/old/updated",
        "thingTypeAssociation/thing/old/thingType/lamp/added",
        "thingTypeAssociation/thing/old/thingType/lamp/removed",
        "thing/old/deleted",
    ]
