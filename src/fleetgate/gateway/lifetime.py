"""How long a connection may go on: until CONNECT, between packets, until its certificate ends."""

from __future__ import annotations

from fleetgate.mqtt.reasons import Reason


class Lifetime:
    """The deadlines of one connection, in seconds of one monotonic clock.

    `heard` is the time of the last bytes from the client.
    """

    __slots__ = ("_connect_by", "_keep_alive", "_valid_until", "heard")

    def __init__(self, now: float, connect_timeout: float) -> None:
        self.heard = now
        self._connect_by = now + connect_timeout
        self._keep_alive: float | None = None
        self._valid_until = 0.0

    def admit(self, keep_alive: float, valid_until: float) -> None:
        """CONNECT is accepted; `valid_until` is the end of the certificate."""
        self._keep_alive = keep_alive
        self._valid_until = valid_until

    @property
    def ends_at(self) -> float:
        """When the connection ends, if nothing more comes."""
        if self._keep_alive is None:
            return self._connect_by
        # MQTT 5.0 section 3.1.2.10: one and a half times the keep-alive interval
        return min(self.heard + 1.5 * self._keep_alive, self._valid_until)

    def is_expired(self, now: float) -> bool:
        """Has the certificate of an admitted client come to its end?"""
        return now >= self._valid_until

    def verdict(self, now: float) -> tuple[Reason, str] | None:
        """Why the connection has to end now, if it has to."""
        if now < self.ends_at:
            return None
        if self._keep_alive is None:
            return Reason.UNSPECIFIED_ERROR, "not connected in time"
        if self.is_expired(now):
            return Reason.NOT_AUTHORIZED, "the certificate has expired"
        return Reason.KEEP_ALIVE_TIMEOUT, "keep-alive timeout"
