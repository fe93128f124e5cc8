"""Resource policies of functions: who may invoke one beside those whose own policies say so.

AWS IoT asks a hook or a certificate provider only when a statement here lets it. Statements belong
to a function, not to its name: those of a function that is deleted go with it, and the functions
of the configuration have their own.

Sources: Lambda API reference, AddPermission, RemovePermission, GetPolicy; Lambda developer guide,
"Working with resource-based IAM policies in Lambda"; AWS's words in refusals.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from fleetgate.domain.policy import RESOURCE, Decision, Document, Principal, evaluate_trust
from fleetgate.domain.policy import parse as parse_policy
from fleetgate.errors import (
    InvalidParameterValueException,
    MalformedPolicyDocument,
    PolicyLengthExceededException,
    PreconditionFailedException,
    ResourceConflictException,
    ResourceNotFoundException,
)
from fleetgate.operations import function_names
from fleetgate.operations.call import Call
from fleetgate.operations.kept import Kept
from fleetgate.store import functions
from fleetgate.store.engine import Tx
from fleetgate.store.functions import Permission

CONFIGURED, UPLOADED = "configured", "uploaded"
"""Where a function comes from: the configuration, or the Lambda API."""

INVOKE = "lambda:InvokeFunction"

_ACCOUNT = re.compile(r"[0-9]{12}")
_ACCOUNT_ARN = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:root")
_IAM_ARN = re.compile(r"arn:[a-z-]+:(iam|sts)::[0-9]{12}:.+")

_documents: Kept[str, Document] = Kept(1_000_000)


# --- deciding ------------------------------------------------------------------------------


def invocable(
    tx: Tx,
    call: Call,
    function_name: str,
    origin: str,
    service: str,
    source_arn: str,
    *,
    source_account: str = "",
) -> Decision:
    """Whether a service (``iot.amazonaws.com``) may invoke a function for one of its resources.

    `origin` is CONFIGURED or UPLOADED. `source_arn` is the resource the function is invoked for,
    a template or a certificate provider, and `source_account` its account: the server's own when
    nothing is said. What no statement allows is refused; the reason is one for the log.
    """
    values = {
        "aws:SourceArn": (source_arn,),
        "aws:SourceAccount": (source_account or call.account.id,),
    }
    decision = _decide(tx, call, function_name, origin, Principal("Service", service), values)
    if decision is not None and decision.allowed:
        return decision
    # a statement for everybody is one for services, too
    everybody = _decide(tx, call, function_name, origin, Principal("AWS", "*"), values)
    if everybody is not None and everybody.allowed:
        return everybody
    arn = call.account.lambda_arn(function_name)
    if decision is None:
        reason = f"the function {arn} has no resource policy"
    else:
        reason = f"no statement of the resource policy of {arn} allows {INVOKE}"
    return Decision(
        False,
        None,
        None,
        f"{reason} (principal {service}, source ARN {source_arn}, "
        f"source account {values['aws:SourceAccount'][0]}); AddPermission gives one",
    )


def open_to_everybody(tx: Tx, call: Call, function_arn: str) -> bool:
    """Whether any user and any session of the account may invoke a function.

    That is so with a statement for ``*`` on the function itself, `function_arn` without a version,
    and without conditions: for such callers there is neither a source ARN nor a source account.
    """
    name = function_arn.removeprefix(call.account.lambda_arn(""))
    if call.account.lambda_arn(name) != function_arn or ":" in name:
        return False
    origin = CONFIGURED if is_configured(call, name) else UPLOADED
    decision = _decide(tx, call, name, origin, Principal("AWS", "*"), {})
    return decision is not None and decision.allowed


def _decide(
    tx: Tx,
    call: Call,
    function_name: str,
    origin: str,
    principal: Principal,
    values: Mapping[str, tuple[str, ...]],
) -> Decision | None:
    """What the resource policy says, None when there is none."""
    statements = functions.list_permissions(tx, function_name, origin)
    if not statements:
        return None
    return evaluate_trust(
        _document(policy_text(statements)),
        principal,
        INVOKE,
        values,
        resource=call.account.lambda_arn(function_name),
        name="resource policy",
    )


def _document(text: str) -> Document:
    found = _documents.get(text)
    if found is None:
        found = parse_policy(text, RESOURCE)
        _documents.put(text, found, len(text))
    return found


def policy_text(statements: list[Permission]) -> str:
    """A resource policy as GetPolicy answers it."""
    listed = ",".join(each.statement for each in statements)
    return f'{{"Version":"2012-10-17","Id":"default","Statement":[{listed}]}}'


# --- operations ----------------------------------------------------------------------------


async def add_permission(
    call: Call,
    function_name: str,
    statement_id: str,
    action: str,
    principal: str,
    source_arn: str | None = None,
    source_account: str | None = None,
    qualifier: str | None = None,
    revision_id: str | None = None,
) -> dict[str, Any]:
    """AddPermission: lets a service, an account, a user or a role invoke a function."""
    name = _unqualified(call, function_name, qualifier)
    statement = _statement(call, name, statement_id, action, principal, source_arn, source_account)
    permission = Permission(statement_id, msgspec.json.encode(statement).decode())
    try:
        _document(policy_text([permission]))
    except MalformedPolicyDocument as error:
        raise InvalidParameterValueException(error.message) from None

    def change(tx: Tx) -> None:
        origin = require_function(tx, call, name)
        statements = functions.list_permissions(tx, name, origin)
        _check_revision(tx, name, origin, statements, revision_id)
        if any(each.statement_id == statement_id for each in statements):
            raise ResourceConflictException(
                f"The statement id ({statement_id}) provided already exists. Please provide a new "
                "statement id, or remove the existing statement."
            )
        size = len(policy_text([*statements, permission]).encode())
        limit = call.services.limits.function_policy
        if size > limit:
            raise PolicyLengthExceededException(
                f"The final policy size ({size}) is bigger than the limit ({limit})."
            )
        functions.add_permission(tx, name, origin, permission)
        _note_change(tx, call, name, origin)

    await call.write(change)
    return {"Statement": permission.statement}


async def remove_permission(
    call: Call,
    function_name: str,
    statement_id: str,
    qualifier: str | None = None,
    revision_id: str | None = None,
) -> dict[str, Any]:
    """RemovePermission: takes one statement from a function's resource policy."""
    name = _unqualified(call, function_name, qualifier)

    def change(tx: Tx) -> None:
        origin = require_function(tx, call, name)
        statements = functions.list_permissions(tx, name, origin)
        if all(each.statement_id != statement_id for each in statements):
            raise ResourceNotFoundException(
                f"Statement {statement_id} is not found in resource policy."
            )
        _check_revision(tx, name, origin, statements, revision_id)
        functions.remove_permission(tx, name, origin, statement_id)
        _note_change(tx, call, name, origin)

    await call.write(change)
    return {}


