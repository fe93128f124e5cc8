from __future__ import annotations

from typing import Any

import pytest

from fleetgate.broker.deadlines import Deadlines
from fleetgate.broker.router import Router
from fleetgate.broker.session import Granted, Limits, Session, Will
from tests.broker.recorder import Recorder


class Broker:
    """A router with its deadlines, and a short way to open sessions."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.deadlines = Deadlines(0)
        self.router = Router(self.deadlines, limits)
        self.released: list[str] = []

    def open(
        self,
        client_id: str,
        *topic_filters: str,
        clean: bool = True,
        expiry: float = 0,
        will_delay: float | None = None,
        will_size: int = 0,
        owner: str = "certificate",
        now: float = 0,
    ) -> tuple[Session, Recorder, bool]:
        link = Recorder()
        will = None
        if will_delay is not None:
            will = Will(will_delay, lambda: self.released.append(client_id), will_size)
        session, present = self.router.open(
            client_id,
            link,
            owner=owner,
            clean=clean,
            expiry_interval=expiry,
            will=will,
            now=now,
        )
        for topic_filter in topic_filters:
            self.router.subscribe(session, topic_filter, Granted(1))
        session.pump(now)
        return session, link, present

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, **options: Any) -> int:
        return self.router.publish(
            topic,
            payload,
            qos,
            options.get("properties", {}),
            publisher=options.get("publisher", "publisher"),
            now=options.get("now", 0),
        )


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_a_message_goes_to_those_who_subscribed(broker: Broker) -> None:
    _, lamp, _ = broker.open("lamp", "house/+/light")
    _, door, _ = broker.open("door", "house/door")
    assert broker.publish("house/hall/light", b"on") == 1
    assert lamp.got == [("house/hall/light", b"on", 1)]
    assert door.got == []


def test_wildcards_never_reach_reserved_topics(broker: Broker) -> None:
    """MQTT-4.7.2-1: the server must not match `$` topics with filters that begin so."""
    _, lamp, _ = broker.open("lamp", "#", "+/events/#", "+/#")
    broker.publish("$aws/events/presence/connected/x")
    assert lamp.got == []


def test_several_matching_filters_make_one_delivery_at_the_highest_qos(broker: Broker) -> None:
    """MQTT 5.0 section 3.3.4."""
    session, lamp, _ = broker.open("lamp")
    broker.router.subscribe(session, "a/#", Granted(0))
    broker.router.subscribe(session, "a/b", Granted(1))
    broker.router.subscribe(session, "+/b", Granted(0))
    broker.publish("a/b", qos=1)
    broker.publish("a/b", qos=0)
    assert [qos for _, _, qos in lamp.got] == [1, 0]


def test_no_local_keeps_a_message_from_its_publisher(broker: Broker) -> None:
    """MQTT 5.0 section 3.8.3.1."""
    session, lamp, _ = broker.open("lamp")
    broker.router.subscribe(session, "a", Granted(1, no_local=True))
    broker.publish("a", b"own", publisher="lamp")
    broker.publish("a", b"other", publisher="door")
    assert lamp.payloads == [b"other"]


def test_unsubscribing_says_whether_there_was_something(broker: Broker) -> None:
    session, lamp, _ = broker.open("lamp", "a")
    assert broker.router.unsubscribe(session, "a")
    assert not broker.router.unsubscribe(session, "a")
    assert broker.publish("a") == 0
    assert lamp.got == []


def test_properties_travel_and_those_of_the_connection_do_not(broker: Broker) -> None:
    _, lamp, _ = broker.open("lamp", "a")
    travelling = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "b",
        "correlation_data": b"1",
        "user_property": [("k", "v"), ("k", "w")],
    }
    broker.publish("a", properties={**travelling, "topic_alias": 3, "message_expiry_interval": 9})
    assert lamp.messages[0].properties == travelling
    assert lamp.messages[0].expires_at == 9
    assert lamp.messages[0].size > 600


# --- sessions ---------------------------------------------------------------------------------


def test_a_clean_session_ends_with_its_connection(broker: Broker) -> None:
    session, lamp, _ = broker.open("lamp", "a")
    broker.router.close(session, lamp, with_will=True, now=0)
    assert len(broker.router) == 0
    assert broker.publish("a") == 0
    assert broker.open("lamp", clean=False)[2] is False


def test_a_persistent_session_keeps_subscriptions_and_messages(broker: Broker) -> None:
    session, lamp, _ = broker.open("lamp", "a", expiry=3600)
    broker.router.close(session, lamp, with_will=True, now=0)
    broker.publish("a", b"missed")
    again, link, present = broker.open("lamp", clean=False, expiry=3600, now=10)
    assert present
    assert again is session
    assert link.payloads == [b"missed"]


def test_a_clean_start_forgets_the_session(broker: Broker) -> None:
    session, lamp, _ = broker.open("lamp", "a", expiry=3600)
    broker.router.close(session, lamp, with_will=True, now=0)
    broker.publish("a", b"missed")
    _, link, present = broker.open("lamp", clean=True, now=10)
    assert not present
    assert link.got == []
    assert broker.publish("a") == 0


@pytest.mark.parametrize("swept", [True, False])
def test_a_session_ends_at_its_expiry(broker: Broker, swept: bool) -> None:
    """Whether or not the deadlines have come to it."""
    session, lamp, _ = broker.open("lamp", "a", expiry=60)
    broker.router.close(session, lamp, with_will=True, now=0)
    broker.deadlines.expire(59)
    assert len(broker.router) == 1
    if swept:
        broker.deadlines.expire(60)
        assert len(broker.router) == 0
    assert broker.open("lamp", clean=False, now=60)[2] is False


def test_the_expiry_interval_may_change_at_the_end(broker: Broker) -> None:
    session, lamp, _ = broker.open("lamp", expiry=60)
    broker.router.close(session, lamp, with_will=True, now=0, expiry_interval=0)
    assert len(broker.router) == 0


def test_a_connected_session_does_not_expire(broker: Broker) -> None:
    session, lamp, _ = broker.open("lamp", "a", expiry=60)
    broker.router.close(session, lamp, with_will=True, now=0)
    broker.open("lamp", clean=False, expiry=60, now=30)
    broker.deadlines.expire(1000)
    assert broker.publish("a") == 1


def test_sessions_without_a_connection_are_bounded() -> None:
    broker = Broker(Limits(offline_sessions=2))
    for number in range(4):
        session, link, _ = broker.open(f"lamp{number}", expiry=60)
        broker.router.close(session, link, with_will=True, now=0)
    assert len(broker.router) == 2


def leave(broker: Broker, client_id: str, *topic_filters: str, **options: Any) -> None:
    """A session without a connection."""
    session, link, _ = broker.open(client_id, *topic_filters, **{"expiry": 60, **options})
    broker.router.close(session, link, with_will=True, now=options.get("now", 0))


def test_the_oldest_session_of_a_certificate_gives_way(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(Limits(offline_sessions_of_one=2))
    leave(broker, "other", "a", owner="other")
    for number in range(3):
        leave(broker, f"lamp{number}", "a", will_delay=30)
    assert len(broker.router) == 3
    assert broker.released == ["lamp0"]
    assert broker.router.owner_of("lamp0", 0) is None
    assert broker.publish("a") == 3
    assert "event=session-ended client='lamp0'" in caplog.text


def test_a_session_that_came_back_is_not_the_oldest_any_more() -> None:
    broker = Broker(Limits(offline_sessions_of_one=2))
    for client_id in ("a", "b", "a", "c"):
        leave(broker, client_id, clean=False)
    assert broker.router.owner_of("a", 0) == "certificate"
    assert broker.router.owner_of("b", 0) is None


def test_sessions_are_counted_for_the_certificate_that_used_them_last() -> None:
    broker = Broker(Limits(offline_sessions_of_one=2))
    leave(broker, "a", owner="old")
    leave(broker, "b", owner="old")
    leave(broker, "a", owner="new", clean=False)
    leave(broker, "c", owner="old")
    assert len(broker.router) == 3
    for client_id in ("a", "b", "c"):
        broker.open(client_id, clean=False)
    assert broker.router._offline == {}


def test_a_session_has_an_owner_as_long_as_it_lives(broker: Broker) -> None:
    assert broker.router.owner_of("lamp", 0) is None
    session, link, _ = broker.open("lamp", expiry=60)
    assert broker.router.owner_of("lamp", 0) == "certificate"
    broker.router.close(session, link, with_will=True, now=0)
    assert broker.router.owner_of("lamp", 59) == "certificate"
    assert broker.router.owner_of("lamp", 60) is None  # although nobody has noticed yet


def test_wills_and_subscriptions_count_as_bytes_kept() -> None:
    broker = Broker(Limits(all_queued_bytes=5000))
    for _ in range(3):
        leave(broker, "lamp", "a" * 256, "b", will_delay=30, will_size=4000)
        assert not broker.router.has_room(1000)
        broker.open("lamp", clean=True)
        assert broker.router.has_room(4800)
    broker.open("lamp", "a", "a", "b")
    assert not broker.router.has_room(4800)
    session, _, _ = broker.open("lamp", clean=True)
    broker.router.subscribe(session, "a", Granted(1))
    broker.router.subscribe(session, "a", Granted(0))
    broker.router.unsubscribe(session, "a")
    broker.router.unsubscribe(session, "a")
    assert broker.router.has_room(5000)
    assert not broker.router.has_room(5001)


def test_no_session_is_kept_beyond_the_bytes_of_all(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(Limits(all_queued_bytes=5000))
    leave(broker, "first", will_delay=30, will_size=4000)
    leave(broker, "second", will_delay=30, will_size=4000)
    assert len(broker.router) == 1
    assert broker.released == ["second"]
    assert "event=session-not-kept client='second'" in caplog.text
    broker.deadlines.expire(31)
    assert broker.router.has_room(5000)


def test_clear_forgets_the_sessions_nobody_is_connected_to(broker: Broker) -> None:
    session, link, _ = broker.open("gone", "a", expiry=60, will_delay=30)
    broker.router.close(session, link, with_will=True, now=0)
    broker.open("here", "a")
    broker.router.clear()
    assert len(broker.router) == 1
    assert broker.released == []
    broker.deadlines.expire(100)
    assert broker.publish("a") == 1


# --- takeover ---------------------------------------------------------------------------------


def test_the_second_connection_takes_over(broker: Broker) -> None:
    """MQTT 5.0 section 3.1.4."""
    session, first, _ = broker.open("lamp", "a", expiry=60)
    again, second, present = broker.open("lamp", clean=False, expiry=60)
    assert present
    assert again is session
    assert first.closed == 1
    broker.router.close(session, first, with_will=True, now=0)  # the old one, a little later
    broker.publish("a", b"to the new one")
    assert first.got == []
    assert second.payloads == [b"to the new one"]


def test_what_the_old_connection_did_not_acknowledge_goes_to_the_new_one(broker: Broker) -> None:
    _, first, _ = broker.open("lamp", "a", expiry=60)
    broker.publish("a", b"1")
    _, second, _ = broker.open("lamp", clean=False, expiry=60)
    assert first.payloads == second.payloads == [b"1"]


def test_a_clean_session_is_not_inherited(broker: Broker) -> None:
    _, first, _ = broker.open("lamp", "a")
    _, second, present = broker.open("lamp", clean=False, expiry=60)
    assert first.closed == 1
    assert not present
    assert broker.publish("a") == 0
    assert second.got == []


# --- wills ------------------------------------------------------------------------------------


def test_a_will_is_released_when_the_connection_is_lost(broker: Broker) -> None:
    session, link, _ = broker.open("lamp", will_delay=0)
    broker.router.close(session, link, with_will=True, now=0)
    assert broker.released == ["lamp"]


def test_a_will_is_forgotten_when_the_client_says_goodbye(broker: Broker) -> None:
    session, link, _ = broker.open("lamp", will_delay=0, expiry=60)
    broker.router.close(session, link, with_will=False, now=0)
    broker.deadlines.expire(100)
    assert broker.released == []


def test_a_will_waits_for_its_delay(broker: Broker) -> None:
    """MQTT 5.0 section 3.1.3.2.2."""
    session, link, _ = broker.open("lamp", will_delay=30, expiry=60)
    broker.router.close(session, link, with_will=True, now=0)
    broker.deadlines.expire(29)
    assert broker.released == []
    broker.deadlines.expire(30)
    assert broker.released == ["lamp"]
    broker.deadlines.expire(60)
    assert broker.released == ["lamp"]
    assert len(broker.router) == 0


def test_a_will_does_not_wait_longer_than_the_session(broker: Broker) -> None:
    session, link, _ = broker.open("lamp", will_delay=30, expiry=10)
    broker.router.close(session, link, with_will=True, now=0)
    broker.deadlines.expire(10)
    assert broker.released == ["lamp"]


def test_a_client_that_is_back_in_time_has_its_will_back(broker: Broker) -> None:
    session, link, _ = broker.open("lamp", will_delay=30, expiry=60)
    broker.router.close(session, link, with_will=True, now=0)
    broker.open("lamp", clean=False, expiry=60, now=20)
    broker.deadlines.expire(100)
    assert broker.released == []


def test_a_clean_start_ends_the_session_and_so_releases_its_will(broker: Broker) -> None:
    session, link, _ = broker.open("lamp", will_delay=30, expiry=60)
    broker.router.close(session, link, with_will=True, now=0)
    broker.open("lamp", clean=True, now=20)
    assert broker.released == ["lamp"]


@pytest.mark.parametrize(("delay", "released"), [(0, ["lamp"]), (30, [])])
def test_a_takeover_releases_a_will_without_delay(
    broker: Broker, delay: float, released: list[str]
) -> None:
    broker.open("lamp", will_delay=delay, expiry=60)
    broker.open("lamp", clean=False, expiry=60)
    assert broker.released == released
