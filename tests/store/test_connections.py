"""A database that allows fewer connections than are configured, and one that goes and comes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import psycopg
import pytest

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store.engine import StoreError, Tx, add_setting
from fleetgate.store.opening import migrate
from fleetgate.store.postgres import PostgresStore
from tests.postgresql import Cluster
from tests.store.conftest import Opened, Owner, names
from tests.store.proxy import Proxy


def limit(owner: Owner, kind: str, number: int) -> None:
    whose = f"ROLE {owner.role}" if kind == "role" else f"DATABASE {owner.database}"
    owner.execute(f"ALTER {whose} CONNECTION LIMIT {number}")


def end_all(owner: Owner) -> None:
    """Ends the role's connections, and waits until they are gone."""
    owner.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        f"WHERE usename = '{owner.role}'"
    )


async def load(store: PostgresStore, count: int, start: int = 0) -> None:
    """Reads and writes at the same time; every one has to succeed."""

    def slow(tx: Tx) -> None:
        tx.one("SELECT CAST(pg_sleep(0.005) AS TEXT)")

    await asyncio.gather(
        *(store.write(add_setting, f"{start + number:04}", "x") for number in range(count)),
        *(store.read(slow) for _ in range(count)),
    )


@pytest.mark.parametrize("kind", ["role", "database"])
@pytest.mark.parametrize("number", [2, 3, 5])
def test_a_database_that_allows_fewer_connections_is_served_by_those(
    owner: Owner, opened: Opened, kind: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    limit(owner, kind, number)
    store = opened(owner.url, connections=8)
    for turn in range(3):
        asyncio.run(load(store, 60, turn * 100))
        assert 2 <= owner.connections() <= number
    assert len(asyncio.run(store.read(names))) == 180
    said = [text for text in caplog.messages if "event=no-further-connection" in text]
    assert len(said) == 1, "once for each cause"
    assert "no free connection: " in said[0]
    assert f'too many connections for {kind} "' in said[0]
    assert "lower `database_connections`" in said[0]


@pytest.mark.parametrize("number", [2, 3])
def test_connections_that_are_lost_come_back_for_reading_and_for_writing(
    owner: Owner, opened: Opened, number: int
) -> None:
    limit(owner, "role", number)
    store = opened(owner.url, connections=8)
    asyncio.run(load(store, 20))
    for turn in range(1, 4):
        end_all(owner)
        asyncio.run(load(store, 1, turn * 100))
        asyncio.run(load(store, 20, turn * 200 + 1000))
    assert len(asyncio.run(store.read(names))) == 83


def test_a_limit_that_is_lowered_meanwhile_takes_nobodys_job_away(
    owner: Owner, opened: Opened
) -> None:
    store = opened(owner.url, connections=8)
    asyncio.run(load(store, 60))
    assert owner.connections() > 4
    limit(owner, "role", 4)
    rows = owner.execute(f"SELECT pid FROM pg_stat_activity WHERE usename = '{owner.role}'")
    for (pid,) in rows[:4]:
        owner.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
    asyncio.run(load(store, 60, 100))
    assert len(asyncio.run(store.read(names))) == 120


def test_readers_give_up_a_connection_when_writers_have_none(owner: Owner, opened: Opened) -> None:
    limit(owner, "role", 3)
    store = opened(owner.url, connections=8)
    asyncio.run(store.write(add_setting, "a", "1"))
    [writer] = asyncio.run(store.write(lambda tx: tx.all("SELECT pg_backend_pid()")))
    # the writers' connection is ended, and readers take its place before anybody writes
    owner.execute(f"SELECT pg_terminate_backend({writer[0]}, 5000)")
    gate = threading.Barrier(3)

    async def read_together() -> None:
        await asyncio.gather(*(store.read(lambda _: gate.wait(10)) for _ in range(3)))

    asyncio.run(read_together())
    assert owner.connections() == 3
    with pytest.raises(ServiceUnavailableException, match="no free connection"):
        asyncio.run(store.write(add_setting, "b", "1"))
    time.sleep(0.6)  # more than the time between two attempts to connect
    asyncio.run(store.write(add_setting, "b", "1"))
    assert asyncio.run(store.read(names)) == ["a", "b"]


@pytest.mark.parametrize("number", [0, 1])
def test_with_less_than_two_connections_there_is_no_server(
    owner: Owner, opened: Opened, number: int
) -> None:
    limit(owner, "role", number)
    with pytest.raises(StoreError, match=r"no free connection: .*too many connections") as caught:
        opened(owner.url, connections=2)
    assert "raise the limit" in caught.value.message
    assert "lower `database_connections`" in caught.value.message
    assert ("one connection to write and one to read" in caught.value.message) is (number == 1)
    assert owner.connections() == 0


def test_one_connection_is_enough_to_migrate(owner: Owner, tmp_path: Path) -> None:
    limit(owner, "role", 1)
    before, _ = migrate(tmp_path, owner.url, 10.0)
    assert before == 0


def test_connections_of_a_predecessor_that_are_about_to_end_are_waited_for(
    owner: Owner, opened: Opened
) -> None:
    limit(owner, "role", 2)
    old = [psycopg.connect(owner.url) for _ in range(2)]

    def hang_up() -> None:
        for each in old:
            each.close()

    timer = threading.Timer(0.5, hang_up)
    timer.start()
    opened(owner.url)
    timer.join()


def test_an_outage_whose_cause_changes_is_told_again(
    cluster: Cluster, owner: Owner, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fleetgate.store")

    def fails() -> None:
        time.sleep(0.55)  # more than the time between two attempts to connect
        with pytest.raises(ServiceUnavailableException, match="cannot be reached"):
            asyncio.run(store.read(names))

    def causes() -> list[str]:
        return [text for text in caplog.messages if "event=database-away" in text]

    with Proxy(cluster) as proxy:
        url = proxy.url(owner.database).replace(
            cluster.url("x").split("@")[0], f"postgresql://{owner.role}:secret"
        )
        store = opened(url, connections=2)
        asyncio.run(store.read(names))
        owner.execute(f"ALTER ROLE {owner.role} PASSWORD 'another'")
        end_all(owner)
        for _ in range(3):
            fails()
        assert len(causes()) == 1
        assert "password authentication failed" in causes()[0]
        proxy.close()
        for _ in range(3):
            fails()
        assert len(causes()) == 2
        assert "password" not in causes()[1]
        store.close()
