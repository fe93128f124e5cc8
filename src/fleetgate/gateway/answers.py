"""Answers to provisioning requests, for the connection that asked and for nobody else.

The reply topics of AWS IoT have no part that names the client, and devices share their claim
certificate and so their policy. A broker would hand every reply, private key and all, to every
device that waits for its own ("Device provisioning MQTT API": results come back through the same
MQTT connection). So a reply never meets the broker: it goes to the one connection, and when that
is gone, or has not subscribed to the topic, it is thrown away.

Requests of a connection are answered one after the other, in their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from fleetgate.domain.policy import RECEIVE
from fleetgate.errors import ProtocolError
from fleetgate.gateway.services import ProvisioningRequest, Reply
from fleetgate.mqtt.reasons import Reason
from fleetgate.mqtt.topics import matches

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection

logger = logging.getLogger("fleetgate.gateway")

_MAX_REQUESTS: Final = 100
_MAX_BYTES: Final = 1 << 18


class Answers:
    """The waiting requests of one connection, and the task that answers them."""

    __slots__ = ("_bytes", "_connection", "_requests", "_room", "_spawn", "task")

    def __init__(
        self,
        connection: MqttConnection,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._bytes = 0
        self._connection = connection
        self._requests: deque[ProvisioningRequest] = deque()
        self._room: asyncio.Event | None = None
        self._spawn = spawn
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
            ProvisioningRequest(topic, payload, connection.client_id, connection.rights.identity)
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
            request = self._requests.popleft()
            self._bytes -= len(request.payload)
            try:
                reply = await connection.services.provision(request)
            except Exception:
                logger.exception(
                    "event=no-answer client=%r certificate=%s topic=%r",
                    connection.client_id,
                    connection.certificate_id,
                    request.topic,
                )
                continue
            await self._send(request, reply)
        self.task = None

    async def _send(self, request: ProvisioningRequest, reply: Reply) -> None:
        connection = self._connection
        if not await connection.refreshed() or connection.session is None:
            self._dropped(request, reply, "the connection is closed")
            return
        granted = [
            granted.qos
            for topic_filter, granted in connection.session.filters.items()
            if matches(topic_filter, reply.topic)
        ]
        if not granted:
            self._dropped(request, reply, f"the client has not subscribed to `{reply.topic}`")
            return
        decision = connection.rights.decide(RECEIVE, "topic/" + reply.topic)
        if not decision.allowed:
            self._dropped(request, reply, decision.reason)
            return
        qos = max(granted)
        while qos and connection.open and connection.outgoing.window <= 0:
            self._room = asyncio.Event()
            await self._room.wait()
        self._room = None
        if not connection.open:
            self._dropped(request, reply, "the connection is closed")
            return
        try:
            connection.outgoing.publish(reply.topic, reply.payload, qos, {})
        except ProtocolError as error:
            self._dropped(request, reply, error.message)
        connection.session.pump(connection.services.clock())

    def _dropped(self, request: ProvisioningRequest, reply: Reply, cause: str) -> None:
        logger.warning(
            "event=answer-dropped client=%r certificate=%s request=%r reply=%r cause=%r",
            request.client_id,
            request.identity.certificate_id,
            request.topic,
            reply.topic,
            cause,
        )
