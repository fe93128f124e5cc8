"""The runtime API: who may connect, what it answers to what it does not know, what it bounds.

Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes".
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fleetgate.functions.runtime_api import MAX_CONNECTIONS, RuntimeApi
from fleetgate.functions.socket_owner import Owners

NEXT = "/2018-06-01/runtime/invocation/next"
RESPONSE = "/2018-06-01/runtime/invocation/r/response"
MAX_ANSWER = 1000
CLIENT = """
import encodings.idna, http.client, os, sys
if sys.argv[2] != "-":
    os.setgroups([])
    os.setuid(int(sys.argv[2]))
connection = http.client.HTTPConnection(sys.argv[1], timeout=5)
try:
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    print(connection.getresponse().read().decode())
except OSError as error:
    print("turned away", isinstance(error, ConnectionError))
"""
Word = tuple[dict[str, Any], bytes]


class Served:
    """The API in a thread that does what a launcher does."""

    def __init__(self, pid: int, owners: Owners | None = None) -> None:
        self.words: list[Word] = []
        self.said = threading.Condition()
        self.api = RuntimeApi("arn:f", MAX_ANSWER, self.hear, owners)
        self.api.pid = pid
        self.offers, self.there = socket.socketpair()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while not self.api.misbehaved:
            reading, writing = self.api.wanted()
            readable, writable, _ = select.select(
                [self.there, *reading], writing, [], self.api.patience()
            )
            self.api.turn(readable, writable)
            if self.there in readable:
                request_id = self.there.recv(100).decode()
                if not request_id:
                    break
                self.api.offer({"request_id": request_id, "deadline": 1000.5}, b'{"a": 1}')
        self.api.close()

    def hear(self, word: Mapping[str, Any], body: bytes) -> None:
        with self.said:
            self.words.append((dict(word), body))
            self.said.notify()

    def heard(self, word: str) -> Word:
        """The first of these words; waits for it."""
        with self.said:
            assert self.said.wait_for(lambda: word in self.names(), 5)
        return next(each for each in self.words if each[0]["word"] == word)

    def names(self) -> list[str]:
        return [head["word"] for head, _ in self.words]

    def offer(self, request_id: str = "r") -> None:
        self.offers.send(request_id.encode())

    def connect(self) -> socket.socket:
        host, port = self.api.address.split(":")
        return socket.create_connection((host, int(port)), timeout=5)

    def close(self) -> None:
        self.offers.close()
        self.thread.join()
        self.there.close()


@contextlib.contextmanager
def serving(pid: int = 0, owners: Owners | None = None) -> Iterator[Served]:
    served = Served(pid or os.getpid(), owners)
    try:
        yield served
    finally:
        served.close()


@contextlib.contextmanager
def client(served: Served) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(served.api.address, timeout=5)
    try:
        yield connection
    finally:
        connection.close()


def asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None
) -> tuple[int, dict[str, str], Any]:
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, dict(response.headers), json.loads(response.read())


def rest(connection: socket.socket) -> bytes:
    """What comes before the end, of whichever kind it is."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            received += piece
    return received


@pytest.mark.parametrize("by_table", [False, True])
def test_an_event_and_its_answer(by_table: bool) -> None:
    with serving(owners=Owners(by_table=by_table)) as served, client(served) as connection:
        served.offer()
        status, headers, event = asked(connection, "GET", NEXT)
        assert (status, event) == (200, {"a": 1})
        trace = headers.pop("Lambda-Runtime-Trace-Id")
        assert trace.startswith("Root=1-000003e8-")
        assert headers == {
            "Content-Type": "application/json",
            "Content-Length": "8",
            "Lambda-Runtime-Aws-Request-Id": "r",
            "Lambda-Runtime-Deadline-Ms": "1000500",
            "Lambda-Runtime-Invoked-Function-Arn": "arn:f",
        }
        assert asked(connection, "POST", RESPONSE, b"[1]")[0] == 202
        assert served.words == [
            ({"word": "ready"}, b""),
            ({"word": "taken"}, b""),
            ({"word": "answered", "failed": False}, b"[1]"),
        ]


