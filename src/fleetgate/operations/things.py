"""Things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetgate.domain import registry
from fleetgate.domain.events import Event
from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionConflictException,
)
from fleetgate.names import Account
from fleetgate.operations import events, pages
from fleetgate.operations.call import Call
from fleetgate.store import billing_groups, things
from fleetgate.store.engine import Tx


def thing_arn(account: Account, thing_name: str) -> str:
    """The ARN of a thing."""
    return account.arn(f"thing/{thing_name}")


async def create_thing(
    call: Call,
    thing_name: str,
    thing_type_name: str | None = None,
    attribute_payload: Mapping[str, Any] | None = None,
    billing_group_name: str | None = None,
) -> dict[str, Any]:
    """CreateThing: creating the same thing with the same configuration again succeeds."""
    attributes = registry.updated_attributes(
        {}, (attribute_payload or {}).get("attributes", {}), merge=False
    )
    _check_attributes(attributes, thing_type_name, call.services.limits)
    thing = things.Thing(
        thing_name,
        call.services.new_id(),
        thing_type_name,
        attributes,
        1,
        call.now,
        billing_group_name,
    )

    def change(tx: Tx) -> things.Thing:
        # stored first: what it refers to is looked up only when it is new, and undoes it
        if things.add_thing(tx, thing):
            if thing_type_name is not None:
                _require_usable_type(tx, thing_type_name, DEPRECATED_FOR_NEW)
            if billing_group_name is not None:
                require_billing_group(tx, billing_group_name)
            return thing
        existing = require_thing(tx, thing_name)
        if (existing.thing_type_name, existing.attributes, existing.billing_group_name) == (
            thing_type_name,
            attributes,
            billing_group_name,
        ):
            return existing
        raise ResourceAlreadyExistsException(
            f"Thing {thing_name} already exists in account with different attributes",
            resourceId=existing.thing_id,
            resourceArn=thing_arn(call.account, thing_name),
        )

    stored = await call.write(change)
    if stored is thing:
        events.publish(call, events.of_thing(call, None, thing))
    return {
        "thingName": thing_name,
        "thingArn": thing_arn(call.account, thing_name),
        "thingId": stored.thing_id,
    }


async def describe_thing(call: Call, thing_name: str) -> dict[str, Any]:
    """DescribeThing."""
    thing = await call.read(require_thing, thing_name)
    return {
        "defaultClientId": thing_name,
        "thingId": thing.thing_id,
        "billingGroupName": thing.billing_group_name,
        **_summary(call, thing),
    }


async def update_thing(
    call: Call,
    thing_name: str,
    thing_type_name: str | None = None,
    attribute_payload: Mapping[str, Any] | None = None,
    expected_version: int | None = None,
    remove_thing_type: bool = False,
) -> dict[str, Any]:
    """UpdateThing: replaces the attributes, or merges them when the payload says so."""
    if remove_thing_type and thing_type_name is not None:
        raise InvalidRequestException(
            "thingTypeName and removeThingType may not be given together "
            f"(thingTypeName={thing_type_name})"
        )

    def change(tx: Tx) -> tuple[things.Thing, things.Thing, bool]:
        thing = require_thing(tx, thing_name)
        check_version("thing", thing_name, thing.version, expected_version)
        type_name = thing.thing_type_name
        if thing_type_name is not None and thing_type_name != type_name:
            _require_usable_type(tx, thing_type_name, DEPRECATED_FOR_EXISTING)
            type_name = thing_type_name
        elif remove_thing_type:
            type_name = None
        attributes = thing.attributes
        if attribute_payload is not None:
            attributes = registry.updated_attributes(
                thing.attributes,
                attribute_payload.get("attributes", {}),
                merge=attribute_payload.get("merge", False),
            )
        _check_attributes(attributes, type_name, call.services.limits)
        changed = replace(
            thing, thing_type_name=type_name, attributes=attributes, version=thing.version + 1
        )
        things.update_thing(tx, changed)
        return thing, changed, bool(things.list_thing_principals(tx, thing_name, "", 1))

    before, after, attached = await call.write(change)
    if attached:  # nobody's policies know a thing that no principal is attached to
        call.policies_changed()
    events.publish(call, events.of_thing(call, before, after))
    return {}


async def delete_thing(
    call: Call, thing_name: str, expected_version: int | None = None
) -> dict[str, Any]:
    """DeleteThing: deleting a thing that does not exist succeeds."""

    def change(tx: Tx) -> list[Event]:
        thing = things.find_thing(tx, thing_name)
        if thing is None:
            return []
        check_version("thing", thing_name, thing.version, expected_version)
        if things.list_thing_principals(tx, thing_name, "", 1):
            raise InvalidRequestException(
                f"Cannot delete. Thing {thing_name} is still attached to one or more principals"
            )
        left = events.of_all_members(tx, call, thing)
        things.remove_thing(tx, thing_name)
        return left + events.of_thing(call, thing, None)

    events.publish(call, await call.write(change))
    return {}


async def list_things(
    call: Call,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    attribute_name: str | None = None,
    attribute_value: str | None = None,
    thing_type_name: str | None = None,
    use_prefix_attribute_value: bool = False,
) -> dict[str, Any]:
    """ListThings: by name, narrowed by type and by one attribute."""
    if (attribute_name is None) != (attribute_value is None):
        given, missing = "attributeName", "attributeValue"
        if attribute_name is None:
            given, missing = missing, given
        raise InvalidRequestException(f"{missing} is missing: {given} needs it")
    attribute = (
        None
        if attribute_name is None or attribute_value is None
        else (attribute_name, attribute_value, use_prefix_attribute_value)
    )
    found = await call.read(
        things.list_things,
        pages.start_after_name(call, "ListThings", next_token),
        max_results + 1,
        thing_type_name=thing_type_name,
        attribute=attribute,
    )
    items, following = pages.page(
        call, "ListThings", found, max_results, lambda thing: (thing.thing_name,)
    )
    return {"things": [_summary(call, thing) for thing in items], "nextToken": following}


DEPRECATED_FOR_NEW = "Can not create new thing with depreated thing type:{}"
"""AWS's wording, misspelling included: clients look for it."""

