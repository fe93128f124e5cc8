"""Passwords of IAM users: login profiles, and the check a console asks for.

A password is kept as an Argon2id hash (RFC 9106, argon2-cffi's parameters: 64 MiB and three
passes). Hashing takes tens of milliseconds, so it is done by two threads of its own, which also
bounds the memory it takes. A few others wait; what is more is throttled, and so is who changes
their own password while an earlier call of theirs is at it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from fleetgate.errors import (
    AccessDeniedException,
    EntityAlreadyExists,
    InvalidUserType,
    NoSuchEntity,
    PasswordPolicyViolation,
    Throttling,
    ValidationError,
)
from fleetgate.operations import iam_names
from fleetgate.operations.call import Call
from fleetgate.store import iam_users
from fleetgate.store.engine import Tx
from fleetgate.store.iam_users import LoginProfile, User

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MINIMUM_LENGTH = 8
MINIMUM_KINDS = 3
_KINDS = (r"[A-Z]", r"[a-z]", r"[0-9]", r"[!@#$%^&*()_+\-=\[\]{}|']")
_HASHING = ThreadPoolExecutor(2, thread_name_prefix="fleetgate-password")

MAX_WAITING = 16
"""Calls that hash, or wait for it, at a time: the last of them waits for about a second. Half of
them may be one caller's; sign-ins together count as one."""

_hashing: Counter[str] = Counter()
"""Whose calls these are, by the id of the caller; empty for a sign-in, which has none yet."""


async def create_login_profile(
    call: Call,
    user_name: str | None = None,
    password: str | None = None,
    password_reset_required: bool = False,
) -> dict[str, Any]:
    """CreateLoginProfile: gives a user a password."""
    name = iam_names.named_user(call, user_name)
    if password is None:
        raise ValidationError(f"the login profile of user {name} needs a Password")
    check_strength(password)
    await call.read(_require_no_profile, name)
    with _turn(call):
        hashed = await _hash(password)
    now = iam_names.seconds(call.now)

    def add(tx: Tx) -> None:
        user = _require_no_profile(tx, name)
        iam_users.add_login_profile(
            tx, user.user_id, hashed, now, reset_required=password_reset_required
        )

    await call.write(add)
    described = {
        "UserName": name,
        "CreateDate": now,
        "PasswordResetRequired": password_reset_required,
    }
    return {"LoginProfile": described}


async def get_login_profile(call: Call, user_name: str | None = None) -> dict[str, Any]:
    """GetLoginProfile: when the password was made, and whether it has to be changed."""
    name = iam_names.named_user(call, user_name)
    _, profile = await call.read(_require_profile, name)
    described = {
        "UserName": name,
        "CreateDate": profile.created_at,
        "PasswordResetRequired": profile.reset_required,
    }
    return {"LoginProfile": described}


async def update_login_profile(
    call: Call,
    user_name: str,
    password: str | None = None,
    password_reset_required: bool | None = None,
) -> dict[str, Any]:
    """UpdateLoginProfile: another password, or whether it has to be changed."""
    if password is not None:
        check_strength(password)
    await call.read(_require_profile, user_name)
    hashed = None
    if password is not None:
        with _turn(call):
            hashed = await _hash(password)

    def change(tx: Tx) -> None:
        user, profile = _require_profile(tx, user_name)
        reset = password_reset_required
        iam_users.update_login_profile(
            tx,
            user.user_id,
            hashed or profile.password_hash,
            reset_required=profile.reset_required if reset is None else reset,
        )

    await call.write(change)
    return {}


async def delete_login_profile(call: Call, user_name: str | None = None) -> dict[str, Any]:
    """DeleteLoginProfile: access keys go on working."""
    name = iam_names.named_user(call, user_name)

    def change(tx: Tx) -> None:
        iam_names.require_user(tx, name)
        user, _ = _require_profile(tx, name)
        iam_users.remove_login_profile(tx, user.user_id)

    await call.write(change)
    return {}


