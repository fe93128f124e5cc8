"""The store on PostgreSQL: writer and reader threads, each with a connection of its own.

Theory of operation. A job waits in the queue of the writers or of the readers; the thread that
takes it runs it as one transaction and hands the result to the event loop, results that are ready
at the same time with one wake-up.

Writes are SERIALIZABLE. The database may refuse one because of another that ran beside it
(serialization failure, deadlock) or because that one inserted the same key first (unique
violation); then nothing of it has happened and it is run again, with no other write of this
process beside it. Reads are REPEATABLE READ, READ ONLY: one consistent view.

A connection that is lost before COMMIT was sent has taken its transaction with it: the job is run
again on a new one. When it is lost while COMMIT is under way nobody knows the outcome: the caller
is told that it failed (ServiceUnavailableException), and nothing is repeated. While the database
is away, jobs fail at once but for one that tries to connect, twice a second at most.

Source: PostgreSQL documentation, "Transaction Isolation", "Serialization Failure Handling".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg import errors

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store import engine, ownership
from fleetgate.store.engine import QUEUE, StoreError
from fleetgate.store.libpq import (
    BEGIN_READ,
    BEGIN_WRITE,
    ConnectionLost,
    Link,
    PostgresTx,
    Refused,
    Target,
    connect,
    one_line,
)
from fleetgate.store.ownership import Overtaken

log = logging.getLogger("fleetgate.store")

P = ParamSpec("P")
T = TypeVar("T")
_Job = tuple[Callable[[PostgresTx], Any], asyncio.Future[Any]]
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]

TRIES = 8
"""How often one job is run at most."""

UNIQUE_TRIES = 3
"""How often after a unique violation: one more explains a race, a third one a defect of ours."""

LOST_TRIES = 3
"""How often when connections are lost."""

PROBE_INTERVAL = 0.5
"""Seconds between two attempts to connect while the database is away."""

_AWAY = "the database cannot be reached; try again later"
_UNKNOWN = "the connection to the database was lost during COMMIT; whether it was stored is unknown"
_BUSY = "the database cannot do this now; try again"

_NOT_NOW = ("08", "25", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that say something about the database and nothing about the statement:
connection, read-only, rolled back, resources, in use, operator, system (documentation, appendix A).
"""


