"""The procedures of AWS's provisioning guide, typed with the AWS CLI as the guide has them.

Source: AWS IoT Core developer guide, "Provisioning devices that don't have device certificates
using fleet provisioning" ("Provision a device by claim", "Provisioning by trusted user",
"Pre-provisioning hooks" for the template) and "Creating IAM policies and roles for a user
installing a device". Account, region and names are the test's own; the rest is the guide's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import KEYS, Fleet, Identity, arn, claim_document, register_topic
from tests.integration.paho_device import PahoDevice, onboard
from tests.integration.server import ACCOUNT, Server, run

TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "iot.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {"aws:SourceAccount": ACCOUNT},
                "ArnLike": {"aws:SourceArn": f"arn:aws:iot:us-east-1:{ACCOUNT}:*"},
            },
        }
    ],
}
REGISTRATION = "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration"

Aws = Callable[..., Any]


class CommandFailed(Exception):
    """The command said no; the message is what it wrote to standard error."""


def guide_template(prefix: str) -> str:
    """The guide's example, in expanded JSON; `prefix` keeps the names of tests apart."""
    return json.dumps(
        {
            "Parameters": {"DeviceLocation": {"Type": "String"}},
            "Mappings": {"LocationTable": {"Seattle": {"LocationUrl": "https://example.aws"}}},
            "Resources": {
                "thing": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {
                        "AttributePayload": {"version": "v1", "serialNumber": "serialNumber"},
                        "ThingName": {"Fn::Join": ["", [f"{prefix}-", {"Ref": "SerialNumber"}]]},
                        "ThingTypeName": {
                            "Fn::Join": ["", ["ThingTypePrefix_", {"Ref": "SerialNumber"}]]
                        },
                        "ThingGroups": ["widgets", "WA"],
                        "BillingGroup": "BillingGroup",
                    },
                    "OverrideSettings": {
                        "AttributePayload": "MERGE",
                        "ThingTypeName": "REPLACE",
                        "ThingGroups": "DO_NOTHING",
                    },
                },
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {
                        "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"},
                        "Status": "Active",
                    },
                },
                "policy": {
                    "Type": "AWS::IoT::Policy",
                    "Properties": {
                        "PolicyDocument": {
                            "Version": "2012-10-17",
                            "Statement": [
                                {
                                    "Effect": "Allow",
                                    "Action": ["iot:Publish"],
                                    "Resource": [arn("topic/foo/bar")],
                                }
                            ],
                        }
                    },
                },
            },
            "DeviceConfiguration": {
                "FallbackUrl": "https://www.example.com/test-site",
                "LocationUrl": {
                    "Fn::FindInMap": ["LocationTable", {"Ref": "DeviceLocation"}, "LocationUrl"]
                },
            },
        }
    )


def aws_variables(server: Server, directory: Path) -> dict[str, str]:
    """What `eval "$(fleetgate env)"` sets."""
    script = 'eval "$(fleetgate env --data "$1")" && env'
    printed = run("bash", "-c", script, "env", str(server.data), cwd=directory).stdout
    lines = [line.partition("=") for line in printed.splitlines()]
    return {name: value for name, _, value in lines if name.startswith("AWS_")}


@pytest.fixture
def aws(server: Server, tmp_path: Path) -> Aws:
    """Runs the `aws` command in a directory of the test's own; returns what it printed.

    As the root user, or with `as_` credentials of somebody else (AWS_* variables).
    """

    account = aws_variables(server, tmp_path)

    def call(*arguments: str, as_: Mapping[str, str] | None = None) -> Any:
        ran: subprocess.CompletedProcess[str] = run(
            *("aws", *arguments),
            cwd=tmp_path,
            env=account | {"AWS_PAGER": "", "AWS_CONFIG_FILE": "/dev/null"} | dict(as_ or {}),
        )
        if ran.returncode != 0:
            raise CommandFailed(ran.stderr.strip())
        return json.loads(ran.stdout) if ran.stdout.strip() else None

    return call


def credentials(key: Mapping[str, str]) -> dict[str, str]:
    """The variables by which somebody with this access key is known."""
    session = {"AWS_SESSION_TOKEN": key["SessionToken"]} if "SessionToken" in key else {}
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    } | session


def create_role(aws: Aws, directory: Path, role: str, trust: Mapping[str, Any]) -> str:
    """`aws iam create-role`; returns the ARN."""
    (directory / f"{role}.json").write_text(json.dumps(trust))
    made = aws(
        *("iam", "create-role", "--role-name", role),
        *("--assume-role-policy-document", f"file://{role}.json"),
    )
    return str(made["Role"]["Arn"])


