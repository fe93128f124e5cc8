"""Billing groups and the things in them.

Sources: AWS IoT API reference (CreateBillingGroup, UpdateBillingGroup, AddThingToBillingGroup,
...), AWS IoT Developer Guide, "Billing groups".
"""

from typing import Any

import pytest

from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionConflictException,
)
from tests.operations.conftest import START, Registry

PROPERTIES = {"billingGroupDescription": "upstairs"}


def things(registry: Registry, name: str, **more: Any) -> Any:
    return registry.call("ListThingsInBillingGroup", billing_group_name=name, **more)["things"]


@pytest.fixture
def house(registry: Registry) -> str:
    registry.call(
        "CreateBillingGroup", billing_group_name="house", billing_group_properties=PROPERTIES
    )
    for name in ("a", "b", "c"):
        registry.call("CreateThing", thing_name=name)
    return "house"


def test_a_billing_group_lives_and_dies(registry: Registry, house: str) -> None:
    described = registry.call("DescribeBillingGroup", billing_group_name=house)
    group_id = described.pop("billingGroupId")
    assert described == {
        "billingGroupName": house,
        "billingGroupArn": registry.arn("billinggroup/house"),
        "version": 1,
        "billingGroupProperties": PROPERTIES,
        "billingGroupMetadata": {"creationDate": START},
    }
    again = registry.call(
        "CreateBillingGroup", billing_group_name=house, billing_group_properties=PROPERTIES
    )
    assert again["billingGroupId"] == group_id
    with pytest.raises(ResourceAlreadyExistsException) as refused:
        registry.call("CreateBillingGroup", billing_group_name=house)
    assert refused.value.members == {
        "resourceId": group_id,
        "resourceArn": registry.arn("billinggroup/house"),
    }
    update: dict[str, Any] = {
        "billing_group_name": house,
        "billing_group_properties": {"billingGroupDescription": "x"},
    }
    assert registry.call("UpdateBillingGroup", **update, expected_version=1) == {"version": 2}
    with pytest.raises(VersionConflictException) as conflict:
        registry.call("UpdateBillingGroup", **update, expected_version=1)
    assert conflict.value.message == (
        "The version for billing group house does not match the expected version: it is 2, not 1"
    )
    with pytest.raises(VersionConflictException):
        registry.call("DeleteBillingGroup", billing_group_name=house, expected_version=1)
    for _ in range(2):  # DeleteBillingGroup declares no ResourceNotFoundException
        registry.call("DeleteBillingGroup", billing_group_name=house, expected_version=2)
    for operation, more in (
        ("DescribeBillingGroup", {}),
        ("UpdateBillingGroup", {"billing_group_properties": {}}),
        ("ListThingsInBillingGroup", {}),
        ("AddThingToBillingGroup", {"thing_name": "a"}),
        ("RemoveThingFromBillingGroup", {"thing_name": "a"}),
    ):
        with pytest.raises(ResourceNotFoundException, match="Billing group house not found"):
            registry.call(operation, billing_group_name=house, **more)


def test_things_come_and_go(registry: Registry, house: str) -> None:
    by_arn = {
        "billing_group_arn": registry.arn("billinggroup/house"),
        "thing_arn": registry.arn("thing/b"),
    }
    for _ in range(2):
        registry.call("AddThingToBillingGroup", billing_group_name=house, thing_name="a")
        registry.call("AddThingToBillingGroup", **by_arn)
    registry.call("CreateThing", thing_name="d", billing_group_name=house)
    assert things(registry, house) == ["a", "b", "d"]
    first = registry.call("ListThingsInBillingGroup", billing_group_name=house, max_results=2)
    assert first["things"] == ["a", "b"]
    assert things(registry, house, next_token=first["nextToken"]) == ["d"]
    described = registry.call("DescribeThing", thing_name="a")
    assert (described["billingGroupName"], described["version"]) == (house, 1)
    for _ in range(2):
        registry.call("RemoveThingFromBillingGroup", billing_group_name=house, thing_name="a")
        registry.call("RemoveThingFromBillingGroup", **by_arn)
    assert things(registry, house) == ["d"]
    registry.call("DeleteBillingGroup", billing_group_name=house)
    assert registry.call("DescribeThing", thing_name="d")["billingGroupName"] is None


# Developer Guide, "Billing groups": a thing can belong to exactly one billing group.
def test_a_thing_is_in_one_billing_group(registry: Registry, house: str) -> None:
    registry.call("CreateBillingGroup", billing_group_name="garden")
    registry.call("AddThingToBillingGroup", billing_group_name=house, thing_name="a")
    with pytest.raises(InvalidRequestException, match="a is in billing group house and cannot"):
        registry.call("AddThingToBillingGroup", billing_group_name="garden", thing_name="a")
    registry.call("RemoveThingFromBillingGroup", billing_group_name="garden", thing_name="a")
    assert things(registry, house) == ["a"]


@pytest.mark.parametrize("operation", ["AddThingToBillingGroup", "RemoveThingFromBillingGroup"])
def test_a_thing_and_a_group_are_needed(registry: Registry, house: str, operation: str) -> None:
    for members, message in (
        ({"thing_name": "a"}, "Both billingGroupArn and billingGroupName are empty"),
        ({"billing_group_name": house}, "Both thingArn and thingName are empty"),
        (
            {"billing_group_name": house, "thing_name": "a", "thing_arn": registry.arn("thing/b")},
            "does not match specified thingName a",
        ),
    ):
        with pytest.raises(InvalidRequestException, match=message):
            registry.call(operation, **members)
    with pytest.raises(ResourceNotFoundException, match="Thing none not found"):
        registry.call(operation, billing_group_name=house, thing_name="none")


def test_billing_groups_are_listed_by_name_and_prefix(registry: Registry) -> None:
    for name in ("house-1", "garden", "house", "House", "house-2"):
        registry.call("CreateBillingGroup", billing_group_name=name)

    def listed(**more: Any) -> list[str]:
        answer = registry.call("ListBillingGroups", **more)
        for each in answer["billingGroups"]:
            assert each["groupArn"] == registry.arn(f"billinggroup/{each['groupName']}")
        return [each["groupName"] for each in answer["billingGroups"]]

    assert listed() == ["House", "garden", "house", "house-1", "house-2"]
    assert listed(name_prefix_filter="house") == ["house", "house-1", "house-2"]
    assert listed(name_prefix_filter="house-2") == ["house-2"]
    assert listed(name_prefix_filter="x") == []
    first = registry.call("ListBillingGroups", max_results=1, name_prefix_filter="house")
    rest = listed(name_prefix_filter="house", next_token=first["nextToken"])
    assert rest == ["house-1", "house-2"]
