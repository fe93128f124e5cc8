"""What a client that nobody knows can make the server work on before it is turned away."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from OpenSSL import SSL

from fleetgate.gateway.tls import TlsLimits
from fleetgate.gateway.tls_context import burden_of, server_context
from fleetgate.mqtt.packets import Connack, Connect
from tests.gateway.running import Device, Running, client_context, make_credentials
from tests.gateway.strangers import KEY, VERSIONS, certificate, chain, client, shake, work
from tests.gateway.test_tls import plain, still_serves

LEAF = certificate("lamp", "some authority")


def der(found: x509.Certificate) -> bytes:
    return found.public_bytes(serialization.Encoding.DER)


@pytest.fixture
def server(tmp_path: Path) -> SSL.Context:
    credentials = make_credentials(tmp_path, "server")
    return server_context(credentials.certificate_file, credentials.key_file)


def knock(running: Running, stranger: SSL.Context) -> None:
    """A client that is refused. In TLS 1.3 it is done with the handshake before the server is."""
    with plain(running) as connection, pytest.raises(SSL.Error):
        shake(stranger, connection, None).recv(1)


def least(server: SSL.Context, stranger: SSL.Context, times: int) -> float:
    return min(work(server, stranger)[0] for _ in range(times))


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_no_chain_is_built_or_checked(server: SSL.Context, version: int) -> None:
    """2500 names under 12 x 400 name constraints: 5000 times a plain handshake when checked."""
    made = chain(2500, 12, 400)
    size = sum(len(der(each)) for each in made)
    assert 50_000 < size < 65_536  # more even than the gateway takes
    plain_work = least(server, client([LEAF], KEY, version), 5)
    assert least(server, client(made, KEY, version), 3) < 40 * plain_work
    _, ours = work(server, client(made, KEY, version))
    assert ours.get_app_data() == der(made[0])
    sent = ours.get_peer_cert_chain() or []
    assert [each.to_cryptography() for each in sent] == made[1:]


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_what_a_handshake_may_hold_is_no_burden(server: SSL.Context, version: int) -> None:
    """As many certificates as fit in: each has a key that has to be read."""
    small = ec.generate_private_key(ec.SECP521R1())
    each = certificate("1", "1", small)
    count = TlsLimits().handshake_bytes // (len(der(each)) + 5) - 1
    plain_work = least(server, client([LEAF], KEY, version), 5)
    assert least(server, client([LEAF, *[each] * count], KEY, version), 3) < 100 * plain_work


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_a_chain_beyond_the_budget_is_refused(
    running: Running, log: list[str], version: int
) -> None:
    knock(running, client(chain(2500, 12, 400), KEY, version))
    running.eventually(lambda: any("cause='more than 32768 bytes'" in line for line in log))
    still_serves(running)


def test_a_long_chain_of_large_certificates_fits_in() -> None:
    made = der(certificate("a name of a usual length, with some attributes", "1", Giant(4096)))
    signature = 512 - 72  # of a key like that, in place of one on P-256
    assert 12 * (len(made) + signature + 200) < TlsLimits().handshake_bytes


def test_packets_right_behind_the_handshake_are_not_counted(running: Running) -> None:
    """MQTT lets a client send more before CONNACK; it may come with the Finished, in one read."""
    device = Device.__new__(Device)
    device.begin(running.address, client_context(running.device, running.server))
    with device:
        connect = device.core.send(Connect("lamp"))
        device.socket.sendall(connect + b"\x30\x04\x00\x01ax" * 20_000)
        assert device.expect(Connack).reason_code == 0
    still_serves(running)


# --- keys --------------------------------------------------------------------------------------


def with_exponent(bits: int) -> rsa.RSAPrivateKey:
    """An RSA key of 2048 bits with a public exponent of so many."""
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    p, q = numbers.p, numbers.q
    period = math.lcm(p - 1, q - 1)
    e = 65537
    while e.bit_length() != bits or math.gcd(e, period) != 1:
        e = secrets.randbits(bits) | 1
    d = pow(e, -1, period)
    public = rsa.RSAPublicNumbers(e, p * q)
    made = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), rsa.rsa_crt_iqmp(p, q), public)
    return made.private_key(unsafe_skip_rsa_key_validation=True)


class Giant:
    """Stands in for a key that would take minutes to make."""

    def __init__(self, bits: int) -> None:
        self._public = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1).public_key()

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public


KEYS: dict[str, tuple[Callable[[], object], str]] = {
    "P-256": (lambda: KEY, ""),
    "P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), ""),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, ""),
    "RSA 2048": (lambda: Giant(2048), ""),
    "RSA 8192": (lambda: Giant(8192), ""),
    "RSA 8193": (lambda: Giant(8193), "an RSA key with a modulus of 8193 bits, more than 8192"),
    "RSA 16384": (lambda: Giant(16384), "an RSA key with a modulus of 16384 bits, more than 8192"),
    "e of 32": (lambda: with_exponent(32), ""),
    "e of 33": (
        lambda: with_exponent(33),
        "an RSA key with a public exponent of 33 bits, more than 32",
    ),
    "e of 2047": (
        lambda: with_exponent(2047),
        "an RSA key with a public exponent of 2047 bits, more than 32",
    ),
    "DSA": (lambda: dsa.generate_private_key(2048), "a DSA key"),
}


@pytest.mark.parametrize(("make", "burden"), KEYS.values(), ids=KEYS)
def test_keys_whose_signatures_are_dear_are_refused(
    make: Callable[[], object], burden: str
) -> None:
    made = der(certificate("lamp", "some authority", make()))
    assert burden_of(made) == (burden and f"the client's certificate has {burden}")


def test_a_certificate_that_is_not_der_is_refused() -> None:
    made = der(certificate("lamp", "some authority", with_exponent(17)))
    for broken in (b"", made[:1], made[:200], b"\x30\x80" + made[4:], made[:5], b"\x30\x84\xff"):
        assert burden_of(broken) == "the client's certificate is not in DER"


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_the_log_says_why_a_key_is_refused(running: Running, log: list[str], version: int) -> None:
    key = with_exponent(2047)
    stranger = client([certificate("lamp", "some authority", key)], key, version)
    knock(running, stranger)
    running.eventually(lambda: any("public exponent of 2047 bits" in line for line in log))
    still_serves(running)
