"""Ctrl-C, in processes of their own: while a command is imported, and while it works."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.device.clients import ADAPTERS
from tests.device.conftest import Files

AT_AN_IMPORT = """
import os, signal, sys

module = sys.argv.pop(1)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            del sys.meta_path[0]
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from fleetgate.main import main
main()
"""

WHILE_A_CLASS_IS_MADE = """
import sys
from fleetgate import main

class Interrupted:
    def __set_name__(self, owner, name):
        raise KeyboardInterrupt

def run(arguments):
    class Owner:
        member = Interrupted()

main.run = run
main.main()
"""


def python(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("fleetgate.device.command_line", "status"),
        ("argparse", "status"),
        ("fleetgate.device.status_command", "status"),
        ("fleetgate.device.identity", "status"),
        ("fleetgate.device.provision", "renew"),
        ("fleetgate.cli", "env"),
    ],
)
def test_before_it_has_begun_there_is_nothing_to_say(
    module: str, command: str, tmp_path: Path
) -> None:
    arguments = [] if command == "env" else [str(tmp_path / "none")]
    code, out, error = python(AT_AN_IMPORT, module, command, *arguments)
    assert (code, out, error) == (130, "", "")


def test_also_while_a_class_is_made() -> None:
    """Python 3.11 makes a RuntimeError of it."""
    assert python(WHILE_A_CLASS_IS_MADE, "status") == (130, "", "")


@pytest.mark.parametrize("client", ADAPTERS)
def test_while_it_works_it_says_how_to_go_on(client: str, claim: Files, tmp_path: Path) -> None:
    """The server takes the connection, and is silent."""
    out = tmp_path / "out"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command = [
            *(sys.executable, "-m", "fleetgate", "provision", "--client", client, "--json"),
            *("--endpoint", f"localhost:{silent.getsockname()[1]}", "--ca", str(claim.ca)),
            *("--cert", str(claim.certificate), "--key", str(claim.key)),
            *("--template", "lamps", "--out", str(out)),
        ]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            connection, _ = silent.accept()
            with connection:
                begun = time.monotonic()
                process.send_signal(signal.SIGINT)
                said = process.communicate(timeout=20)
                assert time.monotonic() - begun < 5
    assert said == ("", "fleetgate: interrupted; run the same again to go on\n")
    assert process.returncode == 130
    assert (out / "journal.json").exists()
