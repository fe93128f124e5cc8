from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.codec import decode, encode
from fleetgate.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Version,
    Will,
)
from tests.mqtt.strategies import versioned_packets

LIMIT = 4096


def read(data: str, version: Version | None, max_size: int = LIMIT) -> tuple[Packet, int] | None:
    return decode(bytes.fromhex(data), version, max_size)


def refusal(data: str, version: Version | None, max_size: int = LIMIT) -> int:
    with pytest.raises(ProtocolError) as caught:
        read(data, version, max_size)
    return caught.value.reason


# --- properties of the pair ----------------------------------------------------------------


@given(versioned_packets)
def test_every_packet_survives_the_round_trip(packet_version: tuple[Packet, Version]) -> None:
    packet, version = packet_version
    data = encode(packet, version)
    assert decode(data, version, len(data)) == (packet, len(data))
    assert decode(bytearray(data), version, len(data)) == (packet, len(data))
    if isinstance(packet, Connect):
        assert decode(data, None, len(data)) == (packet, len(data))


@given(versioned_packets)
def test_every_truncation_asks_for_more(packet_version: tuple[Packet, Version]) -> None:
    packet, version = packet_version
    data = encode(packet, version)
    for end in range(len(data)):
        assert decode(data[:end], version, len(data)) is None


@given(versioned_packets, st.binary(max_size=5), st.binary(max_size=5))
def test_what_surrounds_a_packet_does_not_matter(
    packet_version: tuple[Packet, Version], before: bytes, after: bytes
) -> None:
    packet, version = packet_version
    data = encode(packet, version)
    framed = before + data + after
    assert decode(framed, version, len(data), len(before)) == (packet, len(data))


@given(st.binary(max_size=40), st.sampled_from((4, 5)), st.integers(0x10, 0xFF))
def test_arbitrary_bodies_decode_to_what_encodes_or_raise_a_protocol_error(
    body: bytes, version: Version, first: int
) -> None:
    try:
        decoded = decode(bytes((first, len(body))) + body, version, LIMIT)
    except ProtocolError:
        return
    assert decoded is not None
    packet, size = decoded
    assert size == len(body) + 2
    own = packet.version if isinstance(packet, Connect) else version
    again = encode(packet, own)
    assert decode(again, own, LIMIT) == (packet, len(again))


# --- bytes of others -----------------------------------------------------------------------

