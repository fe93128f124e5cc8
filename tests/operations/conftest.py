"""A registry to call operations on: a real store, a real authority, a clock to be set."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fleetgate.errors import ServiceError
from fleetgate.names import Account
from fleetgate.operations.call import Call, Services
from fleetgate.operations.dispatch import invoke
from fleetgate.operations.identity import Identity, Peer
from fleetgate.operations.rsa_keys import RsaKeyPair, RsaKeys
from fleetgate.operations.rsa_worker import make
from fleetgate.pki import issue
from fleetgate.pki.trust import Authority
from fleetgate.server import MODELS, load_model, load_provisioning_model
from fleetgate.store.engine import Store
from fleetgate.wire.model import Service
from tests.operations.declared import undeclared

START = 1_790_000_000.0
CLAIM = Identity("c" * 64, None, START * 2)
"""Who devices are when a test does not say who. `tests.operations.hooks.claim` registers it."""

PEER = Peer("192.0.2.1", "gate.example", b"")
"""Where devices connect from."""


class Clock:
    """Time that stands still until it is set."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


class MadeHere(RsaKeys):
    """RSA keys without the processes that make them ahead: one for each test would be slow."""

    async def take(self) -> RsaKeyPair:
        private, public = make()
        return RsaKeyPair(private.decode("ascii"), public)


@dataclass
class Registry:
    """Calls operations by their AWS names, as root over HTTP or as a device over MQTT."""

    services: Services
    clock: Clock
    runner: asyncio.Runner
    models: dict[str, Service]
    ended: list[str]

    def call(self, operation: str, **params: Any) -> dict[str, Any]:
        return self.run("iot", operation, params)

    def device(
        self, operation: str, identity: Identity | None = None, **params: Any
    ) -> dict[str, Any]:
        params = {"payload_format": "json", **params}
        return self.run("provisioning", operation, params, identity or CLAIM)

    def run(
        self,
        service: str,
        operation: str,
        params: dict[str, Any],
        identity: Identity | None = None,
    ) -> dict[str, Any]:
        return self.runner.run(self.start(service, operation, params, identity))

    async def start(
        self,
        service: str,
        operation: str,
        params: dict[str, Any],
        identity: Identity | None = None,
    ) -> dict[str, Any]:
        described = self.models[service].operation(operation)
        call = Call(self.services, "request", self.clock(), "client", identity)
        if identity is not None:
            labels = {"payloadFormat": "json", "templateName": params.get("template_name")}
            call = replace(call, topic=described.request_uri.format_map(labels), peer=PEER)
        try:
            return await invoke(call, service, described, params)
        except ServiceError as error:
            complaint = undeclared(service, described, error)
            if complaint:
                raise AssertionError(complaint) from error
            raise

    def arn(self, resource: str) -> str:
        return self.services.account.arn(resource)

    def certificate(self, **params: Any) -> dict[str, Any]:
        """A new certificate by CSR; ACTIVE with ``set_as_active=True``."""
        return self.call("CreateCertificateFromCsr", certificate_signing_request=csr(), **params)


def csr(common_name: str = "device") -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


@pytest.fixture(scope="session")
def authority() -> Authority:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return Authority.create(key, now=datetime.fromtimestamp(START, UTC), serial=1)


@pytest.fixture(scope="session")
def models() -> dict[str, Service]:
    over_http = {name: load_model(name) for name in MODELS}
    return {**over_http, "provisioning": load_provisioning_model()}


@pytest.fixture
def registry(
    store: Store,
    authority: Authority,
    models: dict[str, Service],
) -> Iterator[Registry]:
    clock = Clock()
    ended: list[str] = []
    with asyncio.Runner() as runner:
        services = Services(
            account=Account("123456789012", "eu-west-1"),
            store=store,
            authority=authority,
            device_profile=issue.DEVICE,
            claim_profile=issue.CLAIM,
            token_key=bytes(32),
            rsa_keys=MadeHere(),
            host_names=("gate.example", "10.0.0.1"),
            now=clock,
            random_bytes=os.urandom,
            certificate_changed=ended.append,
        )
        yield Registry(services, clock, runner, models, ended)
        runner.run(services.background.close())
        runner.run(services.functions.close())


ALLOW = '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}'

_serials = itertools.count(1)


def fresh(prefix: str) -> str:
    """A name nobody has used."""
    return f"{prefix}-{next(_serials)}"


def elsewhere(services: Services, **changes: Any) -> Services:
    """The services with something changed, e.g. another token key."""
    return replace(services, **changes)
