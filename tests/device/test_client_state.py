"""What all adapters promise of futures, listeners and messages; and the words for refusals."""

from __future__ import annotations

import pytest

from fleetgate.device import client_state
from fleetgate.device.client_state import ClientState
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import BadRequest, ConnectionLost, NotAuthorized, PacketTooLarge
from fleetgate.device.mqtt_client import OnMessage, subscription_refused
from fleetgate.mqtt.packets import Version


def test_a_future_is_done_once() -> None:
    state = ClientState()
    good, bad = state.begin("this"), state.begin("that")
    assert not good.cancel()  # it runs from the beginning
    state.succeed(good)
    state.fail(good, RuntimeError())
    state.fail(bad, subscription_refused("a", 0x87))
    state.succeed(bad)
    state.lose("the end")
    assert good.result(0) is None
    with pytest.raises(NotAuthorized):
        bad.result(0)


def test_the_end_fails_futures_first_and_tells_each_listener_once() -> None:
    state = ClientState()
    told: list[str] = []
    waiting = state.begin("it was acknowledged")

    def listener(error: ConnectionLost) -> None:
        assert waiting.done()
        told.append(error.message)
        raise RuntimeError("a mistake of the program")

    state.on_lost(listener)
    state.on_lost(listener)
    state.on_lost(lambda _error: told.append("never"))()
    state.lose("the server closed the connection", PacketTooLarge)
    state.lose("again")
    assert told == ["the server closed the connection"] * 2
    with pytest.raises(
        ConnectionLost, match="the server closed the connection before it was acknowledged"
    ) as lost:
        waiting.result(0)
    assert not lost.value.retry
    late = state.begin("something")
    with pytest.raises(ConnectionLost, match="has ended already: the server closed"):
        late.result(0)
    state.on_lost(lambda _error: told.append("late"))()
    assert told[2:] == ["late"]


def test_a_message_goes_to_whom_it_matches() -> None:
    state = ClientState()
    got: list[str] = []

    def receiver(name: str) -> OnMessage:
        def receive(topic: str, _payload: bytes) -> None:
            got.append(f"{name} {topic}")
            if name == "fails":
                raise RuntimeError("a mistake of the program")

        return receive

    for name, topic_filter in [("fails", "a/#"), ("one", "a/+"), ("shared", "$share/g/a/b")]:
        state.subscribing(topic_filter, 1, receiver(name)).begin()
    old = state.subscribing("a/b", 1, receiver("old"))
    old.begin()
    state.subscribing("a/b", 1, receiver("new")).begin()
    old.acknowledged(0x87, None)  # it was replaced: not his any more
    state.deliver("a/b", b"", retained=False)
    assert got == ["fails a/b", "one a/b", "shared a/b", "new a/b"]
    for topic_filter in ("a/b", "a/#", "not/subscribed/to"):
        unsubscribing = state.unsubscribing(topic_filter)
        unsubscribing.begin()
        unsubscribing.acknowledged(0, None)
        assert unsubscribing.future.result(0) is None
    state.deliver("a/b/c", b"", retained=False)
    state.deliver("$SYS", b"", retained=False)
    assert len(got) == 4


def test_what_the_server_kept_is_told_and_given_to_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = ClientState()
    got: list[tuple[str, bytes]] = []
    state.subscribing("a/+", 1, lambda *message: got.append(message)).begin()
    with caplog.at_level("INFO", "fleetgate.device"):
        state.deliver("a/b", b"a secret, long ago", retained=True)
    state.deliver("a/b", b"now", retained=False)
    assert got == [("a/b", b"now")]
    assert [each.getMessage() for each in caplog.records] == [
        "event=retained-ignored topic='a/b' bytes=18"
    ]


def test_an_unsubscribe_ends_no_subscription_that_was_made_after_it() -> None:
    """Not even one of the same callback, and not when its acknowledgement is late."""
    state = ClientState()
    got: list[bytes] = []

    def receive(_topic: str, payload: bytes) -> None:
        got.append(payload)

    state.subscribing("a", 1, receive).begin()
    unsubscribing = state.unsubscribing("a")
    unsubscribing.begin()
    state.deliver("a", b"until it is acknowledged", retained=False)
    state.subscribing("a", 1, receive).begin()
    unsubscribing.acknowledged(0, None)
    state.deliver("a", b"and again", retained=False)
    assert got == [b"until it is acknowledged", b"and again"]


@pytest.mark.parametrize("end", ["acknowledged", "fail"])
def test_a_subscription_that_failed_is_forgotten(end: str) -> None:
    state = ClientState()
    got: list[bytes] = []
    attempt = state.subscribing("a", 1, lambda _topic, payload: got.append(payload))
    attempt.begin()
    if end == "acknowledged":
        attempt.acknowledged(0x80, "no")
    else:
        attempt.fail(BadRequest("it cannot be sent"))
    state.deliver("a", b"", retained=False)
    assert got == []
    with pytest.raises(NotAuthorized if end == "acknowledged" else BadRequest):
        attempt.future.result(0)


def test_what_cannot_be_is_refused_before_it_is_tried() -> None:
    state = ClientState()
    for attempt in (
        state.subscribing("a#", 1, lambda *_: None),
        state.subscribing("a", 2, lambda *_: None),
        state.unsubscribing(""),
        state.publishing("#", b"", 1, 5, None),
        state.publishing("a", bytes(100), 1, 5, 100),
    ):
        with pytest.raises(BadRequest):
            attempt.future.result(0)


@pytest.mark.parametrize(
    ("version", "code", "said", "retry"),
    [
        # MQTT 3.1.1 section 3.2.2.3
        (4, 1, "unacceptable protocol version, 0x01); does the server speak MQTT 3.1.1?", False),
        (4, 2, "identifier rejected, 0x02); may a client be called `me`?", False),
        (4, 3, "server unavailable, 0x03); try again later", True),
        (4, 5, "not authorized, 0x05); is the client certificate registered and ACTIVE", True),
        # MQTT 5 section 3.2.2.2
        (5, 0x84, "unsupported protocol version, 0x84: no); does the server speak MQTT 5?", False),
        (5, 0x85, "client identifier not valid, 0x85: no); may a client be called `me`?", False),
        (5, 0x87, "not authorized, 0x87: no); is the client certificate registered", True),
        (5, 0x88, "server unavailable, 0x88: no); try again later", True),
        (5, 0x97, "quota exceeded, 0x97: no); try again later", True),
        (5, 0x9F, "connection rate exceeded, 0x9f: no); try again later", True),
        (5, 0xFE, "unknown code, 0xfe: no); is the client certificate registered", True),
    ],
)
def test_a_refused_connection_in_words(version: Version, code: int, said: str, retry: bool) -> None:
    endpoint = Endpoint("host", mqtt_version=version)
    text = "no" if version == 5 else None
    error = client_state.said_refused(endpoint, "me", code, text)
    assert error.message.startswith(f"`host` port 8883 refused the connection ({said}")
    assert error.retry == retry
