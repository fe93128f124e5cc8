"""The processes of a function: crashes, time-outs, limits, the line, log, and their end."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fleetgate.functions.pool import Pool
from fleetgate.functions.target import LOG_TAIL, Failure, FunctionError
from tests.functions.programs import (
    Bench,
    ask,
    bench,
    error,
    eventually,
    is_alive,
    outside,
    parent,
    pool,
    value,
    write_code,
)

T = TypeVar("T")

ANSWER = "result = 1"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    with bench() as made:
        yield made


def with_pool(target: Callable[[], Pool], scenario: Callable[[Pool], Awaitable[T]]) -> T:
    async def run() -> T:
        made = target()
        try:
            return await scenario(made)
        finally:
            await made.close()

    return asyncio.run(run())


async def pid_of(target: Pool) -> int:
    """The number of the process that answers, where there is one."""
    await value(target, ANSWER)
    (pid,) = target.pids
    return pid


# --- how a run ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "end", "words"),
    [
        ("python", "import os; os._exit(3)", "Runtime exited with error: exit status 3"),
        ("python", "import os; os._exit(0)", "Runtime exited without providing a reason"),
        ("awslambdaric", "import sys; sys.exit(4)", "Runtime exited with error: exit status 4"),
        (
            "python",
            "import os; os.kill(os.getpid(), 9)",
            "Runtime exited with error: signal: killed",
        ),
        (
            "awslambdaric",
            "import os; os.abort()",
            "Runtime exited with error: signal: aborted",
        ),
        ("node", "process.exit(5)", "Runtime exited with error: exit status 5"),
    ],
)
def test_a_crash_is_told_and_the_next_event_has_a_fresh_process(
    running: Bench, code: Path, runtime: str, end: str, words: str
) -> None:
    target = running.pool(code, runtime)
    run = running.runner.run(ask(target, end))
    described = json.loads(run.payload)
    message = f"RequestId: request-1 Error: {words}"
    assert (run.error, described) == (
        "Unhandled",
        {"errorType": "Runtime.ExitError", "errorMessage": message},
    )
    assert run.cause == f"{message}\nRuntime.ExitError\n"
    assert run.usage is not None
    assert run.usage.used_megabytes > 5
    again = "return 1" if runtime == "node" else "result = 1"
    assert running.runner.run(value(target, again)) == 1


def test_the_functions_own_time_out_ends_its_process(running: Bench, code: Path) -> None:
    target = running.pool(code, timeout_seconds=0.3)
    before = running.runner.run(pid_of(target))
    run = running.runner.run(ask(target, "import time; time.sleep(30)"))
    words = "Task timed out after 0.30 seconds"
    assert json.loads(run.payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: request-1 Error: {words}",
    }
    assert re.fullmatch(rf"20\S+T\S+\.\d\d\dZ request-1 {words}\n\n", run.cause)
    assert running.runner.run(pid_of(target)) != before
    assert eventually(lambda: not is_alive(before))


def test_an_abandoned_run_is_ended(running: Bench, code: Path) -> None:
    target = running.pool(code)
    before = running.runner.run(pid_of(target))
    with pytest.raises(FunctionError, match=r"`f` \(uploaded for a test\) was ended: .* 0\.30 s"):
        running.runner.run(ask(target, "import time; time.sleep(30)", seconds=0.3))
    assert running.runner.run(pid_of(target)) != before
    assert eventually(lambda: not is_alive(before))

    async def cancelled() -> int:
        pid = await pid_of(target)
        asking = asyncio.create_task(ask(target, "import time; time.sleep(30)"))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await pid_of(target) != pid
        return pid

    pid = running.runner.run(cancelled())
    assert eventually(lambda: not is_alive(pid))


def test_a_process_that_ends_between_events_is_replaced(running: Bench, code: Path) -> None:
    target = running.pool(code)

    async def scenario() -> None:
        pid = await pid_of(target)
        os.kill(pid, signal.SIGKILL)
        while target.processes:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert await pid_of(target) != pid

    running.runner.run(scenario())


# twice forked, deaf, in a session of its own if it may
DAEMON = """
import os, signal, time
read, write = os.pipe()
if os.fork() == 0:
    try: os.setsid()
    except PermissionError: pass
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(write, str(os.getpid()).encode())
        time.sleep(60)
    os._exit(0)
