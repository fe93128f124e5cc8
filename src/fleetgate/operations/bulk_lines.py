"""The input of a bulk registration: lines of a file, each a JSON object of parameters.

A line ends with LF or CR LF, the last one also with the file; blank lines and a byte order mark at
the beginning are passed over. Everything else that is no object of strings is the error of its
line. No more than one line and one piece of the file are in memory, however large they are.

Source: AWS IoT Developer Guide, "Bulk registration": "a newline-delimited JSON file".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fleetgate.domain import document
from fleetgate.domain.document import quoted
from fleetgate.errors import InvalidRequestException
from fleetgate.operations.bulk import InputFile

PIECE = 256 * 1024
"""Bytes that are read at a time."""

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8_BYTES = 4  # of a character, at most
_MAX_DEPTH = 2
_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its number from 1, its first byte, the first byte of the next one, its text.

    `text` is None when it is too long to be kept.
    """

    number: int
    offset: int
    end: int
    text: bytes | None

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing on it."""
        text = self.text
        if text is not None and self.offset == 0:
            text = text.removeprefix(_BOM)
        return text is not None and not text.strip(b" \t\r")


@dataclass(slots=True)
class Lines:
    """Reads lines from a position on; `number` lines are before it."""

    file: InputFile
    offset: int
    number: int
    max_characters: int
    _kept: bytes = field(default=b"", init=False)
    """What was read and is not used up: it begins at `offset`."""
    _at: int = field(default=0, init=False)

    async def next(self) -> Line | None:
        """The next line, None at the end of the file. Raises InputFileError."""
        start, most = self.offset, self.max_characters * _UTF8_BYTES
        searched = dropped = 0
        while True:
            at = self._kept.find(b"\n", self._at + searched)
            searched = len(self._kept) - self._at
            if at < 0 and searched > most:
                dropped += searched
                self._kept, self._at, searched = b"", 0, 0
            read_to = start + dropped + searched
            if at >= 0 or read_to >= self.file.size:
                break
            more = await self.file.read(read_to, PIECE)
            self._kept, self._at = self._kept[self._at :] + more, 0
        until = at if at >= 0 else len(self._kept)
        text = self._kept[self._at : until]
        if at < 0 and not text and not dropped:
            return None
        self._at = until + (at >= 0)
        self.offset = start + dropped + len(text) + (at >= 0)
        self.number += 1
        return Line(self.number, start, self.offset, None if dropped else text)


def parse_line(line: Line, max_characters: int) -> dict[str, str]:
    """The parameters on a line; raises InvalidRequestException."""
    try:
        text = "" if line.text is None else line.text.decode()
    except UnicodeDecodeError as error:
        hint = ": is the file UTF-16?" if error.object.startswith(_UTF16) else ""
        raise InvalidRequestException(
            f"the line is not UTF-8: byte 0x{error.object[error.start]:02X} at byte "
            f"{error.start}{hint}"
        ) from None
    if line.text is None or len(text) > max_characters:
        length = f"more than {max_characters}" if line.text is None else f"{len(text)}"
        raise InvalidRequestException(
            f"the line has {length} characters; the limit `registration_line_characters` is "
            f"{max_characters}"
        )
    if line.offset == 0:
        text = text.removeprefix("\ufeff")
    try:
        value = document.read(text, max_depth=_MAX_DEPTH)
    except ValueError as error:
        raise InvalidRequestException(f"the line cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequestException(
            f"the line has to be a JSON object of parameters, not {_kind(value)}"
        )
    for name, entry in value.items():
        if not isinstance(entry, str):
            raise InvalidRequestException(
                f"the parameter {quoted(name)} has to be a string, not {_kind(entry)}"
            )
    return value


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), "a string")
