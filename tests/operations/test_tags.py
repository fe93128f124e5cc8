"""Tags of everything that takes them.

Sources: AWS IoT API reference (TagResource, Tag), AWS IoT Developer Guide, "Tagging your AWS IoT
resources" (restrictions), Service Authorization Reference (which resources take tags).
"""

from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceNotFoundException,
)
from tests.operations.conftest import ALLOW, START, Registry


def pairs(**values: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


def many(number: int, prefix: str = "k") -> list[dict[str, str]]:
    return pairs(**{f"{prefix}{index:02}": "v" for index in range(number)})


def tag(registry: Registry, arn: str, tags: list[dict[str, str]]) -> None:
    assert registry.call("TagResource", resource_arn=arn, tags=tags) == {}


def listed(registry: Registry, arn: str) -> dict[str, str]:
    answer = registry.call("ListTagsForResource", resource_arn=arn)
    return {each["Key"]: each["Value"] for each in answer["tags"]}


CREATED: list[tuple[str, dict[str, Any], str, str, dict[str, Any]]] = [
    (
        "CreateThingGroup",
        {"thing_group_name": "x"},
        "thinggroup/x",
        "DeleteThingGroup",
        {"thing_group_name": "x"},
    ),
    (
        "CreateBillingGroup",
        {"billing_group_name": "x"},
        "billinggroup/x",
        "DeleteBillingGroup",
        {"billing_group_name": "x"},
    ),
    (
        "CreatePolicy",
        {"policy_name": "x", "policy_document": ALLOW},
        "policy/x",
        "DeletePolicy",
        {"policy_name": "x"},
    ),
    (
        "CreateThingType",
        {"thing_type_name": "x"},
        "thingtype/x",
        "DeleteThingType",
        {"thing_type_name": "x"},
    ),
]


@pytest.mark.parametrize(("create", "members", "resource", "delete", "named"), CREATED)
def test_tags_come_with_a_resource_and_go_with_it(
    registry: Registry,
    create: str,
    members: dict[str, Any],
    resource: str,
    delete: str,
    named: dict[str, Any],
) -> None:
    arn = registry.arn(resource)
    with pytest.raises(ResourceNotFoundException, match=arn):
        listed(registry, arn)
    registry.call(create, **members, tags=pairs(owner="me", empty=""))
    assert listed(registry, arn) == {"owner": "me", "empty": ""}
    tag(registry, arn, pairs(owner="you", site="home"))
    assert listed(registry, arn) == {"owner": "you", "empty": "", "site": "home"}
    registry.call("UntagResource", resource_arn=arn, tag_keys=["empty", "absent"])
    assert listed(registry, arn) == {"owner": "you", "site": "home"}
    if create == "CreateThingType":
        registry.call("DeprecateThingType", **named)
        registry.clock.now = START + 300
    registry.call(delete, **named)
    operations: list[tuple[str, dict[str, Any]]] = [
        ("ListTagsForResource", {}),
        ("TagResource", {"tags": pairs(a="b")}),
        ("UntagResource", {"tag_keys": ["a"]}),
    ]
    for operation, more in operations:
        with pytest.raises(ResourceNotFoundException, match=f"Resource not found .arn={arn}"):
            registry.call(operation, resource_arn=arn, **more)
    registry.call(create, **members)
    assert listed(registry, arn) == {}


def test_tags_are_listed_by_key_and_a_value_may_be_left_out(registry: Registry) -> None:
    registry.call("CreateThingGroup", thing_group_name="g", tags=[{"Key": "b"}, {"Key": "a"}])
    answer = registry.call("ListTagsForResource", resource_arn=registry.arn("thinggroup/g"))
    assert answer == {"tags": [{"Key": "a", "Value": ""}, {"Key": "b", "Value": ""}]}


def test_a_resource_has_fifty_tags_at_most(registry: Registry) -> None:
    """Not every operation that takes tags declares LimitExceededException; TagResource does."""
    with pytest.raises(InvalidRequestException, match="at most 50 tags, not 51"):
        registry.call("CreateThingGroup", thing_group_name="g", tags=many(51))
    registry.call("CreateThingGroup", thing_group_name="g", tags=many(50))
    for more in (many(51), pairs(another="x")):
        with pytest.raises(LimitExceededException, match="51"):
            tag(registry, registry.arn("thinggroup/g"), more)


# Developer Guide, "Tag restrictions": the prefix `aws:` is reserved; 50 tags per resource.
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (pairs(**{"aws:created": "x"}), "tag key `aws:created` begins with `aws:`"),
        (pairs(**{"AWS:created": "x"}), "reserved for AWS"),
        ([{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}], "tag key `a` is given twice"),
        ([{"Key": "a*", "Value": "1"}], "regular expression"),
        ([{"Key": "", "Value": "1"}], "1 validation error"),
        ([{"Key": "x" * 129, "Value": "1"}], "1 validation error"),
        ([{"Key": "a", "Value": "x" * 257}], "1 validation error"),
    ],
)
def test_tags_that_break_a_rule_are_refused(
    registry: Registry, tags: list[dict[str, str]], message: str
) -> None:
    with pytest.raises(InvalidRequestException, match=message):
        registry.call("CreateThingGroup", thing_group_name="g", tags=tags)
    registry.call("CreateThingGroup", thing_group_name="g")
    with pytest.raises(InvalidRequestException, match=message):
        tag(registry, registry.arn("thinggroup/g"), tags)
    assert listed(registry, registry.arn("thinggroup/g")) == {}


