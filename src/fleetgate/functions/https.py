"""One outgoing HTTPS request, to a server that is not trusted further than its certificate.

The steps of a request, all under one deadline:

1. The name is resolved, once, in a thread of few. Every address of the answer has to be one the
   server may call (`addresses`); one that is not refuses the request, whatever the others are.
2. A connection is made to one of the addresses that were looked at, so that a name that changes
   its mind between the look and the connection (DNS rebinding) gains nothing.
3. TLS 1.2 or later; the certificate has to be of the name in the URL and of a known authority.
4. One request, one response, framed by h11; the connection is then dropped. Redirects are not
   followed, proxies of the environment are not asked, compressed bodies are not accepted. Head,
   body and pieces of the response are bounded.

Certificates in files are read again when the files change. Everything that goes wrong is a
FunctionError whose message names the server, the address where there is one, the rule and the
value; a query, a header or a body that was sent is never part of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h11

from fleetgate.functions.addresses import networks, refusal
from fleetgate.functions.target import Failure, FunctionError
from fleetgate.functions.threads import Threads
from fleetgate.functions.urls import Url, parse_url

MAX_BODY = 131_072
"""Bytes of a response's body: what AWS IoT takes of a function."""

_MAX_HEAD = 16_384
_MAX_PIECES = 8192
_READ = 16_384
_MOST_ADDRESSES = 16
_LOOKUPS = 4
_SHOWN = 200

Resolve = Callable[[str, int], Sequence[str]]
"""``resolve(host, port)``: the addresses of a name; blocks; raises OSError."""


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name in the order in which they should be tried."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


@dataclass(frozen=True, slots=True)
class Response:
    """A response; names of headers are in lower case, the last of a name counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def shown(value: bytes | str) -> str:
    """The beginning of what a server sent, in one line of printable characters."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    begun = "".join(c if c.isprintable() else " " for c in text[:_SHOWN]).strip()
    return f"{begun}..." if len(text) > _SHOWN else begun


class HttpsServer:
    """A server that is called, known by the URL of the operator.

    `allow_networks` are networks that may be called beside the public addresses. `ca_file` holds
    the authorities that are believed, instead of the system's. `client_certificate` and
    `client_key` are shown to a server that asks for them (mutual TLS). `max_body` bounds the
    bytes of a response's body. Raises ValueError for a URL, a network or a file that cannot be.
    """

    def __init__(
        self,
        url: str,
        *,
        allow_networks: Sequence[str] = (),
        ca_file: Path | None = None,
        client_certificate: Path | None = None,
        client_key: Path | None = None,
        max_body: int = MAX_BODY,
        resolve: Resolve = resolve,
    ) -> None:
        self.url = parse_url(url)
        self._allowed = networks(allow_networks)
        self._certificates = _Certificates(ca_file, client_certificate, client_key)
        self._certificates.context()
        self._max_body = max_body
        self._resolve = resolve
        self._lookups = Threads("fleetgate-dns", _LOOKUPS)

    async def post(
        self, headers: Mapping[str, str], body: bytes, *, seconds: float, target: str = ""
    ) -> Response:
        """Sends a POST and returns the response, whatever its status below 300 or above 399 is.

        `target` is a path (with query) instead of that of the URL. `seconds` is for everything.
        Raises FunctionError: TIMED_OUT, UNREACHABLE, ADDRESS_REFUSED, TOO_LARGE, MALFORMED,
        FAILED for a redirect, NOT_STARTED for files that were exchanged and cannot be used.
        """
        return await self.request("POST", headers, body, seconds=seconds, target=target)

    async def request(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        seconds: float,
        target: str = "",
    ) -> Response:
        """Sends a request of any method; else as `post`."""
        url = Url(self.url.host, self.url.port, target) if target else self.url
        exchange = _Exchange(url, self._max_body)
        try:
            tls = self._certificates.context()
        except ValueError as error:  # a file was exchanged for one that cannot be
            raise FunctionError(Failure.NOT_STARTED, f"{url}: {error}") from None
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._addresses(exchange)
                await exchange.connect(addresses, tls, seconds)
                return await exchange.run(method, headers, body)
        except TimeoutError:
            raise FunctionError(
                Failure.TIMED_OUT,
                f"{url}: no answer within {round(seconds, 2):g} s; the time ended while "
                f"{exchange.step}",
            ) from None
        finally:
            exchange.drop()

    async def _addresses(self, exchange: _Exchange) -> Sequence[str]:
        """The addresses to connect to, each of which may be called. Raises FunctionError."""
        url = exchange.url
        exchange.step = f"resolving `{url.host}`"
        try:
            found = await self._lookups.run(lambda: self._resolve(url.host, url.port))
        except (OSError, UnicodeError) as error:
            cause = (error.strerror if isinstance(error, OSError) else "") or str(error)
            raise FunctionError(
                Failure.UNREACHABLE, f"{url}: `{url.host}` cannot be resolved: {cause}"
            ) from None
        for address in found:
            refused = refusal(address, self._allowed)
            if refused:
                raise FunctionError(
                    Failure.ADDRESS_REFUSED,
                    f"{url}: `{url.host}` has the address {address}, which is not called "
                    f"({refused}) unless allow_networks names it",
                )
        if not found:
            raise FunctionError(Failure.UNREACHABLE, f"{url}: `{url.host}` has no address")
        return found[:_MOST_ADDRESSES]


