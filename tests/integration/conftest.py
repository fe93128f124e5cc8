"""A server for the whole session, and the fleets and identities the tests use on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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

_numbers = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What uses the shared server runs on one with SQLite and on one with PostgreSQL."""
    if "server" in metafunc.fixturenames:
        metafunc.parametrize("server", KINDS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The shared server. Tests that kill, reset or reconfigure one start their own."""
    environment = settings_of(request.param, request)
    with Server(tmp_path_factory.mktemp("server") / "data", env=environment) as running:
        create_role(running)
        yield running


@pytest.fixture(scope="session")
def iot(server: Server) -> Any:
    return server.iot


@pytest.fixture(scope="session")
def unchecked(server: Server) -> Iterator[Any]:
    """A boto3 client that sends what it is given, so that the server has to check."""
    client = server.client(parameter_validation=False)
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    """A name no other test uses."""
    return f"t{next(_numbers)}"


@pytest.fixture
def fleet(server: Server, name: str, tmp_path: Path) -> Fleet:
    """A template, its policies and a claim certificate of this test's own."""
    return create_fleet(server, tmp_path / "fleet", name)


@pytest.fixture(scope="session")
def shared_fleet(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet for tests that leave template and policies as they are."""
    return create_fleet(server, tmp_path_factory.mktemp("fleet"), "shared")


@pytest.fixture(scope="session")
def operator(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """An identity whose policy allows everything."""
    server.iot.create_policy(policyName="operator", policyDocument=document(ALLOW_ALL))
    return create_identity(server, tmp_path_factory.mktemp("operator"), "operator", "operator")


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
