"""Every adapter against mosquitto, and against servers that misbehave."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fleetgate.device import extras
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import BadRequest, ConnectionFailed, ConnectionLost, NotAuthorized
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.connection import Connection, Role
from fleetgate.mqtt.packets import (
    Connack,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Version,
)
from tests.device.clients import (
    ADAPTERS,
    Inbox,
    Losses,
    Remains,
    both_versions,
    connect,
    every_adapter,
    full,
    refusal,
    result,
)
from tests.device.conftest import Broker, Files, Script, Scripted


def at(
    port: int, files: Files, version: Version = 5, timeout: float = 5.0, size: int = 10_000
) -> tuple[Endpoint, Credentials]:
    endpoint = Endpoint(
        "localhost",
        port,
        files.ca,
        mqtt_version=version,
        connect_timeout=timeout,
        max_packet_size=size,
    )
    return endpoint, Credentials(files.certificate, files.key)


class Peer:
    """A server's side of MQTT, in a script."""

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self._stream = stream
        self._mqtt = Connection(Role.SERVER)
        self._packets: list[Packet] = []

    def next(self) -> Packet:
        while not self._packets:
            data = self._stream.recv(4096)
            if not data:
                raise OSError("the client has hung up")
            self._packets += self._mqtt.receive(data)
        return self._packets.pop(0)

    def send(self, packet: Packet) -> None:
        self._stream.sendall(self._mqtt.send(packet))


@pytest.mark.needs("mosquitto")
@every_adapter
@both_versions
def test_mosquitto_will_do(adapter: str, version: Version, broker: Broker, claim: Files) -> None:
    endpoint, credentials = at(broker.port, claim, version)
    client = connect(adapter, endpoint, credentials, "device")
    inbox = Inbox()
    result(client.subscribe("free/x", 1, inbox))
    result(client.publish("free/x", b"1", 1))
    assert inbox.next() == ("free/x", b"1")
    if version == 5:
        with pytest.raises(NotAuthorized):
            result(client.publish("closed", b"", 1))
    result(client.disconnect())


