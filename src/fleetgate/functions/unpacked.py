"""How much room unpacked code takes, and which of it was used longest ago."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 2_684_354_560
"""Of all unpacked code, unless told otherwise."""

RECENT_SECONDS: Final = 5.0
"""Code that was asked for so recently is about to be run."""


class Unpacked:
    """The directories with code there are, least recently used ones first."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._places: dict[Path, tuple[int, float]] = {}

    @property
    def bytes(self) -> int:
        """Of all of them together."""
        return sum(size for size, _ in self._places.values())

    def __iter__(self) -> Iterator[Path]:
        return iter(list(self._places))

    def add(self, place: Path, size: int) -> None:
        """There is one more, which is used."""
        self._places[place] = (size, self._now())

    def use(self, place: Path) -> None:
        """It is used."""
        if place in self._places:
            size, _ = self._places.pop(place)
            self._places[place] = (size, self._now())

    def discard(self, place: Path) -> None:
        """It is none any more."""
        self._places.pop(place, None)

    def disused(self) -> list[Path]:
        """Those that were not used recently, the one used longest ago first."""
        recent = self._now() - RECENT_SECONDS
        return [place for place, (_, used) in self._places.items() if used <= recent]


def size_of(directory: Path) -> int:
    """The bytes a directory takes on its disk; blocks."""
    total = 0
    for above, names, files in os.walk(directory):
        for name in (*names, *files):
            total += os.lstat(os.path.join(above, name)).st_blocks * 512  # noqa: PTH118
    return total
