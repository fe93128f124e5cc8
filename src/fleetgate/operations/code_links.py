"""Links to the code of functions that work by themselves, for ten minutes.

As with AWS, where they are presigned requests to S3, a link needs no signature of its reader: it
proves by itself what may be read and until when (signed_links.py).

Source: Lambda API reference, GetFunction: "a presigned URL that's valid for 10 minutes".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fleetgate.errors import ResourceNotFoundException
from fleetgate.operations import signed_links

PREFIX = "/_fleetgate/functions/"

LINK_SECONDS = 600
"""How long a link works."""

_PURPOSE = b"function code"
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
    return signed_links.signed(token_key, _PURPOSE, code.path, int(now) + LINK_SECONDS)


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
    signed_links.require_signed(
        *(token_key, _PURPOSE, code.path, fields, now),
        link="the code of a function",
        of=f"the code of function `{code.function_name}`",
        giver="GetFunction",
    )
    return code
