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

_REGISTRY: tuple[str, ...] = (
    """CREATE TABLE tag (
            resource TEXT NOT NULL,
            tag_key TEXT NOT NULL,
            tag_value TEXT NOT NULL,
            PRIMARY KEY (resource, tag_key)
        )""",
    """CREATE TABLE billing_group (
            billing_group_name TEXT NOT NULL PRIMARY KEY,
            billing_group_id TEXT NOT NULL,
            description TEXT,
            version BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL
        )""",
    "ALTER TABLE thing ADD COLUMN billing_group_name TEXT",
    """CREATE INDEX thing_by_billing_group ON thing (billing_group_name, thing_name)
            WHERE billing_group_name IS NOT NULL""",
    "ALTER TABLE thing_principal ADD COLUMN exclusive BIGINT NOT NULL DEFAULT 0",
    "ALTER TABLE thing_type ADD COLUMN propagating_attributes TEXT",
)
"""Billing groups, exclusive principals, tags."""

_CERTIFICATES: tuple[str, ...] = (
    """CREATE TABLE ca_certificate (
            certificate_id TEXT NOT NULL PRIMARY KEY,
            status TEXT NOT NULL,
            auto_registration TEXT NOT NULL,
            pem TEXT NOT NULL,
            subject TEXT NOT NULL,
            mode TEXT NOT NULL,
            not_before DOUBLE PRECISION NOT NULL,
            not_after DOUBLE PRECISION NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL,
            customer_version BIGINT NOT NULL,
            generation_id TEXT NOT NULL,
            template_body TEXT,
            template_name TEXT,
            role_arn TEXT
        )""",
    "CREATE INDEX ca_certificate_by_subject ON ca_certificate (subject)",
    "CREATE INDEX ca_certificate_by_age ON ca_certificate (created_at, certificate_id)",
    """CREATE INDEX ca_certificate_by_template
            ON ca_certificate (template_name, created_at, certificate_id)
            WHERE template_name IS NOT NULL""",
    """CREATE TABLE registration_code (
            slot BIGINT NOT NULL PRIMARY KEY,
            code TEXT NOT NULL
        )""",
    "ALTER TABLE certificate ADD COLUMN ca_certificate_id TEXT",
    """CREATE INDEX certificate_by_ca
            ON certificate (ca_certificate_id, created_at, certificate_id)
            WHERE ca_certificate_id IS NOT NULL""",
    """CREATE TABLE certificate_transfer (
            certificate_id TEXT NOT NULL PRIMARY KEY,
            transferred_to TEXT NOT NULL,
            message TEXT,
            transferred_at DOUBLE PRECISION NOT NULL,
            created_at DOUBLE PRECISION NOT NULL
        )""",
    """CREATE INDEX certificate_transfer_by_age
            ON certificate_transfer (created_at, certificate_id)""",
)
"""CA certificates, transfers."""

_IAM: tuple[str, ...] = (
    # names differ in more than case: a key is the name in lower case
    """CREATE TABLE iam_user (
            user_id TEXT NOT NULL PRIMARY KEY,
            user_key TEXT NOT NULL,
            user_name TEXT NOT NULL,
            path TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL
        )""",
    "CREATE UNIQUE INDEX iam_user_by_key ON iam_user (user_key)",
    """CREATE TABLE iam_access_key (
            access_key_id TEXT NOT NULL PRIMARY KEY,
            user_id TEXT NOT NULL,
            sealed_secret TEXT NOT NULL,
            status TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            used_at DOUBLE PRECISION,
            used_service TEXT,
            used_region TEXT
        )""",
    "CREATE INDEX iam_access_key_by_user ON iam_access_key (user_id, access_key_id)",
    """CREATE TABLE iam_login_profile (
            user_id TEXT NOT NULL PRIMARY KEY,
            password_hash TEXT NOT NULL,
            reset_required BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            used_at DOUBLE PRECISION
        )""",
    """CREATE TABLE iam_role (
            role_id TEXT NOT NULL PRIMARY KEY,
            role_key TEXT NOT NULL,
            role_name TEXT NOT NULL,
            path TEXT NOT NULL,
            trust_policy TEXT NOT NULL,
            description TEXT,
            max_session_seconds BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL
        )""",
    "CREATE UNIQUE INDEX iam_role_by_key ON iam_role (role_key)",
    """CREATE TABLE iam_inline_policy (
            owner_id TEXT NOT NULL,
            policy_name TEXT NOT NULL,
            document TEXT NOT NULL,
            PRIMARY KEY (owner_id, policy_name)
        )""",
    """CREATE TABLE iam_policy (
            policy_id TEXT NOT NULL PRIMARY KEY,
            policy_key TEXT NOT NULL,
            policy_name TEXT NOT NULL,
            path TEXT NOT NULL,
            arn TEXT NOT NULL,
            description TEXT,
            default_version_id BIGINT NOT NULL,
            last_version_id BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL
        )""",
    "CREATE UNIQUE INDEX iam_policy_by_key ON iam_policy (policy_key)",
    "CREATE UNIQUE INDEX iam_policy_by_arn ON iam_policy (arn)",
    """CREATE TABLE iam_policy_version (
            policy_id TEXT NOT NULL,
            version_id BIGINT NOT NULL,
            document TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (policy_id, version_id)
        )""",
    """CREATE TABLE iam_attached_policy (
            owner_id TEXT NOT NULL,
            policy_arn TEXT NOT NULL,
            PRIMARY KEY (owner_id, policy_arn)
        )""",
    """CREATE INDEX iam_attached_policy_by_policy
            ON iam_attached_policy (policy_arn, owner_id)""",
)
"""IAM users, roles and policies."""

