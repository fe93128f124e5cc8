"""A Fleetgate server as its users run it: a process of its own, spoken to from outside.

`Server` starts `fleetgate serve` on free ports, waits until it is healthy, and ends it. Nothing
here imports the server's code: what the tests see is what a stranger sees.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config

from tests.integration.aws_command import directory

EXECUTABLES = Path(sys.executable).parent
REGION = "us-east-1"
ACCOUNT = "000000000000"

_models = botocore.loaders.create_loader()
"""AWS's service models, read once for all clients."""

READY_WITHIN = 30.0
STOPPED_WITHIN = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its status, headers (lower-case names) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without any AWS or Fleetgate setting, and `extra`.

    The virtual environment's commands come first in PATH, so that `fleetgate` is ours, and before
    them `aws`, which is the AWS CLI (see aws_command).
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "FLEETGATE_", "BOTO_"))
    }
    kept["PATH"] = os.pathsep.join([str(directory()), str(EXECUTABLES), kept.get("PATH", "")])
    kept["NO_COLOR"] = "1"
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # a server starts in half the time once compiled
    kept["FLEETGATE_RSA_KEY_STOCK"] = "0"  # keys made ahead by each of many servers take minutes
    return kept | extra


def run(
    *command: str, cwd: Path, seconds: float = 60, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end and return its exit code and output; it never sees a terminal."""
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def group_exists(number: int) -> bool:
    """Whether anybody is left in a process group, such as that of a server that has ended."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def http(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One plain HTTP request; an error status is an answer like any other."""
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.headers.items()},
                response.read(),
            )
    except urllib.error.HTTPError as error:
        with error:
            return Answer(
                error.code,
                {name.lower(): value for name, value in error.headers.items()},
                error.read(),
            )


class Server:
    """`fleetgate serve` on the data directory `data`, started by `start` or `with`."""

    def __init__(self, data: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.options = options
        self.env = dict(env or {})
        self.log = data.parent / f"{data.name}.log"
        self.ready_after = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoints: dict[str, Any] = {}
        self._iot: Any = None

    def command(self) -> list[str]:
        return [
            str(EXECUTABLES / "fleetgate"),
            "serve",
            *("--data", str(self.data)),
            *("--http", "127.0.0.1:0"),
            *("--mqtt", "127.0.0.1:0"),
            *("--host-name", "localhost"),
            *self.options,
        ]

    def start(self) -> Self:
        """Start the process and wait until it answers; AssertionError with its log if it ends."""
        begun = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data.parent,
                env=environment(**self.env),
                start_new_session=True,  # a process group of its own, as a shell makes it
            )
        while not self._healthy():
            code = self._process.poll()
            assert code is None, f"the server ended with {code}:\n{self.output()}"
            assert time.monotonic() - begun < READY_WITHIN, f"not ready:\n{self.output()}"
            time.sleep(0.02)
        self.ready_after = time.monotonic() - begun
        return self

    def _healthy(self) -> bool:
        """Whether the endpoints file of *this* run is there and its HTTP side answers."""
        try:
            self._endpoints = json.loads((self.data / "endpoints.json").read_bytes())
            return http(f"{self.http_url}/_fleetgate/health").status == 200
        except (OSError, ValueError):
            return False  # not there yet, or left by a run that was killed

    @property
    def http_url(self) -> str:
        return str(self._endpoints["http_url"]).rstrip("/")

    @property
    def mqtt_host(self) -> str:
        return str(self._endpoints["mqtt_host"])

    @property
    def mqtt_port(self) -> int:
        return int(self._endpoints["mqtt_port"])

    @property
    def ca_file(self) -> Path:
        return Path(self._endpoints["ca_file"])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def iot(self) -> Any:
        """A boto3 `iot` client of the root credentials that the server left in its directory."""
        if self._iot is None:
            self._iot = self.client()
        return self._iot

    def client(
        self,
        service: str = "iot",
        *,
        region: str = REGION,
        parameter_validation: bool = True,
        **credentials: str,
    ) -> Any:
        """A new boto3 client, without retries; `credentials` replace those of the file.

        The caller closes it.
        """
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=20,
            parameter_validation=parameter_validation,
        )
        session = botocore.session.Session()
        session.register_component("data_loader", _models)
        session.set_config_variable("credentials_file", str(self.data / "credentials"))
        session.set_config_variable("config_file", os.devnull)
        return boto3.Session(botocore_session=session, region_name=region).client(
            service,
            endpoint_url=self.http_url,
            config=config,
            **credentials,
        )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL for the server alone: no handler of it runs."""
        return self._end(signal.SIGKILL)

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal and do not wait; `group`: to its helpers too, as a terminal's Ctrl-C."""
        assert self._process is not None
        if group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def wait(self, seconds: float = STOPPED_WITHIN) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def _end(self, number: int) -> int:
        self.close_client()
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def close_client(self) -> None:
        if self._iot is not None:
            self._iot.close()
            self._iot = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is None:
            self.close_client()
        else:
            self.terminate()
