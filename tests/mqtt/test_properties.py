from __future__ import annotations

from typing import Any

import pytest

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.packets import Auth, Connack, Connect, Disconnect, Puback, Publish, Subscribe
from fleetgate.mqtt.properties import PROPERTIES, WILL, pack_properties, read_properties


def refusal(packed: str, packet: int) -> int:
    body = bytes.fromhex(packed)
    with pytest.raises(ProtocolError) as caught:
        read_properties(bytes((len(body),)) + body, 0, packet)
    return caught.value.reason


# MQTT 5.0 table 2-4: every property, its number and where it may stand. W is the will; the
# others are the packet types of table 2-1.
@pytest.mark.parametrize(
    ("number", "packets"),
    [
        (1, "3 W"),
        (2, "3 W"),
        (3, "3 W"),
        (8, "3 W"),
        (9, "3 W"),
        (11, "3 8"),
        (17, "1 2 14"),
        (18, "2"),
        (19, "2"),
        (21, "1 2 15"),
        (22, "1 2 15"),
        (23, "1"),
        (24, "W"),
        (25, "1"),
        (26, "2"),
        (28, "2 14"),
        (31, "2 4 5 6 7 9 11 14 15"),
        (33, "1 2"),
        (34, "1 2"),
        (35, "3"),
        (36, "2"),
        (37, "2"),
        (38, "1 2 3 W 4 5 6 7 8 9 10 11 14 15"),
        (39, "1 2"),
        (40, "2"),
        (41, "2"),
        (42, "2"),
    ],
)
def test_the_table_says_what_table_2_4_says(number: int, packets: str) -> None:
    (row,) = [row for row in PROPERTIES if row.number == number]
    assert row.packets == {WILL if name == "W" else int(name) for name in packets.split()}


def test_there_are_no_other_properties() -> None:
    assert len(PROPERTIES) == 27


@pytest.mark.parametrize(
    ("packed", "packet", "reason", "why"),
    [
        ("7f01", Connect.code, 0x81, "2.2.2.2: unknown identifier"),
        ("00", Connect.code, 0x81, "2.2.2.2: unknown identifier"),
        ("a10001", Connect.code, 0x81, "2.2.2.2: identifier not in its shortest form"),
        ("2300", Connect.code, 0x81, "2.2.2.2: belongs to PUBLISH"),
        ("1f000161", Connect.code, 0x81, "3.1.2.11: no reason string in CONNECT"),
        ("180000000a", Connect.code, 0x81, "3.1.3.2.2: will delay belongs to the will"),
        ("21", Connect.code, 0x81, "cut short"),
        ("2100", Connect.code, 0x81, "cut short"),
        ("260001", Connect.code, 0x81, "cut short"),
        ("11000000011100000001", Connect.code, 0x82, "3.1.2.11.2: twice"),
        ("210000", Connect.code, 0x82, "3.1.2.11.3: receive maximum 0"),
        ("2700000000", Connect.code, 0x82, "3.1.2.11.4: maximum packet size 0"),
        ("1702", Connect.code, 0x82, "3.1.2.11.7: neither 0 nor 1"),
        ("1902", Connect.code, 0x82, "3.1.2.11.6: neither 0 nor 1"),
        ("16000161", Connect.code, 0x82, "3.1.2.11.10: data without a method"),
        ("16000161", Auth.code, 0x82, "3.15.2.2.3: data without a method"),
        ("2402", Connack.code, 0x82, "3.2.2.3.4: maximum QoS 2"),
        ("2502", Connack.code, 0x82, "3.2.2.3.5: neither 0 nor 1"),
        ("2802", Connack.code, 0x82, "3.2.2.3.11: neither 0 nor 1"),
        ("2902", Connack.code, 0x82, "3.2.2.3.12: neither 0 nor 1"),
        ("2a02", Connack.code, 0x82, "3.2.2.3.13: neither 0 nor 1"),
        ("0102", Publish.code, 0x82, "3.3.2.3.2: neither 0 nor 1"),
        ("230000", Publish.code, 0x94, "3.3.2.3.4: topic alias 0"),
        ("230001230001", Publish.code, 0x82, "3.3.2.3.4: twice"),
        ("0800016108000161", Publish.code, 0x82, "3.3.2.3.5: twice"),
        ("0800012b", Publish.code, 0x82, "MQTT-3.3.2-14: response topic with a wildcard"),
        ("080000", Publish.code, 0x82, "4.7.3: empty response topic"),
        ("0b00", Publish.code, 0x82, "3.3.2.3.8: subscription identifier 0"),
        ("0b00", Subscribe.code, 0x82, "3.8.2.1.2: subscription identifier 0"),
        ("0b010b02", Subscribe.code, 0x82, "3.8.2.1.2: twice"),
        ("1f000161" * 2, Puback.code, 0x82, "3.4.2.2.2: twice"),
        ("1f0003eda080", Disconnect.code, 0x81, "MQTT-1.5.4-1: surrogate"),
    ],
)
def test_a_property_against_the_rules_is_refused(
    packed: str, packet: int, reason: int, why: str
) -> None:
    assert refusal(packed, packet) == reason


def test_a_property_length_beyond_the_packet_is_malformed() -> None:
    with pytest.raises(ProtocolError) as caught:
        read_properties(b"\x05\x21\x00\x01", 0, Connect.code)
    assert caught.value.reason == 0x81


def test_a_property_that_crosses_the_property_length_is_malformed() -> None:
    with pytest.raises(ProtocolError) as caught:
        read_properties(b"\x02\x21\x00\x01", 0, Connect.code)
    assert caught.value.reason == 0x81


def test_user_properties_and_subscription_identifiers_of_publish_repeat_in_order() -> None:
    packed = bytes.fromhex("14 26000161000162 0b05 26000161000163 0b80 01".replace(" ", ""))
    found, at = read_properties(bytes((len(packed) - 1,)) + packed[1:], 0, Publish.code)
    assert found == {
        "user_property": [("a", "b"), ("a", "c")],
        "subscription_identifier": [5, 128],
    }
    assert at == len(packed)


@pytest.mark.parametrize(
    ("properties", "packet"),
    [
        ({"colour": 1}, Connect.code),
        ({"topic_alias": 1}, Connect.code),
        ({"receive_maximum": 0}, Connect.code),
        ({"receive_maximum": 65_536}, Connect.code),
        ({"receive_maximum": "20"}, Connect.code),
        ({"reason_string": b"x"}, Connack.code),
        ({"user_property": ["ab"]}, Connack.code),
        ({"authentication_data": b"x"}, Connect.code),
        ({"session_expiry_interval": -1}, Connect.code),
    ],
)
def test_what_would_be_refused_is_not_packed(properties: dict[str, Any], packet: int) -> None:
    with pytest.raises(ProtocolError):
        pack_properties(properties, packet)
