"""The `openssl` command, as a second opinion."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path


def openssl(command: str, *arguments: str | Path, stdin: str = "") -> str:
    """Run ``openssl COMMAND ARGUMENTS`` and give what it prints; it has to succeed."""
    done = subprocess.run(
        ["openssl", *shlex.split(command), *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
