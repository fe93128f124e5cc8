"""Who may write beside whom: most writes side by side, one that was in another's way alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class NoTurn(Exception):
    """Those who work on the database beside it have left a write no turn in time."""


class Turns:
    """Lets writes run beside each other, and one alone when that is what it takes.

    `until` is how long to wait for the turn, on the monotonic clock; then NoTurn is raised.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self, until: float) -> Iterator[None]:
        """A turn beside others."""
        with self._changed:
            self._wait(lambda: not self._alone, until)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                if not self._running:
                    self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self, until: float) -> Iterator[None]:
        """A turn with nobody beside."""
        with self._changed:
            self._wait(lambda: not self._alone, until)
            self._alone = True
        try:
            with self._changed:
                self._wait(lambda: not self._running, until)
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    def _wait(self, free: Callable[[], bool], until: float) -> None:
        if not free() and not self._changed.wait_for(free, max(0.0, until - time.monotonic())):
            raise NoTurn
