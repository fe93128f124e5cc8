"""Calls of IAM and STS as root, and as the callers the HTTP door would make of them."""

from __future__ import annotations

import json
from typing import Any

from fleetgate.domain.policy import IDENTITY, compile_policies, parse
from fleetgate.errors import ServiceError
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.dispatch import invoke
from fleetgate.wire.constraints import violations
from fleetgate.wire.model import Shape, python_name
from fleetgate.wire.query import encode_response
from tests.operations.conftest import Registry
from tests.operations.declared import undeclared

ACCOUNT = "123456789012"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "iot.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
"""The trust policy of a provisioning role (AWS IoT Developer Guide, "Device provisioning")."""


def allow(*actions: str, resource: str = "*", effect: str = "Allow") -> str:
    """A policy document with one statement."""
    statement = {"Effect": effect, "Action": list(actions), "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class Iam:
    """Calls operations of IAM and STS; every answer is held against the model."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __call__(
        self, operation: str, caller: Caller | None = None, service: str = "iam", /, **members: Any
    ) -> dict[str, Any]:
        """Members have the model's names: ``iam("CreateUser", UserName="ann")``."""
        params = {python_name(name): value for name, value in members.items()}
        model = self.registry.models[service].operation(operation)
        call = Call(self.registry.services, "request", self.registry.clock(), caller=caller)
        try:
            result = self.registry.runner.run(invoke(call, service, model, params))
        except ServiceError as error:
            complaint = undeclared(service, model, error)
            if complaint:
                raise AssertionError(complaint) from error
            raise
        encode_response(model, result, "request")
        if model.output is not None:
            assert _missing(model.output, result) == []
        return result

    def sts(
        self, operation: str, caller: Caller | None = None, /, **members: Any
    ) -> dict[str, Any]:
        return self(operation, caller, "sts", **members)

    def user(self, name: str, *documents: str) -> Caller:
        """A new user with these policies, as a caller."""
        found = self("CreateUser", UserName=name)["User"]
        compiled = compile_policies(
            [(str(at), parse(text, IDENTITY)) for at, text in enumerate(documents)],
            {"aws:username": (name,)},
        )
        arn = found["Arn"]
        return Caller(ACCOUNT, arn, found["UserId"], "AKIA", compiled, principal_arn=arn)

    def role(self, name: str, trust: str = TRUST, **members: Any) -> str:
        """A new role; returns its ARN."""
        created = self("CreateRole", RoleName=name, AssumeRolePolicyDocument=trust, **members)
        return str(created["Role"]["Arn"])


def _missing(shape: Shape, result: dict[str, Any]) -> list[str]:
    """Required members of the output that the result has not."""
    named = {python_name(name): value for name, value in result.items()}
    return [each for each in violations(shape, named) if "must not be null" in each]
