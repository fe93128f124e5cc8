from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from fleetgate.broker.deadlines import Deadlines


class Alarm:
    """Wants to be asked at the times in `times`, one after the other."""

    def __init__(self, *times: float) -> None:
        self.bucket: int | None = None
        self.times = list(times)
        self.asked: list[float] = []

    def due(self, now: float) -> float | None:
        self.asked.append(now)
        while self.times and self.times[0] <= now:
            self.times.pop(0)
        return self.times[0] if self.times else None


def test_nothing_is_asked_before_its_second() -> None:
    deadlines, alarm = Deadlines(0), Alarm(10.5)
    deadlines.set(alarm, 10.5)
    deadlines.expire(10.9)
    assert alarm.asked == []
    deadlines.expire(11)
    assert alarm.asked == [11]
    assert len(deadlines) == 0


def test_a_later_deadline_is_found_out_at_the_earlier_one() -> None:
    """So a packet that moves keep-alive on costs nothing."""
    deadlines, alarm = Deadlines(0), Alarm(30)
    deadlines.set(alarm, 10)
    deadlines.set(alarm, 30)
    deadlines.expire(10)
    assert alarm.asked == [10]
    deadlines.expire(29)
    deadlines.expire(30)
    assert alarm.asked == [10, 30]


def test_an_earlier_deadline_counts_at_once() -> None:
    deadlines, alarm = Deadlines(0), Alarm(5)
    deadlines.set(alarm, 30)
    deadlines.set(alarm, 5)
    deadlines.expire(5)
    assert alarm.asked == [5]


def test_what_is_cleared_is_not_asked() -> None:
    deadlines, alarm = Deadlines(0), Alarm(5)
    deadlines.set(alarm, 5)
    deadlines.clear(alarm)
    deadlines.clear(alarm)
    deadlines.expire(100)
    assert alarm.asked == []
    assert alarm.bucket is None


def test_days_are_waited_for_with_a_look_every_hour() -> None:
    deadlines, alarm = Deadlines(0), Alarm(7 * 24 * 3600)
    deadlines.set(alarm, 7 * 24 * 3600)
    for now in range(0, 7 * 24 * 3600 + 1, 60):
        deadlines.expire(now)
    assert len(alarm.asked) == 7 * 24
    assert alarm.asked[-1] == 7 * 24 * 3600
    assert len(deadlines) == 0


def test_one_that_fails_does_not_stop_the_others() -> None:
    class Broken(Alarm):
        def due(self, now: float) -> float | None:
            raise ZeroDivisionError(now)

    deadlines = Deadlines(0)
    alarms = [Alarm(5), Broken(5), Alarm(5)]
    for alarm in alarms:
        deadlines.set(alarm, 5)
    deadlines.expire(5)
    assert [alarm.asked for alarm in alarms] == [[5], [], [5]]


def test_one_may_clear_another_while_it_is_asked() -> None:
    deadlines = Deadlines(0)
    others = [Alarm(5) for _ in range(3)]

    class Last(Alarm):
        def due(self, now: float) -> float | None:
            for other in others:
                deadlines.clear(other)
            return super().due(now)

    last = Last(5)
    for alarm in [*others, last]:
        deadlines.set(alarm, 5)
    deadlines.expire(5)
    assert last.asked == [5]
    assert len(deadlines) == 0


@given(
    st.lists(st.lists(st.floats(0, 1_000), min_size=1, max_size=4), max_size=20),
    st.lists(st.floats(0, 3), max_size=5),
)
def test_every_deadline_is_kept_to_the_second(
    times: list[list[float]], pauses: list[float]
) -> None:
    deadlines = Deadlines(0)
    alarms = [Alarm(*sorted(each)) for each in times]
    for alarm in alarms:
        deadlines.set(alarm, alarm.times[0])
    now = 0.0
    while now <= 1_001:
        deadlines.expire(now)
        for alarm in alarms:
            assert all(math.ceil(at) > now for at in alarm.times)
        now += 1 + (pauses[int(now) % len(pauses)] if pauses else 5)
    deadlines.expire(1_001)
    assert len(deadlines) == 0
