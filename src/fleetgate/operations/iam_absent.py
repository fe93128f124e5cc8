"""What accounts of AWS have and this one never has: listings that are truthfully empty.

They are asked for before a user is deleted (Terraform's ``force_destroy``), and by tools that take
stock of an account. What would create such a thing is not offered (operations/scope.py).
"""
# ruff: noqa: ARG001 - the members are the model's; there is nothing to look for

from __future__ import annotations

from typing import Any

from fleetgate.errors import NoSuchEntity
from fleetgate.operations import iam_names
from fleetgate.operations.call import Call

# --- of users ------------------------------------------------------------------------------


async def list_groups_for_user(
    call: Call, user_name: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListGroupsForUser: always empty."""
    return await _of_user(call, "ListGroupsForUser", "Groups", user_name, marker)


async def list_mfa_devices(
    call: Call,
    user_name: str | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListMFADevices: of a user, or of who calls; always empty."""
    return await _of_user(call, "ListMFADevices", "MFADevices", user_name, marker)


async def list_service_specific_credentials(
    call: Call,
    user_name: str | None = None,
    service_name: str | None = None,
    all_users: bool | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListServiceSpecificCredentials: of a user, or of who calls; always empty."""
    operation, member = "ListServiceSpecificCredentials", "ServiceSpecificCredentials"
    return await _of_user(call, operation, member, user_name, marker)


async def list_signing_certificates(
    call: Call,
    user_name: str | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListSigningCertificates: of a user, or of who calls; always empty."""
    return await _of_user(call, "ListSigningCertificates", "Certificates", user_name, marker)


async def list_ssh_public_keys(
    call: Call,
    user_name: str | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListSSHPublicKeys: of a user, or of who calls; always empty."""
    return await _of_user(call, "ListSSHPublicKeys", "SSHPublicKeys", user_name, marker)


# --- of roles ------------------------------------------------------------------------------


async def list_instance_profiles_for_role(
    call: Call, role_name: str, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListInstanceProfilesForRole: always empty."""
    await call.read(iam_names.require_role, role_name)
    return _nothing(call, "ListInstanceProfilesForRole", "InstanceProfiles", marker)


# --- of the account ------------------------------------------------------------------------


async def list_account_aliases(
    call: Call, marker: str | None = None, max_items: int = iam_names.PAGE
) -> dict[str, Any]:
    """ListAccountAliases: always empty."""
    return _nothing(call, "ListAccountAliases", "AccountAliases", marker)


async def list_groups(
    call: Call,
    path_prefix: str = "/",
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListGroups: always empty."""
    return _nothing(call, "ListGroups", "Groups", marker)


async def list_instance_profiles(
    call: Call,
    path_prefix: str = "/",
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListInstanceProfiles: always empty."""
    return _nothing(call, "ListInstanceProfiles", "InstanceProfiles", marker)


async def list_open_id_connect_providers(call: Call) -> dict[str, Any]:
    """ListOpenIDConnectProviders: always empty."""
    return {"OpenIDConnectProviderList": []}


async def list_saml_providers(call: Call) -> dict[str, Any]:
    """ListSAMLProviders: always empty."""
    return {"SAMLProviderList": []}


async def list_server_certificates(
    call: Call,
    path_prefix: str = "/",
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListServerCertificates: always empty."""
    return _nothing(call, "ListServerCertificates", "ServerCertificateMetadataList", marker)


async def list_virtual_mfa_devices(
    call: Call,
    assignment_status: str | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListVirtualMFADevices: always empty."""
    return _nothing(call, "ListVirtualMFADevices", "VirtualMFADevices", marker)


async def get_account_password_policy(call: Call) -> dict[str, Any]:
    """GetAccountPasswordPolicy: none is set, the default one holds; NoSuchEntity, as with AWS."""
    raise NoSuchEntity(f"The Password Policy with domain name {call.account.id} cannot be found.")


async def _of_user(
    call: Call, operation: str, member: str, user_name: str | None, marker: str | None
) -> dict[str, Any]:
    if user_name is not None:
        await call.read(iam_names.require_user, user_name)
    return _nothing(call, operation, member, marker)


def _nothing(call: Call, operation: str, member: str, marker: str | None) -> dict[str, Any]:
    """An empty listing. Raises ValidationError for a marker, which no page of it ever had."""
    iam_names.start(call, operation, marker)
    return {member: [], "IsTruncated": False}
