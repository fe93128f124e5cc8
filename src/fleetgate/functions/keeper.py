"""The process between the launcher and the runtime: the first one of a PID namespace.

Theory of operation. The launcher forks the keeper, the keeper forks the runtime, which confines
itself. The keeper waits for the runtime and for all that loses its parent, tells how the runtime
ended, and waits to be killed. With it the kernel kills everything in its namespace, at once; it
dies with the launcher, whatever kills that. Where there can be no namespaces, its children come to
the launcher (PR_SET_CHILD_SUBREAPER), which kills them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fleetgate.functions import confinement, namespaces

MAX_LEFT_BEHIND: Final = 100
"""Processes a second that may end after whoever started them did."""

_SESSION_NICE: Final = 5  # a quarter of the processor beside one that is busy: hooks are waited for
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_ANCILLARY: Final = socket.CMSG_SPACE(12)  # struct ucred: pid, uid, gid
_libc = ctypes.CDLL(None, use_errno=True)


class NotBegun(Exception):
    """The runtime could not be started; the message says why."""


class Kept(NamedTuple):
    """A runtime that began, and its keeper; `missing` is what the kernel does not offer.

    `ended` is a pipe with one JSON object to come. `separate` tells whether they are in a PID
    namespace.
    """

    keeper: int
    runtime: int
    ended: int
    missing: str
    separate: bool
    sealed: bool


def start(plan: Mapping[str, Any]) -> Kept:
    """Starts a keeper and the runtime of a plan; raises NotBegun."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        mode = "" if plan["confinement"]["whole"] else namespaces.enter()
    except OSError as error:
        raise NotBegun(f"namespaces: {error}") from None
    here, there = socket.socketpair()
    # who says something is told by the kernel: the runtime's number as it is here
    here.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    ended_read, ended_write = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        _keep(plan, there.fileno(), ended_write, mode)
    there.close()
    os.close(ended_write)
    # from now on the function alone holds the pipe: its end is the end of what it writes
    os.dup2(0, 1)
    os.dup2(0, 2)
    runtime, said = _listen(here, keeper)
    missing, _, failed = said.partition("\n")
    if failed or not runtime:
        os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
        raise NotBegun(failed.strip() or "it ended before it began")
    words = [word for word in missing.split(",") if word]
    sealed = bool(mode) and "read-only" not in words
    return Kept(keeper, runtime, ended_read, ",".join(words), bool(mode), sealed)


def _listen(here: socket.socket, keeper: int) -> tuple[int, str]:
    """What is said until the runtime begins, and the runtime's number."""
    said, runtime = b"", 0
    with here:
        while True:
            data, ancillary, _, _ = here.recvmsg(4096, _ANCILLARY)
            if not data:
                return runtime, said.decode(errors="replace")
            pid = next((struct.unpack("3i", each[2][:12])[0] for each in ancillary), 0)
            if data == b"?" and pid == keeper:
                here.send(b"!")
                continue
            if pid != keeper:
                runtime = pid
            said += data


def _keep(plan: Mapping[str, Any], told: int, ended: int, mode: str) -> None:
    """The keeper: never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # the launcher may be gone already; in a PID namespace nobody can see that
        os.write(told, b"?")
        if os.read(told, 1) != b"!":
            os._exit(1)
        signal.set_wakeup_fd(-1)
        _close_others(told, ended)
        _come_last()
        missing = []
        whole = plan["confinement"]["whole"]
        sealed = bounded = False
        if mode:
            bounded = namespaces.bound_processes()
            sealed = namespaces.seal(plan["remove"], plan["disk"])
            if not sealed:
                missing.append("read-only")
            if not bounded and mode == namespaces.ROOT:
                missing.append("process-limit")
        elif not whole:
            missing += ["namespaces"]
        runtime = os.fork()
        if runtime == 0:
            os.close(ended)
            _become(plan, told, mode, missing, sealed=sealed)
        os.close(told)
        os.dup2(0, 1)
        os.dup2(0, 2)
        os.write(ended, json.dumps(_wait(runtime)).encode())
        while True:
            signal.pause()
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(told, f"\n{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def _wait(runtime: int) -> dict[str, Any]:
    """How the runtime ended, or why it is to be ended."""
    since, count = time.monotonic(), 0
    while True:
        pid, status, used = os.wait4(-1, 0)
        if pid == runtime:
            code = os.waitstatus_to_exitcode(status)
            word = "exited" if code >= 0 else "killed"
            return {"word": word, "number": abs(code), "peak": used.ru_maxrss}
        count += 1
        if count > MAX_LEFT_BEHIND:
            now = time.monotonic()
            if now < since + 1:
                why = "processes that outlived their parents"
                return {"why": f"more than {MAX_LEFT_BEHIND} {why} ended within a second"}
            since, count = now, 0


def _come_last() -> None:
    """When memory is short, this and what it starts are ended first, and are nice as a session.

    Where sessions share the processor (sched(7), "The autogroup feature"), the nice value of a
    process counts only within its session.
    """
    for name, value in (("oom_score_adj", 1000), ("autogroup", _SESSION_NICE)):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
            file.write(str(value))


def _become(
    plan: Mapping[str, Any], told: int, mode: str, missing: list[str], *, sealed: bool
) -> None:
    """The runtime: never returns. Tells what is missing, a line, and then what went wrong."""
    try:
        if not mode:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setpgid(0, 0)
        os.umask(0o077)
        os.nice(plan["nice"])
        os.set_inheritable(told, False)
        for name, value in plan["limits"].items():
            _limit(getattr(resource, name), value)
        if mode == namespaces.USER:
            # launcher and keeper are counted too
            _limit(resource.RLIMIT_NPROC, plan["processes"] + 2)
        os.chdir(plan["directory"])
        confined = plan["confinement"]
        missing += confinement.confine(
            confined["read"],
            confined["write"],
            confined["hidden"],
            whole=confined["whole"],
            sealed=sealed,
            separate=bool(mode),
        )
        os.write(told, ",".join(missing).encode() + b"\n")
        os.execve(plan["command"][0], plan["command"], plan["environment"])  # noqa: S606
    except BaseException as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        os.write(told, f"\n{words}".encode())
    finally:
        os._exit(1)


def _close_others(*kept: int) -> None:
    """Closes what is open but for the first three and `kept`."""
    first = 3
    for number in sorted(kept):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, 1 << 16)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))
