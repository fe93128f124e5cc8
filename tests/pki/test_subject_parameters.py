"""What a just-in-time provisioning template learns of a certificate's subject.

Sources: AWS IoT Developer Guide, "Just-in-time provisioning" (the names); RFC 2253 section 2.4 and
its examples in section 5 (escaping); an answer of AWS quoted at security.stackexchange.com,
question 272476, for the common name ``testThingC=US``.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.pki.subject_parameters import PREFIX, escaped, subject_parameters

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERIAL = 4711


def certificate(*attributes: x509.NameAttribute[Any]) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(SERIAL)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def parameters(*attributes: x509.NameAttribute[Any]) -> dict[str, str]:
    """Those of the subject, under their short names."""
    found = subject_parameters(certificate(*attributes))
    assert all(name.startswith(PREFIX) for name in found)
    return {name.removeprefix(PREFIX): value for name, value in found.items() if "Id" not in name}


ROWS = [
    (NameOID.COUNTRY_NAME, "Country", "CH"),
    (NameOID.ORGANIZATION_NAME, "Organization", "Lamps"),
    (NameOID.ORGANIZATIONAL_UNIT_NAME, "OrganizationalUnit", "Bulbs"),
    (NameOID.DN_QUALIFIER, "DistinguishedNameQualifier", "q"),
    (NameOID.STATE_OR_PROVINCE_NAME, "StateName", "Basel"),
    (NameOID.COMMON_NAME, "CommonName", "lamp-1"),
    (NameOID.SERIAL_NUMBER, "SerialNumber", "S-1"),
]


@pytest.mark.parametrize(("oid", "name", "value"), ROWS, ids=[row[1] for row in ROWS])
def test_every_attribute_has_its_parameter(
    oid: x509.ObjectIdentifier, name: str, value: str
) -> None:
    assert parameters(x509.NameAttribute(oid, value)) == {name: value}


def test_all_of_them_and_the_id() -> None:
    der = certificate(*(x509.NameAttribute(oid, value) for oid, _, value in ROWS))
    expected = {f"AWS::IoT::Certificate::{name}": value for _, name, value in ROWS}
    expected["AWS::IoT::Certificate::Id"] = hashlib.sha256(der).hexdigest()
    assert subject_parameters(der) == expected


def test_what_the_subject_does_not_have_is_not_there() -> None:
    """Neither is the serial number of the certificate a SerialNumber, nor the locality a state."""
    der = certificate()
    assert subject_parameters(der) == {f"{PREFIX}Id": hashlib.sha256(der).hexdigest()}
    others = (NameOID.LOCALITY_NAME, NameOID.EMAIL_ADDRESS, NameOID.USER_ID, NameOID.TITLE)
    assert parameters(*(x509.NameAttribute(oid, "x") for oid in others)) == {}


def test_of_several_values_the_first_counts() -> None:
    units = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, each) for each in "abc"]
    assert parameters(*units) == {"OrganizationalUnit": "a"}


def test_values_that_are_no_text_are_left_out() -> None:
    bits = x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"\x00\x01", _ASN1Type.BitString)
    assert parameters(bits, x509.NameAttribute(NameOID.COMMON_NAME, "lamp")) == {
        "CommonName": "lamp"
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("lamp-1", "lamp-1"),
        ("a=b", r"a\=b"),
        ("testThingC=US", r"testThingC\=US"),
        ("Sue, Grabbit and Runn", r"Sue\, Grabbit and Runn"),
        ('L. "Eagle"', r"L. \"Eagle\""),
        (r"a\b", r"a\\b"),
        ("a+b<c>d;e", r"a\+b\<c\>d\;e"),
        ("#1", r"\#1"),
        ("1#", "1#"),
        (" a b ", r"\ a b\ "),
        ("Lučić", "Lučić"),
        ("a\\", r"a\\"),
        (" ", r"\ "),
        ("  ", r"\ \ "),
    ],
)
def test_values_are_escaped(value: str, expected: str) -> None:
    assert escaped(value) == expected
    if value.strip():
        found = parameters(x509.NameAttribute(NameOID.COMMON_NAME, value))
        assert found == {"CommonName": expected}


@given(st.text(min_size=1, max_size=20))
def test_an_escaped_value_is_one_value_and_can_be_read_back(value: str) -> None:
    """Nothing in it ends the value where a distinguished name is written down (RFC 2253)."""
    written = escaped(value)
    assert re.sub(r"\\(.)", r"\1", written, flags=re.DOTALL) == value
    assert not re.search(r'(?<!\\)(\\\\)*[,+"<>;=]', written)
    assert not written.startswith(("#", " "))


def test_what_is_no_certificate_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="parsing"):
        subject_parameters(b"0\x03\x02\x01\x01")
