from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.domain import registry
from fleetgate.errors import InvalidRequestException

NAMED = [
    registry.check_thing_name,
    registry.check_thing_type_name,
    registry.check_thing_group_name,
    registry.check_billing_group_name,
]


# AWS IoT API Reference: ThingName, ThingTypeName, ThingGroupName, BillingGroupName.
@pytest.mark.parametrize("check", NAMED)
@pytest.mark.parametrize("name", ["a", "A-b_c:9", "x" * 128])
def test_names_of_the_documented_pattern_are_accepted(
    check: Callable[[str], None], name: str
) -> None:
    check(name)


@pytest.mark.parametrize("check", NAMED)
@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a/b", "a.b", "a\n", "ä", "$aws"])
def test_other_names_are_refused_by_name(check: Callable[[str], None], name: str) -> None:
    with pytest.raises(InvalidRequestException, match="does not match"):
        check(name)


# AWS IoT API Reference: PolicyName.
def test_policy_names_have_their_own_pattern() -> None:
    registry.check_policy_name("a+=,.@-_9")
    for name in ("", "a:b", "a/b", "é", "x" * 129, "a\n"):
        with pytest.raises(InvalidRequestException, match="policy name"):
            registry.check_policy_name(name)


# AWS IoT API Reference: AttributeName, AttributeValue.
def test_attribute_names_and_values() -> None:
    registry.check_attributes({"a_.,@/:#-": "b=[1]_.,@/:#-", "empty": "", "x" * 128: "y" * 800})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"": "x"}, "attribute name"),
        ({"a b": "x"}, "attribute name `a b`"),
        ({"a=b": "x"}, "attribute name"),
        ({"x" * 129: "x"}, "attribute name"),
        ({"a": "b c"}, "value `b c` of attribute `a`"),
        ({"a": "x" * 801}, "of attribute `a`"),
        ({"a": "x\n"}, "of attribute `a`"),
    ],
)
def test_other_attributes_are_refused(attributes: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestException, match=message):
        registry.check_attributes(attributes)


# AWS IoT Developer Guide, "Thing types": 3 attributes without a type, 50 with one.
@pytest.mark.parametrize(("typed", "limit"), [(False, 3), (True, 50)])
def test_the_number_of_attributes_depends_on_the_type(typed: bool, limit: int) -> None:
    registry.check_attribute_count(limit, typed=typed)
    with pytest.raises(InvalidRequestException, match=f"at most {limit} attributes"):
        registry.check_attribute_count(limit + 1, typed=typed)


# AWS General Reference, AWS IoT Core quotas: 50 attributes per group, 10 groups per thing,
# depth 7; Developer Guide, "Thing types": 3 searchable attributes.
def test_counts_of_groups() -> None:
    registry.check_group_attributes({str(n): "x" for n in range(50)})
    with pytest.raises(InvalidRequestException, match="at most 50"):
        registry.check_group_attributes({str(n): "x" for n in range(51)})
    registry.check_groups_per_thing("t", [str(n) for n in range(10)])
    with pytest.raises(InvalidRequestException, match="`t` would be in 11"):
        registry.check_groups_per_thing("t", [str(n) for n in range(11)])
    registry.check_group_depth("g", 7)
    with pytest.raises(InvalidRequestException, match="`g` would be at depth 8"):
        registry.check_group_depth("g", 8)


def test_searchable_attributes() -> None:
    registry.check_searchable_attributes([])
    registry.check_searchable_attributes(["a", "b", "c"])
    for names, message in (
        (["a", "b", "c", "d"], "at most 3"),
        (["a", "a"], "given twice"),
        (["a b"], "attribute name"),
    ):
        with pytest.raises(InvalidRequestException, match=message):
            registry.check_searchable_attributes(names)


# AWS IoT API Reference, AttributePayload.
@pytest.mark.parametrize(
    ("given", "merge", "after"),
    [
        ({"b": "3", "c": "4"}, True, {"a": "1", "b": "3", "c": "4"}),
        ({"b": ""}, True, {"a": "1"}),
        ({}, True, {"a": "1", "b": "2"}),
        ({"b": "3", "c": ""}, False, {"b": "3"}),
        ({}, False, {}),
    ],
)
def test_an_update_merges_or_replaces_and_empty_values_remove(
    given: dict[str, str], merge: bool, after: dict[str, str]
) -> None:
    assert registry.updated_attributes({"a": "1", "b": "2"}, given, merge=merge) == after


ATTRIBUTES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["", "1", "2"]))


@given(ATTRIBUTES, ATTRIBUTES, st.booleans())
def test_the_same_update_twice_is_one_update(
    current: dict[str, str], update: dict[str, str], merge: bool
) -> None:
    once = registry.updated_attributes(current, update, merge=merge)
    assert registry.updated_attributes(once, update, merge=merge) == once
    assert all(once.values())
