"""Memory per idle device connection, against mosquitto.

What is measured is the growth of the resident memory (VmRSS) of the server's process while
connections are opened that then do nothing: MQTT 3.1.1 over TLS 1.3, one certificate. A few
opened before that pay for what is needed once.
"""

from __future__ import annotations

import argparse
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bench import rig
from bench.fleet import Fleet, set_up

FIRST = 50
THREADS = 16


def run(options: argparse.Namespace, directory: Path) -> None:
    """Measures and prints."""
    count = options.connections
    rig.heading(f"idle: memory of {count} idle connections")
    with (
        rig.fleetgate(directory / "server", rig.SERVER_CORE) as server,
        rig.mosquitto(server, rig.SERVER_CORE) as mosquitto,
    ):
        fleet = set_up(server, directory)
        ours = _growth(fleet, server, count)
        if mosquitto is not None:
            theirs = _growth(fleet, mosquitto, count)
            rig.line("mosquitto, per connection", theirs, "KB")
            rig.line("fleetgate / mosquitto", ours / theirs, "x")
    rig.verdict("fleetgate, per connection", ours, "KB", most=40)


def _growth(fleet: Fleet, server: rig.Process, count: int) -> float:
    """Kilobytes (1024 bytes) by which the process grows for each connection."""
    with contextlib.ExitStack() as stack:

        def open_(first: int, last: int) -> int:
            names = [f"idle-{number}" for number in range(first, last)]
            with rig.pinned(rig.LOAD_CORE), ThreadPoolExecutor(THREADS) as pool:
                for connection in pool.map(partial(fleet.connect, port=server.port), names):
                    stack.enter_context(connection)
            return server.resident

        before = open_(0, FIRST)
        return (open_(FIRST, FIRST + count) - before) / count / 1024
