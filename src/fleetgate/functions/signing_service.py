"""A certificate authority that is asked over HTTPS: what Vault and step-ca have in common."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from fleetgate.errors import InvalidCsr
from fleetgate.functions.addresses import networks
from fleetgate.functions.https import HttpsServer, Resolve, Response, shown
from fleetgate.functions.options import Options
from fleetgate.functions.signing import Refused, refused, request_of, signed
from fleetgate.functions.target import Run
from fleetgate.functions.urls import parse_url
from fleetgate.pki import csr
from fleetgate.pki.csr import SigningRequest

_log = logging.getLogger(__name__)

TTL = r"[1-9][0-9]{0,8}[smh]"
TTL_RULE = "a number of seconds, minutes or hours such as 8760h is expected"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: the request as it came (PEM) and as it was read."""

    csr_pem: str
    csr: SigningRequest


class SigningService:
    """A Target that has requests signed by `sign`.

    That is given a request, the id of the run and the seconds it has. It returns certificates
    (PEM), or raises Refused, or FunctionError as `HttpsServer.post` does.
    """

    def __init__(
        self, name: str, description: str, sign: Callable[[Asked, str, float], Awaitable[str]]
    ) -> None:
        self._name = name
        self._description = description
        self._sign = sign

    @property
    def description(self) -> str:
        return self._description

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        """Has the request in the event signed. Raises FunctionError, see `HttpsServer.post`."""
        try:
            run = signed(await self._sign(_asked(event), request_id, seconds))
        except Refused as error:
            return refused(error)
        _log.info("event=signed function=%s request=%s", self._name, request_id)
        return run

    async def close(self) -> None:
        """There is nothing to end."""


def read_server(options: Options, resolve: Resolve) -> HttpsServer:
    """The server at `address`; `ca_file` and `allow_networks` as of a webhook.

    Raises ValueError naming option, rule and value.
    """
    address = options.text("address", rule="https://HOST[:PORT] is expected")
    try:
        if parse_url(address).target != "/":
            raise ValueError("a path or query is not taken")
    except ValueError as error:
        raise ValueError(f"{options.named('address')}: {error}") from None
    ca_file = options.optional_path("ca_file")
    allowed = options.texts("allow_networks")
    try:
        networks(allowed)
    except ValueError as error:
        raise ValueError(f"{options.named('allow_networks')}: {error}") from None
    try:
        return HttpsServer(address, allow_networks=allowed, ca_file=ca_file, resolve=resolve)
    except ValueError as error:
        raise ValueError(f"{options.named('ca_file')}: {error}") from None


def _asked(event: bytes) -> Asked:
    """The request in an event. Raises Refused."""
    text = request_of(event).certificate_signing_request
    try:
        return Asked(text, csr.parse(text))
    except InvalidCsr as error:
        raise Refused("InvalidCsr", error.message) from None


async def ask(
    server: HttpsServer,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    seconds: float,
) -> tuple[Response, dict[str, Any]]:
    """Sends an object as JSON; the response, and the object in it ({} when there is none).

    Raises FunctionError as `HttpsServer.post` does.
    """
    response = await server.post(
        {"Content-Type": "application/json", "Accept": "application/json", **headers},
        msgspec.json.encode(body),
        seconds=seconds,
        target=path,
    )
    try:
        answer = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        answer = None
    return response, answer if isinstance(answer, dict) else {}


def refusal(what: str, server: HttpsServer, path: str, response: Response, said: str) -> Refused:
    """The service refused, or said something else than a certificate; `said` is its reason."""
    reason = shown(said) or "no reason in its answer"
    place = f"{str(server.url).rstrip('/')}{path}"
    return Refused(what, f"{place} answered status {response.status}: {reason}")


def pem_text(value: object) -> str:
    """A certificate that an answer holds, ending with a newline; "" when it is none."""
    if not isinstance(value, str) or "-----BEGIN CERTIFICATE-----" not in value:
        return ""
    return value.strip() + "\n"
