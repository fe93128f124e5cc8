"""A view of the system of their own, for the processes of uploaded code.

Theory of operation. Namespaces give what permissions do not, where the kernel lets us make them:

* A PID namespace ends at once, whatever forks in it: with its first process the kernel kills all
  others (pid_namespaces(7)). In it no process outside has a number to be signalled by.
* In a mount namespace everything is read-only. Modes, owners, attributes and times, which
  Landlock does not know, cannot be changed by path or by descriptor. Only the temporary directory
  can: it is a file system in memory that is full when it is full, also with files nobody can find,
  and is gone with the namespace.
* In a user namespace RLIMIT_NPROC counts the processes of that namespace, not those of the user.

Who is not root makes a user namespace first, in which it may make the others
(user_namespaces(7)). Containers and hardened systems refuse that; `enter` tells.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import Final

ROOT, USER = "root", "user"
"""How the namespaces were made: with privileges, or in a user namespace."""

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_SLAVE = 2, 4, 0x4000, 0x80000
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
_FILES: Final = 65_536  # in the temporary directory, directories included
_LEAST_PID_MAX: Final = 301  # that the kernel takes

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> str:
    """The next child of this process is the first one of a PID namespace.

    Returns ROOT or USER; empty where the kernel refuses, and nothing has changed. Raises OSError
    when it stops half-way.
    """
    if _libc.unshare(_CLONE_NEWPID) == 0:
        return ROOT
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID) != 0:
        return ""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib is slow to import
            file.write(text)
    return USER


def bound_processes() -> bool:
    """Gives this PID namespace as few numbers as there can be, 300; since Linux 6.14."""
    path = "/proc/sys/kernel/pid_max"
    with contextlib.suppress(OSError, ValueError):
        # before 6.14 this is the one of the whole machine, and not to be touched
        release = os.uname().release.split(".")
        if (int(release[0]), int(release[1].partition("-")[0])) >= (6, 14):
            with open(path, "w") as file:  # noqa: PTH123
                file.write(f"{_LEAST_PID_MAX}\n")
            return True
    return False


def seal(temporary: str, size: int) -> bool:
    """Makes everything read-only for this process and what it starts, but for `temporary`.

    That becomes an empty file system of `size` bytes. Returns whether the kernel let us.
    """
    nothing = struct.pack("=QQQQ", 0, 0, 0, 0)
    read_only = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    writable = struct.pack("=QQQQ", 0, _MOUNT_ATTR_RDONLY, 0, 0)
    options = f"size={size},nr_inodes={_FILES},mode=700".encode()
    where = os.fsencode(temporary)
    # what is mounted and unmounted outside is here too, so that we keep no disk busy
    return (
        _libc.unshare(_CLONE_NEWNS) == 0
        and _libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None) == 0
        # asked before anything is hidden
        and _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", 0, nothing, len(nothing)) == 0
        and _libc.mount(b"fleetgate", where, b"tmpfs", _MS_NOSUID | _MS_NODEV, options) == 0
        and _set(b"/", _AT_RECURSIVE, read_only)
        and _set(where, 0, writable)
    )


def _set(path: bytes, flags: int, attributes: bytes) -> bool:
    changed = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, flags, attributes, len(attributes))
    return int(changed) == 0
