"""Serial numbers in a CSV file: one that is read, and one that is read again when it changes.

Theory of operation. A file is a header and a line for each serial number, in UTF-8, as RFC 4180
has it. Whether it has changed is asked of the file system for every device (device, inode, size,
times), in a thread of its own: a file server that hangs holds up nobody but those who wait for
this list. Devices that come while it is looked at or read wait for the same look. What was read is
kept whole, in a form that a million lines are bearable in; of a file that breaks a rule only that
is kept, so that nobody is let in by half a list, nor by an old one.

A file may be exchanged at any time, by renaming another one over it. Its bytes are read in one go,
and again for two seconds if it changes meanwhile; what has other times and the same bytes as before
is not read line by line again. Devices that come while a new version is read wait for it: what the
old one said is not asked any more, for a serial number may have been taken off it. One that is
written in place is seen in the state it has: a time of change that is only just past is not trusted
to mean that nothing is written any more.

Source: RFC 4180.
"""

from __future__ import annotations

import asyncio
import bisect
import csv
import hashlib
import heapq
import io
import itertools
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleetgate.errors import Error
from fleetgate.functions.threads import Threads

log = logging.getLogger("fleetgate.functions")

MAX_BYTES = 64 << 20
"""Bytes of a file."""

MAX_SERIALS = 1_000_000
"""Serial numbers in a file."""

MAX_SERIAL_BYTES = 1024
"""Bytes of a serial number in UTF-8: what both databases have room for in an index."""

MAX_USES = 1_000_000_000
"""The largest number of uses that can be said; more is ``unlimited``."""

UNLIMITED = 0
"""The uses of what may be used any number of times."""

USES = "uses"
"""The column with how often a serial number may be used."""

_FRESH = 20_000_000  # nanoseconds; file systems keep times to a clock tick, of up to 10 ms
_NO_COMMAS = {";": "`;`", "\t": "tabs"}  # as spreadsheets save in some countries
_PIECE = 10_000  # serial numbers
_PATIENCE = 2.0  # seconds, of the five a device waits
_PAUSE = 0.1
_MAX_REST = 1.0


class FileError(Error):
    """A file of serial numbers that cannot be used; the message names file, line and rule."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a file: `uses` is None when it does not say; `cells` are all its columns."""

    serial: str
    uses: int | None
    cells: list[str]


