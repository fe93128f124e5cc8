"""What every measurement stands on: the two servers, pinned cores, CPU clocks, printing.

A server under measurement runs as its users run it: a process of its own, pinned to the first
core this process may use. The load comes from threads of this process on the last one. CPU time
of a server is what the operating system has charged to its process: utime + stime of all its
threads, as in /proc/PID/stat but read from the process's CPU clock, which counts nanoseconds
(clock_getcpuclockid(3)). Its children, which make RSA keys ahead of demand, do not count; a
measurement begins when they are idle.

The same machine gives figures that differ by a tenth and more from minute to minute. So what is
compared is measured in turns, and the medians of the turns are printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from fleetgate.data_directory import Endpoints, read_credentials, read_endpoints

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {CORES[0]}
LOAD_CORE = {CORES[-1]}
ALL_CORES = set(CORES)
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""The runtime of functions in the Python of the server, which is this one."""

_PATIENCE = 30.0
_POLL = 0.002


@dataclass(slots=True)
class Process:
    """A running server: where it listens for MQTT, and the process."""

    popen: subprocess.Popen[bytes]
    port: int

    @property
    def cpu(self) -> float:
        """Seconds of CPU used so far by all threads of the process, without its children."""
        return time.clock_gettime(_cpu_clock(self.popen.pid))

    @property
    def resident(self) -> int:
        """Bytes of memory in RAM (VmRSS)."""
        pages = Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def children_cpu(self) -> float:
        """Seconds of CPU used so far by the children that are alive, and theirs."""
        return sum(time.clock_gettime(_cpu_clock(child)) for child in _below(self.popen.pid))

    def settle(self) -> None:
        """Waits until the children have nothing to do: the stock of RSA keys is full."""
        deadline = time.monotonic() + _PATIENCE
        before = -1.0
        while (now := self.children_cpu()) > before:
            if time.monotonic() > deadline:
                raise RuntimeError("the server's children do not come to rest")
            before = now
            time.sleep(0.3)


@dataclass(slots=True)
class Fleetgate(Process):
    """`fleetgate serve` on a data directory."""

    data: Path
    endpoints: Endpoints

    @property
    def ca(self) -> Path:
        """The authority that devices trust the server by."""
        return Path(self.endpoints.ca_file)

    @contextlib.contextmanager
    def client(self, service: str) -> Iterator[Any]:
        """A boto3 client of a service, with the root user's credentials."""
        credentials = read_credentials(self.data)
        client = boto3.client(
            service,
            endpoint_url=self.endpoints.http_url,
            region_name=self.endpoints.region,
            aws_access_key_id=credentials.access_key_id,
            aws_secret_access_key=credentials.secret_access_key,
        )
        with contextlib.closing(client):
            yield client


@contextlib.contextmanager
def fleetgate(data: Path, cores: set[int], *options: str) -> Iterator[Fleetgate]:
    """A Fleetgate server on the directory `data`: ready and at rest; stopped at the end."""
    with serving(data, cores, *options) as server:
        server.settle()
        yield server


@contextlib.contextmanager
def serving(data: Path, cores: set[int], *options: str) -> Iterator[Fleetgate]:
    """A Fleetgate server that has just become ready."""
    executable = Path(sys.executable).with_name("fleetgate")
    addresses = ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]
    command = [str(executable), "serve", "--data", str(data), *addresses, *options]
    with started(command, cores, data.with_suffix(".log")) as popen:
        endpoints = _ready(popen, data)
        yield Fleetgate(popen, endpoints.mqtt_port, data, endpoints)


def _ready(popen: subprocess.Popen[bytes], data: Path) -> Endpoints:
    """Waits until the server on `data` answers GET /_fleetgate/health."""
    deadline = time.monotonic() + _PATIENCE
    while not (data / "endpoints.json").exists():
        if popen.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start: {data.with_suffix('.log').read_text()}")
        time.sleep(_POLL)
    endpoints = read_endpoints(data)
    with urllib.request.urlopen(f"{endpoints.http_url}/_fleetgate/health", timeout=5) as answer:  # noqa: S310
        if json.load(answer)["status"] != "ok":
            raise RuntimeError("the server is not healthy")
    return endpoints


MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
"""The reference for TLS and MQTT (Debian package mosquitto)."""


