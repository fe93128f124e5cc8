"""Journeys with a real server: each client, both versions of MQTT, keys in files and on a token;
and that other programs can use what they leave on disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import Identity, KeyOnToken, load
from fleetgate.device.provision import Provisioned, provision, renew
from fleetgate.mqtt.packets import Version
from tests.device.clients import ADAPTERS, Remains, both_versions, every_adapter
from tests.device.kill_site import NAME, Site, site
from tests.functions import softhsm
from tests.integration.server import environment


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("journey")) as made:
        yield made


def journey(shared: Site, serial: str, version: Version = 5, **options: Any) -> Provisioned:
    return provision(
        Endpoint("localhost", shared.server.mqtt_port, shared.server.ca_file, mqtt_version=version),
        Credentials(shared.claim.certificate, shared.claim.key),
        NAME,
        {"SerialNumber": serial},
        shared.directory / serial,
        **options,
    )


@every_adapter
@both_versions
def test_each_client_provisions_and_renews(adapter: str, version: Version, shared: Site) -> None:
    serial = f"{adapter}-{version}"
    remains = Remains()
    terms = Terms("cbor" if version == 4 else "json")
    connect = ADAPTERS[adapter]
    done = journey(shared, serial, version, terms=terms, connect=connect)
    assert done.thing_name == f"{NAME}-{serial}"
    assert done.device_configuration == {"greeting": "hello", "serial": serial}
    out = shared.directory / serial
    again = renew(out, NAME, {"SerialNumber": serial}, terms=terms, connect=connect)
    assert again.certificate_id != done.certificate_id
    assert again.identity == load(out)
    assert again.identity.mqtt_version == version
    assert remains.none(), remains


@pytest.mark.parametrize("key", ["P-384", "RSA-2048", "server"])
def test_each_kind_of_key(key: Any, shared: Site) -> None:
    subject = None if key == "server" else "CN=lamp,O=Example"  # the server makes no request
    done = journey(shared, key, key=key, subject=subject)
    assert done.identity.key_kind == ("RSA-2048" if key == "server" else key)
    shared.works(done.identity)


def tool(*command: object) -> str:
    done = subprocess.run(
        [str(each) for each in command], check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout


@pytest.fixture(scope="module")
def identity(shared: Site) -> Identity:
    """Of a device that was renewed."""
    journey(shared, "tools")
    return renew(shared.directory / "tools", NAME, {"SerialNumber": "tools"}).identity


@pytest.mark.needs("openssl")
def test_openssl_uses_the_files(identity: Identity) -> None:
    out = identity.directory
    said = tool("openssl", "verify", "-CAfile", out / "ca.pem", out / "certificate.pem")
    assert said.endswith(": OK\n")
    tool("openssl", "pkey", "-in", out / "private.key", "-noout", "-check")


@pytest.mark.needs("mosquitto_pub")
def test_mosquitto_uses_the_files(identity: Identity) -> None:
    out = identity.directory
    tool(
        *("mosquitto_pub", "-h", identity.host, "-p", identity.port, "-i", identity.client_id),
        *("--cafile", out / "ca.pem", "--cert", out / "certificate.pem"),
        *("--key", out / "private.key", "-t", "hello", "-m", "hello", "-q", "1"),
    )


def test_awsiotsdk_uses_the_files(identity: Identity) -> None:
    from awsiot import mqtt_connection_builder

    out = identity.directory
    connection = mqtt_connection_builder.mtls_from_path(
        endpoint=identity.host,
        port=identity.port,
        cert_filepath=str(out / "certificate.pem"),
        pri_key_filepath=str(out / "private.key"),
        ca_filepath=str(out / "ca.pem"),
        client_id=identity.client_id,
        clean_session=True,
    )
    connection.connect().result(10)
    connection.disconnect().result(10)


ON_A_TOKEN = """
import sys
from pathlib import Path
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.identity import KeyOnToken, load
from fleetgate.device.provision import provision, renew

