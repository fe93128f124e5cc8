"""Things and the certificates that may speak for them."""

from __future__ import annotations

from typing import Any

from fleetgate.domain import registry
from fleetgate.errors import ResourceNotFoundException
from fleetgate.names import Account, certificate_id_of_principal
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.operations.things import require_thing
from fleetgate.store import certificates, things
from fleetgate.store.engine import Tx

EXCLUSIVE = "EXCLUSIVE_THING"
NON_EXCLUSIVE = "NON_EXCLUSIVE_THING"


async def attach_thing_principal(
    call: Call, thing_name: str, principal: str, thing_principal_type: str | None = None
) -> dict[str, Any]:
    """AttachThingPrincipal: a certificate, by ARN, to a thing; twice is once.

    With ``EXCLUSIVE_THING`` the thing is the only one of the certificate.
    """

    def change(tx: Tx) -> None:
        require_thing(tx, thing_name)
        _require_principal(tx, call.account, principal)
        exclusive = _exclusive(thing_principal_type)
        # two tell whether there is another thing; this one may lie behind both
        attached = dict(things.list_principal_attachments(tx, principal, "", 2))
        attached |= things.find_attachment(tx, thing_name, principal)
        registry.check_attachment(thing_name, principal, attached, exclusive)
        things.add_thing_principal(tx, thing_name, principal, bool(exclusive))

    await call.write(change)
    call.policies_changed()
    return {}


async def detach_thing_principal(call: Call, thing_name: str, principal: str) -> dict[str, Any]:
    """DetachThingPrincipal."""

    def change(tx: Tx) -> None:
        require_thing(tx, thing_name)
        _require_principal(tx, call.account, principal)
        if not things.remove_thing_principal(tx, thing_name, principal):
            raise ResourceNotFoundException(
                f"Principal `{principal}` is not attached to thing {thing_name}"
            )

    await call.write(change)
    call.policies_changed()
    return {}


async def list_thing_principals(
    call: Call, thing_name: str, next_token: str | None = None, max_results: int = pages.PAGE
) -> dict[str, Any]:
    """ListThingPrincipals: ARNs."""
    found, following = await _principals(
        call, "ListThingPrincipals", thing_name, next_token, max_results, None
    )
    return {"principals": [arn for arn, _ in found], "nextToken": following}


async def list_thing_principals_v2(
    call: Call,
    thing_name: str,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    thing_principal_type: str | None = None,
) -> dict[str, Any]:
    """ListThingPrincipalsV2: ARNs with the kind of attachment, all or one kind."""
    found, following = await _principals(
        call, "ListThingPrincipalsV2", thing_name, next_token, max_results, thing_principal_type
    )
    return {
        "thingPrincipalObjects": [
            {"principal": arn, "thingPrincipalType": _type(exclusive)} for arn, exclusive in found
        ],
        "nextToken": following,
    }


async def list_principal_things(
    call: Call, principal: str, next_token: str | None = None, max_results: int = pages.PAGE
) -> dict[str, Any]:
    """ListPrincipalThings: names."""
    found, following = await _things(
        call, "ListPrincipalThings", principal, next_token, max_results, None
    )
    return {"things": [name for name, _ in found], "nextToken": following}


async def list_principal_things_v2(
    call: Call,
    principal: str,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    thing_principal_type: str | None = None,
) -> dict[str, Any]:
    """ListPrincipalThingsV2: names with the kind of attachment, all or one kind."""
    found, following = await _things(
        call, "ListPrincipalThingsV2", principal, next_token, max_results, thing_principal_type
    )
    return {
        "principalThingObjects": [
            {"thingName": name, "thingPrincipalType": _type(exclusive)} for name, exclusive in found
        ],
        "nextToken": following,
    }


async def _principals(
    call: Call,
    operation: str,
    thing_name: str,
    next_token: str | None,
    max_results: int,
    kind: str | None,
) -> tuple[list[tuple[str, bool]], str | None]:
    after = pages.start_after_name(call, operation, next_token)

    def find(tx: Tx) -> list[tuple[str, bool]]:
        require_thing(tx, thing_name)
        return things.list_thing_attachments(
            tx, thing_name, after, max_results + 1, exclusive=_exclusive(kind)
        )

    return _page(call, operation, await call.read(find), max_results)


async def _things(
    call: Call,
    operation: str,
    principal: str,
    next_token: str | None,
    max_results: int,
    kind: str | None,
) -> tuple[list[tuple[str, bool]], str | None]:
    after = pages.start_after_name(call, operation, next_token)

    def find(tx: Tx) -> list[tuple[str, bool]]:
        _require_principal(tx, call.account, principal)
        return things.list_principal_attachments(
            tx, principal, after, max_results + 1, exclusive=_exclusive(kind)
        )

    return _page(call, operation, await call.read(find), max_results)


def _page(
    call: Call, operation: str, found: list[tuple[str, bool]], limit: int
) -> tuple[list[tuple[str, bool]], str | None]:
    items, following = pages.page(call, operation, found, limit, lambda item: (item[0],))
    return list(items), following


def _exclusive(kind: str | None) -> bool | None:
    return None if kind is None else kind == EXCLUSIVE


def _type(exclusive: bool) -> str:
    return EXCLUSIVE if exclusive else NON_EXCLUSIVE


def _require_principal(tx: Tx, account: Account, principal: str) -> None:
    certificate_id = certificate_id_of_principal(account, principal)
    if certificates.find_certificate(tx, certificate_id) is None:
        raise ResourceNotFoundException(f"Certificate not found (arn={principal})")
