"""What is seen of the packets that a server sends, whichever way their bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.device.mqtt_socket import TooLarge, Watch
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.packets import (
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Publish,
    Suback,
)

CONNACK = Connack(properties={"maximum_packet_size": 1000})
DISCONNECT = Disconnect(0x8E, properties={"reason_string": "by another"})

packets = st.lists(
    st.sampled_from(
        [
            Pingresp(),
            Suback(7, (0x87,)),
            Puback(1, 0x87, {"reason_string": "no"}),
            Puback(2),
            Publish("a/b", b"x" * 300, 1, packet_id=9),
            Publish("a", b""),
        ]
    ),
    max_size=8,
)


def feed(watch: Watch, data: bytes, cuts: list[int]) -> None:
    at = 0
    for size in cuts:
        watch.receive(data[at : at + size])
        at += size
    watch.receive(data[at:])


@given(packets, st.lists(st.integers(0, 50), max_size=30))
def test_it_sees_the_same_however_bytes_are_cut(sent: list[Packet], cuts: list[int]) -> None:
    watch = Watch(5, 2000)
    acknowledged: list[Puback] = []
    watch.on_puback = acknowledged.append
    feed(watch, b"".join(encode(each, 5) for each in [CONNACK, *sent, DISCONNECT]), cuts)
    assert watch.connack == CONNACK
    assert watch.disconnect == DISCONNECT
    assert acknowledged == [each for each in sent if isinstance(each, Puback)]
    assert not watch.refused


@given(st.integers(1, 400), st.lists(st.integers(1, 50), max_size=3))
def test_a_packet_is_measured_by_its_header(size: int, cuts: list[int]) -> None:
    data = encode(Publish("a", bytes(size)), 5)
    watch = Watch(5, 200)
    ended: list[bool] = []
    watch.on_end = lambda: ended.append(True)
    watch.receive(encode(CONNACK, 5))
    if len(data) <= 200:
        feed(watch, data, cuts)
        assert watch.too_large is None
        assert ended == []
    else:
        with pytest.raises(TooLarge):
            watch.receive(data[:4])  # nothing of its content has to be there
        assert watch.too_large == len(data)
        assert watch.refused
        assert ended == [True]


@pytest.mark.parametrize("first", [Pingresp(), Puback(1), Disconnect(0x8B)])
def test_what_does_not_begin_with_connack_is_no_connection(first: Packet) -> None:
    watch = Watch(5, 1000)
    watch.receive(encode(first, 5))
    assert watch.refused
    assert watch.ended == "the server did not answer with MQTT"


@given(st.binary(max_size=200))
def test_any_bytes_are_looked_at(data: bytes) -> None:
    watch = Watch(4, 1000)
    try:
        watch.receive(data)
    except TooLarge:
        assert watch.too_large is not None


@pytest.mark.parametrize(("version", "code"), [(4, 5), (5, 0x87)])
def test_a_refusal_ends_it(version: int, code: int) -> None:
    watch = Watch(5 if version == 5 else 4, 1000)
    ended: list[bool] = []
    watch.on_end = lambda: ended.append(True)
    watch.receive(encode(Connack(reason_code=code), watch.version))
    assert watch.refused
    assert ended == [True]
