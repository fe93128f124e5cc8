"""The bounds of the HTTP door: bytes of a head, seconds of a request, connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvloop

from fleetgate.gateway.http import HttpLimits, http_server
from tests.gateway.running import log_lines

PATIENCE = 5.0
QUICK = HttpLimits(
    head_timeout=0.3, body_timeout=0.4, keep_alive_timeout=1, write_timeout=0.5, linger_timeout=0.5
)
GET = b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n"


@dataclass
class Echo:
    """An application that answers with the number of bytes it was sent."""

    requests: int = 0
    size: int = 0
    reads: bool = True
    pause: float = 0.0
    peers: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        self.peers.append(scope["client"][0])
        read = 0
        while self.reads:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            read += len(message["body"])
            if not message["more_body"]:
                break
        await asyncio.sleep(self.pause)
        body = b"%d" % read + b" " * self.size
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Door:
    """A server on a loop of its own."""

    def __init__(self, app: Echo, limits: HttpLimits, proxies: tuple[str, ...] = ()) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.server = http_server(app, grace=1, limits=limits, proxies=proxies)
        self.errors: list[dict[str, Any]] = []
        self._started = threading.Event()
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),))
        self._thread.start()
        assert self._started.wait(PATIENCE)

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()
        assert self.errors == []

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(self.address, PATIENCE)
        connection.sendall(data)
        return connection

    def __len__(self) -> int:
        return len(self.server.server_state.connections)

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        serving = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        await self.server.wait_started()
        self._started.set()
        await serving


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def open_door(echo: Echo) -> Iterator[Callable[..., Door]]:
    doors: list[Door] = []

    def make(proxies: tuple[str, ...] = (), **limits: Any) -> Door:
        doors.append(Door(echo, replace(QUICK, **limits), proxies))
        return doors[-1]

    yield make
    for door in doors:
        door.stop()


@pytest.fixture
def door(open_door: Callable[..., Door]) -> Door:
    return open_door()


def received(connection: socket.socket) -> bytes:
    """Everything the server sends until it closes."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"<reset>")
    connection.close()
    return b"".join(parts)


def answered(connection: socket.socket, body: bytes) -> None:
    """One answer of the application comes."""
    data = b""
    while not data.endswith(b"\r\n\r\n" + body):
        part = connection.recv(65536)
        assert part, data
        data += part
    assert data.startswith(b"HTTP/1.1 200"), data


def head(size: int) -> bytes:
    """A request head of `size` bytes."""
    frame = b"GET /x HTTP/1.1\r\nhost: h\r\nx: %s\r\n\r\n"
    return frame % (b"v" * (size - len(frame) + 2))


def test_a_head_of_64_kib_is_read(door: Door) -> None:
    connection = door.connect(head(65535))
    answered(connection, b"0")
    connection.close()


@pytest.mark.parametrize(
    "data",
    [
        head(70_000),
        b"GET /" + b"a" * 70_000,
        b"GET /x HTTP/1.1\r\nhost: h\r\n" + b"a:b\r\n" * 200,
        b"GET /x HTTP/1.1\r\nhost: h\r\nx: " + b"v" * 70_000,
        b"GET /x HTTP/1.1\r\n" + b"n" * 70_000,
    ],
    ids=["whole", "url", "lines", "value", "name"],
)
def test_a_head_too_large_is_refused(door: Door, echo: Echo, data: bytes) -> None:
    """RFC 6585 section 5."""
    answer = received(door.connect(data))
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"connection: close\r\n" in answer
    assert echo.requests == 0


@pytest.mark.parametrize("line", [b"v" * 65536, b"\r\nk: v" * 10000])
def test_an_endless_head_is_cut_off(door: Door, line: bytes) -> None:
    start = b"GET /x HTTP/1.1\r\nhost: h\r\nx: "
    with door.connect(start) as connection, pytest.raises(OSError):
        for _ in range(1000):
            connection.sendall(line)


@pytest.mark.parametrize("tail", [b"0\r\nx: " + b"v" * 140_000, b"3;" + b"x" * 140_000])
def test_endless_trailers_and_chunk_extensions_are_cut_off(door: Door, tail: bytes) -> None:
    request = b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    assert received(door.connect(request + tail)).startswith(b"HTTP/1.1 431 ")


