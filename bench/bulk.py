"""Bulk registration against RegisterThing over HTTP: lines per second, memory, devices meanwhile.

Each line is a thing with an attribute, a certificate for a signing request and a policy, durable
before its report says so; one line in a hundred is bad. The same template is then registered over
HTTP, one thing at a time. While a first, smaller file is worked on, devices are onboarded, and
their time is compared with that on a server at rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench import rig
from bench.fleet import DEVICE_POLICY_NAME, Fleet, make_key, set_up

CALLS = 1000
ONBOARDINGS = 60
_BUCKET = "bench"
_ROLE_RIGHTS = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "iot:*", "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{_BUCKET}/*"},
    ],
}
_BODY = json.dumps(
    {
        "Parameters": {"Name": {"Type": "String"}, "CSR": {"Type": "String"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Ref": "Name"},
                    "AttributePayload": {"serialNumber": {"Ref": "Name"}},
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"},
            },
            "policy": {
                "Type": "AWS::IoT::Policy",
                "Properties": {"PolicyName": DEVICE_POLICY_NAME},
            },
        },
    }
)


def run(options: argparse.Namespace, directory: Path) -> None:
    """Measures and prints."""
    count = options.lines
    rig.heading(f"bulk: {count} lines, one in a hundred bad; {CALLS} calls of RegisterThing")
    bucket = directory / "bucket"
    bucket.mkdir()
    csrs = [make_key(directory, f"line-{number}").csr for number in range(100)]
    _write(bucket / "small.jsonl", "small", max(count // 10, 5000), csrs)
    _write(bucket / "large.jsonl", "large", count, csrs)
    with (
        rig.fleetgate(
            directory / "server", rig.SERVER_CORE, f"--bucket={_BUCKET}={bucket}"
        ) as server,
        server.client("iot") as iot,
    ):
        fleet = set_up(server, directory)
        role = _role(server)
        rig.take_turn(server, fleet.csr_onboardings(ONBOARDINGS), 1)  # warm up
        at_rest = rig.take_turn(server, fleet.csr_onboardings(ONBOARDINGS), 1)
        calls = rig.take_turn(server, _calls(iot, csrs), 1)
        meanwhile, overlapped = _onboard_meanwhile(iot, role, fleet)
        before = server.resident
        task = rig.take_turn(server, [partial(_work, iot, role, "large.jsonl", server)], 1)
        after = server.resident
    if not overlapped:
        print("  the devices took longer than the smaller file: --lines has to be larger")
    rate = count / task.wall
    cost = task.server_cpu / count * 1e3
    rig.line("lines", rate, "/s", f"server {task.server_cpu / task.wall:.0%} of a core")
    rig.line("RegisterThing over HTTP, one at a time", calls.rate, "/s", rig.limit([calls]))
    rig.line("rate, lines / calls", rate / calls.rate, "x")
    rig.line("server CPU of a line", cost, "ms")
    rig.line("server CPU of a call", calls.cost, "ms")
    rig.line("server CPU, line / call", cost / calls.cost, "x")
    rig.line("resident memory before", before / 1e6, "MB")
    rig.line(f"  grown by {count} lines", (after - before) / 1e6, "MB")
    for name, turn in (("at rest", at_rest), ("during a task", meanwhile)):
        rig.line(f"onboarding of a device {name}, median", _median(turn), "ms")
        rig.line("  slowest of them", max(turn.latencies) * 1e3, "ms")


def _write(file: Path, name: str, count: int, csrs: list[str]) -> None:
    with file.open("w") as lines:
        for number in range(count):
            if number % 100 == 50:
                lines.write('{"Name": "no thing name"}\n')
            else:
                line = {"Name": f"{name}-{number:07}", "CSR": csrs[number % len(csrs)]}
                lines.write(json.dumps(line) + "\n")


def _role(server: rig.Fleetgate) -> str:
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust_policy = {**trust, "Principal": {"Service": "iot.amazonaws.com"}}
    with server.client("iam") as iam:
        document = json.dumps({"Version": "2012-10-17", "Statement": trust_policy})
        role = iam.create_role(RoleName="bulk", AssumeRolePolicyDocument=document)["Role"]
        iam.put_role_policy(
            RoleName="bulk", PolicyName="bulk", PolicyDocument=json.dumps(_ROLE_RIGHTS)
        )
        return str(role["Arn"])


def _calls(iot: Any, csrs: list[str]) -> Iterator[partial[Any]]:
    for number in range(CALLS):
        parameters = {"Name": f"call-{number}", "CSR": csrs[number % len(csrs)]}
        yield partial(iot.register_thing, templateBody=_BODY, parameters=parameters)


def _start(iot: Any, role: str, key: str) -> str:
    answer = iot.start_thing_registration_task(
        templateBody=_BODY, inputFileBucket=_BUCKET, inputFileKey=key, roleArn=role
    )
    return str(answer["taskId"])


def _work(iot: Any, role: str, key: str, server: rig.Fleetgate) -> None:
    """One task from start to end; the log says when it is over, so that nobody has to ask."""
    _await_end(iot, _start(iot, role, key))
    if server.popen.poll() is not None:
        raise RuntimeError("the server has ended")


def _await_end(iot: Any, task_id: str) -> None:
    while (task := iot.describe_thing_registration_task(taskId=task_id))["status"] == "InProgress":
        time.sleep(0.2)
    if task["status"] != "Completed":
        raise RuntimeError(f"the task is {task['status']}: {task.get('message')}")


def _onboard_meanwhile(iot: Any, role: str, fleet: Fleet) -> tuple[rig.Turn, bool]:
    """Onboardings while a task goes on, and whether it went on until their end."""
    task_id = _start(iot, role, "small.jsonl")
    turn = rig.take_turn(fleet.server, fleet.csr_onboardings(ONBOARDINGS), 1)
    task = iot.describe_thing_registration_task(taskId=task_id)
    _await_end(iot, task_id)
    return turn, task["status"] == "InProgress"


def _median(turn: rig.Turn) -> float:
    return statistics.median(turn.latencies) * 1e3
