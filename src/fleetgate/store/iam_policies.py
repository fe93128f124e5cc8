"""IAM policies: managed ones with their versions, inline ones, and who has them.

An owner is the id of a user or a role. What is attached is kept by ARN, because AWS's own managed
policies (store/managed_policies.py) are attached like those of the account.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store import managed_policies
from fleetgate.store.engine import Tx

_POLICY = (
    "policy_id, policy_name, path, arn, description, default_version_id, last_version_id, "
    "created_at, modified_at"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """A managed policy of the account; version 3 is called ``v3`` outside."""

    policy_id: str
    policy_name: str
    path: str
    arn: str
    description: str | None
    default_version_id: int
    last_version_id: int
    created_at: float
    modified_at: float


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of a managed policy, with its document."""

    version_id: int
    document: str
    created_at: float


# --- managed -------------------------------------------------------------------------------


def find_policy(tx: Tx, arn: str) -> Policy | None:
    """The policy of the account with this ARN."""
    row = tx.one(f"SELECT {_POLICY} FROM iam_policy WHERE arn = :arn", arn=arn)
    return None if row is None else Policy(*row)


def find_policy_of_any_case(tx: Tx, policy_name: str) -> Policy | None:
    """The policy whose name differs from this one in case at most: there is one at most."""
    row = tx.one(
        f"SELECT {_POLICY} FROM iam_policy WHERE policy_key = :key", key=policy_name.lower()
    )
    return None if row is None else Policy(*row)


def count_policies(tx: Tx) -> int:
    """How many managed policies the account has."""
    return _count(tx, "SELECT COUNT(*) FROM iam_policy")


def list_policies(
    tx: Tx, path_prefix: str, after: str, limit: int, *, only_attached: bool
) -> list[Policy]:
    """Policies whose path begins with `path_prefix`, by name in lower case, behind `after`."""
    attached = (
        "AND EXISTS (SELECT 1 FROM iam_attached_policy a WHERE a.policy_arn = iam_policy.arn) "
        if only_attached
        else ""
    )
    rows = tx.all(
        f"SELECT {_POLICY} FROM iam_policy WHERE policy_key > :after "
        f"AND SUBSTR(path, 1, LENGTH(CAST(:prefix AS TEXT))) = :prefix {attached}"
        "ORDER BY policy_key LIMIT :limit",
        after=after,
        prefix=path_prefix,
        limit=limit,
    )
    return [Policy(*row) for row in rows]


def add_policy(tx: Tx, policy: Policy, document: str) -> None:
    """Stores a new policy with its version 1."""
    tx.send(
        f"INSERT INTO iam_policy (policy_key, {_POLICY}) VALUES "
        "(:key, :id, :name, :path, :arn, :description, 1, 1, :now, :now)",
        key=policy.policy_name.lower(),
        id=policy.policy_id,
        name=policy.policy_name,
        path=policy.path,
        arn=policy.arn,
        description=policy.description,
        now=policy.created_at,
    )
    _insert_version(tx, policy.policy_id, PolicyVersion(1, document, policy.created_at))


def remove_policy(tx: Tx, policy_id: str) -> None:
    """Deletes a policy with its versions."""
    tx.send("DELETE FROM iam_policy_version WHERE policy_id = :id", id=policy_id)
    tx.send("DELETE FROM iam_policy WHERE policy_id = :id", id=policy_id)


def find_policy_version(tx: Tx, policy_id: str, version_id: int) -> PolicyVersion | None:
    """One version of a policy."""
    row = tx.one(
        "SELECT version_id, document, created_at FROM iam_policy_version "
        "WHERE policy_id = :id AND version_id = :version",
        id=policy_id,
        version=version_id,
    )
    return None if row is None else PolicyVersion(*row)


def list_policy_versions(tx: Tx, policy_id: str) -> list[PolicyVersion]:
    """All versions of a policy, the newest first (there are five at most)."""
    rows = tx.all(
        "SELECT version_id, document, created_at FROM iam_policy_version "
        "WHERE policy_id = :id ORDER BY version_id DESC",
        id=policy_id,
    )
    return [PolicyVersion(*row) for row in rows]


def add_policy_version(tx: Tx, policy: Policy, document: str, now: float) -> int:
    """Stores a further version and returns its id."""
    version_id = policy.last_version_id + 1
    tx.send(
        "UPDATE iam_policy SET last_version_id = :version, modified_at = :now "
        "WHERE policy_id = :id",
        id=policy.policy_id,
        version=version_id,
        now=now,
    )
    _insert_version(tx, policy.policy_id, PolicyVersion(version_id, document, now))
    return version_id


def update_default_version(tx: Tx, policy_id: str, version_id: int, now: float) -> None:
    """Makes a version the one in force."""
    tx.send(
        "UPDATE iam_policy SET default_version_id = :version, modified_at = :now "
        "WHERE policy_id = :id",
        id=policy_id,
        version=version_id,
        now=now,
    )


