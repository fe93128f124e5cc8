"""What the gateway asks of the rest of the server, and what it hands over.

Everything a connection needs comes in as one `Services` value: functions, no globals. So a test
gives it plain functions, and the gateway never sees the store.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fleetgate.domain.policy import Policies
from fleetgate.names import Account
from fleetgate.operations.identity import Identity, Peer

if TYPE_CHECKING:
    from fleetgate.gateway.faults import Faults

MAX_PAYLOAD: Final = 128 * 1024
"""Bytes of a PUBLISH payload (AWS IoT Core quotas, "Publish request size")."""
MAX_PACKET: Final = 146 * 1024
"""Bytes of any packet (AWS IoT Core quotas, MQTT 5 "Maximum packet size")."""
MAX_CONNECT: Final = 64 * 1024
"""Bytes of CONNECT: little is kept for those who have not shown yet who they are."""
WINDOW: Final = 100
"""Unacknowledged QoS 1 messages in each direction (AWS IoT Core quotas)."""


@dataclass(frozen=True, slots=True)
class ProvisioningRequest:
    """A PUBLISH to one of the topics that the gateway answers itself.

    `aside()` is entered while it waits for somebody else's code, so that others have its turn.
    `peer` is what the network shows of the client. `clock_skew` are seconds by which the clock is
    ahead for this request (gateway/faults.py).
    """

    topic: str
    payload: bytes = field(repr=False)
    client_id: str
    identity: Identity
    aside: Callable[[], AbstractAsyncContextManager[object]] = field(
        default=nullcontext, repr=False, compare=False
    )
    peer: Peer | None = field(default=None, repr=False, compare=False)
    clock_skew: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a `ProvisioningRequest`. The payload may hold a private key: never log it."""

    topic: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Services:
    """The functions behind the gateway.

    `admit` turns a client that connects into its identity, or raises NotAdmitted; a certificate
    that is not known may come to be registered by it. `readmit` does the same for a client that
    has been admitted before, and registers nothing. `policies` gives
    what applies to an identity under a client id and from a peer; it is asked again once
    `policy_epoch` has another value than at the last time. `is_request` says whether a topic
    beginning with ``$`` is answered by `provision`. `faults` are what goes wrong on purpose, None
    but for developers of devices. `clock` is monotonic, `wall` the time of day,
    both in seconds.
    """

    account: Account
    admit: Callable[[Peer], Awaitable[Identity]]
    readmit: Callable[[Peer], Awaitable[Identity]]
    policies: Callable[[Identity, str, Peer], Awaitable[Policies]]
    policy_epoch: Callable[[], int]
    is_request: Callable[[str], bool]
    provision: Callable[[ProvisioningRequest], Awaitable[Reply]]
    faults: Faults | None = None
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
