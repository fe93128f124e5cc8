"""The processes of one function.

Theory of operation. A process works on one event at a time and stays for the next. An event is
given to a process that is idle, the one used last, so that those too many become superfluous and
end. Without one it waits in line while processes are started, up to the function's concurrency;
the line is bounded. Waiting counts towards the time the caller has. A process whose run was
abandoned, timed out or crashed is ended, with everything it started; one that is still being
started when nobody waits for it any more stays for the next event, or a function that takes long
to start would never be ready.

A function that cannot be started fails everybody in line, and again whoever asks within a moment:
a fleet of devices at a broken function does not start a process each.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fleetgate.functions.process import NotStarted, NotTaken, Process
from fleetgate.functions.program import Program
from fleetgate.functions.surroundings import House
from fleetgate.functions.target import Failure, FunctionError, Run

log = logging.getLogger("fleetgate.functions")

IDLE_SECONDS: Final = 300.0
"""A process without an event for so long ends."""

MAX_WAITING: Final = 1000
MAX_WAITING_BYTES: Final = 64 << 20
"""Events in line, and their size."""

PAUSE_SECONDS: Final = 1.0
"""After a start that failed, if no process is there."""

STARTS_AT_ONCE: Final = 2
"""Processes of one function that start at the same time. Ten, each 0.1 s of CPU, are felt by
devices that do not wait for this function."""

_warned: set[str] = set()


class Pool:
    """A Target that runs a Program in processes of its own."""

    def __init__(
        self,
        program: Program,
        house: House | None = None,
        *,
        idle_seconds: float = IDLE_SECONDS,
        max_waiting: int = MAX_WAITING,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.program = program
        self._house = house or House()
        self._idle_seconds = idle_seconds
        self._max_waiting = max_waiting
        self._now = now
        self._processes: set[Process] = set()  # all, those that are ending too
        self._idle: dict[Process, asyncio.TimerHandle] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._ending: dict[Process, asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[Process]] = deque()
        self._waiting_bytes = 0
        self._failure: tuple[float, NotStarted] | None = None
        self._full_at = 0.0
        """When all processes there may be were last seen to be there."""
        self._runs = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closed = False

    @property
    def description(self) -> str:
        """What is told to operators."""
        return self.program.description

    @property
    def processes(self) -> int:
        """How many processes there are."""
        return len(self._processes)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing runs or waits."""
        return self._quiet.is_set()

    @property
    def pids(self) -> set[int]:
        """The numbers of the runtimes' processes that began."""
        return {each.pid for each in self._processes if each.pid is not None}

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        """Runs the function on an event; see Target."""
        end = asyncio.get_running_loop().time() + seconds
        self._runs += 1
        self._quiet.clear()
        try:
            while True:
                process = await self._take(end, len(event))
                try:
                    return await self._run(process, event, request_id, end)
                except NotTaken:
                    continue
        except NotStarted as failure:
            answer = failure.answer
            if not isinstance(answer, FunctionError):
                return answer(request_id)
            raise FunctionError(answer.kind, answer.message) from None
        finally:
            self._runs -= 1
            if not self._runs:
                self._quiet.set()

    async def drain(self) -> None:
        """Ends when what runs and waits has come to an end; there should be nothing new."""
        await self._quiet.wait()
        await self.close()

    async def close(self) -> None:
        """Ends all processes, and what runs in them."""
        self._closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(NotStarted(self._error(Failure.NOT_STARTED, "it was ended")))
        starting = list(self._starting)
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        for process in list(self._processes):
            self._end(process)
        while self._ending:
            await asyncio.gather(*self._ending.values(), return_exceptions=True)

    # --- giving out processes ---------------------------------------------------------------------

    async def _run(self, process: Process, event: bytes, request_id: str, end: float) -> Run:
        seconds = end - asyncio.get_running_loop().time()
        try:
            return await process.run(event, request_id=request_id, seconds=seconds, now=self._now())
        finally:
            self._give_back(process)

    async def _take(self, end: float, size: int) -> Process:
        """An idle process, or the next that is free; raises FunctionError and NotStarted."""
        if self._closed:
            raise self._error(Failure.NOT_STARTED, "it was ended")
        if self._idle:
            process, timer = self._idle.popitem()
            timer.cancel()
            return process
        self._raise_recent_failure()
        if len(self._waiting) >= self._max_waiting:
            rule = f"{len(self._waiting)} events wait already; the limit is {self._max_waiting}"
            raise self._error(Failure.THROTTLED, rule)
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            rule = f"events of {self._waiting_bytes} bytes wait; the limit is {MAX_WAITING_BYTES}"
            raise self._error(Failure.THROTTLED, rule)
        waiter: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._waiting_bytes += size
        since = asyncio.get_running_loop().time()
        self._note_full()
        self._start_more()
        try:
            async with asyncio.timeout_at(end):
                return await waiter
        except BaseException as error:
            # it may have been given one in the very moment
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_back(waiter.result())
            if isinstance(error, TimeoutError):
                raise self._too_late(since) from None
            raise
        finally:
            self._waiting_bytes -= size
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _note_full(self) -> None:
        if len(self._processes) - len(self._starting) >= self.program.concurrency:
            self._full_at = asyncio.get_running_loop().time()

    def _too_late(self, since: float) -> FunctionError:
        """Why an event that waited from `since` to the end of its time was given no process."""
        most = self.program.concurrency
        if self._full_at < since:
            rule = f"no process was started in time; {len(self._starting)} are being started"
            return self._error(Failure.TIMED_OUT, f"{rule}, there may be {most}")
        return self._error(Failure.THROTTLED, f"no process was free in time; there may be {most}")

    def _give_back(self, process: Process) -> None:
        if self._closed or not process.usable or process not in self._processes:
            self._end(process)
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(process)
                return
        loop = asyncio.get_running_loop()
        self._idle[process] = loop.call_later(self._idle_seconds, self._end, process)

    def _end(self, process: Process) -> None:
        """Ends a process in the background."""
        timer = self._idle.pop(process, None)
        if timer is not None:
            timer.cancel()
        if process in self._processes and process not in self._ending:
            self._ending[process] = asyncio.create_task(self._ended(process))

    async def _ended(self, process: Process) -> None:
        try:
            await process.end()
        finally:
            self._processes.discard(process)
            del self._ending[process]
            self._start_more()

    # --- starting ---------------------------------------------------------------------------------

    def _start_more(self) -> None:
        if self._closed:
            return
        room = self.program.concurrency - len(self._processes)
        at_once = STARTS_AT_ONCE if self._failure is None else 1
        room = min(room, at_once - len(self._starting))
        for _ in range(min(room, len(self._waiting) - len(self._starting))):
            process = Process(self.program, self._house, _stream(self._now()))
            self._processes.add(process)
            task = asyncio.create_task(self._start(process))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, process: Process) -> None:
        began = time.monotonic()
        try:
            await process.start(_temporary(), self._lacks)
        except NotStarted as failure:
            self._starting.discard(_this_task())
            self._end(process)
            self._start_failed(failure)
        except OSError as error:
            self._starting.discard(_this_task())
            self._end(process)
            why = f"cannot be started: {error}"
            self._start_failed(NotStarted(self._error(Failure.NOT_STARTED, why)))
        else:
            self._starting.discard(_this_task())
            self._failure = None
            self._note_full()
            log.info(
                "event=function-started function=%s target=%r processes=%d seconds=%.3f",
                self.program.name,
                self.description,
                len(self._processes),
                time.monotonic() - began,
            )
            process.ended.add_done_callback(lambda _: self._end(process))
            self._give_back(process)
            self._start_more()

    def _start_failed(self, failure: NotStarted) -> None:
        answer = failure.answer
        log.warning(
            "event=function-not-started function=%s target=%r cause=%r",
            self.program.name,
            self.description,
            _excerpt(answer if isinstance(answer, FunctionError) else answer("-")),
        )
        self._failure = (asyncio.get_running_loop().time(), failure)
        if self._idle or len(self._processes) - len(self._starting) > len(self._ending):
            # others are at work, those in line wait for them
            waiters = [self._waiting.popleft()] if self._waiting else []
        else:
            waiters = list(self._waiting)
            self._waiting.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(failure)

    def _raise_recent_failure(self) -> None:
        if self._failure is None or self._starting or len(self._processes) > len(self._ending):
            return
        at, failure = self._failure
        if asyncio.get_running_loop().time() < at + PAUSE_SECONDS:
            raise failure

    def _lacks(self, missing: str) -> None:
        name = self.program.name
        if name not in _warned:
            _warned.add(name)
            log.warning(
                "event=function-not-confined function=%s missing=%s cause='the kernel does not "
                "offer it, or not here: %s'",
                *(name, missing, _consequence(missing)),
            )

    def _error(self, kind: Failure, rule: str) -> FunctionError:
        return FunctionError(kind, f"function `{self.program.name}` ({self.description}): {rule}")


def _consequence(missing: str) -> str:
    words = missing.split(",")
    if "landlock" in words or "seccomp" in words:
        return "the code of this function can reach what the server can"
    return "the code of this function can take and disturb more than it should"


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="fleetgate-function-")).resolve()


def _stream(now: float) -> str:
    """The name of a log stream, as Lambda makes them."""
    return f"{time.strftime('%Y/%m/%d', time.gmtime(now))}/[$LATEST]{secrets.token_hex(16)}"


def _excerpt(answer: Run | FunctionError) -> str:
    if isinstance(answer, FunctionError):
        return answer.message
    return answer.payload[:500].decode(errors="replace")


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - only tasks ask
    return task
