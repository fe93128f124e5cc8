"""Onboardings whose key the server makes, against making RSA-2048 keys and nothing else.

Sustained: the stock of keys is spent before the clock runs. Nothing is pinned, and both sides
use all cores; but the devices, too, run on this machine here. So the reference is also given for
the cores that the load leaves. Burst: fewer onboardings than there are keys in stock, against as
many by CSR.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa

from bench import rig
from bench.fleet import Fleet, set_up
from fleetgate.operations.rsa_keys import STOCK

TURNS = 2
THREADS = 8
BURSTS = 8
BURST = STOCK // 2
BURST_THREADS = 4


def make_keys(seconds: float) -> int:
    """Makes RSA-2048 keys for so long; how many."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        count += 1
    return count


def run(options: argparse.Namespace, directory: Path) -> None:
    """Measures and prints."""
    seconds, cores = options.seconds, len(rig.CORES)
    rig.heading(f"keys: onboardings with keys made by the server, {TURNS} turns of {seconds:g} s")
    alone: list[float] = []
    ours: list[rig.Turn] = []
    with (
        ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool,
        rig.fleetgate(directory / "server", rig.ALL_CORES) as server,
    ):
        fleet = set_up(server, directory)
        for _ in range(TURNS):
            server.settle()
            alone.append(sum(pool.map(make_keys, [seconds] * cores)) / seconds)
            rig.take_turn(server, fleet.keys_onboardings(2 * STOCK), THREADS, rig.ALL_CORES)
            work = fleet.keys_onboardings(round(alone[-1] * seconds))
            ours.append(rig.take_turn(server, work, THREADS, rig.ALL_CORES))
        bursts = [_bursts(server, fleet) for _ in range(BURSTS)]

    rig.line(f"RSA-2048 keys alone, {cores} cores", rig.median(alone), "/s")
    rig.line("keys onboardings", rig.median(each.rate for each in ours), "/s", rig.limit(ours))
    rates = [each.rate for each in ours]
    rig.line("onboardings / keys alone", rig.ratio(zip(rates, alone, strict=True)), "x")
    left = [
        rate * (1 - turn.load_cpu / turn.wall / cores)
        for rate, turn in zip(alone, ours, strict=True)
    ]
    rig.line("RSA-2048 keys alone, on the cores the load leaves", rig.median(left), "/s")
    rig.verdict(
        "onboardings / keys on the cores the load leaves",
        rig.ratio(zip(rates, left, strict=True)),
        least=0.9,
    )
    rig.line(f"CSR onboarding, {BURST_THREADS} at a time", rig.median(b[1] for b in bursts), "ms")
    rig.line(f"keys onboarding, burst of {BURST}", rig.median(b[0] for b in bursts), "ms")
    rig.verdict("keys / CSR onboarding, within the stock", rig.ratio(bursts), most=1.3)


def _bursts(server: rig.Fleetgate, fleet: Fleet) -> tuple[float, float]:
    """Median milliseconds of an onboarding in a burst by keys, and in one by CSR."""
    found = []
    for work in (list(fleet.keys_onboardings(BURST)), list(fleet.csr_onboardings(BURST))):
        server.settle()
        turn = rig.take_turn(server, work, BURST_THREADS, rig.ALL_CORES)
        found.append(rig.median(turn.latencies) * 1e3)
    by_keys, by_csr = found
    return by_keys, by_csr
