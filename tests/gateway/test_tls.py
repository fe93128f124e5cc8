"""The TLS side of the gateway, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL

from fleetgate.broker.deadlines import Deadlines
from fleetgate.errors import Error
from fleetgate.gateway.connection import MqttConnection
from fleetgate.gateway.tls import State, TlsConnection, TlsLimits
from fleetgate.gateway.tls_context import server_context
from fleetgate.mqtt.packets import Connack, Connect, Pingreq, Pingresp
from tests.gateway.running import (
    PATIENCE,
    Credentials,
    Device,
    Running,
    client_context,
    make_credentials,
)


def shake(running: Running, adjust: Callable[[ssl.SSLContext], object]) -> Device:
    """A connected device whose TLS is `adjust`ed; CONNECT is answered, so TLS works both ways."""
    context = client_context(running.device, running.server)
    adjust(context)
    device = Device.__new__(Device)
    device.begin(running.address, context)
    device.send(Connect("lamp"))
    assert device.expect(Connack).reason_code == 0
    return device


def plain(running: Running) -> socket.socket:
    return socket.create_connection(running.address, PATIENCE)


def ended(connection: socket.socket) -> bool:
    """The server has closed."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def still_serves(running: Running) -> None:
    with running.connect("another") as device:
        device.send(Pingreq())
        device.expect(Pingresp)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_are_served(running: Running, version: ssl.TLSVersion) -> None:
    def only(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version

    with shake(running, only) as device:
        assert device.socket.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("behind", [(), ("ca",), ("ca", "root"), ("device", "ca")])
def test_what_clients_send_behind_their_certificate(
    running: Running, tmp_path: Path, version: ssl.TLSVersion, behind: tuple[str, ...]
) -> None:
    """It is there for admission, without the client's own, and gone afterwards."""
    others = {name: make_credentials(tmp_path, name) for name in ("ca", "root")}
    known = {"device": running.device, **others}
    sent = [known[name] for name in behind]
    file = tmp_path / "chain.pem"
    file.write_bytes(
        b"".join(each.certificate_file.read_bytes() for each in (running.device, *sent))
    )

    def with_chain(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(file, running.device.key_file)

    with shake(running, with_chain):
        found = running.chains[running.device.certificate_id]
        assert found == tuple(each.der for each in sent if each is not running.device)
        assert [peer.chain for peer in running.peers] == [()]


def test_a_long_chain_is_read_in_part(running: Running, tmp_path: Path) -> None:
    others = [make_credentials(tmp_path, f"ca-{number}") for number in range(14)]
    file = tmp_path / "chain.pem"
    file.write_bytes(
        b"".join(each.certificate_file.read_bytes() for each in (running.device, *others))
    )
    with shake(running, lambda context: context.load_cert_chain(file, running.device.key_file)):
        found = running.chains[running.device.certificate_id]
        assert found == tuple(each.der for each in others[:10])


def test_older_versions_are_refused(running: Running, log: list[str]) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"DEFAULT@SECLEVEL=0")
    context.set_max_proto_version(SSL.TLS1_1_VERSION)
    client = SSL.Connection(context, plain(running))
    client.set_connect_state()
    client.setblocking(True)
    with pytest.raises(SSL.Error):
        client.do_handshake()
    client.close()
    running.eventually(lambda: any("unsupported protocol" in line for line in log))


def test_an_embedded_client_with_tls_1_2_and_nothing_but_p256_is_served(running: Running) -> None:
    def embedded(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        context.set_ecdh_curve("prime256v1")

    with shake(running, embedded) as device:
        assert device.socket.cipher() == ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLSv1.2", 128)


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "X25519"])
def test_every_usual_group_is_offered_in_tls_1_3(running: Running, curve: str) -> None:
    with shake(running, lambda context: context.set_ecdh_curve(curve)) as device:
        assert device.socket.version() == "TLSv1.3"


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ([], None),
        (["x-amzn-mqtt-ca"], "x-amzn-mqtt-ca"),
        (["http/1.1", "x-amzn-mqtt-ca"], "x-amzn-mqtt-ca"),
        (["http/1.1"], None),
        (["mqtt"], None),  # AWS IoT: custom authentication, which is not offered
    ],
)
def test_alpn_is_selected_when_offered_and_not_required(
    running: Running, offered: list[str], selected: str | None
) -> None:
    with shake(running, lambda context: context.set_alpn_protocols(offered)) as device:
        assert device.socket.selected_alpn_protocol() == selected


