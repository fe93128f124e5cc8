"""One process of a function: started, given one event after the other, ended.

The server starts a launcher (functions/launcher.py), which confines and starts the runtime, and
ends everything below it. The runtime fetches events from a listener the launcher has for it
(functions/runtime_api.py); between server and launcher they go through a socket of the two
(functions/runtime_link.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fleetgate.functions import removal, surroundings
from fleetgate.functions.output import Output
from fleetgate.functions.program import Program
from fleetgate.functions.runtime_api import described
from fleetgate.functions.runtime_link import Ended, Invocation, Outcome, RuntimeLink
from fleetgate.functions.target import MAX_ANSWER, Failure, FunctionError, Run, Usage

log = logging.getLogger("fleetgate.functions")

INIT_SECONDS: Final = 10.0
"""For a runtime to ask for its first event. Source: Lambda developer guide, "Understanding the
Lambda execution environment lifecycle", Init phase."""

_END_SECONDS: Final = 7.0  # the launcher takes up to 5
UNHANDLED: Final = "Unhandled"


class NotTaken(Exception):
    """The process ended before its runtime took the event: another one may be given it."""


class NotStarted(Exception):
    """The function could not be made ready; `answer` is what a request is told, by its id."""

    def __init__(self, answer: Callable[[str], Run] | FunctionError) -> None:
        super().__init__()
        self.answer = answer


