"""RegisterThing again: what the second request with a token is told, and that it builds nothing.

AWS does not document what happens to a token that is used again; it is recommended that a device
which lost the answer may ask once more. The rows say what that means here, whatever happened
between the two requests (docs/provisioning.md, "When a device asks again").
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from fleetgate.errors import (
    AccessDeniedException,
    InvalidCertificateOwnershipTokenException,
    InvalidParametersException,
    ResourceNotFoundException,
    ResourceRegistrationFailureException,
    ServiceError,
)
from fleetgate.operations.identity import Identity
from tests.operations.conftest import ALLOW, START, Registry
from tests.operations.roles import add_role, set_rights
from tests.operations.test_provisioning import (
    TEMPLATE,
    changed,
    create,
    register,
    set_up,
    status,
    swept,
    things,
)

HOUR = 3600


def picture(registry: Registry) -> dict[str, Any]:
    """Everything a registration could touch, as the API shows it."""
    call = registry.call
    certificates = call("ListCertificates", page_size=250)["certificates"]
    return {
        "things": [
            {
                **call("DescribeThing", thing_name=name),
                "principals": call("ListThingPrincipals", thing_name=name),
                "groups": call("ListThingGroupsForThing", thing_name=name),
            }
            for name in things(registry)
        ],
        "certificates": [
            {
                **call("DescribeCertificate", certificate_id=each["certificateId"]),
                "policies": call("ListAttachedPolicies", target=each["certificateArn"]),
                "things": call("ListPrincipalThings", principal=each["certificateArn"]),
            }
            for each in certificates
        ],
        "policies": call("ListPolicies")["policies"],
    }


# --- what may happen between the two requests -----------------------------------------------------


def nothing(_registry: Registry, _created: dict[str, Any]) -> None:
    pass


def new_version(template: dict[str, Any]) -> Callable[[Registry, dict[str, Any]], None]:
    """A new default version."""

    def act(registry: Registry, _created: dict[str, Any]) -> None:
        registry.call(
            "CreateProvisioningTemplateVersion",
            template_name="T",
            template_body=json.dumps(template),
            set_as_default=True,
        )

    return act


def old_version_deleted(registry: Registry, created: dict[str, Any]) -> None:
    new_version(changed("thing.Properties.AttributePayload", {"b": "c"}))(registry, created)
    registry.call("DeleteProvisioningTemplateVersion", template_name="T", version_id=1)


def disabled(registry: Registry, _created: dict[str, Any]) -> None:
    registry.call("UpdateProvisioningTemplate", template_name="T", enabled=False)


def disabled_and_enabled(registry: Registry, created: dict[str, Any]) -> None:
    disabled(registry, created)
    registry.call("UpdateProvisioningTemplate", template_name="T", enabled=True)


def deleted(registry: Registry, _created: dict[str, Any]) -> None:
    registry.call("DeleteProvisioningTemplate", template_name="T")


def made_anew(registry: Registry, created: dict[str, Any]) -> None:
    deleted(registry, created)
    registry.clock.now += 1
    registry.call(
        "CreateProvisioningTemplate",
        template_name="T",
        template_body=json.dumps(TEMPLATE),
        provisioning_role_arn="arn:aws:iam::123456789012:role/provisioning",
        enabled=True,
    )


def role_without_rights(registry: Registry, _created: dict[str, Any]) -> None:
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*"}
    set_rights(registry, "provisioning", deny)


def another_role(registry: Registry, _created: dict[str, Any]) -> None:
    role = add_role(registry, "weak")
    registry.call("UpdateProvisioningTemplate", template_name="T", provisioning_role_arn=role)


def attributes_changed(registry: Registry, _created: dict[str, Any]) -> None:
    registry.call("UpdateThing", thing_name="dev-1", attribute_payload={"attributes": {}})


def out_of_its_group(registry: Registry, _created: dict[str, Any]) -> None:
    registry.call("RemoveThingFromThingGroup", thing_group_name="fleet", thing_name="dev-1")


def arn(registry: Registry, created: dict[str, Any]) -> str:
    return registry.arn(f"cert/{created['certificateId']}")


def other_policy(registry: Registry, created: dict[str, Any]) -> None:
    registry.call("CreatePolicy", policy_name="quarantine", policy_document=ALLOW)
    registry.call("AttachPolicy", policy_name="quarantine", target=arn(registry, created))
    registry.call("DetachPolicy", policy_name="device", target=arn(registry, created))


def detached(registry: Registry, created: dict[str, Any]) -> None:
    registry.call("DetachThingPrincipal", thing_name="dev-1", principal=arn(registry, created))


def thing_deleted(registry: Registry, created: dict[str, Any]) -> None:
    detached(registry, created)
    registry.call("DeleteThing", thing_name="dev-1")


def thing_made_anew(registry: Registry, created: dict[str, Any]) -> None:
    thing_deleted(registry, created)
    registry.call("CreateThing", thing_name="dev-1")


def attached_again(registry: Registry, created: dict[str, Any]) -> None:
    thing_made_anew(registry, created)
    registry.call("AttachThingPrincipal", thing_name="dev-1", principal=arn(registry, created))


def set_to(new_status: str) -> Callable[[Registry, dict[str, Any]], None]:
    def act(registry: Registry, created: dict[str, Any]) -> None:
        registry.call(
            "UpdateCertificate", certificate_id=created["certificateId"], new_status=new_status
        )

    return act


def transferred(registry: Registry, created: dict[str, Any]) -> None:
    thing_deleted(registry, created)
    registry.call("DetachPolicy", policy_name="device", target=arn(registry, created))
    set_to("INACTIVE")(registry, created)
    registry.call(
        "TransferCertificate",
        certificate_id=created["certificateId"],
        target_aws_account="210987654321",
    )


def certificate_deleted(registry: Registry, created: dict[str, Any]) -> None:
    thing_deleted(registry, created)
    registry.call("DetachPolicy", policy_name="device", target=arn(registry, created))
    set_to("INACTIVE")(registry, created)
    registry.call("DeleteCertificate", certificate_id=created["certificateId"])


def late(seconds: float) -> Callable[[Registry, dict[str, Any]], None]:
    def act(registry: Registry, _created: dict[str, Any]) -> None:
        registry.clock.now = START + seconds

    return act


def swept_late(registry: Registry, created: dict[str, Any]) -> None:
    late(HOUR)(registry, created)
    swept(registry, registry.clock.now)


DENIED, USED = AccessDeniedException, InvalidCertificateOwnershipTokenException

Between = tuple[Callable[[Registry, dict[str, Any]], None], type[ServiceError] | None, str]
ATTACHED = "registered for thing `dev-1` and was detached from it"

BETWEEN: dict[str, Between] = {
    "nothing": (nothing, None, ""),
    # the template
    "other-attributes": (
        new_version(changed("thing.Properties.AttributePayload", {"b": "c"})),
        None,
        "",
    ),
    "other-name": (new_version(changed("thing.Properties.ThingName", "other")), None, ""),
    "other-parameters": (
        new_version(changed("thing.Properties.ThingName", {"Ref": "New"})),
        None,
        "",
    ),
    "other-configuration": (
        new_version({**TEMPLATE, "DeviceConfiguration": {"other": "1"}}),
        None,
        "",
    ),
    "broken": (new_version(changed("policy.Properties.PolicyName", "absent")), None, ""),
    "for-approval": (
        new_version(changed("certificate.Properties.Status", "INACTIVE")),
        None,
        "",
    ),
    "version-deleted": (old_version_deleted, None, ""),
    "disabled": (disabled, DENIED, "template `T` is disabled"),
    "enabled-again": (disabled_and_enabled, None, ""),
    "deleted": (deleted, ResourceNotFoundException, "template `T` does not exist"),
    "made-anew": (made_anew, USED, "used already: it registered thing `dev-1` by template `T`"),
    "role-without-rights": (role_without_rights, None, ""),
    "another-role": (another_role, None, ""),
    # the device's thing
    "thing-changed": (attributes_changed, None, ""),
    "out-of-its-group": (out_of_its_group, None, ""),
    "detached": (detached, DENIED, ATTACHED),
    "thing-deleted": (thing_deleted, DENIED, ATTACHED),
    "thing-made-anew": (thing_made_anew, DENIED, ATTACHED),
    "attached-again": (attached_again, None, ""),
    # its certificate
    "other-policy": (other_policy, None, ""),
    "inactive": (set_to("INACTIVE"), DENIED, "is INACTIVE"),
    "revoked": (set_to("REVOKED"), DENIED, "is REVOKED"),
    "transferred": (transferred, DENIED, "is PENDING_TRANSFER"),
    "certificate-deleted": (certificate_deleted, USED, "does not exist any more"),
    # the token
    "in-time": (late(HOUR - 1), None, ""),
    "expired": (late(HOUR), USED, "expired at"),
    "swept": (swept_late, USED, "expired at"),
}


@pytest.mark.parametrize(("act", "error", "words"), BETWEEN.values(), ids=BETWEEN)
def test_a_device_that_lost_the_answer_asks_again(
    registry: Registry,
    act: Callable[[Registry, dict[str, Any]], None],
    error: type[ServiceError] | None,
    words: str,
) -> None:
    set_up(registry)
    created = create(registry)
    first = register(registry, created)
    act(registry, created)
    before = picture(registry)
    if error is None:
        again = register(registry, created)
        assert json.dumps(again) == json.dumps(first)  # in the same order, too
    else:
        with pytest.raises(error) as caught:
            register(registry, created)
        assert words in caught.value.message
    assert picture(registry) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parameters": {"SerialNumber": "1"}}, None),
        ({"parameters": {"SerialNumber": "1", "Site": "A"}}, None),  # A is the default
        ({"parameters": {"SerialNumber": "1", "Time": "12:00"}}, None),  # nothing refers to it
        ({"parameters": {"SerialNumber": "1", "AWS::IoT::Certificate::Id": "x"}}, None),
        ({"parameters": {"SerialNumber": "2"}}, "used already with other parameters"),
        ({"parameters": {"SerialNumber": "1", "Site": "B"}}, "used already with other parameters"),
        ({"parameters": {}}, "used already with other parameters"),
        ({"parameters": {"SerialNumber": "1/../2"}}, "used already with other parameters"),
        ({"template_name": "U"}, "used already: it registered thing `dev-1` by template `T`"),
        ({"template_name": "absent"}, "template `absent` does not exist"),
        ({"certificate_id": "0" * 64}, "for another certificate"),
    ],
)
def test_a_used_token_registers_nothing_else(
    registry: Registry, changes: dict[str, Any], told: str | None
) -> None:
    set_up(registry)
    set_up(registry, name="U")
    created = create(registry)
    first = register(registry, created)
    before = picture(registry)
    if told is None:
        assert register(registry, created, **changes) == first
    else:
        with pytest.raises(ServiceError) as caught:
            register(registry, created, **changes)
        assert told in caught.value.message
    assert picture(registry) == before
    assert register(registry, created) == first  # nor does it harm the token


def test_other_parameters_are_judged_by_the_version_in_force(registry: Registry) -> None:
    """A parameter that made no difference once may make one by now."""
    set_up(registry)
    created = create(registry)
    first = register(registry, created)
    new_version(changed("thing.Properties.AttributePayload", {"at": {"Ref": "Time"}}))(
        registry, created
    )
    assert register(registry, created) == first
    with pytest.raises(USED, match="with other parameters"):
        register(registry, created, parameters={"SerialNumber": "1", "Time": "12"})


@pytest.mark.parametrize("site", ["a\0b", "\x7f\r\n", "\u2028"])
def test_what_no_database_takes_is_answered_and_kept(registry: Registry, site: str) -> None:
    body: dict[str, Any] = json.loads(json.dumps(TEMPLATE))
    del body["Resources"]["thing"]["Properties"]["AttributePayload"]
    set_up(registry, body)
    created = create(registry)
    with pytest.raises(InvalidParametersException) as refused:
        register(registry, created, parameters={"SerialNumber": site})
    assert site in refused.value.message
    parameters = {"SerialNumber": "1", "Site": site}
    answer = register(registry, created, parameters=parameters)
    assert answer["deviceConfiguration"] == {"site": site}
    assert register(registry, created, parameters=parameters) == answer


def test_who_asks_again_does_not_matter(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    first = register(registry, created)
    for identity in (Identity("d" * 64, None, START * 2), Identity("e" * 64, "T", START + 300)):
        assert register(registry, created, identity=identity) == first
    with pytest.raises(DENIED, match="temporary claim is for template `U`"):
        register(registry, created, identity=Identity("e" * 64, "U", START + 300))


@pytest.mark.parametrize("changed_since", [False, True])
def test_an_operator_approves_before_the_device_asks_again(
    registry: Registry, *, changed_since: bool
) -> None:
    """Templates with status INACTIVE are for devices somebody has to approve."""
    set_up(registry, changed("certificate.Properties.Status", "INACTIVE"))
    created = create(registry)
    first = register(registry, created)
    assert status(registry, created) == "INACTIVE"
    if changed_since:
        new_version(TEMPLATE)(registry, created)
    assert register(registry, created) == first
    set_to("ACTIVE")(registry, created)
    assert register(registry, created) == first
    assert status(registry, created) == "ACTIVE"
    set_to("REVOKED")(registry, created)
    with pytest.raises(DENIED, match="is REVOKED"):
        register(registry, created)


def test_a_template_without_a_thing(registry: Registry) -> None:
    template = json.loads(json.dumps(TEMPLATE))
    del template["Resources"]["thing"]
    set_up(registry, template)
    created = create(registry)
    first = register(registry, created)
    assert first.get("thingName") is None
    assert register(registry, created) == first
    assert things(registry) == []


def test_a_failed_try_leaves_the_token_for_any_other(registry: Registry) -> None:
    """Only a registration uses a token: until then template and parameters may change."""
    set_up(registry, changed("policy.Properties.PolicyName", "absent"))
    set_up(registry, name="U")
    created = create(registry)
    before = picture(registry)
    for _ in range(2):
        with pytest.raises(ResourceRegistrationFailureException, match="`absent` does not exist"):
            register(registry, created)
        with pytest.raises(InvalidParametersException):
            register(registry, created, parameters={})
    assert picture(registry) == before
    answer = register(registry, created, template_name="U", parameters={"SerialNumber": "9"})
    assert answer["thingName"] == "dev-9"


def test_a_new_version_between_two_failing_tries_is_what_counts(registry: Registry) -> None:
    set_up(registry, changed("policy.Properties.PolicyName", "absent"))
    created = create(registry)
    with pytest.raises(ResourceRegistrationFailureException):
        register(registry, created)
    new_version(TEMPLATE)(registry, created)
    assert register(registry, created)["thingName"] == "dev-1"


def test_a_certificate_that_was_deleted_and_registered_anew(registry: Registry) -> None:
    """Its token is still good: the certificate is one nobody has registered by it."""
    set_up(registry)
    created = create(registry)
    register(registry, created)
    certificate_deleted(registry, created)
    registry.call(
        "RegisterCertificateWithoutCA",
        certificate_pem=created["certificatePem"],
        status="ACTIVE",
    )
    answer = register(registry, created, parameters={"SerialNumber": "2"})
    assert answer["thingName"] == "dev-2"
    assert register(registry, created, parameters={"SerialNumber": "2"}) == answer


# --- at the same time -----------------------------------------------------------------------------


async def at_once(registry: Registry, requests: list[dict[str, Any]]) -> list[Any]:
    common = {"payload_format": "json", "template_name": "T"}
    answers: list[Any] = await asyncio.gather(
        *(registry.start("provisioning", "RegisterThing", common | each) for each in requests),
        return_exceptions=True,
    )
    return answers


def test_one_token_at_the_same_time_registers_once(registry: Registry) -> None:
    set_up(registry)
    token = create(registry)["certificateOwnershipToken"]
    request = {"certificate_ownership_token": token, "parameters": {"SerialNumber": "1"}}
    answers = registry.runner.run(at_once(registry, [request] * 50))
    assert answers == [{"deviceConfiguration": {"site": "A"}, "thingName": "dev-1"}] * 50
    seen = picture(registry)
    assert [each["thingName"] for each in seen["things"]] == ["dev-1"]
    assert seen["things"][0]["version"] == 1
    assert len(seen["certificates"]) == 1


def test_one_token_for_many_things_registers_one_of_them(registry: Registry) -> None:
    set_up(registry)
    token = create(registry)["certificateOwnershipToken"]
    requests = [
        {"certificate_ownership_token": token, "parameters": {"SerialNumber": str(number)}}
        for number in range(50)
    ]
    answers = registry.runner.run(at_once(registry, requests))
    [accepted] = [each for each in answers if isinstance(each, dict)]
    refused = [each for each in answers if isinstance(each, USED)]
    assert len(refused) == 49
    [message] = {each.message for each in refused}
    assert message.startswith("the token has been used already with other parameters")
    assert f"`{accepted['thingName']}`" in message
    assert things(registry) == [accepted["thingName"]]


def test_exclusive_things_are_exclusive_for_the_certificate(registry: Registry) -> None:
    """AWS IoT API Reference, AttachThingPrincipal: EXCLUSIVE_THING makes the thing the only one of
    the principal. It does not make the principal the only one of the thing."""
    set_up(registry, changed("certificate.Properties.ThingPrincipalType", "EXCLUSIVE_THING"))
    tokens = [create(registry)["certificateOwnershipToken"] for _ in range(20)]
    requests = [
        {"certificate_ownership_token": each, "parameters": {"SerialNumber": "1"}}
        for each in tokens
    ]
    answers = registry.runner.run(at_once(registry, requests))
    assert [each["thingName"] for each in answers] == ["dev-1"] * 20
    found = registry.call("ListThingPrincipalsV2", thing_name="dev-1")["thingPrincipalObjects"]
    assert [each["thingPrincipalType"] for each in found] == ["EXCLUSIVE_THING"] * 20