class PostgresStore:
    """The registry's store on PostgreSQL (see the module's theory of operation)."""

    def __init__(
        self, where: Target, connections: int, closed: Callable[[], None] = lambda: None
    ) -> None:
        """Claims the database, gives an empty one its tables, and starts the threads.

        `connections` is the bound on open connections, at least 2; `closed` is called at the end
        of `close`. Raises StoreError when the database is away, in use by another server, or has
        another version's schema.
        """
        owner = secrets.token_hex(16)
        try:
            first = connect(where)
        except Refused as refused:
            raise StoreError(f"{where.shown} cannot be used: {refused}") from None
        try:
            ownership.claim(first, where, owner)
            self._dialler = _Dialler(where, owner)
            writer = self._dialler.dial()  # holds the claim when `first` is gone
        except ServiceUnavailableException as error:
            raise StoreError(f"{where.shown} cannot be used: {error.message}") from None
        finally:
            first.close()
        self._closed = closed
        writers = max(1, connections // 2)
        self._writers = _Pool(_write, self._dialler, writers, [writer])
        self._readers = _Pool(_read, self._dialler, max(1, connections - writers), [])

    async def write(
        self, fn: Callable[Concatenate[PostgresTx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` as one all-or-nothing, durable transaction; returns its result.

        Raises what `fn` raises (nothing is stored then), or ServiceUnavailableException when the
        database is away, too busy or cannot store it, or too many jobs wait.
        """
        result: T = await self._writers.submit(lambda tx: fn(tx, *args, **kwargs))
        return result

    async def read(
        self, fn: Callable[Concatenate[PostgresTx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` on a consistent view of what is committed; returns its result."""
        result: T = await self._readers.submit(lambda tx: fn(tx, *args, **kwargs))
        return result

    async def reset(self) -> None:
        """Empties the registry; settings (account, region) stay."""
        await self.write(engine.empty)

    def close(self) -> None:
        """Finishes the jobs that wait and hangs up."""
        self._writers.close()
        self._readers.close()
        self._closed()


def migrate(where: Target) -> tuple[int, int]:
    """Brings the schema to this release's version; the versions before and after.

    Raises StoreError when the database is away, in use by a server, or has a newer schema.
    """
    try:
        link = connect(where)
    except Refused as refused:
        raise StoreError(f"{where.shown} cannot be used: {refused}") from None
    with contextlib.closing(link):
        return ownership.migrate(link, where)


class _Dialler:
    """Makes connections, and knows while the database is away that there are none to be had."""

    def __init__(self, where: Target, owner: str) -> None:
        self._where = where
        self._owner = owner
        self._away = False
        self._overtaken = ""
        self._next_probe = 0.0
        self._probing = threading.Lock()

    def dial(self) -> Link:
        """A new connection. Raises ServiceUnavailableException when there is none to be had."""
        if self._overtaken:
            raise ServiceUnavailableException(self._overtaken)
        if not self._away:
            return self._connect()
        if not self._probing.acquire(blocking=False):
            raise ServiceUnavailableException(_AWAY)
        try:
            if time.monotonic() < self._next_probe:
                raise ServiceUnavailableException(_AWAY)
            return self._connect()
        finally:
            self._probing.release()

    def _connect(self) -> Link:
        try:
            link = connect(self._where)
            try:
                ownership.rejoin(link, self._owner)
            except BaseException:
                link.close()
                raise
        except Overtaken as error:
            self._overtaken = f"{error}: this server has to be stopped"
            log.critical("event=database-overtaken database=%r cause=%s", self._where.shown, error)
            raise ServiceUnavailableException(self._overtaken) from None
        except (Refused, ConnectionLost, psycopg.Error) as error:
            if not self._away:
                log.error(
                    "event=database-away database=%r cause=%s", self._where.shown, one_line(error)
                )
            self._away = True
            self._next_probe = time.monotonic() + PROBE_INTERVAL
            raise ServiceUnavailableException(_AWAY) from None
        if self._away:
            log.warning("event=database-back database=%r", self._where.shown)
        self._away = False
        return link


class _Again(Exception):
    """Nothing was stored, and another attempt may well succeed; else `failure` is to be told."""

    def __init__(self, failure: Exception, tries: int = TRIES) -> None:
        super().__init__()
        self.failure = failure
        self.tries = tries


class _Pool:
    """Threads that work off one queue of jobs, each on a connection of its own."""

    def __init__(
        self,
        work: Callable[[_Line, _Job], None],
        dialler: _Dialler,
        size: int,
        links: list[Link],
    ) -> None:
        self._jobs: queue.Queue[_Job | None] = queue.Queue(QUEUE)
        self._work = work
        turns, results = _Turns(), _Results()
        lines = [
            _Line(dialler, turns, results, links.pop() if links else None) for _ in range(size)
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(line,), name=f"fleetgate{work.__name__}r")
            for line in lines
        ]
        for thread in self._threads:
            thread.start()

    async def submit(self, fn: Callable[[PostgresTx], Any]) -> Any:
        """Has `fn` run by one of the threads; its result."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            self._jobs.put_nowait((fn, future))
        except queue.Full:
            raise ServiceUnavailableException(
                f"{QUEUE} jobs are waiting for the database; try again"
            ) from None
        return await future

    def close(self) -> None:
        """Finishes the jobs that wait and hangs up."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self, line: _Line) -> None:
        while (job := self._jobs.get()) is not None:
            self._work(line, job)
        line.drop()


class _Line:
    """What a thread works with: its connection, while it has one."""

    def __init__(
        self, dialler: _Dialler, turns: _Turns, results: _Results, link: Link | None
    ) -> None:
        self._dialler = dialler
        self._link = link
        self.turns = turns
        self.results = results

    def link(self) -> Link:
        """The connection. Raises ServiceUnavailableException when there is none to be had."""
        if self._link is not None and self._link.has_ended:
            self.drop()  # seen now, it costs nothing; seen at COMMIT, the outcome is unknown
        if self._link is None:
            self._link = self._dialler.dial()
        return self._link

    def drop(self) -> None:
        """Hangs up."""
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


class _Turns:
    """Lets writes run beside each other, and one alone when that is what it takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """A turn beside others."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                if not self._running:
                    self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A turn with nobody beside."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True
            while self._running:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


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


def _write(line: _Line, job: _Job) -> None:
    """Carries out one write, again when the database asks for it."""
    fn, future = job
    for tries in itertools.count(1):
        try:
            with line.turns.shared() if tries == 1 else line.turns.alone():
                result = _stored(line, fn)
        except _Again as again:
            if tries < again.tries:
                continue
            line.results.give(future, None, again.failure)
        except Exception as error:
            line.results.give(future, None, error)
        else:
            line.results.give(future, result, None)
        return


def _stored(line: _Line, fn: Callable[[PostgresTx], Any]) -> Any:
    """The result of `fn` when its transaction is stored. Raises _Again, or what is to be told."""
    tx = PostgresTx(line.link(), BEGIN_WRITE)
    result = _run(line, tx, fn)
    try:
        tx.commit()
    except ConnectionLost as lost:
        log.error("event=commit-lost cause=%s", lost)
        line.drop()
        raise ServiceUnavailableException(_UNKNOWN) from engine.OutcomeUnknown()
    except psycopg.Error as error:  # it was rolled back
        raise _judged(line, tx, error) from None
    return result


def _read(line: _Line, job: _Job) -> None:
    """Carries out one read, again when its connection turns out to be gone."""
    fn, future = job
    for tries in itertools.count(1):
        try:
            tx = PostgresTx(line.link(), BEGIN_READ)
            result = _run(line, tx, fn)
        except _Again as again:
            if tries < again.tries:
                continue
            line.results.give(future, None, again.failure)
        except Exception as error:
            line.results.give(future, None, error)
        else:
            line.results.give(future, result, None)
            line.finish(tx)
        return


def _run(line: _Line, tx: PostgresTx, fn: Callable[[PostgresTx], Any]) -> Any:
    """The result of `fn`; what it raises undoes the transaction."""
    try:
        result = fn(tx)
    except Exception:
        if tx.failure is None:
            line.undo(tx)
            raise
    if tx.failure is not None:  # whatever `fn` made of it
        raise _judged(line, tx, tx.failure)
    return result


def _judged(line: _Line, tx: PostgresTx, failure: psycopg.Error | ConnectionLost) -> Exception:
    """What the failure of a transaction means; nothing of it is stored."""
    if isinstance(failure, ConnectionLost):
        line.drop()
        return _Again(ServiceUnavailableException(_AWAY), LOST_TRIES)
    line.undo(tx)
    match failure:
        case errors.SerializationFailure() | errors.DeadlockDetected():
            return _Again(ServiceUnavailableException(_BUSY))
        case errors.UniqueViolation():
            return _Again(failure, UNIQUE_TRIES)
    if (failure.sqlstate or "")[:2] in _NOT_NOW:
        log.error("event=database-failure state=%s cause=%s", failure.sqlstate, one_line(failure))
        return ServiceUnavailableException(_BUSY)
    return failure
