"""The names that a client may ask for in the TLS handshake (server name indication).

AWS IoT ends the handshake when the name is not that of an endpoint (AWS IoT Developer Guide,
"Transport security in AWS IoT Core"). A client that says no name is served.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


def is_address(name: str) -> bool:
    """Is that an IP address?"""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def told(name: bytes | None) -> str:
    """The name a client sent as it is compared: lower case, no dot at the end; empty: none."""
    return name.decode("ascii", "replace").lower().removesuffix(".") if name else ""


class ServerNames:
    """The names of the server: DNS names, a wildcard for the first label too, and addresses."""

    __slots__ = ("_names",)

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower().removesuffix(".") for name in names)

    def __contains__(self, name: str) -> bool:
        """Is `name`, as `told` gives it, one of them?"""
        return name in self._names or f"*.{name.partition('.')[2]}" in self._names

    def refuses(self, name: str) -> bool:
        """Does a client that asks for `name` want another server?

        An address is no such name (RFC 6066 section 3). Some clients send the one they connect to
        all the same, and a server does not know all the addresses that lead to it.
        """
        return bool(name) and name not in self and not is_address(name)
