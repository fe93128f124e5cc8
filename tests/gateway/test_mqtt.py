"""The gateway as a whole: listeners, clients as they are used, administration, the end."""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from fleetgate.mqtt.packets import Connack, Connect, Disconnect, Version, Will
from tests.gateway.running import CREATE, PATIENCE, Running, make_credentials

VERSIONS = pytest.mark.parametrize("version", [4, 5])


@VERSIONS
def test_paho_subscribes_publishes_and_gets_its_answer(running: Running, version: int) -> None:
    messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
    ready: queue.Queue[Any] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, "paho", protocol=MQTTProtocolVersion(version))
    client.tls_set(
        str(running.server.certificate_file),
        str(running.device.certificate_file),
        str(running.device.key_file),
    )
    client.on_message = lambda _client, _data, message: messages.put(message)
    client.on_subscribe = lambda _client, _data, _id, codes, _properties: ready.put(codes)
    client.connect("localhost", running.address[1], keepalive=6)
    client.loop_start()
    try:
        client.subscribe([(f"{CREATE}/accepted", 1), ("a/#", 0)])
        assert [code.value for code in ready.get(timeout=PATIENCE)] == [1, 0]
        client.publish("a/b", b"x" * 100_000, qos=1).wait_for_publish(PATIENCE)
        assert messages.get(timeout=PATIENCE).payload == b"x" * 100_000
        client.publish(CREATE, b"{}", qos=1).wait_for_publish(PATIENCE)
        assert messages.get(timeout=PATIENCE).payload == b"for paho"
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.needs("mosquitto_pub", "mosquitto_sub")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_the_mosquitto_clients_work(running: Running, version: str) -> None:
    common = [
        *("-h", "localhost", "-p", str(running.address[1]), "-V", version, "-q", "1"),
        *("--cafile", str(running.server.certificate_file)),
        *("--cert", str(running.device.certificate_file)),
        *("--key", str(running.device.key_file), "-t", "house/hall"),
    ]
    with subprocess.Popen(
        ["mosquitto_sub", *common, "-i", "sub", "-C", "1", "-W", "5"], stdout=subprocess.PIPE
    ) as subscriber:
        running.eventually(lambda: bool(running.gateway._router._subscriptions))
        subprocess.run(
            ["mosquitto_pub", *common, "-i", "pub", "-m", "on"], check=True, timeout=PATIENCE
        )
        assert subscriber.stdout is not None
        assert subscriber.stdout.read() == b"on\n"
    assert subscriber.returncode == 0


def test_one_gateway_listens_at_several_addresses(running: Running) -> None:
    first = running.address
    running.listen("127.0.0.1")
    assert running.address != first
    with running.connect("lamp") as lamp:
        running.address = first
        with running.connect("door") as door:
            lamp.subscribe("a")
            door.publish("a")
            lamp.message()


def test_a_gateway_listens_on_a_socket_of_both_families(running: Running) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as bound:
        running.listen_on(bound.dup())
    assert running.address[0] == "::"
    for host in ("127.0.0.1", "::1"):
        running.address = (host, running.address[1])
        with running.connect("lamp"):
            pass


def test_connections_are_bounded(tmp_path: Path) -> None:
    with Running(tmp_path, max_connections=2) as running:
        with running.connect("1"), running.connect("2"), pytest.raises(OSError, match=r"EOF|reset"):
            running.raw()
        running.eventually(lambda: len(running.gateway) == 0)
        with running.connect("3"):
            pass


def test_those_turned_away_are_counted_once_a_second(tmp_path: Path, log: list[str]) -> None:
    with Running(tmp_path, max_connections=1) as running, running.connect("1", keep_alive=60):
        for _ in range(5):
            with socket.create_connection(running.address) as one_more:
                assert one_more.recv(1) == b""
        running.advance(1)
        running.advance(1)
    (line,) = [line for line in log if "event=turned-away" in line]
    for word in ("connections=5", "more than 1 connections", "peer=127.0.0.1:"):
        assert word in line


