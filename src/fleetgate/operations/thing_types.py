"""Thing types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetgate.domain import registry
from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.store import things
from fleetgate.store.engine import Tx

DELETION_WAIT = 300.0
"""Seconds between deprecation and deletion (AWS IoT developer guide, "Delete a thing type")."""


async def create_thing_type(
    call: Call, thing_type_name: str, thing_type_properties: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """CreateThingType: creating the same type with the same properties again succeeds."""
    properties = thing_type_properties or {}
    if "mqtt5Configuration" in properties:
        raise InvalidRequestException("mqtt5Configuration is not offered by this server")
    description = properties.get("thingTypeDescription")
    searchable = tuple(properties.get("searchableAttributes", ()))
    registry.check_searchable_attributes(searchable)

    def change(tx: Tx) -> things.ThingType:
        existing = things.find_thing_type(tx, thing_type_name)
        if existing is None:
            thing_type = things.ThingType(
                thing_type_name, call.services.new_id(), description, searchable, None, call.now
            )
            things.add_thing_type(tx, thing_type)
            return thing_type
        if (existing.description, existing.searchable_attributes) == (description, searchable):
            return existing
        raise ResourceAlreadyExistsException(
            f"Thing type {thing_type_name} already exists in account with different properties",
            resourceId=existing.thing_type_id,
            resourceArn=_arn(call, thing_type_name),
        )

    thing_type = await call.write(change)
    return {
        "thingTypeName": thing_type_name,
        "thingTypeArn": _arn(call, thing_type_name),
        "thingTypeId": thing_type.thing_type_id,
    }


async def describe_thing_type(call: Call, thing_type_name: str) -> dict[str, Any]:
    """DescribeThingType."""
    thing_type = await call.read(_require, thing_type_name)
    return {"thingTypeId": thing_type.thing_type_id, **_summary(call, thing_type)}


async def list_thing_types(
    call: Call,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    thing_type_name: str | None = None,
) -> dict[str, Any]:
    """ListThingTypes: by name, or just the one of `thing_type_name`."""
    found = await call.read(
        things.list_thing_types,
        pages.start_after_name(call, "ListThingTypes", next_token),
        max_results + 1,
        thing_type_name=thing_type_name,
    )
    items, following = pages.page(
        call, "ListThingTypes", found, max_results, lambda item: (item.thing_type_name,)
    )
    return {"thingTypes": [_summary(call, item) for item in items], "nextToken": following}


async def deprecate_thing_type(
    call: Call, thing_type_name: str, undo_deprecate: bool = False
) -> dict[str, Any]:
    """DeprecateThingType: no thing can be given the type any more; `undo_deprecate` takes back."""

    def change(tx: Tx) -> None:
        _require(tx, thing_type_name)
        things.update_thing_type_deprecation(
            tx, thing_type_name, None if undo_deprecate else call.now
        )

    await call.write(change)
    return {}


async def delete_thing_type(call: Call, thing_type_name: str) -> dict[str, Any]:
    """DeleteThingType: a type deprecated for five minutes that no thing has."""

    def change(tx: Tx) -> None:
        deprecated_at = _require(tx, thing_type_name).deprecated_at
        if deprecated_at is None or call.now < deprecated_at + DELETION_WAIT:
            raise InvalidRequestException(
                f"Thing type {thing_type_name} must be deprecated and "
                f"{DELETION_WAIT:.0f} seconds must pass before it can be deleted"
            )
        if things.list_things(tx, "", 1, thing_type_name=thing_type_name):
            raise InvalidRequestException(
                f"Thing type {thing_type_name} is still in use by one or more things"
            )
        things.remove_thing_type(tx, thing_type_name)

    await call.write(change)
    return {}


def _require(tx: Tx, thing_type_name: str) -> things.ThingType:
    thing_type = things.find_thing_type(tx, thing_type_name)
    if thing_type is None:
        raise ResourceNotFoundException(f"Thing type {thing_type_name} not found")
    return thing_type


def _arn(call: Call, thing_type_name: str) -> str:
    return call.account.arn(f"thingtype/{thing_type_name}")


def _summary(call: Call, thing_type: things.ThingType) -> dict[str, Any]:
    return {
        "thingTypeName": thing_type.thing_type_name,
        "thingTypeArn": _arn(call, thing_type.thing_type_name),
        "thingTypeProperties": {
            "thingTypeDescription": thing_type.description,
            "searchableAttributes": list(thing_type.searchable_attributes),
        },
        "thingTypeMetadata": {
            "deprecated": thing_type.deprecated_at is not None,
            "deprecationDate": thing_type.deprecated_at,
            "creationDate": thing_type.created_at,
        },
    }