class _Certificates:
    """What TLS needs from files; read again when one of them was changed."""

    def __init__(
        self, ca_file: Path | None, client_certificate: Path | None, client_key: Path | None
    ) -> None:
        if client_key is not None and client_certificate is None:
            raise ValueError("client_key is given without client_cert")
        self._ca_file = ca_file
        self._client_certificate = client_certificate
        self._client_key = client_key
        self._read: tuple[object, ssl.SSLContext] | None = None

    def context(self) -> ssl.SSLContext:
        """A context of what the files hold now. Raises ValueError, naming the file."""
        seen = self._seen()
        if self._read is None or self._read[0] != seen:
            self._read = seen, self._make()
        return self._read[1]

    def _seen(self) -> object:
        states = []
        for path in (self._ca_file, self._client_certificate, self._client_key):
            if path is not None:
                try:
                    state = path.stat()
                except OSError as error:
                    raise ValueError(f"`{path}` cannot be read: {error.strerror}") from None
                states.append((state.st_mtime_ns, state.st_size, state.st_ino))
        return states

    def _make(self) -> ssl.SSLContext:
        # checks certificate and name; unlike create_default_context the same in every Python,
        # and without the key log of SSLKEYLOGFILE
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._ca_file is None:
            context.load_default_certs()
        else:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # any of the file is an anchor
            try:
                context.load_verify_locations(self._ca_file)
            except (OSError, ssl.SSLError):
                raise ValueError(f"`{self._ca_file}` holds no certificates in PEM") from None
        if self._client_certificate is not None:
            try:
                context.load_cert_chain(
                    self._client_certificate, self._client_key, password=_no_password
                )
            except (OSError, ssl.SSLError, ValueError):
                raise ValueError(
                    f"`{self._client_certificate}`"
                    + (f" and `{self._client_key}`" if self._client_key else "")
                    + ": no certificate in PEM with its private key (without a password)"
                ) from None
        return context


def _no_password() -> str:
    raise ValueError("the key has a password")  # else OpenSSL would ask the terminal


