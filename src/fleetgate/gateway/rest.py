"""The HTTP door: an ASGI application that speaks AWS's REST-JSON, driven by the service model.

A request goes check (SigV4, as far as it can be told without the body), read, verify, route,
decode, invoke, encode; everything that goes wrong on the way is a ServiceError and leaves through
one renderer. What is neither a ServiceError nor a disconnect is a defect of ours: it is logged
with the request id, and the caller sees InternalFailureException without detail.

Nobody's body is kept before the access key is known, and of those that are kept unverified there
is a bound. A body nobody wanted is thrown away before the answer, since a client may not look for
one while it sends; what is too large for that, or was not sent yet (``Expect``), ends with the
connection.

Beside the API there are three paths of our own below ``/_fleetgate/``. They need no signature;
the one that changes something is closed to web pages.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fleetgate import __version__
from fleetgate.errors import (
    AccessDeniedException,
    InternalFailureException,
    NotImplementedException,
    RequestEntityTooLargeException,
    ResourceNotFoundException,
    ServiceError,
    ServiceUnavailableException,
    UnknownOperationException,
)
from fleetgate.operations.call import Call, Services
from fleetgate.operations.dispatch import invoke
from fleetgate.wire import query, restjson, sigv4
from fleetgate.wire.model import Service

log = logging.getLogger("fleetgate.rest")

MAX_BODY = 1 << 20
"""Bytes of a request body. The largest members of the model (documents, PEM) stay far below."""

MAX_UNVERIFIED = 64 * MAX_BODY
"""Bytes of all bodies together that are kept while their signature is not verified."""

SERVICE = "iot"
SIGNING_NAMES = (SERVICE, "execute-api")
"""Service names of a credential scope that mean this service: older models of ``iot``, such as the
one in AWS CLI 2.9 (Debian 12), have the second one as ``signingName``."""

OWN_PREFIX = "/_fleetgate/"

_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, Mapping[str, str], bytes]


class Disconnected(Exception):
    """The caller went away before the request was complete."""


@dataclass(slots=True)
class Body:
    """The body of a request, which is awaited only when it is asked for.

    `awaited` says that the caller waits for 100 (RFC 9110 section 10.1.1), which `part` sends.
    """

    receive: Receive
    awaited: bool
    ended: bool = False

    async def part(self) -> bytes:
        """The next bytes. Raises Disconnected."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        self.awaited = False
        self.ended = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def throw_away(self, limit: int) -> None:
        """Reads what is left, unless it is more than `limit` bytes or not sent yet."""
        while not self.ended and not self.awaited and limit >= 0:
            limit -= len(await self.part())


