"""Pre-provisioning hooks: what they are asked, what their answers do, and that a no builds nothing.

Sources: AWS IoT developer guide, "Pre-provisioning hooks", today's text and the earlier one; API
reference, ProvisioningHook and CreateProvisioningTemplate.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fleetgate.errors import (
    AccessDeniedException,
    InvalidCertificateOwnershipTokenException,
    InvalidParametersException,
    InvalidRequestException,
    ResourceNotFoundException,
    ServiceError,
)
from fleetgate.functions.target import Failure, FunctionError
from fleetgate.operations import provisioning
from fleetgate.operations.identity import Identity
from tests.operations.conftest import START, Registry, elsewhere
from tests.operations.hooks import (
    ALLOW,
    ARN,
    FAILED,
    Event,
    Here,
    answer,
    configure,
    hook,
    lines,
    over,
    permit,
)
from tests.operations.test_provisioning import (
    TEMPLATE,
    changed,
    create,
    register,
    set_up,
    things,
)
from tests.operations.test_register_again import new_version, picture


@pytest.fixture
def fleet(registry: Registry) -> Registry:
    set_up(registry)
    return registry


def yes(_event: Event) -> Any:
    return ALLOW


# --- templates -----------------------------------------------------------------------------------


def described(registry: Registry, name: str = "T") -> Any:
    found = registry.call("DescribeProvisioningTemplate", template_name=name)
    return found["preProvisioningHook"]


def update(registry: Registry, **more: Any) -> None:
    registry.call("UpdateProvisioningTemplate", template_name="T", **more)


def test_the_life_of_a_hook(fleet: Registry) -> None:
    assert described(fleet) is None
    update(fleet, pre_provisioning_hook={"targetArn": ARN})
    shown = {"targetArn": ARN, "payloadVersion": "2020-04-01"}
    assert described(fleet) == shown
    update(fleet, description="other")
    assert described(fleet) == shown
    other = {"targetArn": ARN + ":$LATEST", "payloadVersion": "2020-04-01"}
    update(fleet, pre_provisioning_hook=other)
    assert described(fleet) == other
    update(fleet, remove_pre_provisioning_hook=True)
    assert described(fleet) is None
    update(fleet, remove_pre_provisioning_hook=True)  # there is none to remove any more
    fleet.call(
        "CreateProvisioningTemplate",
        template_name="U",
        template_body=json.dumps(TEMPLATE),
        provisioning_role_arn="arn:aws:iam::123456789012:role/provisioning",
        pre_provisioning_hook=other,
    )
    assert described(fleet, "U") == other


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"targetArn": "f"}, "targetArn: `f` is not the ARN of a Lambda function of account 1234"),
        ({"targetArn": ARN.replace("eu-west-1", "us-east-1")}, "is not the ARN of a Lambda"),
        ({"targetArn": ARN.replace("123456789012", "210987654321")}, "is not the ARN of a Lambda"),
        ({"targetArn": ARN.replace("function", "layer")}, "is not the ARN of a Lambda"),
        ({"targetArn": ARN + "/x"}, "is not the ARN of a Lambda"),
        ({"targetArn": ARN + "x" * 64}, "is not the ARN of a Lambda"),
        ({"targetArn": ARN + ":PROD"}, "names `PROD`: there are no versions or aliases"),
        ({"targetArn": ARN + ":"}, "names ``: there are no versions or aliases"),
        (
            {"targetArn": ARN, "payloadVersion": "2021-01-01"},
            "payloadVersion: `2021-01-01` is no version of the input; the only one is 2020-04-01",
        ),
    ],
)
def test_a_hook_that_can_never_be_asked_is_refused(
    fleet: Registry, given: dict[str, str], rule: str
) -> None:
    for operation, more in (
        ("UpdateProvisioningTemplate", {"template_name": "T"}),
        (
            "CreateProvisioningTemplate",
            {
                "template_name": "U",
                "template_body": json.dumps(TEMPLATE),
                "provisioning_role_arn": "arn:aws:iam::123456789012:role/provisioning",
            },
        ),
    ):
        with pytest.raises(InvalidRequestException) as caught:
            fleet.call(operation, pre_provisioning_hook=given, **more)
        assert caught.value.message.startswith("preProvisioningHook.")
        assert rule in caught.value.message
    assert described(fleet) is None


def test_a_hook_is_not_given_and_taken_at_once(fleet: Registry) -> None:
    with pytest.raises(InvalidRequestException, match="exclude each other"):
        update(fleet, pre_provisioning_hook={"targetArn": ARN}, remove_pre_provisioning_hook=True)


def test_of_a_function_that_is_not_ready_the_log_warns(
    fleet: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    update(fleet, pre_provisioning_hook={"targetArn": ARN})
    [said] = lines(caplog)
    assert said.startswith("event=hook-not-ready template=T function=f kind=no-function reason=")
    caplog.clear()
    configure(fleet, "f", Here(yes), permitted=False)
    update(fleet, pre_provisioning_hook={"targetArn": ARN})
    [said] = lines(caplog)
    assert "kind=no-permission" in said
    caplog.clear()
    permit(fleet, "f")
    update(fleet, pre_provisioning_hook={"targetArn": ARN})
    assert lines(caplog) == []


# --- what a hook is asked ------------------------------------------------------------------------


def test_a_hook_hears_what_both_guides_say(
    fleet: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    target = Here(yes)
    hook(fleet, target)
    created = create(fleet)
    given = {"SerialNumber": "1", "extra": "é\0"}
    assert register(fleet, created, parameters=given)["thingName"] == "dev-1"
    [event] = target.events
    assert event == {
        # "Pre-provisioning hooks", today
        "claimCertificateId": "c" * 64,
        "certificateId": created["certificateId"],
        "certificatePem": created["certificatePem"],
        "templateArn": "arn:aws:iot:eu-west-1:123456789012:provisioningtemplate/T",
        "clientId": "client",
        "parameters": given,
        # the same page before
        "claimId": "c" * 64,
        "mqttClientId": "client",
        "incomingParameters": given,
    }
    [said] = lines(caplog)
    assert said.startswith(
        f"event=hook-allowed template=T certificate={created['certificateId']} client='client' "
        f"function={ARN} request=request target='configured python:test:here' seconds=0."
    )
    assert said.endswith(" overrides=-")


def test_nothing_of_the_token_reaches_the_hook_or_the_log(
    fleet: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    target = Here(lambda _event: {"allowProvisioning": True, "parameterOverrides": {"k": "secret"}})
    hook(fleet, target)
    created = create(fleet)
    register(fleet, created)
    token = created["certificateOwnershipToken"]
    assert token not in json.dumps(target.events)
    assert token not in caplog.text
    assert "secret" not in caplog.text
    assert "overrides='k'" in caplog.text


def today(event: Event) -> Any:
    """By the letter of today's guide."""
    if not event["parameters"]["SerialNumber"].isdigit() or not event["certificateId"]:
        return {"allowProvisioning": False}
    return {"allowProvisioning": True, "parameterOverrides": {"Site": event["clientId"]}}


