"""Provisioning templates and their versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleetgate.domain.resources import Kind
from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class Hook:
    """The function that is asked before a device is provisioned."""

    target_arn: str
    payload_version: str


@dataclass(frozen=True, slots=True)
class Template:
    """A provisioning template; version ids are integers from 1 and never used twice."""

    template_name: str
    description: str | None
    enabled: bool
    provisioning_role_arn: str
    default_version_id: int
    last_version_id: int
    created_at: float
    modified_at: float
    kind: Kind = Kind.FLEET
    """Its type, which never changes."""
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One version of a template's body."""

    template_name: str
    version_id: int
    body: str
    created_at: float


@dataclass(frozen=True, slots=True)
class InForce:
    """The default version of a template, and what it is worked through with.

    `created_at` is the template's: it tells it from a later one of the same name.
    """

    enabled: bool
    role_arn: str
    body: str
    created_at: float
    kind: Kind = Kind.FLEET
    hook: Hook | None = None


_COLUMNS = (
    "template_name, description, enabled, provisioning_role_arn, default_version_id, "
    "last_version_id, created_at, modified_at, type, hook_target_arn, hook_payload_version"
)


def _template(row: tuple[Any, ...]) -> Template:
    name, description, enabled, role, default, last, created_at, modified_at, kind, *hook = row
    return Template(
        template_name=name,
        description=description,
        enabled=bool(enabled),
        provisioning_role_arn=role,
        default_version_id=default,
        last_version_id=last,
        created_at=created_at,
        modified_at=modified_at,
        kind=Kind(kind),
        hook=_hook(*hook),
    )


def _hook(target_arn: str | None, payload_version: str | None) -> Hook | None:
    if target_arn is None or payload_version is None:
        return None
    return Hook(target_arn, payload_version)


def find_template(tx: Tx, template_name: str) -> Template | None:
    """The template of this name, or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM template WHERE template_name = :name",
        name=template_name,
    )
    return None if row is None else _template(row)


def find_in_force(tx: Tx, template_name: str) -> InForce | None:
    """What RegisterThing needs of a template: its default version; None when there is none."""
    row = tx.one(
        "SELECT t.enabled, t.provisioning_role_arn, v.body, t.created_at, t.type, "
        "t.hook_target_arn, t.hook_payload_version "
        "FROM template t "
        "JOIN template_version v "
        "ON v.template_name = t.template_name AND v.version_id = t.default_version_id "
        "WHERE t.template_name = :name",
        name=template_name,
    )
    if row is None:
        return None
    enabled, role_arn, body, created_at, kind, *hook = row
    return InForce(bool(enabled), role_arn, body, created_at, Kind(kind), _hook(*hook))


def list_templates(tx: Tx, after: str, limit: int) -> list[Template]:
    """Templates by name, behind the name `after`."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM template WHERE template_name > :after "
        "ORDER BY template_name LIMIT :limit",
        after=after,
        limit=limit,
    )
    return [_template(row) for row in rows]


def count_templates(tx: Tx) -> int:
    """How many templates there are."""
    row = tx.one("SELECT count(*) FROM template")
    return 0 if row is None else int(row[0])


def add_template(tx: Tx, template: Template, body: str) -> None:
    """Stores a new template with `body` as its version 1."""
    tx.send(
        f"INSERT INTO template ({_COLUMNS}) VALUES (:name, :description, :enabled, :role, 1, 1, "
        ":created_at, :modified_at, :type, :hook_target, :hook_version)",
        name=template.template_name,
        description=template.description,
        enabled=int(template.enabled),
        role=template.provisioning_role_arn,
        created_at=template.created_at,
        modified_at=template.modified_at,
        type=template.kind.value,
        hook_target=None if template.hook is None else template.hook.target_arn,
        hook_version=None if template.hook is None else template.hook.payload_version,
    )
    _insert_version(tx, template.template_name, 1, body, template.created_at)


def update_template(tx: Tx, template: Template) -> None:
    """Stores description, enabled, role, hook, default version and modification time anew."""
    tx.send(
        "UPDATE template SET description = :description, enabled = :enabled, "
        "provisioning_role_arn = :role, default_version_id = :default, modified_at = :now, "
        "hook_target_arn = :hook_target, hook_payload_version = :hook_version "
        "WHERE template_name = :name",
        name=template.template_name,
        description=template.description,
        enabled=int(template.enabled),
        role=template.provisioning_role_arn,
        default=template.default_version_id,
        now=template.modified_at,
        hook_target=None if template.hook is None else template.hook.target_arn,
        hook_version=None if template.hook is None else template.hook.payload_version,
    )


def remove_template(tx: Tx, template_name: str) -> None:
    """Deletes a template with its versions."""
    tx.send("DELETE FROM template_version WHERE template_name = :name", name=template_name)
    tx.send("DELETE FROM template WHERE template_name = :name", name=template_name)


def find_template_version(tx: Tx, template_name: str, version_id: int) -> TemplateVersion | None:
    """One version of a template, or None."""
    row = tx.one(
        "SELECT template_name, version_id, body, created_at FROM template_version "
        "WHERE template_name = :name AND version_id = :version",
        name=template_name,
        version=version_id,
    )
    return None if row is None else TemplateVersion(*row)


def list_template_versions(
    tx: Tx, template_name: str, after: int, limit: int
) -> list[TemplateVersion]:
    """Versions of a template by id, behind the id `after`."""
    rows = tx.all(
        "SELECT template_name, version_id, body, created_at FROM template_version "
        "WHERE template_name = :name AND version_id > :after ORDER BY version_id LIMIT :limit",
        name=template_name,
        after=after,
        limit=limit,
    )
    return [TemplateVersion(*row) for row in rows]


def count_template_versions(tx: Tx, template_name: str) -> int:
    """How many versions a template has."""
    row = tx.one(
        "SELECT count(*) FROM template_version WHERE template_name = :name", name=template_name
    )
    return 0 if row is None else int(row[0])


def add_template_version(
    tx: Tx, template: Template, body: str, now: float, *, default: bool
) -> int:
    """Stores a further version, in force at once when `default`; returns its id."""
    version_id = template.last_version_id + 1
    tx.send(
        "UPDATE template SET last_version_id = :version, default_version_id = :default, "
        "modified_at = :now WHERE template_name = :name",
        name=template.template_name,
        version=version_id,
        default=version_id if default else template.default_version_id,
        now=now,
    )
    _insert_version(tx, template.template_name, version_id, body, now)
    return version_id


def remove_template_version(tx: Tx, template_name: str, version_id: int) -> None:
    """Deletes one version."""
    tx.send(
        "DELETE FROM template_version WHERE template_name = :name AND version_id = :version",
        name=template_name,
        version=version_id,
    )


def _insert_version(tx: Tx, template_name: str, version_id: int, body: str, now: float) -> None:
    tx.send(
        "INSERT INTO template_version (template_name, version_id, body, created_at) "
        "VALUES (:name, :version, :body, :now)",
        name=template_name,
        version=version_id,
        body=body,
        now=now,
    )
