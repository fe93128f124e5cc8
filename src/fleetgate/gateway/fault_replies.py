"""Replies that no server sends, for fault scripts: functions of a reply and of what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import cbor2
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleetgate.errors import InvalidPayloadException
from fleetgate.wire import payload

KINDS: Final = (
    "undecodable",
    "truncated",
    "empty",
    "no-map",
    "wrong-types",
    "missing-members",
    "huge",
)

UNDECODABLE: Final = b"\xff{no reply}"
"""Neither JSON (RFC 8259) nor CBOR (RFC 8949 section 3.2.1: a break outside of anything)."""


def spoil(
    kind: str, payload_format: str, sent: bytes, members: Sequence[str] = (), size: int = 0
) -> bytes:
    """The payload `sent` of a reply, spoilt in one of the ways of KINDS.

    `members` are those that are missing, none: all of them. `size` is what a huge one has, bytes.
    """
    if kind == "undecodable":
        return UNDECODABLE
    if kind == "truncated":
        return sent[: len(sent) // 2]
    if kind == "empty":
        return b""
    try:
        reply = payload.decode(payload_format, sent)
    except InvalidPayloadException:  # spoilt before
        return sent
    if kind == "no-map":
        return _encoded(payload_format, list(reply))
    if kind == "wrong-types":
        return _encoded(payload_format, {name: _another_type(each) for name, each in reply.items()})
    if kind == "missing-members":
        return _encoded(
            payload_format,
            {name: each for name, each in reply.items() if members and name not in members},
        )
    return _padded(payload_format, reply, size)


def with_another_request(payload_format: str, sent: bytes) -> bytes:
    """A request for a certificate, with a signing request for a key that nobody has.

    What is no such request stays as it is.
    """
    try:
        asked = payload.decode(payload_format, sent)
        csr = x509.load_pem_x509_csr(asked["certificateSigningRequest"].encode())
    except (InvalidPayloadException, KeyError, AttributeError, ValueError):
        return sent
    builder = x509.CertificateSigningRequestBuilder().subject_name(csr.subject)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    asked["certificateSigningRequest"] = made.public_bytes(Encoding.PEM).decode()
    return payload.encode(payload_format, asked)


def with_another_key(payload_format: str, sent: bytes) -> bytes:
    """An accepted reply with a private key that is not the certificate's.

    It takes a moment the first time.
    """
    reply = payload.decode(payload_format, sent)
    if "privateKey" in reply:
        reply["privateKey"] = _some_key()
    return payload.encode(payload_format, reply)


@cache
def _some_key() -> str:
    """The same one every time: it is good for nothing."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ).decode()


def _another_type(value: object) -> object:
    """Text for numbers and maps, numbers for text."""
    return 7 if isinstance(value, str) else "seven"


def _padded(payload_format: str, reply: Mapping[str, Any], size: int) -> bytes:
    """The reply with one more member, so that it has `size` bytes, or more if it had more."""

    def padded(count: int) -> bytes:
        return _encoded(payload_format, {**reply, "padding": "x" * count})

    room = max(0, size - len(padded(0)))
    over = max(0, len(padded(room)) - size)  # CBOR says long lengths in more bytes
    return padded(max(0, room - over))


def _encoded(payload_format: str, value: object) -> bytes:
    return msgspec.json.encode(value) if payload_format == "json" else cbor2.dumps(value)
