"""Registry events: the topic and the payload of every message about a change of the registry.

Members, their order and their types are those of AWS. Sources: AWS IoT Developer Guide, "Registry
events"; Powertools for AWS Lambda, `parser.models.iot_registry_events`, for what the guide's
examples leave open. What neither says is in docs/divergences.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fleetgate.names import Account

THING: Final = "THING"
THING_TYPE: Final = "THING_TYPE"
THING_TYPE_ASSOCIATION: Final = "THING_TYPE_ASSOCIATION"
THING_GROUP: Final = "THING_GROUP"
THING_GROUP_MEMBERSHIP: Final = "THING_GROUP_MEMBERSHIP"
THING_GROUP_HIERARCHY: Final = "THING_GROUP_HIERARCHY"

Change = Literal["CREATED", "UPDATED", "DELETED"]
"""What happened to a thing, a type or a group."""
Link = Literal["ADDED", "REMOVED"]
"""What happened to the bond between two of them."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What every event says of itself; `timestamp` is in milliseconds since the epoch."""

    account: Account
    event_id: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class Event:
    """A message; the order of the payload's members is part of it."""

    topic: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Named:
    """A thing or a thing group as events name it."""

    name: str
    id: str


def thing(
    occasion: Occasion,
    change: Change,
    named: Named,
    *,
    version: int,
    type_name: str | None,
    attributes: Mapping[str, str],
) -> Event:
    """A thing was created, updated or deleted."""
    return Event(
        f"$aws/events/thing/{named.name}/{change.lower()}",
        {
            **_begin("THING_EVENT", occasion, change),
            "accountId": occasion.account.id,
            "thingId": named.id,
            "thingName": named.name,
            "versionNumber": version,
            "thingTypeName": type_name,
            "attributes": dict(attributes),
        },
    )


def thing_type(
    occasion: Occasion,
    change: Change,
    named: Named,
    *,
    deprecated_at: float | None,
    searchable: Sequence[str],
    propagating: Sequence[Mapping[str, str]],
    description: str | None,
) -> Event:
    """A thing type was created, changed, deprecated, undeprecated or deleted.

    `deprecated_at` is in seconds since the epoch; like all times in events it is sent in
    milliseconds.
    """
    return Event(
        f"$aws/events/thingType/{named.name}/{change.lower()}",
        {
            **_begin("THING_TYPE_EVENT", occasion, change),
            "accountId": occasion.account.id,
            "thingTypeId": named.id,
            "thingTypeName": named.name,
            "isDeprecated": deprecated_at is not None,
            "deprecationDate": None if deprecated_at is None else milliseconds(deprecated_at),
            "searchableAttributes": list(searchable),
            "propagatingAttributes": [dict(attribute) for attribute in propagating],
            "description": description,
        },
    )


def thing_type_association(occasion: Occasion, link: Link, thing: Named, type_name: str) -> Event:
    """A thing was given a type, or lost it. The one event that does not name the account."""
    return Event(
        f"$aws/events/thingTypeAssociation/thing/{thing.name}/thingType/{type_name}/{link.lower()}",
        {
            "eventId": occasion.event_id,
            "eventType": "THING_TYPE_ASSOCIATION_EVENT",
            "operation": link,
            "thingId": thing.id,
            "thingName": thing.name,
            "thingTypeName": type_name,
            "timestamp": occasion.timestamp,
        },
    )


def thing_group(
    occasion: Occasion,
    change: Change,
    named: Named,
    *,
    version: int,
    ancestors: Sequence[Named],
    description: str | None,
    attributes: Mapping[str, str],
) -> Event:
    """A static thing group was created, updated or deleted.

    `ancestors` are the groups above it, from the root down to its parent.
    """
    parent = ancestors[-1] if ancestors else None
    return Event(
        f"$aws/events/thingGroup/{named.name}/{change.lower()}",
        {
            **_begin("THING_GROUP_EVENT", occasion, change),
            "accountId": occasion.account.id,
            "thingGroupId": named.id,
            "thingGroupName": named.name,
            "versionNumber": version,
            "parentGroupName": parent and parent.name,
            "parentGroupId": parent and parent.id,
            "description": description,
            "rootToParentThingGroups": [
                {"groupArn": _group_arn(occasion, above), "groupId": above.id}
                for above in ancestors
            ]
            or None,
            "attributes": dict(attributes),
            "dynamicGroupMappingId": None,
        },
    )


def thing_group_membership(occasion: Occasion, link: Link, group: Named, thing: Named) -> Event:
    """A thing was put into a thing group, or taken out of it."""
    return Event(
        f"$aws/events/thingGroupMembership/thingGroup/{group.name}/thing/{thing.name}/"
        f"{link.lower()}",
        {
            **_begin("THING_GROUP_MEMBERSHIP_EVENT", occasion, link),
            "accountId": occasion.account.id,
            "groupArn": _group_arn(occasion, group),
            "groupId": group.id,
            "thingArn": occasion.account.arn(f"thing/{thing.name}"),
            "thingId": thing.id,
            "membershipId": membership_id(group.id, thing.id),
        },
    )


def thing_group_hierarchy(occasion: Occasion, link: Link, parent: Named, child: Named) -> Event:
    """A thing group was put below another one, or is no longer there."""
    return Event(
        f"$aws/events/thingGroupHierarchy/thingGroup/{parent.name}/childThingGroup/{child.name}/"
        f"{link.lower()}",
        {
            **_begin("THING_GROUP_HIERARCHY_EVENT", occasion, link),
            "accountId": occasion.account.id,
            "thingGroupId": parent.id,
            "thingGroupName": parent.name,
            "childGroupId": child.id,
            "childGroupName": child.name,
        },
    )


def membership_id(group_id: str, thing_id: str) -> str:
    """The id of the bond between a group and a thing: the same for both ends of its life.

    It is made of the two ids in the form that RFC 9562 section 5.8 has for UUIDs of one's own
    making, so that nothing has to be kept for it.
    """
    digits = hashlib.sha256(f"{group_id}/{thing_id}".encode()).hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def milliseconds(seconds: float) -> int:
    """A time of the registry as events have it."""
    return round(seconds * 1000)


def _begin(event_type: str, occasion: Occasion, operation: str) -> dict[str, object]:
    return {
        "eventType": event_type,
        "eventId": occasion.event_id,
        "timestamp": occasion.timestamp,
        "operation": operation,
    }


def _group_arn(occasion: Occasion, group: Named) -> str:
    return occasion.account.arn(f"thinggroup/{group.name}")
