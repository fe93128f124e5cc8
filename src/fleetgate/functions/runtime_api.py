"""Lambda's runtime API, as the runtime of one process sees it.

Theory of operation. A runtime is a client: it asks for the next event, which is answered when
there is one, and posts what came of it. Each process has a listener of its own on a loopback
address, so that who asks is who was started. Events hold certificates and serial numbers, and
answers decide: a connection is served only when its other end belongs to the very process that
was started. The kernel says which socket it is (``/proc/net/tcp``) and whose
(``/proc/PID/fd``); another user's process, or another function's, is turned away unheard.

Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes", version
2018-06-01.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h11

from fleetgate.functions.target import MAX_ANSWER

log = logging.getLogger("fleetgate.functions")

PREFIX: Final = "/2018-06-01/runtime/"

MAX_ERROR: Final = 1 << 18
"""Bytes of the description of an error."""

HEAD_SECONDS: Final = 30.0
"""For a request to be complete, once it began: a runtime sends it at once."""

_MAX_CONNECTIONS: Final = 32  # a runtime has one or two
_MAX_HEAD: Final = 1 << 21  # awslambdaric puts up to 1 MiB of stack trace in a header
_THROWN_AWAY: Final = 1 << 28  # read of an answer that is too large, so that the runtime hears so


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an event: the answer, or Lambda's description of an error."""

    payload: bytes
    failed: bool


@dataclass(frozen=True, slots=True)
class Invocation:
    """An event for the runtime; `deadline` is in seconds since 1970."""

    request_id: str
    event: bytes
    deadline: float
    outcome: asyncio.Future[Outcome]