result = int(os.read(read, 100))
"""


@pytest.mark.parametrize("uploaded", [True, False])
def test_everything_a_function_started_ends_with_it(
    running: Bench, code: Path, *, uploaded: bool
) -> None:
    target = running.pool(code) if uploaded else running.pool(None, search_path=(code,))
    inner = running.runner.run(value(target, DAEMON))
    (runtime,) = target.pids
    pid = outside(runtime, inner)
    assert is_alive(pid)
    assert running.runner.run(error(target, "import os; os._exit(1)"))[0] == "Runtime.ExitError"
    assert eventually(lambda: not is_alive(pid))


def test_what_a_run_takes_is_told(code: Path) -> None:
    async def scenario(target: Pool) -> None:
        first = (await ask(target, "result = len(b'x' * 60_000_000)")).usage
        second = (await ask(target, "import time; time.sleep(0.05)")).usage
        assert first is not None
        assert second is not None
        assert 0 < first.seconds < 20
        assert first.init_seconds is not None
        assert first.init_seconds > 0.01
        assert 60 < first.used_megabytes < 128
        assert first.memory_megabytes == second.memory_megabytes == 129
        # the start was that of the first run; the most there was is that of the process
        assert second.init_seconds is None
        assert second.used_megabytes >= first.used_megabytes
        assert second.seconds >= 0.05

    with_pool(lambda: pool(code, memory_megabytes=129), scenario)


# --- limits ---------------------------------------------------------------------------------------


def test_memory_is_limited(running: Bench, code: Path) -> None:
    for runtime in ("python", "awslambdaric"):
        target = running.pool(code, runtime)
        assert running.runner.run(value(target, "result = len(bytes(80_000_000))")) == 80_000_000
        assert running.runner.run(error(target, "bytes(300_000_000)"))[0] == "MemoryError"
    node = running.pool(code, "node", timeout_seconds=20)
    hoard = "const all = []; for (;;) all.push(new Array(100000).fill(0.5));"
    kind, message = running.runner.run(error(node, hoard))
    assert (kind, message.rpartition(": ")[2]) == ("Runtime.ExitError", "aborted")
    buffers = "const all = []; for (;;) all.push(Buffer.alloc(20_000_000, 1));"
    kind, message = running.runner.run(error(node, buffers))
    assert kind in ("RangeError", "Error", "Runtime.ExitError")


def test_other_limits_of_a_process(running: Bench, code: Path) -> None:
    limits = "import resource as r, os; result = [r.getrlimit(getattr(r, 'RLIMIT_' + n)) for n in "
    asked = limits + "('CORE', 'NOFILE', 'FSIZE')] + [os.listdir(os.environ['TMPDIR'])]"
    core, files, size, listed = running.runner.run(value(running.pool(code), asked))
    assert (core, files, size) == ([0, 0], [1024, 1024], [512 << 20, 512 << 20])
    assert listed == []


# --- the log --------------------------------------------------------------------------------------


def test_the_end_of_what_was_written_comes_back(running: Bench, code: Path) -> None:
    target = running.pool(code)
    written = (
        "import sys; print('out'); print('err', file=sys.stderr); print('x' * 5000); print('z')"
    )
    log = running.runner.run(ask(target, written)).log
    assert len(log.encode()) == LOG_TAIL
    assert log.endswith("xxx\nz\n")
    # what came before belongs to another event
    assert running.runner.run(ask(target, "print('größer')")).log == "größer\n"


def test_lines_are_logged_within_bounds(
    running: Bench, code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fleetgate.functions")
    target = running.pool(code, memory_megabytes=129)  # a pool of its own: nothing was counted
    running.runner.run(ask(target, r"print('a\tb \x1b[31m\nc'); print('y' * 9000)"))
    lines = [each for each in caplog.messages if "event=function-log " in each]
    assert lines[:2] == [
        r"event=function-log function=f request=request-1 line='a\tb \x1b[31m'",
        "event=function-log function=f request=request-1 line='c'",
    ]
    assert len(lines[2]) < 1200
    caplog.clear()
    # what a device sent and the function wrote passes for no field of the line
    forged = "x' event=hook-allowed serial='1\u2028"
    running.runner.run(ask(target, f"print({forged!r})"))
    (line,) = [each for each in caplog.messages if "event=function-log " in each]
    assert ast.literal_eval(line.partition(" line=")[2]) == forged
    caplog.clear()
    running.runner.run(ask(target, "for i in range(3000): print(i)"))
    assert 100 < len([each for each in caplog.messages if "event=function-log " in each]) < 500


def test_a_flood_does_not_keep_the_server_busy(running: Bench, code: Path) -> None:
    target = running.pool(code, timeout_seconds=0.6)
    flood = "import os\nwhile True: os.write(1, b'x' * 65536)"

    async def scenario() -> None:
        await value(target, "result = 1")
        used = os.times()
        assert (await ask(target, flood)).error
        assert os.times().user + os.times().system - used.user - used.system < 0.3

    running.runner.run(scenario())


# --- the line -------------------------------------------------------------------------------------


def test_events_beyond_the_concurrency_wait_and_waiting_counts(code: Path) -> None:
    async def scenario(target: Pool) -> None:
        await asyncio.gather(value(target, ANSWER), value(target, ANSWER), value(target, ANSWER))
        assert target.processes == 2
        nap = "import time, os; time.sleep(0.2); result = os.environ['TMPDIR']"
        places = await asyncio.gather(*(value(target, nap) for _ in range(6)))
        assert len(set(places)) == 2
        # for two processes, nine naps of 0.2 s: the end of the line is not reached
        answers = await asyncio.gather(
            *(ask(target, nap, seconds=0.5) for _ in range(9)), return_exceptions=True
        )
        failed = [each for each in answers if isinstance(each, FunctionError)]
        assert len(answers) - len(failed) <= 4
        waiting = [each for each in failed if each.kind is Failure.THROTTLED]
        assert len(waiting) >= 3
        assert {each.message for each in waiting} == {
            f"function `f` ({target.description}): no process was free in time; there may be 2"
        }
        assert {each.kind for each in failed if each not in waiting} <= {Failure.TIMED_OUT}

    with_pool(lambda: pool(code, concurrency=2), scenario)


def test_the_line_is_bounded(code: Path) -> None:
    async def scenario(target: Pool) -> None:
        asking = [asyncio.create_task(ask(target, ANSWER)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(FunctionError, match="4 events wait already; the limit is 4") as found:
            await ask(target, ANSWER)
        assert found.value.kind is Failure.THROTTLED
        large = b'"' + b"x" * (65 << 20) + b'"'
        for each in await asyncio.gather(*asking):
            assert not each.error
        busy = asyncio.create_task(ask(target, "import time; time.sleep(0.2)"))
        await asyncio.sleep(0.05)
        with pytest.raises(FunctionError, match="events of 0 bytes wait; the limit is"):
            await target.invoke(large, request_id="r", seconds=1)
        await busy

    with_pool(lambda: pool(code, concurrency=1, max_waiting=4), scenario)


def test_an_idle_process_ends(code: Path) -> None:
    async def scenario(target: Pool) -> None:
        pid = await pid_of(target)
        await asyncio.sleep(0.1)
        assert await pid_of(target) == pid  # it was not idle for long enough
        while target.processes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not is_alive(pid)

    with_pool(lambda: pool(code, idle_seconds=0.6), scenario)


def test_a_start_nobody_waits_for_any_more_is_used_by_the_next_event(tmp_path: Path) -> None:
    code = write_code(tmp_path / "code")
    slow = "import time, os\ntime.sleep(0.4)\ndef f(event, context): return os.getpid()\n"
    (code / "slow.py").write_text(slow)

    async def scenario(target: Pool) -> None:
        with pytest.raises(FunctionError, match="no process was started in time") as found:
            await ask(target, seconds=0.2)
        assert found.value.kind is Failure.TIMED_OUT  # none was there that might have been free
        assert await value(target)
        assert target.processes == 1

    with_pool(lambda: pool(code, "python", "f", module="slow"), scenario)


def test_a_function_that_cannot_start_is_not_started_for_each_of_many(
    code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(target: Pool) -> None:
        runs = await asyncio.gather(*(ask(target) for _ in range(20)))
        runs.append(await ask(target))
        assert {json.loads(run.payload)["errorType"] for run in runs} == {
            "Runtime.ImportModuleError"
        }

    caplog.set_level(logging.INFO, "fleetgate.functions")
    with_pool(lambda: pool(code, "python", "f", module="broken", concurrency=2), scenario)
    assert 1 <= sum("event=function-not-started" in each for each in caplog.messages) <= 2


# --- the end --------------------------------------------------------------------------------------


def test_closing_ends_what_runs_and_leaves_nothing(code: Path) -> None:
    temporary = Path()

    async def scenario(target: Pool) -> None:
        nonlocal temporary
        pid = await pid_of(target)
        temporary = Path(await value(target, "import os; result = os.environ['TMPDIR']"))
        assert temporary.is_dir()
        long = asyncio.create_task(ask(target, "import time; time.sleep(30)"))
        waiting = asyncio.create_task(ask(target, ANSWER))
        await asyncio.sleep(0.05)
        await target.close()
        assert (await long).error == "Unhandled"
        for refused in (waiting, ask(target, ANSWER)):
            with pytest.raises(FunctionError, match="it was ended"):
                await refused
        assert not is_alive(pid)

    with_pool(lambda: pool(code, concurrency=1), scenario)
    assert not temporary.exists()


def test_draining_lets_what_runs_come_to_its_end(code: Path) -> None:
    async def scenario(target: Pool) -> None:
        asking = asyncio.create_task(ask(target, "import time; time.sleep(0.2); result = 1"))
        await asyncio.sleep(0)
        await target.drain()
        assert asking.done()
        assert (await asking).payload == b"1"
        assert not target.processes

    with_pool(lambda: pool(code), scenario)


SERVER = """
import asyncio, json, sys
from pathlib import Path
from tests.functions.programs import outside, pool, value
from tests.functions.test_pool import DAEMON

async def main():
    target = pool(Path(sys.argv[1]))
    inner = await value(target, DAEMON)
    temporary = await value(target, "import os; result = os.environ['TMPDIR']")
    (runtime,) = target.pids
    print(json.dumps([runtime, outside(runtime, inner), temporary]), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("killed", ["server", "launcher"])
def test_functions_end_with_a_server_or_launcher_that_is_killed(code: Path, killed: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(code)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as server:
        assert server.stdout is not None
        runtime, daemon, temporary = json.loads(server.stdout.readline())
        keeper = parent(runtime)
        launcher = parent(keeper)
        assert parent(launcher) == server.pid
        assert all(is_alive(pid) for pid in (runtime, keeper, launcher, daemon))
        assert Path(temporary).is_dir()
        if killed == "launcher":
            os.kill(launcher, signal.SIGKILL)
            for pid in (runtime, keeper, daemon):
                assert eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
        server.kill()
    for pid in (runtime, keeper, launcher, daemon):
        assert eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
    assert killed == "launcher" or eventually(lambda: not Path(temporary).exists())
