"""IAM users, their access keys and their passwords.

Everything that belongs to a user is kept under its id, which never changes: a user may be given
another name or path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fleetgate.store import iam_policies
from fleetgate.store.engine import Row, Tx

_USER = "user_id, user_name, path, created_at"


@dataclass(frozen=True, slots=True)
class User:
    """A user. `path` begins and ends with a slash; `created_at` is in seconds since the epoch."""

    user_id: str
    user_name: str
    path: str
    created_at: float


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key of a user. `status` is ``Active`` or ``Inactive``.

    `sealed_secret` is the secret access key, encrypted (operations/access_keys.py). `used_at` is
    when it was last used, for which service and region; None when it never was.
    """

    access_key_id: str
    user_id: str
    user_name: str
    user_path: str
    sealed_secret: str = field(repr=False)
    status: str
    created_at: float
    used_at: float | None
    used_service: str | None
    used_region: str | None


@dataclass(frozen=True, slots=True)
class LoginProfile:
    """The password of a user, hashed (PHC string). `used_at` is when it last opened a session."""

    user_id: str
    password_hash: str = field(repr=False)
    reset_required: bool
    created_at: float
    used_at: float | None


# --- users ---------------------------------------------------------------------------------


def find_user(tx: Tx, user_name: str) -> User | None:
    """The user of exactly this name."""
    user = find_user_of_any_case(tx, user_name)
    return user if user is not None and user.user_name == user_name else None


def find_user_of_any_case(tx: Tx, user_name: str) -> User | None:
    """The user whose name differs from this one in case at most: there is one at most."""
    row = tx.one(f"SELECT {_USER} FROM iam_user WHERE user_key = :key", key=user_name.lower())
    return None if row is None else User(*row)


def find_user_of_id(tx: Tx, user_id: str) -> User | None:
    """The user of this id (``AIDA...``)."""
    row = tx.one(f"SELECT {_USER} FROM iam_user WHERE user_id = :id", id=user_id)
    return None if row is None else User(*row)


def count_users(tx: Tx) -> int:
    """How many users there are."""
    return _count(tx.one("SELECT COUNT(*) FROM iam_user"))


def list_users(tx: Tx, path_prefix: str, after: str, limit: int) -> list[User]:
    """Users whose path begins with `path_prefix`, by name in lower case, behind `after`."""
    rows = tx.all(
        f"SELECT {_USER} FROM iam_user WHERE user_key > :after "
        "AND SUBSTR(path, 1, LENGTH(CAST(:prefix AS TEXT))) = :prefix "
        "ORDER BY user_key LIMIT :limit",
        after=after,
        prefix=path_prefix,
        limit=limit,
    )
    return [User(*row) for row in rows]


def add_user(tx: Tx, user: User) -> None:
    """Stores a new user."""
    tx.send(
        "INSERT INTO iam_user (user_id, user_key, user_name, path, created_at) "
        "VALUES (:id, :key, :name, :path, :now)",
        id=user.user_id,
        key=user.user_name.lower(),
        name=user.user_name,
        path=user.path,
        now=user.created_at,
    )


def update_user(tx: Tx, user: User) -> None:
    """Stores the name and the path of the user with this id."""
    tx.send(
        "UPDATE iam_user SET user_key = :key, user_name = :name, path = :path WHERE user_id = :id",
        id=user.user_id,
        key=user.user_name.lower(),
        name=user.user_name,
        path=user.path,
    )


def remove_user(tx: Tx, user_id: str) -> None:
    """Deletes a user who has no keys, password and policies any more."""
    tx.send("DELETE FROM iam_user WHERE user_id = :id", id=user_id)


def list_user_documents(tx: Tx, user_name: str) -> list[tuple[str, str]]:
    """(policy, document) of all policies of a user: inline by name, managed by ARN."""
    user = find_user(tx, user_name)
    return [] if user is None else iam_policies.list_documents(tx, user.user_id)


# --- access keys ---------------------------------------------------------------------------

