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

A job gets its turn within the time that a statement may take, or its caller is told. A lock that
another session holds ends its attempt after a part of that time (``libpq.LOCK_SHARE``); it is run
again, behind the jobs that wait, until that time has passed since it came. Writes keep no order
among themselves: a caller that wants one waits for the answer before it asks for the next.

Source: PostgreSQL documentation, "Transaction Isolation", "Serialization Failure Handling".
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg import errors

from fleetgate.errors import InvalidRequestException, ServiceUnavailableException
from fleetgate.store import engine, ownership
from fleetgate.store.dialler import AWAY, Dialler
from fleetgate.store.engine import StoreError
from fleetgate.store.libpq import ConnectionLost, Full, Link, Refused, connect, one_line
from fleetgate.store.pool import BUSY, Job, Line, Pool
from fleetgate.store.target import Target
from fleetgate.store.transaction import BEGIN_READ, BEGIN_WRITE, PostgresTx
from fleetgate.store.turns import NoTurn

log = logging.getLogger("fleetgate.store")

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 8
"""How often one job is run at most."""

UNIQUE_TRIES = 3
"""How often after a unique violation: one more explains a race, a third one a defect of ours."""

LOST_TRIES = 3
"""How often when connections are lost."""

_UNKNOWN = "the connection to the database was lost during COMMIT; whether it was stored is unknown"

_NOT_NOW = ("08", "25", "40", "53", "55", "57", "58", "42501")
"""SQLSTATEs, or their classes, that say something about the database and nothing about the
statement: connection, read-only, rolled back, resources, in use, operator, system; a right that was
there at the start (documentation, appendix A).
"""

_TOO_LARGE = "54000"
"""The SQLSTATE of a row that no index page has room for."""


def _say(text: str) -> None:
    log.warning("event=waiting-for-database cause=%s", text)


class PostgresStore:
    """The registry's store on PostgreSQL (see the module's theory of operation)."""

    def __init__(
        self, where: Target, connections: int, closed: Callable[[], None] = lambda: None
    ) -> None:
        """Claims the database, gives an empty one its tables, and starts the threads.

        `connections` is the bound on open connections, at least 2; `closed` is called at the end
        of `close`. Raises StoreError when the database is away, in use by another server, has
        another version's schema or one the role may not use, or allows less than 2 connections.
        """
        owner = secrets.token_hex(16)
        first = _first(where)
        try:
            ownership.claim(first, owner, _say)
            where = replace(where, schema=first.schema)
            second = _second(where, owner)
        except BaseException:
            first.close()
            raise
        self.where = where
        """Which database it is, and which of its schemas."""
        self._closed = closed
        dialler = Dialler(where, owner)
        writers = max(1, connections // 2)
        self._writers = Pool(_write, dialler, writers, first, where.timeout)
        self._readers = Pool(_read, dialler, max(1, connections - writers), second, where.timeout)
        self._writers.other, self._readers.other = self._readers, self._writers

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


def migrate(where: Target, say: Callable[[str], None] = _say) -> tuple[int, int]:
    """Brings the schema to this release's version; the versions before and after.

    `say` is told what is waited for. Raises StoreError when the database is away, in use by a
    server, has a newer schema, or does not let go of a lock.
    """
    with contextlib.closing(_first(where)) as link:
        return ownership.migrate(link, say)


def _first(where: Target) -> Link:
    """A connection at the start; those of a server that was killed are given time to end."""
    until = time.monotonic() + ownership.PATIENCE
    while True:
        try:
            return connect(where)
        except Refused as refused:
            if not isinstance(refused, Full) or time.monotonic() > until:
                raise StoreError(f"{where.shown} cannot be used: {refused}") from None
        time.sleep(0.1)


def _second(where: Target, owner: str) -> Link:
    """The connection beside the first; there is no server with less."""
    try:
        link = _first(where)
    except StoreError as error:
        raise StoreError(
            f"{error.message} (one connection to write and one to read is the least)"
        ) from None
    try:
        ownership.rejoin(link, owner)
    except (Refused, ownership.Overtaken, ConnectionLost, psycopg.Error) as error:
        link.close()
        raise StoreError(f"{where.shown} cannot be used: {one_line(error)}") from None
    return link


class _Blocked(Exception):
    """Nothing was stored, because of a lock that others hold; the message is the database's."""


class _Again(Exception):
    """Nothing was stored, and another attempt may well succeed; else `failure` is to be told."""

    def __init__(self, failure: Exception, tries: int = TRIES) -> None:
        super().__init__()
        self.failure = failure
        self.tries = tries


def _write(line: Line, job: Job) -> None:
    """Carries out one write, again when the database asks for it."""
    future, until = job.future, job.until
    failure: Exception | None = None
    for tries in itertools.count(1):
        try:
            with line.turns.shared(until) if tries == 1 else line.turns.alone(until):
                result = _stored(line, job.fn)
        except _Again as again:
            failure = again.failure
            if tries < again.tries:
                continue
            line.results.give(future, None, failure)
        except NoTurn:
            if failure is None:
                line.put_off(job)
            else:
                line.results.give(future, None, failure)
        except _Blocked as blocked:
            line.put_off(job, str(blocked))
        except Full:
            line.pass_on(job)
        except Exception as error:
            line.results.give(future, None, error)
        else:
            line.results.give(future, result, None)
        return


def _stored(line: Line, fn: Callable[[PostgresTx], Any]) -> Any:
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


def _read(line: Line, job: Job) -> None:
    """Carries out one read, again when its connection turns out to be gone."""
    future = job.future
    for tries in itertools.count(1):
        try:
            tx = PostgresTx(line.link(), BEGIN_READ)
            result = _run(line, tx, job.fn)
        except _Again as again:
            if tries < again.tries:
                continue
            line.results.give(future, None, again.failure)
        except _Blocked as blocked:
            line.put_off(job, str(blocked))
        except Full:
            line.pass_on(job)
        except Exception as error:
            line.results.give(future, None, error)
        else:
            line.results.give(future, result, None)
            line.finish(tx)
        return


def _run(line: Line, tx: PostgresTx, fn: Callable[[PostgresTx], Any]) -> Any:
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


def _judged(line: Line, tx: PostgresTx, failure: psycopg.Error | ConnectionLost) -> Exception:
    """What the failure of a transaction means; nothing of it is stored."""
    if isinstance(failure, ConnectionLost):
        line.drop()
        return _Again(ServiceUnavailableException(AWAY), LOST_TRIES)
    line.undo(tx)
    match failure:
        case errors.SerializationFailure() | errors.DeadlockDetected():
            return _Again(ServiceUnavailableException(BUSY))
        case errors.LockNotAvailable():
            return _Blocked(one_line(failure))
        case errors.UniqueViolation():
            return _Again(failure, UNIQUE_TRIES)
    state = failure.sqlstate or ""
    if state == _TOO_LARGE:
        log.error("event=value-too-long cause=%s", one_line(failure))
        return InvalidRequestException(
            "a name or value in the request is too long for the database to be looked up by"
        )
    if state in _NOT_NOW or state[:2] in _NOT_NOW:
        log.error("event=database-failure state=%s cause=%s", state, one_line(failure))
        return ServiceUnavailableException(BUSY)
    return failure
