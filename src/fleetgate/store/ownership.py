"""Whose PostgreSQL database it is, and which version its schema has.

One server works on a database at a time. Every connection of a server holds a shared advisory
lock; a server that starts takes that lock exclusively for a moment, which it gets only when no
connection of another is left, and writes its own name into the table ``fleetgate``. A connection
that is made later takes the shared lock and then looks whose name is there. So a connection that
was let in is proof that nobody else has taken over while it lives, and no transaction has to ask.

Whoever claims or migrates a database holds a second lock meanwhile, so that two that do it at the
same time come one after the other.

Source: PostgreSQL documentation, "Advisory Locks".
"""

from __future__ import annotations

import time

import psycopg

from fleetgate.store.engine import StoreError, newer
from fleetgate.store.libpq import ConnectionLost, Link, Refused, Target, one_line
from fleetgate.store.schema import MIGRATIONS

_USE, _CLAIM = 0x666C6731, 0x666C6732
"""The first half of our two advisory locks; the second is the schema, so each has its own."""

PATIENCE = 2.0
"""Seconds that connections of a server that was killed are given to be noticed."""

_LOCK = "hashtext(CAST(current_schema() AS TEXT))"


class Overtaken(Exception):
    """Another server has claimed the database, or its schema has been changed."""


def claim(link: Link, where: Target, owner: str) -> None:
    """Makes `owner` the server of this database; an empty one is given its tables.

    Raises StoreError when another server is at work on it, or when its schema is too old or
    too new.
    """
    try:
        _lock(link, where)
        version = find_version(link)
        if version > len(MIGRATIONS):
            raise StoreError(newer(where.shown, version))
        if 0 < version < len(MIGRATIONS):
            raise StoreError(
                f"{where.shown} has schema version {version}, this fleetgate needs "
                f"{len(MIGRATIONS)}: make a backup, then run `fleetgate migrate`"
            )
        if version == 0:
            _migrate(link, version)
        link.execute("UPDATE fleetgate SET owner = :owner", {"owner": owner})
        link.execute(f"SELECT pg_advisory_lock_shared({_USE}, {_LOCK})")
        link.execute(f"SELECT pg_advisory_unlock({_USE}, {_LOCK})")
        link.execute(f"SELECT pg_advisory_unlock({_CLAIM}, {_LOCK})")
    except (psycopg.Error, ConnectionLost) as error:
        raise _failed(where, error) from None


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


def migrate(link: Link, where: Target) -> tuple[int, int]:
    """Brings the schema to this release's version, in one transaction.

    Returns the versions before and after. Raises StoreError when a server is at work on the
    database or its schema is too new.
    """
    try:
        _lock(link, where)
        version = find_version(link)
        if version > len(MIGRATIONS):
            raise StoreError(newer(where.shown, version))
        if version < len(MIGRATIONS):
            _migrate(link, version)
    except (psycopg.Error, ConnectionLost) as error:
        raise _failed(where, error) from None
    return version, len(MIGRATIONS)


def find_version(link: Link) -> int:
    """The version of the schema, 0 when there is none yet."""
    if link.execute("SELECT to_regclass('fleetgate') IS NULL").rows[0][0]:
        return 0
    return int(link.execute("SELECT version FROM fleetgate").rows[0][0])


def _lock(link: Link, where: Target) -> None:
    """Takes both locks; the end of the connection gives them back."""
    if link.execute("SELECT current_schema() IS NULL").rows[0][0]:
        raise StoreError(f"{where.shown}: its search_path names no schema that exists")
    link.execute(f"SELECT pg_advisory_lock({_CLAIM}, {_LOCK})")
    until = time.monotonic() + PATIENCE
    while not link.execute(f"SELECT pg_try_advisory_lock({_USE}, {_LOCK})").rows[0][0]:
        if time.monotonic() > until:
            raise StoreError(f"{where.shown} is in use by another fleetgate process")
        time.sleep(0.05)


def _migrate(link: Link, version: int) -> None:
    link.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    if version == 0:
        link.execute("CREATE TABLE fleetgate (version BIGINT NOT NULL, owner TEXT NOT NULL)")
        link.execute("INSERT INTO fleetgate (version, owner) VALUES (0, '')")
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            link.execute(statement)
    link.execute("UPDATE fleetgate SET version = :version", {"version": len(MIGRATIONS)})
    link.execute("COMMIT")


def _failed(where: Target, error: Exception) -> StoreError:
    return StoreError(f"{where.shown}: {one_line(error)}")
