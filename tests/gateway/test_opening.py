"""CONNECT: what is refused and what is granted."""

from __future__ import annotations

from typing import Any

import pytest

from fleetgate.errors import ProtocolError
from fleetgate.gateway import opening
from fleetgate.mqtt.packets import Connack, Connect, Version, Will
from tests.gateway.running import Running

WEEK = 7 * 24 * 3600


def connect(version: Version = 4, client_id: str = "lamp", **options: Any) -> Connect:
    return Connect(client_id, version=version, **options)


REFUSED: list[tuple[str, Connect, int, int]] = [
    # what, CONNECT, reason code of MQTT 5, return code of 3.1.1
    ("client id of 129 bytes", connect(client_id="x" * 129), 0x85, 2),
    ("client id of 129 bytes in 65 characters", connect(client_id="x" + "ä" * 64), 0x85, 2),
    ("client id with $", connect(client_id="$lamp"), 0x85, 2),
    ("authentication", connect(5, properties={"authentication_method": "x"}), 0x8C, 5),
    ("will of QoS 2", connect(will=Will("a", b"", qos=2)), 0x9B, 5),
    ("retained will", connect(will=Will("a", b"", retain=True)), 0x9A, 5),
    ("will on a reserved topic", connect(will=Will("$aws/a", b"")), 0x90, 5),
    ("will on a topic that is too long", connect(will=Will("a" * 257, b"")), 0x90, 5),
    ("packets that are too small", connect(5, properties={"maximum_packet_size": 511}), 0x95, 5),
]


@pytest.mark.parametrize(
    ("packet", "reason", "code"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_is_not_offered_is_refused(packet: Connect, reason: int, code: int) -> None:
    """AWS IoT Core quotas; the codes are those of MQTT 5.0 section 3.2.2.2, 3.1.1 3.2.2.3."""
    with pytest.raises(ProtocolError) as caught:
        opening.check(packet)
    assert caught.value.reason == reason
    assert opening.refusal(5, reason, "why").reason_code == reason
    assert opening.refusal(4, reason, "why").reason_code == code


@pytest.mark.parametrize(("version", "accepted"), [(4, False), (5, True)])
def test_an_empty_client_id_needs_a_clean_session_in_3_1_1(
    version: Version, accepted: bool
) -> None:
    """MQTT-3.1.3-8 of 3.1.1; in MQTT 5 the server assigns one in any case (3.1.3.1)."""
    opening.check(connect(version, client_id="", clean_start=True))
    packet = connect(version, client_id="", clean_start=False)
    if accepted:
        opening.check(packet)
    else:
        with pytest.raises(ProtocolError) as caught:
            opening.check(packet)
        assert caught.value.reason == 0x85


def test_a_code_that_connack_does_not_have_becomes_server_unavailable() -> None:
    assert opening.refusal(5, 0x8B, "stopping").reason_code == 0x88
    assert opening.refusal(4, 0x8B, "stopping").reason_code == 3


@pytest.mark.parametrize(
    ("asked", "granted"),
    [(0, 1200), (1, 30), (6, 30), (30, 30), (60, 60), (1200, 1200), (1201, 1200), (60000, 1200)],
)
def test_keep_alive_is_30_to_1200_seconds(asked: int, granted: int) -> None:
    """AWS IoT Core quotas, "Keep-alive interval"."""
    terms = opening.terms(connect(5, keep_alive=asked), "assigned")
    assert terms.keep_alive == granted
    assert terms.properties.get("server_keep_alive", asked) == granted
    assert opening.terms(connect(4, keep_alive=asked), "assigned").keep_alive == granted


@pytest.mark.parametrize(
    ("version", "clean", "asked", "granted", "told"),
    [
        (4, True, None, 0, None),
        (4, False, None, 3600, None),
        (5, True, None, 0, None),
        (5, False, 100, 100, None),
        (5, False, WEEK, WEEK, None),
        (5, False, WEEK + 1, WEEK, WEEK),
        (5, False, 0xFFFFFFFF, WEEK, WEEK),
    ],
)
def test_sessions_expire(
    version: Version, clean: bool, asked: int | None, granted: int, told: int | None
) -> None:
    """AWS IoT Core quotas, "Persistent session expiry period", "Session Expiry Interval"."""
    properties = {} if asked is None else {"session_expiry_interval": asked}
    packet = connect(version, clean_start=clean, properties=properties)
    terms = opening.terms(packet, "assigned")
    assert terms.expiry_interval == granted
    assert terms.properties.get("session_expiry_interval") == told


def test_connack_says_what_is_offered() -> None:
    """AWS IoT developer guide, "MQTT 5 supported features"."""
    assert opening.terms(connect(5), "assigned").properties == {
        "receive_maximum": 100,
        "maximum_qos": 1,
        "retain_available": 0,
        "maximum_packet_size": 149504,
        "wildcard_subscription_available": 1,
        "subscription_identifier_available": 0,
        "shared_subscription_available": 0,
    }


# --- over the wire --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_a_client_without_an_id_gets_one(running: Running, version: Version) -> None:
    with running.connect("", version) as device, running.connect("", version) as other:
        for each in (device, other):
            assert each.subscribe("a") == (1,)
        names = [
            each.connack.properties.get("assigned_client_identifier") for each in (device, other)
        ]
        assert (names[0] != names[1] and all(names)) if version == 5 else names == [None, None]


@pytest.mark.parametrize(("version", "code"), [(4, 2), (5, 0x85)])
def test_a_refusal_carries_its_code(running: Running, version: Version, code: int) -> None:
    with running.raw() as device:
        device.send(Connect("$lamp", version=version))
        connack = device.expect(Connack)
        assert connack.reason_code == code
        assert device.is_closed()
        if version == 5:
            assert "`$lamp`" in connack.properties["reason_string"]


@pytest.mark.parametrize(("level", "answer"), [(3, "20020001"), (6, "20020001")])
def test_another_protocol_version_is_refused_in_words_it_knows(
    running: Running, level: int, answer: str
) -> None:
    """3.1.1 section 3.1.2.2: CONNACK with return code 1."""
    with running.raw() as device:
        device.socket.sendall(
            b"\x10\x10\x00\x04MQTT" + bytes([level]) + b"\x02\x00\x3c\x00\x04lamp"
        )
        assert device.socket.recv(100).hex() == answer
        assert device.socket.recv(100) == b""


@pytest.mark.parametrize("version", [4, 5])
def test_a_user_name_without_a_password_is_accepted(running: Running, version: Version) -> None:
    """The AWS SDKs send one: ``?SDK=IoTDeviceSDK&Version=...``."""
    with running.connect("lamp", version, username="?SDK=C&Version=4.0.0") as device:
        assert device.connack.reason_code == 0


@pytest.mark.parametrize("version", [4, 5])
def test_a_session_that_is_not_to_be_kept(version: Version) -> None:
    packet = Connect("lamp", clean_start=False, version=version)
    if version == 5:
        packet.properties["session_expiry_interval"] = 100
    terms = opening.terms(packet, "assigned", persistent=False)
    assert terms.expiry_interval == 0
    assert terms.properties.get("session_expiry_interval") == (0 if version == 5 else None)


def test_a_quota_has_a_code_in_both_versions() -> None:
    assert opening.refusal(4, 0x97, "full").reason_code == 3
    assert opening.refusal(5, 0x97, "full").reason_code == 0x97
