"""Billing groups: things whose costs are told apart by the group's tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetgate.errors import InvalidRequestException, ResourceAlreadyExistsException
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.operations.things import check_version, named, require_billing_group, require_thing
from fleetgate.store import billing_groups
from fleetgate.store.engine import Tx
from fleetgate.store.tags import remove_tags


def billing_group_arn(account: Account, name: str) -> str:
    """The ARN of a billing group."""
    return account.arn(f"billinggroup/{name}")


async def create_billing_group(
    call: Call,
    billing_group_name: str,
    billing_group_properties: Mapping[str, Any] | None = None,
    tags: Tags | None = None,
) -> dict[str, Any]:
    """CreateBillingGroup: creating the same group with the same properties again succeeds."""
    arn = billing_group_arn(call.account, billing_group_name)
    description = (billing_group_properties or {}).get("billingGroupDescription")
    new = billing_groups.BillingGroup(
        billing_group_name, call.services.new_id(), description, 1, call.now
    )
    checked = checked_tags(call, tags)

    def change(tx: Tx) -> billing_groups.BillingGroup:
        existing = billing_groups.find_billing_group(tx, billing_group_name)
        if existing is None:
            billing_groups.add_billing_group(tx, new)
            add_tags(tx, call, arn, checked)
            return new
        if existing.description == description:
            return existing
        raise ResourceAlreadyExistsException(
            f"Billing group {billing_group_name} already exists in account with different "
            "properties",
            resourceId=existing.billing_group_id,
            resourceArn=arn,
        )

    group = await call.write(change)
    return {
        "billingGroupName": billing_group_name,
        "billingGroupArn": arn,
        "billingGroupId": group.billing_group_id,
    }


async def describe_billing_group(call: Call, billing_group_name: str) -> dict[str, Any]:
    """DescribeBillingGroup."""
    group = await call.read(require_billing_group, billing_group_name)
    return {
        "billingGroupName": billing_group_name,
        "billingGroupId": group.billing_group_id,
        "billingGroupArn": billing_group_arn(call.account, billing_group_name),
        "version": group.version,
        "billingGroupProperties": {"billingGroupDescription": group.description},
        "billingGroupMetadata": {"creationDate": group.created_at},
    }


async def update_billing_group(
    call: Call,
    billing_group_name: str,
    billing_group_properties: Mapping[str, Any],
    expected_version: int | None = None,
) -> dict[str, Any]:
    """UpdateBillingGroup: the description."""

    def change(tx: Tx) -> int:
        group = require_billing_group(tx, billing_group_name)
        check_version("billing group", billing_group_name, group.version, expected_version)
        changed = replace(
            group,
            description=billing_group_properties.get("billingGroupDescription", group.description),
            version=group.version + 1,
        )
        billing_groups.update_billing_group(tx, changed)
        return changed.version

    return {"version": await call.write(change)}


async def delete_billing_group(
    call: Call, billing_group_name: str, expected_version: int | None = None
) -> dict[str, Any]:
    """DeleteBillingGroup: its things are in none then; absent groups succeed."""

    def change(tx: Tx) -> None:
        group = billing_groups.find_billing_group(tx, billing_group_name)
        if group is None:
            return
        check_version("billing group", billing_group_name, group.version, expected_version)
        billing_groups.remove_billing_group(tx, billing_group_name)
        remove_tags(tx, billing_group_arn(call.account, billing_group_name))

    await call.write(change)
    return {}


async def list_billing_groups(
    call: Call,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    name_prefix_filter: str | None = None,
) -> dict[str, Any]:
    """ListBillingGroups: by name; with a prefix."""
    found = await call.read(
        billing_groups.list_billing_groups,
        pages.start_after_name(call, "ListBillingGroups", next_token),
        max_results + 1,
        prefix=name_prefix_filter,
    )
    names, following = pages.page(
        call, "ListBillingGroups", found, max_results, lambda name: (name,)
    )
    return {
        "billingGroups": [
            {"groupName": name, "groupArn": billing_group_arn(call.account, name)} for name in names
        ],
        "nextToken": following,
    }


async def add_thing_to_billing_group(
    call: Call,
    billing_group_name: str | None = None,
    billing_group_arn: str | None = None,
    thing_name: str | None = None,
    thing_arn: str | None = None,
) -> dict[str, Any]:
    """AddThingToBillingGroup: a thing that is in none, by name or by ARN; twice is once."""
    group = named(
        call.account, "billinggroup", "billingGroup", billing_group_name, billing_group_arn
    )
    thing = named(call.account, "thing", "thing", thing_name, thing_arn)

    def change(tx: Tx) -> None:
        require_billing_group(tx, group)
        current = require_thing(tx, thing).billing_group_name
        if current not in (None, group):
            raise InvalidRequestException(
                f"Thing {thing} is in billing group {current} and cannot be added to {group}: "
                "a thing can belong to exactly one billing group"
            )
        billing_groups.update_billing_group_of_thing(tx, thing, group)

    await call.write(change)
    return {}


async def remove_thing_from_billing_group(
    call: Call,
    billing_group_name: str | None = None,
    billing_group_arn: str | None = None,
    thing_name: str | None = None,
    thing_arn: str | None = None,
) -> dict[str, Any]:
    """RemoveThingFromBillingGroup: removing what is not in it succeeds."""
    group = named(
        call.account, "billinggroup", "billingGroup", billing_group_name, billing_group_arn
    )
    thing = named(call.account, "thing", "thing", thing_name, thing_arn)

    def change(tx: Tx) -> None:
        require_billing_group(tx, group)
        if require_thing(tx, thing).billing_group_name == group:
            billing_groups.update_billing_group_of_thing(tx, thing, None)

    await call.write(change)
    return {}


async def list_things_in_billing_group(
    call: Call,
    billing_group_name: str,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
) -> dict[str, Any]:
    """ListThingsInBillingGroup: names."""
    after = pages.start_after_name(call, "ListThingsInBillingGroup", next_token)

    def find(tx: Tx) -> list[str]:
        require_billing_group(tx, billing_group_name)
        return billing_groups.list_things_in_billing_group(
            tx, billing_group_name, after, max_results + 1
        )

    found = await call.read(find)
    names, following = pages.page(
        call, "ListThingsInBillingGroup", found, max_results, lambda name: (name,)
    )
    return {"things": list(names), "nextToken": following}
