"""Links to reports of bulk registration that work by themselves, for an hour.

As with AWS, where they are presigned requests to S3, a link needs no signature of its reader: it
says what may be read and until when, and carries an HMAC-SHA256 over both. Its key is derived from
the server's token key, so that links end when that is replaced.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from fleetgate.errors import AccessDeniedException, ResourceNotFoundException
from fleetgate.operations.bulk import ReportType

PREFIX = "/_fleetgate/reports/"

LINK_SECONDS = 3600
"""How long a link works."""

_PATH = re.compile(r"([0-9a-f-]{36})/(RESULTS|ERRORS)/([0-9]{1,18})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class ReportPiece:
    """What a link leads to: the bytes from `start` to before `end` of one report."""

    task_id: str
    kind: ReportType
    start: int
    end: int

    @property
    def path(self) -> str:
        """Its path, without what proves the right to read it."""
        return f"{PREFIX}{self.task_id}/{self.kind}/{self.start}-{self.end}"


def link(token_key: bytes, piece: ReportPiece, now: float) -> str:
    """The path and query of a link that works for an hour."""
    expires = int(now) + LINK_SECONDS
    return f"{piece.path}?Expires={expires}&Signature={_signature(token_key, piece, expires)}"


def check_link(token_key: bytes, path: str, fields: Mapping[str, str], now: float) -> ReportPiece:
    """What a link leads to. `fields` is its query.

    Raises ResourceNotFoundException when the path is not that of a report, and
    AccessDeniedException when the link has ended or was changed.
    """
    found = _PATH.fullmatch(path.removeprefix(PREFIX))
    if found is None:
        raise ResourceNotFoundException(f"no report is at {path[:200]}")
    task_id, kind, start, end = found.groups()
    piece = ReportPiece(task_id, cast("ReportType", kind), int(start), int(end))
    expires = fields.get("Expires", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        raise AccessDeniedException(
            "a link to a report has the parameters Expires and Signature; "
            "ListThingRegistrationTaskReports gives them out"
        )
    expected = _signature(token_key, piece, int(expires))
    if not hmac.compare_digest(expected.encode(), fields.get("Signature", "").encode()):
        raise AccessDeniedException("the link to the report was changed: its Signature is wrong")
    if now >= int(expires):
        raise AccessDeniedException(
            f"the link to the report ended {int(now) - int(expires)} seconds ago; "
            "ListThingRegistrationTaskReports gives out another one"
        )
    return piece


def _signature(token_key: bytes, piece: ReportPiece, expires: int) -> str:
    key = hmac.digest(token_key, b"report\0", hashlib.sha256)
    return hmac.digest(key, f"{piece.path}\0{expires}".encode(), hashlib.sha256).hex()
