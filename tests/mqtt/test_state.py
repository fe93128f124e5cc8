"""The rules of the protocol, tried on a client and a server Connection wired together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.connection import Connection, Role, State
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
)

SUBSCRIBE = Subscribe(1, (Subscription("a", 1), Subscription("b", 1)))


def wired(
    version: Version,
    asked: dict[str, Any] | None = None,
    granted: dict[str, Any] | None = None,
    *,
    clean_start: bool = True,
) -> tuple[Connection, Connection]:
    """An open client and server."""
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    connect = Connect("lamp", clean_start, version=version, properties=asked or {})
    assert server.receive(client.send(connect)) == [connect]
    connack = Connack(False, 0, granted or {})
    assert client.receive(server.send(connack)) == [connack]
    assert client.state is server.state is State.OPEN
    assert client.version == server.version == version
    return client, server


def refused(call: Callable[[Any], Any], argument: Any) -> int:
    with pytest.raises(ProtocolError) as caught:
        call(argument)
    return caught.value.reason


def passes(sender: Connection, receiver: Connection, packet: Packet) -> None:
    assert receiver.receive(sender.send(packet)) == [packet]


def refused_by_both(sender: Connection, receiver: Connection, packet: Packet) -> int:
    """The sender refuses to send it; sent nevertheless, the receiver refuses it, too."""
    assert sender.version is not None
    local = refused(sender.send, packet)
    remote = refused(receiver.receive, encode(packet, sender.version))
    assert local == remote
    return local


VERSIONS = pytest.mark.parametrize("version", [4, 5])


# --- who may send what when (sections 2.1.2, 3.1, 3.2) --------------------------------------


@VERSIONS
def test_a_whole_conversation_passes(version: Version) -> None:
    client, server = wired(version)
    codes = (0, 0) if version == 5 else ()
    passes(client, server, SUBSCRIBE)
    passes(server, client, Suback(1, (1, 0x80)))
    passes(client, server, Publish("a", b"x", 1, packet_id=client.next_packet_id()))
    passes(server, client, Puback(1))
    passes(server, client, Publish("a", b"x", 1, packet_id=server.next_packet_id()))
    passes(client, server, Puback(1))
    passes(client, server, Unsubscribe(7, ("a", "b")))
    passes(server, client, Unsuback(7, codes))
    passes(client, server, Pingreq())
    passes(server, client, Pingresp())
    passes(client, server, Disconnect())
    assert client.state is server.state is State.CLOSED


@VERSIONS
@pytest.mark.parametrize(
    "packet",
    [Connack(), Suback(1, (0,)), Unsuback(1, (0,)), Pingresp(), Connect("again")],
)
def test_a_client_may_not_send_what_servers_send_nor_connect_again(
    version: Version, packet: Packet
) -> None:
    if isinstance(packet, Connect):
        packet = Connect("again", version=version)
    assert refused_by_both(*wired(version), packet) == 0x82


@VERSIONS
@pytest.mark.parametrize(
    "packet",
    [Connack(), SUBSCRIBE, Unsubscribe(1, ("a",)), Pingreq(), Connect("x")],
)
def test_a_server_may_not_send_what_clients_send_nor_connack_again(
    version: Version, packet: Packet
) -> None:
    client, server = wired(version)
    assert refused_by_both(server, client, packet) == 0x82


def test_only_mqtt_5_lets_a_server_disconnect() -> None:
    client, server = wired(4)
    assert refused_by_both(server, client, Disconnect()) == 0x82
    client, server = wired(5)
    passes(server, client, Disconnect(0x8E))
    assert client.state is State.CLOSED


def test_the_first_packet_must_be_connect() -> None:
    assert refused(Connection(Role.CLIENT).send, Pingreq()) == 0x82
    assert refused(Connection(Role.SERVER).send, Connack()) == 0x82
    assert refused(Connection(Role.SERVER).send, Connect("x")) == 0x82
    assert refused(Connection(Role.SERVER).receive, b"\xc0\x00") == 0x82
    assert refused(Connection(Role.CLIENT).receive, encode(Connect("x"), 4)) == 0x82


@VERSIONS
def test_the_first_answer_must_be_connack(version: Version) -> None:
    for packet in (Pingresp(), Disconnect(), Publish("a")):
        client = Connection(Role.CLIENT)
        client.send(Connect("x", version=version))
        assert refused(client.receive, encode(packet, version)) == 0x82


@VERSIONS
def test_a_client_may_go_on_before_it_has_connack(version: Version) -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    data = client.send(Connect("x", version=version)) + client.send(SUBSCRIBE)
    assert [type(packet) for packet in server.receive(data)] == [Connect, Subscribe]
    assert server.state is State.CONNECTING
    passes(server, client, Connack())
    passes(server, client, Suback(1, (0, 0)))


@VERSIONS
def test_a_refusing_connack_closes_both_ends(version: Version) -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    server.receive(client.send(Connect("x", version=version)))
    passes(server, client, Connack(False, 0x87 if version == 5 else 5))
    assert client.state is server.state is State.CLOSED
    assert refused(client.send, Pingreq()) == 0x82
    assert server.receive(b"\xc0\x00") == []


def test_enhanced_authentication_passes_before_connack() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    method = {"authentication_method": "m"}
    server.receive(client.send(Connect("x", version=5, properties=method)))
    passes(server, client, Auth(0x18, method))
    passes(client, server, Auth(0x18, method))
    passes(server, client, Connack(False, 0, method))


# 3.2.2.1.1 (MQTT-3.2.2-2 of 3.1.1)
@VERSIONS
def test_session_present_needs_a_start_that_is_not_clean(version: Version) -> None:
    for clean in (True, False):
        client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
        server.receive(client.send(Connect("x", clean, version=version)))
        if clean:
            assert refused_by_both(server, client, Connack(True)) == 0x82
        else:
            passes(server, client, Connack(True))


# --- packet identifiers and flow control (sections 2.2.1, 4.3, 4.9) -------------------------


@VERSIONS
def test_a_packet_identifier_in_use_is_refused(version: Version) -> None:
    busy: list[Packet] = [SUBSCRIBE, Unsubscribe(1, ("a",)), Publish("a", b"", 1, packet_id=1)]
    for first in busy:
        for second in busy:
            client, server = wired(version)
            passes(client, server, first)
            assert refused_by_both(client, server, second) == 0x82


@VERSIONS
def test_both_sides_number_their_packets_for_themselves(version: Version) -> None:
    client, server = wired(version)
    message = Publish("a", b"", 1, packet_id=1)
    passes(client, server, message)
    passes(server, client, message)
    assert client.outstanding == server.outstanding == (1,)


@VERSIONS
def test_an_acknowledgement_frees_the_identifier(version: Version) -> None:
    client, server = wired(version)
    for _ in range(3):
        passes(client, server, Publish("a", b"", 1, packet_id=9))
        assert list(client.outstanding) == [9]
        passes(server, client, Puback(9))
        assert list(client.outstanding) == []


@VERSIONS
def test_acknowledgements_of_nothing_are_ignored_and_not_sent(version: Version) -> None:
    client, server = wired(version)
    for packet in (Puback(5), Suback(5, (0,)), Unsuback(5, (0,))):
        assert client.receive(encode(packet, version)) == []
        assert refused(server.send, packet) == 0x92
    passes(client, server, Pingreq())


@VERSIONS
def test_an_answer_of_the_wrong_kind_is_ignored(version: Version) -> None:
    client, server = wired(version)
    passes(client, server, SUBSCRIBE)
    assert client.receive(encode(Unsuback(1, (0, 0)), version)) == []
    assert client.receive(encode(Puback(1), version)) == []
    passes(server, client, Suback(1, (0, 0)))


# MQTT-3.9.3-1, 3.11.3: one code for each filter.
@VERSIONS
def test_an_answer_must_have_a_code_for_each_filter(version: Version) -> None:
    client, server = wired(version)
    passes(client, server, SUBSCRIBE)
    assert refused_by_both(server, client, Suback(1, (0,))) == 0x82


def test_in_3_1_1_the_repetition_of_an_unanswered_message_is_dropped() -> None:
    client, server = wired(4)
    passes(client, server, Publish("a", b"", 1, packet_id=1))
    again = Publish("a", b"", 1, dup=True, packet_id=1)
    assert server.receive(encode(again, 4)) == []
    passes(server, client, Puback(1))
    passes(client, server, again)


# MQTT-4.4.0-1: MQTT 5 repeats messages on a new connection only.
def test_in_5_the_repetition_of_an_unanswered_message_is_refused() -> None:
    client, server = wired(5)
    passes(client, server, Publish("a", b"", 1, packet_id=1))
    again = Publish("a", b"", 1, dup=True, packet_id=1)
    assert refused_by_both(client, server, again) == 0x82


# 3.1.2.11.3, 3.2.2.3.3, MQTT-3.3.4-7 and -9
@pytest.mark.parametrize("forward", [True, False])
def test_the_receive_maximum_binds_the_other_side(forward: bool) -> None:
    limit = {"receive_maximum": 2}
    client, server = wired(5, None, limit) if forward else wired(5, limit)
    sender, receiver = (client, server) if forward else (server, client)
    assert (sender.peer_receive_maximum, receiver.peer_receive_maximum) == (2, 65_535)
    for packet_id in (3, 1):
        passes(sender, receiver, Publish("a", b"", 1, packet_id=packet_id))
    assert sender.outstanding == (3, 1)
    assert sender.send_quota == 0
    passes(sender, receiver, Publish("a"))
    passes(receiver, sender, Puback(3))
    assert sender.send_quota == 1
    passes(sender, receiver, Publish("a", b"", 1, packet_id=2))
    assert refused_by_both(sender, receiver, Publish("a", b"", 1, packet_id=4)) == 0x93


def test_the_flow_of_qos_2_holds_its_identifier_to_the_end() -> None:
    client, server = wired(5, None, {"receive_maximum": 1})
    passes(client, server, Publish("a", b"", 2, packet_id=1))
    assert client.receive(encode(Puback(1), 5)) == []
    passes(server, client, Pubrec(1))
    passes(client, server, Pubrel(1))
    assert client.send_quota == 0
    passes(server, client, Pubcomp(1))
    assert client.send_quota == 1
    passes(client, server, Publish("a", b"", 2, packet_id=2))
    passes(server, client, Pubrec(2, 0x97))
    assert client.send_quota == 1


@given(st.lists(st.booleans(), max_size=40))
def test_next_packet_id_never_names_one_in_use(answers: list[bool]) -> None:
    client, server = wired(4)
    client._last_packet_id = 0xFFF0
    used = []
    for answer in answers:
        packet_id = client.next_packet_id()
        assert packet_id not in client.outstanding
        passes(client, server, Publish("a", b"", 1, packet_id=packet_id))
        used.append(packet_id)
        if answer:
            passes(server, client, Puback(used.pop(0)))
        assert client.outstanding == tuple(used)


def test_next_packet_id_says_when_there_is_none() -> None:
    client, _ = wired(4)
    for _ in range(0xFFFF):
        client._ours.publishes[client.next_packet_id()] = 1
    with pytest.raises(ProtocolError) as caught:
        client.next_packet_id()
    assert caught.value.reason == 0x97


# --- topic aliases (section 3.3.2.3.4) ------------------------------------------------------


def alias(topic: str, number: int) -> Publish:
    return Publish(topic, properties={"topic_alias": number})


def test_an_alias_that_was_not_granted_is_refused() -> None:
    for maximum in (None, {"topic_alias_maximum": 2}):
        client, server = wired(5, None, maximum)
        assert refused_by_both(client, server, alias("a", 3)) == 0x94


def test_an_alias_stands_for_its_last_topic() -> None:
    client, server = wired(5, None, {"topic_alias_maximum": 2})
    topics = []
    for packet in (alias("a", 1), alias("b", 2), alias("", 1), alias("c", 1), alias("", 1)):
        (received,) = server.receive(client.send(packet))
        assert isinstance(received, Publish)
        topics.append(received.topic)
    assert topics == ["a", "b", "a", "c", "c"]


def test_an_alias_without_a_topic_yet_is_refused() -> None:
    client, server = wired(5, None, {"topic_alias_maximum": 2})
    assert refused_by_both(client, server, alias("", 1)) == 0x82


def test_aliases_of_the_two_directions_are_apart() -> None:
    maximum = {"topic_alias_maximum": 2}
    client, server = wired(5, maximum, maximum)
    passes(client, server, alias("a", 1))
    assert refused_by_both(server, client, alias("", 1)) == 0x82


# --- properties that depend on the sender ---------------------------------------------------


# MQTT-3.3.4-6
def test_only_a_server_puts_a_subscription_identifier_on_a_message() -> None:
    message = Publish("a", properties={"subscription_identifier": [1]})
    client, server = wired(5)
    passes(server, client, message)
    assert refused_by_both(client, server, message) == 0x82


# 3.14.2.2.2
def test_disconnect_may_not_start_a_session_that_was_to_end() -> None:
    longer = Disconnect(0, {"session_expiry_interval": 60})
    client, server = wired(5)
    assert refused_by_both(client, server, longer) == 0x82
    client, server = wired(5)
    assert refused_by_both(server, client, longer) == 0x82
    client, server = wired(5, {"session_expiry_interval": 30})
    passes(client, server, longer)


# MQTT-3.1.2-29
def test_a_client_can_forbid_diagnostic_properties() -> None:
    client, server = wired(5, {"request_problem_information": 0})
    told = {"reason_string": "why", "user_property": [("a", "b")]}
    passes(client, server, Publish("a", b"", 1, packet_id=1))
    assert client.receive(server.send(Puback(1, 0x87, told))) == [Puback(1, 0x87)]
    passes(server, client, Publish("a", properties={"user_property": [("a", "b")]}))
    assert refused(client.receive, encode(Puback(1, 0x87, told), 5)) == 0x82
