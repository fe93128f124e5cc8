"""Links to reports of bulk registration that work by themselves, for an hour.

As with AWS, where they are presigned requests to S3, a link needs no signature of its reader: it
proves by itself what may be read and until when (signed_links.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from fleetgate.errors import ResourceNotFoundException
from fleetgate.operations import signed_links
from fleetgate.operations.bulk import ReportType

PREFIX = "/_fleetgate/reports/"

LINK_SECONDS = 3600
"""How long a link works."""

_PURPOSE = b"report"
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
    return signed_links.signed(token_key, _PURPOSE, piece.path, int(now) + LINK_SECONDS)


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
    signed_links.require_signed(
        *(token_key, _PURPOSE, piece.path, fields, now),
        link="a report",
        of="the report",
        giver="ListThingRegistrationTaskReports",
    )
    return piece
