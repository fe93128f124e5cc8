"""The HTTP door: an ASGI application that speaks AWS's protocols, driven by the service models.

A request goes authenticate (gateway/authentication.py), route, decode, invoke, encode; everything
that goes wrong on the way is a ServiceError and leaves through one renderer. Which service is meant
is what the request is signed for; ``iot`` and ``lambda`` speak REST-JSON, ``iam`` and ``sts`` the
Query protocol. What is neither a ServiceError nor a disconnect is a defect of ours: it is logged
with the request id, and the caller sees InternalFailureException without detail.

Nobody's body is kept before the access key is known, and of those that are kept unverified there
is a bound. A body nobody wanted is thrown away before the answer, since a client may not look for
one while it sends; what is too large for that, or was not sent yet (``Expect``), ends with the
connection.

Beside the API there are paths of our own below ``/_fleetgate/``. They need no signature, but for
those that look at templates, try hooks, work on allow-lists and have faults happen; the one that
empties the registry is closed to web pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs

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
from fleetgate.gateway import allow_lists, fault_door, hook_trial, large_bodies, template_rendering
from fleetgate.gateway.authentication import (
    GLOBAL_SERVICES,
    LAMBDA,
    SIGNING_NAMES,
    Authenticated,
    Authentication,
    Request,
    signing_name,
    speaks_query,
    unsigned_service,
)
from fleetgate.gateway.bodies import MAX_BODY, Body, Disconnected, Receive
from fleetgate.gateway.code_downloads import StoredBody, open_code
from fleetgate.gateway.faults import Faults
from fleetgate.gateway.reports import FileBody, base_url, open_report
from fleetgate.gateway.web_pages import Scope, header, refuse_web_pages
from fleetgate.operations import code_links, report_links
from fleetgate.operations.call import Call, Services
from fleetgate.operations.caller import Caller
from fleetgate.operations.dispatch import invoke
from fleetgate.wire import query, restjson
from fleetgate.wire.model import Operation, Service

log = logging.getLogger("fleetgate.rest")

OWN_PREFIX = "/_fleetgate/"
_RENDER = f"{OWN_PREFIX}templates/render"
_TRY_HOOK = f"{OWN_PREFIX}hooks/test"

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, Mapping[str, str], bytes | FileBody | StoredBody]


@dataclass(slots=True)
class Rest:
    """The application. `models` are the services that are offered, by name."""

    services: Services
    models: Mapping[str, Service]
    authentication: Authentication
    reset: Callable[[], Awaitable[None]] | None
    faults: Faults | None = None
    _under_way: set[asyncio.Timeout] = field(default_factory=set, init=False, repr=False)
    _end: float | None = field(default=None, init=False)

    def stop(self, end: float) -> None:
        """What was not answered by `end`, a time of the event loop, is told that the server stops.

        A function may run for longer than a server that stops has time for.
        """
        self._end = end
        for each in self._under_way:
            each.reschedule(end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request (ASGI)."""
        if scope["type"] != "http":
            return
        request_id = self.services.new_id()
        sent = Body(receive, header(scope, b"expect").lower() == "100-continue")
        try:
            try:
                status, headers, body = await self._answer_in_time(scope, sent, request_id)
            finally:
                self.authentication.bodies.release(sent)
        except Disconnected:
            return
        except ServiceError as error:
            log.info(
                "event=refused request=%s method=%s path=%r code=%s message=%r",
                request_id,
                scope["method"],
                scope["path"][:200],
                error.code(),
                error.message[:1000],
            )
            status, headers, body = self._refused(scope, error, request_id)
        except Exception:
            log.exception("event=defect request=%s path=%r", request_id, scope["path"][:200])
            failure = InternalFailureException(f"internal failure; request id {request_id}")
            status, headers, body = self._refused(scope, failure, request_id)
        try:
            await sent.throw_away(MAX_BODY)
        except Disconnected:
            return
        all_headers = {"x-amzn-requestid": request_id, **headers}
        if status != 204:  # RFC 9110 section 8.6
            all_headers["content-length"] = str(len(body))
        if not sent.ended:
            all_headers["connection"] = "close"
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
            }
        )
        if isinstance(body, FileBody | StoredBody):
            await body.send(send)
        else:
            await send({"type": "http.response.body", "body": body})

    async def _answer_in_time(self, scope: Scope, sent: Body, request_id: str) -> Answer:
        """Raises ServiceUnavailableException when the server stops meanwhile."""
        timeout = asyncio.timeout_at(self._end)
        self._under_way.add(timeout)
        try:
            async with timeout:
                return await self._answer(scope, sent, request_id)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ServiceUnavailableException("the server is stopping") from None
        finally:
            self._under_way.remove(timeout)

    async def _answer(self, scope: Scope, sent: Body, request_id: str) -> Answer:
        # percent-encoded as it arrived: names may hold an encoded slash
        path = scope["raw_path"].decode("ascii", errors="replace")
        signed_own = (
            path.startswith(allow_lists.PREFIX)
            or fault_door.is_path(path)
            or (scope["method"] == "POST" and path in (_RENDER, _TRY_HOOK))
        )
        if path.startswith(OWN_PREFIX) and not signed_own:
            return await self._own(scope, path)
        fields = restjson.parse_query(scope["query_string"].decode("ascii", errors="replace"))
        headers = [
            (name.decode("latin-1"), value.decode(errors="surrogateescape"))
            for name, value in scope["headers"]
        ]
        request = Request(scope, path, fields, headers)
        now = self.services.now()
        try:
            known = await self.authentication.authenticate(
                request, sent, now, partial(self._room, request)
            )
        except RequestEntityTooLargeException as error:
            raise large_bodies.told(error, sent.limit) from None
        service = self._service(request, known)
        caller = known.caller
        call = Call(
            self.services,
            request_id,
            now,
            caller=caller,
            source_ip=request.source_ip,
            # policies of roles ask for them too, when a role is assumed
            conditions=request.conditions if caller.asks_for_values or service == "sts" else {},
            base_url=base_url(scope),
        )
        if signed_own:
            if service != "iot":
                raise AccessDeniedException(f"{path[:200]} takes signatures for `iot`")
            if path.startswith(allow_lists.PREFIX):
                return _json(
                    await allow_lists.answer(call, request.method, path, fields, known.body)
                )
            if fault_door.is_path(path):
                return _json(fault_door.answer(call, self.faults, request.method, path, known.body))
            if path == _TRY_HOOK:
                return _json(await hook_trial.test(call, known.body))
            return _json(await template_rendering.render(call, known.body))
        if service in GLOBAL_SERVICES:
            return await self._query(call, service, request, known.body)
        operation, labels = self._route(service, request)
        params = restjson.decode_request(operation, labels, fields, dict(headers), known.body)
        del known  # the body: what an upload holds is in memory once
        result = await invoke(call, service, operation, params)
        status, answered, body = restjson.encode_response(operation, result)
        if service == LAMBDA and "content-type" in answered:
            # of what a function answers, too; an event that is not awaited has no answer
            answered.pop("content-type")
            answered |= {"content-type": "application/json"} if body else {}
        return status, answered, body

    def _route(self, service: str, request: Request) -> tuple[Operation, dict[str, str]]:
        """The operation a request is for. Raises UnknownOperationException."""
        path = request.path
        if service == LAMBDA and path.endswith("/functions/"):
            path = path[:-1]  # ListFunctions of older SDKs
        found = self.models[service].route(request.method, path, request.fields)
        if found is None:
            raise UnknownOperationException(
                f"no operation is at {request.method} {request.path[:200]}"
            )
        return found

    def _room(self, request: Request, caller: Caller, signed_for: str) -> int:
        """How many bytes the body of a request may have, by what it says it is for."""
        service = SIGNING_NAMES.get(signed_for) if signed_for else unsigned_service(request.scope)
        if service != LAMBDA:
            return MAX_BODY
        with contextlib.suppress(UnknownOperationException):
            operation, _ = self._route(LAMBDA, request)
            return large_bodies.room(self.services.limits, caller, operation.name)
        return MAX_BODY

    async def _query(self, call: Call, service: str, request: Request, body: bytes) -> Answer:
        # any page can have a browser send a GET, and not every browser says that a page did
        methods = ("GET", "POST") if self.authentication.required else ("POST",)
        if request.method not in methods or request.path != "/":
            raise UnknownOperationException(
                f"operations of {service} are at POST /, not {request.method} {request.path[:200]}"
            )
        # a presigned request has its form in the query, whatever its method
        form = body or request.scope["query_string"]
        content_type = header(request.scope, b"content-type") if body else query.FORM
        operation, params = query.decode_request(self.models[service], form, content_type)
        result = await invoke(call, service, operation, params)
        return query.encode_response(operation, result, call.request_id)

    def _refused(self, scope: Scope, error: ServiceError, request_id: str) -> Answer:
        """An error in the caller's protocol; a form that is not signed is taken as one for IAM."""
        if not speaks_query(scope):
            if (SIGNING_NAMES.get(signing_name(scope)) or unsigned_service(scope)) == LAMBDA:
                message = self.models[LAMBDA].message_member(error.code())
                further = {"Type": "User" if error.status < 500 else "Service"}
                return restjson.encode_error(error, request_id, message, further)
            return restjson.encode_error(error, request_id)
        named = SIGNING_NAMES.get(signing_name(scope), "")
        service = named if named in GLOBAL_SERVICES else "iam"
        return query.encode_error(error, request_id, self.models[service].xml_namespace)

    def _service(self, request: Request, known: Authenticated) -> str:
        """The service a request is for. Raises NotImplementedException when it is not offered."""
        if not known.service:  # nothing is signed: --auth off
            if not speaks_query(request.scope):
                return unsigned_service(request.scope)
            version = parse_qs(known.body or request.scope["query_string"]).get(b"Version", [b""])
            for name in GLOBAL_SERVICES:
                if self.models[name].version.encode() == version[0]:
                    return name
        elif known.service in SIGNING_NAMES:
            return SIGNING_NAMES[known.service]
        raise NotImplementedException(
            f"the service `{known.service[:80]}` is not offered by this server, "
            f"only {', '.join(f'`{name}`' for name in self.models)}"
        )

    async def _own(self, scope: Scope, path: str) -> Answer:
        method = scope["method"]
        if method == "GET" and path.startswith(report_links.PREFIX):
            return open_report(self.services, scope, path)
        if method == "GET" and path.startswith(code_links.PREFIX):
            return await open_code(self.services, scope, path)
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
            refuse_web_pages(scope, self.services.host_names)
            await self.reset()
            return _json({"status": "empty"})
        raise ResourceNotFoundException(f"nothing is at {method} {path[:200]}")


def _json(value: object) -> Answer:
    return 200, {"content-type": "application/json"}, msgspec.json.encode(value)
