"""Static thing groups and their members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from fleetgate.store.engine import Row, Tx
from fleetgate.store.prefixes import prefix_range


@dataclass(frozen=True, slots=True)
class ThingGroup:
    """A static thing group; `parent_group_name` is None for a root group."""

    thing_group_name: str
    thing_group_id: str
    parent_group_name: str | None
    description: str | None
    attributes: Mapping[str, str]
    version: int
    created_at: float


_COLUMNS = (
    "thing_group_name, thing_group_id, parent_group_name, description, attributes, version, "
    "created_at"
)
_encode = msgspec.json.Encoder().encode
_decode_attributes = msgspec.json.Decoder(dict[str, str]).decode


def _group(row: Row) -> ThingGroup:
    return ThingGroup(row[0], row[1], row[2], row[3], _decode_attributes(row[4]), row[5], row[6])


def find_thing_group(tx: Tx, name: str) -> ThingGroup | None:
    """The group of this name, or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM thing_group WHERE thing_group_name = :name",
        name=name,
    )
    return None if row is None else _group(row)


def list_group_ancestors(tx: Tx, name: str) -> list[ThingGroup]:
    """The groups above a group, from the root down to its parent."""
    ancestors: list[ThingGroup] = []
    group = find_thing_group(tx, name)
    while group is not None and group.parent_group_name is not None:
        group = find_thing_group(tx, group.parent_group_name)
        if group is not None:
            ancestors.insert(0, group)
    return ancestors


def list_thing_groups(
    tx: Tx,
    after: str,
    limit: int,
    *,
    parent: str | None = None,
    prefix: str | None = None,
    recursive: bool = True,
) -> list[ThingGroup]:
    """Groups by name, behind the name `after`.

    With `parent` only groups below it; `recursive` False leaves the direct children (of the
    parent, or the root groups without one). With `prefix` only names that begin with it.
    """
    where, params = prefix_range("thing_group_name", prefix)
    params |= {"after": after, "limit": limit}
    with_ = ""
    if parent is not None and recursive:
        with_ = (
            "WITH RECURSIVE below(name) AS (SELECT thing_group_name FROM thing_group "
            "WHERE parent_group_name = :parent UNION SELECT g.thing_group_name FROM thing_group g "
            "JOIN below b ON g.parent_group_name = b.name) "
        )
        where += "AND thing_group_name IN (SELECT name FROM below) "
        params["parent"] = parent
    elif parent is not None:
        where += "AND parent_group_name = :parent "
        params["parent"] = parent
    elif not recursive:
        where += "AND parent_group_name IS NULL "
    rows = tx.all(
        f"{with_}SELECT {_COLUMNS} FROM thing_group WHERE thing_group_name > :after {where}"
        "ORDER BY thing_group_name LIMIT :limit",
        **params,
    )
    return [_group(row) for row in rows]


def count_child_groups(tx: Tx, name: str) -> int:
    """How many direct children a group has."""
    row = tx.one("SELECT COUNT(*) FROM thing_group WHERE parent_group_name = :name", name=name)
    return 0 if row is None else int(row[0])


def has_child_groups(tx: Tx, name: str) -> bool:
    """Whether a group has groups below it."""
    row = tx.one("SELECT 1 FROM thing_group WHERE parent_group_name = :name LIMIT 1", name=name)
    return row is not None


def add_thing_group(tx: Tx, group: ThingGroup) -> None:
    """Stores a new group."""
    tx.send(
        f"INSERT INTO thing_group ({_COLUMNS}) VALUES "
        "(:name, :id, :parent, :description, :attributes, :version, :created)",
        name=group.thing_group_name,
        id=group.thing_group_id,
        parent=group.parent_group_name,
        description=group.description,
        attributes=_encode(group.attributes).decode(),
        version=group.version,
        created=group.created_at,
    )


def update_thing_group(tx: Tx, group: ThingGroup) -> None:
    """Stores description, attributes and version anew."""
    tx.send(
        "UPDATE thing_group SET description = :description, attributes = :attributes, "
        "version = :version WHERE thing_group_name = :name",
        name=group.thing_group_name,
        description=group.description,
        attributes=_encode(group.attributes).decode(),
        version=group.version,
    )


