"""OpenSSL's settings hold for a whole process, so every test here has one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fleetgate.gateway import openssl
from tests.gateway.running import make_credentials

HANDSHAKE = """
import sys
from pathlib import Path
from fleetgate.gateway import openssl
print("used", openssl.load(), flush=True)

from OpenSSL import SSL
from fleetgate.gateway.tls_context import server_context

directory = Path(sys.argv[1])
client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
client_context.use_certificate_file(str(directory / "x.crt"))
client_context.use_privatekey_file(str(directory / "x.key"))
context = server_context(directory / "x.crt", directory / "x.key")
server, client = SSL.Connection(context, None), SSL.Connection(client_context, None)
server.set_accept_state()
client.set_connect_state()

def step(side, other):
    try:
        side.do_handshake()
    except SSL.WantReadError:
        pass
    try:
        data = side.bio_read(65536)
    except SSL.WantReadError:
        return 0
    other.bio_write(data)
    return len(data)

step(client, server)
step(server, client)
step(client, server)
print("after the client's Finished", step(server, client))
print(client.get_protocol_version_name(), client.get_group_name().lower())
"""

NAGLE = """
import sys, socket, time
from pathlib import Path
from fleetgate.gateway import openssl
openssl.load()
from fleetgate.mqtt.packets import Connack, Connect, Puback, Publish
from tests.gateway.running import Device, Running, client_context

def milliseconds(function):
    begin = time.monotonic()
    function()
    return (time.monotonic() - begin) * 1000

with Running(Path(sys.argv[1])) as running:
    connects, publishes = [], []
    for _ in range(8):
        device = Device.__new__(Device)
        device.begin(running.address, client_context(running.device, running.server), delay=True)
        device.send(Connect("lamp"))
        connects.append(milliseconds(lambda: device.expect(Connack)))
        device.subscribe("a")
        device.publish("a")
        device.send(Puback(device.expect(Publish).packet_id))
        publishes.append(milliseconds(lambda: device.publish("b")))
        device.socket.close()
    print(f"{min(connects):.1f} {min(publishes):.1f}")
"""


def run(script: str, directory: Path, **environment: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
    )
    return ran.stdout.splitlines()


def test_no_session_tickets_are_sent_and_the_cheapest_group_is_used(tmp_path: Path) -> None:
    make_credentials(tmp_path, "x")
    assert run(HANDSHAKE, tmp_path) == [
        "used True",
        "after the client's Finished 0",
        "TLSv1.3 x25519",
    ]


def test_the_configuration_of_an_administrator_is_left_alone(tmp_path: Path) -> None:
    make_credentials(tmp_path, "x")
    own = tmp_path / "own.cnf"
    own.write_text(openssl.CONFIGURATION.read_text().replace("X25519:", ""))
    lines = run(HANDSHAKE, tmp_path, OPENSSL_CONF=str(own))
    assert lines == ["used False", "after the client's Finished 0", "TLSv1.3 secp256r1"]


def test_the_environment_is_as_before() -> None:
    """Neither the standard library's ssl nor child processes are to see our settings."""
    script = (
        "import os; from fleetgate.gateway import openssl; "
        "openssl.load(); print(os.environ.get('OPENSSL_CONF'))"
    )
    environment = {name: text for name, text in os.environ.items() if name != "OPENSSL_CONF"}
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    assert ran.stdout == "None\n"


def test_it_is_too_late_when_openssl_has_started() -> None:
    assert not openssl.load()


def test_a_client_with_nagle_does_not_wait_for_a_delayed_acknowledgement(tmp_path: Path) -> None:
    """CONNECT stays back until Finished is acknowledged, PUBLISH until PUBACK is: 40 ms each."""
    connect, publish = run(NAGLE, tmp_path)[-1].split()
    assert float(connect) < 35
    assert float(publish) < 35
