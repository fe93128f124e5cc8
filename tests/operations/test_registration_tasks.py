"""Bulk registration tasks as their operations show them: what they do, rights, reports.

Sources: AWS IoT API Reference, StartThingRegistrationTask and its neighbours; AWS IoT Developer
Guide, "Bulk registration"; AWS General Reference, "AWS IoT Core endpoints and quotas".
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fleetgate.domain.events import THING
from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    InvalidRequestException,
    ResourceNotFoundException,
)
from fleetgate.operations import report_links
from fleetgate.store import iam_roles
from fleetgate.store.engine import Tx
from tests.operations import foreign
from tests.operations.bulk import (
    ABSENT,
    READ,
    REGISTER,
    BulkRegistry,
    TroubledStore,
    body,
    bulk_registry,
    line,
)
from tests.operations.conftest import START, Registry, csr
from tests.operations.roles import add_role, set_rights


@pytest.fixture
def bulk(registry: Registry, tmp_path: Path) -> BulkRegistry:
    return bulk_registry(registry, tmp_path)


# --- tasks ---------------------------------------------------------------------------------------


def test_a_task_from_start_to_end(bulk: BulkRegistry) -> None:
    bulk.put(line("a", Serial="1"), line("b"), line("c d"), "", line("e"))
    task_id = bulk.start()
    begun = bulk.describe(task_id)
    assert begun == {
        "taskId": task_id,
        "creationDate": START,
        "lastModifiedDate": START,
        "templateBody": body(),
        "inputFileBucket": "factory",
        "inputFileKey": "in.jsonl",
        "roleArn": bulk.role,
        "status": "InProgress",
        "message": None,
        "successCount": 0,
        "failureCount": 0,
        "percentageProgress": 0,
    }
    bulk.registry.clock.now = START + 5
    ended = bulk.work(task_id)
    assert ended == {
        **begun,
        "status": "Completed",
        "lastModifiedDate": START + 5,
        "successCount": 3,
        "failureCount": 1,
        "percentageProgress": 100,
        "message": ended["message"],
    }
    assert ended["message"].startswith("1 of 4 lines failed, the first: line 3: ")
    assert bulk.things() == ["a", "b", "e"]
    found = bulk.registry.call("DescribeThing", thing_name="a")
    assert found["attributes"] == {"serial": "1"}
    results = bulk.report(task_id, "RESULTS")
    arn = bulk.registry.arn
    assert results[0] == {
        "lineNumber": 1,
        "offset": 0,
        "response": {"ResourceArns": {"thing": arn("thing/a")}},
    }
    assert [each["lineNumber"] for each in results] == [1, 2, 5]
    (error,) = bulk.report(task_id, "ERRORS")
    assert (error["lineNumber"], error["errorCode"]) == (3, "InvalidRequestException")
    assert error["errorMessage"].startswith("Invalid registration template. Resources.thing")
    text = (bulk.directory / "factory/in.jsonl").read_text()
    assert json.loads(text[error["offset"] :].splitlines()[0])["ThingName"] == "c d"


def test_what_no_database_takes_is_told_all_the_same(bulk: BulkRegistry) -> None:
    ended = bulk.register(line("a\0b\n"), line("c", Serial="\x7f\0"), '{"ThingName": "\\ud800"}')
    assert (ended["status"], ended["successCount"], ended["failureCount"]) == ("Completed", 0, 3)
    assert r"thing name `a\u0000b\u000a` does not match" in ended["message"]
    errors = bulk.report(ended["taskId"], "ERRORS")
    assert [each["lineNumber"] for each in errors] == [1, 2, 3]
    assert "thing name `a\0b\n` does not match" in errors[0]["errorMessage"]
    assert "half of a surrogate pair" in errors[2]["errorMessage"]


@pytest.mark.parametrize("key", ["a\0b", "a\nb", "../a", "a\x7f"])
def test_a_key_with_a_control_character_ends_in_a_message_or_is_refused(
    bulk: BulkRegistry, key: str
) -> None:
    try:
        task_id = bulk.start(input_file_key=key)
    except InvalidRequestException:
        return
    ended = bulk.work(task_id)
    assert ended["status"] == "Failed"
    assert ended["message"].isprintable()
    assert "internal" not in ended["message"]


def test_an_empty_file_is_done_at_once(bulk: BulkRegistry) -> None:
    ended = bulk.register()
    assert (ended["status"], ended["successCount"], ended["failureCount"]) == ("Completed", 0, 0)
    assert ended["percentageProgress"] == 100


def test_the_certificate_of_a_line_is_issued_and_reported(bulk: BulkRegistry) -> None:
    asked = {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"}
    ended = bulk.register(
        line("a", CSR=csr()), line("b", CSR="garbage"), line("c"), template_body=body(asked)
    )
    assert (ended["successCount"], ended["failureCount"]) == (1, 2)
    (result,) = bulk.report(ended["taskId"], "RESULTS")
    id_ = result["response"]["ResourceArns"]["certificate"].rpartition("/")[2]
    described = bulk.registry.call("DescribeCertificate", certificate_id=id_)
    assert described["certificateDescription"]["status"] == "ACTIVE"
    pem = described["certificateDescription"]["certificatePem"]
    assert result["response"]["CertificatePem"] == pem
    principals = bulk.registry.call("ListThingPrincipals", thing_name="a")["principals"]
    assert principals == [result["response"]["ResourceArns"]["certificate"]]
    errors = bulk.report(ended["taskId"], "ERRORS")
    assert [each["errorCode"] for each in errors] == [
        "ResourceRegistrationFailureException",
        "InvalidRequestException",
    ]
    assert "Cannot resolve reference value: {Ref=CSR}" in errors[1]["errorMessage"]


def test_certificates_that_others_signed_and_those_that_are_registered(bulk: BulkRegistry) -> None:
    authority = foreign.authority()
    foreign.register(bulk.registry, authority)
    mine, others = authority.sign("mine"), foreign.authority("Other CA").sign("x")
    ended = bulk.register(
        line("a", PEM=mine),
        line("b", PEM=mine),  # both of one batch: the second one finds it registered
        line("c", PEM=others),
        template_body=body({"CertificatePem": {"Ref": "PEM"}, "Status": "INACTIVE"}),
    )
    assert (ended["successCount"], ended["failureCount"]) == (2, 1)
    results = bulk.report(ended["taskId"], "RESULTS")
    assert len({each["response"]["ResourceArns"]["certificate"] for each in results}) == 1
    (error,) = bulk.report(ended["taskId"], "ERRORS")
    assert "No CA certificate exists" in error["errorMessage"]

    known = bulk.registry.certificate(set_as_active=True)["certificateId"]
    ended = bulk.register(
        line("d", Id=known),
        line("e", Id="0" * 64),
        template_body=body({"CertificateId": {"Ref": "Id"}}),
    )
    assert (ended["successCount"], ended["failureCount"]) == (1, 1)


def test_lines_of_a_batch_see_each_other(bulk: BulkRegistry) -> None:
    ended = bulk.register(line("a", Serial="1"), line("a", Serial="1"), line("a", Serial="2"))
    assert (ended["successCount"], ended["failureCount"]) == (2, 1)
    (error,) = bulk.report(ended["taskId"], "ERRORS")
    assert (error["lineNumber"], error["errorCode"]) == (3, "ResourceRegistrationFailureException")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template_body": "{"}, "Invalid registration template. the template cannot be read"),
        ({"input_file_bucket": "absent"}, "knows no such bucket; .* names `factory`"),
        ({"input_file_key": "../secret"}, "a part that is empty, `.` or `..`"),
        ({"input_file_key": "/etc/passwd"}, "a part that is empty, `.` or `..`"),
        ({"role_arn": "arn:aws:iam::123456789012:role/absent"}, "there is no role"),
    ],
)
def test_what_cannot_be_started(bulk: BulkRegistry, changes: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequestException, match=message):
        bulk.start(**changes)
    assert bulk.registry.call("ListThingRegistrationTasks")["taskIds"] == []


def test_a_server_without_buckets_says_so(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException, match="this server has no buckets"):
        registry.call(
            "StartThingRegistrationTask",
            template_body=body(),
            input_file_bucket="factory",
            input_file_key="in.jsonl",
            role_arn="arn:aws:iam::123456789012:role/absent",
        )


def test_the_role_has_to_trust_the_service(bulk: BulkRegistry) -> None:
    role = add_role(bulk.registry, "stranger", "ec2.amazonaws.com")
    with pytest.raises(InvalidRequestException, match="cannot be assumed by AWS IoT"):
        bulk.start(role_arn=role)


def test_one_task_runs_at_a_time(bulk: BulkRegistry) -> None:
    bulk.put(line("a"))
    first = bulk.start()
    with pytest.raises(InvalidRequestException, match=f"1 bulk registration task can .*{first}"):
        bulk.start()
    bulk.work(first)
    second = bulk.start()
    bulk.registry.call("StopThingRegistrationTask", task_id=second)
    with pytest.raises(InvalidRequestException):  # it is Cancelling
        bulk.start()
    bulk.registry.services.limits = Limits(registration_tasks=2)
    bulk.start()


def test_tasks_nobody_knows(bulk: BulkRegistry) -> None:
    for operation in ("DescribeThingRegistrationTask", "StopThingRegistrationTask"):
        with pytest.raises(ResourceNotFoundException, match=ABSENT):
            bulk.registry.call(operation, task_id=ABSENT)
    # the model has no ResourceNotFoundException for this one
    with pytest.raises(InvalidRequestException, match=ABSENT):
        bulk.registry.call("ListThingRegistrationTaskReports", task_id=ABSENT, report_type="ERRORS")


def test_tasks_are_listed_newest_first_by_status_and_in_pages(bulk: BulkRegistry) -> None:
    bulk.put(line("a"))
    made = []
    for number in range(3):
        bulk.registry.clock.now = START + number
        made.append(bulk.start())
        bulk.work(made[-1])
    made.append(bulk.start())
    call = bulk.registry.call
    everything = call("ListThingRegistrationTasks")["taskIds"]
    assert set(everything[:2]) == {made[2], made[3]}
    assert everything[2:] == [made[1], made[0]]
    assert call("ListThingRegistrationTasks", status="InProgress")["taskIds"] == [made[3]]
    assert call("ListThingRegistrationTasks", status="Failed")["taskIds"] == []
    first = call("ListThingRegistrationTasks", status="Completed", max_results=2)
    rest = call(
        "ListThingRegistrationTasks",
        status="Completed",
        max_results=2,
        next_token=first["nextToken"],
    )
    assert first["taskIds"] + rest["taskIds"] == made[2::-1]
    assert rest["nextToken"] is None


# --- rights --------------------------------------------------------------------------------------


def test_the_role_has_to_be_allowed_to_read_the_file(bulk: BulkRegistry) -> None:
    set_rights(bulk.registry, "bulk", REGISTER)
    ended = bulk.register(line("a"))
    assert ended["status"] == "Failed"
    assert "the task's role is not authorized to perform s3:GetObject" in ended["message"]
    assert "arn:aws:s3:::factory/in.jsonl" in ended["message"]
    assert bulk.things() == []


def test_the_role_is_asked_for_every_line(bulk: BulkRegistry) -> None:
    lamps = {
        "Effect": "Allow",
        "Action": "iot:CreateThing",
        "Resource": "arn:aws:iot:*:*:thing/lamp-*",
    }
    set_rights(bulk.registry, "bulk", READ, lamps)
    ended = bulk.register(line("lamp-1"), line("door-1"), line("lamp-2"))
    assert (ended["successCount"], ended["failureCount"]) == (2, 1)
    (error,) = bulk.report(ended["taskId"], "ERRORS")
    assert (error["lineNumber"], error["errorCode"]) == (2, "AccessDeniedException")
    assert "iot:CreateThing" in error["errorMessage"]
    assert bulk.role in error["errorMessage"]
    assert bulk.things() == ["lamp-1", "lamp-2"]


def test_a_role_that_loses_its_rights_ends_the_task(bulk: BulkRegistry) -> None:
    bulk.put(*(line(f"t{number}") for number in range(12)))
    task_id = bulk.start()

    async def revoke(write: int) -> None:
        if write == 2:  # it begins, and one batch is done
            await inner.write(_remove_role, "bulk")
            bulk.registry.services.iam_epoch += 1

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, after=revoke))
    ended = bulk.work(task_id)
    assert ended["status"] == "Failed"
    assert "the task's role cannot be assumed" in ended["message"]
    assert "there is no role" in ended["message"]
    assert ended["successCount"] == 4
    assert 30 <= ended["percentageProgress"] <= 33


def _remove_role(tx: Tx, name: str) -> None:
    role = iam_roles.find_role(tx, name)
    assert role is not None
    iam_roles.remove_role(tx, role.role_id)


# --- what follows a registration -----------------------------------------------------------------


def test_policies_and_connections_hear_of_changes(bulk: BulkRegistry) -> None:
    made = bulk.registry.certificate(set_as_active=True)
    before = bulk.registry.services.policy_epoch
    published: list[str] = []
    bulk.registry.services.enabled_events = frozenset({THING})
    bulk.registry.services.publish = lambda topic, _: published.append(topic)
    bulk.register(line("a"), "bad", line("b"))
    assert published == ["$aws/events/thing/a/created", "$aws/events/thing/b/created"]
    assert bulk.registry.services.policy_epoch == before  # a new thing changes nobody's rights
    bulk.register(
        line("a", Id=made["certificateId"]),
        template_body=body(
            {"CertificateId": {"Ref": "Id"}, "Status": "INACTIVE"}, {"Status": "REPLACE"}
        ),
    )
    assert bulk.registry.services.policy_epoch > before
    assert bulk.registry.ended == [made["certificateId"]]


# --- reports -------------------------------------------------------------------------------------


def test_reports_are_linked_in_pieces_and_pages(bulk: BulkRegistry) -> None:
    bulk.piece = 400
    bulk.restart()
    ended = bulk.register(*(line(f"t{number}") for number in range(20)))
    call, task_id = bulk.registry.call, ended["taskId"]
    links: list[str] = []
    token: str | None = None
    while True:
        more = {"next_token": token} if token else {}
        answer = call(
            "ListThingRegistrationTaskReports",
            task_id=task_id,
            report_type="RESULTS",
            max_results=2,
            **more,
        )
        assert answer["reportType"] == "RESULTS"
        links += answer["resourceLinks"]
        token = answer["nextToken"]
        if token is None:
            break
    whole = (bulk.directory / f"reports/{task_id}.results.jsonl").read_bytes()
    read = b""
    for link in links:
        path, _, query = link.partition("?")
        fields = dict(each.split("=") for each in query.split("&"))
        piece = report_links.check_link(bytes(32), path, fields, START)
        text = whole[piece.start : piece.end]
        assert text.endswith(b"\n")
        assert piece.kind == "RESULTS"
        read += text
    assert read == whole
    assert len(links) > 3
    errors = call("ListThingRegistrationTaskReports", task_id=task_id, report_type="ERRORS")
    assert errors["resourceLinks"] == []


def test_report_files_are_for_their_owner_alone(bulk: BulkRegistry) -> None:
    ended = bulk.register(line("a"), "bad")
    for kind in ("results", "errors"):
        path = bulk.directory / f"reports/{ended['taskId']}.{kind}.jsonl"
        assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_of_an_undone_batch_is_linked(bulk: BulkRegistry) -> None:
    """Reports reach as far as the checkpoint, whatever is behind it in the file."""
    ended = bulk.register(line("a"))
    path = bulk.directory / f"reports/{ended['taskId']}.results.jsonl"
    size = path.stat().st_size
    with path.open("a") as file:
        file.write("{}\n")
    answer = bulk.registry.call(
        "ListThingRegistrationTaskReports", task_id=ended["taskId"], report_type="RESULTS"
    )
    (link,) = answer["resourceLinks"]
    assert f"/0-{size}?" in link


def test_the_runner_ends_when_it_is_cancelled_whatever_it_does(bulk: BulkRegistry) -> None:
    """Also in the very moment it is woken."""
    bulk.put(line("a"), line("b"))

    async def cancelled_after(turns: int) -> bool:
        working = asyncio.create_task(bulk.runner.run())
        for _ in range(turns):
            await asyncio.sleep(0)
        bulk.runner.wake()
        await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait([working], timeout=10)
        return working.cancelled()

    for turns in range(1, 30):
        if not bulk.registry.call("ListThingRegistrationTasks", status="InProgress")["taskIds"]:
            bulk.start()
        assert bulk.registry.runner.run(cancelled_after(turns)), turns
