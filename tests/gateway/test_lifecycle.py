"""Lifecycle events: what they say, and which end of a connection has which reason.

Source, unless said otherwise: AWS IoT developer guide, "Lifecycle events".
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetgate.gateway import lifecycle
from fleetgate.gateway.lifecycle import Cause, Client, Event, cause_of, topic_of
from fleetgate.gateway.services import ProvisioningRequest, Reply
from fleetgate.gateway.tls import TlsLimits
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from fleetgate.mqtt.reasons import Reason
from tests.gateway.running import CREATE, Device, Running, make_credentials

VERSIONS = pytest.mark.parametrize("version", [4, 5])
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

# --- documents ------------------------------------------------------------------------------------

EXAMPLE = Client(
    "186b5",
    "exampleThing",
    "00000000-0000-0000-0000-000000000000",
    "12345678901234567890123456789012",
)


def test_the_examples_of_the_guide() -> None:
    assert lifecycle.connected(EXAMPLE, 1573002230757, "192.0.2.0", 0) == {
        "clientId": "186b5",
        "thingName": "exampleThing",
        "timestamp": 1573002230757,
        "eventType": "connected",
        "sessionIdentifier": "00000000-0000-0000-0000-000000000000",
        "principalIdentifier": "12345678901234567890123456789012",
        "ipAddress": "192.0.2.0",
        "versionNumber": 0,
    }
    cause = Cause.CLIENT_INITIATED_DISCONNECT
    assert lifecycle.disconnected(EXAMPLE, 1573002340451, cause, 0) == {
        "clientId": "186b5",
        "thingName": "exampleThing",
        "timestamp": 1573002340451,
        "eventType": "disconnected",
        "sessionIdentifier": "00000000-0000-0000-0000-000000000000",
        "principalIdentifier": "12345678901234567890123456789012",
        "clientInitiatedDisconnect": True,
        "disconnectReason": "CLIENT_INITIATED_DISCONNECT",
        "versionNumber": 0,
    }
    assert lifecycle.connect_failed(EXAMPLE, 1460065214626, "192.0.2.0") == {
        "clientId": "186b5",
        "thingName": "exampleThing",
        "timestamp": 1460065214626,
        "eventType": "connect_failed",
        "connectFailureReason": "AUTHORIZATION_FAILED",
        "principalIdentifier": "12345678901234567890123456789012",
        "sessionIdentifier": "00000000-0000-0000-0000-000000000000",
        "ipAddress": "192.0.2.0",
    }
    topics = ["foo/bar", "device/data", "dog/cat"]
    for event in (Event.SUBSCRIBED, Event.UNSUBSCRIBED):
        assert lifecycle.subscriptions(event, EXAMPLE, 1460065214626, topics) == {
            "clientId": "186b5",
            "thingName": "exampleThing",
            "timestamp": 1460065214626,
            "eventType": event.value,
            "sessionIdentifier": "00000000-0000-0000-0000-000000000000",
            "principalIdentifier": "12345678901234567890123456789012",
            "topics": topics,
        }


def test_there_is_a_thing_name_only_with_an_exclusive_thing() -> None:
    """ "`thingName` will only be included if the client is connecting using the exclusive thing
    feature." """
    client = replace(EXAMPLE, thing_name=None)
    for document in (
        lifecycle.connected(client, 0, "192.0.2.0", 0),
        lifecycle.disconnected(client, 0, Cause.CONNECTION_LOST, 0),
        lifecycle.connect_failed(client, 0, "192.0.2.0"),
        lifecycle.subscriptions(Event.SUBSCRIBED, client, 0, ["a"]),
    ):
        assert "thingName" not in document


def test_only_the_client_itself_initiates() -> None:
    """ "True if the client initiated the disconnect. Otherwise, false." """
    for cause in Cause:
        initiated = lifecycle.disconnected(EXAMPLE, 0, cause, 0)["clientInitiatedDisconnect"]
        assert initiated is (cause is Cause.CLIENT_INITIATED_DISCONNECT)


