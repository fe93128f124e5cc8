"""Static thing groups and membership."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetgate.domain import registry
from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.operations.things import check_version, require_thing
from fleetgate.store import groups, policies
from fleetgate.store.engine import Tx


def group_arn(account: Account, name: str) -> str:
    """The ARN of a thing group."""
    return account.arn(f"thinggroup/{name}")


async def create_thing_group(
    call: Call,
    thing_group_name: str,
    parent_group_name: str | None = None,
    thing_group_properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """CreateThingGroup: creating the same group with the same properties again succeeds."""
    properties = thing_group_properties or {}
    description = properties.get("thingGroupDescription")
    attributes = properties.get("attributePayload", {}).get("attributes", {})
    registry.check_group_attributes(attributes)

    def change(tx: Tx) -> groups.ThingGroup:
        existing = groups.find_thing_group(tx, thing_group_name)
        if existing is not None:
            same = (existing.parent_group_name, existing.description, existing.attributes)
            if same == (parent_group_name, description, attributes):
                return existing
            raise ResourceAlreadyExistsException(
                f"Thing group {thing_group_name} already exists in account with different "
                "properties",
                resourceId=existing.thing_group_id,
                resourceArn=group_arn(call.account, thing_group_name),
            )
        if parent_group_name is not None:
            require_group(tx, parent_group_name)
            registry.check_group_depth(
                thing_group_name, len(groups.list_group_ancestors(tx, parent_group_name)) + 2
            )
        group = groups.ThingGroup(
            thing_group_name,
            call.services.new_id(),
            parent_group_name,
            description,
            attributes,
            1,
            call.now,
        )
        groups.add_thing_group(tx, group)
        return group

    group = await call.write(change)
    return {
        "thingGroupName": thing_group_name,
        "thingGroupArn": group_arn(call.account, thing_group_name),
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
            "attributePayload": {"attributes": group.attributes},
        },
        "thingGroupMetadata": {
            "parentGroupName": group.parent_group_name,
            "rootToParentThingGroups": _described(
                call.account, [above.thing_group_name for above in ancestors]
            ),
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

    def change(tx: Tx) -> int:
        group = require_group(tx, thing_group_name)
        check_version("thing group", thing_group_name, group.version, expected_version)
        attributes = group.attributes
        if (payload := thing_group_properties.get("attributePayload")) is not None:
            attributes = registry.updated_attributes(
                group.attributes, payload.get("attributes", {}), merge=payload.get("merge", False)
            )
            registry.check_group_attributes(attributes)
        changed = replace(
            group,
            description=thing_group_properties.get("thingGroupDescription", group.description),
            attributes=attributes,
            version=group.version + 1,
        )
        groups.update_thing_group(tx, changed)
        return changed.version

    return {"version": await call.write(change)}


async def delete_thing_group(
    call: Call, thing_group_name: str, expected_version: int | None = None
) -> dict[str, Any]:
    """DeleteThingGroup: a group without child groups; absent groups succeed."""

    def change(tx: Tx) -> None:
        group = groups.find_thing_group(tx, thing_group_name)
        if group is None:
            return
        check_version("thing group", thing_group_name, group.version, expected_version)
        if groups.has_child_groups(tx, thing_group_name):
            raise InvalidRequestException(
                f"Cannot delete thing group {thing_group_name} when there are still child "
                "groups attached to it"
            )
        target = group_arn(call.account, thing_group_name)
        if policies.list_attached_policies(tx, target, "", 1):
            raise InvalidRequestException(
                f"Cannot delete thing group {thing_group_name}: policies are attached to it"
            )
        groups.remove_thing_group(tx, thing_group_name)

    await call.write(change)
    call.policies_changed()
    return {}


async def list_thing_groups(
    call: Call,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    parent_group: str | None = None,
    name_prefix_filter: str | None = None,
    recursive: bool = True,
) -> dict[str, Any]:
    """ListThingGroups: by name; below a parent, with a prefix, direct children only."""
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
            recursive=recursive,
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
    group = _name(call.account, "thinggroup", "thingGroup", thing_group_name, thing_group_arn)
    thing = _name(call.account, "thing", "thing", thing_name, thing_arn)
    await call.write(_add_member, group, thing)
    call.policies_changed()
    return {}


async def remove_thing_from_thing_group(
    call: Call,
    thing_group_name: str | None = None,
    thing_group_arn: str | None = None,
    thing_name: str | None = None,
    thing_arn: str | None = None,
) -> dict[str, Any]:
    """RemoveThingFromThingGroup: removing what is no member succeeds."""
    group = _name(call.account, "thinggroup", "thingGroup", thing_group_name, thing_group_arn)
    thing = _name(call.account, "thing", "thing", thing_name, thing_arn)

    def change(tx: Tx) -> None:
        require_group(tx, group)
        require_thing(tx, thing)
        groups.remove_group_member(tx, group, thing)

    await call.write(change)
    call.policies_changed()
    return {}


async def list_thing_groups_for_thing(
    call: Call, thing_name: str, next_token: str | None = None, max_results: int = pages.PAGE
) -> dict[str, Any]:
    """ListThingGroupsForThing: the groups a thing is a direct member of."""
    after = pages.start_after_name(call, "ListThingGroupsForThing", next_token)

    def find(tx: Tx) -> list[str]:
        require_thing(tx, thing_name)
        return groups.list_groups_of_thing(tx, thing_name, after, max_results + 1)

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


def _add_member(tx: Tx, group_name: str, thing_name: str) -> None:
    require_group(tx, group_name)
    require_thing(tx, thing_name)
    members = groups.list_groups_of_thing(tx, thing_name, "", registry.MAX_GROUPS_PER_THING)
    registry.check_groups_per_thing(thing_name, {*members, group_name})
    groups.add_group_member(tx, group_name, thing_name)


def _name(account: Account, kind: str, member: str, name: str | None, arn: str | None) -> str:
    """The name given directly or inside an ARN; both must agree, one must be there."""
    of_arn = None
    if arn is not None:
        of_arn = account.resource(arn, kind)
        if of_arn is None:
            raise InvalidRequestException(
                f"{member}Arn `{arn}` is not an ARN of the form {account.arn(kind + '/')}NAME"
            )
    if name is not None and of_arn is not None and name != of_arn:
        raise InvalidRequestException(f"{member}Name `{name}` and {member}Arn `{arn}` differ")
    found = name or of_arn
    if not found:
        raise InvalidRequestException(f"{member}Name or {member}Arn is required")
    return found


def _described(account: Account, names: list[str]) -> list[dict[str, str]]:
    return [{"groupName": name, "groupArn": group_arn(account, name)} for name in names]
