"""Issuing certificates: profiles as data, one function that follows them.

Source of the profiles' content: certificates issued by AWS IoT Core, as published by users.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fleetgate.errors import Error
from fleetgate.pki.strength import PublicKey
from fleetgate.pki.trust import END_OF_TIME, Authority

MAX_SERIAL = (1 << 159) - 1
"""RFC 5280 section 4.1.2.2: a positive number of at most 20 octets, the sign bit included."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of certificate looks like.

    ``subject`` is used where the requester names none. ``backdate`` is how far notBefore lies
    in the past, so that a device whose clock is late accepts its own certificate; ``lifetime``
    counts from now, None means as long as possible.
    """

    subject: x509.Name
    backdate: timedelta
    lifetime: timedelta | None = None
    extended_key_usage: tuple[ObjectIdentifier, ...] = ()


def common_name(text: str) -> x509.Name:
    """The name that consists of the common name `text` (1 to 64 bytes) alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


DEVICE = Profile(common_name("AWS IoT Certificate"), backdate=timedelta(minutes=2))
"""A device's certificate. AWS's subject, because templates and programs look at it."""

CLAIM = Profile(DEVICE.subject, backdate=DEVICE.backdate, lifetime=timedelta(minutes=5))
"""A temporary claim. Source: AWS IoT API Reference, CreateProvisioningClaim (5 minutes)."""

SERVER = Profile(
    common_name("Fleetgate"),
    # A device without a battery-backed clock may be off by hours when it first connects.
    backdate=timedelta(days=1),
    extended_key_usage=(ExtendedKeyUsageOID.SERVER_AUTH,),
)
"""The server's own certificate; its names are in the subjectAltName."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)  # RFC 1123
_NOT_A_CA = x509.BasicConstraints(ca=False, path_length=None)
_SIGNS = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def issue(
    profile: Profile,
    authority: Authority,
    public_key: PublicKey,
    subject: x509.Name | None = None,
    *,
    now: datetime,
    serial: int,
    host_names: Sequence[str] = (),
) -> bytes:
    """A certificate for `public_key`, signed by `authority`, as DER.

    `subject` is copied as it is; None or an empty one gives the profile's. `now` is an aware
    datetime, `serial` a random number from 1 to `MAX_SERIAL`. `host_names` (DNS names and IP
    addresses) become the subjectAltName, in order. The certificate never outlives the
    authority. Raises Error when a host name is neither a DNS name nor an IP address, and
    ValueError when `serial` is out of range.
    """
    if not 0 < serial <= MAX_SERIAL:
        raise ValueError(f"a serial number is from 1 to 2**159 - 1, not {serial}")
    now = now.astimezone(UTC)
    not_after = END_OF_TIME if profile.lifetime is None else now + profile.lifetime
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or profile.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(now - profile.backdate)
        .not_valid_after(min(not_after, authority.not_after))
        .add_extension(authority.key_identifier, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_NOT_A_CA, critical=True)
        .add_extension(_SIGNS, critical=True)
    )
    if profile.extended_key_usage:
        usage = x509.ExtendedKeyUsage(profile.extended_key_usage)
        builder = builder.add_extension(usage, critical=False)
    if host_names:
        names = x509.SubjectAlternativeName([_general_name(each) for each in host_names])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(authority.private_key, hashes.SHA256())
    return certificate.public_bytes(Encoding.DER)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # not an address: a DNS name, or nothing at all
    labels = host.removeprefix("*.").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Error(f"`{host[:80]}` is neither a DNS name nor an IP address")
    return x509.DNSName(host)
