"""Names and limits of the registry: things, types, groups, attributes, policies' names.

Functions that accept a value or raise InvalidRequestException naming the thing, the rule and the
value. Sources: AWS IoT API Reference (patterns and lengths of ThingName, AttributeName, ...) and
AWS General Reference, "AWS IoT Core endpoints and quotas" (counts).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from fleetgate.domain.document import quoted
from fleetgate.domain.limits import Limits
from fleetgate.errors import InvalidRequestException

_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_POLICY_NAME = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_ATTRIBUTE_NAME = re.compile(r"[a-zA-Z0-9_.,@/:#-]{1,128}")
_ATTRIBUTE_VALUE = re.compile(r"[a-zA-Z0-9_.,@/:#=\[\]-]{0,800}")


def check_thing_name(name: str) -> None:
    """Raises InvalidRequestException unless `name` may name a thing."""
    _check(_NAME, "thing name", name)


def check_thing_type_name(name: str) -> None:
    """Raises InvalidRequestException unless `name` may name a thing type."""
    _check(_NAME, "thing type name", name)


def check_thing_group_name(name: str) -> None:
    """Raises InvalidRequestException unless `name` may name a thing group."""
    _check(_NAME, "thing group name", name)


def check_billing_group_name(name: str) -> None:
    """Raises InvalidRequestException unless `name` may name a billing group."""
    _check(_NAME, "billing group name", name)


def check_policy_name(name: str) -> None:
    """Raises InvalidRequestException unless `name` may name a policy."""
    _check(_POLICY_NAME, "policy name", name)


def check_attribute_name(name: str) -> None:
    """Raises InvalidRequestException unless `name` may name an attribute."""
    _check(_ATTRIBUTE_NAME, "attribute name", name)


def check_attribute_value(name: str, value: str) -> None:
    """Raises InvalidRequestException unless `value` may be the value of attribute `name`."""
    if not _ATTRIBUTE_VALUE.fullmatch(value):
        raise InvalidRequestException(
            f"value {quoted(value)} of attribute {quoted(name)} does not match "
            f"{_ATTRIBUTE_VALUE.pattern}"
        )


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Names and values of attributes, of a thing or a group; raises InvalidRequestException."""
    for name, value in attributes.items():
        check_attribute_name(name)
        check_attribute_value(name, value)


def check_attribute_count(count: int, *, typed: bool, limits: Limits) -> None:
    """Fewer attributes without a thing type (3) than with one (50).

    Raises InvalidRequestException. Source: AWS IoT Developer Guide, "Thing types".
    """
    limit = limits.attributes_with_type if typed else limits.attributes_without_type
    if count > limit:
        raise InvalidRequestException(
            f"a thing {'with' if typed else 'without'} a thing type has at most {limit} "
            f"attributes, not {count}"
        )


def check_group_attributes(attributes: Mapping[str, str], *, limits: Limits) -> None:
    """Names, values and number of a thing group's attributes; raises InvalidRequestException."""
    check_attributes(attributes)
    limit = limits.attributes_per_thing_group
    if len(attributes) > limit:
        raise InvalidRequestException(
            f"a thing group has at most {limit} attributes, not {len(attributes)}"
        )


def updated_attributes(
    current: Mapping[str, str], given: Mapping[str, str], *, merge: bool
) -> dict[str, str]:
    """The attributes after an update.

    With `merge` those given are laid over the current ones, otherwise they replace them all. An
    attribute with an empty value is removed. A new thing is an update of no attributes.
    Source: AWS IoT API Reference, AttributePayload.
    """
    laid = {**current, **given} if merge else given
    return {name: value for name, value in laid.items() if value}


def check_groups_per_thing(thing_name: str, groups: Collection[str], *, limits: Limits) -> None:
    """How many thing groups a thing is a direct member of; raises InvalidRequestException."""
    limit = limits.groups_per_thing
    if len(groups) > limit:
        raise InvalidRequestException(
            f"thing {quoted(thing_name)} would be in {len(groups)} thing groups; the limit is "
            f"{limit}"
        )


