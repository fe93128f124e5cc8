"""TLS at the gateway: versions, curves, ALPN, and the server's own certificate."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509

from tests.integration.fleet import KEYS, Fleet, Identity
from tests.integration.paho_device import PahoDevice, Refused, onboard, tls_context
from tests.integration.server import Server


def connect(server: Server, context: ssl.SSLContext, host: str = "localhost") -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", server.mqtt_port), 5)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (["x-amzn-mqtt-ca"], "x-amzn-mqtt-ca"),
        (["http/1.1", "x-amzn-mqtt-ca"], "x-amzn-mqtt-ca"),
        (["http/1.1"], None),
        (None, None),
    ],
)
def test_alpn_is_selected_when_offered_and_not_required(
    server: Server,
    shared_fleet: Fleet,
    name: str,
    offered: list[str] | None,
    selected: str | None,
) -> None:
    """AWS IoT Core developer guide, "Device communication protocols": ALPN on port 443."""
    context = tls_context(server, shared_fleet.claim)
    if offered:
        context.set_alpn_protocols(offered)
    with connect(server, context) as secured:
        assert secured.selected_alpn_protocol() == selected
    with PahoDevice(server, shared_fleet.claim, name, context=context) as device:
        device.listen(KEYS)
        assert device.accepted(KEYS, {})["certificateId"]


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
def test_both_versions_are_served(
    server: Server, shared_fleet: Fleet, name: str, version: ssl.TLSVersion
) -> None:
    context = tls_context(server, shared_fleet.claim)
    context.minimum_version = context.maximum_version = version
    with PahoDevice(server, shared_fleet.claim, name, context=context) as device:
        device.listen(KEYS)
        assert device.accepted(KEYS, {})["certificateId"]


def test_older_versions_are_not_served(server: Server, shared_fleet: Fleet) -> None:
    context = tls_context(server, shared_fleet.claim)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        connect(server, context)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_embedded_client_with_tls_1_2_and_p_256_alone_is_served(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path, host: str
) -> None:
    """mbed TLS in AWS's C demos: TLS 1.2, one curve, nine suites."""
    own = onboard(server, shared_fleet, f"{name}-{host[:3]}", tmp_path)  # a P-256 certificate
    context = tls_context(server, own)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ecdh_curve("prime256v1")
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    with connect(server, context, host) as secured:
        assert secured.version() == "TLSv1.2"
        assert secured.compression() is None
    thing = shared_fleet.thing(f"{name}-{host[:3]}")
    with PahoDevice(server, own, thing, context=context) as device:
        assert device.publish(f"devices/{thing}/data", b"small") == 0


def test_the_servers_certificate_names_the_server(server: Server, operator: Identity) -> None:
    with connect(server, tls_context(server, operator)) as secured:
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert "127.0.0.1" in {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server, tls_context(server, operator), "127.0.0.2")
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        connect(server, tls_context(server, operator), "example.org")


def test_a_client_without_nodelay_is_not_stalled(server: Server, operator: Identity) -> None:
    """Nagle and delayed acknowledgements together would cost 40 ms at every connect."""
    packet = bytes.fromhex("101000044d5154540402003c000474657374")
    times = []
    for _ in range(5):
        begun = time.monotonic()
        with connect(server, tls_context(server, operator)) as secured:
            secured.sendall(packet)
            assert secured.recv(4) == b"\x20\x02\x00\x00"
        times.append(time.monotonic() - begun)
    print(f"connect and CONNACK: {min(times) * 1000:.1f} ms at best")  # noqa: T201
    assert min(times) < 1.0


def test_no_client_certificate_no_session(server: Server, shared_fleet: Fleet, name: str) -> None:
    """With TLS 1.2 the handshake fails; with 1.3 the client learns of it a moment later."""
    context = tls_context(server, None)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OSError):
        connect(server, context)
    device = PahoDevice(server, shared_fleet.claim, name, context=tls_context(server, None))
    with pytest.raises(Refused), device:
        pass
