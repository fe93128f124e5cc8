"""Broken, oversized and forbidden packets: the connection ends, the server goes on."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from tests.integration.fleet import CSR, Identity
from tests.integration.paho_device import PahoDevice, tls_context
from tests.integration.server import Server

CLOSED_WITHIN = 10.0

pytestmark = pytest.mark.usefixtures("goes_on")


@pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])
def test_a_message_over_the_limit_ends_the_connection(
    server: Server, operator: Identity, name: str, version: int
) -> None:
    """AWS IoT Core quotas, "Publish payload size": 128 KB; a larger one disconnects."""
    with PahoDevice(server, operator, name, version=version) as device:
        assert device.publish("devices/large", b"x" * 128 * 1024) == 0
        device.send("devices/large", b"x" * 200 * 1024)
        assert device.disconnected.wait(CLOSED_WITHIN)


def reads_to_the_end(connection: socket.socket) -> float:
    """Read until the server closes; the seconds that took. TimeoutError when it does not."""
    begun = time.monotonic()
    connection.settimeout(CLOSED_WITHIN)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        raise
    except OSError:
        pass  # reset, or a TLS alert: closed all the same
    return time.monotonic() - begun


CONNECT = bytes.fromhex("101000044d5154540402003c000474657374")
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "publish-first": b"\x30\x05\x00\x01ax!",
    "ping-first": b"\xc0\x00",
    "remaining-length": b"\x10\xff\xff\xff\xff\xff",
    "declared-256-MB": b"\x10\xff\xff\xff\x7f" + b"x" * 100,
    "protocol-name": bytes.fromhex("101000044d5154580402003c000474657374"),
    "protocol-level": bytes.fromhex("101000044d5154540902003c000474657374"),
    "mqtt-3.1": bytes.fromhex("101200064d51497364700302003c000474657374"),
    "reserved-flag": bytes.fromhex("101000044d5154540403003c000474657374"),
    "two-connects": CONNECT + CONNECT,
    "connack-from-client": CONNECT + b"\x20\x02\x00\x00",
    "declared-large-publish": CONNECT + b"\x30\xff\xff\xff\x7f" + b"x" * 100,
    "subscribe-flags": CONNECT + b"\x80\x06\x00\x01\x00\x01a\x00",
    "subscribe-to-nothing": CONNECT + b"\x82\x02\x00\x01",
    "publish-wildcard": CONNECT + b"\x30\x05\x00\x03a/#",
    "qos-3": CONNECT + b"\x36\x06\x00\x01a\x00\x01x",
}


@pytest.mark.parametrize("octets", list(GARBAGE.values()), ids=list(GARBAGE))
def test_garbage_ends_the_connection(server: Server, operator: Identity, octets: bytes) -> None:
    context = tls_context(server, operator)
    with (
        socket.create_connection(("localhost", server.mqtt_port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(octets)
        reads_to_the_end(connection)


@pytest.mark.parametrize(
    "octets", [CONNECT, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(500)]
)
def test_what_is_not_tls_ends_the_connection(server: Server, octets: bytes) -> None:
    with socket.create_connection(("localhost", server.mqtt_port), 5) as connection:
        connection.sendall(octets)
        reads_to_the_end(connection)


def test_silence_does_not_keep_others_out(server: Server, operator: Identity, name: str) -> None:
    """Connections that say nothing, before or after TLS, do not disturb a device that does."""
    quiet = [socket.create_connection(("localhost", server.mqtt_port), 5) for _ in range(20)]
    context = tls_context(server, operator)
    secured: list[ssl.SSLSocket] = []
    try:
        secured = [context.wrap_socket(each, server_hostname="localhost") for each in quiet[:5]]
        with PahoDevice(server, operator, name) as device:
            assert device.publish("devices/any", b"") == 0
    finally:
        for each in [*secured, *quiet]:
            each.close()


@pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])
@pytest.mark.parametrize(
    "topic",
    [
        "$aws/certificates/create/yaml",
        "$aws/certificates/create/JSON",
        "$aws/provisioning-templates/x/provision",
        "$aws/things/x/shadow/update",
        "$SYS/x",
    ],
)
def test_a_reserved_topic_that_is_not_served_ends_the_connection(
    server: Server, operator: Identity, name: str, *, version: int, topic: str
) -> None:
    """AWS IoT Core developer guide, "Reserved topics": others under `$` are not for clients."""
    with PahoDevice(server, operator, name, version=version) as device:
        device.send(topic, b"{}")
        assert device.disconnected.wait(CLOSED_WITHIN)


def test_a_retained_request_is_not_allowed(server: Server, operator: Identity, name: str) -> None:
    """AWS IoT Core developer guide, "Reserved topics": no retained messages there."""
    with PahoDevice(server, operator, name) as device:
        device.send(f"{CSR}/json", b"{}", retain=True)
        assert device.disconnected.wait(CLOSED_WITHIN)
