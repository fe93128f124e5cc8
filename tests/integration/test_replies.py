"""Who gets a provisioning reply: the connection that asked, if it listens, and nobody else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import CSR, KEYS, Fleet, Identity, register_topic, signing_request
from tests.integration.paho_device import PahoDevice, onboard
from tests.integration.server import Server

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])


@pytest.fixture
def eavesdropper(server: Server, operator: Identity) -> Iterator[PahoDevice]:
    """A client allowed everything, subscribed to all it can think of."""
    with PahoDevice(server, operator, "eavesdropper", version=5) as device:
        granted = device.subscribe("#", "+/+/+/+/+", "+/#", "+/certificates/#")
        assert granted == [1, 1, 1, 1]
        device.subscribe(f"{KEYS}/json/accepted", f"{CSR}/json/accepted", f"{KEYS}/+/accepted")
        yield device


@VERSIONS
def test_only_the_client_that_asked_sees_the_reply(
    server: Server,
    shared_fleet: Fleet,
    eavesdropper: PahoDevice,
    name: str,
    version: int,
) -> None:
    """Two holders of one claim certificate listen to the same topics; one asks.

    Source: AWS IoT Core developer guide, "Device provisioning MQTT API": replies come back
    "through the same MQTT connection used to publish the API request".
    """
    register = register_topic(shared_fleet.template)
    with (
        PahoDevice(server, shared_fleet.claim, f"{name}-asks", version=version) as asks,
        PahoDevice(server, shared_fleet.claim, f"{name}-listens", version=version) as listens,
    ):
        for device in (asks, listens):
            device.listen(KEYS, CSR, register)
        made = asks.accepted(KEYS, {})
        signed = asks.accepted(CSR, {"certificateSigningRequest": signing_request().csr})
        token = signed["certificateOwnershipToken"]
        asks.accepted(
            register,
            {"certificateOwnershipToken": token, "parameters": {"SerialNumber": name}},
        )

        # its own reply is the first and only message the other one ever gets
        own = listens.accepted(KEYS, {})
        assert own["certificateId"] != made["certificateId"]
        assert listens.messages.empty()
        assert asks.messages.empty()

    eavesdropper.publish("fence", b"")
    assert eavesdropper.message().topic == "fence"  # a leaked reply would have come before it
    while not eavesdropper.messages.empty():  # once for each filter that matches
        assert eavesdropper.message().topic == "fence"


def test_a_reply_does_not_find_its_way_to_a_session_of_the_same_client_id(
    server: Server, shared_fleet: Fleet, name: str
) -> None:
    """A persistent session keeps its subscriptions but no reply is queued for it."""
    with PahoDevice(server, shared_fleet.claim, name, clean=False) as device:
        device.listen(KEYS)
        for _ in range(5):
            device.send(f"{KEYS}/json", b"{}")
        device.drop()
    time.sleep(0.5)  # the time in which answers to the lost connection come up
    with PahoDevice(server, shared_fleet.claim, name, clean=False) as device:
        assert device.session_present
        device.send(f"{KEYS}/json", b"{}")
        device.message()
        with pytest.raises(TimeoutError):
            device.message(0.3)


@VERSIONS
def test_without_a_subscription_there_is_no_reply(
    server: Server, shared_fleet: Fleet, name: str, version: int
) -> None:
    with PahoDevice(server, shared_fleet.claim, name, version=version) as device:
        device.send(f"{KEYS}/json", b"{}")
        device.listen(CSR)
        device.accepted(CSR, {"certificateSigningRequest": signing_request().csr})
        assert device.messages.empty()


def test_replies_can_be_taken_with_a_wildcard(
    server: Server, shared_fleet: Fleet, name: str
) -> None:
    with PahoDevice(server, shared_fleet.claim, name) as device:
        assert device.subscribe(f"{KEYS}/json/+") == [1]
        assert device.accepted(KEYS, {})["certificateId"]
        assert device.messages.empty()


@pytest.mark.parametrize("qos", [0, 1])
def test_the_reply_has_the_granted_quality_of_service(
    server: Server, shared_fleet: Fleet, name: str, qos: int
) -> None:
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(KEYS, qos=qos)
        reply = device.request(KEYS, {})
        assert reply.message.qos == qos
        assert not reply.message.retain


def test_a_reply_is_not_retained(server: Server, shared_fleet: Fleet, name: str) -> None:
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(KEYS)
        device.accepted(KEYS, {})
        device.listen(KEYS)  # a second SUBSCRIBE would deliver a retained message once more
        device.publish(f"{CSR}/json", b"{}")
        with pytest.raises(TimeoutError):
            device.message(0.3)


def test_nobody_can_forge_a_reply(
    server: Server, shared_fleet: Fleet, operator: Identity, name: str
) -> None:
    """Clients may not publish to the reply topics: `$` is the service's."""
    with PahoDevice(server, shared_fleet.claim, name) as victim:
        victim.listen(KEYS)
        with PahoDevice(server, operator, f"{name}-forger") as forger:
            forger.send(f"{KEYS}/json/accepted", b'{"privateKey": "forged"}')
            assert forger.disconnected.wait(5)
        assert victim.accepted(KEYS, {})["privateKey"] != "forged"
        assert victim.messages.empty()