def earlier(event: Event) -> Any:
    """By the letter of the earlier guide."""
    if not event["incomingParameters"]["SerialNumber"].isdigit() or not event["claimId"]:
        return {"allowProvisioning": False}
    return {"allowProvisioning": True, "parameterOverrides": {"Site": event["mqttClientId"]}}


@pytest.mark.parametrize("written", [today, earlier])
def test_functions_written_to_either_guide_work(
    fleet: Registry, written: Callable[[Event], Any]
) -> None:
    hook(fleet, Here(written))
    answer = register(fleet, create(fleet), parameters={"SerialNumber": "7"})
    assert answer == {
        "deviceConfiguration": {"site": "client", "Site": "client"},
        "thingName": "dev-7",
    }
    assert fleet.call("DescribeThing", thing_name="dev-7")["attributes"] == {"site": "client"}
    with pytest.raises(AccessDeniedException, match="did not allow"):
        register(fleet, create(fleet), parameters={"SerialNumber": "x"})


# --- what its answer does ------------------------------------------------------------------------

MORE = {"SerialNumber": "9", "site": "mine", "new": "value", "AWS::IoT::Certificate::Id": "f" * 64}


def test_overrides_win_in_the_template_and_in_the_configuration(fleet: Registry) -> None:
    hook(fleet, Here(lambda _event: {"allowProvisioning": True, "parameterOverrides": MORE}))
    created = create(fleet)
    answer = register(fleet, created, parameters={"SerialNumber": "1", "Site": "B"})
    assert answer == {
        # pseudo parameters are not to be overridden; they reach nobody
        "deviceConfiguration": {"site": "mine", "SerialNumber": "9", "new": "value"},
        "thingName": "dev-9",
    }
    assert fleet.call("DescribeThing", thing_name="dev-9")["attributes"] == {"site": "B"}
    arn = fleet.arn(f"cert/{created['certificateId']}")
    assert fleet.call("ListThingPrincipals", thing_name="dev-9")["principals"] == [arn]


