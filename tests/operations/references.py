"""Every reference between two rows of the store, and which of them lead nowhere.

A reference is a name, an ARN or an id in one table that is the key of a row in another. What only
remembers a name, and may outlive it, is listed with the reason: a column that is in neither list
fails a test.
"""

from __future__ import annotations

from fleetgate.names import Account
from fleetgate.store.engine import Store, Tx

_TAGGABLE = (
    "{billinggroup} UNION ALL {cacert} UNION ALL {certificateprovider} "
    "UNION ALL {domainconfiguration} UNION ALL {policy} "
    "UNION ALL {provisioningtemplate} UNION ALL {rolealias} UNION ALL {thinggroup} "
    "UNION ALL {thingtype} UNION ALL {user} UNION ALL {role} UNION ALL SELECT arn FROM iam_policy "
    "UNION ALL {function}"
)

_REFERENCES: tuple[tuple[str, str, str], ...] = (
    # table and column, and the query for the keys there may be (NULL is no reference)
    # a claim whose template was deleted names none
    ("provisioning_claim", "template_name", "SELECT template_name FROM template UNION SELECT ''"),
    ("policy_version", "policy_name", "SELECT policy_name FROM policy"),
    ("policy_attachment", "policy_name", "SELECT policy_name FROM policy"),
    ("policy_attachment", "target", "{cert} UNION ALL {thinggroup}"),
    ("thing", "thing_type_name", "SELECT thing_type_name FROM thing_type"),
    ("thing", "billing_group_name", "SELECT billing_group_name FROM billing_group"),
    ("thing_attribute", "thing_name", "SELECT thing_name FROM thing"),
    ("thing_principal", "thing_name", "SELECT thing_name FROM thing"),
    ("thing_principal", "principal", "{cert}"),
    ("thing_group", "parent_group_name", "SELECT thing_group_name FROM thing_group"),
    ("thing_group_member", "thing_group_name", "SELECT thing_group_name FROM thing_group"),
    ("thing_group_member", "thing_name", "SELECT thing_name FROM thing"),
    ("template_version", "template_name", "SELECT template_name FROM template"),
    ("ca_certificate", "template_name", "SELECT template_name FROM template"),
    ("certificate_transfer", "certificate_id", "SELECT certificate_id FROM certificate"),
    ("tag", "resource", _TAGGABLE),
    ("iam_access_key", "user_id", "SELECT user_id FROM iam_user"),
    ("iam_login_profile", "user_id", "SELECT user_id FROM iam_user"),
    (
        "iam_inline_policy",
        "owner_id",
        "SELECT user_id FROM iam_user UNION ALL SELECT role_id FROM iam_role",
    ),
    (
        "iam_attached_policy",
        "owner_id",
        "SELECT user_id FROM iam_user UNION ALL SELECT role_id FROM iam_role",
    ),
    ("iam_policy_version", "policy_id", "SELECT policy_id FROM iam_policy"),
    ("lambda_function", "code_id", "SELECT code_id FROM function_code"),
)

_KINDS = {
    "billinggroup": ("billing_group_name", "billing_group"),
    "cacert": ("certificate_id", "ca_certificate"),
    "cert": ("certificate_id", "certificate"),
    "certificateprovider": ("name", "certificate_provider"),
    "domainconfiguration": ("name || '/' || suffix", "domain_configuration"),
    "policy": ("policy_name", "policy"),
    "provisioningtemplate": ("template_name", "template"),
    "rolealias": ("role_alias", "role_alias"),
    "thinggroup": ("thing_group_name", "thing_group"),
    "thingtype": ("thing_type_name", "thing_type"),
}
"""Words of ARNs: what follows them, and the table that has it."""