def test_embedded_size_limits_hold(server: Server, shared_fleet: Fleet, name: str) -> None:
    """The buffers of AWS's C demos: 2048 (CSR) and 4096 (keys) octets a packet, token 512.

    Source: aws/aws-iot-device-sdk-embedded-C, NETWORK_BUFFER_SIZE of the fleet provisioning
    demos and OWNERSHIP_TOKEN_BUFFER_LENGTH.
    """
    with PahoDevice(server, shared_fleet.claim, name) as device:
        for form in ("json", "cbor"):
            device.listen(KEYS, CSR, form=form)
            body = {"certificateSigningRequest": signing_request("x" * 64).csr}
            signed = device.request(CSR, body, form=form)
            assert signed.message.packet_size < 2048
            made = device.request(KEYS, {}, form=form)
            assert made.message.packet_size < 4096
            for reply in (signed, made):
                assert reply.accepted
                assert 0 < len(reply.body["certificateOwnershipToken"]) <= 512
                assert len(reply.body["certificateId"]) == 64


def test_answers_come_within_a_second(server: Server, shared_fleet: Fleet, name: str) -> None:
    """AWS's C demos wait 1000 ms for an answer, RSA key generation included."""
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(KEYS, CSR)
        csr = {"certificateSigningRequest": signing_request().csr}
        times = [device.request(CSR, csr).seconds for _ in range(3)]
        times += [device.request(KEYS, {}).seconds for _ in range(8)]
    assert sorted(times)[len(times) // 2] < 1.0, times


@pytest.mark.parametrize("form", ["json", "cbor"])
@pytest.mark.parametrize(
    "payload",
    [b"", b"{}", b"\xa0", b'{"any": "thing", "n": 1}', b"\x00\xff nothing that parses"],
    ids=["empty", "json-map", "cbor-map", "more-json", "garbage"],
)
def test_create_keys_accepts_any_payload(
    server: Server, shared_fleet: Fleet, name: str, form: str, payload: bytes
) -> None:
    """AWS: the payload is empty; clients send 0 octets, `{}`, CBOR A0 and more."""
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(KEYS, form=form)
        assert device.accepted(KEYS, payload, form=form)["certificateId"]


def test_requests_at_quality_of_service_0_are_answered(
    server: Server, shared_fleet: Fleet, name: str
) -> None:
    register = register_topic(shared_fleet.template)
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(CSR, register, qos=0)
        body = {"certificateSigningRequest": signing_request().csr}
        token = device.accepted(CSR, body, qos=0)["certificateOwnershipToken"]
        device.accepted(
            register,
            {"certificateOwnershipToken": token, "parameters": {"SerialNumber": name}},
            qos=0,
        )


def test_a_lost_answer_may_be_asked_for_again(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path
) -> None:
    """RegisterThing with a token that was used already, on a new connection, is the same again."""
    register = register_topic(shared_fleet.template)
    with PahoDevice(server, shared_fleet.claim, f"{name}-1") as device:
        device.listen(CSR, register)
        made, _ = device.create()
        body = {
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": {"SerialNumber": name},
        }
        first = device.accepted(register, body)
    with PahoDevice(server, shared_fleet.claim, f"{name}-2") as device:
        device.listen(register)
        assert device.accepted(register, body) == first
    onboard(server, shared_fleet, f"{name}-other", tmp_path)


def test_unknown_members_of_a_request_are_ignored(
    server: Server, shared_fleet: Fleet, name: str
) -> None:
    """Older clients send `certificateId` and `templateName` too."""
    register = register_topic(shared_fleet.template)
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen(CSR, register, form="cbor")
        made, _ = device.create(form="cbor")
        body = {
            "certificateId": made["certificateId"],
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "templateName": shared_fleet.template,
            "parameters": {"SerialNumber": name},
            "another": 5,
        }
        device.accepted(register, body, form="cbor")