def test_an_event_that_comes_later_and_an_answer_in_chunks() -> None:
    with serving() as served, client(served) as connection:
        connection.request("GET", NEXT)
        served.heard("ready")
        served.offer()
        assert connection.getresponse().read() == b'{"a": 1}'
        assert asked(connection, "POST", RESPONSE, iter([b"[", b"1", b"]"]))[0] == 202
        assert served.heard("answered") == ({"word": "answered", "failed": False}, b"[1]")


def test_an_answer_that_is_too_large() -> None:
    with serving() as served, client(served) as connection:
        served.offer()
        asked(connection, "GET", NEXT)
        status, _, answer = asked(connection, "POST", RESPONSE, b"1" * (MAX_ANSWER + 1))
        assert (status, answer["errorType"]) == (413, "RequestEntityTooLarge")
        head, body = served.heard("answered")
        assert head["failed"]
        assert json.loads(body) == {
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": "Response payload size exceeded maximum allowed payload size "
            "(1000 bytes).",
        }


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/", 404, "NotFound"),
        ("GET", "/2018-06-01/runtime/restore/next", 404, "NotFound"),
        ("PUT", RESPONSE, 404, "NotFound"),
        ("POST", "/2018-06-01/runtime/invocation/r/answer", 404, "NotFound"),
        ("POST", "/2018-06-01/runtime/invocation/other/response", 400, "InvalidRequestID"),
        ("POST", "/2018-06-01/runtime/invocation//response", 400, "InvalidRequestID"),
        ("POST", "/2018-06-01/runtime/invocation/r/error", 202, ""),
        ("POST", "/2018-06-01/runtime/init/error", 403, "InvalidStateTransition"),
    ],
)
def test_requests_of_other_kinds(method: str, path: str, status: int, kind: str) -> None:
    with serving() as served, client(served) as connection:
        served.offer()
        asked(connection, "GET", NEXT)
        found, _, answer = asked(connection, method, path, b"no JSON")
        assert (found, answer.get("errorType", "")) == (status, kind)
        if status == 202:
            assert json.loads(served.heard("answered")[1])["errorType"] == "Runtime.Unknown"
        else:
            assert served.names() == ["ready", "taken"]


def test_a_start_is_described_once() -> None:
    with serving() as served, client(served) as connection:
        path = "/2018-06-01/runtime/init/error"
        assert asked(connection, "POST", path, b'{"errorType": "E"}')[0] == 202
        assert asked(connection, "POST", path, b'{"errorType": "F"}')[0] == 403
        assert served.words == [({"word": "init-error"}, b'{"errorType": "E"}')]


@pytest.mark.parametrize(
    "data",
    [
        b"GET\r\n\r\n",
        b"GET /a HTTP/1.1\r\n" + b"a:\r\n" * (1 << 18) + b"\r\n",
        b"GET /a HTTP/1.1\r\n\r\n" * 2,
    ],
)
def test_what_is_no_request_ends_the_connection(data: bytes) -> None:
    with serving() as served, served.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        assert rest(connection).startswith(b"HTTP/1.1 4")


def test_nobody_sends_a_request_while_one_waits() -> None:
    request = f"GET {NEXT} HTTP/1.1\r\n\r\n".encode()
    with serving() as served, served.connect() as connection:
        connection.sendall(request)
        served.heard("ready")
        connection.sendall(request)
        assert rest(connection).startswith(b"HTTP/1.1 400 ")
        # whoever asks next is given the event
        served.offer()
        with client(served) as other:
            assert asked(other, "GET", NEXT)[2] == {"a": 1}


def test_an_event_is_not_lost_with_a_connection_that_ended() -> None:
    with serving() as served:
        with served.connect() as connection:
            connection.sendall(f"GET {NEXT} HTTP/1.1\r\n\r\n".encode())
            served.heard("ready")
        served.offer()
        with client(served) as other:
            assert asked(other, "GET", NEXT)[2] == {"a": 1}


