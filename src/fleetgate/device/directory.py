"""The directory of an identity, while a journey writes to it.

What is in it is described in :mod:`fleetgate.device.identity`. Every file is written to a temporary
name, flushed to disk, and renamed, and then its directory is flushed: after a power cut it is there
whole or not at all, and what is written later is never there without what was written before.

The directory is opened once and all names are resolved inside it, so no symbolic link leads
elsewhere; a lock on it keeps a second journey out. It and what is in it have to belong to the user
who runs this, and nobody else may write to it: who may could replace the key, or plant an identity.
Nor may anybody else write to the directories above it (:func:`fleetgate.device.disk.check_above`).
What is not one of the names of an identity directory is somebody else's, and not touched.
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

from fleetgate.device import disk, identity
from fleetgate.device import journal as journals
from fleetgate.device.disk import Disk
from fleetgate.device.errors import StorageRefused
from fleetgate.device.journal import Journal

_MODES = {
    identity.PRIVATE_KEY: 0o600,
    identity.CERTIFICATE: 0o644,
    identity.CA: 0o644,
    identity.CONFIGURATION: 0o600,
    identity.JOURNAL: 0o600,
}
_NAMES = "|".join(map(re.escape, [*_MODES, identity.CURRENT]))
_TEMPORARY = re.compile(rf"\.(?:{_NAMES})\.[0-9a-f]{{16}}\.tmp", re.ASCII)


class IdentityDirectory:
    """The open, locked directory `path`; made by :func:`open_directory`.

    Every method raises StorageRefused when the operating system refuses.
    """

    def __init__(self, path: Path, descriptor: int, calls: Disk) -> None:
        self.path = path
        self._at = descriptor
        self._disk = calls

    # --- what is there ---

    def check(self, strangers: Iterable[Path]) -> None:
        """Make sure that a journey may write here, and clear temporary files away.

        `strangers` are files that must survive: those of the claim. Raises StorageRefused.
        """
        with disk.told(f"cannot use the directory `{self.path}`"):
            names = set(_names(self._at))
            for name in identity.FILES:
                self._check_link(name)
            numbers = self._check_identities()
            current = identity.current(self._at, self.path)
            if current is not None and current not in numbers:
                raise StorageRefused(
                    f"`{self.path / identity.CURRENT}` leads to "
                    f"`{identity.name_of(current)}`, which is missing"
                )
            if numbers and current is None and identity.JOURNAL not in names:
                raise StorageRefused(
                    f"`{self.path / identity.name_of(numbers[0])}` is there already, and neither "
                    "is it in use nor from a provisioning that was interrupted: choose another "
                    "directory, or move it away"
                )
            self._check_strangers(strangers)
            for folder in self._folders():
                self._clear(folder)

    def journal(self) -> Journal | None:
        """The journal of an unfinished journey, or None. Raises StorageRefused when damaged."""
        path = self.path / identity.JOURNAL
        try:
            content = disk.read(self._at, identity.JOURNAL, path, private=True)
        except FileNotFoundError:
            return None
        try:
            return journals.parse(content)
        except journals.Damaged as error:
            where = f"`{error}` in `{path}`" if str(error) else f"`{path}`"
            raise StorageRefused(
                f"{where} is damaged, or of a later version of this program: abandon what was "
                "begun by removing this file and every identity directory but the one that "
                f"`{identity.CURRENT}` points at"
            ) from error

    def current(self) -> int | None:
        """The number of the active identity."""
        with disk.told(f"cannot read `{self.path / identity.CURRENT}`"):
            return identity.current(self._at, self.path)

    def next_number(self) -> int:
        """A number that no identity here has."""
        return max([*self._numbers(), 0]) + 1

    def file(self, number: int, name: str) -> Path:
        """The path of a file of an identity."""
        return self.path / identity.name_of(number) / name

    def read(self, number: int, name: str) -> bytes | None:
        """The content of a file of an identity, None when there is none."""
        inside = f"{identity.name_of(number)}/{name}"
        try:
            return disk.read(
                self._at, inside, self.path / inside, private=name == identity.PRIVATE_KEY
            )
        except FileNotFoundError:
            return None

    # --- what is done ---

    def write_journal(self, journal: Journal) -> None:
        """Remember `journal`, durably and at once."""
        content = journals.dump(journal).encode("utf-8")
        self._write(".", {identity.JOURNAL: content})

    def make(self, number: int) -> None:
        """The directory of the identity `number`, unless it is there."""
        name = identity.name_of(number)
        with disk.told(f"cannot make `{self.path / name}`"):
            with suppress(FileExistsError):
                self._disk.make_directory(self._at, name)
            self._disk.flush_directory(self._at, ".")

    def write(self, number: int, files: Mapping[str, str | bytes]) -> None:
        """Put files into the identity `number`, durably and each at once."""
        content = {
            name: each.encode("utf-8") if isinstance(each, str) else each
            for name, each in files.items()
        }
        self._write(identity.name_of(number), content)

    def write_configuration(self, number: int, values: Mapping[str, Any]) -> None:
        """Put ``config.json`` into the identity `number`."""
        text = json.dumps(values, ensure_ascii=False, indent=2) + "\n"
        self.write(number, {identity.CONFIGURATION: text})

    def switch(self, number: int) -> None:
        """Make the identity `number` the active one, in one step."""
        with disk.told(f"cannot switch `{self.path / identity.CURRENT}`"):
            missing = []
            for name in identity.FILES:
                if not self._exists(f"{identity.name_of(number)}/{name}"):
                    missing.append(name)
                    continue
                with suppress(FileExistsError):
                    self._disk.link(self._at, f"{identity.CURRENT}/{name}", name)
            temporary = _temporary(identity.CURRENT)
            self._disk.link(self._at, identity.name_of(number), temporary)
            self._disk.rename(self._at, temporary, identity.CURRENT)
            self._disk.flush_directory(self._at, ".")
            for name in missing:  # a link that leads nowhere would look like a fault
                with suppress(FileNotFoundError):
                    self._disk.remove(self._at, name)

    def remove_identities(self, *, but: Iterable[int | None]) -> None:
        """Take all identities away, except some and the active one."""
        kept = {*but, self.current()}
        with disk.told(f"cannot remove an identity in `{self.path}`"):
            for number in self._numbers():
                if number not in kept:
                    self._remove(identity.name_of(number))

    def forget_journal(self, *, switched: bool = False) -> None:
        """Take the journal away: the journey is over.

        When `current` was `switched` to its identity, a journal that comes back after a loss of
        power is one that is over, and known for that: then the flush may fail.
        """
        with disk.told(f"cannot remove `{self.path / identity.JOURNAL}`"):
            with suppress(FileNotFoundError):
                self._disk.remove(self._at, identity.JOURNAL)
            with suppress(*([OSError] if switched else [])):
                self._disk.flush_directory(self._at, ".")

    # --- how it is done ---

    def _write(self, folder: str, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            with disk.told(f"cannot write `{self.path / folder / name}`"):
                self._write_file(folder, name, content)
        with disk.told(f"cannot flush `{self.path / folder}`"):
            self._disk.flush_directory(self._at, folder)

    def _write_file(self, folder: str, name: str, content: bytes) -> None:
        temporary = f"{folder}/{_temporary(name)}"
        try:
            descriptor = self._disk.create(self._at, temporary, _MODES[name])
            try:
                self._disk.write(descriptor, content)
                self._disk.flush(descriptor)
            finally:
                os.close(descriptor)
            self._disk.rename(self._at, temporary, f"{folder}/{name}")
        except BaseException:
            with suppress(OSError):
                self._disk.remove(self._at, temporary)
            raise

    def _remove(self, folder: str) -> None:
        self._clear(folder)
        for name in identity.FILES:
            with suppress(FileNotFoundError):
                self._disk.remove(self._at, f"{folder}/{name}")
        with suppress(OSError):  # somebody else has put something into it
            self._disk.remove_directory(self._at, folder)

    def _clear(self, folder: str) -> None:
        for name in self._temporaries(folder):
            self._disk.remove(self._at, f"{folder}/{name}")

    def _temporaries(self, folder: str) -> list[str]:
        """What a former run has left there."""
        descriptor = disk.open_directory(folder, self._at)
        try:
            return [name for name in _names(descriptor) if _TEMPORARY.fullmatch(name)]
        finally:
            os.close(descriptor)

    def _folders(self) -> list[str]:
        return [".", *map(identity.name_of, self._numbers())]

    def _numbers(self) -> list[int]:
        with disk.told(f"cannot use the directory `{self.path}`"):
            found = map(identity.number_of, _names(self._at))
            return sorted(each for each in found if each is not None)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._at, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _check_link(self, name: str) -> None:
        """What is called as a file of an identity has to be our link to it."""
        wanted = f"{identity.CURRENT}/{name}"
        try:
            target = os.readlink(name, dir_fd=self._at)
        except FileNotFoundError:
            return
        except OSError:
            target = None
        if target != wanted:
            raise StorageRefused(
                f"`{self.path / name}` is there already, and not a link to `{wanted}`: choose "
                "another directory, or move it away"
            )

    def _check_identities(self) -> list[int]:
        numbers = self._numbers()
        for number in numbers:
            home = self.path / identity.name_of(number)
            try:
                descriptor = disk.open_directory(home.name, self._at)
            except OSError as error:
                raise StorageRefused(f"`{home}` is not a directory") from error
            try:
                disk.check_directory(home, os.fstat(descriptor))
                for name in identity.FILES:
                    with suppress(FileNotFoundError):
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                        private = name == identity.PRIVATE_KEY
                        disk.check_file(home / name, status, private=private)
            finally:
                os.close(descriptor)
        return numbers

    def _check_strangers(self, strangers: Iterable[Path]) -> None:
        """A file of the claim may lie here, but not where a journey writes or removes."""
        ours = [self.path / identity.JOURNAL]
        ours += [self.file(number, name) for number in self._numbers() for name in identity.FILES]
        for folder in self._folders():
            ours += [self.path / folder / name for name in self._temporaries(folder)]
        for stranger in strangers:
            for each in ours:
                with suppress(FileNotFoundError, ValueError):
                    if os.path.samestat(stranger.stat(), each.lstat()):
                        raise StorageRefused(
                            f"`{stranger}` would be overwritten: choose another directory"
                        )


@contextmanager
def open_directory(path: Path, calls: Disk) -> Iterator[IdentityDirectory]:
    """Open and lock the directory `path`, which is made (mode 0700) when it is missing.

    One that is empty is made so, too; another keeps its own. Raises StorageRefused when it is a
    symbolic link, it is somebody else's, others may write to it or put another one into its place,
    another provisioning works in it, or the operating system refuses.
    """
    with disk.told(f"cannot use the directory `{path}`"):
        disk.check_above(path)
        _make(path)
        disk.check_above(path)  # some of it may be new, and not made here
        if path.is_symlink():
            raise StorageRefused(f"`{path}` is a symbolic link: name the directory itself")
        descriptor = disk.open_directory(path)
    try:
        disk.check_owner(path, os.fstat(descriptor))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageRefused(f"another provisioning works in `{path}`") from error
        _keep_to_owner(path, descriptor, calls)
        disk.check_directory(path, os.fstat(descriptor))
        yield IdentityDirectory(path, descriptor, calls)
    finally:
        os.close(descriptor)


def _keep_to_owner(path: Path, descriptor: int, calls: Disk) -> None:
    """Take everybody else's rights away from an empty directory, as from one made here.

    With something in it others may have their reasons to read it; what is secret has its own mode.
    Whoever could write to it may put something into it until the mode is changed: then it is not
    what it seemed, and gets its mode back.
    """
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o077 and not _names(descriptor):
        with disk.told(f"cannot change the mode of `{path}`"):
            calls.change_mode(descriptor, mode & ~0o077)
            if _names(descriptor):
                calls.change_mode(descriptor, mode)


def _make(path: Path) -> None:
    if os.path.lexists(path):
        return
    if path.parent != path:
        _make_parent(path.parent)
    with suppress(FileExistsError):
        path.mkdir(0o700)
        path.chmod(0o700)  # whatever the umask
    disk.flush_parent(path)


def _make_parent(path: Path) -> None:
    if os.path.lexists(path):
        return
    _make_parent(path.parent)
    with suppress(FileExistsError):
        path.mkdir(0o755)  # with any umask it is not for others to write to
    disk.flush_parent(path)


def _temporary(name: str) -> str:
    return f".{name}.{secrets.token_hex(8)}.tmp"


def _names(descriptor: int) -> list[str]:
    with os.scandir(descriptor) as entries:
        return sorted(entry.name for entry in entries)
