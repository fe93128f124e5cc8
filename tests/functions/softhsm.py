"""Tokens of SoftHSM, with directories of their own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "6021"


@dataclass(frozen=True)
class SoftHsm:
    """Where SoftHSM keeps tokens; `configuration` is for SOFTHSM2_CONF."""

    configuration: Path
    tokens: Path

    def add_token(self, label: str, pin: str = PIN) -> None:
        self._run("--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "99887766")

    def add_key(
        self, token: str, file: Path, label: str, key_id: str = "01", pin: str = PIN
    ) -> None:
        """Brings a key (PKCS#8) onto a token."""
        names = ("--token", token, "--label", label, "--id", key_id, "--pin", pin)
        self._run("--import", str(file), *names)

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            ["softhsm2-util", *arguments],
            env={"SOFTHSM2_CONF": str(self.configuration), "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
        )


def make(directory: Path) -> SoftHsm:
    """SoftHSM without tokens; `directory` must be there."""
    tokens = directory / "tokens"
    tokens.mkdir()
    configuration = directory / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
    return SoftHsm(configuration, tokens)
