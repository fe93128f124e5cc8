"""Which registry events are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetgate.operations.call import Call, Services
from fleetgate.store import event_configurations
from fleetgate.store.engine import Tx

EVENT_TYPES = (
    "THING",
    "THING_GROUP",
    "THING_TYPE",
    "THING_GROUP_MEMBERSHIP",
    "THING_GROUP_HIERARCHY",
    "THING_TYPE_ASSOCIATION",
    "JOB",
    "JOB_EXECUTION",
    "POLICY",
    "CERTIFICATE",
    "CA_CERTIFICATE",
)
"""All of the model's EventType; every one is off until it is switched on (AWS IoT Developer
Guide, "Event messages")."""


async def describe_event_configurations(call: Call) -> dict[str, Any]:
    """DescribeEventConfigurations: every event type; dates only once something was set."""
    found = await call.read(event_configurations.list_event_configurations)
    enabled = {each.event_type: each.enabled for each in found}
    return {
        "eventConfigurations": {
            event_type: {"Enabled": enabled.get(event_type, False)} for event_type in EVENT_TYPES
        },
        "creationDate": min((each.created_at for each in found), default=None),
        "lastModifiedDate": max((each.modified_at for each in found), default=None),
    }


async def update_event_configurations(
    call: Call, event_configurations: Mapping[str, Mapping[str, bool]] | None = None
) -> dict[str, Any]:
    """UpdateEventConfigurations: switches registry events; types left out stay as they are."""
    wanted = {
        event_type: configuration["Enabled"]
        for event_type, configuration in (event_configurations or {}).items()
        if configuration.get("Enabled") is not None
    }
    if wanted:
        async with call.services.events_lock:
            call.services.enabled_events = await call.write(_update, wanted, call.now)
    return {}


async def load_enabled_events(services: Services) -> None:
    """Has the services know which event types are switched on, as it is stored."""
    services.enabled_events = await services.store.read(_enabled)


def _update(tx: Tx, wanted: Mapping[str, bool], now: float) -> frozenset[str]:
    """Stores what is wanted; all event types that are on then."""
    for event_type, enabled in wanted.items():
        event_configurations.update_event_configuration(tx, event_type, enabled, now)
    return _enabled(tx)


def _enabled(tx: Tx) -> frozenset[str]:
    found = event_configurations.list_event_configurations(tx)
    return frozenset(each.event_type for each in found if each.enabled)
