"""What each operation needs: an action, the resources it is about, the condition keys it fills.

Sources: Service Authorization Reference, "Actions, resources, and condition keys for AWS IoT", "...
for AWS Identity and Access Management", "... for AWS Security Token Service". An action without
resource types there is asked on ``*``. Rows marked (inferred) say what the reference leaves open.

Tags given when something is created need the right to tag it: IAM User Guide, "IAM: Create new
users only with specific tags" (``iam:CreateUser`` and ``iam:TagUser``); AWS IoT Developer Guide,
"Managing a stream in the AWS Cloud" (``iot:TagResource`` "is required to ensure a user can't create
or update a tag on a resource without the proper permissions").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource among the members of a request.

    `kind` is the word in its ARN and `member` the member with its name; with an empty kind the
    member is the ARN itself. `arn_member` is a second member that may name the same resource by
    its ARN: what both say has to be allowed. `each` members are lists. An absent member that is
    not `required` names nothing.
    """

    kind: str
    member: str
    arn_member: str = ""
    required: bool = True
    each: bool = False


@dataclass(frozen=True, slots=True)
class PassedRole:
    """A role among the members of a request that is handed to `service` (``iam:PassRole``).

    `member` may be a path (``registration_config.roleArn``).
    """

    member: str
    service: str = "iot.amazonaws.com"


@dataclass(frozen=True, slots=True)
class Tagging:
    """The action that tags need in a call that creates what they are for.

    It is asked on the resources of the call; `on` is what is asked when the call cannot name what
    it creates.
    """

    action: str
    on: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """The action of an operation, where it is not called like the operation."""

    name: str


