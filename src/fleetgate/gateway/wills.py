"""Last wills: what the server publishes for a client that has gone without saying so.

A will is a PUBLISH by the device at a moment when the device is not there, perhaps days later. So
its certificate is admitted again then, and iot:Publish is asked with the policies of that moment:
a device that has lost its rights has lost its will.
"""

from __future__ import annotations

import logging
from typing import Final

from fleetgate.broker.session import Will
from fleetgate.gateway.opening import will_actions
from fleetgate.gateway.shared import Shared
from fleetgate.mqtt import packets
from fleetgate.operations.admission import NotAdmitted
from fleetgate.operations.identity import Peer

_OVERHEAD: Final = 200  # bytes of the objects, roughly

logger = logging.getLogger("fleetgate.gateway")


def will_of(connect: packets.Connect, peer: Peer, client_id: str, shared: Shared) -> Will | None:
    """The will in `connect`, ready to be published (MQTT 5.0 section 3.1.2.5).

    `peer` is the client as it was when it connected.
    """
    will = connect.will
    if will is None:
        return None
    peer = peer.settled()

    def release() -> None:
        shared.spawn(_publish(will, peer, client_id, shared))

    size = _OVERHEAD + len(peer.certificate) + len(will.topic) + len(will.payload)
    for value in will.properties.values():
        if isinstance(value, list):
            size += sum(_OVERHEAD + len(name) + len(text) for name, text in value)
        elif isinstance(value, (str, bytes)):
            size += len(value)
    return Will(will.properties.get("will_delay_interval", 0), release, size)


async def _publish(will: packets.Will, peer: Peer, client_id: str, shared: Shared) -> None:
    services = shared.services
    try:
        identity = await services.readmit(peer)
        policies = await services.policies(identity, client_id, peer)
    except NotAdmitted as error:
        logger.info("event=will-not-published client=%r cause=%r", client_id, error.message)
        return
    except Exception:
        logger.exception("event=will-not-published client=%r", client_id)
        return
    for action in will_actions(will):
        decision = policies.evaluate(action, services.account.arn("topic/" + will.topic))
        if not decision.allowed:
            logger.info("event=will-not-published client=%r cause=%r", client_id, decision.reason)
            return
    shared.router.publish(
        *(will.topic, will.payload, will.qos, will.properties),
        publisher=client_id,
        now=services.clock(),
    )