@dataclass(slots=True)
class Rows:
    """The lines of a file, as they are read; `header` is there from the beginning.

    `column` is the name of the column with the serial numbers; without one it is the column
    `parameter`, or the first one. Making and reading it raise ValueError, naming line and rule.
    """

    lines: Iterable[bytes]
    parameter: str
    column: str | None = None
    header: list[str] = field(init=False)
    serial_at: int = field(init=False)
    uses_at: int | None = field(init=False)
    _reader: Iterator[list[str]] = field(init=False, repr=False)
    _line: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._reader = csv.reader(self._text(), strict=True)
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise self._wrong(str(error)) from None
        self.header = [name.strip() for name in header]
        if not any(self.header):
            raise self._wrong("the names of the columns are expected")
        for mark, called in _NO_COMMAS.items():
            if len(self.header) == 1 and mark in self.header[0]:
                raise self._wrong(
                    f"columns are separated by commas, not by {called}: the header is the one "
                    f"column `{self.header[0][:80]}`"
                )
        for name in self.header:
            if self.header.count(name) > 1:
                raise self._wrong(f"two columns are called `{name[:80]}`")
        self.serial_at = self._serial_column()
        self.uses_at = self.header.index(USES) if USES in self.header else None
        if self.serial_at == self.uses_at:
            raise self._wrong(f"the column `{USES}` cannot be the one with the serial numbers")

    def __iter__(self) -> Iterator[Row]:
        serial_at, uses_at, columns = self.serial_at, self.uses_at, len(self.header)
        try:
            for cells in self._reader:
                if len(cells) != columns:
                    if not any(map(str.strip, cells)):
                        continue
                    raise self._wrong(f"it has {len(cells)} columns, the header has {columns}")
                serial = cells[serial_at].strip()
                if not serial:
                    if not any(map(str.strip, cells)):
                        continue  # what spreadsheets leave at the end
                    raise self._wrong(f"`{self.header[serial_at]}` is empty")
                if len(serial) > MAX_SERIAL_BYTES // 4 and cannot_be_listed(serial):
                    raise self._wrong(f"the serial number has more than {MAX_SERIAL_BYTES} bytes")
                uses = None if uses_at is None else self._uses(cells[uses_at])
                yield Row(serial, uses, cells)
        except csv.Error as error:
            raise self._wrong(str(error)) from None

    @property
    def line(self) -> str:
        """Where the reader is, in words."""
        return f"line {max(self._line, 1)}"

    def overrides(self, cells: Iterable[str]) -> dict[str, str]:
        """What the other columns of a line say, by their names; empty ones say nothing."""
        apart = (self.serial_at, self.uses_at)
        return {
            self.header[at]: text.strip()
            for at, text in enumerate(cells)
            if at not in apart and text.strip() and self.header[at]
        }

    def _serial_column(self) -> int:
        if self.column is None:
            return self.header.index(self.parameter) if self.parameter in self.header else 0
        if self.column not in self.header:
            names = ", ".join(f"`{name}`" for name in self.header)
            raise self._wrong(f"there is no column `{self.column}` among {names[:300]}")
        return self.header.index(self.column)

    def _uses(self, text: str) -> int | None:
        text = text.strip()
        if not text:
            return None
        try:
            return uses_of(text)
        except ValueError as error:
            raise self._wrong(str(error)) from None

    def _text(self) -> Iterator[str]:
        """The lines as text, counted: a field may go over several."""
        for line in self.lines:
            self._line += 1
            try:
                text = line.decode("utf-8-sig" if self._line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise self._wrong(f"it is not UTF-8 at byte {error.start}") from None
            if "\0" in text:
                raise self._wrong("it has a U+0000")
            yield text

    def _wrong(self, rule: str) -> ValueError:
        return ValueError(f"{self.line}: {rule}")


def uses_of(value: object) -> int:
    """How often something may be used, from 1, or UNLIMITED for ``unlimited``; raises ValueError.

    0 is not taken: it could be meant as never, which is said by leaving a serial number out.
    """
    if isinstance(value, str) and value.lower() == "unlimited":
        return UNLIMITED
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_USES:
        shown = value if isinstance(value, int) else f"`{str(value)[:80]}`"
        raise ValueError(
            f"`{USES}`: a whole number from 1 to {MAX_USES} or `unlimited` is expected, not {shown}"
        )
    return value


def cannot_be_listed(serial: str) -> bool:
    """Whether a serial number is longer than any list has, or nothing a database can hold."""
    try:
        return len(serial.encode()) > MAX_SERIAL_BYTES or "\0" in serial
    except UnicodeEncodeError:
        return True


# --- a file that is kept ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says of a serial number; `uses` is None when it does not say."""

    uses: int | None
    overrides: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    A million of these lines have to fit: a serial number is the key of None, of its uses, or of
    uses and cells in one text.
    """

    rows: Rows
    kept: Mapping[str, int | str | None]

    def find(self, serial: str) -> Entry | None:
        """What is said of a serial number, or None."""
        value = self.kept.get(serial, "")
        if value == "":
            return None
        if isinstance(value, str):
            uses, *cells = value.split("\0")
            return Entry(int(uses) if uses else None, self.rows.overrides(cells))
        return Entry(value, {})

    def in_order(self) -> list[str]:
        """The serial numbers, sorted. Takes a second for a million; others go on meanwhile."""
        serials = iter(self.kept)
        pieces = []
        while piece := sorted(itertools.islice(serials, _PIECE)):  # none runs for long
            pieces.append(piece)
        return list(heapq.merge(*pieces))


Identity = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read, or why it cannot be used; the file's state and the hash of its bytes then."""

    state: Identity
    digest: bytes
    contents: Contents | str


class SerialFile:
    """A file of serial numbers, read when it is asked for and has changed.

    `parameter`, `column`: see Rows; with `overrides` the other columns are kept. `most` is how many
    serial numbers there may be.
    """

    def __init__(
        self,
        path: Path,
        parameter: str,
        column: str | None = None,
        *,
        overrides: bool = False,
        most: int = MAX_SERIALS,
    ) -> None:
        self.path = path
        self._parameter = parameter
        self._column = column
        self._overrides = overrides
        self._most = most
        self._known: _Known | None = None
        self._rest_until = 0.0
        self._told = ""
        self._looking: asyncio.Task[Contents] | None = None
        self._order: tuple[Contents, list[str]] | None = None
        self._threads = Threads("fleetgate-allow-list", 1)

    async def contents(self) -> Contents:
        """What the file holds now. Raises FileError."""
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = asyncio.ensure_future(self._threads.run(self.look))
            looking.add_done_callback(_retrieve)
        # whoever gives up waits for it no more; the others do
        return await asyncio.shield(looking)

    async def page(self, after: str, limit: int) -> tuple[Contents, list[str]]:
        """What the file holds, and its serial numbers behind `after`. Raises FileError."""
        contents = await self.contents()
        known = self._order
        if known is None or known[0] is not contents:
            known = self._order = contents, await asyncio.to_thread(contents.in_order)
        order = known[1]
        at = bisect.bisect_right(order, after)
        return contents, order[at : at + limit]

    def look(self) -> Contents:
        """The same as `contents`, on this thread."""
        try:
            contents = self._current()
        except FileError as error:
            if error.message != self._told:
                self._told = error.message
                log.warning(
                    "event=allow-list-unusable effect='nobody is let in' cause=%r", error.message
                )
            raise
        self._told = ""
        if self._order is not None and self._order[0] is not contents:
            self._order = None  # and with it what the file held before
        return contents

    def _current(self) -> Contents:
        try:
            found = self.path.stat()
            if self._known is None or self._known.state != _identity(found):
                if not stat.S_ISREG(found.st_mode):  # a pipe would not end
                    raise FileError(f"`{self.path}`: it is no regular file")
                self._known = self._read()
        except OSError as error:
            self._known = None
            raise FileError(f"`{self.path}`: {error.strerror}") from None
        contents = self._known.contents
        if isinstance(contents, str):
            raise FileError(f"`{self.path}`: {contents}")
        return contents

    def _read(self) -> _Known:
        """What is in the file, or why it cannot be used, and which state of it that is."""
        try:
            state, text = self._standing()
            known = self._known
            if known is not None and known.digest == (digest := _digest(text)):
                return _Known(state, digest, known.contents)  # touched, or written as it was
            if (rest := self._rest_until - time.monotonic()) > 0:
                time.sleep(rest)
                state, text = self._standing()
        except ValueError as error:
            return _Known((), b"", str(error))
        began = time.monotonic()
        contents: Contents | str
        try:
            contents = self._parsed(io.BytesIO(text))
        except ValueError as error:
            contents = str(error)
        took = time.monotonic() - began
        # a file that is always written anew takes half of a processor at most
        self._rest_until = time.monotonic() + min(took, _MAX_REST)
        if isinstance(contents, Contents):
            log.info(
                "event=allow-list-read file=%r serials=%d seconds=%.3f",
                *(str(self.path), len(contents.kept), took),
            )
        return _Known(state, _digest(text), contents)

    def _standing(self) -> tuple[Identity, bytes]:
        """The bytes of the file, read in one go while it did not change, and its state then.

        Times that change alone do not count. Raises ValueError for one that does not stand still,
        or is too large.
        """
        before_that = b""
        ends = time.monotonic() + _PATIENCE
        while True:
            with self.path.open("rb", buffering=0) as file:
                before = os.fstat(file.fileno())
                if before.st_size > MAX_BYTES:
                    raise ValueError(f"it has {before.st_size} bytes, at most are {MAX_BYTES}")
                text = file.read(MAX_BYTES + 1) if before.st_size else b""
                after = os.fstat(file.fileno())
            digest = None if _identity(before) == _identity(after) else _digest(text)
            if digest in (None, before_that):
                break
            if time.monotonic() >= ends:
                raise ValueError("it changes while it is read")
            before_that = digest
            time.sleep(_PAUSE)
        fresh = abs(time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns)) < _FRESH
        # () is the state of no file: it is looked at again the next time
        return () if fresh else _identity(after), text

    def _parsed(self, lines: Iterable[bytes]) -> Contents:
        rows = Rows(lines, self._parameter, self._column)
        kept: dict[str, int | str | None] = {}
        for row in rows:
            if row.serial in kept:
                raise ValueError(f"{rows.line}: `{row.serial[:80]}` is there for the second time")
            if self._overrides:
                uses = "" if row.uses is None else row.uses
                kept[row.serial] = "\0".join((str(uses), *row.cells))
            else:
                kept[row.serial] = row.uses
            if len(kept) > self._most:
                raise ValueError(f"{rows.line}: there are more than {self._most} serial numbers")
        return Contents(rows, kept)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _identity(found: os.stat_result) -> Identity:
    times = (found.st_mtime_ns, found.st_ctime_ns)
    return (found.st_dev, found.st_ino, found.st_size, *times)


def _retrieve(task: asyncio.Task[Contents]) -> None:
    """Nobody may be left to hear of it."""
    if not task.cancelled():
        task.exception()
