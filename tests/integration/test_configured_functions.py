"""Functions of the configuration, asked by a template's hook and through the Lambda API.

One server asks Python code, a webhook over HTTPS, and a function of another Fleetgate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.functions.https_server import Authority
from tests.functions.webhook_receiver import Receiver, receiving
from tests.integration.fleet import CSR, Fleet, create_fleet, register_topic
from tests.integration.paho_device import PahoDevice
from tests.integration.server import ACCOUNT, REGION, Server, run

SECRET = "0123456789abcdef" * 4
SOURCE = """
import os

def decide(event, context):
    return {
        "allowProvisioning": event["parameters"]["SerialNumber"] != "no",
        "parameterOverrides": {
            "DeviceLocation": os.environ.get("LOCATION", "nowhere"),
            "secrets": " ".join(name for name in os.environ if "AWS_S" in name),
        },
    }
"""


@dataclass(frozen=True, slots=True)
class Configured:
    """A server, what its functions are asked by, and the webhook."""

    server: Server
    fleet: Fleet
    receiver: Receiver


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    directory = tmp_path_factory.mktemp("configured")
    (directory / "decisions.py").write_text(SOURCE)
    (directory / "erp.key").write_text(SECRET)
    (directory / "erp.key").chmod(0o600)
    authority = Authority(directory / "authority")
    other = Server(directory / "other", "--function", "decide=python:decisions:decide")
    with other, receiving(authority, SECRET.encode(), "127.0.0.1") as receiver:
        url = f"https://127.0.0.1:{receiver.port}/hook?key=hush"
        file = directory / "etc.toml"
        file.write_text(
            f"""
            [functions.own]
            python = "decisions:decide"
            environment = {{ LOCATION = "Seattle" }}
            [functions.erp]
            webhook = "{url}"
            secret_file = "erp.key"
            ca_file = "authority/ca.pem"
            allow_networks = ["127.0.0.1"]
            [functions.closed]
            webhook = "{url}"
            secret_file = "erp.key"
            ca_file = "authority/ca.pem"
            [functions.cloud]
            lambda = "{other.http_url}"
            function = "decide"
            [functions.gone]
            lambda = "{other.http_url}"
            function = "gone"
            """
        )
        variables = {
            "FLEETGATE_CONFIG": str(file),
            "AWS_SHARED_CREDENTIALS_FILE": str(other.data / "credentials"),
        }
        with Server(directory / "data", env=variables) as server:
            permit(server, "own", "erp", "closed", "cloud", "gone")
            yield Configured(server, create_fleet(server, directory, "lamps"), receiver)


def permit(server: Server, *functions: str) -> None:
    client = server.client("lambda")
    for name in functions:
        client.add_permission(
            FunctionName=name,
            StatementId="iot",
            Action="lambda:InvokeFunction",
            Principal="iot.amazonaws.com",
            SourceAccount=ACCOUNT,
        )
    client.close()


def registered(configured: Configured, function: str, serial: str) -> tuple[dict[str, Any], str]:
    """What a device hears whose template asks this function, and what the log says of the hook."""
    server, fleet = configured.server, configured.fleet
    server.iot.update_provisioning_template(
        templateName=fleet.template,
        preProvisioningHook={"targetArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"},
    )
    topic = register_topic(fleet.template)
    with PahoDevice(server, fleet.claim, f"{function}-{serial}") as device:
        device.listen(CSR, topic)
        token = device.create()[0]["certificateOwnershipToken"]
        parameters = {"SerialNumber": serial}
        body = {"certificateOwnershipToken": token, "parameters": parameters}
        answer = device.rejected if serial.startswith("no") else device.accepted
        heard = answer(topic, body)
    said = [line for line in server.output().splitlines() if "event=hook-" in line][-1]
    assert "hush" not in said
    assert SECRET not in said
    return heard, said


@pytest.mark.parametrize(
    ("function", "location", "target"),
    [
        ("own", "Seattle", "python:decisions:decide"),
        ("erp", "Seattle", "https://127.0.0.1:"),
        ("cloud", "nowhere", "lambda:http://127.0.0.1:"),
    ],
)
def test_a_hook_is_asked(configured: Configured, function: str, location: str, target: str) -> None:
    heard, said = registered(configured, function, f"ok-{function}")
    assert heard["deviceConfiguration"]["DeviceLocation"] == location
    assert not heard["deviceConfiguration"].get("secrets")
    assert f"configured {target}" in said
    heard, said = registered(configured, function, "no")
    assert heard["errorCode"] == "AccessDenied"
    assert "event=hook-refused" in said


def test_what_the_webhook_was_sent(configured: Configured) -> None:
    registered(configured, "erp", "ok-sent")
    headers, body = configured.receiver.seen[-1]
    assert json.loads(body)["parameters"] == {"SerialNumber": "ok-sent"}
    assert headers["X-Fleetgate-Function"] == "erp"
    assert headers["X-Fleetgate-Request-Id"] in configured.server.output()


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        ("closed", "address-refused", "127.0.0.1, which is not called (loopback"),
        ("gone", "no-function", "Function not found"),
    ],
)
def test_a_hook_that_cannot_be_asked(
    configured: Configured, function: str, kind: str, words: str
) -> None:
    before = len(configured.receiver.seen)
    heard, said = registered(configured, function, "no-answer")
    assert heard["errorCode"] == "AccessDenied"
    assert f"kind={kind}" in said
    assert words in said
    assert len(configured.receiver.seen) == before


def test_the_lambda_api_invokes_them_too(configured: Configured) -> None:
    client = configured.server.client("lambda")
    event = json.dumps({"parameters": {"SerialNumber": "1"}})
    for name, location in (("own", "Seattle"), ("erp", "Seattle"), ("cloud", "nowhere")):
        answer = client.invoke(FunctionName=name, Payload=event)
        assert "FunctionError" not in answer
        value = json.loads(answer["Payload"].read())
        assert value["allowProvisioning"] is True
        assert value["parameterOverrides"]["DeviceLocation"] == location
    client.close()


def test_a_function_that_cannot_be_stops_the_start(tmp_path: Path) -> None:
    ended = run(
        *("fleetgate", "serve", "--data", str(tmp_path / "data"), "--http", "127.0.0.1:0"),
        *("--mqtt", "127.0.0.1:0", "--function", "f=builtin:vault"),
        cwd=tmp_path,
    )
    assert ended.returncode == 1
    assert "functions: `f`: `" in ended.stderr
    assert "is required" in ended.stderr
    assert "Traceback" not in ended.stderr
