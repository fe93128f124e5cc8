"""Certificate signing requests (PKCS#10, RFC 2986): what a device asks a certificate for.

Only the subject and the key of a request are of use here; the extensions it asks for and its
other attributes are not looked at, so they cannot survive into a certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fleetgate.errors import InvalidCsr
from fleetgate.pki import pem, strength
from fleetgate.pki.strength import PublicKey

MAX_CHARACTERS = 4096
"""Of the PEM text. Source: iot service model, shape ``CertificateSigningRequest``."""

# Bounds of X.520 (RFC 5280 appendix A.1), in bytes of UTF-8, by object identifier. They are
# checked on the DER because `cryptography` says so by a warning, which nobody would read, each
# time somebody looks at such a name.
_LENGTHS = {
    bytes.fromhex("550403"): ("commonName", 1, 64),
    bytes.fromhex("550406"): ("countryName", 2, 2),
    bytes.fromhex("2b0601040182373c020103"): ("jurisdictionCountryName", 2, 2),
}
_RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a")  # RFC 4055 section 1.2
_WIDE_STRINGS = {28: "utf-32-be", 30: "utf-16-be"}  # UniversalString, BMPString; X.690 8.23


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A request whose signature proves that its sender holds the private key.

    ``subject`` writes the very bytes it was read from: order and string types are kept.
    ``spki_der`` is the key as SubjectPublicKeyInfo.
    """

    public_key: PublicKey
    subject: x509.Name
    spki_der: bytes


def parse(text: str) -> SigningRequest:
    """The request in the PEM `text`. Raises InvalidCsr naming the rule and the value.

    Source of the rules: AWS IoT API Reference, CreateCertificateFromCsr; see `strength` for
    keys and signatures.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidCsr(
            f"a certificate signing request has at most {MAX_CHARACTERS} characters, "
            f"not {len(text)}"
        )
    try:
        return _read(pem.decode(text, "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"))
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InvalidCsr(f"invalid certificate signing request: {error}") from error


def _read(der: bytes) -> SigningRequest:
    request = x509.load_der_x509_csr(der)
    # Key and algorithm come first: they bound what checking the signature costs.
    strength.check_signature(request)
    key = strength.check_key(request.public_key())
    if not request.is_signature_valid:
        raise ValueError("the signature does not match the request's own key")
    _check_der(request.tbs_certrequest_bytes)
    subject = request.subject  # read anew at each access
    for attribute in subject:
        if "\0" in str(attribute.value):
            raise ValueError(f"the subject's {attribute.rfc4514_attribute_name} contains a NUL")
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningRequest(key, subject, spki)


def _check_der(tbs: bytes) -> None:
    """Check what only the bytes of a CertificationRequestInfo tell (RFC 2986 section 4.1)."""
    ((_, info),) = _elements(tbs)
    _version, (_, subject), (_, spki), *_ = _elements(info)
    if _RSASSA_PSS in spki[: len(_RSASSA_PSS) + 8]:
        # A certificate for it would say "RSA", which OpenSSL then does not match with the key.
        raise ValueError("the key has to be an RSA or an EC key, not one for RSASSA-PSS alone")
    for _, relative_name in _elements(subject):
        for _, attribute in _elements(relative_name):
            (_, oid), (tag, value) = _elements(attribute)
            if oid in _LENGTHS:
                name, least, most = _LENGTHS[oid]
                length = len(value.decode(_WIDE_STRINGS.get(tag, "utf-8")).encode("utf-8"))
                if not least <= length <= most:
                    raise ValueError(
                        f"the subject's {name} has {length} bytes, allowed are {least} to {most}"
                    )


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The (tag, content) pairs that follow each other in `der`, which is valid DER."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        yield tag, der[at : at + length]
        at += length


def claimed_host(subject: x509.Name, host_names: Iterable[str]) -> str | None:
    """The first of `host_names` that `subject` could pass for, or None.

    Some TLS clients compare the common name with the host when a certificate has no
    subjectAltName (RFC 6125 section 6.4.4). A device certificate whose common name is the name
    of the server, signed by the authority that signs the server's, would be a server
    certificate to them; so such a subject must not be signed. ``*`` in the common name is
    taken as a wildcard for any text.
    """
    for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        name = str(attribute.value).strip().rstrip(".").lower()
        pattern = name.replace("[", "[[]").replace("?", "[?]")  # leaves `*` as the only wildcard
        for host in host_names:
            if fnmatchcase(host.rstrip(".").lower(), pattern):
                return host
    return None
