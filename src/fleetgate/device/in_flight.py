"""Messages at QoS 1 on their way: how many at a time, and which acknowledgement is whose.

A server takes a number of messages that it has not acknowledged yet (MQTT 5 section 4.9, its
Receive Maximum), and packet identifiers are 65535. Libraries built on paho-mqtt know but one number
of their own for all servers, which is far smaller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import paho.mqtt.client as paho

from fleetgate.device.client_state import Answered
from fleetgate.mqtt.packets import Puback

MOST: Final = 0xFFFF
"""Messages in flight, unless the server takes fewer."""


class InFlight:
    """The messages of one connection, on one thread. ``most`` is how many the server takes."""

    def __init__(self) -> None:
        self.most = MOST
        self._acknowledging: dict[int, Answered] = {}
        self._waiting: deque[tuple[Callable[[], int], Answered]] = deque()

    def publish(self, send: Callable[[], int], answered: Answered) -> None:
        """`send`, which returns the packet's identifier, when it is its turn."""
        self._waiting.append((send, answered))
        self.go_on()

    def acknowledge(self, puback: Puback) -> None:
        """The server has answered one; :meth:`go_on` is due when the library knows it as well."""
        answered = self._acknowledging.pop(puback.packet_id, None)
        if answered is not None:
            said = puback.properties.get("reason_string")
            answered(puback.reason_code, str(said) if said else None)

    def go_on(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting and len(self._acknowledging) < self.most:
            send, answered = self._waiting.popleft()
            self._acknowledging[send()] = answered


def send_with_paho(mqtt: paho.Client, topic: str, payload: bytes) -> int:
    """Publish at QoS 1 and return the packet's identifier: the next one that is not in use."""
    while True:
        made = mqtt.publish(topic, payload, 1)
        if made.rc != paho.MQTT_ERR_QUEUE_SIZE:
            return made.mid
