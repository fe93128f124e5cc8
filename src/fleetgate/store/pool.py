"""Threads with a connection to PostgreSQL each, which work off one queue of jobs.

A thread takes a job when it has a connection. One without tries to get one when jobs wait that
nobody is free for, and leaves the jobs to the others meanwhile: a database that allows fewer
connections than there are threads is served by as many as it allows. Only when no thread has a
connection does one take a job without; if it gets none either, the caller is told.

A job waits for its turn no longer than a bound counted from its arrival; then the caller is told,
and it is not carried out afterwards. One that meets a lock that others hold in the database is put
off after a moment, behind those that wait: its connection is theirs meanwhile, and they may want
other tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store.dialler import FULL, Dialler
from fleetgate.store.engine import QUEUE
from fleetgate.store.libpq import ConnectionLost, Link
from fleetgate.store.transaction import PostgresTx
from fleetgate.store.turns import Turns

log = logging.getLogger("fleetgate.store")

BUSY = "the database cannot do this now; try again"

WORD_INTERVAL = 1.0
"""Seconds between two lines of the log that say that jobs got no turn in time."""

_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


@dataclass(slots=True, eq=False)
class Job:
    """What is to be run, whom to tell, and when (monotonic clock) it is too late to begin.

    `blocked` says why it was put off, in the database's words; empty: it was not.
    """

    fn: Callable[[PostgresTx], Any]
    future: asyncio.Future[Any]
    until: float
    blocked: str = ""


class _Turn(Enum):
    """What a thread does that has no job."""

    GROW = "get a connection"
    END = "end"


class Pool:
    """Threads that work off one queue of jobs (see the module's text)."""

    def __init__(
        self,
        work: Callable[[Line, Job], None],
        dialler: Dialler,
        size: int,
        first: Link,
        patience: float,
    ) -> None:
        """Starts `size` threads; one has the connection `first`. `work` carries out one job.

        `patience` is how long a job may wait for its turn, in seconds.
        """
        self.most = QUEUE
        self._patience = patience
        self._next_word = 0.0
        self.other: Pool | None = None
        """Who gives up a connection when this pool has none and none is to be had."""
        self._work = work
        self._dialler = dialler
        self._jobs: deque[Job] = deque()
        self._lock = threading.Lock()
        self._called = threading.Condition(self._lock)  # threads with a connection wait for it
        self._needed = threading.Condition(self._lock)  # those without
        self._idle = 0  # threads that wait for `_called` and have not been called yet
        self._connected: set[Line] = set()
        self._one_too_many = False
        self._closed = False
        self._results = _Results()
        turns = Turns()
        lines = [Line(self, dialler, turns, self._results) for _ in range(size)]
        lines[0].take(first)
        self._threads = [
            threading.Thread(target=self._run, args=(line,), name=f"fleetgate{work.__name__}r")
            for line in lines
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, fn: Callable[[PostgresTx], Any]) -> Any:
        """Has `fn` run by one of the threads; its result.

        Raises ServiceUnavailableException when it got no turn in time, or too many jobs wait.
        """
        loop = asyncio.get_running_loop()
        job = Job(fn, loop.create_future(), time.monotonic() + self._patience)
        with self._lock:
            if len(self._jobs) >= self.most:
                raise ServiceUnavailableException(
                    f"{self.most} jobs are waiting for the database; try again"
                )
            self._jobs.append(job)
            self._call()
        timer = loop.call_later(self._patience, self._expire, job)
        try:
            return await job.future
        finally:
            timer.cancel()

    def give_back(self, job: Job) -> bool:
        """Leaves a job to those who have a connection; False when nobody has."""
        with self._lock:
            if self._connected:
                self._jobs.appendleft(job)
                self._call()
                return True
        if self.other is not None:
            self.other.give_up_one()
        return False

    def put_off(self, job: Job) -> None:
        """Has a job wait behind the others for its next attempt."""
        with self._lock:
            if job.until <= time.monotonic():
                self._refuse(job)
            else:
                self._jobs.append(job)
                self._call()

    def give_up_one(self) -> None:
        """Hangs up one connection, when that leaves another."""
        with self._lock:
            self._one_too_many = True
            self._call()

    def joined(self, line: Line) -> None:
        """A thread has got its connection."""
        with self._lock:
            self._connected.add(line)
            self._one_too_many = False

    def left(self, line: Line) -> None:
        """A thread has lost it."""
        with self._lock:
            self._connected.discard(line)
            if not self._connected:
                self._needed.notify_all()

    def close(self) -> None:
        """Finishes the jobs that wait and hangs up."""
        with self._lock:
            self._closed = True
            self._idle = 0
            self._called.notify_all()
            self._needed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def is_connected(self) -> bool:
        """Whether any of the threads has a connection."""
        return bool(self._connected)

    @property
    def _may_grow(self) -> bool:
        """Whether one more connection may be tried: not the one that the other pool lacks."""
        return self._dialler.may_grow and (self.other is None or self.other.is_connected)

    def _expire(self, job: Job) -> None:
        """Tells the caller that it is too late, unless a thread is at it."""
        with self._lock, contextlib.suppress(ValueError):
            self._jobs.remove(job)  # it is among the first
            self._refuse(job)

    def _refuse(self, job: Job) -> None:
        if job.blocked:
            log.error("event=database-failure state=55P03 cause=%s", job.blocked)
            text = BUSY
        else:
            text = (
                f"the request waited {self._patience:g} s for its turn at the database, "
                "and nothing of it was done; try again"
            )
            now = time.monotonic()
            if now >= self._next_word:
                self._next_word = now + WORD_INTERVAL
                log.error(
                    "event=database-busy waiting=%d cause=no connection was free within %g s",
                    len(self._jobs) + 1,
                    self._patience,
                )
        self._results.give(job.future, None, ServiceUnavailableException(text))

    def _call(self) -> None:
        """Wakes one thread up for a job."""
        if self._idle:
            self._idle -= 1
            self._called.notify()
        elif not self._connected or self._may_grow:
            self._needed.notify()

    def _run(self, line: Line) -> None:
        while (turn := self._next(line)) is not _Turn.END:
            if turn is _Turn.GROW:
                line.grow()
            else:
                self._work(line, turn)
        line.drop()

    def _next(self, line: Line) -> Job | _Turn:
        """Waits for something to do."""
        with self._lock:
            while True:
                connected = line in self._connected
                if connected and self._one_too_many and len(self._connected) > 1:
                    self._one_too_many = False
                    self._connected.discard(line)
                    line.hang_up()
                    continue
                if self._jobs and (connected or not self._connected):
                    job = self._jobs.popleft()
                    if job.until > time.monotonic():
                        return job
                    self._refuse(job)  # the loop has not come to it
                    continue
                if self._closed:
                    # from now on nobody counts on this thread
                    self._connected.discard(line)
                    return _Turn.END
                if connected:
                    self._idle += 1
                    self._called.wait()
                elif self._jobs and self._may_grow:
                    return _Turn.GROW
                else:
                    self._needed.wait()


class Line:
    """What a thread works with: its connection, while it has one."""

    def __init__(self, pool: Pool, dialler: Dialler, turns: Turns, results: _Results) -> None:
        self._pool = pool
        self._dialler = dialler
        self._link: Link | None = None
        self.turns = turns
        self.results = results

    def link(self) -> Link:
        """The connection.

        Raises ServiceUnavailableException when there is none to be had, Full when that is
        because of the number there are.
        """
        link = self._link
        if link is not None and link.has_ended:
            self.drop()  # seen now, it costs nothing; seen at COMMIT, the outcome is unknown
            link = None
        if link is None:
            link = self._dialler.dial()
            self.take(link)
        return link

    def grow(self) -> None:
        """Gets a connection if there is one to be had."""
        link = self._dialler.further()
        if link is not None:
            self.take(link)

    def take(self, link: Link) -> None:
        """Works with this connection from now on."""
        self._link = link
        self._pool.joined(self)

    def pass_on(self, job: Job) -> None:
        """Leaves a job to another thread that has a connection; if none has, it has failed."""
        if not self._pool.give_back(job):
            self.results.give(job.future, None, ServiceUnavailableException(FULL))

    def put_off(self, job: Job, blocked: str = "") -> None:
        """Has a job wait behind the others; `blocked` says which lock was in its way."""
        job.blocked = blocked or job.blocked
        self._pool.put_off(job)

    def drop(self) -> None:
        """Hangs up."""
        self.hang_up()
        self._pool.left(self)

    def hang_up(self) -> None:
        """Hangs up, and leaves it to the caller to tell the pool."""
        if self._link is not None:
            self._link.close()
        self._link = None

    def undo(self, tx: PostgresTx) -> None:
        """Rolls a transaction back."""
        self._end(tx.rollback)

    def finish(self, tx: PostgresTx) -> None:
        """Ends a transaction that changed nothing."""
        self._end(tx.commit)

    def _end(self, how: Callable[[], None]) -> None:
        try:
            how()
        except (ConnectionLost, psycopg.Error):  # a connection that cannot even do that is no use
            self.drop()


class _Results:
    """Hands results to the event loops; those that are ready together share one wake-up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}

    def give(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        """Resolves a future in its loop."""
        loop = future.get_loop()
        with self._lock:
            waiting = self._ready.setdefault(loop, [])
            waiting.append((future, result, error))
            if len(waiting) > 1:
                return  # it has been woken up already
        try:
            loop.call_soon_threadsafe(self._resolve, loop)
        except RuntimeError:  # the loop is closed: nobody waits any more
            with self._lock:
                self._ready.pop(loop, None)

    def _resolve(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            outcomes = self._ready.pop(loop, [])
        for future, result, error in outcomes:
            if future.done():  # a caller that has gone away in the meantime
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
