"""Percentiles, failures and tables of a simulation, of numbers given."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.device.errors import (
    ConnectionFailed,
    NoAnswer,
    NotAuthorized,
    ProvisioningError,
    Rejected,
)
from fleetgate.device.simulate_report import Phase, Result, as_json, code_of, lines, percentile


@pytest.mark.parametrize(
    ("values", "p", "expected"),
    [
        # the example of Wikipedia's "Percentile", nearest rank
        *(
            ([15, 20, 35, 40, 50], p, v)
            for p, v in [(5, 15), (30, 20), (40, 20), (50, 35), (100, 50)]
        ),
        *(([3, 6, 7, 8, 8, 10, 13, 15, 16, 20], p, v) for p, v in [(25, 7), (50, 8), (75, 15)]),
        ([1], 1, 1),
        ([1], 99, 1),
        ([1, 2], 50, 1),
        ([1, 2], 51, 2),
        (list(range(1, 1001)), 99, 990),
        (list(range(1, 1001)), 99.9, 999),
    ],
)
def test_percentiles_are_of_the_nearest_rank(
    values: list[float], p: float, expected: float
) -> None:
    assert percentile(values, p) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 100))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(
    values: list[float], p: float
) -> None:
    found = percentile(sorted(values), p)
    assert found in values
    below = [each for each in values if each < found]
    assert len(below) < len(values) * p / 100 <= sum(each <= found for each in values) + 1e-9


def test_there_is_no_percentile_of_nothing() -> None:
    for values, p in (([], 50), ([1.0], 0), ([1.0], 101)):
        with pytest.raises(ValueError, match="no percentile"):
            percentile(values, p)


def at(step: Any, error: ProvisioningError) -> ProvisioningError:
    error.at(step)
    return error


REFUSED = NotAuthorized("no", topic="a", action="iot:Subscribe", reason_code=0x87)
THROTTLED = {"status_code": 429, "error_code": "TooManyRequests", "error_message": "slow down"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected("no", **THROTTLED), "429 TooManyRequests"),  # type: ignore[arg-type]
        (at("subscribe", REFUSED), "NotAuthorized 0x87 on subscribe"),
        (NotAuthorized("no", topic="a", action="iot:Publish"), "NotAuthorized"),
        (at("register", NoAnswer("nothing")), "NoAnswer"),
        (ConnectionFailed("no"), "ConnectionFailed"),
    ],
)
def test_a_failure_has_a_short_name(error: ProvisioningError, code: str) -> None:
    assert code_of(error) == code


def sample() -> Result:
    phase = Phase("burst", 11, started=10, seconds=2.0, cpu_seconds=1.0)
    for number in range(1, 8):
        phase.took("publish", number / 1000)
        phase.took("connect", number / 100)
        phase.succeeded += 1
    for number in range(2):
        phase.failure("register", Rejected("too many", **THROTTLED), f"d{number}")  # type: ignore[arg-type]
    phase.failure("connect", ConnectionFailed("nobody there"), "d9")
    return Result([phase])


def test_the_tables() -> None:
    assert list(lines(sample())) == [
        "burst: 11 devices, 7 succeeded, 3 failed, 1 unfinished, in 2.00 s: 3.5 a second",
        "  step (ms)      count       p50       p90       p95       p99       max",
        "  connect            7      40.0      70.0      70.0      70.0      70.0",
        "  publish            7       4.0       7.0       7.0       7.0       7.0",
        "  failed at      count  code                 devices",
        "  register           2  429 TooManyRequests  d0, d1",
        "    too many",
        "  connect            1  ConnectionFailed     d9",
        "    nobody there",
        "",
    ]


def test_many_failures_of_a_kind_are_one_row() -> None:
    phase = Phase("burst", 9)
    for number in range(9):
        phase.failure("create", NoAnswer(f"nothing for {number}"), f"d{number}")
    shown = list(lines(Result([phase], interrupted=True)))
    assert shown[2] == "  create             9  NoAnswer  d0, d1, d2, d3, d4, ..."
    assert shown[3] == "    nothing for 0"
    assert shown[-1] == "interrupted: these are the figures until then"


def test_what_makes_the_figures_doubtful_is_said() -> None:
    phase = Phase("steady", 1, seconds=1.0, cpu_seconds=0.95, late=0.5)
    text = "\n".join(lines(Result([phase])))
    assert "note: devices began up to 0.5 s late" in text
    assert "note: this program itself used 95% of a processor" in text


def test_the_same_for_programs() -> None:
    told = json.loads(json.dumps(as_json(sample())))
    assert (told["attempts"], told["failed"], told["interrupted"]) == (10, 3, False)
    (phase,) = told["phases"]
    assert phase["steps"]["connect"] == {
        "count": 7,
        "p50": 0.04,
        "p90": 0.07,
        "p95": 0.07,
        "p99": 0.07,
        "max": 0.07,
    }
    assert phase["failures"][0] == {
        "step": "register",
        "code": "429 TooManyRequests",
        "count": 2,
        "example": "too many",
        "devices": ["d0", "d1"],
    }
    assert (phase["unfinished"], phase["per_second"]) == (1, 3.5)
