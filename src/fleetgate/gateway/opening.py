"""What a CONNECT must look like, and what the server grants in return: pure functions.

Sources: AWS IoT Core quotas ("Message broker and protocol limits"), AWS IoT developer guide
("MQTT", "MQTT 5"), MQTT 5.0 sections 3.1 and 3.2, MQTT 3.1.1 section 3.2.2.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleetgate.domain.policy import PUBLISH, RETAIN_PUBLISH, Values
from fleetgate.errors import ProtocolError
from fleetgate.gateway.services import MAX_PACKET, WINDOW
from fleetgate.mqtt.packets import Connack, Connect, Properties, Version, Will
from fleetgate.mqtt.reasons import CONNACK_CODES, ConnectReturnCode, Reason
from fleetgate.mqtt.topics import check_topic
from fleetgate.names import Account

CONNECT_DENIED_RETURN_CODE: Final = ConnectReturnCode.NOT_AUTHORIZED
"""The 3.1.1 answer to a CONNECT that no policy allows. AWS's guide said 7 until 2023, a number
that MQTT 3.1.1 does not have; now it says nothing, and this is what the standard says."""

_RETURN_CODES: Final = {
    Reason.UNSUPPORTED_PROTOCOL_VERSION: ConnectReturnCode.UNACCEPTABLE_PROTOCOL_VERSION,
    Reason.CLIENT_IDENTIFIER_NOT_VALID: ConnectReturnCode.IDENTIFIER_REJECTED,
    Reason.UNSPECIFIED_ERROR: ConnectReturnCode.SERVER_UNAVAILABLE,
    Reason.SERVER_UNAVAILABLE: ConnectReturnCode.SERVER_UNAVAILABLE,
    Reason.SERVER_SHUTTING_DOWN: ConnectReturnCode.SERVER_UNAVAILABLE,
    Reason.ADMINISTRATIVE_ACTION: ConnectReturnCode.SERVER_UNAVAILABLE,
    Reason.QUOTA_EXCEEDED: ConnectReturnCode.SERVER_UNAVAILABLE,
}

_MAX_CLIENT_ID: Final = 128  # bytes
_MIN_PACKET: Final = 512  # what a client has to take
_KEEP_ALIVE: Final = (30, 1200)
_PERSISTENT_SESSION: Final = 3600  # seconds, 3.1.1
_MAX_SESSION_EXPIRY: Final = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for an accepted connection: seconds, and the properties of CONNACK."""

    client_id: str
    keep_alive: int
    expiry_interval: int
    properties: Properties


def check(connect: Connect) -> None:
    """Raises ProtocolError, whose reason is that of CONNACK, when `connect` is refused as it is.

    What is not offered is refused, never ignored.
    """
    client_id = connect.client_id
    if len(client_id.encode()) > _MAX_CLIENT_ID:
        raise ProtocolError(
            Reason.CLIENT_IDENTIFIER_NOT_VALID,
            f"the client id is longer than {_MAX_CLIENT_ID} bytes",
        )
    if client_id.startswith("$"):
        raise ProtocolError(
            Reason.CLIENT_IDENTIFIER_NOT_VALID, f"the client id `{client_id}` begins with `$`"
        )
    if not client_id and connect.version == 4 and not connect.clean_start:
        raise ProtocolError(
            Reason.CLIENT_IDENTIFIER_NOT_VALID,
            "an empty client id needs clean session 1 (3.1.1 section 3.1.3.1)",
        )
    if "authentication_method" in connect.properties:
        raise ProtocolError(
            Reason.BAD_AUTHENTICATION_METHOD, "enhanced authentication is not offered"
        )
    limit = connect.properties.get("maximum_packet_size", _MIN_PACKET)
    if limit < _MIN_PACKET:
        raise ProtocolError(
            Reason.PACKET_TOO_LARGE,
            f"a maximum packet size of {limit} bytes, less than {_MIN_PACKET}",
        )
    if connect.will is not None:
        _check_will(connect.will)


def _check_will(will: Will) -> None:
    if will.qos > 1:
        raise ProtocolError(Reason.QOS_NOT_SUPPORTED, f"the will has QoS {will.qos}")
    if will.retain:
        raise ProtocolError(Reason.RETAIN_NOT_SUPPORTED, "the will is to be retained")
    check_topic(will.topic)
    if will.topic.startswith("$"):
        raise ProtocolError(
            Reason.TOPIC_NAME_INVALID, f"the topic `{will.topic}` of the will is reserved"
        )


def connect_values(connect: Connect, account: Account) -> Values:
    """What policies can ask of a CONNECT: the features it uses, and the topic of its will.

    Source: AWS IoT developer guide, "Connect policy examples" and "Using connectAttributes".
    """
    persistent = not connect.clean_start or connect.properties.get("session_expiry_interval", 0)
    features = ("PersistentConnect",) if persistent else ()
    if connect.will is None:
        return {"iot:ConnectAttributes": features}
    return {
        "iot:ConnectAttributes": (*features, "LastWill"),
        "iot:LastWillTopic": (account.arn("topic/" + connect.will.topic),),
    }


def will_actions(will: Will) -> tuple[str, ...]:
    """What a client has to be allowed on the topic of its will."""
    return (PUBLISH, RETAIN_PUBLISH) if will.retain else (PUBLISH,)


def terms(connect: Connect, assigned_id: str, *, persistent: bool = True) -> Terms:
    """What the server grants. `assigned_id` is the client id for a client that brings none.

    Without `persistent` the session ends with the connection.
    """
    keep_alive = _keep_alive(connect.keep_alive)
    client_id = connect.client_id or assigned_id
    if connect.version == 4:
        expiry = _PERSISTENT_SESSION if persistent and not connect.clean_start else 0
        return Terms(client_id, keep_alive, expiry, {})
    asked = connect.properties.get("session_expiry_interval", 0)
    expiry = cap_expiry(asked) if persistent else 0
    properties: Properties = {
        "receive_maximum": WINDOW,
        "maximum_qos": 1,
        "retain_available": 0,
        "maximum_packet_size": MAX_PACKET,
        "wildcard_subscription_available": 1,
        "subscription_identifier_available": 0,
        "shared_subscription_available": 0,
    }
    if expiry != asked:
        properties["session_expiry_interval"] = expiry
    if keep_alive != connect.keep_alive:
        properties["server_keep_alive"] = keep_alive
    if not connect.client_id:
        properties["assigned_client_identifier"] = client_id
    return Terms(client_id, keep_alive, expiry, properties)


def cap_expiry(seconds: int) -> int:
    """The session expiry interval granted for the one asked for."""
    return min(seconds, _MAX_SESSION_EXPIRY)


def _keep_alive(seconds: int) -> int:
    low, high = _KEEP_ALIVE
    return high if seconds == 0 or seconds > high else max(seconds, low)


def refusal(version: Version, reason: int, message: str) -> Connack:
    """The CONNACK that says no."""
    if version == 4:
        code = next((code for key, code in _RETURN_CODES.items() if key == reason), None)
        return Connack(False, CONNECT_DENIED_RETURN_CODE if code is None else code)
    if reason not in CONNACK_CODES:
        reason = Reason.SERVER_UNAVAILABLE
    return Connack(False, reason, {"reason_string": message[:500]})