def test_handshakes_under_way_are_bounded(tmp_path: Path, log: list[str]) -> None:
    """The newest has to go, unless the oldest has had its time."""
    with Running(tmp_path, max_handshakes=2) as running, contextlib.ExitStack() as stack:
        for number in range(3):  # those that are done do not count
            stack.enter_context(running.connect(f"lamp{number}"))
        slow = [
            stack.enter_context(socket.create_connection(running.address, PATIENCE))
            for _ in range(2)
        ]
        running.eventually(lambda: len(running.gateway) == 5)
        with socket.create_connection(running.address, PATIENCE) as one_more:
            assert one_more.recv(1) == b""
        running.advance(4)
        with running.connect("door"):
            pass
        with pytest.raises(ConnectionError):
            assert slow[0].recv(1) == b""
            slow[0].sendall(b"x")
            raise ConnectionResetError
        running.eventually(lambda: len(running.gateway) == 4)
        running.advance(1)
    lines = [line for line in log if "event=turned-away" in line]
    assert len(lines) == 2
    assert "more than 2 handshakes" in lines[0]


@VERSIONS
def test_a_certificate_that_lost_its_rights_is_disconnected_and_so_is_its_will(
    running: Running, tmp_path: Path, version: Version
) -> None:
    other = make_credentials(tmp_path, "other")
    running.register(other)
    will = Will("wills/lamp", b"gone")
    with (
        running.connect("lamp", version, will=will) as lamp,
        running.connect("lamp2", version) as second,
        running.connect("door", credentials=other) as door,
    ):
        door.subscribe("wills/+")
        running.do(lambda: running.gateway.disconnect_certificate(running.device.certificate_id))
        for each in (lamp, second):
            if version == 5:
                assert each.expect(Disconnect).reason_code == 0x87
            assert each.is_closed()
        assert door.silent()


def test_all_can_be_disconnected_and_forgotten(running: Running) -> None:
    options: dict[str, Any] = {"clean_start": False, "properties": {"session_expiry_interval": 60}}
    with running.connect("lamp", 5, **options) as lamp:
        lamp.subscribe("a")
        running.do(running.gateway.disconnect_all)
        assert lamp.expect(Disconnect).reason_code == 0x98
        assert lamp.is_closed()
    with running.connect("lamp", 5, **options) as lamp:
        assert not lamp.connack.session_present


@VERSIONS
def test_a_server_that_stops_says_so(running: Running, version: Version) -> None:
    with running.connect("lamp", version) as lamp, running.raw() as unfinished:
        farewell = []

        def wait() -> None:
            farewell.append(lamp.next())
            lamp.socket.close()

        waiting = threading.Thread(target=wait)
        waiting.start()
        begin = time.monotonic()
        running.stop()
        assert time.monotonic() - begin < 2
        waiting.join(PATIENCE)
        if version == 5:
            assert isinstance(farewell[0], Disconnect)
            assert farewell[0].reason_code == 0x8B
        else:
            assert farewell == [None]
        assert unfinished.is_closed()


def test_nothing_is_left_of_connections_that_have_gone(running: Running) -> None:
    def churn(change: Callable[[int], None]) -> None:
        for number in range(20):
            change(number)
        running.eventually(lambda: len(running.gateway) == 0)

    def polite(number: int) -> None:
        with running.connect(f"lamp{number}") as device:
            device.subscribe("a")
            device.publish(CREATE)
            device.send(Disconnect())
            assert device.is_closed()

    def rude(number: int) -> None:
        running.connect(f"lamp{number}").socket.close()

    def refused(number: int) -> None:
        with running.raw() as device:
            device.send(Connect(f"${number}"))
            device.expect(Connack)

    for change in (polite, rude, refused):
        churn(change)
    gateway = running.gateway
    running.eventually(lambda: not gateway._tasks)
    assert len(gateway._router) == 0
    assert len(gateway._deadlines) == 0
    assert gateway._shared.by_certificate == {}
