"""The buffer and its bounds, errors, sizes, last words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.codec import decode, encode
from fleetgate.mqtt.connection import MAX_PACKET_SIZE, Connection, Role, State
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Publish,
    Subscribe,
    Subscription,
    Version,
    Will,
)
from tests.mqtt.strategies import chunked, connects, publishes, versions


def opened(
    role: Role,
    version: Version = 5,
    asked: dict[str, Any] | None = None,
    granted: dict[str, Any] | None = None,
    **bounds: int,
) -> Connection:
    """A connection on which CONNECT and CONNACK have passed."""
    connection = Connection(role, **bounds)
    connect = Connect("lamp", version=version, properties=asked or {})
    connack = Connack(properties=granted or {})
    if role is Role.CLIENT:
        connection.send(connect)
        connection.receive(encode(connack, version))
    else:
        connection.receive(encode(connect, version))
        connection.send(connack)
    return connection


def outcome(
    connection: Connection, chunks: list[bytes]
) -> tuple[list[Packet], tuple[int, str] | None]:
    packets: list[Packet] = []
    for chunk in chunks:
        try:
            packets += connection.receive(chunk)
        except ProtocolError as error:
            return packets + connection.undelivered, (error.reason, error.message)
    return packets, None


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A CONNECT, then messages, perhaps with some broken bytes."""
    version = draw(versions)
    data = encode(draw(connects(version)), version)
    for message in draw(st.lists(publishes(version), max_size=3)):
        data += encode(message, version)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + 1 :]
    return data


@given(streams().flatmap(lambda data: st.tuples(st.just(data), chunked(data))))
def test_chunking_does_not_matter(data_chunks: tuple[bytes, list[bytes]]) -> None:
    data, chunks = data_chunks
    whole = outcome(Connection(Role.SERVER), [data])
    assert outcome(Connection(Role.SERVER), chunks) == whole
    single = [data[at : at + 1] for at in range(len(data))]
    assert outcome(Connection(Role.SERVER), single) == whole


# --- bounds --------------------------------------------------------------------------------


def test_a_packet_as_large_as_the_limit_passes_and_one_byte_more_does_not() -> None:
    payload = MAX_PACKET_SIZE - 4 - 3 - 1
    server = opened(Role.SERVER)
    (message,) = server.receive(encode(Publish("a", bytes(payload)), 5))
    assert isinstance(message, Publish)
    assert len(message.payload) == payload
    with pytest.raises(ProtocolError) as caught:
        server.receive(encode(Publish("a", bytes(payload + 1)), 5)[:4])
    assert caught.value.reason == 0x95


# 3.1.3.4: the length of the will's payload is a two byte integer.
def test_the_largest_will_passes() -> None:
    connect = Connect("x" * 128, will=Will("w" * 256, bytes(0xFFFF)), version=5)
    assert Connection(Role.SERVER).receive(encode(connect, 5)) == [connect]


def test_connect_has_a_limit_of_its_own() -> None:
    server = Connection(Role.SERVER, max_connect_size=100)
    with pytest.raises(ProtocolError) as caught:
        server.receive(bytes.fromhex("1063"))
    assert caught.value.reason == 0x95
    server = opened(Role.SERVER, max_connect_size=100)
    assert len(server.receive(encode(Publish("a", bytes(1000)), 5))) == 1


@pytest.mark.parametrize("role", list(Role))
def test_the_maximum_packet_size_we_announced_binds_the_peer(role: Role) -> None:
    size = {"maximum_packet_size": 50}
    connection = opened(role, 5, size, size)
    with pytest.raises(ProtocolError) as caught:
        connection.receive(encode(Publish("a", bytes(60)), 5))
    assert caught.value.reason == 0x95


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_no_more_than_one_packet_within_the_limit_is_kept(chunks: list[bytes]) -> None:
    server = opened(Role.SERVER, max_packet_size=64)
    for chunk in chunks:
        try:
            server.receive(b"\x30\x3e" + chunk)
        except ProtocolError:
            assert not server._pending
            return
        assert len(server._pending) < 64


def test_a_large_packet_in_small_pieces_is_taken_in_linear_time() -> None:
    data = encode(Publish("a", bytes(100_000)), 5)
    server = opened(Role.SERVER)
    packets = [p for at in range(0, len(data), 10) for p in server.receive(data[at : at + 10])]
    assert len(packets) == 1


# --- what the peer takes (3.1.2.11.4, 3.2.2.3.6) --------------------------------------------


def test_a_message_too_large_for_the_peer_is_not_sent_and_nothing_changes() -> None:
    server = opened(Role.SERVER, 5, {"maximum_packet_size": 40})
    assert server.peer_max_packet_size == 40
    with pytest.raises(ProtocolError) as caught:
        server.send(Publish("a", bytes(40), 1, packet_id=1))
    assert caught.value.reason == 0x95
    assert server.outstanding == ()
    assert server.state is State.OPEN
    server.send(Publish("a", bytes(20), 1, packet_id=1))


