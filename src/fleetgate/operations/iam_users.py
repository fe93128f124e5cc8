"""IAM users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleetgate.errors import DeleteConflict, EntityAlreadyExists
from fleetgate.operations import iam_names
from fleetgate.operations.call import Call
from fleetgate.store import iam_policies, iam_users
from fleetgate.store import tags as tag_store
from fleetgate.store.engine import Tx
from fleetgate.store.iam_users import LoginProfile, User


async def create_user(
    call: Call,
    user_name: str,
    path: str = "/",
    tags: Sequence[Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """CreateUser: a user without access keys, password and policies."""
    checked = iam_names.checked_tags(call, tags)
    user = User(iam_names.new_id(call, "AIDA"), user_name, path, iam_names.seconds(call.now))
    await call.write(_create_user, call, user, checked)
    return {"User": _described(call, user, None) | {"Tags": iam_names.listed_tags(checked)}}


def _create_user(tx: Tx, call: Call, user: User, checked: Mapping[str, str]) -> None:
    if iam_users.find_user_of_any_case(tx, user.user_name) is not None:
        raise EntityAlreadyExists(f"User with name {user.user_name} already exists.")
    limit = call.services.limits.iam_users
    iam_names.within("UsersPerAccount", limit, iam_users.count_users(tx) + 1)
    iam_users.add_user(tx, user)
    tag_store.update_tags(tx, iam_names.user_arn(call.account, user), checked)


async def get_user(call: Call, user_name: str | None = None) -> dict[str, Any]:
    """GetUser: of a name, or who makes the call, which may be the root user."""
    if user_name is None and iam_names.is_root(call):
        return {"User": _described_root(call)}
    name = iam_names.named_user(call, user_name)

    def find(tx: Tx) -> tuple[User, LoginProfile | None, dict[str, str]]:
        user = iam_names.require_user(tx, name)
        profile = iam_users.find_login_profile(tx, user.user_id)
        return user, profile, tag_store.list_tags(tx, iam_names.user_arn(call.account, user))

    user, profile, found = await call.read(find)
    return {"User": _described(call, user, profile) | {"Tags": iam_names.listed_tags(found)}}


async def list_users(
    call: Call,
    path_prefix: str = "/",
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListUsers: by name, those below a path. As with AWS, without their tags."""
    after = iam_names.start_after(call, "ListUsers", marker)

    def find(tx: Tx) -> list[tuple[User, LoginProfile | None]]:
        found = iam_users.list_users(tx, path_prefix, after, max_items + 1)
        return [(user, iam_users.find_login_profile(tx, user.user_id)) for user in found]

    found = await call.read(find)
    items, rest = iam_names.page(
        call, "ListUsers", found, max_items, lambda item: (item[0].user_name.lower(),)
    )
    return {"Users": [_described(call, user, profile) for user, profile in items]} | rest


async def update_user(
    call: Call, user_name: str, new_path: str | None = None, new_user_name: str | None = None
) -> dict[str, Any]:
    """UpdateUser: another name or path; the user keeps id, access keys, password and policies."""
    await call.write(_update_user, call, user_name, new_path, new_user_name)
    call.iam_changed()
    return {}


def _update_user(
    tx: Tx, call: Call, user_name: str, new_path: str | None, new_user_name: str | None
) -> None:
    user = iam_names.require_user(tx, user_name)
    changed = replace(user, path=new_path or user.path, user_name=new_user_name or user.user_name)
    other = iam_users.find_user_of_any_case(tx, changed.user_name)
    if other is not None and other.user_id != user.user_id:
        raise EntityAlreadyExists(f"User with name {changed.user_name} already exists.")
    iam_users.update_user(tx, changed)
    before, after = (iam_names.user_arn(call.account, each) for each in (user, changed))
    kept = tag_store.list_tags(tx, before)
    tag_store.remove_tags(tx, before)
    tag_store.update_tags(tx, after, kept)


async def delete_user(call: Call, user_name: str) -> dict[str, Any]:
    """DeleteUser: a user without password, access keys and policies."""
    await call.write(_delete_user, call, user_name)
    call.iam_changed()
    return {}


def _delete_user(tx: Tx, call: Call, user_name: str) -> None:
    user = iam_names.require_user(tx, user_name)
    for what, there in (
        ("delete login profile", iam_users.find_login_profile(tx, user.user_id) is not None),
        ("delete access keys", bool(iam_users.list_access_keys(tx, user.user_id))),
        ("delete policies", bool(iam_policies.list_inline_policies(tx, user.user_id))),
        ("detach all policies", bool(iam_policies.list_attached(tx, user.user_id))),
    ):
        if there:
            raise DeleteConflict(f"Cannot delete entity, must {what} first.")
    tag_store.remove_tags(tx, iam_names.user_arn(call.account, user))
    iam_users.remove_user(tx, user.user_id)


def _described(call: Call, user: User, profile: LoginProfile | None) -> dict[str, Any]:
    return {
        "Path": user.path,
        "UserName": user.user_name,
        "UserId": user.user_id,
        "Arn": iam_names.user_arn(call.account, user),
        "CreateDate": user.created_at,
        "PasswordLastUsed": None if profile is None else profile.used_at,
    }


def _described_root(call: Call) -> dict[str, Any]:
    """The root user has no entry in the store; it is as old as the server's authority."""
    return {
        "Path": "/",
        "UserName": "root",
        "UserId": call.account.id,
        "Arn": call.account.iam_arn("root"),
        "CreateDate": call.services.authority.certificate.not_valid_before_utc,
    }