# From the standards: their non-normative examples and the layouts in the sections named. "paho"
# was sent by paho-mqtt 2.2.0, "mosquitto" by mosquitto_pub 2.0.11.
FIXTURES: list[tuple[str, Version, str, Packet]] = [
    (
        "paho 3.1.1 CONNECT: user name without password, will, clean session 0",
        4,
        "102800044d51545404ac003c00046c616d7000096c616d702f676f6e65000362796500063f53444b3d78",
        Connect("lamp", False, 60, "?SDK=x", None, Will("lamp/gone", b"bye", 1, True), 4),
    ),
    (
        "paho 5 CONNECT",
        5,
        (
            "103900044d51545405ae003c0f1100000e102100142600016100016200046c616d7000"
            "00096c616d702f676f6e65000362796500063f53444b3d78"
        ),
        Connect(
            "lamp",
            True,
            60,
            "?SDK=x",
            None,
            Will("lamp/gone", b"bye", 1, True),
            5,
            {
                "session_expiry_interval": 3600,
                "receive_maximum": 20,
                "user_property": [("a", "b")],
            },
        ),
    ),
    ("mosquitto 3.1.1 CONNECT", 4, "100e00044d5154540402003c00026d70", Connect("mp")),
    (
        "mosquitto 5 CONNECT",
        5,
        "101200044d5154540502003c0321001400026d70",
        Connect("mp", version=5, properties={"receive_maximum": 20}),
    ),
    (
        "paho 3.1.1 SUBSCRIBE",
        4,
        "820a00010005612f2b2f2301",
        Subscribe(1, (Subscription("a/+/#", 1),)),
    ),
    (
        "paho 5 SUBSCRIBE",
        5,
        "820b0001000005612f2b2f2301",
        Subscribe(1, (Subscription("a/+/#", 1),)),
    ),
    (
        "paho 3.1.1 PUBLISH",
        4,
        "320b0005612f622f6300027b7d",
        Publish("a/b/c", b"{}", 1, packet_id=2),
    ),
    (
        "paho 5 PUBLISH",
        5,
        "32290005612f622f6300021d020000001e0300106170706c69636174696f6e2f6a736f6e09000201027b7d",
        Publish(
            "a/b/c",
            b"{}",
            1,
            packet_id=2,
            properties={
                "message_expiry_interval": 30,
                "content_type": "application/json",
                "correlation_data": b"\1\2",
            },
        ),
    ),
    ("mosquitto 3.1.1 PUBLISH", 4, "32090003612f6200016869", Publish("a/b", b"hi", 1, packet_id=1)),
    ("mosquitto 5 PUBLISH", 5, "320a0003612f620001006869", Publish("a/b", b"hi", 1, packet_id=1)),
    ("paho 3.1.1 UNSUBSCRIBE", 4, "a20900030005612f2b2f23", Unsubscribe(3, ("a/+/#",))),
    ("paho 5 UNSUBSCRIBE", 5, "a20a0003000005612f2b2f23", Unsubscribe(3, ("a/+/#",))),
    (
        "3.1.1 section 3.3.2, the example: topic a/b, packet identifier 10",
        4,
        "32070003612f62000a",
        Publish("a/b", b"", 1, packet_id=10),
    ),
    (
        "3.1.1 section 3.8.3, the example: a/b at QoS 1, c/d at QoS 2",
        4,
        "820e000a0003612f62010003632f6402",
        Subscribe(10, (Subscription("a/b", 1), Subscription("c/d", 2))),
    ),
    (
        "3.1.1 section 3.9.3, the example: QoS 0, QoS 2, failure",
        4,
        "9005000a000280",
        Suback(10, (0, 2, 128)),
    ),
    (
        "3.1.1 section 3.10.3, the example: a/b, c/d",
        4,
        "a20c000a0003612f620003632f64",
        Unsubscribe(10, ("a/b", "c/d")),
    ),
    (
        "5.0 section 3.8.3: all subscription options",
        5,
        "820b000a020b050003612f622d",
        Subscribe(10, (Subscription("a/b", 1, True, True, 2),), {"subscription_identifier": 5}),
    ),
    ("3.1.1 section 3.2: session present", 4, "20020100", Connack(True, 0)),
    ("3.1.1 section 3.2.2.3: not authorized", 4, "20020005", Connack(False, 5)),
    ("5.0 section 3.2", 5, "2006008703210064", Connack(False, 0x87, {"receive_maximum": 100})),
    ("section 3.4, 3.1.1", 4, "4002000a", Puback(10)),
    ("5.0 section 3.4.2.1: success in two bytes", 5, "4002000a", Puback(10)),
    ("5.0 section 3.4.2.2.1: no properties below length 4", 5, "4003000a87", Puback(10, 0x87)),
    ("section 3.5", 5, "5002000a", Pubrec(10)),
    ("section 3.6: flags 2", 4, "6202000a", Pubrel(10)),
    ("section 3.7", 5, "7003000a92", Pubcomp(10, 0x92)),
    ("5.0 section 3.9", 5, "9006000a00000187", Suback(10, (0, 1, 0x87))),
    ("3.1.1 section 3.11", 4, "b002000a", Unsuback(10)),
    ("5.0 section 3.11", 5, "b005000a000011", Unsuback(10, (0, 0x11))),
    ("section 3.12", 4, "c000", Pingreq()),
    ("section 3.13", 5, "d000", Pingresp()),
    ("section 3.14", 4, "e000", Disconnect()),
    ("5.0 section 3.14.2.1: no reason code is 0", 5, "e000", Disconnect()),
    ("5.0 section 3.14", 5, "e0018e", Disconnect(0x8E)),
    ("5.0 section 3.15.2.1: no reason code is 0", 5, "f000", Auth()),
    ("5.0 section 3.15", 5, "f00618041500016d", Auth(0x18, {"authentication_method": "m"})),
]


