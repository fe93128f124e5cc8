"""Role aliases: what a device names instead of an IAM role."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.authorization import require_role
from fleetgate.operations.call import Call
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.store import iam_roles, role_aliases
from fleetgate.store import tags as stored_tags
from fleetgate.store.engine import Tx
from fleetgate.store.role_aliases import RoleAlias

CREDENTIALS = "credentials.iot.amazonaws.com"
"""The service that assumes the role of an alias for a device (AWS IoT Developer Guide,
"Authorizing direct calls to AWS services")."""

CREDENTIAL_SECONDS = 3600
"""How long credentials are valid when the alias does not say."""


def role_alias_arn(account: Account, role_alias: str) -> str:
    """The ARN of a role alias."""
    return account.arn(f"rolealias/{role_alias}")


async def create_role_alias(
    call: Call,
    role_alias: str,
    role_arn: str,
    credential_duration_seconds: int = CREDENTIAL_SECONDS,
    tags: Tags | None = None,
) -> dict[str, Any]:
    """CreateRoleAlias: a name for a role that the credential provider may assume."""
    checked = checked_tags(call, tags)
    arn = role_alias_arn(call.account, role_alias)
    await require_role(call, role_arn, CREDENTIALS, source_arn=arn)

    def change(tx: Tx) -> None:
        if role_aliases.find_role_alias(tx, role_alias) is not None:
            raise ResourceAlreadyExistsException(
                f"RoleAlias cannot be created - already exists (name={role_alias})",
                resourceId=role_alias,
                resourceArn=arn,
            )
        limit = call.services.limits.role_aliases
        if role_aliases.count_role_aliases(tx) >= limit:
            raise LimitExceededException(
                f"the account has {limit} role aliases, the limit `role_aliases`"
            )
        alias = RoleAlias(role_alias, role_arn, credential_duration_seconds, call.now, call.now)
        _check_duration(tx, alias)
        role_aliases.add_role_alias(tx, alias)
        add_tags(tx, call, arn, checked)

    await call.write(change)
    return {"roleAlias": role_alias, "roleAliasArn": arn}


async def describe_role_alias(call: Call, role_alias: str) -> dict[str, Any]:
    """DescribeRoleAlias: the role behind it and how long its credentials are valid."""
    found = await call.read(require_role_alias, role_alias)
    return {
        "roleAliasDescription": {
            "roleAlias": role_alias,
            "roleAliasArn": role_alias_arn(call.account, role_alias),
            "roleArn": found.role_arn,
            "owner": call.account.id,
            "credentialDurationSeconds": found.credential_seconds,
            "creationDate": found.created_at,
            "lastModifiedDate": found.modified_at,
        }
    }


async def update_role_alias(
    call: Call,
    role_alias: str,
    role_arn: str | None = None,
    credential_duration_seconds: int | None = None,
) -> dict[str, Any]:
    """UpdateRoleAlias: what is left out stays as it is."""
    arn = role_alias_arn(call.account, role_alias)
    if role_arn is not None:
        await require_role(call, role_arn, CREDENTIALS, source_arn=arn)

    def change(tx: Tx) -> None:
        before = require_role_alias(tx, role_alias)
        after = replace(
            before,
            role_arn=role_arn or before.role_arn,
            credential_seconds=credential_duration_seconds or before.credential_seconds,
            modified_at=call.now,
        )
        _check_duration(tx, after)
        role_aliases.update_role_alias(tx, after)

    await call.write(change)
    return {"roleAlias": role_alias, "roleAliasArn": arn}


async def delete_role_alias(call: Call, role_alias: str) -> dict[str, Any]:
    """DeleteRoleAlias: with its tags."""

    def change(tx: Tx) -> None:
        require_role_alias(tx, role_alias)
        role_aliases.remove_role_alias(tx, role_alias)
        stored_tags.remove_tags(tx, role_alias_arn(call.account, role_alias))

    await call.write(change)
    return {}


async def list_role_aliases(
    call: Call,
    page_size: int = pages.PAGE,
    marker: str | None = None,
    ascending_order: bool = False,
) -> dict[str, Any]:
    """ListRoleAliases: names, in descending alphabetical order unless `ascending_order`."""
    operation = f"ListRoleAliases {'ascending' if ascending_order else 'descending'}"
    position = pages.start(call, operation, marker)
    found = await call.read(
        role_aliases.list_role_aliases,
        None if position is None else str(position[0]),
        page_size + 1,
        ascending=ascending_order,
    )
    items, following = pages.page(call, operation, found, page_size, lambda name: (name,))
    return {"roleAliases": items, "nextMarker": following}


def require_role_alias(tx: Tx, role_alias: str) -> RoleAlias:
    """The role alias; raises ResourceNotFoundException when there is none of this name."""
    found = role_aliases.find_role_alias(tx, role_alias)
    if found is None:
        raise ResourceNotFoundException(f"RoleAlias not found (name= {role_alias})")
    return found


def _check_duration(tx: Tx, alias: RoleAlias) -> None:
    """Credentials are not valid for longer than the role allows (AWS IoT API reference)."""
    role = iam_roles.find_role(tx, alias.role_arn.rpartition("/")[2])
    if role is not None and alias.credential_seconds > role.max_session_seconds:
        raise InvalidRequestException(
            f"credentialDurationSeconds {alias.credential_seconds} is more than the maximum "
            f"session duration of the role {alias.role_arn}, {role.max_session_seconds}"
        )
