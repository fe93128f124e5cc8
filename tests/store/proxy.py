"""A way to the database that can be cut at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from tests.postgresql import Cluster


class Proxy:
    """Passes bytes on between a store and a cluster.

    `cut_at(word)` lets go of the connection that sends `word` next, `times` times: the word still
    reaches the database when `deliver`, its answer never comes back. `mute()` passes nothing on
    any more and keeps the connections open.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._word = b""
        self._times = 0
        self._deliver = False
        self._mute = threading.Event()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, database: str) -> str:
        """The database's URL through the proxy."""
        port = self._listener.getsockname()[1]
        return self._cluster.url(database).replace(f":{self._cluster.port}/", f":{port}/")

    def cut_at(self, word: bytes, *, times: int = 1, deliver: bool = True) -> None:
        self._word, self._times, self._deliver = word, times, deliver

    def mute(self) -> None:
        self._mute.set()

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            for each in self._open:
                _hang_up(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._cluster.port))
                with self._lock:
                    self._open += [near, far]
                threading.Thread(target=self._up, args=(near, far), daemon=True).start()
                threading.Thread(target=self._down, args=(far, near), daemon=True).start()

    def _up(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 20):
                with self._lock:
                    cut = self._times > 0 and self._word in data
                    self._times -= cut
                if cut:
                    _hang_up(near)
                if not self._mute.is_set() and (self._deliver or not cut):
                    far.sendall(data)
                if cut:
                    # the database reads what was sent before it notices the end
                    far.shutdown(socket.SHUT_WR)
                    return
        _hang_up(far)

    def _down(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 20):
                if not self._mute.is_set():
                    near.sendall(data)
        _hang_up(near)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
