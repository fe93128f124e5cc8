"""IoT policies: documents, versions and attachments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fleetgate.domain import policy as iot_policy
from fleetgate.errors import (
    DeleteConflictException,
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionsLimitExceededException,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.operations.certificates import PENDING_TRANSFER
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.store import certificates, groups, policies
from fleetgate.store.engine import Tx
from fleetgate.store.tags import remove_tags

_COGNITO_IDENTITY = re.compile(r"[\w-]+:[0-9a-f-]{36}")


def policy_arn(account: Account, policy_name: str) -> str:
    """The ARN of a policy."""
    return account.arn(f"policy/{policy_name}")


async def create_policy(
    call: Call, policy_name: str, policy_document: str, tags: Tags | None = None
) -> dict[str, Any]:
    """CreatePolicy: stores a policy with its version 1."""
    _check_document(call, policy_document)
    checked = checked_tags(call, tags)
    arn = policy_arn(call.account, policy_name)
    generation_id = call.services.new_id()

    def change(tx: Tx) -> None:
        if policies.find_policy(tx, policy_name) is not None:
            raise ResourceAlreadyExistsException(
                f"Policy cannot be created - name already exists (name={policy_name})",
                resourceId=policy_name,
                resourceArn=arn,
            )
        policies.add_policy(tx, policy_name, policy_document, generation_id, call.now)
        add_tags(tx, call, arn, checked)

    await call.write(change)
    return {
        "policyName": policy_name,
        "policyArn": arn,
        "policyDocument": policy_document,
        "policyVersionId": "1",
    }


async def get_policy(call: Call, policy_name: str) -> dict[str, Any]:
    """GetPolicy: the policy with the document in force."""

    def find(tx: Tx) -> tuple[policies.Policy, str]:
        policy = require_policy(tx, policy_name)
        return policy, policies.find_default_document(tx, policy_name) or ""

    policy, document = await call.read(find)
    return {
        "policyName": policy_name,
        "policyArn": policy_arn(call.account, policy_name),
        "policyDocument": document,
        "defaultVersionId": str(policy.default_version_id),
        "creationDate": policy.created_at,
        "lastModifiedDate": policy.modified_at,
        "generationId": policy.generation_id,
    }


async def list_policies(
    call: Call,
    marker: str | None = None,
    page_size: int = pages.PAGE,
    ascending_order: bool = False,
) -> dict[str, Any]:
    """ListPolicies: by age, newest first unless `ascending_order`."""
    after = pages.start(call, "ListPolicies", marker)
    found = await call.read(
        policies.list_policies,
        None if after is None else (float(after[0]), str(after[1])),
        page_size + 1,
        ascending=ascending_order,
    )
    items, following = pages.page(
        call, "ListPolicies", found, page_size, lambda item: (item.created_at, item.policy_name)
    )
    names = [item.policy_name for item in items]
    return {"policies": described(call.account, names), "nextMarker": following}


async def delete_policy(call: Call, policy_name: str) -> dict[str, Any]:
    """DeletePolicy: a policy without attachments and without other versions."""
    await call.write(_delete_policy, call.account, policy_name)
    return {}


def _delete_policy(tx: Tx, account: Account, policy_name: str) -> None:
    require_policy(tx, policy_name)
    if policies.list_policy_targets(tx, policy_name, "", 1):
        raise DeleteConflictException(
            "The policy cannot be deleted as the policy is attached to one or more principals "
            f"(name={policy_name})"
        )
    if len(policies.list_policy_versions(tx, policy_name)) > 1:
        raise DeleteConflictException(
            "Cannot delete the policy because it has one or more policy versions attached to it "
            f"(name={policy_name})"
        )
    policies.remove_policy(tx, policy_name)
    remove_tags(tx, policy_arn(account, policy_name))


async def create_policy_version(
    call: Call, policy_name: str, policy_document: str, set_as_default: bool = False
) -> dict[str, Any]:
    """CreatePolicyVersion: a further version, in force at once when `set_as_default`."""
    _check_document(call, policy_document)
    limit = call.services.limits.policy_versions

    def change(tx: Tx) -> int:
        policy = require_policy(tx, policy_name)
        if len(policies.list_policy_versions(tx, policy_name)) >= limit:
            raise VersionsLimitExceededException(
                f"The policy {policy_name} already has the maximum number of versions ({limit})"
            )
        version_id = policies.add_policy_version(tx, policy, policy_document, call.now)
        if set_as_default:
            policies.update_default_policy_version(tx, policy_name, version_id, call.now)
        return version_id

    version_id = await call.write(change)
    if set_as_default:
        call.policies_changed()
    return {
        "policyArn": policy_arn(call.account, policy_name),
        "policyDocument": policy_document,
        "policyVersionId": str(version_id),
        "isDefaultVersion": set_as_default,
    }


async def get_policy_version(
    call: Call, policy_name: str, policy_version_id: str
) -> dict[str, Any]:
    """GetPolicyVersion: one version with its document."""

    def find(tx: Tx) -> tuple[policies.Policy, policies.PolicyVersion]:
        return _require_version(tx, policy_name, policy_version_id)

    policy, version = await call.read(find)
    return {
        "policyArn": policy_arn(call.account, policy_name),
        "policyName": policy_name,
        "policyDocument": version.document,
        "policyVersionId": str(version.version_id),
        "isDefaultVersion": version.version_id == policy.default_version_id,
        "creationDate": version.created_at,
        "lastModifiedDate": version.created_at,
        "generationId": policy.generation_id,
    }


async def list_policy_versions(call: Call, policy_name: str) -> dict[str, Any]:
    """ListPolicyVersions: all versions, newest first."""

    def find(tx: Tx) -> tuple[policies.Policy, list[policies.PolicyVersion]]:
        policy = require_policy(tx, policy_name)
        return policy, policies.list_policy_versions(tx, policy_name)

    policy, versions = await call.read(find)
    return {
        "policyVersions": [
            {
                "versionId": str(version.version_id),
                "isDefaultVersion": version.version_id == policy.default_version_id,
                "createDate": version.created_at,
            }
            for version in versions
        ]
    }


async def set_default_policy_version(
    call: Call, policy_name: str, policy_version_id: str
) -> dict[str, Any]:
    """SetDefaultPolicyVersion: makes a version the one in force."""

    def change(tx: Tx) -> None:
        _, version = _require_version(tx, policy_name, policy_version_id)
        policies.update_default_policy_version(tx, policy_name, version.version_id, call.now)

    await call.write(change)
    call.policies_changed()
    return {}


async def delete_policy_version(
    call: Call, policy_name: str, policy_version_id: str
) -> dict[str, Any]:
    """DeletePolicyVersion: any version but the default one."""

    def change(tx: Tx) -> None:
        policy, version = _require_version(tx, policy_name, policy_version_id)
        if version.version_id == policy.default_version_id:
            raise DeleteConflictException(
                f"Cannot delete the default version of a policy (name={policy_name}, "
                f"version={policy_version_id})"
            )
        policies.remove_policy_version(tx, policy_name, version.version_id)

    await call.write(change)
    return {}


async def attach_policy(call: Call, policy_name: str, target: str) -> dict[str, Any]:
    """AttachPolicy: to a certificate or a thing group, by ARN; twice is once."""

    def change(tx: Tx) -> None:
        require_policy(tx, policy_name)
        require_attachable(tx, call.account, target)
        attach(tx, policy_name, target, call.services.limits.policies_per_principal)

    await call.write(change)
    call.policies_changed()
    return {}


async def detach_policy(call: Call, policy_name: str, target: str) -> dict[str, Any]:
    """DetachPolicy: detaching what is not attached, or does not exist, succeeds, as with AWS."""

    def change(tx: Tx) -> None:
        try:
            require_target(tx, call.account, target)
        except ResourceNotFoundException as error:
            # The model declares no other error for it, and clients look for these two words.
            raise InvalidRequestException(f"Invalid Target: {error.message}") from None
        policies.remove_policy_attachment(tx, policy_name, target)

    await call.write(change)
    call.policies_changed()
    return {}


async def list_attached_policies(
    call: Call,
    target: str,
    recursive: bool = False,
    marker: str | None = None,
    page_size: int = pages.PAGE,
) -> dict[str, Any]:
    """ListAttachedPolicies: of a target; `recursive` adds those of the groups above a group."""
    after = pages.start_after_name(call, "ListAttachedPolicies", marker)

    def find(tx: Tx) -> list[str]:
        require_target(tx, call.account, target)
        targets = [target]
        group = call.account.resource(target, "thinggroup")
        if recursive and group is not None:
            targets += [
                call.account.arn(f"thinggroup/{above.thing_group_name}")
                for above in groups.list_group_ancestors(tx, group)
            ]
        names = {
            name
            for each in targets
            for name in policies.list_attached_policies(tx, each, after, page_size + 1)
        }
        return sorted(names)[: page_size + 1]

    found = await call.read(find)
    names, following = pages.page(
        call, "ListAttachedPolicies", found, page_size, lambda name: (name,)
    )
    return {"policies": described(call.account, names), "nextMarker": following}


async def list_targets_for_policy(
    call: Call, policy_name: str, marker: str | None = None, page_size: int = pages.PAGE
) -> dict[str, Any]:
    """ListTargetsForPolicy: the ARNs a policy is attached to."""
    after = pages.start_after_name(call, "ListTargetsForPolicy", marker)

    def find(tx: Tx) -> list[str]:
        require_policy(tx, policy_name)
        return policies.list_policy_targets(tx, policy_name, after, page_size + 1)

    found = await call.read(find)
    targets, following = pages.page(
        call, "ListTargetsForPolicy", found, page_size, lambda arn: (arn,)
    )
    return {"targets": list(targets), "nextMarker": following}


def require_policy(tx: Tx, policy_name: str) -> policies.Policy:
    """The policy; raises ResourceNotFoundException when there is none of this name."""
    policy = policies.find_policy(tx, policy_name)
    if policy is None:
        raise ResourceNotFoundException(f"Policy not found (name={policy_name})")
    return policy


def attach(tx: Tx, policy_name: str, target: str, limit: int) -> None:
    """Attaches a policy to a target that has at most `limit` of them afterwards.

    Raises LimitExceededException.
    """
    attached = policies.list_attached_policies(tx, target, "", limit + 1)
    if policy_name not in attached and len(attached) >= limit:
        raise LimitExceededException(
            f"the target `{target}` has {len(attached)} policies attached, the limit is {limit}"
        )
    policies.add_policy_attachment(tx, policy_name, target)


def _require_version(
    tx: Tx, policy_name: str, policy_version_id: str
) -> tuple[policies.Policy, policies.PolicyVersion]:
    policy = require_policy(tx, policy_name)
    number = int(policy_version_id)
    version = None
    if number <= policy.last_version_id:  # no more digits reach the database than it can hold
        version = policies.find_policy_version(tx, policy_name, number)
    if version is None:
        raise ResourceNotFoundException(
            f"Policy version not found (name={policy_name}, version={policy_version_id})"
        )
    return policy, version


def require_target(tx: Tx, account: Account, target: str) -> certificates.Certificate | None:
    """Returns when `target` is the ARN of a certificate, which is returned, or a thing group.

    Raises ResourceNotFoundException when there is none, and InvalidRequestException when it is
    the ARN of something else, or a Cognito identity, of which this server has none.
    """
    certificate_id = account.resource(target, "cert")
    if certificate_id:
        certificate = certificates.find_certificate(tx, certificate_id)
        if certificate is None:
            raise ResourceNotFoundException(f"Certificate not found (arn={target})")
        return certificate
    group_name = account.resource(target, "thinggroup")
    if group_name:
        if groups.find_thing_group(tx, group_name) is None:
            raise ResourceNotFoundException(f"Thing group not found (arn={target})")
        return None
    if _COGNITO_IDENTITY.fullmatch(target):
        raise InvalidRequestException(
            f"Invalid Target: `{target}` is a Cognito identity; this server has certificates and "
            "thing groups only"
        )
    raise InvalidRequestException(
        f"Invalid Target: `{target}` is not the ARN of a certificate or thing group of account "
        f"{account.id} in {account.region}"
    )


def require_attachable(tx: Tx, account: Account, target: str) -> None:
    """The same; refuses a certificate that is being transferred, which is to have no policies."""
    certificate = require_target(tx, account, target)
    if certificate is not None and certificate.status == PENDING_TRANSFER:
        raise InvalidRequestException(
            f"Invalid Target: the certificate is being transferred ({target})"
        )


def described(account: Account, names: Sequence[str]) -> list[dict[str, str]]:
    """Policies as listings have them."""
    return [{"policyName": name, "policyArn": policy_arn(account, name)} for name in names]


def _check_document(call: Call, document: str) -> None:
    """Raises MalformedPolicyException."""
    limit = call.services.limits.policy_document_characters
    iot_policy.parse(document, max_characters=limit)
