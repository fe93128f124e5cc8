"""Templates that change while devices provision: every answer is a defined one, nothing is half.

AWS IoT Core developer guide, "Provisioning templates" and "Fleet provisioning": RegisterThing runs
the version that is the default at that moment. What a device is told by a disabled or deleted
template is ours (docs/divergences.md).
"""

from __future__ import annotations

import itertools
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import (
    CSR,
    ROLE,
    Fleet,
    create_fleet,
    create_role,
    register_topic,
    template_body,
    write_identity,
)
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.races import REQUEST, look, started
from tests.integration.server import Server

DEVICES = 5
SECONDS = 5.0

DENIED = (403, "AccessDenied")
FIRST = {DENIED, (404, "ResourceNotFound"), (400, "ResourceRegistrationFailure")}
"""What a device may be told that asks for the first time."""
AGAIN = {DENIED, (404, "ResourceNotFound"), (400, "InvalidCertificateOwnershipToken")}
"""... or again: the template that registered it may be gone, in favour of one of its name."""


def body_of(fleet: Fleet, number: int, policy: str | None = None) -> str:
    """A version that says which it is, in two places of the thing and in the configuration."""
    template = json.loads(template_body(fleet.name, policy or fleet.device_policy))
    properties = template["Resources"]["thing"]["Properties"]
    properties["AttributePayload"] = {"one": str(number), "two": str(number)}
    template["DeviceConfiguration"] = {"version": str(number)}
    return json.dumps(template)


class Operator:
    """Changes the template, one change after the other."""

    def __init__(self, iot: Any, fleet: Fleet, weak_role: str) -> None:
        self.iot, self.fleet, self.weak_role = iot, fleet, weak_role
        self.numbers = itertools.count(1)
        self.name = {"templateName": fleet.template}

    def new_version(self, policy: str | None = None) -> None:
        """In force at once; the one before is deleted."""
        made = self.iot.create_provisioning_template_version(
            **self.name,
            templateBody=body_of(self.fleet, next(self.numbers), policy),
            setAsDefault=True,
        )
        for old in self.iot.list_provisioning_template_versions(**self.name)["versions"]:
            if old["versionId"] != made["versionId"]:
                self.iot.delete_provisioning_template_version(
                    **self.name, versionId=old["versionId"]
                )

    def broken_version(self) -> None:
        self.new_version("absent")
        time.sleep(0.1)
        self.new_version()

    def switch(self) -> None:
        self.iot.update_provisioning_template(**self.name, enabled=False)
        time.sleep(0.1)
        self.iot.update_provisioning_template(**self.name, enabled=True)

    def weaken(self) -> None:
        self.iot.update_provisioning_template(**self.name, provisioningRoleArn=self.weak_role)
        time.sleep(0.1)
        self.iot.update_provisioning_template(**self.name, provisioningRoleArn=ROLE)

    def make_anew(self) -> None:
        self.iot.delete_provisioning_template(**self.name)
        time.sleep(0.1)
        self.iot.create_provisioning_template(
            **self.name,
            templateBody=body_of(self.fleet, next(self.numbers)),
            provisioningRoleArn=ROLE,
            enabled=True,
        )

    def changes(self) -> Iterator[Callable[[], None]]:
        return itertools.cycle(
            [self.new_version, self.switch, self.weaken, self.broken_version, self.make_anew]
        )


