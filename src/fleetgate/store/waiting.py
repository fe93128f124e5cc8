"""Waiting for locks that others hold in the database, and saying so."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping

from psycopg import errors

from fleetgate.store.engine import StoreError
from fleetgate.store.libpq import Link, Statement

QUIET = 2.0
"""Seconds after which whoever waits is told what for."""

_TABLE = re.compile(r"\b(?:TABLE|ON|UPDATE)\s+(\w+)")

_USERS = (
    "SELECT DISTINCT l.pid, a.usename, a.application_name "
    "FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
)
_USERS_OF_TABLE = f"{_USERS} AND l.relation = to_regclass(:table) ORDER BY 1 LIMIT 3"
_USERS_OF_ADVISORY = (
    f"{_USERS} AND l.locktype = 'advisory' AND CAST(l.classid AS BIGINT) = :number "
    "ORDER BY 1 LIMIT 3"
)


@contextlib.contextmanager
def waiting(link: Link, say: Callable[[str], None]) -> Iterator[Waiter]:
    """Statements that wait for locks as long as one may take, and tell `say` of it.

    Inside, a lock is asked for again and again, for `QUIET` seconds each: others that want the
    table in the meantime get their turn.
    """
    slice_ = int(min(QUIET, link.timeout * 0.8) * 1000)
    link.execute("SELECT set_config('lock_timeout', :time, false)", {"time": str(slice_)})
    yield Waiter(link, say)
    link.execute("SELECT set_config('lock_timeout', :time, false)", {"time": link.lock_timeout})


class Waiter:
    """Carries out statements on a connection (see `waiting`)."""

    def __init__(self, link: Link, say: Callable[[str], None]) -> None:
        self._link = link
        self._say = say

    def execute(self, sql: str, params: Mapping[str, object] | None = None) -> None:
        """Carries out a statement on a table, in the open transaction or by itself.

        Raises StoreError when the lock is not to be had, or what the database says.
        """
        table = found[1] if (found := _TABLE.search(sql)) else ""
        self._until_free(
            Statement(sql, params or {}),
            f"the table `{table}`" if table else "a lock",
            Statement(_USERS_OF_TABLE, {"table": table}),
        )

    def lock(self, number: int, key: str) -> None:
        """Takes an advisory lock; `key` is its second half in SQL."""
        self._until_free(
            Statement(f"SELECT pg_advisory_lock({number}, {key})", {}),
            "another fleetgate process that starts or migrates",
            Statement(_USERS_OF_ADVISORY, {"number": number}),
        )

    def _until_free(self, statement: Statement, wanted: str, users: Statement) -> None:
        until = time.monotonic() + self._link.timeout
        said = ""
        while not self._carried_out(statement):
            text = f"waiting for {wanted}{self._in_use(users)}"
            if time.monotonic() >= until:
                raise StoreError(
                    f"{self._link.shown}: gave up after {self._link.timeout:g} s of {text}; "
                    "nothing was changed"
                )
            if text != said:
                self._say(text)
            said = text

    def _carried_out(self, statement: Statement) -> bool:
        """Whether the lock was free in time."""
        if self._link.idle:
            with contextlib.suppress(errors.LockNotAvailable):
                self._link.execute_all([statement])
                return True
            return False
        mark, release = Statement("SAVEPOINT waiting", {}), Statement("RELEASE waiting", {})
        try:
            self._link.execute_all([mark, statement, release])
        except errors.LockNotAvailable:
            self._link.execute("ROLLBACK TO waiting")
            return False
        return True

    def _in_use(self, users: Statement) -> str:
        found = self._link.execute_all([users]).rows
        if not found:
            return ""
        return f", in use by {' and '.join(_process(*row) for row in found)}"


def _process(pid: int | None, user: str | None, application: str | None) -> str:
    if pid is None:
        return "a prepared transaction"
    return f"process {pid} (user {user or '?'}, application {application or '?'})"
