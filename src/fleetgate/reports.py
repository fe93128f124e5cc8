"""The reports of bulk registration: files of JSON lines in the data directory.

A report grows by whole lines. What counts of a file is in the registry: the bytes up to the task's
checkpoint; what is behind them is of lines whose registration was not stored, and is written over.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from fleetgate.files import sync_directory

PIECE = 16 << 20
"""Bytes of a piece that one link leads to, when lines allow for it."""

_READ = 65536


class Reports:
    """The report files below one directory, which is made when the first one is."""

    def __init__(self, directory: Path, piece: int = PIECE) -> None:
        self.directory = directory
        self._piece = piece

    def write(self, task_id: str, kind: str, at: int, lines: bytes) -> None:
        """Puts lines durably behind the first `at` bytes; what was there is gone.

        Raises OSError, without a number when there are fewer bytes than that.
        """
        path = self._path(task_id, kind)
        is_new = not path.exists()
        if is_new and not lines and not at:
            return
        if not self.directory.is_dir():
            self.directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self.directory.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size < at:
                cause = f"the {kind} report has {size} of the {at} bytes written"
                raise OSError(None, cause, str(path))
            if size > at:
                os.ftruncate(descriptor, at)
            with os.fdopen(descriptor, "r+b", buffering=0, closefd=False) as file:
                file.seek(at)
                rest = memoryview(lines)
                while rest:
                    rest = rest[file.write(rest) :]
            if lines or size > at:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_directory(self.directory)

    def pieces(
        self, task_id: str, kind: str, start: int, end: int, limit: int
    ) -> list[tuple[int, int]]:
        """The first `limit` pieces, of whole lines, of what is between these two positions."""
        found: list[tuple[int, int]] = []
        descriptor = self.open(task_id, kind)
        if descriptor is None:
            return found
        try:
            while start < end and len(found) < limit:
                until = _line_end(descriptor, start + self._piece, end)
                found.append((start, until))
                start = until
        finally:
            os.close(descriptor)
        return found

    def open(self, task_id: str, kind: str) -> int | None:
        """A file descriptor to read from, None when there is no such file."""
        try:
            return os.open(self._path(task_id, kind), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def task_ids(self) -> set[str]:
        """The ids of the tasks that have reports."""
        with contextlib.suppress(FileNotFoundError):
            return {path.name.partition(".")[0] for path in self.directory.iterdir()}
        return set()

    def remove(self, task_id: str) -> None:
        """Deletes the reports of a task."""
        for kind in ("RESULTS", "ERRORS"):
            self._path(task_id, kind).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Deletes all reports."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.directory.iterdir():
                path.unlink(missing_ok=True)

    def _path(self, task_id: str, kind: str) -> Path:
        return self.directory / f"{task_id}.{kind.lower()}.jsonl"


def _line_end(descriptor: int, wanted: int, end: int) -> int:
    """The end of the line that the byte before `wanted` is on."""
    at = wanted - 1
    while at < end:
        piece = os.pread(descriptor, _READ, at)
        found = piece.find(b"\n")
        if found >= 0:
            return min(at + found + 1, end)
        if not piece:
            break
        at += len(piece)
    return end
