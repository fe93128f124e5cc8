"""What the connections of one gateway have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fleetgate.broker.router import Router
from fleetgate.gateway.services import Services

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection


@dataclass(frozen=True, slots=True)
class Shared:
    """`spawn` runs a coroutine to its end, `by_certificate` finds connections."""

    services: Services
    router: Router
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    connect_timeout: float
    """Seconds from the end of the TLS handshake to the end of admission."""
    by_certificate: dict[str, set[MqttConnection]] = field(default_factory=dict)
