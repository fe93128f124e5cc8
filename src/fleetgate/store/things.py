"""Things, their types and their principals."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from fleetgate.store.engine import Row, Tx
from fleetgate.store.prefixes import prefix_range


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing; `attributes` is a flat map of text, `version` grows with every change.

    `billing_group_name` is None while it is in no billing group; a change of it is no change of
    the thing's version.
    """

    thing_name: str
    thing_id: str
    thing_type_name: str | None
    attributes: Mapping[str, str]
    version: int
    created_at: float
    billing_group_name: str | None = None


@dataclass(frozen=True, slots=True)
class ThingType:
    """A thing type; `deprecated_at` is None while things may be given this type.

    `propagating_attributes` are those of its ``mqtt5Configuration``, None when it has none.
    """

    thing_type_name: str
    thing_type_id: str
    description: str | None
    searchable_attributes: tuple[str, ...]
    deprecated_at: float | None
    created_at: float
    propagating_attributes: tuple[Mapping[str, str], ...] | None = None


_THING = (
    "thing_name, thing_id, thing_type_name, attributes, version, created_at, billing_group_name"
)
_T_THING = ", ".join("t." + column for column in _THING.split(", "))
_TYPE = (
    "thing_type_name, thing_type_id, description, searchable_attributes, deprecated_at, "
    "created_at, propagating_attributes"
)
_encode = msgspec.json.Encoder().encode
_decode_attributes = msgspec.json.Decoder(dict[str, str]).decode
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_propagating = msgspec.json.Decoder(tuple[dict[str, str], ...]).decode


def _thing(row: Row) -> Thing:
    return Thing(row[0], row[1], row[2], _decode_attributes(row[3]), row[4], row[5], row[6])


def _thing_type(row: Row) -> ThingType:
    propagating = None if row[6] is None else _decode_propagating(row[6])
    return ThingType(row[0], row[1], row[2], _decode_names(row[3]), row[4], row[5], propagating)


def find_thing(tx: Tx, thing_name: str) -> Thing | None:
    """The thing of this name, or None."""
    row = tx.one(
        f"SELECT {_THING} FROM thing WHERE thing_name = :name",
        name=thing_name,
    )
    return None if row is None else _thing(row)


def list_things(
    tx: Tx,
    after: str,
    limit: int,
    *,
    thing_type_name: str | None = None,
    attribute: tuple[str, str, bool] | None = None,
) -> list[Thing]:
    """Things by name, behind the name `after`.

    `thing_type_name` and `attribute` = (name, value, whether a prefix of the value is enough)
    narrow the list.
    """
    params: dict[str, object] = {"after": after, "limit": limit}
    source, key, where = "thing t", "t.thing_name", ""
    if attribute is not None:
        # a thing has one value of an attribute, so no thing is found twice; the key of an exact
        # value is in the index, in order
        name, value, prefix = attribute
        source = "thing_attribute f JOIN thing t ON t.thing_name = f.thing_name"
        key, where = "f.thing_name", "AND f.name = :attribute "
        params["attribute"] = name
        if prefix:
            begins, of_prefix = prefix_range("f.value", value)
            where += begins
            params |= of_prefix
        else:
            where += "AND f.value = :value "
            params["value"] = value
    if thing_type_name is not None:
        where += "AND t.thing_type_name = :type "
        params["type"] = thing_type_name
    rows = tx.all(
        f"SELECT {_T_THING} FROM {source} WHERE {key} > :after {where}ORDER BY {key} LIMIT :limit",
        **params,
    )
    return [_thing(row) for row in rows]


def add_thing(tx: Tx, thing: Thing) -> bool:
    """Stores a new thing; False, and nothing stored, when there is one of this name."""
    added = tx.run(
        f"INSERT INTO thing ({_THING}) VALUES "
        "(:name, :id, :type, :attributes, :version, :created, :billing_group) "
        "ON CONFLICT DO NOTHING",
        name=thing.thing_name,
        id=thing.thing_id,
        type=thing.thing_type_name,
        attributes=_encode(thing.attributes).decode(),
        version=thing.version,
        created=thing.created_at,
        billing_group=thing.billing_group_name,
    )
    if added == 0:
        return False
    _index_attributes(tx, thing)
    return True


