"""Version numbers of client ids (AWS IoT developer guide, "Lifecycle events", versionNumber)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetgate.broker.deadlines import Deadlines
from fleetgate.broker.router import Router
from fleetgate.broker.session import Granted, Limits, Session
from fleetgate.broker.versions import ABSENCE, Versions
from tests.broker.recorder import Recorder


def test_a_client_id_counts_from_zero() -> None:
    versions = Versions(10)
    assert versions.take("lamp", 0) == 0
    versions.leave("lamp", 0, 1)
    assert versions.take("lamp", 2) == 1
    assert versions.take("door", 2) == 0


def test_after_an_hour_it_begins_again() -> None:
    versions = Versions(10)
    for client_id in ("lamp", "door"):
        versions.leave(client_id, 7, 0)
    assert versions.take("lamp", ABSENCE - 1) == 8
    assert versions.take("door", ABSENCE) == 0


def test_who_has_been_away_for_an_hour_takes_no_memory() -> None:
    versions = Versions(10)
    for number in range(5):
        versions.leave(f"lamp-{number}", 0, number)
    versions.leave("door", 0, ABSENCE + 2)
    assert len(versions) == 3  # lamp-3, lamp-4, door


def test_with_too_many_the_numbers_skip_and_do_not_go_back() -> None:
    """The number "might skip values"; within the hour it has to grow."""
    versions = Versions(2)
    versions.leave("lamp", 5, 0)
    versions.leave("door", 1, 1)
    versions.leave("hall", 2, 2)
    assert len(versions) == 2
    assert versions.take("lamp", 3) == 6
    assert versions.take("attic", 3) == 6
    assert versions.take("door", 3) == 2
    assert versions.take("cellar", ABSENCE) == 0, "what was forgotten would have been so anyway"


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 2000)), max_size=60),
    st.integers(1, 4),
)
def test_versions_of_a_client_id_grow_however_few_are_remembered(
    steps: list[tuple[str, float]], limit: int
) -> None:
    versions = Versions(limit)
    now = 0.0
    last: dict[str, tuple[int, float]] = {}
    for client_id, seconds in steps:
        now += seconds
        version = versions.take(client_id, now)
        before, left = last.get(client_id, (-1, -ABSENCE))
        assert version > before if now - left < ABSENCE else version >= 0
        versions.leave(client_id, version, now)
        last[client_id] = (version, now)
        assert len(versions) <= limit


def test_all_of_them_can_be_forgotten() -> None:
    versions = Versions(1)
    versions.leave("lamp", 5, 0)
    versions.leave("door", 5, 0)
    versions.clear()
    assert len(versions) == 0
    assert versions.take("lamp", 1) == 0


# --- as the router gives them -------------------------------------------------------------------


def opened(router: Router, now: float, *, clean: bool = True, expiry: float = 0) -> Session:
    session, _ = router.open(
        "lamp", Recorder(), owner="c", clean=clean, expiry_interval=expiry, will=None, now=now
    )
    return session


def close(router: Router, session: Session, now: float) -> None:
    assert session.link is not None
    router.close(session, session.link, with_will=False, now=now)


def test_sessions_know_their_version() -> None:
    router = Router(Deadlines(0))
    for number in range(3):
        session = opened(router, number * 10)
        assert session.version == number
        close(router, session, number * 10 + 5)
    assert opened(router, 25 + ABSENCE).version == 0


def test_a_persistent_session_begins_again_once_it_has_ended() -> None:
    """ "... after a client has been disconnected longer than the configured time-to-live"."""
    deadlines = Deadlines(0)
    router = Router(deadlines)
    first = opened(router, 0, clean=False, expiry=7200)
    close(router, first, 0)
    second = opened(router, 7199, clean=False, expiry=60)
    assert (second.version, second) == (1, first)
    close(router, second, 7200)
    third = opened(router, 7260, clean=False, expiry=60)
    assert third.version == 0
    close(router, third, 7261)
    deadlines.expire(7322)
    assert opened(router, 7323).version == 0


def test_a_session_that_is_thrown_away_does_not_reset_the_version() -> None:
    router = Router(Deadlines(0), Limits(offline_sessions_of_one=0))
    session = opened(router, 0, clean=False, expiry=60)
    close(router, session, 1)
    assert len(router) == 0
    session = opened(router, 2, clean=False, expiry=60)
    assert session.version == 1
    assert opened(router, 3, clean=True).version == 2, "a takeover that wants a clean start"
    router.clear()


def test_a_takeover_is_told_before_the_version_changes() -> None:
    router = Router(Deadlines(0))
    seen: list[int] = []

    class Telling(Recorder):
        def taken_over(self) -> None:
            seen.append(first.version)

    first, _ = router.open(
        "lamp", Telling(), owner="c", clean=False, expiry_interval=60, will=None, now=0
    )
    assert opened(router, 1, clean=False, expiry=60).version == 1
    assert seen == [0]


def test_wanted_is_what_somebody_subscribes_to() -> None:
    router = Router(Deadlines(0))
    session = opened(router, 0)
    topic = "$aws/events/presence/connected/door"
    for topic_filter, expected in (
        ("#", False),
        ("+/events/presence/connected/door", False),
        ("$aws/events/presence/disconnected/+", False),
        ("$aws/events/#", True),
        ("$aws/events/presence/connected/+", True),
        (topic, True),
    ):
        router.subscribe(session, topic_filter, Granted(0))
        assert router.wanted(topic) is expected
        router.unsubscribe(session, topic_filter)
    assert not router.wanted(topic)
