"""Links that work by themselves until a time, as AWS's presigned requests to S3 do.

A link says what may be read and until when, and carries an HMAC-SHA256 over both. The key is
derived from the server's token key for each purpose, so that links end when that is replaced and
none stands for something else.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from fleetgate.errors import AccessDeniedException


def signed(token_key: bytes, purpose: bytes, path: str, expires: int) -> str:
    """The path and query of a link that works until `expires` (seconds since the epoch)."""
    return f"{path}?Expires={expires}&Signature={_signature(token_key, purpose, path, expires)}"


def require_signed(
    token_key: bytes,
    purpose: bytes,
    path: str,
    fields: Mapping[str, str],
    now: float,
    *,
    link: str,
    of: str,
    giver: str,
) -> None:
    """Returns when the query `fields` of a link to `path` proves the right to read it.

    Messages call it `link`, once its signature is known to be right with the name `of` what it
    leads to, and say that the operation `giver` gives links out. Raises AccessDeniedException when
    it has ended or was changed.
    """
    expires = fields.get("Expires", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        raise AccessDeniedException(
            f"a link to {link} has the parameters Expires and Signature; {giver} gives them out"
        )
    expected = _signature(token_key, purpose, path, int(expires))
    if not hmac.compare_digest(expected.encode(), fields.get("Signature", "").encode()):
        raise AccessDeniedException(f"the link to {link} was changed: its Signature is wrong")
    if now >= int(expires):
        raise AccessDeniedException(
            f"the link to {of} ended {int(now) - int(expires)} seconds ago; "
            f"{giver} gives out another one"
        )


def _signature(token_key: bytes, purpose: bytes, path: str, expires: int) -> str:
    key = hmac.digest(token_key, purpose + b"\0", hashlib.sha256)
    return hmac.digest(key, f"{path}\0{expires}".encode(), hashlib.sha256).hex()
