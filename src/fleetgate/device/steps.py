"""The steps of a journey as its caller sees them: told, timed, and named in errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from fleetgate.device.errors import ProvisioningError, Step

Progress: TypeAlias = Callable[[Step, str], None]
"""Called when a step begins, and before it is tried again, with its name and a sentence."""


class Steps:
    """Times the steps, tells of them, and puts their names on errors."""

    def __init__(self, progress: Progress | None, monotonic: Callable[[], float]) -> None:
        self.seconds: dict[Step, float] = {}
        self._progress = progress
        self._monotonic = monotonic

    @contextmanager
    def __call__(self, step: Step, sentence: str) -> Iterator[None]:
        self.tell(step, sentence)
        begun = self._monotonic()
        try:
            yield
        except ProvisioningError as error:
            error.at(step)
            raise
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + self._monotonic() - begun

    def tell(self, step: Step, sentence: str) -> None:
        """Say something about a step."""
        if self._progress is not None:
            self._progress(step, sentence)
