"""The zip of a function becomes a directory: whole or not at all, and nothing outside of it.

A directory has the name of its zip's SHA-256, so that the same code is unpacked once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fleetgate.domain.document import printable, quoted
from fleetgate.errors import Error
from fleetgate.functions import removal

MAX_BYTES: Final = 262_144_000
"""Of all files together. Source: Lambda developer guide, "Lambda quotas", deployment package."""

MAX_ENTRIES: Final = 65_535
MAX_NAME: Final = 1024

_PIECE: Final = 1 << 20
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_UNFINISHED: Final = ".unfinished-"


class UnpackError(Error):
    """A zip that cannot be unpacked; the message names the entry, the rule and the value."""


def place(directory: Path, sha256: bytes) -> Path:
    """Where the code with this hash is, or would be, unpacked below `directory`."""
    return directory / sha256.hex()


def unpack(zip_file: bytes, directory: Path, most: int = MAX_BYTES) -> Path:
    """The directory with the files of a zip, at most `most` bytes of them; blocks.

    It lies in `directory`, which is made if need be. Nothing is done when it is there already.
    Raises UnpackError, and OSError when it cannot be written.
    """
    found = place(directory, hashlib.sha256(zip_file).digest())
    if found.is_dir():
        return found
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=directory))
    try:
        _unpack(zip_file, unfinished, most)
        try:
            unfinished.rename(found)
        except OSError:
            if not found.is_dir():  # another one was quicker
                raise
    finally:
        with contextlib.suppress(OSError):
            removal.remove(str(unfinished))
    return found


def check(zip_file: bytes, most: int = MAX_BYTES) -> None:
    """Returns when `unpack` could unpack it; writes nothing, and blocks.

    What only a file system knows is not found: a name that is too long for it. Raises UnpackError.
    """
    _check_count(zip_file)
    try:
        with zipfile.ZipFile(io.BytesIO(zip_file)) as archive:
            left = most
            for entry, _ in _entries(archive):
                with archive.open(entry) as packed:
                    while piece := packed.read(_PIECE):
                        left = _left(entry, left - len(piece), most)
    except _UNREADABLE as error:
        raise UnpackError(f"the zip cannot be read: {printable(str(error), 200)}") from None


def _unpack(zip_file: bytes, directory: Path, most: int) -> None:
    _check_count(zip_file)
    try:
        with zipfile.ZipFile(io.BytesIO(zip_file)) as archive:
            left = most
            for entry, parts in _entries(archive):
                left = _write(archive, entry, directory.joinpath(*parts), left, most)
    except _UNREADABLE as error:
        raise UnpackError(f"the zip cannot be read: {printable(str(error), 200)}") from None


_UNREADABLE: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError),
    *(NotImplementedError, ValueError, RuntimeError),
)


# APPNOTE.TXT of PKWARE, 4.3.12 and 4.3.14 to 4.3.16: signatures, sizes, where there is what
_HEADER, _HEADER_BYTES, _HEADER_LENGTHS = b"PK\x01\x02", 46, struct.Struct("<28x3H")
_END, _END_BYTES, _END_SIZE = b"PK\x05\x06", 22, struct.Struct("<12xL")
_LOCATOR, _LOCATOR_BYTES = b"PK\x06\x07", 20
_END64, _END64_BYTES, _END64_SIZE = b"PK\x06\x06", 56, struct.Struct("<40xQ")


def _check_count(zip_file: bytes) -> None:
    """Raises UnpackError for too many entries, before zipfile makes an object of each.

    They are counted as zipfile does: in the directory, as long as the end of the zip says it is.
    """
    end = len(zip_file) - _END_BYTES
    if not zip_file.startswith(_END, max(0, end)) or not zip_file.endswith(b"\0\0"):
        # there is a comment
        end = zip_file.rfind(_END, max(0, end - (1 << 16)))
    if end < 0 or end + _END_BYTES > len(zip_file):
        return  # zipfile says so
    (size,) = _END_SIZE.unpack_from(zip_file, end)
    end64 = end - _LOCATOR_BYTES - _END64_BYTES
    if zip_file.startswith(_LOCATOR, end - _LOCATOR_BYTES) and zip_file.startswith(_END64, end64):
        end = end64
        (size,) = _END64_SIZE.unpack_from(zip_file, end)
    at, count = max(0, end - size), 0
    while zip_file.startswith(_HEADER, at) and at + _HEADER_BYTES <= end:
        count += 1
        if count > MAX_ENTRIES:
            raise UnpackError(f"the zip has more than {MAX_ENTRIES} entries")
        at += _HEADER_BYTES + sum(_HEADER_LENGTHS.unpack_from(zip_file, at))


def _entries(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """The entries of a zip with the parts of their names; raises UnpackError."""
    seen: set[tuple[str, ...]] = set()
    for entry in archive.infolist():
        parts = _parts(entry)
        if parts in seen:
            raise _error(entry, "there is another entry of the same name")
        if parts:
            seen.add(parts)
            yield entry, parts
    if not seen:
        raise UnpackError("the zip is empty")


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The parts of an entry's name."""
    name = entry.filename
    if len(name) > MAX_NAME:
        raise _error(entry, f"the name has {len(name)} characters; the limit is {MAX_NAME}")
    # zipfile cuts a name at U+0000; what was there is in the original name
    if not name.isprintable() or "\0" in entry.orig_filename:
        raise _error(entry, "the name has control characters")
    if "\\" in name:
        raise _error(entry, "the name has a backslash")
    if name.startswith("/"):
        raise _error(entry, "the name is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _error(entry, "the name has `..`")
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _error(entry, f"files and directories are allowed, not mode {mode:o}")
    if entry.flag_bits & 1:
        raise _error(entry, "it is encrypted")
    if entry.compress_type not in _METHODS:
        raise _error(entry, f"compression method {entry.compress_type} is not one of 0, 8")
    return parts


def _write(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: int, most: int
) -> int:
    """Writes an entry; returns how many bytes may still be written."""
    try:
        if entry.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return left
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = 0o700 if entry.external_attr >> 16 & stat.S_IXUSR else 0o600
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except (FileExistsError, NotADirectoryError):
        raise _error(entry, "there is an entry of this name, or above it") from None
    except OSError as error:
        if error.errno is not None and os.strerror(error.errno) == "File name too long":
            raise _error(entry, "the name is too long for a file") from None
        raise
    with os.fdopen(descriptor, "wb") as file, archive.open(entry) as packed:
        # what the zip says of its sizes is not believed
        while piece := packed.read(_PIECE):
            left = _left(entry, left - len(piece), most)
            file.write(piece)
    return left


def _left(entry: zipfile.ZipInfo, left: int, most: int) -> int:
    if left < 0:
        raise _error(entry, f"all files together have more than {most} bytes")
    return left


def _error(entry: zipfile.ZipInfo, rule: str) -> UnpackError:
    return UnpackError(f"entry {quoted(printable(entry.filename, 200), 200)} of the zip: {rule}")
