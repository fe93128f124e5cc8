"""How connections of paho-mqtt end, in words; paho-mqtt itself tells next to nothing of it."""

from __future__ import annotations

import time
from typing import Any, Final

from fleetgate.device import client_state
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import ConnectionFailed, ConnectionLost, PacketTooLarge
from fleetgate.device.mqtt_socket import Watch

_PING_AFTER: Final = 0.75  # of the keep-alive time; the rest is for who looks now and then only


def ping_seconds(watch: Watch, endpoint: Endpoint) -> float:
    """When a ping is due, and how long its answer may take; 0 is for no pings."""
    return _PING_AFTER * watch.agreed("server_keep_alive", endpoint.keep_alive)  # 3.2.2.3.14


def why_failed(error: Exception) -> str:
    """What it means that paho-mqtt has raised `error` of itself."""
    if isinstance(error, UnicodeDecodeError):
        return f"the server broke the MQTT protocol (a text that is not UTF-8: {error.reason})"
    return f"paho-mqtt failed ({type(error).__name__}: {error})"


def how_it_ended(
    watch: Watch,
    client_id: str,
    endpoint: Endpoint,
    why: str | None = None,
    mqtt: Any = None,
) -> str:
    """Why a connection of paho-mqtt ended; `why` is what is known besides what the server said.

    `mqtt` is paho-mqtt's client, which knows since when a ping has had no answer. It closes its
    socket for that, and for a packet that it does not understand.
    """
    if watch.too_large is not None:
        return client_state.too_large(watch.too_large, watch.max_packet_size)
    if watch.disconnect is not None:
        return client_state.disconnected(watch.disconnect, client_id)
    if why is not None:
        return why
    if watch.ended is not None:
        return watch.ended
    if watch.connack is None:
        return "the server did not answer with MQTT"
    seconds = ping_seconds(watch, endpoint)
    pinged = getattr(mqtt, "_ping_t", 0.0)  # 0 is for no ping, or one that was answered
    if seconds and pinged and time.monotonic() - pinged >= seconds:
        return f"the server did not answer a ping within {seconds:g} s"
    return "the server broke the MQTT protocol"


def kind_of_end(watch: Watch) -> type[ConnectionLost]:
    """What everybody gets who waits when a connection of paho-mqtt ends."""
    return ConnectionLost if watch.too_large is None else PacketTooLarge


def failed_opening(watch: Watch, endpoint: Endpoint, client_id: str, why: str) -> ConnectionFailed:
    """Why a connection of paho-mqtt ended before it was one."""
    if watch.connack is not None and watch.connack.reason_code:
        return client_state.refused(endpoint, client_id, watch.connack)
    return client_state.closed_instead(endpoint, client_id, why)
