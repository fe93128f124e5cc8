"""The filter of system calls for uploaded code (seccomp, classic BPF).

It closes what Landlock and namespaces leave open. What is refused fails as it would for want of
permission (EPERM), or on a kernel without it where programs know another way then (ENOSYS).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final, NamedTuple

# linux/prctl.h, linux/filter.h, linux/seccomp.h
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
LOAD, AND, JUMP_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
JUMP_AT_LEAST, JUMP_IF_SET = 0x35, 0x45
ALLOWED, _ERRNO = 0x7FFF0000, 0x00050000
OFFSET_NUMBER, _OFFSET_ARCHITECTURE, _OFFSET_ARGUMENTS = 0, 4, 16
_EPERM, _EACCES, ENOSYS, _EAFNOSUPPORT = 1, 13, 38, 97

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0  # getaddrinfo() and os.networkInterfaces() ask it
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*
_SHARED_ANONYMOUS = 0x21  # MAP_SHARED, MAP_ANONYMOUS
_PR_SET_CHILD_SUBREAPER = 36
_F_SETOWN, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 15, 0x8901, 0x8902


class Machine(NamedTuple):
    """The numbers of system calls of a machine."""

    architecture: int
    """AUDIT_ARCH_*"""
    second: bool
    """Whether there is a second numbering (x32)."""
    socket: int
    prlimit64: int
    clone: int
    mmap: int
    prctl: int
    fcntl: int
    ioctl: int
    refused: tuple[int, ...]
    """Reach beyond a process: capset add_key request_key keyctl setpriority ioprio_set
    sched_setparam sched_setscheduler sched_setaffinity sched_setattr unshare setns userfaultfd bpf
    perf_event_open fanotify_init setsid setpgid."""
    absent: tuple[int, ...]
    """Go past filters, or keep memory nobody counts, or tell of others: io_uring_setup clone3
    inotify_init inotify_init1 memfd_create memfd_secret, System V's shmget shmat shmctl semget
    semop semctl semtimedop msgget msgsnd msgrcv msgctl, mq_open mq_unlink."""
    changes: tuple[int, ...]
    """Of files, which Landlock does not know: chmod fchmod fchmodat fchmodat2 chown fchown lchown
    fchownat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr
    removexattrat utime utimes futimesat utimensat file_setattr."""


# where a machine has no such call, it is left out
_MACHINES: Final = {
    "x86_64": Machine(
        *(0xC000003E, True, 41, 302, 56, 9, 157, 72, 16),
        refused=(
            *(126, 248, 249, 250, 141, 251, 142, 144, 203, 314),
            *(272, 308, 323, 321, 298, 300, 112, 109),
        ),
        absent=(
            *(425, 435, 253, 294, 319, 447),
            *(29, 30, 31, 64, 65, 66, 220, 68, 69, 70, 71, 240, 241),
        ),
        changes=(
            *(90, 91, 268, 452, 92, 93, 94, 260, 188, 189, 190, 463, 197, 198, 199, 466),
            *(132, 235, 261, 280, 469),
        ),
    ),
    "aarch64": Machine(
        *(0xC00000B7, False, 198, 261, 220, 222, 167, 25, 29),
        refused=(
            *(91, 217, 218, 219, 140, 30, 118, 119, 122, 274),
            *(97, 268, 282, 280, 241, 262, 157, 154),
        ),
        absent=(
            *(425, 435, 26, 279, 447),
            *(194, 196, 195, 190, 193, 191, 192, 186, 189, 188, 187, 180, 181),
        ),
        changes=(
            *(52, 53, 452, 55, 54, 5, 6, 7, 463, 14, 15, 16, 466),
            *(88, 469),
        ),
    ),
}


def filter_program(machine: str, *, sealed: bool = False) -> bytes:
    """The filter for a machine as ``uname -m`` names it; empty for others.

    With `sealed` files are read-only by other means, and may be changed where they are not.
    """
    calls = _MACHINES.get(machine)
    if calls is None:
        return b""
    program = [
        instruction(LOAD, _OFFSET_ARCHITECTURE),
        instruction(JUMP_EQUAL, calls.architecture, 1, 0),
        instruction(RETURN, _ERRNO | ENOSYS),
        instruction(LOAD, OFFSET_NUMBER),
    ]
    if calls.second:
        program += answer(JUMP_AT_LEAST, 0x40000000, ENOSYS)
    for number in calls.absent:
        program += answer(JUMP_EQUAL, number, ENOSYS)
    for number in (*calls.refused, *(() if sealed else calls.changes)):
        program += answer(JUMP_EQUAL, number, _EPERM)
    # a process in namespaces of its own has privileges there
    program += _with(calls.clone, 0, answer(JUMP_IF_SET, _NEW_NAMESPACES, _EPERM))
    # memory that may be held without being mapped is counted nowhere
    shared = [instruction(AND, _SHARED_ANONYMOUS), *answer(JUMP_EQUAL, _SHARED_ANONYMOUS, _EPERM)]
    program += _with(calls.mmap, 3, shared)
    # orphans come to the keeper, which counts them
    program += _with(calls.prctl, 0, answer(JUMP_EQUAL, _PR_SET_CHILD_SUBREAPER, _EPERM))
    # whose descriptor it is gets its signals
    owner = [*answer(JUMP_EQUAL, _F_SETOWN, _EPERM), *answer(JUMP_EQUAL, _F_SETOWN_EX, _EPERM)]
    program += _with(calls.fcntl, 1, owner)
    owner = [*answer(JUMP_EQUAL, _FIOSETOWN, _EPERM), *answer(JUMP_EQUAL, _SIOCSPGRP, _EPERM)]
    program += _with(calls.ioctl, 1, owner)
    # prlimit64(pid, ...): of oneself, which is 0
    program += _with(calls.prlimit64, 0, _all_but([0], _EPERM))
    # socket(family, type, protocol); socketpair is another call
    netlink = [instruction(LOAD, _argument(2)), *_all_but([_NETLINK_ROUTE], _EACCES), *_ALLOW]
    families = [
        *answer(JUMP_EQUAL, _AF_UNIX, _EACCES),
        *_all_but([_AF_INET, _AF_INET6, _AF_NETLINK], _EAFNOSUPPORT),
        instruction(JUMP_EQUAL, _AF_NETLINK, 0, len(netlink)),
        *netlink,
    ]
    program += _with(calls.socket, 0, families)
    return b"".join(program + _ALLOW)


def filter_calls(*, sealed: bool) -> bool:
    """Filters the calls of this process and of what it starts, for ever; whether that is done."""
    program = filter_program(os.uname().machine, sealed=sealed)
    if not program:
        return False
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    libc = ctypes.CDLL(None)
    return int(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described, 0, 0)) == 0


def answer(test: int, value: int, errno: int) -> list[bytes]:
    """Refuses what a test is true of."""
    return [instruction(test, value, 0, 1), instruction(RETURN, _ERRNO | errno)]


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction of classic BPF (struct sock_filter)."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


_ALLOW: Final = [instruction(RETURN, ALLOWED)]


def _with(number: int, argument: int, decide: list[bytes]) -> list[bytes]:
    """What decides on a call by one of its arguments, which is loaded; else it is allowed."""
    body = [instruction(LOAD, _argument(argument)), *decide, *_ALLOW]
    return [instruction(JUMP_EQUAL, number, 0, len(body)), *body]


def _all_but(values: list[int], errno: int) -> list[bytes]:
    left = range(len(values), 0, -1)
    tests = [instruction(JUMP_EQUAL, each, n) for each, n in zip(values, left, strict=True)]
    return [*tests, instruction(RETURN, _ERRNO | errno)]


def _argument(which: int) -> int:
    """Where the lower half of an argument is; both machines are little-endian."""
    return _OFFSET_ARGUMENTS + 8 * which
