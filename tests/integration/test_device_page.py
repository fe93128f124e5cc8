"""docs/device.md is typed as it stands, from the first line to the last."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path

import pytest

from fleetgate.device import command_line
from fleetgate.device.errors import Status
from tests.integration.server import Server, run
from tests.integration.typed import Block, blocks_of, write_files
from tests.test_docs import ROOT

PAGE = "device.md"


def commands(page: list[Block], directory: Path) -> list[str]:
    """The page as lines of a shell; each Python block becomes a file of the name before it."""
    found = []
    for block in page:
        if block.language == "python":
            name = re.findall(r"`(\w+\.py)`", block.before)[-1]
            (directory / name).write_text(block.code)
            found.append(f'echo "== {name}"\npython -W error {name}\necho "=="')
        elif block.language in {"sh", "bash"} and not leaves_this_machine(block.code):
            found.append(block.code)
    return found


def leaves_this_machine(code: str) -> bool:
    return "pip install" in code or "amazonaws.com" in code


def said(output: str, name: str) -> list[str]:
    """The lines that an example has printed."""
    return output.split(f"== {name}\n")[1].split("==\n", maxsplit=1)[0].splitlines()


@pytest.mark.needs("mosquitto_pub", "openssl", "softhsm2-util")
def test_everything_the_page_shows_runs(tmp_path: Path) -> None:
    guide, page = blocks_of("provisioning.md"), blocks_of(PAGE)
    write_files(guide, tmp_path)
    write_files(page, tmp_path)
    once = next(block.code for block in guide if "create-provisioning-template" in block.code)
    script = ["set -e -o pipefail", 'eval "$(fleetgate env)"', once, *commands(page, tmp_path)]
    with Server(tmp_path / "fleetgate-data") as server:
        done = run("bash", "-c", "\n".join(script), cwd=tmp_path, seconds=180)
        assert done.returncode == 0, done.stdout + done.stderr
        things = {each["thingName"] for each in server.iot.list_things()["things"]}
    assert things == {f"lamp-{serial}" for serial in range(1, 17)}
    output = done.stdout
    assert said(output, "blocking.py")[0] == "lamp-2 lamp-2 https://sea.example"
    assert "reconnect: " in "\n".join(said(output, "asynchronous.py"))
    assert said(output, "kinds.py") == ["P-384 RSA-2048"]
    assert said(output, "libraries.py") == ["lamp-7", "lamp-8", "lamp-9", "lamp-10"]
    assert said(output, "on_token.py")[0].startswith("None TokenKey(")
    assert "nothing to do: the certificate ends in" in output
    assert said(output, "operations.py")[-1] == "lamp-15 True"
    assert said(output, "ported.py") == ["SUCCESS 202 lamp-16", "400 InvalidCsr"]
    where, what = said(output, "refused.py")[:2]
    topic = "$aws/provisioning-templates/lamps/provision/json/rejected"
    assert where == f"register {topic} SERVER_REFUSED"
    assert what.startswith("400 ")


def test_the_units_call_commands_as_they_are() -> None:
    called = []
    for block in blocks_of(PAGE):
        if block.language == "ini":
            unit = configparser.ConfigParser(interpolation=None)
            unit.optionxform = str  # type: ignore[assignment,method-assign]
            unit.read_string(block.code)
            program, *arguments = shlex.split(unit["Service"]["ExecStart"])
            if program.endswith("/fleetgate"):
                called.append(arguments[0])
                command_line.parser_of(arguments[0]).parse_args(arguments[1:])
    assert called == ["provision", "renew"]


def test_every_status_of_the_contract_is_on_the_page() -> None:
    text = (ROOT / "docs" / PAGE).read_text()
    assert dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", text, re.MULTILINE)) == {
        status.name: str(int(status)) for status in Status
    }
