"""What IoT policies can ask of a certificate: its names and its serial number, as text.

Sources: AWS IoT Developer Guide, "X.509 Certificate AWS IoT Core policy variables" and "Using
X.509 certificate policy variables": the names, five values of a kind at most, the serial number
as a decimal integer, special characters of names behind a backslash, a directory name as
``cn=LightBulbCert,ou=SmartHome,o=IoT,c=US``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

PREFIX: Final = "iot:Certificate."
"""What the names of all these values begin with."""

_MOST_VALUES: Final = 5
_MOST_CHARACTERS: Final = 1024
_SPECIAL: Final = re.compile(r'([,"\\+=<>;])')

_ATTRIBUTES: Final = {
    NameOID.DN_QUALIFIER: ("DistinguishedNameQualifier", "dnqualifier"),
    NameOID.COUNTRY_NAME: ("Country", "c"),
    NameOID.ORGANIZATION_NAME: ("Organization", "o"),
    NameOID.ORGANIZATIONAL_UNIT_NAME: ("OrganizationalUnit", "ou"),
    NameOID.STATE_OR_PROVINCE_NAME: ("State", "st"),
    NameOID.COMMON_NAME: ("CommonName", "cn"),
    NameOID.SERIAL_NUMBER: ("SerialNumber", "serialnumber"),
    NameOID.TITLE: ("Title", "title"),
    NameOID.SURNAME: ("Surname", "sn"),
    NameOID.GIVEN_NAME: ("GivenName", "givenname"),
    NameOID.INITIALS: ("Initials", "initials"),
    NameOID.PSEUDONYM: ("Pseudonym", "pseudonym"),
    NameOID.GENERATION_QUALIFIER: ("GenerationQualifier", "generationqualifier"),
}
_SHORT: Final[Mapping[ObjectIdentifier, str]] = {
    **{oid: short for oid, (_, short) in _ATTRIBUTES.items()},
    NameOID.LOCALITY_NAME: "l",
    NameOID.DOMAIN_COMPONENT: "dc",
    NameOID.USER_ID: "uid",
    NameOID.STREET_ADDRESS: "street",
    NameOID.EMAIL_ADDRESS: "emailaddress",
}

_NAMES: Final = (
    ("Subject", x509.SubjectAlternativeName),
    ("Issuer", x509.IssuerAlternativeName),
)
_FORMS: Final[Mapping[type[x509.GeneralName], str]] = {
    x509.RFC822Name: "RFC822Name",
    x509.DNSName: "DNSName",
    x509.UniformResourceIdentifier: "UniformResourceIdentifier",
    x509.IPAddress: "IPAddress",
}


def certificate_values(der: bytes) -> dict[str, tuple[str, ...]]:
    """The condition keys and policy variables of a certificate (DER), with their values.

    A name that occurs several times gives its first value as ``iot:Certificate.Subject.Country``,
    the others as ``....Country.1`` and so on, and all of them as ``....Country.List``. Never
    raises: a part that cannot be read has no values.
    """
    values: dict[str, tuple[str, ...]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that break X.520; they are what they are
        try:
            certificate = x509.load_der_x509_certificate(der)
        except (ValueError, x509.InvalidVersion):
            return values
        found = {"SerialNumber": [str(certificate.serial_number)]}
        for kind, extension in _NAMES:
            for oid, text in _attributes(certificate, kind):
                if oid in _ATTRIBUTES:
                    found.setdefault(f"{kind}.{_ATTRIBUTES[oid][0]}", []).append(text)
            for form, text in _alternatives(certificate, extension):
                found.setdefault(f"{kind}.AlternativeName.{form}", []).append(text)
    for name, texts in found.items():
        kept = texts[:_MOST_VALUES]
        for index, text in enumerate(kept):
            if len(text) <= _MOST_CHARACTERS:
                values[f"{PREFIX}{name}.{index}" if index else PREFIX + name] = (text,)
        if name != "SerialNumber":
            whole = tuple(text for text in kept if len(text) <= _MOST_CHARACTERS)
            values[f"{PREFIX}{name}.List"] = whole
    values[f"{PREFIX}AvailableKeys"] = tuple(values)
    return values


def _attributes(certificate: x509.Certificate, kind: str) -> list[tuple[ObjectIdentifier, str]]:
    try:
        name = certificate.subject if kind == "Subject" else certificate.issuer
    except (ValueError, TypeError):
        return []
    return [(each.oid, _escaped(each.value)) for each in name]


def _alternatives(
    certificate: x509.Certificate,
    extension: type[x509.SubjectAlternativeName] | type[x509.IssuerAlternativeName],
) -> list[tuple[str, str]]:
    try:
        names = list(certificate.extensions.get_extension_for_class(extension).value)
    except (
        ValueError,
        TypeError,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ):
        return []
    found = []
    for name in names:
        if isinstance(name, x509.DirectoryName):
            found.append(("DirectoryName", _directory_name(name.value)))
        elif type(name) in _FORMS:
            found.append((_FORMS[type(name)], str(name.value)))
    return found


def _directory_name(name: x509.Name) -> str:
    """The last part of the name first (RFC 4514 section 2.1), in AWS's lower case."""
    return ",".join(
        "+".join(
            f"{_SHORT.get(each.oid, each.oid.dotted_string)}={_escaped(each.value)}" for each in rdn
        )
        for rdn in reversed(name.rdns)
    )


def _escaped(value: str | bytes) -> str:
    text = value if isinstance(value, str) else value.hex()
    return _SPECIAL.sub(r"\\\1", text)
