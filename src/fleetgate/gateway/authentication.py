"""Who sent an HTTP request: SigV4 by the keys of root and users, and by temporary credentials.

First comes what can be told without the body (the key is known, the scope and the time are
right), then the body is read, then its signature verified. With the authentication off every
request is one of the root user; then web pages are kept out by their headers.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

from fleetgate.gateway.bodies import Bodies, Body
from fleetgate.gateway.web_pages import Scope, header, refuse_web_pages
from fleetgate.operations.caller import Caller
from fleetgate.operations.condition_keys import GLOBAL_REGION
from fleetgate.operations.credentials import Keyring
from fleetgate.wire import query, sigv4

SIGNING_NAMES: Mapping[str, str] = {
    "iot": "iot",
    "execute-api": "iot",
    "iam": "iam",
    "lambda": "lambda",
    "sts": "sts",
}
"""Service names of a credential scope, and what they mean: older models of ``iot``, such as the
one in AWS CLI 2.9 (Debian 12), have ``execute-api`` as ``signingName``."""

LAMBDA = "lambda"

GLOBAL_SERVICES = frozenset({"iam", "sts"})
"""Services whose clients may sign for GLOBAL_REGION, whatever their own region is."""

_LAMBDA_PATH = re.compile(r"/20[0-9]{2}-[0-9]{2}-[0-9]{2}/")
"""How the paths of all its operations begin, and of no operation of AWS IoT."""

_SCOPE = re.compile(r"/[^/]*/[^/]*/([A-Za-z0-9._-]{1,80})/aws4_request")

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request but for its body: the path as it arrived, query and headers decoded."""

    scope: Scope
    path: str
    fields: Fields
    headers: Fields

    @property
    def method(self) -> str:
        """GET, POST, ..."""
        method: str = self.scope["method"]
        return method

    @property
    def source_ip(self) -> str:
        """The address of the peer, "" where there is none; IPv4 in IPv6 as IPv4."""
        client = self.scope.get("client")
        return _address(client[0]) if client else ""

    @property
    def conditions(self) -> dict[str, tuple[str, ...]]:
        """The condition keys a request has by itself.

        Source: IAM User Guide, "AWS global condition context keys".
        """
        secure = "true" if self.scope.get("scheme") == "https" else "false"
        values: dict[str, tuple[str, ...]] = {"aws:SecureTransport": (secure,)}
        if address := self.source_ip:
            values["aws:SourceIp"] = (address,)
        for key, name in (("aws:UserAgent", b"user-agent"), ("aws:Referer", b"referer")):
            if value := header(self.scope, name):
                values[key] = (value,)
        return values


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Who sent a request for which service; `service` is "" when nothing says it."""

    caller: Caller
    service: str
    body: bytes


@dataclass(slots=True)
class Authentication:
    """Authenticates requests. `required` is False with ``--auth off``."""

    keys: Keyring
    required: bool
    host_names: Collection[str]
    bodies: Bodies = field(default_factory=Bodies)

    async def authenticate(
        self, request: Request, sent: Body, now: float, room: Callable[[Caller, str], int]
    ) -> Authenticated:
        """The caller and the body of a request.

        `room` says how many bytes of body a request of this caller, signed for this service, may
        have; it is asked before any of it is read and before the signature is verified.

        Raises ServiceError when the signature is missing or wrong in any way, or the body cannot
        be taken.
        """
        if not self.required:
            refuse_web_pages(request.scope, self.host_names)
            name = signing_name(request.scope)
            body = await self.bodies.read(sent, room(self.keys.root, name))
            return Authenticated(self.keys.root, name, body)
        signed = sigv4.parse_authorization(
            request.method, request.path, request.fields, request.headers
        )
        region = self.keys.services.account.region
        if SIGNING_NAMES.get(signed.service) in GLOBAL_SERVICES and signed.region == GLOBAL_REGION:
            region = GLOBAL_REGION
        found = await self.keys.find(signed.access_key, signed.security_token, now)
        secret_key = sigv4.check(
            signed,
            None if found is None else found.secret_access_key,
            now=now,
            region=region,
            # whichever service was meant: first who it is, then that it is not here
            service=signed.service,
        )
        assert found is not None  # noqa: S101 - check() raised
        digest = hashlib.sha256()
        body = await self.bodies.read(sent, room(found.caller, signed.service), digest.update)
        sigv4.verify(
            signed,
            secret_key,
            body_sha256=digest.hexdigest(),
            now=now,
            region=region,
            service=signed.service,
        )
        await self.keys.note_use(found, signed.service, signed.region, now)
        return Authenticated(found.caller, signed.service, body)


@lru_cache(maxsize=1024)
def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def signing_name(scope: Scope) -> str:
    """The service a request says it is signed for, "" without; nothing of it is verified."""
    said = header(scope, b"authorization") or unquote(scope["query_string"].decode("latin-1"))
    found = _SCOPE.search(said)
    return found[1] if found else ""


def unsigned_service(scope: Scope) -> str:
    """The service of REST-JSON that a request nobody signed is for, by its path."""
    return LAMBDA if _LAMBDA_PATH.match(scope["path"]) else "iot"


def speaks_query(scope: Scope) -> bool:
    """Whether the caller speaks the Query protocol, as the clients of IAM and STS do."""
    if SIGNING_NAMES.get(signing_name(scope)) in GLOBAL_SERVICES:
        return True
    return query.is_spoken(
        scope["path"],
        scope["query_string"].decode("latin-1"),
        header(scope, b"content-type"),
        header(scope, b"authorization"),
        [name for name, service in SIGNING_NAMES.items() if service not in GLOBAL_SERVICES],
    )
