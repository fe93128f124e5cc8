"""Where a device connects to, and what it shows there: explicit, and checked before anything runs.

Every adapter takes the same three things: ``connect(endpoint, credentials, client_id)``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from fleetgate.device.checks import PATH, TEXT_OR_NONE, check
from fleetgate.device.credentials import Path
from fleetgate.device.errors import BadRequest
from fleetgate.mqtt.connection import MAX_PACKET_SIZE
from fleetgate.mqtt.packets import Version

MQTT_ALPN = "x-amzn-mqtt-ca"
"""Source: AWS IoT Core Developer Guide, "Device communication protocols" (MQTT on port 443)."""

KEEP_ALIVE = 60
"""Seconds, unless something else is said."""

_MAX_PORT = 0xFFFF
_MAX_KEEP_ALIVE = 0xFFFF  # MQTT 5 section 3.1.2.10


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked for a tunnel with CONNECT (RFC 9110 section 9.3.6).

    `user` and `password`, if any, are shown to it as HTTP's Basic scheme has it (RFC 7617), in the
    clear: the way to the proxy is not encrypted, and that through it is. Raises BadRequest.
    """

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check_address("proxy", self.host, self.port)
        check("user", self.user, *TEXT_OR_NONE)
        check("password", self.password, *TEXT_OR_NONE, secret=True)
        if self.user is not None and ":" in self.user:
            raise BadRequest(f"the proxy's user {self.user!r} contains a colon (RFC 7617)")
        for what, text in (("user", self.user), ("password", self.password)):
            if text is not None and any(ord(each) < 0x20 or ord(each) == 0x7F for each in text):
                raise BadRequest(f"the proxy's {what} contains a control character (RFC 7617)")
        if self.user is None and self.password is not None:
            raise BadRequest("the proxy's password comes without a user")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An MQTT server, by TLS.

    `ca` is a PEM file with the authorities trusted for the server; None for those of the system,
    among which Debian has Amazon's. `alpn` is the protocol offered in TLS; None for what AWS IoT
    wants on port 443 and nothing elsewhere. `mqtt_version` is 4 for MQTT 3.1.1 and 5 for MQTT 5.
    `keep_alive` and `connect_timeout` are in seconds; the second bounds the TCP connection, the
    TLS handshake and the answer to CONNECT, each, as far as the client's library allows. Looking up
    the name's address is the system's affair and may take longer: paho-mqtt and aiomqtt wait for as
    long as it lasts (resolv.conf(5), ``timeout`` and ``attempts``).
    `max_packet_size` is in bytes: a larger packet from the server ends the connection with an
    error that names both sizes.

    It is not announced to the server as MQTT 5's Maximum Packet Size: the server would have to
    discard what is larger, silently (section 3.1.2.11.4), and nobody would know what is missing.

    Raises BadRequest naming the value that cannot be.
    """

    host: str
    port: int = 8883
    ca: Path | None = None
    alpn: str | None = None
    mqtt_version: Version = 5
    proxy: Proxy | None = None
    keep_alive: int = KEEP_ALIVE
    connect_timeout: float = 10.0
    max_packet_size: int = MAX_PACKET_SIZE

    def __post_init__(self) -> None:
        _check_address("server", self.host, self.port)
        check("ca", self.ca, *PATH, type(None))
        check("alpn", self.alpn, *TEXT_OR_NONE)
        check("proxy", self.proxy, Proxy, type(None))
        for name in ("mqtt_version", "keep_alive", "max_packet_size"):
            check(name, getattr(self, name), int)
        check("connect_timeout", self.connect_timeout, float)
        if self.mqtt_version not in (4, 5):
            raise BadRequest(f"the MQTT version is 4 (for 3.1.1) or 5, not {self.mqtt_version!r}")
        # RFC 7301; Python's TLS takes ASCII
        if self.alpn is not None and not (self.alpn.isascii() and 0 < len(self.alpn) < 256):
            raise BadRequest(f"a protocol for ALPN is ASCII of 1 to 255 bytes, not {self.alpn!r}")
        if not 1 <= self.keep_alive <= _MAX_KEEP_ALIVE:
            raise BadRequest(
                f"keep-alive is 1 to {_MAX_KEEP_ALIVE} seconds, not {self.keep_alive!r}"
            )
        if not 0 < self.connect_timeout < 86400:
            raise BadRequest(
                f"the time-out for connecting is in seconds, more than 0 and less than a day, "
                f"not {self.connect_timeout!r}"
            )
        if self.max_packet_size < 128:
            raise BadRequest(
                f"packets of up to 128 bytes have to be taken, not {self.max_packet_size!r}"
            )

    @property
    def offered_alpn(self) -> str | None:
        """The protocol offered by ALPN (RFC 7301), if any."""
        return self.alpn or (MQTT_ALPN if self.port == 443 else None)

    @property
    def shown(self) -> str:
        """For messages: host, port and the proxy, without any secret."""
        server = f"`{self.host}` port {self.port}"
        if self.proxy is None:
            return server
        return f"{server} through the proxy `{self.proxy.host}` port {self.proxy.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate (with its chain) and its key, unencrypted: PEM files.

    Raises BadRequest for what is no path.
    """

    certificate: Path
    key: Path

    def __post_init__(self) -> None:
        check("certificate", self.certificate, *PATH)
        check("key", self.key, *PATH, secret=True)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key that stays on a PKCS#11 token, and its certificate.

    `module` is the shared library of the token's maker, `token` and `key` are labels on it,
    `pin_file` is a file that holds the user's PIN and nothing else (a line end does not count),
    `certificate` a PEM file. Only the adapter for awscrt can use it: Python's TLS needs the key.
    Raises BadRequest for what is no path, or no label.
    """

    module: Path
    token: str
    key: str
    pin_file: Path
    certificate: Path

    def __post_init__(self) -> None:
        for name in ("module", "pin_file", "certificate"):
            check(name, getattr(self, name), *PATH)
        check("token", self.token, str)
        check("key", self.key, str)


AnyCredentials: TypeAlias = Credentials | TokenKey


def _check_address(what: str, host: str, port: int) -> None:
    check("host", host, str)
    check("port", port, int)
    if (
        not host
        or any(each.isspace() or not each.isprintable() or each in "/@" for each in host)
        or len(host) > 255
    ):
        raise BadRequest(f"{host!r} is no host name or address of a {what}")
    if not 1 <= port <= _MAX_PORT:
        raise BadRequest(f"a {what}'s port is 1 to {_MAX_PORT}, not {port!r}")
