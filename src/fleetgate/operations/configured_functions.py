"""The functions of the configuration, as the Lambda API shows them."""

from __future__ import annotations

from typing import Any

from fleetgate.functions.configured import BuiltIn, PythonFunction
from fleetgate.operations import function_names
from fleetgate.operations.call import Call
from fleetgate.operations.function_permissions import configured_revision
from fleetgate.operations.invocation import resolve


def configured_names(call: Call) -> set[str]:
    """The names of all functions of the configuration."""
    services = call.services
    return {*services.functions.configured, *services.functions.targets, *services.built_in}


async def shown(call: Call, name: str) -> dict[str, Any]:
    """What a function of the configuration is answered as (FunctionConfiguration of the model).

    Its description says what it is, without secrets.
    """
    found = call.services.functions.configured.get(name)
    resolved = await resolve(call, name)
    answer: dict[str, Any] = {
        "FunctionName": name,
        "FunctionArn": call.account.lambda_arn(name),
        "Description": resolved.description[:256],
        "Version": function_names.LATEST,
        "RevisionId": await call.read(configured_revision, name),
        "State": "Active",
        "LastUpdateStatus": "Successful",
    }
    if found is not None and not isinstance(found, BuiltIn):
        answer["Timeout"] = max(1, round(found.timeout_seconds))
    if isinstance(found, PythonFunction):
        answer["Handler"] = f"{found.module}.{found.function}"
        answer["MemorySize"] = found.memory_megabytes
    return answer
