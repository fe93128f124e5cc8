"""Servers for the whole session, and the fleets and identities the tests use on them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.databases import KINDS, settings_of
from tests.integration.fleet import (
    ALLOW_ALL,
    Fleet,
    Identity,
    create_fleet,
    create_identity,
    create_role,
)
from tests.integration.fleet import policy_document as document
from tests.integration.paho_device import PahoDevice, onboard
from tests.integration.server import Server, http
from tests.postgresql import Cluster

_numbers = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What uses the shared server runs on one with SQLite and on one with PostgreSQL."""
    if "server_kind" in metafunc.fixturenames:
        metafunc.parametrize("server_kind", KINDS, scope="session")


class Shared:
    """A server of the session's, and what the tests share on it, made when first asked for.

    A fixture with parameters has one value at a time: each file, with its tests on SQLite and
    those on PostgreSQL, would start both servers again.
    """

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self._directory = directory
        self.server = Server(directory / "data", env=env).start()
        create_role(self.server)

    def close(self) -> None:
        if "unchecked" in self.__dict__:
            self.unchecked.close()
        self.server.terminate()

    @functools.cached_property
    def unchecked(self) -> Any:
        return self.server.client(parameter_validation=False)

    @functools.cached_property
    def fleet(self) -> Fleet:
        return create_fleet(self.server, self._directory / "fleet", "shared")

    @functools.cached_property
    def operator(self) -> Identity:
        self.server.iot.create_policy(policyName="operator", policyDocument=document(ALLOW_ALL))
        return create_identity(self.server, self._directory / "operator", "operator", "operator")


@pytest.fixture(scope="session")
def all_shared(cluster: Cluster) -> Iterator[dict[str, Shared]]:
    """What is running, by the kind of database; it ends before PostgreSQL does."""
    running: dict[str, Shared] = {}
    yield running
    for each in running.values():
        each.close()


@pytest.fixture(scope="session")
def shared(
    request: pytest.FixtureRequest,
    server_kind: str,
    all_shared: dict[str, Shared],
    tmp_path_factory: pytest.TempPathFactory,
) -> Shared:
    if server_kind not in all_shared:
        settings = settings_of(server_kind, request)
        all_shared[server_kind] = Shared(tmp_path_factory.mktemp("shared"), settings)
    return all_shared[server_kind]


@pytest.fixture(scope="session")
def server(shared: Shared) -> Server:
    """The shared server. Tests that kill, reset or reconfigure one start their own."""
    return shared.server


@pytest.fixture(scope="session")
def iot(server: Server) -> Any:
    return server.iot


@pytest.fixture(scope="session")
def unchecked(shared: Shared) -> Any:
    """A boto3 client that sends what it is given, so that the server has to check."""
    return shared.unchecked


@pytest.fixture
def name() -> str:
    """A name no other test uses."""
    return f"t{next(_numbers)}"


@pytest.fixture
def fleet(server: Server, name: str, tmp_path: Path) -> Fleet:
    """A template, its policies and a claim certificate of this test's own."""
    return create_fleet(server, tmp_path / "fleet", name)


@pytest.fixture(scope="session")
def shared_fleet(shared: Shared) -> Fleet:
    """A fleet for tests that leave template and policies as they are."""
    return shared.fleet


@pytest.fixture(scope="session")
def operator(shared: Shared) -> Identity:
    """An identity whose policy allows everything."""
    return shared.operator


@pytest.fixture
def observer(server: Server, operator: Identity) -> Iterator[PahoDevice]:
    """A connected client that sees every message below ``devices/``."""
    with PahoDevice(server, operator, "observer") as device:
        assert device.subscribe("devices/#") == [1]
        yield device


@pytest.fixture
def goes_on(server: Server, shared_fleet: Fleet, name: str, tmp_path: Path) -> Iterator[None]:
    """After the test the server is healthy and provisions a device as if nothing had been."""
    yield
    assert http(f"{server.http_url}/_fleetgate/health").status == 200
    onboard(server, shared_fleet, f"{name}-after", tmp_path / "after")
