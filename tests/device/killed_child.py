"""Journeys in processes of their own, which are killed: ``python -m tests.device.killed_child``.

The process reads a request per line (JSON) and does each in a fork, so that Python starts once.
A request is killed at a call to the file system (`at`, counted from 0; `after` the call or before
it), or when its journal is about to say `before`, by its own SIGKILL, or after `seconds` by its
parent's; or not at all. What is written back is the exit code of the fork, -9 when it was killed
and IN_DOUBT when the journey ended so, and the number of calls it made.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fleetgate.device.disk import Disk
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import InDoubt, ProvisioningError
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import KeyOnToken, load
from fleetgate.device.protocol import PayloadFormat
from fleetgate.device.provision import Retries, provision, renew
from fleetgate.mqtt.packets import Version
from tests.device.clients import ADAPTERS

ROOT = Path(__file__).resolve().parents[2]
IN_DOUBT = 3


@dataclass(frozen=True)
class Request:
    """A journey, and where it ends. Without a claim it is a renewal.

    `client` is the adapter's name, `token` are the arguments of a KeyOnToken, which is then the
    key. With `hello` it is no journey: the device connects with what it has, and publishes.
    """

    out: str
    host: str
    port: int
    ca: str
    template: str
    serial: str
    key: str
    own_client_id: str | None = None
    client: str = "paho"
    version: Version = 5
    form: PayloadFormat = "json"
    token: tuple[str, str, str, str] | None = None
    hello: bool = False
    claim: tuple[str, str] | None = None
    keep_key: bool = False
    begin_anew: bool = False
    at: int | None = None
    after: bool = False
    before: str | None = None
    seconds: float | None = None


class KillingDisk(Disk):
    """The file system as it is, until the process dies by its own hand at a call."""

    def __init__(self, request: Request) -> None:
        self.calls = 0
        self._at = request.at
        self._after = request.after
        self._words = request.before and f'"state": "{request.before}"'.encode()

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name not in CALLS:
            return found
        return lambda *arguments: self._do(found, *arguments)

    def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        number, self.calls = self.calls, self.calls + 1
        told = self._words and call.__name__ == "write" and self._words in arguments[1]
        if told or (number == self._at and not self._after):
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments)
        if number == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


CALLS = {name for name in vars(Disk) if not name.startswith("_")}


def carry_out(request: Request) -> int:
    """The journey of `request`; how many calls to the file system it made."""
    disk = KillingDisk(request)
    if request.hello:
        _say_hello(request)
        return disk.calls
    endpoint = Endpoint(request.host, request.port, request.ca, mqtt_version=request.version)
    key = request.token and KeyOnToken(
        Path(request.token[0]), *request.token[1:3], Path(request.token[3])
    )
    options: dict[str, Any] = {
        "own_client_id": request.own_client_id,
        "connect": ADAPTERS[request.client],
        "terms": Terms(request.form),
        "retries": Retries(first_pause=0.05),
        "begin_anew": request.begin_anew,
        "calls": disk,
    }
    parameters = {"SerialNumber": request.serial}
    if request.claim is not None:
        claim = Credentials(*request.claim)
        provision(
            endpoint,
            claim,
            request.template,
            parameters,
            request.out,
            key=key or request.key,  # type: ignore[arg-type]
            **options,
        )
    else:
        renew(
            request.out,
            request.template,
            parameters,
            key=None if request.keep_key else key or request.key,  # type: ignore[arg-type]
            keep_key=request.keep_key,
            **options,
        )
    return disk.calls


def _say_hello(request: Request) -> None:
    """Connect by the paths that stay the same, and publish."""
    identity = load(request.out)
    certificate = identity.directory / "certificate.pem"
    credentials = (
        identity.token.with_certificate(certificate)
        if identity.token is not None
        else Credentials(certificate, identity.directory / "private.key")
    )
    endpoint = Endpoint(
        request.host,
        request.port,
        identity.directory / "ca.pem",
        mqtt_version=identity.mqtt_version,
    )
    client = ADAPTERS[request.client](endpoint, credentials, identity.client_id)
    client.publish(f"devices/{identity.client_id}/hello", b"", 1).result(5)
    client.disconnect().result(5)


def main() -> None:
    """Serve requests until the input ends."""
    logging.disable()  # a request that fails says why
    for line in sys.stdin:
        request = Request(**json.loads(line))
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(writes, str(carry_out(request)).encode())
                code = 0
            except InDoubt:
                code = IN_DOUBT
            except ProvisioningError as error:
                os.write(2, f"{request}: {error.message}\n".encode())
            except Exception:  # the fork must not go on as its parent would
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        os.close(writes)
        if request.seconds is not None:
            time.sleep(request.seconds)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reads, "rb") as stream:
            calls = int(stream.read() or 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)} {calls}\n")
        sys.stdout.flush()


class Children:
    """The process that does the requests, seen from the test.

    `variables` are more for its environment: what is read once (SOFTHSM2_CONF) is read there.
    `tokens` is where SoftHSM keeps its tokens. It writes a token anew at each login, in place: who
    kills it then has no token any more. A real one is not in the process that dies, so what was
    there is put back.
    """

    def __init__(self, variables: Mapping[str, str], tokens: Path | None) -> None:
        self._variables = variables
        self._tokens = tokens

    def __enter__(self) -> Self:
        if self._tokens is not None:
            shutil.copytree(self._tokens, f"{self._tokens}.kept")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.device.killed_child"],
            cwd=ROOT,
            env={**os.environ, **self._variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def do(self, request: Request) -> tuple[int, int]:
        """Exit code, and number of calls if it was not killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(request)) + "\n")
        self._process.stdin.flush()
        code, calls = self._process.stdout.readline().split()
        if int(code) == -signal.SIGKILL and self._tokens is not None:
            shutil.rmtree(self._tokens)
            shutil.copytree(f"{self._tokens}.kept", self._tokens)
        return int(code), int(calls)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


if __name__ == "__main__":
    main()
