"""Who may call what: callers by their IAM policies, and the server itself by those of a role.

A call is allowed when the caller's identity-based policies allow each action on each resource it
needs (operations/required_rights.py), when the policies of the session do so too if there are
any, and when no statement of either denies it. What does not exist is refused like what may not
be touched: nothing is looked up in the registry before, but for the paths of IAM names and tags.

Sources: IAM User Guide, "Policy evaluation logic", "Session policies", "AWS global condition
context keys", "Grant a user permissions to pass a role to an AWS service", "Troubleshoot access
denied error messages".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fleetgate.domain.policy import (
    NO_VALUES,
    Dialect,
    Policies,
    Principal,
    compile_policies,
    evaluate_trust,
    parse,
)
from fleetgate.errors import (
    AccessDeniedException,
    InvalidRequestException,
    UnrecognizedClientException,
)
from fleetgate.names import Account
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.required_rights import RIGHTS, Params, Resource, Rights
from fleetgate.store import domain_configurations, iam_roles, iam_users, tags
from fleetgate.store.engine import Tx

IOT = "iot.amazonaws.com"

GLOBAL_REGION = "us-east-1"
"""Where IAM and STS are, which have no region of their own (``aws-global`` in SDKs)."""

RESOURCE_TAGS = ("aws:ResourceTag/", "iam:ResourceTag/")
"""What the condition keys for tags of resources begin with."""

MAX_ROLE_RIGHTS = 1024
"""Compiled policies of roles that are kept."""

Values = Mapping[str, tuple[str, ...]]

identity_document = lru_cache(maxsize=1024)(lambda text: parse(text, Dialect.IDENTITY))
"""The parsed form of an identity-based policy document, kept by its text."""

trust_document = lru_cache(maxsize=1024)(lambda text: parse(text, Dialect.TRUST))
"""The same for trust policies of roles."""

_LISTED = {"users": "user", "roles": "role", "policies": "policy path "}
_WITH_PATHS = frozenset({"user", "role", "key", "domainconfiguration"})


# --- callers -------------------------------------------------------------------------------


async def authorize(call: Call, service: str, operation: str, params: Params) -> None:
    """Returns when the caller may call this operation with these members.

    Nothing is asked of the root user, nor of calls without a caller: those of devices, whose
    rights are IoT policies. Raises AccessDeniedException.
    """
    caller = call.caller
    if caller is None:
        return
    if caller.session_kind:
        _refuse_sessions(caller, service, operation)
    if caller.is_root:
        return
    rights = RIGHTS.get(service, {}).get(operation)
    if rights is None:
        raise AccessDeniedException(
            f"User: {caller.arn} is not authorized to perform: {service}:{operation}: this "
            "server does not know which permission it needs"
        )
    if rights.free:
        return
    values: dict[str, tuple[str, ...]] = {}
    if caller.asks_for_values or rights.trusts:
        values = _request_values(call, service, rights, params)
    if any(resource.kind in _WITH_PATHS for resource in rights.resources):
        wanted = await call.read(_resources_with_paths, call.account, caller, rights, params)
    else:
        wanted = list(_resources(call.account, rights, params)) or ["*"]
    for arn in wanted:
        known = values
        if caller.asks_for_tags:
            known = values | _tag_values(await call.read(tags.list_tags, arn))
        for action in (rights.action, *rights.also(params)):
            direct = rights.trusts and await call.read(_trusts_directly, call, arn, action, known)
            require(call, action, arn, known, granted=direct)
    for role_arn, to in _passed_roles(rights, params):
        require(call, "iam:PassRole", role_arn, values | {"iam:PassedToService": (to,)})


def require(
    call: Call,
    action: str,
    resource: str,
    values: Values | None = None,
    *,
    granted: bool = False,
) -> None:
    """Returns when the caller's policies allow `action` (``iot:CreateThing``) on an ARN.

    `values` are the condition keys of the request; without them, those every request has. What
    the policy of the resource has `granted` needs no permission, but must not be denied. Raises
    AccessDeniedException.
    """
    caller = call.caller
    if caller is None or caller.policies is None:
        return
    if values is None and caller.asks_for_values:
        values = _common_values(call, action.partition(":")[0])
    subject = f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource}"
    found = caller.policies.evaluate(action, resource, values or NO_VALUES)
    session = None
    if caller.session is not None:
        session = caller.session.evaluate(action, resource, values or NO_VALUES)
    for decision, kind in ((found, "an identity-based"), (session, "a session")):
        if decision is not None and decision.explicit_deny:
            raise AccessDeniedException(f"{subject} with an explicit deny in {kind} policy")
    for decision, kind in ((found, "identity-based"), (session, "session")):
        if decision is not None and not decision.allowed and not granted:
            raise AccessDeniedException(
                f"{subject} because no {kind} policy allows the {action} action"
            )


def _refuse_sessions(caller: Caller, service: str, operation: str) -> None:
    """What temporary credentials may not do, whatever the policies.

    Source: IAM User Guide, "Compare AWS STS credentials".
    """
    if (service, operation) == ("sts", "GetSessionToken"):
        raise AccessDeniedException("Cannot call GetSessionToken with session credentials")
    if caller.session_kind == "user" and service == "iam":
        # AWS's answer to credentials of GetSessionToken without a second factor
        raise UnrecognizedClientException("The security token included in the request is invalid")


# --- roles ---------------------------------------------------------------------------------


async def require_role(
    call: Call, role_arn: str, service: str = IOT, *, source_arn: str = ""
) -> None:
    """Returns when `service` may assume the role.

    `source_arn` is the ARN of the resource that will use the role (``aws:SourceArn``). Whether
    the caller may pass it (``iam:PassRole``) has been asked by `authorize`.

    Raises InvalidRequestException when there is no such role or it does not trust the service.
    """
    reason = await call.read(_mistrust, call, role_arn, service, source_arn)
    if reason is not None:
        # AWS's words: clients (Terraform) wait for a new role as long as they read them
        raise InvalidRequestException(
            f"The provisioning role cannot be assumed by AWS IoT: {reason}"
            if service == IOT
            else f"The role cannot be assumed by {service}: {reason}"
        )


def role_policies(tx: Tx, call: Call, role_arn: str, *, source_arn: str = "") -> Policies:
    """The compiled policies of a role, for work the server does in its name.

    To be asked with ``Policies.evaluate("iot:CreateThing", arn)``; values of the request may be
    given too.

    Raises AccessDeniedException when the role is gone or does not trust iot.amazonaws.com.
    """
    kept = call.services.role_rights
    found = kept.get((role_arn, source_arn))
    # an epoch read inside the transaction might be newer than what the transaction sees
    if found is not None and found[0] == call.services.iam_epoch:
        return found[1]
    reason = _mistrust(tx, call, role_arn, IOT, source_arn)
    if reason is not None:
        raise AccessDeniedException(f"the provisioning role cannot be assumed by AWS IoT: {reason}")
    name = role_arn.rpartition("/")[2]
    documents = [
        (label, identity_document(text)) for label, text in iam_roles.list_role_documents(tx, name)
    ]
    policies = compile_policies(
        documents,
        {
            "aws:PrincipalArn": (role_arn,),
            "aws:PrincipalAccount": (call.account.id,),
            "aws:PrincipalType": ("AssumedRole",),
            "aws:SourceAccount": (call.account.id,),
            "aws:RequestedRegion": (call.account.region,),
        },
    )
    if len(kept) >= MAX_ROLE_RIGHTS:
        kept.clear()
    kept[role_arn, source_arn] = call.iam_epoch, policies
    return policies


def _mistrust(tx: Tx, call: Call, role_arn: str, service: str, source_arn: str) -> str | None:
    """Why a service may not assume a role, None when it may."""
    account = call.account
    role = _role(tx, account, role_arn)
    if role is None:
        return f"there is no role `{role_arn[:200]}` in account {account.id}"
    decision = evaluate_trust(
        trust_document(role.trust_policy),
        Principal("Service", service),
        "sts:AssumeRole",
        {
            "aws:SourceAccount": (account.id,),
            "aws:SourceArn": (source_arn or account.arn("*"),),
            "aws:PrincipalIsAWSService": ("true",),
            "aws:PrincipalServiceName": (service,),
            **_time_values(call),
        },
    )
    if decision.allowed:
        return None
    return f"the trust policy of `{role_arn}` does not let `{service}` assume it"


def _trusts_directly(tx: Tx, call: Call, role_arn: str, action: str, values: Values) -> bool:
    """Whether a role's trust policy names the caller, and not only the account.

    Then the caller needs no policy of its own (IAM User Guide, "Policy evaluation logic",
    resource-based policies).
    """
    caller, role = call.caller, _role(tx, call.account, role_arn)
    if caller is None or role is None:
        return False
    named = _Named("AWS", caller.arn, (caller.principal_arn,))
    document = trust_document(role.trust_policy)
    return evaluate_trust(document, named, action, {**caller.values, **values}).allowed


class _Named(Principal):
    """A principal by its own names alone."""

    __slots__ = ()

    @property
    def names(self) -> set[str]:
        """Not the account: it stands for what the account's policies allow."""
        return {self.name, *self.also, "*"}