_ACCESS_KEY = (
    "SELECT k.access_key_id, k.user_id, u.user_name, u.path, k.sealed_secret, k.status, "
    "k.created_at, k.used_at, k.used_service, k.used_region "
    "FROM iam_access_key k JOIN iam_user u ON u.user_id = k.user_id "
)


def find_access_key(tx: Tx, access_key_id: str) -> AccessKey | None:
    """The access key of this id, with the name of its user."""
    row = tx.one(_ACCESS_KEY + "WHERE k.access_key_id = :id", id=access_key_id)
    return None if row is None else AccessKey(*row)


def list_access_keys(tx: Tx, user_id: str) -> list[AccessKey]:
    """All access keys of a user (there are two at most), the oldest first."""
    rows = tx.all(
        _ACCESS_KEY + "WHERE k.user_id = :user ORDER BY k.created_at, k.access_key_id",
        user=user_id,
    )
    return [AccessKey(*row) for row in rows]


def add_access_key(
    tx: Tx, access_key_id: str, user_id: str, sealed_secret: str, now: float
) -> None:
    """Stores a new access key, active."""
    tx.send(
        "INSERT INTO iam_access_key (access_key_id, user_id, sealed_secret, status, created_at) "
        "VALUES (:id, :user, :secret, 'Active', :now)",
        id=access_key_id,
        user=user_id,
        secret=sealed_secret,
        now=now,
    )


def update_access_key_status(tx: Tx, access_key_id: str, status: str) -> None:
    """Makes an access key ``Active`` or ``Inactive``."""
    tx.send(
        "UPDATE iam_access_key SET status = :status WHERE access_key_id = :id",
        id=access_key_id,
        status=status,
    )


def update_access_key_use(
    tx: Tx, access_key_id: str, now: float, service: str, region: str
) -> None:
    """Notes when an access key was used, for which service and region."""
    tx.send(
        "UPDATE iam_access_key SET used_at = :now, used_service = :service, "
        "used_region = :region WHERE access_key_id = :id",
        id=access_key_id,
        now=now,
        service=service,
        region=region,
    )


def remove_access_key(tx: Tx, access_key_id: str) -> None:
    """Deletes an access key."""
    tx.send("DELETE FROM iam_access_key WHERE access_key_id = :id", id=access_key_id)


# --- passwords -----------------------------------------------------------------------------


def find_login_profile(tx: Tx, user_id: str) -> LoginProfile | None:
    """The password of a user, None without one."""
    row = tx.one(
        "SELECT user_id, password_hash, reset_required, created_at, used_at "
        "FROM iam_login_profile WHERE user_id = :user",
        user=user_id,
    )
    return None if row is None else LoginProfile(row[0], row[1], bool(row[2]), row[3], row[4])


def add_login_profile(
    tx: Tx, user_id: str, password_hash: str, now: float, *, reset_required: bool
) -> None:
    """Stores the first password of a user."""
    tx.send(
        "INSERT INTO iam_login_profile (user_id, password_hash, reset_required, created_at) "
        "VALUES (:user, :hash, :reset, :now)",
        user=user_id,
        hash=password_hash,
        reset=int(reset_required),
        now=now,
    )


def update_login_profile(tx: Tx, user_id: str, password_hash: str, *, reset_required: bool) -> None:
    """Stores another password of a user, and whether it has to be changed."""
    tx.send(
        "UPDATE iam_login_profile SET password_hash = :hash, reset_required = :reset "
        "WHERE user_id = :user",
        user=user_id,
        hash=password_hash,
        reset=int(reset_required),
    )


def update_password_use(tx: Tx, user_id: str, now: float) -> None:
    """Notes when the password of a user opened a session."""
    tx.send(
        "UPDATE iam_login_profile SET used_at = :now WHERE user_id = :user", user=user_id, now=now
    )


def remove_login_profile(tx: Tx, user_id: str) -> None:
    """Deletes the password of a user."""
    tx.send("DELETE FROM iam_login_profile WHERE user_id = :user", user=user_id)


def _count(row: Row | None) -> int:
    return 0 if row is None else int(row[0])
