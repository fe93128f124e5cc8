"""Things and their principals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetgate.domain import registry
from fleetgate.errors import (
    InvalidRequestException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionConflictException,
)
from fleetgate.names import Account, certificate_id_of_principal
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.store import certificates, things
from fleetgate.store.engine import Tx


def thing_arn(account: Account, thing_name: str) -> str:
    """The ARN of a thing."""
    return account.arn(f"thing/{thing_name}")


async def create_thing(
    call: Call,
    thing_name: str,
    thing_type_name: str | None = None,
    attribute_payload: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """CreateThing: creating the same thing with the same configuration again succeeds."""
    attributes = registry.updated_attributes(
        {}, (attribute_payload or {}).get("attributes", {}), merge=False
    )
    _check_attributes(attributes, thing_type_name)

    def change(tx: Tx) -> things.Thing:
        existing = things.find_thing(tx, thing_name)
        if existing is not None:
            if (existing.thing_type_name, existing.attributes) == (thing_type_name, attributes):
                return existing
            raise ResourceAlreadyExistsException(
                f"Thing {thing_name} already exists in account with different configuration",
                resourceId=existing.thing_id,
                resourceArn=thing_arn(call.account, thing_name),
            )
        if thing_type_name is not None:
            require_usable_type(tx, thing_type_name)
        thing = things.Thing(
            thing_name, call.services.new_id(), thing_type_name, attributes, 1, call.now
        )
        things.add_thing(tx, thing)
        return thing

    thing = await call.write(change)
    return {
        "thingName": thing_name,
        "thingArn": thing_arn(call.account, thing_name),
        "thingId": thing.thing_id,
    }


async def describe_thing(call: Call, thing_name: str) -> dict[str, Any]:
    """DescribeThing."""
    thing = await call.read(require_thing, thing_name)
    return {"defaultClientId": thing_name, "thingId": thing.thing_id, **_summary(call, thing)}


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

    def change(tx: Tx) -> None:
        thing = require_thing(tx, thing_name)
        check_version("thing", thing_name, thing.version, expected_version)
        type_name = thing.thing_type_name
        if thing_type_name is not None:
            require_usable_type(tx, thing_type_name)
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
        _check_attributes(attributes, type_name)
        things.update_thing(
            tx,
            replace(
                thing,
                thing_type_name=type_name,
                attributes=attributes,
                version=thing.version + 1,
            ),
        )

    await call.write(change)
    return {}


async def delete_thing(
    call: Call, thing_name: str, expected_version: int | None = None
) -> dict[str, Any]:
    """DeleteThing: deleting a thing that does not exist succeeds."""

    def change(tx: Tx) -> None:
        thing = things.find_thing(tx, thing_name)
        if thing is None:
            return
        check_version("thing", thing_name, thing.version, expected_version)
        if things.list_thing_principals(tx, thing_name, "", 1):
            raise InvalidRequestException(
                f"Cannot delete. Thing {thing_name} is still attached to one or more principals"
            )
        things.remove_thing(tx, thing_name)

    await call.write(change)
    call.policies_changed()
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
        raise InvalidRequestException("attributeName and attributeValue go together")
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


async def attach_thing_principal(
    call: Call, thing_name: str, principal: str, thing_principal_type: str | None = None
) -> dict[str, Any]:
    """AttachThingPrincipal: a certificate, by ARN, to a thing; twice is once."""
    if thing_principal_type == "EXCLUSIVE_THING":
        raise InvalidRequestException(
            "thingPrincipalType `EXCLUSIVE_THING` is not offered by this server; "
            "leave it out or use `NON_EXCLUSIVE_THING`"
        )

    def change(tx: Tx) -> None:
        require_thing(tx, thing_name)
        _require_principal(tx, call.account, principal)
        things.add_thing_principal(tx, thing_name, principal)

    await call.write(change)
    call.policies_changed()
    return {}


async def detach_thing_principal(call: Call, thing_name: str, principal: str) -> dict[str, Any]:
    """DetachThingPrincipal."""

    def change(tx: Tx) -> None:
        require_thing(tx, thing_name)
        _require_principal(tx, call.account, principal)
        if not things.remove_thing_principal(tx, thing_name, principal):
            raise ResourceNotFoundException(
                f"Principal `{principal}` is not attached to thing {thing_name}"
            )

    await call.write(change)
    call.policies_changed()
    return {}


async def list_thing_principals(
    call: Call, thing_name: str, next_token: str | None = None, max_results: int = pages.PAGE
) -> dict[str, Any]:
    """ListThingPrincipals: ARNs."""
    after = pages.start_after_name(call, "ListThingPrincipals", next_token)

    def find(tx: Tx) -> list[str]:
        require_thing(tx, thing_name)
        return things.list_thing_principals(tx, thing_name, after, max_results + 1)

    found = await call.read(find)
    principals, following = pages.page(
        call, "ListThingPrincipals", found, max_results, lambda arn: (arn,)
    )
    return {"principals": list(principals), "nextToken": following}


async def list_principal_things(
    call: Call, principal: str, next_token: str | None = None, max_results: int = pages.PAGE
) -> dict[str, Any]:
    """ListPrincipalThings: names."""
    after = pages.start_after_name(call, "ListPrincipalThings", next_token)

    def find(tx: Tx) -> list[str]:
        _require_principal(tx, call.account, principal)
        return things.list_principal_things(tx, principal, after, max_results + 1)

    found = await call.read(find)
    names, following = pages.page(
        call, "ListPrincipalThings", found, max_results, lambda name: (name,)
    )
    return {"things": list(names), "nextToken": following}


def require_thing(tx: Tx, thing_name: str) -> things.Thing:
    """The thing; raises ResourceNotFoundException when there is none of this name."""
    thing = things.find_thing(tx, thing_name)
    if thing is None:
        raise ResourceNotFoundException(f"Thing {thing_name} not found")
    return thing


def require_usable_type(tx: Tx, thing_type_name: str) -> None:
    """Raises unless the thing type exists and is not deprecated."""
    thing_type = things.find_thing_type(tx, thing_type_name)
    if thing_type is None:
        raise ResourceNotFoundException(f"Thing type {thing_type_name} not found")
    if thing_type.deprecated_at is not None:
        raise InvalidRequestException(
            f"Thing type {thing_type_name} is deprecated: no thing can be given it"
        )


def check_version(kind: str, name: str, version: int, expected: int | None) -> None:
    """Optimistic locking: VersionConflictException unless `expected` is None or `version`."""
    if expected is not None and expected != version:
        raise VersionConflictException(
            f"The {kind} {name} has version {version}, not the expected version {expected}"
        )


def _check_attributes(attributes: Mapping[str, str], type_name: str | None) -> None:
    registry.check_attributes(attributes)
    registry.check_attribute_count(len(attributes), typed=type_name is not None)


def _require_principal(tx: Tx, account: Account, principal: str) -> None:
    certificate_id = certificate_id_of_principal(account, principal)
    if certificates.find_certificate(tx, certificate_id) is None:
        raise ResourceNotFoundException(f"Certificate not found (arn={principal})")


def _summary(call: Call, thing: things.Thing) -> dict[str, Any]:
    return {
        "thingName": thing.thing_name,
        "thingArn": thing_arn(call.account, thing.thing_name),
        "thingTypeName": thing.thing_type_name,
        "attributes": thing.attributes,
        "version": thing.version,
    }
