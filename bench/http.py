"""CreateThing over HTTP, signed and durable, against bare durable inserts into SQLite.

Requests are signed (SigV4) before the clock runs, and sent over connections that stay open. The
reference does, on the same disk, what durability costs at least: one row and one commit at a
time, WAL, synchronous=FULL.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import queue
import socket
import sqlite3
import time
import urllib.parse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench import rig
from fleetgate.data_directory import read_credentials

TURNS = 3
CONNECTIONS = (1, 32)
REQUESTS = 1500

_BODY = json.dumps({"attributePayload": {"attributes": {"model": "bench"}}})
_numbers = itertools.count()

Open = queue.SimpleQueue[socket.socket]


def run(options: argparse.Namespace, directory: Path) -> None:  # noqa: ARG001
    """Measures and prints."""
    rig.heading(f"http: CreateThing, {TURNS} turns of {REQUESTS} requests")
    turns: dict[int, list[rig.Turn]] = {each: [] for each in CONNECTIONS}
    floors: list[tuple[float, float]] = []
    with rig.fleetgate(directory / "server", rig.SERVER_CORE) as server:
        _take_turn(server, CONNECTIONS[-1])  # warm up
        for number in range(TURNS):
            floors.append(_commits(directory / f"floor-{number}.db"))
            for connections, taken in turns.items():
                taken.append(_take_turn(server, connections))
    commits = [each[0] for each in floors]
    rig.line("SQLite alone, one insert per commit", rig.median(commits), "/s")
    rig.line("  CPU of an insert", rig.median(each[1] for each in floors), "ms")
    for connections, taken in turns.items():
        rates = [each.rate for each in taken]
        rig.line(f"CreateThing, {connections} at a time", rig.median(rates), "/s", rig.limit(taken))
        rig.line("  server CPU of a call", rig.median(each.cost for each in taken), "ms")
        latency = rig.median(rig.median(each.latencies) for each in taken) * 1e3
        rig.line("  from request to answer, median", latency, "ms")
        pairs = zip(rates, commits, strict=True)
        rig.line("  CreateThing / commits alone, by rate", rig.ratio(pairs), "x")


def _take_turn(server: rig.Fleetgate, connections: int) -> rig.Turn:
    requests = list(_signed(server, REQUESTS))
    address = urllib.parse.urlsplit(server.endpoints.http_url)
    opened: Open = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(connections):
            connection = socket.create_connection((address.hostname, address.port), timeout=30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.put(stack.enter_context(connection))
        work = [partial(_call, opened, request) for request in requests]
        return rig.take_turn(server, work, connections)


def _signed(server: rig.Fleetgate, count: int) -> Iterator[bytes]:
    """HTTP requests that create so many things."""
    keys = read_credentials(server.data)
    signer = SigV4Auth(
        Credentials(keys.access_key_id, keys.secret_access_key), "iot", server.endpoints.region
    )
    url = server.endpoints.http_url
    for _ in range(count):
        path = f"/things/bench-{next(_numbers)}"
        headers = {
            "Host": urllib.parse.urlsplit(url).netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(_BODY)),
        }
        request = AWSRequest("POST", url + path, headers, _BODY)
        signer.add_auth(request)
        lines = [
            f"POST {path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in request.headers.items()),
        ]
        yield "\r\n".join([*lines, "", _BODY]).encode()


def _call(opened: Open, request: bytes) -> None:
    """Sends a request over one of the connections and reads the answer."""
    connection = opened.get()
    connection.sendall(request)
    answer = connection.recv(65536)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"CreateThing was answered {head!r} {body!r}")
    opened.put(connection)


def _commits(file: Path) -> tuple[float, float]:
    """Commits per second, and milliseconds of CPU for one."""
    with (
        contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection,
        rig.pinned(rig.SERVER_CORE),
    ):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE thing (name TEXT NOT NULL PRIMARY KEY, attributes TEXT)")
        wall, cpu = time.perf_counter(), time.thread_time()
        for number in range(REQUESTS):
            row = (f"bench-{number}", _BODY)
            connection.execute("INSERT INTO thing (name, attributes) VALUES (?, ?)", row)
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        return REQUESTS / wall, cpu / REQUESTS * 1e3
