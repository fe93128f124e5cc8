"""Static thing groups: hierarchy, attributes, membership.

Sources: AWS IoT API reference (CreateThingGroup, ListThingGroups, UpdateThingGroupsForThing, ...),
AWS IoT Developer Guide, "Static thing groups", AWS General Reference, "AWS IoT Core endpoints
and quotas"; messages as quoted there and in public reports of AWS's answers.
"""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import (
    InvalidRequestException,
    NotImplementedException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionConflictException,
)
from tests.operations.conftest import ALLOW, START, Registry


def group(registry: Registry, name: str, parent: str | None = None, **members: Any) -> Any:
    if parent is not None:
        members["parent_group_name"] = parent
    return registry.call("CreateThingGroup", thing_group_name=name, **members)


def names(answer: dict[str, Any]) -> list[str]:
    return [each["groupName"] for each in answer["thingGroups"]]


@pytest.fixture
def tree(registry: Registry) -> None:
    """Lights over LightBulbs over RedLights and BlueLights, and Others beside them."""
    group(registry, "Lights")
    group(registry, "LightBulbs", "Lights")
    group(registry, "RedLights", "LightBulbs")
    group(registry, "BlueLights", "LightBulbs")
    group(registry, "Others")
    for thing in ("a", "b"):
        registry.call("CreateThing", thing_name=thing)


@pytest.mark.usefixtures("tree")
def test_a_group_is_described_with_its_path(registry: Registry) -> None:
    described = registry.call("DescribeThingGroup", thing_group_name="RedLights")
    del described["thingGroupId"]
    assert described == {
        "thingGroupName": "RedLights",
        "thingGroupArn": registry.arn("thinggroup/RedLights"),
        "version": 1,
        "thingGroupProperties": {
            "thingGroupDescription": None,
            "attributePayload": None,
        },
        "thingGroupMetadata": {
            "parentGroupName": "LightBulbs",
            "rootToParentThingGroups": [
                {"groupName": name, "groupArn": registry.arn(f"thinggroup/{name}")}
                for name in ("Lights", "LightBulbs")
            ],
            "creationDate": START,
        },
    }


PROPERTIES: dict[str, Any] = {
    "thingGroupDescription": "upstairs",
    "attributePayload": {"attributes": {"floor": "1"}},
}


def test_the_same_properties_again_are_the_same_group(registry: Registry) -> None:
    group(registry, "root")
    made = group(registry, "g", "root", thing_group_properties=PROPERTIES)
    assert group(registry, "g", "root", thing_group_properties=PROPERTIES) == made
    others: list[dict[str, Any]] = [
        {"thing_group_properties": PROPERTIES},
        {"parent": "root"},
        {"parent": "root", "thing_group_properties": {**PROPERTIES, "thingGroupDescription": "x"}},
    ]
    for other in others:
        with pytest.raises(ResourceAlreadyExistsException) as refused:
            group(registry, "g", **other)
        assert refused.value.message == (
            "Thing Group g already exists in current account with different properties"
        )
        assert refused.value.members["resourceId"] == made["thingGroupId"]


def test_a_group_is_updated_in_parts(registry: Registry) -> None:
    group(registry, "g", thing_group_properties=PROPERTIES)

    def update(expected: int | None = None, **properties: Any) -> Any:
        version = {} if expected is None else {"expected_version": expected}
        answer = registry.call(
            "UpdateThingGroup",
            thing_group_name="g",
            thing_group_properties=properties,
            **version,
        )
        described = registry.call("DescribeThingGroup", thing_group_name="g")
        assert answer == {"version": described["version"]}
        got = described["thingGroupProperties"]
        return (
            described["version"],
            got["thingGroupDescription"],
            got["attributePayload"]["attributes"],
        )

    merged = {"attributes": {"lit": "no"}, "merge": True}
    assert update(attributePayload=merged) == (2, "upstairs", {"floor": "1", "lit": "no"})
    removed = {"attributes": {"lit": ""}, "merge": True}
    assert update(2, attributePayload=removed) == (3, "upstairs", {"floor": "1"})
    assert update(attributePayload={"attributes": {"x": "1"}}) == (4, "upstairs", {"x": "1"})
    assert update(thingGroupDescription="down") == (5, "down", {"x": "1"})
    with pytest.raises(VersionConflictException) as refused:
        update(4, thingGroupDescription="stale")
    assert refused.value.message == (
        "The version for thing group g does not match the expected version: it is 5, not 4"
    )


