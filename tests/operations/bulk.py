"""Bulk registrations for tests: a bucket, a role, a runner, and stores that behave badly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleetgate.buckets import Buckets
from fleetgate.operations.bulk import Bulk, ReportType
from fleetgate.operations.bulk_runner import Runner
from fleetgate.reports import Reports
from fleetgate.store.engine import Store
from tests.operations.conftest import Registry
from tests.operations.roles import add_role, set_rights

ABSENT = "00000000-0000-4000-8000-000000000000"
DAY = 86400.0
READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::factory/*"}
REGISTER = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}


def body(
    certificate: Mapping[str, Any] | None = None, override: Mapping[str, str] | None = None
) -> str:
    """A template for things, with their certificates."""
    resources: dict[str, Any] = {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "ThingName"},
                "AttributePayload": {"serial": {"Ref": "Serial"}},
            },
        }
    }
    if certificate is not None:
        resources["certificate"] = {"Type": "AWS::IoT::Certificate", "Properties": certificate}
        if override is not None:
            resources["certificate"]["OverrideSettings"] = override
    parameters = {"ThingName": {"Type": "String"}, "Serial": {"Type": "String", "Default": "none"}}
    return json.dumps({"Parameters": parameters, "Resources": resources})


def line(name: str, **more: str) -> str:
    return json.dumps({"ThingName": name, **more})


@dataclass
class BulkRegistry:
    """A registry with the bucket `factory`, whose task is worked off when the test says so."""

    registry: Registry
    directory: Path
    role: str
    piece: int = 1 << 20
    batch_lines: int = 4
    reports: Reports = field(init=False)
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        (self.directory / "factory").mkdir(exist_ok=True)
        self.restart()

    def restart(self, store: Store | None = None, buckets: Any = None) -> None:
        """As a server that starts again on the same data, perhaps with another store or bucket."""
        if store is not None:
            self.registry.services = replace(self.registry.services, store=store)
        self.reports = Reports(self.directory / "reports", self.piece)
        buckets = buckets or Buckets({"factory": self.directory / "factory"}, "", "eu-west-1")
        services = self.registry.services
        self.runner = Runner(services, batch_lines=self.batch_lines, waits=(0, 0))
        services.bulk = Bulk(buckets, self.reports, self.runner.wake)

    def put(self, *lines: str, key: str = "in.jsonl") -> None:
        (self.directory / "factory" / key).write_text("".join(f"{each}\n" for each in lines))

    def start(self, template_body: str = "", **changes: str) -> str:
        params = {
            "template_body": template_body or body(),
            "input_file_bucket": "factory",
            "input_file_key": "in.jsonl",
            "role_arn": self.role,
            **changes,
        }
        return str(self.registry.call("StartThingRegistrationTask", **params)["taskId"])

    def work(self, task_id: str) -> dict[str, Any]:
        """Works the task off; how it is described then."""
        self.registry.runner.run(self.runner.work(task_id))
        return self.describe(task_id)

    def work_through_a_wait(
        self, task_id: str, then: Callable[[], Awaitable[Any] | None]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """How the task is described while it waits, and at its end when `then` was done."""
        params = {"task_id": task_id}

        async def work() -> dict[str, Any]:
            working = asyncio.create_task(self.runner.work(task_id))
            while True:
                found = await self.registry.start("iot", "DescribeThingRegistrationTask", params)
                if found["message"]:
                    break
                assert not working.done()
                await asyncio.sleep(0.001)
            # that one may have been read before the batch behind which the task waits
            found = await self.registry.start("iot", "DescribeThingRegistrationTask", params)
            await _happen(then())
            await working
            return dict(found)

        waiting = self.registry.runner.run(work())
        return waiting, self.describe(task_id)

    def register(self, *lines: str, template_body: str = "") -> dict[str, Any]:
        self.put(*lines)
        return self.work(self.start(template_body))

    def describe(self, task_id: str) -> dict[str, Any]:
        return self.registry.call("DescribeThingRegistrationTask", task_id=task_id)

    def report(self, task_id: str, kind: ReportType) -> list[dict[str, Any]]:
        """What a report holds, of the bytes that count."""
        found: list[dict[str, Any]] = []
        path = self.directory / "reports" / f"{task_id}.{kind.lower()}.jsonl"
        if path.exists():
            found = [json.loads(each) for each in path.read_text().splitlines()]
        return found

    def things(self) -> list[str]:
        listed = self.registry.call("ListThings")["things"]
        return [each["thingName"] for each in listed]


def bulk_registry(registry: Registry, directory: Path) -> BulkRegistry:
    role = add_role(registry, "bulk")
    set_rights(registry, "bulk", READ, REGISTER)
    return BulkRegistry(registry, directory, role)


Trouble = Callable[[int], Awaitable[Any] | None]


async def _happen(pending: Awaitable[Any] | None) -> None:
    if pending is not None:
        await pending


class TroubledStore:
    """A store whose writes are met by `trouble`: before the n-th one, and after it."""

    def __init__(
        self,
        store: Store,
        before: Trouble = lambda _: None,
        after: Trouble = lambda _: None,
    ) -> None:
        self._store = store
        self._before, self._after = before, after
        self.writes = 0

    async def write(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self.writes += 1
        await _happen(self._before(self.writes))
        result = await self._store.write(fn, *args, **kwargs)
        await _happen(self._after(self.writes))
        return result

    async def read(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._store.read(fn, *args, **kwargs)

    async def reset(self) -> None:
        await self._store.reset()

    def close(self) -> None:
        """The store is somebody else's."""