@pytest.mark.parametrize(
    ("event", "topic"),
    [
        (Event.CONNECTED, "$aws/events/presence/connected/lamp"),
        (Event.DISCONNECTED, "$aws/events/presence/disconnected/lamp"),
        (Event.CONNECT_FAILED, "$aws/events/presence/connect_failed/lamp"),
        (Event.SUBSCRIBED, "$aws/events/subscriptions/subscribed/lamp"),
        (Event.UNSUBSCRIBED, "$aws/events/subscriptions/unsubscribed/lamp"),
    ],
)
def test_topics(event: Event, topic: str) -> None:
    assert topic_of(event, "lamp") == topic
    for client_id in ("+", "#", "a+b", "a#", "a/+/b"):
        # "Client IDs that contain # or + do not receive lifecycle events."
        assert topic_of(event, client_id) is None


SERVER = {
    Cause.SERVER_ERROR: "UNSPECIFIED_ERROR IMPLEMENTATION_SPECIFIC_ERROR SERVER_UNAVAILABLE "
    "SERVER_BUSY",
    Cause.SERVER_INITIATED_DISCONNECT: "SERVER_SHUTTING_DOWN ADMINISTRATIVE_ACTION "
    "USE_ANOTHER_SERVER SERVER_MOVED MAXIMUM_CONNECT_TIME",
    Cause.FORBIDDEN_ACCESS: "NOT_AUTHORIZED BANNED",
    Cause.MQTT_KEEP_ALIVE_TIMEOUT: "KEEP_ALIVE_TIMEOUT",
    Cause.DUPLICATE_CLIENTID: "SESSION_TAKEN_OVER",
    Cause.THROTTLED: "QUOTA_EXCEEDED MESSAGE_RATE_TOO_HIGH CONNECTION_RATE_EXCEEDED",
}


def test_reasons_of_mqtt_as_reasons_of_events() -> None:
    expected = {Reason[name]: cause for cause, names in SERVER.items() for name in names.split()}
    for reason in Reason:
        assert cause_of(reason) is expected.get(reason, Cause.CLIENT_ERROR)


# --- over the wire --------------------------------------------------------------------------------


class Watcher:
    """A client that hears all lifecycle events of others, and its own subscriptions."""

    def __init__(self, device: Device) -> None:
        self.device = device
        device.subscribe("$aws/events/presence/#", "$aws/events/subscriptions/#")
        self.next()  # of its own subscriptions

    def next(self) -> dict[str, Any]:
        """The next event; its topic is that of its type and client id, and at QoS 1."""
        message = self.device.message()
        event: dict[str, Any] = json.loads(message.payload)
        assert message.topic == topic_of(Event(event["eventType"]), event["clientId"])
        assert (message.qos, message.retain, message.dup) == (1, False, False)
        assert abs(event["timestamp"] / 1000 - time.time()) < 10_000
        assert UUID.fullmatch(event["sessionIdentifier"])
        return event

    def of(self, kind: str) -> dict[str, Any]:
        """The next event, which has to be of this type."""
        event = self.next()
        assert event["eventType"] == kind, event
        return event

    def nothing(self) -> bool:
        """There is no event that has not been read."""
        self.device.send(Publish("own/end", b"", 1, packet_id=self.device.core.next_packet_id()))
        return not isinstance(self.device.next(), Publish)


@pytest.fixture
def watcher(running: Running) -> Iterator[Watcher]:
    credentials = make_credentials(running.directory, "watcher")
    running.register(credentials)
    with running.connect("watcher", 5, credentials=credentials, keep_alive=1200) as device:
        yield Watcher(device)


@VERSIONS
def test_a_client_comes_and_goes(running: Running, watcher: Watcher, version: Version) -> None:
    began = int(time.time() * 1000)
    with running.connect("lamp", version) as lamp:
        connected = watcher.next()
        lamp.send(Disconnect())
    disconnected = watcher.next()
    common = {
        "clientId": "lamp",
        "sessionIdentifier": connected["sessionIdentifier"],
        "principalIdentifier": running.device.certificate_id,
        "versionNumber": 0,
    }
    assert connected == {
        **common,
        "eventType": "connected",
        "timestamp": connected["timestamp"],
        "ipAddress": "127.0.0.1",
    }
    assert disconnected == {
        **common,
        "eventType": "disconnected",
        "timestamp": disconnected["timestamp"],
        "clientInitiatedDisconnect": True,
        "disconnectReason": "CLIENT_INITIATED_DISCONNECT",
    }
    for event in (connected, disconnected):
        assert type(event["timestamp"]) is int
        assert began <= event["timestamp"] <= time.time() * 1000
        assert type(event["versionNumber"]) is int


