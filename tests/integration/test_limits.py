"""Limits of the message broker, and what it does not offer: refused by the proper code.

Source: AWS IoT Core endpoints and quotas, "Message broker and protocol limits and quotas", and
the developer guide, "MQTT 5 reason codes"; MQTT 5 section 2.4 for the codes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.fleet import Identity
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.server import Server

VERSIONS = pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])
LONG = "x" * 257
DEEP = "a/b/c/d/e/f/g/h/i"  # eight slashes

NOT_AUTHORIZED = 0x87
INVALID_FILTER = 0x8F
INVALID_TOPIC = 0x90
QUOTA_EXCEEDED = 0x97
NO_RETAIN = 0x9A
NO_QOS = 0x9B
NO_SHARED = 0x9E

Send = Callable[[PahoDevice], object]


@VERSIONS
@pytest.mark.parametrize(
    ("send", "code"),
    [
        pytest.param(lambda d: d.send("devices/x", b"x", 2), NO_QOS, id="qos-2"),
        pytest.param(lambda d: d.send("devices/x", b"x", retain=True), NO_RETAIN, id="retain"),
        pytest.param(lambda d: d.send("devices/x", b"", 0, retain=True), NO_RETAIN, id="clear"),
        pytest.param(lambda d: d.send(DEEP, b"x"), INVALID_TOPIC, id="deep"),
        pytest.param(lambda d: d.send(LONG, b"x"), INVALID_TOPIC, id="long"),
        pytest.param(lambda d: d.send("ü" * 129, b"x"), INVALID_TOPIC, id="long-in-octets"),
    ],
)
def test_a_message_that_cannot_be_taken_ends_the_connection(
    server: Server, operator: Identity, name: str, *, version: int, send: Send, code: int
) -> None:
    with PahoDevice(server, operator, name, version=version) as device:
        send(device)
        assert device.disconnected.wait(5)
        assert device.disconnect_code == (code if version == 5 else None)


@VERSIONS
@pytest.mark.parametrize(
    ("filters", "codes"),
    [
        pytest.param(["$share/g/devices/x", "a"], [NO_SHARED, 1], id="shared"),
        pytest.param([DEEP, "a"], [INVALID_FILTER, 1], id="deep"),
        pytest.param([LONG, "a"], [INVALID_FILTER, 1], id="long"),
        pytest.param([f"a/{n}" for n in range(8)], [1] * 8, id="eight"),
        pytest.param([f"a/{n}" for n in range(9)], [QUOTA_EXCEEDED] * 9, id="nine"),
        pytest.param(["$aws/things/x/shadow/get", "$SYS/#"], [NOT_AUTHORIZED] * 2, id="reserved"),
    ],
)
def test_filters_are_granted_or_refused_one_by_one(
    server: Server,
    operator: Identity,
    name: str,
    *,
    version: int,
    filters: list[str],
    codes: list[int],
) -> None:
    expected = codes if version == 5 else [min(128, code) for code in codes]
    with PahoDevice(server, operator, name, version=version) as device:
        assert device.subscribe(*filters) == expected
        assert device.publish("devices/any", b"") == 0


@VERSIONS
def test_a_connection_has_fifty_subscriptions(
    server: Server, operator: Identity, name: str, version: int
) -> None:
    with PahoDevice(server, operator, name, version=version) as device:
        for packet in range(6):
            assert device.subscribe(*(f"a/{packet}/{n}" for n in range(8))) == [1] * 8
        refused = QUOTA_EXCEEDED if version == 5 else 0x80
        assert device.subscribe("b/1", "b/2", "b/3") == [1, 1, refused]
        device.unsubscribe("a/0/0")
        assert device.subscribe("b/3") == [1]


def test_a_subscription_at_quality_of_service_2_is_refused(
    server: Server, operator: Identity, name: str
) -> None:
    with PahoDevice(server, operator, f"{name}-311") as device:
        assert device.subscribe("a", qos=2) == [0x80]
    with PahoDevice(server, operator, f"{name}-5", version=5) as device:
        with pytest.raises(TimeoutError):
            device.subscribe("a", qos=2)
        assert device.disconnect_code == NO_QOS


@VERSIONS
@pytest.mark.parametrize("client_id", ["$reserved", "x" * 129, "ü" * 65])
def test_a_client_id_outside_the_rules_is_refused(
    server: Server, operator: Identity, version: int, client_id: str
) -> None:
    with pytest.raises(Refused) as caught, PahoDevice(server, operator, client_id, version=version):
        pass
    assert caught.value.code == 0x85


def test_an_mqtt_5_client_is_told_what_is_offered(
    server: Server, operator: Identity, name: str
) -> None:
    with PahoDevice(server, operator, name, version=5) as device:
        assert device.granted.MaximumQoS == 1
        assert device.granted.RetainAvailable == 0
        assert device.granted.SharedSubscriptionAvailable == 0
        assert device.granted.SubscriptionIdentifierAvailable == 0
        assert device.granted.ReceiveMaximum == 100
        assert device.granted.MaximumPacketSize == 146 * 1024


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("a/#", "a/b/c", True),
        ("a/#", "a/", True),
        ("a/#", "a", False),  # AWS: not the level above, other than MQTT 5 section 4.7.1.2
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("+/b", "a/b", True),
        ("#", "a", True),
    ],
)
def test_filters_match_as_aws_iot_matches(
    server: Server,
    operator: Identity,
    name: str,
    *,
    topic_filter: str,
    topic: str,
    matches: bool,
) -> None:
    with PahoDevice(server, operator, name) as device:
        device.subscribe(topic_filter, "fence")
        device.publish(topic, b"x")
        device.publish("fence", b"y")
        got = {device.message().payload for _ in range(2 if matches or topic_filter == "#" else 1)}
        assert (b"x" in got) is matches
