"""Registry events, member by member and in their order.

Sources: AWS IoT Developer Guide, "Registry events", whose example payloads are the expected ones
(GUIDE); Powertools for AWS Lambda, tests/events/iotRegistryEvents*.json (POWERTOOLS); messages
AWS IoT has sent, as people have pasted them (SEEN).
"""

import json
from typing import Any
from uuid import UUID

import pytest

from fleetgate.domain import events
from fleetgate.domain.events import Event, Named, Occasion
from fleetgate.names import Account

ACCOUNT = Account("123456789012", "ap-northeast-2")
THING = Named("MyThing", "b604f69c-aa9a-4d4a-829e-c480e958a0b5")
CHILD = Named("MyChildThingGroup", "06838589-373f-4312-b1f2-53f2192291c4")
ROOT = Named("MyRootThingGroup", "8f82a106-6b1d-4331-8984-a84db5f6f8cb")
TYPE = Named("MyThingType", "c530ae83-32aa-4592-94d3-da29879d1aac")
ATTRIBUTES = {"attribute3": "value3", "attribute1": "value1", "attribute2": "value2"}


def at(event_id: str, account: Account = ACCOUNT, timestamp: int = 1234567890123) -> Occasion:
    return Occasion(account, event_id, timestamp)


def thing(change: events.Change) -> Event:
    return events.thing(
        at("f5ae9b94-8b8e-4d8e-8c8f-b3266dd89853"),
        change,
        THING,
        version=1,
        type_name=None,
        attributes=ATTRIBUTES,
    )


def thing_type(change: events.Change, deprecated_at: float | None = None) -> Event:
    return events.thing_type(
        at("8827376c-4b05-49a3-9b3b-733729df7ed5"),
        change,
        TYPE,
        deprecated_at=deprecated_at,
        searchable=("attribute1", "attribute2", "attribute3"),
        propagating=(
            {"userPropertyKey": "key", "thingAttribute": "model"},
            {"userPropertyKey": "key", "connectionAttribute": "iot:ClientId"},
        ),
        description="My thing type",
    )


LEVELS = {
    "TgTopLevel": "36aa0482-f80d-4e13-9bff-1c0a75c055f6",
    "Tg_level1": "bc1643e1-5a85-4eac-b45a-92509cbe2a77",
    "Tg_level2": "0476f3d2-9beb-48bb-ae2c-ea8bd6458158",
    "Tg_level3": "1d9d4ffe-a6b0-48d6-9de6-2e54d1eae78f",
    "Tg_level4": "5fce366a-7875-4c0e-870b-79d8d1dce119",
}
GROUP = events.thing_group(
    at("8b9ea8626aeaa1e42100f3f32b975899", Account("571EXAMPLE833", "us-west-2"), 1603995417409),
    "UPDATED",
    Named("Tg_level5", "8757eec8-bb37-4cca-a6fa-403b003d139f"),
    version=3,
    ancestors=[Named(name, id_) for name, id_ in LEVELS.items()],
    description="New description for Tg_level5",
    attributes=ATTRIBUTES,
)
ROOT_GROUP = events.thing_group(
    at("87f8e095-531c-47b3-aab5-5171364d138d"),
    "CREATED",
    ROOT,
    version=1,
    ancestors=[],
    description="My root thing group",
    attributes=ATTRIBUTES,
)

