"""``fleetgate hook test``: what it prints, and what it says when it cannot be asked.

What it finds out is shown in tests/operations/test_hook_trial.py, the usual way in docs/hooks.md.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleetgate.hook_commands import lines
from tests.integration.fleet import create_fleet, policy_document, signing_request
from tests.integration.server import ACCOUNT, REGION, Server, http, run
from tests.integration.test_template_commands import environment, signed_at

FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"
HOOKS = "/_fleetgate/hooks/test"
NO_ENDPOINT = (
    "the server cannot be asked: it is not said where it is: AWS_ENDPOINT_URL "
    '(eval "$(fleetgate env)" sets it) or --endpoint-url is expected, and not'
)
CODE = """
def decide(event, context):
    print("asked\\x1b[2J\\r\\twell")
    return {"allowProvisioning": True, "parameterOverrides": {"Site": "B"}}


def sign(event, context):
    return {"certificatePem": "\\x1b[31mnone"}
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """A server with functions and a template, and somebody who works on it."""

    server: Server
    directory: Path

    def test(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        variables = {**environment(self.server), **env}
        return run("fleetgate", "hook", "test", *arguments, cwd=self.directory, env=variables)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("desk")
    (directory / "shop.py").write_text(CODE)
    (directory / "device.csr").write_text(signing_request("lamp").csr)
    (directory / "parameters.json").write_text('{"SerialNumber": "7"}')
    functions = [f"--function={name}=python:shop:{name}" for name in ("decide", "sign")]
    path = {"PYTHONPATH": os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")])}
    with Server(directory / "data", *functions, env=path) as server:
        create_fleet(server, directory, "lamps")
        server.iot.update_provisioning_template(
            templateName="lamps-template", preProvisioningHook={"targetArn": f"{FUNCTION}decide"}
        )
        server.iot.create_certificate_provider(
            certificateProviderName="mine",
            lambdaFunctionArn=f"{FUNCTION}sign",
            accountDefaultForOperations=["CreateCertificateFromCsr"],
        )
        with closing(server.client("lambda")) as client:
            client.add_permission(
                FunctionName="sign",
                StatementId="iot",
                Action="lambda:InvokeFunction",
                Principal="iot.amazonaws.com",
            )
        yield Desk(server, directory)


def test_a_missing_permission_is_given_by_the_command_that_is_shown(desk: Desk) -> None:
    arguments = ("lamps-template", "--parameters", "@parameters.json", "--client-id", "me")
    done = desk.test(*arguments)
    assert (done.returncode, done.stderr) == (1, "")
    assert "permission     missing" in done.stdout
    assert "verdict        refused (hook: no-permission)" in done.stdout
    [command] = [line for line in done.stdout.splitlines() if "aws lambda" in line]
    variables = {**environment(desk.server), "AWS_PAGER": ""}
    given = run("sh", "-c", command, cwd=desk.directory, env=variables)
    assert given.returncode == 0, given.stderr
    done = desk.test(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    printed = done.stdout.splitlines()
    assert "found          configured python:shop:decide" in printed
    assert '    "clientId": "me",' in printed
    # what the function wrote, and nothing that a terminal would obey
    assert printed[printed.index("log") + 1 :][:3] == ["  asked?[2J", "   well", ""]
    assert printed[-1] == ('configuration  {"greeting": "hello", "serial": "7", "Site": "B"}')
    as_json = desk.test(*arguments, "--json")
    assert as_json.returncode == 0
    assert json.loads(as_json.stdout)["verdict"]["allowed"] is True
    assert desk.server.iot.list_things()["things"] == []


def test_the_certificate_provider_is_shown(desk: Desk) -> None:
    done = desk.test("lamps-template", "--csr", "device.csr")
    assert (done.returncode, done.stderr) == (1, "")
    printed = done.stdout.splitlines()
    assert "provider       mine" in printed
    assert '    "certificatePem": "\\u001b[31mnone"' in printed
    assert "verdict        refused (certificate provider: refused-certificate)" in printed
    assert not any(line.startswith("hook ") for line in printed)


def test_what_is_not_built_is_told_as_such() -> None:
    tried: dict[str, Any] = {
        "template": {"templateName": "T", "versionId": 2},
        "notes": ["the template is disabled"],
        "certificate": None,
        "certificateProvider": None,
        "hook": None,
        "parameterOverrides": {},
        "verdict": {
            "allowed": False,
            "step": "registration",
            "kind": "ResourceRegistrationFailure",
            "reason": "no",
            "device": {
                "statusCode": 400,
                "errorCode": "ResourceRegistrationFailure",
                "errorMessage": "no",
            },
        },
        "rendered": {
            "thing": {
                "thingName": "t",
                "thingTypeName": "lamps",
                "thingGroups": ["a", "b"],
                "billingGroup": "c",
            },
            "policies": [{"policyName": "p", "policyDocument": {"Statement": []}}],
            "certificate": None,
            "deviceConfiguration": {},
        },
    }
    assert list(lines(tried)) == [
        "template       T, version 2",
        "note           the template is disabled",
        "",
        "verdict        refused (registration: ResourceRegistrationFailure)",
        "device hears   400 ResourceRegistrationFailure: no",
        "",
        "it would have got",
        "thing          t",
        "thing type     lamps",
        "groups         a, b",
        "billing group  c",
        "policy         p",
        '  {"Statement": []}',
        "configuration  {}",
    ]


def test_what_cannot_be_tried_is_one_line(desk: Desk) -> None:
    server = desk.server
    with closing(server.client("iam")) as iam:
        iam.create_user(UserName="ann")
        key = iam.create_access_key(UserName="ann")["AccessKey"]
        iam.put_user_policy(
            UserName="ann",
            PolicyName="look",
            PolicyDocument=policy_document(
                {"Effect": "Allow", "Action": "iot:Describe*", "Resource": "*"}
            ),
        )
    server.iot.update_provisioning_template(
        templateName="lamps-template", removePreProvisioningHook=True
    )
    ann = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    template = "lamps-template"
    cases: list[tuple[tuple[str, ...], dict[str, str], str]] = [
        (("nowhere",), {}, "ResourceNotFoundException: Template nowhere not found"),
        (
            (template,),
            {},
            f"InvalidRequestException: template `{template}` has no pre-provisioning hook",
        ),
        ((template, "--parameters", "[]"), {}, "--parameters has to be a JSON object of text"),
        ((template, "--csr", "no.csr"), {}, "`no.csr`: No such file or directory"),
        (
            (template, "--function", "decide"),
            ann,
            f"AccessDeniedException: User: arn:aws:iam::{ACCOUNT}:user/ann is not authorized to ",
        ),
        (
            (template, "--function", f"{FUNCTION}decide".replace(ACCOUNT, "999999999999")),
            {},
            f"InvalidRequestException: `arn:aws:lambda:{REGION}:999999999999:function:decide` is",
        ),
        (
            (template,),
            {"AWS_SECRET_ACCESS_KEY": "x" * 40},
            "InvalidSignatureException: The request signature we calculated does not match",
        ),
        (
            (template,),
            {"AWS_ACCESS_KEY_ID": "AKIA" + "X" * 16},
            "UnrecognizedClientException: The security token included in the request is invalid",
        ),
        (
            (template, "--endpoint-url", "http://127.0.0.1:9"),
            {},
            "the server cannot be asked: Could not connect to the endpoint URL",
        ),
        ((template,), {"AWS_ENDPOINT_URL": ""}, NO_ENDPOINT),
        ((template, "--endpoint-url", "https://iot.us-east-1.amazonaws.com"), {}, NO_ENDPOINT),
    ]
    for arguments, env, message in cases:
        done = desk.test(*arguments, **env)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith(f"fleetgate: {message}")
        assert done.stderr.count("\n") == 1

    # the function by its ARN is the one by its name; with neither hook nor permission it is refused
    for function in ("decide", f"{FUNCTION}decide", f"{FUNCTION}decide:$LATEST"):
        assert desk.test(template, "--function", function).returncode in (0, 1)


def test_the_commands_for_allow_lists_do_not_go_to_aws_either(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIA" + "X" * 16, "AWS_SECRET_ACCESS_KEY": "x" * 40}
    for region in ({}, {"AWS_DEFAULT_REGION": "cn-north-1"}):
        command = ("fleetgate", "allow-list", "add", "f", "SECRET-1")
        done = run(*command, cwd=tmp_path, env={**keys, **region})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"fleetgate: {NO_ENDPOINT}")


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"{}", "missing required field `templateName`"),
        ({"templateName": "a b"}, "$.templateName"),
        ({"templateName": "T", "claimCertificateId": "c"}, "$.claimCertificateId"),
        ({"templateName": "T", "functionName": "f:1"}, "$.functionName"),
        ({"templateName": "T", "templateVersion": 0}, "$.templateVersion"),
        ({"templateName": "T", "parameters": {"a": 1}}, "$.parameters"),
        ({"templateName": "T", "other": 1}, "unknown field `other`"),
        (b"{", "the request is no JSON"),
    ],
)
def test_a_request_that_is_wrong_names_the_member(desk: Desk, body: Any, rule: str) -> None:
    answer = signed_at(desk.server, HOOKS, body)
    assert answer.status == 400
    assert rule in answer.json()["message"]


def test_it_has_to_be_signed(desk: Desk) -> None:
    url = f"{desk.server.http_url}{HOOKS}"
    body = b'{"templateName": "lamps-template"}'
    assert http(url, method="POST", body=body).status == 403
    assert signed_at(desk.server, HOOKS, body, service="iam").status == 403
    assert http(url).status == 404
