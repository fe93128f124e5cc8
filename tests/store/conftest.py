"""PostgreSQL for the tests of the store: stores that are closed, roles that are no superusers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from fleetgate.store.engine import Tx
from fleetgate.store.postgres import PostgresStore
from fleetgate.store.target import target
from tests.postgresql import Cluster

Opened = Callable[..., PostgresStore]

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Owner:
    """A role that is no superuser, and a new, empty database of its own."""

    cluster: Cluster
    role: str
    database: str

    @property
    def url(self) -> str:
        return (
            f"postgresql://{self.role}:secret@127.0.0.1:{self.cluster.port}/{self.database}"
            "?application_name=ours"
        )

    def execute(self, sql: str, role: str = "") -> list[tuple[object, ...]]:
        """What a statement of the superuser's gives, in this database."""
        with self.cluster.connect(self.database) as connection:
            if role:
                connection.execute(f"SET ROLE {role}".encode())
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def connections(self) -> int:
        """How many this role has to this database."""
        rows = self.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            f"AND usename = '{self.role}'"
        )
        return len(rows)


@pytest.fixture
def owner(cluster: Cluster) -> Owner:
    """A role and its database."""
    role = f"owner{next(_numbers)}"
    with cluster.connect() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'".encode())
    return Owner(cluster, role, cluster.create_database(f"OWNER {role}"))


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens stores, which are closed after the test."""
    stores: list[PostgresStore] = []

    def open_one(url: str, connections: int = 4, timeout: float = 10.0) -> PostgresStore:
        stores.append(PostgresStore(target(url, timeout), connections))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def names(tx: Tx) -> list[str]:
    """The names of all settings."""
    return [row[0] for row in tx.all("SELECT name FROM setting ORDER BY name")]