DEPRECATED_FOR_EXISTING = "Can not update a thing to use deprecated thing type: {}"
"""AWS's wording."""


def require_thing(tx: Tx, thing_name: str) -> things.Thing:
    """The thing; raises ResourceNotFoundException when there is none of this name."""
    thing = things.find_thing(tx, thing_name)
    if thing is None:
        raise ResourceNotFoundException(f"Thing {thing_name} not found")
    return thing


def require_billing_group(tx: Tx, name: str) -> billing_groups.BillingGroup:
    """The billing group; raises ResourceNotFoundException when there is none of this name."""
    group = billing_groups.find_billing_group(tx, name)
    if group is None:
        raise ResourceNotFoundException(f"Billing group {name} not found")
    return group


def check_version(kind: str, name: str, version: int, expected: int | None) -> None:
    """Optimistic locking: VersionConflictException unless `expected` is None or `version`."""
    if expected is not None and expected != version:
        raise VersionConflictException(
            f"The version for {kind} {name} does not match the expected version: "
            f"it is {version}, not {expected}"
        )


def named(account: Account, kind: str, member: str, name: str | None, arn: str | None) -> str:
    """The name given directly or inside an ARN; both must agree, one must be there.

    `kind` is the word in the ARN, `member` the members' names without ``Name`` and ``Arn``.
    Raises InvalidRequestException.
    """
    if name is None and arn is None:
        raise InvalidRequestException(
            f"Both {member}Arn and {member}Name are empty. Need to specify at least one of them"
        )
    if arn is None:
        return name or ""
    of_arn = account.resource(arn, kind)
    if not of_arn:
        raise InvalidRequestException(
            f"{member}Arn `{arn}` is not an ARN of the form {account.arn(kind + '/')}NAME"
        )
    if name is not None and name != of_arn:
        raise InvalidRequestException(
            f"{member}Arn {arn} does not match specified {member}Name {name} in request"
        )
    return of_arn


def _require_usable_type(tx: Tx, thing_type_name: str, deprecated: str) -> None:
    thing_type = things.find_thing_type(tx, thing_type_name)
    if thing_type is None:
        raise ResourceNotFoundException(f"Thing type {thing_type_name} not found")
    if thing_type.deprecated_at is not None:
        raise InvalidRequestException(deprecated.format(thing_type_name))


def _check_attributes(attributes: Mapping[str, str], type_name: str | None, limits: Limits) -> None:
    registry.check_attributes(attributes)
    registry.check_attribute_count(len(attributes), typed=type_name is not None, limits=limits)


def _summary(call: Call, thing: things.Thing) -> dict[str, Any]:
    return {
        "thingName": thing.thing_name,
        "thingArn": thing_arn(call.account, thing.thing_name),
        "thingTypeName": thing.thing_type_name,
        "attributes": thing.attributes,
        "version": thing.version,
    }
