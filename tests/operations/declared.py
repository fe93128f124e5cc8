"""Which errors an operation may answer with: what its model declares, and what the front door of
the service adds."""

from __future__ import annotations

from fleetgate.errors import ServiceError
from fleetgate.wire.model import Operation

FRONT_DOOR = {
    "iot": {"AccessDeniedException", "NotImplementedException", "ServiceUnavailableException"},
    # IAM API Reference, "Common Errors": ValidationError is what breaks a constraint of the model
    "iam": {"AccessDeniedException", "NotImplementedException", "Throttling", "ValidationError"},
    "sts": {
        "AccessDeniedException",
        "InvalidParameterValue",  # recorded from AWS
        "NotImplementedException",
        "ValidationError",
    },
    "lambda": {
        "AccessDeniedException",
        "NotImplementedException",
        "RequestEntityTooLargeException",  # recorded from AWS
        "ServiceUnavailableException",
        "ValidationException",  # recorded from AWS: what breaks a constraint of the model
    },
    "provisioning": {"NotImplementedException"},
}
"""Codes every operation of a service may answer with, declared or not."""


def undeclared(service: str, operation: Operation, error: ServiceError) -> str:
    """What is wrong with an operation raising `error`, "" when it may."""
    code = error.code()
    status = operation.errors.get(code)
    if status is None and code not in FRONT_DOOR[service]:
        declared = ", ".join(sorted(operation.errors))
        return f"{operation.name} raised {code} ({error.message}); it declares {declared}"
    if status not in (None, error.status):
        return f"{operation.name} raised {code} with status {error.status}, not {status}"
    return ""
