"""Last wills: what the server publishes for a client that has gone without saying so.

A will is a PUBLISH by the device at a moment when the device is not there, so iot:Publish is
asked then, with the policies of that moment: a device that has lost its rights has lost its will.
"""

from __future__ import annotations

import logging

from fleetgate.broker.session import Will
from fleetgate.domain.policy import PUBLISH
from fleetgate.gateway.shared import Shared
from fleetgate.mqtt import packets
from fleetgate.operations.identity import Identity

logger = logging.getLogger("fleetgate.gateway")


def will_of(
    connect: packets.Connect, identity: Identity, client_id: str, shared: Shared
) -> Will | None:
    """The will in `connect`, ready to be published (MQTT 5.0 section 3.1.2.5)."""
    will = connect.will
    if will is None:
        return None

    def release() -> None:
        shared.spawn(_publish(will, identity, client_id, shared))

    return Will(will.properties.get("will_delay_interval", 0), release)


async def _publish(will: packets.Will, identity: Identity, client_id: str, shared: Shared) -> None:
    services = shared.services
    try:
        policies = await services.policies(identity, client_id)
    except Exception:
        logger.exception("event=will-not-published client=%r", client_id)
        return
    decision = policies.evaluate(PUBLISH, services.account.arn("topic/" + will.topic))
    expired = services.wall() >= identity.not_after
    if expired or not decision.allowed:
        cause = "the certificate has expired" if expired else decision.reason
        logger.info("event=will-not-published client=%r cause=%r", client_id, cause)
        return
    shared.router.publish(
        *(will.topic, will.payload, will.qos, will.properties),
        publisher=client_id,
        now=services.clock(),
    )
