"""Answers of RegisterThing over MQTT, kept for devices that ask again."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class RegistrationAnswer:
    """What a device was told, and by what a further request of its is known as the same.

    `template_created_at` tells the template from a later one of the same name; `parameters` and
    `outcome` are digests of what the device sent and of what the template made of it; `status`
    is what the certificate was given; `body` is the answer as JSON; `overrides` are the
    parameters the hook added, a JSON object. Kept until the ownership token ends, at
    `kept_until`. Times are seconds since the epoch.
    """

    certificate_id: str
    template_name: str
    template_created_at: float
    parameters: str
    outcome: str
    status: str
    body: str
    kept_until: float
    overrides: str = "{}"


_VALUES = (
    "template_name, template_created_at, parameters, outcome, status, body, kept_until, overrides"
)
_COLUMNS = f"certificate_id, {_VALUES}"
_REPLACED = ", ".join(f"{name} = excluded.{name}" for name in _VALUES.split(", "))


def find_registration_answer(tx: Tx, certificate_id: str) -> RegistrationAnswer | None:
    """The answer to the registration of a certificate, or None when none is kept."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM registration_answer WHERE certificate_id = :id",
        id=certificate_id,
    )
    return None if row is None else RegistrationAnswer(*row)


def add_registration_answer(tx: Tx, answer: RegistrationAnswer) -> None:
    """Keeps an answer: the only one of its certificate, which may have been deleted meanwhile."""
    tx.send(
        f"INSERT INTO registration_answer ({_COLUMNS}) VALUES (:{_COLUMNS.replace(', ', ', :')}) "
        f"ON CONFLICT (certificate_id) DO UPDATE SET {_REPLACED}",
        **{name: getattr(answer, name) for name in RegistrationAnswer.__slots__},
    )


def remove_ended_registration_answers(tx: Tx, now: float, limit: int) -> int:
    """Deletes answers whose token has ended, `limit` at most; returns how many."""
    return tx.run(
        "DELETE FROM registration_answer WHERE certificate_id IN ("
        "SELECT certificate_id FROM registration_answer WHERE kept_until <= :now "
        "ORDER BY kept_until, certificate_id LIMIT :limit)",
        now=now,
        limit=limit,
    )
