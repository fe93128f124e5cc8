"""The store on SQLite: one file, one writer, group commit.

Theory of operation. What an operation wants of the store is a plain synchronous function
``fn(tx, ...)``. :meth:`SqliteStore.write` gathers what one turn of the event loop wants written
and hands it to the one writer thread, which runs all jobs that are waiting inside one
transaction, each under a SAVEPOINT of its own: a job that raises is undone alone, and one
``fsync`` pays for the whole batch. A job's result is given back only after the COMMIT that
carries it, so what an answer says is on the disk (WAL, ``synchronous=FULL``) before the answer
leaves. :meth:`SqliteStore.read` runs on the caller's thread on a connection of its own, inside a
read transaction: it sees exactly what has been committed.

A write whose turn has not come within a bound, counted from its arrival, is refused and not carried
out: the disk may hang, or another program (``sqlite3``) may hold the file's lock.

Only one process may own a data directory; an advisory lock on a file beside the database says so.

Source: SQLite documentation, "Write-Ahead Logging", "PRAGMA synchronous", "SAVEPOINT".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store import engine
from fleetgate.store.directory import take
from fleetgate.store.engine import QUEUE, Row, StoreError
from fleetgate.store.schema import MIGRATIONS

log = logging.getLogger("fleetgate.store")

P = ParamSpec("P")
T = TypeVar("T")
_Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]

BATCH = 64
"""Jobs that share one commit, at most."""

PATIENCE = 10.0
"""Seconds that a write waits for its turn at most."""


@dataclass(slots=True, eq=False)
class _Job:
    """What is to be run, whom to tell, and when (monotonic clock) it is too late to begin."""

    fn: Callable[[SqliteTx], Any]
    future: asyncio.Future[Any]
    until: float
    is_begun: bool = False


class SqliteTx:
    """One transaction on SQLite (see :class:`fleetgate.store.engine.Tx`)."""

    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def one(self, sql: str, **params: object) -> Row | None:
        """The first row of the answer, or None."""
        row: Row | None = self._execute(sql, params).fetchone()
        return row

    def all(self, sql: str, **params: object) -> list[Row]:
        """All rows of the answer; the caller bounds them with LIMIT."""
        return self._execute(sql, params).fetchall()

    def run(self, sql: str, **params: object) -> int:
        """Executes a statement; returns how many rows it changed."""
        return self._execute(sql, params).rowcount

    def send(self, sql: str, **params: object) -> None:
        """Executes a statement."""
        self._execute(sql, params)

    def _execute(self, sql: str, params: dict[str, object]) -> sqlite3.Cursor:
        engine.check_values(params)
        try:
            return self._connection.execute(sql, params)
        except UnicodeEncodeError:
            raise engine.not_text(params) from None


class SqliteStore:
    """The registry's store on SQLite (see the module's theory of operation)."""

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        """Opens (and creates or migrates) the database file.

        `patience` is how long a write may wait for its turn, in seconds.
        Raises StoreError when another process holds it, a newer Fleetgate wrote it, or it is no
        database or cannot be opened.
        """
        with contextlib.ExitStack() as undo:
            undo.enter_context(take(path.with_suffix(".lock")))
            try:
                self._write_connection = undo.enter_context(contextlib.closing(_connect(path)))
                _migrate(self._write_connection, path)
                self._read_connection = undo.enter_context(contextlib.closing(_connect(path)))
                self._read_connection.execute("PRAGMA query_only = 1")
            except sqlite3.Error as error:
                raise StoreError(f"the registry `{path}` cannot be opened: {error}") from None
            self._close_files = undo.pop_all().close
        self._read_tx = SqliteTx(self._read_connection)
        self._jobs: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        self._most = QUEUE
        self._patience = patience
        self._beginning = threading.Lock()  # a job is begun or refused, never both
        self._taken_in = self._done = 0  # jobs; each is counted on one thread alone
        self._writer = threading.Thread(target=self._work, name="fleetgate-writer")
        self._writer.start()

    async def write(
        self, fn: Callable[Concatenate[SqliteTx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` as one all-or-nothing, durable transaction; returns its result.

        Raises what `fn` raises (nothing is stored then), or ServiceUnavailableException when
        too many jobs wait, its turn did not come in time, or the file cannot be written.
        """
        loop = asyncio.get_running_loop()
        if self._taken_in - self._done >= self._most:
            raise ServiceUnavailableException(
                f"{self._most} writes are waiting for the disk; try again"
            )
        self._taken_in += 1
        gathered = self._gathered.get(loop)
        if gathered is None:
            gathered = self._gathered[loop] = []
            # the requests that were read in this turn of the loop share a commit
            loop.call_soon(self._hand_over, loop)
        future: asyncio.Future[T] = loop.create_future()
        until = time.monotonic() + self._patience
        job = _Job(lambda tx: fn(tx, *args, **kwargs), future, until)
        gathered.append(job)
        timer = loop.call_later(self._patience, self._expire, job)
        try:
            return await future
        finally:
            timer.cancel()

    async def read(
        self, fn: Callable[Concatenate[SqliteTx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` on a consistent view of what is committed; returns its result."""
        self._read_connection.execute("BEGIN")
        try:
            return fn(self._read_tx, *args, **kwargs)
        finally:
            self._read_connection.execute("COMMIT")

    async def reset(self) -> None:
        """Empties the registry; settings (account, region) stay."""
        await self.write(engine.empty)

    def close(self) -> None:
        """Finishes the jobs that wait, closes the file and gives the directory free."""
        for loop in list(self._gathered):
            self._hand_over(loop)
        self._jobs.put(None)
        self._writer.join()
        self._close_files()

    def _expire(self, job: _Job) -> None:
        """Tells the caller that it is too late, unless the writer is at it."""
        with self._beginning:
            if job.is_begun:
                return
            job.until = 0.0
        if not job.future.done():
            job.future.set_exception(self._too_late())

    def _too_late(self) -> Exception:
        return ServiceUnavailableException(
            f"the write waited {self._patience:g} s for its turn, and nothing of it was done; "
            "try again"
        )

    def _begin(self, jobs: list[_Job]) -> list[_Job]:
        """Those of `jobs` that it is not too late for; the others are refused."""
        now = time.monotonic()
        with self._beginning:
            for job in jobs:
                job.is_begun = job.until > now
        late = [job for job in jobs if not job.is_begun]
        if not late:
            return jobs
        log.error("event=writes-late jobs=%d cause=no turn within %g s", len(late), self._patience)
        _give([(job.future, None, self._too_late()) for job in late])
        return [job for job in jobs if job.is_begun]

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        gathered = self._gathered.pop(loop, None)
        if gathered:
            self._jobs.put(gathered)

    def _work(self) -> None:
        """The writer thread: batches until the closing mark."""
        open_ = True
        while open_:
            handed = self._jobs.get()
            batch = handed or []
            while handed is not None and len(batch) < BATCH:
                try:
                    handed = self._jobs.get_nowait()
                except queue.Empty:
                    break
                batch += handed or []
            open_ = handed is not None
            for start in range(0, len(batch), BATCH):
                if jobs := self._begin(batch[start : start + BATCH]):
                    self._commit(jobs)
            self._done += len(batch)

    def _commit(self, jobs: list[_Job]) -> None:
        """One transaction over `jobs`; futures are resolved after its COMMIT."""
        connection = self._write_connection
        tx = SqliteTx(connection)
        outcomes: list[_Outcome] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in jobs:
                connection.execute("SAVEPOINT job")
                try:
                    outcomes.append((job.future, job.fn(tx), None))
                except Exception as error:
                    connection.execute("ROLLBACK TO job")
                    outcomes.append((job.future, None, error))
                connection.execute("RELEASE job")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # the disk is full, gone or read-only: nothing of the batch is stored, all are told
            log.error("event=commit-failed jobs=%d cause=%s", len(jobs), error)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = ServiceUnavailableException("the registry could not be written")
            outcomes = [(job.future, None, failure) for job in jobs]
        _give(outcomes)


def migrate(path: Path) -> tuple[int, int]:
    """Brings the schema of a file to this release's version; the versions before and after.

    Raises StoreError as :class:`SqliteStore` does.
    """
    with take(path.with_suffix(".lock")):
        try:
            with contextlib.closing(_connect(path)) as connection:
                return _migrate(connection, path), len(MIGRATIONS)
        except sqlite3.Error as error:
            raise StoreError(f"the registry `{path}` cannot be opened: {error}") from None


def _give(outcomes: list[_Outcome]) -> None:
    """Hands results to the event loops.

    One wake-up for each loop: a wake-up for every job would cost more than the job.
    """
    for loop in {future.get_loop() for future, _, _ in outcomes}:
        mine = [outcome for outcome in outcomes if outcome[0].get_loop() is loop]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(outcomes: list[_Outcome]) -> None:
    """Tells those who wait; a caller that has gone away in the meantime is passed over."""
    for future, result, failed in outcomes:
        if future.done():
            continue
        if failed is None:
            future.set_result(result)
        else:
            future.set_exception(failed)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA busy_timeout = 5000")
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> int:
    """Brings the schema to this release's version, in one transaction; the version before."""
    version: int
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(engine.newer(f"`{path}`", version))
    if version < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    return version
