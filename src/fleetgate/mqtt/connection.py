"""One MQTT network connection, for either side of it: bytes in, packets out, and back.

A :class:`Connection` does no I/O: bytes that arrived go into :meth:`Connection.receive`, which
returns packets; packets to be sent go into :meth:`Connection.send`, which returns bytes. Both
drive the one :class:`~fleetgate.mqtt.state.Machine`, which holds the rules of the protocol; here
are the buffer, its bounds, and what becomes of errors.

An error of the peer closes the connection for good: every later call raises it again, and
:meth:`Connection.closing` has the last bytes to send. A packet of our own that breaks the rules
raises too, but changes nothing. What arrives after DISCONNECT is dropped.

This is not the MQTT *session* (section 4.1), which may outlive the connection: which messages
wait for delivery, and redelivery, are not known here. Keep-alive needs a clock and is not here
either. Clause numbers are those of MQTT 5.0 unless they say otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.codec import decode, encode
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Properties,
    Publish,
    Version,
)
from fleetgate.mqtt.reasons import CONNACK_CODES, DISCONNECT_CODES, ConnectReturnCode, Reason
from fleetgate.mqtt.state import DIAGNOSIS, SILENCEABLE, Machine, Role, State, name

__all__ = ["MAX_CONNECT_SIZE", "MAX_PACKET_SIZE", "Connection", "Role", "State"]

MAX_PACKET_SIZE: Final = 146 * 1024
"""The largest MQTT 5 packet AWS IoT Core takes, in bytes (its endpoints and quotas page)."""

MAX_CONNECT_SIZE: Final = 96 * 1024
"""The largest CONNECT: a will of 65535 bytes, which is the most that its length field can say
(section 3.1.3.4), and 32 KiB for identifier, user name, password, will topic and properties."""

# Their reason string and user properties may go when there is no room (3.2.2.3.9 and so on).
_DIAGNOSABLE: Final = (Connack, Disconnect, *SILENCEABLE)


class Connection:
    """One network connection, seen from the side `role`.

    `max_packet_size` (bytes) bounds what is accepted from the peer; a smaller
    ``maximum_packet_size`` in our own CONNECT or CONNACK lowers it. `max_connect_size` bounds
    what is accepted before CONNECT has passed. No more than one incomplete packet within these
    bounds is ever kept.

    ``undelivered`` holds the valid packets that preceded the broken one in the call of
    ``receive`` that raised: the caller may still serve them. ``ignored`` counts what ``receive``
    has left out because it meant nothing.
    """

    def __init__(
        self,
        role: Role,
        *,
        max_packet_size: int = MAX_PACKET_SIZE,
        max_connect_size: int = MAX_CONNECT_SIZE,
    ) -> None:
        self.role = role
        self.undelivered: list[Packet] = []
        self.ignored = 0
        self._machine = Machine()
        self._ours = self._machine.side(role)
        self._theirs = self._machine.side(role.peer)
        self._max_packet_size = max_packet_size
        self._limit = min(max_connect_size, max_packet_size)
        self._pending = bytearray()
        self._error: ProtocolError | None = None
        self._last_packet_id = 0

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._machine.state

    @property
    def version(self) -> Version | None:
        """4 or 5 once CONNECT has passed, until then None."""
        return self._machine.version

    # --- what the peer allows ---

    @property
    def peer_receive_maximum(self) -> int:
        """How many QoS 1 and 2 messages the peer takes unacknowledged (3.1.2.11.3, 3.2.2.3.3).

        65535 in 3.1.1, which has no such limit.
        """
        return self._theirs.receive_maximum

    @property
    def peer_max_packet_size(self) -> int | None:
        """The largest packet in bytes that the peer takes (3.1.2.11.4, 3.2.2.3.6), if it said."""
        return self._theirs.granted.get("maximum_packet_size")

    @property
    def outstanding(self) -> tuple[int, ...]:
        """Packet identifiers of our unacknowledged messages, in the order of sending."""
        return tuple(self._ours.publishes)

    @property
    def send_quota(self) -> int:
        """How many QoS 1 and 2 messages may be sent now (section 4.9)."""
        return self._theirs.receive_maximum - len(self._ours.publishes)

    def next_packet_id(self) -> int:
        """A packet identifier that none of our unanswered packets uses (section 2.2.1).

        Raises ProtocolError 0x97 when all 65535 are in use.
        """
        ours = self._ours
        if len(ours.publishes) + len(ours.requests) >= 0xFFFF:
            raise ProtocolError(Reason.QUOTA_EXCEEDED, "all packet identifiers are in use")
        packet_id = self._last_packet_id % 0xFFFF + 1
        while packet_id in ours.publishes or packet_id in ours.requests:
            packet_id = packet_id % 0xFFFF + 1
        self._last_packet_id = packet_id
        return packet_id

    # --- bytes in, packets out ---

    def receive(self, data: bytes) -> list[Packet]:
        """Take bytes from the peer and return the packets they complete.

        Acknowledgements of what was never sent are left out, and so are repetitions of a
        message that still waits for its acknowledgement (3.1.1 allows them); a topic alias is
        replaced by its topic. Raises ProtocolError when the peer breaks the rules;
        ``undelivered`` then holds the packets before that point.
        """
        self._check_alive()
        machine = self._machine
        packets: list[Packet] = []
        buffer: bytes | bytearray = data
        if self._pending:
            self._pending += data
            buffer = self._pending
        at = 0
        try:
            while machine.state is not State.CLOSED:
                decoded = decode(buffer, machine.version, self._limit, at)
                if decoded is None:
                    break
                packet, size = decoded
                at += size
                if not machine.advance(packet, self._theirs, self._ours):
                    self.ignored += 1
                    continue
                if isinstance(packet, Publish):
                    if not packet.topic:
                        packet.topic = self._theirs.aliases[packet.properties["topic_alias"]]
                elif isinstance(packet, (Connect, Connack)):
                    self._set_limit()
                packets.append(packet)
        except ProtocolError as error:
            self._error = error
            machine.enter(State.CLOSED)
            self._pending = bytearray()
            self.undelivered = packets
            raise
        if machine.state is State.CLOSED:
            self._pending = bytearray()
        elif buffer is self._pending:
            del self._pending[:at]
        elif at < len(data):
            self._pending += data[at:]
        return packets

    def _check_alive(self) -> None:
        if self._error is not None:
            raise ProtocolError(self._error.reason, self._error.message)

    def _set_limit(self) -> None:
        granted = self._ours.granted.get("maximum_packet_size", self._max_packet_size)
        self._limit = min(self._max_packet_size, granted)

    # --- packets in, bytes out ---

    def send(self, packet: Packet) -> bytes:
        """The bytes of `packet`, which count as sent.

        Reason string and user properties of answers are left out when the peer does not want
        them or has no room for them (3.1.2.11.4, 3.1.2.11.7). Raises ProtocolError, changing
        nothing, when the packet is not legal now: 0x93 when the peer's receive maximum is
        reached, 0x95 when it is larger than the peer takes, 0x92 when it acknowledges nothing.
        """
        self._check_alive()
        version = packet.version if isinstance(packet, Connect) else self._machine.version
        if version is None:
            raise ProtocolError(Reason.PROTOCOL_ERROR, "the first packet must be CONNECT (3.1)")
        if isinstance(packet, SILENCEABLE) and self._machine.terse:
            packet = _without(packet, *DIAGNOSIS)
        data = self._encode(packet, version)
        if not self._machine.advance(packet, self._ours, self._theirs):
            raise ProtocolError(
                Reason.PACKET_IDENTIFIER_NOT_FOUND,
                f"{packet} acknowledges or repeats what is not there to be",
            )
        if isinstance(packet, (Connect, Connack)):
            self._set_limit()
        return data

    def _encode(self, packet: Packet, version: Version) -> bytes:
        data = encode(packet, version)
        limit = self.peer_max_packet_size
        if limit is None or len(data) <= limit:
            return data
        if isinstance(packet, _DIAGNOSABLE):
            for names in (DIAGNOSIS[:1], DIAGNOSIS):
                shorter = encode(_without(packet, *names), version)
                if len(shorter) <= limit:
                    return shorter
        raise ProtocolError(
            Reason.PACKET_TOO_LARGE,
            f"{name(packet)} of {len(data)} bytes is larger than the {limit} bytes that the "
            "peer takes (3.1.2.11.4)",
        )

    def closing(self, error: ProtocolError) -> bytes:
        """The last bytes to send before closing the network connection because of `error`.

        CONNACK from a server that has not accepted the connection, DISCONNECT in MQTT 5 after
        that, nothing where no packet can say it (section 4.13; 3.1.1 section 4.8). An unknown
        protocol level is answered in the form of 3.1.1, which older clients understand (3.1.1
        section 3.1.2.2). The connection is closed afterwards.
        """
        machine = self._machine
        done = machine.state is State.CLOSED and self._error is None
        self._error = self._error or error
        machine.enter(State.CLOSED)
        if done:
            return b""
        server = self.role is Role.SERVER
        if machine.reached is State.NEW:
            if server and error.reason == Reason.UNSUPPORTED_PROTOCOL_VERSION:
                return encode(Connack(False, ConnectReturnCode.UNACCEPTABLE_PROTOCOL_VERSION), 4)
            return b""
        if machine.version != 5:
            return b""
        connack = server and machine.reached is State.CONNECTING
        allowed = CONNACK_CODES if connack else DISCONNECT_CODES
        code = error.reason if error.reason in allowed else Reason.PROTOCOL_ERROR
        properties: Properties = {"reason_string": error.message}
        last = Connack(False, code, properties) if connack else Disconnect(code, properties)
        try:
            return self._encode(last, 5)
        except ProtocolError:
            return b""  # the peer takes only packets that are smaller still


def _without(packet: Packet, *names: str) -> Packet:
    """`packet` without the properties `names`."""
    if isinstance(packet, (Pingreq, Pingresp)) or packet.properties.keys().isdisjoint(names):
        return packet
    left = {key: value for key, value in packet.properties.items() if key not in names}
    return replace(packet, properties=left)
