"""The state machine of an operation, told everything: events, their order, and the time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.device import protocol
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionLost,
    NoAnswer,
    NotAcknowledged,
    NotAuthorized,
    ProvisioningError,
    Rejected,
)
from fleetgate.device.exchange import (
    Action,
    Exchange,
    Publish,
    State,
    Subscribe,
    Terms,
    Unsubscribe,
)
from fleetgate.device.mqtt_client import message_refused, subscription_refused
from fleetgate.device.protocol import PayloadFormat

REQUEST = "$aws/provisioning-templates/T/provision/json"
ACCEPTED, REJECTED = f"{REQUEST}/accepted", f"{REQUEST}/rejected"
SUBSCRIBE = [Subscribe(ACCEPTED), Subscribe(REJECTED)]
UNSUBSCRIBE = [Unsubscribe(ACCEPTED), Unsubscribe(REJECTED)]
ASK = [Publish(REQUEST, b'{"ask":1}', 1)]
ANSWER = b'{"thingName":"t"}'
REFUSAL = json.dumps({"statusCode": 429, "errorCode": "E", "errorMessage": "slowly"}).encode()
TERMS = Terms(timeout=10, mqtt_timeout=5)


def make(
    terms: Terms = TERMS, belongs: Callable[[str], bool] | None = None
) -> Exchange[str | None]:
    def interpret(values: dict[str, Any]) -> Any:
        return protocol.registered(operation, values).thing_name

    operation = protocol.register_thing("T", terms.payload_format)
    return Exchange(operation, {"ask": 1}, interpret, step="register", terms=terms, belongs=belongs)


def waiting(
    terms: Terms = TERMS, belongs: Callable[[str], bool] | None = None
) -> Exchange[str | None]:
    """An exchange whose request was acknowledged at time 0."""
    exchange = make(terms, belongs)
    exchange.begin(0)
    for each in (exchange.operation.accepted, exchange.operation.rejected):
        exchange.granted(each, 0)
    exchange.acknowledged(0)
    assert exchange.state is State.WAITING
    return exchange


def test_everything_goes_well() -> None:
    exchange = make()
    assert exchange.begin(0) == SUBSCRIBE
    assert exchange.deadline == 5
    assert exchange.granted(REJECTED, 1) == []
    assert exchange.granted(REJECTED, 2) == []  # twice is not both
    assert exchange.granted(ACCEPTED, 3) == ASK
    assert exchange.deadline == 8
    assert exchange.acknowledged(4) == []
    assert exchange.deadline == 14
    assert exchange.arrived(ACCEPTED, ANSWER, 6) == UNSUBSCRIBE
    assert (exchange.result, exchange.error, exchange.deadline) == ("t", None, 11)
    over = []
    for each in (ACCEPTED, ACCEPTED, REJECTED):
        assert exchange.unsubscribed(each, 7) == []
        over.append(exchange.over)
    assert over == [False, False, True]
    assert exchange.deadline is None


def test_the_answer_may_overtake_the_acknowledgement() -> None:
    exchange = make()
    exchange.begin(0)
    exchange.granted(ACCEPTED, 0)
    exchange.granted(REJECTED, 0)
    assert exchange.arrived(ACCEPTED, ANSWER, 0) == UNSUBSCRIBE
    assert exchange.acknowledged(1) == []
    assert exchange.result == "t"


def test_nothing_is_published_unless_both_answers_are_subscribed_to() -> None:
    exchange = make()
    exchange.begin(0)
    exchange.granted(ACCEPTED, 0)
    assert exchange.failed(subscription_refused(REJECTED, 0x80), 1) == UNSUBSCRIBE
    error = exchange.error
    assert isinstance(error, NotAuthorized)
    assert (error.step, error.topic, error.action) == ("subscribe", REJECTED, "iot:Subscribe")
    assert f"iot:Subscribe on `topicfilter/{REJECTED}`" in error.message
    assert exchange.granted(REJECTED, 2) == []  # what comes later changes nothing


def test_a_refused_request() -> None:
    exchange = make()
    exchange.begin(0)
    exchange.granted(ACCEPTED, 0)
    exchange.granted(REJECTED, 0)
    assert exchange.failed(message_refused(REQUEST, 0x87, "no"), 1) == UNSUBSCRIBE
    error = exchange.error
    assert isinstance(error, NotAuthorized)
    assert (error.step, error.topic, error.action) == ("register", REQUEST, "iot:Publish")
    assert "not authorized, 0x87: no" in error.message


def test_a_rejection() -> None:
    exchange = waiting()
    assert exchange.arrived(REJECTED, REFUSAL, 1) == UNSUBSCRIBE
    error = exchange.error
    assert isinstance(error, Rejected)
    assert (error.step, error.topic, error.retry) == ("register", REJECTED, True)
    assert (error.status_code, error.error_code, error.error_message) == (429, "E", "slowly")


@pytest.mark.parametrize(
    ("steps", "words", "topic", "waited", "step"),
    [
        (0, "did not acknowledge the subscription to", ACCEPTED, 5, "subscribe"),
        (1, "did not acknowledge the subscription to", REJECTED, 5, "subscribe"),
        (2, "did not acknowledge the message to", REQUEST, 5, "register"),
        (3, "no answer to", REQUEST, 10, "register"),
    ],
)
def test_time_passes(steps: int, words: str, topic: str, waited: float, step: str) -> None:
    exchange = make()
    exchange.begin(0)
    if steps > 0:
        exchange.granted(ACCEPTED, 0)
    if steps > 1:
        exchange.granted(REJECTED, 0)
    if steps > 2:
        exchange.acknowledged(0)
    assert exchange.deadline == waited
    assert exchange.tick(waited - 0.001) == []
    assert exchange.tick(waited) == UNSUBSCRIBE
    error = exchange.error
    assert type(error) is (NoAnswer if steps == 3 else NotAcknowledged)
    assert error.message.startswith(f"{step}: ")
    assert f"{words} `{topic}` within {waited} s" in error.message
    assert (error.topic, error.waited, error.step) == (topic, waited, step)
    if steps == 3:
        assert f"iot:Receive on `topic/{ACCEPTED}` and `topic/{REJECTED}`" in error.message
    over = []
    for seconds in (4.9, 5):  # nobody acknowledges UNSUBSCRIBE: so be it
        assert exchange.tick(waited + seconds) == []
        over.append(exchange.over)
    assert over == [False, True]


@pytest.mark.parametrize("now", [10, 10.5])
def test_an_answer_at_the_very_moment_of_the_time_out_counts(now: float) -> None:
    exchange = waiting()
    assert exchange.arrived(ACCEPTED, ANSWER, now) == UNSUBSCRIBE
    assert exchange.tick(now) == []
    assert (exchange.result, exchange.error) == ("t", None)


def test_an_answer_after_the_time_out_does_not() -> None:
    exchange = waiting()
    exchange.tick(10)
    assert exchange.arrived(ACCEPTED, ANSWER, 10) == []
    assert (exchange.result, exchange.ignored) == (None, 1)
    assert isinstance(exchange.error, NoAnswer)


def test_late_answers_to_another_request_are_ignored() -> None:
    exchange = make()
    assert exchange.arrived(ACCEPTED, ANSWER, 0) == []
    exchange.begin(0)
    exchange.granted(ACCEPTED, 0)
    assert exchange.arrived(ACCEPTED, ANSWER, 0) == []
    assert exchange.granted(REJECTED, 0) == ASK
    assert exchange.arrived("other", ANSWER, 0) == []
    assert exchange.ignored == 3
    assert not exchange.ended


def test_an_answer_that_belongs_to_another_request_is_ignored_and_told() -> None:
    exchange = waiting(belongs=lambda thing: thing == "mine")
    assert exchange.arrived(ACCEPTED, ANSWER, 1) == []
    assert exchange.tick(10) == UNSUBSCRIBE
    assert exchange.error is not None
    assert "an answer that came belongs to another request" in exchange.error.message


def test_the_second_of_two_answers_is_ignored() -> None:
    exchange = waiting()
    exchange.arrived(ACCEPTED, ANSWER, 1)
    assert exchange.arrived(ACCEPTED, ANSWER, 1) == []
    assert exchange.arrived(REJECTED, REFUSAL, 1) == []
    assert (exchange.result, exchange.error, exchange.ignored) == ("t", None, 2)


@pytest.mark.parametrize(
    ("begun", "words", "step"),
    [
        (False, f"iot:Subscribe on `topicfilter/{REQUEST}/*`", "subscribe"),
        (True, f"iot:Publish on `topic/{REQUEST}`", "register"),
    ],
)
def test_the_connection_ends(begun: bool, words: str, step: str) -> None:
    exchange = waiting() if begun else make()
    exchange.begin(0)
    shared = ConnectionLost("the server closed the connection")
    assert exchange.lost(shared, 1) == UNSUBSCRIBE
    error = exchange.error
    assert isinstance(error, ConnectionLost)
    assert error.message.startswith(f"{step}: the server closed the connection; ")
    assert words in error.message
    assert shared.step is None  # it is others' as well
    assert exchange.failed(shared, 1) == []


def test_a_loss_that_says_more_keeps_what_it_says() -> None:
    exchange = waiting()
    right = f"iot:Publish on `topic/{REQUEST}`"
    exchange.failed(ConnectionLost(f"closed; does the policy allow {right}?", retry=False), 1)
    assert exchange.error is not None
    assert exchange.error.message.count(right) == 1
    assert not exchange.error.retry


def test_an_exchange_that_was_not_begun_has_nothing_to_take_back() -> None:
    exchange = make()
    assert exchange.lost(ConnectionLost("gone"), 0) == []
    assert exchange.over
    assert exchange.begin(0) == []


def test_it_is_cancelled() -> None:
    exchange = waiting()
    assert exchange.cancelled(1) == UNSUBSCRIBE
    assert exchange.cancelled(1) == []
    assert exchange.error is not None


@pytest.mark.parametrize(("excess", "error"), [(0, None), (1, BadAnswer)])
def test_a_large_answer(excess: int, error: type[Exception] | None) -> None:
    exchange = waiting(Terms(max_answer_size=1000))
    exchange.arrived(ACCEPTED, ANSWER + b" " * (1000 - len(ANSWER) + excess), 1)
    if error is None:
        assert exchange.result == "t"
    else:
        assert isinstance(exchange.error, BadAnswer)
        assert "has 1001 bytes, more than the 1000 that this device takes" in exchange.error.message
        assert exchange.error.topic == ACCEPTED


@pytest.mark.parametrize(
    ("payload_format", "payload"),
    [
        ("json", ANSWER),
        ("cbor", bytes.fromhex("a1 69") + b"thingName" + b"at"),
        # indefinite lengths: the map, its key in two pieces, and the value
        ("cbor", bytes.fromhex("bf 7f 65") + b"thing\x64Name" + b"\xff\x7f\x61t\xff" + b"\xff"),
    ],
)
def test_formats(payload_format: PayloadFormat, payload: bytes) -> None:
    exchange = waiting(Terms(payload_format))
    exchange.arrived(exchange.operation.accepted, payload, 1)
    assert exchange.result == "t"


def test_a_decoder_s_surprise_is_a_bad_answer() -> None:
    def surprised(values: dict[str, Any]) -> str:
        raise ZeroDivisionError("what?")

    operation = protocol.register_thing("T", "json")
    exchange = Exchange(operation, {}, surprised, step="register", terms=TERMS)
    exchange.begin(0)
    exchange.granted(ACCEPTED, 0)
    exchange.granted(REJECTED, 0)
    assert exchange.arrived(ACCEPTED, ANSWER, 0) == UNSUBSCRIBE
    assert isinstance(exchange.error, BadAnswer)


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"payload_format": "xml"}, "`json` or `cbor`"),
        ({"qos": 2}, "QoS 0 or 1, not 2"),
        ({"timeout": -1}, "`timeout` is -1"),
        ({"timeout": 0}, "`timeout` is 0: it is in seconds, more than 0 and at most 86400"),
        ({"timeout": float("inf")}, "`timeout` is inf"),
        ({"mqtt_timeout": 86401}, "`mqtt_timeout` is 86401"),
        ({"mqtt_timeout": float("nan")}, "`mqtt_timeout` is nan"),
        ({"timeout": "5"}, "`timeout` has to be a number, not '5'"),
        ({"qos": True}, "`qos` has to be a whole number, not True"),
        ({"max_answer_size": 1.5}, "`max_answer_size` has to be a whole number, not 1.5"),
        ({"max_answer_size": -1}, "`max_answer_size` is -1"),
    ],
)
def test_terms_that_cannot_be(terms: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Terms(**terms)


EVENTS: dict[str, Callable[[Exchange[str | None], float], list[Action]]] = {
    "begin": lambda exchange, now: exchange.begin(now),
    "grant accepted": lambda exchange, now: exchange.granted(ACCEPTED, now),
    "grant rejected": lambda exchange, now: exchange.granted(REJECTED, now),
    "refuse": lambda exchange, now: exchange.failed(subscription_refused(ACCEPTED, 0x80), now),
    "acknowledge": lambda exchange, now: exchange.acknowledged(now),
    "publish fails": lambda exchange, now: exchange.failed(ProvisioningError("no"), now),
    "accept": lambda exchange, now: exchange.arrived(ACCEPTED, ANSWER, now),
    "reject": lambda exchange, now: exchange.arrived(REJECTED, REFUSAL, now),
    "garbage": lambda exchange, now: exchange.arrived(ACCEPTED, b"\xff", now),
    "unsubscribed accepted": lambda exchange, now: exchange.unsubscribed(ACCEPTED, now),
    "unsubscribed rejected": lambda exchange, now: exchange.unsubscribed(REJECTED, now),
    "lost": lambda exchange, now: exchange.lost(ConnectionLost("gone"), now),
    "cancel": lambda exchange, now: exchange.cancelled(now),
    "tick": lambda exchange, now: exchange.tick(now),
}


@given(
    events=st.lists(
        st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0, 6, allow_nan=False)), max_size=30
    ),
    orderly=st.booleans(),
)
def test_any_events_lead_to_one_ending_and_both_unsubscriptions(
    events: list[tuple[str, float]], orderly: bool
) -> None:
    exchange = make()
    now = 0.0
    actions: list[Action] = list(exchange.begin(now))
    if orderly:  # most sequences would never get beyond the subscriptions
        actions += exchange.granted(ACCEPTED, now) + exchange.granted(REJECTED, now)
    endings: list[tuple[object, object]] = []
    for name, seconds in events:
        now += seconds
        actions += EVENTS[name](exchange, now)
        if exchange.ended:
            endings.append((exchange.result, exchange.error))
            assert (exchange.result is None) != (exchange.error is None)
    for _ in range(4):  # time alone ends everything
        now += 20
        actions += exchange.tick(now)
    assert exchange.over
    assert all(each == endings[0] for each in endings)
    published = [each for each in actions if isinstance(each, Publish)]
    assert len(published) <= 1
    assert actions == [*SUBSCRIBE, *published, *UNSUBSCRIBE]