def test_the_members_come_in_the_order_of_the_guide(running: Running, watcher: Watcher) -> None:
    with running.connect("lamp") as lamp:
        assert list(watcher.next()) == [
            *("clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier"),
            *("ipAddress", "versionNumber"),
        ]
        lamp.send(Disconnect())
    assert list(watcher.next()) == [
        *("clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier"),
        *("clientInitiatedDisconnect", "disconnectReason", "versionNumber"),
    ]


Ending = Callable[[Running, Device], None]


def _forbidden_publish(running: Running, lamp: Device) -> None:
    running.allow("Allow Connect *", "Allow Publish topic/a")
    lamp.send(Publish("b", b"", 0))


def _kept_waiting(running: Running, lamp: Device) -> None:
    async def never(request: ProvisioningRequest) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError(request)

    running.answer = never
    lamp.subscribe(CREATE + "/accepted")
    lamp.send(*(Publish(CREATE, b"{}", 0) for _ in range(18)))


def _too_many_filters(_running: Running, lamp: Device) -> None:
    lamp.send(Subscribe(1, tuple(Subscription(f"a/{each}", 0) for each in range(65))))


def _broken_policies(running: Running, lamp: Device) -> None:
    running.documents[running.device.certificate_id] = "no policy"
    running.epoch += 1
    lamp.send(Pingreq())


def _connect_again(_running: Running, lamp: Device) -> None:
    # the second CONNECT of a connection, which our own client would not send
    lamp.socket.sendall(bytes.fromhex("100f 00 04 4d 51 54 54 04 02 003c 0003 786f 78"))


ENDINGS: list[tuple[str, Cause, Ending]] = [
    # "The client indicates that it will disconnect"
    ("DISCONNECT", Cause.CLIENT_INITIATED_DISCONNECT, lambda _, lamp: lamp.send(Disconnect())),
    # "The client-server connection is cut off"
    ("end of TLS", Cause.CONNECTION_LOST, lambda _, lamp: lamp.socket.unwrap().close()),
    ("end of TCP", Cause.CONNECTION_LOST, lambda _, lamp: lamp.socket.close()),
    # "no client-server communication for 1.5x of the client's keep-alive time"
    (
        "keep alive",
        Cause.MQTT_KEEP_ALIVE_TIMEOUT,
        lambda running, _: running.advance(91),
    ),
    # "The client failed to authenticate or authorization failed."
    ("PUBLISH not allowed", Cause.AUTH_ERROR, _forbidden_publish),
    # "The client is not allowed to be connected."
    (
        "certificate deactivated",
        Cause.FORBIDDEN_ACCESS,
        lambda running, _: running.do(
            lambda: running.gateway.disconnect_certificate(running.device.certificate_id)
        ),
    ),
    # "sending more than 1 MQTT CONNECT packet on the same connection or if the client attempts
    # to publish with a payload that exceeds the payload limit"
    ("second CONNECT", Cause.CLIENT_ERROR, _connect_again),
    (
        "payload too large",
        Cause.CLIENT_ERROR,
        lambda _, lamp: lamp.send(Publish("a", bytes(131073), 0)),
    ),
    ("packet too large", Cause.CLIENT_ERROR, lambda _, lamp: lamp.socket.sendall(b"0\xff\xff\x7f")),
    ("no MQTT", Cause.CLIENT_ERROR, lambda _, lamp: lamp.socket.sendall(b"\x00\x00")),
    (
        "PUBLISH to a reserved topic",
        Cause.CLIENT_ERROR,
        lambda _, lamp: lamp.send(Publish("$aws/events/presence/connected/lamp", b"{}", 0)),
    ),
    # "The client is disconnected for exceeding a throttling limit."
    ("too many filters", Cause.THROTTLED, _too_many_filters),
    ("too many requests", Cause.THROTTLED, _kept_waiting),
    # "Disconnected due to unexpected server issues."
    ("policies not readable", Cause.SERVER_ERROR, _broken_policies),
]


