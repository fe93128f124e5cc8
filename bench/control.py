"""CreateThing + DescribeThing over HTTP, beside ``moto_server`` in the same run.

Fleetgate answers an IAM user whose policy allows just these two operations, over connections that
stay open: every signature is checked, the policy evaluated, every thing on the disk before its
answer. moto keeps things in memory and, as it is started by default, checks neither signature nor
policy; it closes the connection after each answer. Both get the same requests, signed before the
clock runs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import queue
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench import rig

TURNS = 5
THINGS = 1000
"""Things of a turn at Fleetgate; moto gets a fifth of them, to take a like time."""
CONNECTIONS = 16

_BODY = json.dumps({"attributePayload": {"attributes": {"model": "bench"}}})
_POLICY = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Action": ["iot:CreateThing", "iot:DescribeThing"],
        "Resource": "arn:aws:iot:*:*:thing/bench-*",
    },
}
_PATIENCE = 30.0
_numbers = itertools.count()

Pair = tuple[bytes, bytes]
Send = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class _Server:
    """Where a server is, and who calls it."""

    process: rig.Process
    url: str
    credentials: Credentials
    connections: int


def run(options: argparse.Namespace, directory: Path) -> None:  # noqa: ARG001
    """Measures and prints."""
    rig.heading(f"control: CreateThing + DescribeThing, {TURNS} turns of {THINGS} pairs")
    with (
        rig.fleetgate(directory / "server", rig.SERVER_CORE) as server,
        _moto(directory / "moto.log") as moto,
    ):
        ours = _Server(server, server.endpoints.http_url, _user(server), CONNECTIONS)
        one = _Server(server, server.endpoints.http_url, ours.credentials, 1)
        # more connections at a time only make moto slower
        theirs = _Server(moto, f"http://127.0.0.1:{moto.port}", Credentials("a" * 20, "b"), 1)
        servers = ours, one, theirs
        for each in servers:  # warm up
            _take_turn(each, THINGS // 10)
        turns = [
            (
                _take_turn(ours, THINGS),
                _take_turn(one, THINGS // 2),
                _take_turn(theirs, THINGS // 5),
            )
            for _ in range(TURNS)
        ]
    for name, taken in zip(
        (f"Fleetgate, {CONNECTIONS} at a time", "Fleetgate, 1 at a time", "moto_server"),
        zip(*turns, strict=True),
        strict=True,
    ):
        # a piece of work is two requests
        rate = 2 * rig.median(each.rate for each in taken)
        rig.line(f"{name}, requests", rate, "/s", rig.limit(taken))
        rig.line("  server CPU of a request", rig.median(each.cost / 2 for each in taken), "ms")
    rate = rig.ratio((ours.rate, moto.rate) for ours, _, moto in turns)
    rig.verdict("rate, Fleetgate / moto", rate, least=10)
    rig.line(
        "rate 1 at a time, Fleetgate / moto", rig.ratio((o.rate, m.rate) for _, o, m in turns), "x"
    )
    cost = rig.ratio((moto.cost, ours.cost) for ours, _, moto in turns)
    rig.line("server CPU, moto / Fleetgate", cost, "x")


@contextlib.contextmanager
def _moto(log: Path) -> Iterator[rig.Process]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-p", str(port)]
    with rig.started(command, rig.SERVER_CORE, log) as popen:
        _await(popen, port)
        yield rig.Process(popen, port)


def _await(popen: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if popen.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("moto_server did not start")
        time.sleep(0.05)


def _user(server: rig.Fleetgate) -> Credentials:
    """Makes an IAM user who may do just what is measured."""
    with server.client("iam") as iam:
        iam.create_user(UserName="bench")
        iam.put_user_policy(
            UserName="bench", PolicyName="bench", PolicyDocument=json.dumps(_POLICY)
        )
        key = iam.create_access_key(UserName="bench")["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


def _take_turn(server: _Server, count: int) -> rig.Turn:
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    signer = SigV4Auth(server.credentials, "iot", region)
    pairs = [_signed(server.url, signer) for _ in range(count)]
    address = urllib.parse.urlsplit(server.url)
    callers: queue.SimpleQueue[Send] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(server.connections):
            caller = stack.enter_context(_Caller(str(address.hostname), address.port or 80))
            callers.put(caller.send)
        work = [partial(_create_and_describe, callers, pair) for pair in pairs]
        return rig.take_turn(server.process, work, server.connections)


def _signed(url: str, signer: SigV4Auth) -> Pair:
    """The two requests of one thing."""
    path = f"/things/bench-{next(_numbers)}"
    return _request(url, signer, "POST", path, _BODY), _request(url, signer, "GET", path, "")


def _request(url: str, signer: SigV4Auth, method: str, path: str, body: str) -> bytes:
    headers = {"Host": urllib.parse.urlsplit(url).netloc, "Content-Length": str(len(body))}
    if body:
        headers["Content-Type"] = "application/json"
    request = AWSRequest(method, url + path, headers, body)
    signer.add_auth(request)
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in request.headers.items()),
    ]
    return "\r\n".join([*lines, "", body]).encode()


def _create_and_describe(callers: queue.SimpleQueue[Send], pair: Sequence[bytes]) -> None:
    send = callers.get()
    for request in pair:
        answer = send(request)
        if b'"thingName"' not in answer:
            raise RuntimeError(f"{request[:60]!r} was answered {answer!r}")
    callers.put(send)


class _Caller:
    """One caller: keeps its connection as long as the server does."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._connection: socket.socket | None = None

    def __enter__(self) -> _Caller:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def send(self, request: bytes) -> bytes:
        """Sends a request; returns the body of an answer 200. Raises RuntimeError for others."""
        if self._connection is None:
            self._connection = socket.create_connection(self._address, timeout=_PATIENCE)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._connection
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        lowered = head.lower()
        length = int(lowered.partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        if b" 200 " not in head[:16]:
            raise RuntimeError(f"{request[:60]!r} was answered {head!r} {body!r}")
        if b"connection: close" in lowered or lowered.startswith(b"http/1.0"):
            connection.close()
            self._connection = None
        return body
