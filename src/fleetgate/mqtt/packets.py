"""The fifteen MQTT control packets as values, for 3.1.1 and 5.0 alike.

``properties`` maps the MQTT 5 property names in snake case to their values (see
:mod:`fleetgate.mqtt.properties`); ``user_property`` is a list of ``(name, value)`` pairs and, on
a PUBLISH, ``subscription_identifier`` a list of integers. MQTT 3.1.1 has no properties: they are
empty on packets received and left out of packets sent, and so are the reason codes which that
version does not know.

The packets are not frozen: one is made for every message, and a frozen dataclass takes three
times as long to build. Payloads and passwords stay out of ``repr``: they may be secrets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

Version: TypeAlias = Literal[4, 5]
"""The protocol level in CONNECT: 4 is MQTT 3.1.1, 5 is MQTT 5.0 (section 3.1.2.2 of both)."""

Properties: TypeAlias = dict[str, Any]


@dataclass(slots=True)
class Will:
    """The message the server publishes when the connection is lost (section 3.1.2.5)."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Connect:
    """Section 3.1. ``clean_start`` is the clean session flag of 3.1.1; ``keep_alive`` seconds."""

    code: ClassVar[int] = 1

    client_id: str
    clean_start: bool = True
    keep_alive: int = 60
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    will: Will | None = None
    version: Version = 4
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Connack:
    """Section 3.2. In 3.1.1 ``reason_code`` is the return code (0 to 5)."""

    code: ClassVar[int] = 2

    session_present: bool = False
    reason_code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Publish:
    """Section 3.3. ``packet_id`` is None at QoS 0 and 1..65535 above."""

    code: ClassVar[int] = 3

    topic: str
    payload: bytes = field(default=b"", repr=False)
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Puback:
    """Section 3.4."""

    code: ClassVar[int] = 4

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Pubrec:
    """Section 3.5."""

    code: ClassVar[int] = 5

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Pubrel:
    """Section 3.6."""

    code: ClassVar[int] = 6

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Pubcomp:
    """Section 3.7."""

    code: ClassVar[int] = 7

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subscription:
    """One topic filter of a SUBSCRIBE with its options (section 3.8.3; 3.1.1 has only QoS)."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(slots=True)
class Subscribe:
    """Section 3.8."""

    code: ClassVar[int] = 8

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Suback:
    """Section 3.9. One reason code for each subscription; 3.1.1 knows 0, 1, 2 and 0x80."""

    code: ClassVar[int] = 9

    packet_id: int
    reason_codes: tuple[int, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Unsubscribe:
    """Section 3.10."""

    code: ClassVar[int] = 10

    packet_id: int
    topic_filters: tuple[str, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Unsuback:
    """Section 3.11. One reason code for each topic filter; none in 3.1.1."""

    code: ClassVar[int] = 11

    packet_id: int
    reason_codes: tuple[int, ...] = ()
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Pingreq:
    """Section 3.12."""

    code: ClassVar[int] = 12


@dataclass(slots=True)
class Pingresp:
    """Section 3.13."""

    code: ClassVar[int] = 13


@dataclass(slots=True)
class Disconnect:
    """Section 3.14. Only a client sends it in 3.1.1."""

    code: ClassVar[int] = 14

    reason_code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Auth:
    """MQTT 5.0 section 3.15; 3.1.1 does not have it."""

    code: ClassVar[int] = 15

    reason_code: int = 0
    properties: Properties = field(default_factory=dict)


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