@VERSIONS
@pytest.mark.parametrize(
    ("cause", "end"), [each[1:] for each in ENDINGS], ids=[e[0] for e in ENDINGS]
)
def test_why_a_connection_ends(
    running: Running, watcher: Watcher, version: Version, cause: Cause, end: Ending
) -> None:
    with running.connect("lamp", version, keep_alive=60) as lamp:
        session = watcher.of("connected")["sessionIdentifier"]
        end(running, lamp)
        event = watcher.next()
        while event["eventType"] == "subscribed":
            event = watcher.next()
    assert event["disconnectReason"] == cause.value
    assert event["clientInitiatedDisconnect"] is (cause is Cause.CLIENT_INITIATED_DISCONNECT)
    assert event["sessionIdentifier"] == session
    assert watcher.nothing(), "there is one end"


@VERSIONS
def test_an_expired_certificate_ends_a_connection(
    running: Running, watcher: Watcher, version: Version
) -> None:
    """ "The client is not allowed to be connected." """
    name = running.device.certificate_id
    running.registry[name] = replace(running.registry[name], not_after=time.time() + 60)
    with running.connect("lamp", version, keep_alive=60):
        watcher.of("connected")
        running.advance(61)
        assert watcher.of("disconnected")["disconnectReason"] == "FORBIDDEN_ACCESS"


def test_the_server_ends_connections_for_reasons_of_its_own(running: Running) -> None:
    """ "Server intentionally disconnects a client for operational reasons." """
    credentials = make_credentials(running.directory, "watcher")
    running.register(credentials)
    with running.connect("lamp"), running.connect("watcher", 5, credentials=credentials) as device:
        Watcher(device)
        running.do(running.gateway.disconnect_all)
        event = json.loads(device.message(acknowledge=False).payload)
        assert event["disconnectReason"] == "SERVER_INITIATED_DISCONNECT"
        assert event["clientId"] == "lamp"
        assert device.expect(Disconnect).reason_code == Reason.ADMINISTRATIVE_ACTION


def test_a_disconnect_with_the_will_is_one_of_the_client(
    running: Running, watcher: Watcher
) -> None:
    with running.connect("lamp", 5, will=Will("own/end", b"")) as lamp:
        watcher.of("connected")
        lamp.send(Disconnect(Reason.DISCONNECT_WITH_WILL))
        assert watcher.of("disconnected")["clientInitiatedDisconnect"] is True


def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    with Running(tmp_path, tls_limits=TlsLimits(outgoing_bytes=1 << 16)) as running:
        credentials = make_credentials(running.directory, "watcher")
        running.register(credentials)
        with running.connect("watcher", 5, credentials=credentials) as device:
            watcher = Watcher(device)
            with running.connect("lamp") as lamp, running.connect("door") as door:
                lamp.subscribe("a")
                for _ in range(60):
                    door.publish("a", bytes(100_000))
                events = [watcher.next() for _ in range(4)]
    assert events[3]["eventType"] == "disconnected"
    assert (events[3]["clientId"], events[3]["disconnectReason"]) == ("lamp", "CONNECTION_LOST")