def update_thing(tx: Tx, thing: Thing) -> None:
    """Stores type, attributes and version of a thing anew."""
    tx.send(
        "UPDATE thing SET thing_type_name = :type, attributes = :attributes, version = :version "
        "WHERE thing_name = :name",
        name=thing.thing_name,
        type=thing.thing_type_name,
        attributes=_encode(thing.attributes).decode(),
        version=thing.version,
    )
    tx.send("DELETE FROM thing_attribute WHERE thing_name = :name", name=thing.thing_name)
    _index_attributes(tx, thing)


def remove_thing(tx: Tx, thing_name: str) -> None:
    """Deletes a thing with its attributes and group memberships."""
    tx.send("DELETE FROM thing_attribute WHERE thing_name = :name", name=thing_name)
    tx.send("DELETE FROM thing_group_member WHERE thing_name = :name", name=thing_name)
    tx.send("DELETE FROM thing WHERE thing_name = :name", name=thing_name)


def add_thing_principal(tx: Tx, thing_name: str, principal: str, exclusive: bool = False) -> None:
    """Attaches a principal (ARN) to a thing; one that is attached stays as it is."""
    tx.send(
        "INSERT INTO thing_principal (thing_name, principal, exclusive) "
        "VALUES (:thing, :principal, :exclusive) ON CONFLICT DO NOTHING",
        thing=thing_name,
        principal=principal,
        exclusive=int(exclusive),
    )


def remove_thing_principal(tx: Tx, thing_name: str, principal: str) -> bool:
    """Detaches; False when it was not attached."""
    return (
        tx.run(
            "DELETE FROM thing_principal WHERE thing_name = :thing AND principal = :principal",
            thing=thing_name,
            principal=principal,
        )
        > 0
    )


def remove_principal_attachments(tx: Tx, principal: str) -> None:
    """Detaches a principal from all things."""
    tx.send("DELETE FROM thing_principal WHERE principal = :principal", principal=principal)


def list_thing_principals(tx: Tx, thing_name: str, after: str, limit: int) -> list[str]:
    """ARNs of the principals of a thing, behind the ARN `after`."""
    return [arn for arn, _ in list_thing_attachments(tx, thing_name, after, limit)]


def list_thing_attachments(
    tx: Tx, thing_name: str, after: str, limit: int, *, exclusive: bool | None = None
) -> list[tuple[str, bool]]:
    """The same, each with whether it is attached exclusively; `exclusive` narrows the list."""
    narrowed, params = _narrowed(exclusive)
    rows = tx.all(
        "SELECT principal, exclusive FROM thing_principal WHERE thing_name = :thing "
        f"{narrowed}AND principal > :after ORDER BY principal LIMIT :limit",
        thing=thing_name,
        after=after,
        limit=limit,
        **params,
    )
    return [(row[0], row[1] != 0) for row in rows]


def list_principal_things(tx: Tx, principal: str, after: str, limit: int) -> list[str]:
    """Names of the things a principal is attached to, behind the name `after`."""
    return [name for name, _ in list_principal_attachments(tx, principal, after, limit)]


def list_principal_attachments(
    tx: Tx, principal: str, after: str, limit: int, *, exclusive: bool | None = None
) -> list[tuple[str, bool]]:
    """The same, each with whether it is attached exclusively; `exclusive` narrows the list."""
    narrowed, params = _narrowed(exclusive)
    rows = tx.all(
        "SELECT thing_name, exclusive FROM thing_principal WHERE principal = :principal "
        f"{narrowed}AND thing_name > :after ORDER BY thing_name LIMIT :limit",
        principal=principal,
        after=after,
        limit=limit,
        **params,
    )
    return [(row[0], row[1] != 0) for row in rows]


