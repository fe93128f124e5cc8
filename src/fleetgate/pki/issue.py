"""Issuing certificates: profiles as data, one function that follows them.

Source of the profiles' content: certificates issued by AWS IoT Core, as published by users.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
    ObjectIdentifier,
)

from fleetgate.errors import Error
from fleetgate.pki.operator_authority import OperatorAuthority, signing_hash
from fleetgate.pki.strength import PublicKey
from fleetgate.pki.trust import END_OF_TIME, Authority

MAX_SERIAL = (1 << 159) - 1
"""RFC 5280 section 4.1.2.2: a positive number of at most 20 octets, the sign bit included."""

SIGNS = x509.KeyUsage(
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
"""The key usage of a key that proves who somebody is."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of certificate looks like.

    ``subject`` is used where the requester names none. ``backdate`` is how far notBefore lies
    in the past, so that a device whose clock is late accepts its own certificate; ``lifetime``
    counts from now, None means as long as possible.

    The rest are extensions of RFC 5280, each left out where it is empty: extended key usage
    (4.2.1.12), the OIDs of certificate policies (4.2.1.4), the address of a CRL (4.2.1.13), of an
    OCSP responder and of the issuer's certificate (4.2.2.1).
    """

    subject: x509.Name
    backdate: timedelta
    lifetime: timedelta | None = None
    extended_key_usage: tuple[ObjectIdentifier, ...] = ()
    key_usage: x509.KeyUsage = field(default=SIGNS)
    policies: tuple[ObjectIdentifier, ...] = ()
    crl_url: str = ""
    ocsp_url: str = ""
    issuer_url: str = ""


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


def issue(
    profile: Profile,
    authority: Authority | OperatorAuthority,
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
    authority, nor does one of an operator's begin before it. The hash of the signature follows the
    authority's key. Raises Error when a host name is neither a DNS name nor an IP address, and
    ValueError when `serial` is out of range.
    """
    if not 0 < serial <= MAX_SERIAL:
        raise ValueError(f"a serial number is from 1 to 2**159 - 1, not {serial}")
    now = now.astimezone(UTC)
    not_before = now - profile.backdate
    if isinstance(authority, OperatorAuthority):
        not_before = max(not_before, authority.not_before)
    not_after = END_OF_TIME if profile.lifetime is None else now + profile.lifetime
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or profile.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(min(not_after, authority.not_after))
        .add_extension(authority.key_identifier, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_NOT_A_CA, critical=True)
        .add_extension(profile.key_usage, critical=True)
    )
    if profile.extended_key_usage:
        usage = x509.ExtendedKeyUsage(profile.extended_key_usage)
        builder = builder.add_extension(usage, critical=False)
    if host_names:
        names = x509.SubjectAlternativeName([_general_name(each) for each in host_names])
        builder = builder.add_extension(names, critical=False)
    for extension in _pointers(profile):
        builder = builder.add_extension(extension, critical=False)
    signature_hash = signing_hash(authority.private_key.public_key())
    certificate = builder.sign(authority.private_key, signature_hash)
    return certificate.public_bytes(Encoding.DER)


def _pointers(profile: Profile) -> Iterator[x509.ExtensionType]:
    """The extensions that say where to find out more."""
    if profile.policies:
        yield x509.CertificatePolicies(
            [x509.PolicyInformation(each, None) for each in profile.policies]
        )
    if profile.crl_url:
        place = [x509.UniformResourceIdentifier(profile.crl_url)]
        yield x509.CRLDistributionPoints([x509.DistributionPoint(place, None, None, None)])
    places = (
        (AuthorityInformationAccessOID.OCSP, profile.ocsp_url),
        (AuthorityInformationAccessOID.CA_ISSUERS, profile.issuer_url),
    )
    descriptions = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, url in places
        if url
    ]
    if descriptions:
        yield x509.AuthorityInformationAccess(descriptions)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # not an address: a DNS name, or nothing at all
    labels = host.removeprefix("*.").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise Error(f"`{host[:80]}` is neither a DNS name nor an IP address")
    return x509.DNSName(host)
