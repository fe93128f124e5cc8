"""Who may connect, and under which policies.

A certificate is admitted when its id (the SHA-256 of its DER form) is known, its status is
ACTIVE and the moment lies inside its validity; a temporary provisioning claim is admitted until
it ends. TLS itself accepts any client certificate: trust is by registry, not by chain
(AWS IoT developer guide, "X.509 client certificates"). What becomes of a certificate that is not
known, or not active yet, is for operations/just_in_time.py.

What a connection may do is decided by the policies of its certificate and of the groups of its
thing, compiled for it once. Facts that cost something, those of the thing and of the certificate,
are looked up when a policy asks for one. A request that had to wait for somebody is judged once
more, by what the registry says then (`require_still`, and `require_standing` inside the
transaction that gives it something: policies are too much to read there, where every row that is
looked at may collide with another transaction).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from fleetgate.domain.policy import PUBLISH, Document, Policies, compile_policies, parse
from fleetgate.errors import AccessDeniedException, Error
from fleetgate.names import Account, certificate_id
from fleetgate.operations.call import Call, Services
from fleetgate.operations.identity import Identity, Peer
from fleetgate.pki import certificate_values
from fleetgate.store import certificates, connections, things
from fleetgate.store.engine import Tx

THING: Final = "iot:Connection.Thing."
"""What the names of the values of a connection's thing begin with."""


class NotAdmitted(Error):
    """The certificate does not open the door; the message names its id and the reason."""


class NotRegistered(NotAdmitted):
    """The registry does not know the certificate."""


class NotActivated(NotAdmitted):
    """The certificate is PENDING_ACTIVATION."""


@dataclass(frozen=True, slots=True)
class Device:
    """What rules a connection: documents by policy name, and the thing it belongs to, if any.

    `thing` is None too when no document asks for anything of it but its name.
    """

    documents: Sequence[tuple[str, Document]]
    thing_name: str | None
    thing: things.Thing | None

    def asks_for(self, prefix: str) -> bool:
        """Does a document use a value whose name begins like that?"""
        return any(document.mentions(prefix) for _, document in self.documents)


async def admit(services: Services, peer: Peer) -> Identity:
    """The identity behind a client.

    Raises NotAdmitted when the registry does not know its certificate, or that may not be used now,
    or not in this way: a certificate in SNI_ONLY mode is for clients that name the server (AWS IoT
    API reference, CertificateDescription, `certificateMode`).
    """
    name = certificate_id(peer.certificate)
    arn = services.account.arn(f"cert/{name}")
    standing = await services.store.read(certificates.find_standing, name, arn)
    return _admitted(name, standing, peer, services.now())


def _admitted(
    name: str, standing: certificates.Standing | None, peer: Peer, now: float
) -> Identity:
    if standing is None:
        raise NotRegistered(f"certificate {name} is not registered")
    if standing.status == "PENDING_ACTIVATION":
        raise NotActivated(f"certificate {name} is PENDING_ACTIVATION, not ACTIVE")
    if standing.status != "ACTIVE":
        raise NotAdmitted(f"certificate {name} is {standing.status}, not ACTIVE")
    what = ""
    if standing.template_name is not None:
        what = f" (a temporary claim for template `{standing.template_name}`)"
    if now < standing.not_before:
        begin = _moment(standing.not_before)
        raise NotAdmitted(f"certificate {name} is not valid before {begin}{what}")
    if now >= standing.not_after:
        raise NotAdmitted(f"certificate {name} expired at {_moment(standing.not_after)}{what}")
    if standing.mode == "SNI_ONLY" and not peer.server_name:
        raise NotAdmitted(
            f"certificate {name} is SNI_ONLY, and the client has sent no server name (TLS SNI)"
        )
    return Identity(name, standing.template_name, standing.not_after, standing.exclusive_thing)


async def connection_policies(
    services: Services, identity: Identity, client_id: str, peer: Peer
) -> Policies:
    """The policies that rule a connection, compiled for it."""
    if identity.template_name is not None:
        return _claim_policies(services.account, identity.template_name)
    arn = services.account.arn(f"cert/{identity.certificate_id}")
    device = await services.store.read(find_device, services.account, arn, client_id)
    return _compiled(device, client_id, peer)


