"""Links to reports: what they lead to, until when, and that nobody can make one up.

What they are modelled on: Amazon S3 User Guide, "Sharing objects with presigned URLs".
"""

from __future__ import annotations

import pytest

from fleetgate.errors import AccessDeniedException, ResourceNotFoundException
from fleetgate.operations.report_links import ReportPiece, check_link, link

NOW = 1_790_000_000.5
KEY = bytes(range(32))
PIECE = ReportPiece("71941d2a-0d88-4b36-b7bb-3811cd06b8f9", "RESULTS", 0, 1000)


def parts(text: str) -> tuple[str, dict[str, str]]:
    path, _, query = text.partition("?")
    return path, dict(each.split("=") for each in query.split("&"))


@pytest.mark.parametrize("later", [0, 3598])
def test_a_link_leads_to_its_piece_for_an_hour(later: float) -> None:
    path, fields = parts(link(KEY, PIECE, NOW))
    assert path == "/_fleetgate/reports/71941d2a-0d88-4b36-b7bb-3811cd06b8f9/RESULTS/0-1000"
    assert check_link(KEY, path, fields, NOW + later) == PIECE


def test_a_link_ends() -> None:
    path, fields = parts(link(KEY, PIECE, NOW))
    with pytest.raises(AccessDeniedException, match="ended 9 seconds ago"):
        check_link(KEY, path, fields, NOW + 3609)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ({"RESULTS": "ERRORS"}, {}),
        ({"0-1000": "0-1001"}, {}),
        ({"0-1000": "00-1000"}, {}),
        ({"71941d2a": "71941d2b"}, {}),
        ({}, {"Expires": "1790009999"}),
        ({}, {"Signature": "0" * 64}),
        ({}, {"Signature": ""}),
        ({}, {"Signature": "ä"}),
    ],
)
def test_a_link_that_was_changed_is_refused(path: dict[str, str], fields: dict[str, str]) -> None:
    changed, given = parts(link(KEY, PIECE, NOW))
    for old, new in path.items():
        changed = changed.replace(old, new)
    if path == {"0-1000": "00-1000"}:  # the same piece, written otherwise
        assert check_link(KEY, changed, given, NOW) == PIECE
        return
    with pytest.raises(AccessDeniedException, match="was changed"):
        check_link(KEY, changed, {**given, **fields}, NOW)


def test_a_link_of_another_server_is_refused() -> None:
    path, fields = parts(link(KEY, PIECE, NOW))
    with pytest.raises(AccessDeniedException):
        check_link(bytes(32), path, fields, NOW)


@pytest.mark.parametrize("expires", [None, "", "x", "-1", "1e9", "٣", "9" * 13])
def test_a_link_without_an_end_is_refused(expires: str | None) -> None:
    path, fields = parts(link(KEY, PIECE, NOW))
    given = {name: value for name, value in fields.items() if name != "Expires"}
    if expires is not None:
        given["Expires"] = expires
    with pytest.raises(AccessDeniedException, match="parameters Expires and Signature"):
        check_link(KEY, path, given, NOW)


@pytest.mark.parametrize(
    "path", ["", "x", "../../token.key", f"{PIECE.task_id}/RESULTS", f"{PIECE.task_id}/ALL/0-1"]
)
def test_other_paths_are_no_reports(path: str) -> None:
    with pytest.raises(ResourceNotFoundException):
        check_link(KEY, f"/_fleetgate/reports/{path}", {}, NOW)
