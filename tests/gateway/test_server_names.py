"""The names a client may ask for."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from fleetgate.gateway.server_names import ServerNames, told
from fleetgate.mqtt.packets import Connack, Connect
from tests.gateway.running import Device, Running
from tests.gateway.strangers import memory_client, shake
from tests.gateway.test_tls import plain

NAMES = ServerNames(["Gate.Example", "*.fleet.example", "127.0.0.1", "localhost"])


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("", False),
        ("gate.example", False),
        ("GATE.example", False),
        ("gate.example.", False),
        ("a.fleet.example", False),
        ("fleet.example", True),
        ("a.b.fleet.example", True),
        ("*.fleet.example", False),
        ("evil.example", True),
        ("example", True),
        ("gate.example..", True),
        ("gate.example.evil.example", True),
        ("127.0.0.1", False),
        ("192.0.2.7", False),  # no name, RFC 6066 section 3
        ("2001:db8::1", False),
        ("[2001:db8::1]", True),
        ("1.2.3.4.5", True),
    ],
)
def test_names(name: str, refused: bool) -> None:
    assert NAMES.refuses(told(name.encode())) is refused


def test_what_is_told() -> None:
    assert told(None) == told(b"") == ""
    assert told(b"Gate.EXAMPLE.") == "gate.example"
    assert NAMES.refuses(told(b"gate.ex\xffmple"))


@pytest.fixture
def named(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path, names=NAMES) as running:
        yield running


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_another_servers_name_ends_the_handshake(
    named: Running, log: list[str], version: int
) -> None:
    """RFC 6066 section 3: the fatal alert unrecognized_name; the log tells what to do about it."""
    context = memory_client(named.device.certificate_file, named.device.key_file, version)
    with plain(named) as connection, pytest.raises(SSL.Error) as caught:
        shake(context, connection, b"Evil.example")
    assert "unrecognized name" in str(caught.value)
    named.eventually(lambda: any("handshake-failed" in line for line in log))
    (line,) = [line for line in log if "handshake-failed" in line]
    assert "`evil.example`" in line
    assert "add it to the setting host_names (--host-name evil.example)" in line


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("name", [None, b"gate.example", b"GATE.EXAMPLE.", b"10.1.2.3"])
def test_a_name_of_the_server_or_none_is_served(
    named: Running, version: int, name: bytes | None
) -> None:
    context = memory_client(named.device.certificate_file, named.device.key_file, version)
    with plain(named) as connection:
        secured = shake(context, connection, name)
        assert secured.get_protocol_version_name() in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(
    ("name", "seen"),
    [("GATE.example", "gate.example"), ("gate.example.", "gate.example"), (None, "")],
)
def test_the_name_policies_see(named: Running, name: str | None, seen: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(named.device.certificate_file, named.device.key_file)
    device = Device.__new__(Device)
    device.take(context.wrap_socket(plain(named), server_hostname=name))
    with device:
        device.send(Connect("lamp"))
        assert device.expect(Connack).reason_code == 0
    assert [peer.server_name for peer in named.peers] == [seen]