_CONFIGURATION: tuple[str, ...] = (
    """CREATE TABLE event_configuration (
            event_type TEXT NOT NULL PRIMARY KEY,
            enabled BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL
        )""",
    """CREATE TABLE logging_options (
            generation TEXT NOT NULL PRIMARY KEY,
            role_arn TEXT,
            log_level TEXT,
            disabled BIGINT NOT NULL,
            event_configurations TEXT
        )""",
    """CREATE TABLE log_level (
            target_type TEXT NOT NULL,
            target_name TEXT NOT NULL,
            log_level TEXT NOT NULL,
            PRIMARY KEY (target_type, target_name)
        )""",
    """CREATE TABLE role_alias (
            role_alias TEXT NOT NULL PRIMARY KEY,
            role_arn TEXT NOT NULL,
            credential_seconds BIGINT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL
        )""",
    """CREATE TABLE domain_configuration (
            name TEXT NOT NULL PRIMARY KEY,
            suffix TEXT NOT NULL,
            service_type TEXT NOT NULL,
            status TEXT NOT NULL,
            status_changed_at DOUBLE PRECISION NOT NULL,
            security_policy TEXT NOT NULL,
            authentication_type TEXT NOT NULL,
            application_protocol TEXT NOT NULL,
            server_certificate TEXT
        )""",
)
"""Events, logging, role aliases, domain configurations."""

_TEMPLATES: tuple[str, ...] = (
    "ALTER TABLE template ADD COLUMN type TEXT NOT NULL DEFAULT 'FLEET_PROVISIONING'",
)
"""Types of templates."""

_JUST_IN_TIME: tuple[str, ...] = (
    "ALTER TABLE certificate ADD COLUMN provisioning_state TEXT",
    "ALTER TABLE certificate ADD COLUMN provisioning_failure TEXT",
    """CREATE INDEX certificate_by_provisioning
            ON certificate (provisioning_state, certificate_id)
            WHERE provisioning_state IS NOT NULL""",
    "ALTER TABLE certificate ADD COLUMN content TEXT",
    """CREATE UNIQUE INDEX certificate_by_content ON certificate (content)
            WHERE content IS NOT NULL""",
)
"""Certificates that register themselves."""

_BULK: tuple[str, ...] = (
    """CREATE TABLE registration_task (
            task_id TEXT NOT NULL PRIMARY KEY,
            template_body TEXT NOT NULL,
            input_bucket TEXT NOT NULL,
            input_key TEXT NOT NULL,
            role_arn TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL,
            status TEXT NOT NULL,
            message TEXT NOT NULL,
            input_version TEXT NOT NULL,
            input_bytes BIGINT NOT NULL,
            bytes_done BIGINT NOT NULL,
            lines_done BIGINT NOT NULL,
            succeeded BIGINT NOT NULL,
            failed BIGINT NOT NULL,
            results_bytes BIGINT NOT NULL,
            errors_bytes BIGINT NOT NULL
        )""",
    "CREATE INDEX registration_task_by_age ON registration_task (created_at, task_id)",
    """CREATE INDEX registration_task_by_status
            ON registration_task (status, created_at, task_id)""",
)
"""Bulk registration."""

_AGAIN: tuple[str, ...] = (
    """CREATE TABLE registration_answer (
            certificate_id TEXT NOT NULL PRIMARY KEY,
            template_name TEXT NOT NULL,
            template_created_at DOUBLE PRECISION NOT NULL,
            parameters TEXT NOT NULL,
            outcome TEXT NOT NULL,
            status TEXT NOT NULL,
            body TEXT NOT NULL,
            kept_until DOUBLE PRECISION NOT NULL
        )""",
    """CREATE INDEX registration_answer_by_end
            ON registration_answer (kept_until, certificate_id)""",
)
"""Answers for devices that ask again."""

