"""Managed IAM policies: those of the account, and AWS's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetgate.domain import policy as language
from fleetgate.errors import (
    DeleteConflict,
    EntityAlreadyExists,
    InvalidInput,
    LimitExceeded,
    MalformedPolicyDocument,
    NoSuchEntity,
    ValidationError,
)
from fleetgate.names import Account
from fleetgate.operations import iam_names
from fleetgate.operations.call import Call
from fleetgate.store import iam_policies, iam_roles, iam_users, managed_policies
from fleetgate.store import tags as tag_store
from fleetgate.store.engine import Tx
from fleetgate.store.iam_policies import Policy
from fleetgate.store.managed_policies import ManagedPolicy

VERSION = "2012-10-17"
"""The version a managed policy's document has."""

# --- policies ------------------------------------------------------------------------------


async def create_policy(
    call: Call,
    policy_name: str,
    policy_document: str,
    path: str = "/",
    description: str | None = None,
    tags: Sequence[Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """CreatePolicy: stores a policy with its version v1."""
    check_document(call, policy_document)
    checked = iam_names.checked_tags(call, tags, case_counts=True)
    now = iam_names.seconds(call.now)
    policy = Policy(
        policy_id=iam_names.new_id(call, "ANPA"),
        policy_name=policy_name,
        path=path,
        arn=call.account.iam_arn(f"policy{path}{policy_name}"),
        description=description,
        default_version_id=1,
        last_version_id=1,
        created_at=now,
        modified_at=now,
    )

    def add(tx: Tx) -> None:
        if iam_policies.find_policy_of_any_case(tx, policy_name) is not None:
            raise EntityAlreadyExists(
                f"A policy called {policy_name} already exists. Duplicate names are not allowed."
            )
        limit = call.services.limits.iam_policies
        iam_names.within("PoliciesPerAccount", limit, iam_policies.count_policies(tx) + 1)
        iam_policies.add_policy(tx, policy, policy_document)
        tag_store.update_tags(tx, policy.arn, checked)

    await call.write(add)
    # the answer has no Description (IAM API Reference, "Policy")
    described = _described(policy, 0) | {
        "Description": None,
        "Tags": iam_names.listed_tags(checked),
    }
    return {"Policy": described}


async def get_policy(call: Call, policy_arn: str) -> dict[str, Any]:
    """GetPolicy: of the account, or one of AWS's."""

    def find(tx: Tx) -> tuple[Policy | ManagedPolicy, int, dict[str, str]]:
        policy = find_policy(tx, call.account, policy_arn)
        if policy is None:
            raise not_found(policy_arn)
        count = iam_policies.count_owners(tx, policy_arn)
        return policy, count, tag_store.list_tags(tx, policy_arn)

    policy, count, found = await call.read(find)
    # here alone, an empty list where there are none (recorded from AWS)
    return {"Policy": _described(policy, count) | {"Tags": iam_names.described_tags(found)}}


async def list_policies(
    call: Call,
    scope: str = "All",
    only_attached: bool = False,
    path_prefix: str = "/",
    policy_usage_filter: str | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListPolicies: AWS's by name, then those of the account by name. As with AWS, without tags."""
    given = iam_names.start(call, "ListPolicies", marker)
    local, after = (False, "") if given is None else (bool(given[0]), str(given[1]))

    def find(tx: Tx) -> list[tuple[Policy | ManagedPolicy, int]]:
        found: list[Policy | ManagedPolicy] = []
        if scope != "Local" and not local:
            found += [
                policy
                for policy in managed_policies.every().values()
                if policy.policy_name > after and policy.path.startswith(path_prefix)
            ]
        if scope != "AWS":
            found += iam_policies.list_policies(
                tx,
                path_prefix,
                after if local else "",
                max_items + 1,
                only_attached=only_attached,
            )
        counted = [(policy, iam_policies.count_owners(tx, policy.arn)) for policy in found]
        return [each for each in counted if each[1] or not only_attached]

    # nothing is used as a permissions boundary, so there is none of that kind
    found = [] if policy_usage_filter == "PermissionsBoundary" else await call.read(find)
    items, rest = iam_names.page(call, "ListPolicies", found, max_items, _position)
    return {
        "Policies": [_described(policy, count) | {"Description": None} for policy, count in items]
    } | rest


def _position(item: tuple[Policy | ManagedPolicy, int]) -> tuple[int, str]:
    policy, _ = item
    if isinstance(policy, ManagedPolicy):
        return 0, policy.policy_name
    return 1, policy.policy_name.lower()


async def delete_policy(call: Call, policy_arn: str) -> dict[str, Any]:
    """DeletePolicy: one of the account that is not attached and has no other version."""

    def change(tx: Tx) -> None:
        policy = require_policy(tx, call.account, policy_arn)
        if iam_policies.count_owners(tx, policy_arn):
            raise DeleteConflict("Cannot delete a policy attached to entities.")
        if len(iam_policies.list_policy_versions(tx, policy.policy_id)) > 1:
            raise DeleteConflict(
                "This policy has more than one version. Before you delete a policy, you must "
                "delete the policy's versions. The default version is deleted with the policy."
            )
        tag_store.remove_tags(tx, policy_arn)
        iam_policies.remove_policy(tx, policy.policy_id)

    await call.write(change)
    call.iam_changed()
    return {}


# --- who has one ---------------------------------------------------------------------------


async def list_entities_for_policy(
    call: Call,
    policy_arn: str,
    entity_filter: str | None = None,
    path_prefix: str = "/",
    policy_usage_filter: str | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListEntitiesForPolicy: the users and roles a policy is attached to."""
    after = iam_names.start_after(call, "ListEntitiesForPolicy", marker)
    if entity_filter in {"LocalManagedPolicy", "AWSManagedPolicy"}:
        raise InvalidInput(f"a policy is attached to users and roles, not to a `{entity_filter}`")
    kinds = {"User": {"AIDA"}, "Role": {"AROA"}, "Group": set()}.get(
        entity_filter or "", {"AIDA", "AROA"}
    )
    if policy_usage_filter == "PermissionsBoundary":
        kinds = set()

    def find(tx: Tx) -> list[tuple[str, dict[str, str]]]:
        if find_policy(tx, call.account, policy_arn) is None:
            raise NoSuchEntity(f"Policy {policy_arn} does not exist or is not attachable.")
        found: list[tuple[str, dict[str, str]]] = []
        behind = after
        while len(found) <= max_items:
            owners = iam_policies.list_owners(tx, policy_arn, behind, max_items + 1)
            found += [
                (owner, described)
                for owner in owners
                if owner[:4] in kinds and (described := _owner(tx, owner, path_prefix))
            ]
            if len(owners) <= max_items:
                break
            behind = owners[-1]
        return found[: max_items + 1]

    found = await call.read(find)
    items, rest = iam_names.page(
        call, "ListEntitiesForPolicy", found, max_items, lambda item: (item[0],)
    )
    described = [described for _, described in items]
    return {
        "PolicyGroups": [],
        "PolicyUsers": [each for each in described if "UserId" in each],
        "PolicyRoles": [each for each in described if "RoleId" in each],
    } | rest


def _owner(tx: Tx, owner_id: str, path_prefix: str) -> dict[str, str] | None:
    user = iam_users.find_user_of_id(tx, owner_id)
    if user is not None and user.path.startswith(path_prefix):
        return {"UserName": user.user_name, "UserId": user.user_id}
    role = iam_roles.find_role_of_id(tx, owner_id)
    if role is not None and role.path.startswith(path_prefix):
        return {"RoleName": role.role_name, "RoleId": role.role_id}
    return None


# --- shared --------------------------------------------------------------------------------


def find_policy(tx: Tx, account: Account, policy_arn: str) -> Policy | ManagedPolicy | None:
    """The policy of an ARN, of the account or one of AWS's.

    Raises InvalidInput when it is not the ARN of a policy.
    """
    if policy_arn.startswith(managed_policies.PREFIX + "/"):
        return managed_policies.find(policy_arn)
    if not policy_arn.startswith(f"arn:{account.partition}:iam::"):
        raise InvalidInput(f"ARN {policy_arn} is not valid.")
    return iam_policies.find_policy(tx, policy_arn)


def require_policy(tx: Tx, account: Account, policy_arn: str) -> Policy:
    """The policy of the account.

    Raises NoSuchEntity when there is none with this ARN, InvalidInput when it is no policy's, and
    ValidationError for one of AWS's, which nobody changes.
    """
    policy = find_policy(tx, account, policy_arn)
    if policy is None:
        raise not_found(policy_arn)
    if isinstance(policy, ManagedPolicy):
        raise ValidationError(f"Cannot perform operation on AWS managed policy {policy_arn}.")
    return policy


def not_found(policy_arn: str) -> NoSuchEntity:
    """The error for a policy that is not there."""
    return NoSuchEntity(f"Policy {policy_arn} was not found.")


def check_document(call: Call, document: str) -> None:
    """Raises MalformedPolicyDocument or LimitExceeded for what is no document of such a policy."""
    limit = call.services.limits.iam_managed_policy_characters
    if language.characters(document) > limit:
        raise LimitExceeded(f"Cannot exceed quota for PolicySize: {limit}")
    # so old a document IAM takes only as an inline policy
    if language.parse(document, language.IDENTITY).version != VERSION:
        raise MalformedPolicyDocument(f"Policy document must be version {VERSION} or greater.")


def default_version(policy: Policy | ManagedPolicy) -> int:
    """The number of the version in force."""
    return policy.version if isinstance(policy, ManagedPolicy) else policy.default_version_id


def _described(policy: Policy | ManagedPolicy, attachments: int) -> dict[str, Any]:
    return {
        "PolicyName": policy.policy_name,
        "PolicyId": policy.policy_id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{default_version(policy)}",
        "AttachmentCount": attachments,
        "PermissionsBoundaryUsageCount": 0,
        "IsAttachable": True,
        "Description": policy.description,
        "CreateDate": policy.created_at,
        "UpdateDate": policy.modified_at,
    }
