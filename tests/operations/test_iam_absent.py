"""Listings that are always empty, since what they list is not there."""

from typing import Any

import pytest

from fleetgate.errors import NoSuchEntity, ValidationError
from tests.operations.conftest import Registry
from tests.operations.iam import ACCOUNT, Iam


@pytest.fixture
def iam(registry: Registry) -> Iam:
    return Iam(registry)


OF_USERS = [
    ("ListGroupsForUser", "Groups"),
    ("ListMFADevices", "MFADevices"),
    ("ListSSHPublicKeys", "SSHPublicKeys"),
    ("ListServiceSpecificCredentials", "ServiceSpecificCredentials"),
    ("ListSigningCertificates", "Certificates"),
]
"""What Terraform asks for before it deletes a user (aws_iam_user, force_destroy)."""


@pytest.mark.parametrize(("operation", "member"), OF_USERS)
def test_a_user_has_nothing_of_it(iam: Iam, operation: str, member: str) -> None:
    iam("CreateUser", UserName="u")
    assert iam(operation, UserName="u", MaxItems=5) == {member: [], "IsTruncated": False}
    with pytest.raises(NoSuchEntity, match=r"^The user with name nobody cannot be found\.$"):
        iam(operation, UserName="nobody")
    with pytest.raises(ValidationError, match=f"not a page token of {operation}"):
        iam(operation, UserName="u", Marker="forged")


@pytest.mark.parametrize(
    ("operation", "member", "members"),
    [
        ("ListAccountAliases", "AccountAliases", {}),
        ("ListGroups", "Groups", {"PathPrefix": "/x/"}),
        ("ListInstanceProfiles", "InstanceProfiles", {}),
        ("ListMFADevices", "MFADevices", {}),
        ("ListOpenIDConnectProviders", "OpenIDConnectProviderList", {}),
        ("ListSAMLProviders", "SAMLProviderList", {}),
        ("ListServerCertificates", "ServerCertificateMetadataList", {}),
        ("ListVirtualMFADevices", "VirtualMFADevices", {"AssignmentStatus": "Any"}),
    ],
)
def test_the_account_has_nothing_of_it(
    iam: Iam, operation: str, member: str, members: dict[str, Any]
) -> None:
    assert iam(operation, **members)[member] == []


def test_a_role_has_no_instance_profile(iam: Iam) -> None:
    iam.role("r")
    assert iam("ListInstanceProfilesForRole", RoleName="r")["InstanceProfiles"] == []
    with pytest.raises(NoSuchEntity, match="The role with name nobody cannot be found"):
        iam("ListInstanceProfilesForRole", RoleName="nobody")


def test_there_is_no_password_policy(iam: Iam) -> None:
    """AWS's words (aws-samples workshops, "The Password Policy with domain name")."""
    with pytest.raises(NoSuchEntity) as caught:
        iam("GetAccountPasswordPolicy")
    expected = f"The Password Policy with domain name {ACCOUNT} cannot be found."
    assert caught.value.message == expected
