"""Which IP addresses the server may call: public ones, and what the operator names.

An address out of the special purpose registries of IANA belongs to the machine, to its network or
to nobody: a name that leads there would make the server ask its own neighbours on behalf of
whoever controls the name. Python's own `is_global` is not asked, since its tables change with the
release.

An address that stands for an IPv4 address (mapped, 6to4, NAT64) is judged as that one. The
addresses at which clouds give out credentials are reachable only when one is named by itself: a
network round it does not open it.

Sources: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), IANA IPv6 address space
(RFC 4291 section 2.4), RFC 4291 section 2.5.5, RFC 3056, RFC 4380, RFC 6052.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = {
    "169.254.169.254": "instance metadata of AWS, Azure, Google and others",
    "169.254.170.2": "credentials of Amazon ECS tasks",
    "169.254.170.23": "credentials of Amazon EKS pods",
    "168.63.129.16": "Azure's platform services",
    "100.100.100.200": "instance metadata of Alibaba Cloud",
    "192.0.0.192": "instance metadata of Oracle Cloud",
    "fd00:ec2::254": "instance metadata of AWS",
    "fd00:ec2::23": "credentials of Amazon EKS pods",
    "fd20:ce::254": "instance metadata of Google Cloud",
}
"""Addresses that give credentials to whoever asks from the machine."""

_SPECIAL = [
    (ipaddress.ip_network(network), rule)
    for network, rule in {
        "0.0.0.0/8": "unspecified, this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared address space of carriers (CGNAT)",
        "127.0.0.0/8": "loopback",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "IETF protocol assignments",
        "192.0.2.0/24": "documentation",
        "192.31.196.0/24": "AS112",
        "192.52.193.0/24": "AMT",
        "192.88.99.0/24": "6to4 relays",
        "192.168.0.0/16": "private",
        "192.175.48.0/24": "AS112",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
        "::/128": "unspecified",
        "::1/128": "loopback",
        "2001::/32": "Teredo",
        "2001::/23": "IETF protocol assignments",
        "2001:db8::/32": "documentation",
        "2620:4f:8000::/48": "AS112",
        "3fff::/20": "documentation",
        "fc00::/7": "private (unique local)",
        "fe80::/10": "link-local",
        "fec0::/10": "private (site-local)",
        "ff00::/8": "multicast",
    }.items()
]
_GLOBAL = ipaddress.IPv6Network("2000::/3")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_METADATA = {ipaddress.ip_address(address): owner for address, owner in METADATA.items()}


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks and single addresses in their text form. Raises ValueError, naming the text."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def refusal(text: str, allowed: Iterable[Network]) -> str:
    """Why an IP address may not be called, e.g. ``loopback``; "" when it may.

    `allowed` are the networks the operator named. Raises ValueError for what is no address.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, IPv6Address):
        address = IPv6Address(int(address))  # without the zone of a link-local address
    meant = _stands_for(address)
    named = [network for network in allowed for each in {address, meant} if each in network]
    if owner := _METADATA.get(meant):
        alone = any(network.num_addresses == 1 for network in named)
        return "" if alone else f"{owner}; it can be allowed only by itself, not by a network"
    return "" if named else _rule(meant)


def _stands_for(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv6 address, where there is one; else the address."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in (_MAPPED, _NAT64)):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _COMPATIBLE and int(address) > 1:
        return IPv4Address(int(address))
    if address in _SIX_TO_FOUR:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return address


def _rule(address: IPv4Address | IPv6Address) -> str:
    for network, rule in _SPECIAL:
        if address in network:
            return f"{rule}, {network}"
    if isinstance(address, IPv6Address) and address not in _GLOBAL:
        return f"reserved, outside {_GLOBAL}"
    return ""
