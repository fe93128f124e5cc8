"""What becomes of a device's request whose right to it is taken away while somebody is asked.

A hook and a certificate provider are asked outside of any transaction, for seconds. Who may not
ask any more when they have answered gets nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import AccessDeniedException
from fleetgate.functions.target import Run
from fleetgate.operations.admission import require_still
from fleetgate.operations.call import Call
from fleetgate.operations.identity import Identity
from tests.operations.conftest import CLAIM, PEER, START, Registry, csr
from tests.operations.hooks import ALLOW, Here, configure, hook, lines
from tests.operations.test_certificate_providers import create as create_provider
from tests.operations.test_provider_signing import NOW
from tests.operations.test_provisioning import create, register, set_up, status, things
from tests.provider_authority import provider_authority

Step = tuple[str, dict[str, Any]]
TOPIC = "$aws/provisioning-templates/T/provision/json"


class Meanwhile(Here):
    """Does something to the registry before it answers."""

    registry: Registry
    steps: Sequence[Step] = ()
    seconds_later = 0.0

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        for operation, params in self.steps:
            await self.registry.start("iot", operation, params)
        self.registry.clock.now += self.seconds_later
        return await super().invoke(event, request_id=request_id, seconds=seconds)


class Claim:
    """A claim certificate; its policy `claims` allows everything."""

    def __init__(self, registry: Registry) -> None:
        made = registry.certificate(set_as_active=True)
        self.id, self.arn = made["certificateId"], made["certificateArn"]
        self.identity = Identity(self.id, None, START * 2)
        document = policy({"Action": "iot:*"})
        registry.call("CreatePolicy", policy_name="claims", policy_document=document)
        registry.call("AttachPolicy", policy_name="claims", target=self.arn)

    def status(self, status: str) -> Step:
        return "UpdateCertificate", {"certificate_id": self.id, "new_status": status}

    def detached(self) -> Step:
        return "DetachPolicy", {"policy_name": "claims", "target": self.arn}

    def deleted(self) -> Sequence[Step]:
        delete = {"certificate_id": self.id, "force_delete": True}
        return self.detached(), self.status("INACTIVE"), ("DeleteCertificate", delete)

    def exchanged(self, *statements: Mapping[str, Any]) -> Step:
        """Another version of its policy."""
        members = {"policy_name": "claims", "policy_document": policy(*statements)}
        return "CreatePolicyVersion", {**members, "set_as_default": True}


def policy(*statements: Mapping[str, Any]) -> str:
    every = [{"Effect": "Allow", "Resource": "*", **each} for each in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": every})


@pytest.fixture
def claim(registry: Registry) -> Claim:
    set_up(registry)
    return Claim(registry)


DENIED = {"Effect": "Deny", "Action": "iot:Publish"}
NO_PUBLISH = {"Action": ["iot:Connect", "iot:Subscribe", "iot:Receive"]}
EVERYTHING = {"Action": "iot:*"}
WAYS: Mapping[str, Callable[[Claim], Sequence[Step]]] = {
    "revoked": lambda claim: [claim.status("REVOKED")],
    "inactive": lambda claim: [claim.status("INACTIVE")],
    "deleted": lambda claim: claim.deleted(),
    "detached": lambda claim: [claim.detached()],
    "no longer allowed": lambda claim: [claim.exchanged(NO_PUBLISH)],
    "denied": lambda claim: [claim.exchanged(EVERYTHING, DENIED)],
}
WORDS = {
    "revoked": "is REVOKED, not ACTIVE",
    "inactive": "is INACTIVE, not ACTIVE",
    "deleted": "is not registered",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_hook_s_yes_is_nothing_to_who_may_not_ask_any_more(
    registry: Registry, claim: Claim, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Meanwhile(lambda _event: ALLOW)
    asked.registry, asked.steps = registry, WAYS[way](claim)
    hook(registry, asked)
    created = create(registry)
    with pytest.raises(AccessDeniedException) as caught:
        register(registry, created, identity=claim.identity)
    assert WORDS.get(way, "iot:Publish") in caught.value.message
    assert len(asked.events) == 1
    assert things(registry) == []
    assert status(registry, created) == "PENDING_ACTIVATION"
    (refused,) = lines(caplog)
    assert refused.startswith("event=hook-refused ")
    assert "kind=not-allowed" in refused


@pytest.mark.parametrize("way", WAYS)
def test_a_provider_s_certificate_is_not_for_who_may_not_ask_any_more(
    registry: Registry, claim: Claim, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = provider_authority(NOW)
    asked = Meanwhile(
        lambda event: {"certificatePem": root.sign(event["certificateSigningRequest"], NOW)}
    )
    asked.registry, asked.steps = registry, WAYS[way](claim)
    configure(registry, "sign", asked)
    create_provider(registry)
    known = {claim.id, CLAIM.certificate_id}
    with pytest.raises(AccessDeniedException) as caught:
        registry.device(
            "CreateCertificateFromCsr", claim.identity, certificate_signing_request=csr()
        )
    assert WORDS.get(way, "iot:Publish") in caught.value.message
    assert len(asked.events) == 1
    found = registry.call("ListCertificates")["certificates"]
    assert {each["certificateId"] for each in found} <= known
    (told,) = lines(caplog, "event=provider-")
    assert told.startswith("event=provider-failed ")
    assert "kind=not-allowed" in told


def temporary(registry: Registry) -> Identity:
    made = registry.call("CreateProvisioningClaim", template_name="T")
    return Identity(made["certificateId"], "T", made["expiration"])


@pytest.mark.parametrize(("later", "allowed"), [(299.0, True), (300.0, False)])
def test_a_temporary_claim_may_end_meanwhile(
    registry: Registry, later: float, allowed: bool
) -> None:
    set_up(registry)
    asked = Meanwhile(lambda _event: ALLOW)
    asked.registry, asked.seconds_later = registry, later
    hook(registry, asked)
    created, identity = create(registry), temporary(registry)
    if allowed:
        register(registry, created, identity=identity)
        assert things(registry)
    else:
        with pytest.raises(AccessDeniedException, match=r"expired at .* temporary claim"):
            register(registry, created, identity=identity)
        assert things(registry) == []


class Between:
    """The store, with something that happens right before a transaction of an attempt."""

    def __init__(self, registry: Registry, steps: Sequence[Step]) -> None:
        self.registry, self.store, self.steps = registry, registry.services.store, list(steps)
        self.writes = 0

    async def read(self, *given: Any, **more: Any) -> Any:
        return await self.store.read(*given, **more)

    async def write(self, *given: Any, **more: Any) -> Any:
        self.writes += 1
        if self.writes == 2:
            self.registry.services.store = self.store
            for operation, params in self.steps:
                await self.registry.start("iot", operation, params)
        return await self.store.write(*given, **more)


@pytest.mark.parametrize("way", WORDS)
def test_a_certificate_may_be_taken_in_the_last_moment(
    registry: Registry, claim: Claim, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The transaction looks for itself."""
    caplog.set_level("INFO", "fleetgate.provisioning")
    hook(registry, Here(lambda _event: ALLOW))
    created = create(registry)
    between: Any = Between(registry, WAYS[way](claim))
    registry.services.store = between
    with pytest.raises(AccessDeniedException) as caught:
        register(registry, created, identity=claim.identity)
    assert WORDS[way] in caught.value.message
    assert between.writes == 2
    assert things(registry) == []
    (allowed, refused) = lines(caplog)
    assert allowed.startswith("event=hook-allowed ")
    assert refused.startswith("event=hook-refused ")
    assert "kind=not-allowed" in refused


def test_what_does_not_concern_the_request_may_change(registry: Registry, claim: Claim) -> None:
    asked = Meanwhile(lambda _event: ALLOW)
    only = {"Action": "iot:Publish", "Resource": registry.arn(f"topic/{TOPIC}")}
    asked.registry, asked.steps = registry, [claim.exchanged(only)]
    hook(registry, asked)
    register(registry, create(registry), identity=claim.identity)
    assert things(registry)


def test_without_a_hook_nothing_is_asked_again(registry: Registry) -> None:
    """Nobody was waited for since the request was let in: CLAIM is no certificate here."""
    set_up(registry)
    register(registry, create(registry))
    assert things(registry)


def test_a_request_of_nobody_s_connection_is_refused(registry: Registry, claim: Claim) -> None:
    call = Call(
        *(registry.services, "request", START, "client", claim.identity), topic=TOPIC, peer=PEER
    )
    read = registry.services.store.read
    registry.runner.run(read(require_still, call))
    for changed in (replace(call, identity=None), replace(call, peer=None)):
        with pytest.raises(AccessDeniedException, match="no connection"):
            registry.runner.run(read(require_still, changed))