@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (100, {"reason_string": "why", "user_property": [("key", "value")]}),
        (20, {"reason_string": "why"}),
        (10, {}),
    ],
)
def test_diagnosis_gives_way_to_the_peers_limit(limit: int, kept: dict[str, Any]) -> None:
    server = opened(Role.SERVER, 5, {"maximum_packet_size": limit})
    server.receive(encode(Publish("a", b"", 1, packet_id=1), 5))
    told = {"reason_string": "why", "user_property": [("key", "value")]}
    data = server.send(Puback(1, 0x87, told))
    assert len(data) <= limit
    decoded = decode(data, 5, limit)
    assert decoded is not None
    assert decoded[0] == Puback(1, 0x87, kept)


def test_user_properties_of_a_message_are_never_dropped() -> None:
    server = opened(Role.SERVER, 5, {"maximum_packet_size": 20})
    with pytest.raises(ProtocolError) as caught:
        server.send(Publish("a", properties={"user_property": [("key", "value" * 4)]}))
    assert caught.value.reason == 0x95


def test_3_1_1_takes_no_properties_from_a_packet_it_sends() -> None:
    server = opened(Role.SERVER, 4, None, {"maximum_packet_size": 10, "receive_maximum": 1})
    for packet_id in (1, 2):
        server.receive(encode(Publish("a", bytes(100), 1, packet_id=packet_id), 4))


# --- errors --------------------------------------------------------------------------------


def test_after_an_error_everything_raises_it_again() -> None:
    server = opened(Role.SERVER)
    good = encode(Publish("a"), 5)
    with pytest.raises(ProtocolError) as first:
        server.receive(good + b"\x00\x00")
    assert server.undelivered == [Publish("a")]
    assert server.state is State.CLOSED
    for call in (
        lambda: server.receive(good),
        lambda: server.receive(b""),
        lambda: server.send(Pingreq()),
    ):
        with pytest.raises(ProtocolError) as again:
            call()
        assert (again.value.reason, again.value.message) == (
            first.value.reason,
            first.value.message,
        )


def test_a_packet_of_our_own_against_the_rules_leaves_the_connection_alive() -> None:
    server = opened(Role.SERVER)
    for packet in (Pingreq(), Publish("a", qos=1), Publish("+"), Connack()):
        with pytest.raises(ProtocolError):
            server.send(packet)
    assert server.receive(b"\xc0\x00") == [Pingreq()]


def test_what_follows_disconnect_is_dropped() -> None:
    server = opened(Role.SERVER, 4)
    assert server.receive(b"\xe0\x00\xc0\x00garbage") == [Disconnect()]
    assert server.receive(b"more") == []


# --- last words (section 4.13) --------------------------------------------------------------


def last_words(server: Connection, data: bytes) -> bytes:
    with pytest.raises(ProtocolError) as caught:
        server.receive(data)
    return server.closing(caught.value)


def test_an_unknown_protocol_level_is_answered_by_return_code_1() -> None:
    server = Connection(Role.SERVER)
    assert last_words(server, bytes.fromhex("100e00064d51497364700302003c0000")).hex() == "20020001"
    assert server.version is None


def test_garbage_is_not_answered() -> None:
    assert last_words(Connection(Role.SERVER), b"GET / HTTP/1.1\r\n") == b""


@pytest.mark.parametrize(
    ("version", "accepted", "first"),
    [(4, False, b""), (4, True, b""), (5, False, b"\x20"), (5, True, b"\xe0")],
)
def test_mqtt_5_says_why_it_closes(version: Version, accepted: bool, first: bytes) -> None:
    server = opened(Role.SERVER, version)
    if not accepted:
        server = Connection(Role.SERVER)
        server.receive(encode(Connect("x", version=version), version))
    data = last_words(server, b"\x00\x00")
    assert data[:1] == first
    if data:
        decoded = decode(data, version, 1000)
        assert decoded is not None
        packet = decoded[0]
        assert isinstance(packet, (Connack, Disconnect))
        assert packet.reason_code == 0x81
        assert packet.properties == {"reason_string": "packet type 0 is reserved (2.1.2)"}


def test_a_reason_that_the_packet_cannot_carry_becomes_protocol_error() -> None:
    server = Connection(Role.SERVER)
    server.receive(encode(Connect("x", version=5), 5))
    alias = Publish("a", properties={"topic_alias": 1})
    assert last_words(server, encode(alias, 5))[3] == 0x82


def test_last_words_keep_within_the_peers_limit() -> None:
    server = opened(Role.SERVER, 5, {"maximum_packet_size": 5})
    assert last_words(server, b"\x00\x00").hex() == "e00181"
    server = Connection(Role.SERVER)
    server.receive(encode(Connect("x", version=5, properties={"maximum_packet_size": 4}), 5))
    assert last_words(server, b"\x00\x00") == b""  # the shortest CONNACK has five bytes


def test_an_error_found_outside_is_told_once() -> None:
    server = opened(Role.SERVER)
    error = ProtocolError(0x9B, "no QoS 2 here")
    assert server.closing(error)[0] == 0xE0
    assert server.state is State.CLOSED
    with pytest.raises(ProtocolError):
        server.send(Pingreq())
    gone = opened(Role.SERVER)
    gone.send(Disconnect(0x8E))
    assert gone.closing(error) == b""


def test_a_client_disconnects_from_a_server_that_breaks_the_rules() -> None:
    client = opened(Role.CLIENT)
    assert last_words(client, encode(Subscribe(1, (Subscription("a"),)), 5))[:1] == b"\xe0"
