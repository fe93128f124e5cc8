"""Thing types: properties, deprecation, deletion.

Sources: AWS IoT API reference (CreateThingType, UpdateThingType, DeleteThingType), AWS IoT
Developer Guide, "Thing types" and "Adding propagating attributes for message enrichment".
"""

from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from tests.operations.conftest import START, Registry

ENRICHED = {
    "propagatingAttributes": [
        {"userPropertyKey": "iot:ClientId", "connectionAttribute": "iot:ClientId"},
        {"userPropertyKey": "test", "thingAttribute": "A"},
    ]
}
PROPERTIES: dict[str, Any] = {
    "thingTypeDescription": "lamps",
    "searchableAttributes": ["wattage", "model"],
    "mqtt5Configuration": ENRICHED,
}


def described(registry: Registry, name: str = "lamp") -> Any:
    return registry.call("DescribeThingType", thing_type_name=name)


def test_a_thing_type_is_described_with_its_properties(registry: Registry) -> None:
    made = registry.call(
        "CreateThingType", thing_type_name="lamp", thing_type_properties=PROPERTIES
    )
    assert described(registry) == {
        **made,
        "thingTypeProperties": PROPERTIES,
        "thingTypeMetadata": {
            "deprecated": False,
            "deprecationDate": None,
            "creationDate": START,
        },
    }
    again = registry.call(
        "CreateThingType", thing_type_name="lamp", thing_type_properties=PROPERTIES
    )
    assert again == made
    [listed] = registry.call("ListThingTypes", thing_type_name="lamp")["thingTypes"]
    assert listed["thingTypeProperties"] == PROPERTIES
    assert registry.call("ListThingTypes", thing_type_name="lam")["thingTypes"] == []


@pytest.mark.parametrize("member", list(PROPERTIES))
def test_other_properties_of_the_same_name_are_refused(registry: Registry, member: str) -> None:
    made = registry.call(
        "CreateThingType", thing_type_name="lamp", thing_type_properties=PROPERTIES
    )
    other = {key: value for key, value in PROPERTIES.items() if key != member}
    with pytest.raises(ResourceAlreadyExistsException) as refused:
        registry.call("CreateThingType", thing_type_name="lamp", thing_type_properties=other)
    assert refused.value.members == {
        "resourceId": made["thingTypeId"],
        "resourceArn": registry.arn("thingtype/lamp"),
    }


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"searchableAttributes": ["a", "b", "c", "d"]}, "at most 3 searchable attributes"),
        ({"searchableAttributes": ["a", "a"]}, "`a` is given twice"),
        (
            {"mqtt5Configuration": {"propagatingAttributes": [{"userPropertyKey": "k"}]}},
            "either a thingAttribute or a connectionAttribute",
        ),
        (
            {
                "mqtt5Configuration": {
                    "propagatingAttributes": [
                        {
                            "userPropertyKey": "k",
                            "thingAttribute": "a",
                            "connectionAttribute": "iot:ClientId",
                        }
                    ]
                }
            },
            "either a thingAttribute or a connectionAttribute",
        ),
        (
            {"mqtt5Configuration": {"propagatingAttributes": [{"thingAttribute": "a"}]}},
            "has no userPropertyKey",
        ),
        (
            {
                "mqtt5Configuration": {
                    "propagatingAttributes": [
                        {"userPropertyKey": "k", "thingAttribute": "a"},
                        {"userPropertyKey": "k", "thingAttribute": "b"},
                    ]
                }
            },
            "userPropertyKey `k` is given twice",
        ),
    ],
)
def test_properties_that_break_a_rule_are_refused(
    registry: Registry, properties: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestException, match=message):
        registry.call("CreateThingType", thing_type_name="lamp", thing_type_properties=properties)


def test_the_number_of_searchable_attributes_is_a_setting(registry: Registry) -> None:
    registry.services.limits = replace(registry.services.limits, searchable_attributes=1)
    with pytest.raises(InvalidRequestException, match="at most 1 searchable attributes, not 2"):
        registry.call(
            "CreateThingType",
            thing_type_name="lamp",
            thing_type_properties={"searchableAttributes": ["a", "b"]},
        )


