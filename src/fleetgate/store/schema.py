"""The tables, as a list of migrations.

The text is the part of SQL that SQLite (>= 3.35) and PostgreSQL share. Times are seconds since
the epoch as floating point numbers; JSON is kept as text; principals and policy targets are
full ARNs. A migration, once released, is never edited: a change is a further one.
"""

from __future__ import annotations

_FIRST_LIGHT: tuple[str, ...] = (
    """CREATE TABLE setting (
            name TEXT NOT NULL PRIMARY KEY,
            value TEXT NOT NULL
        )""",
    """CREATE TABLE certificate (
            certificate_id TEXT NOT NULL PRIMARY KEY,
            status TEXT NOT NULL,
            pem TEXT NOT NULL,
            mode TEXT NOT NULL,
            not_before DOUBLE PRECISION NOT NULL,
            not_after DOUBLE PRECISION NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL,
            customer_version BIGINT NOT NULL,
            generation_id TEXT NOT NULL,
            pending_until DOUBLE PRECISION,
            template_name TEXT,
            thing_name TEXT
        )""",
    "CREATE INDEX certificate_by_age ON certificate (created_at, certificate_id)",
    """CREATE INDEX certificate_pending ON certificate (pending_until)
            WHERE pending_until IS NOT NULL""",
    """CREATE TABLE provisioning_claim (
            certificate_id TEXT NOT NULL PRIMARY KEY,
            template_name TEXT NOT NULL,
            not_before DOUBLE PRECISION NOT NULL,
            not_after DOUBLE PRECISION NOT NULL
        )""",
    "CREATE INDEX provisioning_claim_by_end ON provisioning_claim (not_after)",
    """CREATE INDEX provisioning_claim_by_template
            ON provisioning_claim (template_name)""",
    """CREATE TABLE policy (
            policy_name TEXT NOT NULL PRIMARY KEY,
            default_version_id BIGINT NOT NULL,
            last_version_id BIGINT NOT NULL,
            generation_id TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL
        )""",
    "CREATE INDEX policy_by_age ON policy (created_at, policy_name)",
    """CREATE TABLE policy_version (
            policy_name TEXT NOT NULL,
            version_id BIGINT NOT NULL,
            document TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (policy_name, version_id)
        )""",
    """CREATE TABLE policy_attachment (
            target TEXT NOT NULL,
            policy_name TEXT NOT NULL,
            PRIMARY KEY (target, policy_name)
        )""",
    """CREATE INDEX policy_attachment_by_policy
            ON policy_attachment (policy_name, target)""",
    """CREATE TABLE thing_type (
            thing_type_name TEXT NOT NULL PRIMARY KEY,
            thing_type_id TEXT NOT NULL,
            description TEXT,
            searchable_attributes TEXT NOT NULL,
            deprecated_at DOUBLE PRECISION,
            created_at DOUBLE PRECISION NOT NULL
        )""",
    """CREATE TABLE thing (
            thing_name TEXT NOT NULL PRIMARY KEY,
            thing_id TEXT NOT NULL,
            thing_type_name TEXT,
            attributes TEXT NOT NULL,
            version BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL
        )""",
    "CREATE INDEX thing_by_type ON thing (thing_type_name, thing_name)",
    """CREATE TABLE thing_attribute (
            name TEXT NOT NULL,
            value TEXT NOT NULL,
            thing_name TEXT NOT NULL,
            PRIMARY KEY (name, value, thing_name)
        )""",
    "CREATE INDEX thing_attribute_by_thing ON thing_attribute (thing_name)",
    """CREATE TABLE thing_principal (
            thing_name TEXT NOT NULL,
            principal TEXT NOT NULL,
            PRIMARY KEY (thing_name, principal)
        )""",
    """CREATE INDEX thing_principal_by_principal
            ON thing_principal (principal, thing_name)""",
    """CREATE TABLE thing_group (
            thing_group_name TEXT NOT NULL PRIMARY KEY,
            thing_group_id TEXT NOT NULL,
            parent_group_name TEXT,
            description TEXT,
            attributes TEXT NOT NULL,
            version BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL
        )""",
    "CREATE INDEX thing_group_by_parent ON thing_group (parent_group_name, thing_group_name)",
    """CREATE TABLE thing_group_member (
            thing_group_name TEXT NOT NULL,
            thing_name TEXT NOT NULL,
            PRIMARY KEY (thing_group_name, thing_name)
        )""",
    """CREATE INDEX thing_group_member_by_thing
            ON thing_group_member (thing_name, thing_group_name)""",
    """CREATE TABLE template (
            template_name TEXT NOT NULL PRIMARY KEY,
            description TEXT,
            enabled BIGINT NOT NULL,
            provisioning_role_arn TEXT NOT NULL,
            default_version_id BIGINT NOT NULL,
            last_version_id BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL
        )""",
    """CREATE TABLE template_version (
            template_name TEXT NOT NULL,
            version_id BIGINT NOT NULL,
            body TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (template_name, version_id)
        )""",
)

_REGISTRY: tuple[str, ...] = ()
"""Billing groups, exclusive principals, tags."""

_CERTIFICATES: tuple[str, ...] = ()
"""CA certificates, transfers."""

_IAM: tuple[str, ...] = ()
"""IAM users, roles and policies."""

_CONFIGURATION: tuple[str, ...] = ()
"""Events, logging, role aliases, domain configurations."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _FIRST_LIGHT,
    (*_REGISTRY, *_CERTIFICATES, *_IAM, *_CONFIGURATION),
)

REGISTRY_TABLES = (
    "certificate",
    "provisioning_claim",
    "policy",
    "policy_version",
    "policy_attachment",
    "thing_type",
    "thing",
    "thing_attribute",
    "thing_principal",
    "thing_group",
    "thing_group_member",
    "template",
    "template_version",
)
"""What ``reset`` empties: all tables but ``setting``."""
