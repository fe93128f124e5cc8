"""Policies and principals in the operations that AWS has deprecated.

They do what AttachPolicy, DetachPolicy, ListAttachedPolicies and ListTargetsForPolicy do, for
certificates alone: thing groups are no principals, and have the newer operations only.
"""

from __future__ import annotations

from typing import Any

from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.operations.policies import (
    attach,
    described,
    require_attachable,
    require_policy,
    require_target,
)
from fleetgate.store import policies
from fleetgate.store.engine import Tx


async def attach_principal_policy(call: Call, policy_name: str, principal: str) -> dict[str, Any]:
    """AttachPrincipalPolicy (deprecated): to a certificate, by ARN; twice is once."""

    def change(tx: Tx) -> None:
        require_policy(tx, policy_name)
        _refuse_group(call.account, principal)
        require_attachable(tx, call.account, principal)
        attach(tx, policy_name, principal, call.services.limits.policies_per_principal)

    await call.write(change)
    call.policies_changed()
    return {}


async def detach_principal_policy(call: Call, policy_name: str, principal: str) -> dict[str, Any]:
    """DetachPrincipalPolicy (deprecated): from a certificate that has it."""

    def change(tx: Tx) -> None:
        require_policy(tx, policy_name)
        _refuse_group(call.account, principal)
        require_target(tx, call.account, principal)
        if not policies.remove_policy_attachment(tx, policy_name, principal):
            raise ResourceNotFoundException(
                f"The policy is not attached to the principal (name={policy_name}, "
                f"principal={principal})"
            )

    await call.write(change)
    call.policies_changed()
    return {}


async def list_principal_policies(
    call: Call,
    principal: str,
    marker: str | None = None,
    page_size: int = pages.PAGE,
    ascending_order: bool = False,
) -> dict[str, Any]:
    """ListPrincipalPolicies (deprecated): by age, newest first unless `ascending_order`."""
    after = pages.start(call, "ListPrincipalPolicies", marker)

    def find(tx: Tx) -> list[tuple[float, str]]:
        require_target(tx, call.account, principal)
        return policies.list_attached_policies_by_age(
            tx,
            principal,
            None if after is None else (float(after[0]), str(after[1])),
            page_size + 1,
            ascending=ascending_order,
        )

    found = await call.read(find)
    items, following = pages.page(
        call, "ListPrincipalPolicies", found, page_size, lambda item: item
    )
    names = [name for _, name in items]
    return {"policies": described(call.account, names), "nextMarker": following}


async def list_policy_principals(
    call: Call,
    policy_name: str,
    marker: str | None = None,
    page_size: int = pages.PAGE,
    ascending_order: bool = False,
) -> dict[str, Any]:
    """ListPolicyPrincipals (deprecated): by ARN, last first unless `ascending_order`."""
    after = pages.start(call, "ListPolicyPrincipals", marker)

    def find(tx: Tx) -> list[str]:
        require_policy(tx, policy_name)
        return policies.list_policy_principals(
            tx,
            policy_name,
            call.account.arn("cert/"),
            None if after is None else str(after[0]),
            page_size + 1,
            ascending=ascending_order,
        )

    found = await call.read(find)
    arns, following = pages.page(call, "ListPolicyPrincipals", found, page_size, lambda arn: (arn,))
    return {"principals": list(arns), "nextMarker": following}


def _refuse_group(account: Account, principal: str) -> None:
    if account.resource(principal, "thinggroup"):
        raise InvalidRequestException(
            f"`{principal}` is a thing group, not a principal; AttachPolicy and DetachPolicy "
            "take thing groups"
        )
