"""What was made at some cost and is kept while there is room; what was used last stays longest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import RLock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY = 256
"""What an entry weighs beside what it is made of, in characters."""

SHARE = 8
"""One owner has at most this part of the room, so that nobody drives out all others."""


@dataclass(slots=True)
class Kept(Generic[K, V]):
    """Values by key, with `room` for so many characters of what they were made from.

    May be used by several threads.
    """

    room: int
    _entries: OrderedDict[K, tuple[str, int, V]] = field(default_factory=OrderedDict)
    _of_owner: dict[str, OrderedDict[K, None]] = field(default_factory=dict)
    _weights: dict[str, int] = field(default_factory=dict)
    _weight: int = 0
    _lock: RLock = field(default_factory=RLock)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, None when it is not kept (any more)."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            self._of_owner[found[0]].move_to_end(key)
            return found[2]

    def put(self, key: K, value: V, characters: int, owner: str = "") -> None:
        """Keeps a value that was made from so many characters, in place of the one there is.

        An `owner` has a share of the room; without one all of it may be taken.
        """
        weight = characters + ENTRY
        with self._lock:
            self._drop(key)
            self._entries[key] = owner, weight, value
            self._of_owner.setdefault(owner, OrderedDict())[key] = None
            self._weights[owner] = self._weights.get(owner, 0) + weight
            self._weight += weight
            while owner and self._weights.get(owner, 0) > self.room // SHARE:
                self._drop(next(iter(self._of_owner[owner])))
            while self._weight > self.room:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: K) -> None:
        found = self._entries.pop(key, None)
        if found is None:
            return
        owner, weight, _ = found
        self._weight -= weight
        self._weights[owner] -= weight
        del self._of_owner[owner][key]
        if not self._of_owner[owner]:
            del self._of_owner[owner], self._weights[owner]
