"""Event configurations.

Sources: AWS IoT API reference, DescribeEventConfigurations and UpdateEventConfigurations; AWS CLI
examples, describe-event-configurations (every type is there and off, and there are no dates).
"""

import pytest

from fleetgate.errors import InvalidRequestException
from fleetgate.operations.event_configurations import EVENT_TYPES
from tests.operations.conftest import START, Registry


def test_every_event_type_is_off_until_it_is_switched_on(registry: Registry) -> None:
    described = registry.call("DescribeEventConfigurations")
    assert described["eventConfigurations"] == {name: {"Enabled": False} for name in EVENT_TYPES}
    assert described["creationDate"] is None
    assert described["lastModifiedDate"] is None


def test_the_event_types_are_the_models(registry: Registry) -> None:
    shape = registry.models["iot"].shape("EventType")
    assert set(EVENT_TYPES) == set(shape.enum)


def test_an_update_changes_what_it_names(registry: Registry) -> None:
    def update(**enabled: bool) -> None:
        registry.call(
            "UpdateEventConfigurations",
            event_configurations={name: {"Enabled": on} for name, on in enabled.items()},
        )

    update(THING=True, CERTIFICATE=True)
    registry.clock.now = START + 60
    update(THING=False, POLICY=True)
    described = registry.call("DescribeEventConfigurations")
    on = {name for name, each in described["eventConfigurations"].items() if each["Enabled"]}
    assert on == {"CERTIFICATE", "POLICY"}
    assert described["creationDate"] == START
    assert described["lastModifiedDate"] == START + 60


def test_an_update_that_names_nothing_changes_nothing(registry: Registry) -> None:
    assert registry.call("UpdateEventConfigurations") == {}
    assert registry.call("UpdateEventConfigurations", event_configurations={"JOB": {}}) == {}
    assert registry.call("DescribeEventConfigurations")["creationDate"] is None


def test_an_unknown_event_type_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException, match="eventConfigurations"):
        registry.call(
            "UpdateEventConfigurations", event_configurations={"WEATHER": {"Enabled": True}}
        )
