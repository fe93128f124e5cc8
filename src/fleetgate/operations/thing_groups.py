"""Static thing groups and membership."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleetgate.domain import registry
from fleetgate.domain.events import THING_GROUP_MEMBERSHIP, Event
from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.names import Account
from fleetgate.operations import events, pages
from fleetgate.operations.call import Call
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.operations.things import check_version, named, require_thing
from fleetgate.store import groups, policies, things
from fleetgate.store.engine import Tx
from fleetgate.store.tags import remove_tags

_MANY = 1000
"""Groups of a thing that are looked up: more than it can be in."""


def group_arn(account: Account, name: str) -> str:
    """The ARN of a thing group."""
    return account.arn(f"thinggroup/{name}")


async def create_thing_group(
    call: Call,
    thing_group_name: str,
    parent_group_name: str | None = None,
    thing_group_properties: Mapping[str, Any] | None = None,
    tags: Tags | None = None,
) -> dict[str, Any]:
    """CreateThingGroup: creating the same group with the same properties again succeeds."""
    limits = call.services.limits
    arn = group_arn(call.account, thing_group_name)
    properties = thing_group_properties or {}
    attributes = registry.updated_attributes(
        {}, properties.get("attributePayload", {}).get("attributes", {}), merge=False
    )
    registry.check_group_attributes(attributes, limits=limits)
    checked = checked_tags(call, tags)
    new = groups.ThingGroup(
        thing_group_name,
        call.services.new_id(),
        parent_group_name,
        properties.get("thingGroupDescription"),
        attributes,
        1,
        call.now,
    )

    def change(tx: Tx) -> tuple[groups.ThingGroup, list[Event]]:
        existing = groups.find_thing_group(tx, thing_group_name)
        if existing is not None:
            if _configuration(existing) == _configuration(new):
                return existing, []
            raise ResourceAlreadyExistsException(
                f"Thing Group {thing_group_name} already exists in current account with "
                "different properties",
                resourceId=existing.thing_group_id,
                resourceArn=arn,
            )
        if parent_group_name is not None:
            _check_place(tx, thing_group_name, parent_group_name, limits)
        groups.add_thing_group(tx, new)
        add_tags(tx, call, arn, checked)
        return new, events.of_group(tx, call, None, new)

    group, made = await call.write(change)
    events.publish(call, made)
    return {
        "thingGroupName": thing_group_name,
        "thingGroupArn": arn,
        "thingGroupId": group.thing_group_id,
    }


async def describe_thing_group(call: Call, thing_group_name: str) -> dict[str, Any]:
    """DescribeThingGroup: with the path of groups from the root down to its parent."""

    def find(tx: Tx) -> tuple[groups.ThingGroup, list[groups.ThingGroup]]:
        group = require_group(tx, thing_group_name)
        return group, groups.list_group_ancestors(tx, thing_group_name)

    group, ancestors = await call.read(find)
    return {
        "thingGroupName": thing_group_name,
        "thingGroupArn": group_arn(call.account, thing_group_name),
        "thingGroupId": group.thing_group_id,
        "version": group.version,
        "thingGroupProperties": {
            "thingGroupDescription": group.description,
            # AWS leaves out what a group has nothing of (AWS CLI examples, describe-thing-group)
            "attributePayload": {"attributes": group.attributes} if group.attributes else None,
        },
        "thingGroupMetadata": {
            "parentGroupName": group.parent_group_name,
            "rootToParentThingGroups": _described(
                call.account, [above.thing_group_name for above in ancestors]
            )
            or None,
            "creationDate": group.created_at,
        },
    }


async def update_thing_group(
    call: Call,
    thing_group_name: str,
    thing_group_properties: Mapping[str, Any],
    expected_version: int | None = None,
) -> dict[str, Any]:
    """UpdateThingGroup: description and attributes."""

    def change(tx: Tx) -> tuple[int, list[Event]]:
        group = require_group(tx, thing_group_name)
        check_version("thing group", thing_group_name, group.version, expected_version)
        attributes = group.attributes
        if (payload := thing_group_properties.get("attributePayload")) is not None:
            attributes = registry.updated_attributes(
                group.attributes, payload.get("attributes", {}), merge=payload.get("merge", False)
            )
            registry.check_group_attributes(attributes, limits=call.services.limits)
        changed = replace(
            group,
            description=thing_group_properties.get("thingGroupDescription", group.description),
            attributes=attributes,
            version=group.version + 1,
        )
        groups.update_thing_group(tx, changed)
        return changed.version, events.of_group(tx, call, group, changed)

    version, made = await call.write(change)
    events.publish(call, made)
    return {"version": version}


async def delete_thing_group(
    call: Call, thing_group_name: str, expected_version: int | None = None
) -> dict[str, Any]:
    """DeleteThingGroup: a group without child groups; absent groups succeed.

    Its things lose the policies attached to it, as with AWS.
    """

    def change(tx: Tx) -> list[Event]:
        group = groups.find_thing_group(tx, thing_group_name)
        if group is None:
            return []
        check_version("thing group", thing_group_name, group.version, expected_version)
        if groups.has_child_groups(tx, thing_group_name):
            raise InvalidRequestException(
                f"Cannot delete thing group : {thing_group_name} when there are still child "
                "groups attached to it"
            )
        target = group_arn(call.account, thing_group_name)
        while attached := policies.list_attached_policies(tx, target, "", 100):
            for policy_name in attached:
                policies.remove_policy_attachment(tx, policy_name, target)
        made = events.of_group(tx, call, group, None)
        groups.remove_thing_group(tx, thing_group_name)
        remove_tags(tx, target)
        return made

    made = await call.write(change)
    call.policies_changed()
    events.publish(call, made)
    return {}


async def list_thing_groups(
    call: Call,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    parent_group: str | None = None,
    name_prefix_filter: str | None = None,
    recursive: bool | None = None,
) -> dict[str, Any]:
    """ListThingGroups: by name; below a parent, with a prefix, direct children only.

    Left out, `recursive` is what the guide shows: all groups, but only the direct children of a
    parent. Source: AWS IoT Developer Guide, "List thing groups".
    """
    after = pages.start_after_name(call, "ListThingGroups", next_token)

    def find(tx: Tx) -> list[groups.ThingGroup]:
        if parent_group is not None:
            require_group(tx, parent_group)
        return groups.list_thing_groups(
            tx,
            after,
            max_results + 1,
            parent=parent_group,
            prefix=name_prefix_filter,
            recursive=parent_group is None if recursive is None else recursive,
        )

    found = await call.read(find)
    items, following = pages.page(
        call, "ListThingGroups", found, max_results, lambda group: (group.thing_group_name,)
    )
    names = [group.thing_group_name for group in items]
    return {"thingGroups": _described(call.account, names), "nextToken": following}


async def add_thing_to_thing_group(
    call: Call,
    thing_group_name: str | None = None,
    thing_group_arn: str | None = None,
    thing_name: str | None = None,
    thing_arn: str | None = None,
    override_dynamic_groups: bool = False,  # noqa: ARG001 - there are no dynamic groups to leave
) -> dict[str, Any]:
    """AddThingToThingGroup: thing and group by name or by ARN; twice is once."""
    group = named(call.account, "thinggroup", "thingGroup", thing_group_name, thing_group_arn)
    thing = named(call.account, "thing", "thing", thing_name, thing_arn)
    await _change_groups(call, thing, [group], [])
    return {}


async def remove_thing_from_thing_group(
    call: Call,
    thing_group_name: str | None = None,
    thing_group_arn: str | None = None,
    thing_name: str | None = None,
    thing_arn: str | None = None,
) -> dict[str, Any]:
    """RemoveThingFromThingGroup: removing what is no member succeeds."""
    group = named(call.account, "thinggroup", "thingGroup", thing_group_name, thing_group_arn)
    thing = named(call.account, "thing", "thing", thing_name, thing_arn)
    await _change_groups(call, thing, [], [group])
    return {}


async def update_thing_groups_for_thing(
    call: Call,
    thing_name: str | None = None,
    thing_groups_to_add: Sequence[str] = (),
    thing_groups_to_remove: Sequence[str] = (),
    override_dynamic_groups: bool = False,  # noqa: ARG001 - there are no dynamic groups to leave
) -> dict[str, Any]:
    """UpdateThingGroupsForThing: out of groups, then into others, all or nothing."""
    if thing_name is None:
        raise InvalidRequestException("thingName is required")
    await _change_groups(call, thing_name, thing_groups_to_add, thing_groups_to_remove)
    return {}


async def list_thing_groups_for_thing(
    call: Call, thing_name: str, next_token: str | None = None, max_results: int = pages.PAGE
) -> dict[str, Any]:
    """ListThingGroupsForThing: the groups a thing is in, and the groups above them.

    Source: AWS IoT Developer Guide, "List groups for a thing": "including any parent groups".
    """
    after = pages.start_after_name(call, "ListThingGroupsForThing", next_token)

    def find(tx: Tx) -> list[str]:
        require_thing(tx, thing_name)
        return groups.list_groups_above_thing(tx, thing_name, after, max_results + 1)

    found = await call.read(find)
    names, following = pages.page(
        call, "ListThingGroupsForThing", found, max_results, lambda name: (name,)
    )
    return {"thingGroups": _described(call.account, list(names)), "nextToken": following}


async def list_things_in_thing_group(
    call: Call,
    thing_group_name: str,
    recursive: bool = False,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
) -> dict[str, Any]:
    """ListThingsInThingGroup: names; `recursive` adds the groups below."""
    after = pages.start_after_name(call, "ListThingsInThingGroup", next_token)

    def find(tx: Tx) -> list[str]:
        require_group(tx, thing_group_name)
        return groups.list_things_in_group(
            tx, thing_group_name, after, max_results + 1, recursive=recursive
        )

    found = await call.read(find)
    names, following = pages.page(
        call, "ListThingsInThingGroup", found, max_results, lambda name: (name,)
    )
    return {"things": list(names), "nextToken": following}


def require_group(tx: Tx, name: str) -> groups.ThingGroup:
    """The group; raises ResourceNotFoundException when there is none of this name."""
    group = groups.find_thing_group(tx, name)
    if group is None:
        raise ResourceNotFoundException(f"Thing group {name} not found")
    return group


async def _change_groups(
    call: Call, thing_name: str, to_add: Sequence[str], to_remove: Sequence[str]
) -> None:
    """Takes a thing out of groups and puts it into others, and says so."""

    def change(tx: Tx) -> tuple[bool, list[Event]]:
        wanted = THING_GROUP_MEMBERSHIP in call.services.enabled_events
        before = groups.list_groups_of_thing(tx, thing_name, "", _MANY) if wanted else []
        _change_members(tx, thing_name, to_add, to_remove, call.services.limits)
        attached = bool(things.list_thing_principals(tx, thing_name, "", 1))
        if not wanted:
            return attached, []
        left = [name for name in dict.fromkeys(to_remove) if name in before]
        joined = [name for name in dict.fromkeys(to_add) if name in left or name not in before]
        thing = require_thing(tx, thing_name)
        return attached, events.of_members(tx, call, thing, left, joined)

    attached, made = await call.write(change)
    if attached:  # nobody's policies know a thing that no principal is attached to
        call.policies_changed()
    events.publish(call, made)


def _change_members(
    tx: Tx, thing_name: str, to_add: Sequence[str], to_remove: Sequence[str], limits: Limits
) -> None:
    """Takes a thing out of groups and puts it into others; twice is once."""
    for name in (*to_remove, *to_add):
        require_group(tx, name)
    require_thing(tx, thing_name)
    for name in to_remove:
        groups.remove_group_member(tx, name, thing_name)
    if not to_add:
        return
    roots = groups.list_group_roots(tx, thing_name, to_add)
    registry.check_groups_per_thing(thing_name, roots, limits=limits)
    registry.check_hierarchies(thing_name, roots)
    for name in to_add:
        groups.add_group_member(tx, name, thing_name)


def _check_place(tx: Tx, name: str, parent_name: str, limits: Limits) -> None:
    """Raises InvalidRequestException unless a new group may be below this parent."""
    if groups.find_thing_group(tx, parent_name) is None:
        # CreateThingGroup does not declare ResourceNotFoundException
        raise InvalidRequestException(f"Parent thing group {parent_name} not found")
    depth = len(groups.list_group_ancestors(tx, parent_name)) + 2
    registry.check_group_depth(name, depth, limits=limits)
    children = groups.count_child_groups(tx, parent_name) + 1
    registry.check_group_children(parent_name, children, limits=limits)


def _configuration(group: groups.ThingGroup) -> tuple[object, ...]:
    return group.parent_group_name, group.description, group.attributes


def _described(account: Account, names: list[str]) -> list[dict[str, str]]:
    return [{"groupName": name, "groupArn": group_arn(account, name)} for name in names]