port, ca, certificate, key, module, pin, out, template = sys.argv[1:]
first, second = (KeyOnToken(Path(module), "card", label, Path(pin)) for label in ("one", "two"))
parameters = {"SerialNumber": "token"}
done = provision(
    Endpoint("localhost", int(port), ca), Credentials(certificate, key), template, parameters, out,
    key=first, subject="CN=lamp",
)
assert done.identity.token == first
assert sorted(done.files) == ["ca.pem", "certificate.pem", "config.json"]
assert not list(Path(out).glob("**/private.key"))
kept = renew(out, template, parameters)
assert kept.identity.token == first
other = renew(out, template, parameters, key=second)
assert other.identity.token == second
in_a_file = renew(out, template, parameters, key="P-256")
assert in_a_file.identity.token is None
assert Path(out, "private.key").exists()
back = renew(out, template, parameters, key=first)
assert back.identity == load(out)
assert not Path(out, "private.key").is_symlink()
ids = {each.certificate_id for each in (done, kept, other, in_a_file, back)}
assert len(ids) == 5
print(done.thing_name)
"""


COMMAND = "import sys; from fleetgate.device.command_line import run; sys.exit(run(sys.argv[1:]))"

AFTER_AWSCRT = """
import sys
from pathlib import Path
from awscrt import io
from fleetgate.device import keys
from fleetgate.device.identity import KeyOnToken

library = io.Pkcs11Lib(file=sys.argv[1])
token = KeyOnToken(Path(sys.argv[1]), "card", "one", Path(sys.argv[2]))
assert "BEGIN CERTIFICATE REQUEST" in keys.csr_on_token(token, keys.subject_of("CN=lamp"))[0]
"""


@pytest.mark.needs("softhsm2-util")
def test_a_key_stays_on_its_token(shared: Site, tmp_path: Path) -> None:
    """In a process of its own: SoftHSM reads its configuration once."""
    from fleetgate.device import keys

    hsm = softhsm.make(tmp_path)
    hsm.add_token("card")
    for number, label in enumerate(("one", "two")):
        file = tmp_path / f"{label}.pem"
        file.write_text(keys.pem(keys.make("P-256")))
        hsm.add_key("card", file, label, f"0{number}")
    pin = tmp_path / "pin"
    pin.touch(0o600)
    pin.write_text(f"{softhsm.PIN}\n")
    arguments = [
        *(shared.server.mqtt_port, shared.server.ca_file),
        *(shared.claim.certificate, shared.claim.key),
        *(softhsm.MODULE, pin, tmp_path / "out", NAME),
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_A_TOKEN, *map(str, arguments)],
        env=environment(SOFTHSM2_CONF=str(hsm.configuration)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{NAME}-token\n"
    # a process that has not signed with the token before: AWS's runtime connects with it first
    other = [
        *("--pkcs11-module", str(softhsm.MODULE), "--token", "card", "--key-label", "two"),
        *("--pin-file", str(pin)),
    ]
    renewing = ["renew", str(tmp_path / "out"), "--template", NAME]
    renewing += ["--parameters", '{"SerialNumber": "token"}', "--json"]
    token = KeyOnToken(Path(softhsm.MODULE), "card", "one", pin)
    by_token = [
        *("provision", "--endpoint", f"localhost:{shared.server.mqtt_port}", "--json"),
        *("--ca", str(shared.server.ca_file), "--cert", str(shared.claim.certificate)),
        *("--claim-key-label", "claim", *other, "--template", NAME),
        *("--parameters", '{"SerialNumber": "by-token"}', "--out", str(tmp_path / "by-token")),
    ]
    hsm.add_key("card", pkcs8(shared.claim.key, tmp_path / "claim.pem"), "claim", "07")
    for command, label in (
        ([*renewing, "--keep-key"], "one"),
        ([*renewing, "--key-label", "two"], "two"),
        (renewing, "two"),
        (by_token, "two"),
    ):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", COMMAND, *command],
            env=environment(SOFTHSM2_CONF=str(hsm.configuration)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        out = tmp_path / ("by-token" if command is by_token else "out")
        assert load(out).token == replace(token, key=label)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AFTER_AWSCRT, softhsm.MODULE, str(pin)],
        env=environment(SOFTHSM2_CONF=str(hsm.configuration)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def pkcs8(key: Path, file: Path) -> Path:
    """A copy of a key, as tokens take them."""
    from fleetgate.device import keys

    file.write_text(keys.pem(keys.load(key.read_bytes())))
    return file
