"""Rules that need a clock or a crowd: waiting times, quotas, page tokens, racing writers.

Sources: AWS General Reference, "AWS IoT Core endpoints and quotas"; AWS IoT API reference.
"""

import asyncio
import base64
from typing import Any

import pytest

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionsLimitExceededException,
)
from tests.operations.conftest import ALLOW, START, Registry
from tests.operations.roles import add_provisioning_role

BODY = '{"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}}}}'


def template(registry: Registry, name: str, role: str | None = None) -> None:
    registry.call(
        "CreateProvisioningTemplate",
        template_name=name,
        template_body=BODY,
        provisioning_role_arn=role or add_provisioning_role(registry),
    )


def test_the_257th_template_is_one_too_many(registry: Registry) -> None:
    role = add_provisioning_role(registry)
    for number in range(256):
        template(registry, f"t{number}", role)
    with pytest.raises(LimitExceededException, match="256"):
        template(registry, "t256", role)


@pytest.mark.parametrize("kind", ["policy", "template"])
def test_the_sixth_version_is_one_too_many(registry: Registry, kind: str) -> None:
    if kind == "policy":
        registry.call("CreatePolicy", policy_name="x", policy_document=ALLOW)
        create: dict[str, Any] = {"policy_name": "x", "policy_document": ALLOW}
        operation, delete, name = "CreatePolicyVersion", "DeletePolicyVersion", "policyVersionId"
    else:
        template(registry, "x")
        create = {"template_name": "x", "template_body": BODY}
        operation, delete = (
            "CreateProvisioningTemplateVersion",
            "DeleteProvisioningTemplateVersion",
        )
        name = "versionId"
    ids = [registry.call(operation, **create)[name] for _ in range(4)]
    with pytest.raises(VersionsLimitExceededException):
        registry.call(operation, **create)
    key = "policy_version_id" if kind == "policy" else "version_id"
    registry.call(delete, **{key: ids[0], f"{kind}_name": "x"})
    # an id is never used twice
    assert str(registry.call(operation, **create)[name]) == "6"


def test_the_eleventh_policy_of_a_certificate_is_one_too_many(registry: Registry) -> None:
    arn = registry.certificate()["certificateArn"]
    for number in range(11):
        registry.call("CreatePolicy", policy_name=f"p{number}", policy_document=ALLOW)
    for number in range(10):
        registry.call("AttachPolicy", policy_name=f"p{number}", target=arn)
    registry.call("AttachPolicy", policy_name="p9", target=arn)
    with pytest.raises(LimitExceededException, match="the limit is 10"):
        registry.call("AttachPolicy", policy_name="p10", target=arn)


def test_pages_cover_everything_once_in_either_order(registry: Registry) -> None:
    for number in range(7):
        registry.clock.now = START + number // 3  # several in the same instant
        registry.certificate()
    for ascending in (True, False):
        found: list[str] = []
        marker: str | None = None
        while True:
            more = {"marker": marker} if marker else {}
            answer = registry.call(
                "ListCertificates", page_size=2, ascending_order=ascending, **more
            )
            found += [each["certificateId"] for each in answer["certificates"]]
            marker = answer["nextMarker"]
            if marker is None:
                break
        assert len(found) == len(set(found)) == 7


def test_a_page_token_of_another_operation_or_forged_is_refused(registry: Registry) -> None:
    for name in ("a", "b", "c"):
        registry.call("CreateThing", thing_name=name)
        registry.call("CreateThingType", thing_type_name=name)
    token = registry.call("ListThings", max_results=1)["nextToken"]
    assert registry.call("ListThings", next_token=token)["things"][0]["thingName"] == "b"
    forged = base64.b64encode(bytes(16) + b'["a"]').decode()
    for bad in (forged, token[:-4] + "AAA=", "x", "äöü"):
        with pytest.raises(InvalidRequestException, match="is not a page token of ListThings"):
            registry.call("ListThings", next_token=bad)
    with pytest.raises(InvalidRequestException, match="is not a page token of ListThingTypes"):
        registry.call("ListThingTypes", next_token=token)


def test_a_page_token_cannot_be_read_nor_used_for_another_question(registry: Registry) -> None:
    for name in ("hidden-1", "hidden-2", "hidden-3"):
        registry.call("CreateThing", thing_name=name)
    token = registry.call("ListThings", max_results=1)["nextToken"]
    assert b"hidden" not in base64.b64decode(token)
    assert len(registry.call("ListThings", next_token=token, max_results=2)["things"]) == 2
    with pytest.raises(InvalidRequestException, match="with these parameters"):
        registry.call("ListThings", next_token=token, thing_type_name="lamp")
    registry.certificate()
    registry.certificate()
    token = registry.call("ListCertificates", page_size=1)["nextMarker"]
    with pytest.raises(InvalidRequestException, match="with these parameters"):
        registry.call("ListCertificates", marker=token, ascending_order=True)


def test_of_a_hundred_writers_of_one_name_one_wins(registry: Registry) -> None:
    async def race() -> list[Any]:
        calls = [
            registry.start(
                "iot",
                "CreateThing",
                {
                    "thing_name": "a",
                    "attribute_payload": {"attributes": {"writer": str(number)}},
                },
            )
            for number in range(100)
        ]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    outcomes = registry.runner.run(race())
    winners = [outcome for outcome in outcomes if isinstance(outcome, dict)]
    losers = [each for each in outcomes if isinstance(each, ResourceAlreadyExistsException)]
    assert (len(winners), len(losers)) == (1, 99)
    assert {loser.members["resourceId"] for loser in losers} == {winners[0]["thingId"]}


