"""The `aws` command of the tests: the AWS CLI itself, imported once instead of at every call.

Two thirds of the half second of a call go into importing the AWS CLI. So one process imports it;
each call of the command is a fork of that process, with the arguments, environment, directory and
open files of the caller, and runs what the executable of the AWS CLI runs. The command is a
script that hands these over and waits for the exit code; `directory` has it, for PATH.

`test_shell_clients` starts the real executable. The process ends with the one that started it.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

_COMMAND = """#!{python} -IS
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    files = array.array("i", [0, 1, 2])
    server.sendmsg([len(call).to_bytes(4, "big")],
                   [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(call)
    answer = server.recv(1)
sys.exit(answer[0] if answer else 70)
"""


@functools.cache
def directory() -> Path:
    """The directory with the command `aws`; the first call starts the process behind it."""
    made = Path(tempfile.mkdtemp(prefix="fleetgate-aws-"))
    address = str(made / "socket")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(8)
    command = made / "aws"
    command.write_text(_COMMAND.format(python=sys.executable, address=address))
    command.chmod(0o755)
    alive, ours = os.pipe()  # nobody else has our end: it is closed when this process is no more
    handed = (listening.fileno(), alive)
    process = subprocess.Popen(
        [sys.executable, __file__, *map(str, handed)],
        pass_fds=handed,
        start_new_session=True,
        env={"PATH": os.defpath},
    )
    listening.close()
    os.close(alive)

    def end() -> None:
        os.close(ours)
        process.wait()
        shutil.rmtree(made)

    atexit.register(end)
    return made


def _serve(listening: socket.socket, alive: int) -> None:
    """Answers calls, each in a process of its own, for as long as the parent lives."""
    import awscli.clidriver  # type: ignore[import-untyped]

    awscli.clidriver.create_clidriver()  # imports what the first call would
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while alive not in select.select([listening.fileno(), alive], [], [])[0]:
        caller, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            os.close(alive)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(caller)
        caller.close()


def _answer(caller: socket.socket) -> NoReturn:
    """Runs one call in a child and tells its exit code."""
    size, files, _, _ = socket.recv_fds(caller, 4, 3)
    call = b""
    while len(call) < int.from_bytes(size, "big"):
        call += caller.recv(1 << 16)
    child = os.fork()
    if child == 0:
        caller.close()
        _run(json.loads(call), files)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    caller.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def _run(call: tuple[list[str], dict[str, str], str], files: list[int]) -> NoReturn:
    """What the executable does, as if started so; `call`: arguments, environment, directory."""
    arguments, environment, cwd = call
    code = 70
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.chdir(cwd)
        data = {"AWS_DATA_PATH": os.environ["AWS_DATA_PATH"]}  # the import has set it
        os.environ.clear()
        os.environ.update(data | environment)
        sys.argv = ["aws", *arguments]
        import awscli.clidriver

        code = awscli.clidriver.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
