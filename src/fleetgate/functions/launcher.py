"""The process that starts a function's runtime, and that ends with all it started.

Theory of operation. The server starts one launcher for each process of a function, with a socket
as standard input and a pipe as standard output and error. It sends a plan, one line of JSON. The
launcher forks; the child confines itself and becomes the runtime, whose output is the pipe. The
launcher stays, outside of that confinement: a function's processes cannot signal it. It adopts
whatever the function leaves behind (PR_SET_CHILD_SUBREAPER), so that nothing escapes it by forking
twice or by a session of its own. When the runtime ends, or the server closes the socket or is gone
(``kill -9`` included), it kills every process there is below it, removes the function's temporary
directory and ends.

Lines it sends: ``started PID MISSING,...`` (what of the confinement the kernel does not offer),
``failed REASON``, ``exited CODE``, ``killed SIGNAL``.

The server's interpreter runs this isolated and without site-packages: it takes some 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import time
from typing import Any

from fleetgate.functions import confinement

PATIENCE = 5.0
"""Seconds to end all processes; one that the kernel does not let go of is left."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Runs one plan; see the module."""
    server = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    plan = _read_plan(server)
    if plan is None:
        return
    wake_read, wake_write = socket.socketpair()
    for each in (wake_read, wake_write):
        each.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    # Ctrl-C and the like are for the server: we end when it does
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        outcome = _run(plan, server, wake_read)
        _kill_all()
        with contextlib.suppress(OSError):
            server.sendall(f"{outcome}\n".encode())
    finally:
        if plan["remove"]:
            import shutil  # not before there is time

            shutil.rmtree(plan["remove"], ignore_errors=True)


def _read_plan(server: socket.socket) -> dict[str, Any] | None:
    received = b""
    while not received.endswith(b"\n"):
        piece = server.recv(1 << 16)
        if not piece:
            return None
        received += piece
    plan: dict[str, Any] = json.loads(received)
    return plan


def _run(plan: dict[str, Any], server: socket.socket, wake: socket.socket) -> str:
    """Starts the runtime and waits for its end, or for that of the server; returns how it ended."""
    # closed by the exec that succeeds; else it holds what went wrong
    told_read, told_write = os.pipe()
    launcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(told_read)
        _become(plan, told_write, launcher)
    os.close(told_write)
    # from now on the function alone holds the pipe: its end is the end of what it writes
    os.dup2(0, 1)
    os.dup2(0, 2)
    with os.fdopen(told_read, "rb") as told:
        missing, _, failed = told.read().decode(errors="replace").partition("\n")
    if failed:
        os.waitpid(pid, 0)
        return f"failed {failed.strip()}"
    server.sendall(f"started {pid} {missing}\n".encode())
    while True:
        ready, _, _ = select.select([server, wake], [], [])
        if server in ready:
            return "stopped"  # the server says nothing more: it closed the socket, or is gone
        with contextlib.suppress(BlockingIOError):
            wake.recv(4096)
        while (ended := _ended()) is not None:
            if ended[0] == pid:
                code = os.waitstatus_to_exitcode(ended[1])
                return f"killed {-code}" if code < 0 else f"exited {code}"


def _ended() -> tuple[int, int] | None:
    """A child that ended, with its status; adopted ones are waited for here as well."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _become(plan: dict[str, Any], told: int, launcher: int) -> None:
    """The child: never returns. Tells what is missing, a line, and then what went wrong."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != launcher:
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setpgid(0, 0)
        os.umask(0o077)
        os.nice(plan["nice"])
        # a descriptor that is not to be passed on may be there still: none but three and `told`
        os.set_inheritable(told, False)
        os.closerange(3, told)
        os.closerange(told + 1, 1 << 16)
        for name, value in plan["limits"].items():
            _limit(getattr(resource, name), value)
        os.chdir(plan["directory"])
        confined = plan["confinement"]
        missing = confinement.confine(
            confined["read"], confined["write"], confined["hidden"], whole=confined["whole"]
        )
        os.write(told, ",".join(missing).encode() + b"\n")
        os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606
    except BaseException as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        os.write(told, f"\n{words}".encode())
    finally:
        os._exit(1)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def _kill_all() -> None:
    """Kills everything below this process; what loses its parent meanwhile comes to us."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _descendants() -> list[int]:
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is slow to import
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                # pid (command) state parent ...: a command may hold anything
                parent = int(stat.read().rpartition(b")")[2].split()[1])
                parents.setdefault(parent, []).append(int(name))
    found = parents.get(os.getpid(), [])
    for pid in found:
        found += parents.get(pid, [])
    return found


if __name__ == "__main__":
    main()
