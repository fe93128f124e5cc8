"""Tags through boto3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.fleet import ALLOW_ALL, arn, policy_document
from tests.integration.refusal import everything, members, refusal

TAGS = [{"Key": "owner", "Value": "Jane Doe <x> \u00e4"}, {"Key": "stage", "Value": ""}]


def tagged(iot: Any, resource: str) -> dict[str, str]:
    listed = everything_of(iot, resource)
    return {each["Key"]: each["Value"] for each in listed}


def everything_of(iot: Any, resource: str) -> list[Any]:
    paginator = iot.get_paginator("list_tags_for_resource")
    return [tag for page in paginator.paginate(resourceArn=resource) for tag in page["tags"]]


@pytest.mark.parametrize(
    ("operation", "parameters", "kind"),
    [
        ("create_thing_group", {"thingGroupName": ""}, "thinggroup"),
        ("create_thing_type", {"thingTypeName": ""}, "thingtype"),
        ("create_billing_group", {"billingGroupName": ""}, "billinggroup"),
        (
            "create_policy",
            {"policyName": "", "policyDocument": policy_document(ALLOW_ALL)},
            "policy",
        ),
    ],
)
def test_a_resource_is_created_with_tags_that_come_and_go(
    iot: Any, name: str, operation: str, parameters: dict[str, Any], kind: str
) -> None:
    parameters = {key: value or name for key, value in parameters.items()}
    getattr(iot, operation)(**parameters, tags=TAGS)
    resource = arn(f"{kind}/{name}")
    assert everything_of(iot, resource) == TAGS
    more = [{"Key": "stage", "Value": "test"}, {"Key": "path:/a=b+c-d@e_f.g", "Value": "1"}]
    assert members(iot.tag_resource(resourceArn=resource, tags=more)) == {}
    assert tagged(iot, resource) == {
        "owner": TAGS[0]["Value"],
        "stage": "test",
        "path:/a=b+c-d@e_f.g": "1",
    }
    untagged = iot.untag_resource(resourceArn=resource, tagKeys=["owner", "absent"])
    assert members(untagged) == {}
    assert set(tagged(iot, resource)) == {"stage", "path:/a=b+c-d@e_f.g"}


def test_tags_go_with_their_resource(iot: Any, name: str) -> None:
    iot.create_thing_group(thingGroupName=name, tags=TAGS)
    iot.delete_thing_group(thingGroupName=name)
    resource = arn(f"thinggroup/{name}")
    for operation, more in (
        ("list_tags_for_resource", {}),
        ("tag_resource", {"tags": TAGS}),
        ("untag_resource", {"tagKeys": ["owner"]}),
    ):
        gone = refusal(getattr(iot, operation), resourceArn=resource, **more)
        assert gone.kind == (404, "ResourceNotFoundException"), operation
        assert resource in gone.message
    iot.create_thing_group(thingGroupName=name)
    assert tagged(iot, resource) == {}


def test_tags_outside_the_rules_are_refused(iot: Any, unchecked: Any, name: str) -> None:
    iot.create_thing_group(thingGroupName=name)
    resource = arn(f"thinggroup/{name}")
    for key, value in (("aws:x", "1"), ("a*b", "1"), ("x" * 129, "1"), ("a", "x" * 257)):
        refused = refusal(
            unchecked.tag_resource, resourceArn=resource, tags=[{"Key": key, "Value": value}]
        )
        assert refused.kind == (400, "InvalidRequestException"), key
    many = [{"Key": f"k{number}", "Value": "v"} for number in range(50)]
    iot.tag_resource(resourceArn=resource, tags=many)
    full = refusal(iot.tag_resource, resourceArn=resource, tags=TAGS)
    assert full.kind == (410, "LimitExceededException")
    assert len(tagged(iot, resource)) == 50


def test_things_take_no_tags(iot: Any, name: str) -> None:
    iot.create_thing(thingName=name)
    refused = refusal(iot.tag_resource, resourceArn=arn(f"thing/{name}"), tags=TAGS)
    assert refused.kind == (400, "InvalidRequestException")
    assert "takes tags" in refused.message


def test_the_paginator_ends(iot: Any, name: str) -> None:
    iot.create_thing_group(thingGroupName=name, tags=TAGS)
    paginator = iot.get_paginator("list_tags_for_resource")
    pages = list(paginator.paginate(resourceArn=arn(f"thinggroup/{name}")))
    assert len(pages) == 1
    assert "nextToken" not in pages[0]
    assert everything(iot, "list_thing_groups", "thingGroups", namePrefixFilter=name) == [
        {"groupName": name, "groupArn": arn(f"thinggroup/{name}")}
    ]
