"""IAM roles."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store import iam_policies
from fleetgate.store.engine import Tx

_ROLE = "role_id, role_name, path, trust_policy, description, max_session_seconds, created_at"


@dataclass(frozen=True, slots=True)
class Role:
    """A role. `path` begins and ends with a slash, `trust_policy` is the document that says who
    may assume it, with ids of users and roles (operations/role_trust.py), `max_session_seconds`
    how long a session may last at most."""

    role_id: str
    role_name: str
    path: str
    trust_policy: str
    description: str | None
    max_session_seconds: int
    created_at: float


def find_role(tx: Tx, role_name: str) -> Role | None:
    """The role of exactly this name."""
    role = find_role_of_any_case(tx, role_name)
    return role if role is not None and role.role_name == role_name else None


def find_role_of_any_case(tx: Tx, role_name: str) -> Role | None:
    """The role whose name differs from this one in case at most: there is one at most."""
    row = tx.one(f"SELECT {_ROLE} FROM iam_role WHERE role_key = :key", key=role_name.lower())
    return None if row is None else Role(*row)


def find_role_of_id(tx: Tx, role_id: str) -> Role | None:
    """The role of this id (``AROA...``)."""
    row = tx.one(f"SELECT {_ROLE} FROM iam_role WHERE role_id = :id", id=role_id)
    return None if row is None else Role(*row)


def count_roles(tx: Tx) -> int:
    """How many roles there are."""
    row = tx.one("SELECT COUNT(*) FROM iam_role")
    return 0 if row is None else int(row[0])


def list_roles(tx: Tx, path_prefix: str, after: str, limit: int) -> list[Role]:
    """Roles whose path begins with `path_prefix`, by name in lower case, behind `after`."""
    rows = tx.all(
        f"SELECT {_ROLE} FROM iam_role WHERE role_key > :after "
        "AND SUBSTR(path, 1, LENGTH(CAST(:prefix AS TEXT))) = :prefix "
        "ORDER BY role_key LIMIT :limit",
        after=after,
        prefix=path_prefix,
        limit=limit,
    )
    return [Role(*row) for row in rows]


def add_role(tx: Tx, role: Role) -> None:
    """Stores a new role."""
    tx.send(
        f"INSERT INTO iam_role (role_key, {_ROLE}) VALUES "
        "(:key, :id, :name, :path, :trust, :description, :seconds, :now)",
        key=role.role_name.lower(),
        id=role.role_id,
        name=role.role_name,
        path=role.path,
        trust=role.trust_policy,
        description=role.description,
        seconds=role.max_session_seconds,
        now=role.created_at,
    )


def update_role(tx: Tx, role: Role) -> None:
    """Stores trust policy, description and longest session of the role with this id."""
    tx.send(
        "UPDATE iam_role SET trust_policy = :trust, description = :description, "
        "max_session_seconds = :seconds WHERE role_id = :id",
        id=role.role_id,
        trust=role.trust_policy,
        description=role.description,
        seconds=role.max_session_seconds,
    )


def remove_role(tx: Tx, role_id: str) -> None:
    """Deletes a role that has no policies any more."""
    tx.send("DELETE FROM iam_role WHERE role_id = :id", id=role_id)


def list_role_documents(tx: Tx, role_name: str) -> list[tuple[str, str]]:
    """(policy, document) of all policies of a role: inline by name, managed by ARN."""
    role = find_role(tx, role_name)
    return [] if role is None else iam_policies.list_documents(tx, role.role_id)