def require_still(tx: Tx, call: Call) -> None:
    """Returns when a device may still make the request it has made.

    Its certificate may be used, and its policies let it publish to the topic of the request; else
    raises AccessDeniedException. To be asked when somebody else was waited for since the gateway
    has let the request in.
    """
    identity, peer = require_standing(tx, call)
    account, client_id = call.account, call.client_id
    if identity.template_name is not None:
        policies = _claim_policies(account, identity.template_name)
    else:
        arn = account.arn(f"cert/{identity.certificate_id}")
        policies = _compiled(find_device(tx, account, arn, client_id), client_id, peer)
    decision = policies.evaluate(PUBLISH, account.arn(f"topic/{call.topic}"))
    if not decision.allowed:
        raise AccessDeniedException(decision.reason)


def require_standing(tx: Tx, call: Call) -> tuple[Identity, Peer]:
    """Who makes a request, and from where, when the certificate may still be used.

    Raises AccessDeniedException.
    """
    if call.identity is None or call.peer is None:
        raise AccessDeniedException("there is no connection on which this was asked")
    name = call.identity.certificate_id
    standing = certificates.find_standing(tx, name, call.account.arn(f"cert/{name}"))
    try:
        return _admitted(name, standing, call.peer, call.services.now()), call.peer
    except NotAdmitted as error:
        raise AccessDeniedException(error.message) from None


def _claim_policies(account: Account, template_name: str) -> Policies:
    return compile_policies([("temporary-claim", claim_document(account, template_name))], {})


def _compiled(device: Device, client_id: str, peer: Peer) -> Policies:
    values = {
        **device_values(device, client_id, peer.certificate),
        "aws:SourceIp": (peer.address,),
    }
    if peer.server_name:
        values["iot:DomainName"] = (peer.server_name,)
    return compile_policies(device.documents, values)


def find_device(tx: Tx, account: Account, certificate_arn: str, client_id: str) -> Device:
    """What rules the connections of a certificate under a client id."""
    found = connections.list_connection_policies(
        tx, certificate_arn, client_id, account.arn("thinggroup/")
    )
    thing_name = found[0].thing_name if found else None
    return with_thing(tx, [(each.policy_name, read(each.document)) for each in found], thing_name)


def with_thing(tx: Tx, documents: Sequence[tuple[str, Document]], thing_name: str | None) -> Device:
    """What rules the connections of a thing, its values included when a document uses them."""
    device = Device(documents, thing_name, None)
    if thing_name is not None and (
        device.asks_for(f"{THING}ThingType") or device.asks_for(f"{THING}Attributes")
    ):
        return Device(documents, thing_name, things.find_thing(tx, thing_name))
    return device


def device_values(device: Device, client_id: str, certificate: bytes) -> dict[str, tuple[str, ...]]:
    """The condition keys and policy variables of a device, as far as its documents use them.

    `certificate` is in DER form; what the network shows of a connection is not among them.
    Source: AWS IoT Developer Guide, "AWS IoT Core policy variables".
    """
    values: dict[str, tuple[str, ...]] = {
        "iot:ClientId": (client_id,),
        f"{THING}IsAttached": ("false" if device.thing_name is None else "true",),
    }
    if device.thing_name is not None:
        values[f"{THING}ThingName"] = (device.thing_name,)
    thing = device.thing
    if thing is not None:
        if thing.thing_type_name is not None:
            values[f"{THING}ThingTypeName"] = (thing.thing_type_name,)
        for name, value in thing.attributes.items():
            values[f"{THING}Attributes[{name}]"] = (value,)
    if device.asks_for(certificate_values.PREFIX):
        values.update(_certificate_values(certificate))
    return values


# Connections load their policies again whenever some have changed; a certificate never does.
_certificate_values = lru_cache(maxsize=1024)(certificate_values.certificate_values)


@lru_cache(maxsize=1024)
def read(document: str) -> Document:
    """A document from the registry: its size was checked when it was put there."""
    return parse(document, max_characters=sys.maxsize)


@lru_cache(maxsize=256)
def claim_document(account: Account, template_name: str) -> Document:
    """What a temporary claim may do: provision by its template, under any client id.

    AWS does not publish this policy; it is the sample policy for claim certificates of the
    developer guide plus ``create-from-csr``.
    """
    reserved = (
        "$aws/certificates/create/*",
        "$aws/certificates/create-from-csr/*",
        f"$aws/provisioning-templates/{template_name}/provision/*",
    )
    topics = ", ".join(f'"{account.arn("topic/" + each)}"' for each in reserved)
    filters = ", ".join(f'"{account.arn("topicfilter/" + each)}"' for each in reserved)
    return parse(
        '{"Version": "2012-10-17", "Statement": ['
        '{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}, '
        '{"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], '
        f'"Resource": [{topics}]}}, '
        f'{{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [{filters}]}}]}}'
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
