"""What the connections of one gateway have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

from fleetgate.broker.router import Router
from fleetgate.gateway.services import Services

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection


_AT_ONCE: Final = 256
_AT_ONCE_FOR_ONE: Final = 64


class Turns:
    """How many provisioning requests are carried out at a time: 64 of one certificate, 256 in all.

    Those that have to wait get their turn in order.
    """

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(_AT_ONCE)
        self._of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, certificate_id: str) -> Turn:
        """The turns of one certificate."""
        own = self._of.get(certificate_id)
        if own is None:
            own = self._of[certificate_id] = asyncio.Semaphore(_AT_ONCE_FOR_ONE)
        return Turn(own, self._all)


@dataclass(frozen=True, slots=True)
class Turn:
    """Wait for one's turn with `async with`."""

    own: asyncio.Semaphore
    of_all: asyncio.Semaphore

    async def __aenter__(self) -> None:
        await self.own.acquire()
        try:
            await self.of_all.acquire()
        except BaseException:
            self.own.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.of_all.release()
        self.own.release()


@dataclass(frozen=True, slots=True)
class Shared:
    """`spawn` runs a coroutine to its end, `by_certificate` finds connections."""

    services: Services
    router: Router
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    connect_timeout: float
    """Seconds from the end of the TLS handshake to the end of admission."""
    by_certificate: dict[str, set[MqttConnection]] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)
    """Of provisioning requests."""
