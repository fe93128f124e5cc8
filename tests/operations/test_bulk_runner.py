"""How the runner works tasks off: stopped, ended by the power, waiting, failing.

Source: AWS IoT API Reference, StartThingRegistrationTask and its neighbours.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetgate.buckets import Buckets
from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    Error,
    InputFileError,
    InvalidRequestException,
    ServiceUnavailableException,
)
from fleetgate.reports import Reports
from fleetgate.store.engine import OutcomeUnknown
from fleetgate.store.registration_tasks import MAX_MESSAGE
from tests.operations import foreign
from tests.operations.bulk import (
    ABSENT,
    DAY,
    READ,
    REGISTER,
    BulkRegistry,
    TroubledStore,
    body,
    bulk_registry,
    line,
)
from tests.operations.conftest import START, Registry, csr
from tests.operations.roles import set_rights


@pytest.fixture
def bulk(registry: Registry, tmp_path: Path) -> BulkRegistry:
    return bulk_registry(registry, tmp_path)


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


# --- waiting -------------------------------------------------------------------------------------


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


def waits_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "bulk-waits" in each.getMessage()]


@pytest.mark.parametrize(
    ("times", "passing", "status"),
    [(2, True, "Completed"), (30, True, "Completed"), (1, False, "Failed")],
)
def test_a_bucket_that_is_away_is_tried_again(
    bulk: BulkRegistry,
    caplog: pytest.LogCaptureFixture,
    times: int,
    passing: bool,
    status: str,
) -> None:
    bulk.put(line("a"))
    task_id = bulk.start()
    error = InputFileError("S3 is away", passing=passing)
    error.add_note("for operators")
    bulk.restart(buckets=AwayBuckets(bulk.registry.services.bulk.buckets, times, error))
    ended = bulk.work(task_id)
    assert ended["status"] == status
    assert ended["message"] == (
        None if status == "Completed" else "S3 is away; no line of the file is done"
    )
    told = [f"event=bulk-waits task={task_id} cause='S3 is away; for operators'"]
    assert waits_told(caplog) == (told if passing else [])
    assert passing or "for operators" in caplog.text


def half_done(bulk: BulkRegistry) -> str:
    """A task the server ended in: 4 of 12 lines are done."""

    class Stop(BaseException):
        pass

    def stop(write: int) -> None:
        if write == 2:
            raise Stop

    bulk.put(*(line(f"t{number:02}") for number in range(12)))
    task_id = bulk.start()
    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, after=stop))
    with pytest.raises(Stop):
        bulk.work(task_id)
    bulk.restart(inner)
    return task_id


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "half done"])
def test_a_bucket_that_is_not_set_any_more_is_waited_for(
    bulk: BulkRegistry, caplog: pytest.LogCaptureFixture, fresh: bool
) -> None:
    if fresh:
        bulk.put(*(line(f"t{number:02}") for number in range(12)))
    task_id = bulk.start() if fresh else half_done(bulk)
    known = bulk.registry.services.bulk.buckets
    bulk.restart(buckets=Buckets({}, "", "eu-west-1"))

    def set_again() -> None:
        bulk.registry.services.bulk.buckets = known

    waiting, ended = bulk.work_through_a_wait(task_id, set_again)
    assert waiting["status"] == "InProgress"
    assert "`factory`: this server knows no such bucket" in waiting["message"]
    assert (ended["status"], ended["successCount"]) == ("Completed", 12)
    assert ended["message"] is None
    (told,) = waits_told(caplog)
    assert "this server knows no such bucket" in told


def test_a_directory_that_is_missing_is_waited_for(
    bulk: BulkRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    """Its path is for operators alone."""
    task_id = half_done(bulk)
    directory = bulk.directory / "factory"
    directory.rename(bulk.directory / "away")

    def back() -> None:
        (bulk.directory / "away").rename(directory)

    waiting, ended = bulk.work_through_a_wait(task_id, back)
    assert waiting["message"] == (
        "the directory of bucket `factory` cannot be used: No such file or directory"
    )
    (told,) = waits_told(caplog)
    assert str(directory) in told
    assert (ended["status"], ended["successCount"]) == ("Completed", 12)


@pytest.mark.parametrize(("begun", "status"), [(True, "Completed"), (False, "Failed")])
def test_a_bucket_no_service_has_is_waited_for_by_tasks_that_have_begun(
    bulk: BulkRegistry, begun: bool, status: str
) -> None:
    """A server that starts without the option asks the S3 service for it."""
    bulk.put(*(line(f"t{number:02}") for number in range(12)))
    task_id = half_done(bulk) if begun else bulk.start()
    error = InputFileError("no bucket `factory`", no_bucket=True)
    bulk.restart(buckets=AwayBuckets(bulk.registry.services.bulk.buckets, 2, error))
    assert bulk.work(task_id)["status"] == status


def test_a_waiting_task_can_be_stopped(bulk: BulkRegistry) -> None:
    task_id = half_done(bulk)
    bulk.restart(buckets=Buckets({}, "", "eu-west-1"))
    bulk.runner.waits = (3600,)
    waiting, ended = bulk.work_through_a_wait(
        task_id,
        lambda: bulk.registry.start("iot", "StopThingRegistrationTask", {"task_id": task_id}),
    )
    assert waiting["message"]
    assert ended["status"] == "Cancelled"
    assert ended["message"] == "stopped; the first 4 lines of the file are done"


def test_a_waiting_task_ends_after_thirty_days_too(bulk: BulkRegistry) -> None:
    task_id = half_done(bulk)
    bulk.restart(buckets=Buckets({}, "", "eu-west-1"))

    def later() -> None:
        bulk.registry.clock.now = START + 30 * DAY

    _, ended = bulk.work_through_a_wait(task_id, later)
    assert ended["status"] == "Failed"
    assert "ended after 30 days" in ended["message"]


@pytest.mark.parametrize("away", range(1, 5))
def test_a_task_says_that_it_waits_for_the_database(
    bulk: BulkRegistry, caplog: pytest.LogCaptureFixture, away: int
) -> None:
    """Whatever cannot be written: its beginning, a batch, its end."""
    bulk.put(*(line(f"t{number}") for number in range(8)))
    task_id = bulk.start()
    trouble = [True]

    def before(write: int) -> None:
        if write >= away and trouble:
            raise ServiceUnavailableException("the disk is full")

    bulk.restart(TroubledStore(bulk.registry.services.store, before=before))
    with caplog.at_level("INFO", "fleetgate.bulk"):
        waiting, ended = bulk.work_through_a_wait(task_id, trouble.clear)
    assert (waiting["status"], waiting["message"]) == ("InProgress", "the disk is full")
    assert waiting["successCount"] == min(max(away - 2, 0) * 4, 8)
    assert (ended["status"], ended["successCount"], ended["message"]) == ("Completed", 8, None)
    assert len(waits_told(caplog)) == 1
    assert ("event=bulk-goes-on" in caplog.text) == (away < 4)


def test_a_cause_that_comes_again_is_told_again(
    bulk: BulkRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    bulk.put(*(line(f"t{number}") for number in range(12)))
    task_id = bulk.start()

    def before(write: int) -> None:
        if write in (2, 4, 7):  # the first batch, begin anew, and again behind a batch
            raise ServiceUnavailableException("the disk is full")

    bulk.restart(TroubledStore(bulk.registry.services.store, before=before))
    assert bulk.work(task_id)["successCount"] == 12
    assert len(waits_told(caplog)) == 2


# --- failing -------------------------------------------------------------------------------------


def test_a_file_that_is_not_there_fails_the_task(bulk: BulkRegistry) -> None:
    ended = bulk.work(bulk.start(input_file_key="absent.jsonl"))
    assert ended["status"] == "Failed"
    assert ended["message"] == (
        "`absent.jsonl` of bucket `factory` cannot be opened: No such file or directory; "
        "no line of the file is done"
    )


def test_what_is_left_of_a_failed_task_is_registered_by_another_one(bulk: BulkRegistry) -> None:
    """With the file behind the lines that are done, blank and bad ones included."""
    lines = ["", *(line(f"t{number:02}") for number in range(5)), "bad", line("t05"), line("t06")]
    bulk.put(*lines)
    task_id = bulk.start()

    def after(write: int) -> None:
        if write == 3:
            bulk.registry.clock.now = START + 30 * DAY

    inner = bulk.registry.services.store
    bulk.restart(TroubledStore(inner, after=after))
    ended = bulk.work(task_id)
    assert ended["message"].endswith("; the first 8 lines of the file are done")
    bulk.restart(inner)
    bulk.put(*lines[8:])
    assert bulk.work(bulk.start())["successCount"] == 1
    assert bulk.things() == [f"t{number:02}" for number in range(7)]


def test_a_long_message_still_says_how_many_lines_are_done(bulk: BulkRegistry) -> None:
    task_id = half_done(bulk)
    error = InputFileError("x" * 5000)
    bulk.restart(buckets=AwayBuckets(bulk.registry.services.bulk.buckets, 1, error))
    ended = bulk.work(task_id)
    assert len(ended["message"]) == MAX_MESSAGE
    assert ended["message"].endswith("; the first 4 lines of the file are done")


def test_a_task_whose_lines_fail_says_so(
    bulk: BulkRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    set_rights(bulk.registry, "bulk", READ)
    with caplog.at_level("INFO", "fleetgate.bulk"):
        ended = bulk.register("", line("a"), line("b"))
    assert ended["status"] == "Completed"
    assert ended["message"].startswith(
        "2 of 2 lines failed, the first: line 2: AccessDeniedException: the task's role is not "
        f"authorized to perform iot:CreateThing; role `{bulk.role}`"
    )
    (told,) = (each for each in caplog.messages if "bulk-ended" in each)
    assert "failed=2" in told
    assert "AccessDeniedException" in told
    set_rights(bulk.registry, "bulk", READ, REGISTER)
    assert bulk.register(line("a"), "", line("b"))["message"] is None
    assert bulk.register(line("a"), "bad", "x")["message"].startswith(
        "2 of 3 lines failed, the first: line 2: InvalidRequestException: the line cannot be read"
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
        assert "was changed while the task was working on it; the first" in ended["message"]
    else:
        with pytest.raises(Stop):
            bulk.work(task_id)
        bulk.restart(inner)
        ended = bulk.work(task_id)
        assert "is not the file the task began with" in ended["message"]
        assert ended["message"].endswith("; the first 200 lines of the file are done")
        assert ended["successCount"] == 200
    assert ended["status"] == "Failed"
    assert ended["successCount"] == len(bulk.report(task_id, "RESULTS")) < 5000


class UnwritableReports(Reports):
    """That cannot be written for a cause, the first `times` times something is to be kept."""

    times = 2

    def __init__(self, directory: Path, cause: int) -> None:
        super().__init__(directory)
        self._cause = cause

    def write(self, task_id: str, kind: str, at: int, lines: bytes) -> None:
        if lines and self.times:
            self.times -= 1
            raise OSError(self._cause, os.strerror(self._cause), str(self.directory))
        super().write(task_id, kind, at, lines)


@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EACCES])
def test_reports_that_cannot_be_written_are_waited_for(
    bulk: BulkRegistry, caplog: pytest.LogCaptureFixture, cause: int
) -> None:
    directory = bulk.directory / "reports"
    bulk.registry.services.bulk.reports = reports = UnwritableReports(directory, cause)
    reports.times = 1 << 30
    bulk.put(line("a"), "bad")

    def writable() -> None:
        reports.times = 0

    waiting, ended = bulk.work_through_a_wait(bulk.start(), writable)
    assert waiting["message"] == f"the reports cannot be written: {os.strerror(cause)}"
    (told,) = waits_told(caplog)
    assert str(directory) in told
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
    assert re.fullmatch(
        "the reports cannot be written: the RESULTS report has 0 of the [0-9]+ bytes written; "
        "the first 4 lines of the file are done",
        ended["message"],
    )


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