@dataclass(slots=True)
class Rest:
    """The application. `secret_key(access_key)` returns None for an unknown access key."""

    services: Services
    model: Service
    secret_key: Callable[[str], str | None]
    reset: Callable[[], Awaitable[None]] | None
    unverified: int = field(default=0, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request (ASGI)."""
        if scope["type"] != "http":
            return
        request_id = self.services.new_id()
        sent = Body(receive, _header(scope, b"expect").lower() == "100-continue")
        try:
            status, headers, body = await self._answer(scope, sent, request_id)
        except Disconnected:
            return
        except ServiceError as error:
            log.info(
                "event=refused request=%s method=%s path=%r code=%s message=%r",
                request_id,
                scope["method"],
                scope["path"][:200],
                error.code(),
                error.message[:300],
            )
            encode = query.encode_error if _is_query(scope) else restjson.encode_error
            status, headers, body = encode(error, request_id)
        except Exception:
            log.exception("event=defect request=%s path=%r", request_id, scope["path"][:200])
            failure = InternalFailureException(f"internal failure; request id {request_id}")
            status, headers, body = restjson.encode_error(failure, request_id)
        try:
            await sent.throw_away(MAX_BODY)
        except Disconnected:
            return
        all_headers = {"x-amzn-requestid": request_id, **headers, "content-length": str(len(body))}
        if not sent.ended:
            all_headers["connection"] = "close"
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, sent: Body, request_id: str) -> Answer:
        # percent-encoded as it arrived: names may hold an encoded slash
        path = scope["raw_path"].decode("ascii", errors="replace")
        if path.startswith(OWN_PREFIX):
            return await self._own(scope, path)
        fields = restjson.parse_query(scope["query_string"].decode("ascii", errors="replace"))
        headers = [
            (name.decode("latin-1"), value.decode(errors="surrogateescape"))
            for name, value in scope["headers"]
        ]
        now = self.services.now()
        body = await self._verified_body(scope["method"], path, fields, headers, sent, now)
        found = self.model.route(scope["method"], path, fields)
        if found is None:
            raise UnknownOperationException(f"no operation is at {scope['method']} {path[:200]}")
        operation, labels = found
        params = restjson.decode_request(operation, labels, fields, dict(headers), body)
        call = Call(self.services, request_id, now)
        result = await invoke(call, SERVICE, operation, params)
        return restjson.encode_response(operation, result)

    async def _verified_body(
        self,
        method: str,
        path: str,
        fields: list[tuple[str, str]],
        headers: list[tuple[str, str]],
        sent: Body,
        now: float,
    ) -> bytes:
        signed = sigv4.parse_authorization(method, path, fields, headers)
        # the root user has no temporary credentials
        known = signed.security_token is None
        region = self.services.account.region
        secret_key = sigv4.check(
            signed,
            self.secret_key(signed.access_key) if known else None,
            now=now,
            region=region,
            # whichever service was meant: first who it is, then that it is not here
            service=signed.service,
        )
        body = await self._read(sent)
        sigv4.verify(
            signed,
            secret_key,
            body_sha256=hashlib.sha256(body).hexdigest(),
            now=now,
            region=region,
            service=signed.service,
        )
        if signed.service not in SIGNING_NAMES:
            raise NotImplementedException(
                f"the service `{signed.service[:80]}` is not offered by this server, "
                f"only `{SERVICE}`"
            )
        return body

    async def _read(self, sent: Body) -> bytes:
        """The body, at most MAX_BODY bytes; the rest is read and thrown away."""
        parts: list[bytes] = []
        size = kept = 0
        try:
            while not sent.ended and size <= 16 * MAX_BODY:
                part = await sent.part()
                size += len(part)
                if size > MAX_BODY:
                    continue
                parts.append(part)
                kept += len(part)
                self.unverified += len(part)
                if self.unverified > MAX_UNVERIFIED:
                    raise ServiceUnavailableException(
                        f"the server is reading request bodies of more than {MAX_UNVERIFIED} bytes"
                    )
        finally:
            self.unverified -= kept
        if size > MAX_BODY:
            raise RequestEntityTooLargeException(
                f"the request body is larger than {MAX_BODY} bytes"
            )
        return b"".join(parts)

    async def _own(self, scope: Scope, path: str) -> Answer:
        method = scope["method"]
        name = path.removeprefix(OWN_PREFIX)
        if (method, name) == ("GET", "health"):
            return _json({"status": "ok", "version": __version__})
        if (method, name) == ("GET", "ca.pem"):
            pem = self.services.authority.certificate_pem()
            return 200, {"content-type": "application/x-pem-file"}, pem.encode()
        if (method, name) == ("POST", "reset"):
            if self.reset is None:
                raise AccessDeniedException(
                    "the registry can be emptied only when the server was started with "
                    "--allow-reset"
                )
            self._refuse_web_pages(scope)
            await self.reset()
            return _json({"status": "empty"})
        raise ResourceNotFoundException(f"nothing is at {method} {path[:200]}")

    def _refuse_web_pages(self, scope: Scope) -> None:
        """Raises AccessDeniedException when a browser may have been made to send this.

        Sources: Fetch standard, "`Origin` header"; "Fetch Metadata Request Headers", section 2.4.
        A page that had its own name point to this server (DNS rebinding) is of the same origin,
        but the name is not one of ours.
        """
        host = _header(scope, b"host").lower()
        if not _is_address(name := _host_name(host)) and name not in (
            "localhost",
            *map(str.lower, self.services.host_names),
        ):
            raise AccessDeniedException(
                f"the Host header `{host[:80]}` names neither an IP address nor localhost nor a "
                "host name the server was started with"
            )
        origin = _header(scope, b"origin").lower()
        if origin and origin.partition("://")[2] != host:
            raise AccessDeniedException(
                f"the request comes from a web page of another origin, `{origin[:80]}`"
            )
        site = _header(scope, b"sec-fetch-site").lower()
        if site not in ("", "none", "same-origin"):
            raise AccessDeniedException(
                f"the request comes from a web page of another site: Sec-Fetch-Site is "
                f"`{site[:80]}`"
            )


def _is_query(scope: Scope) -> bool:
    """Whether the caller speaks the Query protocol, as the clients of IAM and STS do."""
    return query.is_spoken(
        scope["path"],
        scope["query_string"].decode("latin-1"),
        _header(scope, b"content-type"),
        _header(scope, b"authorization"),
        SIGNING_NAMES,
    )


def _header(scope: Scope, name: bytes) -> str:
    """The value of a header, "" without it; those of a repeated one in a row."""
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)


def _host_name(authority: str) -> str:
    """``[::1]:80`` -> ``::1``, ``localhost:80`` -> ``localhost``; "" for what is not a host.

    Source: RFC 3986 section 3.2.
    """
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] or found[2]) if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _json(value: object) -> Answer:
    return 200, {"content-type": "application/json"}, msgspec.json.encode(value)
