"""PUBLISH, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT: limits, policies, codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleetgate.broker.session import Limits
from fleetgate.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from fleetgate.operations.admission import NotAdmitted
from tests.gateway.running import CREATE, Device, Running

VERSIONS = pytest.mark.parametrize("version", [4, 5])


def ends(device: Device, reason: int, *words: str) -> None:
    """The server closes; in MQTT 5 with a DISCONNECT that says why."""
    if device.core.version == 5:
        farewell = device.expect(Disconnect)
        assert farewell.reason_code == reason
        for word in words:
            assert word in farewell.properties["reason_string"]
    assert device.is_closed()


# --- publishing -----------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_arrives(running: Running, version: Version, qos: int) -> None:
    with running.connect("lamp", version) as lamp, running.connect("door", 5) as door:
        door.subscribe("house/+")
        lamp.publish("house/lamp", b"on", qos)
        message = door.message()
        assert (message.topic, message.payload, message.qos) == ("house/lamp", b"on", qos)
        assert not message.retain
        assert not message.dup


def test_the_granted_qos_bounds_that_of_the_message(running: Running) -> None:
    with running.connect() as device:
        device.subscribe("a", qos=0)
        device.publish("a", qos=1)
        assert device.message().qos == 0


def test_properties_travel_between_clients_of_mqtt_5(running: Running) -> None:
    properties: dict[str, Any] = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answers/lamp",
        "correlation_data": b"\0\1",
        "user_property": [("k", "v"), ("k", "w")],
        "message_expiry_interval": 100,
    }
    with (
        running.connect("lamp", 5) as lamp,
        running.connect("door", 5) as door,
        running.connect("old", 4) as old,
    ):
        for each in (door, old):
            each.subscribe("a")
        lamp.publish("a", b"x", **properties)
        received = dict(door.message().properties)
        assert received.pop("message_expiry_interval") in (99, 100)
        del properties["message_expiry_interval"]
        assert received == properties
        assert old.message().properties == {}


@VERSIONS
def test_the_largest_payload_and_one_byte_more(running: Running, version: Version) -> None:
    """AWS IoT Core quotas, "Publish request size": 128 KB."""
    with running.connect("lamp", version) as device:
        device.subscribe("a")
        device.publish("a", bytes(131072))
        assert device.message().payload == bytes(131072)
        device.send(Publish("a", bytes(131073), 0))
        ends(device, 0x95, "131073")


@VERSIONS
def test_a_packet_over_146_kilobytes_ends_the_connection_before_it_is_read(
    running: Running, version: Version
) -> None:
    with running.connect("lamp", version) as device:
        device.socket.sendall(b"\x30" + b"\xff\xff\xff\x7f")
        ends(device, 0x95)


@VERSIONS
def test_qos_2_is_not_offered(running: Running, version: Version) -> None:
    with running.connect("lamp", version) as device:
        # MQTT 5 clients have been told so; ours would not send it
        device.socket.sendall(
            b"\x34\x06\x00\x01a\x00\x01\x00" if version == 5 else b"\x34\x05\x00\x01a\x00\x01"
        )
        ends(device, 0x9B, "QoS 2")


@VERSIONS
def test_retained_messages_are_not_offered(running: Running, version: Version) -> None:
    with running.connect("lamp", version) as device:
        device.socket.sendall(b"\x31\x04\x00\x01a\x00" if version == 5 else b"\x31\x03\x00\x01a")
        ends(device, 0x9A, "retain")


@VERSIONS
@pytest.mark.parametrize("topic", ["a/b/c/d/e/f/g/h/i", "a" * 257, "ä" * 129])
def test_a_topic_beyond_the_limits_ends_the_connection(
    running: Running, version: Version, topic: str
) -> None:
    """AWS IoT Core quotas, "Topic size", "Maximum number of slashes in topic"."""
    with running.connect("lamp", version) as device:
        device.send(Publish(topic, b"x", 1, packet_id=1))
        ends(device, 0x90)


@VERSIONS
@pytest.mark.parametrize(
    "topic", ["$aws/things/lamp/shadow/update", "$aws/certificates/create/xml", "$SYS/x", "$x"]
)
def test_a_reserved_topic_that_is_not_offered_ends_the_connection(
    running: Running, log: list[str], version: Version, topic: str
) -> None:
    """AWS IoT developer guide, "Reserved topics"."""
    with running.connect("lamp", version) as device:
        device.send(Publish(topic, b"x", 1, packet_id=1))
        ends(device, 0x90, topic)
    assert any("is reserved" in line and "lamp" in line for line in log)


# --- policies -------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
def test_a_publish_that_no_policy_allows_ends_the_connection(
    running: Running, log: list[str], version: Version, qos: int
) -> None:
    """AWS IoT: MQTT 3.1.1 is disconnected; MQTT 5 gets PUBACK 0x87 and DISCONNECT 0x87."""
    running.allow("Allow Connect client/*", "Allow Publish topic/mine")
    with running.connect("lamp", version) as device:
        device.publish("mine")
        device.send(Publish("yours", b"x", qos, packet_id=7 if qos else None))
        if qos and version == 5:
            puback = device.expect(Puback)
            assert puback.reason_code == 0x87
            assert "topic/yours" in puback.properties["reason_string"]
        ends(device, 0x87, "iot:Publish", "topic/yours")
    assert any("no statement allows iot:Publish" in line for line in log)


@VERSIONS
def test_a_provisioning_request_that_no_policy_allows_is_no_rejected_message(
    running: Running, version: Version
) -> None:
    running.allow("Allow Connect client/*", "Allow Subscribe *")
    with running.connect("lamp", version) as device:
        device.send(Publish(CREATE, b"{}", 0))
        ends(device, 0x87)


@pytest.mark.parametrize(("version", "code"), [(4, 5), (5, 0x87)])
def test_a_connect_that_no_policy_allows_is_refused(
    running: Running, log: list[str], version: Version, code: int
) -> None:
    running.allow("Allow Connect client/${iot:ClientId}", "Deny Connect client/lamp")
    with running.connect("door", version):
        pass
    with running.raw() as device:
        device.send(Connect("lamp", version=version))
        assert device.expect(Connack).reason_code == code
        assert device.is_closed()
    line = next(line for line in log if "event=refused" in line)
    for word in ("client='lamp'", running.device.certificate_id, "reason=0x87", "iot:Connect"):
        assert word in line


@VERSIONS
def test_subscriptions_are_decided_one_by_one(running: Running, version: Version) -> None:
    running.allow(
        "Allow Connect client/*", "Allow Subscribe topicfilter/a/#", "Allow Publish topic/*"
    )
    with running.connect("lamp", version) as device:
        no = 0x80 if version == 4 else 0x87
        assert device.subscribe("a/#", "a/b", "b") == (1, no, no)
        device.send(Pingreq())
        device.expect(Pingresp)


def test_receiving_is_decided_for_each_message(running: Running) -> None:
    """Subscribed, but not allowed to receive: nothing comes, and nothing is said."""
    running.allow(
        "Allow Connect client/*",
        "Allow Subscribe topicfilter/*",
        "Allow Publish topic/*",
        "Allow Receive topic/a/open",
    )
    with running.connect() as device:
        device.subscribe("a/+")
        device.publish("a/secret")
        device.publish("a/open")
        assert device.message().topic == "a/open"


def test_a_changed_policy_holds_for_open_connections(running: Running) -> None:
    with running.connect("lamp", 5) as device:
        device.subscribe("a/+")
        device.publish("a/1")
        device.message()
        running.allow("Allow Publish topic/a/2", "Allow Receive topic/a/2")
        device.publish("a/2")
        assert device.message().topic == "a/2"
        assert device.subscribe("b") == (0x87,)
        device.send(Publish("a/1", b"x"))
        ends(device, 0x87)


def test_unchanged_policies_are_loaded_once(running: Running) -> None:
    with running.connect() as device:
        device.subscribe("a")
        for _ in range(20):
            device.publish("a")
            device.message()
    assert running.loads == 1


# --- subscribing ----------------------------------------------------------------------------------

FILTERS = [
    # filter, code of MQTT 5
    ("a", 1),
    ("#", 1),
    ("+/#", 1),
    ("a/b/c/d/e/f/g/#", 1),
    ("$aws/certificates/create/json/accepted", 1),
    ("$aws/certificates/#", 1),
    ("$aws/provisioning-templates/T/provision/cbor/+", 1),
    ("$aws/events/presence/connected/lamp", 1),
    ("a/b/c/d/e/f/g/h/i", 0x8F),
    ("a" * 257, 0x8F),
    ("$share/group/a", 0x9E),
    ("$aws/things/lamp/shadow/update/accepted", 0x87),
    ("$aws/#", 0x87),
    ("$SYS/#", 0x87),
]


@VERSIONS
@pytest.mark.parametrize(("topic_filter", "code"), FILTERS)
def test_what_may_be_subscribed_to(
    running: Running, version: Version, topic_filter: str, code: int
) -> None:
    with running.connect("lamp", version) as device:
        expected = code if version == 5 or code < 0x80 else 0x80
        wanted = (Subscription(topic_filter, 1),)
        device.send(Subscribe(device.core.next_packet_id(), wanted))
        suback = device.expect(Suback)
        assert suback.reason_codes == (expected,)
        assert ("reason_string" in suback.properties) is (version == 5 and code >= 0x80)


def test_a_subscribe_with_qos_2(running: Running) -> None:
    """3.1.1 has a code for one filter; in MQTT 5 it is an error of the client."""
    with running.connect("lamp", 4) as device:
        packet_id = device.core.next_packet_id()
        wanted = (Subscription("a", 2), Subscription("b", 1))
        device.send(Subscribe(packet_id, wanted))
        assert device.expect(Suback).reason_codes == (0x80, 1)
    with running.connect("lamp", 5) as device:
        device.send(Subscribe(1, (Subscription("a", 2),)))
        ends(device, 0x9B)


def test_subscription_identifiers_are_not_offered(running: Running) -> None:
    with running.connect("lamp", 5) as device:
        device.socket.sendall(b"\x82\x09\x00\x01\x02\x0b\x01\x00\x01a\x01")
        ends(device, 0xA1)


@VERSIONS
def test_a_subscribe_has_at_most_8_filters(running: Running, version: Version) -> None:
    with running.connect("lamp", version) as device:
        assert device.subscribe(*"abcdefgh") == (1,) * 8
        assert device.subscribe(*"ABCDEFGHI") == (0x97 if version == 5 else 0x80,) * 9


@VERSIONS
def test_a_subscribe_with_too_many_filters_is_refused_as_a_whole(
    running: Running, log: list[str], version: Version
) -> None:
    """One decision, one line, one sentence, however many filters there are."""
    with running.connect("lamp", version) as device:
        packet_id = device.core.next_packet_id()
        device.send(Subscribe(packet_id, (Subscription("a", 1),) * 64))
        suback = device.expect(Suback)
        assert suback.reason_codes == (0x97 if version == 5 else 0x80,) * 64
        if version == 5:
            assert suback.properties["reason_string"] == (
                "SUBSCRIBE with 64 topic filters, more than 8"
            )
        assert len([line for line in log if "event=subscribe-refused" in line]) == 1


@VERSIONS
@pytest.mark.parametrize("kind", [Subscribe, Unsubscribe])
def test_an_absurd_number_of_filters_ends_the_connection(
    running: Running, log: list[str], version: Version, kind: type[Subscribe | Unsubscribe]
) -> None:
    with running.connect("lamp", version) as device:
        if kind is Subscribe:
            device.send(Subscribe(1, (Subscription("a", 1),) * 25_000))
        else:
            device.send(Unsubscribe(1, ("a",) * 25_000))
        ends(device, 0x97, f"{kind.__name__.upper()} with 25000 topic filters")
    assert len([line for line in log if "25000 topic filters" in line]) == 1


def test_one_cause_is_told_once(running: Running) -> None:
    with running.connect("lamp", 5) as device:
        device.send(
            Subscribe(1, tuple(Subscription(f"$share/{each}/a", 1) for each in "abcd")),
        )
        suback = device.expect(Suback)
        assert suback.reason_codes == (0x9E,) * 4
        assert suback.properties["reason_string"] == "shared subscriptions are not offered"


@VERSIONS
def test_log_lines_are_bounded(running: Running, log: list[str], version: Version) -> None:
    with running.connect("lamp", version) as device:
        device.subscribe("a" * 60_000, "/" * 60_000)
        device.send(Unsubscribe(device.core.next_packet_id(), ("/" * 60_000, "b" * 60_000)))
        device.expect(Unsuback)
        device.send(Publish("c" * 60_000, b"x"))
        ends(device, 0x90)
    with running.raw() as device:
        device.send(
            Connect("d" * 30_000, version=version, will=Will("e" * 30_000, b"")),
        )
        assert device.expect(Connack).reason_code == (2 if version == 4 else 0x85)
    assert len(log) >= 5
    assert max(map(len, log)) < 1000


@VERSIONS
def test_a_connection_has_at_most_50_subscriptions(running: Running, version: Version) -> None:
    with running.connect("lamp", version) as device:
        for number in range(50):
            assert device.subscribe(str(number)) == (1,)
        assert device.subscribe("50") == (0x97 if version == 5 else 0x80,)
        assert device.subscribe("49", qos=0) == (0,)
        device.send(Unsubscribe(device.core.next_packet_id(), ("0",)))
        device.expect(Unsuback)
        assert device.subscribe("50") == (1,)


@VERSIONS
def test_unsubscribing_is_always_answered(running: Running, version: Version) -> None:
    with running.connect("lamp", version) as device:
        device.subscribe("a")
        device.send(Unsubscribe(device.core.next_packet_id(), ("a", "never")))
        assert device.expect(Unsuback).reason_codes == (() if version == 4 else (0, 0))
        device.publish("a")
        assert device.silent()


def test_no_local(running: Running) -> None:
    with running.connect("lamp", 5) as lamp, running.connect("door", 5) as door:
        lamp.subscribe("a", no_local=True)
        lamp.publish("a", b"own")
        door.publish("a", b"other")
        assert lamp.message().payload == b"other"


# --- the rest -------------------------------------------------------------------------------------


def test_authentication_packets_are_not_offered(running: Running) -> None:
    with running.connect("lamp", 5) as device:
        device.send(Auth(0x18, {"authentication_method": "x"}))
        ends(device, 0x82)


@VERSIONS
def test_packets_of_qos_2_are_not_offered(running: Running, version: Version) -> None:
    with running.connect("lamp", version) as device:
        device.socket.sendall(b"\x62\x02\x00\x01")
        ends(device, 0x9B, Pubrel.__name__.upper())


def test_the_session_expiry_may_be_changed_by_disconnect(running: Running) -> None:
    options = {"clean_start": False, "properties": {"session_expiry_interval": 100}}
    with running.connect("lamp", 5, **options) as device:
        device.send(Disconnect(0, {"session_expiry_interval": 0}))
        assert device.is_closed()
    with running.connect("lamp", 5, **options) as device:
        assert not device.connack.session_present


def test_a_session_that_was_to_end_cannot_be_made_to_stay(running: Running) -> None:
    """MQTT 5.0 section 3.14.2.2.2."""
    with running.connect("lamp", 5) as device:
        device.socket.sendall(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x64")
        ends(device, 0x82)
    with running.connect("lamp", 5, clean_start=False) as device:
        assert not device.connack.session_present


@pytest.mark.parametrize(
    ("version", "goodbye", "published"),
    [
        (4, Disconnect(), False),
        (5, Disconnect(), False),
        (5, Disconnect(0x04), True),
        (4, None, True),
        (5, None, True),
    ],
)
def test_a_will_is_published_unless_the_client_said_goodbye(
    running: Running, version: Version, goodbye: Packet | None, published: bool
) -> None:
    will = Will("wills/lamp", b"gone", 1)
    with running.connect("door") as door:
        door.subscribe("wills/+")
        with running.connect("lamp", version, will=will) as lamp:
            if goodbye is not None:
                lamp.send(goodbye)
                assert lamp.is_closed()
        if published:
            message = door.message()
            assert (message.topic, message.payload, message.qos) == ("wills/lamp", b"gone", 1)
        assert door.silent()


def test_a_will_that_no_policy_allows_is_not_published(running: Running, log: list[str]) -> None:
    """At the moment it is published: the rights may have gone since CONNECT."""
    with running.connect("door") as door:
        door.subscribe("wills/+")
        with running.connect("lamp", will=Will("wills/lamp", b"gone")):
            running.documents[running.device.certificate_id] = running.documents[
                running.device.certificate_id
            ].replace("iot:*", "iot:Receive")
        running.eventually(lambda: any("event=will-not-published" in line for line in log))
        assert door.silent(0.05)


@pytest.mark.parametrize(
    "cause", ["is not registered", "is INACTIVE, not ACTIVE", "is REVOKED, not ACTIVE", "expired"]
)
@pytest.mark.parametrize("delay", [0, 40])
def test_a_certificate_that_lost_its_rights_has_lost_its_will(
    running: Running, log: list[str], cause: str, delay: int
) -> None:
    async def refuse() -> None:
        raise NotAdmitted(f"certificate x {cause}")

    properties = {"will_delay_interval": delay}
    will = Will("wills/lamp", b"gone", properties=properties)
    options = {"clean_start": False, "properties": {"session_expiry_interval": 100}}
    with running.connect("door", keep_alive=1200) as door:
        door.subscribe("wills/+")
        lamp = running.connect("lamp", 5, will=will, **options)
        if delay:
            lamp.socket.close()
            running.eventually(lambda: len(running.gateway) == 1)
            running.before_admission = refuse
            running.advance(45)
        else:
            running.before_admission = refuse
            lamp.socket.close()
        running.eventually(lambda: any("event=will-not-published" in line for line in log))
        assert door.silent(0.05)
    (line,) = [line for line in log if "event=will-not-published" in line]
    assert cause in line


def test_a_delayed_will(running: Running) -> None:
    will = Will("wills/lamp", b"gone", 1, properties={"will_delay_interval": 40})
    options = {"clean_start": False, "properties": {"session_expiry_interval": 100}}
    with running.connect("door", keep_alive=1200) as door:
        door.subscribe("wills/+")
        running.connect("lamp", 5, will=will, **options).socket.close()
        running.eventually(lambda: len(running.gateway) == 1)
        running.advance(38)
        assert door.silent(0.05)
        running.advance(5)
        assert door.message().payload == b"gone"


@pytest.mark.parametrize(("version", "code"), [(4, 5), (5, 0x87)])
def test_a_will_that_no_policy_allows_is_refused_with_its_connect(
    running: Running, log: list[str], version: Version, code: int
) -> None:
    running.allow("Allow Connect client/*", "Allow Publish topic/mine")
    with running.connect("lamp", version, will=Will("mine", b"gone")):
        pass
    with running.raw() as device:
        device.send(Connect("lamp", version=version, will=Will("yours", b"gone")))
        assert device.expect(Connack).reason_code == code
        assert device.is_closed()
    assert any("event=refused" in line and "iot:Publish" in line for line in log)


@pytest.mark.parametrize(("version", "code"), [(4, 3), (5, 0x97)])
def test_a_will_for_which_there_is_no_room_is_refused(
    tmp_path: Path, version: Version, code: int
) -> None:
    with Running(tmp_path, limits=Limits(all_queued_bytes=10_000)) as running:
        with running.raw() as device:
            device.send(Connect("lamp", version=version, will=Will("a", bytes(9500))))
            assert device.expect(Connack).reason_code == code
        with running.connect("lamp", version, will=Will("a", bytes(5000))):
            with running.raw() as device:
                device.send(Connect("door", version=version, will=Will("a", bytes(5000))))
                assert device.expect(Connack).reason_code == code
            with running.connect("door"):
                pass
