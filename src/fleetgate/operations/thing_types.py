"""Thing types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetgate.domain import registry
from fleetgate.domain.events import Event
from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.operations import events, pages
from fleetgate.operations.call import Call
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.store import things
from fleetgate.store.engine import Tx
from fleetgate.store.tags import remove_tags

DELETION_WAIT = 300.0
"""Seconds between deprecation and deletion (AWS IoT developer guide, "Delete a thing type")."""


async def create_thing_type(
    call: Call,
    thing_type_name: str,
    thing_type_properties: Mapping[str, Any] | None = None,
    tags: Tags | None = None,
) -> dict[str, Any]:
    """CreateThingType: creating the same type with the same properties again succeeds."""
    properties = thing_type_properties or {}
    arn = _arn(call, thing_type_name)
    new = things.ThingType(
        thing_type_name,
        call.services.new_id(),
        properties.get("thingTypeDescription"),
        tuple(properties.get("searchableAttributes", ())),
        None,
        call.now,
        _propagating(properties),
    )
    registry.check_searchable_attributes(new.searchable_attributes, limits=call.services.limits)
    checked = checked_tags(call, tags)

    def change(tx: Tx) -> things.ThingType:
        existing = things.find_thing_type(tx, thing_type_name)
        if existing is None:
            things.add_thing_type(tx, new)
            add_tags(tx, call, arn, checked)
            return new
        if _properties(existing) == _properties(new):
            return existing
        raise ResourceAlreadyExistsException(
            f"Thing type {thing_type_name} already exists in account with different properties",
            resourceId=existing.thing_type_id,
            resourceArn=arn,
        )

    thing_type = await call.write(change)
    if thing_type is new:
        events.publish(call, events.of_thing_type(call, None, new))
    return {
        "thingTypeName": thing_type_name,
        "thingTypeArn": arn,
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


async def update_thing_type(
    call: Call, thing_type_name: str, thing_type_properties: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """UpdateThingType: its ``mqtt5Configuration``; everything else never changes.

    Source: AWS IoT Developer Guide, "Adding propagating attributes for message enrichment":
    "you can only update mqtt5Configuration when you run this command".
    """
    properties = thing_type_properties or {}
    propagating = _propagating(properties)

    def change(tx: Tx) -> list[Event]:
        thing_type = _require(tx, thing_type_name)
        current = _properties(thing_type)
        for member in ("thingTypeDescription", "searchableAttributes"):
            if member in properties and properties[member] != current[member]:
                raise InvalidRequestException(
                    f"{member} of thing type {thing_type_name} cannot be changed to "
                    f"`{properties[member]}`: only mqtt5Configuration can be updated"
                )
        if propagating is None or propagating == thing_type.propagating_attributes:
            return []
        changed = replace(thing_type, propagating_attributes=propagating)
        things.update_thing_type(tx, changed)
        return events.of_thing_type(call, thing_type, changed)

    events.publish(call, await call.write(change))
    return {}


async def deprecate_thing_type(
    call: Call, thing_type_name: str, undo_deprecate: bool = False
) -> dict[str, Any]:
    """DeprecateThingType: no thing can be given the type any more; `undo_deprecate` takes back."""

    def change(tx: Tx) -> list[Event]:
        thing_type = _require(tx, thing_type_name)
        if undo_deprecate != (thing_type.deprecated_at is not None):
            # a second time changes nothing: the wait before deletion does not begin anew
            return []
        changed = replace(thing_type, deprecated_at=None if undo_deprecate else call.now)
        things.update_thing_type_deprecation(tx, thing_type_name, changed.deprecated_at)
        return events.of_thing_type(call, thing_type, changed)

    events.publish(call, await call.write(change))
    return {}


async def delete_thing_type(call: Call, thing_type_name: str) -> dict[str, Any]:
    """DeleteThingType: a type deprecated for five minutes that no thing has."""

    def change(tx: Tx) -> list[Event]:
        thing_type = _require(tx, thing_type_name)
        refused = f"Cannot delete thing type : {thing_type_name}."
        if thing_type.deprecated_at is None:
            raise InvalidRequestException(f"{refused} Please deprecate it first")
        if call.now < thing_type.deprecated_at + DELETION_WAIT:
            raise InvalidRequestException(
                f"{refused} Please wait for {DELETION_WAIT / 60:.0f} minutes after deprecation "
                "and then retry"
            )
        if things.list_things(tx, "", 1, thing_type_name=thing_type_name):
            raise InvalidRequestException(
                f"{refused} It is still associated with one or more things"
            )
        things.remove_thing_type(tx, thing_type_name)
        remove_tags(tx, _arn(call, thing_type_name))
        return events.of_thing_type(call, thing_type, None)

    events.publish(call, await call.write(change))
    return {}


def _require(tx: Tx, thing_type_name: str) -> things.ThingType:
    thing_type = things.find_thing_type(tx, thing_type_name)
    if thing_type is None:
        raise ResourceNotFoundException(f"Thing type {thing_type_name} not found")
    return thing_type


def _arn(call: Call, thing_type_name: str) -> str:
    return call.account.arn(f"thingtype/{thing_type_name}")


def _propagating(properties: Mapping[str, Any]) -> tuple[Mapping[str, str], ...] | None:
    """The propagating attributes asked for; None when the properties do not speak of MQTT 5."""
    configuration = properties.get("mqtt5Configuration")
    if configuration is None:
        return None
    attributes = tuple(configuration.get("propagatingAttributes", ()))
    registry.check_propagating_attributes(attributes)
    return attributes


def _properties(thing_type: things.ThingType) -> dict[str, Any]:
    attributes = thing_type.propagating_attributes
    return {
        "thingTypeDescription": thing_type.description,
        "searchableAttributes": list(thing_type.searchable_attributes),
        "mqtt5Configuration": None
        if attributes is None
        else {"propagatingAttributes": [dict(attribute) for attribute in attributes]},
    }


def _summary(call: Call, thing_type: things.ThingType) -> dict[str, Any]:
    return {
        "thingTypeName": thing_type.thing_type_name,
        "thingTypeArn": _arn(call, thing_type.thing_type_name),
        "thingTypeProperties": _properties(thing_type),
        "thingTypeMetadata": {
            "deprecated": thing_type.deprecated_at is not None,
            "deprecationDate": thing_type.deprecated_at,
            "creationDate": thing_type.created_at,
        },
    }
