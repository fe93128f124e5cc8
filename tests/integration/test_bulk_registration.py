"""Bulk registration with boto3: a directory or an S3 service, reports, stopping, `kill -9`.

Sources: AWS IoT Developer Guide, "Bulk registration"; AWS IoT API Reference,
StartThingRegistrationTask and its neighbours.
"""

from __future__ import annotations

import collections
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.integration.fleet import (
    ALLOW_ALL,
    Request,
    create_role,
    policy_document,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice
from tests.integration.refusal import everything, members, pages, refusal
from tests.integration.server import Server, http
from tests.postgresql import Cluster

LINES = int(os.environ.get("BULK_LINES", "2000"))
"""Lines of the file in whose middle the server is killed: BULK_LINES=100000 takes some minutes."""
PATIENCE = 120.0 + LINES / 100
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}

BODY = json.dumps(
    {
        "Parameters": {"ThingName": {"Type": "String"}, "CSR": {"Type": "String"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {"ThingName": {"Ref": "ThingName"}},
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}},
        },
    }
)


@dataclass
class Factory:
    """A server with the bucket `factory`, what its tasks need, and where a killed one goes on."""

    server: Server
    bucket: Path
    role: str

    def write(self, *lines: str, key: str = "in.jsonl") -> None:
        (self.bucket / key).write_text("\n".join(lines) + "\n")

    def start(self, bucket: str = "factory", key: str = "in.jsonl") -> str:
        answer = self.server.iot.start_thing_registration_task(
            templateBody=BODY, inputFileBucket=bucket, inputFileKey=key, roleArn=self.role
        )
        return str(answer["taskId"])

    def until(self, task_id: str, so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits until the task is so; how it is described then."""
        deadline = time.monotonic() + PATIENCE
        while True:
            described = members(self.server.iot.describe_thing_registration_task(taskId=task_id))
            if so(described):
                return described
            assert time.monotonic() < deadline, described
            time.sleep(0.02)

    def ended(self, task_id: str) -> dict[str, Any]:
        return self.until(task_id, lambda each: each["status"] not in ("InProgress", "Cancelling"))

    def links(self, task_id: str, kind: str) -> list[str]:
        return everything(
            self.server.iot,
            "list_thing_registration_task_reports",
            "resourceLinks",
            taskId=task_id,
            reportType=kind,
        )

    def report(self, task_id: str, kind: str) -> list[dict[str, Any]]:
        """A report, downloaded as anybody downloads it."""
        found = []
        for link in self.links(task_id, kind):
            with urllib.request.urlopen(link, timeout=30) as answer:  # noqa: S310
                found += [json.loads(line) for line in answer]
        return found


def line(name: str, request: Request) -> str:
    return json.dumps({"ThingName": name, "CSR": request.csr})


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return [signing_request(f"device-{number}") for number in range(20)]


def prepare(server: Server, bucket: Path) -> Factory:
    read = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::*/*"}
    register = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
    role = create_role(server, "Bulk", read, register)
    server.iot.create_policy(policyName="device", policyDocument=policy_document(ALLOW_ALL))
    return Factory(server, bucket, role)


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    yield f"http://{host}:{port}"
    service.stop()


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory, s3_url: str) -> Iterator[Factory]:
    directory = tmp_path_factory.mktemp("bulk")
    (directory / "factory").mkdir()
    with Server(
        directory / "data",
        f"--bucket=factory={directory / 'factory'}",
        env={**KEYS, "FLEETGATE_S3_ENDPOINT_URL": s3_url},
    ) as server:
        yield prepare(server, directory / "factory")


def test_what_is_killed_in_the_middle_goes_on_exactly(
    tmp_path: Path, database: str, requests: list[Request], request: pytest.FixtureRequest
) -> None:
    env = {}
    if database == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        env["FLEETGATE_DATABASE"] = cluster.url(cluster.create_database())
    (tmp_path / "factory").mkdir()
    (tmp_path / "fleetgate.toml").write_text(f'[buckets]\nfactory = "{tmp_path / "factory"}"\n')
    server = Server(tmp_path / "data", env=env).start()
    try:
        factory = prepare(server, tmp_path / "factory")
        lines = [line(f"t{n:06}", requests[n % 20]) for n in range(1, LINES + 1)]
        bad = list(range(50, LINES + 1, 100))
        for number in bad:
            lines[number - 1] = "not JSON" if number % 200 else '{"ThingName": 5}'
        factory.write(*lines)
        task_id = factory.start()
        for part in (1, 2):
            done = LINES * part // 4
            factory.until(task_id, lambda each, done=done: each["successCount"] > done)  # type: ignore[misc]
            server.kill()
            server.start()
        ended = factory.ended(task_id)
        assert (ended["status"], ended["percentageProgress"]) == ("Completed", 100)
        assert (ended["successCount"], ended["failureCount"]) == (LINES - len(bad), len(bad))

        results = factory.report(task_id, "RESULTS")
        good = [number for number in range(1, LINES + 1) if number not in bad]
        assert [each["lineNumber"] for each in results] == good
        errors = factory.report(task_id, "ERRORS")
        assert [each["lineNumber"] for each in errors] == bad
        assert {each["errorCode"] for each in errors} == {"InvalidRequestException"}

        things = everything(server.iot, "list_things", "things")
        assert [each["thingName"] for each in things] == [f"t{number:06}" for number in good]
        listed = everything(server.iot, "list_certificates", "certificates")
        registered = collections.Counter(each["certificateArn"] for each in listed)
        reported = [each["response"]["ResourceArns"]["certificate"] for each in results]
        assert registered == collections.Counter(reported)
        assert {each["status"] for each in listed} == {"ACTIVE"}
        for each in results[::331]:
            arns = each["response"]["ResourceArns"]
            name = arns["thing"].rpartition("/")[2]
            principals = server.iot.list_thing_principals(thingName=name)["principals"]
            assert principals == [arns["certificate"]]
            attached = server.iot.list_attached_policies(target=arns["certificate"])["policies"]
            assert [policy["policyName"] for policy in attached] == ["device"]
    finally:
        server.terminate()
    assert "event=defect" not in server.output()


def test_a_server_without_the_bucket_keeps_the_task_waiting(
    tmp_path: Path, requests: list[Request]
) -> None:
    """Until it is started with it again: no line is done twice, none is left out."""
    bucket = tmp_path / "factory"
    option = f"--bucket=factory={bucket}"
    server = Server(tmp_path / "data", option).start()
    try:
        assert f"setting=buckets bucket=factory directory={bucket} " in server.output()
        bucket.mkdir()
        factory = prepare(server, bucket)
        factory.write(*(line(f"t{number}", requests[number % 20]) for number in range(2000)))
        task_id = factory.start()
        factory.until(task_id, lambda each: bool(each["successCount"] > 0))
        server.terminate()
        server.options = ()
        server.start()
        waiting = factory.until(task_id, lambda each: "message" in each)
        assert waiting["status"] == "InProgress"
        assert "`factory`: this server knows no such bucket" in waiting["message"]
        assert 0 < waiting["successCount"] < 2000
        server.terminate()
        server.options = (option,)
        server.start()
        ended = factory.ended(task_id)
        assert (ended["status"], ended["successCount"]) == ("Completed", 2000)
        assert "message" not in ended
        assert len(everything(server.iot, "list_certificates", "certificates")) == 2000
    finally:
        server.terminate()
    assert server.output().count("event=bulk-waits") == 1


def test_a_device_connects_with_what_its_line_was_given(
    factory: Factory, requests: list[Request], tmp_path: Path
) -> None:
    factory.write(line("lamp", requests[0]))
    task_id = factory.start()
    assert factory.ended(task_id)["status"] == "Completed"
    (result,) = factory.report(task_id, "RESULTS")
    pem = result["response"]["CertificatePem"]
    id_ = result["response"]["ResourceArns"]["certificate"].rpartition("/")[2]
    identity = write_identity(tmp_path, "lamp", pem, requests[0].key, id_)
    with PahoDevice(factory.server, identity, "lamp") as device:
        assert device.subscribe("devices/lamp/#") == [1]


def test_an_object_of_an_s3_service(factory: Factory, s3_url: str, requests: list[Request]) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="lines")
    text = "\n".join(line(f"s3-{number}", requests[number]) for number in range(20))
    client.put_object(Bucket="lines", Key="week-12/lamps.jsonl", Body=text.encode())
    client.close()
    ended = factory.ended(factory.start("lines", "week-12/lamps.jsonl"))
    assert (ended["status"], ended["successCount"]) == ("Completed", 20)
    ended = factory.ended(factory.start("lines", "absent"))
    assert ended["status"] == "Failed"
    assert "`absent` of bucket `lines`" in ended["message"]
    assert "does not exist" in ended["message"]


def test_tasks_are_listed_in_pages_and_reports_too(
    factory: Factory, requests: list[Request]
) -> None:
    made = []
    for number in range(3):
        factory.write(line(f"page-{number}", requests[number]), "bad")
        made.append(factory.start())
        factory.ended(made[-1])
    listed = pages(factory.server.iot, "list_thing_registration_tasks", "taskIds", 1)
    assert all(len(page) <= 1 for page in listed)
    assert [each for page in listed for each in page][:3] == made[::-1]
    done = everything(
        factory.server.iot, "list_thing_registration_tasks", "taskIds", status="Completed"
    )
    assert set(made) <= set(done)
    (error,) = factory.report(made[0], "ERRORS")
    assert error["lineNumber"] == 2


def test_a_task_is_stopped(factory: Factory, requests: list[Request]) -> None:
    factory.write(*(line(f"stop-{number}", requests[number % 20]) for number in range(5000)))
    task_id = factory.start()
    refused = refusal(
        factory.server.iot.start_thing_registration_task,
        templateBody=BODY,
        inputFileBucket="factory",
        inputFileKey="in.jsonl",
        roleArn=factory.role,
    )
    assert refused.kind == (400, "InvalidRequestException")
    assert task_id in refused.message
    factory.until(task_id, lambda each: bool(each["successCount"] > 0))
    assert members(factory.server.iot.stop_thing_registration_task(taskId=task_id)) == {}
    ended = factory.ended(task_id)
    assert ended["status"] == "Cancelled"
    assert 0 < ended["successCount"] < 5000
    assert len(factory.report(task_id, "RESULTS")) == ended["successCount"]
    refused = refusal(factory.server.iot.stop_thing_registration_task, taskId=task_id)
    assert refused.kind == (400, "InvalidRequestException")


def test_tasks_nobody_knows(factory: Factory) -> None:
    for operation in ("describe_thing_registration_task", "stop_thing_registration_task"):
        refused = refusal(getattr(factory.server.iot, operation), taskId="absent")
        assert refused.kind == (404, "ResourceNotFoundException")


def test_links_to_reports(factory: Factory, requests: list[Request]) -> None:
    factory.write(line("linked", requests[1]))
    task_id = factory.start()
    factory.ended(task_id)
    (link,) = factory.links(task_id, "RESULTS")
    # the caller's own way to the server, whoever follows it
    assert link.startswith(f"{factory.server.http_url}/_fleetgate/reports/{task_id}/RESULTS/0-")
    answer = http(link)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.body)["lineNumber"] == 1
    changed = [
        link.replace("RESULTS", "ERRORS"),
        link.replace("/0-", "/1-"),
        link.replace("Expires=", "Expires=9"),
        link[:-1] + ("0" if link[-1] != "0" else "1"),
        link.partition("?")[0],
        link.partition("&")[0],
    ]
    for each in changed:
        answer = http(each)
        assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    assert http(f"{factory.server.http_url}/_fleetgate/reports/x").status == 404
    (factory.server.data / f"reports/{task_id}.results.jsonl").unlink()
    answer = http(link)
    assert answer.status == 404
    assert "not kept any more" in answer.json()["message"]


def test_a_report_of_many_links_is_read_whole(factory: Factory, requests: list[Request]) -> None:
    """Errors while the task goes on, and what their link leads to stays; results at its end."""
    lines = (line(f"many-{number}", requests[number % 20]) for number in range(1000))
    factory.write("bad", *lines, "bad")
    task_id = factory.start()
    factory.until(task_id, lambda each: bool(each["failureCount"] > 0))
    (early,) = factory.links(task_id, "ERRORS")
    assert factory.links(task_id, "RESULTS") == []
    first = [json.loads(each) for each in http(early).body.splitlines()]
    assert [each["lineNumber"] for each in first] == [1]
    factory.ended(task_id)
    assert [json.loads(each) for each in http(early).body.splitlines()] == first
    assert [each["lineNumber"] for each in factory.report(task_id, "ERRORS")] == [1, 1002]
    assert len(factory.report(task_id, "RESULTS")) == 1000


def test_a_reset_ends_tasks_and_removes_reports(tmp_path: Path, requests: list[Request]) -> None:
    (tmp_path / "factory").mkdir()
    option = f"--bucket=factory={tmp_path / 'factory'}"
    with Server(tmp_path / "data", option, "--allow-reset") as server:
        factory = prepare(server, tmp_path / "factory")
        lines = (line(f"t{number}", requests[number % 20]) for number in range(3000))
        factory.write("bad", *lines)
        task_id = factory.start()
        factory.until(task_id, lambda each: bool(each["successCount"] > 0))
        (link,) = factory.links(task_id, "ERRORS")
        assert http(f"{server.http_url}/_fleetgate/reset", method="POST").status == 200
        assert http(link).status == 404
        deadline = time.monotonic() + PATIENCE
        while list((server.data / "reports").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert server.iot.list_things()["things"] == []
        assert server.iot.list_thing_registration_tasks()["taskIds"] == []
    assert "event=defect" not in server.output()
