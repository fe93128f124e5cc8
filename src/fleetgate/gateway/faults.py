"""The fault scripts of a running server: which there are, how far they are, what they did.

A server that was not started for faults has no `Faults`, and its connections find None where they
would ask it. What to do is decided in `fleetgate.gateway.fault_script`, and done to connections in
`fleetgate.gateway.fault_injection`; scripts come from a file at the start, under the name DEFAULT,
and over HTTP (`fleetgate.gateway.fault_door`).

Scripts are asked in the order of their arrival; a fault that ends an event hides it from the
scripts behind its own too. A script that is put anew begins to count anew. Everything that is kept
has a bound: the oldest counts are forgotten, which only a server with more client ids than
MAX_COUNTS sees, and so are the oldest injections, of which `forgotten` says how many.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fleetgate.errors import InvalidFaultScript
from fleetgate.gateway.fault_reading import parse_script
from fleetgate.gateway.fault_script import (
    REGISTER,
    Count,
    Event,
    Fault,
    Injection,
    Script,
    decide,
)
from fleetgate.mqtt.fields import shown
from fleetgate.wire.model import Service

log = logging.getLogger("fleetgate.faults")

DEFAULT: Final = "default"
MAX_SCRIPTS: Final = 1000
MAX_COUNTS: Final = 100_000
MAX_INJECTIONS: Final = 1000

_METHOD: Final = "PUBLISH"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A fault that is to happen now, and the name of its script."""

    script: str
    injection: Injection

    @property
    def fault(self) -> Fault:
        """The fault as the script has it."""
        return self.injection.fault

    @property
    def do(self) -> str:
        """What is to happen."""
        return self.injection.fault.do

    @property
    def seconds(self) -> float:
        """The seconds that were drawn."""
        return self.injection.seconds

    @property
    def cause(self) -> str:
        """For the log and for those who are told."""
        return f"fault {self.injection.number} of the fault script `{self.script}`: {self.do}"


@dataclass(slots=True)
class _Loaded:
    """A script with its counts, by fault and client id, and its last injections."""

    script: Script
    counts: OrderedDict[tuple[int, str], Count] = field(default_factory=OrderedDict)
    matched: dict[int, int] = field(default_factory=dict)
    injected: dict[int, int] = field(default_factory=dict)
    injections: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_INJECTIONS))

    def count_of(self, number: int, client_id: str) -> Count:
        key = (number, client_id)
        found = self.counts.get(key)
        if found is None:
            found = self.counts[key] = Count()
            if len(self.counts) > MAX_COUNTS:
                self.counts.popitem(last=False)
        else:
            self.counts.move_to_end(key)
        self.matched[number] = self.matched.get(number, 0) + 1
        return found


class Faults:
    """See the module. `token_seconds` is how long ownership tokens live, `wall` the time of day."""

    def __init__(self, model: Service, token_seconds: float, wall: Callable[[], float]) -> None:
        self.token_seconds = token_seconds
        self._model = model
        self._wall = wall
        self._scripts: dict[str, _Loaded] = {}

    def load(self, file: Path) -> None:
        """Takes the script of a file as DEFAULT. Raises InvalidFaultScript."""
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InvalidFaultScript(f"it cannot be read: {error}") from None
        self.put(DEFAULT, parse_script(text))

    def put(self, name: str, script: Script) -> None:
        """Takes a script, in the place of one of that name. Raises InvalidFaultScript."""
        if name not in self._scripts and len(self._scripts) >= MAX_SCRIPTS:
            raise InvalidFaultScript(f"there are {MAX_SCRIPTS} scripts already, which is the limit")
        self._scripts.pop(name, None)  # a new one comes last
        self._scripts[name] = _Loaded(script)
        log.warning(
            "event=fault-script script=%r seed=%d faults=%d", name, script.seed, len(script.faults)
        )

    def remove(self, name: str) -> bool:
        """Forgets a script; was it there?"""
        if self._scripts.pop(name, None) is None:
            return False
        log.warning("event=fault-script-removed script=%r", name)
        return True

    @property
    def names(self) -> Sequence[str]:
        """The names of the scripts, in the order in which they are asked."""
        return tuple(self._scripts)

    def describe(self, name: str) -> dict[str, Any] | None:
        """A script, with what it has done so far; None when it is not there."""
        loaded = self._scripts.get(name)
        if loaded is None:
            return None
        total = sum(loaded.injected.values())
        return {
            "name": name,
            "seed": loaded.script.seed,
            "faults": [
                {
                    "fault": number,
                    **fault.shown(),
                    "matched": loaded.matched.get(number, 0),
                    "injected": loaded.injected.get(number, 0),
                }
                for number, fault in enumerate(loaded.script.faults, 1)
            ],
            "injections": list(loaded.injections),
            "forgotten": total - len(loaded.injections),
        }

    # --- for the injection -------------------------------------------------------------------

    def operation_of(self, topic: str) -> tuple[str, str, str]:
        """The operation of a request topic, its template or "", and its payload format."""
        found = self._model.route(_METHOD, topic)
        if found is None:
            raise ValueError(f"{topic} is no request topic")
        operation, labels = found
        template = labels["templateName"] if operation.name == REGISTER else ""
        return operation.name, template, labels["payloadFormat"]

    def at(self, event: Event) -> list[Chosen]:
        """What is to happen at an event, in order; one that ends it is the last. It is logged."""
        chosen: list[Chosen] = []
        for name, loaded in self._scripts.items():
            found = decide(loaded.script, event, loaded.count_of)
            for each in found:
                self._note(name, loaded, each, event)
                chosen.append(Chosen(name, each))
            if found and found[-1].fault.ends:
                break
        return chosen

    def _note(self, name: str, loaded: _Loaded, each: Injection, event: Event) -> None:
        number, do = each.number, each.fault.do
        loaded.injected[number] = loaded.injected.get(number, 0) + 1
        noted: dict[str, Any] = {
            "fault": number,
            "do": do,
            "on": event.on,
            "moment": event.moment,
            "client": event.client_id,
            "certificate": event.certificate_id,
            "count": each.count,
        }
        further = ""
        if event.template:
            noted["template"] = event.template
            further += f" template={shown(event.template)}"
        if event.topic:
            noted["topic"] = event.topic
            further += f" topic={shown(event.topic)}"
        if each.seconds:
            noted["seconds"] = each.seconds
            further += f" seconds={each.seconds:g}"
        noted["time"] = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        loaded.injections.append(noted)
        log.warning(
            "event=fault script=%r fault=%d do=%s on=%s moment=%s client=%r certificate=%s "
            "count=%d%s",
            *(name, number, do, event.on, event.moment, event.client_id),
            *(event.certificate_id, each.count, further),
        )
