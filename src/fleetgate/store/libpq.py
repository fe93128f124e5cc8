"""One connection to PostgreSQL: statements in, rows out, as few round trips as there can be.

psycopg connects, and libpq as psycopg gives it carries the statements: psycopg's cursors cost as
much CPU again as the statement itself (see ``docs/decisions/0005-postgresql.md``). The connection
is in pipeline mode all the time: what belongs together (BEGIN and the first statement, PREPARE and
the first execution, the last changes and COMMIT) travels in one packet, and each request ends with
a sync.

Waiting is done here, with a limit: a database that went away without a word is noticed.

Source: PostgreSQL documentation, "libpq - Pipeline Mode", "Asynchronous Command Processing".
"""

from __future__ import annotations

import contextlib
import re
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from fleetgate.store.dialect import translate
from fleetgate.store.engine import Row, not_text
from fleetgate.store.target import GIVE_UP, Target, without_password

PREPARED = 500
"""Statements a connection keeps prepared; further ones are planned at each use."""

OLDEST = 130000
"""PostgreSQL 13: the oldest version the statements were made for."""

LOCK_SHARE = 0.05
"""How long a statement waits for a lock that others hold, as a part of what it may take."""

_HOME = (
    "(SELECT CAST(s.nspname AS TEXT) FROM pg_class t JOIN pg_namespace s ON s.oid = t.relnamespace "
    "WHERE t.oid = to_regclass('fleetgate')), CAST(current_schema() AS TEXT)"
)
"""Where the registry is: in the first schema of the search path that has one, else in the first."""

_NO_ROOM = re.compile(
    "too many (?:connections|clients)|connection slots are reserved|no more connections allowed"
)

_LOST_SEVERITIES = (b"FATAL", b"PANIC")


class ConnectionLost(Exception):
    """The connection is gone; what was under way on it may or may not have happened."""


class Refused(Exception):
    """No connection can be had; the message says why, in one line and without a password."""


class Full(Refused):
    """No connection can be had because others, or our own, have all that are allowed.

    SQLSTATE 53300. libpq tells no SQLSTATE of a connection that failed, so it is known by
    PostgreSQL's words (and PgBouncer's); in another language it is a plain `Refused`.
    """


def connect(where: Target) -> Link:
    """A new connection, set up for our transactions. Raises Refused."""
    try:
        connection = psycopg.Connection.connect(where.conninfo, autocommit=True)
    except psycopg.Error as error:
        raise _refused(error, where) from None
    link = Link(connection, where.timeout)
    try:
        _set_up(link, where)
    except (psycopg.Error, ConnectionLost) as error:
        link.close()
        raise _refused(error, where) from None
    except Refused:
        link.close()
        raise
    return link


def _refused(error: Exception, where: Target) -> Refused:
    said = without_password(one_line(error), where)
    if _NO_ROOM.search(said):
        return Full(
            f"no free connection: {said}: raise the limit (of the role, the database or the "
            "server), or lower `database_connections`"
        )
    return Refused(said)


def _set_up(link: Link, where: Target) -> None:
    milliseconds = str(int(where.timeout * 1000))
    limit = Statement(
        "SELECT set_config('statement_timeout', :time, false)", {"time": milliseconds}
    )
    look = Statement(
        "SELECT current_setting('server_encoding'), current_setting('transaction_read_only'), "
        "current_setting('synchronous_commit'), home, quote_ident(home) "
        f"FROM (SELECT COALESCE(NULLIF(CAST(:schema AS TEXT), ''), {_HOME}) AS home) found",
        {"schema": where.schema},
    )
    encoding, read_only, commit, schema, path = link.execute_all([limit, look]).rows[0]
    if link.server_version < OLDEST:
        raise Refused(f"PostgreSQL {OLDEST // 10000} or later is needed")
    if encoding != "UTF8":
        raise Refused(f"the database's encoding is {encoding}, not UTF8")
    if read_only == "on":
        raise Refused("the database cannot be written to (it is a standby, or set to read-only)")
    if schema is None:
        raise Refused("its search_path names no schema that exists")
    link.schema = schema
    settings = {
        # one schema alone: what is locked, created and read is in the same place (ownership.py)
        "search_path": path,
        "lock_timeout": link.lock_timeout,
        "idle_in_transaction_session_timeout": milliseconds,
        # an answer leaves when it is on the disk, whatever the role's own settings say
        "synchronous_commit": "on" if commit == "off" else commit,
        # every statement has its index; reading a whole table would also make each transaction
        # that writes to it a conflict (documentation, "Serializable Isolation Level")
        "enable_seqscan": "off",
        "jit": "off",
        # a server whose machine lost its power holds its claim no longer than two minutes
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "15",
        "tcp_keepalives_count": "4",
    }
    calls = ", ".join(f"set_config('{name}', :{name}, false)" for name in settings)
    link.execute(f"SELECT {calls}", settings)


