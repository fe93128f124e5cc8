from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.domain import registry
from fleetgate.domain.limits import Limits
from fleetgate.errors import InvalidRequestException

LIMITS = Limits()

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
    registry.check_attribute_count(limit, typed=typed, limits=LIMITS)
    with pytest.raises(InvalidRequestException, match=f"at most {limit} attributes"):
        registry.check_attribute_count(limit + 1, typed=typed, limits=LIMITS)


# AWS General Reference, AWS IoT Core quotas: 50 attributes per group, 10 groups per thing,
# depth 7; Developer Guide, "Thing types": 3 searchable attributes.
def test_counts_of_groups() -> None:
    registry.check_group_attributes({str(n): "x" for n in range(50)}, limits=LIMITS)
    with pytest.raises(InvalidRequestException, match="at most 50"):
        registry.check_group_attributes({str(n): "x" for n in range(51)}, limits=LIMITS)
    registry.check_groups_per_thing("t", [str(n) for n in range(10)], limits=LIMITS)
    with pytest.raises(InvalidRequestException, match="`t` would be in 11"):
        registry.check_groups_per_thing("t", [str(n) for n in range(11)], limits=LIMITS)
    registry.check_group_depth("g", 7, limits=LIMITS)
    with pytest.raises(InvalidRequestException, match="`g` would be at depth 8"):
        registry.check_group_depth("g", 8, limits=LIMITS)


# The counts are settings; their defaults are AWS's.
def test_counts_are_those_of_the_limits() -> None:
    few = Limits(
        attributes_without_type=1,
        attributes_with_type=2,
        attributes_per_thing_group=1,
        groups_per_thing=1,
        group_depth=1,
        children_per_group=1,
        searchable_attributes=1,
    )
    registry.check_attribute_count(2, typed=True, limits=few)
    registry.check_group_children("g", 100, limits=LIMITS)
    refused: list[tuple[Callable[[], None], str]] = [
        (lambda: registry.check_attribute_count(2, typed=False, limits=few), "at most 1 attr"),
        (lambda: registry.check_group_attributes({"a": "1", "b": "2"}, limits=few), "at most 1"),
        (lambda: registry.check_groups_per_thing("t", ["a", "b"], limits=few), "limit is 1"),
        (lambda: registry.check_group_depth("g", 2, limits=few), "the limit is 1"),
        (lambda: registry.check_group_children("g", 2, limits=few), "the limit is 1"),
        (lambda: registry.check_group_children("g", 101, limits=LIMITS), "the limit is 100"),
        (lambda: registry.check_searchable_attributes(["a", "b"], limits=few), "at most 1"),
    ]
    for check, message in refused:
        with pytest.raises(InvalidRequestException, match=message):
            check()


# AWS IoT Developer Guide, "Static thing groups".
def test_a_thing_is_in_one_group_of_a_hierarchy() -> None:
    registry.check_hierarchies("t", {"a": "root", "b": "b", "c": "other"})
    with pytest.raises(InvalidRequestException, match="`a` and `root`: a thing cannot be in more"):
        registry.check_hierarchies("t", {"a": "root", "b": "b", "root": "root"})


# AWS IoT Developer Guide, "Associating an AWS IoT thing to an MQTT client connection".
@pytest.mark.parametrize(
    ("attached", "exclusive", "message"),
    [
        ({}, None, None),
        ({}, True, None),
        ({"other": False}, None, None),
        ({"other": False}, False, None),
        ({"thing": True}, None, None),
        ({"thing": True}, True, None),
        ({"thing": False, "other": False}, False, None),
        ({"other": False}, True, "to thing `other` non-exclusively; it cannot .* exclusively"),
        ({"other": True}, None, "to thing `other` exclusively; it cannot"),
        ({"other": True}, True, "unless it is detached first"),
        ({"thing": True}, False, "detach it first to attach it non-exclusively"),
        ({"thing": False}, True, "detach it first to attach it exclusively"),
    ],
)
def test_a_principal_is_attached_exclusively_or_to_several_things(
    attached: dict[str, bool], exclusive: bool | None, message: str | None
) -> None:
    if message is None:
        registry.check_attachment("thing", "cert", attached, exclusive)
    else:
        with pytest.raises(InvalidRequestException, match=message):
            registry.check_attachment("thing", "cert", attached, exclusive)


def test_searchable_attributes() -> None:
    registry.check_searchable_attributes([], limits=LIMITS)
    registry.check_searchable_attributes(["a", "b", "c"], limits=LIMITS)
    for names, message in (
        (["a", "b", "c", "d"], "at most 3"),
        (["a", "a"], "given twice"),
        (["a b"], "attribute name"),
    ):
        with pytest.raises(InvalidRequestException, match=message):
            registry.check_searchable_attributes(names, limits=LIMITS)


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
