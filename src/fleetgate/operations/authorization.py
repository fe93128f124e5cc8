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

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from fleetgate.domain.policy import (
    NO_VALUES,
    Decision,
    Dialect,
    Document,
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
from fleetgate.names import Account, other_name
from fleetgate.operations import condition_keys, role_trust
from fleetgate.operations.asked import (
    WITH_PATHS,
    Asked,
    named,
    passed_roles,
    refuse_many,
    with_paths,
)
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.condition_keys import Values
from fleetgate.operations.function_permissions import INVOKE, open_to_everybody
from fleetgate.operations.kept import Kept
from fleetgate.operations.required_rights import RIGHTS, Params, Rights
from fleetgate.store import iam_roles, tags
from fleetgate.store.engine import Tx

IOT = "iot.amazonaws.com"

MAX_ROLE_RIGHTS = 1024
"""Compiled policies of roles that are kept."""

MAX_DOCUMENTS = 1_000_000
"""Characters of the policy documents that are kept parsed, at up to 60 bytes for each."""

_documents: Kept[str, Document] = Kept(MAX_DOCUMENTS)


def identity_document(text: str) -> Document:
    """The parsed form of an identity-based policy document, kept by its text.

    Raises MalformedPolicyDocument.
    """
    found = _documents.get(text)
    if found is None:
        found = parse(text, Dialect.IDENTITY)
        _documents.put(text, found, len(text))
    return found


class _Grant(IntEnum):
    """What a role's trust policy grants the caller, who then needs less of others.

    Source: IAM User Guide, "Policy evaluation for requests within a single account": what is
    granted to a user or a role needs no identity-based policy, but a session policy bounds the
    role; what is granted to a session by its own ARN is not bounded by that either.
    """

    NOTHING = 0
    PRINCIPAL = 1
    SESSION = 2


# --- callers -------------------------------------------------------------------------------


async def authorize(call: Call, service: str, operation: str, params: Params) -> None:
    """Returns when the caller may call this operation with these members.

    Nothing is asked of the root user, nor of calls without a caller: those of devices, whose
    rights are IoT policies. Raises AccessDeniedException, and InvalidRequestException for a call
    that names more than any may.
    """
    caller = call.caller
    if caller is None:
        return
    if caller.session_kind:
        _refuse_sessions(caller, service, operation)
    rights = RIGHTS.get(service, {}).get(operation)
    if rights is not None:
        refuse_many(call, rights, params)
    if caller.is_root:
        return
    if rights is None:
        raise AccessDeniedException(
            f"User: {caller.arn} is not authorized to perform: {service}:{operation}: this "
            "server does not know which permission it needs"
        )
    if rights.free:
        return
    values: Values = {}
    if caller.asks_for_values or rights.trusts:
        values = request_values(call, service, operation, params)
    grants: Mapping[tuple[str, str], _Grant] = {}
    if condition_keys.looks_at_tags(caller.held) or rights.trusts or rights.kinds & WITH_PATHS:
        asked, grants = await call.read(_looked_up, call, caller, rights, params, values)
    else:
        asked = named(call.account, rights, params)
    bound = _Bound.to(caller, values)
    for action, each in _actions(call.account, rights, params, asked):
        granted = grants.get((each.arn, action), _Grant.NOTHING)
        if action == INVOKE and not bound.own.evaluate(action, each.arn, each.keys).allowed:
            granted = await _function_grant(call, each.arn)
        bound.require(action, each.arn, each.keys, granted, each.shown)
    for role_arn, to in passed_roles(rights, params):
        bound.require("iam:PassRole", role_arn, {"iam:PassedToService": (to,)})


def request_values(call: Call, service: str, operation: str, params: Params) -> Values:
    """The condition keys a call fills by itself and by its members."""
    members = condition_keys.of_members(call.account, RIGHTS[service][operation], params)
    return condition_keys.of_call(call, service) | members


def require(tx: Tx, call: Call) -> Callable[[str, str, Values], None]:
    """Who makes a call, asked for further actions in the course of it.

    What is returned takes an action (``iot:CreateThing``), an ARN, and the condition keys of this
    action alone, and raises AccessDeniedException when the caller may not.
    """
    caller = call.caller
    if caller is None or caller.policies is None:
        return lambda *_: None
    values = condition_keys.of_call(call, "iot") if caller.asks_for_values else NO_VALUES
    bound = _Bound.to(caller, values)

    def ask(action: str, arn: str, keys: Values) -> None:
        bound.require(action, arn, condition_keys.of_step(tx, caller.held, arn, keys))

    return ask


@dataclass(frozen=True, slots=True)
class _Bound:
    """A caller whose policies are bound to the values of the call, once for all it asks for."""

    caller: Caller
    own: Policies
    session: Policies | None

    @classmethod
    def to(cls, caller: Caller, values: Values) -> _Bound:
        own, session = caller.policies, caller.session
        assert own is not None  # noqa: S101 - the root user is not asked
        return cls(caller, own.under(values), None if session is None else session.under(values))

    def require(
        self,
        action: str,
        arn: str,
        keys: Values = NO_VALUES,
        granted: _Grant = _Grant.NOTHING,
        shown: str = "",
    ) -> None:
        """Raises AccessDeniedException, which names the resource as `shown`."""
        found = [("identity-based", _Grant.PRINCIPAL, _decision(self.own, action, arn, keys))]
        if self.session is not None:
            decision = _decision(self.session, action, arn, keys)
            found.append(("session", _Grant.SESSION, decision))
        subject = (
            f"User: {self.caller.arn} is not authorized to perform: {action} "
            f"on resource: {shown or arn}"
        )
        for kind, _, decision in found:
            if decision.explicit_deny:
                a = "an" if kind == "identity-based" else "a"
                raise AccessDeniedException(f"{subject} with an explicit deny in {a} {kind} policy")
        for kind, waived_by, decision in found:
            if not decision.allowed and granted < waived_by:
                raise AccessDeniedException(
                    f"{subject} because no {kind} policy allows the {action} action"
                )


def _decision(policies: Policies, action: str, arn: str, keys: Values) -> Decision:
    """What policies say of a resource: one that has two names must not be denied by either.

    What allows it has to name it as it was asked for, as with AWS.
    """
    decision = policies.evaluate(action, arn, keys)
    if not decision.explicit_deny and (other := other_name(arn)) is not None:
        return policies.denial(action, other, keys) or decision
    return decision


def _looked_up(
    tx: Tx, call: Call, caller: Caller, rights: Rights, params: Params, values: Values
) -> tuple[list[Asked], Mapping[tuple[str, str], _Grant]]:
    """The resources with what only the store knows: paths, tags, and whom a role trusts."""
    if rights.kinds & WITH_PATHS:
        asked = list(with_paths(tx, call.account, caller, rights, params))
    else:
        asked = named(call.account, rights, params)
    if condition_keys.looks_at_tags(caller.held) or rights.trusts:
        asked = [
            replace(each, keys={**condition_keys.of_resource(tx, each.arn), **each.keys})
            for each in asked
        ]
    if not rights.trusts:
        return asked, {}
    return asked, {
        (each.arn, action): _grant(tx, call, each.arn, action, {**values, **each.keys})
        for action, each in _actions(call.account, rights, params, asked)
    }


def _actions(
    account: Account, rights: Rights, params: Params, asked: Iterable[Asked]
) -> Iterator[tuple[str, Asked]]:
    """Each action with each resource it is asked on."""
    for each in asked:
        yield rights.action, each
        for tagging in rights.also(params):
            yield tagging.action, Asked(account.arn(tagging.on)) if tagging.on else each


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

    To be asked by way of `allow_by`, which knows the values of each request.

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
            **condition_keys.of_principal(
                call.account, role_arn, "AssumedRole", tags.list_tags(tx, role_arn)
            ),
            "aws:SourceAccount": (call.account.id,),
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
        role_trust.trust_document(role.trust_policy),
        Principal("Service", service),
        "sts:AssumeRole",
        {
            "aws:SourceAccount": (account.id,),
            "aws:SourceArn": (source_arn or account.arn("*"),),
            "aws:PrincipalIsAWSService": ("true",),
            "aws:PrincipalServiceName": (service,),
            **condition_keys.of_call(call, "sts"),
            **condition_keys.of_resource(tx, role_arn),
        },
    )
    if decision.allowed:
        return None
    return f"the trust policy of `{role_arn}` does not let `{service}` assume it"