def one_line(error: Exception) -> str:
    """The message of an error, without line breaks."""
    return " ".join(str(error).split())


@dataclass(frozen=True, slots=True)
class Statement:
    """Our SQL text and its ``:name`` parameters."""

    sql: str
    params: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement gave: its rows, or how many rows it changed, and its command tag."""

    rows: list[Row]
    changed: int
    tag: bytes


@dataclass(slots=True)
class _Prepared:
    name: bytes
    parameters: tuple[str, ...]
    loaders: list[Callable[[bytes], Any]] | None = None


class Link:
    """A connection in pipeline mode. It belongs to one thread at a time."""

    def __init__(self, connection: psycopg.Connection[Any], timeout: float) -> None:
        self._connection = connection
        self.timeout = timeout  # the longest that a statement may take, in seconds
        self.lock_timeout = str(max(10, int(timeout * LOCK_SHARE * 1000)))  # in milliseconds
        self.schema = ""  # where the registry is
        self._timeout = timeout * GIVE_UP
        self._pg = connection.pgconn
        self._pg.enter_pipeline_mode()
        self._poll = select.poll()
        self._poll.register(self._pg.socket, select.POLLIN)
        self._statements: dict[str, _Prepared] = {}
        self._names_given = 0

    @property
    def server_version(self) -> int:
        """E.g. 150004 for PostgreSQL 15.4."""
        return self._pg.server_version

    @property
    def shown(self) -> str:
        """What to call the database: its name, and the host and port that answered."""
        name, host, port = (part.decode() for part in (self._pg.db, self._pg.host, self._pg.port))
        return f"database `{name}` on {host}:{port}"

    @property
    def has_ended(self) -> bool:
        """Whether an unused connection was closed from the other side, as far as one can see.

        Nobody has asked anything: what there is to read is a farewell.
        """
        self._poll.modify(self._pg.socket, select.POLLIN)
        return bool(self._poll.poll(0))

    @property
    def idle(self) -> bool:
        """Whether no transaction is open."""
        return self._pg.transaction_status == pq.TransactionStatus.IDLE

    def execute(self, sql: str, params: Mapping[str, object] | None = None) -> Result:
        """Carries out one statement; see `execute_all`."""
        return self.execute_all([Statement(sql, params or {})])

    def execute_all(self, statements: Sequence[Statement]) -> Result:
        """Carries out statements in one round trip; what the last of them gave.

        Raises psycopg.Error when the database refuses one (those after it are not carried out),
        ConnectionLost when there is no answer any more, InvalidRequestException when a value
        cannot be stored (nothing is carried out).
        """
        encoded = [(each.sql, self._encode(each)) for each in statements]
        # for each answer to come the statement that it says is prepared, or None
        expected = [prepared for sql, values in encoded for prepared in self._send(sql, values)]
        results = self._receive()
        for number, result in enumerate(results):
            if result.status == pq.ExecStatus.FATAL_ERROR:
                for sql in expected[number:]:
                    if sql is not None:
                        del self._statements[sql]
                raise error_from_result(result)
        if len(results) != len(expected):
            raise ConnectionLost("an answer is missing")
        return self._load(encoded[-1][0], results[-1])

    def close(self) -> None:
        """Hangs up."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def _encode(self, statement: Statement) -> list[bytes | None]:
        known = self._statements.get(statement.sql)
        names = known.parameters if known is not None else translate(statement.sql)[1]
        return _encode(names, statement.params)

    def _send(self, sql: str, values: Sequence[bytes | None]) -> Iterator[str | None]:
        """Queues a statement, prepared at its first use."""
        known = self._statements.get(sql)
        try:
            if known is None and len(self._statements) >= PREPARED:
                self._pg.send_query_params(translate(sql)[0].encode(), values)
                yield None
                return
            if known is None:
                text, names = translate(sql)
                self._names_given += 1
                known = _Prepared(b"s%d" % self._names_given, names)
                self._pg.send_prepare(known.name, text.encode())
                self._statements[sql] = known
                yield sql
            self._pg.send_query_prepared(known.name, values)
            yield None
        except psycopg.OperationalError as error:
            raise ConnectionLost(one_line(error)) from None

    def _receive(self) -> list[pq.abc.PGresult]:
        """Sends what is queued and waits for all answers to it."""
        pg = self._pg
        deadline = time.monotonic() + self._timeout
        results: list[pq.abc.PGresult] = []
        ended = False
        try:
            pg.pipeline_sync()
            while pg.flush():
                self._wait(deadline, select.POLLIN | select.POLLOUT)
            while True:
                while pg.is_busy():
                    self._wait(deadline, select.POLLIN)
                result = pg.get_result()
                if result is None:
                    if ended:
                        raise ConnectionLost("the connection was closed")
                    ended = True
                    continue
                ended = False
                if result.status == pq.ExecStatus.PIPELINE_SYNC:
                    return results
                results.append(result)
                if result.status == pq.ExecStatus.FATAL_ERROR and (
                    _severity(result) in _LOST_SEVERITIES or pg.status != pq.ConnStatus.OK
                ):
                    raise ConnectionLost(_message(result))
        except psycopg.OperationalError as error:
            raise ConnectionLost(one_line(error)) from None

    def _wait(self, deadline: float, events: int) -> None:
        self._poll.modify(self._pg.socket, events)
        left = deadline - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise ConnectionLost(f"no answer within {self._timeout:g} s")
        self._pg.consume_input()

    def _load(self, sql: str, result: pq.abc.PGresult) -> Result:
        known = self._statements.get(sql)
        loaders = known.loaders if known is not None else None
        if loaders is None:
            loaders = [_LOADERS.get(result.ftype(n), bytes.decode) for n in range(result.nfields)]
            if known is not None:
                known.loaders = loaders
        get = result.get_value
        rows = [
            tuple(
                None if (value := get(row, column)) is None else load(value)
                for column, load in enumerate(loaders)
            )
            for row in range(result.ntuples)
        ]
        return Result(rows, result.command_tuples or 0, result.command_status or b"")