# --- versions and sessions ------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("clean", [True, False])
def test_a_takeover_is_two_events_in_order(
    running: Running, watcher: Watcher, version: Version, clean: bool
) -> None:
    """ "the client that is already connected will be disconnected with this disconnect reason" """
    options: dict[str, Any] = {"clean_start": clean}
    if version == 5 and not clean:
        options["properties"] = {"session_expiry_interval": 100}
    with running.connect("lamp", version, **options) as first:
        connected = watcher.of("connected")
        with running.connect("lamp", version, **options) as second:
            gone, back = watcher.of("disconnected"), watcher.of("connected")
            assert gone["disconnectReason"] == "DUPLICATE_CLIENTID"
            assert gone["sessionIdentifier"] == connected["sessionIdentifier"]
            assert back["sessionIdentifier"] != connected["sessionIdentifier"]
            assert [each["versionNumber"] for each in (connected, gone, back)] == [0, 0, 1]
            second.send(Disconnect())
            last = watcher.of("disconnected")
            assert last["versionNumber"] == 1
            assert last["sessionIdentifier"] == back["sessionIdentifier"]
        if version == 5:
            assert first.expect(Disconnect).reason_code == 0x8E
        assert first.is_closed()
    assert watcher.nothing()


def test_versions_grow_with_each_connection_and_end_with_an_hour_of_absence(
    running: Running, watcher: Watcher
) -> None:
    def version() -> int:
        with running.connect("lamp") as lamp:
            connected = watcher.of("connected")
            lamp.send(Disconnect())
            assert watcher.of("disconnected")["versionNumber"] == connected["versionNumber"]
            return int(connected["versionNumber"])

    assert [version(), version()] == [0, 1]
    for _ in range(2):
        running.advance(1790)
        watcher.device.send(Pingreq())
        watcher.device.next()
    assert version() == 2
    for _ in range(3):
        running.advance(1790)
        watcher.device.send(Pingreq())
        watcher.device.next()
    assert version() == 0


def test_a_client_without_an_id_has_events_under_the_one_it_gets(
    running: Running, watcher: Watcher
) -> None:
    with running.connect("", 5) as device:
        given = device.connack.properties["assigned_client_identifier"]
        assert watcher.of("connected")["clientId"] == given


@pytest.mark.parametrize("client_id", ["a+b", "#", "+"])
def test_clients_whose_id_has_a_wildcard_have_no_events(
    running: Running, watcher: Watcher, client_id: str
) -> None:
    with running.connect(client_id) as device:
        device.subscribe("a")
        device.send(Disconnect())
        assert device.is_closed()
    assert watcher.nothing()


def test_client_ids_with_slashes_have_events(running: Running, watcher: Watcher) -> None:
    with running.connect("house/1/2/3/4/5/6"):
        assert watcher.of("connected")["clientId"] == "house/1/2/3/4/5/6"


def test_the_thing_of_an_exclusive_attachment(running: Running, watcher: Watcher) -> None:
    """Guide, "Associating an AWS IoT thing to an MQTT client connection"."""
    name = running.device.certificate_id
    running.registry[name] = replace(running.registry[name], exclusive_thing="kitchen-lamp")
    with running.connect("lamp") as lamp:
        lamp.subscribe("a")
        lamp.send(Unsubscribe(9, ("a",)))
        lamp.expect(Unsuback)
        lamp.send(Disconnect())
        for kind in ("connected", "subscribed", "unsubscribed", "disconnected"):
            event = watcher.of(kind)
            assert (event["clientId"], event["thingName"]) == ("lamp", "kitchen-lamp")
    running.allow("Deny Connect *")
    with running.raw() as lamp:
        lamp.send(Connect("lamp"))
        assert watcher.of("connect_failed")["thingName"] == "kitchen-lamp"


# --- who is not let in ----------------------------------------------------------------------------


@VERSIONS
def test_a_connect_that_no_policy_allows(
    running: Running, watcher: Watcher, version: Version
) -> None:
    running.allow("Allow Connect client/door")
    with running.raw() as lamp:
        lamp.send(Connect("lamp", version=version))
        assert lamp.expect(Connack).reason_code == (0x87 if version == 5 else 5)
        event = watcher.next()
    assert event == {
        "clientId": "lamp",
        "timestamp": event["timestamp"],
        "eventType": "connect_failed",
        "connectFailureReason": "AUTHORIZATION_FAILED",
        "principalIdentifier": running.device.certificate_id,
        "sessionIdentifier": event["sessionIdentifier"],
        "ipAddress": "127.0.0.1",
    }
    assert watcher.nothing(), "what was not connected does not disconnect"


