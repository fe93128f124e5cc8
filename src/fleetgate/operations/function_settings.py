"""What a function may be set to: the members of CreateFunction and UpdateFunctionConfiguration.

Lengths and patterns are the model's; here is what Lambda checks beside them, and what this server
has instead of the whole of Lambda.

Sources: Lambda API reference, CreateFunction; Lambda developer guide, "Lambda quotas", "Working
with Lambda environment variables" (reserved keys); AWS's words in refusals where they are known.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from fleetgate.errors import InvalidParameterValueException, InvalidRequestException
from fleetgate.functions.program import RESERVED
from fleetgate.functions.runner import runtimes
from fleetgate.operations.authorization import require_role
from fleetgate.operations.call import Call

LAMBDA = "lambda.amazonaws.com"
"""The service that runs functions, which has to be trusted by their roles."""

TIMEOUT_SECONDS = 3
MEMORY_MEGABYTES = 128
"""What a function has when nothing is said."""

MAX_TIMEOUT_SECONDS = 900
MAX_MEMORY_MEGABYTES = 10_240

_FIXED: Mapping[str, Mapping[str, object]] = {
    "EphemeralStorage": {"Size": 512},
    "LoggingConfig": {"LogFormat": "Text"},
    "SnapStart": {"ApplyOn": "None"},
    "TracingConfig": {"Mode": "PassThrough"},
    "VpcConfig": {},
}
"""Members that say how every function is run here anyway: nothing else may be asked for."""


def check_package(package_type: str) -> None:
    """Raises InvalidParameterValueException for another package than a zip."""
    if package_type != "Zip":
        raise InvalidParameterValueException(
            f"PackageType `{package_type}` is not offered by this server, only `Zip`"
        )


def check_runtime(runtime: str | None) -> str:
    """The runtime, which is there. Raises InvalidParameterValueException."""
    if not runtime:
        raise InvalidParameterValueException(
            "Runtime is mandatory for functions created with deployment packages."
        )
    offered = runtimes()
    if runtime not in offered:
        raise InvalidParameterValueException(
            f"Value {runtime} at 'runtime' failed to satisfy constraint: Member must satisfy enum "
            f"value set: [{', '.join(offered)}]: this is what the server offers"
        )
    return runtime


def check_handler(handler: str | None) -> str:
    """The handler, which is there. Raises InvalidParameterValueException."""
    if not handler:
        raise InvalidParameterValueException(
            "Handler is mandatory for functions created with deployment packages."
        )
    return handler


def check_timeout(seconds: int) -> int:
    """A time-out in seconds. Raises InvalidParameterValueException."""
    if seconds > MAX_TIMEOUT_SECONDS:
        raise _too_much("timeout", seconds, MAX_TIMEOUT_SECONDS)
    return seconds


def check_memory(megabytes: int) -> int:
    """A limit of memory in MB. Raises InvalidParameterValueException."""
    if megabytes > MAX_MEMORY_MEGABYTES:
        raise _too_much("memorySize", megabytes, MAX_MEMORY_MEGABYTES)
    return megabytes


def check_environment(call: Call, environment: Mapping[str, Any] | None) -> str:
    """The environment variables as they are kept, a JSON object of text.

    Raises InvalidParameterValueException, which does not show values.
    """
    variables: dict[str, str] = dict((environment or {}).get("Variables") or {})
    reserved = sorted(RESERVED & variables.keys())
    if reserved:
        raise InvalidParameterValueException(
            "Lambda was unable to configure your environment variables because the environment "
            "variables you have provided contains reserved keys that are currently not supported "
            f"for modification. Reserved keys used in this request: {', '.join(reserved)}"
        )
    for name, value in variables.items():
        if "\0" in value:
            raise InvalidParameterValueException(
                f"the environment variable `{name}` contains U+0000"
            )
    text = json.dumps(variables, ensure_ascii=False, separators=(",", ":"))
    size, limit = (
        len(text.encode(errors="surrogatepass")),
        call.services.limits.function_environment,
    )
    if size > limit:
        raise InvalidParameterValueException(
            "Lambda was unable to configure your environment variables because the environment "
            f"variables you have provided exceeded the limit: they have {size} bytes as JSON, "
            f"allowed are {limit}"
        )
    return text


def check_architecture(architectures: Sequence[str] | None) -> str:
    """The architecture: the one that was given, else that of the machine."""
    if architectures:
        return architectures[0]
    return "arm64" if platform.machine().lower() in ("aarch64", "arm64") else "x86_64"


def check_fixed(function_name: str, **members: Mapping[str, Any] | None) -> None:
    """Raises InvalidParameterValueException for a setting that every function here has otherwise.

    `members` are those of `_FIXED`, by their names in the model.
    """
    for name, given in members.items():
        fixed = {**_FIXED[name]}
        if name == "LoggingConfig":
            fixed["LogGroup"] = log_group(function_name)
        for key, value in (given or {}).items():
            if value and value != fixed.get(key):
                offered = f", only `{fixed[key]}`" if key in fixed else ""
                raise InvalidParameterValueException(
                    f"`{name}.{key}` `{str(value)[:80]}` is not offered by this server{offered}"
                )


def log_group(function_name: str) -> str:
    """The name Lambda gives the logs of a function."""
    return f"/aws/lambda/{function_name}"


async def check_role(call: Call, role: str, function_name: str) -> str:
    """The ARN of a role that Lambda may assume. Raises InvalidParameterValueException."""
    try:
        arn = call.account.lambda_arn(function_name)
        await require_role(call, role, LAMBDA, source_arn=arn)
    except InvalidRequestException as error:
        # AWS's words come first: clients (Terraform) wait for a new role as long as they read them
        reason = error.message.partition(": ")[2]
        raise InvalidParameterValueException(
            f"The role defined for the function cannot be assumed by Lambda. ({reason})"
        ) from None
    return role


def _too_much(member: str, value: int, limit: int) -> InvalidParameterValueException:
    return InvalidParameterValueException(
        f"'{member}' value failed to satisfy constraint: Member must have value less than or equal "
        f"to {limit}, not {value}"
    )
