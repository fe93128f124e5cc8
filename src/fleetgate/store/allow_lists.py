"""Allow-lists: serial numbers that may register, and which certificates used them.

A list is known by a name. What it holds comes from here, or from a file: of a file's serial
numbers only those that were used have a row, which is not `listed`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx

UNLIMITED = 0
"""The `uses` of a serial number that may be used any number of times."""


@dataclass(frozen=True, slots=True)
class Serial:
    """A serial number of a list.

    `uses` is how often it may be used, None for as often as the list's function says;
    `overrides` is a JSON object of text to text, or None; `used` is how often it was.
    """

    serial: str
    listed: bool
    uses: int | None
    overrides: str | None
    used: int
    added_at: float


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a serial number: for which certificate and thing, when (seconds since the epoch)."""

    certificate_id: str
    thing_name: str | None
    used_at: float


_COLUMNS = "serial, listed, uses, overrides, used, added_at"


def _serial(row: tuple[object, ...]) -> Serial:
    serial, listed, uses, overrides, used, added_at = row
    return Serial(serial, bool(listed), uses, overrides, used, added_at)  # type: ignore[arg-type]


def find_serial(tx: Tx, name: str, serial: str) -> Serial | None:
    """What is known of a serial number on the list `name`, or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM allow_list_serial WHERE list = :list AND serial = :serial",
        list=name,
        serial=serial,
    )
    return None if row is None else _serial(row)


def list_serials(tx: Tx, name: str, after: str, limit: int, *, used: bool = False) -> list[Serial]:
    """The serial numbers of a list behind `after`, in order; with `used` those that were used."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM allow_list_serial WHERE list = :list AND serial > :after "
        f"AND {'used > 0' if used else '(listed = 1 OR used > 0)'} ORDER BY serial LIMIT :limit",
        list=name,
        after=after,
        limit=limit,
    )
    return [_serial(row) for row in rows]


def list_uses(tx: Tx, name: str, serial: str, limit: int) -> list[Use]:
    """The uses of a serial number, the last one first."""
    rows = tx.all(
        "SELECT certificate_id, thing_name, used_at FROM allow_list_use WHERE list = :list "
        "AND serial = :serial ORDER BY used_at DESC, certificate_id DESC LIMIT :limit",
        list=name,
        serial=serial,
        limit=limit,
    )
    return [Use(*row) for row in rows]


def add_serial(
    tx: Tx, name: str, serial: str, uses: int | None, overrides: str | None, now: float
) -> None:
    """Puts a serial number on a list, or changes what it may; how often it was used stays."""
    tx.send(
        "INSERT INTO allow_list_serial (list, serial, listed, uses, overrides, used, added_at) "
        "VALUES (:list, :serial, 1, :uses, :overrides, 0, :now) ON CONFLICT (list, serial) "
        "DO UPDATE SET listed = 1, uses = excluded.uses, overrides = excluded.overrides",
        list=name,
        serial=serial,
        uses=uses,
        overrides=overrides,
        now=now,
    )


def remove_serial(tx: Tx, name: str, serial: str) -> bool:
    """Takes a serial number from a list; False when it is not on it.

    How often it was used is remembered: to put it back on the list gives nothing back.
    """
    removed = tx.run(
        "UPDATE allow_list_serial SET listed = 0, uses = NULL, overrides = NULL "
        "WHERE list = :list AND serial = :serial AND listed = 1",
        list=name,
        serial=serial,
    )
    tx.send(
        "DELETE FROM allow_list_serial WHERE list = :list AND serial = :serial AND used = 0",
        list=name,
        serial=serial,
    )
    return removed == 1


def update_used(tx: Tx, name: str, serial: str, default_uses: int) -> bool:
    """Counts a use of a listed serial number; False when it is not listed or has none left.

    `default_uses` is how often one may be used that does not say it itself.
    """
    counted = tx.run(
        "UPDATE allow_list_serial SET used = used + 1 WHERE list = :list AND serial = :serial "
        "AND listed = 1 AND (COALESCE(uses, CAST(:uses AS BIGINT)) = 0 "
        "OR used < COALESCE(uses, CAST(:uses AS BIGINT)))",
        list=name,
        serial=serial,
        uses=default_uses,
    )
    return counted == 1


def update_used_of_file(tx: Tx, name: str, serial: str, uses: int, now: float) -> bool:
    """Counts a use of a serial number of a file; False when it was used `uses` times already."""
    counted = tx.run(
        "INSERT INTO allow_list_serial (list, serial, listed, uses, overrides, used, added_at) "
        "VALUES (:list, :serial, 0, NULL, NULL, 1, :now) ON CONFLICT (list, serial) "
        "DO UPDATE SET used = allow_list_serial.used + 1 "
        "WHERE CAST(:uses AS BIGINT) = 0 OR allow_list_serial.used < :uses",
        list=name,
        serial=serial,
        uses=uses,
        now=now,
    )
    return counted == 1


def add_use(tx: Tx, name: str, serial: str, use: Use) -> None:
    """Notes who used a serial number."""
    tx.send(
        "INSERT INTO allow_list_use (list, serial, certificate_id, thing_name, used_at) "
        "VALUES (:list, :serial, :certificate_id, :thing_name, :used_at) "
        "ON CONFLICT (list, serial, certificate_id) DO UPDATE "
        "SET thing_name = excluded.thing_name, used_at = excluded.used_at",
        list=name,
        serial=serial,
        certificate_id=use.certificate_id,
        thing_name=use.thing_name,
        used_at=use.used_at,
    )


def remove_use(tx: Tx, name: str, serial: str, certificate_id: str) -> bool:
    """Gives back one use; False when there is none by this certificate."""
    removed = tx.run(
        "DELETE FROM allow_list_use WHERE list = :list AND serial = :serial "
        "AND certificate_id = :id",
        list=name,
        serial=serial,
        id=certificate_id,
    )
    if removed:
        tx.send(
            "UPDATE allow_list_serial SET used = used - 1 "
            "WHERE list = :list AND serial = :serial AND used > 0",
            list=name,
            serial=serial,
        )
    return removed == 1


def remove_uses(tx: Tx, name: str, serial: str) -> int:
    """Gives back all uses of a serial number; returns how many."""
    tx.send(
        "DELETE FROM allow_list_use WHERE list = :list AND serial = :serial",
        list=name,
        serial=serial,
    )
    found = find_serial(tx, name, serial)
    tx.send(
        "UPDATE allow_list_serial SET used = 0 WHERE list = :list AND serial = :serial",
        list=name,
        serial=serial,
    )
    return 0 if found is None else found.used
