"""The types of provisioning templates, and which version of one counts.

Sources: AWS IoT API Reference, CreateProvisioningTemplate (`type`), CreateProvisioningClaim,
RegisterThing; AWS IoT Core Developer Guide, "Just-in-time provisioning", "Fleet provisioning".
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from fleetgate.errors import (
    AccessDeniedException,
    InvalidRequestException,
    LimitExceededException,
    ResourceNotFoundException,
)
from tests.operations.conftest import Registry, csr
from tests.operations.foreign import authority, register
from tests.operations.roles import add_provisioning_role

ROLE = "arn:aws:iam::123456789012:role/provisioning"
CERTIFICATE = {
    "Type": "AWS::IoT::Certificate",
    "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
}


def body(**sections: Any) -> str:
    return json.dumps({"Resources": {"certificate": CERTIFICATE}, **sections})


COMMON_NAME = "AWS::IoT::Certificate::CommonName"
JITP = body(Parameters={COMMON_NAME: {"Type": "String"}})
FLEET = body(DeviceConfiguration={"version": "1"})


@pytest.fixture
def templates(registry: Registry) -> Registry:
    add_provisioning_role(registry)
    return registry


def create(registry: Registry, name: str, template_body: str, **more: Any) -> None:
    registry.call(
        "CreateProvisioningTemplate",
        template_name=name,
        template_body=template_body,
        provisioning_role_arn=ROLE,
        enabled=True,
        **more,
    )


def provision(registry: Registry, name: str, token: str) -> dict[str, Any]:
    return registry.device("RegisterThing", template_name=name, certificate_ownership_token=token)


def token(registry: Registry) -> str:
    created = registry.device("CreateCertificateFromCsr", certificate_signing_request=csr())
    found: str = created["certificateOwnershipToken"]
    return found


def test_the_type_is_kept_shown_and_fleet_provisioning_unless_said(templates: Registry) -> None:
    create(templates, "F", FLEET)
    create(templates, "G", FLEET, type="FLEET_PROVISIONING")
    create(templates, "J", JITP, type="JITP")
    types = {"F": "FLEET_PROVISIONING", "G": "FLEET_PROVISIONING", "J": "JITP"}
    listed = templates.call("ListProvisioningTemplates")["templates"]
    assert {each["templateName"]: each["type"] for each in listed} == types
    templates.call("UpdateProvisioningTemplate", template_name="J", description="new")
    for name, expected in types.items():
        assert templates.call("DescribeProvisioningTemplate", template_name=name)["type"] == (
            expected
        )


@pytest.mark.parametrize(
    ("template_body", "message"),
    [
        (FLEET, "Invalid registration template. DeviceConfiguration: only a fleet provisioning"),
        (
            body(Parameters={"SerialNumber": {"Type": "String"}}),
            "Invalid registration template. Cannot resolve reference value: {Ref=SerialNumber}",
        ),
        (json.dumps({"Resources": {}}), "Invalid registration template. Resources: it must have"),
        (
            json.dumps({"Resources": {"p": {"Type": "AWS::IoT::Policy"}}}),
            (
                "Invalid registration template. Neither policyName nor policyDocument is present "
                "in the Template."
            ),
        ),
    ],
)
def test_a_body_is_read_by_the_type_of_its_template(
    templates: Registry, template_body: str, message: str
) -> None:
    create(templates, "J", JITP, type="JITP")
    with pytest.raises(InvalidRequestException) as caught:
        create(templates, "K", template_body, type="JITP")
    assert caught.value.message.startswith(message)
    with pytest.raises(InvalidRequestException) as caught:
        templates.call(
            "CreateProvisioningTemplateVersion", template_name="J", template_body=template_body
        )
    assert caught.value.message.startswith(message)
    ca = authority()
    with pytest.raises(InvalidRequestException) as caught:
        register(
            templates, ca, registration_config={"templateBody": template_body, "roleArn": ROLE}
        )
    assert caught.value.message.startswith(message)


def test_a_version_of_an_unknown_template_is_not_found(templates: Registry) -> None:
    with pytest.raises(ResourceNotFoundException, match="Template T not found"):
        templates.call("CreateProvisioningTemplateVersion", template_name="T", template_body="{")


def test_versions_of_a_jitp_template(templates: Registry) -> None:
    create(templates, "J", JITP, type="JITP")
    made = templates.call(
        "CreateProvisioningTemplateVersion",
        template_name="J",
        template_body=JITP,
        set_as_default=True,
    )
    assert (made["versionId"], made["isDefaultVersion"]) == (2, True)


def test_a_jitp_template_has_no_hook(templates: Registry) -> None:
    hook = {"targetArn": "arn:aws:lambda:eu-west-1:123456789012:function:f"}
    with pytest.raises(InvalidRequestException, match="a template of type JITP has none"):
        create(templates, "J", JITP, type="JITP", pre_provisioning_hook=hook)
    create(templates, "J", JITP, type="JITP")
    with pytest.raises(InvalidRequestException, match="a template of type JITP has none"):
        templates.call("UpdateProvisioningTemplate", template_name="J", pre_provisioning_hook=hook)


def test_devices_with_a_claim_cannot_use_a_jitp_template(templates: Registry) -> None:
    create(templates, "J", JITP, type="JITP")
    with pytest.raises(InvalidRequestException, match="template J is of type JITP; provisioning"):
        templates.call("CreateProvisioningClaim", template_name="J")
    with pytest.raises(AccessDeniedException) as caught:
        provision(templates, "J", token(templates))
    assert caught.value.message == "template `J` is of type JITP, not FLEET_PROVISIONING"


def test_just_in_time_provisioning_cannot_use_a_fleet_template(templates: Registry) -> None:
    create(templates, "F", FLEET)
    create(templates, "J", JITP, type="JITP")
    with pytest.raises(InvalidRequestException) as caught:
        register(templates, authority(), registration_config={"templateName": "F"})
    assert caught.value.message == (
        "registrationConfig: template F is of type FLEET_PROVISIONING; just-in-time provisioning "
        "takes one of type JITP"
    )
    id_ = register(templates, authority(), registration_config={"templateName": "J"})
    with pytest.raises(InvalidRequestException, match="template F is of type FLEET_PROVISIONING"):
        templates.call(
            "UpdateCACertificate", certificate_id=id_, registration_config={"templateName": "F"}
        )


def test_both_types_count_as_templates(templates: Registry) -> None:
    limits = dataclasses.replace(templates.services.limits, templates=2)
    templates.services = dataclasses.replace(templates.services, limits=limits)
    create(templates, "F", FLEET)
    create(templates, "J", JITP, type="JITP")
    with pytest.raises(LimitExceededException, match="2 templates, the limit"):
        create(templates, "G", FLEET)


# --- the version in force ------------------------------------------------------------------------


def version(registry: Registry, number: str) -> None:
    registry.call(
        "CreateProvisioningTemplateVersion",
        template_name="F",
        template_body=body(DeviceConfiguration={"version": number}),
    )


def test_the_default_version_of_the_moment_counts_not_that_of_the_token(
    templates: Registry,
) -> None:
    create(templates, "F", FLEET)
    tokens = [token(templates) for _ in range(3)]
    version(templates, "2")
    assert provision(templates, "F", tokens[0])["deviceConfiguration"] == {"version": "1"}
    templates.call("UpdateProvisioningTemplate", template_name="F", default_version_id=2)
    assert provision(templates, "F", tokens[1])["deviceConfiguration"] == {"version": "2"}
    templates.call("UpdateProvisioningTemplate", template_name="F", default_version_id=1)
    assert provision(templates, "F", tokens[2])["deviceConfiguration"] == {"version": "1"}


def test_a_version_that_changes_meanwhile_is_the_one_or_the_other(templates: Registry) -> None:
    """Twenty devices while the default changes: none sees parts of two versions."""
    one, two = (
        json.dumps(
            {
                "Resources": {
                    "certificate": CERTIFICATE,
                    "thing": {
                        "Type": "AWS::IoT::Thing",
                        "Properties": {
                            "ThingName": {"Ref": "AWS::IoT::Certificate::Id"},
                            "AttributePayload": {"version": number},
                        },
                    },
                },
                "DeviceConfiguration": {"version": number},
            }
        )
        for number in ("1", "2")
    )
    create(templates, "F", one)
    templates.call("CreateProvisioningTemplateVersion", template_name="F", template_body=two)
    tokens = [token(templates) for _ in range(20)]

    async def race() -> list[dict[str, Any]]:
        def device(each: str) -> Any:
            params = {
                "payload_format": "json",
                "template_name": "F",
                "certificate_ownership_token": each,
            }
            return templates.start("provisioning", "RegisterThing", params)

        def switch(number: int) -> Any:
            params = {"template_name": "F", "default_version_id": number}
            return templates.start("iot", "UpdateProvisioningTemplate", params)

        turns = []
        for index, each in enumerate(tokens):
            turns += [switch(1 + index % 2), device(each)]
        answers = await asyncio.gather(*turns)
        return answers[1::2]

    seen = set()
    for answer in templates.runner.run(race()):
        thing = templates.call("DescribeThing", thing_name=answer["thingName"])
        assert thing["attributes"] == answer["deviceConfiguration"]
        seen.add(thing["attributes"]["version"])
    assert seen <= {"1", "2"}


# --- sizes: service model, TemplateBody, Parameter, Value, TemplateDescription -------------------


def test_sizes_of_the_model(templates: Registry) -> None:
    padded = json.dumps({"Resources": {"certificate": CERTIFICATE}, "Description": "x"})
    longest = padded.replace('"x"', '"' + "x" * (10_240 - len(padded) + 1) + '"')
    create(templates, "F", longest, description="d" * 500)
    for more in ({"description": "d" * 501}, {"description": "a\nb"}):
        with pytest.raises(InvalidRequestException):
            create(templates, "G", FLEET, **more)
    with pytest.raises(InvalidRequestException):
        create(templates, "G", longest + " ")


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("n" * 2048, "v", True),
        ("n" * 2049, "v", False),
        ("n", "v" * 4096, True),
        ("n", "v" * 4097, False),
    ],
)
def test_sizes_of_parameters_over_http(
    registry: Registry, name: str, value: str, fits: bool
) -> None:
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "t"}}
    asked = {"template_body": json.dumps({"Resources": {"t": thing}}), "parameters": {name: value}}
    if fits:
        assert registry.call("RegisterThing", **asked)["resourceArns"] == {
            "t": registry.arn("thing/t")
        }
    else:
        with pytest.raises(InvalidRequestException, match="length less than or equal to"):
            registry.call("RegisterThing", **asked)
