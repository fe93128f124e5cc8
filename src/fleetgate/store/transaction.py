"""One transaction on PostgreSQL, over one connection."""

from __future__ import annotations

import psycopg

from fleetgate.store.engine import Row, check_values
from fleetgate.store.libpq import ConnectionLost, Link, Result, Statement

TOGETHER = 100
"""Statements that wait for the next round trip, at most."""

BEGIN_WRITE = "BEGIN ISOLATION LEVEL SERIALIZABLE"
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class PostgresTx:
    """One transaction on PostgreSQL (see :class:`fleetgate.store.engine.Tx`).

    BEGIN travels with the first statement that is asked for its outcome, COMMIT with the last
    ones that are not. `failure` is what ended it early: whatever the function that works on it
    makes of that, it cannot be committed any more.
    """

    __slots__ = ("_begun", "_link", "_waiting", "failure")

    def __init__(self, link: Link, begin: str) -> None:
        self._link = link
        self._begun = False
        self._waiting = [Statement(begin, {})]
        self.failure: psycopg.Error | ConnectionLost | None = None

    def one(self, sql: str, **params: object) -> Row | None:
        """The first row of the answer, or None."""
        rows = self._execute(sql, params).rows
        return rows[0] if rows else None

    def all(self, sql: str, **params: object) -> list[Row]:
        """All rows of the answer; the caller bounds them with LIMIT."""
        return self._execute(sql, params).rows

    def run(self, sql: str, **params: object) -> int:
        """Executes a statement; returns how many rows it changed."""
        return self._execute(sql, params).changed

    def send(self, sql: str, **params: object) -> None:
        """Executes a statement, with the next one or at the end."""
        if len(self._waiting) >= TOGETHER:
            self._execute(sql, params)
            return
        check_values(params)
        self._waiting.append(Statement(sql, params))

    def commit(self) -> None:
        """Ends the transaction, all of it stored.

        Raises psycopg.Error when nothing of it is stored, ConnectionLost when nobody knows.
        """
        if not self._begun and len(self._waiting) == 1:
            return  # there is nothing in it
        tag = self._execute("COMMIT", {}).tag
        if tag != b"COMMIT":
            raise RuntimeError(f"COMMIT was answered with {tag!r}")

    def rollback(self) -> None:
        """Ends the transaction, nothing of it stored. Raises psycopg.Error, ConnectionLost."""
        if self._begun and not self._link.idle:
            self._link.execute("ROLLBACK")

    def _execute(self, sql: str, params: dict[str, object]) -> Result:
        if self.failure is not None:
            raise self.failure
        check_values(params)
        waiting, self._waiting = self._waiting, []
        try:
            result = self._link.execute_all([*waiting, Statement(sql, params)])
        except (psycopg.Error, ConnectionLost) as error:
            self.failure = error
            raise
        finally:
            self._begun = True
        return result
