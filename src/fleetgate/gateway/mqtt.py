"""The MQTT door: listeners, the connections behind them, and the second hand that moves them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Final, cast

from OpenSSL import SSL

from fleetgate.broker.deadlines import Deadlines
from fleetgate.broker.router import Router
from fleetgate.broker.session import Limits
from fleetgate.gateway.connection import MqttConnection
from fleetgate.gateway.services import ProvisioningRequest, Reply, Services
from fleetgate.gateway.shared import Shared
from fleetgate.gateway.tls import State, TlsConnection, TlsLimits
from fleetgate.mqtt.reasons import Reason

__all__ = ["Gateway", "ProvisioningRequest", "Reply", "Services"]

logger = logging.getLogger("fleetgate.gateway")

_BACKLOG: Final = 4096
_TICK: Final = 1.0
_FAREWELL: Final = 1.0  # seconds for clients to take the last packet


class _Turned(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        address = transport.get_extra_info("peername")
        logger.warning("event=turned-away peer=%s cause='too many connections'", address)
        cast("asyncio.Transport", transport).abort()


class Gateway:
    """MQTT over TLS for devices.

    `context` comes from `fleetgate.gateway.tls.server_context`. `max_connections` bounds those
    of all listeners together, `connect_timeout` (seconds) the time from the end of the TLS
    handshake to an accepted CONNECT.
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
    ) -> None:
        self._services = services
        self._context = context
        self._tls_limits = tls_limits or TlsLimits()
        self._max_connections = max_connections
        self._deadlines = Deadlines(services.clock())
        self._router = Router(self._deadlines, limits)
        self._shared = Shared(services, self._router, self._spawn, connect_timeout)
        self._servers: list[asyncio.Server] = []
        self._open: set[TlsConnection] = set()
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
        server = await loop.create_server(
            self._accept, host, port, backlog=_BACKLOG, reuse_port=reuse_port or None
        )
        self._servers.append(server)
        if self._timer is None:
            self._timer = loop.call_later(_TICK, self._beat)
        address = server.sockets[0].getsockname()
        logger.info("event=listening address=%s:%d", address[0], address[1])
        return address[0], address[1]

    def tick(self, now: float) -> None:
        """Do everything that is due at `now`, a time of `Services.clock`. Called once a second."""
        self._deadlines.expire(now)

    def disconnect_certificate(
        self, certificate_id: str, cause: str = "the certificate may no longer be used"
    ) -> None:
        """Close the connections of a certificate that has lost its rights.

        Their wills are not published: these would be messages in its name.
        """
        for connection in list(self._shared.by_certificate.get(certificate_id, ())):
            connection.fail(Reason.NOT_AUTHORIZED, cause, with_will=False)

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
            return _Turned()
        tls = TlsConnection(
            self._context,
            self._start,
            self._ended,
            self._deadlines,
            self._services.clock,
            self._tls_limits,
        )
        self._open.add(tls)
        return tls

    def _start(self, tls: TlsConnection) -> MqttConnection:
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
