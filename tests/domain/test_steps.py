from __future__ import annotations

from typing import get_args

import pytest

from fleetgate.domain.steps import (
    AddThingToBillingGroup,
    AddThingToGroup,
    AttachPolicy,
    AttachThingPrincipal,
    CreatePolicy,
    CreateThing,
    IssueCertificate,
    RegisterCertificate,
    RemoveThingFromGroup,
    Step,
    UpdateCertificateStatus,
    UpdateThing,
    rights,
)
from fleetgate.names import Account

ID = "c" * 64

# Service Authorization Reference, "Actions defined by AWS IoT": the action of each registry call
# and the resource types it is on.
RIGHTS: list[tuple[Step, list[tuple[str, str]]]] = [
    (IssueCertificate(ID, "ACTIVE"), [("iot:CreateCertificateFromCsr", "*")]),
    (RegisterCertificate(ID, "ACTIVE"), [("iot:RegisterCertificate", "*")]),
    (CreateThing("t", None, {}), [("iot:CreateThing", "thing/t")]),
    (UpdateThing("t", None, {}), [("iot:UpdateThing", "thing/t")]),
    (
        AddThingToGroup("t", "g"),
        [("iot:AddThingToThingGroup", "thing/t"), ("iot:AddThingToThingGroup", "thinggroup/g")],
    ),
    (
        RemoveThingFromGroup("t", "g"),
        [
            ("iot:RemoveThingFromThingGroup", "thing/t"),
            ("iot:RemoveThingFromThingGroup", "thinggroup/g"),
        ],
    ),
    (
        AddThingToBillingGroup("t", "m"),
        [
            ("iot:AddThingToBillingGroup", "thing/t"),
            ("iot:AddThingToBillingGroup", "billinggroup/m"),
        ],
    ),
    (CreatePolicy("p", "{}"), [("iot:CreatePolicy", "policy/p")]),
    (AttachPolicy("p", ID), [("iot:AttachPolicy", f"cert/{ID}")]),
    (AttachThingPrincipal("t", ID), [("iot:AttachThingPrincipal", f"cert/{ID}")]),
    (UpdateCertificateStatus(ID, "ACTIVE"), [("iot:UpdateCertificate", f"cert/{ID}")]),
]


@pytest.mark.parametrize(("step", "wanted"), RIGHTS, ids=lambda each: type(each).__name__)
def test_the_rights_of_a_step(step: Step, wanted: list[tuple[str, str]]) -> None:
    prefix = "arn:aws:iot:eu-west-1:123456789012:"
    assert rights(step, Account("123456789012", "eu-west-1")) == tuple(
        (action, name if name == "*" else prefix + name) for action, name in wanted
    )


def test_every_step_has_rights() -> None:
    assert {type(step) for step, _ in RIGHTS} == set(get_args(Step))
