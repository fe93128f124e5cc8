"""From the start of the process until GET /_fleetgate/health is answered, on an empty directory.

This includes making the authority's RSA key and the database. Beside it, what starting Python
alone takes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from bench import rig

TURNS = 5


def run(options: argparse.Namespace, directory: Path) -> None:  # noqa: ARG001
    """Measures and prints."""
    rig.heading(f"start: to ready on an empty directory, {TURNS} times")
    ours: list[float] = []
    python: list[float] = []
    for number in range(TURNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        python.append(time.perf_counter() - begun)
        data = directory / str(number)
        begun = time.perf_counter()
        with rig.serving(data, rig.ALL_CORES):
            ours.append(time.perf_counter() - begun)
    rig.line("python -c pass", rig.median(python), "s")
    rig.line("fleetgate serve, the slowest", max(ours), "s")
    rig.verdict("fleetgate serve, ready", rig.median(ours), "s", most=1)
