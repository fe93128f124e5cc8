"""The process that starts a function's runtime, and that ends with all it started.

Theory of operation. The server starts one launcher for each process of a function, with a socket
as standard input and a pipe as standard output and error. It sends a plan, and then events. The
launcher starts a keeper, and that the runtime (functions/keeper.py), whose output is the pipe. The
launcher stays outside of their confinement. It serves the runtime API (functions/runtime_api.py),
which is how events get there, and looks at what all of them take (functions/watch.py). When the
runtime ends, takes too much, or the server closes the socket or is gone (``kill -9`` included), it
ends every process there is, removes the function's temporary directory and ends.

How processes are ended: with the keeper the kernel ends its PID namespace. Where there can be none,
the runtime's process group is killed, which uploaded code cannot leave (functions/system_calls.py).
What is left then, of the operator's own code, is looked for in ``/proc``.

Words it sends, as frames (functions/frames.py): ``started`` (with what of the confinement the
kernel does not offer), those of the runtime API, ``misbehaved``, and how it ended: ``failed``,
``exited``, ``killed`` (with the peak of its memory, in KB), ``stopped``.

The server's interpreter runs this isolated and without site-packages: it takes some 20 ms.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from fleetgate.functions import frames, keeper, removal, watch
from fleetgate.functions.runtime_api import RuntimeApi

PATIENCE = 5.0
"""Seconds to end all processes; one that the kernel does not let go of is left."""

_NICE = 2
_TURNS_LEFT = 64  # for the largest answer, when its runtime has ended


def main() -> None:
    """Runs one plan; see the module."""
    server = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    received = frames.receive(server)
    if received is None:
        return
    plan, _ = received
    # Ctrl-C and the like are for the server: we end when it does
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = _Told(server)
    api = RuntimeApi(plan["arn"], plan["max_answer"], told.tell)
    plan["environment"]["AWS_LAMBDA_RUNTIME_API"] = api.address
    try:
        try:
            outcome = _run(plan, api, server, told)
        finally:
            # not before: a runtime would find, and write, that nobody answers
            api.close()
        told.tell(outcome)
    finally:
        with contextlib.suppress(OSError):  # the server, if there is one, tries again and tells
            removal.remove(plan["remove"])


class _Told:
    """Sends words to the server; `watch` hears of those that matter to it."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.watch: watch.Watch | None = None

    def tell(self, word: Mapping[str, Any], body: bytes = b"") -> None:
        """Sends a word and what goes with it."""
        if self.watch is not None and word["word"] in ("ready", "answered"):
            self.watch.rest(time.monotonic())
        # of a server that is gone, which is noticed where we listen
        with contextlib.suppress(OSError):
            self._server.sendall(frames.frame(word, body))


def _run(
    plan: dict[str, Any], api: RuntimeApi, server: socket.socket, told: _Told
) -> dict[str, Any]:
    """Starts the runtime and waits for its end, or for that of the server; returns how it ended."""
    try:
        kept = keeper.start(plan)
    except keeper.NotBegun as failure:
        _kill_all()
        return {"word": "failed", "why": str(failure)}
    try:
        # what a function sends is not to come before what the server does, but before its own work
        os.nice(min(_NICE, plan["nice"]))
        api.pid = kept.runtime
        limits = watch.limits(plan, sealed=kept.sealed)
        told.watch = watch.Watch(kept.keeper, limits, time.monotonic())
        told.tell({"word": "started", "pid": kept.runtime, "missing": kept.missing})
        return _serve(api, server, kept, told)
    finally:
        _end(kept)


def _serve(
    api: RuntimeApi, server: socket.socket, kept: keeper.Kept, told: _Told
) -> dict[str, Any]:
    watched = told.watch
    assert watched is not None  # noqa: S101 - set by the one caller
    while True:
        reading, writing = api.wanted()
        patience = watched.patience(time.monotonic())
        if (of_api := api.patience()) is not None:
            patience = min(patience, of_api)
        readable, writable, _ = select.select([server, kept.ended, *reading], writing, [], patience)
        # connections first: an event is not for one that was closed
        api.turn(readable, writable)
        if server in readable:
            received = frames.receive(server)
            if received is None:
                return {"word": "stopped"}
            watched.work(time.monotonic())
            api.offer(*received)
        why = api.misbehaved or watched.look(time.monotonic())
        if kept.ended in readable:
            # nothing comes of a keeper that the system ended
            ended = json.loads(os.read(kept.ended, 4096) or b'{"why": "the system ended it"}')
            if "why" not in ended:
                _finish(api)
                return {**ended, "peak": max(ended["peak"], watched.peak)}
            why = ended["why"]
        if why:
            told.tell({"word": "misbehaved", "why": why})
            return {"word": "killed", "number": int(signal.SIGKILL), "peak": watched.peak}


def _finish(api: RuntimeApi) -> None:
    """Takes what a runtime sent before it ended, if it is there."""
    for _ in range(_TURNS_LEFT):
        reading, writing = api.wanted()
        readable, writable, _ = select.select(reading[1:], writing, [], 0)
        if not readable and not writable:
            return
        api.turn(readable, writable)


def _end(kept: keeper.Kept) -> None:
    """Ends everything below this process."""
    if not kept.separate:
        # the number is the group's as long as one is in it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(kept.runtime, signal.SIGKILL)
    os.kill(kept.keeper, signal.SIGKILL)
    if not kept.separate:
        _kill_all()
        return
    # a child of ours: its number is not used again before we wait for it
    end = time.monotonic() + PATIENCE
    pause = 0.0005
    while not os.waitpid(kept.keeper, os.WNOHANG)[0] and time.monotonic() < end:
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


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
