"""One operation is one function: its signature and errors are those of the model."""

import inspect

import pytest

from fleetgate import errors
from fleetgate.errors import InvalidRequestException, NotImplementedException, ServiceError
from fleetgate.operations.dispatch import SERVED, UNOFFERED_MEMBERS
from fleetgate.wire.model import Service
from tests.operations.conftest import Registry

OPERATIONS = [(service, name) for service, functions in SERVED.items() for name in functions]

OF_OUR_OWN = {
    # the front door of every AWS service, MQTT alone, or ours: no service model declares them
    "AccessDeniedException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "NotImplementedException",
    "RequestEntityTooLargeException",
    "SerializationException",
    "UnknownOperationException",
    "UnrecognizedClientException",
}


@pytest.mark.parametrize(("service", "name"), OPERATIONS)
def test_the_signature_is_the_models(models: dict[str, Service], service: str, name: str) -> None:
    operation = models[service].operation(name)
    function = SERVED[service][name]
    assert function.__name__ == operation.python_name
    members = operation.input.members.values() if operation.input is not None else ()
    unoffered = UNOFFERED_MEMBERS.get(name, ()) if service == "iot" else ()
    expected = {member.python_name: member.required for member in members}
    parameters = list(inspect.signature(function).parameters.values())[1:]
    required = {each.name: each.default is inspect.Parameter.empty for each in parameters}
    assert required == {key: value for key, value in expected.items() if key not in unoffered}
    assert function.__doc__


def test_every_error_has_the_status_of_the_model(models: dict[str, Service]) -> None:
    declared: dict[str, set[int]] = {}
    for service in models.values():
        for name in service.names:
            for code, status in service.operation(name).errors.items():
                declared.setdefault(code, set()).add(status)
    ours = {
        error.code(): error.status
        for error in vars(errors).values()
        if inspect.isclass(error) and issubclass(error, ServiceError) and error is not ServiceError
    }
    assert set(ours) - set(declared) <= OF_OUR_OWN
    for code, status in ours.items():
        assert declared.get(code, {status}) == {status}, code


def test_an_operation_that_is_not_served_is_named(registry: Registry) -> None:
    with pytest.raises(NotImplementedException, match="CreateTopicRule is not offered"):
        registry.call("CreateTopicRule")


def test_members_that_are_not_offered_are_refused(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException, match="`tags` of CreateThingType"):
        registry.call("CreateThingType", thing_type_name="t", tags=[{"Key": "a", "Value": "b"}])


def test_constraints_come_before_the_operation(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException, match=r"1 validation error detected.*thingName"):
        registry.call("CreateThing", thing_name="no blanks")