def test_a_reserved_key_is_not_removed_either(registry: Registry) -> None:
    registry.call("CreateThingGroup", thing_group_name="g")
    with pytest.raises(InvalidRequestException, match="reserved for AWS"):
        registry.call(
            "UntagResource", resource_arn=registry.arn("thinggroup/g"), tag_keys=["aws:x"]
        )


def test_a_resource_has_fifty_tags_or_as_many_as_a_setting_says(registry: Registry) -> None:
    arn = registry.arn("thinggroup/g")
    registry.call("CreateThingGroup", thing_group_name="g", tags=many(50))
    tag(registry, arn, many(2))
    with pytest.raises(LimitExceededException, match="would have 51 tags; the limit is 50"):
        tag(registry, arn, pairs(another="x"))
    assert len(listed(registry, arn)) == 50
    registry.services.limits = replace(registry.services.limits, tags_per_resource=51)
    tag(registry, arn, pairs(another="x"))


# "AWS IoT doesn't allow you to directly apply tags to individual things" (Billing groups).
@pytest.mark.parametrize(
    ("arn", "message"),
    [
        ("arn:aws:iot:eu-west-1:123456789012:thing/a", "not the ARN of a resource that takes tags"),
        ("arn:aws:iot:eu-west-1:123456789012:cert/" + "0" * 64, "takes tags: billinggroup, "),
        ("arn:aws:iot:eu-west-1:123456789012:thinggroup/", "takes tags"),
        ("arn:aws:iot:eu-west-1:123456789012:thinggroup", "takes tags"),
        ("arn:aws:iot:us-east-1:123456789012:thinggroup/g", "account 123456789012 in eu-west-1"),
        ("arn:aws:iot:eu-west-1:210987654321:thinggroup/g", "account 123456789012 in eu-west-1"),
        ("thinggroup/g", "is not the ARN of a resource of account"),
        ("", "is not the ARN of a resource of account"),
    ],
)
def test_only_resources_of_this_account_that_take_tags_are_tagged(
    registry: Registry, arn: str, message: str
) -> None:
    registry.call("CreateThing", thing_name="a")
    registry.call("CreateThingGroup", thing_group_name="g")
    with pytest.raises(InvalidRequestException, match=message):
        tag(registry, arn, pairs(a="b"))
    with pytest.raises(InvalidRequestException, match=message):
        listed(registry, arn)


def test_creating_again_leaves_the_tags_as_they_are(registry: Registry) -> None:
    registry.call("CreateThingGroup", thing_group_name="g", tags=pairs(a="1"))
    registry.call("CreateThingGroup", thing_group_name="g", tags=pairs(b="2"))
    assert listed(registry, registry.arn("thinggroup/g")) == {"a": "1"}