@pytest.mark.parametrize(
    "value",
    [
        ALLOW,
        {"allowProvisioning": "true"},  # so the guide has it in its notes
        over(None),
        over({}),
        {**ALLOW, "statusCode": 200},
    ],
)
def test_these_answers_allow(fleet: Registry, value: Any) -> None:
    hook(fleet, answer(value))
    assert register(fleet, create(fleet))["deviceConfiguration"] == {"site": "A"}


def crash(_event: Event) -> Any:
    raise RuntimeError("of ours")


def unreachable(_event: Event) -> Any:
    raise FunctionError(Failure.UNREACHABLE, "https://erp.example/hook: connection refused")


def not_there(registry: Registry) -> None:
    update(registry, pre_provisioning_hook={"targetArn": ARN})


def without_permission(registry: Registry) -> None:
    configure(registry, "f", Here(yes), permitted=False)
    not_there(registry)


def permitted_to(**condition: str) -> Callable[[Registry], None]:
    def act(registry: Registry) -> None:
        configure(registry, "f", Here(yes), permitted=False)
        permit(registry, "f", **condition)
        not_there(registry)

    return act


def asks(target: Here) -> Callable[[Registry], None]:
    return lambda registry: hook(registry, target)


NOT_ASKED: dict[str, tuple[Callable[[Registry], None], str, str]] = {
    "missing": (not_there, "no-function", "there is no function `f`"),
    "no-permission": (
        without_permission,
        "no-permission",
        "iot.amazonaws.com is not authorized to perform: lambda:InvokeFunction on resource: " + ARN,
    ),
    "other-template": (
        permitted_to(SourceArn="arn:aws:iot:eu-west-1:123456789012:provisioningtemplate/U"),
        "no-permission",
        "no statement of the resource policy",
    ),
    "other-account": (
        permitted_to(SourceAccount="210987654321"),
        "no-permission",
        "source account 123456789012",
    ),
    "defect": (asks(Here(crash)), "failed", "cannot be asked: RuntimeError"),
    "unreachable": (asks(Here(unreachable)), "unreachable", "connection refused"),
    "slow": (asks(Here(yes, 9.0)), "timed-out", ""),
}


@pytest.mark.parametrize(("act", "kind", "reason"), NOT_ASKED.values(), ids=NOT_ASKED)
def test_a_function_that_gives_no_answer_builds_nothing(
    fleet: Registry,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[Registry], None],
    kind: str,
    reason: str,
) -> None:
    fleet.services = elsewhere(fleet.services, hook_seconds=0.2)
    act(fleet)
    caplog.clear()
    created = create(fleet)
    before = picture(fleet)
    with pytest.raises(AccessDeniedException) as caught:
        register(fleet, created)
    assert caught.value.message == FAILED
    assert picture(fleet) == before
    [said] = lines(caplog)
    assert said.startswith("event=hook-failed ")
    assert f" kind={kind} " in said
    assert reason in said


@pytest.mark.parametrize(
    "condition",
    [
        {"SourceArn": "arn:aws:iot:eu-west-1:123456789012:provisioningtemplate/T"},
        {"SourceArn": "arn:aws:iot:eu-west-1:123456789012:provisioningtemplate/*"},
        {"SourceAccount": "123456789012"},
    ],
)
def test_a_permission_may_name_the_template_and_the_account(
    fleet: Registry, condition: dict[str, str]
) -> None:
    permitted_to(**condition)(fleet)
    assert register(fleet, create(fleet))["thingName"] == "dev-1"


# --- what is found out before and after ----------------------------------------------------------


def too_much(_event: Event) -> Any:
    return over({f"k{number}": "v" * 4096 for number in range(25)})


def bad_name(_event: Event) -> Any:
    return over({"SerialNumber": "a/b"})


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (too_much, "the device configuration has 102627 bytes as JSON; the limit is 100000"),
        (bad_name, "Resources.thing.Properties.ThingName"),
    ],
)
def test_overrides_are_held_to_the_rules_of_the_template(
    fleet: Registry, function: Callable[[Event], Any], words: str
) -> None:
    hook(fleet, Here(function))
    created = create(fleet)
    before = picture(fleet)
    with pytest.raises(ServiceError) as caught:
        register(fleet, created)
    assert words in caught.value.message
    assert picture(fleet) == before


