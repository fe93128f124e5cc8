"""Removes directories that somebody else filled: however deep, whatever their modes."""

from __future__ import annotations

import os
from itertools import islice

_AT_ONCE = 1000  # names in memory


def remove(path: str) -> None:
    """Removes a directory with all there is in it; it is no error when it is not there.

    Nobody may be changing it. Directories within others are moved up before they are emptied, so
    that no path gets too long, and no more than two are open. Raises OSError for what stays.
    """
    try:
        os.chmod(path, 0o700)  # noqa: PTH101 - the launcher imports this
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        while names := _names(top):
            for name, is_directory in names:
                if is_directory:
                    _empty(top, name)
                else:
                    os.unlink(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)  # noqa: PTH106


def _empty(top: int, directory: str) -> None:
    os.chmod(directory, 0o700, dir_fd=top)
    inside = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        while names := _names(inside):
            for name, is_directory in names:
                if is_directory:
                    os.chmod(name, 0o700, dir_fd=inside)
                    moved = f".{os.urandom(16).hex()}"
                    os.rename(name, moved, src_dir_fd=inside, dst_dir_fd=top)
                else:
                    os.unlink(name, dir_fd=inside)
    finally:
        os.close(inside)
    os.rmdir(directory, dir_fd=top)


def _names(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as entries:
        return [
            (each.name, each.is_dir(follow_symlinks=False)) for each in islice(entries, _AT_ONCE)
        ]
