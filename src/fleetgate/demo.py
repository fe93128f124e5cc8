"""``fleetgate demo``: the main job, shown on a server of its own.

The server is a separate process in a temporary directory, set up through boto3 as any AWS
account would be; the devices use `fleetgate.device` over real mutual TLS. The directory stays,
so that what was made can be looked at and used.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fleetgate.data_directory import Endpoints, read_credentials, read_endpoints
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import Step
from fleetgate.device.provision import Provisioned, provision
from fleetgate.errors import Error
from fleetgate.files import write_durably

TEMPLATE = "demo"
START_TIMEOUT = 20.0
_PARALLEL = 4
_SHOWN = 20
_WIDE = 140  # columns from which certificate ids are shown whole

# columns of the table, and the steps of the device library that each stands for
_STEPS: dict[str, tuple[Step, ...]] = {
    "connect": ("prepare", "connect", "subscribe"),
    "create": ("create",),
    "store": ("store",),
    "register": ("register",),
    "reconnect": ("reconnect", "finish"),
}

_ACCOUNT, _REGION = "000000000000", "us-east-1"
_ARN = f"arn:aws:iot:{_REGION}:{_ACCOUNT}"
_RESERVED = (
    "$aws/certificates/create/*",
    "$aws/certificates/create-from-csr/*",
    f"$aws/provisioning-templates/{TEMPLATE}/provision/*",
)

CLAIM_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": [f"{_ARN}:topic/{each}" for each in _RESERVED],
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": [f"{_ARN}:topicfilter/{each}" for each in _RESERVED],
        },
    ],
}

DEVICE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": f"{_ARN}:client/${{iot:ClientId}}",
        },
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": f"{_ARN}:topic/devices/${{iot:ClientId}}/*",
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": f"{_ARN}:topicfilter/devices/${{iot:ClientId}}/*",
        },
    ],
}

ROLE = "demo-provisioning"
REGISTRATION_POLICY = "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration"
TRUST_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "iot.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}

TEMPLATE_BODY = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Fn::Join": ["-", ["demo", {"Ref": "SerialNumber"}]]},
                "AttributePayload": {"serialNumber": {"Ref": "SerialNumber"}},
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "demo-device"}},
    },
    "DeviceConfiguration": {"reportEverySeconds": "60"},
}


def run(devices: int, program: str) -> int:
    """Runs the demo with so many devices; returns the exit code.

    `program` is how the ``fleetgate`` command was called, for the commands to try next.
    """
    _leave_the_environment()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped too
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    directory = Path(tempfile.mkdtemp(prefix="fleetgate-demo-"))
    try:
        return _run(console, directory, devices, program)
    except (KeyboardInterrupt, SystemExit):
        console.print(f"Interrupted. What was made is in {directory}.", highlight=False)
        raise


def _leave_the_environment() -> None:
    """Forgets settings for AWS and proxies: the demo talks to its own server alone."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