class _Exchange:
    """One connection with one request and one response."""

    def __init__(self, url: Url, max_body: int) -> None:
        self.url = url
        self.step = "beginning"
        self._max_body = max_body
        self._address = ""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self, addresses: Sequence[str], tls: ssl.SSLContext, seconds: float) -> None:
        """Connects to the first address that answers; each has its share of the time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        failed: list[str] = []
        for left in range(len(addresses), 0, -1):
            self._address = addresses[-left]
            self.step = f"connecting to {self._address}"
            # a fraction of the time only while there are other addresses to try
            share = (end - loop.time()) / 2 if left > 1 else None
            try:
                async with asyncio.timeout(share):
                    connected = await _connected(self._address, self.url.port)
            except TimeoutError:
                failed.append(f"{self._address}: no answer")
            except OSError as error:
                failed.append(f"{self._address}: {error.strerror or error}")
            else:
                await self._start_tls(connected, tls)
                return
        raise FunctionError(Failure.UNREACHABLE, f"{self.url}: no connection ({'; '.join(failed)})")

    async def _start_tls(self, connected: socket.socket, tls: ssl.SSLContext) -> None:
        self.step = f"shaking hands with {self._address}"
        try:
            self._reader, self._writer = await asyncio.open_connection(
                sock=connected, ssl=tls, server_hostname=self.url.host, limit=_READ
            )
        except ssl.SSLCertVerificationError as error:
            raise FunctionError(
                Failure.UNREACHABLE,
                f"{self.url}: the certificate of {self._address} is refused: "
                f"{error.verify_message}",
            ) from None
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror or "the connection ended"
            raise FunctionError(
                Failure.UNREACHABLE, f"{self.url}: no TLS with {self._address}: {reason}"
            ) from None

    async def run(self, method: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Sends the request and reads the response."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        sent = [
            ("Host", self.url.authority),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            *headers.items(),
        ]
        assert self._writer is not None  # noqa: S101 - connected before
        self.step = f"sending to {self._address}"
        request = h11.Request(method=method, target=self.url.target, headers=sent)
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(connection.send(event) or b"")
        with contextlib.suppress(OSError):  # it may have answered before it had read everything
            await self._writer.drain()
        self.step = f"waiting for the answer of {self._address}"
        return await self._receive(connection)

    async def _receive(self, connection: h11.Connection) -> Response:
        status, headers, body = 0, dict[str, str](), bytearray()
        for _ in range(_MAX_PIECES):
            event = await self._next(connection)
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = {
                    name.decode("ascii"): value.decode("latin-1") for name, value in event.headers
                }
                self._check_head(status, headers)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._max_body:
                    raise self._too_large(f"more than {self._max_body} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return Response(status, headers, bytes(body))
        raise self._too_large(f"more than {_MAX_PIECES} pieces")

    async def _next(self, connection: h11.Connection) -> object:
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError as error:
                if "buffer too long" in str(error):
                    raise self._too_large(f"a head of more than {_MAX_HEAD} bytes") from None
                raise self._malformed(f"it is no HTTP: {error}") from None
            if event is not h11.NEED_DATA:
                return event
            try:
                received = await self._reader.read(_READ)
            except OSError as error:
                reason = getattr(error, "reason", None) or error.strerror or "reset"
                raise FunctionError(
                    Failure.UNREACHABLE,
                    f"{self.url}: {self._address} ended the connection before its answer was "
                    f"complete: {reason}",
                ) from None
            if not received and connection.their_state is h11.SEND_RESPONSE:
                raise FunctionError(
                    Failure.UNREACHABLE,
                    f"{self.url}: {self._address} ended the connection without an answer",
                )
            connection.receive_data(received)

    def _check_head(self, status: int, headers: Mapping[str, str]) -> None:
        if 300 <= status < 400:
            where = shown(headers.get("location", "").partition("?")[0])
            raise FunctionError(
                Failure.FAILED,
                f"{self.url}: {self._address} answered status {status}, location `{where}`; "
                "redirects are not followed",
            )
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding not in ("", "identity"):
            raise self._malformed(f"its Content-Encoding is `{shown(encoding)}`, not identity")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body:
            raise self._too_large(f"{length} bytes, more than {self._max_body}")

    def _too_large(self, what: str) -> FunctionError:
        return FunctionError(
            Failure.TOO_LARGE, f"{self.url}: the answer of {self._address} has {what}"
        )

    def _malformed(self, why: str) -> FunctionError:
        return FunctionError(
            Failure.MALFORMED, f"{self.url}: the answer of {self._address} is refused: {why}"
        )

    def drop(self) -> None:
        """Ends the connection at once: whatever the server still says is not waited for."""
        if self._writer is not None:
            self._writer.transport.abort()


async def _connected(address: str, port: int) -> socket.socket:
    """A TCP connection. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connecting, (address, port))
    except BaseException:
        connecting.close()
        raise
    return connecting
