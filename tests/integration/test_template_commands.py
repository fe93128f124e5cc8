"""`fleetgate template` and POST /_fleetgate/templates/render, as people call them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.integration.fleet import ALLOW_ALL, policy_document
from tests.integration.server import REGION, Answer, Server, http, run

RENDER = "/_fleetgate/templates/render"
LAMPS: dict[str, Any] = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Fn::Join": ["-", ["lamp", {"Ref": "SerialNumber"}]]},
                "ThingTypeName": "no-such-type",
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "no-such-policy"}},
    },
    "DeviceConfiguration": {"serial": {"Ref": "SerialNumber"}},
}
MISSING = [
    ("Resources.thing.Properties.ThingTypeName", "thing type `no-such-type` does not exist"),
    ("Resources.policy.Properties.PolicyName", "policy `no-such-policy` does not exist"),
]


def template(directory: Path, body: Any = LAMPS) -> str:
    file = directory / "template.json"
    file.write_text(json.dumps(body))
    return str(file)


def csr(directory: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string("CN=lamp 7,O=Lamps")
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    file = directory / "device.csr"
    file.write_bytes(request.public_bytes(Encoding.PEM))
    return str(file)


# --- without a server ----------------------------------------------------------------------------


def test_lint_of_a_good_template(tmp_path: Path) -> None:
    done = run("fleetgate", "template", "lint", template(tmp_path), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "has to be brought: SerialNumber",
        "reply: 57 bytes as JSON, 46 bytes as CBOR, without what is brought",
        "0 errors, 0 warnings",
    ]


def test_lint_tells_all_errors_by_place_rule_and_value(tmp_path: Path) -> None:
    body = json.loads(json.dumps(LAMPS))
    body["Mapping"] = {}
    body["Resources"]["thing"]["Properties"]["ThingName"] = {"Ref": "Serial"}
    body["Resources"]["certificate"]["Properties"]["Status"] = "on"
    done = run(
        *("fleetgate", "template", "lint", template(tmp_path, body), "--device-buffer", "100"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[-1] == "5 errors, 0 warnings"
    assert [line.split(":", 2)[1].strip() for line in lines if line.startswith("error")] == [
        "unknown element `Mapping`; known",
        "Resources.thing.Properties.ThingName.Ref",
        "Resources.certificate.Properties.Status",
        "DeviceConfiguration",
        "DeviceConfiguration",
    ]


def test_lint_from_standard_input_as_json(tmp_path: Path) -> None:
    done = run(
        "sh",
        *("-c", f"fleetgate template lint - --type jitp --json < {template(tmp_path)}"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["reply"] is None
    assert {
        "severity": "error",
        "path": "Parameters.SerialNumber",
        "rule": "Cannot resolve reference value: SerialNumber",
        "value": None,
    } in said["problems"]


@pytest.mark.parametrize("stdin", [False, True])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_template_that_is_not_utf_8_is_called_that(
    tmp_path: Path, encoding: str, stdin: bool
) -> None:
    file = tmp_path / "t.json"
    file.write_bytes('{"Description": "Gerät"}'.encode(encoding))
    lint = "fleetgate template lint"
    done = run("sh", "-c", f"{lint} - < {file}" if stdin else f"{lint} t.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    what = "standard input" if stdin else "`t.json`"
    assert done.stderr.startswith(f"fleetgate: {what} is not text in UTF-8: ")
    assert done.stderr.count("\n") == 1


def test_of_what_cannot_be_read_there_is_no_reply(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"Resources": {},\n"Parameters": x}\n')
    command = ("fleetgate", "template", "lint", "t.json", "--device-buffer", "9")
    done = run(*command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        (
            "error: the template cannot be read: it is not JSON: expecting value at line 2, "
            "column 15"
        ),
        "1 error, 0 warnings",
    ]
    assert json.loads(run(*command, "--json", cwd=tmp_path).stdout)["reply"] is None


def test_what_every_device_would_be_refused_with_is_an_error(tmp_path: Path) -> None:
    body = json.loads(json.dumps(LAMPS))
    body["Resources"]["thing"]["Properties"]["ThingName"] = {"Fn::Sub": "my lamp/${SerialNumber}"}
    done = run("fleetgate", "template", "lint", template(tmp_path, body), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == (
        "error: Resources.thing.Properties.ThingName: thing name `my lamp/` does not match "
        '[a-zA-Z0-9:_-]{1,128}, whatever is brought, it is `{"Fn::Sub":"my lamp/${SerialNumber}"}`'
    )


def test_render_shows_one_device(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"SerialNumber": "7"}')
    done = run(
        *("fleetgate", "template", "render", template(tmp_path), "--parameters", "@p.json"),
        *("--csr", csr(tmp_path)),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["thing"]["thingName"] == "lamp-7"
    assert shown["certificate"]["certificateIdStandsIn"] is True
    assert shown["certificate"]["signingRequest"]["subject"] == "CN=lamp 7,O=Lamps"
    assert shown["deviceConfiguration"] == {"serial": "7"}
    assert shown["reply"]["fits"]["2048"] == {"json": True, "cbor": True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["template.json"], "ThingName.Fn::Join[1][1].Ref: Cannot resolve reference value: Serial"),
        (["template.json", "--parameters", "[]"], "--parameters has to be a JSON object of text"),
        (["absent.json"], "fleetgate: `absent.json`: No such file or directory"),
        (
            ["template.json", "--parameters", '{"SerialNumber": "1"}', "--csr", "template.json"],
            "invalid certificate signing request",
        ),
        (["template.json", "--type", "jitp"], "DeviceConfiguration: only a fleet provisioning"),
    ],
)
def test_render_says_in_one_line_what_is_wrong(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    template(tmp_path)
    done = run("fleetgate", "template", "render", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


# --- with a server -------------------------------------------------------------------------------


def environment(server: Server) -> Mapping[str, str]:
    found = server.iot._request_signer._credentials.get_frozen_credentials()
    return {
        "AWS_ENDPOINT_URL": server.http_url,
        "AWS_ACCESS_KEY_ID": found.access_key,
        "AWS_SECRET_ACCESS_KEY": found.secret_key,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
    }


def test_lint_asks_the_server_for_what_the_template_names(
    server: Server, iot: Any, tmp_path: Path, name: str
) -> None:
    command = ("fleetgate", "template", "lint", template(tmp_path))
    done = run(*command, "--server", cwd=tmp_path, env=environment(server))
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [f"error: {path}: {rule}" for path, rule in MISSING]
    body = json.loads(json.dumps(LAMPS))
    body["Resources"]["thing"]["Properties"] |= {
        "ThingTypeName": name,
        "ThingGroups": [name],
        "BillingGroup": name,
    }
    body["Resources"]["policy"]["Properties"]["PolicyName"] = name
    iot.create_thing_type(thingTypeName=name)
    iot.create_thing_group(thingGroupName=name)
    iot.create_billing_group(billingGroupName=name)
    iot.create_policy(policyName=name, policyDocument=policy_document(ALLOW_ALL))
    template(tmp_path, body)
    credentials = {key: value for key, value in environment(server).items() if "URL" not in key}
    done = run(*command, "--endpoint-url", server.http_url, cwd=tmp_path, env=credentials)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_server_refuses_to_tell_is_an_error(
    server: Server, tmp_path: Path, name: str
) -> None:
    command = ("fleetgate", "template", "lint", template(tmp_path), "--server")
    wrong = {**environment(server), "AWS_SECRET_ACCESS_KEY": "x" * 40}
    done = run(*command, cwd=tmp_path, env=wrong)
    assert (done.returncode, done.stderr) == (1, "")
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("error: the server cannot be asked: InvalidSignatureException, ")
    assert last == "1 error, 0 warnings"
    with contextlib.closing(server.client("iam")) as iam:
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        iam.put_user_policy(
            UserName=name,
            PolicyName="look",
            PolicyDocument=policy_document(
                {"Effect": "Allow", "Action": "iot:GetPolicy", "Resource": "*"}
            ),
        )
    keys = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    done = run(*command, cwd=tmp_path, env={**environment(server), **keys})
    assert done.returncode == 1
    asked_for, missing, *_, last = done.stdout.splitlines()
    assert "thing type `no-such-type` was not looked up: AccessDeniedException, " in asked_for
    assert missing.endswith(MISSING[1][1])
    assert last == "2 errors, 0 warnings"


def test_lint_says_when_the_server_cannot_be_asked(tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": REGION}
    done = run(
        *("fleetgate", "template", "lint", template(tmp_path)),
        *("--endpoint-url", "http://127.0.0.1:9"),
        cwd=tmp_path,
        env={**keys, "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": REGION},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("fleetgate: the server cannot be asked: Could not connect")


def signed(
    server: Server, body: Any, credentials: Credentials | None = None, service: str = "iot"
) -> Answer:
    return signed_at(server, RENDER, body, credentials, service)


def signed_at(
    server: Server,
    path: str,
    body: Any,
    credentials: Credentials | None = None,
    service: str = "iot",
) -> Answer:
    if credentials is None:
        found = server.iot._request_signer._credentials.get_frozen_credentials()
        credentials = Credentials(found.access_key, found.secret_key)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = AWSRequest("POST", f"{server.http_url}{path}", data=data)
    request.headers["Content-Type"] = "application/json"
    botocore.auth.SigV4Auth(credentials, service, REGION).add_auth(request)
    return http(request.url, method="POST", headers=dict(request.headers), body=data)


def asked(**more: Any) -> dict[str, Any]:
    return {"templateBody": json.dumps(LAMPS), "parameters": {"SerialNumber": "7"}, **more}


def test_the_server_offers_the_same_check(server: Server, tmp_path: Path) -> None:
    request = Path(csr(tmp_path)).read_text()
    answer = signed(server, asked(certificateSigningRequest=request, deviceBuffer=4096))
    assert answer.status == 200
    said = answer.json()
    assert [(each["path"], each["rule"]) for each in said["problems"]] == MISSING
    run(
        *("fleetgate", "template", "lint", template(tmp_path)),
        cwd=tmp_path,
    )
    done = run(
        *("fleetgate", "template", "render", template(tmp_path)),
        *("--parameters", '{"SerialNumber": "7"}', "--csr", csr(tmp_path)),
        cwd=tmp_path,
    )
    assert said["rendered"] == json.loads(done.stdout)


def test_a_template_with_errors_is_answered_too(server: Server) -> None:
    said = signed(server, {"templateBody": '{"Resources": {"x": {}}, "Y": 1}'}).json()
    assert said["rendered"] is None
    errors = [each["path"] for each in said["problems"] if each["severity"] == "error"]
    assert errors == ["", "Resources", "Resources.x.Type"]
    said = signed(server, asked(parameters={})).json()
    assert said["rendered"] is None
    assert said["problems"][0]["rule"] == "Cannot resolve reference value: SerialNumber"
    said = signed(server, asked(certificateSigningRequest="x")).json()
    assert "invalid certificate signing request" in said["problems"][0]["rule"]
    said = signed(server, asked(deviceBuffer=10)).json()
    assert said["problems"][0]["path"] == "DeviceConfiguration"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"{", "SerializationException", "the request is no JSON"),
        (b"[]", "InvalidRequestException", "the request is wrong: Expected `object`"),
        ({}, "InvalidRequestException", "missing required field `templateBody`"),
        ({"templateBody": "{}", "more": 1}, "InvalidRequestException", "unknown field `more`"),
        ({"templateBody": "{}", "parameters": {"a": 1}}, "InvalidRequestException", "`str`"),
        ({"templateBody": "{}", "templateType": "x"}, "InvalidRequestException", "`x` is no type"),
        ({"templateBody": "x" * 70_000}, "InvalidRequestException", "length <= 65536"),
    ],
)
def test_a_request_that_cannot_be_read(server: Server, body: Any, code: str, message: str) -> None:
    answer = signed(server, body)
    assert (answer.status, answer.headers["x-amzn-errortype"].split(":")[0]) == (400, code)
    assert message in answer.json()["message"]


def test_it_takes_a_signature_for_iot(server: Server) -> None:
    body = json.dumps(asked()).encode()
    unsigned = http(f"{server.http_url}{RENDER}", method="POST", body=body)
    assert unsigned.status == 403
    assert "MissingAuthenticationToken" in unsigned.headers["x-amzn-errortype"]
    unknown = signed(server, asked(), Credentials("AKIAUNKNOWNUNKNOWN00", "x" * 40))
    assert unknown.status == 403
    for service in ("sts", "s3"):
        assert signed(server, asked(), service=service).status in (403, 501)
    assert http(f"{server.http_url}{RENDER}").status == 404


def test_what_the_registry_has_is_told_to_those_who_may_look(server: Server, name: str) -> None:
    iam = server.client("iam")
    try:
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        keys = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
        said = signed(server, asked(), keys).json()
        assert said["rendered"]["thing"]["thingName"] == "lamp-7"
        assert [each["severity"] for each in said["problems"]] == ["warning", "warning"]
        assert all("was not looked up" in each["rule"] for each in said["problems"])
        assert "iot:DescribeThingType" in said["problems"][0]["rule"]
        iam.put_user_policy(
            UserName=name,
            PolicyName="look",
            PolicyDocument=policy_document(
                {"Effect": "Allow", "Action": "iot:GetPolicy", "Resource": "*"}
            ),
        )
        rules = [each["rule"] for each in signed(server, asked(), keys).json()["problems"]]
        assert rules[0] == "policy `no-such-policy` does not exist"
        assert "was not looked up" in rules[1]
    finally:
        iam.close()


@pytest.mark.parametrize("keys", [700, 5500])
def test_what_an_answer_costs_is_bounded_whatever_is_sent(server: Server, keys: int) -> None:
    body = json.loads(json.dumps(LAMPS))
    body["Resources"]["thing"]["Properties"] |= {f"k{number}": 0 for number in range(keys)}
    text = json.dumps(body, separators=(",", ":"))
    begun = time.monotonic()
    answer = signed(server, {"templateBody": text})
    assert time.monotonic() - begun < 2.0  # it took 5 seconds for the longer one
    assert len(answer.body) < 50_000
    rules = [each["rule"] for each in answer.json()["problems"]]
    if keys == 700:
        assert len(rules) == 101
        assert rules[-1] == "there are more problems behind these"
    else:
        assert rules == [f"the template has {len(text)} characters; the limit is 10240"]


def test_nothing_is_touched(server: Server, iot: Any, name: str) -> None:
    body = json.loads(json.dumps(LAMPS))
    body["Resources"]["thing"]["Properties"] = {"ThingName": name}
    document = json.loads(policy_document({**ALLOW_ALL, "Resource": f"arn:aws:iot:r:a:{name}"}))
    body["Resources"]["policy"]["Properties"] = {"PolicyDocument": document}
    said = signed(server, asked(templateBody=json.dumps(body))).json()
    made = said["rendered"]["policies"][0]["policyName"]
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_thing(thingName=name)
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.get_policy(policyName=made)


def test_without_authentication_it_is_open_on_this_machine_but_not_to_web_pages(
    tmp_path: Path,
) -> None:
    body = json.dumps(asked()).encode()
    with Server(tmp_path / "data", "--auth", "off") as server:
        url = f"{server.http_url}{RENDER}"
        assert http(url, method="POST", body=body).json()["rendered"]["thing"]
        page = {"Origin": "http://evil.example"}
        assert http(url, method="POST", headers=page, body=body).status == 403