@contextlib.contextmanager
def mosquitto(beside: Fleetgate, cores: set[int]) -> Iterator[Process | None]:
    """A mosquitto with the authority, certificate and key of `beside`; None if not installed."""
    if MOSQUITTO is None:
        print("  mosquitto is not installed: what is compared with it is left out")
        yield None
        return
    data = beside.data
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = [
        f"listener {port} 127.0.0.1",
        f"cafile {data / 'ca.pem'}",
        f"certfile {data / 'server.pem'}",
        f"keyfile {data / 'server.key'}",
        "require_certificate true",
        "use_identity_as_username true",
        "tls_version tlsv1.3",
        *(["user root"] if os.geteuid() == 0 else []),
    ]
    configuration = data.with_name("mosquitto.conf")
    configuration.write_text("\n".join(lines) + "\n")
    command = [MOSQUITTO, "-c", str(configuration)]
    with started(command, cores, data.with_name("mosquitto.log")) as popen:
        deadline = time.monotonic() + _PATIENCE
        while not _listens(port):
            if popen.poll() is not None or time.monotonic() > deadline:
                log = data.with_name("mosquitto.log").read_text()
                raise RuntimeError(f"mosquitto did not start: {log}")
            time.sleep(_POLL)
        yield Process(popen, port)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def started(
    command: Sequence[str], cores: set[int], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process on `cores`, its output in `log`; terminated at the end."""
    with log.open("ab") as output, pinned(cores):
        popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield popen
    finally:
        popen.terminate()
        try:
            popen.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
            raise


def _below(pid: int) -> Iterator[int]:
    """The ids of all processes that a process and its children have started."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from _below(child)


def _cpu_clock(pid: int) -> int:
    return ~pid << 3 | 2  # what clock_getcpuclockid(3) makes of a process id on Linux


@contextlib.contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """This thread, and what it starts, runs on `cores` alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# --- load -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a measurement took: seconds of the clock and of CPU, per piece of work."""

    count: int
    wall: float
    server_cpu: float
    load_cpu: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Pieces of work per second."""
        return self.count / self.wall

    @property
    def cost(self) -> float:
        """Milliseconds of server CPU for one piece of work."""
        return self.server_cpu / self.count * 1e3

    @property
    def per_second(self) -> tuple[float, float]:
        """Seconds of CPU that server and load used in a second."""
        return self.server_cpu / self.wall, self.load_cpu / self.wall


def take_turn(
    server: Process,
    work: Iterable[Callable[[], object]],
    threads: int,
    cores: set[int] = LOAD_CORE,
) -> Turn:
    """Does all pieces of `work` on so many threads, and says what that took."""

    def timed(piece: Callable[[], object]) -> float:
        begun = time.perf_counter()
        piece()
        return time.perf_counter() - begun

    pieces = list(work)
    with pinned(cores), ThreadPoolExecutor(threads) as pool:
        wall, server_cpu, load_cpu = time.perf_counter(), server.cpu, time.process_time()
        latencies = tuple(pool.map(timed, pieces))
        return Turn(
            len(pieces),
            time.perf_counter() - wall,
            server.cpu - server_cpu,
            time.process_time() - load_cpu,
            latencies,
        )


def limit(turns: Sequence[Turn]) -> str:
    """Who was busy: whose limit a rate is."""
    server, load = (median(each.per_second[side] for each in turns) for side in (0, 1))
    who = "the server" if server > 0.9 else "the load" if load > 0.85 else "neither"
    return f"limited by {who}: server {server:.0%}, load {load:.0%} of a core"


# --- printing ---------------------------------------------------------------------------------


def median(values: Iterable[float]) -> float:
    """The median, or NaN of nothing."""
    listed = list(values)
    return statistics.median(listed) if listed else float("nan")


def ratio(pairs: Iterable[tuple[float, float]]) -> float:
    """The median of figure / reference over the turns, each pair of one turn."""
    return median(figure / reference for figure, reference in pairs)


def heading(title: str) -> None:
    """Begins the output of a measurement."""
    print(f"\n{title}", flush=True)


def line(what: str, value: float, unit: str, note: str = "") -> None:
    """One figure."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 3 if abs(value) < 10 else 2
    print(f"  {what:<52} {value:>9.{digits}f} {unit:<6} {note}".rstrip(), flush=True)


def verdict(
    what: str, value: float, unit: str = "x", *, most: float | None = None, least: float = 0.0
) -> None:
    """A figure beside its target: `most` is an upper bound, without it `least` a lower one."""
    met = value <= most if most is not None else value >= least
    target = f"<= {most:g}" if most is not None else f">= {least:g}"
    line(what, value, unit, f"target {target}: {'met' if met else 'missed'}")
