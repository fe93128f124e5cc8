"""Whose PostgreSQL database it is, and which version its schema has.

One server works on a database at a time. Every connection of a server holds a shared advisory
lock; a server that starts takes that lock exclusively for a moment, which it gets only when no
connection of another is left, and writes its own name into the table ``fleetgate``. A connection
that is made later takes the shared lock and then looks whose name is there. So a connection that
was let in is proof that nobody else has taken over while it lives, and no transaction has to ask.

The locks are those of one schema, and every connection works in that schema alone
(``libpq.connect``): a search path that leads to the same tables by another way meets the same
locks.

Whoever claims or migrates a database holds a second lock meanwhile, so that two that do it at the
same time come one after the other.

Source: PostgreSQL documentation, "Advisory Locks".
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from fleetgate.store.engine import StoreError, newer
from fleetgate.store.libpq import ConnectionLost, Link, Refused, one_line
from fleetgate.store.schema import MIGRATIONS, REGISTRY_TABLES
from fleetgate.store.waiting import Waiter, waiting

_USE, _CLAIM = 0x666C6731, 0x666C6732
"""The first half of our two advisory locks; the second is the schema, so each has its own."""

PATIENCE = 2.0
"""Seconds that connections of a server that was killed are given to be noticed."""

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""What the role needs on every table."""

# by its number, which a schema keeps when it is renamed
_LOCK = "(SELECT CAST(oid AS INTEGER) FROM pg_namespace WHERE nspname = current_schema())"

_RESTORE = "restore the whole dump, into an empty database"


class Overtaken(Exception):
    """Another server has claimed the database, or its schema has been changed."""


def claim(link: Link, owner: str, say: Callable[[str], None]) -> None:
    """Makes `owner` the server of this database; an empty one is given its tables.

    The connection is one of the server's own from then on. `say` is told what is waited for.
    Raises StoreError when another server is at work on it, when its schema is too old or too new,
    when it is not whole, or when the role may not use it.
    """
    try:
        with waiting(link, say) as waiter:
            _lock(link, waiter)
            version = find_version(link)
            if version > len(MIGRATIONS):
                raise StoreError(newer(link.shown, version))
            if 0 < version < len(MIGRATIONS):
                raise StoreError(
                    f"{link.shown} has schema version {version}, this fleetgate needs "
                    f"{len(MIGRATIONS)}: make a backup, then run `fleetgate migrate`"
                )
            if version == 0:
                _migrate(link, waiter, version)
            _check_tables(link, ("setting", *REGISTRY_TABLES))
            waiter.execute("UPDATE fleetgate SET owner = :owner", {"owner": owner})
        link.execute(f"SELECT pg_advisory_lock_shared({_USE}, {_LOCK})")
        link.execute(f"SELECT pg_advisory_unlock({_USE}, {_LOCK})")
        link.execute(f"SELECT pg_advisory_unlock({_CLAIM}, {_LOCK})")
    except (psycopg.Error, ConnectionLost) as error:
        raise _failed(link, error) from None


def rejoin(link: Link, owner: str) -> None:
    """Lets a further connection of `owner` in.

    Raises Overtaken when another has taken over, Refused while it is not settled, or what the
    database says.
    """
    got = link.execute(f"SELECT pg_try_advisory_lock_shared({_USE}, {_LOCK})")
    if got.rows[0][0] != 1:
        raise Refused("another fleetgate process claims or migrates it")
    # a statement of its own: what it sees is at least as new as the lock
    found = link.execute("SELECT version, owner FROM fleetgate").rows
    if found != [(len(MIGRATIONS), owner)]:
        raise Overtaken("another fleetgate process has taken over")


def migrate(link: Link, say: Callable[[str], None]) -> tuple[int, int]:
    """Brings the schema to this release's version, in one transaction.

    Returns the versions before and after; `say` is told what is waited for. Raises StoreError
    when a server is at work on the database, its schema is too new, it is not whole, or a lock is
    not to be had.
    """
    try:
        with waiting(link, say) as waiter:
            _lock(link, waiter)
            version = find_version(link)
            if version > len(MIGRATIONS):
                raise StoreError(newer(link.shown, version))
            if version < len(MIGRATIONS):
                _migrate(link, waiter, version)
    except (psycopg.Error, ConnectionLost) as error:
        raise _failed(link, error) from None
    return version, len(MIGRATIONS)


def find_version(link: Link) -> int:
    """The version of the schema, 0 when there is none yet.

    Raises StoreError when the version is not to be known, or may not be read.
    """
    if link.execute("SELECT to_regclass('fleetgate') IS NULL").rows[0][0]:
        return 0
    _check_tables(link, ("fleetgate",))
    found = link.execute("SELECT version FROM fleetgate LIMIT 2").rows
    if not found:
        raise StoreError(
            f"{link.shown}: the table `fleetgate`, which holds the version of the schema, is "
            f"empty: the dump was restored in part; {_RESTORE}"
        )
    if len(found) > 1:
        raise StoreError(
            f"{link.shown}: the table `fleetgate`, which holds the version of the schema, has more "
            f"than one row: a dump was restored over a registry; {_RESTORE}"
        )
    return int(found[0][0])


def _check_tables(link: Link, tables: tuple[str, ...]) -> None:
    """Raises StoreError unless the tables are there and the role may use them."""
    names = ", ".join(f"('{name}')" for name in tables)
    rights = ", ".join(f"('{right}')" for right in RIGHTS)
    lacking = link.execute(
        "SELECT t.name, r.name, to_regclass(t.name) IS NULL, "
        "quote_ident(current_user), quote_ident(current_schema()) "
        f"FROM (VALUES {names}) t (name), (VALUES {rights}) r (name) "
        "WHERE has_table_privilege(to_regclass(t.name), r.name) IS NOT TRUE "
        "ORDER BY to_regclass(t.name) IS NULL DESC, t.name, r.name"
    ).rows
    if not lacking:
        return
    table, _, absent, role, schema = lacking[0]
    if absent:
        raise StoreError(
            f"{link.shown}: there is no table `{table}`: the dump was restored in part; {_RESTORE}"
        )
    needed = " and ".join(row[1] for row in lacking if row[0] == table)
    others = len({row[0] for row in lacking}) - 1
    also = f", and rights on {others} further tables" if others else ""
    raise StoreError(
        f"{link.shown}: the role `{role}` lacks the right to {needed} on the table `{table}`{also}:"
        f" GRANT {', '.join(RIGHTS)} ON ALL TABLES IN SCHEMA {schema} TO {role}"
    )


def _lock(link: Link, waiter: Waiter) -> None:
    """Takes both locks; the end of the connection gives them back."""
    waiter.lock(_CLAIM, _LOCK)
    until = time.monotonic() + PATIENCE
    while not link.execute(f"SELECT pg_try_advisory_lock({_USE}, {_LOCK})").rows[0][0]:
        if time.monotonic() > until:
            raise StoreError(f"{link.shown} is in use by another fleetgate process")
        time.sleep(0.05)


def _migrate(link: Link, waiter: Waiter, version: int) -> None:
    link.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    if version == 0:
        link.execute("CREATE TABLE fleetgate (version BIGINT NOT NULL, owner TEXT NOT NULL)")
        link.execute("INSERT INTO fleetgate (version, owner) VALUES (0, '')")
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            waiter.execute(statement)
    waiter.execute("UPDATE fleetgate SET version = :version", {"version": len(MIGRATIONS)})
    link.execute("COMMIT")


def _failed(link: Link, error: Exception) -> StoreError:
    return StoreError(f"{link.shown}: {one_line(error)}")
