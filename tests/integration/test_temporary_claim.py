"""The temporary claim of CreateProvisioningClaim ("provisioning by trusted user")."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.fleet import (
    CSR,
    KEYS,
    Fleet,
    Identity,
    create_fleet,
    register_topic,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice
from tests.integration.refusal import everything, refusal
from tests.integration.server import Server


@pytest.fixture
def claim(server: Server, shared_fleet: Fleet, name: str, tmp_path: Path) -> Identity:
    made = server.iot.create_provisioning_claim(templateName=shared_fleet.template)
    return write_identity(
        tmp_path,
        f"{name}-temporary",
        made["certificatePem"],
        made["keyPair"]["PrivateKey"],
        made["certificateId"],
    )


@pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "csr"])
def test_it_provisions_with_its_template(
    server: Server,
    shared_fleet: Fleet,
    claim: Identity,
    name: str,
    tmp_path: Path,
    *,
    version: int,
    keys: bool,
) -> None:
    register, thing = register_topic(shared_fleet.template), shared_fleet.thing(name)
    with PahoDevice(server, claim, name, version=version) as device:
        device.listen(KEYS, CSR, register)
        made, key = device.create(keys=keys)
        device.accepted(
            register,
            {
                "certificateOwnershipToken": made["certificateOwnershipToken"],
                "parameters": {"SerialNumber": name},
            },
        )
    own = write_identity(tmp_path, thing, made["certificatePem"], key, made["certificateId"])
    with PahoDevice(server, own, thing, version=version) as device:
        assert device.publish(f"devices/{thing}/data", b"hello") == 0


def test_another_template_is_refused(
    server: Server, claim: Identity, name: str, tmp_path: Path
) -> None:
    """Its implicit policy covers one template: the other one's topics are closed to it."""
    other = create_fleet(server, tmp_path, name)
    register = register_topic(other.template)
    with PahoDevice(server, claim, name) as device:
        device.listen(CSR)
        made, _ = device.create()
        refused = device.subscribe(f"{register}/json/accepted", f"{register}/json/rejected")
        if refused == [0x80, 0x80]:
            device.send(f"{register}/json", b"{}")
            assert device.disconnected.wait(5)
        else:
            body = {
                "certificateOwnershipToken": made["certificateOwnershipToken"],
                "parameters": {"SerialNumber": name},
            }
            assert device.rejected(register, body)["statusCode"] == 403
    gone = refusal(server.iot.describe_thing, thingName=other.thing(name))
    assert gone.kind == (404, "ResourceNotFoundException")


def test_it_may_do_nothing_else(server: Server, claim: Identity, name: str) -> None:
    with PahoDevice(server, claim, name) as device:
        assert device.subscribe("devices/#", "#", f"devices/{name}") == [0x80, 0x80, 0x80]
        device.send("devices/any", b"")
        assert device.disconnected.wait(5)


def test_it_is_not_in_the_registry_for_anyone_to_see(server: Server, claim: Identity) -> None:
    listed = everything(server.iot, "list_certificates", "certificates")
    assert claim.id not in {entry["certificateId"] for entry in listed}
    hidden = refusal(server.iot.describe_certificate, certificateId=claim.id)
    assert hidden.kind == (404, "ResourceNotFoundException")


def test_a_disabled_template_registers_nothing(server: Server, fleet: Fleet, name: str) -> None:
    register = register_topic(fleet.template)
    with PahoDevice(server, fleet.claim, name) as device:
        device.listen(CSR, register)
        made, _ = device.create()
        body = {
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": {"SerialNumber": name},
        }
        server.iot.update_provisioning_template(templateName=fleet.template, enabled=False)
        assert device.rejected(register, body)["statusCode"] == 403
        csr = {"certificateSigningRequest": signing_request().csr}
        assert device.accepted(CSR, csr)["certificateId"]
        server.iot.update_provisioning_template(templateName=fleet.template, enabled=True)
        assert device.accepted(register, body)["thingName"] == fleet.thing(name)
