"""Bulk registration tasks as their operations show them, and how the runner works them off.

Sources: AWS IoT API Reference, StartThingRegistrationTask and its neighbours; AWS IoT Developer
Guide, "Bulk registration"; AWS General Reference, "AWS IoT Core endpoints and quotas".
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetgate.domain.events import THING
from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    Error,
    InputFileError,
    InvalidRequestException,
    ResourceNotFoundException,
    ServiceUnavailableException,
)
from fleetgate.operations import report_links
from fleetgate.reports import Reports
from fleetgate.store import iam_roles
from fleetgate.store.engine import OutcomeUnknown, Tx
from tests.operations import foreign
from tests.operations.bulk import (
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

ABSENT = "00000000-0000-4000-8000-000000000000"
DAY = 86400.0


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
    }
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
    assert "is not authorized to perform s3:GetObject" in ended["message"]
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
    assert "cannot be assumed" in ended["message"]
    assert "there is no role" in ended["message"]
    assert ended["successCount"] == 4
    assert 30 <= ended["percentageProgress"] <= 33


def _remove_role(tx: Tx, name: str) -> None:
    role = iam_roles.find_role(tx, name)
    assert role is not None
    iam_roles.remove_role(tx, role.role_id)


# --- stopping, waiting, going on -----------------------------------------------------------------


def test_a_stopped_task_ends_at_the_next_batch(bulk: BulkRegistry) -> None:
    bulk.put(*(line(f"t{number}") for number in range(12)))
    task_id = bulk.start()

    def after(write: int) -> Awaitable[Any] | None:
        if write != 3:  # it begins, and two batches are done
            return None
        return bulk.registry.start("iot", "StopThingRegistrationTask", {"task_id": task_id})

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, after=after))
    ended = bulk.work(task_id)
    assert (ended["status"], ended["successCount"]) == ("Cancelled", 8)
    assert len(bulk.things()) == 8
    assert len(bulk.report(task_id, "RESULTS")) == 8
    with pytest.raises(InvalidRequestException, match="is Cancelled: it cannot be stopped"):
        bulk.registry.call("StopThingRegistrationTask", task_id=task_id)


@pytest.mark.parametrize("crash", range(1, 6))
@pytest.mark.parametrize("stored", [False, True], ids=["lost", "stored"])
def test_a_task_goes_on_where_it_was_whenever_the_server_ends(
    bulk: BulkRegistry, crash: int, stored: bool
) -> None:
    """The power goes before or after the n-th commit; nobody hears of its outcome."""
    asked = {"CertificateSigningRequest": csr(), "Status": "ACTIVE"}
    lines = [line(f"t{number}") if number % 5 else "bad" for number in range(14)]
    bulk.put(*lines)
    task_id = bulk.start(body(asked))

    class PowerCut(BaseException):
        """Nothing that runs survives it."""

    def cut(write: int) -> None:
        if write == crash:
            raise PowerCut

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, **{"after" if stored else "before": cut}))
    with pytest.raises(PowerCut):
        bulk.work(task_id)
    if not stored:  # what the lost transaction had written behind the checkpoint
        for path in (bulk.directory / "reports").glob("*"):
            with path.open("a") as file:
                file.write('{"half a line')
    bulk.restart(inner)
    ended = bulk.work(task_id)
    assert (ended["status"], ended["successCount"], ended["failureCount"]) == ("Completed", 11, 3)
    results = bulk.report(task_id, "RESULTS")
    assert [each["lineNumber"] for each in results] == [n + 1 for n in range(14) if n % 5]
    assert [each["lineNumber"] for each in bulk.report(task_id, "ERRORS")] == [1, 6, 11]
    reported = {each["response"]["ResourceArns"]["certificate"] for each in results}
    registered = bulk.registry.call("ListCertificates", page_size=250)["certificates"]
    assert {each["certificateArn"] for each in registered} == reported


@pytest.mark.parametrize("known", [True, False])
def test_a_database_that_is_away_for_a_moment_is_waited_for(
    bulk: BulkRegistry, known: bool
) -> None:
    """Also when nobody knows whether what was under way is stored: it is."""
    bulk.put(*(line(f"t{number}") for number in range(10)))
    task_id = bulk.start()

    def away(write: int) -> None:
        if write == 3:
            failure = ServiceUnavailableException("the database is away")
            raise failure from (None if known else OutcomeUnknown())

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, **{"before" if known else "after": away}))
    ended = bulk.work(task_id)
    assert (ended["status"], ended["successCount"]) == ("Completed", 10)
    assert len(bulk.report(task_id, "RESULTS")) == 10


def test_a_batch_that_fails_is_done_line_by_line(bulk: BulkRegistry) -> None:
    """The CA is switched off after the certificates of the batch were verified."""
    authority = foreign.authority()
    id_ = foreign.register(bulk.registry, authority)
    asked = {"CertificatePem": {"Fn::Select": ["0", [{"Ref": "PEM"}]]}}
    bulk.put(
        line("a", PEM=authority.sign("a")), "", line("b", PEM=authority.sign("b")), "", "nonsense"
    )
    task_id = bulk.start(body(asked))

    def before(write: int) -> Awaitable[Any] | None:
        if write != 2:
            return None
        params = {"certificate_id": id_, "new_status": "INACTIVE"}
        bulk.registry.services = replace(bulk.registry.services, store=inner)
        return bulk.registry.start("iot", "UpdateCACertificate", params)

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, before=before))
    ended = bulk.work(task_id)
    assert (ended["status"], ended["successCount"], ended["failureCount"]) == ("Completed", 0, 3)
    errors = bulk.report(task_id, "ERRORS")
    assert [each["lineNumber"] for each in errors] == [1, 3, 5]
    assert errors[0]["errorCode"] == "ResourceRegistrationFailureException"
    assert "INACTIVE" in errors[0]["errorMessage"]
    assert bulk.things() == []


def test_a_defect_of_one_line_spares_the_others(bulk: BulkRegistry) -> None:
    bulk.put(*(line(f"t{number}") for number in range(6)))
    task_id = bulk.start()

    def defect(write: int) -> None:
        if write in (2, 4):  # the first batch; of its lines done one by one the second
            raise RuntimeError("a defect")

    bulk.restart(TroubledStore(bulk.registry.services.store, before=defect))
    ended = bulk.work(task_id)
    assert (ended["status"], ended["successCount"], ended["failureCount"]) == ("Completed", 5, 1)
    (error,) = bulk.report(task_id, "ERRORS")
    assert (error["lineNumber"], error["errorCode"]) == (2, "InternalFailureException")
    assert "a defect" not in error["errorMessage"]


class AwayBuckets:
    """Buckets whose files cannot be opened, the first `times` times."""

    def __init__(self, behind: Any, times: int, error: Error) -> None:
        self._behind, self._times, self._error = behind, times, error

    def refusal(self, bucket: str, key: str) -> str:  # noqa: ARG002 - the protocol's
        return ""

    async def open(self, bucket: str, key: str) -> Any:
        self._times -= 1
        if self._times >= 0:
            raise self._error
        return await self._behind.open(bucket, key)


@pytest.mark.parametrize(
    ("times", "passing", "status"),
    [(2, True, "Completed"), (3, True, "Failed"), (1, False, "Failed")],
)
def test_a_bucket_that_is_away_is_tried_again(
    bulk: BulkRegistry, times: int, passing: bool, status: str
) -> None:
    bulk.put(line("a"))
    task_id = bulk.start()
    error = InputFileError("S3 is away", passing=passing)
    bulk.restart(buckets=AwayBuckets(bulk.registry.services.bulk.buckets, times, error))
    ended = bulk.work(task_id)
    assert ended["status"] == status
    assert ended["message"] == (None if status == "Completed" else "S3 is away")


def test_a_file_that_is_not_there_fails_the_task(bulk: BulkRegistry) -> None:
    ended = bulk.work(bulk.start(input_file_key="absent.jsonl"))
    assert ended["status"] == "Failed"
    assert ended["message"] == (
        "`absent.jsonl` of bucket `factory` cannot be opened: No such file or directory"
    )


@pytest.mark.parametrize("when", ["while it works", "while the server is down"])
def test_a_file_that_changes_fails_the_task(bulk: BulkRegistry, when: str) -> None:
    lines = [line(f"t{number:06}", Serial="x" * 80) for number in range(5000)]
    bulk.put(*lines)
    bulk.batch_lines = 100
    task_id = bulk.start()
    path = bulk.directory / "factory/in.jsonl"

    class Stop(BaseException):
        pass

    def after(write: int) -> None:
        if write == 3:
            with path.open("a") as file:
                file.write(line("more"))
            if when != "while it works":
                raise Stop

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, after=after))
    if when == "while it works":
        ended = bulk.work(task_id)
        assert "was changed while the task was working on it" in ended["message"]
    else:
        with pytest.raises(Stop):
            bulk.work(task_id)
        bulk.restart(inner)
        ended = bulk.work(task_id)
        assert "is not the file the task began with" in ended["message"]
        assert ended["successCount"] == 200
    assert ended["status"] == "Failed"
    assert ended["successCount"] == len(bulk.report(task_id, "RESULTS")) < 5000


class FullReports(Reports):
    """On a disk that is full, the first `times` times something is to be kept."""

    times = 2

    def write(self, task_id: str, kind: str, at: int, lines: bytes) -> None:
        if lines and self.times:
            self.times -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(task_id, kind, at, lines)


def test_a_disk_that_is_full_is_waited_for(bulk: BulkRegistry) -> None:
    bulk.registry.services.bulk.reports = FullReports(bulk.directory / "reports")
    ended = bulk.register(line("a"), "bad")
    assert (ended["status"], ended["successCount"], ended["failureCount"]) == ("Completed", 1, 1)
    assert len(bulk.report(ended["taskId"], "RESULTS")) == 1


def test_a_template_that_became_too_large_fails_the_task(bulk: BulkRegistry) -> None:
    document = {"Version": "2012-10-17", "Statement": [REGISTER]}
    policy = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}
    bulk.put(line("a"))
    task_id = bulk.start(json.dumps({"Resources": {"policy": policy}}))
    bulk.registry.services.limits = Limits(policy_document_characters=10)
    ended = bulk.work(task_id)
    assert ended["status"] == "Failed"
    assert "the limit is 10" in ended["message"]


def test_reports_that_are_gone_fail_the_task(bulk: BulkRegistry) -> None:
    bulk.put(*(line(f"t{number}") for number in range(12)))
    task_id = bulk.start()

    def after(write: int) -> None:
        if write == 2:
            (bulk.directory / f"reports/{task_id}.results.jsonl").unlink()

    bulk.restart(TroubledStore(bulk.registry.services.store, after=after))
    ended = bulk.work(task_id)
    assert ended["status"] == "Failed"
    assert "it has 0 bytes" in ended["message"]


def test_a_task_ends_after_thirty_days_and_is_forgotten_thirty_days_later(
    bulk: BulkRegistry,
) -> None:
    bulk.put(*(line(f"t{number}") for number in range(12)))
    task_id = bulk.start()

    def after(write: int) -> None:
        if write == 2:
            bulk.registry.clock.now = START + 30 * DAY

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, after=after))
    ended = bulk.work(task_id)
    assert (ended["status"], ended["successCount"]) == ("Failed", 4)
    assert "ended after 30 days" in ended["message"]
    bulk.restart(inner)
    for days, kept in ((59, [task_id]), (61, [])):
        bulk.registry.clock.now = START + days * DAY
        bulk.registry.runner.run(bulk.runner.sweep())
        assert bulk.registry.call("ListThingRegistrationTasks")["taskIds"] == kept
        assert bool(os.listdir(bulk.directory / "reports")) == bool(kept)  # noqa: PTH208


def test_reports_of_nobody_are_swept(bulk: BulkRegistry) -> None:
    bulk.reports.write(ABSENT, "ERRORS", 0, b"{}\n")
    bulk.registry.runner.run(bulk.runner.sweep())
    assert not bulk.reports.task_ids()


def test_the_runner_takes_up_what_is_started_and_what_was_left(bulk: BulkRegistry) -> None:
    bulk.put(line("a"))
    left = bulk.start()

    async def both() -> list[str]:
        statuses: list[str] = []

        async def status(task_id: str) -> str:
            described = await bulk.registry.start(
                "iot", "DescribeThingRegistrationTask", {"task_id": task_id}
            )
            return str(described["status"])

        working = asyncio.create_task(bulk.runner.run())
        started = ""
        while len(statuses) < 2:
            await asyncio.sleep(0.001)
            if await status(left) == "Completed" and not started:
                statuses.append("Completed")
                params = {
                    "template_body": body(),
                    "input_file_bucket": "factory",
                    "input_file_key": "in.jsonl",
                    "role_arn": bulk.role,
                }
                answer = await bulk.registry.start("iot", "StartThingRegistrationTask", params)
                started = answer["taskId"]
            elif started and await status(started) == "Completed":
                statuses.append("Completed")
        working.cancel()
        await asyncio.wait([working])
        return statuses

    assert bulk.registry.runner.run(both()) == ["Completed", "Completed"]


def test_a_reset_ends_tasks_and_removes_reports(bulk: BulkRegistry) -> None:
    bulk.put(*(line(f"t{number}") for number in range(12)))
    task_id = bulk.start()

    async def reset(write: int) -> None:
        if write == 2:
            await inner.reset()
            bulk.registry.services.bulk.reset()
            bulk.reports.write(task_id, "RESULTS", 0, b"{}\n")  # of a batch that was under way

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, after=reset))
    bulk.registry.runner.run(bulk.runner.work(task_id))
    assert not bulk.reports.task_ids()
    assert bulk.things() == []


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
