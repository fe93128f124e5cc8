"""The policies of IAM users and roles: inline ones, and managed ones attached to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleetgate.domain import policy as language
from fleetgate.errors import LimitExceeded, NoSuchEntity
from fleetgate.operations import iam_names, iam_policies
from fleetgate.operations.call import Call
from fleetgate.store import iam_policies as store
from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class Owner:
    """A user or role that has policies, before it was looked for."""

    kind: str
    """``user`` or ``role``, as messages and operations call it."""
    name: str

    def require(self, tx: Tx) -> str:
        """Its id. Raises NoSuchEntity."""
        if self.kind == "user":
            return iam_names.require_user(tx, self.name).user_id
        return iam_names.require_role(tx, self.name).role_id


# --- inline --------------------------------------------------------------------------------


async def put_user_policy(
    call: Call, user_name: str, policy_name: str, policy_document: str
) -> dict[str, Any]:
    """PutUserPolicy: embeds a policy in a user, in place of the one of this name."""
    return await _put(call, Owner("user", user_name), policy_name, policy_document)


async def put_role_policy(
    call: Call, role_name: str, policy_name: str, policy_document: str
) -> dict[str, Any]:
    """PutRolePolicy: embeds a policy in a role, in place of the one of this name."""
    return await _put(call, Owner("role", role_name), policy_name, policy_document)


async def get_user_policy(call: Call, user_name: str, policy_name: str) -> dict[str, Any]:
    """GetUserPolicy: an inline policy with its document."""
    return await _get(call, Owner("user", user_name), policy_name)


async def get_role_policy(call: Call, role_name: str, policy_name: str) -> dict[str, Any]:
    """GetRolePolicy: an inline policy with its document."""
    return await _get(call, Owner("role", role_name), policy_name)


async def list_user_policies(
    call: Call, user_name: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListUserPolicies: the names of the inline policies."""
    return await _list(call, "ListUserPolicies", Owner("user", user_name), marker, max_items)


