"""Journeys killed at random instants: ``python -m tests.device.random_kills --seeds 1000``.

Each seed is a device. It is provisioned, with a random MQTT client and version of MQTT, in JSON or
CBOR, and a key of a random kind: P-256, P-384, RSA 2048, the server's, or on a token (SoftHSM's;
with awscrt alone, as nothing else can use it, and nowhere without SoftHSM). Some of them are told
their client id beforehand, and half of them are renewed; each journey is killed up to three times,
after a random part of the time that one takes, and then run to its end. Every fifth is run to its
end when the tokens are over, as a device that was switched off for long; what is in doubt then is
decided as ``docs/device-files.md`` says. What must hold is that of ``test_kill.py``.
The seed decides on everything but the exact instant, which the operating system has a part in.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleetgate.device.identity import Identity
from tests.device.clients import ADAPTERS
from tests.device.kill_site import TOKEN_SECONDS, Site, site
from tests.device.killed_child import IN_DOUBT, Request
from tests.integration.server import environment

SLOW_KEYS = ("RSA-2048", "token")


def longest(at: Site) -> dict[str, float]:
    """Within how many seconds a journey is killed: as long as a whole one takes.

    By its client, and by its key where that is slow.
    """
    within = {}
    for what in (*ADAPTERS, *SLOW_KEYS):
        chosen: dict[str, Any] = {"client": what} if what in ADAPTERS else _with_key(at, what)
        at.until_done(at.request(f"first-{what}", **chosen))
        begun = time.monotonic()
        for number in range(2):
            at.until_done(at.request(f"whole-{what}-{number}", **chosen))
        within[what] = (time.monotonic() - begun) / 2
    return within


def _with_key(at: Site, kind: str) -> dict[str, Any]:
    """The options of a request for a key of this kind, or the next best one without a token."""
    if kind != "token":
        return {"key": kind}
    return {"client": "awscrt", "token": at.token} if at.token else {"client": "awscrt"}


@dataclass
class Seed:
    """A device that is killed at random.

    ``counted``: how often, by what the journal says; ``counted_keys``: how many by each kind.
    """

    at: Site
    number: int
    within: dict[str, float]
    counted: Counter[str] = field(default_factory=Counter)
    counted_keys: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.number)
        self.serial = f"seed-{self.number}"
        self.named = self.chance.random() < 0.5
        self.client = self.chance.choice(list(ADAPTERS))
        self.version = self.chance.choice([4, 5])
        self.form = self.chance.choice(["json", "cbor"])

    def run(self) -> None:
        """Everything."""
        self.kill_provisioning()
        self.finish()

    def kill_provisioning(self) -> None:
        """The first journey, which may be over by then or not."""
        kinds = ["P-256", "P-384", "RSA-2048", "server"]
        self.key = self.chance.choice([*kinds, *(["token"] * 3 if self.client == "awscrt" else [])])
        self.counted_keys[self.key] += 1
        self.request = self._options(self.at.request, **_with_key(self.at, self.key))
        self._kill(self.request)

    def finish(self) -> None:
        """Bring it to its end, and perhaps do another one."""
        self._end(self.request, None)
        first = self.at.present(self.serial)
        assert first is not None
        self.at.works(first)
        if self.chance.random() < 0.5:
            self.at.renewed.setdefault(self.serial, set()).add(first.certificate_id)
            keep_key = self.chance.random() < 0.5
            renewal = self._options(self.at.renewal, keep_key=keep_key)
            self._kill(renewal)
            self._end(renewal, first)
            second = self.at.present(self.serial)
            assert second is not None
            self.at.works(second)

    def _options(self, journey: Callable[..., Request], **options: Any) -> Request:
        own = {"client": self.client, "version": self.version, "form": self.form, **options}
        return journey(self.serial, named=self.named, **own)

    def _kill(self, request: Request) -> None:
        before = self.at.present(self.serial)
        for _ in range(self.chance.randint(1, 3)):
            whole = max(self.within[self.client], self.within.get(self.key, 0.0))
            seconds = self.chance.uniform(0.0, whole)
            self.at.children.do(replace(request, seconds=seconds))
            self.counted[_state(Path(request.out))] += 1
            if self.at.present(self.serial) != before:
                return  # it is done: a further renewal would be another one

    def _end(self, request: Request, before: Identity | None) -> None:
        """Do the journey once, in spite of everything."""
        if self.at.present(self.serial) != before:
            self.at.until_done(self.request)  # which finds it
            return
        code, _ = self.at.children.do(request)
        if code == IN_DOUBT:
            self.counted["in doubt"] += 1
            done = self.at.decide(request)
        else:
            assert code == 0, (code, request)
            done = self.at.until_done(self.request)
        assert done != before


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
    by_key: Counter[str] = Counter()
    for name in set(os.environ) - set(environment()):
        del os.environ[name]  # which would lead to another server, or another account
    with (
        tempfile.TemporaryDirectory(prefix="fleetgate-kill-") as directory,
        site(Path(directory)) as at,
    ):
        within = longest(at)
        late = []
        for number in range(arguments.first, arguments.first + arguments.seeds):
            seed = Seed(at, number, within, counted, by_key)
            if number % 5:
                seed.run()
            else:
                seed.kill_provisioning()
                late.append(seed)
            if (number + 1) % 100 == 0:
                print(f"{number + 1} devices, {time.monotonic() - begun:.0f} s", flush=True)  # noqa: T201
        pending = list(at.states().values()).count("PENDING_ACTIVATION")
        time.sleep(TOKEN_SECONDS)
        for seed in late:
            seed.finish()
        at.check()
        pending += at.wait_for_the_pending()
        at.check()
    in_doubt = counted.pop("in doubt", 0)
    key_kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(by_key.items()))
    states = ", ".join(f"{state} {count}" for state, count in sorted(counted.items()))
    print(  # noqa: T201
        f"{arguments.seeds} devices ({key_kinds}) have one working identity each; the claim is "
        "intact; "
        f"{pending} pending certificates went when their tokens ended.\n"
        f"killed {counted.total()} times, and the journal was left at: {states}.\n"
        f"{len(late)} devices were off until their tokens were over; {in_doubt} were in doubt then."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