def check_hierarchies(thing_name: str, roots: Mapping[str, str]) -> None:
    """A thing is in at most one group of one hierarchy.

    `roots` are the groups it would be in, each with the root of its hierarchy. Raises
    InvalidRequestException. Source: AWS IoT Developer Guide, "Static thing groups": "you cannot
    add a thing to more than one group in the same hierarchy".
    """
    by_root: dict[str, str] = {}
    for group, root in roots.items():
        other = by_root.setdefault(root, group)
        if other != group:
            raise InvalidRequestException(
                f"thing {quoted(thing_name)} would be in thing groups {quoted(other)} and "
                f"{quoted(group)}: a thing cannot be in more than one group in the same hierarchy "
                f"(root {quoted(root)})"
            )


def check_group_depth(group_name: str, depth: int, *, limits: Limits) -> None:
    """`depth` counts the groups from the root to this one; raises InvalidRequestException."""
    if depth > limits.group_depth:
        raise InvalidRequestException(
            f"thing group {quoted(group_name)} would be at depth {depth} of its hierarchy; the "
            f"limit is {limits.group_depth}"
        )


def check_group_children(parent_name: str, children: int, *, limits: Limits) -> None:
    """How many direct child groups a thing group has; raises InvalidRequestException."""
    if children > limits.children_per_group:
        raise InvalidRequestException(
            f"thing group {quoted(parent_name)} would have {children} direct child groups; the "
            f"limit is {limits.children_per_group}"
        )


def check_attachment(
    thing_name: str,
    principal: str,
    attached: Mapping[str, bool],
    exclusive: bool | None,
) -> None:
    """Whether a principal may be attached to a thing.

    `attached` are the things it is attached to, each with whether exclusively; `exclusive` is
    the kind asked for, None when none was named. A principal that is attached exclusively has
    that one thing only. Raises InvalidRequestException. Source: AWS IoT Developer Guide,
    "Associating an AWS IoT thing to an MQTT client connection".
    """
    if thing_name in attached:
        if exclusive is not None and exclusive is not attached[thing_name]:
            raise InvalidRequestException(
                f"principal {quoted(principal)} is attached to thing {quoted(thing_name)} "
                f"{_kind(attached[thing_name])}; detach it first to attach it {_kind(exclusive)}"
            )
        return
    for other, exclusively in attached.items():
        if exclusive or exclusively:
            raise InvalidRequestException(
                f"principal {quoted(principal)} is attached to thing {quoted(other)} "
                f"{_kind(exclusively)}; it cannot be attached to thing {quoted(thing_name)} "
                f"{_kind(bool(exclusive))} unless it is detached first"
            )


def check_searchable_attributes(names: Sequence[str], *, limits: Limits) -> None:
    """The searchable attributes of a thing type: few (3) different attribute names.

    Raises InvalidRequestException. Source: AWS IoT Developer Guide, "Create a thing type".
    """
    limit = limits.searchable_attributes
    if len(names) > limit:
        raise InvalidRequestException(
            f"a thing type has at most {limit} searchable attributes, not {len(names)}"
        )
    for index, name in enumerate(names):
        check_attribute_name(name)
        if name in names[:index]:
            raise InvalidRequestException(f"searchable attribute {quoted(name)} is given twice")


def check_propagating_attributes(attributes: Sequence[Mapping[str, str]]) -> None:
    """The propagating attributes of a thing type (``mqtt5Configuration``).

    Each is one thing attribute or one connection attribute, under a key used once. Raises
    InvalidRequestException. Source: AWS IoT Developer Guide, "Adding propagating attributes for
    message enrichment".
    """
    keys: set[str] = set()
    for attribute in attributes:
        key = attribute.get("userPropertyKey")
        if key is None:
            raise InvalidRequestException("a propagating attribute has no userPropertyKey")
        if key in keys:
            raise InvalidRequestException(f"userPropertyKey {quoted(key)} is given twice")
        keys.add(key)
        if ("thingAttribute" in attribute) == ("connectionAttribute" in attribute):
            raise InvalidRequestException(
                f"propagating attribute {quoted(key)} is either a thingAttribute or a "
                "connectionAttribute"
            )


def _kind(exclusive: bool) -> str:
    return "exclusively" if exclusive else "non-exclusively"


def _check(pattern: re.Pattern[str], what: str, value: str) -> None:
    if not pattern.fullmatch(value):
        raise InvalidRequestException(f"{what} {quoted(value)} does not match {pattern.pattern}")
