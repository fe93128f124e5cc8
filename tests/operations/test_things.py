"""Things: configuration, versions, attributes, listings.

Sources: AWS IoT API reference (CreateThing, UpdateThing, DeleteThing, ListThings), AWS IoT
Developer Guide, "How to manage things with the registry"; messages as quoted in public reports
of AWS's answers.
"""

from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionConflictException,
)
from tests.operations.conftest import Registry


def attributes(**values: str) -> dict[str, Any]:
    return {"attributes": values}


def count(number: int) -> dict[str, Any]:
    return {"attributes": {f"a{index}": "1" for index in range(number)}}


def names(answer: dict[str, Any]) -> list[str]:
    return [thing["thingName"] for thing in answer["things"]]


@pytest.fixture
def lamp(registry: Registry) -> str:
    """A thing with a type, an attribute and a billing group."""
    registry.call("CreateThingType", thing_type_name="lamp")
    registry.call("CreateBillingGroup", billing_group_name="house")
    registry.call(
        "CreateThing",
        thing_name="a",
        thing_type_name="lamp",
        attribute_payload=attributes(colour="red"),
        billing_group_name="house",
    )
    return "a"


def test_a_thing_is_described_with_all_it_has(registry: Registry, lamp: str) -> None:
    described = registry.call("DescribeThing", thing_name=lamp)
    thing_id = described.pop("thingId")
    assert described == {
        "defaultClientId": "a",
        "thingName": "a",
        "thingArn": registry.arn("thing/a"),
        "thingTypeName": "lamp",
        "attributes": {"colour": "red"},
        "version": 1,
        "billingGroupName": "house",
    }
    assert len(thing_id) == 36


SAME: dict[str, Any] = {
    "thing_name": "a",
    "thing_type_name": "lamp",
    "attribute_payload": attributes(colour="red"),
    "billing_group_name": "house",
}


def test_the_same_configuration_again_is_the_same_thing(registry: Registry, lamp: str) -> None:
    again = registry.call("CreateThing", **SAME)
    assert again["thingId"] == registry.call("DescribeThing", thing_name=lamp)["thingId"]
    registry.call("DeprecateThingType", thing_type_name="lamp")
    assert registry.call("CreateThing", **SAME) == again


@pytest.mark.parametrize(
    "other",
    [
        {"thing_type_name": None},
        {"billing_group_name": None},
        {"attribute_payload": attributes(colour="blue")},
        {"attribute_payload": attributes(colour="red", size="1")},
        {"attribute_payload": None},
    ],
)
def test_another_configuration_of_the_same_name_is_refused(
    registry: Registry, lamp: str, other: dict[str, Any]
) -> None:
    wanted = {key: value for key, value in {**SAME, **other}.items() if value is not None}
    with pytest.raises(ResourceAlreadyExistsException) as refused:
        registry.call("CreateThing", **wanted)
    assert refused.value.message == "Thing a already exists in account with different attributes"
    described = registry.call("DescribeThing", thing_name=lamp)
    assert refused.value.members == {
        "resourceId": described["thingId"],
        "resourceArn": described["thingArn"],
    }
    assert described["attributes"] == {"colour": "red"}


@pytest.mark.parametrize(
    ("refers_to", "message"),
    [
        ({"thing_type_name": "none"}, "Thing type none not found"),
        ({"billing_group_name": "none"}, "Billing group none not found"),
    ],
)
def test_what_a_new_thing_refers_to_has_to_exist(
    registry: Registry, refers_to: dict[str, str], message: str
) -> None:
    with pytest.raises(ResourceNotFoundException, match=message):
        registry.call("CreateThing", thing_name="a", **refers_to)
    with pytest.raises(ResourceNotFoundException, match="Thing a not found"):
        registry.call("DescribeThing", thing_name="a")


def test_no_thing_is_given_a_deprecated_type_but_one_may_keep_it(
    registry: Registry, lamp: str
) -> None:
    registry.call("DeprecateThingType", thing_type_name="lamp")
    registry.call("CreateThing", thing_name="b")
    with pytest.raises(InvalidRequestException) as refused:
        registry.call("CreateThing", thing_name="c", thing_type_name="lamp")
    # the misspelling is AWS's
    assert refused.value.message == "Can not create new thing with depreated thing type:lamp"
    with pytest.raises(InvalidRequestException) as refused:
        registry.call("UpdateThing", thing_name="b", thing_type_name="lamp")
    assert refused.value.message == "Can not update a thing to use deprecated thing type: lamp"
    registry.call(
        "UpdateThing",
        thing_name=lamp,
        thing_type_name="lamp",
        attribute_payload=attributes(colour="blue"),
    )
    assert registry.call("DescribeThing", thing_name=lamp)["attributes"] == {"colour": "blue"}


