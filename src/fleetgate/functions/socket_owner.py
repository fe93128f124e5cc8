"""Whose socket is at the other end of a connection on this machine (IPv4).

The kernel answers for one connection at a time (sock_diag(7), 6 microseconds); where it has no
such module, or it may not be asked, ``/proc/net/tcp`` is read, which has a line for every
connection of the machine. ``/proc/PID/fd`` says which sockets a process has.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

# linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _REQUEST = 4, 20, 1
_ANY_STATE = _NO_COOKIE = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")
_AT_UID = _HEADER.size + 64
"""Of struct inet_diag_msg: family and the like 4 bytes, sockets 48, three numbers 12."""

Address = tuple[str, int]


class Owner(NamedTuple):
    """Of a socket: user id (-1: not known), and the number of the socket's inode (0: none)."""

    uid: int
    inode: int


class Owners:
    """Asks the kernel; `by_table` reads ``/proc/net/tcp`` even where there is a better way."""

    def __init__(self, *, by_table: bool = False) -> None:
        self._kernel: socket.socket | None = None
        if not by_table:
            with contextlib.suppress(OSError):
                self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
                self._kernel.settimeout(1.0)

    def close(self) -> None:
        """Lets go of the kernel."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def of(self, connections: Sequence[tuple[Address, Address]]) -> list[Owner]:
        """The owners of sockets, each told by its own address and the one it is connected to."""
        try:
            return [self._asked(*each) for each in connections]
        except OSError:
            self.close()
            return _looked_up(connections)

    def _asked(self, address: Address, other: Address) -> Owner:
        if self._kernel is None:
            raise OSError
        wanted = (
            struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ANY_STATE)
            + struct.pack(">HH", address[1], other[1])
            + struct.pack("16s16s", socket.inet_aton(address[0]), socket.inet_aton(other[0]))
            + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        )
        size = _HEADER.size + len(wanted)
        self._kernel.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0) + wanted)
        answer = self._kernel.recv(1 << 12)
        kind = _HEADER.unpack_from(answer)[1]
        if kind == _SOCK_DIAG_BY_FAMILY:
            return Owner(*struct.unpack_from("=II", answer, _AT_UID))
        # an error, as a negative number
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        if number == -2:  # ENOENT: it is closed
            return Owner(-1, 0)
        raise OSError(-number, "sock_diag")


def _looked_up(connections: Sequence[tuple[Address, Address]]) -> list[Owner]:
    wanted = {f"{_hex(own)} {_hex(other)}".encode(): own for own, other in connections}
    found: dict[Address, Owner] = {}
    with contextlib.suppress(OSError), open("/proc/net/tcp", "rb") as table:  # noqa: PTH123
        for line in table:
            # number: own other state queues timer retransmits uid timeout inode ...
            own = wanted.get(line[line.find(b":") + 2 :][:27])
            if own is not None:
                words = line.split()
                found[own] = Owner(int(words[7]), int(words[9]))
    return [found.get(own, Owner(-1, 0)) for own, _ in connections]


def _hex(address: Address) -> str:
    """As the table writes it: the address as a number of this machine's byte order."""
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"


def sockets_of(pid: int) -> set[int]:
    """The inodes of a process's sockets; none of one that is gone, or another user's."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - pathlib is slow to import
            with contextlib.suppress(OSError, ValueError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - it is no path
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found
