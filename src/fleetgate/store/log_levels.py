"""Logging options of the account, and the levels of single targets."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class LoggingOptions:
    """The options of one generation of the logging API, ``v1`` or ``v2``.

    `event_configurations` is the JSON text of the model's list of that name, or None.
    """

    generation: str
    role_arn: str | None
    log_level: str | None
    disabled: bool
    event_configurations: str | None


@dataclass(frozen=True, slots=True)
class LogLevel:
    """The level of one target: a thing group, client id, source address or principal."""

    target_type: str
    target_name: str
    log_level: str


def find_logging_options(tx: Tx, generation: str) -> LoggingOptions | None:
    """The options of this generation, or None when they were never set."""
    row = tx.one(
        "SELECT generation, role_arn, log_level, disabled, event_configurations "
        "FROM logging_options WHERE generation = :generation",
        generation=generation,
    )
    return None if row is None else LoggingOptions(row[0], row[1], row[2], bool(row[3]), row[4])


def update_logging_options(tx: Tx, options: LoggingOptions) -> None:
    """Stores the options of a generation, whether or not there were some."""
    tx.send(
        "INSERT INTO logging_options "
        "(generation, role_arn, log_level, disabled, event_configurations) "
        "VALUES (:generation, :role_arn, :log_level, :disabled, :event_configurations) "
        "ON CONFLICT (generation) DO UPDATE SET role_arn = excluded.role_arn, "
        "log_level = excluded.log_level, disabled = excluded.disabled, "
        "event_configurations = excluded.event_configurations",
        generation=options.generation,
        role_arn=options.role_arn,
        log_level=options.log_level,
        disabled=int(options.disabled),
        event_configurations=options.event_configurations,
    )


def find_log_level(tx: Tx, target_type: str, target_name: str) -> LogLevel | None:
    """The level of a target, or None."""
    row = tx.one(
        "SELECT target_type, target_name, log_level FROM log_level "
        "WHERE target_type = :type AND target_name = :name",
        type=target_type,
        name=target_name,
    )
    return None if row is None else LogLevel(*row)


def list_log_levels(
    tx: Tx, target_type: str | None, after: tuple[str, str], limit: int
) -> list[LogLevel]:
    """Levels by (target type, target name) behind `after`; of one type unless it is None."""
    where = "AND target_type = :type " if target_type is not None else ""
    rows = tx.all(
        "SELECT target_type, target_name, log_level FROM log_level "
        f"WHERE (target_type, target_name) > (:after_type, :after_name) {where}"
        "ORDER BY target_type, target_name LIMIT :limit",
        after_type=after[0],
        after_name=after[1],
        limit=limit,
        **({"type": target_type} if target_type is not None else {}),
    )
    return [LogLevel(*row) for row in rows]


def count_log_levels(tx: Tx) -> int:
    """How many targets have a level of their own."""
    row = tx.one("SELECT count(*) FROM log_level")
    return 0 if row is None else int(row[0])


def update_log_level(tx: Tx, level: LogLevel) -> None:
    """Sets the level of a target."""
    tx.send(
        "INSERT INTO log_level (target_type, target_name, log_level) "
        "VALUES (:type, :name, :level) "
        "ON CONFLICT (target_type, target_name) DO UPDATE SET log_level = excluded.log_level",
        type=level.target_type,
        name=level.target_name,
        level=level.log_level,
    )


def remove_log_level(tx: Tx, target_type: str, target_name: str) -> None:
    """Lets the default level hold for a target again."""
    tx.send(
        "DELETE FROM log_level WHERE target_type = :type AND target_name = :name",
        type=target_type,
        name=target_name,
    )