def allow_by(tx: Tx, call: Call, policies: Policies) -> Callable[[str, str, Values], Decision]:
    """What the policies of a role say to actions, resources and their own condition keys."""
    if not policies.mentions(""):
        return lambda action, arn, _: policies.evaluate(action, arn)
    bound = policies.under(condition_keys.of_call(call, "iot"))

    def ask(action: str, arn: str, keys: Values) -> Decision:
        return bound.evaluate(action, arn, condition_keys.of_step(tx, [policies], arn, keys))

    return ask


def _grant(tx: Tx, call: Call, role_arn: str, action: str, values: Values) -> _Grant:
    """What a role's trust policy grants the caller by name, and not only to the account.

    What it grants to the account is for the account's policies to hand on.
    """
    caller, role = call.caller, _role(tx, call.account, role_arn)
    if caller is None or role is None:
        return _Grant.NOTHING
    text, account = role.trust_policy, call.account
    if not role_trust.lets_in(text, caller, account, action, values, in_person=True):
        return _Grant.NOTHING
    if caller.session is None:
        return _Grant.PRINCIPAL
    session = _Session("AWS", caller.user_id)
    document, known = role_trust.trust_document(text), {**caller.values, **values}
    if evaluate_trust(document, session, action, known).allowed:
        return _Grant.SESSION
    return _Grant.PRINCIPAL


async def _function_grant(call: Call, function_arn: str) -> _Grant:
    """What a function's resource policy grants the caller."""
    if await call.read(open_to_everybody, call, function_arn):
        return _Grant.PRINCIPAL
    return _Grant.NOTHING


class _Session(Principal):
    """A session of a role by its own name alone."""

    __slots__ = ()

    @property
    def names(self) -> set[str]:
        """Neither the role nor everybody: what they are granted a session policy bounds."""
        return {self.name}


def _role(tx: Tx, account: Account, role_arn: str) -> iam_roles.Role | None:
    name = role_arn.rpartition("/")[2]
    role = iam_roles.find_role(tx, name) if name else None
    if role is None or role_arn != account.iam_arn(f"role{role.path}{role.role_name}"):
        return None
    return role
