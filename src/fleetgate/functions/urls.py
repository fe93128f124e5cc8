"""URLs of servers that are called."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Url:
    """An ``https`` URL in its parts; `target` is path and query."""

    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"

    def __str__(self) -> str:
        """The URL without its query, fit to be shown."""
        return f"https://{self.authority}{self.target.partition('?')[0]}"


def parse_url(text: str) -> Url:
    """Takes an ``https`` URL apart. Raises ValueError; its message does not show the URL."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("printable ASCII is expected, international names as xn--...")
    parts = urlsplit(text)
    if parts.scheme != "https":
        raise ValueError("https://HOST[:PORT]/PATH is expected")
    if "@" in parts.netloc:
        raise ValueError("a user name or password in the URL is not taken")
    if "#" in text:
        raise ValueError("a fragment (#...) in the URL is not taken")
    host = (parts.hostname or "").removesuffix(".")
    if ":" in host:
        if "%" in host:
            raise ValueError("an IPv6 address with a zone is not taken")
        host = str(ipaddress.IPv6Address(host))
    elif not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", host):
        raise ValueError("the URL has no host, or none that is a DNS name or an IP address")
    port = 443 if parts.port is None else parts.port
    if not 1 <= port <= 65535:
        raise ValueError("the port has to be from 1 to 65535")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(host, port, target)
