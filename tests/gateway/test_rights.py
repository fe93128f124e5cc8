"""Condition keys that only a connection knows, over real TLS.

Sources: AWS IoT Developer Guide, "Connect policy examples", "Basic AWS IoT Core policy variables",
"Retain message policy examples".
"""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from fleetgate.gateway.opening import connect_values, will_actions
from fleetgate.mqtt.packets import Connack, Connect, Puback, Publish, Version, Will
from tests.gateway.running import ACCOUNT, PATIENCE, Device, Running, client_context

ATTRIBUTES = "iot:ConnectAttributes"


def rule(gateway: Running, *statements: dict[str, Any]) -> None:
    """Replace the policy of `device`."""
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    gateway.documents[gateway.device.certificate_id] = json.dumps(document)
    gateway.epoch += 1


def allow(condition: dict[str, Any], action: str = "iot:Connect") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": "*", "Condition": condition}


def accepted(device: Device, connect: Connect) -> bool:
    with device:
        device.send(connect)
        return device.expect(Connack).reason_code == 0


FEATURES: list[tuple[Connect, tuple[str, ...]]] = [
    (Connect("lamp"), ()),
    (Connect("lamp", clean_start=False), ("PersistentConnect",)),
    (Connect("lamp", will=Will("a", b"")), ("LastWill",)),
    (Connect("lamp", clean_start=False, will=Will("a", b"")), ("PersistentConnect", "LastWill")),
    (Connect("lamp", version=5), ()),
    (Connect("lamp", version=5, clean_start=False), ("PersistentConnect",)),
    (
        Connect("lamp", version=5, properties={"session_expiry_interval": 1}),
        ("PersistentConnect",),
    ),
    (Connect("lamp", version=5, properties={"session_expiry_interval": 0}), ()),
]


@pytest.mark.parametrize(("connect", "features"), FEATURES, ids=range(len(FEATURES)))
def test_the_features_of_a_connect(
    running: Running, connect: Connect, features: tuple[str, ...]
) -> None:
    values = connect_values(connect, ACCOUNT)
    assert values[ATTRIBUTES] == features
    topic = (ACCOUNT.arn("topic/a"),) if "LastWill" in features else None
    assert values.get("iot:LastWillTopic") == topic

    publish = {"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"}
    rule(running, allow({"ForAllValues:StringEquals": {ATTRIBUTES: list(features)}}), publish)
    assert accepted(running.raw(), connect)
    for feature in features:
        rule(running, allow({"ForAllValues:StringNotEquals": {ATTRIBUTES: feature}}), publish)
        assert not accepted(running.raw(), connect)


@pytest.mark.parametrize("version", [4, 5])
def test_the_topic_of_the_will(running: Running, version: Version) -> None:
    topic = {"iot:LastWillTopic": ACCOUNT.arn("topic/gone/*")}
    publish = {"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"}
    rule(running, allow({"ArnEquals": topic}), publish)
    for will, expected in ((Will("gone/lamp", b""), True), (Will("a", b""), False), (None, False)):
        assert accepted(running.raw(), Connect("lamp", version=version, will=will)) is expected


def test_a_retained_will_needs_two_rights() -> None:
    assert will_actions(Will("a", b"")) == ("iot:Publish",)
    assert will_actions(Will("a", b"", retain=True)) == ("iot:Publish", "iot:RetainPublish")


@pytest.mark.parametrize(("network", "expected"), [("127.0.0.0/8", True), ("192.0.2.0/24", False)])
def test_the_address_of_the_client(running: Running, network: str, expected: bool) -> None:
    rule(running, allow({"IpAddress": {"aws:SourceIp": network}}))
    assert accepted(running.raw(), Connect("lamp")) is expected


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_an_ipv4_address_on_an_ipv6_socket(running: Running) -> None:
    """RFC 4291 section 2.5.5.2: the socket shows ``::ffff:127.0.0.1``."""
    running.listen_on(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
    running.address = ("127.0.0.1", running.address[1])
    rule(running, allow({"StringEquals": {"aws:SourceIp": "127.0.0.1"}}))
    assert accepted(running.raw(), Connect("lamp"))
    running.address = ("::1", running.address[1])
    assert not accepted(running.raw(), Connect("lamp"))
    rule(running, allow({"StringEquals": {"aws:SourceIp": "::1"}}))
    assert accepted(running.raw(), Connect("lamp"))


@pytest.mark.parametrize(("name", "expected"), [("localhost", True), ("gate.example", False)])
def test_the_name_the_client_asked_for(running: Running, name: str, expected: bool) -> None:
    """The client of these tests asks for ``localhost``."""
    rule(running, allow({"StringEquals": {"iot:DomainName": name}}))
    assert accepted(running.raw(), Connect("lamp")) is expected


def test_a_client_that_asks_for_no_name(running: Running) -> None:
    rule(running, allow({"Null": {"iot:DomainName": "true"}}))
    assert not accepted(running.raw(), Connect("lamp"))
    context = client_context(running.device, running.server)
    context.check_hostname = False
    nameless = object.__new__(Device)
    nameless.take(context.wrap_socket(socket.create_connection(running.address, PATIENCE)))
    assert accepted(nameless, Connect("lamp"))


def test_conditions_hold_for_every_packet_of_the_connection(running: Running) -> None:
    here = {"IpAddress": {"aws:SourceIp": "127.0.0.1"}}
    elsewhere = {"NotIpAddress": {"aws:SourceIp": "127.0.0.1"}}
    rule(running, allow(here, "iot:*"))
    with running.connect(version=5) as device:
        device.publish("a")
        rule(running, allow(here, "iot:*"), {**allow(here, "iot:Publish"), "Effect": "Deny"})
        device.send(Publish("a", b"x", 1, packet_id=9))
        assert device.expect(Puback).reason_code == 0x87
    rule(running, allow(elsewhere))
    assert not accepted(running.raw(), Connect("lamp"))
