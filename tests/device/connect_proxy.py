"""An HTTP proxy that does CONNECT, for tests of clients that have to go through one."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """Tunnels lead to 127.0.0.1, `target`, whatever they are asked for; `asked` is that.

    With `user` and `password` it wants to see them; `answer` is sent instead of opening a tunnel.
    """

    port: int
    target: int
    user: str | None = None
    password: str | None = None
    answer: bytes | None = None
    asked: list[str] = field(default_factory=list)
    open_streams: list[socket.socket] = field(default_factory=list)

    def cut(self) -> None:
        """Close every tunnel at once, as a network does that goes away."""
        for stream in self.open_streams:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def serve(self, stream: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            got = stream.recv(4096)
            if not got:
                return
            head += got
        lines = head.decode().split("\r\n")
        self.asked.append(lines[0])
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if self.answer is not None:
            stream.sendall(self.answer)
            return
        if self.user is not None:
            wanted = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            if headers.get("proxy-authorization") != f"Basic {wanted}":
                stream.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                    b'Proxy-Authenticate: Basic realm="test"\r\nContent-Length: 0\r\n\r\n'
                )
                return
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            self.open_streams += [stream, server]
            stream.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(server, stream))
            back.start()
            _copy(stream, server)
            back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            to.sendall(data)
    with contextlib.suppress(OSError):
        to.shutdown(socket.SHUT_WR)


@contextmanager
def connect_proxy(
    target: int,
    *,
    user: str | None = None,
    password: str | None = None,
    answer: bytes | None = None,
) -> Iterator[ConnectProxy]:
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = ConnectProxy(listener.getsockname()[1], target, user, password, answer)
    threads = []

    def handle(stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError):
            proxy.serve(stream)

    def run() -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=handle, args=(stream,)))
            threads[-1].start()

    accepting = threading.Thread(target=run)
    accepting.start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listener.close()
        proxy.cut()
        for thread in threads:
            thread.join()
