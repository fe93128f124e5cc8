"""Addresses that are called and those that are not."""

from __future__ import annotations

import pytest

from fleetgate.functions.addresses import METADATA, networks, refusal

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "64:ff9b::808:808",  # NAT64 of 8.8.8.8: how an IPv6-only network reaches it
    "::ffff:8.8.8.8",
    "2002:808:808::1",
]
REFUSED = {
    # IANA IPv4 Special-Purpose Address Registry
    "0.0.0.0": "unspecified",  # noqa: S104 - compared, not bound
    "0.1.2.3": "unspecified",
    "10.0.0.0": "private",
    "10.255.255.255": "private",
    "100.64.0.0": "CGNAT",
    "100.127.255.255": "CGNAT",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.0.1": "link-local",
    "172.16.0.0": "private",
    "172.31.255.255": "private",
    "192.0.0.1": "IETF",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.0.1": "private",
    "198.18.0.1": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    # IANA IPv6 Special-Purpose Address Registry; RFC 4291 section 2.4
    "::": "unspecified",
    "::1": "loopback",
    "64:ff9b:1::1": "reserved",
    "100::1": "reserved",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",  # RFC 4380 section 4
    "2001:10::1": "IETF",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "4000::1": "reserved",
    "5f00::1": "reserved",
    "fc00::1": "private",
    "fdff::1": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    # IPv4 addresses inside IPv6 addresses
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.1.2.3": "private",
    "::127.0.0.1": "loopback",
    "::a00:1": "private",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b::7f00:1": "loopback",
    "2002:7f00:1::": "loopback",
    "2002:c0a8:101::1": "private",
    "2002:a9fe:a9fe::1": "metadata",
    "::ffff:169.254.169.254": "metadata",
    "64:ff9b::a9fe:a9fe": "metadata",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_called(address: str) -> None:
    assert refusal(address, ()) == ""


@pytest.mark.parametrize(("address", "rule"), REFUSED.items())
def test_others_are_not_and_the_rule_is_named(address: str, rule: str) -> None:
    assert rule in refusal(address, ())


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1/128"),
        ("fd12::1", "fd12::/16"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("64:ff9b::10.1.2.3", "10.0.0.0/8"),
        ("64:ff9b:1::1", "64:ff9b:1::/48"),
        ("fe80::1%eth0", "fe80::/10"),
    ],
)
def test_a_network_that_is_named_is_called(address: str, allowed: str) -> None:
    assert refusal(address, networks([allowed])) == ""
    assert refusal(address, networks(["172.16.0.0/12", "2001:db8::/32"]))


@pytest.mark.parametrize("address", [*METADATA, "::ffff:169.254.169.254", "2002:a9fe:a9fe::1"])
def test_metadata_is_called_only_when_it_is_named_by_itself(address: str) -> None:
    wide = networks(["0.0.0.0/0", "::/0", "169.254.0.0/16", "fd00::/8"])
    assert "only by itself" in refusal(address, wide)
    assert refusal(address, networks([address])) == ""


def test_what_is_no_network_is_named() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8 has host bits set"):
        networks(["10.0.0.1/8"])
