"""From an empty store and from one of version 1 to this release's schema, on both databases."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetgate.store import certificates, groups, policies, public_keys, templates, things
from fleetgate.store.engine import Store, StoreError, Tx, find_setting
from fleetgate.store.libpq import Link, connect
from fleetgate.store.opening import migrate, open_store
from fleetgate.store.schema import MIGRATIONS, REGISTRY_TABLES
from fleetgate.store.target import target
from tests.postgresql import Cluster
from tests.store.version1 import ARN, CERTIFICATE, ROWS, fill_postgres, fill_sqlite

NEWEST = len(MIGRATIONS)


@pytest.fixture
def url(database: str, request: pytest.FixtureRequest) -> str:
    """An empty database's URL; empty for SQLite."""
    if database == "sqlite":
        return ""
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.socket_url(cluster.create_database())


def link(url: str) -> contextlib.closing[Link]:
    return contextlib.closing(connect(target(url, 10.0)))


def fill(tmp_path: Path, url: str) -> None:
    if url:
        with link(url) as connection:
            fill_postgres(connection)
    else:
        fill_sqlite(tmp_path / "registry.db")


def set_version(tmp_path: Path, url: str, version: int) -> None:
    if url:
        with link(url) as connection:
            connection.execute("UPDATE fleetgate SET version = :v", {"v": version})
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as connection:
            connection.execute(f"PRAGMA user_version = {version}")


def is_empty(tx: Tx, table: str) -> bool:
    return tx.one(f"SELECT 1 FROM {table}") is None


def opened(tmp_path: Path, url: str) -> Store:
    return open_store(tmp_path, url, 2, 10.0)


def test_an_empty_store_is_migrated_by_command_or_by_itself(tmp_path: Path, url: str) -> None:
    assert migrate(tmp_path, url, 10.0) == (0, NEWEST)
    assert migrate(tmp_path, url, 10.0) == (NEWEST, NEWEST)
    opened(tmp_path, url).close()
    assert migrate(tmp_path, url, 10.0) == (NEWEST, NEWEST)


def test_every_table_of_version_1_has_rows_here() -> None:
    created = [text.split()[2] for text in MIGRATIONS[0] if text.startswith("CREATE TABLE")]
    assert sorted(created) == sorted(ROWS)


def test_a_filled_registry_of_version_1_is_migrated_and_used(tmp_path: Path, url: str) -> None:
    fill(tmp_path, url)
    assert migrate(tmp_path, url, 10.0) == (1, NEWEST)
    assert migrate(tmp_path, url, 10.0) == (NEWEST, NEWEST)
    store = opened(tmp_path, url)

    def look(tx: Tx) -> None:
        assert find_setting(tx, "account") == "000000000000"
        for table, rows in ROWS.items():
            assert tx.one(f"SELECT count(*) FROM {table}") == (len(rows),)
        assert [each.thing_name for each in things.list_things(tx, "", 10)] == [
            *("Pump_1", "pump-10", "pump-2")
        ]
        pump = things.find_thing(tx, "pump-2")
        assert pump is not None
        assert (pump.thing_type_name, pump.attributes, pump.version) == ("pump", {"size": "2"}, 3)
        principal = f"{ARN}cert/{CERTIFICATE}"
        assert things.list_principal_things(tx, principal, "", 10) == ["pump-2"]
        assert groups.list_things_in_group(tx, "Site", "", 10, recursive=True) == ["pump-2"]
        certificate = certificates.find_certificate(tx, CERTIFICATE)
        assert certificate is not None
        assert (certificate.status, certificate.template_name) == ("ACTIVE", "fleet")
        assert policies.list_attached_policies(tx, principal, "", 10) == ["fleet"]
        assert templates.find_template(tx, "fleet") is not None
        kind = things.find_thing_type(tx, "pump")
        assert kind is not None
        assert kind.searchable_attributes == ("size",)
        # the keys of its certificates are still to be looked at
        assert public_keys.list_unknown(tx, 10) == [(CERTIFICATE, "PEM"), ("ef" * 32, "PEM")]

    def change(tx: Tx) -> None:
        things.remove_thing(tx, "Pump_1")
        things.add_thing_principal(tx, "pump-10", f"{ARN}cert/{CERTIFICATE}")
        assert certificates.remove_pending_certificates(tx, 1.9e9, 10) == ["ef" * 32]

    async def use() -> None:
        await store.read(look)
        await store.write(change)
        await store.reset()
        for table in REGISTRY_TABLES:
            assert await store.read(is_empty, table)

    asyncio.run(use())
    store.close()


def test_sqlite_is_migrated_at_the_start_and_postgresql_by_command(
    tmp_path: Path, url: str, database: str
) -> None:
    fill(tmp_path, url)
    if database == "postgresql":
        with pytest.raises(StoreError, match=r"schema version 1, .* run `fleetgate migrate`"):
            opened(tmp_path, url)
        migrate(tmp_path, url, 10.0)
    store = opened(tmp_path, url)
    found = asyncio.run(store.read(things.find_thing, "pump-2"))
    assert found is not None
    store.close()


def test_a_registry_of_a_newer_release_is_refused(tmp_path: Path, url: str) -> None:
    migrate(tmp_path, url, 10.0)
    set_version(tmp_path, url, 999)
    ways: list[Callable[[], object]] = [
        lambda: opened(tmp_path, url),
        lambda: migrate(tmp_path, url, 10.0),
    ]
    for way in ways:
        with pytest.raises(StoreError, match=r"schema version 999, .* newer release"):
            way()


def test_a_registry_in_use_is_not_migrated(tmp_path: Path, url: str) -> None:
    store = opened(tmp_path, url)
    with pytest.raises(StoreError, match="in use by another fleetgate process"):
        migrate(tmp_path, url, 10.0)
    store.close()


def test_two_migrations_at_once_are_one(tmp_path: Path, cluster: Cluster) -> None:
    url = cluster.socket_url(cluster.create_database())
    fill(tmp_path, url)
    gate, found = threading.Barrier(4), []

    def run() -> None:
        gate.wait(10)
        found.append(migrate(tmp_path, url, 10.0))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [(1, NEWEST), *[(NEWEST, NEWEST)] * 3]


def test_a_migration_that_fails_leaves_everything_as_it_was(tmp_path: Path, url: str) -> None:
    fill(tmp_path, url)
    clash = MIGRATIONS[1][0].split()[2]  # a table of the same name is there already
    if url:
        with link(url) as connection:
            connection.execute(f"CREATE TABLE {clash} (x BIGINT)")
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as file:
            file.execute(f"CREATE TABLE {clash} (x BIGINT)")
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{clash}.* already exists"):
            migrate(tmp_path, url, 10.0)
    if url:
        with link(url) as connection:
            connection.execute(f"DROP TABLE {clash}")
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.db")) as file:
            file.execute(f"DROP TABLE {clash}")
    assert migrate(tmp_path, url, 10.0) == (1, NEWEST)


def test_tables_of_somebody_else_are_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    name = cluster.create_database()
    with cluster.connect(name) as connection:
        connection.execute("CREATE TABLE thing (x int)")
    with pytest.raises(StoreError, match='relation "thing" already exists'):
        opened(tmp_path, cluster.socket_url(name))
    with cluster.connect(name) as connection:
        assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                                  ).fetchall() == [("thing",)]  # fmt: skip
