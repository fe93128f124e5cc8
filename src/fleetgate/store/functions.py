"""Lambda functions that were uploaded, their code, and the resource policies of all functions.

Code is kept in parts, as base64: each is stored by a transaction of its own, so that a large
upload holds up nobody else, and only then the function refers to all of them by `code_id`. Parts
no function came to refer to are removed by a later upload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

from fleetgate.store.engine import Tx

PART = 786_432
"""Bytes of the code in one part; a megabyte in base64."""


@dataclass(frozen=True, slots=True)
class UploadedFunction:
    """A function that was uploaded.

    `environment` is a JSON object of text. `code_id` names its code in the store: another one
    with every upload; `code_sha256` is the hash of the zip in base64, `code_bytes` its size.
    `revision_id` is another one after every change.
    """

    function_name: str
    description: str
    runtime: str
    handler: str
    role_arn: str
    timeout_seconds: int
    memory_megabytes: int
    environment: str
    architecture: str
    code_id: str
    code_sha256: str
    code_bytes: int
    revision_id: str
    created_at: float
    modified_at: float

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables."""
        found: dict[str, str] = json.loads(self.environment)
        return found


@dataclass(frozen=True, slots=True)
class Permission:
    """A statement of the resource policy of a function: its Sid, and the statement as JSON."""

    statement_id: str
    statement: str


_NAMES = tuple(field.name for field in fields(UploadedFunction))
_COLUMNS = ", ".join(_NAMES)


# --- functions -----------------------------------------------------------------------------


def find_function(tx: Tx, function_name: str) -> UploadedFunction | None:
    """The uploaded function of exactly this name, or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM lambda_function WHERE function_name = :name", name=function_name
    )
    return None if row is None else UploadedFunction(*row)


def list_functions(tx: Tx, after: str, limit: int) -> list[UploadedFunction]:
    """Uploaded functions by name, behind the name `after`."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM lambda_function WHERE function_name > :after "
        "ORDER BY function_name LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [UploadedFunction(*row) for row in rows]


def count_functions(tx: Tx) -> tuple[int, int]:
    """How many uploaded functions there are, and the bytes of their code together."""
    row = tx.one(
        "SELECT count(*), CAST(COALESCE(SUM(code_bytes), 0) AS BIGINT) FROM lambda_function"
    )
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def add_function(tx: Tx, function: UploadedFunction) -> None:
    """Stores a new function."""
    tx.send(
        f"INSERT INTO lambda_function ({_COLUMNS}) "
        f"VALUES ({', '.join(':' + name for name in _NAMES)})",
        **_values(function),
    )


def update_function(tx: Tx, function: UploadedFunction) -> None:
    """Stores everything of the function of this name anew."""
    changed = ", ".join(f"{name} = :{name}" for name in _NAMES[1:])
    tx.send(
        f"UPDATE lambda_function SET {changed} WHERE function_name = :function_name",
        **_values(function),
    )


def remove_function(tx: Tx, function: UploadedFunction) -> None:
    """Deletes a function with its code."""
    tx.send("DELETE FROM lambda_function WHERE function_name = :name", name=function.function_name)
    remove_code(tx, function.code_id)


def _values(function: UploadedFunction) -> dict[str, object]:
    return {name: getattr(function, name) for name in _NAMES}


# --- code ----------------------------------------------------------------------------------


def add_code(tx: Tx, code_id: str, part: int, code: str, now: float) -> None:
    """Stores a part of a function's code, in base64; the first is part 0."""
    tx.run(
        "INSERT INTO function_code (code_id, part, stored_at, code) "
        "VALUES (:id, :part, :now, :code)",
        id=code_id,
        part=part,
        now=now,
        code=code,
    )


def find_code(tx: Tx, code_id: str, part: int) -> str | None:
    """A part of a function's code, in base64."""
    row = tx.one(
        "SELECT code FROM function_code WHERE code_id = :id AND part = :part",
        id=code_id,
        part=part,
    )
    return None if row is None else str(row[0])


def count_code(tx: Tx, code_id: str) -> int:
    """How many parts of some code there are."""
    row = tx.one("SELECT count(*) FROM function_code WHERE code_id = :id", id=code_id)
    return 0 if row is None else int(row[0])


def remove_code(tx: Tx, code_id: str) -> None:
    """Deletes all parts of some code."""
    tx.send("DELETE FROM function_code WHERE code_id = :id", id=code_id)


def remove_abandoned_code(tx: Tx, before: float) -> None:
    """Deletes what was stored before that time and belongs to no function."""
    tx.send(
        "DELETE FROM function_code WHERE stored_at < :before AND code_id NOT IN "
        "(SELECT code_id FROM lambda_function)",
        before=before,
    )


# --- permissions ---------------------------------------------------------------------------


def list_permissions(tx: Tx, function_name: str, origin: str) -> list[Permission]:
    """The statements of a function's resource policy, in the order they were added.

    `origin` tells functions of one name apart: where the function comes from.
    """
    rows = tx.all(
        "SELECT statement_id, statement FROM function_permission "
        "WHERE function_name = :name AND origin = :origin ORDER BY position, statement_id",
        name=function_name,
        origin=origin,
    )
    return [Permission(*row) for row in rows]


def add_permission(tx: Tx, function_name: str, origin: str, permission: Permission) -> None:
    """Stores a further statement, behind the others."""
    tx.send(
        "INSERT INTO function_permission "
        "(function_name, origin, statement_id, position, statement) "
        "SELECT CAST(:name AS TEXT), CAST(:origin AS TEXT), CAST(:id AS TEXT), "
        "COALESCE(MAX(position), 0) + 1, CAST(:statement AS TEXT) FROM function_permission "
        "WHERE function_name = :name AND origin = :origin",
        name=function_name,
        origin=origin,
        id=permission.statement_id,
        statement=permission.statement,
    )


def remove_permission(tx: Tx, function_name: str, origin: str, statement_id: str) -> None:
    """Deletes a statement."""
    tx.send(
        "DELETE FROM function_permission "
        "WHERE function_name = :name AND origin = :origin AND statement_id = :id",
        name=function_name,
        origin=origin,
        id=statement_id,
    )


def remove_permissions(tx: Tx, function_name: str, origin: str) -> None:
    """Deletes the whole resource policy of a function."""
    tx.send(
        "DELETE FROM function_permission WHERE function_name = :name AND origin = :origin",
        name=function_name,
        origin=origin,
    )
