"""The commands of a device: what their options mean, what they print, and their exit codes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, chdir
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device import claim as claims
from fleetgate.device import (
    command_line,
    journey_options,
    journey_output,
    provision_command,
    renew_command,
    status_command,
)
from fleetgate.device.claim import Claim
from fleetgate.device.directory import open_directory
from fleetgate.device.disk import Disk
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint, Proxy, TokenKey
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ProvisioningError,
    Rejected,
    StorageRefused,
)
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import KeyOnToken, load
from fleetgate.device.provision import Provisioned, Retries, provision
from tests.device.conftest import Files, Issuer
from tests.device.memory_server import SILENCE, Clock, MemoryServer, refusal

ON_TOKEN = ["--pkcs11-module", "m.so", "--token", "t", "--key-label", "k", "--pin-file", "pin"]
CLAIM = ["--cert", "c.pem", "--key", "c.key"]


def provision_args(*arguments: str) -> argparse.Namespace:
    return command_line.parser_of("provision").parse_args(["--out", "d", *arguments])


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and output of a command."""
    try:
        code = command_line.run(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))
    said = capsys.readouterr()
    return code, said.out, said.err


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ([], None),
        (["--key-type", "p384"], "P-384"),
        (["--key-type", "rsa2048"], "RSA-2048"),
        (["--key-type", "rsa3072"], "RSA-3072"),
        (["--key-type", "rsa4096"], "RSA-4096"),
        (["--keys"], "server"),
        (ON_TOKEN, KeyOnToken(Path("m.so"), "t", "k", Path("pin"))),
    ],
)
def test_which_key(options: list[str], key: object) -> None:
    assert journey_options.key_of(provision_args(*options)) == key


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (ON_TOKEN[:2], "a key on a token needs --token and --key-label and --pin-file, too"),
        (ON_TOKEN[2:], "a key on a token needs --pkcs11-module, too"),
        ([*ON_TOKEN, "--keys"], "--keys is for one that the server makes"),
        ([*ON_TOKEN, "--key-type=p256"], "either --key-type or --pkcs11-module, --token"),
        (["--keys", "--key-type=rsa2048"], "either --keys or --key-type"),
        (["--keys", "--subject=CN=x"], "either --keys or --subject"),
    ],
)
def test_which_key_it_cannot_be(options: list[str], rule: str) -> None:
    with pytest.raises(BadRequest, match=rule):
        journey_options.key_of(provision_args(*options))