@pytest.mark.parametrize(
    ("version", "data", "packet"),
    [row[1:] for row in FIXTURES],
    ids=[row[0] for row in FIXTURES],
)
def test_bytes_of_the_standards_and_of_other_clients(
    version: Version, data: str, packet: Packet
) -> None:
    assert read(data, version) == (packet, len(data) // 2)
    assert encode(packet, version).hex() == data


# Section 3.4.2.1, 3.14.2.1, 3.15.2.1 of 5.0: what may be left out may be given as well.
@pytest.mark.parametrize(
    ("data", "packet"),
    [
        ("4003000a00", Puback(10)),
        ("4004000a0000", Puback(10)),
        ("e00100", Disconnect()),
        ("e0020000", Disconnect()),
        ("f0020000", Auth()),
    ],
)
def test_the_long_form_of_short_packets_is_read(data: str, packet: Packet) -> None:
    assert read(data, 5) == (packet, len(data) // 2)


# --- the fixed header ----------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_flags_that_are_not_those_of_table_2_2_are_malformed(version: Version) -> None:
    for kind in range(1, 16):
        for flags in range(16):
            if kind == 3 or flags == (2 if kind in (6, 8, 10) else 0):
                continue
            assert refusal(f"{kind << 4 | flags:02x}00", version) == 0x81


@pytest.mark.parametrize("version", [4, 5])
def test_packet_type_0_is_malformed(version: Version) -> None:
    assert refusal("0000", version) == 0x81


def test_3_1_1_has_no_auth() -> None:
    assert refusal("f000", 4) == 0x81
    with pytest.raises(ProtocolError):
        encode(Auth(), 4)


@pytest.mark.parametrize("first", [0x00, 0x11, 0x16, 0x20, 0x30, 0x47, 0xFF])
def test_garbage_before_connect_is_refused_at_its_first_byte(first: int) -> None:
    assert refusal(f"{first:02x}", None) == 0x82


def test_a_remaining_length_of_five_bytes_is_malformed_at_its_fourth() -> None:
    assert read("30ffffff", 4, 1 << 30) is None
    assert refusal("30ffffffff", 4, 1 << 30) == 0x81


def test_a_packet_too_large_is_refused_from_its_fixed_header() -> None:
    assert read("30fe1f", 4, 0x2000) is None  # 4094 bytes and the header
    assert refusal("30fe1f", 4, 4096) == 0x95
    assert read("30fd1f", 4, 4096) is None
    assert refusal("10ffffff7f", None) == 0x95


def test_only_mqtt_5_demands_the_shortest_remaining_length() -> None:
    assert read("c08000", 4) == (Pingreq(), 3)
    assert refusal("c08000", 5) == 0x81
    three = "108e0000044d5154540402003c00026d70"
    five = "108f0000044d5154540502003c0000026d70"
    assert read(three, None) == (Connect("mp"), 17)
    assert refusal(five, None) == 0x81


# --- CONNECT -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level"),
    [("MQIsdp", 3), ("MQTT", 3), ("MQTT", 6), ("MQTT", 0x84), ("mqtt", 4), ("", 4), ("HTTP", 5)],
)
def test_another_protocol_or_level_is_unsupported(name: str, level: int) -> None:
    body = len(name).to_bytes(2, "big") + name.encode() + bytes((level,)) + b"\x02\0\x3c\0\0"
    assert refusal((bytes((0x10, len(body))) + body).hex(), None) == 0x84


def connect(flags: int, level: int, payload: str) -> str:
    body = bytes.fromhex("00044d515454") + bytes((level, flags, 0, 60)) + bytes.fromhex(payload)
    return (bytes((0x10, len(body))) + body).hex()


@pytest.mark.parametrize(
    ("flags", "level", "payload", "reason", "why"),
    [
        (0x03, 4, "0000", 0x81, "MQTT-3.1.2-3: reserved flag"),
        (0x0A, 4, "0000", 0x81, "MQTT-3.1.2-11: will QoS without a will"),
        (0x22, 5, "000000", 0x81, "MQTT-3.1.2-13: will retain without a will"),
        (0x1E, 4, "00000001610000", 0x81, "MQTT-3.1.2-12: will QoS 3"),
        (0x06, 4, "000000012b0000", 0x90, "4.7.1: will topic with a wildcard"),
        (0x06, 4, "000000000000", 0x82, "4.7.3: empty will topic"),
        (0x06, 5, "0000000223000001610000", 0x81, "3.1.3.2: alias on a will"),
        (0x42, 4, "00000000", 0x81, "MQTT-3.1.2-22 of 3.1.1: password without user name"),
        (0x02, 4, "000000", 0x81, "bytes left over"),
        (0x82, 4, "0000", 0x81, "user name missing"),
        (0x02, 4, "000161"[:4], 0x81, "client identifier cut short"),
        (0x02, 4, "000100", 0x81, "MQTT-1.5.3-2: U+0000 in the client identifier"),
    ],
)
def test_a_connect_against_the_rules_is_refused(
    flags: int, level: int, payload: str, reason: int, why: str
) -> None:
    assert refusal(connect(flags, level, payload), None) == reason


def test_5_allows_a_password_without_a_user_name() -> None:
    decoded = read(connect(0x42, 5, "000000000170"), None)
    assert decoded is not None
    assert decoded[0] == Connect("", password=b"p", version=5)


def test_3_1_1_delivers_an_empty_client_identifier_with_clean_session_0() -> None:
    decoded = read(connect(0x00, 4, "0000"), None)
    assert decoded is not None
    assert decoded[0] == Connect("", clean_start=False)


# --- the other packets ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "version", "reason", "why"),
    [
        ("20020200", 4, 0x81, "3.2.2.1: reserved flag"),
        ("20020006", 4, 0x81, "3.2.2.3 of 3.1.1: reserved return code"),
        ("20020105", 4, 0x81, "MQTT-3.2.2-4 of 3.1.1: session present on refusal"),
        ("2003018700", 5, 0x81, "MQTT-3.2.2-6: session present on refusal"),
        ("2003000100", 5, 0x81, "3.2.2.2: not a reason code of CONNACK"),
        ("20020000", 5, 0x81, "3.2.2.3: the property length must be there"),
        ("36050001610001", 4, 0x81, "MQTT-3.3.1-4: QoS 3"),
        ("3803000161", 4, 0x81, "MQTT-3.3.1-2: DUP at QoS 0"),
        ("32050001610000", 4, 0x81, "MQTT-2.2.1-3: packet identifier 0"),
        ("3203000161", 4, 0x81, "no packet identifier"),
        ("30020000", 4, 0x82, "4.7.3: empty topic"),
        ("3003000000", 5, 0x82, "3.3.2.1: empty topic without alias"),
        ("3003000123", 4, 0x90, "MQTT-3.3.2-2: wildcard"),
        ("300400012b00", 5, 0x90, "MQTT-3.3.2-2: wildcard"),
        ("3003000100", 4, 0x81, "MQTT-1.5.4-2: U+0000"),
        ("30030001ff", 4, 0x81, "MQTT-1.5.4-1: not UTF-8"),
        ("3003000561", 4, 0x81, "topic longer than the packet"),
        ("300100", 4, 0x81, "topic length cut short"),
        ("3003000161", 5, 0x81, "3.3.2.3: the property length must be there"),
        ("40020000", 4, 0x81, "2.2.1: packet identifier 0"),
        ("4003000a00", 4, 0x81, "3.4.1 of 3.1.1: remaining length 2"),
        ("4003000a82", 5, 0x81, "3.4.2.1: not a reason code of PUBACK"),
        ("6203000a87", 5, 0x81, "3.6.2.1: not a reason code of PUBREL"),
        ("8202000a", 4, 0x82, "MQTT-3.8.3-2: no subscription"),
        ("8206000000016100", 4, 0x81, "2.2.1: packet identifier 0"),
        ("8206000a00016103", 4, 0x81, "MQTT-3.8.3-4 of 3.1.1: QoS 3"),
        ("8206000a00016104", 4, 0x81, "MQTT-3.8.3-4 of 3.1.1: reserved bits"),
        ("8207000a0000016103", 5, 0x81, "3.8.3.1: QoS 3"),
        ("8207000a0000016140", 5, 0x81, "MQTT-3.8.3-5: reserved bits"),
        ("8207000a0000016130", 5, 0x82, "3.8.3.1: retain handling 3"),
        ("8210000a00000a2473686172652f672f6104", 5, 0x82, "MQTT-3.8.3-4: no local, shared"),
        ("8205000a000000", 4, 0x82, "4.7.3: empty filter"),
        ("8205000a000161", 4, 0x81, "options missing"),
        ("9002000a", 4, 0x81, "3.9.3: no return code"),
        ("9003000a03", 4, 0x81, "MQTT-3.9.3-2: reserved return code"),
        ("9003000a87", 4, 0x81, "MQTT-3.9.3-2: a code of MQTT 5"),
        ("a202000a", 4, 0x82, "MQTT-3.10.3-2: no filter"),
        ("a204000a0000", 4, 0x82, "4.7.3: empty filter"),
        ("b003000a00", 4, 0x81, "3.11.3 of 3.1.1: no payload"),
        ("b003000a00", 5, 0x81, "3.11.3: no reason code"),
        ("c00100", 4, 0x81, "3.12.1: remaining length 0"),
        ("d00100", 5, 0x81, "3.13.1: remaining length 0"),
        ("e00100", 4, 0x81, "3.14.1 of 3.1.1: remaining length 0"),
        ("e00101", 5, 0x81, "3.14.2.1: not a reason code of DISCONNECT"),
        ("e003000000", 5, 0x81, "bytes left over"),
        ("f00187", 5, 0x81, "3.15.2.1: not a reason code of AUTH"),
    ],
)
def test_a_packet_against_the_rules_is_refused(
    data: str, version: Version, reason: int, why: str
) -> None:
    assert refusal(data, version) == reason


