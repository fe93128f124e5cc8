"""paho-mqtt: both MQTT versions, both payload formats, keys and CSR."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.fleet import Fleet, Identity
from tests.integration.paho_device import PahoDevice, Refused, onboard
from tests.integration.server import Server

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])
NOT_AUTHORIZED = 0x87


@VERSIONS
@pytest.mark.parametrize("form", ["json", "cbor"])
@pytest.mark.parametrize("keys", [True, False], ids=["keys", "csr"])
def test_a_device_gets_its_identity_and_uses_it(
    server: Server,
    shared_fleet: Fleet,
    observer: PahoDevice,
    name: str,
    tmp_path: Path,
    *,
    version: int,
    form: str,
    keys: bool,
) -> None:
    thing = shared_fleet.thing(name)
    own = onboard(server, shared_fleet, name, tmp_path, version=version, form=form, keys=keys)
    with PahoDevice(server, own, thing, version=version) as device:
        assert device.subscribe(f"devices/{thing}/#") == [1]
        assert device.publish(f"devices/{thing}/data", b"hello") == 0
        assert device.message().payload == b"hello"
        message = observer.message()
        assert (message.topic, message.payload) == (f"devices/{thing}/data", b"hello")


@VERSIONS
def test_a_publish_outside_the_policy_ends_the_connection_and_reaches_nobody(
    server: Server,
    shared_fleet: Fleet,
    observer: PahoDevice,
    name: str,
    tmp_path: Path,
    *,
    version: int,
) -> None:
    """Source: AWS IoT Core developer guide, "MQTT", "MQTT 5 reason codes": 135."""
    thing = shared_fleet.thing(name)
    own = onboard(server, shared_fleet, name, tmp_path, version=version)
    with PahoDevice(server, own, thing, version=version) as device:
        code = device.publish("devices/another/data", b"stray")
        assert code == (NOT_AUTHORIZED if version == 5 else None)
        assert device.disconnected.wait(5)
        assert device.disconnect_code == (NOT_AUTHORIZED if version == 5 else None)
    observer.publish("devices/fence", b"")
    assert observer.message().topic == "devices/fence"


@VERSIONS
def test_subscriptions_outside_the_policy_are_refused_one_by_one(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path, version: int
) -> None:
    thing = shared_fleet.thing(name)
    own = onboard(server, shared_fleet, name, tmp_path, version=version)
    refused = NOT_AUTHORIZED if version == 5 else 0x80
    with PahoDevice(server, own, thing, version=version) as device:
        filters = ["devices/another/#", f"devices/{thing}/in", "#", "devices/+/in"]
        assert device.subscribe(*filters) == [refused, 1, refused, refused]
        assert device.publish(f"devices/{thing}/in", b"still here") == 0
        assert device.message().payload == b"still here"


@VERSIONS
def test_a_client_id_outside_the_policy_is_refused(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path, version: int
) -> None:
    own = onboard(server, shared_fleet, name, tmp_path, version=version)
    with pytest.raises(Refused) as caught, PahoDevice(server, own, "intruder", version=version):
        pass
    # paho shows the return code 5 of MQTT 3.1.1 by its name in MQTT 5
    assert caught.value.code == NOT_AUTHORIZED


@VERSIONS
def test_a_policy_change_takes_effect(
    server: Server, fleet: Fleet, name: str, tmp_path: Path, version: int
) -> None:
    own = onboard(server, fleet, name, tmp_path, version=version)
    server.iot.detach_policy(policyName=fleet.device_policy, target=own.arn)
    with (
        pytest.raises(Refused) as caught,
        PahoDevice(server, own, fleet.thing(name), version=version),
    ):
        pass
    assert caught.value.code == NOT_AUTHORIZED
    server.iot.attach_policy(policyName=fleet.device_policy, target=own.arn)
    with PahoDevice(server, own, fleet.thing(name), version=version):
        pass


@VERSIONS
def test_a_revoked_certificate_is_refused(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path, version: int
) -> None:
    own = onboard(server, shared_fleet, name, tmp_path, version=version)
    for status in ("INACTIVE", "REVOKED"):
        server.iot.update_certificate(certificateId=own.id, newStatus=status)
        with (
            pytest.raises(Refused),
            PahoDevice(server, own, shared_fleet.thing(name), version=version),
        ):
            pass
    server.iot.update_certificate(certificateId=own.id, newStatus="ACTIVE")
    with PahoDevice(server, own, shared_fleet.thing(name), version=version):
        pass


@VERSIONS
def test_a_second_connection_with_a_client_id_takes_it_over(
    server: Server, operator: Identity, name: str, version: int
) -> None:
    with (
        PahoDevice(server, operator, name, version=version) as first,
        PahoDevice(server, operator, name, version=version) as second,
    ):
        assert first.disconnected.wait(5)
        assert first.disconnect_code == (0x8E if version == 5 else None)
        assert second.publish("devices/any", b"") == 0


@VERSIONS
def test_the_will_of_a_lost_device_is_published_and_of_a_leaving_one_is_not(
    server: Server, operator: Identity, observer: PahoDevice, name: str, version: int
) -> None:
    will = (f"devices/{name}/will", b"lost")
    with PahoDevice(server, operator, name, version=version, will=will):
        pass
    with PahoDevice(server, operator, name, version=version, will=will) as device:
        observer.publish("devices/fence", b"")
        assert observer.message().topic == "devices/fence"
        device.drop()
        message = observer.message()
        assert (message.topic, message.payload) == will


@VERSIONS
def test_a_persistent_session_keeps_what_came_while_the_device_was_away(
    server: Server, operator: Identity, observer: PahoDevice, name: str, version: int
) -> None:
    def device() -> PahoDevice:
        return PahoDevice(server, operator, name, version=version, clean=False)

    with device() as first:
        assert not first.session_present
        assert first.subscribe(f"away/{name}") == [1]
    for number in range(3):
        assert observer.publish(f"away/{name}", b"%d" % number) == 0
    with device() as again:
        assert again.session_present
        assert [again.message().payload for _ in range(3)] == [b"0", b"1", b"2"]
    with PahoDevice(server, operator, name, version=version) as clean:
        assert not clean.session_present
    with device() as fresh:
        assert not fresh.session_present
