"""The pseudo parameters of just-in-time provisioning: what a template learns of a certificate.

Sources: AWS IoT Core Developer Guide, "Just-in-time provisioning" (the names, and that the values
are those of the subject); RFC 2253 section 2.4 (the escaping of values). AWS is seen to write
``a\\=b`` for the common name ``a=b``: it escapes `=` as well, which RFC 2253 need not.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from fleetgate.names import certificate_id

PREFIX: Final = "AWS::IoT::Certificate::"
"""What the names of all pseudo parameters begin with."""

CHOSEN: Final = 0
"""Which value counts when the subject has several of one attribute: the first, in the order of the
certificate. AWS does not say."""

_ATTRIBUTES: Final[dict[ObjectIdentifier, str]] = {
    NameOID.COUNTRY_NAME: "Country",
    NameOID.ORGANIZATION_NAME: "Organization",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OrganizationalUnit",
    NameOID.DN_QUALIFIER: "DistinguishedNameQualifier",
    NameOID.STATE_OR_PROVINCE_NAME: "StateName",
    NameOID.COMMON_NAME: "CommonName",
    NameOID.SERIAL_NUMBER: "SerialNumber",  # the attribute 2.5.4.5, not the certificate's number
}
_SPECIAL: Final = re.compile(r'([,+"\\<>;=])')


def subject_parameters(der: bytes) -> dict[str, str]:
    """The pseudo parameters of a certificate (DER) with their values, names in full.

    ``AWS::IoT::Certificate::Id`` is always there; an attribute that the subject does not have, or
    has with an empty value or one that is no text, is not. Raises ValueError when the certificate
    cannot be read.
    """
    found: dict[str, list[str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that break X.520; they are what they are
        try:
            subject = x509.load_der_x509_certificate(der).subject
        except (x509.InvalidVersion, TypeError) as error:
            raise ValueError(f"the certificate cannot be read: {error}") from error
    for each in subject:
        name = _ATTRIBUTES.get(each.oid)
        if name is not None and isinstance(each.value, str) and each.value:
            found.setdefault(PREFIX + name, []).append(each.value)
    values = {name: escaped(texts[CHOSEN]) for name, texts in found.items()}
    return {**values, f"{PREFIX}Id": certificate_id(der)}


def escaped(value: str) -> str:
    """A value of a name as RFC 2253 section 2.4 writes it, and `=` behind a backslash too."""
    text = _SPECIAL.sub(r"\\\1", value)
    if text.endswith(" "):
        text = f"{text[:-1]}\\ "
    if text.startswith(("#", " ")) and text != "\\ ":
        text = f"\\{text}"
    return text
