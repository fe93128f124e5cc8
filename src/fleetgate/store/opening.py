"""Which store: SQLite in the data directory, or PostgreSQL.

psycopg is imported only when it is needed: it would take a tenth of the time to start.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from fleetgate.store import sqlite
from fleetgate.store.directory import take
from fleetgate.store.engine import Store

log = logging.getLogger("fleetgate.store")

FILE = "registry.db"
"""The name of the SQLite file in the data directory."""


def open_store(data: Path, database: str, connections: int, timeout: float) -> Store:
    """Opens the registry, and gives an empty one its tables.

    `database` is a ``postgresql://`` URL, or empty for SQLite in the data directory `data`; the
    rest is for PostgreSQL: the bound on connections, and the longest that a statement may take,
    in seconds. Raises StoreError when the store is away, in use, or of another version.
    """
    if not database:
        return sqlite.SqliteStore(data / FILE)
    from fleetgate.store.postgres import PostgresStore
    from fleetgate.store.target import target

    where = target(database, timeout)
    with contextlib.ExitStack() as undo:
        # keys and endpoints are in the directory all the same
        lock = undo.enter_context(take((data / FILE).with_suffix(".lock")))
        if (data / FILE).exists():
            log.warning("event=registry-unused file=%s database=%r", data / FILE, where.shown)
        store = PostgresStore(where, connections, lock.close)
        undo.pop_all()
    return store


def migrate(
    data: Path, database: str, timeout: float, say: Callable[[str], None] = log.warning
) -> tuple[int, int]:
    """Brings the schema to this release's version; the versions before and after.

    `say` is told, in words, what a PostgreSQL database is waited for. Raises StoreError as
    `open_store` does.
    """
    if not database:
        return sqlite.migrate(data / FILE)
    from fleetgate.store import postgres
    from fleetgate.store.target import target

    return postgres.migrate(target(database, timeout), say)


def name(data: Path, database: str) -> str:
    """What to call the store in messages; never with a password."""
    if not database:
        return f"`{data / FILE}`"
    from fleetgate.store.target import target

    return target(database, 1.0).shown