def described(kind: str, message: str) -> bytes:
    """Lambda's JSON for an error that is not the function's own."""
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class RuntimeApi:
    """The listener of one process.

    `ready` is done when the runtime first asks for an event; `init_error` is how it described
    why it cannot. `pid` is the process that may connect: set when it is known.
    """

    def __init__(self, name: str, arn: str) -> None:
        self._name = name
        self._arn = arn
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._waiting: asyncio.Future[Invocation] | None = None
        self._offered: Invocation | None = None
        self._current: Invocation | None = None
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.pid: asyncio.Future[int] = loop.create_future()
        self.init_error: bytes | None = None

    async def start(self) -> str:
        """Begins to listen; returns ``127.0.0.1:PORT``."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    @property
    def is_offered(self) -> bool:
        """Whether an event was not taken yet."""
        return self._offered is not None

    def offer(self, invocation: Invocation) -> None:
        """Gives the runtime an event: now, or as soon as it asks. There is one at a time."""
        self._offered = invocation
        self._hand_over()

    async def close(self) -> None:
        """Ends all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _hand_over(self) -> None:
        waiting = self._waiting
        if self._offered is not None and waiting is not None and not waiting.done():
            self._current, self._offered = self._offered, None
            waiting.set_result(self._current)

    # --- connections ------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - streams run this in a task
        self._connections.add(task)
        try:
            if len(self._connections) <= _MAX_CONNECTIONS and await self._is_ours(writer):
                await _Connection(self, reader, writer).serve()
        except (ConnectionError, h11.ProtocolError, TimeoutError) as error:
            # of a process that ended, as a rule, which is told elsewhere
            log.debug("event=function-connection-ended function=%s cause='%s'", self._name, error)
        except asyncio.CancelledError:
            pass  # by close(): nothing is left to do
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _is_ours(self, writer: asyncio.StreamWriter) -> bool:
        peer, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        if peer is None:
            return False
        pid = await asyncio.shield(self.pid)
        # the table has a line for every connection of the machine
        if await asyncio.to_thread(owns_socket, pid, peer, here):
            return True
        log.warning(
            "event=function-peer-refused function=%s pid=%d peer=%s:%d cause='the connection to "
            "the runtime API is not one of the process of the function'",
            self._name,
            pid,
            *peer[:2],
        )
        return False

    # --- the API ----------------------------------------------------------------------------------

    async def next_invocation(self) -> Invocation:
        """The next event, when there is one. Who asks again no longer waits the first time."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = asyncio.get_running_loop().create_future()
        if not self.ready.done():
            self.ready.set_result(None)
        self._hand_over()
        return await self._waiting

    def headers(self, invocation: Invocation) -> list[tuple[str, str]]:
        """The headers an event comes with."""
        trace = f"Root=1-{int(invocation.deadline):08x}-{invocation.request_id.replace('-', '')}"
        return [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Deadline-Ms", str(int(invocation.deadline * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", self._arn),
            ("Lambda-Runtime-Trace-Id", f"{trace[:35]};Sampled=0"),
        ]

    def limit(self, method: str, path: str) -> int:
        """How many bytes the body of a request may have."""
        if method != "POST" or not path.startswith(PREFIX):
            return 0
        return MAX_ANSWER if path.endswith("/response") else MAX_ERROR

    def take(self, path: str, body: bytes | None) -> tuple[int, bytes]:
        """Takes a POST; `body` is None when it was over the limit. Returns status and answer."""
        if path == PREFIX + "init/error":
            if self.ready.done():
                return 403, described("InvalidStateTransition", "the function is initialised")
            self.init_error = _as_error(body)
            return 202, b'{"status":"OK"}'
        request_id, _, kind = path.removeprefix(PREFIX + "invocation/").rpartition("/")
        if kind not in ("response", "error") or not path.startswith(PREFIX + "invocation/"):
            return 404, described("NotFound", "there is no such path in the runtime API")
        current = self._current
        if current is None or request_id != current.request_id:
            return 400, described("InvalidRequestID", "Invalid request ID")
        self._current = None
        if kind == "error":
            outcome = Outcome(_as_error(body), failed=True)
        elif body is None:
            rule = f"exceeded maximum allowed payload size ({MAX_ANSWER} bytes)."
            too_large = described("Function.ResponseSizeTooLarge", f"Response payload size {rule}")
            outcome = Outcome(too_large, failed=True)
        else:
            outcome = Outcome(body, failed=False)
        if not current.outcome.done():
            current.outcome.set_result(outcome)
        if body is None:
            rule = f"Exceeded maximum allowed payload size ({MAX_ANSWER} bytes)."
            return 413, described("RequestEntityTooLarge", rule)
        return 202, b'{"status":"OK"}'


class _Connection:
    """One connection of the runtime, with a request after the other."""

    def __init__(
        self, api: RuntimeApi, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.api = api
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)

    async def serve(self) -> None:
        """Answers requests until the peer closes."""
        sock = self.writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            request = await self._event()
            if not isinstance(request, h11.Request):
                return
            async with asyncio.timeout(HEAD_SECONDS):
                method, path = request.method.decode(), request.target.decode("ascii", "replace")
                body = await self._body(self.api.limit(method, path))
            if method == "GET" and path == PREFIX + "invocation/next":
                invocation = await self.api.next_invocation()
                await self._answer(200, self.api.headers(invocation), invocation.event)
            elif method == "POST":
                status, answer = self.api.take(path, body)
                await self._answer(status, [("Content-Type", "application/json")], answer)
            else:
                answer = described("NotFound", "there is no such path in the runtime API")
                await self._answer(404, [("Content-Type", "application/json")], answer)
            if self.http.our_state is not h11.DONE:
                return
            self.http.start_next_cycle()

    async def _event(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            if self.http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self.http.receive_data(await self.reader.read(1 << 16))
        return event

    async def _body(self, limit: int) -> bytes | None:
        pieces = []
        size = 0
        while isinstance(event := await self._event(), h11.Data):
            size += len(event.data)
            if size <= limit:
                pieces.append(bytes(event.data))
            else:
                pieces.clear()
            if size > _THROWN_AWAY:
                raise h11.RemoteProtocolError(f"a body of more than {_THROWN_AWAY} bytes")
        if not isinstance(event, h11.EndOfMessage):
            raise h11.RemoteProtocolError("the connection ended within a body")
        return None if size > limit else b"".join(pieces)

    async def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        headers = [*headers, ("Content-Length", str(len(body)))]
        self._send(h11.Response(status_code=status, headers=headers))
        self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        await self.writer.drain()

    def _send(self, event: h11.Event) -> None:
        self.writer.write(self.http.send(event) or b"")


def owns_socket(pid: int, peer: tuple[str, int], here: tuple[str, int]) -> bool:
    """Whether a process has the socket at the other end of a loopback connection (IPv4).

    Sources: proc_net_tcp of the kernel's documentation, proc(5) on ``/proc/PID/fd``.
    """
    wanted = f" {_hex(peer)} {_hex(here)} ".encode()
    rest = b""
    inode = ""
    with open("/proc/net/tcp", "rb", buffering=0) as table:  # noqa: PTH123 - read in pieces
        while piece := table.read(1 << 16):
            text = rest + piece
            if (at := text.find(wanted)) >= 0:
                line = (text[at:] + table.read(1 << 12)).split(b"\n", 1)[0].split()
                # peer here state queues timer retransmits uid timeout inode ...
                inode = line[8].decode()
                break
            rest = text[-len(wanted) :]
    if inode in ("", "0"):
        return False
    link = f"socket:[{inode}]"
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(entry) == link:  # noqa: PTH115 - it is no path
                    return True
    return False


def _hex(address: tuple[str, int]) -> str:
    """As the table writes it: the address as a number of this machine's byte order."""
    number = int.from_bytes(socket.inet_aton(address[0]), sys.byteorder)
    return f"{number:08X}:{address[1]:04X}"


def _as_error(body: bytes | None) -> bytes:
    """What a runtime said of an error, if it is a JSON object as Lambda has it."""
    if body is not None:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(body), dict):
                return body
    return described("Runtime.Unknown", "the runtime did not describe the error as a JSON object")
