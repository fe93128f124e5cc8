"""Report files: written where they are to go on, cut, given out in whole lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.reports import Reports

ID = "71941d2a-0d88-4b36-b7bb-3811cd06b8f9"


def content(directory: Path, kind: str = "results") -> bytes:
    return (directory / f"{ID}.{kind}.jsonl").read_bytes()


def test_lines_go_behind_what_counts(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    reports.write(ID, "RESULTS", 0, b"one\n")
    reports.write(ID, "RESULTS", 4, b"lost\nlost\n")
    reports.write(ID, "RESULTS", 4, b"two\n")
    assert content(tmp_path / "reports") == b"one\ntwo\n"
    reports.write(ID, "RESULTS", 4, b"")
    assert content(tmp_path / "reports") == b"one\n"
    assert (tmp_path / "reports").stat().st_mode & 0o777 == 0o700
    assert reports.task_ids() == {ID}


def test_a_report_without_lines_has_no_file(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    reports.write(ID, "ERRORS", 0, b"")
    assert not (tmp_path / "reports").exists()
    assert reports.open(ID, "ERRORS") is None
    assert reports.pieces(ID, "ERRORS", 0, 10, 5) == []
    assert reports.task_ids() == set()
    reports.remove(ID)
    reports.remove_all()


def test_a_report_that_is_too_short_is_no_report(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    reports.write(ID, "RESULTS", 0, b"one\n")
    with pytest.raises(OSError, match="the RESULTS report has 4 of the 5 bytes written"):
        reports.write(ID, "RESULTS", 5, b"two\n")


def test_a_link_in_the_place_of_a_report_is_not_followed(tmp_path: Path) -> None:
    reports = Reports(tmp_path / "reports")
    (tmp_path / "reports").mkdir()
    (tmp_path / "other").write_text("kept")
    (tmp_path / f"reports/{ID}.results.jsonl").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        reports.write(ID, "RESULTS", 0, b"one\n")
    assert (tmp_path / "other").read_text() == "kept"


def test_reports_are_removed(tmp_path: Path) -> None:
    reports = Reports(tmp_path)
    other = ID.replace("7", "8")
    for task_id in (ID, other):
        reports.write(task_id, "RESULTS", 0, b"one\n")
        reports.write(task_id, "ERRORS", 0, b"one\n")
    reports.remove(ID)
    assert reports.task_ids() == {other}
    reports.remove_all()
    assert reports.task_ids() == set()


@given(st.lists(st.integers(0, 40), min_size=1), st.integers(1, 60), st.integers(1, 5))
def test_pieces_are_whole_lines_and_all_of_them(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], piece: int, limit: int
) -> None:
    lines = [b"x" * length + b"\n" for length in lengths]
    whole = b"".join(lines)
    reports = Reports(tmp_path_factory.mktemp("reports"), piece)
    reports.write(ID, "RESULTS", 0, whole + b"behind the checkpoint")
    found: list[tuple[int, int]] = []
    while more := reports.pieces(ID, "RESULTS", found[-1][1] if found else 0, len(whole), limit):
        assert len(more) <= limit
        found += more
    assert b"".join(whole[start:end] for start, end in found) == whole
    for start, end in found:
        assert whole[start:end].endswith(b"\n")
        assert end - start < piece + 41
