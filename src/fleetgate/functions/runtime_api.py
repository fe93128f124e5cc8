"""Lambda's runtime API, as the runtime of one process sees it. Served by the launcher.

Theory of operation. A runtime is a client: it asks for the next event, which is answered when
there is one, and posts what came of it. Events hold certificates and serial numbers, answers
decide, and the code of functions is hostile at times. Four rules follow:

* It is not the server that listens but the launcher of the process (functions/launcher.py). What a
  function sends costs its own launcher; the server hears of an answer once for each event.
* Only the process that was started is heard. The kernel says whose socket is at the other end, as
  soon as there is a connection; others are closed at once and count for nothing.
* Nobody else finds the listener either: each has an address of its own on the loopback network,
  one of 16 million, and functions cannot ask the kernel who listens where.
* A runtime makes two requests for an event. Connections and requests that are for nothing are
  paid from a small account, which useful ones fill up; a process that has spent it is ended.

Everything is done in the launcher's one thread, a piece at a time: a turn reads once from each
connection, of which there are four at most.

Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes", version
2018-06-01.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from fleetgate.functions.runtime_http import CONTINUE, Reading, Refused, Request, response
from fleetgate.functions.socket_owner import Owners, sockets_of

PREFIX: Final = "/2018-06-01/runtime/"

MAX_ERROR: Final = 1 << 18
"""Bytes of the description of an error."""

REQUEST_SECONDS: Final = 30.0
"""For a request to be complete, once it began: a runtime sends it at once."""

MAX_CONNECTIONS: Final = 4
"""At a time; a runtime has one or two."""

ACCOUNT: Final = 100.0
"""What a process may spend on nothing: connections, requests that bring nothing, 4 MiB of a body
that is thrown away cost 1 each, what is no request costs 20 ..."""

INCOME: Final = 5.0
"""... of which so many come back a second..."""

_REFUSED = 20.0
_USEFUL = 3.0  # ... and so many for each event that is taken, and each answer
_THROWN_AWAY = 1 << 22
_PIECE = 1 << 18
_AT_ONCE = 64  # connections that are accepted in a turn
_BACKLOG = 1024  # the process that is waited for stands in line with whoever else connects
_TELL_SECONDS = 10.0  # between two times it is told who was turned away
_ABORT = struct.pack("ii", 1, 0)  # struct linger: close() resets the connection


def described(kind: str, message: str) -> bytes:
    """Lambda's JSON for an error that is not the function's own."""
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class RuntimeApi:
    """The listener of one process; `tell` sends a word and bytes to the server.

    `pid` is the process that may connect: set when it is known. `misbehaved` says why the process
    is to be ended, once it is.
    """

    def __init__(
        self,
        arn: str,
        max_answer: int,
        tell: Callable[[Mapping[str, Any], bytes], None],
        owners: Owners | None = None,
    ) -> None:
        self.pid = 0
        self.misbehaved = ""
        self._arn = arn
        self._max_answer = max_answer
        self._tell = tell
        self._owners = owners or Owners()
        self._listener = _listener()
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        self._connections: list[_Connection] = []
        self._waiting: _Connection | None = None
        self._is_ready = False
        self._described = False
        self._offered: tuple[Mapping[str, Any], bytes] | None = None
        self._current = ""
        self._account = ACCOUNT
        self._counted = time.monotonic()
        self._refused = 0
        self._refused_last: tuple[str, int] = ("", -1)
        self._told_refused = -_TELL_SECONDS

    def close(self) -> None:
        """Ends all connections."""
        self._tell_refused(time.monotonic(), at_once=True)
        for connection in list(self._connections):
            self._drop(connection)
        self._listener.close()
        self._owners.close()

    def offer(self, head: Mapping[str, Any], event: bytes) -> None:
        """Gives the runtime an event: now, or as soon as it asks. There is one at a time.

        `head` has `request_id`, and `deadline` in seconds since 1970.
        """
        self._offered = (head, event)
        self._hand_over()

    # --- the loop of the launcher -----------------------------------------------------------------

    def wanted(self) -> tuple[list[_Connection | socket.socket], list[_Connection]]:
        """What is waited for: to be readable, and to be writable."""
        writing = [each for each in self._connections if each.unsent]
        reading = [each for each in self._connections if not each.unsent]
        return [self._listener, *reading], writing

    def patience(self) -> float | None:
        """Seconds after which there is something to do in any case; None for never."""
        has_begun = any(each.deadline is not None for each in self._connections)
        return 1.0 if has_begun or self._refused else None

    def turn(self, readable: list[Any], writable: list[Any]) -> None:
        """Does what can be done for those that are ready."""
        now = time.monotonic()
        for connection in list(self._connections):
            if connection in writable:
                self._send(connection)
            elif connection in readable:
                self._receive(connection, now)
            elif connection.deadline is not None and now > connection.deadline:
                self._drop(connection)
        if self._listener in readable:
            self._accept(now)
        self._tell_refused(now)

    # --- connections ------------------------------------------------------------------------------

    def _accept(self, now: float) -> None:
        arrived: list[tuple[socket.socket, tuple[str, int]]] = []
        with contextlib.suppress(OSError):
            while len(arrived) < _AT_ONCE:
                arrived.append(self._listener.accept())
        if not arrived:
            return
        here = self._listener.getsockname()
        owners = self._owners.of([(peer, here) for _, peer in arrived])
        own = sockets_of(self.pid) if self.pid else set()
        for (sock, peer), owner in zip(arrived, owners, strict=True):
            if owner.inode and owner.inode in own:
                self._begin(sock, now)
                continue
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            sock.close()
            # one that is gone again says nothing of who it was
            self._refused += 1
            self._refused_last = (f"{peer[0]}:{peer[1]}", owner.uid)

    def _begin(self, sock: socket.socket, now: float) -> None:
        self._pay(1, "a connection")
        if len(self._connections) >= MAX_CONNECTIONS:
            idle = [each for each in self._connections if each is not self._waiting]
            self._drop(min(idle, key=lambda each: each.used))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.append(_Connection(sock, Reading(self._limit), now))

    def _drop(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        if self._waiting is connection:
            self._waiting = None
        connection.sock.close()

    def _receive(self, connection: _Connection, now: float) -> None:
        connection.used = now
        try:
            data = connection.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            if connection is self._waiting:
                raise Refused(400, "a request before the one before was answered")
            request = connection.reading.feed(data)
        except Refused as refusal:
            self._pay(_REFUSED, f"one that is refused: {refusal}")
            if connection is self._waiting:
                self._waiting = None
            connection.last = True
            self._answer(connection, refusal.status, described("BadRequest", str(refusal)))
            return
        reading = connection.reading
        if request is None:
            connection.deadline = connection.deadline or now + REQUEST_SECONDS
            if reading.expects:
                reading.expects = False
                with contextlib.suppress(OSError):
                    connection.sock.send(CONTINUE)
            return
        connection.deadline = None
        connection.reading = Reading(self._limit)
        self._serve(connection, request)

    def _send(self, connection: _Connection) -> bool:
        """Sends what can be sent; returns whether the other end is there."""
        try:
            count = connection.sock.send(connection.unsent)
        except BlockingIOError:
            return True
        except OSError:
            self._drop(connection)
            return False
        connection.unsent = connection.unsent[count:]
        if not connection.unsent and connection.last:
            self._drop(connection)
        return True

    def _answer(self, connection: _Connection, status: int, body: bytes) -> None:
        headers = [("Content-Type", "application/json")]
        answer = response(status, headers, body, keep=not connection.last)
        connection.unsent = memoryview(answer)
        self._send(connection)

    def _pay(self, cost: float, what: str) -> None:
        now = time.monotonic()
        self._account = min(ACCOUNT, self._account + (now - self._counted) * INCOME)
        self._counted = now
        self._account -= cost
        if self._account < 0 and not self.misbehaved:
            self.misbehaved = (
                f"connections and requests to the runtime API that bring nothing: more than "
                f"{ACCOUNT:g} at once, or {INCOME:g} a second in the long run; the last: {what}"
            )

    def _tell_refused(self, now: float, *, at_once: bool = False) -> None:
        if self._refused and (at_once or now >= self._told_refused + _TELL_SECONDS):
            peer, uid = self._refused_last
            word = {"word": "refused", "count": self._refused, "peer": peer, "uid": uid}
            self._refused = 0
            self._told_refused = now
            self._tell(word, b"")

    # --- the API ----------------------------------------------------------------------------------

    def _serve(self, connection: _Connection, request: Request) -> None:
        connection.last = not request.keep
        if request.method == "GET" and request.path == PREFIX + "invocation/next":
            self._next(connection)
        elif request.method == "POST" and request.path.startswith(PREFIX):
            if request.body is None:
                self._pay(request.size / _THROWN_AWAY, "a body that is too large")
            status, answer = self._take(request.path, request.body)
            self._answer(connection, status, answer)
        else:
            self._answer(connection, *self._unknown(f"{request.method} {request.path[:100]}"))

    def _next(self, connection: _Connection) -> None:
        if self._waiting is not None:
            # who asks again no longer waits the first time
            self._pay(1, "another one for the next event")
            self._drop(self._waiting)
        self._waiting = connection
        if not self._is_ready:
            self._is_ready = True
            self._tell({"word": "ready"}, b"")
        self._hand_over()

    def _hand_over(self) -> None:
        connection = self._waiting
        if self._offered is None or connection is None:
            return
        head, event = self._offered
        self._waiting = None
        answer = response(200, self._headers(head), event, keep=not connection.last)
        connection.unsent = memoryview(answer)
        if self._send(connection):
            self._offered, self._current = None, head["request_id"]
            self._account = min(ACCOUNT, self._account + _USEFUL)
            self._tell({"word": "taken"}, b"")

    def _headers(self, head: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What an event comes with."""
        request_id, deadline = head["request_id"], head["deadline"]
        trace = f"Root=1-{int(deadline):08x}-{request_id.replace('-', '')}"
        return [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", request_id),
            ("Lambda-Runtime-Deadline-Ms", str(int(deadline * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", self._arn),
            ("Lambda-Runtime-Trace-Id", f"{trace[:35]};Sampled=0"),
        ]

    def _limit(self, method: str, path: str) -> int:
        """How many bytes the body of a request may have."""
        if method != "POST" or not path.startswith(PREFIX):
            return 0
        return self._max_answer if path.endswith("/response") else MAX_ERROR

    def _take(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Takes a POST; `body` is None when it was over the limit. Returns status and answer."""
        if path == PREFIX + "init/error":
            if self._is_ready or self._described:
                self._pay(1, "an error of a start that is over")
                return 403, described("InvalidStateTransition", "the function is initialised")
            self._described = True
            self._tell({"word": "init-error"}, _as_error(body))
            return 202, b'{"status":"OK"}'
        request_id, _, kind = path.removeprefix(PREFIX + "invocation/").rpartition("/")
        if kind not in ("response", "error") or not path.startswith(PREFIX + "invocation/"):
            return self._unknown(f"POST {path[:100]}")
        if not self._current or request_id != self._current:
            self._pay(1, "the answer to an event that there is not")
            return 400, described("InvalidRequestID", "Invalid request ID")
        self._current = ""
        self._account = min(ACCOUNT, self._account + _USEFUL)
        if kind == "error":
            self._tell({"word": "answered", "failed": True}, _as_error(body))
        elif body is None:
            rule = f"exceeded maximum allowed payload size ({self._max_answer} bytes)."
            too_large = described("Function.ResponseSizeTooLarge", f"Response payload size {rule}")
            self._tell({"word": "answered", "failed": True}, too_large)
        else:
            self._tell({"word": "answered", "failed": False}, body)
        if body is None:
            rule = f"Exceeded maximum allowed payload size ({self._max_answer} bytes)."
            return 413, described("RequestEntityTooLarge", rule)
        return 202, b'{"status":"OK"}'

    def _unknown(self, what: str) -> tuple[int, bytes]:
        self._pay(1, f"`{what}`")
        return 404, described("NotFound", "there is no such path in the runtime API")


class _Connection:
    """One connection of the runtime, with a request after the other."""

    __slots__ = ("deadline", "last", "reading", "sock", "unsent", "used")

    def __init__(self, sock: socket.socket, reading: Reading, now: float) -> None:
        self.sock = sock
        self.reading = reading
        self.used = now
        self.unsent = memoryview(b"")
        self.last = False
        """Whether it ends when everything is sent."""
        self.deadline: float | None = None
        """For the request that has begun."""

    def fileno(self) -> int:
        """For select()."""
        return self.sock.fileno()


def _listener() -> socket.socket:
    """Listens on an address of its own: all of 127.0.0.0/8 is loopback (RFC 1122, 3.2.1.3)."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    first, second, third = os.urandom(3)
    try:
        listener.bind((f"127.{first}.{second}.{max(1, min(third, 254))}", 0))
    except OSError:
        # where loopback is the one address alone
        listener.bind(("127.0.0.1", 0))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def _as_error(body: bytes | None) -> bytes:
    """What a runtime said of an error, if it is a JSON object as Lambda has it."""
    if body is not None:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(body), dict):
                return body
    return described("Runtime.Unknown", "the runtime did not describe the error as a JSON object")
