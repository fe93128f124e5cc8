"""One process of a function: started, given one event after the other, ended.

The server starts a launcher (functions/launcher.py), which confines and starts the runtime, and
ends everything below it. The runtime fetches events from the listener this process has for it
(functions/runtime_api.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetgate.functions import surroundings
from fleetgate.functions.output import Output
from fleetgate.functions.program import Program
from fleetgate.functions.runtime_api import Invocation, Outcome, RuntimeApi, described
from fleetgate.functions.target import Failure, FunctionError, Run

log = logging.getLogger("fleetgate.functions")

INIT_SECONDS: Final = 10.0
"""For a runtime to ask for its first event. Source: Lambda developer guide, "Understanding the
Lambda execution environment lifecycle", Init phase."""

_END_SECONDS: Final = 7.0  # the launcher takes up to 5
UNHANDLED: Final = "Unhandled"


class NotTaken(Exception):
    """The process ended before its runtime took the event: another one may be given it."""


class NotStarted(Exception):
    """The function could not be made ready; `answer` is what whoever waits for it is told."""

    def __init__(self, answer: Run | FunctionError) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, in words of Go's os/exec, which Lambda uses; empty for exit code 0."""

    words: str = ""
    failed: str = ""
    """Why it never began."""


class Process:
    """See the module. `ended` is done when the runtime has ended."""

    def __init__(self, program: Program, house: surroundings.House, stream: str) -> None:
        self._program = program
        self._house = house
        self._stream = stream
        self._api = RuntimeApi(program.name, program.arn)
        self._output: Output | None = None
        self._launcher: asyncio.subprocess.Process | None = None
        self._control: asyncio.StreamWriter | None = None
        self._watching: asyncio.Task[None] | None = None
        self._temporary: Path | None = None
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self.usable = False

    async def start(self, temporary: Path, missing: Callable[[str], None]) -> None:
        """Starts the process and waits until it asks for an event.

        `temporary` is a directory of its own, which the launcher removes; `missing` is told what
        of the confinement the kernel does not offer. Raises NotStarted.
        """
        self._temporary = temporary
        address = await self._api.start()
        plan = surroundings.plan(self._program, self._house, address, self._stream, temporary)
        try:
            reader = await self._launch()
        except OSError as error:
            raise self._not_started(f"{error.strerror}") from None
        assert self._control is not None  # noqa: S101 - _launch has set it
        self._control.write(json.dumps(plan).encode() + b"\n")
        self._watching = asyncio.create_task(self._watch(reader, missing))
        both: set[asyncio.Future[Any]] = {self._api.ready, self.ended}
        done, _ = await asyncio.wait(
            both,
            timeout=INIT_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._api.ready in done:
            self.usable = not self.ended.done()
            return
        if self.ended not in done:
            raise self._not_started(f"it asked for no event within {INIT_SECONDS:g} s")
        ended = self.ended.result()
        if ended.failed:
            raise self._not_started(ended.failed)
        payload = self._api.init_error or _exit_error("-", ended)
        raise NotStarted(Run(payload, UNHANDLED, self._written()))

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
        self._api.offer(invocation)
        both: set[asyncio.Future[Any]] = {outcome, self.ended}
        await asyncio.wait(both, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if outcome.done():
            self.usable = not self.ended.done()
            answer = outcome.result()
            return Run(answer.payload, UNHANDLED if answer.failed else "", self._written())
        if self.ended.done():
            if self._api.is_offered:
                raise NotTaken
            payload = _exit_error(request_id, self.ended.result())
        elif own <= seconds:
            words = f"RequestId: {request_id} Error: Task timed out after {own:.2f} seconds"
            payload = described("Sandbox.Timedout", words)
        else:
            raise FunctionError(
                Failure.TIMED_OUT,
                f"function `{self._program.name}` ({self._program.description}) was ended: it did "
                f"not answer within the {seconds:.2f} s that were left",
            )
        return Run(payload, UNHANDLED, self._written())

    async def end(self) -> None:
        """Ends the process and everything it started; its temporary directory is removed."""
        self.usable = False
        if self._control is not None:
            self._control.close()  # which the launcher takes for the end
            with contextlib.suppress(OSError):
                await self._control.wait_closed()
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
        if self._watching is not None:
            await self._watching
        await self._api.close()
        if self._output is not None:
            self._output.close()
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    async def _launch(self) -> asyncio.StreamReader:
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
            reader, self._control = await asyncio.open_connection(sock=here)
        except BaseException:
            here.close()
            raise
        finally:
            there.close()
            os.close(write_end)
        return reader

    async def _watch(self, reader: asyncio.StreamReader, missing: Callable[[str], None]) -> None:
        """Follows what the launcher says."""
        ended = Ended("signal: killed")  # nobody but the system ends a launcher without a word
        with contextlib.suppress(OSError, ValueError):
            while line := (await reader.readline()).decode(errors="replace").strip():
                word, _, rest = line.partition(" ")
                if word == "started":
                    pid, _, lacking = rest.partition(" ")
                    self._api.pid.set_result(int(pid))
                    if lacking:
                        missing(lacking)
                else:
                    ended = _ended(word, rest)
        self.usable = False
        self.ended.set_result(ended)

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


def _ended(word: str, rest: str) -> Ended:
    if word == "failed":
        return Ended(failed=rest)
    if word == "exited":
        return Ended("" if rest == "0" else f"exit status {rest}")
    if word == "killed":
        name = signal.strsignal(int(rest)) or rest
        return Ended(f"signal: {name.lower()}")
    return Ended("signal: killed")


def _exit_error(request_id: str, ended: Ended) -> bytes:
    """Lambda's words for a runtime that ended."""
    if not ended.words:
        why = "Runtime exited without providing a reason"
    else:
        why = f"Runtime exited with error: {ended.words}"
    return described("Runtime.ExitError", f"RequestId: {request_id} Error: {why}")
