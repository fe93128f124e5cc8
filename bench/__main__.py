"""``python -m bench``: measures Fleetgate beside its references; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import sysconfig
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from fleetgate.gateway import openssl

MEASUREMENTS = {
    "csr": "CSR onboardings beside bare connects to mosquitto and the crypto floor",
    "keys": "keys onboardings beside RSA-2048 key generation alone",
    "http": "CreateThing over HTTP beside bare durable inserts",
    "control": "CreateThing and DescribeThing beside moto_server",
    "registry": "RegisterThing with many things beside few",
    "bulk": "bulk registration beside RegisterThing over HTTP",
    "hook": "onboardings with a hook, and while the hook of another template sleeps",
    "idle": "memory per idle connection beside mosquitto",
    "start": "time from start to ready",
    "device": "importing the device library beside what it is built on",
}


def main() -> None:
    """Runs the measurements that are named, or all of them."""
    # The crypto floor has to run on OpenSSL as the server sets it up, and it is set up once.
    openssl.load()
    options = _options()
    print(_machine())
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one for the server, one for the load")
    begun = time.monotonic()
    for name in options.measurements or MEASUREMENTS:
        others, since = _others_cpu(), time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"fleetgate-bench-{name}-") as directory:
            importlib.import_module(f"bench.{name}").run(options, Path(directory))
        share = (_others_cpu() - others) / (time.monotonic() - since) / (os.cpu_count() or 1)
        print(f"  (other processes had {max(share, 0):.0%} of the machine meanwhile)")
    print(f"\ndone in {time.monotonic() - begun:.0f} s")


def _machine() -> str:
    """Where and when: what a figure means nothing without."""
    from cryptography.hazmat.backends.openssl.backend import backend

    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} vCPU ({platform.machine()}), "
        f"load average {os.getloadavg()[0]:.2f}\n"
        f"Python {platform.python_version()} ({'' if optimised else 'not '}built with "
        f"--enable-optimizations), server on {backend.openssl_version_text()}"
    )


def _others_cpu() -> float:
    """Seconds of CPU that was not used by this process and its children, since the machine booted.

    The children count when they have ended (times(2), proc(5): /proc/stat).
    """
    user, nice, system, _idle, _iowait, irq, softirq, *_ = (
        int(each) for each in Path("/proc/stat").read_text().split()[1:11]
    )
    busy = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Measures Fleetgate beside its references, in the same run.",
        epilog="\n".join(f"  {name:<10} {what}" for name, what in MEASUREMENTS.items()),
    )
    parser.add_argument(
        "measurements", nargs="*", metavar="MEASUREMENT", help="which ones; all by default"
    )
    add = parser.add_argument
    add("--onboardings", type=int, default=100, help="CSR onboardings in a turn (%(default)s)")
    add("--things", type=int, default=200_000, help="things in the full registry (%(default)s)")
    add("--lines", type=int, default=100_000, help="lines of a bulk registration (%(default)s)")
    add("--connections", type=int, default=500, help="idle connections (%(default)s)")
    add("--seconds", type=float, default=6.0, help="of a turn of key generation (%(default)s)")
    options = parser.parse_args()
    unknown = [each for each in options.measurements if each not in MEASUREMENTS]
    if unknown:
        parser.error(f"no measurement `{unknown[0]}`; there are {', '.join(MEASUREMENTS)}")
    return options


if __name__ == "__main__":
    main()
