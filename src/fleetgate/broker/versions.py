"""Version numbers of client ids: which connection of a client id came before which.

The first connection of a client id has version 0, the next one 1 and so on. A client id that has
been away for an hour begins again. Source: AWS IoT developer guide, "Lifecycle events",
versionNumber: grows with each connection of a client id, may skip values, and is reset to 0 for
a client that is not connected for about an hour.

Those who are connected know their number themselves; here are those who have gone, and no more
than `limit` of them. When one of these has to be forgotten before its time, client ids that are
not known begin above its number for the rest of that time: numbers may skip values, but they never
go back within an hour.
"""

from __future__ import annotations

from typing import Final

ABSENCE: Final = 3600.0
"""Seconds after which a client id begins again."""


class Versions:
    """The last versions of client ids that are not connected; see the module.

    Times are seconds of one monotonic clock.
    """

    __slots__ = ("_floor", "_floor_until", "_gone", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._floor = 0
        self._floor_until = 0.0
        # By client id, those that went first in front: the version, and when it is forgotten.
        self._gone: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        """How many client ids are remembered."""
        return len(self._gone)

    def leave(self, client_id: str, version: int, now: float) -> None:
        """The connection `version` of `client_id` has gone, and nothing else remembers it."""
        gone = self._gone
        gone.pop(client_id, None)
        gone[client_id] = (version, now + ABSENCE)
        while gone:
            first = next(iter(gone))
            version, until = gone[first]
            if until > now:
                if len(gone) <= self._limit:
                    return
                self._floor = max(self._floor if now < self._floor_until else 0, version + 1)
                self._floor_until = until
            del gone[first]

    def take(self, client_id: str, now: float) -> int:
        """The version of the next connection of `client_id`, which is there from now on."""
        known = self._gone.pop(client_id, None)
        if known is not None and now < known[1]:
            return known[0] + 1
        return self._floor if now < self._floor_until else 0

    def clear(self) -> None:
        """Forget all of them."""
        self._gone.clear()
        self._floor = 0
        self._floor_until = 0.0
