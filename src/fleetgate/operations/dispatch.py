"""The one way in: every operation, through whichever door it came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from fleetgate.errors import (
    InvalidParameterValueException,
    InvalidRequestException,
    NotImplementedException,
    ServiceError,
    ValidationError,
    ValidationException,
)
from fleetgate.operations import (
    access_keys,
    authorizations,
    billing_groups,
    ca_certificates,
    certificate_providers,
    certificate_registration,
    certificate_transfers,
    certificates,
    domain_configurations,
    endpoints,
    event_configurations,
    function_calls,
    function_descriptions,
    function_permissions,
    function_tags,
    functions,
    iam_absent,
    iam_attachments,
    iam_policies,
    iam_policy_versions,
    iam_roles,
    iam_tags,
    iam_users,
    log_levels,
    pages,
    passwords,
    policies,
    principal_policies,
    provisioning,
    provisioning_claims,
    registration,
    registration_tasks,
    role_aliases,
    scope,
    sts,
    tags,
    templates,
    thing_groups,
    thing_principals,
    thing_types,
    things,
)
from fleetgate.operations.authorization import authorize
from fleetgate.operations.call import Call
from fleetgate.wire import constraints
from fleetgate.wire.constraints import validate
from fleetgate.wire.model import Operation

OperationFunction = Callable[..., Awaitable[dict[str, Any]]]

SERVED: Mapping[str, Mapping[str, OperationFunction]] = {
    "iot": {
        "AcceptCertificateTransfer": certificate_transfers.accept_certificate_transfer,
        "AddThingToBillingGroup": billing_groups.add_thing_to_billing_group,
        "AddThingToThingGroup": thing_groups.add_thing_to_thing_group,
        "AttachPolicy": policies.attach_policy,
        "AttachPrincipalPolicy": principal_policies.attach_principal_policy,
        "AttachThingPrincipal": thing_principals.attach_thing_principal,
        "CancelCertificateTransfer": certificate_transfers.cancel_certificate_transfer,
        "CreateBillingGroup": billing_groups.create_billing_group,
        "CreateCertificateFromCsr": certificates.create_certificate_from_csr,
        "CreateCertificateProvider": certificate_providers.create_certificate_provider,
        "CreateDomainConfiguration": domain_configurations.create_domain_configuration,
        "CreateKeysAndCertificate": certificates.create_keys_and_certificate,
        "CreatePolicy": policies.create_policy,
        "CreatePolicyVersion": policies.create_policy_version,
        "CreateProvisioningClaim": provisioning_claims.create_provisioning_claim,
        "CreateProvisioningTemplate": templates.create_provisioning_template,
        "CreateProvisioningTemplateVersion": templates.create_provisioning_template_version,
        "CreateRoleAlias": role_aliases.create_role_alias,
        "CreateThing": things.create_thing,
        "CreateThingGroup": thing_groups.create_thing_group,
        "CreateThingType": thing_types.create_thing_type,
        "DeleteBillingGroup": billing_groups.delete_billing_group,
        "DeleteCACertificate": ca_certificates.delete_ca_certificate,
        "DeleteCertificate": certificates.delete_certificate,
        "DeleteCertificateProvider": certificate_providers.delete_certificate_provider,
        "DeleteDomainConfiguration": domain_configurations.delete_domain_configuration,
        "DeletePolicy": policies.delete_policy,
        "DeletePolicyVersion": policies.delete_policy_version,
        "DeleteProvisioningTemplate": templates.delete_provisioning_template,
        "DeleteProvisioningTemplateVersion": templates.delete_provisioning_template_version,
        "DeleteRegistrationCode": ca_certificates.delete_registration_code,
        "DeleteRoleAlias": role_aliases.delete_role_alias,
        "DeleteThing": things.delete_thing,
        "DeleteThingGroup": thing_groups.delete_thing_group,
        "DeleteThingType": thing_types.delete_thing_type,
        "DeleteV2LoggingLevel": log_levels.delete_v2_logging_level,
        "DeprecateThingType": thing_types.deprecate_thing_type,
        "DescribeBillingGroup": billing_groups.describe_billing_group,
        "DescribeCACertificate": ca_certificates.describe_ca_certificate,
        "DescribeCertificate": certificates.describe_certificate,
        "DescribeCertificateProvider": certificate_providers.describe_certificate_provider,
        "DescribeDomainConfiguration": domain_configurations.describe_domain_configuration,
        "DescribeEndpoint": endpoints.describe_endpoint,
        "DescribeEventConfigurations": event_configurations.describe_event_configurations,
        "DescribeProvisioningTemplate": templates.describe_provisioning_template,
        "DescribeProvisioningTemplateVersion": templates.describe_provisioning_template_version,
        "DescribeRoleAlias": role_aliases.describe_role_alias,
        "DescribeThing": things.describe_thing,
        "DescribeThingGroup": thing_groups.describe_thing_group,
        "DescribeThingRegistrationTask": registration_tasks.describe_thing_registration_task,
        "DescribeThingType": thing_types.describe_thing_type,
        "DetachPolicy": policies.detach_policy,
        "DetachPrincipalPolicy": principal_policies.detach_principal_policy,
        "DetachThingPrincipal": thing_principals.detach_thing_principal,
        "GetEffectivePolicies": authorizations.get_effective_policies,
        "GetLoggingOptions": log_levels.get_logging_options,
        "GetPolicy": policies.get_policy,
        "GetPolicyVersion": policies.get_policy_version,
        "GetRegistrationCode": ca_certificates.get_registration_code,
        "GetV2LoggingOptions": log_levels.get_v2_logging_options,
        "ListAttachedPolicies": policies.list_attached_policies,
        "ListBillingGroups": billing_groups.list_billing_groups,
        "ListCACertificates": ca_certificates.list_ca_certificates,
        "ListCertificateProviders": certificate_providers.list_certificate_providers,
        "ListCertificates": certificates.list_certificates,
        "ListCertificatesByCA": certificates.list_certificates_by_ca,
        "ListDomainConfigurations": domain_configurations.list_domain_configurations,
        "ListOutgoingCertificates": certificate_transfers.list_outgoing_certificates,
        "ListPolicies": policies.list_policies,
        "ListPolicyPrincipals": principal_policies.list_policy_principals,
        "ListPolicyVersions": policies.list_policy_versions,
        "ListPrincipalPolicies": principal_policies.list_principal_policies,
        "ListPrincipalThings": thing_principals.list_principal_things,
        "ListPrincipalThingsV2": thing_principals.list_principal_things_v2,
        "ListProvisioningTemplateVersions": templates.list_provisioning_template_versions,
        "ListProvisioningTemplates": templates.list_provisioning_templates,
        "ListRoleAliases": role_aliases.list_role_aliases,
        "ListTagsForResource": tags.list_tags_for_resource,
        "ListTargetsForPolicy": policies.list_targets_for_policy,
        "ListThingGroups": thing_groups.list_thing_groups,
        "ListThingGroupsForThing": thing_groups.list_thing_groups_for_thing,
        "ListThingPrincipals": thing_principals.list_thing_principals,
        "ListThingPrincipalsV2": thing_principals.list_thing_principals_v2,
        "ListThingRegistrationTaskReports": (
            registration_tasks.list_thing_registration_task_reports
        ),
        "ListThingRegistrationTasks": registration_tasks.list_thing_registration_tasks,
        "ListThingTypes": thing_types.list_thing_types,
        "ListThings": things.list_things,
        "ListThingsInBillingGroup": billing_groups.list_things_in_billing_group,
        "ListThingsInThingGroup": thing_groups.list_things_in_thing_group,
        "ListV2LoggingLevels": log_levels.list_v2_logging_levels,
        "RegisterCACertificate": ca_certificates.register_ca_certificate,
        "RegisterCertificate": certificate_registration.register_certificate,
        "RegisterCertificateWithoutCA": certificate_registration.register_certificate_without_ca,
        "RegisterThing": registration.register_thing,
        "RejectCertificateTransfer": certificate_transfers.reject_certificate_transfer,
        "RemoveThingFromBillingGroup": billing_groups.remove_thing_from_billing_group,
        "RemoveThingFromThingGroup": thing_groups.remove_thing_from_thing_group,
        "SetDefaultPolicyVersion": policies.set_default_policy_version,
        "SetLoggingOptions": log_levels.set_logging_options,
        "SetV2LoggingLevel": log_levels.set_v2_logging_level,
        "SetV2LoggingOptions": log_levels.set_v2_logging_options,
        "StartThingRegistrationTask": registration_tasks.start_thing_registration_task,
        "StopThingRegistrationTask": registration_tasks.stop_thing_registration_task,
        "TagResource": tags.tag_resource,
        "TestAuthorization": authorizations.test_authorization,
        "TransferCertificate": certificate_transfers.transfer_certificate,
        "UntagResource": tags.untag_resource,
        "UpdateBillingGroup": billing_groups.update_billing_group,
        "UpdateCACertificate": ca_certificates.update_ca_certificate,
        "UpdateCertificate": certificates.update_certificate,
        "UpdateCertificateProvider": certificate_providers.update_certificate_provider,
        "UpdateDomainConfiguration": domain_configurations.update_domain_configuration,
        "UpdateEventConfigurations": event_configurations.update_event_configurations,
        "UpdateProvisioningTemplate": templates.update_provisioning_template,
        "UpdateRoleAlias": role_aliases.update_role_alias,
        "UpdateThing": things.update_thing,
        "UpdateThingGroup": thing_groups.update_thing_group,
        "UpdateThingGroupsForThing": thing_groups.update_thing_groups_for_thing,
        "UpdateThingType": thing_types.update_thing_type,
    },
    "iam": {
        "AttachRolePolicy": iam_attachments.attach_role_policy,
        "AttachUserPolicy": iam_attachments.attach_user_policy,
        "ChangePassword": passwords.change_password,
        "CreateAccessKey": access_keys.create_access_key,
        "CreateLoginProfile": passwords.create_login_profile,
        "CreatePolicy": iam_policies.create_policy,
        "CreatePolicyVersion": iam_policy_versions.create_policy_version,
        "CreateRole": iam_roles.create_role,
        "CreateUser": iam_users.create_user,
        "DeleteAccessKey": access_keys.delete_access_key,
        "DeleteLoginProfile": passwords.delete_login_profile,
        "DeletePolicy": iam_policies.delete_policy,
        "DeletePolicyVersion": iam_policy_versions.delete_policy_version,
        "DeleteRole": iam_roles.delete_role,
        "DeleteRolePolicy": iam_attachments.delete_role_policy,
        "DeleteUser": iam_users.delete_user,
        "DeleteUserPolicy": iam_attachments.delete_user_policy,
        "DetachRolePolicy": iam_attachments.detach_role_policy,
        "DetachUserPolicy": iam_attachments.detach_user_policy,
        "GetAccessKeyLastUsed": access_keys.get_access_key_last_used,
        "GetAccountPasswordPolicy": iam_absent.get_account_password_policy,
        "GetLoginProfile": passwords.get_login_profile,
        "GetPolicy": iam_policies.get_policy,
        "GetPolicyVersion": iam_policy_versions.get_policy_version,
        "GetRole": iam_roles.get_role,
        "GetRolePolicy": iam_attachments.get_role_policy,
        "GetUser": iam_users.get_user,
        "GetUserPolicy": iam_attachments.get_user_policy,
        "ListAccessKeys": access_keys.list_access_keys,
        "ListAccountAliases": iam_absent.list_account_aliases,
        "ListAttachedRolePolicies": iam_attachments.list_attached_role_policies,
        "ListAttachedUserPolicies": iam_attachments.list_attached_user_policies,
        "ListEntitiesForPolicy": iam_policies.list_entities_for_policy,
        "ListGroups": iam_absent.list_groups,
        "ListGroupsForUser": iam_absent.list_groups_for_user,
        "ListInstanceProfiles": iam_absent.list_instance_profiles,
        "ListInstanceProfilesForRole": iam_absent.list_instance_profiles_for_role,
        "ListMFADevices": iam_absent.list_mfa_devices,
        "ListOpenIDConnectProviders": iam_absent.list_open_id_connect_providers,
        "ListPolicies": iam_policies.list_policies,
        "ListPolicyTags": iam_tags.list_policy_tags,
        "ListPolicyVersions": iam_policy_versions.list_policy_versions,
        "ListRolePolicies": iam_attachments.list_role_policies,
        "ListRoleTags": iam_tags.list_role_tags,
        "ListRoles": iam_roles.list_roles,
        "ListSAMLProviders": iam_absent.list_saml_providers,
        "ListSSHPublicKeys": iam_absent.list_ssh_public_keys,
        "ListServerCertificates": iam_absent.list_server_certificates,
        "ListServiceSpecificCredentials": iam_absent.list_service_specific_credentials,
        "ListSigningCertificates": iam_absent.list_signing_certificates,
        "ListUserPolicies": iam_attachments.list_user_policies,
        "ListUserTags": iam_tags.list_user_tags,
        "ListUsers": iam_users.list_users,
        "ListVirtualMFADevices": iam_absent.list_virtual_mfa_devices,
        "PutRolePolicy": iam_attachments.put_role_policy,
        "PutUserPolicy": iam_attachments.put_user_policy,
        "SetDefaultPolicyVersion": iam_policy_versions.set_default_policy_version,
        "TagPolicy": iam_tags.tag_policy,
        "TagRole": iam_tags.tag_role,
        "TagUser": iam_tags.tag_user,
        "UntagPolicy": iam_tags.untag_policy,
        "UntagRole": iam_tags.untag_role,
        "UntagUser": iam_tags.untag_user,
        "UpdateAccessKey": access_keys.update_access_key,
        "UpdateAssumeRolePolicy": iam_roles.update_assume_role_policy,
        "UpdateLoginProfile": passwords.update_login_profile,
        "UpdateRole": iam_roles.update_role,
        "UpdateRoleDescription": iam_roles.update_role_description,
        "UpdateUser": iam_users.update_user,
    },
    "lambda": {
        "AddPermission": function_permissions.add_permission,
        "CreateFunction": functions.create_function,
        "DeleteFunction": functions.delete_function,
        "GetAccountSettings": function_descriptions.get_account_settings,
        "GetFunction": function_descriptions.get_function,
        "GetFunctionCodeSigningConfig": function_descriptions.get_function_code_signing_config,
        "GetFunctionConfiguration": function_descriptions.get_function_configuration,
        "GetPolicy": function_permissions.get_policy,
        "Invoke": function_calls.invoke,
        "ListFunctions": function_descriptions.list_functions,
        "ListTags": function_tags.list_tags,
        "ListVersionsByFunction": function_descriptions.list_versions_by_function,
        "RemovePermission": function_permissions.remove_permission,
        "TagResource": function_tags.tag_resource,
        "UntagResource": function_tags.untag_resource,
        "UpdateFunctionCode": functions.update_function_code,
        "UpdateFunctionConfiguration": functions.update_function_configuration,
    },
    "provisioning": {
        "CreateCertificateFromCsr": provisioning.create_certificate_from_csr,
        "CreateKeysAndCertificate": provisioning.create_keys_and_certificate,
        "RegisterThing": provisioning.register_thing,
    },
    "sts": {
        "AssumeRole": sts.assume_role,
        "GetAccessKeyInfo": sts.get_access_key_info,
        "GetCallerIdentity": sts.get_caller_identity,
        "GetSessionToken": sts.get_session_token,
    },
}
"""Operation name to function, per service: ``provisioning`` over MQTT, the others over HTTP."""

STYLES: Mapping[str, constraints.Style] = {
    "iam": constraints.IAM,
    "lambda": constraints.STS,
    "sts": constraints.STS,
}
"""How a service tells of broken constraints, where it is not as AWS IoT does."""

REFUSALS: Mapping[str, tuple[type[ServiceError], type[ServiceError]]] = {
    "iam": (ValidationError, ValidationError),
    "lambda": (ValidationException, InvalidParameterValueException),
    "sts": (ValidationError, ValidationError),
}
"""What a service answers to broken constraints, and to members that are not offered; the others
answer InvalidRequestException to both."""

_UNOFFERED_OF_FUNCTIONS = (
    "accelerator_config",
    "capacity_provider_config",
    "dead_letter_config",
    "durable_config",
    "file_system_configs",
    "image_config",
    "kms_key_arn",
    "layers",
    "runtime_config",
)

UNOFFERED_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "AddPermission": (
        "event_source_token",
        "function_url_auth_type",
        "invoked_via_function_url",
        "principal_org_id",
    ),
    "AssumeRole": (
        "minimum_session_token_size",
        "provided_contexts",
        "serial_number",
        "source_identity",
        "token_code",
        "transitive_tag_keys",
    ),
    "CreateFunction": (
        "publish",
        "publish_to",
        *_UNOFFERED_OF_FUNCTIONS,
        "code_signing_config_arn",
        "tenancy_config",
    ),
    "CreateRole": ("permissions_boundary",),
    "CreateUser": ("permissions_boundary",),
    "GetSessionToken": ("minimum_session_token_size", "serial_number", "token_code"),
    "Invoke": ("client_context", "durable_execution_name", "tenant_id"),
    "ListFunctions": ("master_region",),
    "UpdateFunctionCode": (
        "image_uri",
        "publish",
        "publish_to",
        "s3_bucket",
        "s3_key",
        "s3_object_storage_mode",
        "s3_object_version",
        "source_kms_key_arn",
    ),
    "UpdateFunctionConfiguration": _UNOFFERED_OF_FUNCTIONS,
}
"""Members of served operations that are refused, never ignored, when a caller sends them."""


_REFUSALS = (InvalidRequestException, InvalidRequestException)


async def invoke(
    call: Call, service: str, operation: Operation, params: dict[str, Any]
) -> dict[str, Any]:
    """Carries out one operation.

    `params` are the decoded members, top-level names in snake_case. Returns the members of the
    model's output. Raises ServiceError: NotImplementedException for an operation that is not
    served, InvalidRequestException (or what REFUSALS has) for input against the model's
    constraints, AccessDeniedException when the caller may not, else what the operation raises.
    """
    function = SERVED[service].get(operation.name)
    if function is None:
        raise NotImplementedException(scope.refusal(service, operation.name))
    refusal, unoffered = REFUSALS.get(service, _REFUSALS)
    if operation.input is not None:
        validate(operation.input, params, refusal, STYLES.get(service, constraints.PLAIN))
    if operation.name == "AssumeRole":
        sts.check_assume_role(**params)
    await authorize(call, service, operation.name, params)
    for name in UNOFFERED_MEMBERS.get(operation.name, ()):
        if params.pop(name, None):
            raise unoffered(
                f"`{_as_in_model(operation, name)}` of {operation.name} is not offered by this "
                "server; leave it out"
            )
    if operation.name.startswith("List"):
        call = replace(call, listing=pages.asked_for(params))
    return await function(call, **params)


def _as_in_model(operation: Operation, python_name: str) -> str:
    members = operation.input.members.values() if operation.input is not None else ()
    return next(each.name for each in members if each.python_name == python_name)
