"""What the commands print: nothing that others have written is obeyed by a terminal."""

from __future__ import annotations

import io
import json
import logging
import resource
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from fleetgate.device import command_line, journey_options, journey_output, simulate_report
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import ConnectionFailed, Rejected
from fleetgate.device.identity import load
from fleetgate.device.provision import provision
from fleetgate.device.simulate_report import Phase, Result
from fleetgate.device.terminal import NotWritten, say, say_json, visible
from tests.device.conftest import Files, Issuer
from tests.device.connect_proxy import connect_proxy
from tests.device.memory_server import Clock, Fault, MemoryServer

# clears the screen, sets the title, moves up; 8-bit CSI; end of line; from right to left; invisible
EVIL = "\x1b[2J\x1b]0;title\x07\x1b[1A\x9b2J\r\nfiles  /etc\x85\u2028\u202etxt\u2066\u200b\x7f\x00"
SHOWN = (
    r"\x1b[2J\x1b]0;title\x07\x1b[1A\x9b2J\r\nfiles  /etc\x85\u2028\u202etxt\u2066\u200b\x7f\x00"
)
COMPLAINED = SHOWN.replace(r"\r\n", " ")  # a message is told in one line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain  text, C:\\new", "plain  text, C:\\new"),
        ("Lämpchen 灯 ☀ e\u0301", "Lämpchen 灯 ☀ e\u0301"),
        (EVIL, SHOWN),
        ("\xa0|\t|\ufeff|\ud800|\U000e0001", r"\xa0|\t|\ufeff|\ud800|\U000e0001"),
    ],
)
def test_what_is_not_printed_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("encoding", "written"), [("utf-8", "é ▀ \\x1b\n"), ("latin-1", "é \\u2580 \\x1b\n")]
)
def test_what_an_encoding_has_not_is_escaped(encoding: str, written: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    say("é ▀ \x1b", stream)
    stream.seek(0)
    assert stream.read() == written


def test_json_is_ascii_and_the_same() -> None:
    stream = io.StringIO()
    say_json({EVIL: ["é\ud800"]}, stream)
    assert stream.getvalue().isascii()
    assert stream.getvalue().replace("\n", "").isprintable()
    assert json.loads(stream.getvalue()) == {EVIL: ["é\ud800"]}


def test_nobody_reads_any_more_and_the_work_goes_on() -> None:
    code = (
        "import sys\nfrom fleetgate.device.terminal import say\n"
        "sys.stdin.read()\nsay('one')\nsay('two')\nprint('done', file=sys.stderr)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stdin
        process.stdin.close()
        assert process.stderr
        assert (process.stderr.read(), process.wait(10)) == ("done\n", 0)


def test_what_cannot_be_written_is_not_tried_again_at_the_end() -> None:
    code = (
        "import sys\nfrom fleetgate.device.terminal import NotWritten, say\n"
        "try: say('one')\nexcept NotWritten as error: print(error.message, file=sys.stderr)"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=True
        )
    assert done.stderr == "standard output cannot be written: No space left on device\n"


def test_a_line_that_cannot_be_written_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    """A disk may have space again; and what was lost does not come out of order."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "out").open("w") as stream:
        say("one", stream)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
        try:
            with pytest.raises(NotWritten, match="File too large"):
                say("two", stream)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        say("three", stream)
    assert (tmp_path / "out").read_text() == "one\nthree\n"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_device_gets_its_identity_though_nothing_can_be_written(
    as_json: bool, server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with (
        Path("/dev/full").open("w") as full,
        redirect_stdout(full),
        pytest.raises(NotWritten) as caught,
    ):
        journey(server, claim, out, *(["--json"] if as_json else []))
    assert caught.value.message == (
        f"the identity in `{out}` is finished, but standard output cannot be written: No space "
        f"left on device; `fleetgate status {out}` shows it"
    )
    assert load(out).thing_name == "lamp-1"


def test_an_error_is_the_error_though_it_cannot_be_written(
    server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    server.claim_refused = True
    options = ["--json", "--attempts", "1"]
    with (
        Path("/dev/full").open("w") as full,
        redirect_stdout(full),
        pytest.raises(ConnectionFailed),
    ):
        journey(server, claim, tmp_path / "out", *options)


def test_a_command_whose_result_cannot_be_written_has_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full, redirect_stdout(full):
        assert command_line.run(["abandon", str(tmp_path)]) == 1
    said = "fleetgate: standard output cannot be written: No space left on device\n"
    assert capsys.readouterr().err == said


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def server(issuer: Issuer, claim: Files) -> MemoryServer:
    return MemoryServer(issuer, claim, Clock())


def harmless(text: str) -> None:
    assert all(each.isprintable() for each in text.split("\n")), ascii(text)


def arguments(claim: Files, out: Path, *more: str) -> list[str]:
    return [
        *("--endpoint", "localhost:1", "--ca", str(claim.ca), "--template", "lamps"),
        *("--cert", str(claim.certificate), "--key", str(claim.key), "--out", str(out), *more),
    ]


def journey(server: MemoryServer, claim: Files, out: Path, *more: str) -> int:
    """`fleetgate provision`, but for where it connects to; raises what it raises."""
    args = command_line.parser_of("provision").parse_args(arguments(claim, out, *more))
    others = journey_options.journey_of(args) | {"connect": server.connect}
    where, credentials = (
        Endpoint("localhost", 1, claim.ca),
        Credentials(claim.certificate, claim.key),
    )
    return journey_output.carry_out(
        args, lambda: provision(where, credentials, "lamps", {}, out, **others)
    )


@pytest.mark.parametrize("as_json", [False, True])
def test_the_name_that_a_server_gave(
    as_json: bool,
    server: MemoryServer,
    claim: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.thing_name = name = EVIL.replace("\0", "")
    options = ["--json"] if as_json else []
    out = tmp_path / "out"
    assert journey(server, claim, out, *options) == 0
    assert command_line.run(["status", str(out), *options]) == 0
    printed = capsys.readouterr().out
    harmless(printed)
    if as_json:
        first, second = printed.replace("}\n{", "}\n\0{").split("\0")
        assert json.loads(first)["thingName"] == json.loads(second)["identity"]["thingName"] == name
    else:
        assert printed.count(f"thing         {visible(name)}\ncertificate ") == 2
        assert printed.count("\nfiles  ") == 2


def test_what_a_server_says_in_a_refusal(
    server: MemoryServer, claim: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = {"statusCode": 500, "errorCode": EVIL, "errorMessage": EVIL}
    server.faults["register"] += [Fault(lambda _: ("rejected", refusal))] * 2
    patience = ["--attempts", "2", "--first-pause", "0"]
    with pytest.raises(Rejected) as caught:
        journey(server, claim, tmp_path / "out", *patience)
    command_line.complain(caught.value.message)
    said = capsys.readouterr()
    assert f"with 500 {SHOWN}: {SHOWN} (trying again in 0.0 s)\n" in said.out
    assert said.err == f"fleetgate: register: {said.err.partition('register: ')[2]}"
    assert f"with 500 {COMPLAINED}: {COMPLAINED}" in said.err
    harmless(said.out)
    harmless(said.err)


def test_what_a_proxy_says(
    claim: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "\x1b[2J\x9b1A\x07"
    with connect_proxy(0, answer=f"HTTP/1.1 403 {reason}\r\n\r\n".encode("latin-1")) as proxy:
        through = ["--proxy", f"127.0.0.1:{proxy.port}"]
        code = command_line.run(["provision", *arguments(claim, tmp_path / "out", *through)])
    error = capsys.readouterr().err
    assert code == 1
    assert error.endswith(r" with 403 \x1b[2J\x9b1A\x07" + "\n")
    harmless(error)


def test_what_is_in_a_claims_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "claim.json"
    file.touch(mode=0o600)
    whole = {"certificatePem": "c", "privateKey": "k", "expiration": "2026-01-01T00:00:00Z"}
    for content in (
        f"FLEETGATE:{EVIL}",
        json.dumps({"version": EVIL}),
        json.dumps({"version": 1, **whole, "endpoint": "a\x1bb", "port": 1, "template": "t"}),
        json.dumps({"version": 1, **whole, "endpoint": "a", "port": 1, "template": EVIL}),
    ):
        file.write_text(content, "utf-8")
        out = str(tmp_path / "out")
        assert command_line.run(["provision", "--claim", str(file), "--out", out]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"fleetgate: prepare: `{file}`: ")
        assert error.count("\n") == 1
        harmless(error)


def test_what_a_simulation_counts() -> None:
    phase = Phase("burst", 1, started=1)
    phase.failure("register", Rejected(EVIL, status_code=1, error_code=EVIL), EVIL)
    stream = io.StringIO()
    for line in simulate_report.lines(Result([phase])):
        say(line, stream)
    harmless(stream.getvalue())
    assert stream.getvalue().count("\n") == 5


def test_what_is_told_in_detail() -> None:
    formatter = journey_output.Visible("%(message)s")
    try:
        raise OSError(EVIL)
    except OSError:
        there = sys.exc_info()
    record = logging.LogRecord("fleetgate", 10, "", 1, "event=x said=%s", (EVIL,), there)
    told = formatter.format(record)
    harmless(told)
    assert told.startswith(f"event=x said={SHOWN}\nTraceback ")


def test_what_was_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (
        ["status", str(tmp_path / "\x1b[2J")],
        ["abandon", str(tmp_path / "\ud800")],
        ["simulate", "--devices=1", "--cert=c", "--key=k", "--endpoint=\x1b\n"],
    ):
        assert command_line.run(typed) in (1, 2)
        harmless(capsys.readouterr().err)
    with pytest.raises(SystemExit) as ended:
        command_line.run(["status", str(tmp_path), "\x1b[2J"])
    assert ended.value.code == 2
    harmless(capsys.readouterr().err)
