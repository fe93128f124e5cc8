"""A device's private key, and the certificate signing request (PKCS #10, RFC 2986) for it."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from fleetgate.device import extras
from fleetgate.device.errors import BadAnswer, BadRequest, StorageRefused
from fleetgate.device.identity import KeyOnToken
from fleetgate.device.protocol import Issued, Operation
from fleetgate.names import certificate_id

if TYPE_CHECKING:
    import pkcs11

KeyKind: TypeAlias = Literal["P-256", "P-384", "RSA-2048", "RSA-3072", "RSA-4096"]
"""Kinds of keys that can be made here."""

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_EXPONENT = 65537


class _Names(dict[str, x509.ObjectIdentifier]):
    """By names in which upper and lower case are the same (RFC 4512 section 1.4)."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


# RFC 4514 section 3 has nine of them, RFC 5280 appendix A.1 and RFC 2985 the others
_SUBJECT_NAMES = _Names(
    cn=NameOID.COMMON_NAME,
    commonname=NameOID.COMMON_NAME,
    l=NameOID.LOCALITY_NAME,
    st=NameOID.STATE_OR_PROVINCE_NAME,
    o=NameOID.ORGANIZATION_NAME,
    ou=NameOID.ORGANIZATIONAL_UNIT_NAME,
    c=NameOID.COUNTRY_NAME,
    street=NameOID.STREET_ADDRESS,
    dc=NameOID.DOMAIN_COMPONENT,
    uid=NameOID.USER_ID,
    serialnumber=NameOID.SERIAL_NUMBER,
    dnqualifier=NameOID.DN_QUALIFIER,
    title=NameOID.TITLE,
    givenname=NameOID.GIVEN_NAME,
    gn=NameOID.GIVEN_NAME,
    sn=NameOID.SURNAME,
    surname=NameOID.SURNAME,
    initials=NameOID.INITIALS,
    generationqualifier=NameOID.GENERATION_QUALIFIER,
    pseudonym=NameOID.PSEUDONYM,
    postalcode=NameOID.POSTAL_CODE,
    postaladdress=NameOID.POSTAL_ADDRESS,
    businesscategory=NameOID.BUSINESS_CATEGORY,
    organizationidentifier=NameOID.ORGANIZATION_IDENTIFIER,
    emailaddress=NameOID.EMAIL_ADDRESS,
    e=NameOID.EMAIL_ADDRESS,
)

_MAX_NAME = 64  # bytes of a common name (RFC 5280 appendix A.1, ub-common-name)

# DER of AlgorithmIdentifier: RFC 5758 section 3.2 and RFC 8017 appendix A.2.4
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")


