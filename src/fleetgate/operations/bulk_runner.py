"""Works off bulk registration tasks, inside the server and beside everything else it does.

A task goes on from its checkpoint, in batches (operations/bulk_batches.py): after a crash at any
moment nothing is done twice and nothing is left out. Between two lines the event loop gets its
turn, so that devices are served meanwhile.

What may pass (a service, a database, a disk, a setting that is missing) is waited for: until it is
there again, the task is stopped, or its time is over. What a task waits for is its message and is
logged once. What cannot pass ends the task as Failed, with a message that says why and how many
lines are done. What was registered until then stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fleetgate.domain.document import printable
from fleetgate.errors import (
    Error,
    InputFileError,
    InternalFailureException,
    ResourceRegistrationFailureException,
    ServiceError,
    ServiceUnavailableException,
    told,
)
from fleetgate.operations import registration
from fleetgate.operations.bulk import InputFile, Reports
from fleetgate.operations.bulk_batches import (
    Interrupted,
    Prepared,
    Stored,
    TaskFails,
    first_failure,
    may_read,
    prepare,
    store,
)
from fleetgate.operations.bulk_lines import Line, Lines
from fleetgate.operations.call import Call, Services
from fleetgate.store import registration_tasks as tasks
from fleetgate.store.engine import Tx
from fleetgate.store.registration_tasks import RegistrationTask

log = logging.getLogger("fleetgate.bulk")

T = TypeVar("T")

BATCH_LINES = 50
BATCH_BYTES = 1 << 20
"""Of the input, in one transaction."""

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0)
"""Seconds between attempts to go on, the last one again and again."""

SWEEP_SECONDS = 3600.0
"""Between two looks for tasks to be forgotten."""

_DAY = 86400.0
_MANY = 1000


@dataclass(slots=True)
class Runner:
    """Works on all unfinished tasks until it is cancelled. `wake` says that there may be more."""

    services: Services
    batch_lines: int = BATCH_LINES
    waits: Sequence[float] = WAITS
    sweep_seconds: float = SWEEP_SECONDS
    _woken: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _working: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)

    def wake(self) -> None:
        """To be called when a task was added, stopped or removed."""
        self._woken.set()
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Goes on with what is unfinished, and with what is started, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                woken = self._woken
                with contextlib.suppress(ServiceUnavailableException):
                    await self.sweep()
                for task_id in await self._patiently(tasks.list_unfinished_tasks, _MANY):
                    if task_id not in self._working:
                        working = group.create_task(self.work(task_id), name=f"bulk-{task_id}")
                        self._working[task_id] = working
                        working.add_done_callback(partial(self._ended, task_id))
                await _wait(woken, self.sweep_seconds)

    async def work(self, task_id: str) -> None:
        """Works one task off; returns when it has ended or is gone."""
        try:
            await self._work(task_id)
        finally:
            self._waiting.pop(task_id, None)

    async def _work(self, task_id: str) -> None:
        attempts = 0
        while True:
            woken = self._woken
            task = await self._patiently(tasks.find_registration_task, task_id)
            if task is None:
                self._reports.remove(task_id)  # a batch may have written while they were removed
                return
            if task.status == tasks.CANCELLING:
                await self._end(task, tasks.CANCELLED, "stopped")
                continue
            if task.status != tasks.IN_PROGRESS:
                return
            try:
                self._check_age(task)
                task = await self._go_on(task)
                await self._end(task, tasks.COMPLETED, "")
            except Interrupted:
                continue
            except (InputFileError, ServiceUnavailableException) as error:
                if isinstance(error, InputFileError) and not _may_pass(error, task):
                    await self._end(task, tasks.FAILED, error.message, error)
                    continue
                attempts = attempts + 1 if task_id in self._waiting else 0
                self._wait_for(task_id, error)
                await _wait(woken, self.waits[min(attempts, len(self.waits) - 1)])
            except TaskFails as error:
                await self._end(task, tasks.FAILED, error.message, error)
            except ServiceError as error:  # the template, by limits that have become lower
                await self._end(task, tasks.FAILED, error.message)
            except Exception:
                log.exception("event=defect task=%s", task_id)
                await self._end(task, tasks.FAILED, "internal failure; the server's log has more")

    async def sweep(self) -> None:
        """Forgets tasks, with their reports, whose time has passed."""
        limits = self.services.limits
        before = self.services.now() - limits.registration_report_days * _DAY
        for task_id in await self.services.store.write(tasks.remove_ended_tasks, before, _MANY):
            self._reports.remove(task_id)
            log.info("event=bulk-forgotten task=%s", task_id)
        for task_id in self._reports.task_ids():
            # left behind by a crash between the two
            if await self.services.store.read(tasks.find_registration_task, task_id) is None:
                self._reports.remove(task_id)

    # --- one task --------------------------------------------------------------------------------

    async def _go_on(self, task: RegistrationTask) -> RegistrationTask:
        """Works through the input from the checkpoint on; the task at the end of it."""
        template = registration.inline_template(self._call(task), task.template_body)
        await self.services.store.read(may_read, self._call(task), task)
        opened = await self._open(task)
        try:
            task = await self._begin(task, opened)
            limit = self.services.limits.registration_line_characters
            lines = Lines(opened, task.bytes_done, task.lines_done, limit)
            while task.bytes_done < opened.size:
                self._check_age(task)
                call = self._call(task)
                batch = [await prepare(call, template, each) async for each in self._batch(lines)]
                done = lines.offset, lines.number
                try:
                    task = await self._store(call, task, batch, done)
                except (Interrupted, TaskFails, ServiceUnavailableException):
                    raise
                except Exception as error:
                    log.warning("event=bulk-one-by-one task=%s cause=%r", task.task_id, error)
                    task = await self._one_by_one(call, task, batch, done)
        finally:
            opened.close()
        return task

    async def _open(self, task: RegistrationTask) -> InputFile:
        buckets = self.services.bulk.buckets
        if buckets is None:
            raise InputFileError("this server has no buckets any more", passing=True)
        return await buckets.open(task.input_bucket, task.input_key)

    async def _begin(self, task: RegistrationTask, opened: InputFile) -> RegistrationTask:
        """Remembers which file it is, or compares; cuts the reports to the checkpoint."""
        seen = replace(task, input_version=opened.version, input_bytes=opened.size)
        if task.input_version and task != seen:
            raise TaskFails(
                f"`{task.input_key}` of bucket `{task.input_bucket}` is not the file the task "
                f"began with: it was {task.input_bytes} bytes ({task.input_version}), it is "
                f"{opened.size} bytes ({opened.version})"
            )
        if task.task_id not in self._waiting:  # else `bulk-goes-on`, when it does
            log.info(
                "event=bulk-works task=%s bucket=%s key=%s bytes=%d from=%d lines=%d",
                task.task_id,
                task.input_bucket,
                task.input_key,
                opened.size,
                task.bytes_done,
                task.lines_done,
            )
        return await self._store(
            self._call(task), task, [], (task.bytes_done, task.lines_done), seen
        )

    async def _batch(self, lines: Lines) -> AsyncIterator[Line]:
        """The lines of a batch; the event loop has its turn before each."""
        begun, count = lines.offset, 0
        while count < self.batch_lines and lines.offset - begun < BATCH_BYTES:
            await asyncio.sleep(0)
            line = await lines.next()
            if line is None:
                return
            count += 1
            if not line.is_blank:
                yield line

    async def _one_by_one(
        self,
        call: Call,
        task: RegistrationTask,
        batch: Sequence[Prepared],
        done: tuple[int, int],
    ) -> RegistrationTask:
        """The lines of a batch that was undone, each in a transaction of its own."""
        for each in batch:
            end = each.line.end, each.line.number
            try:
                task = await self._store(call, task, [each], end)
            except (Interrupted, TaskFails, ServiceUnavailableException):
                raise
            except ServiceError as error:
                if isinstance(error, registration.UNUSABLE):  # by now, as RegisterThing has it
                    error = ResourceRegistrationFailureException(error.message)
                task = await self._store(call, task, [Prepared(each.line, error=error)], end)
            except Exception:
                log.exception("event=defect task=%s line=%d", task.task_id, each.line.number)
                failure = InternalFailureException("internal failure; the server's log has more")
                task = await self._store(call, task, [Prepared(each.line, error=failure)], end)
        return await self._store(call, task, [], done)

    async def _store(
        self,
        call: Call,
        task: RegistrationTask,
        batch: Sequence[Prepared],
        done: tuple[int, int],
        seen: RegistrationTask | None = None,
    ) -> RegistrationTask:
        """Stores a batch and tells of it; the task behind it."""
        stored: Stored = await call.write(store, call, task, batch, self._reports, done, seen)
        for each in stored.plans:
            registration.announce(call, each)
        if done[0] > task.bytes_done and self._waiting.pop(task.task_id, None) is not None:
            log.info("event=bulk-goes-on task=%s lines=%d", task.task_id, done[1])
        return stored.task

    def _check_age(self, task: RegistrationTask) -> None:
        days = self.services.limits.registration_task_days
        if self.services.now() >= task.created_at + days * _DAY:
            raise TaskFails(
                f"the task was ended after {days} days, the limit `registration_task_days`"
            )

    def _wait_for(self, task_id: str, error: Error) -> None:
        """Tells what a task waits for, to callers and, when it is something else, in the log."""
        if self._waiting.get(task_id) != error.message:
            self._waiting[task_id] = error.message
            log.warning("event=bulk-waits task=%s cause=%r", task_id, told(error))

    async def _end(
        self, task: RegistrationTask, status: str, message: str, cause: Error | None = None
    ) -> None:
        """Ends the task, unless it has been stopped or removed meanwhile.

        The message of one that is not completed is followed by how far it has come; the notes of
        the cause are for the log.
        """

        def change(tx: Tx) -> RegistrationTask | None:
            current = tasks.find_registration_task(tx, task.task_id)
            if current is None or current.status != task.status:
                return None
            ended = replace(
                current,
                status=status,
                message=self._summary(current) if done else _ending(message, current),
                modified_at=self.services.now(),
            )
            tasks.update_registration_task(tx, ended)
            return ended

        done = status == tasks.COMPLETED
        ended = await self._patiently(change, write=True, task_id=task.task_id)
        if ended is not None:
            log.log(
                logging.WARNING if status == tasks.FAILED else logging.INFO,
                "event=bulk-ended task=%s status=%s succeeded=%d failed=%d cause=%r",
                ended.task_id,
                ended.status,
                ended.succeeded,
                ended.failed,
                "; ".join((ended.message, *getattr(cause, "__notes__", ()))),
            )

    def _summary(self, task: RegistrationTask) -> str:
        """How many lines of a completed task failed, and why the first one did; "" for none."""
        if not task.failed:
            return ""
        message = f"{task.failed} of {task.succeeded + task.failed} lines failed"
        first = first_failure(self._reports, task.task_id)
        return printable(f"{message}, the first: {first}", tasks.MAX_MESSAGE) if first else message

    # --- what it stands on -----------------------------------------------------------------------

    @property
    def _reports(self) -> Reports:
        reports = self.services.bulk.reports
        assert reports is not None  # noqa: S101 - the server brings them along
        return reports

    @property
    def _waiting(self) -> dict[str, str]:
        return self.services.bulk.waiting

    def _call(self, task: RegistrationTask) -> Call:
        return Call(self.services, task.task_id, self.services.now())

    def _ended(self, task_id: str, _: asyncio.Task[None]) -> None:
        del self._working[task_id]
        self.wake()

    async def _patiently(
        self, fn: Callable[..., T], *args: Any, write: bool = False, task_id: str = ""
    ) -> T:
        """The outcome of a transaction, of a task or of none, however long the database is away."""
        database = self.services.store
        waits = iter(self.waits)
        cause = ""
        while True:
            try:
                return await (database.write(fn, *args) if write else database.read(fn, *args))
            except ServiceUnavailableException as error:
                if task_id:
                    self._wait_for(task_id, error)
                elif error.message != cause:
                    cause = error.message
                    log.warning("event=bulk-waits cause=%r", told(error))
                await asyncio.sleep(next(waits, self.waits[-1]))


def _may_pass(error: InputFileError, task: RegistrationTask) -> bool:
    """Whether to wait: also for the bucket of a task that has begun, which was a directory's."""
    return error.passing or (error.no_bucket and bool(task.input_version))


def _ending(message: str, task: RegistrationTask) -> str:
    """A message with where another task may go on, never longer than allowed."""
    count = task.lines_done
    lines = f"the first {count} lines of the file are" if count > 1 else "the first line is"
    done = f"; {lines if count else 'no line of the file is'} done"
    return printable(message, tasks.MAX_MESSAGE - len(done)) + done


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    """Returns when it is woken, or after some seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for may pass over a cancellation (3.11)
            await woken.wait()