async def get_policy(
    call: Call, function_name: str, qualifier: str | None = None
) -> dict[str, Any]:
    """GetPolicy: the resource policy of a function."""
    name = function_names.latest(call.account, function_name, qualifier)

    def find(tx: Tx) -> dict[str, Any]:
        origin = require_function(tx, call, name)
        statements = functions.list_permissions(tx, name, origin)
        if not statements or qualifier:
            raise ResourceNotFoundException("The resource you requested does not exist.")
        return {
            "Policy": policy_text(statements),
            "RevisionId": _revision(tx, name, origin, statements),
        }

    return await call.read(find)


def require_function(tx: Tx, call: Call, name: str) -> str:
    """Where the function of this name comes from: CONFIGURED or UPLOADED.

    Raises ResourceNotFoundException when there is none.
    """
    if is_configured(call, name):
        return CONFIGURED
    if functions.find_function(tx, name) is None:
        raise ResourceNotFoundException(f"Function not found: {call.account.lambda_arn(name)}")
    return UPLOADED


def is_configured(call: Call, name: str) -> bool:
    """Whether the configuration has a function of this name."""
    services = call.services
    return any(
        name in names
        for names in (services.functions.configured, services.functions.targets, services.built_in)
    )


def configured_revision(tx: Tx, name: str) -> str:
    """The revision of a function of the configuration: of its resource policy alone."""
    return _revision(tx, name, CONFIGURED, functions.list_permissions(tx, name, CONFIGURED))


def _unqualified(call: Call, function_name: str, qualifier: str | None) -> str:
    found = function_names.parse(call.account, function_name, qualifier)
    if found.qualifier == function_names.LATEST:
        raise InvalidParameterValueException(
            "We currently do not support adding policies for $LATEST."
        )
    if found.qualifier:
        raise ResourceNotFoundException(
            f"Function not found: {call.account.lambda_arn(found.qualified)}"
        )
    return found.name


def _statement(
    call: Call,
    name: str,
    statement_id: str,
    action: str,
    principal: str,
    source_arn: str | None,
    source_account: str | None,
) -> dict[str, Any]:
    named: str | dict[str, str]
    if principal == "*":
        named = "*"
    elif _ACCOUNT.fullmatch(principal):
        named = {"AWS": f"arn:{call.account.partition}:iam::{principal}:root"}
    elif _ACCOUNT_ARN.fullmatch(principal):
        named = {"AWS": principal}
    elif _IAM_ARN.fullmatch(principal):
        raise InvalidParameterValueException(
            f"`{principal[:200]}` is given {INVOKE} by an identity-based policy of its own; this "
            "server has no statements for single users and roles"
        )
    elif principal.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        named = {"Service": principal}
    else:
        raise InvalidParameterValueException(
            "The provided principal was invalid. Please check the principal and try again."
        )
    statement: dict[str, Any] = {
        "Sid": statement_id,
        "Effect": "Allow",
        "Principal": named,
        "Action": action,
        "Resource": call.account.lambda_arn(name),
    }
    condition: dict[str, Any] = {}
    if source_account:
        condition["StringEquals"] = {"AWS:SourceAccount": source_account}
    if source_arn:
        condition["ArnLike"] = {"AWS:SourceArn": source_arn}
    if condition:
        statement["Condition"] = condition
    return statement


def _check_revision(
    tx: Tx,
    name: str,
    origin: str,
    statements: list[Permission],
    revision_id: str | None,
) -> None:
    if revision_id is not None and revision_id != _revision(tx, name, origin, statements):
        raise PreconditionFailedException(
            "The Revision Id provided does not match the latest Revision Id. Call the "
            "GetPolicy API to retrieve the latest Revision Id"
        )


def _revision(tx: Tx, name: str, origin: str, statements: list[Permission]) -> str:
    """The revision of a function, which changes with its policy."""
    if origin == UPLOADED and (found := functions.find_function(tx, name)) is not None:
        return found.revision_id
    digits = hashlib.sha256(f"{name}\0{policy_text(statements)}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def _note_change(tx: Tx, call: Call, name: str, origin: str) -> None:
    if origin == UPLOADED and (found := functions.find_function(tx, name)) is not None:
        functions.update_function(tx, replace(found, revision_id=call.services.new_id()))
