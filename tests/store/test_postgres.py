"""PostgreSQL alone: connections that end, a database that is away, who owns it, how long it may
take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store import libpq, ownership
from fleetgate.store.engine import (
    OutcomeUnknown,
    Row,
    Store,
    StoreError,
    Tx,
    add_setting,
    find_setting,
)
from fleetgate.store.opening import open_store
from fleetgate.store.postgres import PostgresStore
from fleetgate.store.target import target
from tests.postgresql import QUOTED_PASSWORD, Cluster
from tests.store.conftest import Opened, names
from tests.store.proxy import Proxy


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A cluster that tests may stop."""
    with Cluster() as running:
        yield running


@pytest.fixture
def url(cluster: Cluster) -> str:
    """A new, empty database."""
    return cluster.url(cluster.create_database())


def end_connections(cluster: Cluster, store: PostgresStore) -> int:
    """Ends the store's connections, as an operator does; how many."""
    with cluster.connect(store.where.shown.split("`")[1]) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchall()
    return len(rows)


# --- at the start ----------------------------------------------------------------------------


def test_a_database_that_is_away_is_named_at_the_start(cluster: Cluster) -> None:
    url = f"postgresql://postgres:{QUOTED_PASSWORD}@127.0.0.1:1/fleet"
    with pytest.raises(StoreError, match=r"`fleet` on 127.0.0.1:1 cannot be used: .*refused") as no:
        PostgresStore(target(url, 10.0), 2)
    assert "\n" not in no.value.message
    assert "p@ss" not in no.value.message
    assert QUOTED_PASSWORD not in no.value.message


def test_a_wrong_password_is_told_and_not_shown(cluster: Cluster) -> None:
    url = cluster.url("postgres", password="wr0ng-secret")
    with pytest.raises(StoreError, match="password authentication failed") as no:
        PostgresStore(target(url, 10.0), 2)
    assert "wr0ng" not in no.value.message


def test_a_database_that_does_not_exist_is_named(cluster: Cluster) -> None:
    with pytest.raises(StoreError, match='database "nowhere" does not exist'):
        PostgresStore(target(cluster.url("nowhere"), 10.0), 2)


def test_a_database_of_another_encoding_is_refused(cluster: Cluster) -> None:
    name = cluster.create_database(
        *("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", "LOCALE_PROVIDER libc")
    )
    with pytest.raises(StoreError, match="the database's encoding is LATIN1, not UTF8"):
        PostgresStore(target(cluster.url(name), 10.0), 2)


def test_a_database_that_is_read_only_is_refused(cluster: Cluster) -> None:
    name = cluster.create_database()
    with cluster.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="cannot be written to"):
        PostgresStore(target(cluster.url(name), 10.0), 2)


def test_a_role_without_rights_is_told(cluster: Cluster) -> None:
    name = cluster.create_database()
    with cluster.connect(name) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute(f"CREATE ROLE guest_{name} LOGIN PASSWORD 'x'")
    url = f"postgresql://guest_{name}:x@127.0.0.1:{cluster.port}/{name}"
    with pytest.raises(StoreError, match="permission denied for schema public"):
        PostgresStore(target(url, 10.0), 2)


def test_durability_does_not_depend_on_the_roles_settings(cluster: Cluster, opened: Opened) -> None:
    name = cluster.create_database()
    with cluster.connect() as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        connection.execute(f"ALTER DATABASE {name} SET statement_timeout = 200")
    store = opened(cluster.url(name))

    def write(tx: Tx) -> Row | None:
        tx.run("SELECT pg_sleep(0.3)")
        return tx.one("SELECT current_setting('synchronous_commit')")

    assert asyncio.run(store.write(write)) == ("on",)


# --- while it runs ---------------------------------------------------------------------------


def test_a_read_sees_one_moment(opened: Opened, url: str) -> None:
    store = opened(url)
    between, written = threading.Event(), threading.Event()

    def read(tx: Tx) -> tuple[list[str], list[str]]:
        before = names(tx)
        between.set()
        assert written.wait(10)
        return before, names(tx)

    async def scenario() -> tuple[list[str], list[str]]:
        reading = asyncio.create_task(store.read(read))
        await asyncio.to_thread(between.wait, 10)
        await store.write(add_setting, "meanwhile", "1")
        written.set()
        return await reading

    assert asyncio.run(scenario()) == ([], [])
    assert asyncio.run(store.read(names)) == ["meanwhile"]


class Meeting:
    """Lets transactions go on, the first time they run, when both are there."""

    def __init__(self) -> None:
        self.runs = 0
        self._barrier = threading.Barrier(2)

    def wait(self) -> None:
        self.runs += 1
        if self.runs <= 2:
            self._barrier.wait(10)