def test_trailers_are_no_headers(door: Door) -> None:
    request = b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    connection = door.connect(request + b"0\r\n" + b"a:b\r\n" * 200 + b"\r\n")
    answered(connection, b"1")
    connection.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"GET /x HT", b"GET /x HTTP/1.1\r\nhost: h\r\n", b"\r\n"],
    ids=["nothing", "line", "headers", "blank"],
)
def test_a_head_has_a_deadline(door: Door, data: bytes) -> None:
    begun = time.monotonic()
    connection = door.connect(data)
    answer = received(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begun < 2


def test_a_head_that_trickles_in_has_the_same_deadline(door: Door) -> None:
    connection = door.connect()
    begun = time.monotonic()
    with pytest.raises(OSError):
        for byte in head(5000):
            connection.sendall(bytes([byte]))
            time.sleep(0.02)
    connection.close()
    assert time.monotonic() - begun < 2


def test_a_body_has_a_deadline(door: Door) -> None:
    request = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc"
    assert received(door.connect(request)).startswith(b"HTTP/1.1 408 ")


def test_an_answer_may_take_longer_than_a_request(door: Door, echo: Echo) -> None:
    echo.pause = 0.8
    connection = door.connect(GET)
    answered(connection, b"0")
    connection.close()


def test_a_connection_is_kept_alive_and_closed_when_idle(door: Door) -> None:
    connection = door.connect()
    for _ in range(3):
        connection.sendall(GET)
        answered(connection, b"0")
        time.sleep(0.4)  # more than any deadline of a request
    begun = time.monotonic()
    assert received(connection) == b""
    assert time.monotonic() - begun < 2


def test_a_request_answered_early_does_not_keep_the_connection(door: Door, echo: Echo) -> None:
    echo.reads = False
    connection = door.connect(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nabc")
    answered(connection, b"0")
    assert received(connection) == b""


def test_a_body_in_chunks_and_one_expected_are_read(door: Door) -> None:
    chunked = b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
    connection = door.connect(chunked + b"3\r\nabc\r\n" * 30_000 + b"0\r\n\r\n")
    answered(connection, b"90000")
    connection.sendall(
        b"POST /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
    )
    assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(b"abc")
    answered(connection, b"3")
    connection.sendall(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 900000\r\n\r\n")
    connection.sendall(b"a" * 900_000)
    answered(connection, b"900000")
    connection.close()


def test_an_upgrade_is_not_followed(door: Door) -> None:
    """RFC 9110 section 7.8: a server may ignore it."""
    answer = received(
        door.connect(
            b"GET /x HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nother"
        )
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"connection: close\r\n\r\n0")


def test_requests_in_advance_are_left_for_another_connection(door: Door, echo: Echo) -> None:
    """RFC 9112 section 9.3.2: a client repeats what was not answered before the close."""
    connection = door.connect()
    with contextlib.suppress(ConnectionError):  # it may be closed before all is sent
        connection.sendall(GET * 20_000)
    answer = received(connection)
    assert answer.count(b"HTTP/1.1 200 ") == echo.requests == 1
    assert b"connection: close\r\n" in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: h\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: h\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: -3\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /x HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "path", "connect", "length", "chunk", "smuggling"],
)
def test_what_is_not_http_is_refused(door: Door, data: bytes) -> None:
    assert received(door.connect(data)).startswith(b"HTTP/1.1 400 ")


BUSY = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n123"


def test_there_is_a_bound_of_connections(open_door: Callable[..., Door], echo: Echo) -> None:
    door = open_door(max_connections=3, body_timeout=PATIENCE)
    with log_lines("fleetgate.http") as lines:
        kept = [door.connect(BUSY) for _ in range(3)]
        until = time.monotonic() + PATIENCE
        while echo.requests < 3 and time.monotonic() < until:
            time.sleep(0.005)
        for _ in range(5):
            assert received(door.connect()) in {b"", b"<reset>"}
    turned = [line for line in lines if "event=turned-away" in line]
    assert len(turned) == 1
    for connection in kept:
        connection.sendall(b"45")
        answered(connection, b"5")
        connection.close()


@pytest.mark.parametrize("said", [b"", b"G", b"GET / HTTP/1.1\r\nhost", GET])
def test_who_only_waits_makes_room(open_door: Callable[..., Door], said: bytes) -> None:
    """Connections without a request keep nobody out, however many there are."""
    door = open_door(max_connections=3, head_timeout=PATIENCE)
    idle = [door.connect(said) for _ in range(3)]
    if said == GET:
        for connection in idle:
            answered(connection, b"0")
    for _ in range(2):
        with door.connect(GET) as connection:
            answered(connection, b"0")
    assert received(idle[0]) in {b"", b"<reset>"}
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("close", [b"", b"connection: close\r\n"])
def test_a_client_that_does_not_read_is_cut_off(door: Door, echo: Echo, close: bytes) -> None:
    echo.size = 50_000_000
    connection = door.connect(b"GET /x HTTP/1.1\r\nhost: h\r\n" + close + b"\r\n")
    until = time.monotonic() + PATIENCE
    while (len(door) or not echo.requests) and time.monotonic() < until:
        time.sleep(0.01)
    assert echo.requests == 1
    assert len(door) == 0
    connection.close()


def test_stopping_closes_idle_connections(open_door: Callable[..., Door]) -> None:
    door = open_door(head_timeout=PATIENCE, keep_alive_timeout=PATIENCE)
    used, fresh = door.connect(GET), door.connect()
    answered(used, b"0")
    door.server.should_exit = True
    assert received(used) == b""
    assert received(fresh) == b""


@pytest.mark.parametrize(
    ("proxies", "peer"),
    [
        ((), "127.0.0.1"),
        (("127.0.0.0/8",), "192.0.2.7"),
        (("10.0.0.0/8",), "127.0.0.1"),
    ],
)
def test_only_a_trusted_proxy_says_who_calls(
    open_door: Callable[..., Door], echo: Echo, proxies: tuple[str, ...], peer: str
) -> None:
    door = open_door(proxies)
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"
    with door.connect(request) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert echo.peers == [peer]
