"""What a journey does next, and that its journal is read back as it was written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fleetgate.device import journal as journals
from fleetgate.device.journal import Damaged, Goal, Journal, NextStep, Registration

GOAL = Goal("provision", "iot.example", 8883, "lamps", journals.digest({"SerialNumber": "1"}))
NOW = 1_800_000_000.0

ASKING = journals.begun(GOAL, 3, 2, "P-256", "claim-7")
ISSUED = journals.issued(ASKING, "ab" * 32, "the token", NOW, 3600.0)
REGISTERING = journals.registering(ISSUED)
REGISTERED = journals.registered(REGISTERING, Registration("lamp-1", "lamp-1", {"mode": "ä"}))
PROVEN = journals.proven(REGISTERED)
REJECTED = journals.not_registered(REGISTERING, rejected=True)
STATES = [ASKING, ISSUED, REGISTERING, REGISTERED, PROVEN]


@pytest.mark.parametrize(
    ("journal", "later", "step"),
    [
        (None, 0.0, NextStep.BEGIN),
        (ASKING, 0.0, NextStep.CREATE),
        (ASKING, 1e9, NextStep.CREATE),
        (ISSUED, 0.0, NextStep.REGISTER),
        (ISSUED, 3599.0, NextStep.REGISTER),
        (ISSUED, 3600.0, NextStep.BEGIN),
        (ISSUED, -1e9, NextStep.REGISTER),  # the clock was set back: the server knows better
        (REGISTERING, 0.0, NextStep.REGISTER),
        (REGISTERING, 1e9, NextStep.REGISTER),  # it may have been registered in time
        (REGISTERED, 1e9, NextStep.PROVE),
        (PROVEN, 1e9, NextStep.SWITCH),
        (journals.not_registered(REGISTERING), 0.0, NextStep.REGISTER),
        (journals.not_registered(REGISTERING), 3600.0, NextStep.BEGIN),
        (REJECTED, 0.0, NextStep.REGISTER),
        (REJECTED, 3600.0, NextStep.TRY),
        (journals.not_registered(journals.registering(REJECTED)), 3600.0, NextStep.TRY),
    ],
)
def test_what_comes_next(journal: Journal | None, later: float, step: NextStep) -> None:
    assert journals.next_step(journal, NOW + later) is step


def test_what_may_be_given_up() -> None:
    assert [journals.may_begin_anew(each) for each in STATES] == [True, True, False, False, False]


@pytest.mark.parametrize("journal", [*STATES, REJECTED, replace(ASKING, previous=None)])
def test_it_is_read_back_as_it_was(journal: Journal) -> None:
    assert journals.parse(journals.dump(journal).encode()) == journal


def test_a_token_is_not_shown_nor_kept_longer_than_needed() -> None:
    assert "the token" not in repr(ISSUED)
    assert "the token" not in journals.dump(REGISTERED)
    assert str(ISSUED) == f"certificate {'ab' * 32}"
    assert str(PROVEN) == f"thing `lamp-1`, certificate {'ab' * 32}"


def test_a_digest_does_not_depend_on_the_order() -> None:
    assert journals.digest({"a": "1", "b": "ü"}) == journals.digest({"b": "ü", "a": "1"})
    assert journals.digest({"a": "1"}) != journals.digest({"a": "2"})


def test_differences_are_named() -> None:
    other = Goal("renew", "x", 1, "y", "z")
    assert GOAL.differences(GOAL) == []
    assert GOAL.differences(other) == [
        *("another purpose", "another endpoint", "another port", "another template"),
        "other parameters",
    ]


@pytest.mark.parametrize(
    ("journal", "change", "member"),
    [
        (ASKING, {"version": 2}, "version"),
        (ASKING, {"state": "done"}, "state"),
        (ASKING, {"purpose": "x"}, "purpose"),
        (ASKING, {"endpoint": ""}, "endpoint"),
        (ASKING, {"port": "8883"}, "port"),
        (ASKING, {"port": True}, "port"),
        (ASKING, {"number": 0}, "number"),
        (ASKING, {"previous": "1"}, "previous"),
        (ASKING, {"clientId": None}, "clientId"),
        (ISSUED, {"certificateId": ""}, "certificateId"),
        (ISSUED, {"certificateOwnershipToken": 7}, "certificateOwnershipToken"),
        (ISSUED, {"tokenEnds": "soon"}, "tokenEnds"),
        (REGISTERED, {"registration": None}, "registration"),
        (REGISTERED, {"registration": {}}, "deviceConfiguration"),
        (
            REGISTERED,
            {"registration": {"deviceConfiguration": {"a": 1}, "clientId": "x"}},
            "deviceConfiguration",
        ),
        (REGISTERED, {"registration": {"deviceConfiguration": {}, "clientId": 7}}, "clientId"),
    ],
)
def test_what_is_wrong_is_named(journal: Journal, change: dict[str, Any], member: str) -> None:
    values = {**json.loads(journals.dump(journal)), **change}
    with pytest.raises(Damaged) as caught:
        journals.parse(json.dumps(values).encode())
    assert str(caught.value) == member


@pytest.mark.parametrize("content", [b"", b"gibberish", b"[]", b"[" * 100_000, b"\xff"])
def test_what_is_no_journal_is_refused(content: bytes) -> None:
    with pytest.raises(Damaged, match=r"^$"):
        journals.parse(content)
