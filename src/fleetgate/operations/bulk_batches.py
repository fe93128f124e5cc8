"""Lines of a bulk registration in one transaction, together with the checkpoint behind them.

Theory of operation. `prepare` does what is slow for one line before the transaction: it reads the
line, renders the template, issues or verifies the certificate. `store` registers the lines of a
batch, appends to the reports, and moves the task's checkpoint, all in one transaction: after a
crash either everything of a batch is there or nothing, and what a report has behind the
checkpointed length is cut off. A line whose plan or rights fail has not written anything yet: its
error is reported and the batch goes on. Whatever else fails undoes the batch (the caller then
repeats it line by line).

The database may run `store` more than once. It writes the reports at the checkpointed position
each time, so that this changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from fleetgate.domain.resources import Resources
from fleetgate.domain.template import Template
from fleetgate.errors import (
    AccessDeniedException,
    Error,
    ServiceError,
    ServiceUnavailableException,
    told,
)
from fleetgate.operations import registration
from fleetgate.operations.bulk import Reports
from fleetgate.operations.bulk_lines import Line, parse_line
from fleetgate.operations.call import Call
from fleetgate.operations.registration import Allow, New, Plan
from fleetgate.store import certificates
from fleetgate.store import registration_tasks as tasks
from fleetgate.store.engine import Tx
from fleetgate.store.registration_tasks import RegistrationTask


@dataclass(frozen=True, slots=True)
class Prepared:
    """A line that can be registered, or the error of one that cannot."""

    line: Line
    wanted: Resources | None = None
    new: New | None = None
    error: ServiceError | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A batch that is stored: the task behind it, and what was done."""

    task: RegistrationTask
    plans: Sequence[Plan]


class Interrupted(Exception):
    """The task is not what it was when the batch was made: stopped, gone, or further on."""


class TaskFails(Error):
    """The task cannot go on, now or later; the message says why."""


async def prepare(call: Call, template: Template, line: Line) -> Prepared:
    """What is to be registered for a line, or its error; nothing is stored."""
    try:
        parameters = parse_line(line, call.services.limits.registration_line_characters)
        wanted = registration.rendered(template, parameters)
        wanted, new = await registration.with_certificate(call, wanted)
    except ServiceUnavailableException:
        raise
    except ServiceError as error:
        return Prepared(line, error=error)
    return Prepared(line, wanted, new)


def store(
    tx: Tx,
    call: Call,
    task: RegistrationTask,
    lines: Sequence[Prepared],
    reports: Reports,
    done: tuple[int, int],
    seen: RegistrationTask | None = None,
) -> Stored:
    """Registers the lines; `done` is how many bytes and lines are done then, blank ones included.

    `seen` is the task with what was found out about its input. Raises Interrupted, TaskFails when
    the role may not be used or may not read the file any more or the reports have lost something,
    ServiceUnavailableException when they cannot be written now, and what a registration raises
    while it changes something.
    """
    current = tasks.find_registration_task(tx, task.task_id)
    if current is None or current != replace(task, modified_at=current.modified_at):
        raise Interrupted
    allow = may_read(tx, call, task)
    results, failures, plans = [], [], []
    for each in lines:
        error = each.error
        if each.wanted is not None:
            try:
                made = _plan(tx, call, each.wanted, allow)
            except ServiceUnavailableException:
                raise
            except ServiceError as refused:
                error = refused
            else:
                registration.take_steps(tx, call, made, each.new)
                plans.append(made)
                results.append(_result(tx, call, each.line, each.wanted))
        if error is not None:
            failures.append(_failure(each.line, error))
    succeeded, failed = b"".join(results), b"".join(failures)
    after = replace(
        seen or task,
        modified_at=call.now,
        bytes_done=done[0],
        lines_done=done[1],
        succeeded=task.succeeded + len(results),
        failed=task.failed + len(failures),
        results_bytes=task.results_bytes + len(succeeded),
        errors_bytes=task.errors_bytes + len(failed),
    )
    try:
        reports.write(task.task_id, "RESULTS", task.results_bytes, succeeded)
        reports.write(task.task_id, "ERRORS", task.errors_bytes, failed)
    except OSError as error:
        cause = f"the reports cannot be written: {error.strerror}"
        # what is lost does not come back; a disk that is full or read-only may be mended
        unwritten = TaskFails(cause) if error.errno is None else ServiceUnavailableException(cause)
        unwritten.add_note(str(error.filename))
        raise unwritten from None
    tasks.update_registration_task(tx, after)
    return Stored(after, plans)


def may_read(tx: Tx, call: Call, task: RegistrationTask) -> Allow:
    """What the task's role allows; raises TaskFails when it may not read the input.

    Source: AWS IoT Developer Guide, "Bulk registration": the role "grants permission" to the file.
    """
    try:
        allow = registration.allow_by_role(tx, call, task.role_arn, "", "the task's role")
        arn = f"arn:{call.account.partition}:s3:::{task.input_bucket}/{task.input_key}"
        allow("s3:GetObject", arn, {})
    except AccessDeniedException as error:
        raise TaskFails(told(error)) from None
    return allow


def _plan(tx: Tx, call: Call, wanted: Resources, allow: Allow) -> Plan:
    """The plan of a line, every step of which is allowed; nothing is changed."""
    asked = wanted.certificate
    certificate = None
    if asked is not None and asked.certificate_id is not None:
        certificate = certificates.find_certificate(tx, asked.certificate_id)
    made = registration.plan_for(tx, call, wanted, certificate, allow)
    registration.require_steps(call, made, allow)
    return made


def _result(tx: Tx, call: Call, line: Line, wanted: Resources) -> bytes:
    """What RegisterThing would have answered, in the spelling of AWS's reports.

    Source: aws-samples/aws-iot-device-management-workshop, which reads them.
    """
    response: dict[str, object] = {"ResourceArns": registration.resource_arns(call, wanted)}
    if wanted.certificate is not None:
        found = certificates.find_certificate(tx, wanted.certificate.certificate_id or "")
        if found is not None:
            response["CertificatePem"] = found.pem
    return _json({"lineNumber": line.number, "offset": line.offset, "response": response})


def _failure(line: Line, error: ServiceError) -> bytes:
    return _json(
        {
            "lineNumber": line.number,
            "offset": line.offset,
            "errorCode": error.code(),
            "errorMessage": told(error),
        }
    )


def first_failure(reports: Reports, task_id: str) -> str:
    """What the ERRORS report begins with, in words; "" when there is nothing to be read."""
    descriptor = reports.open(task_id, "ERRORS")
    if descriptor is None:
        return ""
    try:
        with os.fdopen(descriptor, "rb") as file:
            found = msgspec.json.decode(file.readline())
    except (OSError, msgspec.DecodeError):
        return ""
    return f"line {found['lineNumber']}: {found['errorCode']}: {found['errorMessage']}"


def _json(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
