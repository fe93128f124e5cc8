"""A device that is registered but was not finished: what the next provisioning makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device.errors import ConnectionFailed, ProvisioningError, Step, StorageRefused
from fleetgate.device.provision import Provisioned, provision
from tests.device.conftest import Files, Issuer, Scripted
from tests.device.service import Service

Run = Callable[..., Provisioned]


@pytest.fixture
def service(issuer: Issuer) -> Service:
    return Service(issuer)


@pytest.fixture
def again(service: Service, scripted: Scripted, claim: Files, tmp_path: Path) -> Iterator[Run]:
    """Provision into ``tmp_path / "out"`` at the service, whose port stays the same."""
    with scripted(service) as port:

        def provision_here(**options: Any) -> Provisioned:
            arguments = {
                "template": "lamps",
                "parameters": {"SerialNumber": "1"},
                "timeout": 0.3,
                **options,
            }
            return provision(
                "localhost",
                port,
                claim.ca,
                claim.certificate,
                claim.key,
                out=tmp_path / "out",
                **arguments,
            )

        yield provision_here


def failure(run: Run, **options: Any) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        run(**options)
    return caught.value


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_a_registered_identity_is_finished_by_the_next_run(
    again: Run, service: Service, tmp_path: Path
) -> None:
    service.codes = [0, 0x87, 0x87, 0x87]
    failed = failure(again, client_id="claim-7")
    out = tmp_path / "out"
    key = (out / "private.key").read_text()
    asked, connected = len(service.requests), len(service.connects)
    service.codes = []
    told: list[Step] = []
    done = again(progress=lambda step, _sentence: told.append(step))
    assert told == list(done.seconds) == ["prepare", "reconnect", "finish"]
    assert len(service.requests) == asked
    assert [each.client_id for each in service.connects[connected:]] == ["lamp-1"]
    assert done.certificate_id in failed.message
    assert (done.thing_name, done.client_id) == ("lamp-1", "lamp-1")
    assert done.device_configuration == {"mode": "bright"}
    assert done.files == {name: out / name for name in names(out)}
    assert names(out) == ["ca.pem", "certificate.pem", "config.json", "private.key"]
    assert (out / "private.key").read_text() == key
    configuration = json.loads((out / "config.json").read_text())
    assert configuration["certificateId"] == done.certificate_id
    assert configuration["deviceConfiguration"] == {"mode": "bright"}


def test_without_a_thing_the_next_run_connects_as_the_first_would_have(
    again: Run, service: Service
) -> None:
    service.thing_name = None
    service.codes = [0, 0x87, 0x87, 0x87]
    failed = failure(again, client_id="claim-7")
    assert "the device is registered (certificate " in failed.message
    service.codes = []
    done = again()
    assert (done.thing_name, done.client_id) == (None, "claim-7")


def test_a_registered_identity_that_is_refused_again_stays_until_it_is_removed(
    again: Run, service: Service, tmp_path: Path
) -> None:
    service.codes = [0, *[0x87] * 100]
    failure(again)
    out = tmp_path / "out"
    before = {each: each.read_bytes() for each in out.iterdir()}
    asked = len(service.requests)
    error = failure(again)
    assert isinstance(error, ConnectionFailed)
    assert error.step == "reconnect"
    identifier = json.loads((out / "pending.json").read_text())["certificateId"]
    holder = f"the device is registered (thing `lamp-1`, certificate {identifier}) and stays so"
    assert holder in error.message
    assert f"remove the directory `{out}` to start again with another one" in error.message
    assert "not authorized, 0x87" in error.message
    assert len(service.requests) == asked
    assert {each: each.read_bytes() for each in out.iterdir()} == before
    shutil.rmtree(out)
    service.codes = []
    assert again().certificate_id != identifier


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"template": "doors"}, "another template"),
        ({"parameters": {"SerialNumber": "2"}}, "other parameters"),
    ],
)
def test_a_registered_identity_is_not_taken_for_another_nor_replaced(
    change: dict[str, Any], differs: str, again: Run, service: Service, tmp_path: Path
) -> None:
    service.codes = [0, 0x87, 0x87, 0x87]
    failure(again)
    service.codes = []
    before = {each: each.read_bytes() for each in (tmp_path / "out").iterdir()}
    error = failure(again, **change)
    assert isinstance(error, StorageRefused)
    assert error.step == "prepare"
    assert f"with {differs}" in error.message
    assert {each: each.read_bytes() for each in (tmp_path / "out").iterdir()} == before
    assert again().thing_name == "lamp-1"


def test_parameters_are_not_left_on_disk(again: Run, service: Service, tmp_path: Path) -> None:
    service.codes = [0, 0x87, 0x87, 0x87]
    failure(again, parameters={"Secret": "open sesame"})
    assert "sesame" not in (tmp_path / "out" / "pending.json").read_text()


@pytest.mark.parametrize(
    "member", ["thingName", "certificateId", "clientId", "deviceConfiguration"]
)
def test_a_damaged_record_of_a_registration_is_refused(
    member: str, again: Run, service: Service, tmp_path: Path
) -> None:
    service.codes = [0, 0x87, 0x87, 0x87]
    failure(again)
    path = tmp_path / "out" / "pending.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), member: 7}))
    error = failure(again)
    assert isinstance(error, StorageRefused)
    assert f"`{member}` in `{path}`" in error.message