def test_two_that_would_break_a_rule_together_do_not(opened: Opened, url: str) -> None:
    """Write skew: each finds the other's row missing, and adds its own."""
    store, meeting = opened(url), Meeting()

    def add(tx: Tx, name: str, other: str) -> bool:
        found = find_setting(tx, other)
        meeting.wait()
        if found is None:
            add_setting(tx, name, "1")
        return found is None

    async def scenario() -> list[bool]:
        return list(await asyncio.gather(store.write(add, "a", "b"), store.write(add, "b", "a")))

    assert sorted(asyncio.run(scenario())) == [False, True]
    assert meeting.runs == 3
    assert len(asyncio.run(store.read(names))) == 1


def test_of_two_who_create_the_same_the_second_is_told(opened: Opened, url: str) -> None:
    store, meeting = opened(url), Meeting()

    def create(tx: Tx) -> str:
        found = find_setting(tx, "name")
        meeting.wait()
        if found is not None:
            return "there already"
        add_setting(tx, "name", "1")
        return "created"

    async def scenario() -> list[str]:
        return list(await asyncio.gather(store.write(create), store.write(create)))

    assert sorted(asyncio.run(scenario())) == ["created", "there already"]
    assert meeting.runs == 3


def test_of_two_who_wait_for_each_other_both_have_their_turn(opened: Opened, url: str) -> None:
    store, meeting = opened(url), Meeting()

    def change(tx: Tx, first: str, second: str) -> None:
        tx.run("UPDATE setting SET value = value || 'x' WHERE name = :name", name=first)
        meeting.wait()
        tx.run("UPDATE setting SET value = value || 'x' WHERE name = :name", name=second)

    async def scenario() -> tuple[str | None, str | None]:
        await store.write(add_setting, "a", "")
        await store.write(add_setting, "b", "")
        await asyncio.gather(store.write(change, "a", "b"), store.write(change, "b", "a"))
        return await store.read(find_setting, "a"), await store.read(find_setting, "b")

    assert asyncio.run(scenario()) == ("xx", "xx")


def test_connections_are_bounded(cluster: Cluster, opened: Opened, url: str) -> None:
    store = opened(url, connections=3)

    async def scenario() -> None:
        await asyncio.gather(
            *(store.write(add_setting, str(number), "x") for number in range(40)),
            *(store.read(names) for _ in range(40)),
        )

    asyncio.run(scenario())
    assert end_connections(cluster, store) <= 3


def test_idle_connections_that_were_ended_are_replaced_unnoticed(
    cluster: Cluster, opened: Opened, url: str
) -> None:
    store = opened(url)
    asyncio.run(store.write(add_setting, "before", "1"))
    for number in range(3):
        assert end_connections(cluster, store)
        asyncio.run(store.write(add_setting, f"after{number}", "1"))
        assert end_connections(cluster, store)
        assert asyncio.run(store.read(find_setting, f"after{number}")) == "1"


def test_a_connection_lost_before_commit_is_no_concern_of_the_caller(
    cluster: Cluster, opened: Opened
) -> None:
    with Proxy(cluster) as proxy:
        store = opened(proxy.url(cluster.create_database()))
        runs = []

        def work(tx: Tx) -> str:
            runs.append(1)
            tx.run("INSERT INTO setting (name, value) VALUES ('a', '1')")
            return "done"

        proxy.cut_at(b"INSERT")
        assert asyncio.run(store.write(work)) == "done"
        assert len(runs) == 2
        assert asyncio.run(store.read(names)) == ["a"]
        store.close()


@pytest.mark.parametrize("arrives", [True, False])
def test_a_connection_lost_during_commit_is_told_and_nothing_is_repeated(
    cluster: Cluster, opened: Opened, arrives: bool, caplog: pytest.LogCaptureFixture
) -> None:
    name = cluster.create_database()
    with Proxy(cluster) as proxy:
        store = opened(proxy.url(name))
        runs = []

        def work(tx: Tx) -> str:
            runs.append(1)
            tx.send("INSERT INTO setting (name, value) VALUES ('a', '1')")
            return "done"

        proxy.cut_at(b"INSERT", deliver=arrives)  # COMMIT is in the same packet
        with pytest.raises(ServiceUnavailableException, match="stored is unknown") as caught:
            asyncio.run(store.write(work))
        assert isinstance(caught.value.__cause__, OutcomeUnknown)
        assert len(runs) == 1
        assert "event=commit-lost" in caplog.text
        # whichever it was, it is whole, and the store goes on
        asyncio.run(store.write(add_setting, "b", "1"))
        expected = (["a", "b"],) if arrives else (["b"],)
        until = time.monotonic() + 5
        while asyncio.run(store.read(names)) not in expected and time.monotonic() < until:
            time.sleep(0.01)  # what arrived is still being carried out
        assert asyncio.run(store.read(names)) in expected
        store.close()


