"""Lifecycle events as real clients hear them: paho-mqtt, AWS's device SDK, mosquitto_sub.

Source: AWS IoT developer guide, "Lifecycle events", "Reserved topics". Reasons that need time or
a broken client are in tests/gateway/test_lifecycle.py.
"""

from __future__ import annotations

import json
import queue
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from awscrt import mqtt, mqtt5

from tests.integration.crt_device import WITHIN, crt_5, crt_311
from tests.integration.fleet import (
    ALLOW_ALL,
    Identity,
    arn,
    create_identity,
    policy_document,
)
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.server import Server, environment

VERSIONS = pytest.mark.parametrize("version", [4, 5])


class Watcher:
    """Hears the lifecycle events of client ids that begin with `name`."""

    def __init__(self, device: PahoDevice, name: str) -> None:
        self._device = device
        self._name = name

    def next(self) -> dict[str, Any]:
        """The next event."""
        while True:
            message = self._device.message()
            event: dict[str, Any] = json.loads(message.payload)
            if event["clientId"].startswith(self._name):
                assert message.topic.endswith(f"/{event['eventType']}/{event['clientId']}")
                assert (message.qos, message.retain) == (1, False)
                return event

    def of(self, kind: str) -> dict[str, Any]:
        """The next event, which has to be of this type."""
        event = self.next()
        assert event["eventType"] == kind, event
        return event


@pytest.fixture
def watcher(server: Server, operator: Identity, name: str) -> Iterator[Watcher]:
    with PahoDevice(server, operator, f"watcher-{name}") as device:
        filters = ["$aws/events/presence/+/+", "$aws/events/subscriptions/#"]
        assert [device.subscribe(each) for each in filters] == [[1], [1]]
        yield Watcher(device, name)


@pytest.fixture
def own(server: Server, name: str, tmp_path: Path) -> Identity:
    """An identity that may do everything, of this test alone."""
    server.iot.create_policy(policyName=name, policyDocument=policy_document(ALLOW_ALL))
    return create_identity(server, tmp_path / "own", name, name)


@VERSIONS
def test_a_client_connects_subscribes_and_goes(
    server: Server, watcher: Watcher, own: Identity, name: str, *, version: int
) -> None:
    with PahoDevice(server, own, name, version=version) as device:
        device.subscribe("a/b")
        device.unsubscribe("a/b")
    events = [watcher.next() for _ in range(4)]
    kinds = ["connected", "subscribed", "unsubscribed", "disconnected"]
    assert [each["eventType"] for each in events] == kinds
    for event in events:
        assert abs(event["timestamp"] / 1000 - time.time()) < 60
        assert event["principalIdentifier"] == own.id
        assert event["sessionIdentifier"] == events[0]["sessionIdentifier"]
        assert "thingName" not in event
    assert events[0]["ipAddress"] == "127.0.0.1"
    assert (events[0]["versionNumber"], events[3]["versionNumber"]) == (0, 0)
    assert events[1]["topics"] == events[2]["topics"] == ["a/b"]
    assert events[3]["disconnectReason"] == "CLIENT_INITIATED_DISCONNECT"
    assert events[3]["clientInitiatedDisconnect"] is True
    with PahoDevice(server, own, name, version=version):
        again = watcher.of("connected")
    assert again["versionNumber"] == 1
    assert again["sessionIdentifier"] != events[0]["sessionIdentifier"]


@VERSIONS
def test_a_second_client_with_the_same_id(
    server: Server, watcher: Watcher, own: Identity, name: str, *, version: int
) -> None:
    with PahoDevice(server, own, name, version=version) as first:
        connected = watcher.of("connected")
        with PahoDevice(server, own, name, version=version):
            gone, back = watcher.of("disconnected"), watcher.of("connected")
            assert first.disconnected.wait(10)
    assert gone["disconnectReason"] == "DUPLICATE_CLIENTID"
    assert gone["sessionIdentifier"] == connected["sessionIdentifier"]
    assert [each["versionNumber"] for each in (connected, gone, back)] == [0, 0, 1]


@VERSIONS
def test_who_may_not_connect(
    server: Server, watcher: Watcher, name: str, tmp_path: Path, *, version: int
) -> None:
    identity = create_identity(server, tmp_path / "bare", name)  # without a policy
    with pytest.raises(Refused), PahoDevice(server, identity, name, version=version):
        pass
    event = watcher.of("connect_failed")
    assert event["connectFailureReason"] == "AUTHORIZATION_FAILED"
    assert event["principalIdentifier"] == identity.id
    server.iot.update_certificate(certificateId=identity.id, newStatus="INACTIVE")
    with pytest.raises(Refused), PahoDevice(server, identity, name, version=version):
        pass
    server.iot.update_certificate(certificateId=identity.id, newStatus="ACTIVE")
    with pytest.raises(Refused), PahoDevice(server, identity, f"{name}-2", version=version):
        pass
    assert watcher.of("connect_failed")["clientId"] == f"{name}-2", "not of the INACTIVE one"


@VERSIONS
def test_who_publishes_what_it_may_not(
    server: Server, watcher: Watcher, name: str, tmp_path: Path, *, version: int
) -> None:
    document = policy_document({"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"})
    server.iot.create_policy(policyName=name, policyDocument=document)
    identity = create_identity(server, tmp_path / "own", name, name)
    with PahoDevice(server, identity, name, version=version) as device:
        watcher.of("connected")
        assert device.publish("somebody/else", b"x") in (None, 0x87)
        event = watcher.of("disconnected")
    assert event["disconnectReason"] == "AUTH_ERROR"
    assert event["clientInitiatedDisconnect"] is False


