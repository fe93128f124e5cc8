"""Functions for hooks, run where the test says: in this process, by a Python function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fleetgate.functions.configured import PythonFunction
from fleetgate.functions.target import Failure, FunctionError, Run
from fleetgate.operations.built_in import Answer, Settle
from fleetgate.operations.call import Call
from fleetgate.store.certificates import Certificate, add_certificate
from fleetgate.store.engine import Tx
from fleetgate.store.functions import Permission, add_permission
from fleetgate.store.policies import add_policy, add_policy_attachment
from tests.operations.conftest import ALLOW as ALLOW_ALL
from tests.operations.conftest import CLAIM, START, Registry

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f"
ALLOW = {"allowProvisioning": True}
REFUSED = "the pre-provisioning hook of template `T` did not allow the provisioning"
FAILED = "the pre-provisioning hook of template `T` failed"

Event = dict[str, Any]


def over(value: Any) -> Any:
    """An answer that allows, with these overrides."""
    return {**ALLOW, "parameterOverrides": value}


def run_of(value: Any) -> Run:
    """What a function answers: bytes as they are, a Run as it is, all else as JSON."""
    if isinstance(value, Run):
        return value
    return Run(value if isinstance(value, bytes) else json.dumps(value).encode())


def answer(value: Any) -> Here:
    """A target that always answers this."""
    return Here(lambda _event: value)


def lines(caplog: pytest.LogCaptureFixture, event: str = "event=hook-") -> list[str]:
    """What was logged of hooks."""
    return [each for each in caplog.messages if each.startswith(event)]


class Here:
    """A target that calls a Python function with the event, and remembers the events."""

    description = "python:test:here"

    def __init__(self, function: Callable[[Event], Any], seconds: float = 0.0) -> None:
        self.function = function
        self.seconds = seconds
        self.events: list[Event] = []

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        self.events.append(json.loads(event))
        assert request_id
        if self.seconds > seconds:
            await asyncio.sleep(seconds)
            raise FunctionError(Failure.TIMED_OUT, f"no answer within {seconds:.1f} s")
        await asyncio.sleep(self.seconds)
        return run_of(self.function(self.events[-1]))

    async def close(self) -> None:
        pass


class Ours:
    """A built-in function with a fixed answer and a last word."""

    description = "builtin:test"

    def __init__(self, value: Mapping[str, Any], settle: Settle | None, reason: str = "") -> None:
        self.given = Answer(value, settle, reason, announce=self._announce)
        self.announced = 0

    async def answer(self, call: Call, event: Mapping[str, Any]) -> Answer:
        assert event["certificateId"] != call.identity
        return self.given

    def _announce(self, _call: Call) -> None:
        self.announced += 1


def claim(registry: Registry, claim_id: str = CLAIM.certificate_id) -> None:
    """Registers the certificate of devices, which may do everything."""

    def add(tx: Tx) -> None:
        times = (START - 1, START * 2, START, START)
        if add_certificate(
            tx, Certificate(claim_id, "ACTIVE", "", "DEFAULT", *times, 1, "", public_key="")
        ):
            add_policy(tx, f"claim-{claim_id[0]}", ALLOW_ALL, "", START)
            add_policy_attachment(tx, f"claim-{claim_id[0]}", registry.arn(f"cert/{claim_id}"))

    registry.runner.run(registry.services.store.write(add))


def permit(registry: Registry, name: str, **condition: str) -> None:
    """Lets AWS IoT invoke the function, as AddPermission does."""
    statement = {
        "Sid": "iot",
        "Effect": "Allow",
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": registry.services.account.lambda_arn(name),
    }
    if condition:
        statement["Condition"] = {
            "ArnLike": {
                f"AWS:{key}": value for key, value in condition.items() if key == "SourceArn"
            }
            or {"AWS:SourceArn": "*:*:*:*:*:*"},
            "StringEquals": {
                f"AWS:{key}": value for key, value in condition.items() if key == "SourceAccount"
            }
            or {"AWS:SourceAccount": "123456789012"},
        }
    claim(registry)
    permission = Permission("iot", json.dumps(statement))
    registry.runner.run(
        registry.services.store.write(add_permission, name, "configured", permission)
    )


def configure(registry: Registry, name: str, target: Here | Ours, *, permitted: bool = True) -> str:
    """A function of the configuration; returns its ARN."""
    services = registry.services
    services.functions.configured[name] = PythonFunction("test", "here")
    if isinstance(target, Ours):
        services.built_in[name] = target
    else:
        services.functions.targets[name] = target
    if permitted:
        permit(registry, name)
    return services.account.lambda_arn(name)


def hook(registry: Registry, target: Here | Ours, *, template: str = "T", name: str = "f") -> None:
    """Makes a function, and the template asks it."""
    arn = configure(registry, name, target)
    registry.call(
        "UpdateProvisioningTemplate",
        template_name=template,
        pre_provisioning_hook={"targetArn": arn},
    )
