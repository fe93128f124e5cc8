"""The one way in: constraints first, and what is not served is named."""

import pytest

from fleetgate.errors import InvalidRequestException, NotImplementedException
from tests.operations.conftest import Registry


def test_an_operation_that_is_not_served_is_named(registry: Registry) -> None:
    with pytest.raises(NotImplementedException, match="CreateTopicRule is not offered"):
        registry.call("CreateTopicRule")


def test_constraints_come_before_the_operation(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException, match=r"1 validation error detected.*thingName"):
        registry.call("CreateThing", thing_name="no blanks")
