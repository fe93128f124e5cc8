"""What the options of `fleetgate simulate` mean, without a server."""

from __future__ import annotations

import argparse
import io
import re
import resource
import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleetgate.device import command_line, simulate_command
from fleetgate.device.errors import BadRequest, StorageRefused
from fleetgate.device.simulate_command import Progress, allowance, raise_file_limit
from fleetgate.device.simulate_plan import Plan, fill, prepare
from fleetgate.device.simulate_report import Phase
from tests.device.conftest import Files

ENV = {"FLEETGATE_MQTT_HOST": "::1", "FLEETGATE_MQTT_PORT": "9", "FLEETGATE_MQTT_CA": "/ca"}


def plan(files: Files, *arguments: str, env: Mapping[str, str] = ENV) -> Plan:
    claim = ["--cert", str(files.certificate), "--key", str(files.key), "--template", "lamps"]
    parser = argparse.ArgumentParser()
    simulate_command.add_arguments(parser)
    with ExitStack() as cleanup:
        return simulate_command.plan_of(parser.parse_args([*claim, *arguments]), env, cleanup)


def test_where_the_devices_go(claim: Files) -> None:
    endpoint = plan(claim, "--devices", "1").endpoint
    assert (endpoint.host, endpoint.port, endpoint.ca) == ("::1", 9, Path("/ca"))
    assert endpoint.mqtt_version == 5
    other = plan(claim, "--devices=1", "--endpoint=h:1", "--mqtt-version=3.1.1").endpoint
    assert (other.host, other.port, other.ca, other.mqtt_version) == ("h", 1, None, 4)


def test_an_option_wins_over_the_environment(claim: Files) -> None:
    ca = plan(claim, "--devices=1", "--ca=/own").endpoint
    assert (ca.host, ca.port, ca.ca) == ("::1", 9, Path("/own"))
    for env in ({}, {"FLEETGATE_MQTT_HOST": ""}, {"FLEETGATE_MQTT_PORT": "9"}):
        with pytest.raises(BadRequest, match="a server is needed"):
            plan(claim, "--devices=1", env=env)
    alone = plan(claim, "--devices=1", env={"FLEETGATE_MQTT_HOST": "h"}).endpoint
    assert (alone.host, alone.port, alone.ca) == ("h", 8883, None)
    for env, said in (
        ({**ENV, "FLEETGATE_MQTT_HOST": "mqtts://h"}, "FLEETGATE_MQTT_HOST: 'mqtts://h' is no"),
        ({**ENV, "FLEETGATE_MQTT_PORT": "mqtt"}, "FLEETGATE_MQTT_PORT is `mqtt`: the port has"),
    ):
        with pytest.raises(BadRequest, match=said):
            plan(claim, "--devices=1", env=env)


def test_how_messages_are_carried(claim: Files) -> None:
    usual = plan(claim, "--devices=1")
    assert (usual.terms.qos, usual.terms.max_answer_size) == (1, 128 * 1024)
    assert (usual.endpoint.keep_alive, usual.endpoint.max_packet_size) == (60, 146 * 1024)
    options = ["--qos=0", "--max-answer-size=200000", "--keep-alive=30", "--timeout=3"]
    other = plan(claim, "--devices=1", *options)
    assert (other.terms.qos, other.terms.max_answer_size) == (0, 200000)
    assert (other.terms.timeout, other.terms.mqtt_timeout) == (3, 3)
    assert other.endpoint.keep_alive == 30
    assert other.endpoint.max_packet_size == 200000 + 18 * 1024
    assert plan(claim, "--devices=1", "--publish=$aws/rules/r/a").publish == "$aws/rules/r/a"