def test_a_will_that_no_policy_allows(running: Running, watcher: Watcher) -> None:
    """ "... or when a last will and testament is configured and the client is not authorized to
    publish to that last will topic." """
    running.allow("Allow Connect *", "Allow Publish topic/a")
    with running.raw() as lamp:
        lamp.send(Connect("lamp", will=Will("b", b"")))
        assert watcher.of("connect_failed")["clientId"] == "lamp"


def test_a_temporary_claim_under_the_client_id_of_a_device(
    running: Running, watcher: Watcher
) -> None:
    claim = make_credentials(running.directory, "claim")
    running.register(claim)
    name = claim.certificate_id
    running.registry[name] = replace(running.registry[name], template_name="t")
    with running.connect("lamp"):
        watcher.of("connected")
        with running.raw(claim) as thief:
            thief.send(Connect("lamp"))
            assert watcher.of("connect_failed")["principalIdentifier"] == name


def test_strangers_make_no_events(running: Running, watcher: Watcher) -> None:
    """AWS does not let them finish the TLS handshake, so it has no client id to speak of."""
    stranger = make_credentials(running.directory, "stranger")
    with running.raw(stranger) as device:
        device.send(Connect("lamp"))
        assert device.expect(Connack).reason_code == 5
    with running.raw() as device:
        device.send(Connect("$lamp"))  # refused, and not for want of a right
        assert device.expect(Connack).reason_code == 2
    assert watcher.nothing()


# --- subscriptions --------------------------------------------------------------------------------


@VERSIONS
def test_subscriptions_and_their_end(running: Running, watcher: Watcher, version: Version) -> None:
    running.allow("Allow Connect *", "Allow Subscribe topicfilter/dog/*")
    with running.connect("lamp", version) as lamp:
        session = watcher.of("connected")["sessionIdentifier"]
        codes = lamp.subscribe("dog/cat", "cat/dog", "dog/#", "dog/cat")
        assert [code < 0x80 for code in codes] == [True, False, True, True]
        event = watcher.next()
        assert event == {
            "clientId": "lamp",
            "timestamp": event["timestamp"],
            "eventType": "subscribed",
            "sessionIdentifier": session,
            "principalIdentifier": running.device.certificate_id,
            "topics": ["dog/cat", "dog/#", "dog/cat"],
        }
        lamp.subscribe("cat/dog")
        lamp.send(Unsubscribe(7, ("dog/cat", "cat/dog", "dog/cat")), Unsubscribe(8, ("x",)))
        assert [lamp.expect(Unsuback).packet_id for _ in range(2)] == [7, 8]
        event = watcher.of("unsubscribed")
        assert (event["topics"], event["sessionIdentifier"]) == (["dog/cat"], session)
        lamp.send(Disconnect())
        watcher.of("disconnected")
    assert watcher.nothing(), "what ends with the session is not unsubscribed"


@VERSIONS
def test_a_client_hears_of_its_own_subscription_after_suback(
    running: Running, version: Version
) -> None:
    with running.connect("lamp", version) as lamp:
        topic = "$aws/events/subscriptions/subscribed/lamp"
        lamp.send(Subscribe(1, (Subscription(topic, 0),)))
        assert lamp.expect(Suback).reason_codes == (0,)
        message = lamp.message()
        assert (message.topic, message.qos) == (topic, 0)
        assert json.loads(message.payload)["topics"] == [topic]


def test_a_session_hears_of_its_own_end_and_return(running: Running) -> None:
    """In order: CONNACK, what waited, then that it is connected."""
    options: dict[str, Any] = {"clean_start": False}
    with running.connect("lamp", **options) as lamp:
        lamp.subscribe("$aws/events/presence/+/lamp")
        lamp.send(Disconnect())
    with running.connect("lamp", **options) as lamp:
        events = [json.loads(lamp.message().payload) for _ in range(2)]
    assert [each["eventType"] for each in events] == ["disconnected", "connected"]
    assert [each["versionNumber"] for each in events] == [0, 1]


