"""Provisioning templates: their role, tags, quotas and what is not offered.

Source: AWS IoT API reference, CreateProvisioningTemplate and its companions.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionsLimitExceededException,
)
from fleetgate.store import iam_policies, iam_roles
from fleetgate.store.engine import Tx
from tests.operations.conftest import Registry
from tests.operations.roles import REGISTRATION, add_provisioning_role, change

ROLE = "arn:aws:iam::123456789012:role/provisioning"
BODY = json.dumps(
    {"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}}}}
)


@pytest.fixture
def templates(registry: Registry) -> Registry:
    add_provisioning_role(registry)
    return registry


def create(registry: Registry, name: str = "T", **more: Any) -> dict[str, Any]:
    given = {"template_name": name, "template_body": BODY, "provisioning_role_arn": ROLE, **more}
    return registry.call("CreateProvisioningTemplate", **given)


def names(registry: Registry) -> list[str]:
    return [
        each["templateName"] for each in registry.call("ListProvisioningTemplates")["templates"]
    ]


def test_the_tags_of_a_template_live_as_long_as_it(templates: Registry) -> None:
    arn = create(templates, tags=[{"Key": "fleet", "Value": "lamps"}, {"Key": "empty"}])[
        "templateArn"
    ]
    tags = templates.call("ListTagsForResource", resource_arn=arn)["tags"]
    assert tags == [{"Key": "empty", "Value": ""}, {"Key": "fleet", "Value": "lamps"}]
    templates.call("DeleteProvisioningTemplate", template_name="T")
    assert create(templates)["templateArn"] == arn
    assert templates.call("ListTagsForResource", resource_arn=arn)["tags"] == []


def test_tags_that_are_wrong_make_no_template(templates: Registry) -> None:
    twice = [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]
    with pytest.raises(InvalidRequestException, match="`a` is given twice"):
        create(templates, tags=twice)
    assert names(templates) == []


def test_a_name_is_taken_once(templates: Registry) -> None:
    create(templates)
    with pytest.raises(ResourceAlreadyExistsException) as caught:
        create(templates, tags=[{"Key": "a", "Value": "1"}])
    # aws-cdk issue 17989
    assert caught.value.message == "Template with name T already exists"
    arn = templates.arn("provisioningtemplate/T")
    assert caught.value.members == {"resourceId": "T", "resourceArn": arn}
    assert templates.call("ListTagsForResource", resource_arn=arn)["tags"] == []


def test_the_quotas_are_settings(templates: Registry) -> None:
    limits = Limits(templates=1, template_versions=2)
    templates.services = dataclasses.replace(templates.services, limits=limits)
    create(templates)
    with pytest.raises(LimitExceededException, match="1 templates, the limit"):
        create(templates, "U")
    version = {"template_name": "T", "template_body": BODY}
    templates.call("CreateProvisioningTemplateVersion", **version)
    with pytest.raises(VersionsLimitExceededException, match="2 versions, the limit"):
        templates.call("CreateProvisioningTemplateVersion", **version)


def test_the_quota_of_policies_holds_for_those_a_template_makes(templates: Registry) -> None:
    statement = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}
    document = {"Version": "2012-10-17", "Statement": [statement] * 50}
    resource = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}
    body = json.dumps({"Resources": {"p": resource}})
    with pytest.raises(InvalidRequestException, match="the limit is 2048"):
        create(templates, template_body=body)
    limits = Limits(policy_document_characters=4096)
    templates.services = dataclasses.replace(templates.services, limits=limits)
    create(templates, template_body=body)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"provisioning_role_arn": "arn:aws:iam::1:user/ann"}, "is not the ARN of an IAM role"),
        (
            {"template_body": BODY.replace("PolicyName", "Policy")},
            "Invalid provisioning template. Resources.p.Properties: unknown element `Policy`",
        ),
    ],
)
def test_what_cannot_be_is_refused(templates: Registry, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestException) as caught:
        create(templates, **more)
    assert message in caught.value.message
    assert names(templates) == []


def test_an_unknown_template_is_not_found_whatever_its_role(registry: Registry) -> None:
    with pytest.raises(ResourceNotFoundException, match="Template T not found"):
        registry.call("UpdateProvisioningTemplate", template_name="T", provisioning_role_arn=ROLE)


def test_an_update_that_names_no_role_does_not_ask_for_one(templates: Registry) -> None:
    create(templates)

    def delete(tx: Tx) -> None:
        role = iam_roles.find_role(tx, "provisioning")
        assert role is not None
        iam_policies.remove_attached(tx, role.role_id, REGISTRATION)
        iam_roles.remove_role(tx, role.role_id)

    change(templates, delete)
    templates.call("UpdateProvisioningTemplate", template_name="T", enabled=True)
    found = templates.call("DescribeProvisioningTemplate", template_name="T")
    assert (found["enabled"], found["provisioningRoleArn"]) == (True, ROLE)
