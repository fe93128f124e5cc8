"""What bulk registration works with: input files, report files, and a way to wake its runner.

The server brings them along (fleetgate.buckets, fleetgate.reports); without any bucket no task can
be started.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol

ReportType = Literal["RESULTS", "ERRORS"]


class InputFile(Protocol):
    """An input file that was opened; one that was changed has another version."""

    @property
    def size(self) -> int:
        """Its bytes."""
        ...

    @property
    def version(self) -> str:
        """Which one it is."""
        ...

    async def read(self, offset: int, count: int) -> bytes:
        """The bytes at a position: `count`, or fewer at the end.

        Raises InputFileError, also when the file is not the one that was opened any more.
        """
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...


class Buckets(Protocol):
    """Where input files are."""

    def refusal(self, bucket: str, key: str) -> str:
        """Why there can be no such file, whatever the buckets hold; "" when there can."""
        ...

    async def open(self, bucket: str, key: str) -> InputFile:
        """Opens a file. Raises InputFileError."""
        ...


class Reports(Protocol):
    """The report files of tasks. They grow by whole lines, and may be cut again."""

    def write(self, task_id: str, kind: ReportType, at: int, lines: bytes) -> None:
        """Puts lines durably behind the first `at` bytes; what was there is gone.

        Raises OSError, without a number when there are fewer bytes than that.
        """
        ...

    def pieces(
        self, task_id: str, kind: ReportType, start: int, end: int, limit: int
    ) -> list[tuple[int, int]]:
        """The first `limit` pieces, of whole lines, of what is between these two positions."""
        ...

    def open(self, task_id: str, kind: ReportType) -> int | None:
        """A file descriptor to read from, None when there is no such file."""
        ...

    def task_ids(self) -> Collection[str]:
        """The ids of the tasks that have reports."""
        ...

    def remove(self, task_id: str) -> None:
        """Deletes the reports of a task."""
        ...

    def remove_all(self) -> None:
        """Deletes all reports."""
        ...


@dataclass(slots=True)
class Bulk:
    """What the server gives to bulk registration. `wake` is called when tasks have changed.

    `waiting` says what tasks wait for, by their ids: for as long as they do not go on.
    """

    buckets: Buckets | None = None
    reports: Reports | None = None
    wake: Callable[[], None] = lambda: None
    waiting: dict[str, str] = field(default_factory=dict)

    def reset(self) -> None:
        """Removes all reports, after the tasks are gone."""
        if self.reports is not None:
            self.reports.remove_all()
        self.wake()