PAYLOADS = {
    "GUIDE, Thing Created/Updated/Deleted": (
        thing("CREATED"),
        """{"eventType": "THING_EVENT", "eventId": "f5ae9b94-8b8e-4d8e-8c8f-b3266dd89853",
        "timestamp": 1234567890123, "operation": "CREATED", "accountId": "123456789012",
        "thingId": "b604f69c-aa9a-4d4a-829e-c480e958a0b5", "thingName": "MyThing",
        "versionNumber": 1, "thingTypeName": null, "attributes":
        {"attribute3": "value3", "attribute1": "value1", "attribute2": "value2"}}""",
    ),
    "GUIDE, Thing Type Created/Updated/Deprecated; POWERTOOLS for propagatingAttributes": (
        thing_type("CREATED"),
        """{"eventType": "THING_TYPE_EVENT", "eventId": "8827376c-4b05-49a3-9b3b-733729df7ed5",
        "timestamp": 1234567890123, "operation": "CREATED", "accountId": "123456789012",
        "thingTypeId": "c530ae83-32aa-4592-94d3-da29879d1aac", "thingTypeName": "MyThingType",
        "isDeprecated": false, "deprecationDate": null,
        "searchableAttributes": ["attribute1", "attribute2", "attribute3"],
        "propagatingAttributes": [{"userPropertyKey": "key", "thingAttribute": "model"},
        {"userPropertyKey": "key", "connectionAttribute": "iot:ClientId"}],
        "description": "My thing type"}""",
    ),
    "GUIDE, Thing Type Associated or Disassociated; POWERTOOLS for ADDED": (
        events.thing_type_association(
            at("87f8e095-531c-47b3-aab5-5171364d138d"),
            "ADDED",
            Named("myThing", THING.id),
            "MyThingType",
        ),
        """{"eventId": "87f8e095-531c-47b3-aab5-5171364d138d",
        "eventType": "THING_TYPE_ASSOCIATION_EVENT", "operation": "ADDED",
        "thingId": "b604f69c-aa9a-4d4a-829e-c480e958a0b5", "thingName": "myThing",
        "thingTypeName": "MyThingType", "timestamp": 1234567890123}""",
    ),
    "GUIDE, Thing Group Created/Updated/Deleted": (
        GROUP,
        """{"eventType": "THING_GROUP_EVENT", "eventId": "8b9ea8626aeaa1e42100f3f32b975899",
        "timestamp": 1603995417409, "operation": "UPDATED", "accountId": "571EXAMPLE833",
        "thingGroupId": "8757eec8-bb37-4cca-a6fa-403b003d139f", "thingGroupName": "Tg_level5",
        "versionNumber": 3, "parentGroupName": "Tg_level4",
        "parentGroupId": "5fce366a-7875-4c0e-870b-79d8d1dce119",
        "description": "New description for Tg_level5", "rootToParentThingGroups": [
        {"groupArn": "arn:aws:iot:us-west-2:571EXAMPLE833:thinggroup/TgTopLevel",
         "groupId": "36aa0482-f80d-4e13-9bff-1c0a75c055f6"},
        {"groupArn": "arn:aws:iot:us-west-2:571EXAMPLE833:thinggroup/Tg_level1",
         "groupId": "bc1643e1-5a85-4eac-b45a-92509cbe2a77"},
        {"groupArn": "arn:aws:iot:us-west-2:571EXAMPLE833:thinggroup/Tg_level2",
         "groupId": "0476f3d2-9beb-48bb-ae2c-ea8bd6458158"},
        {"groupArn": "arn:aws:iot:us-west-2:571EXAMPLE833:thinggroup/Tg_level3",
         "groupId": "1d9d4ffe-a6b0-48d6-9de6-2e54d1eae78f"},
        {"groupArn": "arn:aws:iot:us-west-2:571EXAMPLE833:thinggroup/Tg_level4",
         "groupId": "5fce366a-7875-4c0e-870b-79d8d1dce119"}],
        "attributes": {"attribute3": "value3", "attribute1": "value1", "attribute2": "value2"},
        "dynamicGroupMappingId": null}""",
    ),
    "GUIDE, Thing Group Created/Updated/Deleted, a root group (edition of 2018)": (
        ROOT_GROUP,
        """{"eventType": "THING_GROUP_EVENT", "eventId": "87f8e095-531c-47b3-aab5-5171364d138d",
        "timestamp": 1234567890123, "operation": "CREATED", "accountId": "123456789012",
        "thingGroupId": "8f82a106-6b1d-4331-8984-a84db5f6f8cb",
        "thingGroupName": "MyRootThingGroup", "versionNumber": 1, "parentGroupName": null,
        "parentGroupId": null, "description": "My root thing group",
        "rootToParentThingGroups": null, "attributes":
        {"attribute3": "value3", "attribute1": "value1", "attribute2": "value2"},
        "dynamicGroupMappingId": null}""",
    ),
    "GUIDE, Thing Added to or Removed from a Thing Group": (
        events.thing_group_membership(
            at("d684bd5f-6f6e-48e1-950c-766ac7f02fd1"), "ADDED", CHILD, THING
        ),
        f"""{{"eventType": "THING_GROUP_MEMBERSHIP_EVENT",
        "eventId": "d684bd5f-6f6e-48e1-950c-766ac7f02fd1",
        "timestamp": 1234567890123, "operation": "ADDED", "accountId": "123456789012",
        "groupArn": "arn:aws:iot:ap-northeast-2:123456789012:thinggroup/MyChildThingGroup",
        "groupId": "06838589-373f-4312-b1f2-53f2192291c4",
        "thingArn": "arn:aws:iot:ap-northeast-2:123456789012:thing/MyThing",
        "thingId": "b604f69c-aa9a-4d4a-829e-c480e958a0b5",
        "membershipId": "{events.membership_id(CHILD.id, THING.id)}"}}""",
    ),
    "GUIDE, Thing Group Added to or Deleted from a Thing Group": (
        events.thing_group_hierarchy(
            at("264192c7-b573-46ef-ab7b-489fcd47da41"), "ADDED", ROOT, CHILD
        ),
        """{"eventType": "THING_GROUP_HIERARCHY_EVENT",
        "eventId": "264192c7-b573-46ef-ab7b-489fcd47da41",
        "timestamp": 1234567890123, "operation": "ADDED", "accountId": "123456789012",
        "thingGroupId": "8f82a106-6b1d-4331-8984-a84db5f6f8cb",
        "thingGroupName": "MyRootThingGroup",
        "childGroupId": "06838589-373f-4312-b1f2-53f2192291c4",
        "childGroupName": "MyChildThingGroup"}""",
    ),
}