def remove_thing_group(tx: Tx, name: str) -> None:
    """Deletes a group and its memberships."""
    tx.send("DELETE FROM thing_group_member WHERE thing_group_name = :name", name=name)
    tx.send("DELETE FROM thing_group WHERE thing_group_name = :name", name=name)


def add_group_member(tx: Tx, group_name: str, thing_name: str) -> None:
    """Puts a thing into a group; twice is once."""
    tx.send(
        "INSERT INTO thing_group_member (thing_group_name, thing_name) VALUES (:group, :thing) "
        "ON CONFLICT DO NOTHING",
        group=group_name,
        thing=thing_name,
    )


def remove_group_member(tx: Tx, group_name: str, thing_name: str) -> bool:
    """Takes a thing out of a group; False when it was not in it."""
    return (
        tx.run(
            "DELETE FROM thing_group_member "
            "WHERE thing_group_name = :group AND thing_name = :thing",
            group=group_name,
            thing=thing_name,
        )
        > 0
    )


def list_groups_of_thing(tx: Tx, thing_name: str, after: str, limit: int) -> list[str]:
    """Names of the groups a thing is a direct member of, behind the name `after`."""
    rows = tx.all(
        "SELECT thing_group_name FROM thing_group_member WHERE thing_name = :thing "
        "AND thing_group_name > :after ORDER BY thing_group_name LIMIT :limit",
        thing=thing_name,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def list_groups_above_thing(tx: Tx, thing_name: str, after: str, limit: int) -> list[str]:
    """The same, with all groups above them."""
    rows = tx.all(
        "WITH RECURSIVE above(name) AS (SELECT thing_group_name FROM thing_group_member "
        "WHERE thing_name = :thing UNION SELECT g.parent_group_name FROM thing_group g "
        "JOIN above a ON g.thing_group_name = a.name WHERE g.parent_group_name IS NOT NULL) "
        "SELECT name FROM above WHERE name > :after ORDER BY name LIMIT :limit",
        thing=thing_name,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def list_group_roots(tx: Tx, thing_name: str, names: Sequence[str] = ()) -> dict[str, str]:
    """The groups a thing is a direct member of, each with the root of its hierarchy.

    The groups of `names` are there as well, if they exist.
    """
    params = {f"g{index}": name for index, name in enumerate(names)}
    named = f"OR thing_group_name IN (:{', :'.join(params)}) " if params else ""
    rows = tx.all(
        "WITH RECURSIVE up(member, name, parent) AS ("
        "SELECT thing_group_name, thing_group_name, parent_group_name FROM thing_group "
        "WHERE thing_group_name IN "
        f"(SELECT thing_group_name FROM thing_group_member WHERE thing_name = :thing) {named}"
        "UNION SELECT up.member, g.thing_group_name, g.parent_group_name "
        "FROM up JOIN thing_group g ON g.thing_group_name = up.parent) "
        "SELECT member, name FROM up WHERE parent IS NULL ORDER BY member",
        thing=thing_name,
        **params,
    )
    return {row[0]: row[1] for row in rows}


def list_things_in_group(
    tx: Tx, group_name: str, after: str, limit: int, *, recursive: bool
) -> list[str]:
    """Names of the things in a group (and, `recursive`, in the groups below it)."""
    if recursive:
        rows = tx.all(
            "WITH RECURSIVE below(name) AS (SELECT CAST(:group AS TEXT) "
            "UNION SELECT g.thing_group_name FROM thing_group g "
            "JOIN below b ON g.parent_group_name = b.name) "
            "SELECT DISTINCT thing_name FROM thing_group_member "
            "WHERE thing_group_name IN (SELECT name FROM below) AND thing_name > :after "
            "ORDER BY thing_name LIMIT :limit",
            group=group_name,
            after=after,
            limit=limit,
        )
    else:
        rows = tx.all(
            "SELECT thing_name FROM thing_group_member WHERE thing_group_name = :group "
            "AND thing_name > :after ORDER BY thing_name LIMIT :limit",
            group=group_name,
            after=after,
            limit=limit,
        )
    return [row[0] for row in rows]