def test_the_connection_used_last_goes_first_when_there_are_too_many() -> None:
    with serving() as served, contextlib.ExitStack() as open_ones, client(served) as waiting:
        waiting.request("GET", NEXT)
        served.heard("ready")
        others = [open_ones.enter_context(served.connect()) for _ in range(MAX_CONNECTIONS)]
        # not the one that waits, though it is the oldest
        assert others[0].recv(1) == b""
        served.offer()
        assert waiting.getresponse().status == 200
        with client(served) as one_more:
            assert asked(one_more, "POST", RESPONSE, b"1")[0] == 202


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET\r\n\r\n",
        b"GET /x HTTP/1.1\r\n\r\n",
        b"POST /2018-06-01/runtime/invocation/x/response HTTP/1.1\r\n\r\n",
        f"GET {NEXT} HTTP/1.1\r\n\r\n".encode(),
    ],
)
def test_who_asks_for_nothing_all_the_time_is_told_on(data: bytes) -> None:
    with serving() as served, contextlib.ExitStack() as open_ones:
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                open_ones.enter_context(served.connect()).sendall(data)
        served.thread.join(5)
        assert served.api.misbehaved.startswith(
            "connections and requests to the runtime API that bring nothing: more than 100 at "
            "once, or 5 a second in the long run; the last: "
        )
        assert set(served.names()) <= {"ready"}


def test_who_asks_for_nothing_on_one_connection_is_told_on() -> None:
    with serving() as served, client(served) as connection:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            for _ in range(200):
                asked(connection, "GET", "/x")
        assert served.api.misbehaved.endswith("the last: `GET /x`")


def test_a_runtime_with_a_connection_for_each_request_is_no_nuisance() -> None:
    with serving() as served:
        for number in range(150):
            served.offer(str(number))
            with client(served) as connection:
                asked(connection, "GET", NEXT)
            with client(served) as connection:
                path = f"/2018-06-01/runtime/invocation/{number}/response"
                assert asked(connection, "POST", path, b"1")[0] == 202
        assert not served.api.misbehaved


def test_only_the_process_of_the_function_is_heard() -> None:
    users = ["-", "65534"] if os.geteuid() == 0 else ["-"]
    with serving() as served:
        served.offer()
        for user in users:
            other = subprocess.run(
                [sys.executable, "-c", CLIENT, served.api.address, user],
                stdout=subprocess.PIPE,
                check=False,
            )
            assert other.stdout.decode().strip() == "turned away True"
        # not even that it was there changed anything
        refused = served.heard("refused")[0]
        assert (refused["count"], refused["uid"]) == (1, os.geteuid())
        assert served.names() == ["refused"]
    # the others are told together, later
    assert sum(head["count"] for head, _ in served.words) == len(users)


def test_a_runtime_that_is_nobody_is_not_heard() -> None:
    with (
        serving(pid=1 << 22) as served,
        client(served) as connection,
        pytest.raises(ConnectionError),
    ):
        asked(connection, "GET", NEXT)


def test_strangers_do_not_keep_the_process_from_connecting() -> None:
    command = """
import socket, sys
host, port = sys.argv[1].split(":")
while True:
    found = [socket.socket() for _ in range(60)]
    for each in found:
        each.setblocking(False)
        each.connect_ex((host, int(port)))
    if len(sys.argv) == 2:
        print(flush=True)
        sys.argv.append("told")
"""
    with serving() as served:
        flood = [sys.executable, "-c", command, served.api.address]
        with subprocess.Popen(flood, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            for number in range(20):
                served.offer(str(number))
                with client(served) as connection:
                    assert asked(connection, "GET", NEXT)[0] == 200
            other.kill()
        assert not served.api.misbehaved
    # one at once, and the rest at the end
    assert served.names().count("refused") == 2


def test_each_listener_has_an_address_of_its_own() -> None:
    apis = [RuntimeApi("arn:f", MAX_ANSWER, lambda *_: None) for _ in range(4)]
    hosts = {api.address.split(":")[0] for api in apis}
    for api in apis:
        api.close()
    assert all(host.startswith("127.") for host in hosts)
    assert len(hosts) == 4
