"""Whose socket is at the other end: as sock_diag says it, and as the table in /proc does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from fleetgate.functions.socket_owner import Owner, Owners, sockets_of


@pytest.mark.parametrize("by_table", [False, True])
def test_the_owner_of_a_connection(by_table: bool) -> None:
    owners = Owners(by_table=by_table)
    with socket.create_server(("127.9.8.7", 0)) as listener:
        here = listener.getsockname()
        with socket.create_connection(here) as client:
            inode = os.fstat(client.fileno()).st_ino
            accepted, peer = listener.accept()
            with accepted:
                gone = ("127.0.0.1", 1)
                found = owners.of([(peer, here), (gone, here)])
            assert found == [Owner(os.geteuid(), inode), Owner(-1, 0)]
            assert inode in sockets_of(os.getpid())
            # sockets of a process are its own: descriptors are not passed on unless it says so
            command = [sys.executable, "-c", "input()"]
            with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
                assert inode not in sockets_of(other.pid)
                other.communicate(b"\n")
        assert inode not in sockets_of(os.getpid())
    owners.close()
    assert sockets_of(1 << 22) == set()


def test_without_sock_diag_the_table_is_read() -> None:
    owners = Owners()
    owners.close()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        accepted, peer = listener.accept()
        accepted.close()
        (found,) = owners.of([(peer, listener.getsockname())])
        assert found.inode == os.fstat(client.fileno()).st_ino
