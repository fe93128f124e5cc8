"""The aws command line and the mosquitto clients, as the quick start uses them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fleet import Fleet, Identity
from tests.integration.paho_device import PahoDevice, onboard
from tests.integration.server import EXECUTABLES, Server, environment, run


def aws(server: Server, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = 'PATH=$1:$PATH && eval "$(fleetgate env --data "$2")" && shift 2 && aws "$@"'
    first = (str(EXECUTABLES), str(server.data))  # the executable itself (see aws_command)
    return run("bash", "-c", script, "aws", *first, *arguments, cwd=cwd, env={"AWS_PAGER": ""})


def test_the_aws_command_line_works_unmodified(server: Server, name: str, tmp_path: Path) -> None:
    server.iot.create_thing(thingName=name)
    listed = aws(server, tmp_path, "iot", "list-things", "--output", "json")
    assert listed.returncode == 0, listed.stderr
    assert name in {entry["thingName"] for entry in json.loads(listed.stdout)["things"]}
    unknown = aws(server, tmp_path, "iot", "describe-thing", "--thing-name", "nowhere")
    assert unknown.returncode != 0
    assert "ResourceNotFoundException" in unknown.stderr


def mosquitto(kind: str, server: Server, own: Identity, client_id: str) -> list[str]:
    return [
        f"mosquitto_{kind}",
        *("-h", "localhost", "-p", str(server.mqtt_port)),
        *("--cafile", str(server.ca_file)),
        *("--cert", str(own.certificate), "--key", str(own.key)),
        *("-i", client_id, "-q", "1"),
    ]


@pytest.fixture
def listening(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path
) -> Iterator[tuple[Identity, subprocess.Popen[str]]]:
    """A device, and `mosquitto_sub` waiting for one message to it."""
    own = onboard(server, shared_fleet, name, tmp_path)
    thing = shared_fleet.thing(name)
    command = mosquitto("sub", server, own, thing)
    process = subprocess.Popen(
        ["stdbuf", "-oL", *command, "-d", "-t", f"devices/{thing}/#", "-C", "1", "-W", "20"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "received SUBACK" in line or line.startswith("Subscribed"):
                break
        yield own, process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.needs("mosquitto_pub", "mosquitto_sub")
@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_mosquitto_clients_talk_with_a_devices_certificate(
    server: Server,
    shared_fleet: Fleet,
    operator: Identity,
    listening: tuple[Identity, subprocess.Popen[str]],
    name: str,
    tmp_path: Path,
    *,
    version: str,
) -> None:
    _own, subscriber = listening
    topic = f"devices/{shared_fleet.thing(name)}/in"
    command = mosquitto("pub", server, operator, f"{name}-sender")
    sent = run(*command, "-V", version, "-t", topic, "-m", "hello from outside", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    output, _ = subscriber.communicate(timeout=20)
    assert "hello from outside" in output
    assert subscriber.returncode == 0


@pytest.mark.needs("mosquitto_pub")
def test_a_device_made_on_the_command_line_publishes_from_it(
    server: Server,
    shared_fleet: Fleet,
    observer: PahoDevice,
    name: str,
    tmp_path: Path,
) -> None:
    """`fleetgate provision ... --out`, then `mosquitto_pub` with what it wrote."""
    out, thing = tmp_path / "out", shared_fleet.thing(name)
    made = run(
        *("fleetgate", "provision", "--endpoint", f"localhost:{server.mqtt_port}"),
        *("--ca", str(server.ca_file), "--template", shared_fleet.template),
        *("--cert", str(shared_fleet.claim.certificate), "--key", str(shared_fleet.claim.key)),
        *("--parameters", json.dumps({"SerialNumber": name}), "--out", str(out)),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    key, certificate = out / "private.key", out / "certificate.pem"
    command = mosquitto("pub", server, Identity(certificate, key, ""), thing)
    sent = run(*command, "-t", f"devices/{thing}/data", "-m", "hello", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    message = observer.message()
    assert (message.topic, message.payload) == (f"devices/{thing}/data", b"hello")

    stray = run(*command, "-V", "mqttv5", "-t", "devices/another", "-m", "stray", cwd=tmp_path)
    assert "authori" in (stray.stdout + stray.stderr).lower()
    observer.publish("devices/fence", b"")
    assert observer.message().topic == "devices/fence"


@pytest.mark.needs("mosquitto_pub")
def test_what_the_demo_says_to_try_next_works(tmp_path: Path) -> None:
    """The quick start: the demo, a server on what it made, and the commands as it prints them."""
    shown = run("fleetgate", "demo", "--devices", "2", cwd=tmp_path, env={"TMPDIR": str(tmp_path)})
    assert shown.returncode == 0, shown.stdout + shown.stderr
    lines = shown.stdout.splitlines()
    [serve] = [line.strip() for line in lines if " serve " in line]
    start = next(number for number, line in enumerate(lines) if "eval " in line)
    script = "\n".join(line for line in lines[start:] if line.startswith("  "))
    with Server(Path(serve.rpartition(" ")[2])) as server:
        tried = run("bash", "-e", "-c", script, cwd=tmp_path, env={"AWS_PAGER": ""})
        assert tried.returncode == 0, script + tried.stdout + tried.stderr
        assert tried.stdout.count('"thingName"') == 2
        assert "sending PUBLISH" in tried.stdout
        assert "received PUBACK" in tried.stdout
        assert len(server.iot.list_certificates()["certificates"]) == 3
