"""One timer for everything that waits: connections, sessions, wills.

Each waiting object lies in the bucket of the second in which it wants to be looked at. Once a
second `expire` takes the buckets that have come and asks every object in them what to do; the
answer is the next time to look, or None. An object whose deadline moves on with every packet
(keep-alive) is not moved: it is asked at the old time and then names the new one. So a packet
costs nothing here, and an idle device one look per keep-alive period. What waits for days is
asked once an hour, which keeps the number of buckets small.
"""

from __future__ import annotations

import heapq
import logging
import math
from typing import Final, Protocol

logger = logging.getLogger("fleetgate.broker")

_AHEAD: Final = 3600
"""The number of buckets, and so the longest time without a look, in seconds."""


class Waiting(Protocol):
    """An object with a deadline. `bucket` belongs to `Deadlines`; it starts as None."""

    bucket: int | None

    def due(self, now: float) -> float | None:
        """Do what is due at `now`; the time of the next look, or None for never."""
        ...


class Deadlines:
    """Objects by the second of their deadline. Times are seconds of one monotonic clock.

    `now` is the time at the start.
    """

    __slots__ = ("_buckets", "_last", "_order")

    def __init__(self, now: float) -> None:
        self._last = math.ceil(now)
        self._buckets: dict[int, set[Waiting]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        """How many objects wait."""
        return sum(map(len, self._buckets.values()))

    def set(self, waiting: Waiting, at: float) -> None:
        """See to it that `waiting` is asked in the second after `at`, or before that."""
        bucket = min(math.ceil(at), self._last + _AHEAD)
        if waiting.bucket is not None:
            if waiting.bucket <= bucket:
                return
            self._buckets[waiting.bucket].discard(waiting)
        waiting.bucket = bucket
        members = self._buckets.get(bucket)
        if members is None:
            members = self._buckets[bucket] = set()
            heapq.heappush(self._order, bucket)
        members.add(waiting)

    def clear(self, waiting: Waiting) -> None:
        """Forget `waiting`."""
        if waiting.bucket is not None:
            self._buckets[waiting.bucket].discard(waiting)
            waiting.bucket = None

    def expire(self, now: float) -> None:
        """Ask everything whose time has come. Call it about once a second."""
        self._last = math.ceil(now)
        while self._order and self._order[0] <= now:
            # The bucket stays in its place meanwhile: asking one object may clear another.
            members = self._buckets[self._order[0]]
            again: list[tuple[Waiting, float]] = []
            while members:
                waiting = members.pop()
                waiting.bucket = None
                try:
                    at = waiting.due(now)
                except Exception:
                    logger.exception("event=defect")
                    continue
                if at is not None:
                    again.append((waiting, max(at, now + 0.001)))
            del self._buckets[heapq.heappop(self._order)]
            for waiting, at in again:
                self.set(waiting, at)
