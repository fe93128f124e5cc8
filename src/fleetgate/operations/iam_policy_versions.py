"""The versions of managed IAM policies; of AWS's own policies there is one."""

from __future__ import annotations

from typing import Any

from fleetgate.errors import DeleteConflict, LimitExceeded, NoSuchEntity
from fleetgate.operations import iam_names
from fleetgate.operations.call import Call
from fleetgate.operations.iam_policies import (
    check_document,
    default_version,
    find_policy,
    not_found,
    require_policy,
)
from fleetgate.store import iam_policies
from fleetgate.store.engine import Tx
from fleetgate.store.iam_policies import Policy, PolicyVersion
from fleetgate.store.managed_policies import ManagedPolicy


async def create_policy_version(
    call: Call, policy_arn: str, policy_document: str, set_as_default: bool = False
) -> dict[str, Any]:
    """CreatePolicyVersion: a further version, in force at once when `set_as_default`."""
    check_document(call, policy_document)
    now = iam_names.seconds(call.now)

    def add(tx: Tx) -> int:
        policy = require_policy(tx, call.account, policy_arn)
        limit = call.services.limits.iam_policy_versions
        if len(iam_policies.list_policy_versions(tx, policy.policy_id)) >= limit:
            raise LimitExceeded(
                f"A managed policy can have up to {limit} versions. Before you create a new "
                "version, you must delete an existing version."
            )
        version_id = iam_policies.add_policy_version(tx, policy, policy_document, now)
        if set_as_default:
            iam_policies.update_default_version(tx, policy.policy_id, version_id, now)
        return version_id

    version_id = await call.write(add)
    if set_as_default:
        call.iam_changed()
    return {
        "PolicyVersion": {
            "VersionId": f"v{version_id}",
            "IsDefaultVersion": set_as_default,
            "CreateDate": now,
        }
    }


async def get_policy_version(call: Call, policy_arn: str, version_id: str) -> dict[str, Any]:
    """GetPolicyVersion: one version with its document. Of AWS's policies there is only one."""

    def find(tx: Tx) -> dict[str, Any]:
        policy = find_policy(tx, call.account, policy_arn)
        if policy is None:
            raise _version_not_found(policy_arn, version_id)
        for version in _versions(tx, policy):
            if f"v{version.version_id}" == version_id:
                described = _described_version(policy, version)
                return described | {"Document": iam_names.encoded(version.document)}
        raise _version_not_found(policy_arn, version_id)

    return {"PolicyVersion": await call.read(find)}


async def list_policy_versions(
    call: Call, policy_arn: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListPolicyVersions: newest first, without the documents."""

    def find(tx: Tx) -> tuple[Policy | ManagedPolicy, list[PolicyVersion]]:
        policy = find_policy(tx, call.account, policy_arn)
        if policy is None:
            raise not_found(policy_arn)
        return policy, _versions(tx, policy)

    policy, versions = await call.read(find)
    items, rest = iam_names.page_of_all(
        call,
        "ListPolicyVersions",
        versions,
        marker,
        max_items,
        lambda version: (-version.version_id,),
    )
    return {"Versions": [_described_version(policy, version) for version in items]} | rest


async def delete_policy_version(call: Call, policy_arn: str, version_id: str) -> dict[str, Any]:
    """DeletePolicyVersion: any version but the default one."""

    def change(tx: Tx) -> None:
        policy = require_policy(tx, call.account, policy_arn)
        version = _require_version(tx, policy, version_id)
        if version.version_id == policy.default_version_id:
            raise DeleteConflict("Cannot delete the default version of a policy.")
        iam_policies.remove_policy_version(tx, policy.policy_id, version.version_id)

    await call.write(change)
    return {}


async def set_default_policy_version(
    call: Call, policy_arn: str, version_id: str
) -> dict[str, Any]:
    """SetDefaultPolicyVersion: makes a version the one in force."""

    def change(tx: Tx) -> None:
        if find_policy(tx, call.account, policy_arn) is None:
            raise _version_not_found(policy_arn, version_id)
        policy = require_policy(tx, call.account, policy_arn)
        version = _require_version(tx, policy, version_id)
        now = iam_names.seconds(call.now)
        iam_policies.update_default_version(tx, policy.policy_id, version.version_id, now)

    await call.write(change)
    call.iam_changed()
    return {}


def _version_not_found(policy_arn: str, version_id: str) -> NoSuchEntity:
    return NoSuchEntity(
        f"Policy {policy_arn} version {version_id} does not exist or is not attachable."
    )


def _versions(tx: Tx, policy: Policy | ManagedPolicy) -> list[PolicyVersion]:
    if isinstance(policy, ManagedPolicy):
        return [PolicyVersion(policy.version, policy.document, policy.modified_at)]
    return iam_policies.list_policy_versions(tx, policy.policy_id)


def _require_version(tx: Tx, policy: Policy, version_id: str) -> PolicyVersion:
    for version in iam_policies.list_policy_versions(tx, policy.policy_id):
        if f"v{version.version_id}" == version_id:
            return version
    raise _version_not_found(policy.arn, version_id)


def _described_version(policy: Policy | ManagedPolicy, version: PolicyVersion) -> dict[str, Any]:
    return {
        "VersionId": f"v{version.version_id}",
        "IsDefaultVersion": version.version_id == default_version(policy),
        "CreateDate": version.created_at,
    }
