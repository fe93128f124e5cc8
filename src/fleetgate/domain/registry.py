"""Names and limits of the registry: things, types, groups, attributes, policies' names.

Functions that accept a value or raise InvalidRequestException naming the thing, the rule and the
value. Sources: AWS IoT API Reference (patterns and lengths of ThingName, AttributeName, ...) and
AWS General Reference, "AWS IoT Core endpoints and quotas" (counts).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from fleetgate.domain.document import quoted
from fleetgate.errors import InvalidRequestException

MAX_ATTRIBUTES_WITHOUT_TYPE: Final = 3
MAX_ATTRIBUTES_WITH_TYPE: Final = 50
MAX_GROUP_ATTRIBUTES: Final = 50
MAX_GROUPS_PER_THING: Final = 10
MAX_GROUP_DEPTH: Final = 7
MAX_SEARCHABLE_ATTRIBUTES: Final = 3
MAX_POLICIES_PER_PRINCIPAL: Final = 10
MAX_POLICY_VERSIONS: Final = 5

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


def check_attribute_count(count: int, *, typed: bool) -> None:
    """At most 3 attributes without a thing type, 50 with one; raises InvalidRequestException.

    Source: AWS IoT Developer Guide, "Thing types".
    """
    limit = MAX_ATTRIBUTES_WITH_TYPE if typed else MAX_ATTRIBUTES_WITHOUT_TYPE
    if count > limit:
        raise InvalidRequestException(
            f"a thing {'with' if typed else 'without'} a thing type has at most {limit} "
            f"attributes, not {count}"
        )


def check_group_attributes(attributes: Mapping[str, str]) -> None:
    """Names, values and number of a thing group's attributes; raises InvalidRequestException."""
    check_attributes(attributes)
    if len(attributes) > MAX_GROUP_ATTRIBUTES:
        raise InvalidRequestException(
            f"a thing group has at most {MAX_GROUP_ATTRIBUTES} attributes, not {len(attributes)}"
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


def check_groups_per_thing(thing_name: str, groups: Collection[str]) -> None:
    """At most 10 thing groups per thing; raises InvalidRequestException."""
    if len(groups) > MAX_GROUPS_PER_THING:
        raise InvalidRequestException(
            f"thing {quoted(thing_name)} would be in {len(groups)} thing groups; the limit is "
            f"{MAX_GROUPS_PER_THING}"
        )


def check_group_depth(group_name: str, depth: int) -> None:
    """`depth` counts the groups from the root to this one; at most 7.

    Raises InvalidRequestException.
    """
    if depth > MAX_GROUP_DEPTH:
        raise InvalidRequestException(
            f"thing group {quoted(group_name)} would be at depth {depth} of its hierarchy; the "
            f"limit is {MAX_GROUP_DEPTH}"
        )


def check_searchable_attributes(names: Sequence[str]) -> None:
    """The searchable attributes of a thing type: at most 3 different attribute names.

    Raises InvalidRequestException. Source: AWS IoT Developer Guide, "Create a thing type".
    """
    if len(names) > MAX_SEARCHABLE_ATTRIBUTES:
        raise InvalidRequestException(
            f"a thing type has at most {MAX_SEARCHABLE_ATTRIBUTES} searchable attributes, "
            f"not {len(names)}"
        )
    for index, name in enumerate(names):
        check_attribute_name(name)
        if name in names[:index]:
            raise InvalidRequestException(f"searchable attribute {quoted(name)} is given twice")


def _check(pattern: re.Pattern[str], what: str, value: str) -> None:
    if not pattern.fullmatch(value):
        raise InvalidRequestException(f"{what} {quoted(value)} does not match {pattern.pattern}")