# Developer Guide, "Adding propagating attributes": "you can only update mqtt5Configuration".
def test_an_update_changes_the_mqtt_5_configuration_alone(registry: Registry) -> None:
    plain = {key: PROPERTIES[key] for key in ("thingTypeDescription", "searchableAttributes")}
    registry.call("CreateThingType", thing_type_name="lamp", thing_type_properties=plain)

    def update(**properties: Any) -> Any:
        registry.call("UpdateThingType", thing_type_name="lamp", thing_type_properties=properties)
        return described(registry)["thingTypeProperties"]

    assert update(mqtt5Configuration=ENRICHED) == PROPERTIES
    assert update(**plain) == PROPERTIES
    assert update(mqtt5Configuration={"propagatingAttributes": []}) == {
        **plain,
        "mqtt5Configuration": {"propagatingAttributes": []},
    }
    for change in ({"thingTypeDescription": "x"}, {"searchableAttributes": ["wattage"]}):
        with pytest.raises(InvalidRequestException, match="only mqtt5Configuration can be"):
            update(**change)
    registry.call("UpdateThingType", thing_type_name="lamp")
    with pytest.raises(ResourceNotFoundException, match="Thing type none not found"):
        registry.call("UpdateThingType", thing_type_name="none")


# Developer Guide, "Delete a thing type": five minutes after its deprecation.
def test_a_thing_type_can_be_deleted_five_minutes_after_its_deprecation(
    registry: Registry,
) -> None:
    def delete() -> None:
        registry.call("DeleteThingType", thing_type_name="lamp")

    registry.call("CreateThingType", thing_type_name="lamp")
    with pytest.raises(InvalidRequestException, match="Please deprecate it first"):
        delete()
    registry.call("DeprecateThingType", thing_type_name="lamp")
    registry.clock.now = START + 299
    registry.call("DeprecateThingType", thing_type_name="lamp")
    assert described(registry)["thingTypeMetadata"]["deprecationDate"] == START
    with pytest.raises(InvalidRequestException) as refused:
        delete()
    assert refused.value.message == (
        "Cannot delete thing type : lamp. "
        "Please wait for 5 minutes after deprecation and then retry"
    )
    registry.clock.now = START + 300
    delete()
    for operation in ("DescribeThingType", "DeleteThingType", "DeprecateThingType"):
        with pytest.raises(ResourceNotFoundException, match="Thing type lamp not found"):
            registry.call(operation, thing_type_name="lamp")


def test_a_deprecation_taken_back_starts_the_wait_anew(registry: Registry) -> None:
    registry.call("CreateThingType", thing_type_name="lamp")
    registry.call("DeprecateThingType", thing_type_name="lamp")
    registry.call("DeprecateThingType", thing_type_name="lamp", undo_deprecate=True)
    assert described(registry)["thingTypeMetadata"]["deprecated"] is False
    registry.clock.now = START + 300
    with pytest.raises(InvalidRequestException, match="deprecate it first"):
        registry.call("DeleteThingType", thing_type_name="lamp")
    registry.call("DeprecateThingType", thing_type_name="lamp")
    assert described(registry)["thingTypeMetadata"]["deprecationDate"] == START + 300
    with pytest.raises(InvalidRequestException, match="Please wait for 5 minutes"):
        registry.call("DeleteThingType", thing_type_name="lamp")


def test_a_thing_type_in_use_is_not_deleted(registry: Registry) -> None:
    registry.call("CreateThingType", thing_type_name="lamp")
    registry.call("CreateThing", thing_name="a", thing_type_name="lamp")
    registry.call("DeprecateThingType", thing_type_name="lamp")
    registry.clock.now = START + 301
    with pytest.raises(InvalidRequestException, match="still associated with one or more things"):
        registry.call("DeleteThingType", thing_type_name="lamp")
    registry.call("UpdateThing", thing_name="a", remove_thing_type=True)
    registry.call("DeleteThingType", thing_type_name="lamp")
