"""What functions can reach: tried from within real ones.

Needs a kernel with Landlock of ABI 6 or later (Linux 6.12) and seccomp.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from fleetgate.functions import confinement, system_calls
from tests.functions.programs import Bench, bench, pool, value, write_code

pytestmark = pytest.mark.skipif(
    confinement.landlock_abi() < 6, reason="this kernel has no Landlock of ABI 6"
)

TRY = """
import ctypes, os, signal, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
try:
    result = ["reached", {}]
except OSError as error:
    result = ["refused", type(error).__name__]
"""
SERVER = os.getpid()
UNIX = "socket.socket(socket.AF_UNIX)"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies on a server's disk: data, unpacked code in it, configuration beside it."""
    root = tmp_path_factory.mktemp("server").resolve()
    (root / "data" / "functions").mkdir(parents=True)
    (root / "data" / "ca-key.pem").write_text("SECRET")
    write_code(root / "data" / "functions" / "code")
    (root / "fleetgate.toml").write_text("SECRET")
    write_code(root / "company")
    (root / "notes.txt").write_text("SECRET of nobody")
    return root


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    with bench() as made:
        yield made


def tried(running: Bench, server: Path, expression: str, *, uploaded: bool = True) -> list[str]:
    hidden = (server / "data", server / "fleetgate.toml")
    if uploaded:
        target = running.pool(server / "data" / "functions" / "code", hidden=hidden)
    else:
        target = running.pool(
            None, module="company.app", hidden=hidden, search_path=(server,), memory_megabytes=512
        )
    code = TRY.format(expression.format(server=server, pid=SERVER))
    result: list[str] = running.runner.run(value(target, code))
    return result


@pytest.mark.parametrize(
    "expression",
    [
        "open('{server}/data/ca-key.pem').read()",
        "os.listdir('{server}/data')",
        "open('{server}/fleetgate.toml').read()",
        "open('{server}/notes.txt').read()",
        "open('/proc/{pid}/environ').read()",
        "open('/proc/{pid}/mem').read(1)",
        "open('/proc/{pid}/maps').read(1)",
        "os.listdir('/proc')",
        "open('/proc/self/environ').read()",
        "os.listdir('/root')",
        "os.listdir('/tmp')",
        "os.listdir('/etc')",
        "open('/etc/shadow').read()",
        "open('{server}/data/functions/code/app.py', 'a')",
        "open('{server}/data/functions/code/new.py', 'w')",
        "open('/tmp/fleetgate-left-behind', 'w')",
        "open('/dev/mem', 'rb')",
        "os.mkfifo('/tmp/fleetgate-left-behind')",
        "os.chmod('{server}/data/ca-key.pem', 0o777)",
        "os.chown('{server}/data/ca-key.pem', 0, 0)",
        "os.setxattr('{server}/data/ca-key.pem', 'user.x', b'1')",
        "os.kill({pid}, 0)",
        "os.kill(os.getppid(), 0)",
        "call(434, {pid}, 0) and call(424, call(434, {pid}, 0), 0, None, 0)",  # pidfd_send_signal
        "call(101, 16, {pid}, 0, 0)",  # ptrace(PTRACE_ATTACH)
        "__import__('resource').prlimit({pid}, 7, (1, 1))",
        "os.setpriority(os.PRIO_PROCESS, {pid}, 19)",
        "os.sched_setaffinity({pid}, [0])",
        UNIX,
        "call(425, 1, 0)",  # io_uring_setup
        "call(250, 0, -3, 0)",  # keyctl
        "os.setuid(12345)",
        "os.utime('{server}/data/ca-key.pem', (0, 0))",
        "os.utime('{server}/data', (0, 0))",
        "os.utime('{server}/data/functions/code/app.py', (0, 0))",
        "os.chmod('{server}/data/functions/code/app.py', 0o777)",
        "os.fchmod(os.open('{server}/data/functions/code/app.py', os.O_RDONLY), 0o777)",
        "os.utime(os.open('{server}/data/functions/code/app.py', os.O_RDONLY), (0, 0))",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)",  # NETLINK_SOCK_DIAG
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(38, socket.SOCK_SEQPACKET)",  # AF_ALG
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "os.memfd_create('x')",
        "__import__('mmap').mmap(-1, 4096)",
        "__import__('mmap').mmap(os.open('/dev/zero', os.O_RDWR), 4096)",
        "call(29, 0, 4096, 0o1600)",  # shmget
        "call(68, 0, 0o1600)",  # msgget
        "call(240, b'x', 0o102, 0o600, None)",  # mq_open
        "call(323, 0)",  # userfaultfd
        "call(253)",  # inotify_init
        "call(300, 0x200, 0)",  # fanotify_init
        "call(321, 0, 0, 0)",  # bpf
        "call(272, 0x10000000)",  # unshare(CLONE_NEWUSER)
        "call(56, 0x10000011, 0, 0, 0, 0)",  # clone(CLONE_NEWUSER | SIGCHLD)
        "call(435, 0, 0)",  # clone3
        "call(308, 0, 0)",  # setns
        "call(157, 36, 1, 0, 0, 0)",  # prctl(PR_SET_CHILD_SUBREAPER)
        "os.setsid()",
        "os.setpgid(0, 0)",
        "__import__('fcntl').fcntl(1, 8, {pid})",  # F_SETOWN
        "os.chroot('.')",
        # a user namespace of its own (CLONE_NEWUSER) is no way out
        "(libc.unshare(0x10000000), open('{server}/data/ca-key.pem').read())",
    ],
)
def test_uploaded_code_does_not_reach(running: Bench, server: Path, expression: str) -> None:
    if expression.startswith("call(") and os.uname().machine != "x86_64":
        pytest.skip("the number of the system call is another one")
    assert tried(running, server, expression)[0] == "refused"
    assert not Path("/tmp/fleetgate-left-behind").exists()  # noqa: S108