def test_the_profile_follows_from_the_rate(claim: Files) -> None:
    assert plan(claim, "--devices", "9").profile == "burst"
    steady = plan(claim, "--devices", "9", "--rate", "2.5")
    assert (steady.profile, steady.rate) == ("steady", 2.5)
    storm = plan(claim, "--devices=9", "--rate=2", "--profile=storm", "--concurrency=2")
    assert (storm.profile, storm.at_once, storm.connections) == ("storm", 2, 9)
    assert plan(claim, "--devices=9", "--concurrency=2").connections == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--devices=0"], "at least 1"),
        (["--devices=1", "--concurrency=0"], "at least 1"),
        (["--devices=1", "--profile=steady"], "needs a rate"),
        (["--devices=1", "--profile=burst", "--rate=1"], "it has no rate"),
        (["--devices=1", "--rate=1", "--spread=1"], "at a steady rate devices begin one after"),
        (["--devices=1", "--rate=0"], "a rate is more than 0 devices per second"),
        (["--devices=1", "--rate=nan"], "a rate is more than 0 devices per second"),
        (["--devices=1", "--storms=2"], "--storms is for --profile storm"),
        (["--devices=1", "--timeout=inf"], "the time-out for connecting is"),
        (["--devices=1", "--spread=-1"], "a spread is 0 seconds or more"),
        (["--devices=1", "--timeout=0"], "the time-out for connecting is"),
        (["--devices=2", "--serial=x"], "all the same without `{n}`"),
        (["--devices=1", "--serial={serial}"], "`{serial}` is unknown here; {n}, {seed} are known"),
        (["--devices=1", "--claim-client-id={thing}"], "`{thing}` is unknown here"),
        (["--devices=1", "--publish={topic}"], "`{topic}` is unknown here"),
        (["--devices=1", "--publish=a/#"], "--publish: the topic `a/#` must not contain wildcards"),
        (["--devices=1", "--publish=+/{n}"], "`+/1` must not contain wildcards"),
        (["--devices=1", "--publish="], "--publish is '', no text that can be printed"),
        (["--devices=1", "--publish=a\x1b"], "--publish is 'a\\x1b', no text that can be printed"),
        (["--devices=1", "--publish=a\udcff"], "no text that can be printed"),
        (["--devices=1", "--publish=1/2/3/4/5/6/7/8/9"], "has 8 slashes, more than 7"),
        (["--devices=9", f"--publish={'é' * 128}{{n}}"], "is 257 bytes long, more than 256"),
        (
            ["--devices=1", "--client-id=a#", "--publish=x/{client_id}"],
            "must not contain wildcards",
        ),
        (["--devices=1", "--serial="], "--serial is '', no text that can be printed"),
        (["--devices=1", "--client-id="], "--client-id is ''"),
        (["--devices=1", "--claim-client-id=\n"], "--claim-client-id is '\\n'"),
        (["--devices=1", '--parameters={"a":"\\ud800"}'], "cannot be written as UTF-8"),
        (["--devices=1", "--max-answer-size=-1"], "--max-answer-size is -1 bytes, less than 16384"),
        (["--devices=1", "--keep-alive=0"], "keep-alive is 1 to 65535 seconds, not 0"),
        (["--devices=1", "--parameters=[]"], "--parameters has to be a JSON object"),
        (["--devices=1", "--parameters=@/no/file"], "--parameters: cannot read `/no/file`"),
        (["--devices=1", "--endpoint=https://h"], "without a scheme"),
        (["--devices=1", "--endpoint=h:0"], "the port has to be from 1 to 65535"),
        (["--devices=1", "--template=a b"], "`a b` cannot be the name"),
        (["--devices=1", "--claim=F"], "--cert and --key are for other claims"),
    ],
)
def test_options_that_cannot_be(claim: Files, arguments: list[str], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        plan(claim, *arguments)
    assert said in caught.value.message


def test_what_is_missing_is_named(claim: Files) -> None:
    parser = argparse.ArgumentParser()
    simulate_command.add_arguments(parser)
    pair = ["--cert", str(claim.certificate), "--key", str(claim.key)]
    for arguments, said in (
        (["--devices=1"], "a claim is needed"),
        (["--devices=1", *pair], "a server is needed"),
        (["--devices=1", *pair, "--endpoint=h"], "a template is needed"),
    ):
        with pytest.raises(BadRequest, match=said), ExitStack() as cleanup:
            simulate_command.plan_of(parser.parse_args(arguments), {}, cleanup)


def test_a_claims_key_that_others_may_read_is_refused(claim: Files, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(claim.key.read_bytes())
    key.chmod(0o644)
    with pytest.raises(StorageRefused, match="others may read the private key"):
        plan(claim, "--devices", "1", "--key", str(key))


def test_authorities_are_those_of_their_server(claim: Files) -> None:
    for named, ca in (("[::1]:9", "/ca"), ("[::1]", None), ("h:9", None)):
        endpoint = plan(claim, "--devices=1", f"--endpoint={named}").endpoint
        assert endpoint.ca == (ca and Path(ca))
    broken = {**ENV, "FLEETGATE_MQTT_PORT": "x"}
    assert plan(claim, "--devices=1", "--endpoint=h", env=broken).endpoint.host == "h"


@pytest.mark.parametrize("option", ["--cert", "--key", "--ca", "--claim"])
def test_a_file_that_cannot_be_read_is_an_option_that_cannot_be(
    option: str, claim: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [] if option == "--claim" else [f"--cert={claim.certificate}", f"--key={claim.key}"]
    arguments = ["--devices=1", "--endpoint=h", "--template=t", *pair, f"{option}=/none"]
    assert command_line.run(["simulate", *arguments]) == 2
    said = f"fleetgate: prepare: {option}: cannot read `/none`: No such file or directory\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("text", "attempts", "allowed"),
    [
        ("0", 10, 0),
        ("3", 10, 3),
        ("10%", 10, 1),
        ("0.5%", 1000, 5),
        ("0.5%", 199, 0),
        ("100%", 7, 7),
    ],
)
def test_so_many_may_fail(text: str, attempts: int, allowed: int) -> None:
    assert allowance(text)(attempts) == allowed


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "%", "1 %", "x", "²"])
def test_what_is_no_number_of_failures(text: str) -> None:
    with pytest.raises(BadRequest, match="a number such as 3, or a share"):
        allowance(text)


