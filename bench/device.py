"""What a device waits for before its library does anything: importing it, and one command.

Beside it, what starting Python alone takes, and importing the two libraries that it is built on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from bench import rig

TURNS = 11

LIBRARY = "import fleetgate.device.provision, fleetgate.device.paho_client"
LIBRARIES = "import paho.mqtt.client, cryptography.x509, ssl, json, logging"


def run(options: argparse.Namespace, directory: Path) -> None:  # noqa: ARG001
    """Measures and prints."""
    rig.heading(f"device: starting the device library, {TURNS} times")
    python = _median("-c", "pass")
    rig.line("python -c pass", python, "s")
    rig.line("importing paho-mqtt and cryptography", _median("-c", LIBRARIES) - python, "s")
    imported = _median("-c", LIBRARY) - python
    rig.line("fleetgate status, in all", _median("-m", "fleetgate", "status", str(directory)), "s")
    rig.verdict("importing fleetgate.device", imported, "s", most=0.3)


def _median(*arguments: str) -> float:
    """Seconds of a process of Python with these arguments."""
    took: list[float] = []
    for _ in range(TURNS + 1):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=False, capture_output=True)
        took.append(time.perf_counter() - begun)
    return rig.median(took[1:])  # the first one may read from the disk, or compile
