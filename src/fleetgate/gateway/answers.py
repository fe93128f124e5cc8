"""Answers to provisioning requests, for the connection that asked and for nobody else.

The reply topics of AWS IoT have no part that names the client, and devices share their claim
certificate and so their policy. A broker would hand every reply, private key and all, to every
device that waits for its own ("Device provisioning MQTT API": results come back through the same
MQTT connection). So a reply never meets the broker: it goes to the one connection, and when that
is gone, or has not subscribed to the topic, or may not receive it, it is thrown away. All that is
judged at the very moment of sending. For the operations that make a certificate it is judged
before the work, too: a key that nobody could receive is not made. RegisterThing is always
carried out, a device may be content with that.

Requests of a connection are answered one after the other, in their order. How many are carried
out at a time is bounded, for each certificate and for all together; the others wait in the
order in which their connections came. A request that waits for an operator's code, a hook, does
not count meanwhile; how many of those run is up to the function.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from fleetgate.domain.policy import RECEIVE
from fleetgate.errors import ProtocolError
from fleetgate.gateway import fault_injection
from fleetgate.gateway.services import ProvisioningRequest, Reply
from fleetgate.mqtt.reasons import Reason
from fleetgate.mqtt.topics import matches

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection
    from fleetgate.gateway.shared import Shared

logger = logging.getLogger("fleetgate.gateway")

_MAX_REQUESTS: Final = 16
_MAX_BYTES: Final = 1 << 18
_CREATE: Final = "$aws/certificates/create"
"""How the topics of the operations begin that make a certificate."""


class _Undeliverable(Exception):
    """A reply cannot be sent; the message says why."""


class Answers:
    """The waiting requests of one connection, and the task that answers them."""

    __slots__ = ("_bytes", "_connection", "_requests", "_room", "_spawn", "_turns", "task")

    def __init__(self, connection: MqttConnection, shared: Shared) -> None:
        self._bytes = 0
        self._connection = connection
        self._requests: deque[ProvisioningRequest] = deque()
        self._room: asyncio.Event | None = None
        self._spawn = shared.spawn
        self._turns = shared.turns.of(connection.certificate_id)
        self.task: asyncio.Task[None] | None = None
        """Runs while there are requests."""

    def add(self, topic: str, payload: bytes) -> None:
        """Answer this request in its turn.

        Raises ProtocolError 0x97 when more requests wait than a sensible client sends.
        """
        connection = self._connection
        if len(self._requests) >= _MAX_REQUESTS or self._bytes + len(payload) > _MAX_BYTES:
            raise ProtocolError(
                Reason.QUOTA_EXCEEDED, "too many provisioning requests before the first answer"
            )
        self._bytes += len(payload)
        self._requests.append(
            ProvisioningRequest(
                *(topic, payload, connection.client_id, connection.rights.identity),
                self._turns.aside,
                connection.rights.peer,
            )
        )
        if self.task is None:
            self.task = self._spawn(self._run())

    @property
    def waiting(self) -> bool:
        """An answer waits for the client to acknowledge something."""
        return self._room is not None

    def acknowledged(self) -> None:
        """The client has acknowledged something."""
        if self._room is not None:
            self._room.set()

    def end(self) -> None:
        """The connection is gone. What is being done is finished, and nobody hears of it."""
        self._requests.clear()
        self.acknowledged()

    async def _run(self) -> None:
        connection = self._connection
        while self._requests:
            async with self._turns:
                if not self._requests:
                    break  # the connection has ended
                request = self._requests.popleft()
                self._bytes -= len(request.payload)
                try:
                    reply = await self._carry_out(request)
                except Exception:
                    logger.exception(
                        "event=no-answer client=%r certificate=%s topic=%r",
                        connection.client_id,
                        request.identity.logged,
                        request.topic,
                    )
                    continue
            if reply is None:
                continue
            if (faults := connection.services.faults) is None:
                await self._send(request, reply)
            else:
                await fault_injection.send(faults, connection, request, reply, self._send)
        self.task = None

    async def _carry_out(self, request: ProvisioningRequest) -> Reply | None:
        if request.topic.startswith(_CREATE):
            try:
                await self._granted(request.topic + "/accepted")
            except _Undeliverable as error:
                logger.warning(
                    "event=request-refused client=%r certificate=%s request=%r cause=%r",
                    request.client_id,
                    request.identity.logged,
                    request.topic,
                    f"nothing is made, for nobody could receive it: {error}",
                )
                return None
        services = self._connection.services
        if (faults := services.faults) is None:
            return await services.provision(request)
        return await fault_injection.carry_out(
            faults, self._connection, request, services.provision
        )

    async def _granted(self, topic: str) -> int:
        """The QoS of a reply on `topic` at this moment. Raises _Undeliverable."""
        connection = self._connection
        if not await connection.refreshed() or connection.session is None:
            raise _Undeliverable("the connection is closed")
        granted = [
            granted.qos
            for topic_filter, granted in connection.session.filters.items()
            if matches(topic_filter, topic)
        ]
        if not granted:
            raise _Undeliverable(f"the client has not subscribed to `{topic}`")
        decision = connection.rights.decide(RECEIVE, "topic/" + topic)
        if not decision.allowed:
            raise _Undeliverable(decision.reason)
        return max(granted)

    async def _send(self, request: ProvisioningRequest, reply: Reply) -> None:
        connection = self._connection
        outgoing = connection.outgoing
        try:
            # Once there is room everything is judged again: what was granted before the wait may
            # have been taken back.
            while (qos := await self._granted(reply.topic)) and outgoing.window <= 0:
                self._room = asyncio.Event()
                await self._room.wait()
            outgoing.publish(reply.topic, reply.payload, qos, {})
        except (_Undeliverable, ProtocolError) as error:
            logger.warning(
                "event=answer-dropped client=%r certificate=%s request=%r reply=%r cause=%r",
                request.client_id,
                request.identity.logged,
                request.topic,
                reply.topic,
                str(error),
            )
        finally:
            self._room = None
        if connection.session is not None:
            connection.session.pump(connection.services.clock())