# Developer Guide, "Thing types": 3 attributes without a thing type, 50 with one.
def test_a_thing_has_three_attributes_without_a_type_and_fifty_with_one(
    registry: Registry,
) -> None:
    registry.call("CreateThing", thing_name="a", attribute_payload=count(3))
    with pytest.raises(InvalidRequestException, match="at most 3 attributes"):
        registry.call("UpdateThing", thing_name="a", attribute_payload=count(4))
    registry.call("CreateThingType", thing_type_name="lamp")
    update = {"thing_name": "a", "thing_type_name": "lamp"}
    registry.call("UpdateThing", **update, attribute_payload=count(50))
    with pytest.raises(InvalidRequestException, match="at most 50 attributes"):
        registry.call("UpdateThing", **update, attribute_payload=count(51))
    with pytest.raises(InvalidRequestException, match="at most 3 attributes"):
        registry.call("UpdateThing", thing_name="a", remove_thing_type=True)


def test_the_number_of_attributes_is_a_setting(registry: Registry) -> None:
    registry.services.limits = replace(registry.services.limits, attributes_without_type=4)
    registry.call("CreateThing", thing_name="a", attribute_payload=count(4))
    with pytest.raises(InvalidRequestException, match="at most 4 attributes"):
        registry.call("CreateThing", thing_name="b", attribute_payload=count(5))


# API reference, AttributePayload: merge lays over; an empty value removes.
def test_attributes_merge_and_an_empty_value_deletes(registry: Registry) -> None:
    def updated(given: dict[str, str], *, merge: bool) -> Any:
        payload = {"attributes": given, "merge": merge}
        registry.call("UpdateThing", thing_name="a", attribute_payload=payload)
        return registry.call("DescribeThing", thing_name="a")["attributes"]

    registry.call("CreateThing", thing_name="a", attribute_payload=attributes(x="1"))
    assert updated({"y": "2"}, merge=True) == {"x": "1", "y": "2"}
    assert updated({"x": ""}, merge=True) == {"y": "2"}
    assert updated({"z": "3"}, merge=False) == {"z": "3"}
    assert names(registry.call("ListThings", attribute_name="z", attribute_value="3")) == ["a"]
    assert names(registry.call("ListThings", attribute_name="y", attribute_value="2")) == []


def test_what_is_left_out_of_an_update_stays(registry: Registry, lamp: str) -> None:
    registry.call("UpdateThing", thing_name=lamp)
    described = registry.call("DescribeThing", thing_name=lamp)
    assert (described["thingTypeName"], described["attributes"], described["version"]) == (
        "lamp",
        {"colour": "red"},
        2,
    )
    assert described["billingGroupName"] == "house"
    registry.call("UpdateThing", thing_name=lamp, remove_thing_type=True)
    assert registry.call("DescribeThing", thing_name=lamp)["thingTypeName"] is None
    with pytest.raises(InvalidRequestException, match="may not be given together"):
        registry.call(
            "UpdateThing", thing_name=lamp, remove_thing_type=True, thing_type_name="lamp"
        )


# API reference, UpdateThing and DeleteThing, expectedVersion.
def test_an_expected_version_that_is_not_the_version_changes_nothing(registry: Registry) -> None:
    registry.call("CreateThing", thing_name="a")
    for operation in ("UpdateThing", "DeleteThing"):
        with pytest.raises(VersionConflictException) as refused:
            registry.call(operation, thing_name="a", expected_version=2)
        assert refused.value.message == (
            "The version for thing a does not match the expected version: it is 1, not 2"
        )
    registry.call("UpdateThing", thing_name="a", expected_version=1)
    registry.call("DeleteThing", thing_name="a", expected_version=2)
    registry.call("DeleteThing", thing_name="a", expected_version=2)


