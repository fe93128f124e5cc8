"""The contract between those who invoke a function and those who run it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fleetgate.errors import Error

MAX_ANSWER = 6_291_556
"""Bytes a function may answer. Source: Lambda developer guide, "Lambda quotas", and the wording of
Function.ResponseSizeTooLarge."""

LOG_TAIL = 4096
"""Bytes of the log that come back with an answer. Source: Lambda API reference, Invoke, LogType."""


class Failure(StrEnum):
    """Why a function gave no answer."""

    NO_FUNCTION = "no-function"
    NO_PERMISSION = "no-permission"
    THROTTLED = "throttled"
    TIMED_OUT = "timed-out"
    NOT_STARTED = "not-started"
    UNREACHABLE = "unreachable"
    ADDRESS_REFUSED = "address-refused"
    FAILED = "failed"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"


class FunctionError(Error):
    """A function gave no answer that can be used; the message names function, rule and value.

    `target` is what was to run it, when that is known by whoever has caught it; `run` is the run
    that came to an end, without an answer that can be used.
    """

    def __init__(self, kind: Failure, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.target = ""
        self.run: Run | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run took of its process.

    `seconds` from the event to the answer, `init_seconds` for the start of the process, None where
    it had been started before; megabytes of memory it may use, and has used at most.
    """

    seconds: float
    init_seconds: float | None
    memory_megabytes: int
    used_megabytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a function that came to an end.

    `payload` is its answer, or with `error` (``Unhandled``, as Lambda's X-Amz-Function-Error) the
    JSON object ``{"errorType", "errorMessage", ...}`` Lambda describes it by: an exception, a
    process that ended, the function's own time-out, an answer over MAX_ANSWER. `log` is the end of
    what it wrote, LOG_TAIL bytes at most. `cause` are the lines Lambda's log has for a run that
    was ended from outside, or by its process; `usage` is there for what ran in one.
    """

    payload: bytes
    error: str = ""
    log: str = ""
    cause: str = ""
    usage: Usage | None = None


class Target(Protocol):
    """Something that runs one function."""

    @property
    def description(self) -> str:
        """What is told to operators: ``python:company.hooks:allow``, ``https://...``."""
        ...

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        """Runs the function on an event (JSON).

        `seconds` is all there is, waiting for a free process included; then the run is abandoned
        and its process ended. Raises FunctionError for what did not run to its end: THROTTLED,
        TIMED_OUT, NOT_STARTED, UNREACHABLE, ADDRESS_REFUSED, TOO_LARGE.
        """
        ...

    async def close(self) -> None:
        """Ends what runs."""
        ...
