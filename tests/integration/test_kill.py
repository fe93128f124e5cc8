"""`kill -9` in the middle of provisionings loses nothing that was acknowledged."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import CSR, Fleet, create_fleet, register_topic, signing_request
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.refusal import everything
from tests.integration.server import Server
from tests.postgresql import Cluster

DEVICES = 4
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Acknowledged:
    thing: str
    certificate_id: str


class Provisioner:
    """A thread that provisions one device after the other until the server is gone.

    ``errors`` gets what is not explained by a lost connection.
    """

    def __init__(self, server: Server, fleet: Fleet, prefix: str) -> None:
        self.acknowledged: queue.Queue[Acknowledged] = queue.Queue()
        self.errors: queue.Queue[Exception] = queue.Queue()
        self._arguments = (server, fleet, prefix)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=prefix)
        self._thread.start()

    def _run(self) -> None:
        server, fleet, prefix = self._arguments
        register = register_topic(fleet.template)
        body = {"certificateSigningRequest": signing_request(prefix).csr}
        try:
            with PahoDevice(server, fleet.claim, f"claim-{prefix}") as device:
                device.listen(CSR, register)
                number = 0
                while not self._over.is_set():
                    made = device.accepted(CSR, body)
                    request = {
                        "certificateOwnershipToken": made["certificateOwnershipToken"],
                        "parameters": {"SerialNumber": f"{prefix}-{number}"},
                    }
                    thing = device.accepted(register, request)["thingName"]
                    self.acknowledged.put(Acknowledged(thing, made["certificateId"]))
                    number += 1
        except (Refused, OSError) as error:
            if not self._over.is_set():
                self.errors.put(error)

    def finish(self) -> None:
        self._over.set()

    def join(self) -> None:
        self._thread.join()


def whole(iot: Any, thing: str, policy: str) -> str:
    """The id of the certificate of `thing`; asserts that it is ACTIVE and has its policy."""
    [principal] = iot.list_thing_principals(thingName=thing)["principals"]
    id_ = str(principal.rpartition("/")[2])
    described = iot.describe_certificate(certificateId=id_)["certificateDescription"]
    assert described["status"] == "ACTIVE"
    attached = iot.list_attached_policies(target=principal)["policies"]
    assert [entry["policyName"] for entry in attached] == [policy]
    return id_


def test_every_acknowledged_registration_survives_and_none_is_half_done(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    env = {}
    if database == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        env["FLEETGATE_DATABASE"] = cluster.url(cluster.create_database())
    server = Server(tmp_path / "data", env=env).start()
    acknowledged: dict[str, str] = {}
    try:
        fleet = create_fleet(server, tmp_path, "kill")
        for round_ in range(ROUNDS):
            provisioners = [
                Provisioner(server, fleet, f"{round_}-{number}") for number in range(DEVICES)
            ]
            time.sleep(0.7 + 0.21 * round_)
            for provisioner in provisioners:
                provisioner.finish()
            server.kill()
            for provisioner in provisioners:
                provisioner.join()
                assert provisioner.errors.empty(), provisioner.errors.get()
                while not provisioner.acknowledged.empty():
                    each = provisioner.acknowledged.get()
                    acknowledged[each.thing] = each.certificate_id
            server = Server(tmp_path / "data", env=env).start()

            things = everything(server.iot, "list_things", "things")
            names = {entry["thingName"] for entry in things}
            assert set(acknowledged) <= names
            # at most one registration per device was on its way when the power went
            assert len(names - set(acknowledged)) <= DEVICES * (round_ + 1)
            for thing in names:
                id_ = whole(server.iot, thing, fleet.device_policy)
                assert id_ == acknowledged.get(thing, id_)
        assert len(acknowledged) > DEVICES * ROUNDS, "too few to say anything"
        print(f"{len(acknowledged)} acknowledged registrations, all whole")  # noqa: T201
    finally:
        server.terminate()
