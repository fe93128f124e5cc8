"""IAM users and their access keys."""

import re

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    AccessDeniedException,
    DeleteConflict,
    EntityAlreadyExists,
    InvalidInput,
    LimitExceeded,
    NoSuchEntity,
    ValidationError,
)
from fleetgate.operations import access_keys
from fleetgate.operations.call import Services
from fleetgate.store import iam_users
from tests.operations.conftest import START, Registry, elsewhere
from tests.operations.iam import ACCOUNT, Iam, allow


@pytest.fixture
def iam(registry: Registry) -> Iam:
    return Iam(registry)


def test_a_user_is_created_found_and_deleted(iam: Iam) -> None:
    created = iam("CreateUser", UserName="Ann", Path="/fleet/")["User"]
    assert re.fullmatch("AIDA[A-Z2-7]{17}", created["UserId"])
    assert created["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/fleet/Ann"
    assert created["CreateDate"] == START
    found = iam("GetUser", UserName="Ann")["User"]
    assert {key: found[key] for key in ("UserName", "Path", "UserId", "Arn")} == {
        key: created[key] for key in ("UserName", "Path", "UserId", "Arn")
    }
    iam("DeleteUser", UserName="Ann")
    with pytest.raises(NoSuchEntity, match="The user with name Ann cannot be found"):
        iam("GetUser", UserName="Ann")


def test_names_differ_in_more_than_case(iam: Iam) -> None:
    """IAM User Guide, "IAM and AWS STS quotas": names are not distinguished by case."""
    iam("CreateUser", UserName="Ann")
    with pytest.raises(EntityAlreadyExists, match="User with name ANN already exists"):
        iam("CreateUser", UserName="ANN")
    with pytest.raises(NoSuchEntity):
        iam("GetUser", UserName="ann")


def test_users_are_listed_by_path_in_pages(iam: Iam) -> None:
    for name, path in (("a", "/x/"), ("B", "/x/y/"), ("c", "/x/"), ("d", "/")):
        iam("CreateUser", UserName=name, Path=path)
    first = iam("ListUsers", PathPrefix="/x/", MaxItems=2)
    assert [user["UserName"] for user in first["Users"]] == ["a", "B"]
    assert first["IsTruncated"] is True
    rest = iam("ListUsers", PathPrefix="/x/", MaxItems=2, Marker=first["Marker"])
    assert [user["UserName"] for user in rest["Users"]] == ["c"]
    assert rest["IsTruncated"] is False
    assert len(iam("ListUsers")["Users"]) == 4
    with pytest.raises(ValidationError, match="not a page token of ListRoles"):
        iam("ListRoles", Marker=first["Marker"])


def test_a_user_is_renamed_and_keeps_everything(iam: Iam) -> None:
    before = iam("CreateUser", UserName="ann", Tags=[{"Key": "k", "Value": "v"}])["User"]
    key = iam("CreateAccessKey", UserName="ann")["AccessKey"]
    iam("PutUserPolicy", UserName="ann", PolicyName="p", PolicyDocument=allow("iot:*"))
    iam("UpdateUser", UserName="ann", NewUserName="Ann", NewPath="/p/")
    after = iam("GetUser", UserName="Ann")["User"]
    assert after["UserId"] == before["UserId"]
    assert after["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/p/Ann"
    assert after["Tags"] == [{"Key": "k", "Value": "v"}]
    (listed,) = iam("ListAccessKeys", UserName="Ann")["AccessKeyMetadata"]
    assert (listed["AccessKeyId"], listed["UserName"]) == (key["AccessKeyId"], "Ann")
    assert iam("ListUserPolicies", UserName="Ann")["PolicyNames"] == ["p"]
    iam("CreateUser", UserName="bob")
    with pytest.raises(EntityAlreadyExists, match="User with name bob already exists"):
        iam("UpdateUser", UserName="Ann", NewUserName="bob")


def test_a_user_with_something_left_is_not_deleted(iam: Iam) -> None:
    iam("CreateUser", UserName="u")
    key = iam("CreateAccessKey", UserName="u")["AccessKey"]["AccessKeyId"]
    iam("CreateLoginProfile", UserName="u", Password="Passw0rd!")
    iam("PutUserPolicy", UserName="u", PolicyName="p", PolicyDocument=allow("iot:*"))
    admin = "arn:aws:iam::aws:policy/AdministratorAccess"
    iam("AttachUserPolicy", UserName="u", PolicyArn=admin)
    for message, operation, members in (
        ("delete login profile", "DeleteLoginProfile", {}),
        ("delete access keys", "DeleteAccessKey", {"AccessKeyId": key}),
        ("delete policies", "DeleteUserPolicy", {"PolicyName": "p"}),
        ("detach all policies", "DetachUserPolicy", {"PolicyArn": admin}),
    ):
        with pytest.raises(DeleteConflict, match=f"Cannot delete entity, must {message} first"):
            iam("DeleteUser", UserName="u")
        iam(operation, UserName="u", **members)
    iam("DeleteUser", UserName="u")


def test_without_a_name_the_caller_is_meant(iam: Iam) -> None:
    root = iam("GetUser")["User"]
    assert (root["Arn"], root["UserId"]) == (f"arn:aws:iam::{ACCOUNT}:root", ACCOUNT)
    ann = iam.user("ann", allow("iam:*"))
    assert iam("GetUser", ann)["User"]["UserName"] == "ann"
    assert iam("CreateAccessKey", ann)["AccessKey"]["UserName"] == "ann"
    assert len(iam("ListAccessKeys", ann)["AccessKeyMetadata"]) == 1
    with pytest.raises(ValidationError, match="the root user has the one access key"):
        iam("CreateAccessKey")
    with pytest.raises(ValidationError, match="Must specify userName"):
        iam("ListAccessKeys")


def test_an_access_key_is_made_switched_off_and_deleted(iam: Iam) -> None:
    iam("CreateUser", UserName="u")
    made = iam("CreateAccessKey", UserName="u")["AccessKey"]
    assert re.fullmatch("AKIA[A-Z2-7]{16}", made["AccessKeyId"])
    assert re.fullmatch("[A-Za-z0-9+/]{40}", made["SecretAccessKey"])
    identity = {"UserName": "u", "AccessKeyId": made["AccessKeyId"]}
    iam("UpdateAccessKey", Status="Inactive", **identity)
    (listed,) = iam("ListAccessKeys", UserName="u")["AccessKeyMetadata"]
    assert listed == {**identity, "Status": "Inactive", "CreateDate": START}
    with pytest.raises(ValidationError, match="not `Expired`"):
        iam("UpdateAccessKey", Status="Expired", **identity)
    iam("CreateUser", UserName="other")
    with pytest.raises(NoSuchEntity, match=f"Access Key with id {made['AccessKeyId']} cannot"):
        iam("DeleteAccessKey", UserName="other", AccessKeyId=made["AccessKeyId"])
    iam("DeleteAccessKey", **identity)
    unknown = made["AccessKeyId"]
    with pytest.raises(AccessDeniedException) as caught:
        iam("GetAccessKeyLastUsed", AccessKeyId=unknown)
    # recorded from AWS (localstack, test_iam_users.py)
    assert caught.value.message == (
        f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform iam:GetAccessKeyLastUsed "
        f"on resource: access key {unknown}"
    )


def test_a_user_has_two_access_keys_at_most(iam: Iam) -> None:
    """IAM User Guide, "IAM and AWS STS quotas"."""
    iam("CreateUser", UserName="u")
    iam("CreateAccessKey", UserName="u")
    iam("CreateAccessKey", UserName="u")
    with pytest.raises(LimitExceeded, match="Cannot exceed quota for AccessKeysPerUser: 2"):
        iam("CreateAccessKey", UserName="u")


def test_the_last_use_of_an_access_key(iam: Iam, registry: Registry) -> None:
    iam("CreateUser", UserName="u")
    key = iam("CreateAccessKey", UserName="u")["AccessKey"]["AccessKeyId"]
    never = iam("GetAccessKeyLastUsed", AccessKeyId=key)
    assert never["AccessKeyLastUsed"]["ServiceName"] == "N/A"
    store = registry.services.store
    used_at = START + 0.4  # told in whole seconds, as all times of IAM
    registry.runner.run(store.write(iam_users.update_access_key_use, key, used_at, "iot", "r"))
    assert iam("GetAccessKeyLastUsed", AccessKeyId=key) == {
        "UserName": "u",
        "AccessKeyLastUsed": {"LastUsedDate": START, "ServiceName": "iot", "Region": "r"},
    }


def stored(registry: Registry, access_key_id: str) -> iam_users.AccessKey:
    store = registry.services.store
    found = registry.runner.run(store.read(iam_users.find_access_key, access_key_id))
    assert found is not None
    return found


def test_secrets_are_stored_encrypted_and_bound_to_their_key(iam: Iam, registry: Registry) -> None:
    services: Services = registry.services
    iam("CreateUser", UserName="u")
    one, two = (iam("CreateAccessKey", UserName="u")["AccessKey"] for _ in range(2))
    sealed = stored(registry, one["AccessKeyId"])
    assert one["SecretAccessKey"] not in sealed.sealed_secret
    assert sealed.sealed_secret not in repr(sealed)
    assert access_keys.secret_of(services, sealed) == one["SecretAccessKey"]
    # nobody reads them with another server's key, nor gives one key's secret to another
    assert access_keys.secret_of(elsewhere(services, token_key=bytes([1]) * 32), sealed) is None
    other = stored(registry, two["AccessKeyId"])
    swapped = iam_users.AccessKey(
        other.access_key_id,
        other.user_id,
        other.user_name,
        other.user_path,
        sealed.sealed_secret,
        other.status,
        other.created_at,
        None,
        None,
        None,
    )
    assert access_keys.secret_of(services, swapped) is None


def test_what_changes_rights_is_announced(iam: Iam, registry: Registry) -> None:
    iam("CreateUser", UserName="u")
    for operation, members in (
        ("CreateAccessKey", {}),
        ("PutUserPolicy", {"PolicyName": "p", "PolicyDocument": allow("iot:*")}),
        ("DeleteUserPolicy", {"PolicyName": "p"}),
        ("AttachUserPolicy", {"PolicyArn": "arn:aws:iam::aws:policy/AWSIoTFullAccess"}),
        ("DetachUserPolicy", {"PolicyArn": "arn:aws:iam::aws:policy/AWSIoTFullAccess"}),
        ("TagUser", {"Tags": [{"Key": "k", "Value": "v"}]}),
        ("UntagUser", {"TagKeys": ["k"]}),
        ("UpdateUser", {"NewPath": "/p/"}),
    ):
        before = registry.services.iam_epoch
        iam(operation, UserName="u", **members)
        assert registry.services.iam_epoch > before, operation


# --- tags -----------------------------------------------------------------------------------------


def test_tags_are_given_changed_listed_and_taken(iam: Iam) -> None:
    tags = [{"Key": f"k{at}", "Value": str(at)} for at in range(3)]
    iam("CreateUser", UserName="u", Tags=tags)
    iam("TagUser", UserName="u", Tags=[{"Key": "K1", "Value": "new"}])
    first = iam("ListUserTags", UserName="u", MaxItems=2)
    rest = iam("ListUserTags", UserName="u", MaxItems=2, Marker=first["Marker"])
    found = {tag["Key"]: tag["Value"] for tag in (*first["Tags"], *rest["Tags"])}
    assert found == {"k0": "0", "K1": "new", "k2": "2"}
    iam("UntagUser", UserName="u", TagKeys=["k0", "K1", "nothing"])
    assert iam("GetUser", UserName="u")["User"]["Tags"] == [{"Key": "k2", "Value": "2"}]
    iam("DeleteUser", UserName="u")
    iam("CreateUser", UserName="u")
    assert iam("ListUserTags", UserName="u")["Tags"] == []


def test_a_marker_of_long_keys_fits(iam: Iam) -> None:
    keys = [chr(0x1D400 + at) * 128 for at in range(3)]
    iam("CreateUser", UserName="u", Tags=[{"Key": key, "Value": ""} for key in keys])
    found: list[str] = []
    marker: dict[str, str] = {}
    while True:
        page = iam("ListUserTags", UserName="u", MaxItems=1, **marker)
        found += [tag["Key"] for tag in page["Tags"]]
        if not page["IsTruncated"]:
            break
        marker = {"Marker": page["Marker"]}
    assert found == keys


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([("a", "1"), ("A", "2")], "Duplicate tag keys found"),
        ([("aws:x", "1")], "`aws:x` begins with `aws:`"),
    ],
)
def test_tags_against_the_rules_are_refused(
    iam: Iam, tags: list[tuple[str, str]], message: str
) -> None:
    """IAM User Guide, "Tags for IAM resources"."""
    with pytest.raises(InvalidInput, match=message):
        iam("CreateUser", UserName="u", Tags=[{"Key": k, "Value": v} for k, v in tags])


def test_quotas_hold(iam: Iam, registry: Registry) -> None:
    iam.registry.services = elsewhere(
        registry.services, limits=Limits(iam_users=1, tags_per_resource=1)
    )
    iam("CreateUser", UserName="u")
    with pytest.raises(LimitExceeded, match="Cannot exceed quota for UsersPerAccount: 1"):
        iam("CreateUser", UserName="v")
    iam("TagUser", UserName="u", Tags=[{"Key": "a", "Value": ""}])
    with pytest.raises(LimitExceeded, match="maximum limit: 1"):
        iam("TagUser", UserName="u", Tags=[{"Key": "b", "Value": ""}])


def test_there_are_no_boundaries(iam: Iam) -> None:
    with pytest.raises(ValidationError, match="`PermissionsBoundary` of CreateUser is not"):
        boundary = "arn:aws:iam::aws:policy/AdministratorAccess"
        iam("CreateUser", UserName="v", PermissionsBoundary=boundary)


def test_constraints_of_the_model_are_validation_errors(iam: Iam) -> None:
    with pytest.raises(
        ValidationError, match=r"1 validation error detected: Value at 'userName' failed"
    ):
        iam("CreateUser", UserName="no blanks")
