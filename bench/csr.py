"""Complete CSR onboardings against bare TLS connects to mosquitto, and against their own crypto.

An onboarding is: connect with the claim certificate, subscribe to four reply topics, create the
certificate from a CSR (P-256), register the thing (durably), disconnect, connect with the new
certificate, publish at QoS 1 and get the PUBACK, disconnect. A bare connect is: TLS 1.3 with a
client certificate, CONNECT, CONNACK, DISCONNECT; the certificates are the same ones.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from bench import floor, rig
from bench.fleet import Fleet, make_key, set_up

THREADS = 32
TURNS = 10


def run(options: argparse.Namespace, directory: Path) -> None:
    """Measures and prints."""
    count = options.onboardings
    rig.heading(f"csr: complete CSR onboardings, {TURNS} turns of {count}, {THREADS} at a time")
    ours: list[rig.Turn] = []
    connects: list[rig.Turn] = []
    theirs: list[rig.Turn] = []
    floors: list[floor.Floor] = []
    with (
        rig.fleetgate(directory / "server", rig.SERVER_CORE) as server,
        rig.mosquitto(server, rig.SERVER_CORE) as mosquitto,
    ):
        fleet = set_up(server, directory)
        csr = make_key(directory, "floor").csr
        rig.take_turn(server, fleet.csr_onboardings(count), THREADS)  # warm up
        for _ in range(TURNS):
            ours.append(rig.take_turn(server, fleet.csr_onboardings(count), THREADS))
            if mosquitto is not None:
                theirs.append(_connects(fleet, mosquitto, 2 * count))
            connects.append(_connects(fleet, server, 2 * count))
            floors.append(floor.measure(server.data, directory, csr, count))
    _print(ours, connects, theirs, floors)


def _connects(fleet: Fleet, server: rig.Process, count: int) -> rig.Turn:
    """So many bare connects to `server`."""
    work = [partial(_connect, fleet, server.port, f"device-{number}") for number in range(count)]
    return rig.take_turn(server, work, THREADS)


def _connect(fleet: Fleet, port: int, client_id: str) -> None:
    with fleet.connect(client_id, port):
        pass


def _print(
    ours: list[rig.Turn],
    connects: list[rig.Turn],
    theirs: list[rig.Turn],
    floors: list[floor.Floor],
) -> None:
    rig.line("server CPU per onboarding", rig.median(each.cost for each in ours), "ms")
    rig.line(
        "onboardings per second", rig.median(each.rate for each in ours), "/s", rig.limit(ours)
    )
    rig.line("1 / CPU: what a core can do", rig.median(1e3 / each.cost for each in ours), "/s")
    rig.line("CPU per two bare connects", rig.median(2 * each.cost for each in connects), "ms")
    rig.line("crypto floor, same libraries", rig.median(each.total for each in floors), "ms")
    parts = {
        "  two handshakes, server's side": [each.two_handshakes for each in floors],
        "  CSR parsed and verified": [each.csr for each in floors],
        "  RSA-2048 signature": [each.signature for each in floors],
        "  token sealed": [each.token for each in floors],
    }
    for what, values in parts.items():
        rig.line(what, rig.median(values), "ms")
    pairs = zip((each.cost for each in ours), (each.total for each in floors), strict=True)
    rig.line("onboarding / crypto floor", rig.ratio(pairs), "x")
    if theirs:
        costs = [2 * each.cost for each in theirs]
        rig.line("mosquitto, CPU per two bare connects", rig.median(costs), "ms", rig.limit(theirs))
        pairs = zip((each.cost for each in ours), costs, strict=True)
        rig.verdict("onboarding / two connects to mosquitto", rig.ratio(pairs), most=1.2)
