"""The MQTT state machine: which side may send which packet when.

It does not know which side it plays: a packet that was sent and one that was received go through
the same :meth:`Machine.advance`, which is told who sent it. What each side has granted to the
other, and which of its requests are unanswered, is kept once per side; so the machines at both
ends of a connection always agree.

States: NEW, nothing seen; CONNECTING, CONNECT has passed; OPEN, CONNACK has accepted it; CLOSED,
after DISCONNECT or a refusing CONNACK. The client may send other packets before it has CONNACK
(section 3.1.4); what a server does with them is its own affair.

Clause numbers are those of MQTT 5.0 unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Version,
)
from fleetgate.mqtt.reasons import Reason


class Role(Enum):
    """The two sides of a connection (section 1.2)."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> Role:
        """The other side."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class State(Enum):
    """Where a connection stands; see the module."""

    NEW = "new"
    CONNECTING = "connecting"
    OPEN = "open"
    CLOSED = "closed"


_BOTH: Final = frozenset[type[Packet]]((Publish, Puback, Pubrec, Pubrel, Pubcomp))
_CLIENT: Final = _BOTH | {Subscribe, Unsubscribe, Pingreq, Disconnect, Auth}
_SERVER: Final = _BOTH | {Suback, Unsuback, Pingresp, Disconnect, Auth}
_NONE: Final[frozenset[type[Packet]]] = frozenset()
# Section 2.1.2, the direction of flow, and section 3.1: CONNECT first and once.
# Per state: what the client, what the server may send.
_ALLOWED: Final = {
    State.NEW: (frozenset[type[Packet]]((Connect,)), _NONE),
    State.CONNECTING: (_CLIENT, frozenset[type[Packet]]((Connack, Auth))),
    State.OPEN: (_CLIENT, _SERVER),
    State.CLOSED: (_NONE, _NONE),
}
# Packets on which a client may forbid diagnostic properties (3.1.2.11.7), and these properties.
SILENCEABLE: Final = (Puback, Pubrec, Pubrel, Pubcomp, Suback, Unsuback, Auth)
DIAGNOSIS: Final = ("user_property", "reason_string")


class Side:
    """What one side may send, has granted to the other, and is waiting for."""

    __slots__ = ("aliases", "allowed", "granted", "publishes", "requests", "role")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.allowed = _NONE
        # The properties of its CONNECT or CONNACK.
        self.granted: Properties = {}
        # The topics behind the aliases it uses (3.3.2.3.4).
        self.aliases: dict[int, str] = {}
        # Packet identifier -> QoS of its messages that are not acknowledged.
        self.publishes: dict[int, int] = {}
        # Packet identifier -> the answer due to its SUBSCRIBE or UNSUBSCRIBE, with how many codes.
        self.requests: dict[int, tuple[type[Packet], int]] = {}

    @property
    def receive_maximum(self) -> int:
        """How many unacknowledged messages it takes (3.1.2.11.3, 3.2.2.3.3)."""
        return int(self.granted.get("receive_maximum", 0xFFFF))


class Machine:
    """The state of one connection: ``state``, ``version`` (None before CONNECT), both sides.

    ``terse`` says that the client wants no diagnostic properties.
    """

    __slots__ = ("clean_start", "client", "reached", "server", "state", "terse", "version")

    def __init__(self) -> None:
        self.client = Side(Role.CLIENT)
        self.server = Side(Role.SERVER)
        self.version: Version | None = None
        self.clean_start = False
        self.terse = False
        self.enter(State.NEW)

    def side(self, role: Role) -> Side:
        """The side of the client or of the server."""
        return self.client if role is Role.CLIENT else self.server

    def enter(self, state: State) -> None:
        """Go to `state`; ``reached`` remembers the last one before CLOSED."""
        self.state = state
        self.client.allowed, self.server.allowed = _ALLOWED[state]
        if state is not State.CLOSED:
            self.reached = state

    def advance(self, packet: Packet, sender: Side, receiver: Side) -> bool:
        """Apply `packet`, which `sender` sent.

        False when it means nothing: the acknowledgement of what was never sent, the repetition
        of a message that is not acknowledged yet. Raises ProtocolError, and has changed nothing,
        when the packet is not legal now.
        """
        kind = type(packet)
        if kind not in sender.allowed:
            raise ProtocolError(
                Reason.PROTOCOL_ERROR,
                f"{name(packet)} from the {sender.role.value} while the connection is "
                f"{self.state.value}",
            )
        if self.terse and sender is self.server and kind in SILENCEABLE:
            _check_terse(packet)
        rule = _RULES.get(kind)
        return rule is None or rule(self, packet, sender, receiver)


def name(packet: Packet) -> str:
    """The packet's name as the standard writes it, ``PUBLISH``."""
    return type(packet).__name__.upper()


def _check_unused(packet: Packet, packet_id: int, sender: Side) -> None:
    if packet_id in sender.publishes or packet_id in sender.requests:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR,
            f"{name(packet)} with packet identifier {packet_id}, which is in use (2.2.1)",
        )


def _check_terse(packet: Packet) -> None:
    if not isinstance(packet, SILENCEABLE) or packet.properties.keys().isdisjoint(DIAGNOSIS):
        return
    raise ProtocolError(
        Reason.PROTOCOL_ERROR,
        f"{name(packet)} with diagnostic properties that the client forbade (3.1.2.11.7)",
    )