def remove_policy_version(tx: Tx, policy_id: str, version_id: int) -> None:
    """Deletes one version."""
    tx.send(
        "DELETE FROM iam_policy_version WHERE policy_id = :id AND version_id = :version",
        id=policy_id,
        version=version_id,
    )


def _insert_version(tx: Tx, policy_id: str, version: PolicyVersion) -> None:
    tx.send(
        "INSERT INTO iam_policy_version (policy_id, version_id, document, created_at) "
        "VALUES (:id, :version, :document, :now)",
        id=policy_id,
        version=version.version_id,
        document=version.document,
        now=version.created_at,
    )


# --- inline --------------------------------------------------------------------------------


def find_inline_policy(tx: Tx, owner_id: str, policy_name: str) -> str | None:
    """The document of an inline policy."""
    row = tx.one(
        "SELECT document FROM iam_inline_policy WHERE owner_id = :owner AND policy_name = :name",
        owner=owner_id,
        name=policy_name,
    )
    return None if row is None else str(row[0])


def list_inline_policies(tx: Tx, owner_id: str) -> list[tuple[str, str]]:
    """(name, document) of all inline policies of an owner, by name; their size is bounded."""
    rows = tx.all(
        "SELECT policy_name, document FROM iam_inline_policy WHERE owner_id = :owner "
        "ORDER BY policy_name",
        owner=owner_id,
    )
    return [(row[0], row[1]) for row in rows]


def update_inline_policy(tx: Tx, owner_id: str, policy_name: str, document: str) -> None:
    """Stores an inline policy, in place of the one of this name."""
    tx.send(
        "INSERT INTO iam_inline_policy (owner_id, policy_name, document) "
        "VALUES (:owner, :name, :document) "
        "ON CONFLICT (owner_id, policy_name) DO UPDATE SET document = excluded.document",
        owner=owner_id,
        name=policy_name,
        document=document,
    )


def remove_inline_policy(tx: Tx, owner_id: str, policy_name: str) -> bool:
    """Deletes an inline policy; False when there was none."""
    changed = tx.run(
        "DELETE FROM iam_inline_policy WHERE owner_id = :owner AND policy_name = :name",
        owner=owner_id,
        name=policy_name,
    )
    return changed > 0


# --- attached ------------------------------------------------------------------------------


def list_attached(tx: Tx, owner_id: str) -> list[str]:
    """The ARNs of the managed policies an owner has, sorted (their number is bounded)."""
    rows = tx.all(
        "SELECT policy_arn FROM iam_attached_policy WHERE owner_id = :owner ORDER BY policy_arn",
        owner=owner_id,
    )
    return [row[0] for row in rows]


def list_owners(tx: Tx, policy_arn: str, after: str, limit: int) -> list[str]:
    """Ids of the users and roles a managed policy is attached to, behind the id `after`."""
    rows = tx.all(
        "SELECT owner_id FROM iam_attached_policy WHERE policy_arn = :arn "
        "AND owner_id > :after ORDER BY owner_id LIMIT :limit",
        arn=policy_arn,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def count_owners(tx: Tx, policy_arn: str) -> int:
    """How many users and roles a managed policy is attached to."""
    return _count(
        tx, "SELECT COUNT(*) FROM iam_attached_policy WHERE policy_arn = :arn", arn=policy_arn
    )


def add_attached(tx: Tx, owner_id: str, policy_arn: str) -> None:
    """Attaches a managed policy; twice is once."""
    tx.send(
        "INSERT INTO iam_attached_policy (owner_id, policy_arn) VALUES (:owner, :arn) "
        "ON CONFLICT DO NOTHING",
        owner=owner_id,
        arn=policy_arn,
    )


def remove_attached(tx: Tx, owner_id: str, policy_arn: str) -> bool:
    """Detaches a managed policy; False when it was not attached."""
    changed = tx.run(
        "DELETE FROM iam_attached_policy WHERE owner_id = :owner AND policy_arn = :arn",
        owner=owner_id,
        arn=policy_arn,
    )
    return changed > 0


def list_documents(tx: Tx, owner_id: str) -> list[tuple[str, str]]:
    """(policy, document in force) of all policies of an owner: inline by name, managed by ARN."""
    rows = tx.all(
        "SELECT a.policy_arn, v.document FROM iam_attached_policy a "
        "LEFT JOIN iam_policy p ON p.arn = a.policy_arn "
        "LEFT JOIN iam_policy_version v ON v.policy_id = p.policy_id "
        "AND v.version_id = p.default_version_id "
        "WHERE a.owner_id = :owner ORDER BY a.policy_arn",
        owner=owner_id,
    )
    documents = list_inline_policies(tx, owner_id)
    for arn, stored in rows:
        built_in = managed_policies.find(arn)
        if stored is not None:
            documents.append((arn, stored))
        elif built_in is not None:  # else a newer release attached it, which had it
            documents.append((arn, built_in.document))
    return documents


def _count(tx: Tx, sql: str, **params: str) -> int:
    row = tx.one(sql, **params)
    return 0 if row is None else int(row[0])
