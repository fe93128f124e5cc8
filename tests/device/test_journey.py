"""Journeys with a real server: keys of all kinds, in files and on a token; and that other programs
can use what they leave on disk. (Each client, MQTT version and payload format:
tests/integration/test_device_matrix.py.)"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device import command_line
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import Rejected, StorageRefused
from fleetgate.device.identity import Identity, KeyOnToken, load
from fleetgate.device.provision import Provisioned, Retries, provision, renew
from tests.device.kill_site import NAME, Site, site
from tests.functions import softhsm
from tests.integration.fleet import arn
from tests.integration.server import environment


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("journey")) as made:
        yield made


def journey(shared: Site, serial: str, **options: Any) -> Provisioned:
    return provision(
        Endpoint("localhost", shared.server.mqtt_port, shared.server.ca_file),
        Credentials(shared.claim.certificate, shared.claim.key),
        NAME,
        options.pop("parameters", {"SerialNumber": serial}),
        shared.directory / serial,
        **options,
    )


@pytest.mark.parametrize("key", ["P-384", "RSA-2048", "server"])
def test_each_kind_of_key(key: Any, shared: Site) -> None:
    subject = None if key == "server" else "CN=lamp,O=Example"  # the server makes no request
    done = journey(shared, key, key=key, subject=subject)
    assert done.identity.key_kind == ("RSA-2048" if key == "server" else key)
    shared.works(done.identity)


def test_what_was_rejected_and_is_active_all_the_same_is_not_given_up(shared: Site) -> None:
    """The template is disabled, and somebody in charge helps the device by hand."""
    iot, name = shared.server.iot, "by-hand"
    options: dict[str, Any] = {"retries": Retries(attempts=1), "own_client_id": f"{NAME}-{name}"}
    iot.update_provisioning_template(templateName=NAME, enabled=False)
    try:
        with pytest.raises(Rejected):
            journey(shared, name, **options)
    finally:
        iot.update_provisioning_template(templateName=NAME, enabled=True)
    out = shared.directory / name
    found = json.loads((out / "journal.json").read_bytes())
    certificate = arn(f"cert/{found['certificateId']}")
    iot.create_thing(thingName=f"{NAME}-{name}")
    iot.attach_thing_principal(thingName=f"{NAME}-{name}", principal=certificate)
    iot.attach_policy(policyName=NAME, target=certificate)
    iot.update_certificate(certificateId=found["certificateId"], newStatus="ACTIVE")
    with pytest.raises(StorageRefused, match=r"was registered and was not finished .* other param"):
        journey(shared, name, parameters={"SerialNumber": "another"}, **options)
    done = journey(shared, name, **options)
    assert done.certificate_id == found["certificateId"]
    shared.works(done.identity)


def test_a_renewal_does_not_make_it_another_thing_unasked(
    shared: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = journey(shared, "thing").identity
    out = shared.directory / "thing"
    command = ["renew", str(out), "--parameters", '{"SerialNumber": "other"}']
    for _ in range(2):
        assert command_line.run(command) == 1
        said = capsys.readouterr().err
        assert f"is of thing `{NAME}-thing`, and stays so" in said
        assert f"(thing `{NAME}-other`, certificate " in said
        assert load(out) == before
    shared.works(before)
    assert command_line.run(["status", str(out)]) == 0
    assert f"not finished  renew, registered (thing `{NAME}-other`" in capsys.readouterr().out
    assert command_line.run([*command, "--new-thing"]) == 0
    after = load(out)
    assert after.thing_name == after.client_id == f"{NAME}-other"
    shared.works(after)


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
        *(
            "--key",
            out / "private.key",
            "-t",
            f"devices/{identity.client_id}/hello",
            "-m",
            "hello",
            "-q",
            "1",
        ),
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
from fleetgate.device.errors import StorageRefused
from fleetgate.device.identity import KeyOnToken, load
from fleetgate.device.provision import provision, renew

port, ca, certificate, key, module, pin, out, template = sys.argv[1:]
first, second = (KeyOnToken(Path(module), "card", label, Path(pin)) for label in ("one", "two"))
parameters = {"SerialNumber": "token"}
where = Endpoint("localhost", int(port), ca), Credentials(certificate, key), template, parameters
wrong = Path(pin).with_name("wrong")
for other, why in (
    (KeyOnToken(Path(module), "card", "none", Path(pin)), "NoSuchKey"),
    (KeyOnToken(Path(module), "none", "one", Path(pin)), "NoSuchToken"),
    (KeyOnToken(Path(module), "card", "one", wrong), "PinIncorrect"),
):
    try:
        provision(*where, out, key=other, connect=lambda *_: sys.exit("it has connected"))
    except StorageRefused as error:
        assert (error.step, why in error.message) == ("prepare", True), error
    else:
        sys.exit(f"no {why}")
    assert not list(Path(out).iterdir())
done = provision(*where, out, key=first, subject="CN=lamp")
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
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("000000\n")
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
