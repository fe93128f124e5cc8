"""The server as a process: start, stop, reset, and what it refuses to start on."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError

from tests.integration.fleet import KEYS, create_fleet
from tests.integration.paho_device import PahoDevice, Refused, onboard
from tests.integration.refusal import everything
from tests.integration.server import Server, environment, group_exists, http

DEVICES = 3
WAITING = 5
"""Requests of each device: together more than a server is likely to have keys in stock."""


def refused_to_start(*options: str, cwd: Path) -> str:
    """Run `fleetgate serve`, which has to end by itself with an error; what it said."""
    ended = subprocess.run(
        ["fleetgate", "serve", *options],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode not in {0, -signal.SIGKILL}
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said, said
    return said


def free_ports(data: Path) -> list[str]:
    return ["--data", str(data), "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]


def test_it_stops_cleanly_and_comes_back_as_it_was(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    with server:
        print(f"ready after {server.ready_after:.2f} s, new data")  # noqa: T201
        fleet = create_fleet(server, tmp_path, "again")
        own = onboard(server, fleet, "1", tmp_path)
        authority = server.ca_file.read_bytes()
        assert server.terminate() == 0
    with server:
        print(f"ready after {server.ready_after:.2f} s, old data")  # noqa: T201
        assert server.ca_file.read_bytes() == authority
        names = [entry["thingName"] for entry in everything(server.iot, "list_things", "things")]
        assert names == [fleet.thing("1")]
        with PahoDevice(server, own, fleet.thing("1")) as device:
            assert device.publish(f"devices/{fleet.thing('1')}/data", b"again") == 0
        onboard(server, fleet, "2", tmp_path)
        assert server.terminate() == 0
    assert "Traceback" not in server.output()


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
    ids=["SIGTERM", "SIGTERM-to-all", "Ctrl-C"],
)
def test_answers_in_flight_leave_before_it_stops(
    tmp_path: Path, number: signal.Signals, group: bool
) -> None:
    """Requests that were read when the signal came are answered, over MQTT and HTTP."""
    server = Server(tmp_path / "data")
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []

    def ask(client: Any) -> None:
        try:
            answers.append(client.create_keys_and_certificate())
        except BotoCoreError as error:
            failures.append(error)

    with server:
        fleet = create_fleet(server, tmp_path, "flight")
        clients = [server.client() for _ in range(4)]
        for client in clients:
            client.describe_endpoint()  # connect now
        threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
        with contextlib.ExitStack() as stack:
            devices = [
                stack.enter_context(PahoDevice(server, fleet.claim, f"flight{count}", version=5))
                for count in range(DEVICES)
            ]
            for device in devices:
                device.listen(KEYS)
                for _ in range(WAITING):
                    device.send(f"{KEYS}/json", b"{}")
            for thread in threads:
                thread.start()
            made = [device.message() for device in devices]
            time.sleep(0.1)  # by now all requests were read, and most wait for a key
            server.signal(number, group=group)
            for device in devices:
                made += [device.message() for _ in range(WAITING - 1)]
                assert device.disconnected.wait(10)
                assert device.disconnect_code == 0x8B  # server shutting down
            assert all(message.topic.endswith("/accepted") for message in made)
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
        assert server.wait() == 0
        assert not failures
        assert len(answers) == 4
    assert not re.findall(r"^.*(?:Traceback|ERROR|WARNING).*$", server.output(), re.MULTILINE)


@pytest.mark.parametrize("end", [Server.terminate, Server.kill], ids=["SIGTERM", "SIGKILL"])
def test_it_leaves_no_helper_process_behind(tmp_path: Path, end: Callable[[Server], int]) -> None:
    server = Server(tmp_path / "data", env={"FLEETGATE_RSA_KEY_STOCK": "4"}).start()
    pid = server.pid
    end(server)
    gone_by = time.monotonic() + 10
    while group_exists(pid):
        assert time.monotonic() < gone_by, "helpers of the server are still there"
        time.sleep(0.05)


def test_connected_devices_do_not_hold_it_up(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        fleet = create_fleet(server, tmp_path, "held")
        quiet = socket.create_connection(("127.0.0.1", server.mqtt_port), 5)
        with quiet, PahoDevice(server, fleet.claim, "held") as device:
            begun = time.monotonic()
            server.signal(signal.SIGTERM)
            assert server.wait(10) == 0
            assert time.monotonic() - begun < 8
            assert device.disconnected.wait(5)


def test_reset_empties_the_registry(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--allow-reset") as server:
        fleet = create_fleet(server, tmp_path, "reset")
        own = onboard(server, fleet, "1", tmp_path)
        answer = http(f"{server.http_url}/_fleetgate/reset", method="POST")
        assert answer.status in {200, 204}
        for operation, key in (
            ("list_things", "things"),
            ("list_certificates", "certificates"),
            ("list_policies", "policies"),
            ("list_provisioning_templates", "templates"),
        ):
            assert everything(server.iot, operation, key) == []
        for identity in (own, fleet.claim):
            with pytest.raises(Refused), PahoDevice(server, identity, "reset"):
                pass
        again = create_fleet(server, tmp_path, "reset")
        onboard(server, again, "1", tmp_path)


def test_a_port_in_use_is_named(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in ("--http", "--mqtt"):
            options = free_ports(tmp_path / f"data{option}")
            options[options.index(option) + 1] = f"127.0.0.1:{port}"
            assert str(port) in refused_to_start(*options, cwd=tmp_path)


def test_a_second_server_on_the_same_data_is_refused(server: Server, tmp_path: Path) -> None:
    said = refused_to_start(*free_ports(server.data), cwd=tmp_path)
    assert str(server.data) in said.replace("\n", "")
    assert http(f"{server.http_url}/_fleetgate/health").status == 200
    assert server.iot.describe_endpoint()["endpointAddress"]


def test_data_of_another_account_or_region_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data, "--account", "111111111111", "--region", "eu-west-1") as server:
        client = server.client(region="eu-west-1")
        made = client.create_thing(thingName="here")
        client.close()
        assert made["thingArn"] == "arn:aws:iot:eu-west-1:111111111111:thing/here"
    said = refused_to_start(*free_ports(data), cwd=tmp_path)
    assert "111111111111" in said
    said = refused_to_start(*free_ports(data), "--account", "111111111111", cwd=tmp_path)
    assert "eu-west-1" in said
    with Server(data, "--account", "111111111111", "--region", "eu-west-1"):
        pass


@pytest.mark.parametrize(
    ("option", "value"),
    [("--account", "12"), ("--http", "127.0.0.1:99999"), ("--mqtt", ":x"), ("--region", "")],
)
def test_a_senseless_setting_is_refused(tmp_path: Path, option: str, value: str) -> None:
    options = free_ports(tmp_path / "data")
    if option in options:
        options[options.index(option) + 1] = value
    else:
        options += [option, value]
    refused_to_start(*options, cwd=tmp_path)


def test_settings_may_come_from_the_environment_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "fleetgate.toml").write_text('account = "222222222222"\nregion = "eu-north-1"\n')
    key = {"FLEETGATE_ACCESS_KEY_ID": "AKIAOWNOWNOWNOWNOWN0"}
    secret = {"FLEETGATE_SECRET_ACCESS_KEY": "own-secret-own-secret-own-secret"}
    extra = {"FLEETGATE_ACCOUNT": "333333333333", **key, **secret}
    with Server(tmp_path / "data", env=extra) as server:
        text = (server.data / "credentials").read_text()
        assert all(value in text for value in (*key.values(), *secret.values()))
        client = server.client(region="eu-north-1")
        made = client.create_thing(thingName="here")
        client.close()
    assert made["thingArn"] == "arn:aws:iot:eu-north-1:333333333333:thing/here"