def find_attachment(tx: Tx, thing_name: str, principal: str) -> dict[str, bool]:
    """The thing with whether the principal is attached to it exclusively; empty when it is not."""
    row = tx.one(
        "SELECT exclusive FROM thing_principal "
        "WHERE thing_name = :thing AND principal = :principal",
        thing=thing_name,
        principal=principal,
    )
    return {} if row is None else {thing_name: row[0] != 0}


def _narrowed(exclusive: bool | None) -> tuple[str, dict[str, int]]:
    if exclusive is None:
        return "", {}
    return "AND exclusive = :exclusive ", {"exclusive": int(exclusive)}


def find_thing_type(tx: Tx, thing_type_name: str) -> ThingType | None:
    """The thing type of this name, or None."""
    row = tx.one(
        f"SELECT {_TYPE} FROM thing_type WHERE thing_type_name = :name",
        name=thing_type_name,
    )
    return None if row is None else _thing_type(row)


def list_thing_types(
    tx: Tx, after: str, limit: int, *, thing_type_name: str | None = None
) -> list[ThingType]:
    """Thing types by name, behind the name `after`; just the one of `thing_type_name`, if given."""
    only = "" if thing_type_name is None else "AND thing_type_name = :only "
    rows = tx.all(
        f"SELECT {_TYPE} FROM thing_type WHERE thing_type_name > :after {only}"
        "ORDER BY thing_type_name LIMIT :limit",
        after=after,
        limit=limit,
        **({} if thing_type_name is None else {"only": thing_type_name}),
    )
    return [_thing_type(row) for row in rows]


def add_thing_type(tx: Tx, thing_type: ThingType) -> None:
    """Stores a new thing type."""
    tx.send(
        f"INSERT INTO thing_type ({_TYPE}) "
        "VALUES (:name, :id, :description, :searchable, NULL, :created, :propagating)",
        name=thing_type.thing_type_name,
        id=thing_type.thing_type_id,
        description=thing_type.description,
        searchable=_encode(thing_type.searchable_attributes).decode(),
        created=thing_type.created_at,
        propagating=_propagating(thing_type),
    )


def update_thing_type(tx: Tx, thing_type: ThingType) -> None:
    """Stores the propagating attributes of a thing type anew."""
    tx.send(
        "UPDATE thing_type SET propagating_attributes = :propagating WHERE thing_type_name = :name",
        name=thing_type.thing_type_name,
        propagating=_propagating(thing_type),
    )


def update_thing_type_deprecation(tx: Tx, thing_type_name: str, at: float | None) -> None:
    """Deprecates a thing type at a moment, or takes that back with None."""
    tx.send(
        "UPDATE thing_type SET deprecated_at = :at WHERE thing_type_name = :name",
        name=thing_type_name,
        at=at,
    )


def remove_thing_type(tx: Tx, thing_type_name: str) -> None:
    """Deletes a thing type."""
    tx.send("DELETE FROM thing_type WHERE thing_type_name = :name", name=thing_type_name)


def _propagating(thing_type: ThingType) -> str | None:
    attributes = thing_type.propagating_attributes
    return None if attributes is None else _encode(attributes).decode()


def _index_attributes(tx: Tx, thing: Thing) -> None:
    if not thing.attributes:
        return
    # one statement for all: each costs as much as the thing's own
    sql, keys = _insert_attributes(len(thing.attributes))
    words = (word for attribute in thing.attributes.items() for word in attribute)
    tx.send(sql, thing=thing.thing_name, **dict(zip(keys, words, strict=True)))


@functools.cache
def _insert_attributes(count: int) -> tuple[str, tuple[str, ...]]:
    values = ", ".join(f"(:n{index}, :v{index}, :thing)" for index in range(count))
    keys = tuple(f"{letter}{index}" for index in range(count) for letter in "nv")
    return f"INSERT INTO thing_attribute (name, value, thing_name) VALUES {values}", keys
