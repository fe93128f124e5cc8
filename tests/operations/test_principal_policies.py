"""The deprecated operations on policies and principals.

Source: AWS IoT API Reference (AttachPrincipalPolicy, DetachPrincipalPolicy,
ListPrincipalPolicies, ListPolicyPrincipals).
"""

from typing import Any

import pytest

from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from tests.operations.conftest import ALLOW, Registry


@pytest.fixture
def certificate(registry: Registry) -> str:
    """The ARN of a new certificate."""
    return str(registry.certificate()["certificateArn"])


def create(registry: Registry, *names: str) -> None:
    for name in names:
        registry.clock.now += 1
        registry.call("CreatePolicy", policy_name=name, policy_document=ALLOW)


def listed(registry: Registry, operation: str, key: str, **params: Any) -> list[Any]:
    found: list[Any] = []
    marker: dict[str, str] = {}
    while True:
        page = registry.call(operation, page_size=2, **params, **marker)
        assert len(page[key]) <= 2
        found += page[key]
        if page["nextMarker"] is None:
            return found
        marker = {"marker": page["nextMarker"]}


def test_they_see_what_the_newer_operations_do(registry: Registry, certificate: str) -> None:
    create(registry, "old", "new")
    epoch = registry.services.policy_epoch
    for _ in range(2):
        registry.call("AttachPrincipalPolicy", policy_name="old", principal=certificate)
    assert registry.services.policy_epoch > epoch
    registry.call("AttachPolicy", policy_name="new", target=certificate)
    attached = registry.call("ListAttachedPolicies", target=certificate)["policies"]
    assert [each["policyName"] for each in attached] == ["new", "old"]
    assert registry.call("ListTargetsForPolicy", policy_name="old")["targets"] == [certificate]
    epoch = registry.services.policy_epoch
    registry.call("DetachPrincipalPolicy", policy_name="new", principal=certificate)
    assert registry.services.policy_epoch > epoch
    registry.call("DetachPolicy", policy_name="old", target=certificate)
    assert registry.call("ListPrincipalPolicies", principal=certificate)["policies"] == []


def test_detaching_what_is_not_attached_is_told(registry: Registry, certificate: str) -> None:
    create(registry, "lamps")
    with pytest.raises(ResourceNotFoundException, match="is not attached"):
        registry.call("DetachPrincipalPolicy", policy_name="lamps", principal=certificate)


def test_policies_of_a_principal_by_age(registry: Registry, certificate: str) -> None:
    create(registry, "b", "a", "c")
    for name in "abc":
        registry.call("AttachPrincipalPolicy", policy_name=name, principal=certificate)
    for params, order in (({}, "cab"), ({"ascending_order": True}, "bac")):
        found = listed(
            registry, "ListPrincipalPolicies", "policies", principal=certificate, **params
        )
        assert found == [
            {"policyName": name, "policyArn": registry.arn(f"policy/{name}")} for name in order
        ]


def test_principals_of_a_policy_are_its_certificates(registry: Registry) -> None:
    create(registry, "lamps")
    arns = sorted(str(registry.certificate()["certificateArn"]) for _ in range(5))
    group = registry.call("CreateThingGroup", thing_group_name="g")["thingGroupArn"]
    for target in (*arns, group):
        registry.call("AttachPolicy", policy_name="lamps", target=target)
    found = listed(
        registry, "ListPolicyPrincipals", "principals", policy_name="lamps", ascending_order=True
    )
    assert found == arns
    found = listed(registry, "ListPolicyPrincipals", "principals", policy_name="lamps")
    assert found == arns[::-1]
    listing = registry.call("ListPrincipalPolicies", principal=group)["policies"]
    assert [each["policyName"] for each in listing] == ["lamps"]


@pytest.mark.parametrize("operation", ["AttachPrincipalPolicy", "DetachPrincipalPolicy"])
def test_a_thing_group_is_no_principal(registry: Registry, operation: str) -> None:
    create(registry, "lamps")
    group = registry.call("CreateThingGroup", thing_group_name="g")["thingGroupArn"]
    with pytest.raises(InvalidRequestException, match="is a thing group, not a principal"):
        registry.call(operation, policy_name="lamps", principal=group)


@pytest.mark.parametrize("operation", ["AttachPrincipalPolicy", "DetachPrincipalPolicy"])
@pytest.mark.parametrize(
    ("principal", "error"),
    [
        (f"arn:aws:iot:eu-west-1:123456789012:cert/{'a' * 64}", ResourceNotFoundException),
        (f"arn:aws:iot:eu-west-1:210987654321:cert/{'a' * 64}", InvalidRequestException),
        ("eu-west-1:12345678-1234-1234-1234-1234567890ab", InvalidRequestException),
        ("lamp", InvalidRequestException),
    ],
)
def test_what_is_no_principal_here(
    registry: Registry, operation: str, principal: str, error: type[Exception]
) -> None:
    create(registry, "lamps")
    with pytest.raises(error):
        registry.call(operation, policy_name="lamps", principal=principal)
    with pytest.raises(error):
        registry.call("ListPrincipalPolicies", principal=principal)


def test_an_unknown_policy_is_not_found(registry: Registry, certificate: str) -> None:
    for operation in ("AttachPrincipalPolicy", "DetachPrincipalPolicy"):
        with pytest.raises(ResourceNotFoundException, match="none"):
            registry.call(operation, policy_name="none", principal=certificate)
    with pytest.raises(ResourceNotFoundException, match="none"):
        registry.call("ListPolicyPrincipals", policy_name="none")
