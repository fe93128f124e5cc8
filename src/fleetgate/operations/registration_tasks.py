"""Bulk registration: tasks that register one thing for each line of a file.

A task is started, watched and stopped here; operations/bulk_runner.py works it off.

Source: AWS IoT Developer Guide, "Bulk registration"; AWS IoT API Reference,
StartThingRegistrationTask and its neighbours.
"""

from __future__ import annotations

from typing import Any

from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from fleetgate.operations import pages, report_links
from fleetgate.operations.authorization import require_role
from fleetgate.operations.bulk import ReportType
from fleetgate.operations.call import Call
from fleetgate.operations.registration import inline_template
from fleetgate.operations.report_links import ReportPiece
from fleetgate.store import registration_tasks as tasks
from fleetgate.store.engine import Tx
from fleetgate.store.registration_tasks import RegistrationTask


async def start_thing_registration_task(
    call: Call, template_body: str, input_file_bucket: str, input_file_key: str, role_arn: str
) -> dict[str, Any]:
    """StartThingRegistrationTask: registers a thing for each line of a file, one task at a time."""
    inline_template(call, template_body)
    buckets = call.services.bulk.buckets
    refusal = (
        "this server has no buckets; the settings `buckets` and `s3_endpoint_url` name some"
        if buckets is None
        else buckets.refusal(input_file_bucket, input_file_key)
    )
    if refusal:
        raise InvalidRequestException(refusal)
    await require_role(call, role_arn)

    def change(tx: Tx) -> str:
        limit = call.services.limits.registration_tasks
        if tasks.count_unfinished_tasks(tx) >= limit:
            running = ", ".join(tasks.list_unfinished_tasks(tx, 10))
            raise InvalidRequestException(
                f"{limit} bulk registration task{'s' * (limit > 1)} can run at a time, the limit "
                f"`registration_tasks`; running: {running}"
            )
        task = RegistrationTask(
            call.services.new_id(),
            template_body,
            input_file_bucket,
            input_file_key,
            role_arn,
            call.now,
            call.now,
        )
        tasks.add_registration_task(tx, task)
        return task.task_id

    task_id = await call.write(change)
    call.services.bulk.wake()
    return {"taskId": task_id}


async def stop_thing_registration_task(call: Call, task_id: str) -> dict[str, Any]:
    """StopThingRegistrationTask: what is registered stays, the remaining lines are not worked on.

    The task is Cancelling until the lines it is working on are done.
    """

    def change(tx: Tx) -> None:
        task = _require_task(tx, task_id)
        if task.status not in (tasks.IN_PROGRESS, tasks.CANCELLING):
            raise InvalidRequestException(
                f"bulk registration task {task_id} is {task.status}: it cannot be stopped any more"
            )
        tasks.update_registration_status(tx, task_id, tasks.CANCELLING, call.now)

    await call.write(change)
    call.services.bulk.wake()
    return {}


async def describe_thing_registration_task(call: Call, task_id: str) -> dict[str, Any]:
    """DescribeThingRegistrationTask: its status and how far it has come."""
    task = await call.read(_require_task, task_id)
    return {
        "taskId": task.task_id,
        "creationDate": task.created_at,
        "lastModifiedDate": task.modified_at,
        "templateBody": task.template_body,
        "inputFileBucket": task.input_bucket,
        "inputFileKey": task.input_key,
        "roleArn": task.role_arn,
        "status": task.status,
        "message": task.message or call.services.bulk.waiting.get(task_id),
        "successCount": task.succeeded,
        "failureCount": task.failed,
        "percentageProgress": _percentage(task),
    }


async def list_thing_registration_tasks(
    call: Call,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
    status: str | None = None,
) -> dict[str, Any]:
    """ListThingRegistrationTasks: the newest first."""
    operation = "ListThingRegistrationTasks"
    start = pages.start(call, operation, next_token)
    after = None if start is None else (float(start[0]), str(start[1]))
    found = await call.read(tasks.list_registration_tasks, status, after, max_results + 1)
    items, following = pages.page(
        call, operation, found, max_results, lambda task: (task.created_at, task.task_id)
    )
    return {"taskIds": [task.task_id for task in items], "nextToken": following}


async def list_thing_registration_task_reports(
    call: Call,
    task_id: str,
    report_type: ReportType,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
) -> dict[str, Any]:
    """ListThingRegistrationTaskReports: links to the pieces of a report, which work for an hour.

    While the task goes on there are links to the errors so far, and none to results: scripts
    that wait for AWS's results take the first link they see as the end.
    """
    operation = "ListThingRegistrationTaskReports"
    task = await call.read(tasks.find_registration_task, task_id)
    if task is None:
        # the model has no ResourceNotFoundException for this operation
        raise InvalidRequestException(f"bulk registration task {task_id} does not exist")
    position = pages.start(call, operation, next_token)
    done = 0 if position is None else int(position[0])
    end = task.results_bytes if report_type == "RESULTS" else task.errors_bytes
    if report_type == "RESULTS" and task.status in (tasks.IN_PROGRESS, tasks.CANCELLING):
        end = 0
    reports = call.services.bulk.reports
    found = (
        [] if reports is None else reports.pieces(task_id, report_type, done, end, max_results + 1)
    )
    items, following = pages.page(call, operation, found, max_results, lambda piece: (piece[1],))
    key = call.services.token_key
    return {
        "resourceLinks": [
            call.base_url
            + report_links.link(key, ReportPiece(task_id, report_type, *piece), call.now)
            for piece in items
        ],
        "reportType": report_type,
        "nextToken": following,
    }


def _require_task(tx: Tx, task_id: str) -> RegistrationTask:
    task = tasks.find_registration_task(tx, task_id)
    if task is None:
        raise ResourceNotFoundException(f"bulk registration task {task_id} does not exist")
    return task


def _percentage(task: RegistrationTask) -> int:
    if task.status == tasks.COMPLETED:
        return 100
    return task.bytes_done * 100 // task.input_bytes if task.input_bytes else 0
