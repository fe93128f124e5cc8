"""What the connections of one gateway have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
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

    Those that have to wait get their turn in order. Whoever waits for an operator's code (a hook, a
    certificate provider) steps aside meanwhile: that code has bounds of its own, and however slow
    it is, the devices of other templates go on.
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


@dataclass(slots=True)
class Turn:
    """Wait for one's turn with `async with`: one piece of work after the other."""

    own: asyncio.Semaphore
    of_all: asyncio.Semaphore
    _held: bool = False

    async def __aenter__(self) -> None:
        await self.own.acquire()
        try:
            await self.of_all.acquire()
        except BaseException:
            self.own.release()
            raise
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        if self._held:  # nobody came back to it who was cancelled aside
            self._held = False
            self.of_all.release()
            self.own.release()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Lets others have the turn meanwhile, and waits for it again in the end."""
        await self.__aexit__()
        try:
            yield
        finally:
            await self.__aenter__()


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