@dataclass(frozen=True, slots=True)
class Rights:
    """What an operation needs.

    No `resources` means ``*``. `keys` are condition keys filled from members: the key and the
    member. With `trusts` the policy of the resource may grant it as well. `free` operations need
    no permission at all. `tagging` is what tags in the call need beside.
    """

    action: str
    resources: tuple[Resource, ...] = ()
    passes: tuple[PassedRole, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()
    free: bool = False
    trusts: bool = False
    tagging: Tagging | None = None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its resources."""
        return frozenset(resource.kind for resource in self.resources)

    def also(self, params: Params) -> tuple[Tagging, ...]:
        """Further actions the members ask for."""
        tagged = params.get("tags") or params.get("transitive_tag_keys")
        return (self.tagging,) if self.tagging and tagged else ()


def _rows(service: str, rows: Mapping[str, tuple[Any, ...]]) -> dict[str, Rights]:
    return {
        operation: Rights(
            next((each.name for each in row if isinstance(each, Action)), f"{service}:{operation}"),
            tuple(each for each in row if isinstance(each, Resource)),
            tuple(each for each in row if isinstance(each, PassedRole)),
            tuple(each for each in row if isinstance(each, tuple)),
            _FREE in row,
            _TRUSTS in row,
            next((each for each in row if isinstance(each, Tagging)), None),
        )
        for operation, row in rows.items()
    }


_FREE, _TRUSTS = "free", "trusts"
_ALL: tuple[Any, ...] = ()

_THING = Resource("thing", "thing_name")
_THING_OF_TWO = Resource("thing", "thing_name", "thing_arn")
_THING_TYPE = Resource("thingtype", "thing_type_name")
_GROUP = Resource("thinggroup", "thing_group_name")
_GROUP_OF_TWO = Resource("thinggroup", "thing_group_name", "thing_group_arn")
_BILLING = Resource("billinggroup", "billing_group_name")
_BILLING_OF_TWO = Resource("billinggroup", "billing_group_name", "billing_group_arn")
_POLICY = Resource("policy", "policy_name")
_TEMPLATE = Resource("provisioningtemplate", "template_name")
_CERTIFICATE = Resource("cert", "certificate_id")
_CA = Resource("cacert", "certificate_id")
_ALIAS = Resource("rolealias", "role_alias")
_PROVIDER = Resource("certificateprovider", "certificate_provider_name")
_DOMAIN = Resource("domainconfiguration", "domain_configuration_name")
# a Cognito identity is taken as it is: AWS names it so when it refuses
_PRINCIPAL = Resource("", "principal")
_MAYBE_PRINCIPAL = Resource("", "principal", required=False)
_TARGET = Resource("", "target")
_TAGGED = Resource("", "resource_arn")
_DOMAIN_NAME = ("iot:DomainName", "domain_name")
_TAGS = Tagging("iot:TagResource")

_IOT = _rows(
    "iot",
    {
        "AcceptCertificateTransfer": (_CERTIFICATE,),
        "AddThingToBillingGroup": (_BILLING_OF_TWO, _THING_OF_TWO),
        "AddThingToThingGroup": (_THING_OF_TWO, _GROUP_OF_TWO),
        "AttachPolicy": (_TARGET,),
        "AttachPrincipalPolicy": (_PRINCIPAL,),
        "AttachThingPrincipal": (_PRINCIPAL, ("iot:thingArn", "thing/{thing_name}")),
        "CancelCertificateTransfer": (_CERTIFICATE,),
        "CreateBillingGroup": (_BILLING, _TAGS),
        "CreateCertificateFromCsr": _ALL,
        "CreateCertificateProvider": (_PROVIDER, _TAGS),
        "CreateDomainConfiguration": (_DOMAIN, _DOMAIN_NAME, _TAGS),
        "CreateKeysAndCertificate": _ALL,
        "CreatePolicy": (_POLICY, _TAGS),
        "CreatePolicyVersion": (_POLICY,),
        "CreateProvisioningClaim": (_TEMPLATE,),
        "CreateProvisioningTemplate": (_TEMPLATE, PassedRole("provisioning_role_arn"), _TAGS),
        "CreateProvisioningTemplateVersion": (_TEMPLATE,),
        "CreateRoleAlias": (_ALIAS, PassedRole("role_arn", "credentials.iot.amazonaws.com"), _TAGS),
        "CreateThing": (_THING, Resource("billinggroup", "billing_group_name", required=False)),
        "CreateThingGroup": (_GROUP, _TAGS),
        "CreateThingType": (_THING_TYPE, _TAGS),
        "DeleteBillingGroup": (_BILLING,),
        "DeleteCACertificate": (_CA,),
        "DeleteCertificate": (_CERTIFICATE,),
        "DeleteCertificateProvider": (_PROVIDER,),
        "DeleteDomainConfiguration": (_DOMAIN,),
        "DeletePolicy": (_POLICY,),
        "DeletePolicyVersion": (_POLICY,),
        "DeleteProvisioningTemplate": (_TEMPLATE,),
        "DeleteProvisioningTemplateVersion": (_TEMPLATE,),
        "DeleteRegistrationCode": _ALL,
        "DeleteRoleAlias": (_ALIAS,),
        "DeleteThing": (_THING,),
        "DeleteThingGroup": (_GROUP,),
        "DeleteThingType": (_THING_TYPE,),
        "DeleteV2LoggingLevel": _ALL,
        "DeprecateThingType": (_THING_TYPE,),
        "DescribeBillingGroup": (_BILLING,),
        "DescribeCACertificate": (_CA,),
        "DescribeCertificate": (_CERTIFICATE,),
        "DescribeCertificateProvider": (_PROVIDER,),
        "DescribeDomainConfiguration": (_DOMAIN,),
        "DescribeEndpoint": _ALL,
        "DescribeEventConfigurations": _ALL,
        "DescribeProvisioningTemplate": (_TEMPLATE,),
        "DescribeProvisioningTemplateVersion": (_TEMPLATE,),
        "DescribeRoleAlias": (_ALIAS,),
        "DescribeThing": (_THING,),
        "DescribeThingGroup": (_GROUP,),
        "DescribeThingRegistrationTask": _ALL,
        "DescribeThingType": (_THING_TYPE,),
        "DetachPolicy": (_TARGET,),
        "DetachPrincipalPolicy": (_PRINCIPAL,),
        "DetachThingPrincipal": (_PRINCIPAL, ("iot:thingArn", "thing/{thing_name}")),
        "GetEffectivePolicies": (_MAYBE_PRINCIPAL,),
        "GetLoggingOptions": _ALL,
        "GetPolicy": (_POLICY,),
        "GetPolicyVersion": (_POLICY,),
        "GetRegistrationCode": _ALL,
        "GetV2LoggingOptions": _ALL,
        "ListAttachedPolicies": _ALL,
        "ListBillingGroups": _ALL,
        "ListCACertificates": _ALL,
        "ListCertificateProviders": _ALL,
        "ListCertificates": _ALL,
        "ListCertificatesByCA": _ALL,
        "ListDomainConfigurations": _ALL,
        "ListOutgoingCertificates": _ALL,
        "ListPolicies": _ALL,
        "ListPolicyPrincipals": _ALL,
        "ListPolicyVersions": (_POLICY,),
        "ListPrincipalPolicies": _ALL,
        "ListPrincipalThings": (_PRINCIPAL,),
        "ListPrincipalThingsV2": (_PRINCIPAL,),
        "ListProvisioningTemplateVersions": (_TEMPLATE,),
        "ListProvisioningTemplates": _ALL,
        "ListRoleAliases": _ALL,
        "ListTagsForResource": (_TAGGED,),
        "ListTargetsForPolicy": (_POLICY,),
        "ListThingGroups": _ALL,
        "ListThingGroupsForThing": (_THING,),
        "ListThingPrincipals": (_THING,),
        "ListThingPrincipalsV2": (_THING,),
        "ListThingRegistrationTaskReports": _ALL,
        "ListThingRegistrationTasks": _ALL,
        "ListThingTypes": _ALL,
        "ListThings": _ALL,
        "ListThingsInBillingGroup": (_BILLING,),
        "ListThingsInThingGroup": (_GROUP,),
        "ListV2LoggingLevels": _ALL,
        "RegisterCACertificate": (
            PassedRole("registration_config.roleArn"),
            Tagging("iot:TagResource", "cacert/*"),
        ),
        "RegisterCertificate": _ALL,
        "RegisterCertificateWithoutCA": _ALL,
        "RegisterThing": _ALL,
        "RejectCertificateTransfer": (_CERTIFICATE,),
        "RemoveThingFromBillingGroup": (_BILLING_OF_TWO, _THING_OF_TWO),
        "RemoveThingFromThingGroup": (_THING_OF_TWO, _GROUP_OF_TWO),
        "SetDefaultPolicyVersion": (_POLICY,),
        "SetLoggingOptions": (PassedRole("logging_options_payload.roleArn"),),  # (inferred)
        "SetV2LoggingLevel": _ALL,
        "SetV2LoggingOptions": (PassedRole("role_arn"),),  # (inferred)
        "StartThingRegistrationTask": (PassedRole("role_arn"),),
        "StopThingRegistrationTask": _ALL,
        "TagResource": (_TAGGED,),
        "TestAuthorization": (_MAYBE_PRINCIPAL,),
        "TransferCertificate": (_CERTIFICATE,),
        "UntagResource": (_TAGGED,),
        "UpdateBillingGroup": (_BILLING,),
        "UpdateCACertificate": (_CA, PassedRole("registration_config.roleArn")),
        "UpdateCertificate": (_CERTIFICATE,),
        "UpdateCertificateProvider": (_PROVIDER,),
        "UpdateDomainConfiguration": (_DOMAIN,),
        "UpdateEventConfigurations": _ALL,
        "UpdateProvisioningTemplate": (_TEMPLATE, PassedRole("provisioning_role_arn")),
        "UpdateRoleAlias": (_ALIAS, PassedRole("role_arn", "credentials.iot.amazonaws.com")),
        "UpdateThing": (_THING,),
        "UpdateThingGroup": (_GROUP,),
        "UpdateThingGroupsForThing": (
            _THING,
            Resource("thinggroup", "thing_groups_to_add", required=False, each=True),
            Resource("thinggroup", "thing_groups_to_remove", required=False, each=True),
        ),
        "UpdateThingType": (_THING_TYPE,),
    },
)

_USER = Resource("user", "user_name", required=False)
"""Without a name the caller is meant (IAM API Reference, e.g. "CreateAccessKey")."""
_ROLE = Resource("role", "role_name")
_MANAGED = Resource("", "policy_arn")
_KEY = Resource("key", "access_key_id")
_POLICY_ARN = ("iam:PolicyARN", "policy_arn")

_IAM = _rows(
    "iam",
    {
        "AttachRolePolicy": (_ROLE, _POLICY_ARN),
        "AttachUserPolicy": (_USER, _POLICY_ARN),
        "ChangePassword": (_USER,),
        "CreateAccessKey": (_USER,),
        "CreateLoginProfile": (_USER,),
        "CreatePolicy": (Resource("policy", "policy_name"), Tagging("iam:TagPolicy")),
        "CreatePolicyVersion": (_MANAGED,),
        "CreateRole": (_ROLE, Tagging("iam:TagRole")),
        "CreateUser": (_USER, Tagging("iam:TagUser")),
        "DeleteAccessKey": (_USER,),
        "DeleteLoginProfile": (_USER,),
        "DeletePolicy": (_MANAGED,),
        "DeletePolicyVersion": (_MANAGED,),
        "DeleteRole": (_ROLE,),
        "DeleteRolePolicy": (_ROLE,),
        "DeleteUser": (_USER,),
        "DeleteUserPolicy": (_USER,),
        "DetachRolePolicy": (_ROLE, _POLICY_ARN),
        "DetachUserPolicy": (_USER, _POLICY_ARN),
        "GetAccessKeyLastUsed": (_KEY,),
        "GetAccountPasswordPolicy": _ALL,
        "GetLoginProfile": (_USER,),
        "GetPolicy": (_MANAGED,),
        "GetPolicyVersion": (_MANAGED,),
        "GetRole": (_ROLE,),
        "GetRolePolicy": (_ROLE,),
        "GetUser": (_USER,),
        "GetUserPolicy": (_USER,),
        "ListAccessKeys": (_USER,),
        "ListAccountAliases": _ALL,
        "ListAttachedRolePolicies": (_ROLE,),
        "ListAttachedUserPolicies": (_USER,),
        "ListEntitiesForPolicy": (_MANAGED,),
        "ListGroups": _ALL,
        "ListGroupsForUser": (_USER,),
        "ListInstanceProfiles": _ALL,
        "ListInstanceProfilesForRole": (_ROLE,),
        "ListMFADevices": (_USER,),
        "ListOpenIDConnectProviders": _ALL,
        "ListPolicies": (Resource("policies", "path_prefix"),),
        "ListPolicyTags": (_MANAGED,),
        "ListPolicyVersions": (_MANAGED,),
        "ListRolePolicies": (_ROLE,),
        "ListRoleTags": (_ROLE,),
        "ListRoles": (Resource("roles", "path_prefix"),),
        "ListSAMLProviders": _ALL,
        "ListSSHPublicKeys": (_USER,),
        "ListServerCertificates": _ALL,
        "ListServiceSpecificCredentials": (_USER,),
        "ListSigningCertificates": (_USER,),
        "ListUserPolicies": (_USER,),
        "ListUserTags": (_USER,),
        "ListUsers": (Resource("users", "path_prefix"),),
        "ListVirtualMFADevices": _ALL,
        "PutRolePolicy": (_ROLE,),
        "PutUserPolicy": (_USER,),
        "SetDefaultPolicyVersion": (_MANAGED,),
        "TagPolicy": (_MANAGED,),
        "TagRole": (_ROLE,),
        "TagUser": (_USER,),
        "UntagPolicy": (_MANAGED,),
        "UntagRole": (_ROLE,),
        "UntagUser": (_USER,),
        "UpdateAccessKey": (_USER,),
        "UpdateAssumeRolePolicy": (_ROLE,),
        "UpdateLoginProfile": (_USER,),
        "UpdateRole": (_ROLE,),
        "UpdateRoleDescription": (_ROLE,),
        "UpdateUser": (_USER,),
    },
)

_STS = _rows(
    "sts",
    {
        "AssumeRole": (
            Resource("", "role_arn"),
            _TRUSTS,
            Tagging("sts:TagSession"),
            ("sts:RoleSessionName", "role_session_name"),
            ("sts:ExternalId", "external_id"),
            ("sts:SourceIdentity", "source_identity"),
        ),
        "GetAccessKeyInfo": _ALL,
        # "You do not need permissions": STS API Reference
        "GetCallerIdentity": (_FREE,),
        "GetSessionToken": (_FREE,),
    },
)

_FUNCTION = Resource("function", "function_name")
_EXECUTION_ROLE = PassedRole("role", "lambda.amazonaws.com")
_TAGGED_FUNCTION = Resource("", "resource")

# Service Authorization Reference, "Actions, resources, and condition keys for AWS Lambda"
_LAMBDA = _rows(
    "lambda",
    {
        "AddPermission": (_FUNCTION, ("lambda:Principal", "principal")),
        "CreateFunction": (_FUNCTION, _EXECUTION_ROLE, Tagging("lambda:TagResource")),
        "DeleteFunction": (_FUNCTION,),
        "GetAccountSettings": _ALL,
        "GetFunction": (_FUNCTION,),
        "GetFunctionCodeSigningConfig": (_FUNCTION,),
        "GetFunctionConfiguration": (_FUNCTION,),
        "GetPolicy": (_FUNCTION,),
        "Invoke": (Action("lambda:InvokeFunction"), _FUNCTION),
        "ListFunctions": _ALL,
        "ListTags": (_TAGGED_FUNCTION,),
        "ListVersionsByFunction": (_FUNCTION,),
        "RemovePermission": (_FUNCTION,),
        "TagResource": (_TAGGED_FUNCTION,),
        "UntagResource": (_TAGGED_FUNCTION,),
        "UpdateFunctionCode": (_FUNCTION,),
        "UpdateFunctionConfiguration": (_FUNCTION, _EXECUTION_ROLE),
    },
)

RIGHTS: Mapping[str, Mapping[str, Rights]] = {
    "iot": _IOT,
    "iam": _IAM,
    "lambda": _LAMBDA,
    "sts": _STS,
}
"""What each operation needs, by service and operation. One that is not here is refused."""
