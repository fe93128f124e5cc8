"""What a process of a function may take with all it started, and that it ends at once.

Everything here is small: some 40 processes, some 100 MB, some seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functions.programs import Bench, bench, error, eventually, value, write_code

KILLED = ("Runtime.ExitError", "RequestId: request-1 Error: Runtime exited with error: ")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    with bench() as made:
        yield made


def why(caplog: pytest.LogCaptureFixture) -> list[str]:
    ended = [each for each in caplog.messages if "event=function-ended" in each]
    return [each.partition("cause=")[2] for each in ended]


def killed(running: Bench, code: Path, script: str) -> None:
    kind, message = running.runner.run(error(running.pool(code), script))
    assert (kind, message) == (KILLED[0], KILLED[1] + "signal: killed")


CHILDREN = """
import os, time
for _ in range({count}):
    if os.fork() == 0:
        kept = {kept}
        time.sleep(5)
        os._exit(0)
time.sleep({seconds})
result = "answered"
"""


def test_the_memory_of_all_processes_together_is_limited(
    running: Bench, code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # each for itself is far from the limit
    killed(running, code, CHILDREN.format(count=4, kept="b'x' * 50_000_000", seconds=10))
    (cause,) = why(caplog)
    assert "MB of memory; the limit is 160" in cause


def test_memory_that_is_shared_counts_once(running: Bench, code: Path) -> None:
    script = "import mmap, os\nkept = b'x' * 80_000_000\n"
    script += CHILDREN.format(count=4, kept="sum(kept[::4096])", seconds=0.4)
    assert running.runner.run(value(running.pool(code), script)) == "answered"


def test_processes_and_threads_are_counted(
    running: Bench, code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threads = """
import os, threading, time
for _ in range(3):
    if os.fork() == 0:
        for _ in range(90):
            threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        time.sleep(5)
time.sleep(10)
"""
    killed(running, code, threads)
    assert "processes and threads; the limit is 256" in why(caplog)[-1]


def test_there_is_room_for_many_threads(running: Bench, code: Path) -> None:
    threads = """
import threading, time
many = [threading.Thread(target=time.sleep, args=(0.3,)) for _ in range(200)]
for each in many: each.start()
for each in many: each.join()
result = len(many)
"""
    assert running.runner.run(value(running.pool(code), threads)) == 200


def test_work_between_events_ends_a_process(
    running: Bench, code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = running.pool(code)
    spin = "import threading\ndef spin():\n    while True: pass\n"
    running.runner.run(value(target, spin + "threading.Thread(target=spin, daemon=True).start()"))
    (pid,) = target.pids

    async def waited() -> bool:
        import asyncio

        for _ in range(1500):
            if pid not in target.pids:
                return True
            await asyncio.sleep(0.02)
        return False

    assert running.runner.run(waited())
    assert "s of processor time between events; the limit is 1'" in why(caplog)[-1]


def test_the_temporary_directory_is_full_when_it_is_full(running: Bench, code: Path) -> None:
    # with files nobody can find
    script = """
import errno, os
os.chdir(os.environ["TMPDIR"])
written, files = 0, []
try:
    while written < 2000:
        files.append(open("x", "wb", buffering=0))
        os.unlink("x")
        os.posix_fallocate(files[-1].fileno(), 0, 64 << 20)
        written += 64
except OSError as error:
    result = [written, errno.errorcode[error.errno]]
"""
    assert running.runner.run(value(running.pool(code), script)) == [512, "ENOSPC"]
    # next to nothing is left of it when it ends
    assert running.runner.run(error(running.pool(code), "import os; os._exit(1)"))


COMETS = """
import os, time
for _ in range({count}):
    if os.fork() == 0:
        end = time.monotonic() + 12
        while time.monotonic() < end:
            {pause}
            if os.fork(): os._exit(0)
        os._exit(0)
