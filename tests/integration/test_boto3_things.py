"""Things, their types, groups and principals through boto3."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.fleet import ALLOW_ALL, arn, policy_document, signing_request
from tests.integration.refusal import everything, members, pages, refusal

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def recent(moment: datetime) -> bool:
    return abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


@pytest.fixture
def principal(iot: Any) -> str:
    """The ARN of a new certificate."""
    made = iot.create_certificate_from_csr(certificateSigningRequest=signing_request().csr)
    return str(made["certificateArn"])


# --- things ------------------------------------------------------------------------------------


def test_a_thing_lives_and_dies(iot: Any, name: str) -> None:
    created = members(
        iot.create_thing(thingName=name, attributePayload={"attributes": {"colour": "red"}})
    )
    id_ = created.pop("thingId")
    assert UUID.fullmatch(id_)
    assert created == {"thingName": name, "thingArn": arn(f"thing/{name}")}
    assert members(iot.describe_thing(thingName=name)) == {
        "defaultClientId": name,
        "thingName": name,
        "thingId": id_,
        "thingArn": arn(f"thing/{name}"),
        "attributes": {"colour": "red"},
        "version": 1,
    }
    updated = iot.update_thing(
        thingName=name, attributePayload={"attributes": {"size": "10"}, "merge": True}
    )
    assert members(updated) == {}
    described = iot.describe_thing(thingName=name)
    assert described["attributes"] == {"colour": "red", "size": "10"}
    assert described["version"] == 2
    iot.update_thing(thingName=name, attributePayload={"attributes": {"size": "11"}})
    assert iot.describe_thing(thingName=name)["attributes"] == {"size": "11"}
    iot.update_thing(thingName=name, attributePayload={"attributes": {"size": ""}, "merge": True})
    assert iot.describe_thing(thingName=name)["attributes"] == {}

    stale = refusal(
        iot.update_thing,
        thingName=name,
        attributePayload={"attributes": {"size": "1"}},
        expectedVersion=1,
    )
    assert stale.kind == (409, "VersionConflictException")
    stale = refusal(iot.delete_thing, thingName=name, expectedVersion=1)
    assert stale.kind == (409, "VersionConflictException")
    for _ in range(2):  # a thing that is gone can be deleted again
        assert members(iot.delete_thing(thingName=name)) == {}
    gone = refusal(iot.describe_thing, thingName=name)
    assert gone.kind == (404, "ResourceNotFoundException")
    assert name in gone.message


def test_the_same_thing_may_be_created_again_but_no_other_of_its_name(iot: Any, name: str) -> None:
    same = {"thingName": name, "attributePayload": {"attributes": {"a": "1"}}}
    first = members(iot.create_thing(**same))
    assert members(iot.create_thing(**same)) == first
    other = refusal(iot.create_thing, thingName=name)
    assert other.kind == (409, "ResourceAlreadyExistsException")
    assert other.response["resourceId"] == first["thingId"]
    assert other.response["resourceArn"] == first["thingArn"]


def test_things_are_listed_page_by_page_and_by_what_they_are(iot: Any, name: str) -> None:
    iot.create_thing_type(thingTypeName=name)
    for number in range(5):
        kind = {"thingTypeName": name} if number < 3 else {}
        iot.create_thing(
            thingName=f"{name}-{number}",
            attributePayload={"attributes": {name: "even" if number % 2 == 0 else "odd"}},
            **kind,
        )
    listed = pages(iot, "list_things", "things", 2)
    assert all(len(page) <= 2 for page in listed)
    flat = [entry["thingName"] for page in listed for entry in page]
    assert len(flat) == len(set(flat))
    assert {f"{name}-{number}" for number in range(5)} <= set(flat)

    typed = everything(iot, "list_things", "things", thingTypeName=name)
    assert [entry["thingName"] for entry in typed] == [f"{name}-{n}" for n in range(3)]
    assert typed[0] == {
        "thingName": f"{name}-0",
        "thingTypeName": name,
        "thingArn": arn(f"thing/{name}-0"),
        "attributes": {name: "even"},
        "version": 1,
    }
    even = everything(iot, "list_things", "things", attributeName=name, attributeValue="even")
    assert {entry["thingName"] for entry in even} == {f"{name}-{n}" for n in (0, 2, 4)}
    prefix = everything(
        iot,
        "list_things",
        "things",
        attributeName=name,
        attributeValue="ev",
        usePrefixAttributeValue=True,
    )
    assert prefix == even


@pytest.mark.parametrize(
    "attributes",
    [
        {f"a{number}": "x" for number in range(4)},
        {"a": "x" * 801},
        {"a b": "x"},
        {"a": "x y"},
    ],
    ids=["four-without-type", "long-value", "name-pattern", "value-pattern"],
)
def test_attributes_outside_the_limits_are_refused(
    unchecked: Any, name: str, attributes: dict[str, str]
) -> None:
    refused = refusal(
        unchecked.create_thing, thingName=name, attributePayload={"attributes": attributes}
    )
    assert refused.kind == (400, "InvalidRequestException")


def test_a_thing_with_principals_is_not_deleted(iot: Any, name: str, principal: str) -> None:
    iot.create_thing(thingName=name)
    iot.attach_thing_principal(thingName=name, principal=principal)
    refused = refusal(iot.delete_thing, thingName=name)
    assert refused.kind == (400, "InvalidRequestException")
    iot.detach_thing_principal(thingName=name, principal=principal)
    iot.delete_thing(thingName=name)


def test_unknown_things_are_not_found(iot: Any, name: str, principal: str) -> None:
    for operation, more in (
        ("update_thing", {"attributePayload": {"attributes": {"a": "1"}}}),
        ("attach_thing_principal", {"principal": principal}),
        ("detach_thing_principal", {"principal": principal}),
        ("list_thing_principals", {}),
        ("list_thing_groups_for_thing", {}),
    ):
        unknown = refusal(getattr(iot, operation), thingName=name, **more)
        assert unknown.kind == (404, "ResourceNotFoundException"), operation


# --- principals --------------------------------------------------------------------------------


def test_principals_come_and_go(iot: Any, name: str, principal: str) -> None:
    iot.create_thing(thingName=name)
    for _ in range(2):
        attached = iot.attach_thing_principal(thingName=name, principal=principal)
        assert members(attached) == {}
    assert iot.list_thing_principals(thingName=name)["principals"] == [principal]
    assert iot.list_principal_things(principal=principal)["things"] == [name]
    detached = iot.detach_thing_principal(thingName=name, principal=principal)
    assert members(detached) == {}
    assert iot.list_thing_principals(thingName=name)["principals"] == []
    assert iot.list_principal_things(principal=principal)["things"] == []
    unknown = refusal(iot.attach_thing_principal, thingName=name, principal=arn("cert/" + "0" * 64))
    assert unknown.kind == (404, "ResourceNotFoundException")


def test_principals_and_their_things_are_listed_page_by_page(iot: Any, name: str) -> None:
    csr = signing_request().csr
    principals = [
        iot.create_certificate_from_csr(certificateSigningRequest=csr)["certificateArn"]
        for _ in range(5)
    ]
    iot.create_thing(thingName=name)
    for principal in principals:
        iot.attach_thing_principal(thingName=name, principal=principal)
    listed = pages(iot, "list_thing_principals", "principals", 2, thingName=name)
    assert [len(page) for page in listed] == [2, 2, 1]
    assert {each for page in listed for each in page} == set(principals)
    things = {f"{name}-{number}" for number in range(4)}
    for thing in things:
        iot.create_thing(thingName=thing)
        iot.attach_thing_principal(thingName=thing, principal=principals[0])
    listed = pages(iot, "list_principal_things", "things", 2, principal=principals[0])
    assert [len(page) for page in listed] == [2, 2, 1]
    assert {each for page in listed for each in page} == things | {name}


def test_attachments_are_exclusive_or_not(iot: Any, name: str, principal: str) -> None:
    other = f"{name}-other"
    for thing in (name, other):
        iot.create_thing(thingName=thing)
    exclusive = {"principal": principal, "thingPrincipalType": "EXCLUSIVE_THING"}
    assert members(iot.attach_thing_principal(thingName=name, **exclusive)) == {}
    refused = refusal(iot.attach_thing_principal, thingName=other, principal=principal)
    assert refused.kind == (400, "InvalidRequestException")
    listed = everything(iot, "list_thing_principals_v2", "thingPrincipalObjects", thingName=name)
    assert listed == [exclusive]
    listed = everything(
        iot, "list_principal_things_v2", "principalThingObjects", principal=principal
    )
    assert listed == [{"thingName": name, "thingPrincipalType": "EXCLUSIVE_THING"}]
    assert iot.list_principal_things(principal=principal)["things"] == [name]
    iot.detach_thing_principal(thingName=name, principal=principal)
    for thing in (name, other):
        iot.attach_thing_principal(thingName=thing, principal=principal)
    listed = pages(
        iot,
        "list_principal_things_v2",
        "principalThingObjects",
        1,
        principal=principal,
        thingPrincipalType="NON_EXCLUSIVE_THING",
    )
    assert [entry["thingName"] for page in listed for entry in page] == [name, other]
    assert (
        iot.list_thing_principals_v2(thingName=name, thingPrincipalType="EXCLUSIVE_THING")[
            "thingPrincipalObjects"
        ]
        == []
    )


# --- thing types -------------------------------------------------------------------------------


def test_a_thing_type_lives_and_dies(iot: Any, name: str) -> None:
    properties = {"thingTypeDescription": "lamps", "searchableAttributes": ["colour"]}
    created = members(iot.create_thing_type(thingTypeName=name, thingTypeProperties=properties))
    id_ = created.pop("thingTypeId")
    assert created == {"thingTypeName": name, "thingTypeArn": arn(f"thingtype/{name}")}
    described = members(iot.describe_thing_type(thingTypeName=name))
    assert recent(described["thingTypeMetadata"].pop("creationDate"))
    assert described == {
        "thingTypeName": name,
        "thingTypeId": id_,
        "thingTypeArn": arn(f"thingtype/{name}"),
        "thingTypeProperties": properties,
        "thingTypeMetadata": {"deprecated": False},
    }
    [listed] = iot.list_thing_types(thingTypeName=name)["thingTypes"]
    assert listed["thingTypeName"] == name
    assert listed["thingTypeArn"] == arn(f"thingtype/{name}")
    assert listed["thingTypeProperties"] == properties
    assert listed["thingTypeMetadata"]["deprecated"] is False

    iot.create_thing(thingName=name, thingTypeName=name)
    assert iot.describe_thing(thingName=name)["thingTypeName"] == name

    early = refusal(iot.delete_thing_type, thingTypeName=name)
    assert early.kind == (400, "InvalidRequestException")
    assert members(iot.deprecate_thing_type(thingTypeName=name)) == {}
    metadata = iot.describe_thing_type(thingTypeName=name)["thingTypeMetadata"]
    assert metadata["deprecated"] is True
    assert recent(metadata["deprecationDate"])
    refused = refusal(iot.create_thing, thingName=f"{name}-2", thingTypeName=name)
    assert refused.kind == (400, "InvalidRequestException")
    iot.deprecate_thing_type(thingTypeName=name, undoDeprecate=True)
    metadata = iot.describe_thing_type(thingTypeName=name)["thingTypeMetadata"]
    assert metadata["deprecated"] is False

    iot.update_thing(thingName=name, removeThingType=True)
    assert "thingTypeName" not in iot.describe_thing(thingName=name)
    for operation in ("describe_thing_type", "deprecate_thing_type", "delete_thing_type"):
        unknown = refusal(getattr(iot, operation), thingTypeName=f"{name}-unknown")
        assert unknown.kind == (404, "ResourceNotFoundException"), operation


def test_a_thing_type_enriches_by_its_mqtt_5_configuration(iot: Any, name: str) -> None:
    def configuration(attribute: str) -> dict[str, Any]:
        attributes = [
            {"userPropertyKey": "iot:ClientId", "connectionAttribute": "iot:ClientId"},
            {"userPropertyKey": "test", "thingAttribute": attribute},
        ]
        return {"mqtt5Configuration": {"propagatingAttributes": attributes}}

    iot.create_thing_type(thingTypeName=name, thingTypeProperties=configuration("A"))
    updated = iot.update_thing_type(thingTypeName=name, thingTypeProperties=configuration("B"))
    assert members(updated) == {}
    described = iot.describe_thing_type(thingTypeName=name)["thingTypeProperties"]
    assert described == {"searchableAttributes": [], **configuration("B")}
    refused = refusal(
        iot.update_thing_type,
        thingTypeName=name,
        thingTypeProperties={"thingTypeDescription": "x"},
    )
    assert refused.kind == (400, "InvalidRequestException")


def test_a_thing_type_has_to_exist(iot: Any, name: str) -> None:
    refused = refusal(iot.create_thing, thingName=name, thingTypeName=name)
    assert refused.kind == (404, "ResourceNotFoundException")


def test_thing_types_are_listed_page_by_page(iot: Any, name: str) -> None:
    names = {f"{name}-{number}" for number in range(5)}
    for each in names:
        iot.create_thing_type(thingTypeName=each)
    listed = pages(iot, "list_thing_types", "thingTypes", 2)
    assert all(len(page) <= 2 for page in listed)
    flat = [entry["thingTypeName"] for page in listed for entry in page]
    assert len(flat) == len(set(flat))
    assert names <= set(flat)


# --- thing groups ------------------------------------------------------------------------------


def test_a_thing_group_lives_and_dies(iot: Any, name: str) -> None:
    parent, child = f"{name}-parent", f"{name}-child"
    properties = {
        "thingGroupDescription": "upstairs",
        "attributePayload": {"attributes": {"floor": "1"}},
    }
    created = members(iot.create_thing_group(thingGroupName=parent))
    parent_arn = created["thingGroupArn"]
    created = members(
        iot.create_thing_group(
            thingGroupName=child, parentGroupName=parent, thingGroupProperties=properties
        )
    )
    id_ = created.pop("thingGroupId")
    assert created == {"thingGroupName": child, "thingGroupArn": arn(f"thinggroup/{child}")}
    described = members(iot.describe_thing_group(thingGroupName=child))
    metadata = described.pop("thingGroupMetadata")
    assert recent(metadata.pop("creationDate"))
    assert metadata == {
        "parentGroupName": parent,
        "rootToParentThingGroups": [{"groupName": parent, "groupArn": parent_arn}],
    }
    assert described == {
        "thingGroupName": child,
        "thingGroupId": id_,
        "thingGroupArn": arn(f"thinggroup/{child}"),
        "version": 1,
        "thingGroupProperties": properties,
    }
    updated = iot.update_thing_group(
        thingGroupName=child,
        thingGroupProperties={"attributePayload": {"attributes": {"lit": "no"}, "merge": True}},
        expectedVersion=1,
    )
    assert members(updated) == {"version": 2}
    got = iot.describe_thing_group(thingGroupName=child)["thingGroupProperties"]
    assert got["attributePayload"]["attributes"] == {"floor": "1", "lit": "no"}
    stale = refusal(
        iot.update_thing_group,
        thingGroupName=child,
        thingGroupProperties={"thingGroupDescription": "x"},
        expectedVersion=1,
    )
    assert stale.kind == (409, "VersionConflictException")

    entry = {"groupName": child, "groupArn": arn(f"thinggroup/{child}")}
    assert iot.list_thing_groups(parentGroup=parent)["thingGroups"] == [entry]
    assert entry in everything(iot, "list_thing_groups", "thingGroups", namePrefixFilter=name)

    full = refusal(iot.delete_thing_group, thingGroupName=parent)  # it has a child
    assert full.kind == (400, "InvalidRequestException")
    assert members(iot.delete_thing_group(thingGroupName=child)) == {}
    assert members(iot.delete_thing_group(thingGroupName=parent)) == {}
    gone = refusal(iot.describe_thing_group, thingGroupName=child)
    assert gone.kind == (404, "ResourceNotFoundException")


def test_members_come_and_go(iot: Any, name: str) -> None:
    iot.create_thing(thingName=name)
    iot.create_thing_group(thingGroupName=name)
    other = f"{name}-other"
    iot.create_thing_group(thingGroupName=other)
    added = iot.add_thing_to_thing_group(thingGroupName=name, thingName=name)
    assert members(added) == {}
    iot.add_thing_to_thing_group(
        thingGroupArn=arn(f"thinggroup/{other}"), thingArn=arn(f"thing/{name}")
    )
    groups = everything(iot, "list_thing_groups_for_thing", "thingGroups", thingName=name)
    assert groups == [
        {"groupName": name, "groupArn": arn(f"thinggroup/{name}")},
        {"groupName": other, "groupArn": arn(f"thinggroup/{other}")},
    ]
    for group in (name, other):
        things = everything(iot, "list_things_in_thing_group", "things", thingGroupName=group)
        assert things == [name]
    removed = iot.remove_thing_from_thing_group(thingGroupName=other, thingName=name)
    assert members(removed) == {}
    assert iot.list_things_in_thing_group(thingGroupName=other)["things"] == []
    iot.delete_thing(thingName=name)
    assert iot.list_things_in_thing_group(thingGroupName=name)["things"] == []


def test_a_thing_moves_between_groups_of_a_hierarchy(iot: Any, name: str) -> None:
    child, sibling = f"{name}-child", f"{name}-sibling"
    iot.create_thing(thingName=name)
    iot.create_thing_group(thingGroupName=name)
    for group in (child, sibling):
        iot.create_thing_group(thingGroupName=group, parentGroupName=name)
    iot.add_thing_to_thing_group(thingGroupName=child, thingName=name)
    refused = refusal(iot.add_thing_to_thing_group, thingGroupName=sibling, thingName=name)
    assert refused.kind == (400, "InvalidRequestException")
    moved = iot.update_thing_groups_for_thing(
        thingName=name, thingGroupsToAdd=[sibling], thingGroupsToRemove=[child]
    )
    assert members(moved) == {}
    groups = everything(iot, "list_thing_groups_for_thing", "thingGroups", thingName=name)
    assert [entry["groupName"] for entry in groups] == [name, sibling]
    below = {"thingGroupName": name, "recursive": True}
    assert everything(iot, "list_things_in_thing_group", "things", **below) == [name]
    roots = everything(iot, "list_thing_groups", "thingGroups", recursive=False)
    assert name in {entry["groupName"] for entry in roots}
    assert child not in {entry["groupName"] for entry in roots}


def test_groups_and_members_are_listed_page_by_page(iot: Any, name: str) -> None:
    groups = [f"{name}-{number}" for number in range(5)]
    for group in groups:
        iot.create_thing_group(thingGroupName=group)
        iot.create_thing(thingName=group)
        iot.add_thing_to_thing_group(thingGroupName=groups[0], thingName=group)
        if group != groups[0]:
            iot.add_thing_to_thing_group(thingGroupName=group, thingName=groups[0])
    for operation, key, more in (
        ("list_thing_groups", "thingGroups", {"namePrefixFilter": f"{name}-"}),
        ("list_things_in_thing_group", "things", {"thingGroupName": groups[0]}),
        ("list_thing_groups_for_thing", "thingGroups", {"thingName": groups[0]}),
    ):
        listed = pages(iot, operation, key, 2, **more)
        assert [len(page) for page in listed] == [2, 2, 1], operation
        flat = [e if isinstance(e, str) else e["groupName"] for page in listed for e in page]
        assert sorted(flat) == groups, operation


def test_unknown_groups_are_not_found(iot: Any, name: str) -> None:
    iot.create_thing(thingName=name)
    for operation, more in (
        ("describe_thing_group", {}),
        ("update_thing_group", {"thingGroupProperties": {"thingGroupDescription": "x"}}),
        ("add_thing_to_thing_group", {"thingName": name}),
        ("list_things_in_thing_group", {}),
    ):
        unknown = refusal(getattr(iot, operation), thingGroupName=name, **more)
        assert unknown.kind == (404, "ResourceNotFoundException"), operation


def test_a_thing_group_can_carry_a_policy(iot: Any, name: str) -> None:
    iot.create_thing_group(thingGroupName=name)
    iot.create_policy(policyName=name, policyDocument=policy_document(ALLOW_ALL))
    target = arn(f"thinggroup/{name}")
    iot.attach_policy(policyName=name, target=target)
    attached = iot.list_attached_policies(target=target)["policies"]
    assert [entry["policyName"] for entry in attached] == [name]
    iot.detach_policy(policyName=name, target=target)


# --- the endpoint ------------------------------------------------------------------------------


def test_the_endpoint_is_the_gateway(iot: Any) -> None:
    for kind in ({}, {"endpointType": "iot:Data-ATS"}, {"endpointType": "iot:Data"}):
        address = iot.describe_endpoint(**kind)["endpointAddress"]
        assert address.split(":")[0] in {"localhost", "127.0.0.1"}
    refused = refusal(iot.describe_endpoint, endpointType="iot:Rocket")
    assert refused.kind == (400, "InvalidRequestException")