@dataclass(slots=True)
class Provisioning:
    """A thread that provisions one device after the other, and asks again each time."""

    server: Server
    fleet: Fleet
    number: int
    over: threading.Event
    accepted: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Thing -> certificate, version."""
    refused: set[tuple[int, str]] = field(default_factory=set)
    refused_again: set[tuple[int, str]] = field(default_factory=set)
    failures: queue.Queue[BaseException] = field(default_factory=queue.Queue)

    def run(self) -> None:
        try:
            with PahoDevice(self.server, self.fleet.claim, f"device-{self.number}") as device:
                device.listen(CSR, register_topic(self.fleet.template))
                for serial in itertools.count():
                    if self.over.is_set():
                        break
                    self._provision(device, f"{self.number}-{serial}")
        except BaseException as error:
            self.failures.put(error)

    def _provision(self, device: PahoDevice, serial: str) -> None:
        register = register_topic(self.fleet.template)
        made = device.accepted(CSR, {"certificateSigningRequest": REQUEST.csr})
        body = {
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": {"SerialNumber": serial},
        }
        while not (first := device.request(register, body)).accepted:
            self.refused.add((first.body["statusCode"], first.body["errorCode"]))
            if self.over.is_set():
                return
        thing, version = first.body["thingName"], first.body["deviceConfiguration"]["version"]
        assert thing == self.fleet.thing(serial)
        self.accepted[thing] = made["certificateId"], version
        again = device.request(register, body)
        if again.accepted:
            assert again.message.payload == first.message.payload
        else:
            self.refused_again.add((again.body["statusCode"], again.body["errorCode"]))


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_devices_provision_while_the_template_changes(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    with started(tmp_path, database, request) as server:
        fleet = create_fleet(server, tmp_path, "changing")
        # the last step of a registration is what this role may not do
        actions = ["iot:CreateThing", "iot:AttachPolicy", "iot:AttachThingPrincipal"]
        rights = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        operator = Operator(server.iot, fleet, create_role(server, "weak", rights))
        operator.new_version()
        over = threading.Event()
        devices = [Provisioning(server, fleet, number, over) for number in range(DEVICES)]
        threads = [threading.Thread(target=each.run) for each in devices]
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        rounds = 0
        try:
            for change in operator.changes():
                if time.monotonic() > end and rounds >= 5:
                    break
                change()
                rounds += 1
                time.sleep(0.1)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        for each in devices:
            assert each.failures.empty(), each.failures.get()
        refused = set[tuple[int, str]]().union(*(each.refused for each in devices))
        again = set[tuple[int, str]]().union(*(each.refused_again for each in devices))
        assert refused <= FIRST
        assert again <= AGAIN
        assert DENIED in refused  # it was refused some time, or the test has shown nothing

        accepted: dict[str, tuple[str, str]] = {}
        for each in devices:
            accepted |= each.accepted
        seen = look(server.iot, beside={fleet.claim.id})
        assert {thing: next(iter(ids)) for thing, ids in seen.things.items()} == {
            thing: certificate_id for thing, (certificate_id, _) in accepted.items()
        }
        assert len(seen.pending) <= DEVICES  # those that were not done when it was over
        things = {each["thingName"]: each for each in every_thing(server.iot)}
        for thing, (_, version) in accepted.items():
            # one version made all of it: no thing is of two
            assert things[thing]["attributes"] == {"one": version, "two": version}
        versions = {version for _, version in accepted.values()}
        print(  # noqa: T201
            f"{len(accepted)} devices by {len(versions)} versions in {rounds} changes; "
            f"refused: {sorted(refused)}, again: {sorted(again)}"
        )


def every_thing(iot: Any) -> list[dict[str, Any]]:
    pages = iot.get_paginator("list_things").paginate()
    return [each for page in pages for each in page["things"]]


def test_deleting_a_template_ends_the_connections_of_its_temporary_claims(
    server: Server, iot: Any, fleet: Fleet, name: str, tmp_path: Path
) -> None:
    made = iot.create_provisioning_claim(templateName=fleet.template)
    key = made["keyPair"]["PrivateKey"]
    claim = write_identity(tmp_path, "claim", made["certificatePem"], key, made["certificateId"])
    with PahoDevice(server, claim, name) as device:
        device.listen(CSR)
        iot.delete_provisioning_template(templateName=fleet.template)
        assert device.disconnected.wait(5)
    with pytest.raises(Refused), PahoDevice(server, claim, name):
        pass
    # a template of the same name is another one
    iot.create_provisioning_template(
        templateName=fleet.template,
        templateBody=template_body(fleet.name, fleet.device_policy),
        provisioningRoleArn=ROLE,
        enabled=True,
    )
    with pytest.raises(Refused), PahoDevice(server, claim, name):
        pass
