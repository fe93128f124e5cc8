"""Journeys whose certificate, or whose client id, cannot be tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device import client_ids
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import BadRequest, ConnectionFailed, ProvisioningError
from fleetgate.device.provision import Provisioned, Retries, provision
from fleetgate.device.status_command import unfinished
from tests.device.conftest import Files, Issuer
from tests.device.memory_server import Clock, MemoryServer, refusal
from tests.device.recorded_disk import UnflushedDisk
from tests.device.scripted_client import ScriptedClient

Run = Callable[..., Provisioned]


@pytest.fixture
def server(issuer: Issuer, claim: Files) -> MemoryServer:
    return MemoryServer(issuer, claim, Clock())


@pytest.fixture
def run(server: MemoryServer, claim: Files, tmp_path: Path) -> Run:
    def connect(endpoint: Endpoint, credentials: AnyCredentials, client_id: str) -> ScriptedClient:
        """As every adapter does."""
        client_ids.check(client_id)
        return server.connect(endpoint, credentials, client_id)

    def provision_here(**options: Any) -> Provisioned:
        assert server.clock
        return provision(
            Endpoint("localhost", 8883, claim.ca),
            Credentials(claim.certificate, claim.key),
            "lamps",
            options.pop("parameters", {"SerialNumber": "1"}),
            tmp_path / "out",
            connect=connect,
            around=server.clock.around,
            calls=UnflushedDisk(),
            **options,
        )

    return provision_here


def failure(run: Run, **options: Any) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        run(**options)
    return caught.value


def test_a_token_that_is_no_good_is_not_shown_again(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    """While the server is busy the certificate alone is tried again."""
    server.faults["register"].append(refusal(400, "InvalidCertificateOwnershipToken"))
    server.busy = 100
    error = failure(run, retries=Retries(attempts=4))
    assert isinstance(error, ConnectionFailed)
    assert f"abandon it (`fleetgate abandon {tmp_path / 'out'}`)" in error.message
    assert server.asked == ["create", "register"]
    tried = 100 - server.busy
    assert tried == 4
    server.busy = 0  # refused now, hence beyond doubt: the next run gets another certificate
    assert run(begin_anew=True).thing_name == "lamp-1"


def test_a_token_that_is_no_good_while_the_server_is_busy_for_a_moment(
    run: Run, server: MemoryServer
) -> None:
    server.faults["register"].append(refusal(400, "InvalidCertificateOwnershipToken"))
    server.busy = 2
    assert run().thing_name == "lamp-1"
    assert server.asked == ["create", "register", "create", "register"]


@pytest.mark.parametrize("name", ["x" * 66_000, "a\x01b", "a\0b"], ids=["long", "control", "nul"])
def test_a_thing_whose_name_is_no_client_id(name: str, run: Run, server: MemoryServer) -> None:
    """The server has registered it; with a client id of its own it goes on."""
    server.thing_name = name
    for _ in range(2):
        error = failure(run)
        assert error.message.startswith("the device is registered (thing `")
        assert error.step == "reconnect"
        assert "cannot be an MQTT client id" in error.message
        assert "--own-client-id" in error.message
        assert not error.retry
        assert len(error.message) < 1000
    done = run(own_client_id="lamp")
    assert (done.thing_name, done.client_id) == (name, "lamp")
    assert server.asked == ["create", "register"]


@pytest.mark.parametrize("option", ["client_id", "own_client_id"])
def test_a_client_id_that_is_none_is_refused_before_anything_is_made(
    option: str, run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    error = failure(run, **{option: "a\x01b"})
    assert isinstance(error, BadRequest)
    assert r"`a\x01b` cannot be an MQTT client id" in error.message
    assert not server.connects
    assert unfinished(tmp_path / "out") is None


def test_a_parameter_that_is_no_client_id_is_not_tried(run: Run, server: MemoryServer) -> None:
    server.faults["register"].append(refusal(400, "InvalidCertificateOwnershipToken"))
    assert run(parameters={"SerialNumber": "a\x01b"}).thing_name == "lamp-1"
    assert "a\x01b" not in [name for name, _ in server.connects]
