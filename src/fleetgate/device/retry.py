"""When something is tried again, and after which pause.

The pauses double and each is multiplied with a random number between 0 and 1, so that a fleet that
failed together does not come back together. Source: AWS Architecture Blog, "Exponential Backoff And
Jitter" (full jitter).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from fleetgate.device.checks import check
from fleetgate.device.errors import BadRequest

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often each step is tried, and how long everything may take.

    `attempts` counts the first one too. After `seconds` nothing is begun again, whatever the
    attempts. The pause before the second attempt is at most `first_pause` seconds, before each
    further one at most twice as long, and never longer than `longest_pause`.
    """

    attempts: int = 5
    seconds: float = 120.0
    first_pause: float = 1.0
    longest_pause: float = 30.0

    def __post_init__(self) -> None:
        """Raises BadRequest for what cannot be."""
        check("attempts", self.attempts, int)
        if self.attempts < 1:
            raise BadRequest(f"a step has to be tried once, not {self.attempts} times")
        for name, most in (("seconds", math.inf), ("first_pause", _DAY), ("longest_pause", _DAY)):
            value = getattr(self, name)
            check(name, value, float)
            if not value >= 0:  # also false for NaN
                raise BadRequest(f"`{name}` is {value!r:.80}, which is less than 0")
            if value > most:
                raise BadRequest(f"`{name}` is {value!r:.80} seconds, which is more than a day")

    def pause(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures (1 on); `chance` is a number from 0 to 1."""
        doubled = self.first_pause * 2.0 ** min(failures - 1, 64)
        return min(self.longest_pause, doubled) * chance


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Clocks, waiting and chance, given as arguments.

    `wall` is in seconds since 1970 and may jump; `monotonic` never goes back.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    chance: Callable[[], float] = random.SystemRandom().random
