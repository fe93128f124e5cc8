"""The blocking connection: against mosquitto, and against servers that misbehave."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from fleetgate.device.connection import DeviceConnection, connect
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    NoAnswer,
    NotAuthorized,
)
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.connection import MAX_PACKET_SIZE, Connection, Role
from fleetgate.mqtt.packets import Connack, Disconnect, Publish, Suback, Version
from fleetgate.pki import issue
from tests.device.conftest import Broker, Files, Issuer, Scripted

mosquitto = pytest.mark.needs("mosquitto")
both_versions = pytest.mark.parametrize("version", [4, 5])


def dial(
    port: int,
    files: Files,
    client_id: str = "client",
    version: Version = 5,
    *,
    host: str = "localhost",
    clean: bool = True,
    keep_alive: int = 60,
    alpn: str | None = None,
    timeout: float = 3.0,
    max_packet_size: int = MAX_PACKET_SIZE,
) -> DeviceConnection:
    return connect(
        host,
        port,
        ca=files.ca,
        certificate=files.certificate,
        key=files.key,
        client_id=client_id,
        version=version,
        clean=clean,
        keep_alive=keep_alive,
        alpn=alpn,
        timeout=timeout,
        max_packet_size=max_packet_size,
    )


@pytest.fixture(scope="session")
def service(issuer: Issuer) -> Files:
    return issuer.write("service", issue.DEVICE)


# --- with a broker ---


@mosquitto
@both_versions
@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_goes_round(
    qos: int, version: Version, broker: Broker, claim: Files, service: Files
) -> None:
    with (
        dial(broker.port, claim, "device", version) as device,
        dial(broker.port, service, "other", version) as other,
    ):
        device.subscribe(["free/+", "free/x/#"], qos=qos)
        other.publish("free/a", b"first", qos=qos)
        other.publish("free/x/y", b"second", qos=qos)
        other.publish("free/b", b"third", qos=qos)
        # out of order: what nobody waits for yet is kept
        assert device.wait(["free/b"]).payload == b"third"
        assert device.wait({"free/none", "free/a"}).payload == b"first"
        message = device.wait(["free/x/y"])
        assert (message.payload, message.qos, message.retain) == (b"second", qos, False)
        device.ping()


@mosquitto
def test_a_refused_message_names_topic_and_action(broker: Broker, claim: Files) -> None:
    with dial(broker.port, claim) as device:
        with pytest.raises(NotAuthorized, match="not authorized, 0x87") as caught:
            device.publish("secret/a", b"x")
        assert (caught.value.topic, caught.value.action) == ("secret/a", "iot:Publish")
        device.publish("secret/a", b"x", qos=0)  # nobody is told
        device.ping()


@mosquitto
def test_nothing_within_the_time_is_no_answer_and_no_end(
    broker: Broker, claim: Files, service: Files
) -> None:
    with dial(broker.port, claim, "device") as device, dial(broker.port, service) as other:
        device.subscribe(["free/#"])
        begin = time.monotonic()
        with pytest.raises(NoAnswer, match=r"no message on `free/a` within 0\.1 s") as caught:
            device.wait(["free/a"], timeout=0.1)
        assert 0.1 <= time.monotonic() - begin < 1
        assert (caught.value.topic, caught.value.waited) == ("free/a", 0.1)
        other.publish("free/a", b"late")
        assert device.wait(["free/a"]).payload == b"late"


@mosquitto
def test_a_session_is_kept_when_asked_for(broker: Broker, claim: Files, service: Files) -> None:
    with dial(broker.port, claim, "keeper", 4, clean=False) as device:
        assert not device.session_present
        device.subscribe(["free/kept"])
    with dial(broker.port, service) as other:
        other.publish("free/kept", b"while you were away")
    with dial(broker.port, claim, "keeper", 4, clean=False) as device:
        assert device.session_present
        assert device.wait(["free/kept"]).payload == b"while you were away"
    dial(broker.port, claim, "keeper", 4, clean=True).disconnect()


@mosquitto
def test_another_client_of_the_name_takes_over(broker: Broker, claim: Files) -> None:
    with dial(broker.port, claim, "twin") as device, dial(broker.port, claim, "twin"):
        with pytest.raises(ConnectionLost, match="client id in use elsewhere"):
            device.ping()
        with pytest.raises(ConnectionLost, match="the connection is closed"):
            device.ping()


@mosquitto
def test_the_connection_is_kept_alive_while_waiting(broker: Broker, claim: Files) -> None:
    """mosquitto hangs up after 1.5 s without a packet (MQTT 5.0 section 3.1.2.10)."""
    with dial(broker.port, claim, keep_alive=1) as device:
        with pytest.raises(NoAnswer):
            device.wait(["free/a"], timeout=2.2)
        device.ping()


@mosquitto
def test_a_message_over_the_cap_is_an_error_not_silence(
    broker: Broker, claim: Files, service: Files
) -> None:
    with (
        dial(broker.port, claim, "small", max_packet_size=512) as device,
        dial(broker.port, service, "big") as other,
    ):
        device.subscribe(["free/#"])
        other.publish("free/a", bytes(1000))
        with pytest.raises(BadAnswer, match="a larger packet than the 512 bytes"):
            device.wait(["free/a"])


@mosquitto
@pytest.mark.needs("mosquitto_pub")
def test_mosquitto_pub_uses_the_same_files(broker: Broker, claim: Files, service: Files) -> None:
    with dial(broker.port, service) as other:
        other.subscribe(["free/#"])
        command = f"mosquitto_pub -h localhost -p {broker.port} -t free/a -m hello"
        files = f"--cafile {claim.ca} --cert {claim.certificate} --key {claim.key}"
        subprocess.run([*command.split(), *files.split()], check=True, timeout=10)
        assert other.wait(["free/a"]).payload == b"hello"


# --- TLS ---


def test_a_server_of_another_authority_is_not_trusted(
    scripted: Scripted, claim: Files, stranger: Files
) -> None:
    files = Files(stranger.ca, claim.certificate, claim.key)
    with (
        scripted(lambda _: None) as port,
        pytest.raises(ConnectionFailed, match="the server's certificate is not trusted"),
    ):
        dial(port, files)


def test_a_server_of_another_name_is_not_trusted(scripted: Scripted, claim: Files) -> None:
    with scripted(lambda _: None) as port, pytest.raises(ConnectionFailed) as caught:
        dial(port, claim, host="127.0.0.1")
    assert "`127.0.0.1` is not among the names of the server's certificate" in caught.value.message
    assert "`--host-name`" in caught.value.message


def test_a_server_that_refuses_the_certificate_is_named(
    scripted: Scripted, claim: Files, stranger: Files
) -> None:
    """In TLS 1.3 the refusal comes after the handshake, as an alert or a closed connection."""
    files = Files(claim.ca, stranger.certificate, stranger.key)
    with scripted(lambda _: None) as port, pytest.raises(ConnectionFailed) as caught:
        dial(port, files)
    assert "is the client certificate registered and ACTIVE" in caught.value.message


@pytest.mark.parametrize(("given", "offered"), [(None, None), ("x-amzn-mqtt-ca",) * 2])
def test_the_application_protocol_is_offered_when_given(
    given: str | None, offered: str | None, server_files: Files, claim: Files
) -> None:
    seen: list[str | None] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(server_files.certificate, server_files.key)
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as stream:
                seen.append(stream.selected_alpn_protocol())

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ConnectionFailed):
            dial(listener.getsockname()[1], claim, alpn=given)
        thread.join()
    assert seen == [offered]


# --- servers that misbehave ---


def accepting(*after: bytes, hold: bool = True) -> Callable[[ssl.SSLSocket], None]:
    """A script: accept the connection, send `after`, and (with `hold`) wait for the end."""

    def script(stream: ssl.SSLSocket) -> None:
        mqtt = Connection(Role.SERVER)
        while not mqtt.receive(stream.recv(16384)):
            pass
        stream.sendall(mqtt.send(Connack()))
        for data in after:
            stream.sendall(data)
        while hold and stream.recv(16384):
            pass

    return script


def sending(data: bytes) -> Callable[[ssl.SSLSocket], None]:
    def script(stream: ssl.SSLSocket) -> None:
        stream.recv(16384)
        stream.sendall(data)

    return script


@pytest.mark.parametrize(
    ("version", "answer", "message"),
    [
        (5, Connack(False, 0x87, {"reason_string": "no"}), r"not authorized, 0x87: no\)"),
        (5, Connack(False, 0x97), "quota exceeded, 0x97"),
        (4, Connack(False, 5), "not authorized, 0x05"),
        (4, Connack(False, 2), "identifier rejected, 0x02"),
    ],
)
def test_a_refused_connection_says_why(
    version: Version, answer: Connack, message: str, scripted: Scripted, claim: Files
) -> None:
    with (
        scripted(sending(encode(answer, version))) as port,
        pytest.raises(ConnectionFailed, match=message),
    ):
        dial(port, claim, version=version)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the server closed the connection after CONNECT; is the client certificate"),
        (b"HTTP/1.1 400 Bad Request\r\n" * 9, "the server broke the MQTT protocol"),
        (encode(Publish("a"), 5), "the server broke the MQTT protocol"),
        (b"\x20\xff\xff\xff\x7f", "larger packet than the 149504 bytes|broke the MQTT"),
    ],
)
def test_a_server_that_speaks_something_else_is_named(
    data: bytes, message: str, scripted: Scripted, claim: Files
) -> None:
    with (
        scripted(sending(data)) as port,
        pytest.raises((ConnectionFailed, BadAnswer), match=message),
    ):
        dial(port, claim)


def test_a_silent_server_is_left_in_time(scripted: Scripted, claim: Files) -> None:
    def silent(stream: ssl.SSLSocket) -> None:
        while stream.recv(16384):
            pass

    with (
        scripted(silent) as port,
        pytest.raises(ConnectionFailed, match=r"did not answer CONNECT within 0\.2 s") as caught,
    ):
        dial(port, claim, timeout=0.2)
    assert caught.value.waited == 0.2


def test_a_server_that_does_not_speak_tls_is_left_in_time(claim: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConnectionFailed, match=r"no TLS handshake .* within 0\.2 s"):
            dial(port, claim, timeout=0.2)
    with pytest.raises(ConnectionFailed, match=f"no TCP connection to `localhost` port {port}: "):
        dial(port, claim)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server does not speak TLS on this port"),
        (b"220 mail.example.com ESMTP\r\n", "the server does not speak TLS on this port"),
        (b"\x20\x02\x00\x05" * 9, "the server does not speak TLS on this port"),
        (b"\x16\x03\x03\xff\xff" * 9, "the server does not speak TLS on this port"),
        (b"", "the server closed the connection during the handshake; does it speak TLS"),
    ],
)
def test_a_server_that_answers_without_tls_is_named(
    answer: bytes, message: str, claim: Files
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as stream:
                stream.recv(16384)
                stream.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ConnectionFailed, match=message):
            dial(listener.getsockname()[1], claim)
        thread.join()


def test_a_disconnect_of_the_server_says_why(scripted: Scripted, claim: Files) -> None:
    bye = encode(Disconnect(0x8B, {"reason_string": "maintenance"}), 5)
    with (
        scripted(accepting(bye)) as port,
        dial(port, claim) as device,
        pytest.raises(ConnectionLost, match=r"server shutting down, 0x8b: maintenance\)"),
    ):
        device.wait(["a"])


def test_a_server_that_hangs_up_on_a_message_is_asked_about_its_policy(
    scripted: Scripted, claim: Files
) -> None:
    """What AWS IoT does with MQTT 3.1.1 when the policy does not allow a message."""

    def script(stream: ssl.SSLSocket) -> None:
        accepting(hold=False)(stream)
        stream.recv(16384)

    with (
        scripted(script) as port,
        dial(port, claim, version=4) as device,
        pytest.raises(ConnectionLost, match="iot:Publish on `topic/secret`") as caught,
    ):
        device.publish("secret", b"x")
    assert "the server closed the connection after PUBLISH to `secret`" in caught.value.message


def test_messages_that_nobody_waits_for_have_an_end(scripted: Scripted, claim: Files) -> None:
    flood = encode(Publish("a"), 5) * 1001
    with (
        scripted(accepting(flood)) as port,
        dial(port, claim) as device,
        pytest.raises(ConnectionLost, match="1000 messages came that nobody waits for"),
    ):
        device.wait(["b"])


def test_the_server_is_told_how_it_broke_the_protocol(scripted: Scripted, claim: Files) -> None:
    told: list[bytes] = []

    def script(stream: ssl.SSLSocket) -> None:
        accepting(b"\x00\x00", hold=False)(stream)
        told.append(stream.recv(16384))

    with (
        scripted(script) as port,
        dial(port, claim) as device,
        pytest.raises(ConnectionLost, match="broke the MQTT protocol"),
    ):
        device.wait(["a"])
    assert told[0][0] == 0xE0  # DISCONNECT


@both_versions
def test_a_refused_subscription_names_topic_and_action(
    version: Version, scripted: Scripted, claim: Files
) -> None:
    code = 0x80 if version == 4 else 0x87

    def script(stream: ssl.SSLSocket) -> None:
        accepting(hold=False)(stream)
        stream.recv(16384)
        stream.sendall(encode(Suback(1, (1, code)), version))
        while stream.recv(16384):
            pass

    with scripted(script) as port, dial(port, claim, version=version) as device:
        with pytest.raises(NotAuthorized, match="iot:Subscribe on `topicfilter/secret/#`") as error:
            device.subscribe(["free/#", "secret/#"])
        assert (error.value.topic, error.value.action) == ("secret/#", "iot:Subscribe")
        assert f", {code:#x})" in error.value.message


def test_refused_subscriptions_are_told_of_in_one_sentence(
    scripted: Scripted, claim: Files
) -> None:
    filters = ["a/b/accepted", "a/b/rejected", "free", "c"]
    said = "; ".join(
        f"no statement allows iot:Subscribe on `topicfilter/{each}`" for each in filters
    )

    def script(stream: ssl.SSLSocket) -> None:
        accepting(hold=False)(stream)
        stream.recv(16384)
        answer = Suback(1, (0x87, 0x87, 1, 0x97), {"reason_string": said[:90]})
        stream.sendall(encode(answer, 5))
        while stream.recv(16384):
            pass

    with (
        scripted(script) as port,
        dial(port, claim) as device,
        pytest.raises(NotAuthorized) as error,
    ):
        device.subscribe(filters)
    assert error.value.message == (
        "the server refused the subscriptions to `a/b/{accepted,rejected}` and `c` (not "
        "authorized, 0x87, and quota exceeded, 0x97: no statement allows iot:Subscribe on "
        "`topicfilter/a/b/accepted`); does the certificate's policy allow iot:Subscribe on these "
        "topic filters?"
    )
    assert (error.value.topic, error.value.action) == ("a/b/accepted", "iot:Subscribe")


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b"])
def test_a_topic_that_is_none_is_refused_here(topic: str, scripted: Scripted, claim: Files) -> None:
    with (
        scripted(accepting()) as port,
        dial(port, claim) as device,
        pytest.raises(BadRequest),
    ):
        device.publish(topic, b"x")


def test_qos_2_is_refused_here(scripted: Scripted, claim: Files) -> None:
    with (
        scripted(accepting()) as port,
        dial(port, claim) as device,
        pytest.raises(BadRequest, match="at QoS 0 or 1, not 2"),
    ):
        device.publish("a", b"x", qos=2)


@pytest.mark.parametrize(("host", "port"), [("localhost", 99999), ("a\0b", 1), ("a..b", 1)])
def test_a_place_that_is_none_is_refused(host: str, port: int, claim: Files) -> None:
    with pytest.raises(ConnectionFailed, match="no TCP connection to"):
        dial(port, claim, host=host)


def test_leaving_says_goodbye(scripted: Scripted, claim: Files) -> None:
    heard: list[bytes] = []

    def script(stream: ssl.SSLSocket) -> None:
        accepting(hold=False)(stream)
        while data := stream.recv(16384):
            heard.append(data)

    with scripted(script) as port:
        device = dial(port, claim)
        device.disconnect()
        device.disconnect()  # harmless
        with pytest.raises(ConnectionLost):
            device.ping()
    assert heard == [encode(Disconnect(), 5)]
