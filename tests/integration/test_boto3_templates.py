"""Provisioning templates and their versions through boto3: all nine operations and the claim."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from tests.integration.fleet import ROLE, arn, template_body
from tests.integration.refusal import everything, members, pages, refusal


@pytest.fixture
def template(iot: Any, name: str) -> str:
    """The name of a new, enabled template with one version."""
    iot.create_provisioning_template(
        templateName=name,
        description="first",
        templateBody=template_body(name, "operator"),
        provisioningRoleArn=ROLE,
        enabled=True,
    )
    return name


def recent(moment: datetime) -> bool:
    return abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


def test_a_template_lives_and_dies(iot: Any, name: str) -> None:
    body = template_body(name, "operator")
    created = iot.create_provisioning_template(
        templateName=name,
        description="for lamps",
        templateBody=body,
        provisioningRoleArn=ROLE,
        enabled=True,
        type="FLEET_PROVISIONING",
    )
    assert members(created) == {
        "templateArn": arn(f"provisioningtemplate/{name}"),
        "templateName": name,
        "defaultVersionId": 1,
    }
    described = members(iot.describe_provisioning_template(templateName=name))
    assert recent(described.pop("creationDate"))
    assert recent(described.pop("lastModifiedDate"))
    assert described == {
        "templateArn": arn(f"provisioningtemplate/{name}"),
        "templateName": name,
        "description": "for lamps",
        "defaultVersionId": 1,
        "templateBody": body,
        "enabled": True,
        "provisioningRoleArn": ROLE,
        "type": "FLEET_PROVISIONING",
    }
    updated = iot.update_provisioning_template(
        templateName=name, description="for all lamps", enabled=False
    )
    assert members(updated) == {}
    described = iot.describe_provisioning_template(templateName=name)
    assert described["description"] == "for all lamps"
    assert described["enabled"] is False
    assert described["templateBody"] == body
    [listed] = [
        entry
        for entry in everything(iot, "list_provisioning_templates", "templates")
        if entry["templateName"] == name
    ]
    assert recent(listed.pop("creationDate"))
    assert recent(listed.pop("lastModifiedDate"))
    assert listed == {
        "templateArn": arn(f"provisioningtemplate/{name}"),
        "templateName": name,
        "description": "for all lamps",
        "enabled": False,
        "type": "FLEET_PROVISIONING",
    }
    assert members(iot.delete_provisioning_template(templateName=name)) == {}
    gone = refusal(iot.describe_provisioning_template, templateName=name)
    assert gone.kind == (404, "ResourceNotFoundException")
    assert name in gone.message


def test_enabled_left_out_means_disabled(iot: Any, name: str) -> None:
    iot.create_provisioning_template(
        templateName=name,
        templateBody=template_body(name, "operator"),
        provisioningRoleArn=ROLE,
    )
    assert iot.describe_provisioning_template(templateName=name)["enabled"] is False


def test_versions_come_and_go(iot: Any, template: str) -> None:
    bodies = {1: template_body(template, "operator")}
    for number in range(2, 6):
        bodies[number] = json.dumps(json.loads(bodies[1]) | {"DeviceConfiguration": {"v": "x"}})
        created = members(
            iot.create_provisioning_template_version(
                templateName=template, templateBody=bodies[number], setAsDefault=number == 3
            )
        )
        assert created == {
            "templateArn": arn(f"provisioningtemplate/{template}"),
            "templateName": template,
            "versionId": number,
            "isDefaultVersion": number == 3,
        }
    sixth = refusal(
        iot.create_provisioning_template_version, templateName=template, templateBody=bodies[1]
    )
    assert sixth.kind == (409, "VersionsLimitExceededException")

    described = iot.describe_provisioning_template(templateName=template)
    assert described["defaultVersionId"] == 3
    assert described["templateBody"] == bodies[3]
    version = members(
        iot.describe_provisioning_template_version(templateName=template, versionId=2)
    )
    assert recent(version.pop("creationDate"))
    assert version == {"versionId": 2, "templateBody": bodies[2], "isDefaultVersion": False}

    listed = [
        (entry["versionId"], entry["isDefaultVersion"], recent(entry["creationDate"]))
        for page in pages(
            iot, "list_provisioning_template_versions", "versions", 2, templateName=template
        )
        for entry in page
    ]
    assert sorted(listed) == [(n, n == 3, True) for n in range(1, 6)]

    default = refusal(iot.delete_provisioning_template_version, templateName=template, versionId=3)
    assert default.kind == (409, "DeleteConflictException")
    iot.update_provisioning_template(templateName=template, defaultVersionId=2)
    deleted = iot.delete_provisioning_template_version(templateName=template, versionId=3)
    assert members(deleted) == {}
    gone = refusal(iot.describe_provisioning_template_version, templateName=template, versionId=3)
    assert gone.kind == (404, "ResourceNotFoundException")
    again = iot.create_provisioning_template_version(templateName=template, templateBody=bodies[1])
    assert again["versionId"] == 6  # a number is not used twice
    assert again["isDefaultVersion"] is False


def test_templates_are_listed_page_by_page(iot: Any, name: str) -> None:
    names = {f"{name}-{number}" for number in range(5)}
    for each in names:
        iot.create_provisioning_template(
            templateName=each,
            templateBody=template_body(each, "operator"),
            provisioningRoleArn=ROLE,
        )
    listed = pages(iot, "list_provisioning_templates", "templates", 2)
    assert all(len(page) <= 2 for page in listed)
    flat = [entry["templateName"] for page in listed for entry in page]
    assert len(flat) == len(set(flat))
    assert names <= set(flat)


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("describe_provisioning_template", {}),
        ("update_provisioning_template", {"enabled": True}),
        ("delete_provisioning_template", {}),
        ("create_provisioning_template_version", {"templateBody": "{}"}),
        ("describe_provisioning_template_version", {"versionId": 1}),
        ("delete_provisioning_template_version", {"versionId": 1}),
        ("list_provisioning_template_versions", {}),
        ("create_provisioning_claim", {}),
    ],
)
def test_an_unknown_template_is_not_found(
    iot: Any, name: str, operation: str, more: dict[str, Any]
) -> None:
    if "templateBody" in more:
        more = {"templateBody": template_body(name, "operator")}
    unknown = refusal(getattr(iot, operation), templateName=name, **more)
    assert unknown.kind == (404, "ResourceNotFoundException")
    assert name in unknown.message


def test_unknown_versions_are_not_found(iot: Any, template: str) -> None:
    for operation in ("describe", "delete"):
        call = getattr(iot, f"{operation}_provisioning_template_version")
        unknown = refusal(call, templateName=template, versionId=9)
        assert unknown.kind == (404, "ResourceNotFoundException")


def test_a_name_is_taken_once(iot: Any, template: str) -> None:
    twice = refusal(
        iot.create_provisioning_template,
        templateName=template,
        templateBody=template_body(template, "operator"),
        provisioningRoleArn=ROLE,
    )
    assert twice.kind == (409, "ResourceAlreadyExistsException")
    assert twice.message == f"Template with name {template} already exists"


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        "{}",
        '{"Resources": {"x": {"Type": "AWS::IoT::Rocket", "Properties": {}}}}',
        '{"Parameters": {"a": {"Type": "Number"}}, "Resources": {}}',
        '{"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {}}}}',
    ],
    ids=["text", "list", "no-resources", "resource-type", "parameter-type", "policy-of-nothing"],
)
def test_a_body_that_is_no_template_is_refused(iot: Any, template: str, body: str) -> None:
    for call, more in (
        (iot.create_provisioning_template, {"templateName": f"{template}-2"}),
        (iot.create_provisioning_template_version, {"templateName": template}),
    ):
        parameters = more | {"templateBody": body}
        if call == iot.create_provisioning_template:
            parameters["provisioningRoleArn"] = ROLE
        assert refusal(call, **parameters).kind == (400, "InvalidRequestException")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("templateName", "with blank"),
        ("templateName", "x" * 37),
        ("provisioningRoleArn", "short"),
        ("templateBody", json.dumps({"Resources": {}, "x": "y" * 10_240})),
        ("description", "x" * 501),
        ("type", "ROCKET"),
    ],
)
def test_members_outside_the_models_constraints_are_refused(
    unchecked: Any, name: str, member: str, value: str
) -> None:
    parameters = {
        "templateName": name,
        "templateBody": template_body(name, "operator"),
        "provisioningRoleArn": ROLE,
    }
    refused = refusal(unchecked.create_provisioning_template, **parameters | {member: value})
    assert refused.kind == (400, "InvalidRequestException")
    assert member in refused.message


def test_a_provisioning_claim_is_short_lived(iot: Any, template: str) -> None:
    claim = members(iot.create_provisioning_claim(templateName=template))
    assert set(claim) == {"certificateId", "certificatePem", "keyPair", "expiration"}
    assert set(claim["keyPair"]) == {"PublicKey", "PrivateKey"}
    left = claim["expiration"] - datetime.now(UTC)
    assert timedelta(minutes=4, seconds=30) < left <= timedelta(minutes=5, seconds=5)
    certificate = x509.load_pem_x509_certificate(claim["certificatePem"].encode())
    assert certificate.not_valid_before_utc <= datetime.now(UTC)