def test_provision_a_device_by_claim(aws: Aws, server: Server, name: str, tmp_path: Path) -> None:
    # "Give the AWS IoT service permission to create or update IoT resources": the role
    role = create_role(aws, tmp_path, f"{name}-role", TRUST)
    assert role == f"arn:aws:iam::{ACCOUNT}:role/{name}-role"
    aws("iam", "attach-role-policy", "--role-name", f"{name}-role", "--policy-arn", REGISTRATION)
    attached = aws("iam", "list-attached-role-policies", "--role-name", f"{name}-role")
    assert attached["AttachedPolicies"] == [
        {"PolicyName": "AWSIoTThingsRegistration", "PolicyArn": REGISTRATION}
    ]

    # what the template names has to be there
    aws("iot", "create-thing-type", "--thing-type-name", f"ThingTypePrefix_{name}")
    for group in ("widgets", "WA"):
        aws("iot", "create-thing-group", "--thing-group-name", group)
    aws("iot", "create-billing-group", "--billing-group-name", "BillingGroup")

    (tmp_path / "template.json").write_text(guide_template(name))
    template = f"{name}-template"
    made = aws(
        *("iot", "create-provisioning-template", "--template-name", template),
        *("--provisioning-role-arn", role, "--template-body", "file://template.json"),
        *("--enabled", "--tags", "Key=team,Value=factory"),
    )
    assert made == {
        "templateArn": arn(f"provisioningtemplate/{template}"),
        "templateName": template,
        "defaultVersionId": 1,
    }

    # "Create certificates and associated private keys to be used as provisioning claim
    # certificates", "associate an IoT policy that restricts the use of the certificates"
    claim = aws(
        *("iot", "create-keys-and-certificate", "--set-as-active"),
        *("--certificate-pem-outfile", "claim.pem", "--private-key-outfile", "claim.key"),
    )
    (tmp_path / "claim.json").write_text(claim_document(template))
    aws(
        *("iot", "create-policy", "--policy-name", f"{name}-claim"),
        *("--policy-document", "file://claim.json"),
    )
    aws(
        *("iot", "attach-policy", "--policy-name", f"{name}-claim"),
        *("--target", claim["certificateArn"]),
    )
    identity = Identity(tmp_path / "claim.pem", tmp_path / "claim.key", claim["certificateId"])

    # "To initialize the device for use"
    register = register_topic(template)
    with PahoDevice(server, identity, f"{name}-device") as device:
        device.listen(KEYS, register)
        made, _key = device.create(keys=True)
        reply = device.accepted(
            register,
            {
                "certificateOwnershipToken": made["certificateOwnershipToken"],
                "parameters": {"SerialNumber": name, "DeviceLocation": "Seattle"},
            },
        )
    assert reply == {
        "thingName": f"{name}-{name}",
        "deviceConfiguration": {
            "FallbackUrl": "https://www.example.com/test-site",
            "LocationUrl": "https://example.aws",
        },
    }
    thing = aws("iot", "describe-thing", "--thing-name", f"{name}-{name}")
    assert thing["thingTypeName"] == f"ThingTypePrefix_{name}"
    assert thing["billingGroupName"] == "BillingGroup"
    assert thing["attributes"] == {"version": "v1", "serialNumber": "serialNumber"}
    groups = aws("iot", "list-thing-groups-for-thing", "--thing-name", f"{name}-{name}")
    assert {group["groupName"] for group in groups["thingGroups"]} == {"widgets", "WA"}


def test_the_life_of_a_template(aws: Aws, name: str, tmp_path: Path) -> None:
    role = create_role(aws, tmp_path, f"{name}-role", TRUST)
    (tmp_path / "template.json").write_text(guide_template(name))
    named = ("--template-name", f"{name}-template")
    body = ("--template-body", "file://template.json")
    made = aws(
        *("iot", "create-provisioning-template", *named, *body, "--provisioning-role-arn", role),
        *("--tags", "Key=team,Value=factory"),
    )
    with pytest.raises(
        CommandFailed,
        match=r"An error occurred \(ResourceAlreadyExistsException\) when calling the "
        r"CreateProvisioningTemplate operation: .*already exists",
    ):
        aws(
            *("iot", "create-provisioning-template", *named, *body),
            *("--provisioning-role-arn", role),
        )
    tags = aws("iot", "list-tags-for-resource", "--resource-arn", made["templateArn"])
    assert tags["tags"] == [{"Key": "team", "Value": "factory"}]
    second = aws(
        *("iot", "create-provisioning-template-version", *named, *body, "--set-as-default")
    )
    assert (second["versionId"], second["isDefaultVersion"]) == (2, True)
    aws("iot", "update-provisioning-template", *named, "--enabled", "--description", "the guide's")
    described = aws("iot", "describe-provisioning-template", *named)
    assert described["defaultVersionId"] == 2
    assert described["enabled"] is True
    assert described["description"] == "the guide's"
    assert described["provisioningRoleArn"] == role
    assert described["type"] == "FLEET_PROVISIONING"
    assert json.loads(described["templateBody"]) == json.loads(guide_template(name))
    with pytest.raises(CommandFailed, match="DeleteConflictException"):
        aws("iot", "delete-provisioning-template-version", *named, "--version-id", "2")
    aws("iot", "delete-provisioning-template-version", *named, "--version-id", "1")
    listed = aws("iot", "list-provisioning-template-versions", *named)
    assert [version["versionId"] for version in listed["versions"]] == [2]
    aws("iot", "delete-provisioning-template", *named)
    with pytest.raises(
        CommandFailed,
        match=r"An error occurred \(ResourceNotFoundException\) when calling the "
        r"DescribeProvisioningTemplate operation: ",
    ):
        aws("iot", "describe-provisioning-template", *named)


