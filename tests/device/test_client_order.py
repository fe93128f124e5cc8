"""Every adapter: what is sent and told when, and that no message waits for another."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fleetgate.device import operations
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import (
    ConnectionLost,
    NotAcknowledged,
    NotAuthorized,
    PacketTooLarge,
    Status,
)
from fleetgate.device.exchange import Terms
from fleetgate.device.in_flight import InFlight, send_with_paho
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.connection import MAX_PACKET_SIZE
from fleetgate.mqtt.packets import (
    Connack,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Version,
)
from tests.device.clients import (
    ADAPTERS,
    Losses,
    both_versions,
    connect,
    every_adapter,
    result,
)
from tests.device.conftest import Files, Scripted
from tests.device.test_clients import Peer

MANY = 30
"""More than the 20 that paho-mqtt lets be unacknowledged unless it is told."""


def to(adapter: str, port: int, files: Files, version: Version, **more: Any) -> MqttClient:
    endpoint = Endpoint("localhost", port, files.ca, mqtt_version=version, **more)
    return connect(adapter, endpoint, Credentials(files.certificate, files.key), "device")


def agreeing(stream: ssl.SSLSocket, **properties: int) -> Peer:
    peer = Peer(stream)
    peer.next()
    peer.send(Connack(properties=dict(properties)))
    return peer


def published(packet: Packet) -> tuple[str, int]:
    """Topic and identifier."""
    assert isinstance(packet, Publish)
    return packet.topic, packet.packet_id or 0


@every_adapter
@both_versions
def test_a_message_that_is_not_acknowledged_holds_up_nothing(
    adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        for number in range(MANY):
            topic, packet_id = published(peer.next())
            assert topic == f"a/{number}"
            if number == 3:
                refused = packet_id
        peer.send(Puback(packet_id))
        peer.send(Puback(refused, 0x87 if version == 5 else 0))
        peer.next()

    with scripted(script) as port:
        client = to(adapter, port, claim, version)
        futures = [client.publish(f"a/{number}", b"", 1) for number in range(MANY)]
        result(futures.pop())
        waits = futures.pop(3)
        if version == 5:
            with pytest.raises(NotAuthorized) as caught:
                result(waits)
            assert (caught.value.topic, caught.value.reason_code) == ("a/3", 0x87)
        else:
            result(waits)
        assert not any(each.done() for each in futures)
        result(client.disconnect())
        for each in futures:
            with pytest.raises(ConnectionLost):
                result(each)


@every_adapter
def test_no_request_is_sent_after_its_time(adapter: str, claim: Files, scripted: Scripted) -> None:
    """The request of an operation that timed out, behind a message without acknowledgement."""
    seen: list[str] = []

    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        while True:
            match packet := peer.next():
                case Subscribe():
                    peer.send(Suback(packet.packet_id, (1,)))
                case Unsubscribe():
                    peer.send(Unsuback(packet.packet_id, (0,)))
                    seen.append("end")
                case Publish():
                    seen.append(packet.topic)
                case _:
                    return

    with scripted(script) as port:
        client = to(adapter, port, claim, 5)
        client.publish("app", b"", 1)
        with pytest.raises(NotAcknowledged):
            operations.create_keys_and_certificate(client, Terms(mqtt_timeout=0.3))
        result(client.disconnect())
    assert seen == ["app", "$aws/certificates/create/json", "end", "end"]


@pytest.mark.parametrize("adapter", ["paho", "aiomqtt"])
def test_a_server_gets_no_more_than_it_takes(
    adapter: str, claim: Files, scripted: Scripted
) -> None:
    """Receive Maximum (MQTT 5 section 4.9); awscrt counts by itself."""
    seen: list[str] = []

    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream, receive_maximum=2)
        waiting: list[int] = []
        while len(seen) < 6:
            topic, packet_id = published(peer.next())
            seen.append(topic)
            if packet_id:
                waiting.append(packet_id)
            if "at once" in seen:
                peer.send(Puback(waiting.pop(0)))
        for each in waiting:
            peer.send(Puback(each))
        peer.next()

    with scripted(script) as port:
        client = to(adapter, port, claim, 5)
        futures = [client.publish(f"{number}", b"", 1) for number in range(5)]
        futures.append(client.publish("at once", b"", 0))
        for each in futures:
            result(each)
        result(client.disconnect())
    assert seen == ["0", "1", "at once", "2", "3", "4"]


def test_an_identifier_that_is_in_use_is_not_given_again() -> None:
    """After 65535 packets: one message may have been waiting for its PUBACK all the time."""
    mqtt = paho.Client(CallbackAPIVersion.VERSION2)
    mqtt.max_inflight_messages_set(0xFFFF)
    assert [send_with_paho(mqtt, "a", b"") for _ in range(2)] == [1, 2]
    mqtt._last_mid = 0
    assert send_with_paho(mqtt, "a", b"") == 3


def test_an_acknowledgement_of_nothing_is_left_alone() -> None:
    in_flight = InFlight()
    told: list[tuple[int, str | None]] = []
    in_flight.publish(lambda: 7, lambda *answer: told.append(answer))
    for packet in (Puback(8), Puback(7, 0x87, {"reason_string": "no"}), Puback(7)):
        in_flight.acknowledge(packet)
    assert told == [(0x87, "no")]


@every_adapter
@both_versions
def test_what_came_before_an_acknowledgement_is_told_before_it(
    adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    """Else a message from before the request would be taken for its answer."""
    rounds = 5

    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        for _ in range(rounds):
            packet = peer.next()
            assert isinstance(packet, Subscribe)
            topic = packet.subscriptions[0].topic_filter
            old = encode(Publish(topic, b"old", 0), version)
            stream.sendall(old + encode(Suback(packet.packet_id, (1,)), version))
            _, packet_id = published(peer.next())
            stream.sendall(old + encode(Puback(packet_id), version))
        peer.next()

    told: list[str] = []

    def noting(what: str) -> Callable[[Future[None]], None]:
        return lambda _: told.append(what)

    with scripted(script) as port:
        client = to(adapter, port, claim, version)
        for number in range(rounds):
            granted = client.subscribe(f"a/{number}", 1, lambda topic, _: told.append(topic))
            granted.add_done_callback(noting("granted"))
            result(granted)
            acknowledged = client.publish("b", b"", 1)
            acknowledged.add_done_callback(noting("acknowledged"))
            result(acknowledged)
        result(client.disconnect())
    expected = [
        [topic, "granted", topic, "acknowledged"] for topic in (f"a/{n}" for n in range(rounds))
    ]
    assert told == [each for one in expected for each in one]


@every_adapter
@both_versions
def test_an_answer_that_is_too_large_is_a_bad_answer(
    adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    """And nothing that a policy would mend."""
    size = 200 * 1024

    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        for _ in range(2):
            packet = peer.next()
            assert isinstance(packet, Subscribe)
            peer.send(Suback(packet.packet_id, (1,)))
        topic, packet_id = published(peer.next())
        peer.send(Puback(packet_id))
        peer.send(Publish(f"{topic}/accepted", bytes(size), 0))
        stream.recv(4096)

    with scripted(script) as port:
        client = to(adapter, port, claim, version)
        losses = Losses(client)
        with pytest.raises(PacketTooLarge) as caught:
            operations.create_keys_and_certificate(client)
        result(client.disconnect())
    error = caught.value
    assert error.status is Status.BAD_RESPONSE
    assert not error.retry
    assert error.message.startswith("create: the server sent a packet of 2048")
    assert f"this device takes at most {MAX_PACKET_SIZE} (max_packet_size)" in error.message
    assert "iot:" not in error.message
    assert isinstance(losses.next(), PacketTooLarge)
    with pytest.raises(PacketTooLarge, match="has ended already"):
        result(client.publish("a", b"", 1))


def test_the_server_says_how_often_to_ping(claim: Files, scripted: Scripted) -> None:
    """Server Keep Alive (MQTT 5 section 3.2.2.3.14); all adapters at once, they take 2 seconds."""
    seconds = 2
    silences: list[float] = []

    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream, server_keep_alive=seconds)
        agreed = time.monotonic()
        packet = peer.next()
        silences.append(time.monotonic() - agreed)
        assert isinstance(packet, Pingreq)
        peer.send(Pingresp())
        peer.next()

    with ExitStack() as stack:
        ports = [stack.enter_context(scripted(script)) for _ in ADAPTERS]
        clients = [
            to(adapter, port, claim, 5) for adapter, port in zip(ADAPTERS, ports, strict=True)
        ]
        end = time.monotonic() + 1.5 * seconds
        while len(silences) < len(clients) and time.monotonic() < end:
            time.sleep(0.02)
        for client in clients:
            result(client.disconnect())
    assert len(silences) == len(clients), silences
