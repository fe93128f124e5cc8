"""What a device may do, asked without a device: GetEffectivePolicies and TestAuthorization.

The answers come from the functions that decide for connections: `admission.find_device`,
`admission.device_values` and `domain.policy`.
"""

# ruff: noqa: PT028 - TestAuthorization is an operation, not a test

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetgate.domain.policy import (
    CONNECT,
    NO_VALUES,
    PUBLISH,
    RECEIVE,
    SUBSCRIBE,
    Document,
    Policies,
    Values,
    compile_policies,
)
from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from fleetgate.operations import admission
from fleetgate.operations.call import Call
from fleetgate.operations.policies import described, policy_arn, require_target
from fleetgate.operations.things import require_thing
from fleetgate.pki import pem
from fleetgate.store import connections, policies
from fleetgate.store.engine import Tx

_ACTIONS: Mapping[str, str] = {
    "CONNECT": CONNECT,
    "PUBLISH": PUBLISH,
    "RECEIVE": RECEIVE,
    "SUBSCRIBE": SUBSCRIBE,
}


async def get_effective_policies(
    call: Call,
    principal: str | None = None,
    cognito_identity_pool_id: str | None = None,
    thing_name: str | None = None,
) -> dict[str, Any]:
    """GetEffectivePolicies: of a certificate, a thing group or a thing, those of groups above too.

    With a certificate and a thing: what rules connections of this certificate under the name of
    the thing as client id. The groups of the thing count when the certificate is attached to it.
    """
    _refuse_cognito(cognito_identity_pool_id)

    def find(tx: Tx) -> list[connections.AttachedPolicy]:
        prefix = call.account.arn("thinggroup/")
        if thing_name is not None:
            require_thing(tx, thing_name)
        if principal is None:
            if thing_name is None:
                raise InvalidRequestException("`principal` or `thingName` must be given")
            return connections.list_thing_policies(tx, thing_name, prefix)
        if require_target(tx, call.account, principal) is None:
            group_name = call.account.resource(principal, "thinggroup") or ""
            return connections.list_group_policies(tx, group_name, prefix)
        return connections.list_connection_policies(tx, principal, thing_name or "", prefix)

    return {
        "effectivePolicies": [
            {
                "policyName": each.policy_name,
                "policyArn": policy_arn(call.account, each.policy_name),
                "policyDocument": each.document,
            }
            for each in await call.read(find)
        ]
    }


async def test_authorization(
    call: Call,
    auth_infos: Sequence[Mapping[str, Any]],
    principal: str | None = None,
    cognito_identity_pool_id: str | None = None,
    client_id: str | None = None,
    policy_names_to_add: Sequence[str] = (),
    policy_names_to_skip: Sequence[str] = (),
) -> dict[str, Any]:
    """TestAuthorization: the decisions for a certificate, or a thing group, on some resources.

    What only a connection has is missing: ``aws:SourceIp``, ``iot:DomainName`` and, without
    `client_id`, ``iot:ClientId``. A CONNECT is one without features: a clean session, no will.
    """
    _refuse_cognito(cognito_identity_pool_id)
    for each in auth_infos:
        if "actionType" not in each:
            raise InvalidRequestException(
                f"`actionType` must be given; it is one of {', '.join(_ACTIONS)}"
            )

    def find(tx: Tx) -> tuple[admission.Device, bytes]:
        device, certificate = _find_device(tx, call, principal, client_id)
        documents = {
            name: document
            for name, document in device.documents
            if name not in policy_names_to_skip
        }
        for name in policy_names_to_add:
            documents[name] = _require_document(tx, name)
        tested = sorted(documents.items(), key=lambda item: item[0])
        return admission.with_thing(tx, tested, device.thing_name), certificate

    device, certificate = await call.read(find)
    values = admission.device_values(device, client_id or "", certificate)
    if client_id is None:
        del values["iot:ClientId"]
    compiled = compile_policies(device.documents, values)
    names = [name for name, _ in device.documents]
    return {"authResults": [_result(call, compiled, names, each) for each in auth_infos]}


def _find_device(
    tx: Tx, call: Call, principal: str | None, client_id: str | None
) -> tuple[admission.Device, bytes]:
    """What is attached to the principal, and its certificate (DER; empty when it is none)."""
    if principal is None:
        return admission.Device([], None, None), b""
    certificate = require_target(tx, call.account, principal)
    if certificate is not None:
        device = admission.find_device(tx, call.account, principal, client_id or "")
        # no policy, no thing found on the way: one may be added that asks for it
        thing_name = connections.find_connection_thing(tx, principal, client_id or "")
        der = pem.decode(certificate.pem, "CERTIFICATE")
        return admission.Device(device.documents, thing_name, device.thing), der
    group_name = call.account.resource(principal, "thinggroup") or ""
    found = connections.list_group_policies(tx, group_name, call.account.arn("thinggroup/"))
    documents = [(each.policy_name, admission.read(each.document)) for each in found]
    return admission.Device(documents, None, None), b""


def _require_document(tx: Tx, policy_name: str) -> Document:
    text = policies.find_default_document(tx, policy_name)
    if text is None:
        raise ResourceNotFoundException(f"Policy not found (name={policy_name})")
    return admission.read(text)


def _result(
    call: Call, compiled: Policies, names: Sequence[str], auth_info: Mapping[str, Any]
) -> dict[str, Any]:
    """The result for one action on some resources; the worst decision is that of all."""
    action = _ACTIONS[auth_info["actionType"]]
    values: Values = {"iot:ConnectAttributes": ()} if action == CONNECT else NO_VALUES
    allowing: set[str] = set()
    denying: set[str] = set()
    decision = "ALLOWED" if auth_info["resources"] else "IMPLICIT_DENY"
    for resource in auth_info["resources"]:
        allows, denies = compiled.speaking(action, resource, values)
        allowing |= allows
        denying |= denies
        decided = compiled.evaluate(action, resource, values)
        if decided.explicit_deny:
            decision = "EXPLICIT_DENY"
        elif not decided.allowed and decision == "ALLOWED":
            decision = "IMPLICIT_DENY"
    silent = [name for name in names if name not in allowing and name not in denying]
    return {
        "authInfo": dict(auth_info),
        "allowed": {"policies": described(call.account, sorted(allowing))},
        "denied": {
            "implicitDeny": {"policies": described(call.account, silent)},
            "explicitDeny": {"policies": described(call.account, sorted(denying))},
        },
        "authDecision": decision,
        "missingContextValues": compiled.missing(action, values),
    }


def _refuse_cognito(cognito_identity_pool_id: str | None) -> None:
    if cognito_identity_pool_id is not None:
        raise InvalidRequestException(
            f"`{cognito_identity_pool_id}` cannot be asked about: this server has no Cognito "
            "identities; leave `cognitoIdentityPoolId` out"
        )
