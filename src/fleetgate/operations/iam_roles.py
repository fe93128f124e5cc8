"""IAM roles and their trust policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleetgate.errors import DeleteConflict, EntityAlreadyExists
from fleetgate.operations import iam_names, role_trust
from fleetgate.operations.call import Call
from fleetgate.store import iam_policies, iam_roles
from fleetgate.store import tags as tag_store
from fleetgate.store.engine import Tx
from fleetgate.store.iam_roles import Role

SESSION = 3600
"""Seconds a session of a role lasts at most, unless the role says otherwise."""


async def create_role(
    call: Call,
    role_name: str,
    assume_role_policy_document: str,
    path: str = "/",
    description: str | None = None,
    max_session_duration: int = SESSION,
    tags: Sequence[Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """CreateRole: with the policy that says who may assume it."""
    role_trust.check(call, assume_role_policy_document)
    checked = iam_names.checked_tags(call, tags)
    role = Role(
        role_id=iam_names.new_id(call, "AROA"),
        role_name=role_name,
        path=path,
        trust_policy=assume_role_policy_document,
        description=description,
        max_session_seconds=max_session_duration,
        created_at=iam_names.seconds(call.now),
    )
    await call.write(_create_role, call, role, checked)
    call.iam_changed()
    described = _described(call, role, assume_role_policy_document)
    # the answer has neither (recorded from AWS)
    described |= {"Description": None, "MaxSessionDuration": None}
    return {"Role": described | {"Tags": iam_names.listed_tags(checked)}}


def _create_role(tx: Tx, call: Call, role: Role, checked: Mapping[str, str]) -> None:
    if iam_roles.find_role_of_any_case(tx, role.role_name) is not None:
        raise EntityAlreadyExists(f"Role with name {role.role_name} already exists.")
    limit = call.services.limits.iam_roles
    iam_names.within("RolesPerAccount", limit, iam_roles.count_roles(tx) + 1)
    trust_policy = role_trust.bound(tx, call.account, role.trust_policy)
    iam_roles.add_role(tx, replace(role, trust_policy=trust_policy))
    tag_store.update_tags(tx, iam_names.role_arn(call.account, role), checked)


async def get_role(call: Call, role_name: str) -> dict[str, Any]:
    """GetRole: with its trust policy and tags."""

    def find(tx: Tx) -> dict[str, Any]:
        role = iam_names.require_role(tx, role_name)
        found = tag_store.list_tags(tx, iam_names.role_arn(call.account, role))
        return _found(tx, call, role) | {"Tags": iam_names.listed_tags(found), "RoleLastUsed": {}}

    return {"Role": await call.read(find)}


async def list_roles(
    call: Call,
    path_prefix: str = "/",
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListRoles: by name, those below a path. As with AWS, without their tags."""
    after = iam_names.start_after(call, "ListRoles", marker)

    def find(tx: Tx) -> list[dict[str, Any]]:
        roles = iam_roles.list_roles(tx, path_prefix, after, max_items + 1)
        return [_found(tx, call, role) for role in roles]

    items, rest = iam_names.page(
        call,
        "ListRoles",
        await call.read(find),
        max_items,
        lambda role: (role["RoleName"].lower(),),
    )
    return {"Roles": list(items)} | rest


async def update_role(
    call: Call,
    role_name: str,
    description: str | None = None,
    max_session_duration: int | None = None,
) -> dict[str, Any]:
    """UpdateRole: description and longest session; what is left out stays as it is."""

    def change(tx: Tx) -> None:
        role = iam_names.require_role(tx, role_name)
        changed = replace(
            role,
            description=role.description if description is None else description,
            max_session_seconds=max_session_duration or role.max_session_seconds,
        )
        iam_roles.update_role(tx, changed)

    await call.write(change)
    return {}


async def update_role_description(call: Call, role_name: str, description: str) -> dict[str, Any]:
    """UpdateRoleDescription: the older way to do it."""

    def change(tx: Tx) -> dict[str, Any]:
        role = replace(iam_names.require_role(tx, role_name), description=description)
        iam_roles.update_role(tx, role)
        return _found(tx, call, role)

    # recorded from AWS: here it does not tell how long a session may last
    return {"Role": await call.write(change) | {"MaxSessionDuration": None}}


async def update_assume_role_policy(
    call: Call, role_name: str, policy_document: str
) -> dict[str, Any]:
    """UpdateAssumeRolePolicy: another trust policy, in force at the next call."""
    role_trust.check(call, policy_document)

    def change(tx: Tx) -> None:
        role = iam_names.require_role(tx, role_name)
        trust_policy = role_trust.bound(tx, call.account, policy_document)
        iam_roles.update_role(tx, replace(role, trust_policy=trust_policy))

    await call.write(change)
    call.iam_changed()
    return {}


async def delete_role(call: Call, role_name: str) -> dict[str, Any]:
    """DeleteRole: a role without inline and attached policies."""

    def change(tx: Tx) -> None:
        role = iam_names.require_role(tx, role_name)
        for what, there in (
            ("delete policies", bool(iam_policies.list_inline_policies(tx, role.role_id))),
            ("detach all policies", bool(iam_policies.list_attached(tx, role.role_id))),
        ):
            if there:
                raise DeleteConflict(f"Cannot delete entity, must {what} first.")
        tag_store.remove_tags(tx, iam_names.role_arn(call.account, role))
        iam_roles.remove_role(tx, role.role_id)

    await call.write(change)
    call.iam_changed()
    return {}


def _found(tx: Tx, call: Call, role: Role) -> dict[str, Any]:
    return _described(call, role, role_trust.shown(tx, call.account, role.trust_policy))


def _described(call: Call, role: Role, trust_policy: str) -> dict[str, Any]:
    return {
        "Path": role.path,
        "RoleName": role.role_name,
        "RoleId": role.role_id,
        "Arn": iam_names.role_arn(call.account, role),
        "CreateDate": role.created_at,
        "AssumeRolePolicyDocument": iam_names.encoded(trust_policy),
        "Description": role.description,
        "MaxSessionDuration": role.max_session_seconds,
    }