def _run(console: Console, directory: Path, devices: int, program: str) -> int:
    data = directory / "server"
    console.print(f"Starting a server in {directory} ...", highlight=False)
    with _server(data) as endpoints:
        console.print("Creating a role, policies, a claim and a template with boto3 ...")
        claim_cert, claim_key = _set_up(directory, data, endpoints)
        results: dict[str, Provisioned | Error] = {}

        def onboard(number: int) -> None:
            serial = f"{number:04d}"
            try:
                results[serial] = provision(
                    Endpoint(endpoints.mqtt_host, endpoints.mqtt_port, endpoints.ca_file),
                    Credentials(claim_cert, claim_key),
                    TEMPLATE,
                    {"SerialNumber": serial},
                    directory / "devices" / serial,
                    key="server" if _by_keys(number) else "P-256",
                )
            except Error as error:
                results[serial] = error
            bar.advance(task)

        columns = (
            TextColumn("Provisioning over mutual TLS"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console) as bar, ThreadPoolExecutor(_PARALLEL) as pool:
            task = bar.add_task("", total=devices)
            list(pool.map(onboard, range(1, devices + 1)))
        things = len(_all_things(data, endpoints))
    failed = {serial: error for serial, error in results.items() if isinstance(error, Error)}
    _show(console, {key: got for key, got in results.items() if not isinstance(got, Error)})
    for serial, error in sorted(failed.items()):
        console.print(f"device {serial} failed: {error.message}", style="red", markup=False)
    provisioned = devices - len(failed)
    console.print(
        f"{provisioned} of {devices} devices provisioned and reconnected with their own "
        f"certificate; the registry lists {things} things."
    )
    if provisioned:
        _show_next_steps(console, directory, min(set(results) - set(failed)), program)
    return 1 if failed or things != devices else 0


def _by_keys(number: int) -> bool:
    return number % 2 == 0


@contextlib.contextmanager
def _server(data: Path) -> Iterator[Endpoints]:
    """A server process on a fresh data directory; it is stopped at the end."""
    data.parent.mkdir(parents=True, exist_ok=True)
    log = data.parent / "server.log"
    command = [sys.executable, "-m", "fleetgate", "serve", "--data", str(data)]
    command += ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]
    command += ["--account", _ACCOUNT, "--region", _REGION]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("FLEETGATE_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=clean, cwd=data.parent
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not (data / "endpoints.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Error(f"the server did not start; it said:\n{log.read_text()}")
            time.sleep(0.02)
        yield read_endpoints(data)
    finally:
        process.terminate()
        process.wait()


def _client(service: str, data: Path, endpoints: Endpoints) -> Any:
    import boto3

    credentials = read_credentials(data)
    return boto3.client(
        service,
        endpoint_url=endpoints.http_url,
        region_name=_REGION,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
    )


def _set_up(directory: Path, data: Path, endpoints: Endpoints) -> tuple[Path, Path]:
    """What an operator does once: role, policies, template, claim. Returns the claim's files."""
    iam = _client("iam", data, endpoints)
    role = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST_POLICY))
    iam.attach_role_policy(RoleName=ROLE, PolicyArn=REGISTRATION_POLICY)
    iot = _client("iot", data, endpoints)
    iot.create_policy(policyName="demo-claim", policyDocument=json.dumps(CLAIM_POLICY))
    iot.create_policy(policyName="demo-device", policyDocument=json.dumps(DEVICE_POLICY))
    iot.create_provisioning_template(
        templateName=TEMPLATE,
        templateBody=json.dumps(TEMPLATE_BODY),
        provisioningRoleArn=role["Role"]["Arn"],
        enabled=True,
    )
    claim = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_policy(policyName="demo-claim", target=claim["certificateArn"])
    certificate, key = directory / "claim.pem", directory / "claim.key"
    write_durably(certificate, claim["certificatePem"].encode(), 0o644)
    write_durably(key, claim["keyPair"]["PrivateKey"].encode(), 0o600)
    return certificate, key


def _all_things(data: Path, endpoints: Endpoints) -> list[str]:
    pages = _client("iot", data, endpoints).get_paginator("list_things").paginate()
    return [thing["thingName"] for page in pages for thing in page["things"]]


def _show(console: Console, results: dict[str, Provisioned]) -> None:
    if not results:
        return
    whole = console.width >= _WIDE
    table = Table(
        title="Devices, and milliseconds per step",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 0),
        pad_edge=False,
    )
    for name in ("device", "by", "thing", "certificate"):
        table.add_column(name, no_wrap=True)
    for name in _STEPS:
        table.add_column(name, justify="right", no_wrap=True)
    for serial, result in sorted(results.items())[:_SHOWN]:
        identifier = result.certificate_id
        table.add_row(
            serial,
            "keys" if _by_keys(int(serial)) else "CSR",
            result.thing_name,
            identifier if whole else f"{identifier[:8]}...",
            *(
                f"{1000 * sum(result.seconds.get(part, 0.0) for part in parts):.0f}"
                for parts in _STEPS.values()
            ),
        )
    console.print(table)
    if len(results) > _SHOWN:
        console.print(f"... and {len(results) - _SHOWN} more")


def _show_next_steps(console: Console, directory: Path, serial: str, program: str) -> None:
    device = directory / "devices" / serial
    data = shlex.quote(str(directory / "server"))
    beside = Path(sys.executable).with_name("aws")
    aws = shlex.quote(str(beside)) if beside.exists() else "aws"
    lines = [
        "",
        "What to try next. Start a server on what the demo made:",
        f"  {program} serve --data {data}",
        "and in another shell, in this directory:",
        f'  eval "$({program} env --data {data})"',
        f"  {aws} iot list-things",
        '  mosquitto_pub -h "$FLEETGATE_MQTT_HOST" -p "$FLEETGATE_MQTT_PORT" \\',
        '    --cafile "$FLEETGATE_MQTT_CA" \\',
        f"    --cert {shlex.quote(str(device / 'certificate.pem'))} \\",
        f"    --key {shlex.quote(str(device / 'private.key'))} \\",
        f"    -i demo-{serial} -t devices/demo-{serial}/telemetry -q 1 -m hello -d",
        f"All of it is in {directory}; remove it when you are done.",
    ]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
