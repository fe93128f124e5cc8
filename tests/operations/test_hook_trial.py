"""Trying a hook: it says what a device would hear, word for word, and leaves nothing behind.

What a device hears is what RegisterThing answers in the same registry, right after the trial.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fleetgate.errors import (
    AccessDeniedException,
    InternalErrorException,
    InvalidRequestException,
    ResourceNotFoundException,
    ServiceError,
)
from fleetgate.functions.target import Run
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.hook_trial import Asked, Tried, try_hook
from fleetgate.operations.identity import Identity
from tests.operations.built_ins import hooked
from tests.operations.conftest import START, Registry, csr, elsewhere
from tests.operations.hooks import (
    ALLOW,
    ARN,
    Event,
    Here,
    answer,
    claim,
    configure,
    hook,
    lines,
    over,
)
from tests.operations.test_authorization import caller, statement
from tests.operations.test_certificate_providers import create as create_provider
from tests.operations.test_hooks import NOT_ASKED
from tests.operations.test_provisioning import TEMPLATE, create, register, set_up
from tests.operations.test_register_again import picture
from tests.provider_authority import provider_authority

CLAIM = "d" * 64
SERIAL = {"SerialNumber": "1"}


@pytest.fixture
def fleet(registry: Registry) -> Registry:
    set_up(registry)
    return registry


def tried(
    registry: Registry,
    who: Caller | None = None,
    *,
    parameters: dict[str, str] | None = None,
    **more: Any,
) -> Tried:
    """The trial; nothing is there afterwards that was not there before."""
    asked = Asked("T", SERIAL if parameters is None else parameters, **more)
    call = Call(registry.services, "request", registry.clock(), caller=who)
    before = picture(registry)
    try:
        return registry.runner.run(try_hook(call, asked))
    finally:
        assert picture(registry) == before
        assert registry.ended == []


def heard(registry: Registry, **more: Any) -> ServiceError | None:
    """What a device hears of the same request."""
    try:
        register(registry, create(registry), **more)
    except ServiceError as error:
        return error
    return None


def same(one: ServiceError | None, other: ServiceError | None) -> bool:
    return (type(one), str(one)) == (type(other), str(other))


# --- what is shown -------------------------------------------------------------------------------


def test_what_the_hook_is_asked_and_what_the_device_gets(fleet: Registry) -> None:
    said = Run(json.dumps(over({"Site": "B"})).encode(), log="looked\n")
    function = answer(said)
    hook(fleet, function)
    request = csr("lamp")
    result = tried(fleet, csr=request, client_id="me", claim_certificate_id=CLAIM)
    assert (result.step, result.kind, result.reason, result.heard) == ("", "", "", None)
    assert result.notes == []
    members = result.members
    template_arn = "arn:aws:iot:eu-west-1:123456789012:provisioningtemplate/T"
    assert members["template"] == {
        "templateName": "T",
        "templateArn": template_arn,
        "versionId": 1,
    }
    certificate = members["certificate"]
    read = x509.load_pem_x509_certificate(certificate["certificatePem"].encode())
    wanted = x509.load_pem_x509_csr(request.encode())
    assert (read.public_key(), read.subject) == (wanted.public_key(), wanted.subject)
    assert certificate["key"] == "that of the signing request"
    assert function.events == [
        {
            "claimCertificateId": CLAIM,
            "certificateId": certificate["certificateId"],
            "certificatePem": certificate["certificatePem"],
            "templateArn": template_arn,
            "clientId": "me",
            "parameters": SERIAL,
            "claimId": CLAIM,
            "mqttClientId": "me",
            "incomingParameters": SERIAL,
        }
    ]
    shown = members["hook"]
    assert shown["input"] == function.events[0]
    assert 0 <= shown.pop("seconds") < 1
    assert {name: shown[name] for name in shown if name != "input"} == {
        "functionArn": ARN,
        "target": "configured python:test:here",
        "permission": "present",
        "addPermission": None,
        "output": {"allowProvisioning": True, "parameterOverrides": {"Site": "B"}},
        "log": "looked\n",
        "limitSeconds": 5.0,
    }
    assert members["parameterOverrides"] == {"Site": "B"}
    rendered = members["rendered"]
    assert rendered["thing"]["thingName"] == "dev-1"
    assert rendered["thing"]["attributes"] == {"site": "B"}
    assert rendered["thing"]["thingGroups"] == ["fleet"]
    assert rendered["policies"] == [{"policyName": "device"}]
    assert rendered["certificate"]["signingRequest"]["subject"] == "CN=lamp"
    created = create(fleet)
    got = register(fleet, created)
    assert (
        rendered["deviceConfiguration"] == got["deviceConfiguration"] == {"site": "B", "Site": "B"}
    )


def test_a_run_that_failed_is_shown_with_its_log(fleet: Registry) -> None:
    described = {"errorType": "KeyError", "errorMessage": "'x'"}
    hook(fleet, answer(Run(json.dumps(described).encode(), "Unhandled", "Traceback")))
    shown = tried(fleet).members["hook"]
    assert (shown["output"], shown["log"]) == (described, "Traceback")


@pytest.mark.parametrize(
    ("payload", "output"),
    [
        (b"not JSON \xff", "not JSON \ufffd"),
        (b"[1]", [1]),
        (b'"' + b"x" * 200_000, '"' + "x" * 3999),
    ],
)
def test_an_answer_that_cannot_be_used_is_shown(
    fleet: Registry, payload: bytes, output: object
) -> None:
    hook(fleet, answer(payload))
    assert tried(fleet).members["hook"]["output"] == output


def test_a_version_that_is_not_the_default_one(fleet: Registry) -> None:
    hook(fleet, answer(ALLOW))
    other = json.loads(json.dumps(TEMPLATE))
    other["DeviceConfiguration"] = {"version": "2"}
    fleet.call(
        "CreateProvisioningTemplateVersion", template_name="T", template_body=json.dumps(other)
    )
    result = tried(fleet, version_id=2)
    assert result.members["template"]["versionId"] == 2
    assert result.members["rendered"]["deviceConfiguration"] == {"version": "2"}
    assert tried(fleet).members["rendered"]["deviceConfiguration"] == {"site": "A"}
    with pytest.raises(ResourceNotFoundException, match="Template T has no version 3"):
        tried(fleet, version_id=3)


def test_a_function_the_template_does_not_name(fleet: Registry) -> None:
    with pytest.raises(InvalidRequestException, match="template `T` has no pre-provisioning hook"):
        tried(fleet)
    configure(fleet, "new", answer(ALLOW))
    result = tried(fleet, function_name="new")
    assert result.step == ""
    assert result.members["hook"]["functionArn"] == ARN.removesuffix("f") + "new"


def test_a_template_that_is_disabled_is_tried(fleet: Registry) -> None:
    hook(fleet, answer(ALLOW))
    fleet.call("UpdateProvisioningTemplate", template_name="T", enabled=False)
    result = tried(fleet)
    assert result.step == ""
    assert result.notes == ["the template is disabled: devices are refused, the hook is not asked"]


# --- the same as a device ------------------------------------------------------------------------

ANSWERS: dict[str, Any] = {
    "no": {"allowProvisioning": False},
    "without": {"allow": True},
    "text": {"allowProvisioning": "yes"},
    "overrides": over({"Site": 1}),
    "not JSON": b"{",
    "exception": Run(b'{"errorType":"E","errorMessage":"m"}', "Unhandled"),
}


@pytest.mark.parametrize("value", ANSWERS.values(), ids=ANSWERS)
def test_a_no_is_told_as_in_the_log(
    fleet: Registry, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    hook(fleet, answer(value))
    caplog.set_level(logging.INFO)
    caplog.clear()
    result = tried(fleet)
    assert result.step == "hook"
    assert same(result.heard, heard(fleet))
    [line] = lines(caplog, "event=hook-failed") + lines(caplog, "event=hook-refused")
    assert f" kind={result.kind} " in line
    assert line.endswith(f"reason={result.reason!r}")
    [own] = lines(caplog, "event=hook-tried")
    assert f"template=T function={ARN} by=- verdict=refused step=hook kind={result.kind}" in own


@pytest.mark.parametrize(("act", "kind", "reason"), NOT_ASKED.values(), ids=NOT_ASKED)
def test_so_is_no_answer(
    fleet: Registry, act: Callable[[Registry], None], kind: str, reason: str
) -> None:
    fleet.services = elsewhere(fleet.services, hook_seconds=0.2)
    act(fleet)
    result = tried(fleet)
    assert (result.step, result.kind) == ("hook", kind)
    assert reason in result.reason
    assert same(result.heard, heard(fleet))
    permission = result.members["hook"]["permission"]
    assert (permission == "missing") == (kind == "no-permission")
    assert (permission == "not looked at") == (kind == "no-function")


def test_the_permission_that_is_missing_is_mended_by_the_command(fleet: Registry) -> None:
    configure(fleet, "f", answer(ALLOW), permitted=False)
    result = tried(fleet, function_name="f")
    assert result.kind == "no-permission"
    command = shlex.split(result.members["hook"]["addPermission"])
    assert command[:3] == ["aws", "lambda", "add-permission"]
    options = {
        name.removeprefix("--").replace("-", "_"): value
        for name, value in zip(command[3::2], command[4::2], strict=True)
    }
    fleet.run("lambda", "AddPermission", options)
    result = tried(fleet, function_name="f")
    assert (result.step, result.members["hook"]["permission"]) == ("", "present")


REFUSED: dict[str, tuple[str, dict[str, str], Callable[[Registry], object]]] = {
    "parameter": ("template", {}, lambda _: None),
    "group": (
        "registration",
        SERIAL,
        lambda registry: registry.call("DeleteThingGroup", thing_group_name="fleet"),
    ),
    "role": (
        "before the hook",
        SERIAL,
        lambda registry: registry.call(
            "UpdateProvisioningTemplate",
            template_name="T",
            provisioning_role_arn="arn:aws:iam::123456789012:role/other",
        ),
    ),
}


@pytest.mark.parametrize(("step", "parameters", "act"), REFUSED.values(), ids=REFUSED)
def test_what_the_registration_is_refused_for(
    fleet: Registry, step: str, parameters: dict[str, str], act: Callable[[Registry], object]
) -> None:
    function = answer(ALLOW)
    hook(fleet, function)
    if step == "before the hook":
        fleet.run(
            "iam",
            "CreateRole",
            {"role_name": "other", "assume_role_policy_document": TRUSTS_IOT},
        )
    act(fleet)
    if step == "before the hook":
        fleet.run("iam", "DeleteRole", {"role_name": "other"})
    result = tried(fleet, parameters=parameters)
    assert result.step == step
    assert result.reason == str(result.heard)
    assert same(result.heard, heard(fleet, parameters=parameters))
    assert (result.members["rendered"] is not None) == (step == "registration")
    assert (result.members["hook"] is None) == (step == "before the hook")


TRUSTS_IOT = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": "iot.amazonaws.com"},
            "Action": "sts:AssumeRole",
        },
    }
)


# --- functions of ours ---------------------------------------------------------------------------


def test_a_serial_number_is_not_used_up(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "serials.csv").write_text("serial_number\n1\n")
    hooked(registry, "allow-list", tmp_path, file="serials.csv")
    for _ in range(2):
        result = tried(registry)
        assert result.step == ""
        assert "may be used once and was used never" in result.reason
    assert heard(registry) is None
    result = tried(registry)
    assert (result.step, result.kind) == ("hook", "denied")
    assert same(result.heard, heard(registry))


def test_an_older_certificate_is_not_deactivated(registry: Registry) -> None:
    hooked(registry, "key-reuse-audit", action="flag", deactivate=True)
    request = csr("lamp")
    older = registry.device("CreateCertificateFromCsr", certificate_signing_request=request)
    register(registry, older)
    result = tried(registry, csr=request, parameters={"SerialNumber": "2"})
    assert result.step == ""
    assert result.notes == [f"certificate {older['certificateId']} would become INACTIVE"]


# --- the signing request -------------------------------------------------------------------------


def test_a_signing_request_that_is_refused(fleet: Registry) -> None:
    hook(fleet, answer(ALLOW))
    result = tried(fleet, csr="no")
    assert (result.step, result.members["certificate"]) == ("csr", None)
    with pytest.raises(ServiceError) as caught:
        fleet.device("CreateCertificateFromCsr", certificate_signing_request="no")
    assert same(result.heard, caught.value)


def test_the_certificate_provider_is_asked(fleet: Registry) -> None:
    now = datetime.fromtimestamp(START, UTC)
    root = provider_authority(now)

    def sign(event: Event) -> Any:
        return {"certificatePem": root.sign(event["certificateSigningRequest"], now)}

    provider = Here(sign)
    configure(fleet, "sign", provider)
    create_provider(fleet)
    hook(fleet, answer(ALLOW))
    assert tried(fleet).members["certificateProvider"] is None
    assert provider.events == []  # CreateKeysAndCertificate does not ask it either
    request = csr("lamp")
    result = tried(fleet, csr=request, claim_certificate_id=CLAIM, client_id="me")
    assert result.step == ""
    assert result.members["certificate"]["signedBy"] == "mine"
    shown = result.members["certificateProvider"]
    assert shown["certificateProviderName"] == "mine"
    assert shown["input"] == provider.events[0]
    claim(fleet, CLAIM)
    device = Identity(CLAIM, None, START * 2)
    fleet.device("CreateCertificateFromCsr", device, certificate_signing_request=request)
    assert {**provider.events[1], "clientId": "me"} == provider.events[0]

    bad = provider_authority(now)
    wrong = {"certificatePem": bad.sign(csr("other"), now)}
    for given, kind in ((wrong, "refused-certificate"), ({}, "malformed"), (b"x", "malformed")):
        provider.function = answer(given).function
        result = tried(fleet, csr=request)
        assert (result.step, result.kind) == ("certificate provider", kind)
        assert result.reason
        assert result.members["hook"] is None
        with pytest.raises(InternalErrorException) as caught:
            fleet.device("CreateCertificateFromCsr", device, certificate_signing_request=request)
        assert same(result.heard, caught.value)
        assert caught.value.__notes__ == [f"{kind}: {result.reason}"]


# --- rights --------------------------------------------------------------------------------------

DESCRIBE = statement("iot:DescribeProvisioningTemplate", "arn:aws:iot:*:*:provisioningtemplate/T")
INVOKE = statement("lambda:InvokeFunction", ARN)


def test_it_takes_the_rights_to_see_and_to_run(fleet: Registry) -> None:
    hook(fleet, answer(ALLOW))
    assert tried(fleet, caller(DESCRIBE, INVOKE)).step == ""
    for given, missing in (
        ((INVOKE,), "iot:DescribeProvisioningTemplate on resource: arn:aws:iot:eu-west-1:1234567"),
        ((DESCRIBE,), f"lambda:InvokeFunction on resource: {ARN}"),
    ):
        with pytest.raises(AccessDeniedException, match=missing):
            tried(fleet, caller(*given))
    with pytest.raises(AccessDeniedException, match="iot:DescribeProvisioningTemplateVersion"):
        tried(fleet, caller(DESCRIBE, INVOKE), version_id=1)
    with pytest.raises(AccessDeniedException, match=r"lambda:InvokeFunction on resource: .*:other"):
        tried(fleet, caller(DESCRIBE, INVOKE), function_name="other")
    configure(fleet, "sign", answer({}))
    create_provider(fleet)
    assert tried(fleet, caller(DESCRIBE, INVOKE)).step == ""
    with pytest.raises(AccessDeniedException, match="iot:DescribeCertificateProvider"):
        tried(fleet, caller(DESCRIBE, INVOKE), csr=csr())
    see = statement("iot:DescribeCertificateProvider")
    with pytest.raises(AccessDeniedException, match=r"lambda:InvokeFunction on resource: .*:sign"):
        tried(fleet, caller(DESCRIBE, INVOKE, see), csr=csr())


def test_there_has_to_be_such_a_template(registry: Registry) -> None:
    with pytest.raises(ResourceNotFoundException, match="Template T not found"):
        tried(registry)