def _role(tx: Tx, account: Account, role_arn: str) -> iam_roles.Role | None:
    name = role_arn.rpartition("/")[2]
    role = iam_roles.find_role(tx, name) if name else None
    if role is None or role_arn != account.iam_arn(f"role{role.path}{role.role_name}"):
        return None
    return role


# --- what a call is about ------------------------------------------------------------------


def _resources(account: Account, rights: Rights, params: Params) -> Iterator[str]:
    for resource in rights.resources:
        value = params.get(resource.member)
        if resource.kind in _LISTED:
            # what AWS names when it refuses, though the reference knows no resource type
            path = value or "/"
            listed = _LISTED[resource.kind] + path
            yield listed if " " in listed else account.iam_arn(listed)
            continue
        by_arn = params.get(resource.arn_member) if resource.arn_member else None
        if by_arn is not None:
            yield by_arn
            if value is None:
                continue
        if value is None:
            if resource.required:
                yield "*"
        elif resource.each:
            yield from (_arn(account, rights, resource, params, name) for name in value)
        else:
            yield _arn(account, rights, resource, params, value)


def _arn(account: Account, rights: Rights, resource: Resource, params: Params, name: str) -> str:
    if not resource.kind:
        return name
    if rights.action.startswith("iam:"):
        return account.iam_arn(f"{resource.kind}{params.get('path') or '/'}{name}")
    return account.arn(f"{resource.kind}/{name}")


