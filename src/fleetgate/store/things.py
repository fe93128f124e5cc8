"""Things, their types and their principals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from fleetgate.store.engine import Row, Tx


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing; `attributes` is a flat map of text, `version` grows with every change."""

    thing_name: str
    thing_id: str
    thing_type_name: str | None
    attributes: Mapping[str, str]
    version: int
    created_at: float


@dataclass(frozen=True, slots=True)
class ThingType:
    """A thing type; `deprecated_at` is None while things may be given this type."""

    thing_type_name: str
    thing_type_id: str
    description: str | None
    searchable_attributes: tuple[str, ...]
    deprecated_at: float | None
    created_at: float


_THING = "thing_name, thing_id, thing_type_name, attributes, version, created_at"
_TYPE = (
    "thing_type_name, thing_type_id, description, searchable_attributes, deprecated_at, created_at"
)
_encode = msgspec.json.Encoder().encode
_decode_attributes = msgspec.json.Decoder(dict[str, str]).decode
_decode_names = msgspec.json.Decoder(tuple[str, ...]).decode


def _thing(row: Row) -> Thing:
    return Thing(row[0], row[1], row[2], _decode_attributes(row[3]), row[4], row[5])


def _thing_type(row: Row) -> ThingType:
    return ThingType(row[0], row[1], row[2], _decode_names(row[3]), row[4], row[5])


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
    where, params = ["t.thing_name > :after"], {"after": after, "limit": limit}
    source = "thing t"
    if thing_type_name is not None:
        where.append("t.thing_type_name = :type")
        params["type"] = thing_type_name
    if attribute is not None:
        name, value, prefix = attribute
        test = "substr(value, 1, length(:value)) = :value" if prefix else "value = :value"
        source = (
            "(SELECT DISTINCT thing_name FROM thing_attribute "
            f"WHERE name = :attribute AND {test}) f JOIN thing t ON t.thing_name = f.thing_name"
        )
        params |= {"attribute": name, "value": value}
    columns = ", ".join("t." + column for column in _THING.split(", "))
    rows = tx.all(
        f"SELECT {columns} FROM {source} WHERE {' AND '.join(where)} "
        "ORDER BY t.thing_name LIMIT :limit",
        **params,
    )
    return [_thing(row) for row in rows]


def add_thing(tx: Tx, thing: Thing) -> None:
    """Stores a new thing."""
    tx.run(
        f"INSERT INTO thing ({_THING}) VALUES (:name, :id, :type, :attributes, :version, :created)",
        name=thing.thing_name,
        id=thing.thing_id,
        type=thing.thing_type_name,
        attributes=_encode(thing.attributes).decode(),
        version=thing.version,
        created=thing.created_at,
    )
    _index_attributes(tx, thing)


def update_thing(tx: Tx, thing: Thing) -> None:
    """Stores type, attributes and version of a thing anew."""
    tx.run(
        "UPDATE thing SET thing_type_name = :type, attributes = :attributes, version = :version "
        "WHERE thing_name = :name",
        name=thing.thing_name,
        type=thing.thing_type_name,
        attributes=_encode(thing.attributes).decode(),
        version=thing.version,
    )
    tx.run("DELETE FROM thing_attribute WHERE thing_name = :name", name=thing.thing_name)
    _index_attributes(tx, thing)


def remove_thing(tx: Tx, thing_name: str) -> None:
    """Deletes a thing with its attributes and group memberships."""
    tx.run("DELETE FROM thing_attribute WHERE thing_name = :name", name=thing_name)
    tx.run("DELETE FROM thing_group_member WHERE thing_name = :name", name=thing_name)
    tx.run("DELETE FROM thing WHERE thing_name = :name", name=thing_name)


def add_thing_principal(tx: Tx, thing_name: str, principal: str) -> None:
    """Attaches a principal (ARN) to a thing; twice is once."""
    tx.run(
        "INSERT INTO thing_principal (thing_name, principal) VALUES (:thing, :principal) "
        "ON CONFLICT DO NOTHING",
        thing=thing_name,
        principal=principal,
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


def list_thing_principals(tx: Tx, thing_name: str, after: str, limit: int) -> list[str]:
    """Principals of a thing, behind the ARN `after`."""
    rows = tx.all(
        "SELECT principal FROM thing_principal WHERE thing_name = :thing "
        "AND principal > :after ORDER BY principal LIMIT :limit",
        thing=thing_name,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def list_principal_things(tx: Tx, principal: str, after: str, limit: int) -> list[str]:
    """Names of the things a principal is attached to, behind the name `after`."""
    rows = tx.all(
        "SELECT thing_name FROM thing_principal WHERE principal = :principal "
        "AND thing_name > :after ORDER BY thing_name LIMIT :limit",
        principal=principal,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


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
    rows = tx.all(
        f"SELECT {_TYPE} FROM thing_type WHERE thing_type_name > :after "
        "AND (:only IS NULL OR thing_type_name = :only) ORDER BY thing_type_name LIMIT :limit",
        after=after,
        only=thing_type_name,
        limit=limit,
    )
    return [_thing_type(row) for row in rows]


def add_thing_type(tx: Tx, thing_type: ThingType) -> None:
    """Stores a new thing type."""
    tx.run(
        f"INSERT INTO thing_type ({_TYPE}) "
        "VALUES (:name, :id, :description, :searchable, NULL, :created)",
        name=thing_type.thing_type_name,
        id=thing_type.thing_type_id,
        description=thing_type.description,
        searchable=_encode(thing_type.searchable_attributes).decode(),
        created=thing_type.created_at,
    )


def update_thing_type_deprecation(tx: Tx, thing_type_name: str, at: float | None) -> None:
    """Deprecates a thing type at a moment, or takes that back with None."""
    tx.run(
        "UPDATE thing_type SET deprecated_at = :at WHERE thing_type_name = :name",
        name=thing_type_name,
        at=at,
    )


def remove_thing_type(tx: Tx, thing_type_name: str) -> None:
    """Deletes a thing type."""
    tx.run("DELETE FROM thing_type WHERE thing_type_name = :name", name=thing_type_name)


def _index_attributes(tx: Tx, thing: Thing) -> None:
    for name, value in thing.attributes.items():
        tx.run(
            "INSERT INTO thing_attribute (name, value, thing_name) VALUES (:name, :value, :thing)",
            name=name,
            value=value,
            thing=thing.thing_name,
        )