class Process:
    """See the module. `ended` is done when the runtime has ended."""

    def __init__(self, program: Program, house: surroundings.House, stream: str) -> None:
        self._program = program
        self._house = house
        self._stream = stream
        self._link = RuntimeLink(program.name)
        self._output: Output | None = None
        self._launcher: asyncio.subprocess.Process | None = None
        self._temporary: Path | None = None
        self._init_seconds: float | None = None
        """For its start, until a run was told."""
        self.ended = self._link.ended
        self.ended.add_done_callback(self._no_longer_usable)
        self.usable = False

    async def start(self, temporary: Path, missing: Callable[[str], None]) -> None:
        """Starts the process and waits until it asks for an event.

        `temporary` is a directory of its own, which the launcher removes; `missing` is told what
        of the confinement the kernel does not offer. Raises NotStarted.
        """
        self._temporary = temporary
        began = time.monotonic()
        plan = surroundings.plan(self._program, self._house, self._stream, temporary)
        plan |= {"arn": self._program.arn, "max_answer": MAX_ANSWER}
        try:
            reader, writer = await self._launch()
        except OSError as error:
            raise self._not_started(f"{error.strerror}") from None
        self._link.start(reader, writer, plan, missing)
        both: set[asyncio.Future[Any]] = {self._link.ready, self.ended}
        done, _ = await asyncio.wait(
            both,
            timeout=INIT_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._link.ready in done:
            self.usable = not self.ended.done()
            self._init_seconds = time.monotonic() - began
            return
        if self.ended not in done:
            raise self._not_started(f"it asked for no event within {INIT_SECONDS:g} s")
        ended = self.ended.result()
        if ended.failed:
            raise self._not_started(ended.failed)
        said, log = self._link.init_error, self._written()
        usage = self._usage(time.monotonic() - began)

        def answer(request_id: str) -> Run:
            if said is not None:
                return Run(said, UNHANDLED, log, usage=usage)
            return _exit(request_id, ended, log, usage)

        raise NotStarted(answer)

    async def run(self, event: bytes, *, request_id: str, seconds: float, now: float) -> Run:
        """Runs the function on an event.

        `seconds` is all there is; the function's own time-out may be shorter. `now` is the time
        of day, in seconds since 1970. Raises NotTaken and FunctionError(TIMED_OUT). Afterwards
        `usable` says whether there may be another event.
        """
        own = self._program.timeout_seconds
        limit = min(own, seconds)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        invocation = Invocation(request_id, event, now + limit, outcome)
        if self._output is not None:
            self._output.begin(request_id)
        if self.ended.done():
            raise NotTaken
        self.usable = False
        began = time.monotonic()
        self._link.offer(invocation)
        both: set[asyncio.Future[Any]] = {outcome, self.ended}
        await asyncio.wait(both, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if outcome.done():
            self.usable = not self.ended.done()
            answer = outcome.result()
            error = UNHANDLED if answer.failed else ""
            took = time.monotonic() - began
            return Run(answer.payload, error, self._written(), usage=self._usage(took))
        if self.ended.done() and self._link.is_offered:
            raise NotTaken
        if not self.ended.done() and own > seconds:
            raise FunctionError(
                Failure.TIMED_OUT,
                f"function `{self._program.name}` ({self._program.description}) was ended: it did "
                f"not answer within the {seconds:.2f} s that were left",
            )
        usage = self._usage(time.monotonic() - began)
        if self.ended.done():
            return _exit(request_id, self.ended.result(), self._written(), usage)
        words = f"Task timed out after {own:.2f} seconds"
        payload = described("Sandbox.Timedout", f"RequestId: {request_id} Error: {words}")
        cause = f"{_time(now + own)} {request_id} {words}\n\n"
        return Run(payload, UNHANDLED, self._written(), cause, usage)

    async def end(self) -> None:
        """Ends the process and everything it started; its temporary directory is removed."""
        self.usable = False
        await self._link.close()
        if self._launcher is not None:
            try:
                await asyncio.wait_for(self._launcher.wait(), _END_SECONDS)
            except TimeoutError:
                log.error(
                    "event=function-not-ended function=%s pid=%d cause='its processes did not end "
                    "within %g s'",
                    self._program.name,
                    self._launcher.pid,
                    _END_SECONDS,
                )
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._launcher.pid, signal.SIGKILL)
                await self._launcher.wait()
        await self._link.followed()
        if self._output is not None:
            self._output.close()
        if self._temporary is not None:
            await self._remove(self._temporary)

    @property
    def pid(self) -> int | None:
        """The number of the runtime, once it began; in its own eyes it may have another one."""
        return self._link.pid

    async def _remove(self, temporary: Path) -> None:
        """The launcher has done it, as a rule."""
        try:
            await asyncio.to_thread(removal.remove, str(temporary))
        except OSError as error:
            log.error(
                "event=function-directory-not-removed function=%s directory=%s cause='%s'",
                *(self._program.name, temporary, error.strerror),
            )

    def _no_longer_usable(self, _ended: asyncio.Future[Ended]) -> None:
        self.usable = False

    async def _launch(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        here, there = socket.socketpair()
        read_end, write_end = os.pipe()
        try:
            self._output = Output(read_end, self._program.name)
            self._launcher = await asyncio.create_subprocess_exec(
                *surroundings.launcher(),
                stdin=there.fileno(),
                stdout=write_end,
                stderr=write_end,
                env={},
                cwd="/",
                start_new_session=True,
            )
            return await asyncio.open_connection(sock=here)
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
            os.close(write_end)

    def _usage(self, seconds: float) -> Usage:
        """What a run took that ends now. The start of the process is told with its first run."""
        init_seconds, self._init_seconds = self._init_seconds, None
        peak = self.ended.result().peak_kilobytes if self.ended.done() else 0
        if not peak and self._link.pid is not None:
            peak = _peak_kilobytes(self._link.pid)
        used = -(-peak // 1024)
        return Usage(seconds, init_seconds, self._program.memory_megabytes, used)

    def _written(self) -> str:
        return self._output.finish() if self._output is not None else ""

    def _not_started(self, why: str) -> NotStarted:
        return NotStarted(
            FunctionError(
                Failure.NOT_STARTED,
                f"function `{self._program.name}` ({self._program.description}) cannot be "
                f"started: {why}",
            )
        )


def _exit(request_id: str, ended: Ended, log: str, usage: Usage) -> Run:
    """A run whose runtime ended, in Lambda's words."""
    if not ended.words:
        why = "Runtime exited without providing a reason"
    else:
        why = f"Runtime exited with error: {ended.words}"
    words, kind = f"RequestId: {request_id} Error: {why}", "Runtime.ExitError"
    return Run(described(kind, words), UNHANDLED, log, f"{words}\n{kind}\n", usage)


def _peak_kilobytes(pid: int) -> int:
    """The most memory a process had so far; 0 when it is gone. Source: proc_pid_status(5)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
