"""What a store is: transactions over SQL text, the same on SQLite and on PostgreSQL.

Theory of operation. What an operation wants of the store is a plain synchronous function
``fn(tx, ...)``. :meth:`Store.write` runs it as one transaction that is stored as a whole or not at
all, and gives its result back only when it is stored; :meth:`Store.read` runs it on a consistent
view of what is committed. `fn` may be run more than once, when the database asks for that: beside
the transaction it must change nothing, and what it raises undoes the transaction.

Statements are the part of SQL that both databases share, with ``:name`` parameters (see
``docs/decisions/0002-sql-text.md``). A value is None, text, a whole number of 64 bits or a
floating point number. Text sorts by its bytes in UTF-8.

``store.sqlite`` and ``store.postgres`` are the two stores, ``store.opening`` picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from fleetgate.errors import Error, InvalidRequestException
from fleetgate.store.schema import MIGRATIONS, REGISTRY_TABLES

P = ParamSpec("P")
T = TypeVar("T")
Row = tuple[Any, ...]

QUEUE = 10_000
"""Jobs that may wait for the database; more are refused with ServiceUnavailableException."""

_LEAST, _MOST = -(2**63), 2**63 - 1


class StoreError(Error):
    """The store cannot be used: it is away, taken, too new, too old, or of another account."""


class OutcomeUnknown(Exception):
    """The cause of a ServiceUnavailableException after which a write may be stored or not."""


class Tx(Protocol):
    """One transaction: SQL text with ``:name`` parameters in, tuples out."""

    def one(self, sql: str, **params: object) -> Row | None:
        """The first row of the answer, or None."""
        ...

    def all(self, sql: str, **params: object) -> list[Row]:
        """All rows of the answer; the caller bounds them with LIMIT."""
        ...

    def run(self, sql: str, **params: object) -> int:
        """Executes a statement; returns how many rows it changed."""
        ...

    def send(self, sql: str, **params: object) -> None:
        """Executes a statement nobody asks for its outcome.

        It is carried out in its turn, and what it raises undoes the transaction; over a network
        it costs no round trip of its own.
        """
        ...


class Store(Protocol):
    """Where the registry is kept (see the module's theory of operation)."""

    async def write(
        self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` as one all-or-nothing, durable transaction; returns its result.

        Raises what `fn` raises (nothing is stored then), or ServiceUnavailableException when
        the database cannot do it now, when too many jobs wait, or when its turn did not come in
        time. What was refused is not carried out afterwards.
        """
        ...

    async def read(
        self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` on a consistent view of what is committed; returns its result."""
        ...

    async def reset(self) -> None:
        """Empties the registry; settings (account, region) stay."""
        ...

    def close(self) -> None:
        """Finishes the jobs that wait and lets go of the database."""
        ...


def newer(name: str, version: int) -> str:
    """Why a store of a newer release is not used."""
    return (
        f"{name} has schema version {version}, this fleetgate knows {len(MIGRATIONS)}: "
        "it was written by a newer release"
    )


def check_values(params: Mapping[str, object]) -> None:
    """Refuses parameters that not every database can hold.

    Raises InvalidRequestException for text with U+0000 and for numbers beyond 64 bits.
    """
    for name, value in params.items():
        if value.__class__ is str:
            if "\0" in value:
                raise InvalidRequestException(f"{name}: U+0000 cannot be stored")
        elif value.__class__ is int and not _LEAST <= value <= _MOST:
            raise InvalidRequestException(f"{name}: `{value}` is no whole number of 64 bits")


def not_text(params: Mapping[str, object]) -> InvalidRequestException:
    """What to raise when a parameter cannot be encoded: it holds half of a surrogate pair."""
    for name, value in params.items():
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            return InvalidRequestException(f"{name}: it is no Unicode text (a lone surrogate)")
    raise ValueError(f"all of {', '.join(params)} can be encoded")


def empty(tx: Tx) -> None:
    """Deletes everything but the settings."""
    for table in REGISTRY_TABLES:
        tx.send(f"DELETE FROM {table}")


def find_setting(tx: Tx, name: str) -> str | None:
    """The value of a setting that belongs to the registry as a whole, e.g. ``account``."""
    row = tx.one("SELECT value FROM setting WHERE name = :name", name=name)
    return None if row is None else str(row[0])


def add_setting(tx: Tx, name: str, value: str) -> None:
    """Stores such a setting once; it never changes afterwards."""
    tx.send("INSERT INTO setting (name, value) VALUES (:name, :value)", name=name, value=value)
