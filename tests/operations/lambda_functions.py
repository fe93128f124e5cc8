"""Functions for tests: zips, and calls of the Lambda API as root."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from fleetgate.domain.policy import IDENTITY, compile_policies, parse
from fleetgate.functions.configured import PythonFunction
from fleetgate.functions.runner import runtimes
from fleetgate.functions.target import FunctionError, Run
from fleetgate.operations.caller import Caller
from fleetgate.wire.model import python_name
from tests.operations.conftest import Registry
from tests.operations.roles import add_role

SOURCE = "def handler(event, context):\n    return {'allowProvisioning': True}\n"


def zipped(**files: str) -> bytes:
    """A zip with these files; underscores in a name stand for dots."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)
    return out.getvalue()


CODE = zipped(hook_py=SOURCE)


def caller_who(*says: str) -> Caller:
    """A user with policies: each is an effect and an action, ``Allow lambda:Invoke*``."""
    statements = [
        {"Effect": effect, "Action": action, "Resource": "*"}
        for effect, action in (each.split(" ") for each in says)
    ]
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    policies = compile_policies([("p", parse(text, IDENTITY))] if says else [], {})
    arn = "arn:aws:iam::123456789012:user/ann"
    return Caller("123456789012", arn, "AIDAANN", "AKIAANN", policies, principal_arn=arn)


class Answering:
    """A function of the configuration; `run` is how every run of it ends, `events` what it got."""

    description = "python:company.hooks:allow"

    def __init__(self, run: Run | FunctionError | None = None) -> None:
        self.run = run or Run(b'{"allowProvisioning": true}')
        self.events: list[bytes] = []

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        assert request_id
        assert seconds > 0
        self.events.append(event)
        if isinstance(self.run, FunctionError):
            raise self.run
        return self.run

    async def close(self) -> None:
        """Nothing runs."""


def configure(registry: Registry, name: str, function: Answering | None = None) -> Answering:
    """A function of the configuration."""
    found = function or Answering()
    registry.services.functions.configured[name] = PythonFunction("company.hooks", "allow")
    registry.services.functions.targets[name] = found
    return found


class Lambda:
    """Calls operations with members as the model has them: ``aws("CreateFunction", ...)``."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.role = add_role(registry, "lambda", "lambda.amazonaws.com")

    def __call__(self, operation: str, /, **members: Any) -> dict[str, Any]:
        params = {python_name(name): value for name, value in members.items()}
        return self.registry.run("lambda", operation, params)

    def create(self, name: str = "hook", **members: Any) -> dict[str, Any]:
        """A function like that of the guide."""
        wanted = {
            "FunctionName": name,
            "Role": self.role,
            "Runtime": runtimes()[0],
            "Handler": "hook.handler",
            "Code": {"ZipFile": CODE},
            **members,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        return self("CreateFunction", **given)

    def arn(self, name: str) -> str:
        return self.registry.services.account.lambda_arn(name)