def test_a_session_is_never_resumed(running: Running) -> None:
    context = client_context(running.device, running.server)
    session = None
    for _ in range(3):
        client = context.wrap_socket(plain(running), server_hostname="localhost", session=session)
        device = Device.__new__(Device)
        device.take(client)
        device.send(Connect("lamp"))
        device.expect(Connack)
        assert not client.session_reused
        session = client.session
        client.close()


def test_renegotiation_is_refused(running: Running) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.use_certificate_file(str(running.device.certificate_file))
    context.use_privatekey_file(str(running.device.key_file))
    client = SSL.Connection(context, plain(running))
    client.set_connect_state()
    client.setblocking(True)
    client.do_handshake()
    client.renegotiate()
    with pytest.raises(SSL.Error):  # alert no_renegotiation, or a closed connection
        client.do_handshake()
    client.close()
    still_serves(running)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_a_certificate_is_refused(
    running: Running, log: list[str], version: ssl.TLSVersion
) -> None:
    context = client_context(None, running.server)
    context.maximum_version = version
    with (
        pytest.raises(ssl.SSLError) as caught,
        plain(running) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as client,
    ):
        client.recv(1)
    assert "alert" in str(caught.value).lower()
    running.eventually(lambda: any("peer did not return a certificate" in line for line in log))
    assert all("Traceback" not in line for line in log)
    still_serves(running)


def test_any_certificate_passes_tls_and_the_registry_gets_its_der(
    running: Running, tmp_path: Path
) -> None:
    """Expired, self-signed, unknown: TLS does not mind. `admit` says no, in MQTT's words."""
    stranger = make_credentials(tmp_path, "stranger", days=-1)
    with running.raw(stranger) as device:
        device.send(Connect("lamp"))
        assert device.expect(Connack).reason_code == 5
    running.register(stranger)
    with running.connect(credentials=stranger) as device:
        assert device.connack.reason_code == 0


