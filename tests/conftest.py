"""What holds for every test: Hypothesis settings, databases, commands of the system.

A test with the fixture `store` runs twice, on an empty SQLite and on an empty PostgreSQL store.

A test that runs a command of another package says so with ``@pytest.mark.needs("mosquitto")``.
Where the command is missing the test is left out, and the end of the run names it together with
the Debian package to install: nothing is left out in silence.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from fleetgate.store.engine import Store, Tx, empty
from fleetgate.store.opening import open_store

if TYPE_CHECKING:
    from tests.postgresql import Cluster

PACKAGES_FILE = Path(__file__).parents[1] / "tools" / "debian-packages.txt"
PROFILES = {"suite": 50, "thorough": 2000}
"""Hypothesis: how many examples each property is tried with; HYPOTHESIS_PROFILE says which."""

LEFT_OUT = pytest.StashKey[list[tuple[str, list[str]]]]()


def read_packages(text: str) -> dict[str, str]:
    """Command -> Debian package, from the text of tools/debian-packages.txt."""
    packages = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            command, package = line.split()
            packages[command] = package
    return packages


def pytest_configure(config: pytest.Config) -> None:
    for profile, examples in PROFILES.items():
        # a slow machine is no finding
        hypothesis.settings.register_profile(profile, deadline=None, max_examples=examples)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
    # mosquitto is in /usr/sbin, which is not on every user's path
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    config.stash[LEFT_OUT] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    packages = read_packages(PACKAGES_FILE.read_text())
    keep: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        commands = [command for mark in item.iter_markers("needs") for command in mark.args]
        if unknown := sorted(set(commands) - set(packages)):
            raise pytest.UsageError(
                f"{item.nodeid} needs {', '.join(f'`{name}`' for name in unknown)}, "
                f"which tools/debian-packages.txt does not list"
            )
        missing = {packages[command] for command in commands if shutil.which(command) is None}
        if missing:
            config.stash[LEFT_OUT].append((item.nodeid, sorted(missing)))
        (left_out if missing else keep).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = keep


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server for the whole session; tests that stop one start their own."""
    from tests.postgresql import Cluster  # here: this file is also used alone, by test_left_out

    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One SQLite store for all tests with `store`: emptying it is quicker than opening one."""
    store = open_store(tmp_path_factory.mktemp("sqlite-store"), "", 2, 10.0)
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgres_store(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The same for PostgreSQL."""
    url = cluster.socket_url(cluster.create_database())
    store = open_store(tmp_path_factory.mktemp("postgres-store"), url, 8, 10.0)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The kind of database of this test."""
    return str(request.param)


@pytest.fixture
def store(database: str, request: pytest.FixtureRequest) -> Store:
    """An empty store."""
    kind = "postgres_store" if database == "postgresql" else "sqlite_store"
    store: Store = request.getfixturevalue(kind)
    asyncio.run(store.write(_empty))
    return store


def _empty(tx: Tx) -> None:
    empty(tx)
    tx.run("DELETE FROM setting")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    left_out = config.stash[LEFT_OUT]
    if not left_out:
        return
    terminalreporter.section("left out: missing Debian packages", yellow=True, bold=True)
    for test, missing in left_out:
        terminalreporter.write_line(f"LEFT OUT {test} (needs {' '.join(missing)})")
    every = sorted({package for _, missing in left_out for package in missing})
    terminalreporter.write_line(
        f"tests left out: {len(left_out)}; to run them: apt-get install {' '.join(every)}",
        yellow=True,
    )
