"""Lifecycle events: what the broker says about its clients, to those who subscribe to it.

A client connects, is not let in, goes, subscribes, unsubscribes: each has a topic under
``$aws/events/`` that ends in the client id, and a JSON document. The first half of this module
makes those, the second publishes them. They cannot be switched off; one that nobody subscribes to
is not made. CONNACK, SUBACK and UNSUBACK leave before the event of the same packet: a client that
is told of itself hears of it in order.

Source: AWS IoT developer guide, "Lifecycle events" (members, types, reasons), "Reserved topics".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from fleetgate.mqtt.reasons import Reason

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection
    from fleetgate.operations.identity import Identity

Document = Mapping[str, Any]


class Event(StrEnum):
    """The `eventType` of an event."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    CONNECT_FAILED = "connect_failed"
    SUBSCRIBED = "subscribed"
    UNSUBSCRIBED = "unsubscribed"


class Cause(StrEnum):
    """Why a connection has ended: the `disconnectReason`.

    AWS has more for what is not offered here: API_INITIATED_DISCONNECT, WEBSOCKET_TTL_EXPIRATION,
    CUSTOMAUTH_TTL_EXPIRATION.
    """

    AUTH_ERROR = "AUTH_ERROR"
    CLIENT_ERROR = "CLIENT_ERROR"
    CLIENT_INITIATED_DISCONNECT = "CLIENT_INITIATED_DISCONNECT"
    CONNECTION_LOST = "CONNECTION_LOST"
    DUPLICATE_CLIENTID = "DUPLICATE_CLIENTID"
    FORBIDDEN_ACCESS = "FORBIDDEN_ACCESS"
    MQTT_KEEP_ALIVE_TIMEOUT = "MQTT_KEEP_ALIVE_TIMEOUT"
    SERVER_ERROR = "SERVER_ERROR"
    SERVER_INITIATED_DISCONNECT = "SERVER_INITIATED_DISCONNECT"
    THROTTLED = "THROTTLED"


AUTHORIZATION_FAILED: Final = "AUTHORIZATION_FAILED"
"""The only `connectFailureReason` there is."""

_PREFIXES: Final = {
    Event.CONNECTED: "$aws/events/presence/connected/",
    Event.DISCONNECTED: "$aws/events/presence/disconnected/",
    Event.CONNECT_FAILED: "$aws/events/presence/connect_failed/",
    Event.SUBSCRIBED: "$aws/events/subscriptions/subscribed/",
    Event.UNSUBSCRIBED: "$aws/events/subscriptions/unsubscribed/",
}

_CAUSES: Final[Mapping[int, Cause]] = {
    Reason.UNSPECIFIED_ERROR: Cause.SERVER_ERROR,
    Reason.IMPLEMENTATION_SPECIFIC_ERROR: Cause.SERVER_ERROR,
    # The certificate of a client that is connected may be used no more.
    Reason.NOT_AUTHORIZED: Cause.FORBIDDEN_ACCESS,
    Reason.SERVER_UNAVAILABLE: Cause.SERVER_ERROR,
    Reason.SERVER_BUSY: Cause.SERVER_ERROR,
    Reason.BANNED: Cause.FORBIDDEN_ACCESS,
    Reason.SERVER_SHUTTING_DOWN: Cause.SERVER_INITIATED_DISCONNECT,
    Reason.KEEP_ALIVE_TIMEOUT: Cause.MQTT_KEEP_ALIVE_TIMEOUT,
    Reason.SESSION_TAKEN_OVER: Cause.DUPLICATE_CLIENTID,
    Reason.MESSAGE_RATE_TOO_HIGH: Cause.THROTTLED,
    Reason.QUOTA_EXCEEDED: Cause.THROTTLED,
    Reason.ADMINISTRATIVE_ACTION: Cause.SERVER_INITIATED_DISCONNECT,
    Reason.USE_ANOTHER_SERVER: Cause.SERVER_INITIATED_DISCONNECT,
    Reason.SERVER_MOVED: Cause.SERVER_INITIATED_DISCONNECT,
    Reason.CONNECTION_RATE_EXCEEDED: Cause.THROTTLED,
    Reason.MAXIMUM_CONNECT_TIME: Cause.SERVER_INITIATED_DISCONNECT,
}
"""What is not here is a mistake of the client."""


@dataclass(frozen=True, slots=True)
class Client:
    """Whom an event is about.

    `session_identifier` names the connection. `thing_name` is the thing that the certificate is
    attached to exclusively, None when there is none.
    """

    client_id: str
    thing_name: str | None
    session_identifier: str
    certificate_id: str


def topic_of(event: Event, client_id: str) -> str | None:
    """Where `event` of `client_id` is published; None when such a client has no events.

    A client id with a wildcard is no part of a topic.
    """
    if "+" in client_id or "#" in client_id:
        return None
    return _PREFIXES[event] + client_id


