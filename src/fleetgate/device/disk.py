"""What changes a file system, one call of the operating system each, and who may own a file.

:class:`Disk` is given as an argument to what writes identities, so that a test can see the calls,
or stop the process at one of them. Paths are relative to a directory that is open as `at`.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetgate.device.errors import StorageRefused

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

_MAX_LINKS = 40


class Disk:
    """The file system as it is. All methods raise OSError."""

    def make_directory(self, at: int, path: str) -> None:
        """A new directory of mode 0700, whatever the umask."""
        os.mkdir(path, 0o700, dir_fd=at)
        descriptor = os.open(path, _OPEN_DIRECTORY, dir_fd=at)
        try:
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def create(self, at: int, path: str, mode: int) -> int:
        """A new file of `mode`, whatever the umask; it is open for writing. Its descriptor."""
        descriptor = os.open(path, _CREATE, mode, dir_fd=at)
        try:
            os.fchmod(descriptor, mode)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def change_mode(self, descriptor: int, mode: int) -> None:
        """The mode of what is open as `descriptor`."""
        os.fchmod(descriptor, mode)

    def write(self, descriptor: int, content: bytes) -> None:
        """All of `content`."""
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def flush(self, descriptor: int) -> None:
        """What was written to a file survives the loss of power when this has returned."""
        os.fsync(descriptor)

    def flush_directory(self, at: int, path: str) -> None:
        """What was made, renamed and removed in a directory survives the loss of power."""
        descriptor = os.open(path, _OPEN_DIRECTORY, dir_fd=at)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, at: int, old: str, new: str) -> None:
        """`new` is replaced, at once."""
        os.rename(old, new, src_dir_fd=at, dst_dir_fd=at)

    def link(self, at: int, target: str, path: str) -> None:
        """A symbolic link at `path`."""
        os.symlink(target, path, dir_fd=at)

    def remove(self, at: int, path: str) -> None:
        """A file or symbolic link goes."""
        os.unlink(path, dir_fd=at)

    def remove_directory(self, at: int, path: str) -> None:
        """An empty directory goes."""
        os.rmdir(path, dir_fd=at)


def open_directory(path: Path | str, at: int | None = None) -> int:
    """A descriptor of the directory `path`, which is no symbolic link. Raises OSError."""
    return os.open(path, _OPEN_DIRECTORY, dir_fd=at)


def read(at: int, name: str, path: Path, *, private: bool) -> bytes:
    """The content of the file `name`, called `path` in messages.

    Raises StorageRefused unless it is a regular file of the user who runs this, and nobody else
    may write to it; `private`: nor read it. Raises FileNotFoundError.
    """
    with told(f"cannot read `{path}`", but=FileNotFoundError):
        try:
            descriptor = os.open(name, _READ, dir_fd=at)
        except OSError as error:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise StorageRefused(f"`{path}` is not a regular file") from error
            raise
        with os.fdopen(descriptor, "rb") as stream:
            check_file(path, os.fstat(descriptor), private=private)
            return stream.read()


def check_file(path: Path, status: os.stat_result, *, private: bool) -> None:
    """Raises StorageRefused as :func:`read` does."""
    if not stat.S_ISREG(status.st_mode):
        raise StorageRefused(f"`{path}` is not a regular file")
    check_owner(path, status)
    mode = stat.S_IMODE(status.st_mode)
    if private and mode & 0o077:
        raise StorageRefused(
            f"others may read or write `{path}` (mode {mode:04o}), which holds a secret: "
            f"take that right away with `chmod 600 {path}`"
        )
    if mode & 0o022:
        raise StorageRefused(
            f"others may write to `{path}` (mode {mode:04o}): take that right away with "
            f"`chmod go-w {path}`"
        )


def check_directory(path: Path, status: os.stat_result) -> None:
    """Raises StorageRefused unless it is the user's own, and nobody else may write to it."""
    check_owner(path, status)
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        raise StorageRefused(
            f"others may write to `{path}` (mode {mode:04o}), and so could replace the key: take "
            f"that right away with `chmod go-w {path}`, or choose another directory"
        )