def test_names_in_texts() -> None:
    assert fill("a{n}b{n}{x}{}{{n}}", {"n": "1"}) == "a1b1{x}{}{1}"


def test_devices_are_the_same_for_the_same_seed_but_for_their_keys(claim: Files) -> None:
    parameters = '--parameters={"SerialNumber": "{serial}", "Lot": "{n}/{lot}"}'
    made = plan(claim, "--devices=2", "--seed=7", parameters)
    counts: list[int] = []
    first, second = prepare(made, counts.append)
    assert counts == [1, 2]
    assert second.serial == "sim-7-2"
    assert second.parameters == {"SerialNumber": "sim-7-2", "Lot": "2/{lot}"}
    assert first.key != second.key
    assert first.csr is not None
    (keyless,) = prepare(plan(claim, "--devices=1", "--keys"), counts.append)
    assert (keyless.key, keyless.csr) == (None, None)


def test_more_connections_than_files_are_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_file_limit(soft)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    if hard != resource.RLIM_INFINITY:
        with pytest.raises(BadRequest, match=f"and {hard} are allowed"):
            raise_file_limit(hard + 1)


SOME = "steady: 2 of 9 succeeded, 1 failed, 3 under way, 4 a second, 0 s"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_line_that_is_written_over_or_a_line_now_and_then() -> None:
    for stream, expected in (
        (Terminal(), f"\r\x1b[Kmaking keys: 1 of 9\r\x1b[K{SOME}\r\x1b[K"),
        (io.StringIO(), f"{SOME}\n"),
    ):
        times = iter([0.0, 0.0, 0.0, 0.1, 5.0, 5.0, 5.1, 5.1])
        progress = Progress(stream, lambda times=times: next(times))  # type: ignore[misc]
        progress.keys(1, 9)
        phase = Phase("steady", 9, started=6, succeeded=2, failed=1, seconds=0.5)
        for _ in range(3):
            progress.phase(phase)
        progress.end()
        assert stream.getvalue() == expected


PAGE = Path(__file__).parents[2] / "docs" / "simulate.md"


def test_the_commands_of_the_page_are_understood() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    simulate_command.add_arguments(parser)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for each in blocks for line in each.replace("\\\n", " ").splitlines()]
    assert len(lines) >= 4
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        assert words[:2] == ["fleetgate", "simulate"]
        assert parser.parse_args(words[2:]).devices >= 100
