"""`fleetgate simulate` on a running server: profiles, failures by fault scripts, exit codes."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device import command_line, simulate_command
from tests.device.clients import Remains
from tests.integration.fault_scripts import ask
from tests.integration.fleet import Fleet, create_fleet
from tests.integration.server import EXECUTABLES, Server, environment


@dataclass(frozen=True)
class Site:
    server: Server
    fleet: Fleet

    def arguments(self, *more: str) -> list[str]:
        claim = self.fleet.claim
        return [
            *(f"--endpoint=localhost:{self.server.mqtt_port}", f"--ca={self.server.ca_file}"),
            *(f"--cert={claim.certificate}", f"--key={claim.key}"),
            *(f"--template={self.fleet.template}", *more),
        ]

    def simulate(self, *more: str) -> tuple[int, str]:
        """In this process; the exit code and what is printed. Nothing is left open."""
        parser = argparse.ArgumentParser()
        simulate_command.add_arguments(parser)
        args = parser.parse_args(self.arguments(*more))
        printed, remains = io.StringIO(), Remains()
        code = simulate_command.run(args, environ={}, stdout=printed, stderr=io.StringIO())
        assert remains.none(), remains
        return code, printed.getvalue()

    def result(self, *more: str) -> tuple[int, dict[str, Any]]:
        code, printed = self.simulate("--json", *more)
        return code, json.loads(printed)

    @contextmanager
    def faults(self, script: str) -> Iterator[None]:
        answer = ask(self.server, "PUT", "/simulate", script)
        assert answer.status == 200, answer.body
        yield
        ask(self.server, "DELETE", "/simulate")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("simulate")
    with Server(directory / "data", "--allow-faults") as server:
        yield Site(server, create_fleet(server, directory, "sim"))


def failures(told: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {
        (each["step"], each["code"]): each["count"]
        for phase in told["phases"]
        for each in phase["failures"]
    }


def test_a_burst_registers_every_device(site: Site) -> None:
    code, told = site.result("--devices=12", "--seed=41")
    assert (code, told["attempts"], told["failed"]) == (0, 12, 0)
    (phase,) = told["phases"]
    steps = phase["steps"]
    assert list(steps) == ["connect", "create", "register", "reconnect", "publish", "total"]
    assert {each["count"] for each in steps.values()} == {12}
    assert steps["total"]["max"] <= phase["seconds"]
    for number in (1, 12):
        thing = site.server.iot.describe_thing(thingName=site.fleet.thing(f"sim-41-{number}"))
        assert thing["attributes"] == {"serial": f"sim-41-{number}"}


@pytest.mark.parametrize(
    "options", [["--mqtt-version=3.1.1", "--format=cbor"], ["--keys", "--no-publish"]]
)
def test_other_ways_to_register(site: Site, options: list[str]) -> None:
    code, told = site.result("--devices=2", *options)
    assert (code, told["failed"]) == (0, 0)
    assert ("publish" in told["phases"][0]["steps"]) == ("--no-publish" not in options)


def test_a_steady_rate_is_kept(site: Site) -> None:
    code, told = site.result("--devices=6", "--rate=20", "--parameters", PARAMETERS)
    assert (code, told["profile"]) == (0, "steady")
    assert 0.25 <= told["phases"][0]["seconds"] < 3


PARAMETERS = '{"SerialNumber": "s{n}-{seed}"}'


def test_a_storm_is_everybody_at_once(site: Site) -> None:
    code, printed = site.simulate("--devices=5", "--profile=storm", "--storms=2", "--spread=0.05")
    assert code == 0
    heads = [line.partition(":")[0] for line in printed.splitlines() if " devices, " in line]
    assert heads == ["provision", "storm 1", "storm 2"]
    assert printed.count("  publish            5") == 3


THROTTLE = """
client = "claim-sim-42-*"
[[fault]]
on = "RegisterThing"
do = "throttle"
client = "claim-sim-42-1?"
[[fault]]
on = "CreateCertificateFromCsr"
do = "drop"
client = "claim-sim-42-2"
[[fault]]
on = "subscribe"
do = "refuse"
client = "claim-sim-42-3"
[[fault]]
on = "connect"
do = "refuse"
client = "claim-sim-42-4"
[[fault]]
on = "RegisterThing"
do = "disconnect"
moment = "request"
client = "claim-sim-42-5"
"""


def test_failures_are_counted_by_step_and_code(site: Site) -> None:
    options = ("--devices=12", "--seed=42", "--timeout=0.7")
    with site.faults(THROTTLE):
        code, told = site.result(*options)
        assert code == 1
        assert failures(told) == {
            ("register", "429 TooManyRequests"): 3,
            ("create", "NoAnswer"): 1,
            ("create", "NotAuthorized 0x87 on subscribe"): 1,
            ("connect", "ConnectionFailed"): 1,
            ("register", "ConnectionLost"): 1,
        }
        code, printed = site.simulate(*options, "--allow-failures=7")
        assert code == 0
        assert "12 devices, 5 succeeded, 7 failed" in printed
        assert site.simulate(*options, "--allow-failures=50%")[0] == 1
    row = next(line for line in printed.splitlines() if "TooManyRequests" in line)
    assert sorted(row.split("TooManyRequests")[1].replace(",", " ").split()) == [
        f"sim-42-{number}" for number in (10, 11, 12)
    ]
    assert "the server rejected `$aws/provisioning-templates/" in printed


def test_what_a_device_may_not_publish_is_a_failure_of_that_step(site: Site) -> None:
    for version, code in (("5", "NotAuthorized 0x87"), ("3.1.1", "ConnectionLost")):
        options = ("--devices=1", "--publish=closed/{thing}", f"--mqtt-version={version}")
        assert failures(site.result(*options)[1]) == {("publish", code): 1}


def test_as_a_command_it_says_by_its_exit_code_how_it_went(site: Site, tmp_path: Path) -> None:
    command = [str(EXECUTABLES / "fleetgate"), "simulate"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    for more, code, said in (
        (
            ["--devices=0"],
            2,
            "fleetgate: prepare: --devices, --concurrency and --storms are at least 1",
        ),
        (["--devices=1", "--publish=a/#"], 2, "the topic `a/#` must not contain wildcards"),
        (["--devices=1", f"--endpoint=localhost:{free}"], 1, "Connection refused"),
    ):
        done = subprocess.run(
            [*command, *site.arguments(*more)],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_for_programs_a_run_that_cannot_be_is_json(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    for more, code, step in (
        (["--devices=1", f"--endpoint=localhost:{free}"], 1, "connect"),
        (["--devices=0"], 2, "prepare"),
        (["--devices=1", "--cert=/none"], 2, "prepare"),
        (["--devices=1", f"--ca={site.fleet.claim.key}"], 1, "prepare"),
    ):
        assert command_line.run(["simulate", *site.arguments(*more), "--json"]) == code
        said = capsys.readouterr()
        error = json.loads(said.out)["error"]
        assert error["step"] == step
        assert said.err == f"fleetgate: {error['message']}\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_prints_what_there_is(site: Site, number: int, code: int) -> None:
    command = [str(EXECUTABLES / "fleetgate"), "simulate"]
    arguments = site.arguments("--devices=9", "--rate=2", f"--seed={code}", "--json")
    with subprocess.Popen(
        [*command, *arguments], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        _until_registered(site, f"sim-{code}-2")
        os.kill(process.pid, number)
        printed, _ = process.communicate(timeout=10)
    assert process.returncode == code
    told = json.loads(printed)
    assert told["interrupted"]
    (phase,) = told["phases"]
    assert 1 <= phase["succeeded"] < 9
    assert phase["unfinished"] == 9 - phase["succeeded"]


def _until_registered(site: Site, serial: str) -> None:
    end = time.monotonic() + 10
    iot = site.server.iot
    while time.monotonic() < end:
        try:
            iot.describe_thing(thingName=site.fleet.thing(serial))
        except iot.exceptions.ResourceNotFoundException:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{serial} was not registered")
