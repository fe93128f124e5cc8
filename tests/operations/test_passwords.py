"""Passwords of IAM users."""

import asyncio
from collections import Counter

import pytest

from fleetgate.errors import (
    AccessDeniedException,
    EntityAlreadyExists,
    InvalidUserType,
    NoSuchEntity,
    PasswordPolicyViolation,
    Throttling,
    ValidationError,
)
from fleetgate.operations.call import Call
from fleetgate.operations.passwords import (
    MAX_WAITING,
    change_password,
    check_password,
    check_strength,
    update_login_profile,
)
from fleetgate.store import iam_users
from tests.operations.conftest import START, Registry
from tests.operations.iam import Iam, allow

GOOD, BETTER = "Correct-horse", "Battery-staple"


@pytest.fixture
def iam(registry: Registry) -> Iam:
    return Iam(registry)


one_database = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""For what is about hashes, which take their time, and not about how they are stored."""


def right(iam: Iam, name: str, password: str) -> bool:
    call = Call(iam.registry.services, "request", iam.registry.clock())
    return iam.registry.runner.run(check_password(call, name, password)) is not None


def test_a_password_is_given_checked_changed_and_taken(iam: Iam) -> None:
    iam("CreateUser", UserName="u")
    made = iam("CreateLoginProfile", UserName="u", Password=GOOD, PasswordResetRequired=True)
    expected = {"UserName": "u", "CreateDate": START, "PasswordResetRequired": True}
    assert made["LoginProfile"] == expected
    assert iam("GetLoginProfile", UserName="u")["LoginProfile"] == expected
    assert "PasswordLastUsed" not in {
        key for key, value in iam("GetUser", UserName="u")["User"].items() if value is not None
    }
    assert right(iam, "u", GOOD)
    assert iam("GetUser", UserName="u")["User"]["PasswordLastUsed"] == START
    assert not right(iam, "u", BETTER)
    assert not right(iam, "U", GOOD)
    iam("UpdateLoginProfile", UserName="u", Password=BETTER)
    assert not right(iam, "u", GOOD)
    assert right(iam, "u", BETTER)
    assert iam("GetLoginProfile", UserName="u")["LoginProfile"]["PasswordResetRequired"] is True
    iam("UpdateLoginProfile", UserName="u", PasswordResetRequired=False)
    assert iam("GetLoginProfile", UserName="u")["LoginProfile"]["PasswordResetRequired"] is False
    assert right(iam, "u", BETTER)
    iam("DeleteLoginProfile", UserName="u")
    # recorded from AWS (localstack, test_iam_users.py)
    for name, message in (
        ("u", "Login Profile for User u cannot be found."),
        ("x", "The user with name x cannot be found."),
    ):
        with pytest.raises(NoSuchEntity) as caught:
            iam("DeleteLoginProfile", UserName=name)
        assert caught.value.message == message
    assert not right(iam, "u", BETTER)
    with pytest.raises(NoSuchEntity, match="Login Profile for User u cannot be found"):
        iam("GetLoginProfile", UserName="u")


@one_database
def test_a_user_without_a_password_has_none_that_is_right(iam: Iam) -> None:
    iam("CreateUser", UserName="u")
    assert not right(iam, "u", GOOD)
    assert not right(iam, "nobody", "nobody's")
    iam("CreateLoginProfile", UserName="u", Password=GOOD)
    with pytest.raises(EntityAlreadyExists, match="Login Profile for user u already exists"):
        iam("CreateLoginProfile", UserName="u", Password=GOOD)


def test_only_a_hash_is_stored(iam: Iam, registry: Registry) -> None:
    user = iam("CreateUser", UserName="u")["User"]
    iam("CreateLoginProfile", UserName="u", Password=GOOD)
    store = registry.services.store
    profile = registry.runner.run(store.read(iam_users.find_login_profile, user["UserId"]))
    assert profile is not None
    assert profile.password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert profile.password_hash not in repr(profile)


@one_database
def test_users_change_their_own_password_when_they_know_it(iam: Iam) -> None:
    caller = iam.user("u", allow("iam:ChangePassword"))
    iam("CreateLoginProfile", UserName="u", Password=GOOD, PasswordResetRequired=True)
    with pytest.raises(AccessDeniedException, match="the old password of user u"):
        iam("ChangePassword", caller, OldPassword=BETTER, NewPassword=BETTER)
    with pytest.raises(PasswordPolicyViolation, match="does not conform"):
        iam("ChangePassword", caller, OldPassword=GOOD, NewPassword="short")
    with pytest.raises(PasswordPolicyViolation, match="is the old one"):
        iam("ChangePassword", caller, OldPassword=GOOD, NewPassword=GOOD)
    iam("ChangePassword", caller, OldPassword=GOOD, NewPassword=BETTER)
    assert right(iam, "u", BETTER)
    assert iam("GetLoginProfile", UserName="u")["LoginProfile"]["PasswordResetRequired"] is False
    with pytest.raises(InvalidUserType, match="Only IAM Users"):
        iam("ChangePassword", OldPassword=GOOD, NewPassword=BETTER)


def test_of_two_changes_at_once_one_holds(iam: Iam, registry: Registry) -> None:
    caller = iam.user("u", allow("iam:ChangePassword"))
    iam("CreateLoginProfile", UserName="u", Password=GOOD)

    async def both() -> list[object]:
        # an administrator is somebody else: what is not throttled is decided by the store
        call = Call(registry.services, "request", START, caller=caller)
        root = Call(registry.services, "request", START)
        changes = [
            change_password(call, GOOD, f"{BETTER}0"),
            update_login_profile(root, "u", f"{BETTER}1"),
        ]
        return list(await asyncio.gather(*changes, return_exceptions=True))

    outcomes = registry.runner.run(both())
    assert outcomes[1] == {}
    changed = not isinstance(outcomes[0], AccessDeniedException)
    held = [right(iam, "u", f"{BETTER}{at}") for at in range(2)]
    assert held in ([[True, False], [False, True]] if changed else [[False, True]])


@one_database
def test_one_caller_hashes_one_at_a_time(iam: Iam, registry: Registry) -> None:
    caller = iam.user("u", allow("iam:ChangePassword"))
    iam("CreateLoginProfile", UserName="u", Password=GOOD)
    call = Call(registry.services, "request", START, caller=caller)

    async def flood() -> list[object]:
        changes = [change_password(call, BETTER, BETTER) for _ in range(20)]
        return list(await asyncio.gather(*changes, return_exceptions=True))

    outcomes = Counter(type(each) for each in registry.runner.run(flood()))
    assert outcomes == {AccessDeniedException: 1, Throttling: 19}
    with pytest.raises(AccessDeniedException):
        iam("ChangePassword", caller, OldPassword=BETTER, NewPassword=BETTER)


@one_database
def test_not_more_wait_than_there_is_room_for(iam: Iam, registry: Registry) -> None:
    call = Call(registry.services, "request", START)

    async def flood() -> list[object]:
        checks = [check_password(call, "nobody", GOOD) for _ in range(MAX_WAITING // 2 + 4)]
        return list(await asyncio.gather(*checks, return_exceptions=True))

    outcomes = registry.runner.run(flood())
    assert sum(isinstance(each, Throttling) for each in outcomes) == 4
    assert outcomes.count(None) == MAX_WAITING // 2
    assert not right(iam, "nobody", GOOD)


@pytest.mark.parametrize(
    ("password", "good"),
    [
        ("Abcdefg1", True),
        ("abcdef1!", True),
        ("ABCDEF1!", True),
        ("Abcdefg!", True),
        ("Abcdef1", False),
        ("Abcdefgh", False),
        ("abcdefg1", False),
        ("ABCDEFG1", False),
        ("Ábcdefgé", False),
    ],
)
def test_the_default_password_policy(password: str, good: bool) -> None:
    """IAM User Guide, "Set an account password policy for IAM users", default password policy."""
    if good:
        check_strength(password)
    else:
        with pytest.raises(PasswordPolicyViolation, match="at least 8 characters"):
            check_strength(password)


def test_a_login_profile_needs_a_password(iam: Iam) -> None:
    iam("CreateUser", UserName="u")
    with pytest.raises(ValidationError, match="needs a Password"):
        iam("CreateLoginProfile", UserName="u")
    with pytest.raises(ValidationError) as refused:
        iam("CreateLoginProfile", UserName="u", Password="☃ secret ☃")
    assert "secret" not in refused.value.message