def test_policies_of_groups_above_count_for_the_thing_alone(registry: Registry) -> None:
    from fleetgate.operations.admission import connection_policies
    from fleetgate.operations.identity import Identity, Peer

    registry.call("CreateThingGroup", thing_group_name="root")
    registry.call("CreateThingGroup", thing_group_name="child", parent_group_name="root")
    registry.call("CreateThing", thing_name="lamp")
    registry.call("AddThingToThingGroup", thing_group_name="child", thing_name="lamp")
    registry.call("CreatePolicy", policy_name="p", policy_document=ALLOW)
    registry.call("AttachPolicy", policy_name="p", target=registry.arn("thinggroup/root"))
    certificate = registry.certificate()
    registry.call(
        "AttachThingPrincipal", thing_name="lamp", principal=certificate["certificateArn"]
    )
    identity = Identity(certificate["certificateId"], None, START * 2)

    def allowed(client_id: str) -> bool:
        peer = Peer("192.0.2.1", "", b"")
        policies = connection_policies(registry.services, identity, client_id, peer)
        found = registry.runner.run(policies)
        return found.evaluate("iot:Connect", registry.arn(f"client/{client_id}")).allowed

    assert allowed("lamp")
    assert not allowed("other")


def test_every_change_of_policies_makes_compiled_ones_stale(registry: Registry) -> None:
    arn = registry.certificate()["certificateArn"]
    registry.call("CreatePolicy", policy_name="p", policy_document=ALLOW)
    registry.call("CreateThing", thing_name="a")
    registry.call("CreateThingGroup", thing_group_name="g")
    changes: list[tuple[str, dict[str, Any]]] = [
        ("AttachPolicy", {"policy_name": "p", "target": arn}),
        (
            "CreatePolicyVersion",
            {"policy_name": "p", "policy_document": ALLOW, "set_as_default": True},
        ),
        ("SetDefaultPolicyVersion", {"policy_name": "p", "policy_version_id": "1"}),
        ("AttachThingPrincipal", {"thing_name": "a", "principal": arn}),
        ("AddThingToThingGroup", {"thing_group_name": "g", "thing_name": "a"}),
        ("RemoveThingFromThingGroup", {"thing_group_name": "g", "thing_name": "a"}),
        ("DetachThingPrincipal", {"thing_name": "a", "principal": arn}),
        ("DetachPolicy", {"policy_name": "p", "target": arn}),
        ("DeleteThingGroup", {"thing_group_name": "g"}),
    ]
    for operation, params in changes:
        before = registry.services.policy_epoch
        registry.call(operation, **params)
        assert registry.services.policy_epoch > before, operation


def test_things_nobody_is_attached_to_leave_compiled_policies_alone(registry: Registry) -> None:
    """A factory that makes things must not make every connection compile its policies again."""
    changes: list[tuple[str, dict[str, Any]]] = [
        ("CreateThing", {"thing_name": "a"}),
        ("UpdateThing", {"thing_name": "a", "attribute_payload": {"attributes": {"k": "v"}}}),
        ("CreateThingGroup", {"thing_group_name": "g"}),
        ("AddThingToThingGroup", {"thing_group_name": "g", "thing_name": "a"}),
        ("RemoveThingFromThingGroup", {"thing_group_name": "g", "thing_name": "a"}),
        ("UpdateThingGroupsForThing", {"thing_name": "a", "thing_groups_to_add": ["g"]}),
        ("DeleteThing", {"thing_name": "a"}),
    ]
    before = registry.services.policy_epoch
    for operation, params in changes:
        registry.call(operation, **params)
        assert registry.services.policy_epoch == before, operation


def test_a_change_of_an_attached_thing_makes_compiled_policies_stale(registry: Registry) -> None:
    arn = registry.certificate()["certificateArn"]
    registry.call("CreateThing", thing_name="a")
    registry.call("AttachThingPrincipal", thing_name="a", principal=arn)
    before = registry.services.policy_epoch
    registry.call("UpdateThing", thing_name="a", attribute_payload={"attributes": {"k": "v"}})
    assert registry.services.policy_epoch > before


@pytest.mark.parametrize("new_status", ["INACTIVE", "REVOKED"])
def test_a_certificate_that_loses_its_right_loses_its_connections(
    registry: Registry, new_status: str
) -> None:
    certificate_id = registry.certificate(set_as_active=True)["certificateId"]
    registry.call("UpdateCertificate", certificate_id=certificate_id, new_status="ACTIVE")
    assert registry.ended == []
    registry.call("UpdateCertificate", certificate_id=certificate_id, new_status=new_status)
    assert registry.ended == [certificate_id]


@pytest.mark.parametrize("version", [0, 2, 2**31 - 1])
def test_a_version_that_is_not_there_is_not_found(registry: Registry, version: int) -> None:
    template(registry, "t")
    registry.call("CreatePolicy", policy_name="p", policy_document=ALLOW)
    with pytest.raises((ResourceNotFoundException, InvalidRequestException)):
        registry.call("DescribeProvisioningTemplateVersion", template_name="t", version_id=version)
    for text in (str(version), "9" * 30):
        with pytest.raises((ResourceNotFoundException, InvalidRequestException)):
            registry.call("GetPolicyVersion", policy_name="p", policy_version_id=text)