def make(kind: KeyKind) -> PrivateKey:
    """A new key."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    return rsa.generate_private_key(_EXPONENT, int(kind.removeprefix("RSA-")))


def pem(key: PrivateKey) -> str:
    """The key as PKCS #8 (RFC 5958), PEM, without a password."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def load(content: bytes | str) -> PrivateKey:
    """The key in a PEM file. Raises ValueError when there is none of a kind that can be used."""
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    try:
        key = serialization.load_pem_private_key(data, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ValueError(f"keys of the kind {type(key).__name__} are not used")
    return key


def kind_of(key: object) -> str:
    """The name of a public key's kind, as in :data:`KeyKind`; others look alike."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        names = {curve.name: name for name, curve in _CURVES.items()}
        return names.get(key.curve.name, key.curve.name)
    return type(key).__name__


def subject_of(text: str) -> x509.Name:
    """A subject such as ``CN=lamp-1,O=Example`` (RFC 4514). Raises BadRequest."""
    try:
        name = x509.Name.from_rfc4514_string(text, _SUBJECT_NAMES)
        name.public_bytes()  # some attributes take a part of all characters only
    except ValueError as error:
        why = f": {error}" if str(error) else ""
        raise BadRequest(
            f"`{text!s:.200}` is no subject as `CN=lamp-1,O=Example` (RFC 4514){why}"
        ) from error
    if not list(name):
        raise BadRequest("the subject of a certificate signing request is empty")
    return name


def common_name(text: str) -> x509.Name:
    """A subject of `text` alone, cut to the bytes that a common name may have."""
    cut = text.encode("utf-8")[:_MAX_NAME].decode("utf-8", "ignore")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cut)])


def csr(key: PrivateKey, subject: x509.Name) -> str:
    """A signing request for `key`, PEM."""
    request = x509.CertificateSigningRequestBuilder(subject).sign(key, _hash(key.public_key()))
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def check_on_token(key: KeyOnToken) -> None:
    """Whether the token, the key and the PIN can be used. Raises as :func:`csr_on_token`."""
    with _session(key) as session:
        _public_key(session, key)
        _private_key(session, key)


def csr_on_token(key: KeyOnToken, subject: x509.Name) -> tuple[str, PublicKey]:
    """A signing request that the token signs, PEM, and the public key on the token.

    Raises StorageRefused when the token, the key or the PIN cannot be used, and ExtraMissing.
    """
    with _session(key) as session:
        public_key = _public_key(session, key)
        information = _sequence(
            b"\x02\x01\x00",  # version 0
            subject.public_bytes(),
            public_key.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            b"\xa0\x00",  # no attributes
        )
        algorithm, signature = _signature(session, key, public_key, information)
    der = _sequence(information, algorithm, _tagged(0x03, b"\x00" + signature))
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode("ascii"), 64))
    mark = "CERTIFICATE REQUEST-----"
    return f"-----BEGIN {mark}\n{body}\n-----END {mark}\n", public_key


def public_key_of(operation: Operation, issued: Issued) -> PublicKey:
    """That of the private key in the answer. Raises BadAnswer when it cannot be used."""
    try:
        return load(issued.private_key or "").public_key()
    except ValueError as error:
        raise BadAnswer(
            f"the private key in the answer cannot be read: {error}", topic=operation.accepted
        ) from error


def check_issued(operation: Operation, issued: Issued, public_key: PublicKey) -> None:
    """Raises BadAnswer unless key, certificate and id fit together."""
    try:
        certificate = x509.load_pem_x509_certificate(issued.certificate_pem.encode("utf-8"))
        same_key = certificate.public_key() == public_key
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise BadAnswer(
            f"the certificate in the answer cannot be read: {error}", topic=operation.accepted
        ) from error
    if not same_key:
        raise BadAnswer(
            "the certificate in the answer is for another key", topic=operation.accepted
        )
    of_certificate = certificate_id(certificate.public_bytes(serialization.Encoding.DER))
    if issued.certificate_id != of_certificate:
        raise BadAnswer(
            f"`certificateId` in the answer is `{issued.certificate_id[:80]}`, but that of the "
            f"certificate is {of_certificate}",
            topic=operation.accepted,
        )


# --- the token ---


def initialise(module: Path) -> None:
    """Load the PKCS#11 module `module` into this process, for signing; harmless when it is there.

    Best called before anything else uses it: C_Initialize may be called once in a process (PKCS#11
    section 5.4). AWS's runtime takes a module that is initialised already, python-pkcs11 does not
    by itself. Raises StorageRefused when the module cannot be loaded, and ExtraMissing.
    """
    extras.load("pkcs11", "pkcs11")
    try:
        _library(str(module))
    except _failures() as error:
        raise StorageRefused(
            f"the PKCS#11 module `{module}` cannot be used: {_said(error)}"
        ) from error


@cache
def _library(module: str) -> pkcs11._pkcs11.lib:
    import pkcs11
    from pkcs11._pkcs11 import lib

    class Shared(lib):
        """One that somebody else has initialised, and so ends."""

        def initialize(self) -> None:
            with suppress(pkcs11.PKCS11Error):  # if it is not that, the next call fails too
                super().initialize()

    try:
        return pkcs11.lib(module)
    except pkcs11.PKCS11Error:
        return Shared(module)


def _failures() -> tuple[type[Exception], ...]:
    import pkcs11

    return pkcs11.PKCS11Error, RuntimeError


def _said(error: Exception) -> str:
    return f"{type(error).__name__}{f': {error}' if str(error) else ''}"


@contextmanager
def _session(key: KeyOnToken) -> Iterator[pkcs11.Session]:
    """A session on the token, with the user logged in."""
    pkcs11 = extras.load("pkcs11", "pkcs11")
    try:
        # Behind the value there may be a line end, as in the file that the TLS adapter reads.
        pin = key.pin_file.read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise StorageRefused(f"cannot read the PIN in `{key.pin_file}`: {error}") from error
    initialise(key.module)
    try:
        token = _library(str(key.module)).get_token(token_label=key.token)
        try:
            session = token.open(user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:  # a login is of the process, not of the session
            session = token.open()
        with session:
            yield session
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        raise StorageRefused(
            f"the key `{key.key}` of the token `{key.token}` (`{key.module}`) cannot be used: "
            f"{_said(error)}"
        ) from error


def _public_key(session: pkcs11.Session, key: KeyOnToken) -> PublicKey:
    from pkcs11 import KeyType, ObjectClass
    from pkcs11.util.ec import encode_ec_public_key
    from pkcs11.util.rsa import encode_rsa_public_key

    found: Any = session.get_key(object_class=ObjectClass.PUBLIC_KEY, label=key.key)
    if found.key_type is KeyType.EC:
        loaded = serialization.load_der_public_key(encode_ec_public_key(found))
    elif found.key_type is KeyType.RSA:
        # PKCS#1; the loader takes it as well
        loaded = serialization.load_der_public_key(encode_rsa_public_key(found))
    else:
        raise StorageRefused(f"the key `{key.key}` is of the kind {found.key_type}, not used here")
    return cast("PublicKey", loaded)


def _private_key(session: pkcs11.Session, key: KeyOnToken) -> Any:
    from pkcs11 import ObjectClass

    return session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=key.key)


def _signature(
    session: pkcs11.Session, key: KeyOnToken, public_key: PublicKey, content: bytes
) -> tuple[bytes, bytes]:
    """AlgorithmIdentifier and signature, in DER."""
    from pkcs11 import Mechanism
    from pkcs11.util.ec import encode_ecdsa_signature

    private = _private_key(session, key)
    if isinstance(public_key, rsa.RSAPublicKey):
        return _RSA_SHA256, bytes(private.sign(content, mechanism=Mechanism.SHA256_RSA_PKCS))
    algorithm = _hash(public_key)
    digest = hashes.Hash(algorithm)  # not every token has ECDSA with the hash
    digest.update(content)
    raw = private.sign(digest.finalize(), mechanism=Mechanism.ECDSA)
    identifier = _ECDSA_SHA384 if isinstance(algorithm, hashes.SHA384) else _ECDSA_SHA256
    return identifier, bytes(encode_ecdsa_signature(raw))


def _hash(key: PublicKey) -> hashes.SHA256 | hashes.SHA384:
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size > 256:
        return hashes.SHA384()
    return hashes.SHA256()


# --- DER (X.690) ---


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content
