"""Billing groups and the things in them."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx
from fleetgate.store.prefixes import prefix_range


@dataclass(frozen=True, slots=True)
class BillingGroup:
    """A billing group; `version` grows with every change."""

    billing_group_name: str
    billing_group_id: str
    description: str | None
    version: int
    created_at: float


_COLUMNS = "billing_group_name, billing_group_id, description, version, created_at"


def find_billing_group(tx: Tx, name: str) -> BillingGroup | None:
    """The billing group of this name, or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM billing_group WHERE billing_group_name = :name", name=name
    )
    return None if row is None else BillingGroup(*row)


def list_billing_groups(tx: Tx, after: str, limit: int, *, prefix: str | None = None) -> list[str]:
    """Names of billing groups, behind the name `after`; only those that begin with `prefix`."""
    begins, params = prefix_range("billing_group_name", prefix)
    rows = tx.all(
        f"SELECT billing_group_name FROM billing_group WHERE billing_group_name > :after {begins}"
        "ORDER BY billing_group_name LIMIT :limit",
        after=after,
        limit=limit,
        **params,
    )
    return [row[0] for row in rows]


def add_billing_group(tx: Tx, group: BillingGroup) -> None:
    """Stores a new billing group."""
    tx.send(
        f"INSERT INTO billing_group ({_COLUMNS}) "
        "VALUES (:name, :id, :description, :version, :created)",
        name=group.billing_group_name,
        id=group.billing_group_id,
        description=group.description,
        version=group.version,
        created=group.created_at,
    )


def update_billing_group(tx: Tx, group: BillingGroup) -> None:
    """Stores description and version anew."""
    tx.send(
        "UPDATE billing_group SET description = :description, version = :version "
        "WHERE billing_group_name = :name",
        name=group.billing_group_name,
        description=group.description,
        version=group.version,
    )


def remove_billing_group(tx: Tx, name: str) -> None:
    """Deletes a billing group; the things that were in it are in none."""
    tx.send(
        "UPDATE thing SET billing_group_name = NULL WHERE billing_group_name = :name", name=name
    )
    tx.send("DELETE FROM billing_group WHERE billing_group_name = :name", name=name)


def update_billing_group_of_thing(tx: Tx, thing_name: str, group_name: str | None) -> None:
    """Puts a thing into a billing group, out of the one it was in; None: into none."""
    tx.send(
        "UPDATE thing SET billing_group_name = :group WHERE thing_name = :thing",
        group=group_name,
        thing=thing_name,
    )


def list_things_in_billing_group(tx: Tx, name: str, after: str, limit: int) -> list[str]:
    """Names of the things in a billing group, behind the name `after`."""
    rows = tx.all(
        "SELECT thing_name FROM thing WHERE billing_group_name = :name AND thing_name > :after "
        "ORDER BY thing_name LIMIT :limit",
        name=name,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]
