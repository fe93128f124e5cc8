"""Links to the code of functions that work by themselves, for ten minutes.

As with AWS, where they are presigned requests to S3, a link needs no signature of its reader: it
says what may be read and until when, and carries an HMAC-SHA256 over both (see report_links.py).

Source: Lambda API reference, GetFunction: "a presigned URL that's valid for 10 minutes".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fleetgate.errors import AccessDeniedException, ResourceNotFoundException

PREFIX = "/_fleetgate/functions/"

LINK_SECONDS = 600
"""How long a link works."""

_PATH = re.compile(r"([a-zA-Z0-9_-]{1,64})/([0-9a-f-]{36})\.zip")


@dataclass(frozen=True, slots=True)
class CodeOfFunction:
    """What a link leads to: the code some function had when the link was given out."""

    function_name: str
    code_id: str

    @property
    def path(self) -> str:
        """Its path, without what proves the right to read it."""
        return f"{PREFIX}{self.function_name}/{self.code_id}.zip"


def link(token_key: bytes, code: CodeOfFunction, now: float) -> str:
    """The path and query of a link that works for ten minutes."""
    expires = int(now) + LINK_SECONDS
    return f"{code.path}?Expires={expires}&Signature={_signature(token_key, code, expires)}"


def check_link(
    token_key: bytes, path: str, fields: Mapping[str, str], now: float
) -> CodeOfFunction:
    """What a link leads to. `fields` is its query.

    Raises ResourceNotFoundException when the path is not that of code, and AccessDeniedException
    when the link has ended or was changed.
    """
    found = _PATH.fullmatch(path.removeprefix(PREFIX))
    if found is None:
        raise ResourceNotFoundException(f"no code of a function is at {path[:200]}")
    code = CodeOfFunction(found[1], found[2])
    expires = fields.get("Expires", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        raise AccessDeniedException(
            "a link to the code of a function has the parameters Expires and Signature; "
            "GetFunction gives one out"
        )
    expected = _signature(token_key, code, int(expires))
    if not hmac.compare_digest(expected.encode(), fields.get("Signature", "").encode()):
        raise AccessDeniedException(
            "the link to the code of a function was changed: its Signature is wrong"
        )
    if now >= int(expires):
        raise AccessDeniedException(
            f"the link to the code of function `{code.function_name}` ended "
            f"{int(now) - int(expires)} seconds ago; GetFunction gives out another one"
        )
    return code


def _signature(token_key: bytes, code: CodeOfFunction, expires: int) -> str:
    key = hmac.digest(token_key, b"function code\0", hashlib.sha256)
    return hmac.digest(key, f"{code.path}\0{expires}".encode(), hashlib.sha256).hex()