@pytest.mark.parametrize(
    "expression",
    [
        "len(open('{server}/data/functions/code/app.py').read())",
        "open(os.environ['TMPDIR'] + '/x', 'w').write('x')",
        "os.rename(os.environ['TMPDIR'] + '/x', os.environ['TMPDIR'] + '/y')",
        "open('/dev/null', 'w').write('x')",
        "len(open('/dev/urandom', 'rb').read(1))",
        "len(__import__('ssl').create_default_context().get_ca_certs()) >= 0",
        "len(__import__('cryptography').__version__)",
        "len(__import__('boto3').__version__)",
        "socket.socketpair()[0].close()",
        "socket.getaddrinfo('localhost', 80)[0][0]",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()",  # NETLINK_ROUTE
        "len(socket.if_nameindex()) > 0",
        "socket.create_server(('127.0.0.1', 0)).close()",
        "subprocess.run(['/bin/sh', '-c', 'true'], check=True).returncode",
        "__import__('zoneinfo').ZoneInfo('Europe/Berlin') and 1",
        "__import__('tempfile').TemporaryDirectory().cleanup()",
        "__import__('shutil').copy2('/usr/bin/env', os.environ['TMPDIR'] + '/env') and 1",
        "os.chmod(os.environ['TMPDIR'] + '/y', 0o400)",
        "os.utime(os.environ['TMPDIR'] + '/y', (0, 0))",
        "__import__('shutil').copytree('{server}/data/functions/code', os.environ['HOME'] + '/t')",
        "os.statvfs(os.environ['TMPDIR']).f_blocks * os.statvfs('.').f_frsize and 1",
        "__import__('concurrent.futures').futures.ThreadPoolExecutor(9).submit(int).result()",
    ],
)
def test_uploaded_code_reaches_what_it_needs(running: Bench, server: Path, expression: str) -> None:
    assert tried(running, server, expression)[0] == "reached"


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("open('{server}/data/ca-key.pem').read()", "refused"),
        ("open('{server}/data/functions/code/app.py').read()", "refused"),
        ("open('{server}/fleetgate.toml').read()", "refused"),
        ("open('{server}/data/new', 'w')", "refused"),
        ("open('/proc/{pid}/environ').read()", "refused"),
        ("os.kill({pid}, 0)", "refused"),
        ("open('{server}/notes.txt').read()", "reached"),
        ("len(open('/etc/passwd').read())", "reached"),
        (f"{UNIX}.close()", "reached"),
        ("__import__('fleetgate').__version__", "reached"),
        ("open(os.environ['TMPDIR'] + '/x', 'w').write('x')", "reached"),
    ],
)
def test_the_operators_code_reaches_all_but_the_servers_secrets(
    running: Bench, server: Path, expression: str, answer: str
) -> None:
    assert tried(running, server, expression, uploaded=False)[0] == answer


