"""Keeping web pages out of what needs no signature: a browser sends requests for any page."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, MutableMapping
from typing import Any

from fleetgate.errors import AccessDeniedException

_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?")

Scope = MutableMapping[str, Any]


def refuse_web_pages(scope: Scope, host_names: Collection[str]) -> None:
    """Raises AccessDeniedException when a browser may have been made to send this.

    Sources: Fetch standard, "`Origin` header"; "Fetch Metadata Request Headers", section 2.4.
    A page that had its own name point to this server (DNS rebinding) is of the same origin,
    but the name is not one of ours: `host_names`, ``localhost``, or an address.
    """
    host = header(scope, b"host").lower()
    if not _is_address(name := _host_name(host)) and name not in (
        "localhost",
        *map(str.lower, host_names),
    ):
        raise AccessDeniedException(
            f"the Host header `{host[:80]}` names neither an IP address nor localhost nor a "
            "host name the server was started with"
        )
    origin = header(scope, b"origin").lower()
    if origin and origin.partition("://")[2] != host:
        raise AccessDeniedException(
            f"the request comes from a web page of another origin, `{origin[:80]}`"
        )
    site = header(scope, b"sec-fetch-site").lower()
    if site not in ("", "none", "same-origin"):
        raise AccessDeniedException(
            f"the request comes from a web page of another site: Sec-Fetch-Site is `{site[:80]}`"
        )


def header(scope: Scope, name: bytes) -> str:
    """The value of a header, "" without it; those of a repeated one in a row."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _host_name(authority: str) -> str:
    """``[::1]:80`` -> ``::1``, ``localhost:80`` -> ``localhost``; "" for what is not a host.

    Source: RFC 3986 section 3.2.
    """
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] or found[2]) if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
