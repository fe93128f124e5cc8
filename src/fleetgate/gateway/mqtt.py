"""The MQTT door: listeners, the connections behind them, and the second hand that moves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from typing import Any, Final, cast

from OpenSSL import SSL

from fleetgate.broker.deadlines import Deadlines
from fleetgate.broker.router import Router
from fleetgate.broker.session import Limits
from fleetgate.gateway.connection import MqttConnection
from fleetgate.gateway.server_names import ServerNames
from fleetgate.gateway.services import ProvisioningRequest, Reply, Services
from fleetgate.gateway.shared import Shared
from fleetgate.gateway.tls import State, TlsConnection, TlsLimits, shown_address
from fleetgate.mqtt.reasons import Reason

__all__ = ["Gateway", "ProvisioningRequest", "Reply", "Services"]

logger = logging.getLogger("fleetgate.gateway")

_BACKLOG: Final = 4096
_TICK: Final = 1.0
_PATIENCE: Final = 3.0  # seconds that a handshake has for itself
_FAREWELL: Final = 1.0  # seconds for clients to take the last packet


class _TurnedAway(asyncio.Protocol):
    """Connections too many for one reason, since the last line in the log."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        self.count = 0
        self.peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.count += 1
        self.peer = shown_address(transport)
        cast("asyncio.Transport", transport).abort()

    def report(self) -> None:
        """One line for all of them."""
        if self.count:
            logger.warning(
                "event=turned-away connections=%d peer=%s cause=%r",
                *(self.count, self.peer, self.cause),
            )
            self.count = 0


class Gateway:
    """MQTT over TLS for devices.

    `context` comes from `fleetgate.gateway.tls.server_context`. `max_connections` bounds those
    of all listeners together; it has to leave file descriptors for the rest of the process and for
    those that are turned away. `max_handshakes` bounds those which are not done with the TLS
    handshake: one more is turned away, or the oldest when that has had 3 s. `connect_timeout`
    (seconds) bounds the time from the end of the handshake to an accepted CONNECT. `names` are
    those that clients may ask for, None: any.
    """

    def __init__(
        self,
        services: Services,
        context: SSL.Context,
        *,
        limits: Limits | None = None,
        tls_limits: TlsLimits | None = None,
        connect_timeout: float = 10.0,
        max_connections: int = 100_000,
        max_handshakes: int = 2000,
        names: ServerNames | None = None,
    ) -> None:
        self._services = services
        self._context = context
        self._tls_limits = tls_limits or TlsLimits()
        self._max_connections = max_connections
        self._max_handshakes = max_handshakes
        self._names = names
        self._deadlines = Deadlines(services.clock())
        self._router = Router(self._deadlines, limits)
        self._shared = Shared(services, self._router, self._spawn, connect_timeout)
        self._servers: list[asyncio.Server] = []
        self._open: set[TlsConnection] = set()
        # Those in handshake with the time of their arrival, the oldest first.
        self._handshaking: dict[TlsConnection, float] = {}
        self._too_many = _TurnedAway(f"more than {max_connections} connections")
        self._too_many_handshakes = _TurnedAway(f"more than {max_handshakes} handshakes")
        self._empty = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many connections there are, those in handshake included."""
        return len(self._open)

    async def listen(self, host: str, port: int, *, reuse_port: bool = False) -> tuple[str, int]:
        """Accept connections at `host`:`port` (0: any free port); the address in use.

        May be called several times. Raises OSError when the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        return self._listening(
            await loop.create_server(
                self._accept, host, port, backlog=_BACKLOG, reuse_port=reuse_port or None
            )
        )

    async def listen_on(self, sock: socket.socket) -> tuple[str, int]:
        """Accept connections at a bound TCP socket, which is the gateway's from now on.

        Otherwise like `listen`.
        """
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        return self._listening(await loop.create_server(self._accept, sock=sock, backlog=_BACKLOG))

    def _listening(self, server: asyncio.Server) -> tuple[str, int]:
        self._servers.append(server)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK, self._beat)
        address = server.sockets[0].getsockname()
        logger.info("event=listening address=%s:%d", address[0], address[1])
        return address[0], address[1]

    def tick(self, now: float) -> None:
        """Do everything that is due at `now`, a time of `Services.clock`. Called once a second."""
        self._too_many.report()
        self._too_many_handshakes.report()
        self._deadlines.expire(now)

    def disconnect_certificate(
        self, certificate_id: str, cause: str = "the certificate may no longer be used"
    ) -> None:
        """Close the connections of a certificate that has lost its rights.

        Their wills are not published: these would be messages in its name.
        """
        for connection in list(self._shared.by_certificate.get(certificate_id, ())):
            connection.fail(Reason.NOT_AUTHORIZED, cause, with_will=False)

    def publish(self, topic: str, payload: bytes) -> None:
        """Bring a message of the service itself to all who subscribe to `topic`, at QoS 1."""
        now = self._services.clock()
        self._router.publish(topic, payload, 1, {}, publisher="", now=now)

    def disconnect_all(self, cause: str = "the registry was emptied") -> None:
        """Close every connection and forget every session."""
        for connection in self._connections():
            connection.fail(Reason.ADMINISTRATIVE_ACTION, cause, with_will=False)
        self._router.clear()

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, let answers in flight leave, then close everything.

        At most `grace` seconds are spent on the answers, and a second on the farewells.
        """
        for server in self._servers:
            server.close()
        connections = self._connections()
        answers = [task for task in (each.stop() for each in connections) if task is not None]
        if answers:
            _, unfinished = await asyncio.wait(answers, timeout=grace)
            for task in unfinished:
                logger.warning("event=answer-given-up after=%gs", grace)
                task.cancel()
        for connection in connections:
            connection.fail(Reason.SERVER_SHUTTING_DOWN, "the server is stopping", with_will=False)
        for tls in [each for each in self._open if each.state is State.HANDSHAKING]:
            tls.abort()
        for seconds in (_FAREWELL, _TICK):
            await self._gone(seconds)
            for tls in list(self._open):
                tls.abort()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    def _ended(self, tls: TlsConnection) -> None:
        self._open.discard(tls)
        self._handshaking.pop(tls, None)
        if not self._open:
            self._empty.set()

    async def _gone(self, seconds: float) -> None:
        """Wait until every connection has ended, but not for ever."""
        if self._open:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)

    def _connections(self) -> list[MqttConnection]:
        return [each for members in self._shared.by_certificate.values() for each in members]

    def _accept(self) -> asyncio.Protocol:
        if len(self._open) >= self._max_connections:
            return self._too_many
        now = self._services.clock()
        if len(self._handshaking) >= self._max_handshakes:
            oldest, since = next(iter(self._handshaking.items()))
            if now - since < _PATIENCE:
                return self._too_many_handshakes
            del self._handshaking[oldest]
            self._too_many_handshakes.count += 1
            self._too_many_handshakes.peer = oldest.peer
            oldest.abort()
        tls = TlsConnection(
            self._context,
            self._start,
            self._ended,
            self._deadlines,
            self._services.clock,
            self._tls_limits,
            self._names,
        )
        self._open.add(tls)
        self._handshaking[tls] = now
        return tls

    def _start(self, tls: TlsConnection) -> MqttConnection:
        self._handshaking.pop(tls, None)
        return MqttConnection(tls, self._shared)

    def _beat(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._beat)
        self.tick(self._services.clock())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("event=defect", exc_info=task.exception())