def test_a_group_has_fifty_attributes_or_as_many_as_a_setting_says(registry: Registry) -> None:
    def properties(number: int) -> dict[str, Any]:
        attributes = {f"a{index}": "1" for index in range(number)}
        return {"attributePayload": {"attributes": attributes}}

    group(registry, "g", thing_group_properties=properties(50))
    with pytest.raises(InvalidRequestException, match="at most 50 attributes, not 51"):
        group(registry, "h", thing_group_properties=properties(51))
    registry.services.limits = replace(registry.services.limits, attributes_per_thing_group=1)
    with pytest.raises(InvalidRequestException, match="at most 1 attributes, not 2"):
        registry.call(
            "UpdateThingGroup", thing_group_name="g", thing_group_properties=properties(2)
        )


# Quotas: depth 7, 100 direct child groups. Guide: the parent has to be there.
def test_the_place_of_a_group_has_bounds(registry: Registry) -> None:
    parent = None
    for depth in range(1, 8):
        group(registry, f"g{depth}", parent)
        parent = f"g{depth}"
    with pytest.raises(InvalidRequestException, match="`g8` would be at depth 8"):
        group(registry, "g8", parent)
    with pytest.raises(InvalidRequestException, match="Parent thing group none not found"):
        group(registry, "g9", "none")
    registry.services.limits = replace(registry.services.limits, children_per_group=2)
    group(registry, "second", "g1")
    with pytest.raises(InvalidRequestException, match="3 direct child groups; the limit is 2"):
        group(registry, "third", "g1")


# --- deletion ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tree")
def test_a_group_with_children_is_not_deleted(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException) as refused:
        registry.call("DeleteThingGroup", thing_group_name="LightBulbs")
    assert refused.value.message == (
        "Cannot delete thing group : LightBulbs when there are still child groups attached to it"
    )
    with pytest.raises(VersionConflictException):
        registry.call("DeleteThingGroup", thing_group_name="RedLights", expected_version=2)
    for name in ("RedLights", "RedLights", "BlueLights", "LightBulbs", "Lights"):
        registry.call("DeleteThingGroup", thing_group_name=name)
    with pytest.raises(ResourceNotFoundException, match="Thing group Lights not found"):
        registry.call("DescribeThingGroup", thing_group_name="Lights")


# Guide: "You can delete a group that has child things, but any permissions granted to the
# things by membership in the group no longer apply."
@pytest.mark.usefixtures("tree")
def test_a_deleted_group_takes_its_members_and_policies_along(registry: Registry) -> None:
    registry.call("AddThingToThingGroup", thing_group_name="Others", thing_name="a")
    registry.call("CreatePolicy", policy_name="p", policy_document=ALLOW)
    registry.call("AttachPolicy", policy_name="p", target=registry.arn("thinggroup/Others"))
    epoch = registry.services.policy_epoch
    registry.call("DeleteThingGroup", thing_group_name="Others")
    assert registry.services.policy_epoch > epoch
    assert registry.call("ListTargetsForPolicy", policy_name="p")["targets"] == []
    assert names(registry.call("ListThingGroupsForThing", thing_name="a")) == []
    group(registry, "Others")
    assert registry.call("ListThingsInThingGroup", thing_group_name="Others")["things"] == []


# --- listings ----------------------------------------------------------------------------------


# Guide, "List thing groups": without filters all groups; of a parent the direct children, or
# all below with --recursive.
@pytest.mark.parametrize(
    ("narrowed", "found"),
    [
        ({}, ["BlueLights", "LightBulbs", "Lights", "Others", "RedLights"]),
        ({"recursive": True}, ["BlueLights", "LightBulbs", "Lights", "Others", "RedLights"]),
        ({"recursive": False}, ["Lights", "Others"]),
        ({"parent_group": "Lights"}, ["LightBulbs"]),
        ({"parent_group": "Lights", "recursive": False}, ["LightBulbs"]),
        (
            {"parent_group": "Lights", "recursive": True},
            ["BlueLights", "LightBulbs", "RedLights"],
        ),
        ({"parent_group": "RedLights"}, []),
        ({"name_prefix_filter": "Light"}, ["LightBulbs", "Lights"]),
        ({"name_prefix_filter": "light"}, []),
        ({"name_prefix_filter": "B", "parent_group": "Lights", "recursive": True}, ["BlueLights"]),
    ],
)
@pytest.mark.usefixtures("tree")
def test_groups_are_listed_by_place_and_prefix(
    registry: Registry, narrowed: dict[str, Any], found: list[str]
) -> None:
    assert names(registry.call("ListThingGroups", **narrowed)) == found