@pytest.mark.needs("mosquitto")
@every_adapter
@both_versions
def test_what_mosquitto_kept_is_no_answer(
    adapter: str, version: Version, broker: Broker, claim: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes right after the subscription, whereas an answer comes after the question."""
    topic = f"free/kept/{adapter}/{version}"
    with keeping(broker, claim, topic) as keep:
        client = connect(adapter, *at(broker.port, claim, version), "device")
        keep(b"old")
        inbox = Inbox()
        with caplog.at_level("INFO", "fleetgate.device"):
            result(client.subscribe(topic, 1, inbox))
            result(client.publish(topic, b"new", 1))
        assert inbox.next() == (topic, b"new")
        keep(b"newer")  # the flag is for what was kept before, not for what will be
        assert inbox.next() == (topic, b"newer")
        assert inbox.empty()
        result(client.disconnect())
    ignored = [each.getMessage() for each in caplog.records]
    assert f"event=retained-ignored topic={topic!r} bytes=3" in ignored


@contextmanager
def keeping(broker: Broker, claim: Files, topic: str) -> Iterator[Callable[[bytes], None]]:
    """Publishes to `topic` for the broker to keep; it forgets that again in the end."""
    device = paho.Client(CallbackAPIVersion.VERSION2, client_id="keeping")
    device.tls_set(str(claim.ca), str(claim.certificate), str(claim.key))
    device.connect(broker.host, broker.port)
    device.loop_start()

    def keep(payload: bytes) -> None:
        device.publish(topic, payload, qos=1, retain=True).wait_for_publish(5)

    try:
        yield keep
        keep(b"")
    finally:
        device.disconnect()
        device.loop_stop()


@every_adapter
def test_a_server_that_says_nothing(adapter: str, claim: Files, scripted: Scripted) -> None:
    """The phase that is not got beyond is named, and the time that has passed."""
    seconds = 0.3
    with full() as port:
        error = timed_out(adapter, port, claim, seconds)
    assert error.message == f"no TCP connection to `localhost` port {port} within {seconds} s"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        error = timed_out(adapter, port, claim, seconds)
    assert error.message == f"no TLS handshake with `localhost` port {port} within {seconds} s"

    with ExitStack() as silent:

        def script(stream: ssl.SSLSocket) -> None:
            silent.enter_context(socket.socket(fileno=os.dup(stream.fileno())))

        with scripted(script) as port:
            error = timed_out(adapter, port, claim, seconds)
    said = f"`localhost` port {port} did not answer CONNECT within {seconds} s; "
    assert error.message.startswith(said)


def timed_out(adapter: str, port: int, files: Files, seconds: float) -> ConnectionFailed:
    begun = time.monotonic()
    error = refusal(adapter, *at(port, files, timeout=seconds))
    passed = time.monotonic() - begun
    assert error.waited == seconds
    assert seconds * 0.9 < passed < seconds + 1.0  # awscrt has a moment to end, 0.2 s
    return error


@every_adapter
@both_versions
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x01\x00"])
def test_a_server_that_answers_something_else(
    answer: bytes, adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    """Hanging up without CONNACK is what AWS does to a certificate that is not active."""
    remains = Remains()

    def script(stream: ssl.SSLSocket) -> None:
        stream.recv(4096)
        stream.sendall(answer)

    with scripted(script) as port:
        endpoint, credentials = at(port, claim, version)
        begun = time.monotonic()
        message = refusal(adapter, endpoint, credentials).message
        assert time.monotonic() - begun < 3  # not only when the time is over
        assert f"`localhost` port {port}" in message
        assert "is the client certificate registered and ACTIVE" in message
    assert remains.none(), remains


CONNACKS = [  # MQTT 3.1.1 table 3.1: what is said, whether it is a no for good, whether to retry
    (1, "unacceptable protocol version, 0x01", False, False),
    (2, "identifier rejected, 0x02", True, False),
    (3, "server unavailable, 0x03", False, True),
    (4, "bad user name or password, 0x04", True, True),
    (5, "not authorized, 0x05", True, True),
]


@every_adapter
def test_every_refusal_of_mqtt_3_is_told_with_its_code(
    adapter: str, claim: Files, scripted: Scripted
) -> None:
    remains = Remains()
    codes: list[int] = []

    def script(stream: ssl.SSLSocket) -> None:
        stream.recv(4096)
        stream.sendall(bytes([0x20, 2, 0, codes[0]]))

    with scripted(script) as port:
        for code, said, refused, retry in CONNACKS:
            codes[:] = [code]
            error = refusal(adapter, *at(port, claim, 4))
            assert f"`localhost` port {port} refused the connection ({said})" in error.message
            assert (error.refused, error.retry) == (refused, retry), said
    assert remains.none(), remains


def test_a_refusal_that_awscrt_does_not_tell_and_that_passes(
    claim: Files, scripted: Scripted
) -> None:
    """A server that is unavailable for a moment; the second look is let in, and goes again."""
    answers = [b"\x20\x02\x00\x03", b"\x20\x02\x00\x00"]
    heard: list[bytes] = []

    def script(stream: ssl.SSLSocket) -> None:
        stream.recv(4096)
        stream.sendall(answers.pop(0))
        heard.append(stream.recv(4096))

    with scripted(script) as port:
        error = refusal("awscrt", *at(port, claim, 4))
    assert "does not when it is asked again; try again later" in error.message
    assert (error.refused, error.retry) == (False, True)
    assert heard == [b"", b"\xe0\x00"]


def test_a_refusal_that_cannot_be_asked_for_again(
    claim: Files, scripted: Scripted, tmp_path: Path
) -> None:
    """What was read from a pipe is gone, as is a key on a token: no second look."""
    asked: list[bytes] = []

    def script(stream: ssl.SSLSocket) -> None:
        asked.append(stream.recv(4096))
        stream.sendall(b"\x20\x02\x00\x05")

    pipe = tmp_path / "key"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(claim.key.read_bytes()))
    writer.start()
    with scripted(script) as port:
        endpoint, _ = at(port, claim, 4)
        error = refusal("awscrt", endpoint, Credentials(claim.certificate, pipe))
    writer.join()
    assert "it could not be asked for again" in error.message
    assert (error.refused, error.retry, len(asked)) == (True, True, 1)


@every_adapter
@both_versions
@pytest.mark.parametrize(
    ("client_id", "why"),
    [
        ("x" * 66_000, "it has 66000 bytes, and 65535 are the most"),
        ("a\x01b", "`a\\x01b` cannot be an MQTT client id: a control character is in it"),
        ("a\0b", "`a\\x00b` cannot be an MQTT client id: a control character is in it"),
        ("a\ud800b", "half a character"),
        ("a\uffff", "a noncharacter"),
    ],
    ids=["long", "control", "nul", "surrogate", "noncharacter"],
)
def test_a_client_id_that_is_none_is_refused_before_anything_is_opened(
    client_id: str, why: str, adapter: str, version: Version, claim: Files
) -> None:
    remains = Remains()
    endpoint, credentials = at(1, claim, version)  # where nobody listens
    with pytest.raises(BadRequest) as caught:
        connect(adapter, endpoint, credentials, client_id)
    assert why in caught.value.message
    assert len(caught.value.message) < 200
    assert remains.none(0), remains


BROKEN = {
    "QoS 3": b"\x36\x05\x00\x01a\x00\x01",
    "bad UTF-8": b"\x30\x06\x00\x03a\xff\x00\x00",
    "a type that there is not": b"\x00\x00",
    "a PUBREC that is too short": b"\x50\x01\x00",
}


@both_versions
@pytest.mark.parametrize(
    ("adapter", "broken"),
    [
        (adapter, broken)
        for adapter in ADAPTERS
        for broken in BROKEN
        if (adapter, broken) != ("awscrt", "bad UTF-8")  # of which awscrt says nothing
    ],
)
def test_a_broken_protocol_is_not_called_a_missing_ping(
    broken: str, adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = Peer(stream)
        peer.next()
        peer.send(Connack())
        peer.next()
        stream.sendall(BROKEN[broken])
        stream.recv(4096)

    with scripted(script) as port:
        client = connect(adapter, *at(port, claim, version), "device")
        losses = Losses(client)
        client.subscribe("a", 1, Inbox())
        message = losses.next().message
        result(client.disconnect())
    assert message.startswith("the server broke the MQTT protocol"), message


@every_adapter
@both_versions
@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff\xff", b"\x30\x03\x00\x05a", b"\xf0\x00"])
def test_garbage_ends_the_connection(
    garbage: bytes, adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    remains = Remains()

    def script(stream: ssl.SSLSocket) -> None:
        peer = Peer(stream)
        peer.next()
        peer.send(Connack())
        peer.next()
        stream.sendall(garbage)
        stream.recv(4096)

    with scripted(script) as port:
        client = connect(adapter, *at(port, claim, version), "device")
        losses = Losses(client)
        future = client.subscribe("a", 1, Inbox())
        with pytest.raises(ConnectionLost):
            result(future)
        losses.next()
        result(client.disconnect())
    assert remains.none(), remains


@pytest.mark.parametrize("adapter", ["paho", "aiomqtt"])
def test_a_large_packet_is_not_even_awaited(adapter: str, claim: Files, scripted: Scripted) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = Peer(stream)
        peer.next()
        peer.send(Connack())
        subscribe = peer.next()
        assert isinstance(subscribe, Subscribe)
        peer.send(Suback(subscribe.packet_id, (1,)))
        stream.sendall(b"\x30\xff\xff\xff\x7f\x00\x01a\x00")  # 256 MB (2.1.4), or so it says
        stream.recv(4096)

    with scripted(script) as port:
        client = connect(adapter, *at(port, claim), "device")
        losses = Losses(client)
        client.subscribe("a", 1, Inbox())
        assert losses.next().message == (
            "the server sent a packet of 268435460 bytes, and this device takes at most 10000 "
            "(max_packet_size)"
        )
        result(client.disconnect())


@every_adapter
@both_versions
def test_what_waits_fails_when_the_server_hangs_up(
    adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    remains = Remains()

    def script(stream: ssl.SSLSocket) -> None:
        peer = Peer(stream)
        peer.next()
        peer.send(Connack())
        for _ in range(3):
            peer.next()

    with scripted(script) as port:
        client = connect(adapter, *at(port, claim, version), "device")
        losses = Losses(client)
        futures = [
            client.publish("a", b"1", 1),
            client.subscribe("b/+", 1, Inbox()),
            client.unsubscribe("c"),
        ]
        for future, said in zip(
            futures,
            ["the message to `a`", "the subscription to `b/+`", "the end of the subscription"],
            strict=True,
        ):
            with pytest.raises(ConnectionLost) as caught:
                result(future)
            assert caught.value.message.startswith(
                f"the server closed the connection before {said}"
            )
        assert losses.next().message == "the server closed the connection"
        result(client.disconnect())
    assert remains.none(), remains


def acknowledges_late(stream: ssl.SSLSocket) -> None:
    """A server whose UNSUBACK comes after the SUBACK to the next SUBSCRIBE; then a message."""
    peer = Peer(stream)
    peer.next()
    peer.send(Connack())
    late: list[Unsuback] = []
    subscriptions = 0
    while subscriptions < 2:
        packet = peer.next()
        if isinstance(packet, Subscribe):
            subscriptions += 1
            peer.send(Suback(packet.packet_id, (1,)))
        elif isinstance(packet, Unsubscribe):
            late.append(Unsuback(packet.packet_id, (0,)))
    peer.send(late[0])
    peer.send(Publish("a", b"1", 0))
    peer.next()


@every_adapter
@both_versions
def test_a_late_acknowledgement_does_not_end_the_next_subscription(
    adapter: str, version: Version, claim: Files, scripted: Scripted
) -> None:
    with scripted(acknowledges_late) as port:
        client = connect(adapter, *at(port, claim, version), "device")
        inbox = Inbox()
        result(client.subscribe("a", 1, inbox))
        unsubscribed = client.unsubscribe("a")
        result(client.subscribe("a", 1, inbox))
        result(unsubscribed)
        assert inbox.next() == ("a", b"1")
        result(client.disconnect())


def test_a_server_that_falls_silent(claim: Files, scripted: Scripted) -> None:
    """All adapters at once: a ping and its answer take the better part of three seconds.

    A packet that does not end is a silence, too, for awscrt, which shows nothing of it.
    """
    remains = Remains()

    def silent(stream: ssl.SSLSocket) -> None:
        Peer(stream).next()
        stream.sendall(encode(Connack(), 5))
        while stream.recv(4096):
            pass

    def endless(stream: ssl.SSLSocket) -> None:
        peer = Peer(stream)
        peer.next()
        peer.send(Connack())
        stream.sendall(b"\x30\xff\xff\xff\x7f\x00\x01a\x00")  # 256 MB (2.1.4), or so it says
        while stream.recv(4096):
            stream.sendall(bytes(1000))

    cases: list[tuple[str, Version, Script]] = [(adapter, 5, silent) for adapter in ADAPTERS]
    cases += [("awscrt", 4, endless), ("awscrt", 5, endless)]
    with ExitStack() as stack:
        clients = []
        for adapter, version, script in cases:
            endpoint, credentials = at(stack.enter_context(scripted(script)), claim, version)
            client = connect(adapter, replace(endpoint, keep_alive=1), credentials, "device")
            clients.append((adapter, client, Losses(client)))
        for adapter, client, losses in clients:
            assert "did not answer a ping within" in losses.next().message, adapter
            result(client.disconnect())
    assert remains.none(), remains


def test_awscrt_does_not_go_on_asking_why_when_it_has_connected(
    claim: Files, scripted: Scripted
) -> None:
    """A server that is slow, and takes one connection after the other."""

    def script(stream: ssl.SSLSocket) -> None:
        peer = Peer(stream)
        peer.next()
        time.sleep(1.1)  # after half of the time a second connection is tried
        peer.send(Connack())
        peer.next()

    with scripted(script) as port:
        begun = time.monotonic()
        client = connect("awscrt", *at(port, claim, timeout=2.0), "device")
        assert 1.1 <= time.monotonic() - begun < 1.8
        result(client.disconnect())


AFTER_A_HANDSHAKE_THAT_FAILED = """
import os, sys, time
from fleetgate.device import awscrt_client
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import ConnectionFailed

port, ca, certificate, key = sys.argv[1:]
client = awscrt_client.AwscrtClient(
    Endpoint("localhost", int(port), ca, connect_timeout=0.3), "device"
)
threads = len(os.listdir("/proc/self/task"))
try:
    client.open(Credentials(certificate, key), clean=True)
except ConnectionFailed as error:
    print(error.message)
time.sleep(0.05)
print(client.disconnect().done(), len(os.listdir("/proc/self/task")) > threads)
"""


def test_awscrt_s_threads_after_a_handshake_that_failed(claim: Files) -> None:
    """They stay, because of its TLS library; nobody says otherwise, and the process may end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arguments = [str(each) for each in (port, claim.ca, claim.certificate, claim.key)]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", AFTER_A_HANDSHAKE_THAT_FAILED, *arguments],
            capture_output=True,
            text=True,
            timeout=5,  # the threads live twice as long
            check=True,
        )
    assert done.stdout.splitlines() == [
        f"no TLS handshake with `localhost` port {port} within 0.3 s",
        "False True",
    ]
    assert not done.stderr


def test_an_extra_that_is_not_installed_is_named() -> None:
    with pytest.raises(extras.ExtraMissing) as caught:
        extras.load("no_such_library.part", "awscrt")
    assert caught.value.message == (
        'no_such_library is not installed; it comes with: pip install "fleetgate[awscrt]"'
    )
    assert extras.load("awscrt.mqtt5", "awscrt").__name__ == "awscrt.mqtt5"
