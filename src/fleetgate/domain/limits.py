"""The counts and sizes an account is held to: AWS's quotas, each of which a setting can change.

The name of a field is the name of the setting in the table ``[limits]`` of ``fleetgate.toml``.
Limits that are part of the wire format (lengths of names, the pattern of a value) are not here:
they are in the service model, which nobody changes.

Sources: AWS General Reference, "AWS IoT Core endpoints and quotas"; IAM User Guide, "IAM and AWS
STS quotas".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of each kind there may be; every default is AWS's value."""

    attributes_without_type: int = 3
    """Attributes of a thing that has no thing type."""
    attributes_with_type: int = 50
    """Attributes of a thing that has a thing type."""
    attributes_per_thing_group: int = 50
    """Attributes of a thing group."""
    searchable_attributes: int = 3
    """Searchable attributes of a thing type."""
    groups_per_thing: int = 10
    """Thing groups a thing is a direct member of."""
    group_depth: int = 7
    """Levels of a hierarchy of thing groups."""
    children_per_group: int = 100
    """Direct child groups of a thing group."""
    policies_per_principal: int = 10
    """IoT policies attached to a certificate or a thing group."""
    policy_versions: int = 5
    """Versions of an IoT policy."""
    policy_document_characters: int = 2048
    """Characters of an IoT policy document without white space."""
    templates: int = 256
    """Provisioning templates of an account."""
    template_versions: int = 5
    """Versions of a provisioning template."""
    ca_certificates_per_subject: int = 10
    """CA certificates of an account with the same subject."""
    role_aliases: int = 100
    """Role aliases of an account."""
    domain_configurations: int = 10
    """Domain configurations of an account."""
    registration_tasks: int = 1
    """Bulk registration tasks of an account that run at a time."""
    registration_line_characters: int = 256_000
    """Characters of a line of a bulk registration's input file."""
    registration_task_days: int = 30
    """Days after which a bulk registration task is ended."""
    registration_report_days: int = 30
    """Days a bulk registration task and its reports are kept after its end."""
    log_levels: int = 1000
    """Targets of an account that have a log level of their own."""
    functions: int = 1000
    """Lambda functions of an account that were uploaded. AWS bounds their storage alone."""
    function_code: int = 52_428_800
    """Bytes of the zip of a Lambda function."""
    function_code_unzipped: int = 262_144_000
    """Bytes of the code of a Lambda function, unzipped."""
    function_storage: int = 80_530_636_800
    """Bytes of the zips of all Lambda functions of an account together."""
    function_unpacked: int = 2_684_354_560
    """Bytes on the disk of all unpacked code of Lambda functions. AWS has no such limit."""
    function_policy: int = 20_480
    """Bytes of the resource policy of a Lambda function."""
    function_environment: int = 4096
    """Bytes of the environment variables of a Lambda function."""
    function_concurrency: int = 10
    """Runs of one uploaded Lambda function at a time."""
    tags_per_resource: int = 50
    """Tags of one resource."""
    iam_users: int = 5000
    """IAM users of an account."""
    iam_roles: int = 1000
    """IAM roles of an account."""
    iam_policies: int = 1500
    """Customer managed IAM policies of an account."""
    iam_policy_versions: int = 5
    """Versions of a managed IAM policy."""
    iam_attached_policies: int = 10
    """Managed IAM policies attached to a user or a role."""
    iam_access_keys: int = 2
    """Access keys of an IAM user."""
    iam_managed_policy_characters: int = 6144
    """Characters of a managed IAM policy document without white space."""
    iam_user_policy_characters: int = 2048
    """Characters of all inline policies of an IAM user together, without white space."""
    iam_role_policy_characters: int = 10240
    """Characters of all inline policies of an IAM role together, without white space."""
    iam_trust_policy_characters: int = 2048
    """Characters of a role's trust policy."""