def test_node_is_confined_as_well(running: Bench, server: Path) -> None:
    target = running.pool(server / "data" / "functions" / "code", "node", hidden=(server / "data",))
    read = "try {{ return require('fs').readFileSync('{}', 'utf8') }} catch (e) {{ return e.code }}"
    for path in (server / "data" / "ca-key.pem", f"/proc/{SERVER}/environ", "/etc/shadow"):
        assert running.runner.run(value(target, read.format(path))) == "EACCES"
    connected = """return await new Promise((done) => require('net').connect('/run/x')
        .on('error', (error) => done(error.code)))"""
    assert running.runner.run(value(target, connected)) == "EACCES"


def test_code_within_the_data_directory_can_be_imported_and_its_neighbours_not_read(
    running: Bench, server: Path
) -> None:
    write_code(server / "data" / "hooks")
    target = running.pool(
        None, module="hooks.app", hidden=(server / "data",), search_path=(server / "data",)
    )
    code = TRY.format("open('{}').read()").format(server / "data" / "ca-key.pem")
    assert running.runner.run(value(target, code)) == ["refused", "PermissionError"]


def test_no_descriptor_of_the_server_is_passed_on(running: Bench, server: Path) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.set_inheritable(True)
        made = pool(server / "company")

        async def listed() -> object:
            code = "import os, stat\nresult = {}\n"
            code += "for n in range(1024):\n"
            code += "    try: result[n] = stat.S_IFMT(os.fstat(n).st_mode)\n"
            code += "    except OSError: pass\n"
            try:
                return await value(made, code)
            finally:
                await made.close()

        with_descriptors = running.runner.run(listed())
    # null, the pipe twice, and the connection to the runtime API
    assert isinstance(with_descriptors, dict)
    assert sorted(with_descriptors) == ["0", "1", "2", "3"]


GUARDED = """
import os
from fleetgate.functions.confinement import _libc, guard
if os.geteuid() == 0:
    os.setuid(65534)
    _libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which a change of user takes away
before = os.stat("/proc/self/environ").st_uid
guard()
print(before == os.getuid(), os.stat("/proc/self/environ").st_uid)
"""


def test_a_guarded_process_is_none_of_its_users() -> None:
    ran = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, check=True)
    assert ran.stdout == b"True 0\n"


def test_every_instruction_of_a_filter_stays_within_it() -> None:
    for machine, sealed in product(("x86_64", "aarch64"), (False, True)):
        program = system_calls.filter_program(machine, sealed=sealed)
        instructions = [program[at : at + 8] for at in range(0, len(program), 8)]
        for number, each in enumerate(instructions):
            assert number + 1 + max(each[2], each[3]) < len(instructions) + (each[0] == 0x06)
    assert system_calls.filter_program("s390x") == b""


WITHOUT_LANDLOCK = """
import asyncio, ctypes, logging, struct, sys
from pathlib import Path
from fleetgate.functions import confinement, system_calls as c
from tests.functions.programs import pool, value

program = b"".join([
    c.instruction(c.LOAD, c.OFFSET_NUMBER),
    *c.answer(c.JUMP_EQUAL, confinement._CREATE_RULESET, c.ENOSYS),
    c.instruction(c.RETURN, c.ALLOWED),
])
kept = ctypes.create_string_buffer(program, len(program))
described = struct.pack("@HP", len(program) // 8, ctypes.addressof(kept))
confinement._libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
assert confinement._libc.prctl(22, 2, described, 0, 0) == 0  # PR_SET_SECCOMP
logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")

async def main():
    for _ in range(2):
        target = pool(Path(sys.argv[1]))
        print(await value(target, "result = 'answered'"))
        await target.close()

asyncio.run(main())
"""


def test_a_kernel_without_landlock_is_told_once(server: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_LANDLOCK, str(server / "company")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
        check=False,
    )
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("event=function-not-confined function=f missing=landlock cause=")
    assert lines[1:] == ["answered", "answered"], ran.stderr
