"""Bulk registration tasks, and how far each has come."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx

IN_PROGRESS, COMPLETED, FAILED = "InProgress", "Completed", "Failed"
CANCELLING, CANCELLED = "Cancelling", "Cancelled"

MAX_MESSAGE = 2048
"""Characters of a task's message (StatusMessage of the service model)."""


@dataclass(frozen=True, slots=True)
class RegistrationTask:
    """A task: what was asked for, its status, and its checkpoint.

    The checkpoint is what a batch stores together with the registrations of its lines: bytes and
    lines of the input that are done, how many lines succeeded and failed (blank ones do neither),
    and the bytes of the two reports that belong to them. `input_version` is empty until the input
    was opened for the first time.
    """

    task_id: str
    template_body: str
    input_bucket: str
    input_key: str
    role_arn: str
    created_at: float
    modified_at: float
    status: str = IN_PROGRESS
    message: str = ""
    input_version: str = ""
    input_bytes: int = 0
    bytes_done: int = 0
    lines_done: int = 0
    succeeded: int = 0
    failed: int = 0
    results_bytes: int = 0
    errors_bytes: int = 0


_NAMES = tuple(RegistrationTask.__slots__)
_COLUMNS = ", ".join(_NAMES)
_UNFINISHED = f"('{IN_PROGRESS}', '{CANCELLING}')"
_ASKED = 6  # the columns that never change
_UPDATE = (
    f"UPDATE registration_task SET {', '.join(f'{name} = :{name}' for name in _NAMES[_ASKED:])} "
    "WHERE task_id = :task_id"
)


def find_registration_task(tx: Tx, task_id: str) -> RegistrationTask | None:
    """The task of this id, or None."""
    row = tx.one(f"SELECT {_COLUMNS} FROM registration_task WHERE task_id = :id", id=task_id)
    return None if row is None else RegistrationTask(*row)


def list_registration_tasks(
    tx: Tx, status: str | None, after: tuple[float, str] | None, limit: int
) -> list[RegistrationTask]:
    """Tasks, of one status or of any, the newest first, behind `after` = (created_at, task_id)."""
    rules = []
    if status is not None:
        rules.append("status = :status")
    if after is not None:
        rules.append("(created_at, task_id) < (:at, :id)")
    where = f"WHERE {' AND '.join(rules)} " if rules else ""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM registration_task {where}"
        "ORDER BY created_at DESC, task_id DESC LIMIT :limit",
        **({} if status is None else {"status": status}),
        **({} if after is None else {"at": after[0], "id": after[1]}),
        limit=limit,
    )
    return [RegistrationTask(*row) for row in rows]


def list_unfinished_tasks(tx: Tx, limit: int) -> list[str]:
    """The ids of the tasks that are in progress or being cancelled, the oldest first."""
    rows = tx.all(
        f"SELECT task_id FROM registration_task WHERE status IN {_UNFINISHED} "
        "ORDER BY created_at, task_id LIMIT :limit",
        limit=limit,
    )
    return [row[0] for row in rows]


def count_unfinished_tasks(tx: Tx) -> int:
    """How many there are of these."""
    row = tx.one(f"SELECT count(*) FROM registration_task WHERE status IN {_UNFINISHED}")
    return 0 if row is None else int(row[0])


def add_registration_task(tx: Tx, task: RegistrationTask) -> None:
    """Stores a new task."""
    tx.send(
        f"INSERT INTO registration_task ({_COLUMNS}) VALUES (:{', :'.join(_NAMES)})",
        **{name: getattr(task, name) for name in _NAMES},
    )


def update_registration_task(tx: Tx, task: RegistrationTask) -> None:
    """Stores status, message and checkpoint anew."""
    changing = _NAMES[_ASKED:]
    tx.send(_UPDATE, task_id=task.task_id, **{name: getattr(task, name) for name in changing})


def update_registration_status(tx: Tx, task_id: str, status: str, now: float) -> None:
    """Sets the status alone."""
    tx.send(
        "UPDATE registration_task SET status = :status, modified_at = :now WHERE task_id = :id",
        id=task_id,
        status=status,
        now=now,
    )


def remove_ended_tasks(tx: Tx, before: float, limit: int) -> list[str]:
    """Deletes tasks that ended before that moment; returns their ids."""
    rows = tx.all(
        f"SELECT task_id FROM registration_task WHERE status NOT IN {_UNFINISHED} "
        "AND modified_at < :before ORDER BY task_id LIMIT :limit",
        before=before,
        limit=limit,
    )
    for (task_id,) in rows:
        tx.send("DELETE FROM registration_task WHERE task_id = :id", id=task_id)
    return [row[0] for row in rows]
