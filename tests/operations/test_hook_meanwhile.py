"""What happens while a hook is asked, and the last word of built-in functions.

A hook is asked outside of any transaction: template, hook and certificate may be others when it
has answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from fleetgate.domain.resources import Resources
from fleetgate.errors import AccessDeniedException
from fleetgate.functions.target import Run
from fleetgate.operations.built_in import Answer
from fleetgate.operations.call import Call
from fleetgate.operations.identity import Identity
from fleetgate.store.certificates import update_certificate_status
from fleetgate.store.engine import Tx
from tests.operations.conftest import START, Registry, elsewhere
from tests.operations.hooks import (
    ALLOW,
    ARN,
    REFUSED,
    Here,
    Ours,
    answer,
    configure,
    hook,
    lines,
    over,
)
from tests.operations.test_provisioning import TEMPLATE, create, register, set_up, things
from tests.operations.test_register_again import picture


@pytest.fixture
def fleet(registry: Registry) -> Registry:
    set_up(registry)
    return registry


# --- what happens while a hook is asked ----------------------------------------------------------


class Meanwhile(Here):
    """Does something to the registry before it answers."""

    def __init__(self, registry: Registry, *steps: tuple[str, dict[str, Any]]) -> None:
        super().__init__(lambda _event: over({"by": f"{len(self.events)}"}))
        self.registry, self.steps = registry, list(steps)

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        while self.steps:
            operation, params = self.steps.pop(0)
            await self.registry.start("iot", operation, params)
        return await super().invoke(event, request_id=request_id, seconds=seconds)


def test_a_hook_exchanged_meanwhile_is_asked_anew(fleet: Registry) -> None:
    other = answer({"allowProvisioning": False})
    arn = configure(fleet, "g", other)
    exchange = {"template_name": "T", "pre_provisioning_hook": {"targetArn": arn}}
    hook(fleet, Meanwhile(fleet, ("UpdateProvisioningTemplate", exchange)))
    with pytest.raises(AccessDeniedException, match="did not allow"):
        register(fleet, create(fleet))
    assert len(other.events) == 1
    assert things(fleet) == []


def test_a_template_made_anew_meanwhile_is_asked_about_anew(fleet: Registry) -> None:
    made = {
        "template_name": "T",
        "template_body": json.dumps(TEMPLATE),
        "provisioning_role_arn": "arn:aws:iam::123456789012:role/provisioning",
        "enabled": True,
        "pre_provisioning_hook": {"targetArn": ARN},
    }
    target = Meanwhile(
        fleet,
        ("DeleteProvisioningTemplate", {"template_name": "T"}),
        ("CreateProvisioningTemplate", made),
    )
    hook(fleet, target)
    fleet.clock.now += 1
    assert register(fleet, create(fleet))["deviceConfiguration"]["by"] == "2"
    assert len(target.events) == 2


def test_a_hook_removed_meanwhile_has_no_say(fleet: Registry) -> None:
    removal = {"template_name": "T", "remove_pre_provisioning_hook": True}
    hook(fleet, Meanwhile(fleet, ("UpdateProvisioningTemplate", removal)))
    assert register(fleet, create(fleet))["deviceConfiguration"] == {"site": "A"}


def test_a_function_of_ours_removed_meanwhile_has_no_last_word(fleet: Registry) -> None:
    class Leaving(Ours):
        async def answer(self, call: Call, event: Mapping[str, Any]) -> Answer:
            removal = {"template_name": "T", "remove_pre_provisioning_hook": True}
            await fleet.start("iot", "UpdateProvisioningTemplate", removal)
            return await super().answer(call, event)

    def settle(*_: object) -> Sequence[str]:
        raise AccessDeniedException("it was removed")

    ours = Leaving(over({"site": "B"}), settle)
    hook(fleet, ours)
    assert register(fleet, create(fleet))["deviceConfiguration"] == {"site": "A"}
    assert ours.announced == 0


def test_a_template_disabled_meanwhile_registers_nothing(fleet: Registry) -> None:
    disabling = {"template_name": "T", "enabled": False}
    hook(fleet, Meanwhile(fleet, ("UpdateProvisioningTemplate", disabling)))
    with pytest.raises(AccessDeniedException, match="is disabled"):
        register(fleet, create(fleet))
    assert things(fleet) == []


def test_hooks_exchanged_all_the_time_have_their_seconds_together(
    fleet: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.services = elsewhere(fleet.services, hook_seconds=0.3)

    class Restless(Meanwhile):
        async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
            await asyncio.sleep(0.05)
            other = "g" if len(self.events) % 2 == 0 else "f"
            arn = ARN[:-1] + other
            self.steps.append((
                "UpdateProvisioningTemplate",
                {"template_name": "T", "pre_provisioning_hook": {"targetArn": arn}},
            ))  # fmt: skip
            return await super().invoke(event, request_id=request_id, seconds=seconds)

    target = Restless(fleet)
    configure(fleet, "g", target)
    hook(fleet, target)
    with pytest.raises(AccessDeniedException, match="failed"):
        register(fleet, create(fleet))
    assert 2 <= len(target.events) <= 6
    assert "kind=timed-out" in lines(caplog, "event=hook-failed")[0]


def test_two_requests_with_one_token_build_one_thing(fleet: Registry) -> None:
    """A device that reconnects while its hook is asked, and asks once more."""
    target = Here(lambda event: over({"by": event["clientId"] + str(len(target.events))}), 0.05)
    hook(fleet, target)
    created = create(fleet)
    params = {
        "payload_format": "json",
        "template_name": "T",
        "certificate_ownership_token": created["certificateOwnershipToken"],
        "parameters": {"SerialNumber": "1"},
    }
    identity = Identity("c" * 64, None, START * 2)

    async def both() -> list[dict[str, Any]]:
        requests = [
            fleet.start("provisioning", "RegisterThing", dict(params), identity) for _ in range(2)
        ]
        return list(await asyncio.gather(*requests))

    first, second = fleet.runner.run(both())
    assert first == second
    assert len(target.events) == 2
    assert things(fleet) == ["dev-1"]


# --- functions of ours ---------------------------------------------------------------------------


def other_certificate(registry: Registry) -> str:
    return str(registry.certificate(set_as_active=True)["certificateId"])


def test_the_last_word_is_said_in_the_transaction_of_the_registration(fleet: Registry) -> None:
    older = other_certificate(fleet)
    seen: list[tuple[str, str | None]] = []

    def settle(tx: Tx, call: Call, certificate_id: str, resources: Resources) -> Sequence[str]:
        thing = resources.thing
        seen.append((certificate_id, None if thing is None else thing.name))
        update_certificate_status(tx, older, "INACTIVE", call.now)
        return [older]

    ours = Ours(over({"SerialNumber": "5"}), settle)
    hook(fleet, ours)
    created = create(fleet)
    epoch = fleet.services.policy_epoch
    assert register(fleet, created)["thingName"] == "dev-5"
    assert seen == [(created["certificateId"], "dev-5")]
    assert fleet.ended == [older]
    assert fleet.services.policy_epoch > epoch
    assert ours.announced == 1
    register(fleet, created)
    assert len(seen) == ours.announced == 1


def test_a_consent_taken_back_undoes_everything(
    fleet: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    older = other_certificate(fleet)

    def settle(tx: Tx, call: Call, _certificate_id: str, _resources: Resources) -> Sequence[str]:
        update_certificate_status(tx, older, "INACTIVE", call.now)
        raise AccessDeniedException("serial number `1` has been used once, the limit")

    ours = Ours(ALLOW, settle)
    hook(fleet, ours)
    created = create(fleet)
    before = picture(fleet)
    with pytest.raises(AccessDeniedException) as caught:
        register(fleet, created)
    assert type(caught.value) is AccessDeniedException
    assert caught.value.message == REFUSED
    assert picture(fleet) == before
    assert fleet.ended == []
    assert ours.announced == 0
    [said] = lines(caplog, "event=hook-refused")
    assert "target='configured builtin:test' kind=denied" in said
    assert "serial number `1` has been used once" in said


def test_why_a_function_of_ours_says_no_is_told_in_the_log(
    fleet: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    hook(fleet, Ours({"allowProvisioning": False}, None, "serial number `1` is not in the list"))
    with pytest.raises(AccessDeniedException) as caught:
        register(fleet, create(fleet))
    assert caught.value.message == REFUSED
    assert "target='configured builtin:test'" in lines(caplog)[0]
    assert "serial number `1` is not in the list" in lines(caplog)[0]