def _resources_with_paths(
    tx: Tx, account: Account, caller: Caller, rights: Rights, params: Params
) -> list[str]:
    """The same where an ARN has a part that only the store knows."""
    creates = "path" in params or rights.action in ("iam:CreateUser", "iam:CreateRole")
    wanted = []
    for resource in rights.resources:
        name = params.get(resource.member)
        match resource.kind:
            case "user" if name is None:
                wanted.append(caller.principal_arn)
            case "key":
                key = iam_users.find_access_key(tx, str(name))
                wanted.append(
                    "*" if key is None else account.iam_arn(f"user{key.user_path}{key.user_name}")
                )
            case "user" | "role" if name is not None:
                path = params.get("path") if creates else _path(tx, resource.kind, name)
                wanted.append(account.iam_arn(f"{resource.kind}{path or '/'}{name}"))
            case "domainconfiguration":
                found = domain_configurations.find_domain_configuration(tx, str(name))
                suffix = "*" if found is None else found.suffix
                wanted.append(account.arn(f"domainconfiguration/{name}/{suffix}"))
    return wanted


def _path(tx: Tx, kind: str, name: str) -> str:
    found: iam_users.User | iam_roles.Role | None
    if kind == "user":
        found = iam_users.find_user_of_any_case(tx, name)
    else:
        found = iam_roles.find_role_of_any_case(tx, name)
    return "/" if found is None else found.path


def _passed_roles(rights: Rights, params: Params) -> Iterator[tuple[str, str]]:
    for passed in rights.passes:
        value: Any = params
        for part in passed.member.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:
            yield value, passed.service


# --- condition keys ------------------------------------------------------------------------


def _request_values(
    call: Call, service: str, rights: Rights, params: Params
) -> dict[str, tuple[str, ...]]:
    values = _common_values(call, service)
    for key, member in rights.keys:
        if "{" in member:
            values[key] = (call.account.arn(member.format_map(params)),)
        elif (value := params.get(member)) is not None:
            values[key] = (str(value),)
    keys: list[str] = list(params.get("tag_keys") or ())
    given: Sequence[Mapping[str, str]] = params.get("tags") or ()
    for tag in given:
        values[f"aws:RequestTag/{tag.get('Key', '')}"] = (tag.get("Value") or "",)
        keys.append(tag.get("Key", ""))
    if keys:
        values["aws:TagKeys"] = tuple(keys)
    return values


def _common_values(call: Call, service: str) -> dict[str, tuple[str, ...]]:
    region = call.account.region if service == "iot" else GLOBAL_REGION
    return {**call.conditions, **_time_values(call), "aws:RequestedRegion": (region,)}


def _time_values(call: Call) -> dict[str, tuple[str, ...]]:
    return {
        "aws:CurrentTime": (datetime.fromtimestamp(call.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),),
        "aws:EpochTime": (str(int(call.now)),),
    }


def _tag_values(found: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {f"{tag}{key}": (value,) for tag in RESOURCE_TAGS for key, value in found.items()}
