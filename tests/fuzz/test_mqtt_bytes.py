"""The contract: any bytes, in any pieces, in either role: packets or ProtocolError."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.connection import Connection, Role, State
from fleetgate.mqtt.packets import Connack, Connect, Version
from tests.mqtt.strategies import chunked, packets, versions

GRANTS = {"receive_maximum": 2, "topic_alias_maximum": 2, "maximum_packet_size": 200}


def connection(role: Role, version: Version | None) -> Connection:
    """A new connection, or with a version one that is open."""
    made = Connection(role, max_packet_size=300, max_connect_size=300)
    if version is None:
        return made
    granted = GRANTS if version == 5 else {}
    connect = Connect("x", version=version, properties=dict(granted))
    connack = Connack(properties=dict(granted))
    if role is Role.CLIENT:
        made.send(connect)
        made.receive(encode(connack, version))
    else:
        made.receive(encode(connect, version))
        made.send(connack)
    assert made.state is State.OPEN
    return made


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Valid packets of either version with a few bytes changed, lost or put in."""
    version = draw(versions)
    data = bytearray()
    for packet in draw(st.lists(packets(version), min_size=1, max_size=4)):
        data += encode(packet, version)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@st.composite
def framed(draw: st.DrawFn) -> bytes:
    """Arbitrary bodies behind fixed headers that fit them."""
    data = b""
    for body in draw(st.lists(st.binary(max_size=30), min_size=1, max_size=3)):
        data += bytes((draw(st.integers(0x10, 0xFF)), len(body))) + body
    return data


@settings(max_examples=6 * settings().max_examples)
@given(
    st.one_of(st.binary(max_size=60), framed(), damaged()).flatmap(chunked),
    st.sampled_from(list(Role)),
    st.none() | versions,
)
def test_any_bytes_give_packets_or_a_protocol_error(
    chunks: list[bytes], role: Role, version: Version | None
) -> None:
    peer = connection(role, version)
    for chunk in chunks:
        raised = None
        try:
            peer.receive(chunk)
        except ProtocolError as error:
            raised = error
        assert len(peer._pending) <= 300
        if raised is not None:
            assert 0x80 <= raised.reason <= 0xA2
            assert peer.state is State.CLOSED
            last = peer.closing(raised)
            assert len(last) <= (peer.peer_max_packet_size or len(last))
            break
