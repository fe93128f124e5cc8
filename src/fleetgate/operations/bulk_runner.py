"""Works off bulk registration tasks, inside the server and beside everything else it does.

A task goes on from its checkpoint, in batches (operations/bulk_batches.py): after a crash at any
moment nothing is done twice and nothing is left out. Between two lines the event loop gets its
turn, so that devices are served meanwhile.

What may pass (an S3 service or a database that does not answer) is tried again for some minutes,
the database for ever; whatever cannot pass ends the task as Failed, with a message that says why.
What was registered until then stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fleetgate.errors import (
    InputFileError,
    InternalFailureException,
    ResourceRegistrationFailureException,
    ServiceError,
    ServiceUnavailableException,
)
from fleetgate.operations import registration
from fleetgate.operations.bulk import InputFile, Reports
from fleetgate.operations.bulk_batches import (
    Interrupted,
    Prepared,
    Stored,
    TaskFails,
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
"""Seconds between attempts to read an input file that is away."""

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
        failures = stalls = 0
        while True:
            woken = self._woken
            task = await self._patiently(tasks.find_registration_task, task_id)
            if task is None:
                self._reports.remove(task_id)  # a batch may have written while they were removed
                return
            if task.status == tasks.CANCELLING:
                await self._end(task, tasks.CANCELLED, "")
                continue
            if task.status != tasks.IN_PROGRESS:
                return
            try:
                before = task.bytes_done
                task = await self._go_on(task)
                await self._end(task, tasks.COMPLETED, "")
            except Interrupted:
                continue
            except InputFileError as error:
                latest = await self._patiently(tasks.find_registration_task, task_id)
                failures = 0 if latest is not None and latest.bytes_done > before else failures
                if error.passing and failures < len(self.waits):
                    log.warning("event=bulk-waits task=%s cause=%s", task_id, error.message)
                    await _wait(woken, self.waits[failures])
                    failures += 1
                else:
                    await self._end(latest or task, tasks.FAILED, error.message)
            except TaskFails as error:
                await self._end(task, tasks.FAILED, error.message)
            except ServiceUnavailableException as error:
                log.warning("event=bulk-waits task=%s cause=%s", task_id, error.message)
                latest = await self._patiently(tasks.find_registration_task, task_id)
                stalls = 0 if latest is not None and latest.bytes_done > before else stalls
                await _wait(woken, self.waits[min(stalls, len(self.waits) - 1)])
                stalls += 1
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
            raise TaskFails(f"this server has no bucket `{task.input_bucket}` any more")
        return await buckets.open(task.input_bucket, task.input_key)

    async def _begin(self, task: RegistrationTask, opened: InputFile) -> RegistrationTask:
        """Remembers which file it is, or compares; cuts the reports to the checkpoint."""
        seen = replace(task, input_version=opened.version, input_bytes=opened.size)
        if task.input_version and task != seen:
            raise TaskFails(
                f"`{task.input_key}` of bucket `{task.input_bucket}` is not the file the task "
                f"began with: it was {task.input_bytes} bytes ({task.input_version}), it is "
                f"{opened.size} bytes ({opened.version}); {task.lines_done} lines are done"
            )
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
        return stored.task

    def _check_age(self, task: RegistrationTask) -> None:
        days = self.services.limits.registration_task_days
        if self.services.now() >= task.created_at + days * _DAY:
            raise TaskFails(
                f"the task was ended after {days} days, the limit `registration_task_days`"
            )

    async def _end(self, task: RegistrationTask, status: str, message: str) -> None:
        """Ends the task, unless it has been stopped or removed meanwhile."""

        def change(tx: Tx) -> RegistrationTask | None:
            current = tasks.find_registration_task(tx, task.task_id)
            if current is None or current.status != task.status:
                return None
            ended = replace(
                current,
                status=status,
                message=message[: tasks.MAX_MESSAGE],
                modified_at=self.services.now(),
            )
            tasks.update_registration_task(tx, ended)
            return ended

        ended = await self._patiently(change, write=True)
        if ended is not None:
            log.info(
                "event=bulk-ended task=%s status=%s succeeded=%d failed=%d cause=%r",
                ended.task_id,
                ended.status,
                ended.succeeded,
                ended.failed,
                ended.message,
            )

    # --- what it stands on -----------------------------------------------------------------------

    @property
    def _reports(self) -> Reports:
        reports = self.services.bulk.reports
        assert reports is not None  # noqa: S101 - the server brings them along
        return reports

    def _call(self, task: RegistrationTask) -> Call:
        return Call(self.services, task.task_id, self.services.now())

    def _ended(self, task_id: str, _: asyncio.Task[None]) -> None:
        del self._working[task_id]
        self.wake()

    async def _patiently(self, fn: Callable[..., T], *args: Any, write: bool = False) -> T:
        """The outcome of a transaction, however long the database is away."""
        database = self.services.store
        waits = iter(self.waits)
        while True:
            try:
                return await (database.write(fn, *args) if write else database.read(fn, *args))
            except ServiceUnavailableException as error:
                log.warning("event=bulk-waits cause=%s", error.message)
                await asyncio.sleep(next(waits, self.waits[-1]))


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    """Returns when it is woken, or after some seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # wait_for may pass over a cancellation (3.11)
            await woken.wait()
