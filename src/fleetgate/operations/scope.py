"""What of the service models is not served, and why: one table for answers and documentation.

An operation that is neither served nor in the table does not exist: a test compares both with the
models, so that a newer model is noticed there and not by a caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """Operations that are left out for one reason, a sentence without its full stop."""

    reason: str
    operations: tuple[str, ...]


def refusal(service: str, operation: str) -> str:
    """What a caller of an operation that is not served is told."""
    reason = _REASONS.get((service, operation))
    why = f": {reason}" if reason else ""
    return f"{operation} is not offered by this server{why}; `fleetgate operations` lists what is"


def _group(reason: str, operations: str) -> Group:
    return Group(reason, tuple(operations.split()))


LEFT_OUT: Mapping[str, tuple[Group, ...]] = {
    "iot": (
        _group(
            "jobs are out of its scope",
            """
            AssociateTargetsWithJob CancelJob CancelJobExecution CreateJob CreateJobTemplate
            DeleteJob DeleteJobExecution DeleteJobTemplate DescribeJob DescribeJobExecution
            DescribeJobTemplate DescribeManagedJobTemplate GetJobDocument
            ListJobExecutionsForJob ListJobExecutionsForThing ListJobTemplates ListJobs
            ListManagedJobTemplates UpdateJob
            """,
        ),
        _group(
            "rules are out of its scope",
            """
            ConfirmTopicRuleDestination CreateTopicRule CreateTopicRuleDestination
            DeleteTopicRule DeleteTopicRuleDestination DisableTopicRule EnableTopicRule
            GetTopicRule GetTopicRuleDestination ListTopicRuleDestinations ListTopicRules
            ReplaceTopicRule UpdateTopicRuleDestination
            """,
        ),
        _group(
            "Device Defender is out of its scope",
            """
            AttachSecurityProfile CancelAuditMitigationActionsTask CancelAuditTask
            CancelDetectMitigationActionsTask CreateAuditSuppression CreateCustomMetric
            CreateDimension CreateMitigationAction CreateScheduledAudit CreateSecurityProfile
            DeleteAccountAuditConfiguration DeleteAuditSuppression DeleteCustomMetric
            DeleteDimension DeleteMitigationAction DeleteScheduledAudit DeleteSecurityProfile
            DescribeAccountAuditConfiguration DescribeAuditFinding
            DescribeAuditMitigationActionsTask DescribeAuditSuppression DescribeAuditTask
            DescribeCustomMetric DescribeDetectMitigationActionsTask DescribeDimension
            DescribeMitigationAction DescribeScheduledAudit DescribeSecurityProfile
            DetachSecurityProfile GetBehaviorModelTrainingSummaries ListActiveViolations
            ListAuditFindings ListAuditMitigationActionsExecutions
            ListAuditMitigationActionsTasks ListAuditSuppressions ListAuditTasks
            ListCustomMetrics ListDetectMitigationActionsExecutions
            ListDetectMitigationActionsTasks ListDimensions ListMetricValues
            ListMitigationActions ListRelatedResourcesForAuditFinding ListScheduledAudits
            ListSecurityProfiles ListSecurityProfilesForTarget ListTargetsForSecurityProfile
            ListViolationEvents PutVerificationStateOnViolation
            StartAuditMitigationActionsTask StartDetectMitigationActionsTask
            StartOnDemandAuditTask UpdateAccountAuditConfiguration UpdateAuditSuppression
            UpdateCustomMetric UpdateDimension UpdateMitigationAction UpdateScheduledAudit
            UpdateSecurityProfile ValidateSecurityProfileBehaviors
            """,
        ),
        _group(
            "OTA updates and file streams are out of its scope",
            """
            CreateOTAUpdate CreateStream DeleteOTAUpdate DeleteStream DescribeStream
            GetOTAUpdate ListOTAUpdates ListStreams UpdateStream
            """,
        ),
        _group(
            "commands are out of its scope",
            """
            CreateCommand DeleteCommand DeleteCommandExecution GetCommand GetCommandExecution
            ListCommandExecutions ListCommands UpdateCommand
            """,
        ),
        _group(
            "software packages are out of its scope",
            """
            AssociateSbomWithPackageVersion CreatePackage CreatePackageVersion DeletePackage
            DeletePackageVersion DisassociateSbomFromPackageVersion GetPackage
            GetPackageConfiguration GetPackageVersion ListPackageVersions ListPackages
            ListSbomValidationResults UpdatePackage UpdatePackageConfiguration
            UpdatePackageVersion
            """,
        ),
        _group(
            "fleet indexing and fleet metrics are out of its scope",
            """
            CreateFleetMetric DeleteFleetMetric DescribeFleetMetric DescribeIndex
            GetBucketsAggregation GetCardinality GetIndexingConfiguration GetPercentiles
            GetStatistics GetThingConnectivityData ListFleetMetrics ListIndices SearchIndex
            UpdateFleetMetric UpdateIndexingConfiguration
            """,
        ),
        _group(
            "dynamic thing groups need fleet indexing, which is out of its scope",
            """
            CreateDynamicThingGroup DeleteDynamicThingGroup UpdateDynamicThingGroup
            """,
        ),
        _group(
            "devices authenticate with certificates, there are no custom authorizers",
            """
            ClearDefaultAuthorizer CreateAuthorizer DeleteAuthorizer DescribeAuthorizer
            DescribeDefaultAuthorizer ListAuthorizers SetDefaultAuthorizer
            TestInvokeAuthorizer UpdateAuthorizer
            """,
        ),
        _group(
            "the database is the operator's own, there are no keys in KMS",
            "DescribeEncryptionConfiguration UpdateEncryptionConfiguration",
        ),
    ),
    "iam": (
        _group(
            "groups of users are not there; give policies to users and roles",
            """
            AddUserToGroup AttachGroupPolicy CreateGroup DeleteGroup DeleteGroupPolicy
            DetachGroupPolicy GetGroup GetGroupPolicy ListAttachedGroupPolicies
            ListGroupPolicies PutGroupPolicy RemoveUserFromGroup
            UpdateGroup
            """,
        ),
        _group(
            "there is no multi-factor authentication",
            """
            CreateVirtualMFADevice DeactivateMFADevice DeleteVirtualMFADevice EnableMFADevice
            GetMFADevice ListMFADeviceTags
            ResyncMFADevice TagMFADevice UntagMFADevice
            """,
        ),
        _group(
            "users are those of this server, there is no federation",
            """
            AddClientIDToOpenIDConnectProvider CreateOpenIDConnectProvider CreateSAMLProvider
            DeleteOpenIDConnectProvider DeleteSAMLProvider
            DisableOutboundWebIdentityFederation EnableOutboundWebIdentityFederation
            GetOpenIDConnectProvider GetOutboundWebIdentityFederationInfo GetSAMLProvider
            ListOpenIDConnectProviderTags ListSAMLProviderTags
            RemoveClientIDFromOpenIDConnectProvider TagOpenIDConnectProvider
            TagSAMLProvider UntagOpenIDConnectProvider UntagSAMLProvider
            UpdateOpenIDConnectProviderThumbprint UpdateSAMLProvider
            """,
        ),
        _group(
            "there are no EC2 instances to have a profile",
            """
            AddRoleToInstanceProfile CreateInstanceProfile DeleteInstanceProfile
            GetInstanceProfile ListInstanceProfileTags
            RemoveRoleFromInstanceProfile TagInstanceProfile
            UntagInstanceProfile
            """,
        ),
        _group(
            "users have access keys and passwords, no other credentials",
            """
            CreateServiceSpecificCredential DeleteSSHPublicKey DeleteServerCertificate
            DeleteServiceSpecificCredential DeleteSigningCertificate GetSSHPublicKey
            GetServerCertificate ListServerCertificateTags

            ResetServiceSpecificCredential TagServerCertificate UntagServerCertificate
            UpdateSSHPublicKey UpdateServerCertificate UpdateServiceSpecificCredential
            UpdateSigningCertificate UploadSSHPublicKey UploadServerCertificate
            UploadSigningCertificate
            """,
        ),
        _group(
            "there is one account, no organization",
            """
            DisableOrganizationsRootCredentialsManagement DisableOrganizationsRootSessions
            EnableOrganizationsRootCredentialsManagement EnableOrganizationsRootSessions
            GenerateOrganizationsAccessReport GetOrganizationsAccessReport
            ListOrganizationsFeatures
            """,
        ),
        _group(
            "delegation requests are not there",
            """
            AcceptDelegationRequest AcquireRole AssociateDelegationRequest
            CreateDelegationRequest GetDelegationRequest GetHumanReadableSummary
            GetRoleTemplateVersion ListDelegationRequests RejectDelegationRequest
            SendDelegationToken UpdateDelegationRequest
            """,
        ),
        _group(
            "service-linked roles are not there; create a role that trusts the service",
            """
            CreateServiceLinkedRole DeleteServiceLinkedRole GetServiceLinkedRoleDeletionStatus
            """,
        ),
        _group(
            "permissions boundaries are not there",
            """
            DeleteRolePermissionsBoundary DeleteUserPermissionsBoundary
            PutRolePermissionsBoundary PutUserPermissionsBoundary
            """,
        ),
        _group(
            "reports and simulations are not there",
            """
            GenerateCredentialReport GenerateServiceLastAccessedDetails
            GetAccountAuthorizationDetails GetAccountSummary GetContextKeysForCustomPolicy
            GetContextKeysForPrincipalPolicy GetCredentialReport GetServiceLastAccessedDetails
            GetServiceLastAccessedDetailsWithEntities ListPoliciesGrantingServiceAccess
            SimulateCustomPolicy SimulatePrincipalPolicy
            """,
        ),
        _group(
            "the account has no such settings",
            """
            CreateAccountAlias DeleteAccountAlias DeleteAccountPasswordPolicy
            GetAccountProperties
            PutAccountProperties SetSecurityTokenServicePreferences
            UpdateAccountPasswordPolicy
            """,
        ),
    ),
    "lambda": (
        _group(
            "functions have one version, $LATEST, and no aliases",
            """
            CreateAlias DeleteAlias DeleteProvisionedConcurrencyConfig GetAlias
            GetProvisionedConcurrencyConfig ListAliases ListProvisionedConcurrencyConfigs
            PublishVersion PutProvisionedConcurrencyConfig UpdateAlias
            """,
        ),
        _group(
            "there are no layers; put everything into the zip",
            """
            AddLayerVersionPermission DeleteLayerVersion GetLayerVersion GetLayerVersionByArn
            GetLayerVersionPolicy ListLayerVersions ListLayers PublishLayerVersion
            RemoveLayerVersionPermission
            """,
        ),
        _group(
            "functions are invoked by AWS IoT and with Invoke, there are no event sources",
            """
            CreateEventSourceMapping DeleteEventSourceMapping DeleteFunctionEventInvokeConfig
            GetEventSourceMapping GetFunctionEventInvokeConfig ListEventSourceMappings
            ListFunctionEventInvokeConfigs PutFunctionEventInvokeConfig UpdateEventSourceMapping
            UpdateFunctionEventInvokeConfig
            """,
        ),
        _group(
            "functions have no URL of their own",
            """
            CreateFunctionUrlConfig DeleteFunctionUrlConfig GetFunctionUrlConfig
            ListFunctionUrlConfigs UpdateFunctionUrlConfig
            """,
        ),
        _group(
            "code is not signed",
            """
            CreateCodeSigningConfig DeleteCodeSigningConfig DeleteFunctionCodeSigningConfig
            GetCodeSigningConfig ListCodeSigningConfigs ListFunctionsByCodeSigningConfig
            PutFunctionCodeSigningConfig UpdateCodeSigningConfig
            """,
        ),
        _group(
            "Invoke is the one way to invoke a function",
            "InvokeAsync InvokeWithResponseStream",
        ),
        _group(
            "how many runs a function may have is the limit `function_concurrency`",
            """
            DeleteFunctionConcurrency GetFunctionConcurrency GetFunctionScalingConfig
            PutFunctionConcurrency PutFunctionScalingConfig
            """,
        ),
        _group(
            "AddPermission, RemovePermission and GetPolicy are what resource policies have",
            "DeleteResourcePolicy GetResourcePolicy PutResourcePolicy",
        ),
        _group(
            "runtimes are those of the server's machine",
            "GetRuntimeManagementConfig PutRuntimeManagementConfig",
        ),
        _group(
            "calls of functions are not followed",
            "GetFunctionRecursionConfig PutFunctionRecursionConfig",
        ),
        _group(
            "functions run on the server's own machine, there are no capacity providers",
            """
            CreateCapacityProvider DeleteCapacityProvider GetCapacityProvider
            ListCapacityProviders ListFunctionVersionsByCapacityProvider UpdateCapacityProvider
            """,
        ),
        _group(
            "durable executions are out of its scope",
            """
            CheckpointDurableExecution DeleteDurableExecution GetDurableExecution
            GetDurableExecutionHistory GetDurableExecutionState ListDurableExecutionsByFunction
            PauseDurableExecution ResumeDurableExecution SendDurableExecutionCallbackFailure
            SendDurableExecutionCallbackHeartbeat SendDurableExecutionCallbackSuccess
            StopDurableExecution
            """,
        ),
    ),
    "sts": (
        _group(
            "users are those of this server, there is no federation",
            """
            AssumeRoleWithSAML AssumeRoleWithWebIdentity GetDelegatedAccessToken
            GetFederationToken GetWebIdentityToken
            """,
        ),
        _group("there is one account, no organization", "AssumeRoot"),
        _group("denials say what was denied in plain text", "DecodeAuthorizationMessage"),
    ),
}
"""Per service, the groups of operations that are not served."""

_REASONS: Mapping[tuple[str, str], str] = {
    (service, operation): group.reason
    for service, groups in LEFT_OUT.items()
    for group in groups
    for operation in group.operations
}