_FUNCTIONS: tuple[str, ...] = (
    """CREATE TABLE lambda_function (
            function_name TEXT NOT NULL PRIMARY KEY,
            description TEXT NOT NULL,
            runtime TEXT NOT NULL,
            handler TEXT NOT NULL,
            role_arn TEXT NOT NULL,
            timeout_seconds BIGINT NOT NULL,
            memory_megabytes BIGINT NOT NULL,
            environment TEXT NOT NULL,
            architecture TEXT NOT NULL,
            code_id TEXT NOT NULL,
            code_sha256 TEXT NOT NULL,
            code_bytes BIGINT NOT NULL,
            revision_id TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL
        )""",
    """CREATE TABLE function_code (
            code_id TEXT NOT NULL,
            part BIGINT NOT NULL,
            stored_at DOUBLE PRECISION NOT NULL,
            code TEXT NOT NULL,
            PRIMARY KEY (code_id, part)
        )""",
    """CREATE TABLE function_permission (
            function_name TEXT NOT NULL,
            origin TEXT NOT NULL,
            statement_id TEXT NOT NULL,
            position BIGINT NOT NULL,
            statement TEXT NOT NULL,
            PRIMARY KEY (function_name, origin, statement_id)
        )""",
)
"""Lambda functions that were uploaded, and who may invoke functions."""

_HOOKS: tuple[str, ...] = (
    "ALTER TABLE template ADD COLUMN hook_target_arn TEXT",
    "ALTER TABLE template ADD COLUMN hook_payload_version TEXT",
    "ALTER TABLE registration_answer ADD COLUMN overrides TEXT NOT NULL DEFAULT '{}'",
)
"""Pre-provisioning hooks."""

_CERTIFICATE_PROVIDERS: tuple[str, ...] = (
    """CREATE TABLE certificate_provider (
            name TEXT NOT NULL PRIMARY KEY,
            function_arn TEXT NOT NULL,
            client_token TEXT,
            request TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL,
            modified_at DOUBLE PRECISION NOT NULL
        )""",
)
"""Who signs instead of the server."""

_ALLOW_LISTS: tuple[str, ...] = (
    # `listed` is 0 for what is in a file, or was taken from the list after it had been used;
    # `uses` is NULL for as many as the function says, 0 for any number
    """CREATE TABLE allow_list_serial (
            list TEXT NOT NULL,
            serial TEXT NOT NULL,
            listed BIGINT NOT NULL,
            uses BIGINT,
            overrides TEXT,
            used BIGINT NOT NULL,
            added_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (list, serial)
        )""",
    """CREATE TABLE allow_list_use (
            list TEXT NOT NULL,
            serial TEXT NOT NULL,
            certificate_id TEXT NOT NULL,
            thing_name TEXT,
            used_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (list, serial, certificate_id)
        )""",
)
"""Serial numbers that may register."""

_PUBLIC_KEYS: tuple[str, ...] = (
    "ALTER TABLE certificate ADD COLUMN public_key TEXT",
    """CREATE INDEX certificate_by_public_key
            ON certificate (public_key, certificate_id)""",
    # what an older release stored, until it is looked at: empty afterwards
    """CREATE INDEX certificate_without_public_key ON certificate (certificate_id)
            WHERE public_key IS NULL""",
    "ALTER TABLE provisioning_claim ADD COLUMN public_key TEXT",
    """CREATE INDEX provisioning_claim_by_public_key ON provisioning_claim (public_key)
            WHERE public_key IS NOT NULL""",
    """CREATE TABLE deleted_key (
            public_key TEXT NOT NULL,
            certificate_id TEXT NOT NULL,
            thing_name TEXT,
            deleted_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (public_key, certificate_id)
        )""",
)
"""Which certificates have the same key."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _FIRST_LIGHT,
    (*_REGISTRY, *_CERTIFICATES, *_IAM, *_CONFIGURATION),
    (*_TEMPLATES, *_JUST_IN_TIME, *_BULK, *_AGAIN),
    (*_FUNCTIONS, *_HOOKS, *_CERTIFICATE_PROVIDERS, *_ALLOW_LISTS, *_PUBLIC_KEYS),
)

REGISTRY_TABLES = (
    "certificate",
    "ca_certificate",
    "registration_code",
    "certificate_transfer",
    "provisioning_claim",
    "registration_answer",
    "policy",
    "policy_version",
    "policy_attachment",
    "thing_type",
    "thing",
    "thing_attribute",
    "thing_principal",
    "thing_group",
    "thing_group_member",
    "billing_group",
    "tag",
    "template",
    "template_version",
    "iam_user",
    "iam_access_key",
    "iam_login_profile",
    "iam_role",
    "iam_inline_policy",
    "iam_policy",
    "iam_policy_version",
    "iam_attached_policy",
    "event_configuration",
    "logging_options",
    "log_level",
    "role_alias",
    "domain_configuration",
    "registration_task",
    "allow_list_serial",
    "allow_list_use",
    "deleted_key",
    "certificate_provider",
    "lambda_function",
    "function_code",
    "function_permission",
)
"""What ``reset`` empties: all tables but ``setting``."""
