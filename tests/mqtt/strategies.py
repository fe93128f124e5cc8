"""Hypothesis strategies for MQTT packets that are valid and in the form `decode` returns."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fleetgate.mqtt import reasons
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
from fleetgate.mqtt.properties import PROPERTIES, WILL

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
topic_names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=8
)
topic_filters = text.filter(bool) | st.sampled_from(["#", "+/a", "a/#", "$share/g/a/+"])
payloads = st.binary(max_size=16)
packet_ids = st.integers(1, 0xFFFF)
qos = st.integers(0, 2)
versions: st.SearchStrategy[Version] = st.sampled_from((4, 5))

_BY_TYPE: dict[type, st.SearchStrategy[Any]] = {
    str: text,
    bytes: payloads,
    tuple: st.tuples(text, text),
}
_SIZES = {"read_byte": 0xFF, "read_two": 0xFFFF, "read_four": 0xFFFFFFFF}


@st.composite
def properties(draw: st.DrawFn, packet: int, version: Version) -> dict[str, Any]:
    """Properties that may stand on the packet with code `packet`."""
    if version == 4 or draw(st.booleans()):
        return {}
    rows = [row for row in PROPERTIES if packet in row.packets]
    drawn = {}
    for row in draw(st.lists(st.sampled_from(rows), unique_by=lambda row: row.name, max_size=4)):
        if row.kind is int:
            low, high = row.values or (0, _SIZES[row.read.__name__])
            value: st.SearchStrategy[Any] = st.integers(low, high)
        else:
            value = topic_names if row.name == "response_topic" else _BY_TYPE[row.kind]
        if row.name == "user_property" or (
            row.name == "subscription_identifier" and packet == Publish.code
        ):
            value = st.lists(value, min_size=1, max_size=3)
        drawn[row.name] = draw(value)
    if "authentication_data" in drawn:
        drawn.setdefault("authentication_method", "m")
    return drawn


@st.composite
def connects(draw: st.DrawFn, version: Version) -> Connect:
    username = draw(st.none() | text)
    password = draw(st.none() | payloads) if username is not None or version == 5 else None
    will = None
    if draw(st.booleans()):
        will = Will(
            draw(topic_names),
            draw(payloads),
            draw(qos),
            draw(st.booleans()),
            draw(properties(WILL, version)),
        )
    return Connect(
        draw(text),
        draw(st.booleans()),
        draw(st.integers(0, 0xFFFF)),
        username,
        password,
        will,
        version,
        draw(properties(Connect.code, version)),
    )


@st.composite
def connacks(draw: st.DrawFn, version: Version) -> Connack:
    codes = reasons.CONNACK_CODES if version == 5 else reasons.CONNACK_RETURN_CODES
    code = draw(st.sampled_from(sorted(codes)))
    present = code == 0 and draw(st.booleans())
    return Connack(present, code, draw(properties(Connack.code, version)))


@st.composite
def publishes(draw: st.DrawFn, version: Version) -> Publish:
    level = draw(qos)
    props = draw(properties(Publish.code, version))
    empty = "topic_alias" in props and draw(st.booleans())
    return Publish(
        "" if empty else draw(topic_names),
        draw(payloads),
        level,
        draw(st.booleans()),
        level > 0 and draw(st.booleans()),
        draw(packet_ids) if level else None,
        props,
    )


@st.composite
def subscribes(draw: st.DrawFn, version: Version) -> Subscribe:
    subscriptions = []
    for topic_filter in draw(st.lists(topic_filters, min_size=1, max_size=3)):
        if version == 4:
            subscriptions.append(Subscription(topic_filter, draw(qos)))
            continue
        no_local = not topic_filter.startswith("$share/") and draw(st.booleans())
        subscriptions.append(
            Subscription(topic_filter, draw(qos), no_local, draw(st.booleans()), draw(qos))
        )
    props = draw(properties(Subscribe.code, version))
    return Subscribe(draw(packet_ids), tuple(subscriptions), props)


def _codes(allowed: frozenset[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.sampled_from(sorted(allowed)), min_size=1, max_size=3).map(tuple)


def _outcome(kind: Any, allowed: frozenset[int], version: Version) -> st.SearchStrategy[Any]:
    """Packets of a packet identifier, a reason code and properties."""
    code = st.sampled_from(sorted(allowed)) if version == 5 else st.just(0)
    return st.builds(kind, packet_ids, code, properties(kind.code, version))


def packets(version: Version) -> st.SearchStrategy[Packet]:
    """Any packet of `version`."""
    suback = reasons.SUBACK_CODES if version == 5 else reasons.SUBACK_RETURN_CODES
    unsuback = _codes(reasons.UNSUBACK_CODES) if version == 5 else st.just(())
    ending = sorted(reasons.DISCONNECT_CODES) if version == 5 else [0]
    kinds: list[st.SearchStrategy[Any]] = [
        connects(version),
        connacks(version),
        publishes(version),
        _outcome(Puback, reasons.PUBACK_CODES, version),
        _outcome(Pubrec, reasons.PUBREC_CODES, version),
        _outcome(Pubrel, reasons.PUBREL_CODES, version),
        _outcome(Pubcomp, reasons.PUBCOMP_CODES, version),
        subscribes(version),
        st.builds(Suback, packet_ids, _codes(suback), properties(Suback.code, version)),
        st.builds(
            Unsubscribe,
            packet_ids,
            st.lists(topic_filters, min_size=1, max_size=3).map(tuple),
            properties(Unsubscribe.code, version),
        ),
        st.builds(Unsuback, packet_ids, unsuback, properties(Unsuback.code, version)),
        st.just(Pingreq()),
        st.just(Pingresp()),
        st.builds(Disconnect, st.sampled_from(ending), properties(Disconnect.code, version)),
    ]
    if version == 5:
        code = st.sampled_from(sorted(reasons.AUTH_CODES))
        kinds.append(st.builds(Auth, code, properties(Auth.code, version)))
    return st.one_of(kinds)


versioned_packets = versions.flatmap(lambda v: st.tuples(packets(v), st.just(v)))
"""A packet and its version."""


@st.composite
def chunked(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` cut into pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
