"""Billing groups through boto3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.fleet import arn
from tests.integration.refusal import everything, members, pages, refusal


def test_a_billing_group_lives_and_dies(iot: Any, name: str) -> None:
    properties = {"billingGroupDescription": "the house"}
    created = members(
        iot.create_billing_group(
            billingGroupName=name,
            billingGroupProperties=properties,
            tags=[{"Key": "cost-center", "Value": "7"}],
        )
    )
    id_ = created.pop("billingGroupId")
    assert created == {"billingGroupName": name, "billingGroupArn": arn(f"billinggroup/{name}")}
    described = members(iot.describe_billing_group(billingGroupName=name))
    made = described.pop("billingGroupMetadata").pop("creationDate")
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert described == {
        **created,
        "billingGroupId": id_,
        "version": 1,
        "billingGroupProperties": properties,
    }
    updated = iot.update_billing_group(
        billingGroupName=name,
        billingGroupProperties={"billingGroupDescription": "the garden"},
        expectedVersion=1,
    )
    assert members(updated) == {"version": 2}
    stale = refusal(iot.delete_billing_group, billingGroupName=name, expectedVersion=1)
    assert stale.kind == (409, "VersionConflictException")
    other = refusal(iot.create_billing_group, billingGroupName=name)
    assert other.kind == (409, "ResourceAlreadyExistsException")
    assert other.response["resourceId"] == id_
    for _ in range(2):
        assert members(iot.delete_billing_group(billingGroupName=name)) == {}
    gone = refusal(iot.describe_billing_group, billingGroupName=name)
    assert gone.kind == (404, "ResourceNotFoundException")
    assert name in gone.message


def test_things_are_in_one_billing_group(iot: Any, name: str) -> None:
    iot.create_billing_group(billingGroupName=name)
    iot.create_billing_group(billingGroupName=f"{name}-other")
    things = [f"{name}-{number}" for number in range(5)]
    iot.create_thing(thingName=things[0], billingGroupName=name)
    for thing in things[1:4]:
        iot.create_thing(thingName=thing)
        added = iot.add_thing_to_billing_group(billingGroupName=name, thingName=thing)
        assert members(added) == {}
    iot.create_thing(thingName=things[4])
    iot.add_thing_to_billing_group(
        billingGroupArn=arn(f"billinggroup/{name}"), thingArn=arn(f"thing/{things[4]}")
    )
    assert iot.describe_thing(thingName=things[2])["billingGroupName"] == name
    listed = pages(iot, "list_things_in_billing_group", "things", 2, billingGroupName=name)
    assert [len(page) for page in listed] == [2, 2, 1]
    assert [thing for page in listed for thing in page] == things
    refused = refusal(
        iot.add_thing_to_billing_group, billingGroupName=f"{name}-other", thingName=things[0]
    )
    assert refused.kind == (400, "InvalidRequestException")
    removed = iot.remove_thing_from_billing_group(billingGroupName=name, thingName=things[0])
    assert members(removed) == {}
    assert "billingGroupName" not in iot.describe_thing(thingName=things[0])


def test_billing_groups_are_listed_page_by_page(iot: Any, name: str) -> None:
    names = [f"{name}-{number}" for number in range(5)]
    for each in names:
        iot.create_billing_group(billingGroupName=each)
    listed = pages(iot, "list_billing_groups", "billingGroups", 2, namePrefixFilter=name)
    assert [len(page) for page in listed] == [2, 2, 1]
    assert [entry for page in listed for entry in page] == [
        {"groupName": each, "groupArn": arn(f"billinggroup/{each}")} for each in names
    ]
    unfiltered = everything(iot, "list_billing_groups", "billingGroups")
    assert set(names) <= {entry["groupName"] for entry in unfiltered}


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("describe_billing_group", {}),
        ("update_billing_group", {"billingGroupProperties": {}}),
        ("list_things_in_billing_group", {}),
        ("add_thing_to_billing_group", {"thingName": "unknown"}),
        ("remove_thing_from_billing_group", {"thingName": "unknown"}),
    ],
)
def test_unknown_billing_groups_are_not_found(
    iot: Any, name: str, operation: str, more: dict[str, Any]
) -> None:
    unknown = refusal(getattr(iot, operation), billingGroupName=name, **more)
    assert unknown.kind == (404, "ResourceNotFoundException")