def test_a_thing_with_principals_is_not_deleted(registry: Registry, lamp: str) -> None:
    principal = registry.certificate()["certificateArn"]
    registry.call("AttachThingPrincipal", thing_name=lamp, principal=principal)
    with pytest.raises(InvalidRequestException) as refused:
        registry.call("DeleteThing", thing_name=lamp)
    assert refused.value.message == (
        "Cannot delete. Thing a is still attached to one or more principals"
    )
    registry.call("DetachThingPrincipal", thing_name=lamp, principal=principal)
    registry.call("CreateThingGroup", thing_group_name="g")
    registry.call("AddThingToThingGroup", thing_group_name="g", thing_name=lamp)
    registry.call("DeleteThing", thing_name=lamp)
    assert registry.call("ListThingsInThingGroup", thing_group_name="g")["things"] == []
    assert registry.call("ListThingsInBillingGroup", billing_group_name="house")["things"] == []
    assert names(registry.call("ListThings", attribute_name="colour", attribute_value="red")) == []


# --- listings ----------------------------------------------------------------------------------


@pytest.fixture
def fleet(registry: Registry) -> None:
    registry.call("CreateThingType", thing_type_name="lamp")
    for index, value in enumerate(["red", "redder", "rec", "blue", "re"]):
        kind = {"thing_type_name": "lamp"} if index % 2 == 0 else {}
        registry.call(
            "CreateThing",
            thing_name=f"t{index}",
            attribute_payload=attributes(colour=value, other="red"),
            **kind,
        )
    registry.call("CreateThing", thing_name="bare")


# API reference, ListThings: usePrefixAttributeValue.
@pytest.mark.parametrize(
    ("narrowed", "found"),
    [
        ({}, ["bare", "t0", "t1", "t2", "t3", "t4"]),
        ({"thing_type_name": "lamp"}, ["t0", "t2", "t4"]),
        ({"thing_type_name": "none"}, []),
        ({"attribute_name": "colour", "attribute_value": "red"}, ["t0"]),
        ({"attribute_name": "colour", "attribute_value": "RED"}, []),
        ({"attribute_name": "none", "attribute_value": "red"}, []),
        (
            {
                "attribute_name": "colour",
                "attribute_value": "red",
                "use_prefix_attribute_value": True,
            },
            ["t0", "t1"],
        ),
        (
            {
                "attribute_name": "colour",
                "attribute_value": "",
                "use_prefix_attribute_value": True,
            },
            ["t0", "t1", "t2", "t3", "t4"],
        ),
        (
            {
                "attribute_name": "colour",
                "attribute_value": "re",
                "use_prefix_attribute_value": True,
                "thing_type_name": "lamp",
            },
            ["t0", "t2", "t4"],
        ),
    ],
)
@pytest.mark.usefixtures("fleet")
def test_things_are_listed_by_what_they_are(
    registry: Registry, narrowed: dict[str, Any], found: list[str]
) -> None:
    assert names(registry.call("ListThings", **narrowed)) == found
    paged: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = registry.call("ListThings", max_results=2, **narrowed, **token)
        paged += names(page)
        if page["nextToken"] is None:
            break
        token = {"next_token": page["nextToken"]}
    assert paged == found


@pytest.mark.parametrize("half", [{"attribute_name": "a"}, {"attribute_value": "a"}])
def test_attribute_name_and_value_go_together(registry: Registry, half: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestException, match="is missing"):
        registry.call("ListThings", **half)


@pytest.mark.usefixtures("fleet")
def test_a_listing_goes_on_where_it_was_whatever_is_written_meanwhile(registry: Registry) -> None:
    first = registry.call("ListThings", max_results=2)
    assert names(first) == ["bare", "t0"]
    registry.call("DeleteThing", thing_name="t0")
    registry.call("DeleteThing", thing_name="t2")
    for name in ("a", "t00", "t9"):
        registry.call("CreateThing", thing_name=name)
    rest = registry.call("ListThings", next_token=first["nextToken"])
    assert names(rest) == ["t00", "t1", "t3", "t4", "t9"]


def test_only_a_change_of_an_attached_thing_makes_compiled_policies_stale(
    registry: Registry,
) -> None:
    epoch = registry.services.policy_epoch
    registry.call("CreateThing", thing_name="a")
    registry.call("DescribeThing", thing_name="a")
    assert registry.services.policy_epoch == epoch
    registry.call("UpdateThing", thing_name="a", attribute_payload=attributes(x="1"))
    registry.call("DeleteThing", thing_name="a")
    assert registry.services.policy_epoch == epoch
    registry.call("CreateThing", thing_name="b")
    principal = registry.certificate()["certificateArn"]
    registry.call("AttachThingPrincipal", thing_name="b", principal=principal)
    epoch = registry.services.policy_epoch
    registry.call("UpdateThing", thing_name="b", attribute_payload=attributes(x="1"))
    assert registry.services.policy_epoch > epoch
