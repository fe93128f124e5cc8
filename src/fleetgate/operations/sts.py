"""STS: who a caller is, and temporary credentials of roles, users and the root user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetgate.errors import (
    AccessDeniedException,
    InvalidParameterValue,
    MalformedPolicyDocument,
    PackedPolicyTooLarge,
    ValidationError,
)
from fleetgate.operations import (
    authorization,
    condition_keys,
    credentials,
    iam_names,
    iam_policies,
    role_trust,
)
from fleetgate.operations.call import Call
from fleetgate.operations.credentials import Session
from fleetgate.operations.session_tokens import MAX_CHARACTERS
from fleetgate.store import iam_policies as store
from fleetgate.store import iam_roles, iam_users
from fleetgate.store.engine import Tx
from fleetgate.store.managed_policies import ManagedPolicy

HOUR = 3600
USER_SESSION = 12 * HOUR
"""Seconds a session of GetSessionToken lasts when the caller says nothing; of the root user, and
of a role that was assumed by a role, it is an hour and no more."""

SESSION_POLICIES = 10

Tags = Sequence[Mapping[str, str]]


async def get_caller_identity(call: Call) -> dict[str, Any]:
    """GetCallerIdentity: needs no permission."""
    if call.caller is None:
        root = call.account.iam_arn("root")
        return {"UserId": call.account.id, "Account": call.account.id, "Arn": root}
    return {
        "UserId": call.caller.user_id,
        "Account": call.caller.account_id,
        "Arn": call.caller.arn,
    }


async def get_access_key_info(call: Call, access_key_id: str) -> dict[str, Any]:
    """GetAccessKeyInfo: the account of an access key; those of other accounts are not known."""
    own = call.caller is not None and call.caller.access_key_id == access_key_id
    if not own and await call.read(iam_users.find_access_key, access_key_id) is None:
        raise ValidationError(
            f"the access key `{access_key_id}` is not one of account {call.account.id}"
        )
    return {"Account": call.account.id}


async def get_session_token(call: Call, duration_seconds: int | None = None) -> dict[str, Any]:
    """GetSessionToken: the caller's own rights, for a while."""
    caller = call.caller
    if caller is not None and caller.session_kind:
        raise AccessDeniedException("Cannot call GetSessionToken with session credentials")
    if caller is None or caller.is_root:
        duration = min(duration_seconds or HOUR, HOUR)
        principal_arn, principal_id = call.account.iam_arn("root"), call.account.id
    else:
        duration = duration_seconds or USER_SESSION
        principal_arn, principal_id = caller.principal_arn, caller.user_id
    session = credentials.issue_session(
        call, principal_arn=principal_arn, principal_id=principal_id, duration=duration
    )
    return {"Credentials": _described(session)}


def check_assume_role(
    *, role_arn: str, tags: Tags = (), transitive_tag_keys: Sequence[str] = (), **_: Any
) -> None:
    """What AssumeRole tells of its members before anybody is asked whether they may.

    Raises ValidationError for what is no ARN and InvalidParameterValue for tags that are at odds
    (both recorded from AWS).
    """
    parts = role_arn.split(":", 5)
    if len(parts) < 6 or parts[0] != "arn" or not (parts[1] and parts[2] and parts[5]):
        raise ValidationError(f"{role_arn} is invalid")
    given = {key.lower() for key in iam_names.read_tags(tags, InvalidParameterValue)}
    if not given.issuperset(key.lower() for key in transitive_tag_keys):
        raise InvalidParameterValue(
            "The specified transitive tag key must be included in the requested tags."
        )


