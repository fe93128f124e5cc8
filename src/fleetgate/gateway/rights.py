"""What a connected client may do: its identity, and the policies it has at the moment."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final

from fleetgate.domain.policy import CONNECT, NO_VALUES, Decision, Values
from fleetgate.errors import ProtocolError, ServiceUnavailableException
from fleetgate.gateway.opening import connect_values, will_actions
from fleetgate.gateway.services import Services
from fleetgate.mqtt.packets import Connect
from fleetgate.mqtt.reasons import Reason
from fleetgate.names import certificate_id
from fleetgate.operations.admission import NotAdmitted
from fleetgate.operations.identity import Identity, Peer

logger = logging.getLogger("fleetgate.gateway")

_LOAD_PAUSE: Final = 1.0
"""Seconds, on average, between two attempts to load policies while the registry is away."""


class Denied(ProtocolError):
    """The registry knows the client, and it may not connect like that. The reason is 0x87."""

    def __init__(self, message: str, identity: Identity) -> None:
        super().__init__(Reason.NOT_AUTHORIZED, message)
        self.identity = identity


class Rights:
    """An identity under a client id and from a peer, with its policies.

    `fresh` is set by the owner while it works off what had to wait for `load`.
    """

    __slots__ = ("_client_id", "_epoch", "_policies", "_services", "fresh", "identity", "peer")

    def __init__(self, services: Services, identity: Identity, client_id: str, peer: Peer) -> None:
        self._services = services
        self._client_id = client_id
        self.peer = peer
        self.identity = identity
        self.fresh = False

    async def load(self) -> None:
        """Load the policies. Raises what the registry raises."""
        epoch = self._services.policy_epoch()
        self._policies = await self._services.policies(self.identity, self._client_id, self.peer)
        self._epoch = epoch

    async def load_patiently(self, wanted: Callable[[], bool]) -> None:
        """Load the policies; while the registry is away, again and again as long as `wanted` says.

        The client waits meanwhile, as it does for any load. Raises what else the registry raises.
        """
        while True:
            try:
                return await self.load()
            except ServiceUnavailableException:
                if not wanted():
                    return None
            await asyncio.sleep(_LOAD_PAUSE * (0.5 + secrets.randbelow(1000) / 1000))

    @property
    def stale(self) -> bool:
        """Have policies changed since `load`?"""
        return self._epoch != self._services.policy_epoch() and not self.fresh

    def decide(self, action: str, resource: str, values: Values = NO_VALUES) -> Decision:
        """May the client do `action` on `resource`, e.g. ``topic/a/b``?

        `values` are condition keys of this request alone.
        """
        return self._policies.evaluate(action, self._services.account.arn(resource), values)


async def admit(services: Services, peer: Peer, client_id: str, connect: Connect) -> Rights:
    """Ask the registry about the peer's certificate, and its policies about iot:Connect.

    About iot:Publish for the topic of the will, too; it is asked again when that is published.
    Raises ProtocolError, whose reason is that of CONNACK, when the answer is no or there is
    none; it is Denied when it is the policies that say no.
    """
    try:
        identity = await services.admit(peer)
        rights = Rights(services, identity, client_id, peer.settled())
        await rights.load()
    except NotAdmitted as error:
        raise ProtocolError(Reason.NOT_AUTHORIZED, error.message) from None
    except ServiceUnavailableException as error:
        logger.warning(
            "event=admission-failed certificate=%s cause=%r",
            certificate_id(peer.certificate),
            error.message,
        )
        raise ProtocolError(
            Reason.SERVER_UNAVAILABLE, "the server cannot tell who may connect"
        ) from None
    except Exception as error:
        logger.exception("event=admission-failed certificate=%s", certificate_id(peer.certificate))
        raise ProtocolError(
            Reason.UNSPECIFIED_ERROR, "the server cannot tell who may connect"
        ) from error
    values = connect_values(connect, services.account)
    decision = rights.decide(CONNECT, "client/" + client_id, values)
    if connect.will is not None:
        for action in will_actions(connect.will):
            if decision.allowed:
                decision = rights.decide(action, "topic/" + connect.will.topic)
    if not decision.allowed:
        raise Denied(decision.reason, identity)
    return rights
