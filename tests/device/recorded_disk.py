"""What a journey does to the disk, recorded; and what of it is left when the power goes.

A file's content is safe when it was flushed, a name when its directory was. What was not flushed
when the power goes may be there or not; four ways are tried for every instant:

* ``nothing``: nothing that was not flushed is there.
* ``names``: every name is there, but the content that was not flushed is not.
* ``content``: content is there, names that were not flushed are not.
* ``removals``: as ``nothing``, but what was removed is gone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fleetgate.device.disk import Disk

Left = Literal["nothing", "names", "content", "removals"]


@dataclass
class File:
    mode: int
    written: bytes = b""
    flushed: bytes = b""


Node = File | str  # a file, or a symbolic link's target
Names = dict[str, Node | None]  # None for a directory


class UnflushedDisk(Disk):
    """The file system as it is, without waiting for the disk: tests lose no power."""

    def flush(self, descriptor: int) -> None:
        pass

    def flush_directory(self, at: int, path: str) -> None:
        pass


@dataclass
class RecordedDisk(UnflushedDisk):
    """The same, and a list of what was done below one directory."""

    calls: list[tuple[str, ...]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    open_files: dict[int, str] = field(default_factory=dict)

    def make_directory(self, at: int, path: str) -> None:
        super().make_directory(at, path)
        self.calls.append(("make_directory", _plain(path)))

    def create(self, at: int, path: str, mode: int) -> int:
        descriptor = super().create(at, path, mode)
        self.open_files[descriptor] = _plain(path)
        self.calls.append(("create", _plain(path), str(mode)))
        return descriptor

    def write(self, descriptor: int, content: bytes) -> None:
        super().write(descriptor, content)
        self.calls.append(("write", self.open_files[descriptor], str(len(self.contents))))
        self.contents.append(content)

    def flush(self, descriptor: int) -> None:
        super().flush(descriptor)
        self.calls.append(("flush", self.open_files[descriptor]))

    def flush_directory(self, at: int, path: str) -> None:
        super().flush_directory(at, path)
        self.calls.append(("flush_directory", _plain(path)))

    def rename(self, at: int, old: str, new: str) -> None:
        super().rename(at, old, new)
        self.calls.append(("rename", _plain(old), _plain(new)))

    def link(self, at: int, target: str, path: str) -> None:
        super().link(at, target, path)
        self.calls.append(("link", target, _plain(path)))

    def remove(self, at: int, path: str) -> None:
        super().remove(at, path)
        self.calls.append(("remove", _plain(path)))

    def remove_directory(self, at: int, path: str) -> None:
        super().remove_directory(at, path)
        self.calls.append(("remove", _plain(path)))

    def after_power_loss(self, calls: int, left: Left, to: Path) -> None:
        """Make `to` what the disk has when the power goes after so many calls."""
        names: Names = {}
        flushed: Names = {}
        for call in self.calls[:calls]:
            self._apply(call, names, flushed)
            if left == "removals" and call[0] == "remove":
                flushed.pop(call[1], None)
        found = names if left == "names" else flushed
        to.mkdir(0o700)
        for path, node in sorted(found.items()):
            if path.rpartition("/")[0] and path.rpartition("/")[0] not in found:
                continue  # its directory is not there
            where = to / path
            if node is None:
                where.mkdir(0o700)
            elif isinstance(node, str):
                where.symlink_to(node)
            else:
                where.touch(node.mode)
                where.write_bytes(node.written if left == "content" else node.flushed)

    def _apply(self, call: tuple[str, ...], names: Names, flushed: Names) -> None:
        match call:
            case ("make_directory", path):
                names[path] = None
            case ("create", path, mode):
                names[path] = File(int(mode))
            case ("write", path, number):
                file = names[path]
                assert isinstance(file, File)
                file.written += self.contents[int(number)]
            case ("flush", path):
                file = names[path]
                assert isinstance(file, File)
                file.flushed = file.written
            case ("rename", old, new):
                names[new] = names.pop(old)
            case ("link", target, path):
                names[path] = target
            case ("remove", path):
                del names[path]
            case ("flush_directory", folder):
                here = {path for path in names if _folder(path) == folder}
                gone = {path for path in flushed if _folder(path) == folder} - here
                for path in gone:
                    del flushed[path]
                flushed.update((path, names[path]) for path in here)
            case _:
                raise AssertionError(call)


def _plain(path: str) -> str:
    return os.path.normpath(path)


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."
