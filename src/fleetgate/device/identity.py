"""The directory that holds a device's identity, and how it is written.

What is in it, by the time:

1. ``pending.json``: a provisioning has begun. It is written first, and holds the certificate id
   and the ownership token; and once more when the device is registered, with what the server
   said (see :mod:`fleetgate.device.registration`).
2. ``private.key`` and ``certificate.pem``: written before the device is registered, so that no
   registered certificate is ever without its key on disk.
3. ``ca.pem`` and ``config.json``: written when the new identity has proved itself. Then
   ``pending.json`` goes.

So ``config.json`` marks a complete identity, which is never touched again; and without it
``pending.json`` marks one that was left half-finished (power cut, error). When the device was
registered, the next provisioning tries this identity again and finishes it; otherwise it starts
again and replaces it, and the certificate of the former attempt is deleted by the server when its
token expires. Files that are there without either mark belong to somebody else and are not touched.

Every file is written to a temporary name, flushed to disk, and renamed, and then the directory is
flushed: after a power cut a file is there whole or not at all. The directory is opened once and
all names are resolved inside it, so no symbolic link leads elsewhere; a lock on it keeps a second
provisioning out. It and the files of an identity have to belong to the user who runs this, and
nobody else may write to it: who may could replace the key, or plant an identity.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fleetgate.device.errors import StorageRefused

PRIVATE_KEY = "private.key"
CERTIFICATE = "certificate.pem"
CA = "ca.pem"
CONFIGURATION = "config.json"
PENDING = "pending.json"

_MODES = {PRIVATE_KEY: 0o600, CERTIFICATE: 0o644, CA: 0o644, CONFIGURATION: 0o600, PENDING: 0o600}
_TEMPORARY = re.compile(rf"\.(?:{'|'.join(map(re.escape, _MODES))})\.[0-9a-f]{{16}}\.tmp")


class IdentityDirectory:
    """The open, locked directory `path`; made by :func:`open_directory`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def check(self, strangers: Iterable[Path]) -> None:
        """Make sure that an identity may be written here, and clear temporary files away.

        `strangers` are files that must survive: those of the claim. Raises StorageRefused.
        """
        with _storage(f"cannot use the directory `{self.path}`"):
            self._check(strangers)

    def _check(self, strangers: Iterable[Path]) -> None:
        with os.scandir(self._descriptor) as entries:
            names = {entry.name for entry in entries}
        for name in sorted(names & _MODES.keys()):
            status = self._stat(name)
            if not stat.S_ISREG(status.st_mode):
                raise StorageRefused(f"`{self.path / name}` is not a regular file")
            _check_owner(self.path / name, status)
        if CONFIGURATION in names:
            raise StorageRefused(
                f"`{self.path}` already holds a complete identity{self._whose()}; "
                "it is never replaced: choose another directory, or move it away"
            )
        found = sorted(names & {PRIVATE_KEY, CERTIFICATE, CA})
        if found and PENDING not in names:
            raise StorageRefused(
                f"`{self.path / found[0]}` is there already, and not from a provisioning that was "
                "interrupted: choose another directory, or move it away"
            )
        for stranger in strangers:
            for name in found:
                if stranger.exists() and os.path.samestat(stranger.stat(), self._stat(name)):
                    raise StorageRefused(
                        f"`{stranger}` would be overwritten: choose another directory"
                    )
        for name in names:
            if _TEMPORARY.fullmatch(name):
                os.unlink(name, dir_fd=self._descriptor)

    def write(self, name: str, content: str) -> Path:
        """Put `content` into the file `name`, durably and at once, and give its path.

        Raises StorageRefused when the operating system does.
        """
        temporary = f".{name}.{secrets.token_hex(8)}.tmp"
        path = self.path / name
        with _storage(f"cannot write `{path}`"):
            try:
                self._write(temporary, content.encode("utf-8"), _MODES[name])
                os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except BaseException:
                self._remove(temporary)
                raise
            os.fsync(self._descriptor)
        return path

    def write_json(self, name: str, values: Mapping[str, Any]) -> Path:
        """Put `values` into the file `name`, as :meth:`write` does."""
        return self.write(name, json.dumps(values, ensure_ascii=False, indent=2) + "\n")

    def pending(self) -> dict[str, Any]:
        """The values in ``pending.json``; empty when it is not there or is none of ours.

        Raises StorageRefused when it cannot be read.
        """
        with _storage(f"cannot read `{self.path / PENDING}`"):
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(PENDING, flags, dir_fd=self._descriptor)
            except FileNotFoundError:
                return {}
            with os.fdopen(descriptor, "rb") as stream:
                content = stream.read()
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            return {}  # no provisioning leaves such a file: each is written at once
        return values if isinstance(values, dict) else {}

    def finish(self) -> None:
        """Take the mark of an unfinished provisioning away."""
        with _storage(f"cannot remove `{self.path / PENDING}`"):
            self._remove(PENDING)
            os.fsync(self._descriptor)

    def _write(self, name: str, content: bytes, mode: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, mode, dir_fd=self._descriptor)
        try:
            os.fchmod(descriptor, mode)  # whatever the umask
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def _stat(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    def _whose(self) -> str:
        try:
            values = json.loads((self.path / CONFIGURATION).read_bytes())
            return f" (thing `{values['thingName']}`, certificate {values['certificateId']})"
        except (OSError, ValueError, LookupError, TypeError):
            return ""  # a message can do without


@contextmanager
def open_directory(path: Path) -> Iterator[IdentityDirectory]:
    """Open and lock the directory `path`, which is made (mode 0700) when it is missing.

    Raises StorageRefused when it is a symbolic link, it is somebody else's, others may write to
    it, another provisioning works in it, or the operating system refuses.
    """
    with _storage(f"cannot use the directory `{path}`"):
        if not os.path.lexists(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(0o700)
            _flush(path.parent)
        if path.is_symlink():
            raise StorageRefused(f"`{path}` is a symbolic link: name the directory itself")
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        _check_owner(path, status)
        mode = status.st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StorageRefused(
                f"others may write to `{path}` (mode {stat.S_IMODE(mode):04o}), and so could "
                "replace the key: take that right away, or choose another directory"
            )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageRefused(f"another provisioning works in `{path}`") from error
        yield IdentityDirectory(path, descriptor)
    finally:
        os.close(descriptor)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise StorageRefused(
            f"`{path}` belongs to user {status.st_uid}, not to {os.geteuid()} who runs this, and "
            "its owner could replace the key: choose another directory, or become its owner"
        )


def _flush(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage(what: str) -> Iterator[None]:
    """Turn an error of the operating system into StorageRefused."""
    try:
        yield
    except OSError as error:
        raise StorageRefused(f"{what}: {error.strerror or error}") from error
