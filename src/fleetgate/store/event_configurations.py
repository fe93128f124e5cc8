"""Which kinds of registry events the account wants to be published."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class EventConfiguration:
    """Whether events of one type are wanted; times are seconds since the epoch."""

    event_type: str
    enabled: bool
    created_at: float
    modified_at: float


def list_event_configurations(tx: Tx) -> list[EventConfiguration]:
    """What has ever been set, by event type. There are no more than the model has types."""
    rows = tx.all(
        "SELECT event_type, enabled, created_at, modified_at FROM event_configuration "
        "ORDER BY event_type"
    )
    return [EventConfiguration(row[0], bool(row[1]), row[2], row[3]) for row in rows]


def update_event_configuration(tx: Tx, event_type: str, enabled: bool, now: float) -> None:
    """Sets one event type; its creation time stays that of the first time."""
    tx.send(
        "INSERT INTO event_configuration (event_type, enabled, created_at, modified_at) "
        "VALUES (:event_type, :enabled, :now, :now) ON CONFLICT (event_type) DO UPDATE SET "
        "enabled = excluded.enabled, modified_at = excluded.modified_at",
        event_type=event_type,
        enabled=int(enabled),
        now=now,
    )