def test_how_to_connect(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("secret\n")
    proxy = ["--proxy", "proxy.example:3128", "--proxy-user", "lamp"]
    args = provision_args(
        *("--mqtt-version", "3.1.1", "--alpn", "x", "--connect-timeout", "3"),
        *(*proxy, "--proxy-password-file", str(password)),
    )
    assert journey_options.with_options(Endpoint("iot.example", 443), args) == Endpoint(
        "iot.example",
        443,
        None,
        "x",
        4,
        Proxy("proxy.example", 3128, "lamp", "secret"),
        connect_timeout=3,
    )
    as_it_is = Endpoint("iot.example", 8883, mqtt_version=4)
    assert journey_options.with_options(as_it_is, provision_args()) == as_it_is


@pytest.mark.parametrize("text", ["proxy", "proxy:x", "http://proxy:1", "a@proxy:1", ":1", "[x:1"])
def test_a_proxy_that_is_none(text: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT is expected"):
        journey_options.proxy_of(provision_args("--proxy", text))


def test_a_password_typed_into_the_proxy_is_not_repeated() -> None:
    with pytest.raises(BadRequest) as caught:
        journey_options.proxy_of(provision_args("--proxy", "lamp:secret@proxy:1"))
    assert "secret" not in caught.value.message
    assert "who is named by --proxy-user and --proxy-password-file" in caught.value.message


def test_a_password_of_a_proxy_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "password"
    options = ["--proxy", "p:1", "--proxy-password-file", str(file)]
    with pytest.raises(BadRequest, match="--proxy-password-file needs --proxy-user, too"):
        journey_options.proxy_of(provision_args(*options))
    options += ["--proxy-user", "lamp"]
    with pytest.raises(BadRequest, match=r"cannot read `.*password`: No such file or directory$"):
        journey_options.proxy_of(provision_args(*options))
    file.touch(mode=0o644)
    file.chmod(0o644)
    with pytest.raises(StorageRefused, match="others may read the proxy's password in `"):
        journey_options.proxy_of(provision_args(*options))
    file.chmod(0o600)
    file.write_bytes(b"\xff")
    with pytest.raises(BadRequest, match="is not text in UTF-8"):
        journey_options.proxy_of(provision_args(*options))


@pytest.mark.parametrize("client", journey_options.CLIENTS)
def test_which_client(client: str) -> None:
    connect = journey_options.connect_of(provision_args("--client", client))
    assert connect is not None
    assert connect.__module__ == f"fleetgate.device.{client}_client"
    assert journey_options.connect_of(provision_args()) is None


def test_how_messages_are_carried() -> None:
    options = ["--qos=0", "--max-answer-size=200000", "--keep-alive=1200", "--token-seconds=900"]
    for given, expected in (
        ([], (1, 131072, 3600.0, 60, 149504)),
        (options, (0, 200000, 900.0, 1200, 218432)),
    ):
        for args in (
            provision_args(*given),
            command_line.parser_of("renew").parse_args(["d", *given]),
        ):
            journey = journey_options.journey_of(args)
            endpoint = journey_options.with_options(Endpoint("iot.example"), args)
            terms = journey["terms"]
            assert expected == (
                *(terms.qos, terms.max_answer_size, journey["token_seconds"]),
                *(endpoint.keep_alive, endpoint.max_packet_size),
            )


def test_options_reach_the_server(server: MemoryServer, claim: Files, tmp_path: Path) -> None:
    options = ["--qos=0", "--keep-alive=30", "--max-answer-size=200000", "--format=cbor"]
    args = provision_args(*options)
    endpoint = journey_options.with_options(Endpoint("localhost", 8883, claim.ca), args)
    provision(
        endpoint,
        Credentials(claim.certificate, claim.key),
        "lamps",
        {},
        tmp_path / "out",
        **{**journey_options.journey_of(args), "connect": server.connect},
    )
    assert {each.keep_alive for each in server.endpoints} == {30}
    assert [client.qos for client in server.clients] == [[0, 0], []]
    assert all(topic.endswith("/cbor") for topic, _ in server.requests)
    too_large = {**journey_options.journey_of(args), "terms": Terms(max_answer_size=100)}
    with pytest.raises(BadAnswer, match="more than the 100 that this device takes"):
        provision(
            endpoint,
            Credentials(claim.certificate, claim.key),
            "lamps",
            {},
            tmp_path / "other",
            **{**too_large, "connect": server.connect},
        )


ENV = {"FLEETGATE_MQTT_HOST": "env", "FLEETGATE_MQTT_PORT": "9", "FLEETGATE_MQTT_CA": "/env"}
PAIR = Credentials(Path("c.pem"), Path("c.key"))


@pytest.mark.parametrize(
    ("options", "env", "where"),
    [
        ([], ENV, ("env", 9, Path("/env"))),
        ([], {"FLEETGATE_MQTT_HOST": "env"}, ("env", 8883, None)),
        (["--ca=own"], ENV, ("env", 9, Path("own"))),
        (["--endpoint=own"], ENV, ("own", 8883, None)),
        (["--endpoint=own:1", "--ca=own"], ENV, ("own", 1, Path("own"))),
        (["--endpoint=ENV:9"], ENV, ("ENV", 9, Path("/env"))),
        (["--endpoint=env"], ENV, ("env", 8883, None)),
        (["--endpoint=own"], {**ENV, "FLEETGATE_MQTT_PORT": "x"}, ("own", 8883, None)),
    ],
)
def test_an_option_wins_over_the_environment(
    options: list[str], env: dict[str, str], where: tuple[str, int, Path | None]
) -> None:
    with ExitStack() as cleanup:
        args = provision_args(*CLAIM, *options)
        endpoint, credentials = provision_command._where(args, None, env, cleanup)
    assert (endpoint.host, endpoint.port, endpoint.ca) == where
    assert credentials == PAIR


@pytest.mark.parametrize(
    ("env", "rule"),
    [
        ({}, "a server is needed: --endpoint, --claim, or the variable FLEETGATE_MQTT_HOST"),
        ({"FLEETGATE_MQTT_HOST": ""}, "a server is needed"),
        ({"FLEETGATE_MQTT_CA": "ca", "FLEETGATE_MQTT_PORT": "1"}, "a server is needed"),
        ({**ENV, "FLEETGATE_MQTT_HOST": "a b"}, "FLEETGATE_MQTT_HOST: 'a b' is no host name"),
        ({**ENV, "FLEETGATE_MQTT_PORT": "x"}, "FLEETGATE_MQTT_PORT is `x`: the port has to be"),
    ],
)
def test_an_environment_without_a_server(env: dict[str, str], rule: str) -> None:
    with pytest.raises(BadRequest, match=rule), ExitStack() as cleanup:
        provision_command._where(provision_args(*CLAIM), None, env, cleanup)


def test_a_claims_file_wins_over_the_environment(expired: Path) -> None:
    claim = claims.load(expired, now=0.0)
    for options, where in (
        ([], ("localhost", 8883)),
        (["--endpoint=own:1"], ("own", 1)),
        (["--endpoint=localhost:8883"], ("localhost", 8883)),
    ):
        for authorities in (claim.ca_pem, None):
            with ExitStack() as cleanup:
                args = provision_args("--claim", str(expired), *options)
                given = replace(claim, ca_pem=authorities)
                endpoint, _ = provision_command._where(args, given, ENV, cleanup)
                assert (endpoint.host, endpoint.port) == where
                if authorities is None or where[0] == "own":
                    assert endpoint.ca is None
                else:
                    assert endpoint.ca is not None
                    assert Path(endpoint.ca).read_text() == authorities


def test_how_long_and_how_often() -> None:
    args = provision_args(
        *("--attempts", "2", "--give-up-after", "9", "--first-pause", "0", "--longest-pause", "1"),
        *("--timeout", "7", "--mqtt-timeout", "3", "--format", "cbor", "--json"),
    )
    given = journey_options.journey_of(args)
    terms = given["terms"]
    assert (terms.payload_format, terms.timeout, terms.mqtt_timeout) == ("cbor", 7, 3)
    assert given["retries"] == Retries(2, 9, 0, 1)
    defaults = journey_options.journey_of(provision_args())
    assert defaults["retries"] == Retries()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (CLAIM, "a server is needed: --endpoint, --claim, or the variable FLEETGATE_MQTT_HOST"),
        (["--qos", "2"], "argument --qos: invalid choice: "),
        (["--max-answer-size", "-1"], "--max-answer-size is -1 bytes, less than 16384"),
        (["--max-answer-size", "16383"], "--max-answer-size is 16383 bytes, less than 16384"),
        (["--endpoint=x", *CLAIM, "--keep-alive=0"], "keep-alive is 1 to 65535 seconds, not 0"),
        (["--endpoint", "x:y"], "--endpoint `x:y`: HOST or HOST:PORT is expected"),
        (["--endpoint", "x"], "a claim is needed: --claim, or --cert and --key"),
        (["--endpoint", "x", *CLAIM], "a template is needed: --template"),
        (["--endpoint", "x", "--claim", "f", *CLAIM], "--claim has certificate and key"),
        (["--endpoint", "x", *CLAIM, "--template", "a b"], "cannot be the name of a provisioning"),
        (["--parameters", "[]"], "--parameters has to be a JSON object of text to text"),
        (["--parameters", "@/nowhere/p"], "--parameters: cannot read `/nowhere/p`"),
        (["--attempts", "0"], "a step has to be tried once, not 0 times"),
        (["--timeout", "-1"], "`timeout` is -1.0: it is in seconds, more than 0 and at most 86400"),
        (["--timeout", "inf"], "`timeout` is inf: it is in seconds"),
        (["--mqtt-timeout", "1e10"], "`mqtt_timeout` is 10000000000.0: it is in seconds"),
        (["--first-pause", "inf"], "`first_pause` is inf seconds, which is more than a day"),
        (["--endpoint", "x", *CLAIM, "--proxy-user", "x"], "a proxy needs --proxy, too"),
        (
            ["--endpoint", "x", "--cert", "c", "--claim-key-label", "k"],
            "--claim-key-label needs --pkcs11-module",
        ),
    ],
)
def test_what_cannot_be_is_not_begun(
    arguments: list[str], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, printed, error = run(capsys, "provision", "--out", str(out), *arguments)
    assert (code, printed) == (2, "")
    assert rule in error.splitlines()[-1]
    assert error.startswith("usage: ") or error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ([*CLAIM, *ON_TOKEN, "--client=paho"], "on a PKCS#11 token cannot be used by paho-mqtt"),
        (
            ["--cert=c", "--claim-key-label=k", *ON_TOKEN, "--client=aiomqtt"],
            "on a PKCS#11 token cannot be used by aiomqtt",
        ),
        ([*CLAIM, "--subject=x"], "`x` is no subject as `CN=lamp-1,O=Example` (RFC 4514)\n"),
    ],
)
def test_what_cannot_be_is_known_before_any_file_is_read(
    arguments: list[str], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    where = ["--out", str(out), "--endpoint", "x", "--template", "t"]
    code, _, error = run(capsys, "provision", *where, *arguments)
    assert code == 2
    assert rule in error
    assert not out.exists()


def test_the_name_of_a_directory_is_not_empty(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["provision", "--out", ""], ["renew", ""], ["status", ""], ["abandon", ""]):
        code, _, error = run(capsys, *command)
        assert code == 2
        assert "the name of a directory is empty" in error


def test_a_directory_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, error = run(capsys, "abandon", str(tmp_path / "none"))
    assert (code, printed) == (1, "")
    assert "none` is not there: nothing was begun in it" in error
    (tmp_path / "link").symlink_to(tmp_path)
    code, printed, error = run(capsys, "status", str(tmp_path / "link"))
    assert (code, printed) == (1, "")
    assert "link` is a symbolic link: name the directory itself" in error


def test_no_codes_are_shown_where_nobody_scans_them(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, error = run(capsys, "claim", "--template", "lamps", "--qr")
    assert (code, printed) == (2, "")
    assert "--qr shows codes on a terminal, and the standard input is none: use --out" in error


def test_options_are_written_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(capsys, "provision", "--out", "d", "--temp", "lamps")
    assert code == 2
    assert "unrecognized arguments: --temp lamps" in error
    assert run(capsys, "renew")[0] == 2


# --- running --------------------------------------------------------------------------------------


def test_a_failure_is_one_line_that_names_step_and_server(
    claim: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["provision", "--endpoint", "localhost:1", "--ca", str(claim.ca)]
    arguments += ["--cert", str(claim.certificate), "--key", str(claim.key), "--template", "lamps"]
    arguments += ["--out", str(tmp_path / "out"), "--attempts", "1"]
    code, printed, error = run(capsys, *arguments)
    assert code == 1
    assert [line.split()[0] for line in printed.splitlines()] == ["prepare", "connect"]
    assert error.startswith("fleetgate: connect: ")
    assert "`localhost` port 1" in error
    assert error.count("\n") == 1

    code, printed, error = run(capsys, *arguments, "--json")
    assert code == 1
    told = json.loads(printed)["error"]
    assert (told["type"], told["step"], told["status"]) == (
        "ConnectionFailed",
        "connect",
        "MQTT_ERROR",
    )
    assert told["retry"] is True
    assert error.count("\n") == 1


def test_what_a_server_says_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    command_line.complain("register: rejected with\n  403 Forbidden:\tno")
    assert capsys.readouterr().err == "fleetgate: register: rejected with 403 Forbidden: no\n"


def test_an_error_for_programs_has_everything() -> None:
    error = Rejected(
        "no", topic="t/rejected", status_code=429, error_code="Throttled", error_message="slowly"
    )
    error.at("register")
    assert journey_output.error_as_json(error) == {
        "type": "Rejected",
        "message": "register: no",
        "step": "register",
        "topic": "t/rejected",
        "status": "SERVER_REFUSED",
        "statusCode": 429,
        "errorCode": "Throttled",
        "errorMessage": "slowly",
        "retry": True,
    }


# --- for programs ---------------------------------------------------------------------------------


def told_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the error of a command that prints nothing else on standard output."""
    code, printed, said = run(capsys, *arguments, "--json")
    error: dict[str, Any] = json.loads(printed)["error"]
    assert said.splitlines()[-1].endswith(error["message"])
    return code, error


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["renew", "nonexist"], 1, "NoIdentity"),
        (["provision", "--out=d", "--claim=nofile"], 2, "BadRequest"),
        (["provision", "--out=d", "--endpoint=x", *CLAIM, "--template=t"], 2, "BadRequest"),
        (["provision", "--out=d", "--subject=bad"], 2, "BadRequest"),
        (["provision", "--out=d", "--timeout=0"], 2, "BadRequest"),
        (["provision", "--out=d", "--parameters=@nofile"], 2, "BadRequest"),
        (["provision", "--out=d", "--keys", "--key-type=p256"], 2, "BadRequest"),
        (["provision", "--out=d", "--qos=2"], 2, "BadRequest"),
        (["provision"], 2, "BadRequest"),
        (["renew"], 2, "BadRequest"),
        (["simulate"], 2, "BadRequest"),
        (["simulate", "--devices=1"], 2, "BadRequest"),
    ],
)
def test_every_failure_is_one_json_object(
    arguments: list[str],
    code: int,
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with chdir(tmp_path):
        ended, error = told_error(capsys, *arguments)
    assert (ended, error["type"], error["step"]) == (code, kind, "prepare")
    assert not list(tmp_path.iterdir())


def test_a_command_without_json_prints_none(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, error = run(capsys, "abandon", "d", "--json")
    assert (code, printed) == (2, "")
    assert "unrecognized arguments: --json" in error


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        (["--client=awscrt"], "awscrt"),
        (["--client=aiomqtt"], "aiomqtt"),
        (ON_TOKEN, "pkcs11"),
        (ON_TOKEN, "awscrt"),
    ],
)
def test_a_library_that_is_missing_is_known_before_anything_is_written(
    options: list[str], missing: str, claim: Files, tmp_path: Path
) -> None:
    program = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from fleetgate.device.command_line import run\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    arguments = ["--endpoint=localhost:1", "--template=t", "--ca", str(claim.ca), *options]
    arguments += ["--cert", str(claim.certificate), "--key", str(claim.key), "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", program, "provision", *arguments, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    said = f'{missing} is not installed; it comes with: pip install "fleetgate[{missing}]"'
    assert (done.returncode, done.stderr) == (2, f"fleetgate: {said}\n")
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["message"], error["step"]) == ("ExtraMissing", said, "prepare")
    assert not list(tmp_path.iterdir())


def test_a_library_is_silent_unless_its_program_wants_to_hear_it() -> None:
    program = (
        "import logging, fleetgate.device\n"
        "logging.getLogger('fleetgate.device.conversation').warning('event=operation-failed')\n"
        "logging.basicConfig()\n"
        "logging.getLogger('fleetgate.device.conversation').warning('heard')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == "WARNING:fleetgate.device.conversation:heard\n"


def test_what_a_renewal_keeps_is_what_its_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = run(capsys, "renew", "--help")
    help_text = " ".join(printed.split())
    assert code == 0
    assert "of MQTT; default: that of the present identity" in help_text
    assert "the protocol to offer in TLS; default: that of the present identity" in help_text


Provision = Callable[..., Path]


@pytest.fixture
def server(issuer: Issuer, claim: Files) -> MemoryServer:
    return MemoryServer(issuer, claim, Clock())


@pytest.fixture
def begun(server: MemoryServer, claim: Files, tmp_path: Path) -> Provision:
    def provision_here(**options: Any) -> Path:
        out = tmp_path / "out"
        provision(
            Endpoint("localhost", 8883, claim.ca),
            Credentials(claim.certificate, claim.key),
            "lamps",
            {},
            out,
            **{"connect": server.connect, "retries": Retries(attempts=1), **options},
        )
        return out

    return provision_here


def test_status_shows_an_identity(begun: Provision, capsys: pytest.CaptureFixture[str]) -> None:
    out = begun()
    code, printed, error = run(capsys, "status", str(out))
    assert (code, error) == (0, "")
    assert "endpoint      localhost:8883" in printed
    assert "P-256, in `" in printed
    assert "not finished" not in printed
    code, printed, _ = run(capsys, "status", str(out), "--json")
    told = json.loads(printed)
    assert code == 0
    assert told["unfinished"] is None
    assert Path(told["identity"]["privateKey"]).read_text().startswith("-----BEGIN PRIVATE KEY")
    assert len(told["identity"]["certificateId"]) == 64
    # nothing to give up
    assert run(capsys, "abandon", str(out)) == (0, f"nothing in `{out}` was unfinished\n", "")
    assert run(capsys, "status", str(out))[0] == 0


def test_a_key_that_others_may_read_is_told_as_json(
    begun: Provision, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun()
    (out / "private.key").chmod(0o644)
    for command, step in (("status", None), ("renew", "prepare")):
        code, error = told_error(capsys, command, str(out))
        assert (code, error["type"], error["step"]) == (1, "StorageRefused", step)


def test_status_and_abandon_of_what_was_not_finished(
    begun: Provision, server: MemoryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, _, error = run(capsys, "status", str(out))
    assert code == 1
    assert "the device has no identity yet" in error
    server.faults["create"].append(refusal(403))
    with pytest.raises(Rejected):
        begun()
    code, printed, error = run(capsys, "status", str(out), "--json")
    assert code == 1
    told = json.loads(printed)
    assert told["identity"] is None
    assert (told["error"]["type"], told["error"]["step"]) == ("NoIdentity", None)
    assert (told["unfinished"]["purpose"], told["unfinished"]["state"]) == ("provision", "asking")
    assert "(a provisioning is not finished)" in error
    code, printed, _ = run(capsys, "abandon", str(out))
    assert (code, printed) == (0, f"what was not finished in `{out}` is given up\n")
    assert status_command.unfinished(out) is None


def test_status_does_not_get_in_the_way(begun: Provision) -> None:
    """It takes no lock, for which a journey would be refused."""
    out = begun()
    with open_directory(out, Disk()):
        assert status_command.unfinished(out) is None
        assert not status_command.needs_claim(out)


def test_renewal_by_a_timer_is_not_begun_too_early(
    begun: Provision, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun()
    code, printed, _ = run(capsys, "renew", str(out), "--within", "1", "--json")
    told = json.loads(printed)
    assert (code, told["renewed"]) == (0, False)
    assert told["daysLeft"] > 1
    code, printed, error = run(capsys, "renew", str(out), "--keep-key", "--keys")
    assert (code, printed) == (2, "")
    assert "either --keep-key or --keys" in error
    for option in ("--key-type=p256", "--key-label=two"):
        code, _, error = run(capsys, "renew", str(out), "--keep-key", option)
        assert (code, error.count("either --keep-key or ")) == (2, 1)
    assert run(capsys, "renew", str(out), "--within", "nan")[0] == 2
    code, _, error = run(capsys, "renew", str(out), "--within", "-1")
    assert code == 2
    assert "--within is -1 days, less than 0" in error


def test_a_renewal_by_a_clock_that_is_wrong_is_an_error(begun: Provision) -> None:
    """Such as of a device without a battery, which has not asked for the time yet."""
    out = begun()
    args = command_line.parser_of("renew").parse_args([str(out), "--within", "30"])
    with pytest.raises(ProvisioningError) as caught:
        renew_command.run(args, now=lambda: 86400.0)
    assert not isinstance(caught.value, BadRequest)
    begins = load(out).begins_at()
    assert caught.value.message.startswith(
        "this device's clock is wrong: it says 1970-01-02T00:00:00Z, and the certificate is not "
        f"valid before {begins:%Y-%m-%dT%H:%M:%SZ}."
    )
    assert renew_command.run(args, now=begins.timestamp) == 0


@pytest.mark.parametrize("lost", [False, True])
def test_why_there_is_no_thing_is_said_in_the_same_words(
    lost: bool, begun: Provision, server: MemoryServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.thing_name = None
    if lost:
        server.token_once = True
        server.faults["register"].append(SILENCE)
    out = begun(terms=Terms(timeout=0.05), retries=Retries(attempts=2, first_pause=0.0))
    words = "(not known)" if lost else "(the template names none)"
    _, printed, _ = run(capsys, "status", str(out))
    assert f"thing         {words}" in printed.splitlines()
    done = Provisioned(load(out), {})
    assert journey_output.result_lines(done)[0] == f"thing         {words}"


@pytest.mark.parametrize("was_begun", [False, True])
def test_ctrl_c_says_how_it_goes_on(
    was_begun: bool,
    server: MemoryServer,
    claim: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When there is anything to go on with."""
    out = tmp_path / "out"

    def interrupted(endpoint: Endpoint, credentials: AnyCredentials, client_id: str) -> Any:
        raise KeyboardInterrupt

    def journey() -> Provisioned:
        if not was_begun:
            raise KeyboardInterrupt
        where = Endpoint("localhost", 1, claim.ca)
        own = Credentials(claim.certificate, claim.key)
        return provision(where, own, "lamps", {}, out, connect=interrupted)

    args = command_line.parser_of("provision").parse_args(["--out", str(out)])
    with pytest.raises(KeyboardInterrupt):
        journey_output.carry_out(args, journey)
    said = "fleetgate: interrupted; run the same again to go on\n" if was_begun else ""
    assert capsys.readouterr().err == said


# --- a claim in a file ----------------------------------------------------------------------------


@pytest.fixture
def expired(claim: Files, tmp_path: Path) -> Path:
    file = tmp_path / "claim.json"
    made = Claim(
        claim.certificate.read_text(),
        claim.key.read_text(),
        datetime(2026, 1, 1, tzinfo=UTC),
        "localhost",
        8883,
        "lamps",
        claim.ca.read_text(),
    )
    file.touch(mode=0o600)
    file.write_text(claims.dump(made))
    return file


def test_an_expired_claim_is_said_to_be_so(
    expired: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code, _, error = run(capsys, "provision", "--claim", str(expired), "--out", str(out))
    assert code == 1
    assert error.startswith("fleetgate: prepare: the claim `")
    assert "has expired at 2026-01-01T00:00:00Z" in error
    assert told_error(capsys, "provision", "--claim", str(expired), "--out", str(out))[0] == 1
    assert not out.exists()


def test_an_expired_claim_will_do_for_what_was_finished(
    expired: Path, begun: Provision, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun()
    code, printed, error = run(capsys, "provision", "--claim", str(expired), "--out", str(out))
    assert (code, error) == (0, "")
    assert "nothing to do: it was finished before" in printed
    expired.unlink()
    arguments = ["provision", "--claim", str(expired), "--out", str(out)]
    code, _, error = run(capsys, *arguments)
    assert (code, error) == (0, "")
    code, _, error = run(capsys, *arguments, "--template", "another")
    assert code == 1
    assert "already holds a complete identity" in error


def test_a_claim_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "claim.json"
    out = tmp_path / "out"
    code, _, error = run(capsys, "provision", "--claim", str(file), "--out", str(out))
    assert code == 2
    why = "No such file or directory"
    assert error == f"fleetgate: prepare: --claim: cannot read `{file}`: {why}\n"
    assert not out.exists()


def test_an_expired_claim_will_do_for_what_was_registered(
    server: MemoryServer, begun: Provision, tmp_path: Path
) -> None:
    def without_proof(endpoint: Endpoint, credentials: Any, client_id: str) -> Any:
        if server.connects:
            raise ConnectionFailed("no")
        return server.connect(endpoint, credentials, client_id)

    out = tmp_path / "out"
    assert status_command.needs_claim(out)
    with pytest.raises(ConnectionFailed):
        begun(connect=without_proof)
    found = status_command.unfinished(out)
    assert found is not None
    assert found.state == "registered"
    assert not status_command.needs_claim(out)
    # nor need the claim be there, which would have said where to connect to, and by which template
    args = provision_args("--claim", str(tmp_path / "gone"))
    args.out = out
    ca = out / "identity-1" / "ca.pem"
    assert provision_command._former(args) == ("localhost", 8883, ca, "lamps")


def test_a_claim_is_missed_when_nothing_is_registered(
    server: MemoryServer, begun: Provision, tmp_path: Path
) -> None:
    server.faults["register"].append(refusal(403))
    with pytest.raises(Rejected):
        begun()
    args = provision_args("--claim", str(tmp_path / "gone"))
    args.out = tmp_path / "out"
    assert status_command.needs_claim(args.out)
    assert provision_command._former(args) is None
    server.faults["register"].append(refusal(500))
    with pytest.raises(Rejected):
        begun()
    assert not status_command.needs_claim(args.out)
    assert provision_command._former(args) is not None


def test_the_claims_key_may_be_on_the_token() -> None:
    args = provision_args("--cert", "c.pem", "--claim-key-label", "claim", *ON_TOKEN)
    assert provision_command._credentials(args) == TokenKey(
        Path("m.so"), "t", "claim", Path("pin"), Path("c.pem")
    )