_BROKEN = {
    "the default version of an IoT policy": (
        "SELECT policy_name FROM policy p WHERE NOT EXISTS (SELECT 1 FROM policy_version v "
        "WHERE v.policy_name = p.policy_name AND v.version_id = p.default_version_id)"
    ),
    "the default version of a template": (
        "SELECT template_name FROM template t WHERE NOT EXISTS (SELECT 1 FROM template_version v "
        "WHERE v.template_name = t.template_name AND v.version_id = t.default_version_id)"
    ),
    "the default version of an IAM policy": (
        "SELECT policy_id FROM iam_policy p WHERE NOT EXISTS (SELECT 1 FROM iam_policy_version v "
        "WHERE v.policy_id = p.policy_id AND v.version_id = p.default_version_id)"
    ),
    "an attached IAM policy of neither the account nor AWS": (
        "SELECT policy_arn FROM iam_attached_policy WHERE policy_arn NOT LIKE CAST(:aws AS TEXT) "
        "AND policy_arn NOT IN (SELECT arn FROM iam_policy)"
    ),
    "a transfer of a certificate that is not PENDING_TRANSFER": (
        "SELECT t.certificate_id FROM certificate_transfer t JOIN certificate c "
        "ON c.certificate_id = t.certificate_id WHERE c.status <> 'PENDING_TRANSFER'"
    ),
    "a certificate that is PENDING_TRANSFER without a transfer": (
        "SELECT certificate_id FROM certificate WHERE status = 'PENDING_TRANSFER' "
        "AND certificate_id NOT IN (SELECT certificate_id FROM certificate_transfer)"
    ),
    "a permission of an uploaded function that is gone": (
        "SELECT function_name FROM function_permission WHERE origin = 'uploaded' "
        "AND function_name NOT IN (SELECT function_name FROM lambda_function)"
    ),
    "a certificate that is exclusive to one thing and attached to another": (
        "SELECT a.principal FROM thing_principal a JOIN thing_principal b "
        "ON a.principal = b.principal AND a.thing_name <> b.thing_name WHERE a.exclusive = 1"
    ),
}
"""What no single column says: a name for it, and the query for what shows it."""

REMEMBERED = {
    ("certificate", "template_name"): "the template the certificate was registered by",
    ("certificate", "thing_name"): "the thing the certificate was registered for",
    ("certificate", "ca_certificate_id"): "stays when the CA certificate is deleted",
    ("template", "provisioning_role_arn"): "a role may be deleted before what uses it, as with AWS",
    ("template", "hook_target_arn"): "a function may be made after its template, as with AWS",
    ("certificate_provider", "function_arn"): "the same",
    ("ca_certificate", "role_arn"): "a role may be deleted before what uses it, as with AWS",
    ("role_alias", "role_arn"): "the same",
    ("logging_options", "role_arn"): "the same",
    ("registration_task", "role_arn"): "the same",
    ("domain_configuration", "server_certificate"): "of another service",
    ("log_level", "target_name"): "what is not there yet may have a level, as with AWS",
    ("registration_answer", "certificate_id"): "kept until its own end",
    ("registration_answer", "template_name"): "the same",
    ("lambda_function", "role_arn"): "a role may be deleted before what uses it, as with AWS",
    ("function_code", "code_id"): "is stored before a function refers to it",
    ("allow_list_use", "certificate_id"): "what was used stays when the certificate is deleted",
    ("allow_list_use", "thing_name"): "the same",
    ("deleted_key", "certificate_id"): "the id of a certificate that was deleted",
    ("deleted_key", "thing_name"): "the thing it was registered for",
}
"""Columns with a name or id of something else that may be gone, and why."""

CHECKED = {
    *((table, column) for table, column, _ in _REFERENCES),
    # by queries of their own
    ("policy", "default_version_id"),
    ("template", "default_version_id"),
    ("iam_policy", "default_version_id"),
    ("iam_attached_policy", "policy_arn"),
    ("function_permission", "function_name"),
}
"""Columns whose references are followed."""


def _query() -> str:
    """All of it as one statement; `iot` and `iam` are what ARNs begin with."""
    # ruff: noqa: S608 - every word of it is in this file
    arns = {
        kind: f"SELECT CAST(:iot AS TEXT) || '{kind}/' || {column} FROM {table}"
        for kind, (column, table) in _KINDS.items()
    }
    for kind in ("user", "role"):
        name = f"{kind}_name"
        arns[kind] = f"SELECT CAST(:iam AS TEXT) || '{kind}' || path || {name} FROM iam_{kind}"
    arns["function"] = "SELECT CAST(:functions AS TEXT) || function_name FROM lambda_function"
    parts = [
        f"SELECT '{table}.{column}' AS what, {column} AS shown FROM {table} WHERE "
        f"{column} IS NOT NULL AND {column} NOT IN ({keys.format_map(arns)})"
        for table, column, keys in _REFERENCES
    ]
    parts += [f"SELECT '{what}' AS what, b.* FROM ({rows}) AS b" for what, rows in _BROKEN.items()]
    return " UNION ALL ".join(parts)


async def broken_references(store: Store, account: Account) -> list[tuple[str, str]]:
    """What is broken, and the name, ARN or id that shows it."""
    begin = {
        "iot": account.arn(""),
        "iam": account.iam_arn(""),
        "functions": account.lambda_arn(""),
        "aws": "arn:aws:iam::aws:%",
    }

    def find(tx: Tx) -> list[tuple[str, str]]:
        return [(str(what), str(shown)) for what, shown in tx.all(_query(), **begin)]

    return await store.read(find)
