"""MQTT sessions: what a client has subscribed to and what still has to reach it.

A session outlives connections (MQTT 5.0 section 4.1). While a connection is attached (`link`),
messages go through `pending` to the link in order; a message of QoS 1 then stays in `inflight`
until it is acknowledged. The link takes a message when it can (the client reads, its receive
maximum is not used up, its policies are known); when it could not, it calls `pump` later.
When the link goes, what is in flight becomes pending again, so a later connection gets it once
more: as a new message with a new packet identifier and without DUP, the way AWS IoT Core does it
(developer guide, "MQTT QoS").

Subscriptions are kept across certificates: AWS IoT binds a session to the client id alone. What
may be delivered is decided at each delivery, by the policies of the connection there is then.

Every queue is bounded by number and bytes, and all of them together by bytes (`Backlog`). When a
bound is passed the oldest pending message is dropped. Wills and topic filters count as bytes, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

logger = logging.getLogger("fleetgate.broker")

_OVERHEAD: Final = 200  # bytes of the objects round a topic filter, roughly

DONE: Final = 0
"""`Link.deliver`: nothing more has to be done about the message."""


@dataclass(frozen=True, slots=True)
class Message:
    """An application message on its way to subscribers.

    `properties` are the MQTT 5 properties that travel with it (section 3.3.2.3). `expires_at`
    is a time of the broker's clock, None for never. `publisher` is a client id. `size` counts
    bytes for the bounds of queues.
    """

    topic: str
    payload: bytes
    properties: Mapping[str, Any]
    expires_at: float | None
    publisher: str
    size: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A subscription's options: the granted QoS (0 or 1) and No Local (MQTT 5.0 3.8.3.1)."""

    qos: int
    no_local: bool = False


@dataclass(frozen=True, slots=True)
class Will:
    """A will in waiting: seconds of delay, and what publishes it (permissions included).

    `size` counts bytes for the bounds of sessions.
    """

    delay: float
    release: Callable[[], None]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the broker."""

    queued_messages: int = 1000
    """Waiting for one session, in flight ones included."""
    queued_bytes: int = 1 << 20
    """The same in bytes."""
    all_queued_bytes: int = 1 << 28
    """Of all sessions together."""
    offline_sessions: int = 100_000
    """Persistent sessions without a connection."""
    offline_sessions_of_one: int = 1000
    """The same of one certificate, which may be that of a whole series of devices."""
    remembered_versions: int = 100_000
    """Client ids without a connection or session whose version number is known for an hour."""


class Link(Protocol):
    """The connection of a session."""

    @property
    def congested(self) -> bool:
        """The client does not read; messages of QoS 0 are dropped."""

    def deliver(self, message: Message, qos: int) -> int | None:
        """Send `message`: its packet identifier when it is to be acknowledged, `DONE` when
        nothing follows (QoS 0, or the client may not have it), None when that is not possible
        now; then `Session.pump` is called as soon as it is. Must not close the link."""

    def taken_over(self) -> None:
        """Another connection has the session now. Close."""


class Backlog:
    """The bytes all sessions together keep for later."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Session:
    """One client's session; see the module. Made and ended by the `Router`.

    `expiry_interval` is how long it lives without a connection, in seconds. `owner` is the
    certificate id of the connection it has or had last, `version` the number of that connection
    among those of the client id (see `fleetgate.broker.versions`).
    """

    __slots__ = (
        "_backlog",
        "_bytes",
        "_dropped",
        "_due",
        "_limits",
        "_will",
        "bucket",
        "client_id",
        "expires_at",
        "expiry_interval",
        "filters",
        "inflight",
        "link",
        "owner",
        "pending",
        "version",
        "will_at",
    )

    def __init__(
        self,
        client_id: str,
        limits: Limits,
        backlog: Backlog,
        due: Callable[[Session, float], float | None],
    ) -> None:
        self._backlog = backlog
        self._bytes = 0
        self._dropped = 0
        self._due = due
        self._limits = limits
        self.bucket: int | None = None
        self.client_id = client_id
        self.expires_at: float | None = None
        self.expiry_interval = 0.0
        self.filters: dict[str, Granted] = {}
        self.inflight: dict[int, Message] = {}
        self.link: Link | None = None
        self.owner = ""
        # Nearly always empty, and an empty deque takes 700 bytes more.
        self.pending: list[tuple[Message, int]] = []
        self.version = 0
        self._will: Will | None = None
        self.will_at: float | None = None

    def due(self, now: float) -> float | None:
        """See `fleetgate.broker.deadlines.Waiting`."""
        return self._due(self, now)

    @property
    def will(self) -> Will | None:
        """What is published when the client does not come back."""
        return self._will

    @will.setter
    def will(self, will: Will | None) -> None:
        for changed, sign in ((self._will, -1), (will, 1)):
            if changed is not None:
                self._charge(sign * changed.size)
        self._will = will

    def subscribe(self, topic_filter: str, granted: Granted) -> None:
        """Keep a subscription, or change its options."""
        if topic_filter not in self.filters:
            self._charge(_OVERHEAD + len(topic_filter))
        self.filters[topic_filter] = granted

    def unsubscribe(self, topic_filter: str) -> bool:
        """Forget a subscription. False when there was none."""
        if self.filters.pop(topic_filter, None) is None:
            return False
        self._charge(-_OVERHEAD - len(topic_filter))
        return True

    def offer(self, message: Message, qos: int, now: float) -> None:
        """Bring `message` to the client at `qos`, now or later."""
        link = self.link
        if qos == 0 and (link is None or link.congested):
            return
        self.pending.append((message, qos))
        self._charge(message.size)
        if link is not None:
            self.pump(now)
        self._bound()

    def pump(self, now: float) -> None:
        """Hand pending messages to the link until it takes no more."""
        pending = self.pending
        while pending and self.link is not None:
            message, qos = pending[0]
            expired = message.expires_at is not None and message.expires_at <= now
            packet_id = DONE if expired else self.link.deliver(message, qos)
            if packet_id is None:
                return
            del pending[0]
            if packet_id == DONE:
                self._charge(-message.size)
            else:
                self.inflight[packet_id] = message

    def acknowledge(self, packet_id: int) -> bool:
        """The client has the message `packet_id`. False when it is not one of the session's."""
        message = self.inflight.pop(packet_id, None)
        if message is None:
            return False
        self._charge(-message.size)
        return True

    def detach(self) -> None:
        """The link is gone: what it left unacknowledged comes first next time."""
        self.link = None
        self.pending[:0] = [(message, 1) for message in self.inflight.values()]
        self.inflight.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.filters.clear()
        self._will = None
        self.pending.clear()
        self.inflight.clear()
        self._charge(-self._bytes)

    def _charge(self, size: int) -> None:
        self._bytes += size
        self._backlog.used += size

    def _bound(self) -> None:
        limits = self._limits
        pending = self.pending
        while pending and (
            len(pending) + len(self.inflight) > limits.queued_messages
            or self._bytes > limits.queued_bytes
            or self._backlog.used > self._backlog.limit
        ):
            message, _ = pending.pop(0)
            self._charge(-message.size)
            self._dropped += 1
            if self._dropped & (self._dropped - 1) == 0:  # 1, 2, 4, 8 ...: a line, not a flood
                logger.warning(
                    "event=queue-full client=%r dropped=%d",
                    self.client_id,
                    self._dropped,
                )