def _connect(machine: Machine, packet: Connect, sender: Side, _receiver: Side) -> bool:
    machine.version = packet.version
    machine.clean_start = packet.clean_start
    sender.granted = dict(packet.properties) if machine.version == 5 else {}
    machine.terse = sender.granted.get("request_problem_information") == 0
    machine.enter(State.CONNECTING)
    return True


def _connack(machine: Machine, packet: Connack, sender: Side, _receiver: Side) -> bool:
    if packet.session_present and machine.clean_start:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR,
            "session present although a clean start was asked for (3.2.2.1.1)",
        )
    sender.granted = dict(packet.properties) if machine.version == 5 else {}
    machine.enter(State.CLOSED if packet.reason_code else State.OPEN)
    return True


def _publish(machine: Machine, packet: Publish, sender: Side, receiver: Side) -> bool:
    alias = None
    if packet.properties and machine.version == 5:
        alias = _alias(machine, packet, sender, receiver)
    if packet.qos and packet.packet_id is not None:
        if packet.packet_id in sender.publishes and packet.dup and machine.version == 4:
            # 3.1.1 section 4.4 lets a sender repeat itself; the first copy will be answered.
            return False
        _check_unused(packet, packet.packet_id, sender)
        if len(sender.publishes) >= receiver.receive_maximum:
            raise ProtocolError(
                Reason.RECEIVE_MAXIMUM_EXCEEDED,
                f"more than {receiver.receive_maximum} unacknowledged messages (3.3.4)",
            )
        sender.publishes[packet.packet_id] = packet.qos
    if alias is not None and packet.topic:
        sender.aliases[alias] = packet.topic
    return True


def _alias(machine: Machine, packet: Publish, sender: Side, receiver: Side) -> int | None:
    """Check the properties of a PUBLISH that depend on the connection (3.3.2.3)."""
    if sender is machine.client and "subscription_identifier" in packet.properties:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR, "PUBLISH of a client with a subscription identifier (3.3.4)"
        )
    alias: int | None = packet.properties.get("topic_alias")
    if alias is None:
        return None
    maximum = receiver.granted.get("topic_alias_maximum", 0)
    if alias > maximum:
        raise ProtocolError(
            Reason.TOPIC_ALIAS_INVALID,
            f"topic alias {alias} is larger than the maximum of {maximum} (3.3.2.3.4)",
        )
    if not packet.topic and alias not in sender.aliases:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR, f"topic alias {alias} stands for no topic yet (3.3.2.3.4)"
        )
    return alias


def _puback(_machine: Machine, packet: Puback, _sender: Side, receiver: Side) -> bool:
    if receiver.publishes.get(packet.packet_id) != 1:
        return False
    del receiver.publishes[packet.packet_id]
    return True


def _pubrec(_machine: Machine, packet: Pubrec, _sender: Side, receiver: Side) -> bool:
    if packet.reason_code >= 0x80 and receiver.publishes.get(packet.packet_id) == 2:
        del receiver.publishes[packet.packet_id]
    return True  # an unknown identifier is to be answered, too (4.3.3)


def _pubcomp(_machine: Machine, packet: Pubcomp, _sender: Side, receiver: Side) -> bool:
    if receiver.publishes.get(packet.packet_id) == 2:
        del receiver.publishes[packet.packet_id]
    return True


def _subscribe(_machine: Machine, packet: Subscribe, sender: Side, _receiver: Side) -> bool:
    _check_unused(packet, packet.packet_id, sender)
    sender.requests[packet.packet_id] = (Suback, len(packet.subscriptions))
    return True


def _unsubscribe(machine: Machine, packet: Unsubscribe, sender: Side, _receiver: Side) -> bool:
    _check_unused(packet, packet.packet_id, sender)
    codes = len(packet.topic_filters) if machine.version == 5 else 0
    sender.requests[packet.packet_id] = (Unsuback, codes)
    return True


def _answer(machine: Machine, packet: Suback | Unsuback, _sender: Side, receiver: Side) -> bool:
    kind, codes = receiver.requests.get(packet.packet_id, (None, 0))
    if kind is not type(packet):
        return False
    given = len(packet.reason_codes) if machine.version == 5 or kind is Suback else 0
    if given != codes:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR,
            f"{name(packet)} with {given} reason codes for {codes} topic filters (3.9.3)",
        )
    del receiver.requests[packet.packet_id]
    return True


def _disconnect(machine: Machine, packet: Disconnect, sender: Side, _receiver: Side) -> bool:
    if sender is machine.server and machine.version == 4:
        raise ProtocolError(
            Reason.PROTOCOL_ERROR, "DISCONNECT from the server in 3.1.1 (3.14 of 3.1.1)"
        )
    if machine.version == 5 and "session_expiry_interval" in packet.properties:
        before = machine.client.granted.get("session_expiry_interval", 0)
        if sender is machine.server or (
            packet.properties["session_expiry_interval"] and not before
        ):
            raise ProtocolError(
                Reason.PROTOCOL_ERROR,
                "DISCONNECT may not set this session expiry interval (3.14.2.2.2)",
            )
    machine.enter(State.CLOSED)
    return True


_RULES: Final[dict[type[Packet], Callable[[Machine, Any, Side, Side], bool]]] = {
    Connect: _connect,
    Connack: _connack,
    Publish: _publish,
    Puback: _puback,
    Pubrec: _pubrec,
    Pubcomp: _pubcomp,
    Subscribe: _subscribe,
    Suback: _answer,
    Unsubscribe: _unsubscribe,
    Unsuback: _answer,
    Disconnect: _disconnect,
}
