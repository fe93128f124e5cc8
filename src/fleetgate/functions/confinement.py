"""What a function may reach: Landlock, a system call filter, no capabilities.

Theory of operation. A function runs as the same user as the server, so that file permissions do
not keep it from the server's keys and database. Three things of Linux that need no privileges do,
beside namespaces (functions/namespaces.py):

* Landlock (since 5.13; docs.kernel.org/userspace-api/landlock.html) is an allow-list of
  directories. It also keeps its processes from tracing others, which is what reading
  ``/proc/PID/environ`` or ``mem`` takes. From ABI 6 on it keeps their signals and abstract sockets
  to themselves.
* A seccomp filter (functions/system_calls.py) refuses what Landlock does not know: to connect to
  Unix sockets (the D-Bus of the user, Docker and PostgreSQL trust whoever has the right uid),
  limits and priorities of other processes, the kernel's keyrings, and changes of modes, owners and
  times where nothing else keeps them. io_uring goes past such filters and does not exist for
  functions.
* Where the server is root, its processes have no capability left.

An allow-list cannot say "all but this directory". `_allow` says it by allowing what lies beside
the directory, on each level on the way to it.

This runs in a fork of the launcher that becomes the runtime: it is alone in its process, imports
the standard library only, and little of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Sequence

from fleetgate.functions.system_calls import filter_calls

NEWEST_ABI = 7
"""Of Landlock; a newer kernel is used as this one."""

# linux/landlock.h
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1, 2
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16}
"""ABI -> how many rights on files it knows; they are bits from 0 on."""
_FOR_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR

# linux/prctl.h, linux/capability.h
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS = 4, 24, 28, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_NOROOT_LOCKED = 0b11
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def guard() -> None:
    """Keeps processes of the same user from reading this one's memory and environment.

    The process becomes one that cannot be dumped or traced (prctl(2), PR_SET_DUMPABLE).
    """
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def landlock_abi() -> int:
    """The version of the kernel's Landlock; 0 where there is none."""
    return max(int(_libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)), 0)


def confine(
    read: Sequence[str],
    write: Sequence[str],
    hidden: Sequence[str],
    *,
    whole: bool,
    sealed: bool = False,
    separate: bool = False,
) -> list[str]:
    """Confines this process, and what it starts, for ever; returns what could not be done.

    `read` are files and directories that may be read and executed, `write` those that may be
    changed as well. Nothing of `hidden` may be reached, unless `read` or `write` name something
    inside. With `whole` everything else may be reached as by any process of the user, Unix sockets
    included. `sealed` and `separate` say that what may not be written is read-only, and that no
    process outside can be named (functions/namespaces.py). Paths are real ones; those that do not
    exist are left out. Raises OSError when the kernel refuses what it said it offers.
    """
    missing = []
    _drop_capabilities()
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    abi = min(landlock_abi(), NEWEST_ABI)
    if abi == 0:
        missing.append("landlock")
    else:
        if abi < 6 and not separate:
            missing.append("landlock-signals")
        _landlock(abi, read, write, hidden, whole=whole)
    # where everything may be reached, Unix sockets may be
    if not whole and not filter_calls(sealed=sealed):
        missing.append("seccomp")
    return missing


# --- Landlock -------------------------------------------------------------------------------------


def _landlock(
    abi: int, read: Sequence[str], write: Sequence[str], hidden: Sequence[str], *, whole: bool
) -> None:
    every = (1 << _RIGHTS[abi]) - 1
    scoped = 0
    if abi >= 6:
        scoped = _SCOPE_SIGNAL if whole else _SCOPE_SIGNAL | _SCOPE_ABSTRACT_UNIX_SOCKET
    # handled_access_fs, handled_access_net, scoped: as many as the ABI knows
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("=QQQ", every, 0, scoped)[:size]
    ruleset = _check(_libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    try:
        without_devices = every & ~_MAKE_CHAR & ~_MAKE_BLOCK
        if whole:
            _allow(ruleset, "/", without_devices, hidden)
            # names alone, but of the ancestors of what is hidden too: Python's import lists them
            _add_rule(ruleset, "/", _READ_DIR)
        for path in read:
            _allow(ruleset, path, _READ, hidden)
        for path in write:
            _allow(ruleset, path, without_devices, hidden)
        _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int, hidden: Iterable[str]) -> None:
    """Allows a file or directory, but for those that are `hidden`."""
    if path in hidden:
        return
    inside = [each for each in hidden if each.startswith(path.rstrip("/") + "/")]
    if not inside:
        _add_rule(ruleset, path, rights)
        return
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_symlink():
                _allow(ruleset, entry.path, rights, inside)


def _add_rule(ruleset: int, path: str, rights: int) -> None:
    try:
        where = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - pathlib is slow to import
            rights &= _FOR_FILES
        beneath = struct.pack("=Qi", rights, where)
        result = _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, beneath, 0)
        # files of some kernel file systems (pipefs, nsfs) cannot be in a rule: not reached, then
        if result and ctypes.get_errno() not in (9, 77):
            _check(result, f"landlock_add_rule {path}")
    finally:
        os.close(where)


# --- privileges ---------------------------------------------------------------------------------


def _drop_capabilities() -> None:
    """Gives up what root may beyond other users, for programs started later too.

    All but the last fail where there is nothing to give up.
    """
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            break
    _libc.prctl(_PR_SET_SECUREBITS, _NOROOT_LOCKED, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return int(result)
