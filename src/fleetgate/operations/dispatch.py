"""The one way in: every operation, through whichever door it came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fleetgate.errors import InvalidRequestException, NotImplementedException
from fleetgate.operations import (
    certificates,
    endpoints,
    policies,
    provisioning,
    templates,
    thing_groups,
    thing_types,
    things,
)
from fleetgate.operations.call import Call
from fleetgate.wire.constraints import validate
from fleetgate.wire.model import Operation

OperationFunction = Callable[..., Awaitable[dict[str, Any]]]

SERVED: Mapping[str, Mapping[str, OperationFunction]] = {
    "iot": {
        "AddThingToThingGroup": thing_groups.add_thing_to_thing_group,
        "AttachPolicy": policies.attach_policy,
        "AttachThingPrincipal": things.attach_thing_principal,
        "CreateCertificateFromCsr": certificates.create_certificate_from_csr,
        "CreateKeysAndCertificate": certificates.create_keys_and_certificate,
        "CreatePolicy": policies.create_policy,
        "CreatePolicyVersion": policies.create_policy_version,
        "CreateProvisioningClaim": templates.create_provisioning_claim,
        "CreateProvisioningTemplate": templates.create_provisioning_template,
        "CreateProvisioningTemplateVersion": templates.create_provisioning_template_version,
        "CreateThing": things.create_thing,
        "CreateThingGroup": thing_groups.create_thing_group,
        "CreateThingType": thing_types.create_thing_type,
        "DeleteCertificate": certificates.delete_certificate,
        "DeletePolicy": policies.delete_policy,
        "DeletePolicyVersion": policies.delete_policy_version,
        "DeleteProvisioningTemplate": templates.delete_provisioning_template,
        "DeleteProvisioningTemplateVersion": templates.delete_provisioning_template_version,
        "DeleteThing": things.delete_thing,
        "DeleteThingGroup": thing_groups.delete_thing_group,
        "DeleteThingType": thing_types.delete_thing_type,
        "DeprecateThingType": thing_types.deprecate_thing_type,
        "DescribeCertificate": certificates.describe_certificate,
        "DescribeEndpoint": endpoints.describe_endpoint,
        "DescribeProvisioningTemplate": templates.describe_provisioning_template,
        "DescribeProvisioningTemplateVersion": templates.describe_provisioning_template_version,
        "DescribeThing": things.describe_thing,
        "DescribeThingGroup": thing_groups.describe_thing_group,
        "DescribeThingType": thing_types.describe_thing_type,
        "DetachPolicy": policies.detach_policy,
        "DetachThingPrincipal": things.detach_thing_principal,
        "GetPolicy": policies.get_policy,
        "GetPolicyVersion": policies.get_policy_version,
        "ListAttachedPolicies": policies.list_attached_policies,
        "ListCertificates": certificates.list_certificates,
        "ListPolicies": policies.list_policies,
        "ListPolicyVersions": policies.list_policy_versions,
        "ListPrincipalThings": things.list_principal_things,
        "ListProvisioningTemplates": templates.list_provisioning_templates,
        "ListProvisioningTemplateVersions": templates.list_provisioning_template_versions,
        "ListTargetsForPolicy": policies.list_targets_for_policy,
        "ListThingGroups": thing_groups.list_thing_groups,
        "ListThingGroupsForThing": thing_groups.list_thing_groups_for_thing,
        "ListThingPrincipals": things.list_thing_principals,
        "ListThings": things.list_things,
        "ListThingsInThingGroup": thing_groups.list_things_in_thing_group,
        "ListThingTypes": thing_types.list_thing_types,
        "RegisterCertificateWithoutCA": certificates.register_certificate_without_ca,
        "RemoveThingFromThingGroup": thing_groups.remove_thing_from_thing_group,
        "SetDefaultPolicyVersion": policies.set_default_policy_version,
        "UpdateCertificate": certificates.update_certificate,
        "UpdateProvisioningTemplate": templates.update_provisioning_template,
        "UpdateThing": things.update_thing,
        "UpdateThingGroup": thing_groups.update_thing_group,
    },
    "provisioning": {
        "CreateCertificateFromCsr": provisioning.create_certificate_from_csr,
        "CreateKeysAndCertificate": provisioning.create_keys_and_certificate,
        "RegisterThing": provisioning.register_thing,
    },
}
"""Operation name to function, per service: ``iot`` over HTTP, ``provisioning`` over MQTT."""

UNOFFERED_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "CreatePolicy": ("tags",),
    "CreateProvisioningTemplate": ("tags",),
    "CreateThing": ("billing_group_name",),
    "CreateThingGroup": ("tags",),
    "CreateThingType": ("tags",),
}
"""Members of served operations that are refused, never ignored, when a caller sends them."""


async def invoke(
    call: Call, service: str, operation: Operation, params: dict[str, Any]
) -> dict[str, Any]:
    """Carries out one operation.

    `params` are the decoded members, top-level names in snake_case. Returns the members of the
    model's output. Raises ServiceError: NotImplementedException for an operation that is not
    served, InvalidRequestException for input against the model's constraints, else what the
    operation raises.
    """
    function = SERVED[service].get(operation.name)
    if function is None:
        raise NotImplementedException(
            f"{operation.name} is not offered by this server; `fleetgate operations` lists what is"
        )
    if operation.input is not None:
        validate(operation.input, params)
    for name in UNOFFERED_MEMBERS.get(operation.name, ()):
        if params.pop(name, None):
            raise InvalidRequestException(
                f"`{name}` of {operation.name} is not offered by this server; leave it out"
            )
    return await function(call, **params)
