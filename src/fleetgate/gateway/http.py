"""HTTP/1.1 for the gateway: uvicorn's server and parser, with bounds for callers nobody knows.

uvicorn leaves head, connections and time unbounded: it is written to stand behind a proxy that
bounds them. This server is reached directly, so that `_HttpConnection` adds:

* a bound of bytes in a row that are no body: the head, but also what lies between the pieces of
  a chunked body (extensions, trailers). The parser gathers a header or URL before it shows it,
  so that input is handed to it in portions that cannot pass the bound unseen (where a portion
  begins with something else: not twice the bound);
* deadlines, by one timer for whatever is awaited from the peer: a head, a body, the next
  request, that it takes the rest of an answer and closes. A second one runs while the peer does
  not read;
* a number of connections: where there would be more, the one that has been without a request
  for longest makes room, so that nobody can keep others out by doing nothing;
* head and body of an answer leave in one piece: the system is asked once;
* one request at a time. Requests sent in advance are thrown away, and the answer says that the
  connection closes: the client repeats them (RFC 9112 section 9.3.2).

A connection that is refused is answered, its write side shut, and what still arrives thrown away
for a moment (deaf): closing with unread input makes the kernel send RST, and the peer would lose
the answer.

The bound of a body is the application's: it reads no more than it wants, and is awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fleetgate.gateway.joined_writes import JoinedWrites

log = logging.getLogger("fleetgate.http")

MAX_HEADERS = 128
"""Fields of a head: some dozen are usual."""

_LOG_INTERVAL = 10.0
_turns = itertools.count(1)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the connections: seconds, bytes, and how many there may be."""

    max_connections: int = 512
    head_bytes: int = 65536
    """Of a request before its body, the URL included."""
    head_timeout: float = 10.0
    """From the opening of a connection, or the first byte of a request, to the end of its head."""
    body_timeout: float = 30.0
    keep_alive_timeout: int = 5
    """From an answer to the next request."""
    write_timeout: float = 30.0
    """For the peer to take an answer."""
    linger_timeout: float = 2.0
    """From a refusal to the end of the connection."""
    linger_bytes: int = 1 << 20
    """Received and thrown away meanwhile."""


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: the server as a whole has one way to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing where uvicorn would take SIGTERM and SIGINT for itself."""
        yield

    async def wait_started(self) -> None:
        """Returns when requests are answered; uvicorn offers no event for it."""
        while not self.started:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def http_server(
    app: Any, *, grace: float, limits: HttpLimits | None = None, proxies: Sequence[str] = ()
) -> HttpServer:
    """A server for the ASGI application `app`; to stop, it gives answers `grace` seconds.

    `proxies` are addresses and networks of proxies whose X-Forwarded-For is believed.
    """
    limits = limits or HttpLimits()
    protocol = partial(_HttpConnection, limits, _TurnedAway())
    return HttpServer(
        uvicorn.Config(
            app,
            # only ever called, as a class is
            http=cast("type[asyncio.Protocol]", protocol),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            timeout_keep_alive=limits.keep_alive_timeout,
            timeout_graceful_shutdown=int(grace),
        )
    )


@dataclass(slots=True)
class _TurnedAway:
    """Connections too many: logged, but not each of them."""

    count: int = 0
    silent_until: float = 0.0

    def add(self, now: float, address: object, limit: int) -> None:
        self.count += 1
        if now >= self.silent_until:
            log.warning(
                "event=turned-away peer=%s connections=%d cause='more than %d connections'",
                address,
                self.count,
                limit,
            )
            self.count = 0
            self.silent_until = now + _LOG_INTERVAL


class _Refused(Exception):
    """Stops the parser from within; the refusal is in `_HttpConnection.refusal`."""


class _HttpConnection(HttpToolsProtocol):
    """One connection; see the module for its duties."""

    def __init__(self, limits: HttpLimits, turned_away: _TurnedAway, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.limits = limits
        self.turned_away = turned_away
        self.outside_body = 0  # bytes in a row
        self.refusal: HTTPStatus | None = None
        self.deaf = False
        self.thrown_away = 0
        self.in_head = False
        self.timer: asyncio.TimerHandle | None = None
        self.deadline = 0.0
        self.turn = 0  # among all connections: when it began to wait
        self.then: Callable[[], None] | None = None
        self.write_timer: asyncio.TimerHandle | None = None

    # --- the transport -----------------------------------------------------------------------

    def connection_made(  # type: ignore[override] # as uvicorn has it
        self, transport: asyncio.Transport
    ) -> None:
        """Counts the connection, or turns it away."""
        if len(self.connections) >= self.limits.max_connections and not self._make_room():
            self.transport = transport
            self.deaf = True
            address = transport.get_extra_info("peername")
            self.turned_away.add(self.loop.time(), address, self.limits.max_connections)
            transport.abort()
            return
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self.turn = next(_turns)
        self._await(self.limits.head_timeout, self._head_late)

    def _make_room(self) -> bool:
        """Closes the connection that has waited for a head for longest; False if none does."""
        waiting = [
            each
            for each in self.connections
            if isinstance(each, _HttpConnection) and each.is_waiting() and not each.deaf
        ]
        if not waiting:
            return False
        longest = min(waiting, key=lambda each: each.turn)
        longest.deaf = True
        longest.transport.abort()
        self.connections.discard(longest)
        return True

    def is_waiting(self) -> bool:
        """Whether no request is under way: none has come, or the head of one is not complete."""
        latest = self._latest()
        return self.in_head or latest is None or latest.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timers."""
        self._unset_keepalive_if_required()
        self._stop_timer()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.write_timer is not None:
            self.write_timer.cancel()
            self.write_timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses `data`, as far as it is wanted."""
        if self.deaf:
            self.thrown_away += len(data)
            if self.thrown_away > self.limits.linger_bytes:
                self.transport.abort()
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self.deaf and not self.transport.is_closing():
            room = self.limits.head_bytes - self.outside_body
            piece = data[at : at + room]
            at += len(piece)
            self.outside_body += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade:
                # not followed; what comes after this request may be in another protocol
                self._last_request()
            except httptools.HttpParserError:
                self._refuse(self.refusal or HTTPStatus.BAD_REQUEST)
            else:
                if self.outside_body >= self.limits.head_bytes:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def pause_writing(self) -> None:
        """The peer does not read."""
        super().pause_writing()
        self.write_timer = self.loop.call_later(self.limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        if self.write_timer is not None:
            self.write_timer.cancel()
            self.write_timer = None

    # --- the parser --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._is_answering():
            raise _Refused
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self.in_head = True
        self._await(self.limits.head_timeout, self._head_late)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: these are left out (RFC 9110 section 6.5.1)."""
        if not self.in_head:
            return
        if len(self.headers) >= MAX_HEADERS:
            self.refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _Refused
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application is called."""
        self.in_head = False
        self.outside_body = 0
        self._await(self.limits.body_timeout, self._body_late)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.outside_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of the request."""
        self.outside_body = 0
        self._stop_timer()
        super().on_message_complete()
        self.cycle.more_body = False  # of a request already answered, too

    # --- the application ---------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """The end of an answer."""
        self.turn = next(_turns)
        super().on_response_complete()
        if self.transport.is_closing():
            self._await(self.limits.write_timeout, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """There was no further request."""
        self.transport.close()
        self._await(self.limits.write_timeout, self.transport.abort)

    # --- refusing ----------------------------------------------------------------------------

    def _latest(self) -> RequestResponseCycle | None:
        """The latest request whose head was complete."""
        return self.cycle

    def _is_answering(self) -> bool:
        """Whether a request is complete and its answer is not."""
        latest = self._latest()
        return latest is not None and not latest.response_complete and not latest.more_body

    def _last_request(self) -> None:
        """Nothing after the current request is listened to."""
        self.deaf = True
        if self.cycle.response_complete:
            self.transport.close()
        self.cycle.keep_alive = False

    def _refuse(self, status: HTTPStatus) -> None:
        """Answers what the application cannot, and closes."""
        if self._is_answering():
            self._last_request()
            return
        self.deaf = True
        unfinished = self._latest()
        if unfinished is not None and unfinished.more_body and not self.in_head:
            if unfinished.response_started:
                self.transport.abort()
                return
            unfinished.disconnected = True
            unfinished.message_event.set()
        log.info("event=refused peer=%s status=%d cause='%s'", self.client, status, status.phrase)
        body = f"{status.phrase}\n"
        lines = (
            f"HTTP/1.1 {status} {status.phrase}",
            "content-type: text/plain; charset=utf-8",
            f"content-length: {len(body)}",
            "connection: close",
        )
        self.transport.write("\r\n".join((*lines, "", body)).encode())
        self.flow.resume_reading()
        self.transport.write_eof()
        self._await(self.limits.linger_timeout, self.transport.abort)

    def _head_late(self) -> None:
        if self.in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            self.timeout_keep_alive_handler()

    def _body_late(self) -> None:
        self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _await(self, seconds: float, then: Callable[[], None]) -> None:
        """Calls `then` when nothing else is awaited before.

        A request awaits three things one after the other, nearly always in vain: the timer that
        runs is left alone when it ends before the new deadline, and looks again when it ends.
        """
        self.deadline = self.loop.time() + seconds
        self.then = then
        if self.timer is not None and self.timer.when() > self.deadline:
            self.timer.cancel()
            self.timer = None
        if self.timer is None:
            self.timer = self.loop.call_at(self.deadline, self._due)

    def _due(self) -> None:
        self.timer = None
        if self.then is None:
            return
        if self.loop.time() < self.deadline:
            self.timer = self.loop.call_at(self.deadline, self._due)
            return
        then, self.then = self.then, None
        then()

    def _stop_timer(self) -> None:
        self.then = None