@pytest.mark.parametrize("source", PAYLOADS)
def test_a_payload_has_the_members_and_types_of_awss_example_in_its_order(source: str) -> None:
    event, example = PAYLOADS[source]
    expected: dict[str, Any] = json.loads(example)
    assert json.dumps(event.payload) == json.dumps(expected)


def membership(link: events.Link) -> Event:
    return events.thing_group_membership(at("e"), link, CHILD, THING)


def hierarchy(link: events.Link) -> Event:
    return events.thing_group_hierarchy(at("e"), link, ROOT, CHILD)


def association(link: events.Link) -> Event:
    return events.thing_type_association(at("e"), link, THING, TYPE.name)


MEMBER = "$aws/events/thingGroupMembership/thingGroup/MyChildThingGroup/thing/MyThing"
BELOW = "$aws/events/thingGroupHierarchy/thingGroup/MyRootThingGroup/childThingGroup"
TYPED = "$aws/events/thingTypeAssociation/thing/MyThing/thingType/MyThingType"


@pytest.mark.parametrize(
    ("event", "topic", "operation"),
    [
        (thing("CREATED"), "$aws/events/thing/MyThing/created", "CREATED"),
        (thing("UPDATED"), "$aws/events/thing/MyThing/updated", "UPDATED"),
        (thing("DELETED"), "$aws/events/thing/MyThing/deleted", "DELETED"),
        (thing_type("CREATED"), "$aws/events/thingType/MyThingType/created", "CREATED"),
        (thing_type("UPDATED"), "$aws/events/thingType/MyThingType/updated", "UPDATED"),
        (thing_type("DELETED"), "$aws/events/thingType/MyThingType/deleted", "DELETED"),
        (GROUP, "$aws/events/thingGroup/Tg_level5/updated", "UPDATED"),
        (ROOT_GROUP, "$aws/events/thingGroup/MyRootThingGroup/created", "CREATED"),
        (membership("ADDED"), f"{MEMBER}/added", "ADDED"),
        (membership("REMOVED"), f"{MEMBER}/removed", "REMOVED"),
        (hierarchy("ADDED"), f"{BELOW}/MyChildThingGroup/added", "ADDED"),
        (hierarchy("REMOVED"), f"{BELOW}/MyChildThingGroup/removed", "REMOVED"),
        # POWERTOOLS, docstring of IoTCoreThingTypeAssociationEvent
        (association("ADDED"), f"{TYPED}/added", "ADDED"),
        (association("REMOVED"), f"{TYPED}/removed", "REMOVED"),
    ],
)
def test_the_topics_are_those_of_the_guide(event: Event, topic: str, operation: str) -> None:
    assert event.topic == topic
    assert event.payload["operation"] == operation


def test_a_deprecated_type_says_since_when_in_milliseconds() -> None:
    payload = thing_type("UPDATED", 1_600_000_000.25).payload
    assert (payload["isDeprecated"], payload["deprecationDate"]) == (True, 1_600_000_000_250)


def test_what_there_is_none_of() -> None:
    bare = events.thing(at("e"), "CREATED", THING, version=1, type_name=None, attributes={})
    assert bare.payload["attributes"] == {}  # SEEN
    plain = events.thing_type(
        at("e"),
        "CREATED",
        TYPE,
        deprecated_at=None,
        searchable=(),
        propagating=(),
        description=None,
    ).payload
    # POWERTOOLS: both are lists, never null
    assert (plain["searchableAttributes"], plain["propagatingAttributes"]) == ([], [])
    assert plain["description"] is None


def test_a_membership_id_is_a_uuid_of_its_group_and_thing() -> None:
    one = events.membership_id(CHILD.id, THING.id)
    assert one == events.membership_id(CHILD.id, THING.id)
    assert UUID(one).version == 8
    assert UUID(one).variant == "specified in RFC 4122"
    assert (
        len(
            {one, events.membership_id(ROOT.id, THING.id), events.membership_id(THING.id, CHILD.id)}
        )
        == 3
    )
