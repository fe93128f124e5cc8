"""Packets on their way to the client.

What is sent in one turn of the loop leaves together: one TLS record and one system call for a
burst of messages.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fleetgate.broker.session import DONE, Message
from fleetgate.gateway import opening
from fleetgate.gateway.services import WINDOW
from fleetgate.gateway.tls import TlsConnection
from fleetgate.mqtt.connection import Connection, State
from fleetgate.mqtt.packets import Disconnect, Packet, Properties, Publish

_BATCH: Final = 16384  # bytes; one TLS record


class Outgoing:
    """The sending half of a connection.

    While `corked` is set the owner calls `flush` by itself.
    """

    __slots__ = ("_bytes", "_core", "_packets", "_tls", "corked")

    def __init__(self, core: Connection, tls: TlsConnection) -> None:
        self._core = core
        self._tls = tls
        self._packets: list[bytes] = []
        self._bytes = 0
        self.corked = False

    @property
    def window(self) -> int:
        """How many more messages of QoS 1 the client takes now."""
        unacknowledged = self._core.peer_receive_maximum - self._core.send_quota
        return min(self._core.peer_receive_maximum, WINDOW) - unacknowledged

    def send(self, packet: Packet) -> None:
        """Send `packet`, unless one side has said goodbye. Raises ProtocolError."""
        if self._core.state is not State.CLOSED:
            self.put(self._core.send(packet))

    def farewell(self, reason: int, message: str, *, refused: bool) -> None:
        """Send what says why this is the end: CONNACK when `refused`, else DISCONNECT in MQTT 5.

        Raises ProtocolError when it is larger than the client takes.
        """
        version = self._core.version
        if refused and version is not None:
            self.send(opening.refusal(version, reason, message))
        elif version == 5:
            self.send(Disconnect(reason, {"reason_string": message[:500]}))

    def deliver(self, message: Message, qos: int, now: float) -> int:
        """Send a message of the broker; otherwise like `publish`."""
        properties: Properties = {}
        if self._core.version == 5:
            properties.update(message.properties)
            if message.expires_at is not None:
                properties["message_expiry_interval"] = max(1, int(message.expires_at - now))
        return self.publish(message.topic, message.payload, qos, properties)

    def publish(self, topic: str, payload: bytes, qos: int, properties: Properties) -> int:
        """Send a message; its packet identifier, or `DONE` when none comes back.

        Raises ProtocolError when it is larger than the client takes (MQTT 5.0 3.1.2.11.4).
        """
        packet_id = self._core.next_packet_id() if qos else None
        self.send(Publish(topic, payload, qos, False, False, packet_id, properties))
        return packet_id or DONE

    def put(self, data: bytes) -> None:
        """Send bytes that the MQTT core has made."""
        self._packets.append(data)
        self._bytes += len(data)
        if self._bytes > _BATCH:
            self.flush()
        elif not self.corked and len(self._packets) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Hand everything to TLS."""
        if self._packets:
            data = b"".join(self._packets)
            self._packets.clear()
            self._bytes = 0
            self._tls.write(data)