def check_owner(path: Path, status: os.stat_result) -> None:
    """Raises StorageRefused unless it belongs to the user who runs this."""
    if status.st_uid != os.geteuid():
        raise StorageRefused(
            f"`{path}` belongs to user {status.st_uid}, not to {os.geteuid()} who runs this, and "
            "its owner could replace the key: choose another directory, or become its owner"
        )


def exists(path: Path) -> bool:
    """Whether something is at `path`. Raises StorageRefused when that cannot be looked at."""
    with told(f"cannot use `{path}`"):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def check_above(path: Path) -> None:
    """Make sure that nobody else can put another directory into the place of `path`.

    Every directory on the way to it has to belong to root or to the user who runs this, and nobody
    else may write to it, unless its sticky bit keeps entries to their owners (as that of /tmp). So
    does OpenSSH with its StrictModes; the user's own group may write, as with Debian's. Symbolic
    links are followed, and have to belong to one of the two as well. What is not there (yet)
    is not looked at. Raises StorageRefused and OSError.
    """
    absolute = path.absolute()
    here, rest, links = Path(absolute.anchor), list(absolute.parent.parts[:0:-1]), 0
    _check_one_above(here, path)
    while rest:
        name = rest.pop()
        if name == "..":
            here = here.parent
            continue
        try:
            status = os.lstat(here / name)
        except FileNotFoundError:
            return
        if not stat.S_ISLNK(status.st_mode):
            here /= name
            _check_one_above(here, path)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        _check_owner_above(f"the link `{here / name}`", status, path)
        target = (here / name).readlink()
        here = Path(target.anchor) if target.is_absolute() else here
        rest += reversed(target.relative_to(target.anchor).parts)


def _check_one_above(directory: Path, path: Path) -> None:
    status = directory.stat()
    _check_owner_above(f"`{directory}`", status, path)
    mode = stat.S_IMODE(status.st_mode)
    denied = 0o002 if _is_own_group(status.st_gid) else 0o022
    if mode & denied and not mode & stat.S_ISVTX:
        raise StorageRefused(
            f"others may write to `{directory}` (mode {mode:04o}), and so could put another "
            f"directory into the place of `{path}`: take that right away with "
            f"`chmod go-w {directory}`, or choose another directory"
        )


def _check_owner_above(what: str, status: os.stat_result, path: Path) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise StorageRefused(
            f"{what} belongs to user {status.st_uid}, who could put another directory into the "
            f"place of `{path}`: choose one of which every directory above belongs to root or to "
            f"user {os.geteuid()} who runs this"
        )


def _is_own_group(group: int) -> bool:
    """Whether nobody but the user who runs this is in a group: it has the user's name."""
    try:
        user, own = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return (
        group == user.pw_gid and own.gr_name == user.pw_name and set(own.gr_mem) <= {user.pw_name}
    )


def check_key(path: Path) -> None:
    """As :func:`check_secret`, for a private key."""
    check_secret(path, "the private key")


def check_secret(path: Path, what: str) -> None:
    """Make sure that a secret that came from elsewhere is one, as OpenSSH does with keys.

    Who owns it must be the only one to have it; when it is somebody else's (such as root's), a
    group may read it. Symbolic links are followed, a pipe is as private as its process. What
    cannot be looked at is left to whoever reads it. `what` it is, for the message. Raises
    StorageRefused.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return
    mode = stat.S_IMODE(status.st_mode)
    denied = 0o077 if status.st_uid == os.geteuid() else 0o037
    if stat.S_ISREG(status.st_mode) and mode & denied:
        raise StorageRefused(
            f"others may read {what} `{path}` (mode {mode:04o}): take that right away with "
            f"`chmod 600 {path}` (on a file system without modes, such as FAT, by mounting it "
            "with umask=0077)"
        )


def flush_parent(path: Path) -> None:
    """That `path` was made survives the loss of power. Raises OSError."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def told(what: str, but: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turn an error of the operating system into StorageRefused, except `but`.

    So is a name that it cannot have (with a zero byte, or half a character).
    """
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise StorageRefused(f"{what}: {error.strerror or error}") from error
    except ValueError as error:
        raise StorageRefused(f"{what!a}: there is no such name: {error}") from error