async def list_role_policies(
    call: Call, role_name: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListRolePolicies: the names of the inline policies."""
    return await _list(call, "ListRolePolicies", Owner("role", role_name), marker, max_items)


async def delete_user_policy(call: Call, user_name: str, policy_name: str) -> dict[str, Any]:
    """DeleteUserPolicy: an inline policy."""
    return await _delete(call, Owner("user", user_name), policy_name)


async def delete_role_policy(call: Call, role_name: str, policy_name: str) -> dict[str, Any]:
    """DeleteRolePolicy: an inline policy."""
    return await _delete(call, Owner("role", role_name), policy_name)


async def _put(call: Call, owner: Owner, policy_name: str, document: str) -> dict[str, Any]:
    language.parse(document, language.IDENTITY)
    limits = call.services.limits
    limit = (
        limits.iam_user_policy_characters
        if owner.kind == "user"
        else limits.iam_role_policy_characters
    )

    def change(tx: Tx) -> None:
        owner_id = owner.require(tx)
        documents = dict(store.list_inline_policies(tx, owner_id)) | {policy_name: document}
        # the quota is for all of them together (IAM User Guide, "IAM and AWS STS quotas")
        if sum(map(language.characters, documents.values())) > limit:
            raise LimitExceeded(
                f"Maximum policy size of {limit} bytes exceeded for {owner.kind} {owner.name}"
            )
        store.update_inline_policy(tx, owner_id, policy_name, document)

    await call.write(change)
    call.iam_changed()
    return {}


async def _get(call: Call, owner: Owner, policy_name: str) -> dict[str, Any]:
    document = await call.read(
        lambda tx: store.find_inline_policy(tx, owner.require(tx), policy_name)
    )
    if document is None:
        raise _no_such_policy(owner, policy_name)
    return {
        f"{owner.kind.title()}Name": owner.name,
        "PolicyName": policy_name,
        "PolicyDocument": iam_names.encoded(document),
    }


async def _list(
    call: Call, operation: str, owner: Owner, marker: str | None, limit: int
) -> dict[str, Any]:
    found = await call.read(lambda tx: store.list_inline_policies(tx, owner.require(tx)))
    names = [name for name, _ in found]
    items, rest = iam_names.page_of_all(call, operation, names, marker, limit, lambda name: (name,))
    return {"PolicyNames": list(items)} | rest


async def _delete(call: Call, owner: Owner, policy_name: str) -> dict[str, Any]:
    def change(tx: Tx) -> None:
        if not store.remove_inline_policy(tx, owner.require(tx), policy_name):
            raise _no_such_policy(owner, policy_name)

    await call.write(change)
    call.iam_changed()
    return {}


def _no_such_policy(owner: Owner, policy_name: str) -> NoSuchEntity:
    return NoSuchEntity(f"The {owner.kind} policy with name {policy_name} cannot be found.")


# --- attached ------------------------------------------------------------------------------


async def attach_user_policy(call: Call, user_name: str, policy_arn: str) -> dict[str, Any]:
    """AttachUserPolicy: a managed policy of the account or of AWS; twice is once."""
    return await _attach(call, Owner("user", user_name), policy_arn)


async def attach_role_policy(call: Call, role_name: str, policy_arn: str) -> dict[str, Any]:
    """AttachRolePolicy: a managed policy of the account or of AWS; twice is once."""
    return await _attach(call, Owner("role", role_name), policy_arn)


async def detach_user_policy(call: Call, user_name: str, policy_arn: str) -> dict[str, Any]:
    """DetachUserPolicy"""
    return await _detach(call, Owner("user", user_name), policy_arn)


async def detach_role_policy(call: Call, role_name: str, policy_arn: str) -> dict[str, Any]:
    """DetachRolePolicy"""
    return await _detach(call, Owner("role", role_name), policy_arn)


async def list_attached_user_policies(
    call: Call,
    user_name: str,
    path_prefix: str = "/",
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListAttachedUserPolicies: the managed ones, by name."""
    owner = Owner("user", user_name)
    return await _attached(call, "ListAttachedUserPolicies", owner, path_prefix, marker, max_items)


async def list_attached_role_policies(
    call: Call,
    role_name: str,
    path_prefix: str = "/",
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListAttachedRolePolicies: the managed ones, by name."""
    owner = Owner("role", role_name)
    return await _attached(call, "ListAttachedRolePolicies", owner, path_prefix, marker, max_items)


async def _attach(call: Call, owner: Owner, policy_arn: str) -> dict[str, Any]:
    def change(tx: Tx) -> None:
        owner_id = owner.require(tx)
        if iam_policies.find_policy(tx, call.account, policy_arn) is None:
            raise NoSuchEntity(f"Policy {policy_arn} does not exist or is not attachable.")
        attached = {*store.list_attached(tx, owner_id), policy_arn}
        quota = f"PoliciesPer{owner.kind.title()}"
        iam_names.within(quota, call.services.limits.iam_attached_policies, len(attached))
        store.add_attached(tx, owner_id, policy_arn)

    await call.write(change)
    call.iam_changed()
    return {}


async def _detach(call: Call, owner: Owner, policy_arn: str) -> dict[str, Any]:
    def change(tx: Tx) -> None:
        owner_id = owner.require(tx)
        if not store.remove_attached(tx, owner_id, policy_arn):
            iam_policies.find_policy(tx, call.account, policy_arn)  # is it an ARN at all?
            raise NoSuchEntity(f"Policy {policy_arn} was not found.")

    await call.write(change)
    call.iam_changed()
    return {}


async def _attached(
    call: Call, operation: str, owner: Owner, path_prefix: str, marker: str | None, limit: int
) -> dict[str, Any]:
    def find(tx: Tx) -> list[tuple[str, str]]:
        return [
            (policy.policy_name, arn)
            for arn in store.list_attached(tx, owner.require(tx))
            if (policy := iam_policies.find_policy(tx, call.account, arn)) is not None
            and policy.path.startswith(path_prefix)
        ]

    # no two policies of the account have one name, but one may have that of a policy of AWS
    items, rest = iam_names.page_of_all(
        call,
        operation,
        await call.read(find),
        marker,
        limit,
        lambda item: (item[0], int(item[1].startswith(call.account.iam_arn("")))),
    )
    described = [{"PolicyName": name, "PolicyArn": arn} for name, arn in items]
    return {"AttachedPolicies": described} | rest
