"""Functions for tests, and programs that run them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fleetgate.functions.pool import Pool
from fleetgate.functions.program import Program
from fleetgate.functions.surroundings import House
from fleetgate.functions.target import Run

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f"

PYTHON = """
import decimal, json, logging, os, sys

def echo(event, context):
    return {"event": event}

def run(event, context):
    scope = {"context": context}
    exec(event["code"], scope)
    return scope.get("result")

def shipped(event, context):
    return (1 + len(event["code"])) / (event["count"] - len(event["code"]))

class Handlers:
    echo = staticmethod(echo)
"""

NODE = """
exports.echo = async (event) => ({ event });
exports.returned = (event) => ({ event });
exports.callback = (event, context, callback) => setTimeout(() => callback(null, { event }), 1);
exports.run = async (event, context) => {
  const run = new Function('context', 'require', `return (async () => { ${event.code} })()`);
  return run(context, require);
};
exports.failing = (event, context, callback) => callback(new RangeError('called back'));
exports.succeeding = (event, context) => { context.succeed('done'); return new Promise(() => {}); };
exports.silent = (event, context, callback) => {};
exports.unsettled = async () => { await new Promise(() => {}); };
exports.thrown = (event) => { throw event.thrown; };
exports.early = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = event.waits;
  setTimeout(() => console.log('later'), 50);
  callback(null, context.callbackWaitsForEmptyEventLoop);
};
"""

NODE_MODULE = """
import os from 'node:os';
await Promise.resolve();
export const echo = async (event) => ({ event, tmpdir: os.tmpdir() });
"""

RUNTIMES = {
    "awslambdaric": ("python3.12", "app", True),
    "python": ("python3.12", "app", False),
    "awslambdaric 3.11": ("python3.11", "app", True),
    "python 3.11": ("python3.11", "app", False),
    "node": ("nodejs20.x", "index", False),
    "node 24": ("nodejs24.x", "index", False),
}
"""Name -> Lambda's identifier, the module, whether AWS's runtime interface client is used."""


def write_code(directory: Path) -> Path:
    """The files of the functions."""
    directory.mkdir(exist_ok=True)
    (directory / "app.py").write_text(PYTHON)
    (directory / "index.js").write_text(NODE)
    (directory / "module.mjs").write_text(NODE_MODULE)
    (directory / "broken.py").write_text("import nothing_of_this_name\n")
    (directory / "broken.js").write_text("require('nothing-of-this-name');\n")
    (directory / "syntax.py").write_text("def handler(:\n")
    (directory / "syntax.js").write_text("exports.handler = (;\n")
    (directory / "leaving.py").write_text("import os\nprint('leaving')\nos._exit(7)\n")
    (directory / "leaving.js").write_text("console.log('leaving'); process.exit(7);\n")
    return directory


def pool(
    directory: Path | None,
    runtime: str = "python",
    function: str = "run",
    *,
    module: str = "",
    hidden: tuple[Path, ...] = (),
    idle_seconds: float = 300.0,
    max_waiting: int = 1000,
    **of_program: Any,
) -> Pool:
    """A pool for a function of the files above."""
    identifier, usual, client = RUNTIMES[runtime]
    of_program.setdefault("timeout_seconds", 20.0)  # the machine may have much to do
    program = Program(
        "f",
        ARN,
        identifier,
        f"{module or usual}.{function}",
        "uploaded for a test",
        directory,
        "1",
        **of_program,
    )
    return Pool(program, House(hidden, client), idle_seconds=idle_seconds, max_waiting=max_waiting)


async def ask(target: Pool, code: str = "", *, seconds: float = 20, **event: Any) -> Run:
    """One event; `code` is what the function `run` runs."""
    body = json.dumps({"code": code, **event} if code else event).encode()
    return await target.invoke(body, request_id="request-1", seconds=seconds)


async def value(target: Pool, code: str = "", **event: Any) -> Any:
    """What a run that succeeds answers."""
    run = await ask(target, code, **event)
    assert not run.error, run
    return json.loads(run.payload)


async def error(target: Pool, code: str = "", **event: Any) -> tuple[str, str]:
    """Type and message of a run that fails."""
    run = await ask(target, code, **event)
    assert run.error == "Unhandled", run
    described = json.loads(run.payload)
    return described["errorType"], described["errorMessage"]


class Bench:
    """Pools that stay for several tests, in one event loop."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.pools: dict[str, Pool] = {}

    def pool(self, *args: Any, **options: Any) -> Pool:
        key = repr((args, options))
        if key not in self.pools:

            async def make() -> Pool:
                return pool(*args, **options)

            self.pools[key] = self.runner.run(make())
        return self.pools[key]


@contextmanager
def bench() -> Iterator[Bench]:
    """A bench; its processes end with it."""
    made = Bench()
    try:
        yield made
    finally:
        for each in made.pools.values():
            made.runner.run(each.close())
        made.runner.close()


def eventually(is_true: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Waits until something is the case."""
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def is_alive(pid: int) -> bool:
    """Whether there is a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent(pid: int) -> int:
    """The number of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def outside(runtime: int, inner: int) -> int:
    """The number here of a process that has the number `inner` where a runtime is."""
    namespace = os.readlink(f"/proc/{runtime}/ns/pid")  # noqa: PTH115 - it is no path
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(each / "ns" / "pid") == namespace:  # noqa: PTH115
                status = (each / "status").read_text()
                numbers = re.findall(r"^NSpid:\s*(.*)", status, re.MULTILINE)[0]
                if int(numbers.split()[-1]) == inner:
                    return int(each.name)
    raise ProcessLookupError(f"{inner} beside {runtime}")
