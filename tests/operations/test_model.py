"""One operation is one function: signature, members and errors are those of the service models."""

from __future__ import annotations

import inspect
from typing import Any

import botocore.loaders
import pytest

from fleetgate import errors
from fleetgate.errors import (
    InvalidRequestException,
    NotConfiguredException,
    ServiceError,
    ValidationError,
)
from fleetgate.operations import scope
from fleetgate.operations.dispatch import SERVED, UNOFFERED_MEMBERS
from fleetgate.server import load_provisioning_model
from fleetgate.wire.model import Service
from tests.operations.conftest import Registry
from tests.operations.declared import FRONT_DOOR, undeclared

LOADER = botocore.loaders.Loader()
MODELS = {
    **{
        name: Service.from_json(LOADER.load_service_model(name, "service-2"), name)
        for name in ("iot", "iam", "lambda", "sts")
    },
    "provisioning": load_provisioning_model(),
}
OPERATIONS = [(service, name) for service, functions in SERVED.items() for name in functions]

OF_THE_DOOR = {
    # what a request meets before it is one of an operation (IAM API Reference, "Common Errors");
    # AssumeRole declares an ExpiredTokenException of its own, about tokens that are not offered
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidAction",
    "InvalidSignatureException",
    "MalformedQueryString",
    "MissingAction",
    "MissingAuthenticationTokenException",
    "RequestEntityTooLargeException",
    "SerializationException",
    "UnknownOperationException",
    "UnrecognizedClientException",
}


def codes_of_ours() -> dict[str, int]:
    return {
        error.code(): error.status
        for error in vars(errors).values()
        if inspect.isclass(error) and issubclass(error, ServiceError) and error is not ServiceError
    }


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_the_signature_is_the_models(service: str, name: str) -> None:
    operation = MODELS[service].operation(name)
    function = SERVED[service][name]
    assert inspect.iscoroutinefunction(function)
    assert function.__name__ == operation.python_name
    assert (function.__doc__ or "").startswith(name)
    members = operation.input.members.values() if operation.input is not None else ()
    expected = {member.python_name: member.required for member in members}
    unoffered = UNOFFERED_MEMBERS.get(name, ())
    assert set(unoffered) <= set(expected)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    required = {each.name: each.default is inspect.Parameter.empty for each in parameters}
    assert required == {key: value for key, value in expected.items() if key not in unoffered}


def test_members_that_are_not_offered_belong_to_one_operation() -> None:
    names = [name for _, name in OPERATIONS]
    assert [name for name in UNOFFERED_MEMBERS if names.count(name) != 1] == []


@pytest.mark.parametrize("service", MODELS)
def test_every_operation_of_the_models_is_served_or_left_out_for_a_reason(service: str) -> None:
    left_out = [name for group in scope.LEFT_OUT.get(service, ()) for name in group.operations]
    served = list(SERVED.get(service, {}))
    assert sorted(left_out + served) == sorted(MODELS[service].names)


def test_every_error_has_the_status_of_the_models() -> None:
    declared: dict[str, set[int]] = {}
    for service in MODELS.values():
        for name in service.names:
            for code, status in service.operation(name).errors.items():
                declared.setdefault(code, set()).add(status)
    ours = codes_of_ours()
    assert set(ours) - set(declared) <= OF_THE_DOOR.union(*FRONT_DOOR.values())
    for code, status in ours.items():
        if code not in OF_THE_DOOR:
            assert status in declared.get(code, {status}), code


def test_operations_declare_nothing_with_another_status_than_ours() -> None:
    ours = codes_of_ours()
    different = [
        (service, name, code)
        for service, name in OPERATIONS
        for code, status in MODELS[service].operation(name).errors.items()
        if ours.get(code, status) != status and code not in OF_THE_DOOR
    ]
    assert different == []


@pytest.mark.parametrize(
    ("service", "name", "message"),
    [
        ("iot", "CreateJob", "jobs are out of its scope"),
        ("iot", "CreateTopicRule", "rules are out of its scope"),
        ("iot", "CreateDynamicThingGroup", "dynamic thing groups need fleet indexing"),
        ("iam", "CreateGroup", "groups of users are not there"),
        ("sts", "AssumeRoot", "there is one account"),
    ],
)
def test_an_operation_that_is_left_out_says_why(
    registry: Registry, service: str, name: str, message: str
) -> None:
    with pytest.raises(errors.NotImplementedException) as refused:
        registry.run(service, name, {})
    assert refused.value.message.startswith(f"{name} is not offered by this server: {message}")
    assert refused.value.message.endswith("; `fleetgate operations` lists what is")


# --- the judge of what the other tests of this directory raise ------------------------------------


@pytest.mark.parametrize(
    ("service", "name", "error", "complaint"),
    [
        ("iot", "CreateThing", InvalidRequestException("x"), ""),
        ("iot", "CreateThing", errors.AccessDeniedException("x"), ""),
        ("iot", "CreateThing", NotConfiguredException("x"), "CreateThing raised NotConfigured"),
        ("iot", "CreateThing", ValidationError("x"), "raised ValidationError"),
        ("iot", "GetV2LoggingOptions", InvalidRequestException("x"), "raised InvalidRequest"),
        ("iam", "CreateUser", ValidationError("x"), ""),
        ("iam", "CreateUser", InvalidRequestException("x"), "raised InvalidRequestException"),
        ("provisioning", "RegisterThing", errors.ResourceNotFoundException("x"), ""),
    ],
)
def test_what_is_not_declared_is_noticed(
    service: str, name: str, error: ServiceError, complaint: str
) -> None:
    said = undeclared(service, MODELS[service].operation(name), error)
    assert complaint in said
    assert bool(said) == bool(complaint)


def test_another_status_than_the_declared_one_is_noticed() -> None:
    odd: Any = type("ResourceNotFoundException", (ServiceError,), {"status": 418})
    said = undeclared("iot", MODELS["iot"].operation("DescribeThing"), odd("x"))
    assert "with status 418, not 404" in said
