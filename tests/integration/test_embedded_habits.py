"""What embedded clients do that desktop clients do not.

Source: aws/aws-iot-device-sdk-embedded-C (main and v4_beta_deprecated) and
aws/Fleet-Provisioning-for-AWS-IoT-embedded-sdk: their demos and system tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.fleet import (
    CSR,
    KEYS,
    Fleet,
    register_topic,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice
from tests.integration.server import Server

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])
USER_NAMES = [
    "?SDK=IoTDeviceSDK/Python&Platform=Unix&Metadata=(a=b)",
    "?SDK=C&Version=4.0.0",
    "?SDK=Ubuntu&Version=18.04 LTS&Platform=x86",
    "?CPPv2SDK&CPPv2Version",
    "",
]


@VERSIONS
@pytest.mark.parametrize("user_name", USER_NAMES)
def test_a_user_name_without_a_password_is_accepted(
    server: Server, shared_fleet: Fleet, name: str, *, version: int, user_name: str
) -> None:
    with PahoDevice(
        server, shared_fleet.claim, name, version=version, username=user_name
    ) as device:
        device.listen(KEYS)


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "csr"])
def test_the_c_demo_runs(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path, keys: bool
) -> None:
    """CBOR, clean session 0, subscribe-publish-unsubscribe, then a new identity, three times."""
    fleet = shared_fleet
    create, register = KEYS if keys else CSR, register_topic(fleet.template)
    for loop in range(3):
        serial = f"{name}-{loop}"
        with PahoDevice(server, fleet.claim, f"claim-{name}", clean=False) as device:
            device.listen(create, form="cbor")
            if keys:
                made = device.accepted(create, b"", form="cbor")
                key = made["privateKey"]
            else:
                request = signing_request(serial)
                csr = {"certificateSigningRequest": request.csr}
                made, key = device.accepted(create, csr, form="cbor"), request.key
            device.unsubscribe(f"{create}/cbor/accepted", f"{create}/cbor/rejected")
            device.listen(register, form="cbor")
            body = {
                "certificateOwnershipToken": made["certificateOwnershipToken"],
                "parameters": {"SerialNumber": serial},
            }
            assert device.accepted(register, body, form="cbor")["thingName"] == fleet.thing(serial)
            device.unsubscribe(f"{register}/cbor/accepted")
            device.unsubscribe(f"{register}/cbor/rejected")
            device.send(f"{create}/cbor", b"")  # nobody listens any more
            device.listen(CSR, form="cbor")
            rejected = device.rejected(CSR, {"certificateSigningRequest": "x"}, form="cbor")
            assert rejected["statusCode"] == 400
            assert device.messages.empty()
        own = write_identity(tmp_path, serial, made["certificatePem"], key, made["certificateId"])
        thing = fleet.thing(serial)
        with PahoDevice(server, own, thing, clean=False) as device:
            assert not device.session_present
            assert device.publish(f"devices/{thing}/data", b"hello") == 0


@pytest.mark.parametrize(("keep_alive", "granted"), [(0, 1200), (6, 30), (60_000, 1200)])
@VERSIONS
def test_any_keep_alive_is_accepted(
    server: Server,
    shared_fleet: Fleet,
    name: str,
    *,
    version: int,
    keep_alive: int,
    granted: int,
) -> None:
    """The v4-beta system tests send seconds where milliseconds are meant: 60000.

    AWS IoT Core quotas, "Keep-alive interval": 30 to 1200 s; MQTT 5 clients are told.
    """
    with PahoDevice(
        server, shared_fleet.claim, name, version=version, keep_alive=keep_alive
    ) as device:
        if version == 5:
            assert device.granted.ServerKeepAlive == granted
        device.listen(KEYS)
        assert device.accepted(KEYS, {})["certificateId"]


@VERSIONS
def test_four_filters_in_one_subscribe(
    server: Server, shared_fleet: Fleet, name: str, version: int
) -> None:
    filters = [f"{topic}/json/{end}" for topic in (KEYS, CSR) for end in ("accepted", "rejected")]
    with PahoDevice(server, shared_fleet.claim, name, version=version) as device:
        assert device.subscribe(*filters) == [1, 1, 1, 1]
        assert device.accepted(KEYS, {})["certificateId"]
        assert device.rejected(CSR, {"certificateSigningRequest": "x"})["statusCode"] == 400
        device.unsubscribe(*filters)
        device.send(f"{KEYS}/json", b"{}")
        with pytest.raises(TimeoutError):
            device.message(0.5)


def test_many_devices_share_a_claim_at_once(server: Server, shared_fleet: Fleet, name: str) -> None:
    register = register_topic(shared_fleet.template)
    devices = [PahoDevice(server, shared_fleet.claim, f"{name}-{n}") for n in range(10)]
    opened: list[PahoDevice] = []
    try:
        for device in devices:
            opened.append(device.__enter__())
            device.listen(CSR, register)
        tokens = [device.create()[0]["certificateOwnershipToken"] for device in devices]
        for number, (device, token) in enumerate(zip(devices, tokens, strict=True)):
            body = {
                "certificateOwnershipToken": token,
                "parameters": {"SerialNumber": f"{name}-{number}"},
            }
            reply = device.accepted(register, body)
            assert reply["thingName"] == shared_fleet.thing(f"{name}-{number}")
    finally:
        for device in opened:
            device.close()