async def assume_role(
    call: Call,
    role_arn: str,
    role_session_name: str,
    policy_arns: Sequence[Mapping[str, str]] = (),
    policy: str | None = None,
    duration_seconds: int | None = None,
    tags: Tags = (),
    external_id: str | None = None,
) -> dict[str, Any]:
    """AssumeRole: the role's rights, for those its trust policy names.

    Whether the caller's own policies allow it has been asked before (operations/authorization.py).
    """
    role, policies = await call.read(_assumed, call, role_arn, policy_arns)
    session_tags = iam_names.read_tags(tags, InvalidParameterValue)
    asked = {
        "role_session_name": role_session_name,
        "external_id": external_id,
        "tags": tags,
    }
    of_role = await call.read(condition_keys.of_resource, role_arn)
    _require_trust(call, role_arn, role, asked, of_role)
    duration = duration_seconds or HOUR
    if duration > role.max_session_seconds:
        raise ValidationError(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    if duration > HOUR and call.caller is not None and call.caller.session_kind == "role":
        raise ValidationError(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by "
            "role chaining"
        )
    if policy is not None:
        authorization.identity_document(policy)
        policies = [policy, *policies]
    session = credentials.issue_session(
        call,
        principal_arn=role_arn,
        principal_id=role.role_id,
        session_name=role_session_name,
        session_policies=policies,
        tags=session_tags,
        duration=duration,
    )
    session_name = f"assumed-role/{role.role_name}/{role_session_name}"
    packed = -(-100 * len(session.session_token) // MAX_CHARACTERS)
    return {
        "Credentials": _described(session),
        "AssumedRoleUser": {
            "AssumedRoleId": f"{role.role_id}:{role_session_name}",
            "Arn": iam_names.session_arn(call.account, session_name),
        },
        "PackedPolicySize": packed if policies or session_tags else None,
    }


def _assumed(
    tx: Tx, call: Call, role_arn: str, policy_arns: Sequence[Mapping[str, str]]
) -> tuple[iam_roles.Role, list[str]]:
    """The role of an ARN, and the documents of the managed policies that bound its session."""
    role = iam_roles.find_role(tx, role_arn.rpartition("/")[2])
    if role is None or iam_names.role_arn(call.account, role) != role_arn:
        raise _refused(call, role_arn)
    if len(policy_arns) > SESSION_POLICIES:
        raise PackedPolicyTooLarge(
            f"a session has at most {SESSION_POLICIES} managed policies, not {len(policy_arns)}"
        )
    documents = []
    for each in policy_arns:
        arn = each.get("arn") or ""
        found = iam_policies.find_policy(tx, call.account, arn)
        if found is None:
            raise MalformedPolicyDocument(f"the session policy {arn} does not exist")
        if isinstance(found, ManagedPolicy):
            documents.append(found.document)
            continue
        version = store.find_policy_version(tx, found.policy_id, found.default_version_id)
        documents.append("" if version is None else version.document)
    return role, documents


def _require_trust(
    call: Call,
    role_arn: str,
    role: iam_roles.Role,
    asked: Mapping[str, Any],
    of_role: condition_keys.Values,
) -> None:
    """Raises AccessDeniedException when the role's trust policy does not let the caller in.

    `asked` are the members of the request that its conditions may look at, `of_role` the
    condition keys that the role fills.
    """
    caller = call.caller
    if caller is None or caller.is_root:
        raise AccessDeniedException("Roles may not be assumed by root accounts.")
    values = {**authorization.request_values(call, "sts", "AssumeRole", asked), **of_role}
    for action in ("sts:AssumeRole", *(("sts:TagSession",) if asked["tags"] else ())):
        if not role_trust.lets_in(role.trust_policy, caller, call.account, action, values):
            raise _refused(call, role_arn, action)


def _refused(call: Call, role_arn: str, action: str = "sts:AssumeRole") -> AccessDeniedException:
    """As with AWS, a role that is not there is refused like one that does not trust the caller."""
    who = call.account.iam_arn("root") if call.caller is None else call.caller.arn
    return AccessDeniedException(
        f"User: {who} is not authorized to perform: {action} on resource: {role_arn}"
    )


def _described(session: Session) -> dict[str, Any]:
    return {
        "AccessKeyId": session.access_key_id,
        "SecretAccessKey": session.secret_access_key,
        "SessionToken": session.session_token,
        "Expiration": iam_names.seconds(session.expiration),
    }