async def change_password(call: Call, old_password: str, new_password: str) -> dict[str, Any]:
    """ChangePassword: of the user who calls, who has to know the present one."""
    name = iam_names.own_user_name(call)
    if name is None:
        raise InvalidUserType("Only IAM Users can change their own password")
    user, profile = await call.read(_require_profile, name)
    with _turn(call, 1):
        if not await _verify(profile.password_hash, old_password):
            raise AccessDeniedException(f"the old password of user {name} is not the one given")
        check_strength(new_password)
        if new_password == old_password:
            raise PasswordPolicyViolation("the new password is the old one")
        hashed = await _hash(new_password)

    def change(tx: Tx) -> None:
        again, now = _require_profile(tx, name)
        if again.user_id != user.user_id or now.password_hash != profile.password_hash:
            raise AccessDeniedException(f"the password of user {name} was changed meanwhile")
        iam_users.update_login_profile(tx, user.user_id, hashed, reset_required=False)

    await call.write(change)
    return {}


async def check_password(call: Call, user_name: str, password: str) -> User | None:
    """The user whose name and password these are; None when they are nobody's.

    It takes as long for a user who is not there. A password that is right is noted as used.
    """

    def find(tx: Tx) -> tuple[User | None, LoginProfile | None]:
        user = iam_users.find_user(tx, user_name)
        return user, None if user is None else iam_users.find_login_profile(tx, user.user_id)

    user, profile = await call.read(find)
    with _turn(call):
        right = await _verify(None if profile is None else profile.password_hash, password)
    if user is None or not right:
        return None
    await call.write(iam_users.update_password_use, user.user_id, iam_names.seconds(call.now))
    return user


def check_strength(password: str) -> None:
    """Raises PasswordPolicyViolation for a password the default policy of IAM does not allow.

    Source: IAM User Guide, "Set an account password policy for IAM users", "Default password
    policy".
    """
    kinds = sum(re.search(kind, password) is not None for kind in _KINDS)
    if len(password) < MINIMUM_LENGTH or kinds < MINIMUM_KINDS:
        raise PasswordPolicyViolation(
            "Password does not conform to the account password policy: at least "
            f"{MINIMUM_LENGTH} characters, and {MINIMUM_KINDS} of upper case letters, lower case "
            "letters, digits and the characters ! @ # $ % ^ & * ( ) _ + - = [ ] { } | '"
        )


def _require_profile(tx: Tx, user_name: str) -> tuple[User, LoginProfile]:
    user = iam_users.find_user(tx, user_name)
    profile = None if user is None else iam_users.find_login_profile(tx, user.user_id)
    if user is None or profile is None:
        raise NoSuchEntity(f"Login Profile for User {user_name} cannot be found.")
    return user, profile


def _require_no_profile(tx: Tx, user_name: str) -> User:
    user = iam_names.require_user(tx, user_name)
    if iam_users.find_login_profile(tx, user.user_id) is not None:
        raise EntityAlreadyExists(f"Login Profile for user {user_name} already exists.")
    return user


# --- hashing, in threads of its own --------------------------------------------------------


@contextmanager
def _turn(call: Call, most: int = MAX_WAITING // 2) -> Iterator[None]:
    """While a call hashes, one of at most so many of its caller.

    Raises Throttling when it has to come back later.
    """
    who = "" if call.caller is None else call.caller.user_id
    if _hashing[who] >= most or _hashing.total() >= MAX_WAITING:
        raise Throttling("Rate exceeded")
    _hashing[who] += 1
    try:
        yield
    finally:
        _hashing[who] -= 1
        if not _hashing[who]:
            del _hashing[who]  # of many callers, only those that are at it are counted


async def _hash(password: str) -> str:
    return await asyncio.get_running_loop().run_in_executor(_HASHING, _hash_now, password)


async def _verify(password_hash: str | None, password: str) -> bool:
    return await asyncio.get_running_loop().run_in_executor(
        _HASHING, _verify_now, password_hash, password
    )


def _hash_now(password: str) -> str:
    return _hasher().hash(password)


def _verify_now(password_hash: str | None, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        _hasher().verify(password_hash or _nobodys_hash(), password)
    except (InvalidHashError, VerificationError):
        return False
    return password_hash is not None


@cache
def _hasher() -> PasswordHasher:
    # imported when the first password is hashed: it is 30 ms of the second a start may take
    from argon2 import PasswordHasher

    return PasswordHasher()


@cache
def _nobodys_hash() -> str:
    return _hasher().hash("nobody's")