# --- reserved topics ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic_filter", "kinds"),
    [
        ("$aws/events/#", ["connected", "subscribed", "disconnected"]),
        ("$aws/events/presence/#", ["connected", "disconnected"]),
        ("$aws/events/presence/connected/+", ["connected"]),
        ("$aws/events/presence/connected/lamp", ["connected"]),
        ("$aws/events/presence/+/lamp", ["connected", "disconnected"]),
        ("$aws/events/+/+/lamp", ["connected", "subscribed", "disconnected"]),
        ("$aws/events/presence/disconnected/door", []),
        ("$aws/events/certificates/registered/+", []),
        ("#", []),
        ("+/events/#", []),
        ("+/events/presence/connected/lamp", []),
    ],
)
def test_what_a_filter_gets(running: Running, topic_filter: str, kinds: list[str]) -> None:
    """Guide, "Reserved topics": to be subscribed to; MQTT-4.7.2-1: no wildcard matches `$`."""
    with running.connect("watcher", 5) as watcher, running.connect("mark", 5) as mark:
        assert watcher.subscribe(topic_filter, "end") == (1, 1)
        with running.connect("lamp", 5) as lamp:
            lamp.subscribe("x")
            lamp.send(Disconnect())
            assert lamp.is_closed()
        mark.publish("end")
        got: list[str] = []
        while (message := watcher.message()).topic != "end":
            event = json.loads(message.payload)
            if event["clientId"] == "lamp":
                got.append(event["eventType"])
    assert got == kinds


@pytest.mark.parametrize("topic_filter", ["$aws/#", "$aws/events", "$aws/+/presence/#", "$other/a"])
def test_nothing_is_offered_under_other_reserved_filters(
    running: Running, topic_filter: str
) -> None:
    with running.connect("lamp", 5) as lamp:
        assert lamp.subscribe(topic_filter) == (0x87,)


@VERSIONS
@pytest.mark.parametrize(
    "topic",
    [
        "$aws/events/presence/connected/lamp",
        "$aws/events/presence/disconnected/door",
        "$aws/events/subscriptions/subscribed/lamp",
        "$aws/events/certificates/registered/1",
        "$aws/events/x",
        "$aws/x",
        "$x",
    ],
)
def test_nobody_can_publish_events(
    running: Running, watcher: Watcher, version: Version, topic: str
) -> None:
    """Guide, "Reserved topics": "Unsupported publish or subscribe operations to reserved topics
    can result in a terminated connection." """
    with running.connect("lamp", version) as lamp:
        watcher.of("connected")
        lamp.send(Publish(topic, b"{}", 0))
        if version == 5:
            assert lamp.expect(Disconnect).reason_code == 0x90
        assert lamp.is_closed()
    assert watcher.of("disconnected")["disconnectReason"] == "CLIENT_ERROR"
    assert watcher.nothing()


def test_a_policy_decides_who_hears_events(running: Running) -> None:
    """Of iot:Subscribe the filter has to be allowed, of iot:Receive each topic."""
    watcher = make_credentials(running.directory, "watcher")
    running.register(watcher)
    running.allow(
        "Allow Connect *",
        "Allow Subscribe topicfilter/$aws/events/presence/#",
        "Allow Receive topic/$aws/events/presence/*",
        "Deny Receive topic/$aws/events/presence/connected/secret",
    )
    with running.connect("curious", 5) as curious:
        assert curious.subscribe("$aws/events/presence/#", "$aws/events/#") == (1, 0x87)
        for client_id in ("secret", "lamp"):
            with running.connect(client_id, credentials=watcher):
                pass
        heard = [json.loads(curious.message().payload) for _ in range(3)]
    assert sorted((each["clientId"], each["eventType"]) for each in heard) == [
        ("lamp", "connected"),
        ("lamp", "disconnected"),
        ("secret", "disconnected"),
    ]


def test_what_nobody_hears_is_not_made(running: Running) -> None:
    with running.connect("lamp") as lamp:
        lamp.subscribe("#", "a")
        (connection,) = running.gateway._connections()
        assert connection._session_identifier is None
        lamp.subscribe("$aws/events/subscriptions/subscribed/lamp")
        lamp.message()
        assert connection.session_identifier == connection._session_identifier