result = "answered"
"""


def in_namespace(namespace: str) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(each / "ns" / "pid") == namespace:  # noqa: PTH115 - it is no path
                found.append(each.name)
        except OSError:
            pass
    return found


def test_processes_that_come_and_go_end_too(running: Bench, code: Path) -> None:
    target = running.pool(code, concurrency=1)
    assert running.runner.run(value(target, "result = 1")) == 1
    (pid,) = target.pids
    namespace = os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115
    assert namespace != os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    # slow enough not to be ended for being many
    script = COMETS.format(count=8, pause="time.sleep(0.2)")
    assert running.runner.run(value(target, script)) == "answered"
    assert len(in_namespace(namespace)) > 2
    running.runner.run(error(target, "import os; os._exit(1)"))
    assert eventually(lambda: not in_namespace(namespace), seconds=2)


def test_processes_left_behind_in_a_flood_end_a_process(
    running: Bench, code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = COMETS.format(count=8, pause="pass") + "time.sleep(15)"
    killed(running, code, script)
    assert "more than 100 processes that outlived their parents" in why(caplog)[-1]


def test_the_operators_own_code_is_limited_in_memory(
    running: Bench, code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = running.pool(None, search_path=(code,))
    script = "import mmap\nkept = mmap.mmap(-1, 300 << 20)\n"
    script += "for at in range(0, len(kept), 4096): kept[at] = 1\nimport time; time.sleep(10)"
    kind, message = running.runner.run(error(target, script))
    assert (kind, message.rpartition(": ")[2]) == ("Runtime.ExitError", "killed")
    assert "MB of memory; the limit is 160" in why(caplog)[-1]


WITHOUT_NAMESPACES = """
import asyncio, ctypes, logging, os, struct, sys
from pathlib import Path
from fleetgate.functions import confinement, system_calls as c
from tests.functions.programs import ask, error, pool, value
from tests.functions.test_limits import COMETS

program = b"".join([
    c.instruction(c.LOAD, c.OFFSET_NUMBER),
    *c.answer(c.JUMP_EQUAL, {"x86_64": 272, "aarch64": 97}[os.uname().machine], 1),  # unshare
    c.instruction(c.RETURN, c.ALLOWED),
])
kept = ctypes.create_string_buffer(program, len(program))
described = struct.pack("@HP", len(program) // 8, ctypes.addressof(kept))
confinement._libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
assert confinement._libc.prctl(22, 2, described, 0, 0) == 0  # PR_SET_SECCOMP
logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")

def group(number):
    found = 0
    for each in Path("/proc").glob("[0-9]*"):
        try: found += (each / "stat").read_text().rpartition(")")[2].split()[2] == str(number)
        except OSError: pass
    return found

async def main():
    target = pool(Path(sys.argv[1]))
    refused = 0
    for code in (
        "os.chmod(path, 0o700)", "os.utime(path)", "os.setsid()", "os.setpgid(0, 0)",
        "os.fchmod(os.open(sys.executable, os.O_RDONLY), 0o777)",
    ):
        prefix = "import os, sys; path = os.environ['TMPDIR']; "
        refused += (await error(target, prefix + code))[0] == "PermissionError"
    print(refused)
    print(await value(target, COMETS.format(count=8, pause="time.sleep(0.2)")))
    (pid,) = target.pids
    print(group(pid) > 2)
    await error(target, "import os; os._exit(1)")
    await asyncio.sleep(0.3)
    print(group(pid))
    full = '''
import os, time
os.chdir(os.environ["TMPDIR"])
for name in "abcdef":
    os.truncate(os.open(name, os.O_CREAT | os.O_WRONLY), 1)
    os.posix_fallocate(os.open(name, os.O_WRONLY), 0, 100 << 20)
time.sleep(10)
'''
    print((await error(target, full))[0])
    await target.close()

asyncio.run(main())
"""


def test_where_there_can_be_no_namespaces_it_is_told_and_other_ways_are_taken(code: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAMESPACES, str(code)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=40,
        check=False,
    )
    lines = ran.stdout.splitlines()
    told = [line for line in lines if line.startswith("event=")]
    rest = [line for line in lines if not line.startswith("event=")]
    assert rest == ["5", "answered", "True", "0", "Runtime.ExitError"], ran.stdout + ran.stderr
    confined = [line for line in told if "function-not-confined" in line]
    assert len(confined) == 1
    assert "missing=namespaces" in confined[0]
    assert any("MB in TMPDIR; the limit is 512" in line for line in told)