def test_connections_lost_again_and_again_are_told(cluster: Cluster, opened: Opened) -> None:
    def add(tx: Tx) -> None:
        tx.run("INSERT INTO setting (name, value) VALUES ('a', '1')")

    with Proxy(cluster) as proxy:
        store = opened(proxy.url(cluster.create_database()))
        proxy.cut_at(b"INSERT", times=100)
        with pytest.raises(ServiceUnavailableException, match="cannot be reached"):
            asyncio.run(store.write(add))
        proxy.cut_at(b"", times=0)
        asyncio.run(store.write(add_setting, "b", "1"))
        assert asyncio.run(store.read(names)) == ["b"]
        store.close()


def test_a_database_that_went_away_without_a_word_is_noticed(
    cluster: Cluster, opened: Opened
) -> None:
    with Proxy(cluster) as proxy:
        name = cluster.create_database()
        store = opened(f"{proxy.url(name)}?connect_timeout=2", timeout=1.0)
        asyncio.run(store.write(add_setting, "a", "1"))
        proxy.mute()
        begun = time.monotonic()
        with pytest.raises(ServiceUnavailableException, match="cannot be reached"):
            asyncio.run(store.read(names))
        assert time.monotonic() - begun < 8
        store.close()


def test_a_statement_that_takes_too_long_is_ended(opened: Opened, url: str) -> None:
    store = opened(url, timeout=1.0)

    def slow(tx: Tx) -> None:
        add_setting(tx, "slow", "1")
        tx.one("SELECT CAST(pg_sleep(30) AS TEXT)")

    begun = time.monotonic()
    with pytest.raises(ServiceUnavailableException, match="cannot do this now"):
        asyncio.run(store.write(slow))
    with pytest.raises(ServiceUnavailableException, match="cannot do this now"):
        asyncio.run(store.read(slow))
    assert time.monotonic() - begun < 6
    assert asyncio.run(store.read(names)) == []


def test_a_row_that_somebody_else_holds_is_waited_for_no_longer_than_that(
    cluster: Cluster, opened: Opened
) -> None:
    name = cluster.create_database()
    store = opened(cluster.url(name), timeout=1.0)
    asyncio.run(store.write(add_setting, "a", "1"))
    with psycopg.connect(cluster.url(name)) as other:
        other.execute("UPDATE setting SET value = '2'")
        with pytest.raises(ServiceUnavailableException, match="cannot do this now"):
            asyncio.run(store.write(lambda tx: tx.run("UPDATE setting SET value = '3'")))
    asyncio.run(store.write(lambda tx: tx.run("UPDATE setting SET value = '3'")))


def test_a_statement_of_ours_that_is_wrong_is_a_defect_and_harms_no_other(
    opened: Opened, url: str
) -> None:
    store = opened(url)
    for _ in range(3):
        with pytest.raises(psycopg.errors.SyntaxError):
            asyncio.run(store.write(lambda tx: tx.run("INSERT INTO setting VALUES")))
        with pytest.raises(psycopg.errors.UndefinedTable):
            asyncio.run(store.read(lambda tx: tx.one("SELECT 1 FROM nowhere")))
    asyncio.run(store.write(add_setting, "a", "1"))
    assert asyncio.run(store.read(names)) == ["a"]


def test_more_statements_than_are_kept_prepared_work(opened: Opened, url: str) -> None:
    store = opened(url, connections=2)

    def many(tx: Tx) -> list[int]:
        rows = [tx.one(f"SELECT {n} + length(:a)", a="x") for n in range(libpq.PREPARED + 20)]
        return [row[0] for row in rows if row is not None]

    wanted = [n + 1 for n in range(libpq.PREPARED + 20)]
    assert asyncio.run(store.read(many)) == wanted
    assert asyncio.run(store.read(many)) == wanted


def test_more_writes_than_may_wait_are_refused(opened: Opened, url: str) -> None:
    store = opened(url)
    store._writers.most = 2
    gate = threading.Event()

    def hold(tx: Tx) -> bool:
        return gate.wait(10)

    async def scenario() -> list[object]:
        tasks = [asyncio.create_task(store.write(hold)) for _ in range(20)]
        await asyncio.sleep(0)
        gate.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    outcomes = asyncio.run(scenario())
    assert any(isinstance(each, ServiceUnavailableException) for each in outcomes)
    assert True in outcomes


