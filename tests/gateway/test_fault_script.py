"""What a fault script decides: for whom, how often, and the same again."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.gateway import fault_reading, fault_script
from fleetgate.gateway.fault_script import (
    AFTER,
    CSR,
    REGISTER,
    REPLY,
    REQUEST,
    Count,
    Event,
    Fault,
    Injection,
    Script,
    decide,
    draw,
)
from tests.test_architecture import IMPURE_MODULES, imports_of

CERTIFICATE = "ab" * 32


def event(client_id: str = "lamp", **changes: str) -> Event:
    of = {"on": REGISTER, "moment": REPLY, "template": "lamps"} | changes
    return Event(client_id=client_id, certificate_id=CERTIFICATE, **of)


def drop(**changes: object) -> Fault:
    return Fault(**{"on": REGISTER, "do": "drop", "moment": REPLY, **changes})  # type: ignore[arg-type]


def play(script: Script, events: Sequence[Event]) -> list[list[Injection]]:
    """What happens at each of the events, from the beginning."""
    counts: dict[tuple[int, str], Count] = {}
    return [decide(script, each, lambda *key: counts.setdefault(key, Count())) for each in events]


def numbers(script: Script, count: int) -> list[list[int]]:
    return [[each.number for each in found] for found in play(script, [event()] * count)]


@pytest.mark.parametrize(
    ("fault", "fits"),
    [
        (drop(), True),
        (drop(on=CSR), False),
        (drop(moment=REQUEST), False),
        (drop(client="lamp"), True),
        (drop(client="la?p"), True),
        (drop(client="l*"), True),
        (drop(client="lam"), False),
        (drop(client="LAMP"), False),
        (drop(client="lam[p]"), False),
        (drop(client="*" * 500 + "x"), False),
        (drop(certificate="ab*"), True),
        (drop(certificate="cd*"), False),
        (drop(template="lamps"), True),
        (drop(template="door*"), False),
    ],
)
def test_a_fault_is_for_those_it_names(fault: Fault, fits: bool) -> None:
    assert fault.fits(event()) is fits
    assert numbers(Script(0, (fault,)), 1) == [[1] if fits else []]


def test_stars_match_slashes() -> None:
    fault = Fault("subscribe", "refuse", REQUEST, topic="$aws/*/accepted")
    wanted = event(on="subscribe", moment=REQUEST, template="", topic="$aws/a/b/accepted")
    assert fault.fits(wanted)


@pytest.mark.parametrize(
    ("faults", "happens"),
    [
        ((drop(),), [[1], [1], [1], [1]]),
        ((drop(times=2),), [[1], [1], [], []]),
        ((drop(nth=3),), [[], [], [1], [1]]),
        ((drop(nth=2, times=1),), [[], [1], [], []]),
        ((drop(probability=0.0),), [[], [], [], []]),
        ((drop(times=1), drop(do="throttle", times=2)), [[1], [2], [2], []]),
        ((drop(do="delay"), drop(times=1)), [[1, 2], [1], [1], [1]]),
        ((drop(times=1), drop(do="delay", nth=2)), [[1], [], [2], [2]]),
    ],
)
def test_they_are_asked_in_order_and_one_that_ends_hides_the_rest(
    faults: tuple[Fault, ...], happens: list[list[int]]
) -> None:
    assert numbers(Script(0, faults), 4) == happens


def test_times_counts_what_has_happened() -> None:
    fault = drop(probability=0.5, times=3)
    happened = numbers(Script(1, (fault,)), 60)
    assert happened.count([1]) == 3


def test_seconds_are_drawn_from_the_range_and_fixed_ones_are_not() -> None:
    ranged, fixed = drop(do="delay", seconds=(1.0, 2.0)), drop(do="delay", seconds=(3.0, 3.0))
    found = play(Script(5, (ranged, fixed)), [event()] * 50)
    drawn = {each[0].seconds for each in found}
    assert len(drawn) == 50
    assert all(1 <= each < 2 for each in drawn)
    assert {each[1].seconds for each in found} == {3.0}


def test_a_draw_is_the_same_on_every_machine() -> None:
    """Written down once: a script replays with another release, too."""
    assert draw(7, 1, "lamp", 1, "whether") == pytest.approx(0.25893702153809073, abs=1e-15)


FAULTS = st.builds(
    drop,
    do=st.sampled_from(["drop", "delay", "throttle", "duplicate"]),
    moment=st.sampled_from([REQUEST, REPLY, AFTER]),
    client=st.sampled_from(["*", "a*", "b"]),
    nth=st.integers(1, 3),
    times=st.none() | st.integers(1, 3),
    probability=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    seconds=st.sampled_from([(0.0, 0.0), (0.5, 9.0)]),
)
SCRIPTS = st.builds(Script, st.integers(0, 3), st.lists(FAULTS, max_size=4).map(tuple))
EVENTS = st.lists(
    st.builds(
        event,
        st.sampled_from(["a", "ab", "b", "c"]),
        moment=st.sampled_from([REQUEST, REPLY, AFTER]),
    ),
    max_size=30,
)


@given(SCRIPTS, EVENTS)
def test_what_happens_to_a_client_follows_from_script_and_its_own_events(
    script: Script, events: list[Event]
) -> None:
    together = play(script, events)
    assert play(script, events) == together
    for client_id in {each.client_id for each in events}:
        own = [each for each in events if each.client_id == client_id]
        alone = play(script, own)
        assert alone == [
            found
            for each, found in zip(events, together, strict=True)
            if each.client_id == client_id
        ]
        for found in alone:
            assert not any(each.fault.ends for each in found[:-1])
            assert all(each.fault.client in ("*", "a*", "b") for each in found)


def test_another_seed_is_another_day() -> None:
    faults = (drop(probability=0.5),)
    days = {str(numbers(Script(seed, faults), 40)) for seed in range(20)}
    assert len(days) == 20
    half = [number for seed in range(20) for number in numbers(Script(seed, faults), 40)]
    assert 330 < half.count([1]) < 470  # 400 of 800 are expected; 5 standard deviations


def test_deciding_takes_nothing_from_the_world() -> None:
    for module in (fault_script, fault_reading):
        tree = ast.parse(inspect.getsource(module))
        assert not set(imports_of(module.__name__, tree)) & IMPURE_MODULES
