"""IoT policies, their versions, and what they are attached to."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy; version ids are integers from 1 and never used twice."""

    policy_name: str
    default_version_id: int
    last_version_id: int
    generation_id: str
    created_at: float
    modified_at: float


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of a policy's document."""

    policy_name: str
    version_id: int
    document: str
    created_at: float


_COLUMNS = (
    "policy_name, default_version_id, last_version_id, generation_id, created_at, modified_at"
)


def find_policy(tx: Tx, policy_name: str) -> Policy | None:
    """The policy of this name, or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM policy WHERE policy_name = :name",
        name=policy_name,
    )
    return None if row is None else Policy(*row)


def list_policies(
    tx: Tx, after: tuple[float, str] | None, limit: int, *, ascending: bool
) -> list[Policy]:
    """Policies by age, behind the position `after` = (created_at, policy_name)."""
    direction, compare = ("ASC", ">") if ascending else ("DESC", "<")
    where = f"WHERE (created_at, policy_name) {compare} (:at, :name)" if after else ""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM policy {where} "
        f"ORDER BY created_at {direction}, policy_name {direction} LIMIT :limit",
        **({"at": after[0], "name": after[1]} if after else {}),
        limit=limit,
    )
    return [Policy(*row) for row in rows]


def add_policy(tx: Tx, policy_name: str, document: str, generation_id: str, now: float) -> None:
    """Stores a new policy with its version 1."""
    tx.send(
        f"INSERT INTO policy ({_COLUMNS}) VALUES (:name, 1, 1, :generation, :now, :now)",
        name=policy_name,
        generation=generation_id,
        now=now,
    )
    _insert_version(tx, policy_name, 1, document, now)


def remove_policy(tx: Tx, policy_name: str) -> None:
    """Deletes a policy with its versions."""
    tx.send("DELETE FROM policy_version WHERE policy_name = :name", name=policy_name)
    tx.send("DELETE FROM policy WHERE policy_name = :name", name=policy_name)


def find_policy_version(tx: Tx, policy_name: str, version_id: int) -> PolicyVersion | None:
    """One version of a policy, or None."""
    row = tx.one(
        "SELECT policy_name, version_id, document, created_at FROM policy_version "
        "WHERE policy_name = :name AND version_id = :version",
        name=policy_name,
        version=version_id,
    )
    return None if row is None else PolicyVersion(*row)


def find_default_document(tx: Tx, policy_name: str) -> str | None:
    """The document of a policy's default version, or None when there is no such policy."""
    row = tx.one(
        "SELECT v.document FROM policy p JOIN policy_version v ON v.policy_name = p.policy_name "
        "AND v.version_id = p.default_version_id WHERE p.policy_name = :name",
        name=policy_name,
    )
    return None if row is None else str(row[0])


def list_policy_versions(tx: Tx, policy_name: str) -> list[PolicyVersion]:
    """All versions of a policy, newest first (there are five at most)."""
    rows = tx.all(
        "SELECT policy_name, version_id, document, created_at FROM policy_version "
        "WHERE policy_name = :name ORDER BY version_id DESC",
        name=policy_name,
    )
    return [PolicyVersion(*row) for row in rows]


def add_policy_version(tx: Tx, policy: Policy, document: str, now: float) -> int:
    """Stores a further version and returns its id."""
    version_id = policy.last_version_id + 1
    tx.send(
        "UPDATE policy SET last_version_id = :version, modified_at = :now "
        "WHERE policy_name = :name",
        name=policy.policy_name,
        version=version_id,
        now=now,
    )
    _insert_version(tx, policy.policy_name, version_id, document, now)
    return version_id


def update_default_policy_version(tx: Tx, policy_name: str, version_id: int, now: float) -> None:
    """Makes a version the one in force."""
    tx.send(
        "UPDATE policy SET default_version_id = :version, modified_at = :now "
        "WHERE policy_name = :name",
        name=policy_name,
        version=version_id,
        now=now,
    )


def remove_policy_version(tx: Tx, policy_name: str, version_id: int) -> None:
    """Deletes one version."""
    tx.send(
        "DELETE FROM policy_version WHERE policy_name = :name AND version_id = :version",
        name=policy_name,
        version=version_id,
    )


def add_policy_attachment(tx: Tx, policy_name: str, target: str) -> None:
    """Attaches a policy to a target (certificate or thing group ARN); twice is once."""
    tx.send(
        "INSERT INTO policy_attachment (target, policy_name) VALUES (:target, :name) "
        "ON CONFLICT DO NOTHING",
        target=target,
        name=policy_name,
    )


def remove_policy_attachment(tx: Tx, policy_name: str, target: str) -> bool:
    """Detaches; False when it was not attached."""
    return (
        tx.run(
            "DELETE FROM policy_attachment WHERE target = :target AND policy_name = :name",
            target=target,
            name=policy_name,
        )
        > 0
    )


def remove_policy_attachments(tx: Tx, target: str) -> None:
    """Detaches every policy of a target."""
    tx.send("DELETE FROM policy_attachment WHERE target = :target", target=target)


def list_attached_policies(tx: Tx, target: str, after: str, limit: int) -> list[str]:
    """Names of the policies attached to a target, behind the name `after`."""
    rows = tx.all(
        "SELECT policy_name FROM policy_attachment WHERE target = :target "
        "AND policy_name > :after ORDER BY policy_name LIMIT :limit",
        target=target,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def list_attached_policies_by_age(
    tx: Tx, target: str, after: tuple[float, str] | None, limit: int, *, ascending: bool
) -> list[tuple[float, str]]:
    """(created_at, name) of the policies attached to a target, behind such a position."""
    direction, compare = ("ASC", ">") if ascending else ("DESC", "<")
    where = f"AND (p.created_at, p.policy_name) {compare} (:at, :name) " if after else ""
    rows = tx.all(
        "SELECT p.created_at, p.policy_name FROM policy_attachment a "
        "JOIN policy p ON p.policy_name = a.policy_name "
        f"WHERE a.target = :target {where}"
        f"ORDER BY p.created_at {direction}, p.policy_name {direction} LIMIT :limit",
        target=target,
        **({"at": after[0], "name": after[1]} if after else {}),
        limit=limit,
    )
    return [(row[0], row[1]) for row in rows]


def list_policy_principals(
    tx: Tx, policy_name: str, prefix: str, after: str | None, limit: int, *, ascending: bool
) -> list[str]:
    """The targets of a policy that begin with `prefix`, behind the ARN `after`."""
    direction = "ASC" if ascending else "DESC"
    # The first text behind all that begin with the prefix, which ends with a slash.
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    low, high = (after or prefix, end) if ascending else (prefix, after or end)
    rows = tx.all(
        "SELECT target FROM policy_attachment WHERE policy_name = :name "
        f"AND target > :low AND target < :high ORDER BY target {direction} LIMIT :limit",
        name=policy_name,
        low=low,
        high=high,
        limit=limit,
    )
    return [row[0] for row in rows]


def list_policy_targets(tx: Tx, policy_name: str, after: str, limit: int) -> list[str]:
    """ARNs a policy is attached to, behind the ARN `after`."""
    rows = tx.all(
        "SELECT target FROM policy_attachment WHERE policy_name = :name "
        "AND target > :after ORDER BY target LIMIT :limit",
        name=policy_name,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def _insert_version(tx: Tx, policy_name: str, version_id: int, document: str, now: float) -> None:
    tx.send(
        "INSERT INTO policy_version (policy_name, version_id, document, created_at) "
        "VALUES (:name, :version, :document, :now)",
        name=policy_name,
        version=version_id,
        document=document,
        now=now,
    )
