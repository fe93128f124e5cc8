"""Tags of IAM users, roles and policies.

They are kept with all other tags (store/tags.py), by ARN. Keys of users and roles do not differ in
case alone, those of policies may (recorded from AWS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetgate.operations import iam_names, iam_policies
from fleetgate.operations.call import Call
from fleetgate.store import tags
from fleetgate.store.engine import Tx

Given = Sequence[Mapping[str, str]]


async def tag_user(call: Call, user_name: str, tags: Given) -> dict[str, Any]:
    """TagUser: a key the user has already gets the new value."""
    return await _tag(call, _of_user(call, user_name), tags)


async def untag_user(call: Call, user_name: str, tag_keys: Sequence[str]) -> dict[str, Any]:
    """UntagUser: keys the user does not have are passed over."""
    return await _untag(call, _of_user(call, user_name), tag_keys)


async def list_user_tags(
    call: Call, user_name: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListUserTags: by key."""
    return await _list(call, "ListUserTags", _of_user(call, user_name), marker, max_items)


async def tag_role(call: Call, role_name: str, tags: Given) -> dict[str, Any]:
    """TagRole: a key the role has already gets the new value."""
    return await _tag(call, _of_role(call, role_name), tags)


async def untag_role(call: Call, role_name: str, tag_keys: Sequence[str]) -> dict[str, Any]:
    """UntagRole: keys the role does not have are passed over."""
    return await _untag(call, _of_role(call, role_name), tag_keys)


async def list_role_tags(
    call: Call, role_name: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListRoleTags: by key."""
    return await _list(call, "ListRoleTags", _of_role(call, role_name), marker, max_items)


async def tag_policy(call: Call, policy_arn: str, tags: Given) -> dict[str, Any]:
    """TagPolicy: a key the policy has already gets the new value."""
    return await _tag(call, _of_policy(call, policy_arn), tags, case_counts=True)


async def untag_policy(call: Call, policy_arn: str, tag_keys: Sequence[str]) -> dict[str, Any]:
    """UntagPolicy: keys the policy does not have are passed over."""
    return await _untag(call, _of_policy(call, policy_arn), tag_keys)


async def list_policy_tags(
    call: Call, policy_arn: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListPolicyTags: by key."""
    return await _list(call, "ListPolicyTags", _of_policy(call, policy_arn), marker, max_items)


Entity = Callable[[Tx], str]
"""Finds the ARN of what is tagged; raises NoSuchEntity."""


def _of_user(call: Call, user_name: str) -> Entity:
    return lambda tx: iam_names.user_arn(call.account, iam_names.require_user(tx, user_name))


def _of_role(call: Call, role_name: str) -> Entity:
    return lambda tx: iam_names.role_arn(call.account, iam_names.require_role(tx, role_name))


def _of_policy(call: Call, policy_arn: str) -> Entity:
    return lambda tx: iam_policies.require_policy(tx, call.account, policy_arn).arn


async def _tag(
    call: Call, entity: Entity, given: Given, *, case_counts: bool = False
) -> dict[str, Any]:
    new = iam_names.checked_tags(call, given, case_counts=case_counts)

    def compared(key: str) -> str:
        return key if case_counts else key.lower()

    def change(tx: Tx) -> None:
        arn = entity(tx)
        current = {compared(key): key for key in tags.list_tags(tx, arn)}
        # the new spelling of a key takes the place of the one that differs in case
        renamed = [current[compared(key)] for key in new if current.get(compared(key), key) != key]
        tags.remove_tags(tx, arn, renamed)
        iam_names.within_tags(call, len({*current, *map(compared, new)}))
        tags.update_tags(tx, arn, new)

    await call.write(change)
    call.iam_changed()
    return {}


async def _untag(call: Call, entity: Entity, keys: Sequence[str]) -> dict[str, Any]:
    await call.write(lambda tx: tags.remove_tags(tx, entity(tx), keys))
    call.iam_changed()
    return {}


async def _list(
    call: Call, operation: str, entity: Entity, marker: str | None, limit: int
) -> dict[str, Any]:
    found = await call.read(lambda tx: tags.list_tags(tx, entity(tx)))
    items, rest = iam_names.page_of_all(
        call, operation, iam_names.described_tags(found), marker, limit, _position
    )
    return {"Tags": list(items)} | rest


def _position(tag: Mapping[str, str]) -> tuple[str, str]:
    """A marker has room for 320 characters: a key of 128 may be longer, percent by percent."""
    digest = hashlib.sha256(tag["Key"].encode()).hexdigest()
    return tag["Key"][:40], digest[:16]