def test_provisioning_by_trusted_user(
    aws: Aws, server: Server, fleet: Fleet, name: str, tmp_path: Path
) -> None:
    """An installer, as a user and as a role, can make claims for one template and nothing else."""
    allowed = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["iot:CreateProvisioningClaim"],
                "Resource": [arn(f"provisioningtemplate/{fleet.template}")],
            }
        ],
    }
    (tmp_path / "claims.json").write_text(json.dumps(allowed))
    user = aws("iam", "create-user", "--user-name", f"{name}-installer")["User"]["Arn"]
    aws(
        *("iam", "put-user-policy", "--user-name", f"{name}-installer"),
        *("--policy-name", "claims", "--policy-document", "file://claims.json"),
    )
    key = aws("iam", "create-access-key", "--user-name", f"{name}-installer")["AccessKey"]
    installer = credentials(key)
    claim = aws(
        *("iot", "create-provisioning-claim", "--template-name", fleet.template), as_=installer
    )
    assert set(claim) == {"certificateId", "certificatePem", "keyPair", "expiration"}
    with pytest.raises(
        CommandFailed,
        match=r"An error occurred \(AccessDeniedException\) when calling the DescribeThing "
        rf"operation: User: {user} is not authorized to perform: iot:DescribeThing on resource: "
        rf"{arn('thing/lamp')} because no identity-based policy allows the iot:DescribeThing",
    ):
        aws("iot", "describe-thing", "--thing-name", "lamp", as_=installer)
    with pytest.raises(CommandFailed, match="AccessDeniedException"):
        aws("iot", "create-provisioning-claim", "--template-name", "another", as_=installer)

    # "the mobile app or web application uses the IAM role"
    trust = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": user}, "Action": "sts:AssumeRole"}],
    }
    role = create_role(aws, tmp_path, f"{name}-trusted", trust)
    aws(
        *("iam", "put-role-policy", "--role-name", f"{name}-trusted"),
        *("--policy-name", "claims", "--policy-document", "file://claims.json"),
    )
    assumed = aws(
        *("sts", "assume-role", "--role-arn", role, "--role-session-name", "phone-1"),
        as_=installer,
    )
    phone = credentials(assumed["Credentials"])
    who = aws("sts", "get-caller-identity", as_=phone)
    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}-trusted/phone-1"
    claim = aws(*("iot", "create-provisioning-claim", "--template-name", fleet.template), as_=phone)
    with pytest.raises(CommandFailed, match="AccessDeniedException"):
        aws("iot", "list-certificates", as_=phone)

    # the device gets the claim and has five minutes
    (tmp_path / "claim.pem").write_text(claim["certificatePem"])
    (tmp_path / "claim.key").write_text(claim["keyPair"]["PrivateKey"])
    identity = Identity(tmp_path / "claim.pem", tmp_path / "claim.key", claim["certificateId"])
    trusted = Fleet(fleet.name, fleet.template, fleet.device_policy, "", identity)
    own = onboard(server, trusted, "by-hand", tmp_path / "device")
    described = aws("iot", "describe-certificate", "--certificate-id", own.id)
    assert described["certificateDescription"]["status"] == "ACTIVE"
    listed = aws("iot", "list-certificates")["certificates"]
    assert claim["certificateId"] not in {each["certificateId"] for each in listed}


def test_pages_on_the_command_line(aws: Aws, server: Server, name: str) -> None:
    """`--page-size`, `--max-items` and `--starting-token` (AWS CLI user guide, "Pagination")."""
    for number in range(5):
        server.iot.create_thing_group(thingGroupName=f"{name}-{number}")
    found: list[str] = []
    token: tuple[str, ...] = ()
    while True:
        listed = aws(
            *("iot", "list-thing-groups", "--name-prefix-filter", f"{name}-"),
            *("--page-size", "1", "--max-items", "2", *token),
        )
        found += [group["groupName"] for group in listed["thingGroups"]]
        if "NextToken" not in listed:
            break
        token = ("--starting-token", listed["NextToken"])
    assert found == [f"{name}-{number}" for number in range(5)]