@VERSIONS
@pytest.mark.parametrize("kind", ["presence/connected", "certificates/registered"])
def test_nobody_can_publish_events(
    server: Server, watcher: Watcher, own: Identity, name: str, *, version: int, kind: str
) -> None:
    with PahoDevice(server, own, name, version=version) as device:
        watcher.of("connected")
        assert device.publish(f"$aws/events/{kind}/{name}", b"{}") is None
        assert device.disconnect_code == (0x90 if version == 5 else None)
        assert watcher.of("disconnected")["disconnectReason"] == "CLIENT_ERROR"


def test_a_connection_that_is_cut(
    server: Server, watcher: Watcher, own: Identity, name: str
) -> None:
    with PahoDevice(server, own, name) as device:
        watcher.of("connected")
        device.drop()
        assert watcher.of("disconnected")["disconnectReason"] == "CONNECTION_LOST"


def test_whose_certificate_is_deactivated(
    server: Server, watcher: Watcher, own: Identity, name: str
) -> None:
    with PahoDevice(server, own, name) as device:
        watcher.of("connected")
        server.iot.update_certificate(certificateId=own.id, newStatus="INACTIVE")
        assert watcher.of("disconnected")["disconnectReason"] == "FORBIDDEN_ACCESS"
        assert device.disconnected.wait(10)


def test_the_thing_of_an_exclusive_attachment(
    server: Server, watcher: Watcher, own: Identity, name: str
) -> None:
    """Guide, "Associating an AWS IoT thing to an MQTT client connection"."""
    thing = f"{name}-thing"
    server.iot.create_thing(thingName=thing)
    attachment = {"thingName": thing, "principal": own.arn}
    server.iot.attach_thing_principal(**attachment)
    with PahoDevice(server, own, thing):
        pass
    for kind in ("connected", "disconnected"):
        assert "thingName" not in watcher.of(kind), "it is not exclusive"
    server.iot.detach_thing_principal(**attachment)
    server.iot.attach_thing_principal(**attachment, thingPrincipalType="EXCLUSIVE_THING")
    with PahoDevice(server, own, name):
        pass
    for kind in ("connected", "disconnected"):
        assert watcher.of(kind)["thingName"] == thing


def test_events_are_heard_as_far_as_the_policy_goes(
    server: Server, own: Identity, name: str, tmp_path: Path
) -> None:
    mine = f"$aws/events/presence/connected/{name}"
    document = policy_document(
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": arn(f"topicfilter/{mine}*")},
        {"Effect": "Allow", "Action": "iot:Receive", "Resource": arn(f"topic/{mine}*")},
    )
    server.iot.create_policy(policyName=f"{name}-some", policyDocument=document)
    identity = create_identity(server, tmp_path / "some", name, f"{name}-some")
    with PahoDevice(server, identity, f"some-{name}", version=5) as device:
        assert device.subscribe(mine, "$aws/events/presence/connected/+") == [1, 0x87]
        with PahoDevice(server, own, f"{name}-2"), PahoDevice(server, own, name):
            assert json.loads(device.message().payload)["clientId"] == name
    with PahoDevice(server, own, name, version=5) as device:
        wide = ["$aws/events/#", "$aws/events/certificates/registered/+"]
        assert device.subscribe(*wide, "$aws/#", "#") == [1, 1, 0x87, 1]


def test_awss_sdk_hears_events(
    server: Server, operator: Identity, own: Identity, name: str
) -> None:
    """Both of its clients; the device that comes and goes is one, too."""
    heard: queue.Queue[Any] = queue.Queue()
    topic = f"$aws/events/presence/+/{name}"

    def note(topic: str, payload: bytes, **_more: Any) -> None:
        heard.put((topic, json.loads(payload)))

    with crt_311(server, operator, f"watcher-{name}") as watching:
        future, _ = watching.transport.subscribe(topic, mqtt.QoS.AT_LEAST_ONCE, note)
        assert future.result(WITHIN)["qos"] == mqtt.QoS.AT_LEAST_ONCE

        def ends(cause: str) -> None:
            for kind in ("connected", "disconnected"):
                at, event = heard.get(timeout=WITHIN)
                assert at == f"$aws/events/presence/{kind}/{name}"
                assert (event["eventType"], event["principalIdentifier"]) == (kind, own.id)
            assert event["disconnectReason"] == cause

        with crt_311(server, own, name):
            pass
        ends("CLIENT_INITIATED_DISCONNECT")
        with crt_5(server, own, name) as device:
            device.transport.stop(mqtt5.DisconnectPacket())
            ends("CLIENT_INITIATED_DISCONNECT")
        with crt_5(server, own, name):
            pass  # stop() without a packet sends none
        ends("CONNECTION_LOST")


@pytest.mark.needs("mosquitto_sub")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_sub_hears_events(
    server: Server, operator: Identity, own: Identity, name: str, *, version: str
) -> None:
    command = [
        *("stdbuf", "-oL", "mosquitto_sub", "-h", "localhost", "-p", str(server.mqtt_port)),
        *("--cafile", str(server.ca_file), "--cert", str(operator.certificate)),
        *("--key", str(operator.key), "-i", f"watcher-{name}", "-V", version, "-q", "1", "-d"),
        *("-t", f"$aws/events/presence/connected/{name}", "-C", "1", "-W", "20"),
    ]
    with subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "received SUBACK" in line or line.startswith("Subscribed"):
                    break
            with PahoDevice(server, own, name):
                output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    [line] = [line for line in output.splitlines() if line.startswith("{")]
    assert json.loads(line)["clientId"] == name
