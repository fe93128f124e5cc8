"""A server in memory: it issues certificates, knows which of them are registered, and misbehaves.

It is spoken to by the `connect` argument of a journey, without a network, so that hundreds of
journeys take a second. The real one is tested with elsewhere.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import ConnectionFailed
from fleetgate.device.retry import Surroundings
from fleetgate.names import certificate_id
from fleetgate.pki import csr, issue, keys, pem
from tests.device.conftest import Files, Issuer
from tests.device.scripted_client import ScriptedClient

INVALID_TOKEN = (
    "rejected",
    {
        "statusCode": 400,
        "errorCode": "InvalidCertificateOwnershipToken",
        "errorMessage": "the token is over",
    },
)

Answer = tuple[str, dict[str, Any]] | None


@dataclass(frozen=True)
class Fault:
    """What becomes of one request: whether it is carried out, what is answered then, and whether
    the connection ends instead."""

    answer: Callable[[Answer], Answer] = lambda _: None
    carried_out: bool = True
    ends: bool = False


SILENCE = Fault()
INVALID = Fault(lambda _: INVALID_TOKEN)
HANG_UP = Fault(ends=True)
IGNORED = Fault(carried_out=False, ends=True)


def refusal(status: int, code: str = "Refused") -> Fault:
    """The request is not carried out, and rejected."""
    values = {"statusCode": status, "errorCode": code, "errorMessage": "no"}
    return Fault(lambda _: ("rejected", values), carried_out=False)


def refused(why: str) -> ConnectionFailed:
    """As of a server that answers CONNECT with a no."""
    error = ConnectionFailed(f"refused: {why}")
    error.refused = True
    return error


def changed(**values: Any) -> Fault:
    """Members of the accepted answer are others."""
    return Fault(lambda answer: ("accepted", {**(answer or ("", {}))[1], **values}))


@dataclass
class Clock:
    """Time that passes by sleeping only."""

    now: float = 1_800_000_000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def around(self) -> Surroundings:
        return Surroundings(lambda: self.now, lambda: self.now, self.sleep, lambda: 1.0)


@dataclass
class MemoryServer:
    """`faults` are for the answers to come, by operation: ``create`` and ``register``.

    ``certificates`` are the states by id. A `clock` lets tokens end after `token_seconds`. With
    ``token_once`` a used token is refused instead of repeating the answer. `unreachable` counts
    the connections that fail from now on, `busy` those of other certificates than the claim's,
    which `claim_refused` is about. Refused are those with a pending certificate, and with a
    registered one under another name than `only_as`.
    """

    issuer: Issuer
    claim: Files
    clock: Clock | None = None
    thing_name: str | None = "lamp-1"
    token_seconds: float = 3600.0
    token_once: bool = False
    unreachable: int = 0
    busy: int = 0
    claim_refused: bool = False
    only_as: str | None = None
    configuration: dict[str, str] = field(default_factory=lambda: {"mode": "bright"})
    faults: dict[str, deque[Fault]] = field(
        default_factory=lambda: {"create": deque(), "register": deque()}
    )
    refused: list[str] = field(default_factory=list)

    certificates: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    connects: list[tuple[str, str]] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    clients: list[ScriptedClient] = field(default_factory=list)
    rsa_key: rsa.RSAPrivateKey | None = None

    @property
    def now(self) -> float:
        return self.clock.now if self.clock else 0.0

    @property
    def active(self) -> list[str]:
        return [each for each, state in self.certificates.items() if state == "ACTIVE"]

    @property
    def asked(self) -> list[str]:
        """The requests, in short."""
        return ["create" if "/create" in topic else "register" for topic, _ in self.requests]

    def connect(
        self, endpoint: Endpoint, credentials: AnyCredentials, client_id: str
    ) -> ScriptedClient:
        assert isinstance(credentials, Credentials)
        assert endpoint.ca is not None
        assert Path(endpoint.ca).read_text() == self.claim.ca.read_text()
        certificate = x509.load_pem_x509_certificate(Path(credentials.certificate).read_bytes())
        key = serialization.load_pem_private_key(Path(credentials.key).read_bytes(), None)
        assert certificate.public_key() == key.public_key()
        own = certificate_id(certificate.public_bytes(serialization.Encoding.DER))
        is_claim = Path(credentials.certificate) == self.claim.certificate
        self.connects.append((client_id, "claim" if is_claim else own))
        self.endpoints.append(endpoint)
        if self.unreachable > 0:
            self.unreachable -= 1
            raise ConnectionFailed("nobody is there")
        if is_claim and self.claim_refused:
            raise refused("the certificate is over")
        if not is_claim and self.busy > 0:
            self.busy -= 1
            raise ConnectionFailed("busy")
        if not is_claim and self.certificates.get(own) != "ACTIVE":
            raise refused("the certificate is not ACTIVE")
        if not is_claim and self.only_as not in (None, client_id):
            raise refused("not this client id")
        client = ScriptedClient(self._answer, refused=self.refused)
        self.clients.append(client)
        return client

    def _answer(self, topic: str, payload: bytes) -> Iterable[tuple[str, bytes]]:
        cbor = topic.endswith("/cbor")
        request = cbor2.loads(payload) if cbor else json.loads(payload)
        self.requests.append((topic, request))
        kind = self.asked[-1]
        fault = self.faults[kind].popleft() if self.faults[kind] else None
        serve = self._create if kind == "create" else self._register
        answer = serve(request) if fault is None or fault.carried_out else None
        if fault is not None and fault.ends:
            self.clients[-1].lose()
            return
        if fault is not None:
            answer = fault.answer(answer)
        if answer is not None:
            suffix, values = answer
            text = cbor2.dumps(values) if cbor else json.dumps(values).encode()
            yield f"{topic}/{suffix}", text

    def _create(self, request: dict[str, Any]) -> Answer:
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
        answer, subject = {}, None
        if "certificateSigningRequest" in request:
            wanted = csr.parse(request["certificateSigningRequest"])
            key, subject = wanted.public_key, wanted.subject
        else:
            self.rsa_key = self.rsa_key or rsa.generate_private_key(65537, 2048)
            key = self.rsa_key.public_key()
            answer["privateKey"] = keys.rsa_private_pem(self.rsa_key)
        der = issue.issue(
            issue.DEVICE,
            self.issuer.authority,
            key,
            subject,
            now=datetime.now(UTC),
            serial=secrets.randbits(158) + 1,
        )
        own, token = certificate_id(der), secrets.token_hex(16)
        self.certificates[own] = "PENDING_ACTIVATION"
        self.tokens[token] = own, self.now + self.token_seconds
        return "accepted", {
            **answer,
            "certificateId": own,
            "certificatePem": pem.encode("CERTIFICATE", der),
            "certificateOwnershipToken": token,
        }

    def _register(self, request: dict[str, Any]) -> Answer:
        token = request["certificateOwnershipToken"]
        own, ends = self.tokens.get(token, ("", 0.0))
        if self.now >= ends or (self.token_once and token in self.used):
            return INVALID_TOKEN
        self.used[token] = own
        self.certificates[own] = "ACTIVE"
        answer: dict[str, Any] = {"deviceConfiguration": self.configuration}
        return "accepted", answer | ({"thingName": self.thing_name} if self.thing_name else {})
