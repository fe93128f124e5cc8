"""Functions that are part of Fleetgate and look into the registry.

A template asks for one as for any other function, by an ARN with the name the configuration gives
it. What such a function decides it decides twice: `answer` says yes or no before anything is
built; `settle`, if there is one, says the last word inside the registration's own transaction, so
that a serial number is used up by the registration that succeeds and by no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fleetgate.domain.resources import Resources
from fleetgate.operations.call import Call
from fleetgate.store.engine import Tx

Settle = Callable[[Tx, Call, str, Resources], Sequence[str]]
"""``settle(tx, call, certificate_id, resources)``: raises AccessDeniedException to undo the
registration; returns the ids of other certificates it made INACTIVE."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function answers, as one in Lambda would, and what is to be done in the end.

    `reason` is for operators alone, in words: why it is no, or what was looked at. `announce` is
    called once the registration is stored, with what `settle` found out at last: the place for
    lines in the log, since a transaction may be run more than once.
    """

    value: Mapping[str, Any]
    settle: Settle | None = None
    reason: str = ""
    announce: Callable[[Call], None] | None = None


class BuiltInFunction(Protocol):
    """One function of the configuration (``{ builtin = "allow-list", ... }``)."""

    @property
    def description(self) -> str:
        """What is told to operators: ``builtin:allow-list serials.csv``."""
        ...

    async def answer(self, call: Call, event: Mapping[str, Any]) -> Answer:
        """Decides on an event; changes nothing."""
        ...
