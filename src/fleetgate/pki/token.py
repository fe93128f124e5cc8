"""Certificate ownership tokens: the proof that lets a device register the certificate it got.

A token is stateless: it carries what it proves, encrypted and authenticated (AES-256-GCM, NIST
SP 800-38D) by a key that only the server has, so that a server keeps nothing between
CreateCertificateFromCsr and RegisterThing. Layout, in URL-safe base64 (RFC 4648 section 5)
without padding::

    version (1 byte, 0x01) | nonce (12) | ciphertext | tag (16)

The version is authenticated with the rest. The plain text is the certificate id (32 bytes), the
end of validity (Unix time, 8 bytes), the account and the region, separated by a NUL.

Source: AWS IoT Core Developer Guide, "Device provisioning MQTT API" (a token expires after one
hour); clients reserve 512 characters for it.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetgate.errors import InvalidToken

KEY_BYTES = 32
NONCE_BYTES = 12
MAX_CHARACTERS = 512

_VERSION = b"\x01"
_TAG_BYTES = 16
_FIXED = struct.Struct(">32sQ")
_LEAST = len(_VERSION) + NONCE_BYTES + _FIXED.size + _TAG_BYTES


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who holds a token owns certificate `certificate_id` of this account and region.

    ``expires_at`` is an aware datetime; a token keeps whole seconds of it.
    """

    account: str
    region: str
    certificate_id: str
    expires_at: datetime


def seal(key: bytes, claims: Ownership, nonce: bytes) -> str:
    """The token that proves `claims`: the same text for the same arguments.

    `key` is 32 random bytes, `nonce` 12 random bytes never used with this key before. Raises
    ValueError when an argument does not fit.
    """
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes and a nonce {NONCE_BYTES}")
    certificate = bytes.fromhex(claims.certificate_id)
    place = f"{claims.account}\0{claims.region}"
    if len(certificate) != 32 or place.count("\0") != 1:
        raise ValueError(f"not the claims of a token: {claims}")
    expiry = int(claims.expires_at.timestamp())
    plain = _FIXED.pack(certificate, expiry) + place.encode("utf-8")
    sealed = _VERSION + nonce + AESGCM(key).encrypt(nonce, plain, _VERSION)
    text = _to_text(sealed)
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a token has at most {MAX_CHARACTERS} characters, not {len(text)}")
    return text


def open_(key: bytes, text: str, *, account: str, region: str, now: datetime) -> Ownership:
    """What the token `text` proves, when it is of this key, account and region and still valid.

    Raises InvalidToken otherwise, whatever `text` is.
    """
    if not text:
        raise InvalidToken("Certificate ownership token cannot be empty.")  # AWS's words
    sealed = _from_text(text)
    nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        plain = AESGCM(key).decrypt(nonce, body, _VERSION)
    except InvalidTag:
        raise InvalidToken("the certificate ownership token was not made by this server") from None
    certificate, expiry = _FIXED.unpack_from(plain)
    token_account, _, token_region = plain[_FIXED.size :].decode("utf-8").partition("\0")
    if (token_account, token_region) != (account, region):
        raise InvalidToken(
            "the certificate ownership token belongs to another account or region than "
            f"account {account} in {region}"
        )
    expires_at = datetime.fromtimestamp(expiry, UTC)
    if now >= expires_at:
        raise InvalidToken(
            f"the certificate ownership token expired at {expires_at:%Y-%m-%dT%H:%M:%SZ}"
        )
    return Ownership(token_account, token_region, certificate.hex(), expires_at)


def _to_text(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode("ascii").rstrip("=")


def _from_text(text: str) -> bytes:
    """The bytes of a token, with the version checked; exactly one text per token is accepted."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidToken(
            f"a certificate ownership token has at most {MAX_CHARACTERS} characters, "
            f"not {len(text)}"
        )
    try:
        sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        sealed = b""
    if len(sealed) < _LEAST or sealed[:1] != _VERSION or _to_text(sealed) != text:
        raise InvalidToken(f"the certificate ownership token `{text[:16]}...` is malformed")
    return sealed
