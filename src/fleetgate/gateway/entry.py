"""An admitted client gets its session: the last step of CONNECT, taken in one go."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetgate.broker.session import Session
from fleetgate.errors import ProtocolError
from fleetgate.gateway import opening, wills
from fleetgate.gateway.rights import Denied, Rights
from fleetgate.mqtt.packets import Connect
from fleetgate.mqtt.reasons import Reason
from fleetgate.operations.identity import Peer

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection
    from fleetgate.gateway.shared import Shared

logger = logging.getLogger("fleetgate.gateway")


@dataclass(frozen=True, slots=True)
class Entry:
    """What an accepted CONNECT comes to; `present` says that the session was there before."""

    session: Session
    present: bool
    terms: opening.Terms


def enter(
    connection: MqttConnection, connect: Connect, peer: Peer, rights: Rights, shared: Shared
) -> Entry:
    """Open the session of the client id for `connection`; one that has it already is closed.

    Raises ProtocolError, whose reason is that of CONNACK: Denied for a temporary claim under the
    client id of somebody else's session, 0x97 when there is no room for the will.
    """
    identity, router, client_id = rights.identity, shared.router, connection.client_id
    now = shared.services.clock()
    owner = router.owner_of(client_id, now)
    if identity.is_temporary_claim and owner not in (None, identity.certificate_id):
        raise Denied(
            "a temporary claim cannot use the client id of a session of another certificate",
            identity,
        )
    will = wills.will_of(connect, peer, client_id, shared)
    if will is not None and not router.has_room(will.size):
        raise ProtocolError(Reason.QUOTA_EXCEEDED, f"no room for a will of {will.size} bytes")
    terms = opening.terms(connect, client_id, persistent=not identity.is_temporary_claim)
    session, present = router.open(
        client_id,
        connection,
        owner=identity.certificate_id,
        clean=connect.clean_start,
        expiry_interval=terms.expiry_interval,
        will=will,
        now=now,
    )
    logger.info(
        "event=connected client=%r certificate=%s peer=%s mqtt=%s keep_alive=%d "
        "expiry_interval=%d session_present=%d",
        *(client_id, identity.logged, connection.tls.peer),
        *("5" if connect.version == 5 else "3.1.1", terms.keep_alive),
        *(terms.expiry_interval, present),
    )
    return Entry(session, present, terms)