def test_groups_below_an_unknown_parent_are_not_listed(registry: Registry) -> None:
    with pytest.raises(ResourceNotFoundException, match="Thing group none not found"):
        registry.call("ListThingGroups", parent_group="none")


# Guide, "List groups for a thing": "including any parent groups".
@pytest.mark.usefixtures("tree")
def test_the_groups_of_a_thing_are_listed_with_those_above(registry: Registry) -> None:
    for name in ("RedLights", "Others"):
        registry.call("AddThingToThingGroup", thing_group_name=name, thing_name="a")
    listed = registry.call("ListThingGroupsForThing", thing_name="a")
    assert names(listed) == ["LightBulbs", "Lights", "Others", "RedLights"]
    first = registry.call("ListThingGroupsForThing", thing_name="a", max_results=3)
    rest = registry.call("ListThingGroupsForThing", thing_name="a", next_token=first["nextToken"])
    assert (names(first), names(rest)) == (names(listed)[:3], ["RedLights"])


@pytest.mark.usefixtures("tree")
def test_the_things_of_a_group_are_listed_with_those_below(registry: Registry) -> None:
    registry.call("AddThingToThingGroup", thing_group_name="RedLights", thing_name="b")
    registry.call("AddThingToThingGroup", thing_group_name="LightBulbs", thing_name="a")

    def things(name: str, **more: bool) -> Any:
        return registry.call("ListThingsInThingGroup", thing_group_name=name, **more)["things"]

    assert things("Lights") == []
    assert things("LightBulbs") == ["a"]
    assert things("Lights", recursive=True) == ["a", "b"]
    assert things("RedLights", recursive=True) == ["b"]


# --- membership --------------------------------------------------------------------------------


# Guide, "Add a thing to a static thing group": not in two groups of one hierarchy.
@pytest.mark.parametrize("other", ["Lights", "LightBulbs", "BlueLights"])
@pytest.mark.usefixtures("tree")
def test_a_thing_is_in_one_group_of_a_hierarchy(registry: Registry, other: str) -> None:
    registry.call("AddThingToThingGroup", thing_group_name="RedLights", thing_name="a")
    registry.call("AddThingToThingGroup", thing_group_name="RedLights", thing_name="a")
    with pytest.raises(
        InvalidRequestException, match="in more than one group in the same hierarchy"
    ):
        registry.call("AddThingToThingGroup", thing_group_name=other, thing_name="a")
    registry.call(
        "UpdateThingGroupsForThing",
        thing_name="a",
        thing_groups_to_add=[other],
        thing_groups_to_remove=["RedLights"],
    )
    assert registry.call("ListThingsInThingGroup", thing_group_name=other)["things"] == ["a"]


# Quotas: 10 groups per thing.
def test_a_thing_is_in_ten_groups_or_as_many_as_a_setting_says(registry: Registry) -> None:
    registry.call("CreateThing", thing_name="a")
    for number in range(11):
        group(registry, f"g{number}")
    added = [f"g{number}" for number in range(10)]
    registry.call("UpdateThingGroupsForThing", thing_name="a", thing_groups_to_add=added)
    with pytest.raises(InvalidRequestException, match="in 11 thing groups; the limit is 10"):
        registry.call("AddThingToThingGroup", thing_group_name="g10", thing_name="a")
    registry.services.limits = replace(registry.services.limits, groups_per_thing=11)
    registry.call("AddThingToThingGroup", thing_group_name="g10", thing_name="a")