def cause_of(reason: int) -> Cause:
    """Why a connection has ended that the server ended for `reason` (MQTT 5.0 section 2.4)."""
    return _CAUSES.get(reason, Cause.CLIENT_ERROR)


def connected(client: Client, milliseconds: int, address: str, version: int) -> Document:
    """`client` has connected from the IP address `address`, at `milliseconds` since the epoch.

    `version` is the number of the connection among those of the client id.
    """
    return {
        **_head(Event.CONNECTED, client, milliseconds),
        "sessionIdentifier": client.session_identifier,
        "principalIdentifier": client.certificate_id,
        "ipAddress": address,
        "versionNumber": version,
    }


def disconnected(client: Client, milliseconds: int, cause: Cause, version: int) -> Document:
    """The connection `version` of `client` has ended."""
    return {
        **_head(Event.DISCONNECTED, client, milliseconds),
        "sessionIdentifier": client.session_identifier,
        "principalIdentifier": client.certificate_id,
        "clientInitiatedDisconnect": cause is Cause.CLIENT_INITIATED_DISCONNECT,
        "disconnectReason": cause.value,
        "versionNumber": version,
    }


def connect_failed(client: Client, milliseconds: int, address: str) -> Document:
    """The policies of `client` have not let it connect from the IP address `address`."""
    return {
        **_head(Event.CONNECT_FAILED, client, milliseconds),
        "connectFailureReason": AUTHORIZATION_FAILED,
        "principalIdentifier": client.certificate_id,
        "sessionIdentifier": client.session_identifier,
        "ipAddress": address,
    }


def subscriptions(
    event: Event, client: Client, milliseconds: int, topic_filters: Sequence[str]
) -> Document:
    """`client` has subscribed to these filters, or unsubscribed from them, by one packet."""
    return {
        **_head(event, client, milliseconds),
        "sessionIdentifier": client.session_identifier,
        "principalIdentifier": client.certificate_id,
        "topics": list(topic_filters),
    }


def _head(event: Event, client: Client, milliseconds: int) -> dict[str, Any]:
    head: dict[str, Any] = {"clientId": client.client_id}
    if client.thing_name is not None:
        head["thingName"] = client.thing_name
    return head | {"timestamp": milliseconds, "eventType": event.value}


# --- publishing ---------------------------------------------------------------------------------


def tell_connected(connection: MqttConnection) -> None:
    """CONNECT has been accepted."""
    if (topic := _wanted(Event.CONNECTED, connection)) is not None:
        client, now = _client(connection), _milliseconds(connection)
        _publish(
            connection, topic, connected(client, now, connection.tls.address, _version(connection))
        )


def tell_disconnected(connection: MqttConnection, cause: Cause) -> None:
    """An accepted connection has ended."""
    if (topic := _wanted(Event.DISCONNECTED, connection)) is not None:
        client, now = _client(connection), _milliseconds(connection)
        _publish(connection, topic, disconnected(client, now, cause, _version(connection)))


def tell_connect_failed(connection: MqttConnection, identity: Identity) -> None:
    """CONNECT has been refused by the policies of `identity`."""
    if (topic := _wanted(Event.CONNECT_FAILED, connection)) is not None:
        client, now = _client(connection, identity), _milliseconds(connection)
        _publish(connection, topic, connect_failed(client, now, connection.tls.address))


def tell_subscriptions(
    event: Event, connection: MqttConnection, topic_filters: Sequence[str]
) -> None:
    """A SUBSCRIBE or UNSUBSCRIBE has been carried out, as far as these filters go."""
    if topic_filters and (topic := _wanted(event, connection)) is not None:
        client, now = _client(connection), _milliseconds(connection)
        _publish(connection, topic, subscriptions(event, client, now, topic_filters))


def _wanted(event: Event, connection: MqttConnection) -> str | None:
    """The topic of an event that somebody subscribes to."""
    topic = topic_of(event, connection.client_id)
    return topic if topic is not None and connection.router.wanted(topic) else None


def _client(connection: MqttConnection, identity: Identity | None = None) -> Client:
    identity = identity or connection.rights.identity
    return Client(
        connection.client_id,
        identity.exclusive_thing,
        connection.session_identifier,
        connection.certificate_id,
    )


def _version(connection: MqttConnection) -> int:
    session = connection.session
    assert session is not None  # noqa: S101  # there is one from CONNACK on
    return session.version


def _milliseconds(connection: MqttConnection) -> int:
    return int(connection.services.wall() * 1000)


def _publish(connection: MqttConnection, topic: str, document: Document) -> None:
    payload = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    now = connection.services.clock()
    connection.router.publish(topic, payload, 1, {}, publisher="", now=now)