def _encode(names: Sequence[str], params: Mapping[str, object]) -> list[bytes | None]:
    """Parameters in PostgreSQL's text format, in the order of `names`."""
    values: list[bytes | None] = []
    try:
        for name in names:
            value = params[name]
            if value is None:
                values.append(None)
            elif isinstance(value, str):
                values.append(value.encode())
            elif isinstance(value, int):
                values.append(b"%d" % value)  # a bool is 0 or 1, as on SQLite
            elif isinstance(value, float):
                values.append(repr(value).encode())
            else:
                raise TypeError(f"{name}: a {type(value).__name__} cannot be stored")
    except UnicodeEncodeError:
        raise not_text(params) from None
    return values


def _number(value: bytes) -> int | float:
    return float(value) if b"." in value else int(value)


_LOADERS: Mapping[int, Callable[[bytes], Any]] = {
    16: lambda value: int(value == b"t"),  # boolean: 0 or 1, as on SQLite
    20: int,
    21: int,
    23: int,
    700: float,
    701: float,
    1700: _number,  # the sum of BIGINT is NUMERIC
}
"""From a type's object id (catalogue pg_type) to what makes a value of its text."""


def _severity(result: pq.abc.PGresult) -> bytes | None:
    return result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)


def _message(result: pq.abc.PGresult) -> str:
    return " ".join(result.get_error_message().split())
