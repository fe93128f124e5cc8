"""The HTTP door: an ASGI application that speaks AWS's REST-JSON, driven by the service model.

A request goes read, verify (SigV4), route, decode, invoke, encode; everything that goes wrong on
the way is a ServiceError and leaves through one renderer. What is neither a ServiceError nor a
disconnect is a defect of ours: it is logged with the request id, and the caller sees
InternalFailureException without detail.

Beside the API there are three paths of our own below ``/_fleetgate/``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
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
    UnknownOperationException,
)
from fleetgate.operations.call import Call, Services
from fleetgate.operations.dispatch import invoke
from fleetgate.wire import query, restjson, sigv4
from fleetgate.wire.model import Service

log = logging.getLogger("fleetgate.rest")

MAX_BODY = 1 << 20
"""Bytes of a request body. The largest members of the model (documents, PEM) stay far below."""

SIGNING_NAME = "iot"
OWN_PREFIX = "/_fleetgate/"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, Mapping[str, str], bytes]


class Disconnected(Exception):
    """The caller went away before the request was complete."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The application. `secret_key(access_key)` returns None for an unknown access key."""

    services: Services
    model: Service
    secret_key: Callable[[str], str | None]
    reset: Callable[[], Awaitable[None]] | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request (ASGI)."""
        if scope["type"] != "http":
            return
        request_id = self.services.new_id()
        try:
            status, headers, body = await self._answer(scope, receive, request_id)
        except Disconnected:
            return
        except ServiceError as error:
            log.info(
                "event=refused request=%s method=%s path=%s code=%s message=%s",
                request_id,
                scope["method"],
                scope["path"][:200],
                error.code(),
                error.message[:300],
            )
            encode = query.encode_error if _is_form(scope) else restjson.encode_error
            status, headers, body = encode(error, request_id)
        except Exception:
            log.exception("event=defect request=%s path=%s", request_id, scope["path"][:200])
            failure = InternalFailureException(f"internal failure; request id {request_id}")
            status, headers, body = restjson.encode_error(failure, request_id)
        all_headers = {"x-amzn-requestid": request_id, **headers, "content-length": str(len(body))}
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, request_id: str) -> Answer:
        body = await _read_body(receive)
        # percent-encoded as it arrived: names may hold an encoded slash
        path = scope["raw_path"].decode("ascii", errors="replace")
        if path.startswith(OWN_PREFIX):
            return await self._own(scope["method"], path)
        fields = restjson.parse_query(scope["query_string"].decode("ascii", errors="replace"))
        headers = [
            (name.decode("latin-1"), value.decode(errors="surrogateescape"))
            for name, value in scope["headers"]
        ]
        now = self.services.now()
        self._verify(scope["method"], path, fields, headers, body, now)
        found = self.model.route(scope["method"], path, fields)
        if found is None:
            raise UnknownOperationException(f"no operation is at {scope['method']} {path[:200]}")
        operation, labels = found
        params = restjson.decode_request(operation, labels, fields, dict(headers), body)
        call = Call(self.services, request_id, now)
        result = await invoke(call, SIGNING_NAME, operation, params)
        return restjson.encode_response(operation, result)

    def _verify(
        self,
        method: str,
        path: str,
        fields: list[tuple[str, str]],
        headers: list[tuple[str, str]],
        body: bytes,
        now: float,
    ) -> None:
        signed = sigv4.parse_authorization(method, path, fields, headers)
        # the root user has no temporary credentials
        known = signed.security_token is None
        sigv4.verify(
            signed,
            self.secret_key(signed.access_key) if known else None,
            body_sha256=hashlib.sha256(body).hexdigest(),
            now=now,
            region=self.services.account.region,
            # whichever service was meant: first who it is, then that it is not here
            service=signed.service,
        )
        if signed.service != SIGNING_NAME:
            raise NotImplementedException(
                f"the service `{signed.service[:80]}` is not offered by this server, "
                f"only `{SIGNING_NAME}`"
            )

    async def _own(self, method: str, path: str) -> Answer:
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
            await self.reset()
            return _json({"status": "empty"})
        raise ResourceNotFoundException(f"nothing is at {method} {path[:200]}")


def _is_form(scope: Scope) -> bool:
    """Whether the caller speaks the Query protocol, as the clients of IAM and STS do."""
    types = [value for name, value in scope["headers"] if name == b"content-type"]
    return bool(types) and types[0].startswith(query.FORM.encode())


async def _read_body(receive: Receive) -> bytes:
    """The request body, at most MAX_BODY bytes; the rest is read and thrown away."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        elif size > 16 * MAX_BODY:
            break
        if not message.get("more_body", False):
            break
    if size > MAX_BODY:
        raise RequestEntityTooLargeException(f"the request body is larger than {MAX_BODY} bytes")
    return b"".join(parts)


def _json(value: object) -> Answer:
    return 200, {"content-type": "application/json"}, msgspec.json.encode(value)
