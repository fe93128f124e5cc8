"""What a provisioning role may do, seen by a device: its template's work has those rights alone.

Source: AWS IoT Core developer guide, "Provisioning devices that don't have device certificates
using fleet provisioning" (the role) and the managed policy AWSIoTThingsRegistration.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import (
    CSR,
    REGISTRATION_POLICY,
    ROLE,
    Fleet,
    create_role,
    policy_document,
    register_topic,
    template_body,
    trust_document,
)
from tests.integration.paho_device import PahoDevice, onboard
from tests.integration.refusal import refusal
from tests.integration.server import Server


@pytest.fixture
def iam(server: Server) -> Iterator[Any]:
    client = server.client("iam")
    yield client
    client.close()


def refused(server: Server, fleet: Fleet, serial: str) -> tuple[dict[str, Any], str]:
    """What a device is told whose registration fails, and the id of its certificate."""
    register = register_topic(fleet.template)
    with PahoDevice(server, fleet.claim, f"claim-{fleet.thing(serial)}") as device:
        device.listen(CSR, register)
        made, _ = device.create()
        body = {
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": {"SerialNumber": serial},
        }
        return device.rejected(register, body), made["certificateId"]


def assert_nothing_is_left(iot: Any, fleet: Fleet, serial: str, certificate_id: str) -> None:
    gone = refusal(iot.describe_thing, thingName=fleet.thing(serial))
    assert gone.kind == (404, "ResourceNotFoundException")
    found = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    assert found["status"] == "PENDING_ACTIVATION"
    assert iot.list_attached_policies(target=found["certificateArn"])["policies"] == []


# the last step of the plan: everything before it has to be undone
@pytest.mark.parametrize("missing", ["iot:CreateThing", "iot:UpdateCertificate"])
def test_a_role_without_a_right_registers_nothing(
    server: Server, iot: Any, iam: Any, fleet: Fleet, missing: str, tmp_path: Path
) -> None:
    name = f"{fleet.name}-role"
    actions = ["iot:CreateThing", "iot:AttachPolicy", "iot:AttachThingPrincipal"]
    actions = [each for each in [*actions, "iot:UpdateCertificate"] if each != missing]
    rights = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    role = create_role(server, name, rights)
    iot.update_provisioning_template(templateName=fleet.template, provisioningRoleArn=role)
    rejected, certificate_id = refused(server, fleet, "1")
    assert rejected == {
        "statusCode": 403,
        "errorCode": "AccessDenied",
        "errorMessage": "the provisioning role of the template is not authorized to perform "
        f"{missing}",
    }
    assert_nothing_is_left(iot, fleet, "1", certificate_id)
    # role and resource are for the operator
    [line] = [line for line in server.output().splitlines() if certificate_line(line, role)]
    assert missing in line

    # a changed role counts from the next registration on
    rights = rights | {"Action": [*actions, missing]}
    document = policy_document(rights)
    iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=document)
    onboard(server, fleet, "2", tmp_path)
    iam.delete_role_policy(RoleName=name, PolicyName="rights")
    assert refused(server, fleet, "3")[0]["statusCode"] == 403
    iam.attach_role_policy(RoleName=name, PolicyArn=REGISTRATION_POLICY)
    onboard(server, fleet, "4", tmp_path)


def certificate_line(line: str, role: str) -> bool:
    return "event=rejected operation=RegisterThing" in line and role in line


def test_a_role_that_trusts_others_is_not_taken(server: Server, iot: Any, fleet: Fleet) -> None:
    strangers = create_role(server, f"{fleet.name}-lambda", trust="lambda.amazonaws.com")
    missing = ROLE + "-missing"
    for role in (strangers, missing):
        for call, more in (
            (
                iot.create_provisioning_template,
                {
                    "templateName": f"{fleet.name}-2",
                    "templateBody": template_body(fleet.name, fleet.device_policy),
                },
            ),
            (iot.update_provisioning_template, {"templateName": fleet.template}),
        ):
            no = refusal(call, provisioningRoleArn=role, **more)
            assert no.kind == (400, "InvalidRequestException")
            # the words Terraform waits for
            assert "The provisioning role cannot be assumed by AWS IoT" in no.message
    described = iot.describe_provisioning_template(templateName=fleet.template)
    assert described["provisioningRoleArn"] == ROLE


def test_a_role_that_trusts_others_by_now_registers_nothing(
    server: Server, iot: Any, iam: Any, fleet: Fleet, tmp_path: Path
) -> None:
    name = f"{fleet.name}-role"
    role = create_role(server, name)
    iot.update_provisioning_template(templateName=fleet.template, provisioningRoleArn=role)
    onboard(server, fleet, "1", tmp_path)
    stranger = trust_document("lambda.amazonaws.com")
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=stranger)
    rejected, certificate_id = refused(server, fleet, "2")
    assert (rejected["statusCode"], rejected["errorCode"]) == (403, "AccessDenied")
    assert role not in json.dumps(rejected)
    assert_nothing_is_left(iot, fleet, "2", certificate_id)
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust_document())
    onboard(server, fleet, "3", tmp_path)