def test_subscribe_at_qos_2_is_delivered() -> None:
    assert read("8206000a00016102", 4) == (Subscribe(10, (Subscription("a", 2),)), 8)


# --- encoding ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "version"),
    [
        (Publish("a", qos=1), 4),
        (Publish("a", qos=1, packet_id=0), 5),
        (Publish("a", qos=1, packet_id=65_536), 5),
        (Publish("a", packet_id=1), 4),
        (Publish("a", dup=True), 4),
        (Publish("a", qos=3, packet_id=1), 4),
        (Publish("a/+"), 5),
        (Publish(""), 5),
        (Publish("", properties={"topic_alias": 1}), 4),
        (Puback(0), 4),
        (Puback(1, 0x01), 5),
        (Connack(True, 0x87), 5),
        (Connack(False, 0x87), 4),
        (Connack(False, 5), 5),
        (Connect("a", password=b"x"), 4),
        (Connect("a", keep_alive=65_536), 4),
        (Connect("a", will=Will("", b"")), 4),
        (Connect("a", will=Will("a", b"", 3)), 4),
        (Connect("\ud800"), 4),
        (Subscribe(1, ()), 5),
        (Subscribe(1, (Subscription("a", 3),)), 5),
        (Subscribe(1, (Subscription("a", retain_handling=3),)), 5),
        (Subscribe(1, (Subscription("$share/g/a", no_local=True),)), 5),
        (Suback(1, ()), 5),
        (Suback(1, (0x87,)), 4),
        (Unsubscribe(1, ()), 4),
        (Unsubscribe(1, ("",)), 4),
        (Unsuback(1), 5),
        (Disconnect(1), 5),
        (Auth(1), 5),
    ],
)
def test_what_would_be_refused_is_not_encoded(packet: Packet, version: Version) -> None:
    with pytest.raises(ProtocolError):
        encode(packet, version)


@pytest.mark.parametrize(
    ("packet", "data"),
    [
        (Publish("a", properties={"content_type": "x"}), "3003000161"),
        (Connack(properties={"receive_maximum": 5}), "20020000"),
        (Puback(1, 0x10, {"reason_string": "x"}), "40020001"),
        (Unsuback(1, (0,)), "b0020001"),
        (Disconnect(0x8E), "e000"),
        (Subscribe(1, (Subscription("a", 1, retain_handling=2),)), "8206000100016101"),
    ],
)
def test_3_1_1_leaves_out_what_it_has_no_room_for(packet: Packet, data: str) -> None:
    assert encode(packet, 4).hex() == data


@pytest.mark.parametrize(
    "packet",
    [
        Connect("a", username="u", password=b"hush", will=Will("t", b"hush")),
        Publish("a", b"hush"),
    ],
)
def test_secrets_are_not_part_of_repr(packet: Any) -> None:
    assert "hush" not in repr(packet)