@pytest.mark.usefixtures("tree")
def test_an_update_of_memberships_is_all_or_nothing(registry: Registry) -> None:
    def update(**changes: Any) -> None:
        registry.call("UpdateThingGroupsForThing", **changes)

    update(thing_name="a", thing_groups_to_add=["RedLights", "Others"])
    for changes, message in (
        ({"thing_name": "none", "thing_groups_to_add": ["Others"]}, "Thing none not found"),
        (
            {"thing_name": "a", "thing_groups_to_add": ["none"]},
            "Thing group none not found",
        ),
        (
            {"thing_name": "a", "thing_groups_to_remove": ["Others", "none"]},
            "Thing group none not found",
        ),
    ):
        with pytest.raises(ResourceNotFoundException, match=message):
            update(**changes)
    with pytest.raises(InvalidRequestException, match="thingName is required"):
        update(thing_groups_to_add=["Others"])
    with pytest.raises(InvalidRequestException, match="same hierarchy"):
        update(
            thing_name="a",
            thing_groups_to_remove=["Others"],
            thing_groups_to_add=["BlueLights"],
        )
    members = registry.call("ListThingsInThingGroup", thing_group_name="Others")["things"]
    assert members == ["a"]
    update(thing_name="a")
    update(
        thing_name="a",
        thing_groups_to_remove=["Others", "BlueLights"],
        override_dynamic_groups=True,
    )
    listed = registry.call("ListThingGroupsForThing", thing_name="a")
    assert names(listed) == ["LightBulbs", "Lights", "RedLights"]


@pytest.mark.parametrize("operation", ["AddThingToThingGroup", "RemoveThingFromThingGroup"])
@pytest.mark.usefixtures("tree")
def test_thing_and_group_are_named_by_name_or_arn(registry: Registry, operation: str) -> None:
    group_arn, thing_arn = registry.arn("thinggroup/Others"), registry.arn("thing/a")
    for members in (
        {"thing_group_name": "Others", "thing_name": "a"},
        {"thing_group_arn": group_arn, "thing_arn": thing_arn},
        {"thing_group_name": "Others", "thing_group_arn": group_arn, "thing_name": "a"},
    ):
        assert registry.call(operation, **members) == {}
    for members, message in (
        (
            {"thing_name": "a"},
            "Both thingGroupArn and thingGroupName are empty. Need to specify at least one of them",
        ),
        (
            {"thing_group_name": "Others"},
            "Both thingArn and thingName are empty. Need to specify at least one of them",
        ),
        (
            {"thing_group_name": "Lights", "thing_group_arn": group_arn, "thing_name": "a"},
            f"thingGroupArn {group_arn} does not match specified thingGroupName Lights in request",
        ),
        (
            {"thing_group_name": "Others", "thing_arn": group_arn},
            f"thingArn `{group_arn}` is not an ARN of the form {registry.arn('thing/')}NAME",
        ),
    ):
        with pytest.raises(InvalidRequestException) as refused:
            registry.call(operation, **members)
        assert refused.value.message == message
    for members in (
        {"thing_group_name": "none", "thing_name": "a"},
        {"thing_group_name": "Others", "thing_name": "none"},
    ):
        with pytest.raises(ResourceNotFoundException, match="none not found"):
            registry.call(operation, **members)


@pytest.mark.parametrize(
    "operation",
    ["CreateDynamicThingGroup", "UpdateDynamicThingGroup", "DeleteDynamicThingGroup"],
)
def test_dynamic_thing_groups_are_refused_with_the_reason(
    registry: Registry, operation: str
) -> None:
    with pytest.raises(NotImplementedException, match="fleet indexing"):
        registry.call(operation, thing_group_name="g", query_string="*")


def test_additions_at_once_keep_to_the_limit(registry: Registry) -> None:
    registry.services.limits = replace(registry.services.limits, groups_per_thing=2)
    registry.call("CreateThing", thing_name="a")
    for number in range(5):
        group(registry, f"g{number}")

    async def race() -> list[Any]:
        additions = [
            registry.start(
                "iot",
                "AddThingToThingGroup",
                {"thing_group_name": f"g{number}", "thing_name": "a"},
            )
            for number in range(5)
        ]
        return list(await asyncio.gather(*additions, return_exceptions=True))

    outcomes = registry.runner.run(race())
    refused = [outcome for outcome in outcomes if outcome != {}]
    assert [type(outcome) for outcome in refused] == [InvalidRequestException] * 3
    assert len(names(registry.call("ListThingGroupsForThing", thing_name="a"))) == 2
