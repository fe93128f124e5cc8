"""The whole journey with everything that a device may run on: each MQTT library, both versions of
MQTT, both payload formats, the key in a file and on a token, blocking and awaited."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device import keys
from fleetgate.device.protocol import PayloadFormat
from fleetgate.mqtt.packets import Version
from tests.device.clients import Remains, both_versions, every_adapter
from tests.functions import softhsm
from tests.integration.device_journey import Device, journey
from tests.integration.fleet import (
    ALLOW_ALL,
    ROLE,
    Identity,
    create_identity,
    create_role,
    policy_document,
    template_body,
)
from tests.integration.server import Server, environment
from tests.test_docs import ROOT

FLEET = "matrix"

both_forms = pytest.mark.parametrize("form", ["json", "cbor"])
both_ways = pytest.mark.parametrize("awaiting", [False, True], ids=["blocking", "awaiting"])


@dataclass(frozen=True)
class Site:
    """A server, a fleet whose devices may renew themselves, and its claim."""

    server: Server
    claim: Identity
    directory: Path

    def device(
        self, adapter: str, version: Version, form: PayloadFormat, awaiting: bool, **more: Any
    ) -> Device:
        out = self.directory / "-".join([adapter, str(version), form, str(awaiting), *more])
        claim = (str(self.claim.certificate), str(self.claim.key))
        port, ca = self.server.mqtt_port, str(self.server.ca_file)
        return Device(adapter, version, form, awaiting, port, ca, claim, FLEET, str(out), **more)

    def check(self, device: Device, said: dict[str, Any]) -> None:
        """That it has come to its end, and that the server knows it so."""
        name, on_token = f"{FLEET}-{device.serial}", device.key is not None
        certificates = said.pop("certificates")
        assert said == {
            "thing": name,
            "reconnected": [True, True],
            "version": device.version,
            "on token": [on_token, on_token],
            "configuration": {"greeting": "hello", "serial": device.serial},
            "heard": "here I am",
        }
        principals = self.server.iot.list_thing_principals(thingName=name)["principals"]
        known = [each.rpartition("/")[2] for each in principals]
        assert sorted(known) == sorted(certificates)
        assert len(set(known)) == 2


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("matrix")
    with Server(directory / "data") as server:
        create_role(server)
        server.iot.create_policy(policyName=FLEET, policyDocument=policy_document(ALLOW_ALL))
        server.iot.create_provisioning_template(
            templateName=FLEET,
            templateBody=template_body(FLEET, FLEET),
            provisioningRoleArn=ROLE,
            enabled=True,
        )
        claim = create_identity(server, directory, "claim", FLEET)
        yield Site(server, claim, directory)


@every_adapter
@both_versions
@both_forms
@both_ways
def test_with_the_key_in_a_file(
    adapter: str, version: Version, form: PayloadFormat, awaiting: bool, site: Site
) -> None:
    remains = Remains()
    device = site.device(adapter, version, form, awaiting)
    site.check(device, journey(device))
    assert remains.none(), remains


# --- the key on a token ---

ON_A_TOKEN: list[tuple[Version, PayloadFormat, bool]] = [
    (version, form, awaiting)
    for version in (4, 5)
    for form in ("json", "cbor")
    for awaiting in (False, True)
]


@pytest.fixture(scope="module")
def on_a_token(site: Site) -> dict[str, tuple[Device, dict[str, Any]]]:
    """Journeys with a key on a token, by the devices' serial numbers.

    All in one process, and not in this one: SoftHSM reads its configuration once.
    """
    hsm = softhsm.make(site.directory)
    hsm.add_token("fleet")
    file, pin = site.directory / "device.pem", site.directory / "pin"
    file.write_text(keys.pem(keys.make("P-256")))
    hsm.add_key("fleet", file, "device")
    pin.touch(0o600)
    pin.write_text(f"{softhsm.PIN}\n")
    key = (softhsm.MODULE, "fleet", "device", str(pin))
    devices = [site.device("awscrt", *each, key=key) for each in ON_A_TOKEN]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.integration.device_journey"]
        + [json.dumps(asdict(device)) for device in devices],
        cwd=ROOT,
        env=environment(SOFTHSM2_CONF=str(hsm.configuration)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(devices), done.stderr
    return {device.serial: (device, each) for device, each in zip(devices, said, strict=True)}


@pytest.mark.needs("softhsm2-util")
@both_versions
@both_forms
@both_ways
def test_with_the_key_on_a_token(
    version: Version,
    form: PayloadFormat,
    awaiting: bool,
    site: Site,
    on_a_token: dict[str, tuple[Device, dict[str, Any]]],
) -> None:
    serial = site.device("awscrt", version, form, awaiting, key=("", "", "", "")).serial
    site.check(*on_a_token[serial])
