"""What policies can ask of a certificate.

The certificate of the first test is the example of the AWS IoT Developer Guide, "Using X.509
certificate policy variables", with the values that page lists.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.pki.certificate_values import certificate_values

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "CN": NameOID.COMMON_NAME,
    "GN": NameOID.GIVEN_NAME,
    "initials": NameOID.INITIALS,
    "dnQualifier": NameOID.DN_QUALIFIER,
    "SN": NameOID.SURNAME,
    "title": NameOID.TITLE,
    "pseudonym": NameOID.PSEUDONYM,
    "generationQualifier": NameOID.GENERATION_QUALIFIER,
    "serialNumber": NameOID.SERIAL_NUMBER,
}


def name(*attributes: tuple[str, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(OIDS[short], value) for short, value in attributes])


def certificate(
    subject: x509.Name,
    issuer: x509.Name | None = None,
    *extensions: x509.ExtensionType,
    serial: int = 1,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def test_the_example_of_the_guide() -> None:
    der = certificate(
        name(
            *(("C", "US"), ("O", "IoT Devices"), ("OU", "LightBulb"), ("ST", "NY")),
            *(("CN", "LightBulb Device Cert"), ("GN", "Bulb"), ("initials", "ZZ")),
            *(("dnQualifier", "Bulb001"), ("SN", "Multi Color"), ("title", "RGB")),
            *(("pseudonym", "RGB Device"), ("generationQualifier", "4"), ("serialNumber", "123")),
        ),
        name(
            *(("C", "US"), ("O", "IoT Devices"), ("OU", "SmartHome"), ("ST", "WA")),
            *(("CN", "IoT Devices Primary CA"), ("GN", "Primary CA1"), ("initials", "XY")),
            *(("dnQualifier", "Example corp"), ("SN", "SmartHome"), ("title", "CA1")),
            *(("pseudonym", "Primary_CA"), ("generationQualifier", "2"), ("serialNumber", "987")),
        ),
        x509.SubjectAlternativeName(
            [
                x509.DNSName("example.com"),
                x509.IPAddress(ip_address("1.2.3.4")),
                x509.UniformResourceIdentifier("ResourceIdentifier001"),
                x509.RFC822Name("device1@example.com"),
                x509.DirectoryName(
                    name(("C", "US"), ("O", "IoT"), ("OU", "SmartHome"), ("CN", "LightBulbCert"))
                ),
            ]
        ),
        x509.IssuerAlternativeName(
            [
                x509.DNSName("issuer.com"),
                x509.IPAddress(ip_address("5.6.7.8")),
                x509.UniformResourceIdentifier("PrimarySignerCA"),
                x509.RFC822Name("primary@issuer.com"),
                x509.DirectoryName(
                    name(
                        *(("C", "US"), ("O", "Issuer"), ("OU", "IoT Devices")),
                        ("CN", "Primary Issuer CA"),
                    )
                ),
            ]
        ),
        serial=0x921285CBB7A5E086,
    )
    expected = {
        "SerialNumber": "10525622389124227206",
        "Issuer.Country": "US",
        "Issuer.Organization": "IoT Devices",
        "Issuer.OrganizationalUnit": "SmartHome",
        "Issuer.State": "WA",
        "Issuer.CommonName": "IoT Devices Primary CA",
        "Issuer.GivenName": "Primary CA1",
        "Issuer.Initials": "XY",
        "Issuer.DistinguishedNameQualifier": "Example corp",
        "Issuer.Surname": "SmartHome",
        "Issuer.Title": "CA1",
        "Issuer.Pseudonym": "Primary_CA",
        "Issuer.GenerationQualifier": "2",
        "Issuer.SerialNumber": "987",
        "Issuer.AlternativeName.DNSName": "issuer.com",
        "Issuer.AlternativeName.IPAddress": "5.6.7.8",
        "Issuer.AlternativeName.UniformResourceIdentifier": "PrimarySignerCA",
        "Issuer.AlternativeName.RFC822Name": "primary@issuer.com",
        "Issuer.AlternativeName.DirectoryName": "cn=Primary Issuer CA,ou=IoT Devices,o=Issuer,c=US",
        "Subject.Country": "US",
        "Subject.Organization": "IoT Devices",
        "Subject.OrganizationalUnit": "LightBulb",
        "Subject.State": "NY",
        "Subject.CommonName": "LightBulb Device Cert",
        "Subject.GivenName": "Bulb",
        "Subject.Initials": "ZZ",
        "Subject.DistinguishedNameQualifier": "Bulb001",
        "Subject.Surname": "Multi Color",
        "Subject.Title": "RGB",
        "Subject.Pseudonym": "RGB Device",
        "Subject.GenerationQualifier": "4",
        "Subject.SerialNumber": "123",
        "Subject.AlternativeName.DNSName": "example.com",
        "Subject.AlternativeName.IPAddress": "1.2.3.4",
        "Subject.AlternativeName.UniformResourceIdentifier": "ResourceIdentifier001",
        "Subject.AlternativeName.RFC822Name": "device1@example.com",
        "Subject.AlternativeName.DirectoryName": "cn=LightBulbCert,ou=SmartHome,o=IoT,c=US",
    }
    values = certificate_values(der)
    assert {key: values[f"iot:Certificate.{key}"] for key in expected} == {
        key: (value,) for key, value in expected.items()
    }
    keys = values.pop("iot:Certificate.AvailableKeys")
    assert set(keys) == set(values)
    assert {key.removesuffix(".List") for key in keys} == {f"iot:Certificate.{k}" for k in expected}


# "one-based index": the second value is `.1`; `.List` has all; arrays hold five items.
def test_several_values_of_one_kind() -> None:
    der = certificate(name(*(("OU", f"unit{n}") for n in range(7))))
    values = certificate_values(der)
    unit = "iot:Certificate.Subject.OrganizationalUnit"
    assert values[unit] == ("unit0",)
    assert [values[f"{unit}.{n}"] for n in range(1, 5)] == [(f"unit{n}",) for n in range(1, 5)]
    assert f"{unit}.5" not in values
    assert f"{unit}.0" not in values
    assert values[f"{unit}.List"] == ("unit0", "unit1", "unit2", "unit3", "unit4")


# Limitations, "Special Characters", with the example of the page.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "Amazon Web Services O=Amazon.com Inc. L=Seattle ST=Washington C=US",
            "Amazon Web Services O\\=Amazon.com Inc. L\\=Seattle ST\\=Washington C\\=US",
        ),
        ('a,b"c\\d+e=f<g>h;i', 'a\\,b\\"c\\\\d\\+e\\=f\\<g\\>h\\;i'),
        ("plain text", "plain text"),
    ],
)
def test_special_characters(text: str, value: str) -> None:
    values = certificate_values(certificate(name(("OU", text))))
    assert values["iot:Certificate.Subject.OrganizationalUnit"] == (value,)


# Limitations, "String length".
def test_longer_values_are_left_out() -> None:
    der = certificate(name(("OU", "x" * 1025), ("OU", "y" * 1024)))
    values = certificate_values(der)
    unit = "iot:Certificate.Subject.OrganizationalUnit"
    assert unit not in values
    assert values[f"{unit}.1"] == ("y" * 1024,)
    assert values[f"{unit}.List"] == ("y" * 1024,)


def test_unnamed_attributes_are_no_values() -> None:
    values = certificate_values(certificate(name(("L", "Berlin"))))
    assert list(values) == ["iot:Certificate.SerialNumber", "iot:Certificate.AvailableKeys"]


def test_an_extension_that_cannot_be_read_has_no_values() -> None:
    broken = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x03\x82\x05")
    values = certificate_values(certificate(name(("CN", "a")), None, broken))
    assert values["iot:Certificate.Subject.CommonName"] == ("a",)
    assert not any("AlternativeName" in key for key in values)


@given(st.binary(max_size=64))
def test_it_never_raises(der: bytes) -> None:
    assert certificate_values(der) == {}


WHOLE = certificate(
    name(("CN", "a"), ("C", "US")), None, x509.SubjectAlternativeName([x509.DNSName("a")])
)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_it_never_raises_on_what_is_almost_a_certificate(at: int, byte: int) -> None:
    certificate_values(WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :])


def test_a_name_of_bits_has_no_values() -> None:
    der = certificate(name(("C", "US"))).replace(b"\x13\x02US", b"\x03\x02\x00S")
    assert "iot:Certificate.Subject.Country" not in certificate_values(der)
    assert "iot:Certificate.SerialNumber" in certificate_values(der)
