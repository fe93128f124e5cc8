from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetgate.broker.session import Backlog, Limits, Message, Session
from tests.broker.recorder import Recorder


def message(payload: bytes = b"x", expires_at: float | None = None, size: int = 10) -> Message:
    return Message("a/b", payload, {}, expires_at, "publisher", size)


def session(limits: Limits | None = None, backlog: Backlog | None = None) -> Session:
    limits = limits or Limits()
    backlog = backlog or Backlog(limits.all_queued_bytes)
    return Session("lamp", limits, backlog, lambda _session, _now: None)


def test_messages_reach_the_link_in_order() -> None:
    lamp, link = session(), Recorder()
    lamp.link = link
    for payload, qos in ((b"1", 1), (b"2", 0), (b"3", 1)):
        lamp.offer(message(payload), qos, 0)
    assert link.got == [("a/b", b"1", 1), ("a/b", b"2", 0), ("a/b", b"3", 1)]
    assert list(lamp.inflight) == [1, 2]


def test_without_a_link_only_qos_1_waits() -> None:
    lamp, link = session(), Recorder()
    lamp.offer(message(b"0"), 0, 0)
    lamp.offer(message(b"1"), 1, 0)
    lamp.link = link
    lamp.pump(0)
    assert link.payloads == [b"1"]


def test_a_client_that_does_not_read_misses_qos_0() -> None:
    lamp, link = session(), Recorder()
    lamp.link = link
    link.able, link.congested = False, True
    lamp.offer(message(b"0"), 0, 0)
    lamp.offer(message(b"1"), 1, 0)
    link.able, link.congested = True, False
    lamp.pump(0)
    assert link.payloads == [b"1"]


def test_a_link_that_cannot_take_one_now_gets_it_later_and_in_order() -> None:
    lamp, link = session(), Recorder()
    lamp.link = link
    link.able = False
    for payload, qos in ((b"1", 1), (b"2", 0), (b"3", 1)):
        lamp.offer(message(payload), qos, 0)
    assert link.got == []
    link.able = True
    lamp.pump(0)
    assert link.payloads == [b"1", b"2", b"3"]


def test_the_window_of_the_client_is_respected() -> None:
    lamp, link = session(), Recorder(window=2)
    lamp.link = link
    for number in range(5):
        lamp.offer(message(bytes([number])), 1, 0)
    assert len(link.got) == 2
    link.unacknowledged.remove(1)
    assert lamp.acknowledge(1)
    lamp.pump(0)
    assert len(link.got) == 3


def test_an_acknowledgement_of_something_else_is_told_apart() -> None:
    assert not session().acknowledge(7)


def test_what_was_not_acknowledged_comes_first_on_the_next_link() -> None:
    """AWS IoT developer guide, "MQTT QoS": sent again, without DUP, identifiers may differ."""
    lamp, first, second = session(), Recorder(window=2), Recorder()
    lamp.link = first
    for number in range(4):
        lamp.offer(message(bytes([number])), 1, 0)
    lamp.acknowledge(1)
    lamp.detach()
    lamp.link = second
    lamp.pump(0)
    assert second.payloads == [b"\1", b"\2", b"\3"]


def test_an_expired_message_is_not_delivered() -> None:
    lamp, link = session(), Recorder()
    lamp.offer(message(b"short", expires_at=5), 1, 0)
    lamp.offer(message(b"long", expires_at=50), 1, 0)
    lamp.link = link
    lamp.pump(5)
    assert link.payloads == [b"long"]


def test_a_message_the_client_may_not_have_leaves_no_trace() -> None:
    backlog = Backlog(1000)
    lamp, link = session(backlog=backlog), Recorder()
    lamp.link = link
    link.refuses.add("a/b")
    lamp.offer(message(), 1, 0)
    assert link.got == []
    assert not lamp.pending
    assert not lamp.inflight
    assert backlog.used == 0


def test_the_queue_is_bounded_by_number_and_the_oldest_goes() -> None:
    lamp, link = session(Limits(queued_messages=3)), Recorder()
    for number in range(5):
        lamp.offer(message(bytes([number])), 1, 0)
    lamp.link = link
    lamp.pump(0)
    assert link.payloads == [b"\2", b"\3", b"\4"]


def test_the_queue_is_bounded_by_bytes() -> None:
    lamp, link = session(Limits(queued_bytes=25)), Recorder()
    for number in range(5):
        lamp.offer(message(bytes([number])), 1, 0)
    lamp.link = link
    lamp.pump(0)
    assert link.payloads == [b"\3", b"\4"]


def test_all_queues_together_are_bounded() -> None:
    backlog = Backlog(50)
    limits = Limits()
    sessions = [session(limits, backlog) for _ in range(10)]
    for each in sessions:
        for _ in range(3):
            each.offer(message(), 1, 0)
    assert backlog.used <= 50


@given(
    st.lists(
        st.sampled_from(["offer0", "offer1", "ack", "detach", "attach", "stall", "go", "clear"]),
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_the_bytes_kept_are_those_of_the_messages_kept(steps: list[str], window: int) -> None:
    backlog = Backlog(200)
    lamp = session(Limits(queued_messages=10, queued_bytes=150), backlog)
    link = Recorder(window)
    for step in steps:
        match step:
            case "offer0" | "offer1":
                lamp.offer(message(), int(step[-1]), 0)
            case "ack" if link.unacknowledged and lamp.link is link:
                assert lamp.acknowledge(link.unacknowledged.pop(0))
                lamp.pump(0)
            case "detach":
                lamp.detach()
            case "attach" if lamp.link is None:
                lamp.link = link = Recorder(window)
                lamp.pump(0)
            case "stall" | "go":
                link.able = step == "go"
                lamp.pump(0)
            case "clear" if lamp.link is None:
                lamp.clear()
        kept = [each for each, _ in lamp.pending] + list(lamp.inflight.values())
        assert backlog.used == sum(each.size for each in kept)
        assert len(kept) <= 10
        assert len(lamp.inflight) <= window
