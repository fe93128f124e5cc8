"""SQLite alone: its file, its lock, its disk."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store.engine import StoreError, Tx, add_setting
from fleetgate.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "registry.db")
    yield store
    store.close()


def names(tx: Tx) -> list[str]:
    return [row[0] for row in tx.all("SELECT name FROM setting ORDER BY name")]


def test_a_full_disk_fails_the_write_and_not_the_server(store: SqliteStore) -> None:
    # SQLite counts pages as a disk counts blocks: at the limit it says that the disk is full
    store._write_connection.execute("PRAGMA max_page_count = 1")

    async def scenario() -> None:
        with pytest.raises((ServiceUnavailableException, sqlite3.Error)):
            await store.write(add_setting, "big", "x" * 10_000_000)
        store._write_connection.execute("PRAGMA max_page_count = 1000000")
        await store.write(add_setting, "small", "x")

    asyncio.run(scenario())
    assert asyncio.run(store.read(names)) == ["small"]


def test_more_writes_than_may_wait_are_refused(store: SqliteStore) -> None:
    gate = threading.Event()
    store._most = 2

    def hold(tx: Tx) -> bool:
        return gate.wait(10)

    async def scenario() -> list[BaseException | None]:
        tasks = [asyncio.create_task(store.write(hold)) for _ in range(10)]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [result if isinstance(result, BaseException) else None for result in results]

    outcomes = asyncio.run(scenario())
    assert any(isinstance(outcome, ServiceUnavailableException) for outcome in outcomes)
    assert None in outcomes


def test_a_write_waits_for_its_turn_no_longer_than_it_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that hangs is in front, as behind a hung disk."""
    store = SqliteStore(tmp_path / "registry.db", patience=0.3)
    gate, began = threading.Event(), threading.Event()
    ran: list[object] = []

    def hold(tx: Tx) -> bool:
        began.set()
        return gate.wait(30)

    async def scenario() -> None:
        holding = asyncio.create_task(store.write(hold))
        await asyncio.to_thread(began.wait, 30)
        outcomes = await asyncio.gather(
            *(store.write(ran.append) for _ in range(3)), return_exceptions=True
        )
        for each in outcomes:
            assert isinstance(each, ServiceUnavailableException)
            assert "waited 0.3 s for its turn" in each.message
        gate.set()
        assert await holding
        await store.write(add_setting, "a", "1")

    asyncio.run(scenario())
    assert asyncio.run(store.read(names)) == ["a"]
    store.close()
    assert ran == [], "who was told that it was too late is not served afterwards"
    assert "event=writes-late jobs=3" in caplog.text


def test_a_file_that_another_program_has_locked_is_written_as_soon_as_it_lets_go(
    store: SqliteStore, tmp_path: Path
) -> None:
    async def scenario(other: sqlite3.Connection) -> None:
        writing = asyncio.create_task(store.write(add_setting, "a", "1"))
        await asyncio.sleep(0.2)
        assert not writing.done()
        other.rollback()
        await writing

    with sqlite3.connect(tmp_path / "registry.db", check_same_thread=False) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.run(scenario(other))
    other.close()
    assert asyncio.run(store.read(names)) == ["a"]


def test_a_second_process_on_the_directory_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="in use by another fleetgate process"):
        SqliteStore(tmp_path / "registry.db")


def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "registry.db").close()
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StoreError, match="written by a newer release"):
        SqliteStore(tmp_path / "registry.db")


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_text("something else\n" * 100)
    with pytest.raises(StoreError, match=r"registry.db` cannot be opened: file is not a database"):
        SqliteStore(tmp_path / "registry.db")
    assert (tmp_path / "registry.db").read_text().startswith("something else")


def test_the_lock_is_no_way_to_another_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "registry.lock").symlink_to(victim)
    with pytest.raises(StoreError, match="cannot be written to"):
        SqliteStore(tmp_path / "registry.db")
    assert victim.read_text() == "mine"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written to: No such file"):
        SqliteStore(tmp_path / "absent" / "registry.db")


_WRITER = """
import asyncio, sys
from pathlib import Path
from fleetgate.store.engine import add_setting
from fleetgate.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    async def one(number):
        await store.write(add_setting, f"{number:06}", "x")
        print(f"{number:06}", flush=True)
    for start in range(0, 1_000_000, 20):
        await asyncio.gather(*(one(start + each) for each in range(20)))

asyncio.run(main())
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(300)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [line.strip() for line in writer.stdout.read().splitlines() if len(line) == 6]
    writer.stdout.close()
    writer.wait()
    store = SqliteStore(path)
    stored = set(asyncio.run(store.read(names)))
    store.close()
    assert len(acknowledged) >= 300
    assert set(acknowledged) <= stored


def test_a_server_on_sqlite_does_not_wait_for_the_driver_of_postgresql() -> None:
    program = "import sys, fleetgate.cli, fleetgate.server; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
