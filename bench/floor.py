"""The crypto floor: what the cryptography of one onboarding costs with the server's libraries.

No sockets, no MQTT, no store: two TLS handshakes on memory BIOs, of which the server's side is
timed; a CSR (P-256) parsed and its signature checked; an RSA-2048 signature as long as a device
certificate needs; a sealed ownership token. It runs in this process, on the server's core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

from bench import rig
from fleetgate.gateway.tls_context import server_context
from fleetgate.pki.trust import Authority

_TBS = bytes(600)  # the part of a device certificate that is signed
_CLAIMS = bytes(62)  # the claims in an ownership token
_FLIGHT = 65536


@dataclass(frozen=True, slots=True)
class Floor:
    """Milliseconds of CPU for each part of one onboarding."""

    two_handshakes: float
    csr: float
    signature: float
    token: float

    @property
    def total(self) -> float:
        """Milliseconds of CPU for all of it."""
        return self.two_handshakes + self.csr + self.signature + self.token


def measure(data: Path, directory: Path, csr: str, count: int) -> Floor:
    """Does everything `count` times.

    `data` is the data directory of a server, `directory` holds ``claim.pem`` and ``claim.key``.
    """
    authority = Authority.load((data / "ca.pem").read_text(), (data / "ca.key").read_text())
    server = server_context(data / "server.pem", data / "server.key")
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.use_certificate_file(str(directory / "claim.pem"))
    client.use_privatekey_file(str(directory / "claim.key"))
    pem, aead = csr.encode(), AESGCM(bytes(32))

    def check_csr() -> None:
        if not x509.load_pem_x509_csr(pem).is_signature_valid:
            raise RuntimeError("the CSR is not valid")

    def sign() -> None:
        authority.private_key.sign(_TBS, padding.PKCS1v15(), hashes.SHA256())

    def seal() -> None:
        aead.encrypt(bytes(12), _CLAIMS, b"\x01")

    with rig.pinned(rig.SERVER_CORE):
        handshake = sum(_handshake(server, client) for _ in range(count)) / count
        return Floor(
            2 * handshake * 1e3, *(_cost(each, count) * 1e3 for each in (check_csr, sign, seal))
        )


def _cost(function: Callable[[], None], count: int) -> float:
    begun = time.thread_time()
    for _ in range(count):
        function()
    return (time.thread_time() - begun) / count


def _handshake(server_settings: SSL.Context, client_settings: SSL.Context) -> float:
    """Seconds of CPU for the server's side of a TLS 1.3 handshake with client certificate."""
    client = SSL.Connection(client_settings, None)
    client.set_connect_state()
    _step(client)
    hello = client.bio_read(_FLIGHT)

    begun = time.thread_time()
    server = SSL.Connection(server_settings, None)
    server.set_accept_state()
    server.bio_write(hello)
    _step(server)
    flight = server.bio_read(_FLIGHT)
    spent = time.thread_time() - begun

    client.bio_write(flight)
    client.do_handshake()
    finished = client.bio_read(_FLIGHT)

    begun = time.thread_time()
    server.bio_write(finished)
    server.do_handshake()
    return spent + time.thread_time() - begun


def _step(connection: SSL.Connection) -> None:
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return
    raise RuntimeError("the handshake ended early")
