"""AWS's own example templates give what its guide says they do.

Each is restated with what makes it an example, not copied. Sources: AWS IoT Core Developer Guide,
"Provisioning templates" (bulk registration, JITP, functions), "Just-in-time provisioning", and
"Pre-provisioning hooks" (fleet; tests/domain/test_template.py has it as well).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleetgate.domain import template
from fleetgate.domain.limits import Limits
from fleetgate.domain.provisioning import Existing, plan
from fleetgate.domain.resources import (
    Certificate,
    Kind,
    Override,
    Overrides,
    Policy,
    Resources,
    Thing,
)
from fleetgate.domain.steps import (
    AddThingToGroup,
    AttachPolicy,
    AttachThingPrincipal,
    CreatePolicy,
    CreateThing,
    UpdateCertificateStatus,
)
from fleetgate.domain.template import CERTIFICATE_ID

ID = "0123456789abcdef" * 4
OF = "AWS::IoT::Certificate::"
# as a string in AWS's examples for bulk registration and JITP, white space and all
DOCUMENT = (
    '{ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action":["iot:Publish"], '
    '"Resource": ["arn:aws:iot:us-east-1:123456789012:topic/foo/bar"] }] }'
)
STRING = {"Type": "String"}
OVERRIDES = {"AttributePayload": "MERGE", "ThingTypeName": "REPLACE", "ThingGroups": "DO_NOTHING"}


def lightbulb(name: Any, serial: Any, group: Any) -> dict[str, Any]:
    return {
        "Type": "AWS::IoT::Thing",
        "Properties": {
            "ThingName": name,
            "AttributePayload": {"version": "v1", "serialNumber": serial},
            "ThingTypeName": "lightBulb-versionA",
            "ThingGroups": ["v1-lightbulbs", group],
        },
    }


BULK = {
    "Parameters": {
        "ThingName": STRING,
        "SerialNumber": STRING,
        "Location": {"Type": "String", "Default": "WA"},
        "CSR": STRING,
    },
    "Resources": {
        "thing": lightbulb({"Ref": "ThingName"}, {"Ref": "SerialNumber"}, {"Ref": "Location"}),
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {
                "CertificateSigningRequest": {"Ref": "CSR"},
                "Status": "ACTIVE",
                "ThingPrincipalType": "EXCLUSIVE_THING",
            },
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": DOCUMENT}},
    },
}

JITP = {
    "Parameters": {
        f"{OF}{name}": STRING for name in ("CommonName", "SerialNumber", "Country", "Id")
    },
    "Resources": {
        "thing": {
            **lightbulb(
                {"Ref": f"{OF}CommonName"}, {"Ref": f"{OF}SerialNumber"}, {"Ref": f"{OF}Country"}
            ),
            "OverrideSettings": OVERRIDES,
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": f"{OF}Id"}, "Status": "ACTIVE"},
            "OverrideSettings": {"Status": "DO_NOTHING"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": DOCUMENT}},
    },
}
SUBJECT = {
    f"{OF}CommonName": "bulb-1",
    f"{OF}SerialNumber": "SN-1",
    f"{OF}Country": "US",
    f"{OF}Id": ID,
}


def rendered(body: dict[str, Any], kind: Kind, given: dict[str, str]) -> Resources:
    return template.render(template.parse(json.dumps(body), kind), given)


def bulb(name: str, group: str, overrides: Overrides) -> Thing:
    return Thing(
        logical_id="thing",
        name=name,
        attributes={"version": "v1", "serialNumber": "SN-1"},
        type_name="lightBulb-versionA",
        groups=("v1-lightbulbs", group),
        overrides=overrides,
    )


@pytest.mark.parametrize(("location", "group"), [({}, "WA"), ({"Location": "OR"}, "OR")])
def test_the_bulk_example(location: dict[str, str], group: str) -> None:
    given = {"ThingName": "bulb-1", "SerialNumber": "SN-1", "CSR": "csr", **location}
    resources = rendered(BULK, Kind.INLINE, given)
    assert resources.thing == bulb("bulb-1", group, Overrides())
    assert resources.certificate == Certificate(
        "certificate", None, "ACTIVE", principal_type="EXCLUSIVE_THING", csr="csr"
    )
    (policy,) = resources.policies
    assert policy.document == DOCUMENT


def test_the_jitp_example() -> None:
    resources = rendered(JITP, Kind.JITP, SUBJECT)
    overrides = Overrides(Override.MERGE, Override.REPLACE, Override.DO_NOTHING)
    (policy,) = resources.policies
    assert resources == Resources(
        thing=bulb("bulb-1", "US", overrides),
        certificate=Certificate("certificate", ID, "ACTIVE", Override.DO_NOTHING),
        policies=(Policy("policy", policy.name, DOCUMENT),),
        device_configuration={},
    )


# "register a certificate PENDING, create one thing, create one policy, attach the policy to the
# certificate, attach the certificate to the thing, update the certificate's status to ACTIVE";
# with `Status: DO_NOTHING` all the same.
def test_the_jitp_example_does_what_the_guide_lists_in_its_order() -> None:
    resources = rendered(JITP, Kind.JITP, SUBJECT)
    (policy,) = resources.policies
    existing = Existing(
        thing=None,
        certificate_id=ID,
        certificate_status="PENDING_ACTIVATION",
        thing_types=frozenset({"lightBulb-versionA"}),
        thing_groups={"v1-lightbulbs": "v1-lightbulbs", "US": "US"},
    )
    assert plan(resources, existing, Limits()) == (
        CreateThing("bulb-1", "lightBulb-versionA", {"version": "v1", "serialNumber": "SN-1"}),
        AddThingToGroup("bulb-1", "v1-lightbulbs"),
        AddThingToGroup("bulb-1", "US"),
        CreatePolicy(policy.name, DOCUMENT),
        AttachPolicy(policy.name, ID),
        AttachThingPrincipal("bulb-1", ID, exclusive=False),
        UpdateCertificateStatus(ID, "ACTIVE"),
    )


# The guide's examples of functions in fleet templates, "Template example for fleet provisioning".
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ({"Fn::Join": [":", ["a", "b", "c"]]}, "a:b:c"),
        ({"Fn::Select": ["1", ["a", "b", "c"]]}, "b"),
        ({"Fn::Select": ["1", {"Fn::Split": ["|", "a|b|c"]}]}, "b"),
        (
            {"Fn::FindInMap": ["LocationTable", {"Ref": "DeviceLocation"}, "LocationUrl"]},
            "https://x",
        ),
        (
            {"Fn::Sub": ["${ThingName}-${N}", {"ThingName": {"Ref": "SerialNumber"}, "N": "1"}]},
            "42-1",
        ),
        ({"Fn::Sub": "thing/${SerialNumber}"}, "thing/42"),
    ],
)
def test_the_functions_of_the_guide(function: dict[str, Any], expected: str) -> None:
    body = {
        "Parameters": {"DeviceLocation": STRING, "SerialNumber": STRING},
        "Mappings": {"LocationTable": {"Seattle": {"LocationUrl": "https://x"}}},
        "Resources": {
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": CERTIFICATE_ID}},
            }
        },
        "DeviceConfiguration": {"value": function},
    }
    given = {CERTIFICATE_ID: ID, "DeviceLocation": "Seattle", "SerialNumber": "42"}
    assert rendered(body, Kind.FLEET, given).device_configuration == {"value": expected}
