"""What a simulation counted, as tables and as JSON. Pure: times come as arguments, in seconds.

Percentiles are those of the nearest rank: the p-th is the smallest value that p per cent of all do
not exceed. It is always one that was measured; of few values the high ones are the maximum.
Only steps that succeeded count for them: how long a failed one took says more about time-outs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fleetgate.device.errors import NotAuthorized, ProvisioningError, Rejected
from fleetgate.errors import Error

PERCENTILES: Final = (50, 90, 95, 99)
STEPS: Final = ("connect", "create", "register", "reconnect", "publish", "total")
"""In the order of the table; `total` is a whole onboarding, with what is between its steps."""

_NAMED_DEVICES: Final = 5
_BUSY: Final = 0.9
_LATE: Final = 0.1


def percentile(ordered: Sequence[float], p: float) -> float:
    """The `p`-th percentile of `ordered`, which is in ascending order and not empty."""
    if not ordered or not 0 < p <= 100:
        raise ValueError(f"no percentile {p} of {len(ordered)} values")
    return ordered[max(math.ceil(len(ordered) * p / 100), 1) - 1]


def code_of(error: Error) -> str:
    """A short name for what went wrong: the server's codes, or the kind of the error.

    ``429 TooManyRequests``, ``NotAuthorized 0x87 on subscribe``, ``NoAnswer``.
    """
    if isinstance(error, Rejected):
        return f"{error.status_code} {error.error_code}"
    code = type(error).__name__
    if isinstance(error, NotAuthorized) and error.reason_code is not None:
        code += f" {error.reason_code:#04x}"
    if isinstance(error, ProvisioningError) and error.step == "subscribe":
        code += " on subscribe"
    return code


@dataclass(slots=True)
class Failure:
    """How often something went wrong, for the first time with `example` as the message."""

    example: str
    count: int = 0
    devices: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Phase:
    """A part of a simulation: `wanted` devices that do the same thing.

    ``seconds`` is how long it took, ``cpu_seconds`` what this process worked meanwhile, ``late``
    the longest that a device began after its time, because too many others were still under way.
    """

    name: str
    wanted: int
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    late: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[tuple[str, str], Failure] = field(default_factory=dict)

    def took(self, step: str, seconds: float) -> None:
        """A step succeeded."""
        self.steps.setdefault(step, []).append(seconds)

    def failure(self, step: str, error: Error, device: str) -> None:
        """A device could not go on."""
        self.failed += 1
        found = self.failures.setdefault((step, code_of(error)), Failure(error.message))
        found.count += 1
        if len(found.devices) < _NAMED_DEVICES:
            found.devices.append(device)

    @property
    def unfinished(self) -> int:
        """Devices that have not come to an end, because the simulation was interrupted."""
        return self.wanted - self.succeeded - self.failed

    @property
    def rate(self) -> float:
        """Successes per second."""
        return self.succeeded / self.seconds if self.seconds else 0.0

    @property
    def cpu_share(self) -> float:
        """How much of a processor this process used."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Result:
    """A whole simulation."""

    phases: list[Phase] = field(default_factory=list)
    interrupted: bool = False

    @property
    def attempts(self) -> int:
        """Onboardings and reconnects that came to an end."""
        return sum(each.succeeded + each.failed for each in self.phases)

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return sum(each.failed for each in self.phases)


# --- for people ---


def lines(result: Result) -> Iterator[str]:
    """The tables."""
    for phase in result.phases:
        yield from _phase(phase)
        yield ""
    if result.interrupted:
        yield "interrupted: these are the figures until then"


def _phase(phase: Phase) -> Iterator[str]:
    told = [f"{phase.succeeded} succeeded", f"{phase.failed} failed"]
    if phase.unfinished:
        told.append(f"{phase.unfinished} unfinished")
    yield (
        f"{phase.name}: {phase.wanted} devices, {', '.join(told)}, in {phase.seconds:.2f} s: "
        f"{phase.rate:.1f} a second"
    )
    yield from _times(phase)
    yield from _failures(phase)
    if phase.late > _LATE:
        yield (
            f"note: devices began up to {phase.late:.1f} s late: as many as --concurrency allows "
            "were under way, or this machine is too busy"
        )
    if phase.cpu_share > _BUSY:
        yield (
            f"note: this program itself used {phase.cpu_share:.0%} of a processor; the times "
            "include waiting for it, and the server may do more than is seen here"
        )


def _times(phase: Phase) -> Iterator[str]:
    if not phase.steps:
        return
    heads = [*(f"p{p}" for p in PERCENTILES), "max"]
    yield f"  {'step (ms)':<12}{'count':>8}" + "".join(f"{head:>10}" for head in heads)
    for step, times in _ordered(phase):
        values = [*(percentile(times, p) for p in PERCENTILES), times[-1]]
        yield f"  {step:<12}{len(times):>8}" + "".join(f"{1000 * v:>10.1f}" for v in values)


def _failures(phase: Phase) -> Iterator[str]:
    if not phase.failures:
        return
    width = max(len(code) for _step, code in phase.failures)
    yield f"  {'failed at':<12}{'count':>8}  {'code':<{width}}  devices"
    by_count = sorted(phase.failures.items(), key=lambda item: -item[1].count)
    for (step, code), failure in by_count:
        more = ", ..." if failure.count > len(failure.devices) else ""
        devices = ", ".join(failure.devices) + more
        yield f"  {step:<12}{failure.count:>8}  {code:<{width}}  {devices}"
        yield f"    {failure.example}"


def _ordered(phase: Phase) -> Iterator[tuple[str, list[float]]]:
    known = {step: place for place, step in enumerate(STEPS)}
    for step in sorted(phase.steps, key=lambda each: known.get(each, len(known))):
        yield step, sorted(phase.steps[step])


# --- for programs ---


def as_json(result: Result) -> dict[str, Any]:
    """The same as JSON; times in seconds, ``per_second`` counts successes."""
    return {
        "interrupted": result.interrupted,
        "attempts": result.attempts,
        "failed": result.failed,
        "phases": [_phase_as_json(each) for each in result.phases],
    }


def _phase_as_json(phase: Phase) -> dict[str, Any]:
    steps: dict[str, dict[str, float]] = {}
    for step, times in _ordered(phase):
        shown = {f"p{p}": percentile(times, p) for p in PERCENTILES} | {"max": times[-1]}
        rounded = {name: round(value, 6) for name, value in shown.items()}
        steps[step] = {"count": len(times), **rounded}
    return {
        "name": phase.name,
        "devices": phase.wanted,
        "succeeded": phase.succeeded,
        "failed": phase.failed,
        "unfinished": phase.unfinished,
        "seconds": round(phase.seconds, 3),
        "per_second": round(phase.rate, 3),
        "late": round(phase.late, 3),
        "cpu_seconds": round(phase.cpu_seconds, 3),
        "steps": steps,
        "failures": [
            {
                "step": step,
                "code": code,
                "count": failure.count,
                "example": failure.example,
                "devices": failure.devices,
            }
            for (step, code), failure in phase.failures.items()
        ],
    }
