"""Temporary credentials without a table of them: the session token carries the session, sealed.

A token is encrypted and authenticated (AES-256-GCM, NIST SP 800-38D) under a key derived from the
server's token key, so that a server keeps nothing between AssumeRole and the calls that follow.
Layout, in base64 (RFC 4648 section 4)::

    version (1 byte, 0x01) | nonce (12) | ciphertext | tag (16)

The plain text is a :class:`Claims` as MessagePack, compressed (RFC 1950). The secret access key is
not in it: it is derived from the access key id and the nonce.

Source: AWS STS API Reference, "AssumeRole" and "GetSessionToken", for what a session consists of.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import zlib

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetgate.errors import InvalidToken

NONCE_BYTES = 12
MAX_CHARACTERS = 8192
"""Of a token. It travels in a header, beside others, and AWS's tokens stay below 4096."""

_VERSION = b"\x01"


class Claims(msgspec.Struct, frozen=True, array_like=True):
    """What a session token says.

    `access_key_id` is the key it goes with; `principal_arn` and `principal_id` name the role, the
    user or the root user (``arn:aws:iam::A:root``, with the account id) behind it;
    `session_name` is that of an assumed role. `policies` are the documents of the session, which
    bound what the principal's own allow. Times are in seconds since the epoch.
    """

    access_key_id: str
    principal_arn: str
    principal_id: str
    session_name: str
    policies: tuple[str, ...]
    tags: dict[str, str]
    issued_at: float
    expires_at: float


def seal(token_key: bytes, claims: Claims, nonce: bytes) -> tuple[str, str]:
    """The secret access key and the session token of a session.

    `nonce` is 12 random bytes never used with this key before. Raises ValueError when what the
    token has to carry is too long for one.
    """
    plain = zlib.compress(msgspec.msgpack.encode(claims))
    sealed = _VERSION + nonce + AESGCM(_key(token_key, b"seal")).encrypt(nonce, plain, _VERSION)
    text = base64.b64encode(sealed).decode("ascii")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a session token has at most {MAX_CHARACTERS} characters")
    return _secret(token_key, claims.access_key_id, nonce), text


def open_(token_key: bytes, text: str) -> tuple[str, Claims]:
    """The secret access key and what the token says. Whether it expired is for the caller.

    Raises InvalidToken for a token that `seal` did not make under this key.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidToken(f"a session token has at most {MAX_CHARACTERS} characters")
    try:
        sealed = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        sealed = b""
    nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    canonical = base64.b64encode(sealed).decode("ascii") == text  # one text per token
    if sealed[:1] != _VERSION or len(body) < 16 or not canonical:
        raise InvalidToken("the session token is malformed")
    try:
        plain = AESGCM(_key(token_key, b"seal")).decrypt(nonce, body, _VERSION)
    except InvalidTag:
        raise InvalidToken("the session token was not made by this server") from None
    claims = msgspec.msgpack.decode(zlib.decompress(plain), type=Claims)
    return _secret(token_key, claims.access_key_id, nonce), claims


def _secret(token_key: bytes, access_key_id: str, nonce: bytes) -> str:
    digest = hmac.digest(_key(token_key, b"secret"), nonce + access_key_id.encode(), "sha256")
    return base64.b64encode(digest[:30]).decode("ascii")


def _key(token_key: bytes, use: bytes) -> bytes:
    return hmac.digest(token_key, b"session token\0" + use, "sha256")
