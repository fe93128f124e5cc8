"""The provisioning role: who it has to trust, and that a template's work has its rights alone.

Source: AWS IoT developer guide, "Provisioning devices that don't have device certificates using
fleet provisioning" and the managed policy AWSIoTThingsRegistration.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from fleetgate.errors import AccessDeniedException, InvalidRequestException
from fleetgate.store import iam_policies, iam_roles
from fleetgate.store.engine import Tx
from tests.operations.conftest import Registry
from tests.operations.roles import add_provisioning_role, add_role, change, set_rights
from tests.operations.test_provisioning import TEMPLATE, create, register, set_up, status, things

ROLE = "arn:aws:iam::123456789012:role/provisioning"
ALL = [
    "iot:CreateThing",
    "iot:AddThingToThingGroup",
    "iot:AttachPolicy",
    "iot:AttachThingPrincipal",
    "iot:UpdateCertificate",
]
"""What `TEMPLATE` needs for a new device."""


def allow(*actions: str, resource: str = "*") -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": resource}


def leaves_nothing(registry: Registry, created: dict[str, Any]) -> bool:
    arn = registry.arn(f"cert/{created['certificateId']}")
    return (
        things(registry) == []
        and status(registry, created) == "PENDING_ACTIVATION"
        and registry.call("ListAttachedPolicies", target=arn)["policies"] == []
        and registry.call("ListThingsInThingGroup", thing_group_name="fleet")["things"] == []
    )


def test_the_rights_a_template_uses_are_enough(registry: Registry) -> None:
    set_up(registry)
    set_rights(registry, "provisioning", allow(*ALL))
    assert register(registry, create(registry))["thingName"] == "dev-1"


@pytest.mark.parametrize("missing", ALL)
@pytest.mark.parametrize("denied", [False, True])
def test_a_right_that_is_missing_undoes_everything(
    registry: Registry, missing: str, denied: bool
) -> None:
    set_up(registry)
    if denied:
        deny = {"Effect": "Deny", "Action": missing, "Resource": "*"}
        set_rights(registry, "provisioning", allow("iot:*"), deny)
    else:
        set_rights(registry, "provisioning", allow(*(each for each in ALL if each != missing)))
    created = create(registry)
    with pytest.raises(AccessDeniedException) as caught:
        register(registry, created)
    # a device is told the action alone
    assert caught.value.message == (
        f"the provisioning role of the template is not authorized to perform {missing}"
    )
    [note] = caught.value.__notes__
    assert ROLE in note
    assert missing in note
    assert "arn:aws:iot:eu-west-1:123456789012:" in note
    assert leaves_nothing(registry, created)
    # the token is still good: what was missing may be added
    set_rights(registry, "provisioning", allow("iot:*"))
    register(registry, created)


def test_rights_are_on_resources(registry: Registry) -> None:
    set_up(registry)
    rest = allow(*ALL[1:])
    thing = registry.arn("thing/dev-2")
    set_rights(registry, "provisioning", rest, allow("iot:CreateThing", resource=thing))
    created = create(registry)
    with pytest.raises(AccessDeniedException, match="iot:CreateThing"):
        register(registry, created)
    assert register(registry, created, parameters={"SerialNumber": "2"})["thingName"] == "dev-2"


@pytest.mark.parametrize(
    ("action", "condition"),
    [
        ("iot:AddThingToThingGroup", {"StringEquals": {"aws:ResourceTag/env": "prod"}}),
        ("iot:AttachThingPrincipal", {"StringLike": {"iot:thingArn": "*:thing/dev-1"}}),
        ("iot:CreateThing", {"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}),
        ("iot:CreateThing", {"StringEquals": {"aws:PrincipalTag/team": "x"}}),
        ("iot:CreateThing", {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}),
    ],
)
def test_conditions_hold_for_each_step(
    registry: Registry, action: str, condition: dict[str, Any]
) -> None:
    set_up(registry)
    group = registry.arn("thinggroup/fleet")
    registry.call("TagResource", resource_arn=group, tags=[{"Key": "env", "Value": "prod"}])
    registry.run(
        "iam", "TagRole", {"role_name": "provisioning", "tags": [{"Key": "team", "Value": "x"}]}
    )
    deny = {"Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition}
    set_rights(registry, "provisioning", allow("iot:*"), deny)
    created = create(registry)
    with pytest.raises(AccessDeniedException, match=action):
        register(registry, created)
    assert leaves_nothing(registry, created)
    others = {test: dict.fromkeys(keys, "other") for test, keys in condition.items()}
    if "DateGreaterThan" in others:
        others = {"DateGreaterThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}}
    set_rights(registry, "provisioning", allow("iot:*"), {**deny, "Condition": others})
    register(registry, created)


def test_nothing_to_do_needs_no_rights(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    first = register(registry, created)
    set_rights(registry, "provisioning", allow("iot:Nothing"))
    assert register(registry, created) == first


def test_a_role_that_is_gone_or_trusts_others_registers_nothing(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)

    def trust_lambda(tx: Tx) -> None:
        role = iam_roles.find_role(tx, "provisioning")
        assert role is not None
        trust = role.trust_policy.replace("iot.amazonaws.com", "lambda.amazonaws.com")
        iam_roles.update_role(tx, dataclasses.replace(role, trust_policy=trust))

    def delete(tx: Tx) -> None:
        role = iam_roles.find_role(tx, "provisioning")
        assert role is not None
        for arn in iam_policies.list_attached(tx, role.role_id):
            iam_policies.remove_attached(tx, role.role_id, arn)
        iam_roles.remove_role(tx, role.role_id)

    for fn in (trust_lambda, delete):
        change(registry, fn)
        with pytest.raises(AccessDeniedException) as caught:
            register(registry, created)
        assert caught.value.message == "the provisioning role of the template cannot be assumed"
        assert ROLE in caught.value.__notes__[0]
        assert leaves_nothing(registry, created)


# the words Terraform waits for
CANNOT = "The provisioning role cannot be assumed by AWS IoT"


def test_a_template_needs_a_role_that_trusts_aws_iot(registry: Registry) -> None:
    set_up(registry)
    other = add_role(registry, "other", "lambda.amazonaws.com")
    missing = "arn:aws:iam::123456789012:role/missing"
    foreign = ROLE.replace("123456789012", "210987654321")
    for role in (other, missing, foreign):
        with pytest.raises(InvalidRequestException, match=CANNOT):
            registry.call(
                "CreateProvisioningTemplate",
                template_name="N",
                template_body='{"Resources": {"p": {"Type": "AWS::IoT::Policy", '
                '"Properties": {"PolicyName": "p"}}}}',
                provisioning_role_arn=role,
            )
        with pytest.raises(InvalidRequestException, match=CANNOT):
            registry.call(
                "UpdateProvisioningTemplate", template_name="T", provisioning_role_arn=role
            )
    names = registry.call("ListProvisioningTemplates")["templates"]
    assert [each["templateName"] for each in names] == ["T"]
    found = registry.call("DescribeProvisioningTemplate", template_name="T")
    assert found["provisioningRoleArn"] == ROLE


def test_another_role_takes_over(registry: Registry) -> None:
    set_up(registry)
    weak = add_role(registry, "weak")
    registry.call("UpdateProvisioningTemplate", template_name="T", provisioning_role_arn=weak)
    created = create(registry)
    with pytest.raises(AccessDeniedException, match="iot:CreateThing"):
        register(registry, created)
    strong = add_provisioning_role(registry, "strong")
    registry.call("UpdateProvisioningTemplate", template_name="T", provisioning_role_arn=strong)
    register(registry, created)


def test_the_managed_policy_is_enough_for_every_template(registry: Registry) -> None:
    registry.call("CreateBillingGroup", billing_group_name="bill")
    registry.call("CreateThingGroup", thing_group_name="old")
    template = {**TEMPLATE, "Resources": {**TEMPLATE["Resources"]}}
    thing = template["Resources"]["thing"]
    template["Resources"]["thing"] = {
        **thing,
        "Properties": {**thing["Properties"], "BillingGroup": "bill"},
        "OverrideSettings": {"AttributePayload": "REPLACE", "ThingGroups": "REPLACE"},
    }
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}],
    }
    template["Resources"]["own"] = {
        "Type": "AWS::IoT::Policy",
        "Properties": {"PolicyDocument": document},
    }
    set_up(registry, template)
    registry.call("CreateThing", thing_name="dev-1")
    registry.call("AddThingToThingGroup", thing_group_name="old", thing_name="dev-1")
    register(registry, create(registry))
    thing = registry.call("DescribeThing", thing_name="dev-1")
    assert thing["billingGroupName"] == "bill"
    assert thing["attributes"] == {"site": "A"}
    groups = registry.call("ListThingGroupsForThing", thing_name="dev-1")["thingGroups"]
    assert [each["groupName"] for each in groups] == ["fleet"]
