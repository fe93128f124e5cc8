"""PostgreSQL: jobs that wait, for a lock, a connection or their turn, and how long."""

from __future__ import annotations

import asyncio
import threading
import time

import psycopg
import pytest

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store.engine import Row, Tx, add_setting, find_setting
from fleetgate.store.turns import NoTurn, Turns
from tests.postgresql import Cluster
from tests.store.conftest import Opened


@pytest.fixture
def url(cluster: Cluster) -> str:
    """A new, empty database."""
    return cluster.url(cluster.create_database())


def test_a_row_that_others_hold_is_written_as_soon_as_they_let_go(
    cluster: Cluster, opened: Opened
) -> None:
    name = cluster.create_database()
    store = opened(cluster.url(name), timeout=60.0)
    asyncio.run(store.write(add_setting, "a", "1"))
    runs, tried = [], threading.Event()

    def change(tx: Tx) -> None:
        runs.append(1)
        if len(runs) == 2:
            tried.set()  # the first attempt has given its connection up
        tx.run("UPDATE setting SET value = value || '3'")

    async def scenario(other: psycopg.Connection) -> None:
        writing = asyncio.create_task(store.write(change))
        assert await asyncio.to_thread(tried.wait, 50)
        other.commit()
        await writing

    with psycopg.connect(cluster.url(name)) as other:
        other.execute("UPDATE setting SET value = '2'")
        asyncio.run(scenario(other))
    assert asyncio.run(store.read(find_setting, "a")) == "23"


def test_jobs_that_wait_for_a_locked_table_leave_their_connections_to_others(
    cluster: Cluster, opened: Opened
) -> None:
    """Twice as many as there are connections, of each kind; another table is read and written."""
    name = cluster.create_database()
    store = opened(cluster.url(name), timeout=8.0)

    def blocked(tx: Tx) -> list[Row]:
        return tx.all("SELECT thing_name FROM thing ORDER BY thing_name")

    async def scenario() -> list[object]:
        held = [
            asyncio.create_task(submit(blocked))
            for _ in range(4)
            for submit in (store.read, store.write)
        ]
        await asyncio.sleep(0)
        await store.write(add_setting, "a", "1")
        assert await store.read(find_setting, "a") == "1"
        assert not any(each.done() for each in held)
        return list(await asyncio.gather(*held, return_exceptions=True))

    with psycopg.connect(cluster.url(name)) as other:
        other.execute("LOCK TABLE thing IN ACCESS EXCLUSIVE MODE")
        outcomes = asyncio.run(scenario())
        other.rollback()
    for each in outcomes:
        assert isinstance(each, ServiceUnavailableException)
        assert "cannot do this now" in each.message
    assert asyncio.run(store.read(blocked)) == []


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_job_waits_for_a_connection_no_longer_than_a_statement_may_take(
    kind: str, opened: Opened, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(url, timeout=1.0)
    submit = store.read if kind == "read" else store.write
    ran: list[object] = []

    def hold(tx: Tx) -> str:
        for _ in range(10):
            tx.one("SELECT CAST(pg_sleep(0.5) AS TEXT)")
        return "done"

    async def scenario() -> tuple[list[object], float]:
        holding = [asyncio.create_task(submit(hold)) for _ in range(6)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        late = await asyncio.gather(
            *(submit(ran.append) for _ in range(20)), return_exceptions=True
        )
        waited = time.monotonic() - begun
        for each in late:
            assert isinstance(each, ServiceUnavailableException)
            assert "waited 1 s for its turn at the database" in each.message
        return list(await asyncio.gather(*holding, return_exceptions=True)), waited

    outcomes, waited = asyncio.run(scenario())
    assert 0.9 < waited < 4.0, "those who hold the connections take 5 s"
    assert outcomes.count("done") == 2
    assert caplog.text.count("event=database-busy") < 10, "one line for all of a moment"
    asyncio.run(submit(ran.append))
    store.close()
    assert len(ran) == 1, "who was told that it was too late is not served afterwards"


def test_a_write_waits_for_those_beside_it_no_longer_than_it_may() -> None:
    turns = Turns()
    with turns.alone(0):
        for turn in (turns.shared, turns.alone):
            with pytest.raises(NoTurn), turn(time.monotonic() + 0.05):
                pass
    with turns.shared(0):
        with pytest.raises(NoTurn), turns.alone(time.monotonic() + 0.05):
            pass
        with turns.shared(0):  # the one that gave up is in nobody's way
            pass
    with turns.alone(0):
        pass
