"""Role aliases: names under which devices know IAM roles."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class RoleAlias:
    """A role alias; credentials got through it are valid for `credential_seconds`."""

    role_alias: str
    role_arn: str
    credential_seconds: int
    created_at: float
    modified_at: float


_COLUMNS = "role_alias, role_arn, credential_seconds, created_at, modified_at"


def find_role_alias(tx: Tx, role_alias: str) -> RoleAlias | None:
    """The role alias of this name, or None."""
    row = tx.one(f"SELECT {_COLUMNS} FROM role_alias WHERE role_alias = :name", name=role_alias)
    return None if row is None else RoleAlias(*row)


def list_role_aliases(tx: Tx, after: str | None, limit: int, *, ascending: bool) -> list[str]:
    """Names in either alphabetical order, behind the name `after`."""
    direction, compare = ("ASC", ">") if ascending else ("DESC", "<")
    where = f"WHERE role_alias {compare} :after " if after is not None else ""
    rows = tx.all(
        f"SELECT role_alias FROM role_alias {where}ORDER BY role_alias {direction} LIMIT :limit",
        limit=limit,
        **({"after": after} if after is not None else {}),
    )
    return [str(row[0]) for row in rows]


def count_role_aliases(tx: Tx) -> int:
    """How many role aliases there are."""
    row = tx.one("SELECT count(*) FROM role_alias")
    return 0 if row is None else int(row[0])


def add_role_alias(tx: Tx, alias: RoleAlias) -> None:
    """Stores a new role alias."""
    tx.send(
        f"INSERT INTO role_alias ({_COLUMNS}) "
        "VALUES (:name, :role_arn, :seconds, :created_at, :modified_at)",
        name=alias.role_alias,
        role_arn=alias.role_arn,
        seconds=alias.credential_seconds,
        created_at=alias.created_at,
        modified_at=alias.modified_at,
    )


def update_role_alias(tx: Tx, alias: RoleAlias) -> None:
    """Stores role, duration and modification time anew."""
    tx.send(
        "UPDATE role_alias SET role_arn = :role_arn, credential_seconds = :seconds, "
        "modified_at = :modified_at WHERE role_alias = :name",
        name=alias.role_alias,
        role_arn=alias.role_arn,
        seconds=alias.credential_seconds,
        modified_at=alias.modified_at,
    )


def remove_role_alias(tx: Tx, role_alias: str) -> None:
    """Deletes a role alias."""
    tx.send("DELETE FROM role_alias WHERE role_alias = :name", name=role_alias)
