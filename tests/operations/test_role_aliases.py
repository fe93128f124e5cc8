"""Role aliases.

Sources: AWS IoT API reference, *RoleAlias*; AWS CLI examples (list-role-aliases lists in
descending order, describe-role-alias shows the default of 3600 seconds); AWS IoT quotas.
"""

from typing import Any

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.operations.role_aliases import CREDENTIALS
from tests.operations.conftest import START, Registry
from tests.operations.roles import add_role


@pytest.fixture
def role(registry: Registry) -> str:
    return add_role(registry, "light-bulb", CREDENTIALS)


def create(registry: Registry, name: str, role: str, **params: Any) -> dict[str, Any]:
    return registry.call("CreateRoleAlias", role_alias=name, role_arn=role, **params)


def describe(registry: Registry, name: str) -> Any:
    return registry.call("DescribeRoleAlias", role_alias=name)["roleAliasDescription"]


def test_a_role_alias_lives_and_dies(registry: Registry, role: str) -> None:
    arn = registry.arn("rolealias/LightBulbRole")
    named = {"roleAlias": "LightBulbRole", "roleAliasArn": arn}
    assert create(registry, "LightBulbRole", role) == named
    assert describe(registry, "LightBulbRole") == {
        **named,
        "roleArn": role,
        "owner": "123456789012",
        "credentialDurationSeconds": 3600,
        "creationDate": START,
        "lastModifiedDate": START,
    }
    registry.clock.now = START + 9
    updated = registry.call(
        "UpdateRoleAlias", role_alias="LightBulbRole", credential_duration_seconds=900
    )
    assert updated == named
    described = describe(registry, "LightBulbRole")
    assert described["credentialDurationSeconds"] == 900
    assert described["roleArn"] == role
    assert described["creationDate"] == START
    assert described["lastModifiedDate"] == START + 9
    assert registry.call("DeleteRoleAlias", role_alias="LightBulbRole") == {}
    for operation in ("DescribeRoleAlias", "UpdateRoleAlias", "DeleteRoleAlias"):
        with pytest.raises(ResourceNotFoundException, match="LightBulbRole"):
            registry.call(operation, role_alias="LightBulbRole")


def test_a_name_is_taken_once(registry: Registry, role: str) -> None:
    create(registry, "a", role)
    with pytest.raises(ResourceAlreadyExistsException, match=r"already exists \(name=a\)") as info:
        create(registry, "a", role)
    assert info.value.members == {"resourceId": "a", "resourceArn": registry.arn("rolealias/a")}


def test_credentials_last_no_longer_than_the_role_allows(registry: Registry, role: str) -> None:
    with pytest.raises(InvalidRequestException, match=r"7200 is more than .* 3600"):
        create(registry, "a", role, credential_duration_seconds=7200)
    create(registry, "a", role)
    with pytest.raises(InvalidRequestException, match="3601"):
        registry.call("UpdateRoleAlias", role_alias="a", credential_duration_seconds=3601)
    longer = add_role(registry, "longer", CREDENTIALS, max_session_seconds=43200)
    registry.call(
        "UpdateRoleAlias", role_alias="a", role_arn=longer, credential_duration_seconds=43200
    )
    assert describe(registry, "a")["credentialDurationSeconds"] == 43200
    with pytest.raises(InvalidRequestException, match="3600"):
        registry.call("UpdateRoleAlias", role_alias="a", role_arn=role)


def test_the_role_has_to_trust_the_credential_provider(registry: Registry, role: str) -> None:
    other = add_role(registry, "other")
    create(registry, "a", role)
    for arn in (other, "arn:aws:iam::123456789012:role/absent"):
        with pytest.raises(InvalidRequestException, match="cannot be assumed by credentials"):
            create(registry, "b", arn)
        with pytest.raises(InvalidRequestException, match="cannot be assumed by credentials"):
            registry.call("UpdateRoleAlias", role_alias="a", role_arn=arn)
    assert describe(registry, "a")["roleArn"] == role


@pytest.mark.parametrize("seconds", [899, 43201])
def test_the_duration_is_bounded_by_the_model(registry: Registry, role: str, seconds: int) -> None:
    with pytest.raises(InvalidRequestException, match="credentialDurationSeconds"):
        create(registry, "a", role, credential_duration_seconds=seconds)


@pytest.mark.parametrize("ascending", [False, True])
def test_aliases_are_listed_page_by_page(registry: Registry, role: str, ascending: bool) -> None:
    for name in ("b", "d", "a", "c", "e"):
        create(registry, name, role)
    listed: list[str] = []
    marker = None
    while True:
        page = registry.call(
            "ListRoleAliases", page_size=2, marker=marker, ascending_order=ascending
        )
        assert len(page["roleAliases"]) <= 2
        listed += page["roleAliases"]
        marker = page["nextMarker"]
        if marker is None:
            break
        with pytest.raises(InvalidRequestException, match="not a page token"):
            registry.call("ListRoleAliases", marker=marker, ascending_order=not ascending)
    assert listed == sorted("abcde", reverse=not ascending)


def test_aliases_are_limited(registry: Registry, role: str) -> None:
    registry.services.limits = Limits(role_aliases=1)
    create(registry, "a", role)
    with pytest.raises(LimitExceededException, match="1 role aliases"):
        create(registry, "b", role)


def test_an_alias_has_tags_as_long_as_it_lives(registry: Registry, role: str) -> None:
    create(registry, "a", role, tags=[{"Key": "team", "Value": "light"}])
    arn = registry.arn("rolealias/a")
    listed = registry.call("ListTagsForResource", resource_arn=arn)
    assert listed["tags"] == [{"Key": "team", "Value": "light"}]
    registry.call("DeleteRoleAlias", role_alias="a")
    create(registry, "a", role)
    assert registry.call("ListTagsForResource", resource_arn=arn)["tags"] == []