GARBAGE = {
    "noise": bytes(range(256)),
    "zeros": bytes(5000),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "mqtt without tls": b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04lamp",
    "a broken record": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff",
    "a tls alert": b"\x15\x03\x01\x00\x02\x02\x28",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_instead_of_tls_is_refused_in_one_line(
    running: Running, log: list[str], data: bytes
) -> None:
    with plain(running) as connection:
        peer = "{}:{}".format(*connection.getsockname())
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert ended(connection)
    running.eventually(lambda: len(running.gateway) == 0)
    lines = [line for line in log if peer in line]
    assert len(lines) == 1
    assert lines[0].startswith("event=handshake-failed")
    still_serves(running)


def test_a_connection_that_says_nothing_is_not_worth_a_line(
    running: Running, log: list[str]
) -> None:
    plain(running).close()
    running.eventually(lambda: len(running.gateway) == 0)
    assert log == []


def test_a_handshake_that_is_not_finished_in_time_ends(running: Running, log: list[str]) -> None:
    with plain(running) as silent, plain(running) as slow:
        slow.sendall(b"\x16\x03\x01\x02\x00\x01")
        running.eventually(lambda: len(running.gateway) == 2)
        running.advance(9)
        assert running.do(lambda: len(running.gateway)) == 2
        running.advance(2)
        assert ended(silent)
        assert ended(slow)
    assert sum("not finished within 10 s" in line for line in log) == 2


def test_a_handshake_has_a_byte_budget(running: Running, log: list[str]) -> None:
    """A ClientHello of 100 KB, which OpenSSL itself would wait for."""
    hello = b"\x01" + struct.pack(">I", 100_000)[1:] + bytes(100_000)
    records = b"".join(
        b"\x16\x03\x01" + struct.pack(">H", len(part)) + part
        for part in (hello[at : at + 16000] for at in range(0, 80_000, 16000))
    )
    with plain(running) as connection:
        connection.sendall(records)
        assert ended(connection)
    running.eventually(lambda: any("cause='more than 32768 bytes'" in line for line in log))


def test_the_farewell_is_a_close_notify(running: Running) -> None:
    context = client_context(running.device, running.server)
    device = Device.__new__(Device)
    device.begin(running.address, context, suppress_ragged_eofs=False)
    device.send(Connect("$lamp"))
    assert device.expect(Connack).reason_code == 2
    assert device.socket.recv(1) == b""  # without close_notify: SSLEOFError
    device.socket.close()


def test_a_refusal_reaches_a_client_that_has_sent_more(running: Running) -> None:
    """Unread input would turn the close into a reset, which overtakes the CONNACK."""
    for _ in range(5):
        with running.raw() as device:
            connect = device.core.send(Connect("$lamp"))
            device.socket.sendall(connect + b"\xc0\x00" * 100_000)
            assert device.expect(Connack).reason_code == 2


def test_a_client_that_breaks_the_protocol_is_closed_without_a_reset(running: Running) -> None:
    with running.raw() as device:
        device.socket.sendall(device.core.send(Connect("lamp")) + bytes(200_000))
        assert device.socket.recv(1) == b""


def test_a_client_that_does_not_close_is_cut_off(running: Running) -> None:
    with running.raw() as device:
        device.send(Connect("$lamp"))
        device.expect(Connack)
        running.advance(4)
        assert running.do(lambda: len(running.gateway)) == 1
        running.advance(2)
        running.eventually(lambda: len(running.gateway) == 0)


def test_server_certificate_and_key_have_to_belong_together(tmp_path: Path) -> None:
    one, other = make_credentials(tmp_path, "one"), make_credentials(tmp_path, "other")
    with pytest.raises(Error, match=r"cannot serve as the server's certificate and key: .*match"):
        server_context(one.certificate_file, other.key_file)
    with pytest.raises(Error, match="cannot serve"):
        server_context(tmp_path / "missing", one.key_file)


class Flood:
    """An application that writes whether the peer reads or not."""

    def __init__(self, tls: TlsConnection) -> None:
        self.tls = tls
        self.cause = ""
        for _ in range(64):
            tls.write(bytes(100_000))

    def received(self, _data: bytes) -> bool:
        raise AssertionError

    def writable(self) -> None:
        raise AssertionError

    def due(self, _now: float) -> float | None:
        return None

    def lost(self, cause: str) -> None:
        self.cause = cause


def test_a_peer_that_does_not_read_is_cut_off_at_the_bound(tmp_path: Path) -> None:
    server, client = make_credentials(tmp_path, "server"), make_credentials(tmp_path, "client")

    async def scenario() -> tuple[Flood, list[TlsConnection]]:
        loop = asyncio.get_running_loop()
        started: asyncio.Future[Flood] = loop.create_future()
        gone: list[TlsConnection] = []

        def start(tls: TlsConnection) -> Flood:
            started.set_result(flood := Flood(tls))
            return flood

        listener = await loop.create_server(
            lambda: TlsConnection(
                server_context(server.certificate_file, server.key_file),
                start,
                gone.append,
                Deadlines(0),
                lambda: 0,
                TlsLimits(outgoing_bytes=1_000_000),
            ),
            "127.0.0.1",
            0,
        )
        address = listener.sockets[0].getsockname()
        connection = await loop.run_in_executor(None, _connect, address, client, server)
        flood = await asyncio.wait_for(started, PATIENCE)
        for _ in range(100):
            if gone:
                break
            await asyncio.sleep(0.01)
        connection.close()
        listener.close()
        await listener.wait_closed()
        return flood, gone

    flood, gone = asyncio.run(scenario())
    assert gone == [flood.tls]
    assert flood.tls.state is State.CLOSED
    assert flood.cause == "the client does not read"


def _connect(
    address: tuple[str, int], credentials: Credentials, server: Credentials
) -> ssl.SSLSocket:
    return client_context(credentials, server).wrap_socket(
        socket.create_connection(address, PATIENCE), server_hostname="localhost"
    )


def test_a_large_packet_is_read_in_large_parts(running: Running) -> None:
    """What is read in small parts is bursts of small packets: they are the work."""
    sizes: list[int] = []
    received = MqttConnection.received

    def spy(connection: MqttConnection, data: bytes) -> bool:
        sizes.append(len(data))
        return received(connection, data)

    with running.connect("lamp") as lamp, pytest.MonkeyPatch.context() as patch:
        patch.setattr(MqttConnection, "received", spy)
        lamp.publish("a", bytes(100_000))
        assert max(sizes) > 12_000
        sizes.clear()
        lamp.socket.sendall(b"\x30\x04\x00\x01ax" * 2700)
        lamp.publish("a")
        assert max(sizes) == 4096