def test_while_the_database_is_away_everybody_is_told_at_once_and_then_it_goes_on(
    own_cluster: Cluster, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(own_cluster.url(own_cluster.create_database()))
    caplog.set_level(logging.INFO, "fleetgate.store")

    async def tries(count: int) -> list[object]:
        return list(
            await asyncio.gather(
                *(store.write(add_setting, f"x{n}", "1") for n in range(count)),
                *(store.read(names) for _ in range(count)),
                return_exceptions=True,
            )
        )

    asyncio.run(store.write(add_setting, "a", "1"))
    own_cluster.stop(signal.SIGKILL)
    begun = time.monotonic()
    for _ in range(3):
        outcomes = asyncio.run(tries(50))
        assert all(isinstance(each, ServiceUnavailableException) for each in outcomes)
    assert time.monotonic() - begun < 3
    assert caplog.text.count("event=database-away") < 8  # one for each connection at most
    own_cluster.start()
    until = time.monotonic() + 10
    while True:
        try:
            asyncio.run(store.write(add_setting, "b", "1"))
            break
        except ServiceUnavailableException:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert asyncio.run(store.read(names)) == ["a", "b"]
    assert "event=database-back" in caplog.text
    assert QUOTED_PASSWORD not in caplog.text
    assert "p@ss" not in caplog.text
    store.close()


# --- whose it is -----------------------------------------------------------------------------


def test_a_second_server_on_the_database_is_refused(opened: Opened, url: str) -> None:
    store = opened(url)
    asyncio.run(store.read(names))
    with pytest.raises(StoreError, match="is in use by another fleetgate process"):
        opened(url)
    asyncio.run(store.write(add_setting, "a", "1"))


def test_a_server_that_has_ended_makes_room(opened: Opened, url: str) -> None:
    opened(url).close()
    store = opened(url)
    asyncio.run(store.write(add_setting, "a", "1"))


def test_a_server_that_was_overtaken_stops_serving(
    cluster: Cluster, opened: Opened, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(url)
    asyncio.run(first.write(add_setting, "a", "1"))
    asyncio.run(first.read(names))
    end_connections(cluster, first)  # its machine is cut off, say
    second = opened(url)
    asyncio.run(second.write(add_setting, "b", "1"))
    for _ in range(2):
        with pytest.raises(
            ServiceUnavailableException, match="another fleetgate process has taken"
        ):
            asyncio.run(first.write(add_setting, "c", "1"))
        with pytest.raises(
            ServiceUnavailableException, match="another fleetgate process has taken"
        ):
            asyncio.run(first.read(names))
    assert "event=database-overtaken" in caplog.text
    second.close()
    with pytest.raises(ServiceUnavailableException, match="has to be stopped"):
        asyncio.run(first.read(names))


def test_a_database_that_somebody_else_claims_or_migrates_is_waited_for(
    cluster: Cluster, opened: Opened
) -> None:
    name = cluster.create_database()
    store = opened(cluster.url(name))
    asyncio.run(store.write(add_setting, "a", "1"))
    end_connections(cluster, store)
    where = target(cluster.url(name), 10.0)
    with contextlib.closing(libpq.connect(where)) as other:
        ownership.migrate(other, print)  # its locks go with the connection
        with pytest.raises(ServiceUnavailableException, match="cannot be reached"):
            asyncio.run(store.read(names))
    until = time.monotonic() + 10
    while True:
        with contextlib.suppress(ServiceUnavailableException):
            assert asyncio.run(store.read(names)) == ["a"]
            break
        assert time.monotonic() < until
        time.sleep(0.05)


def test_two_schemas_of_a_database_are_two_registries(cluster: Cluster, opened: Opened) -> None:
    name = cluster.create_database()
    with cluster.connect(name) as connection:
        connection.execute("CREATE SCHEMA one")
        connection.execute("CREATE SCHEMA two")
    one, two = (
        opened(f"{cluster.url(name)}?options=-csearch_path%3D{each}") for each in ("one", "two")
    )
    asyncio.run(one.write(add_setting, "a", "1"))
    assert asyncio.run(two.read(names)) == []
    with pytest.raises(StoreError, match="search_path names no schema"):
        opened(f"{cluster.url(name)}?options=-csearch_path%3Dthree")


def test_the_data_directory_has_one_owner_all_the_same(cluster: Cluster, tmp_path: Path) -> None:
    first, second = (cluster.socket_url(cluster.create_database()) for _ in range(2))
    store: Store = open_store(tmp_path, first, 2, 10.0)
    with pytest.raises(StoreError, match="in use by another fleetgate process"):
        open_store(tmp_path, second, 2, 10.0)
    store.close()
    open_store(tmp_path, second, 2, 10.0).close()


def test_a_sqlite_file_that_is_not_used_is_told(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(tmp_path, "", 2, 10.0).close()
    open_store(tmp_path, cluster.socket_url(cluster.create_database()), 2, 10.0).close()
    assert "event=registry-unused" in caplog.text


def test_the_tests_databases_sort_by_language_where_they_can(cluster: Cluster) -> None:
    """Else the tests that look at an order would show nothing."""
    with cluster.connect() as connection:
        found = connection.execute("SELECT x FROM (VALUES ('a'), ('B')) v (x) ORDER BY x")
        assert [row[0] for row in found] == (["a", "B"] if cluster.by_language else ["B", "a"])