def without_role(registry: Registry, _created: dict[str, Any]) -> None:
    registry.run("iam", "DetachRolePolicy", {
        "role_name": "provisioning",
        "policy_arn": "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration",
    })  # fmt: skip
    registry.run("iam", "DeleteRole", {"role_name": "provisioning"})


def revoked(registry: Registry, created: dict[str, Any]) -> None:
    registry.call(
        "UpdateCertificate", certificate_id=created["certificateId"], new_status="REVOKED"
    )


def disabled(registry: Registry, _created: dict[str, Any]) -> None:
    update(registry, enabled=False)


def gone(registry: Registry, _created: dict[str, Any]) -> None:
    registry.call("DeleteProvisioningTemplate", template_name="T")


def nothing(_registry: Registry, _created: dict[str, Any]) -> None:
    pass


@pytest.mark.parametrize(
    ("act", "more", "error"),
    [
        (disabled, {}, AccessDeniedException),
        (gone, {}, ResourceNotFoundException),
        (revoked, {}, AccessDeniedException),
        (without_role, {}, AccessDeniedException),
        (
            nothing,
            {"certificate_ownership_token": "x"},
            InvalidCertificateOwnershipTokenException,
        ),
        (nothing, {"certificate_id": "0" * 64}, InvalidCertificateOwnershipTokenException),
        (nothing, {"identity": Identity("c" * 64, "U", START * 2)}, AccessDeniedException),
    ],
)
def test_a_hook_is_not_asked_in_vain(
    fleet: Registry,
    act: Callable[[Registry, dict[str, Any]], None],
    more: dict[str, Any],
    error: type[ServiceError],
) -> None:
    target = Here(yes)
    hook(fleet, target)
    created = create(fleet)
    act(fleet, created)
    with pytest.raises(error):
        register(fleet, created, **more)
    assert target.events == []


def test_a_device_that_asks_again_is_answered_without_the_hook(fleet: Registry) -> None:
    target = Here(lambda event: over({"Site": f"asked-{len(event['parameters'])}"}))
    hook(fleet, target)
    created = create(fleet)
    first = register(fleet, created)
    assert first["deviceConfiguration"] == {"site": "asked-1", "Site": "asked-1"}
    assert register(fleet, created) == first
    # parameters that make no difference, with what the hook added then
    more = {"SerialNumber": "1", "Time": "12:00", "Site": "B"}
    assert register(fleet, created, parameters=more) == first
    with pytest.raises(InvalidCertificateOwnershipTokenException, match="with other parameters"):
        register(fleet, created, parameters={"SerialNumber": "2"})
    # nor does it matter what would be said today
    target.function = crash
    assert register(fleet, created) == first
    assert len(target.events) == 1


def test_a_hook_that_came_in_between_is_not_asked_for_what_is_registered(fleet: Registry) -> None:
    created = create(fleet)
    first = register(fleet, created)
    target = Here(lambda _event: {"allowProvisioning": False})
    hook(fleet, target)
    assert register(fleet, created) == first
    assert target.events == []


def test_other_doors_do_not_ask(fleet: Registry) -> None:
    """The guide: hooks are called for RegisterThing of devices."""
    target = Here(lambda _event: {"allowProvisioning": False})
    hook(fleet, target)
    body = json.dumps(
        {"Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "x"}}}}
    )
    fleet.call("RegisterThing", template_body=body)
    assert things(fleet) == ["x"]
    assert target.events == []


# --- what a template lacks -----------------------------------------------------------------------


def test_what_a_template_cannot_do_is_found_before_the_hook_is_asked(fleet: Registry) -> None:
    target = Here(yes)
    hook(fleet, target)
    resources = {"thing": TEMPLATE["Resources"]["thing"]}
    new_version({**TEMPLATE, "Resources": resources})(fleet, {})
    with pytest.raises(ServiceError, match="has no AWS::IoT::Certificate resource"):
        register(fleet, create(fleet))
    assert target.events == []


def test_a_missing_parameter_may_come_from_the_hook(fleet: Registry) -> None:
    new_version(changed("thing.Properties.ThingName", {"Ref": "Name"}))(fleet, {})
    hook(fleet, Here(yes))
    created = create(fleet)
    with pytest.raises(InvalidParametersException, match="Cannot resolve reference value: Name"):
        register(fleet, created)
    fleet.services.functions.targets["f"] = answer(over({"Name": "given"}))
    assert register(fleet, created)["thingName"] == "given"
    assert provisioning.MAX_CONFIGURATION == 100_000
