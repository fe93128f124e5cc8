"""Journeys killed at random instants: ``python -m tests.device.random_kills --seeds 1000``.

Each seed is a device. It is provisioned, by a key of a random kind, and half of them are renewed;
each journey is killed up to three times, after a random part of the time that one takes, and then
run to its end. What must hold is that of ``test_kill.py``. The seed decides on everything but the
exact instant, which the operating system has a part in.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.device.kill_site import Site, site
from tests.device.killed_child import Request


def longest(at: Site) -> float:
    """Within how many seconds a journey is killed: as long as a whole one takes, by three."""
    begun = time.monotonic()
    for number in range(3):
        at.until_done(at.request(f"whole-{number}"))
    return (time.monotonic() - begun) / 3


def one_seed(at: Site, seed: int, within: float) -> Counter[str]:
    """A device's journeys, each killed `within` seconds. How often, by what the journal says."""
    chance = random.Random(seed)
    serial = f"seed-{seed}"
    counted: Counter[str] = Counter()
    key = chance.choice(["P-256", "P-256", "P-384", "server"])
    _killed(at, at.request(serial, key=key), chance, within, counted)
    first = at.present(serial)
    assert first is not None
    at.works(first)
    if chance.random() < 0.5:
        keep_key = chance.random() < 0.5
        at.renewed.setdefault(serial, set()).add(first.certificate_id)
        _killed(at, at.renewal(serial, keep_key=keep_key), chance, within, counted)
        second = at.present(serial)
        assert second is not None
        at.works(second)
    return counted


def _killed(
    at: Site, request: Request, chance: random.Random, within: float, counted: Counter[str]
) -> None:
    """Do the journey once, in spite of everything."""
    before = at.present(request.serial)
    for _ in range(chance.randint(1, 3)):
        seconds = chance.uniform(0.0, within)
        at.children.do(Request(**{**vars(request), "seconds": seconds}))
        found = at.present(request.serial)
        counted[_state(Path(request.out))] += 1
        if found != before:
            break  # it is done: a further renewal would be another one
    found = at.present(request.serial)
    if found == before:
        done = at.until_done(request)
        assert done != before
    else:
        at.until_done(at.request(request.serial))  # which finds it


def _state(out: Path) -> str:
    try:
        return str(json.loads((out / "journal.json").read_bytes())["state"])
    except FileNotFoundError:
        return "no journal"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.device.random_kills"
    )
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many devices")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed")
    arguments = parser.parse_args()
    begun = time.monotonic()
    counted: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(prefix="fleetgate-kill-") as directory,
        site(Path(directory)) as at,
    ):
        within = longest(at)
        for number in range(arguments.seeds):
            counted += one_seed(at, arguments.first + number, within)
            if (number + 1) % 100 == 0:
                print(f"{number + 1} devices, {time.monotonic() - begun:.0f} s", flush=True)  # noqa: T201
        at.check()
        pending = at.wait_for_the_pending()
        at.check()
    states = ", ".join(f"{state} {count}" for state, count in sorted(counted.items()))
    print(  # noqa: T201
        f"{arguments.seeds} devices have one working identity each; the claim is intact; "
        f"{pending} pending certificates went when their tokens ended.\n"
        f"killed {sum(counted.values())} times, and the journal was left at: {states}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
