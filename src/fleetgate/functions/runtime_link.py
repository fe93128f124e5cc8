"""The server's end of a launcher (functions/launcher.py): plan and events go there, words come.

What comes back is the launcher's, not the function's: one ``ready``, one ``taken`` and one
``answered`` for each event, as large as an answer may be at most, and how it all ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleetgate.functions import frames
from fleetgate.functions.target import MAX_ANSWER

log = logging.getLogger("fleetgate.functions")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an event: the answer, or Lambda's description of an error."""

    payload: bytes
    failed: bool


@dataclass(frozen=True, slots=True)
class Invocation:
    """An event for the runtime; `deadline` is in seconds since 1970."""

    request_id: str
    event: bytes
    deadline: float
    outcome: asyncio.Future[Outcome]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, in words of Go's os/exec, which Lambda uses; empty for exit code 0."""

    words: str = ""
    failed: str = ""
    """Why it never began."""
    peak_kilobytes: int = 0
    """Of its memory."""


class RuntimeLink:
    """Follows one launcher.

    `ready` is done when the runtime first asks for an event; `init_error` is how it described
    why it cannot. `pid` is that of the runtime, once it began; `ended` is done when it ended.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._writer: asyncio.StreamWriter | None = None
        self._watching: asyncio.Task[None] | None = None
        self._offered: Invocation | None = None
        self._current: Invocation | None = None
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.pid: int | None = None
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.init_error: bytes | None = None

    def start(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        plan: Mapping[str, Any],
        missing: Callable[[str], None],
    ) -> None:
        """Sends the plan; `missing` is told what of the confinement the kernel does not offer."""
        self._writer = writer
        writer.write(frames.frame(plan))
        self._watching = asyncio.create_task(self._watch(reader, missing))

    @property
    def is_offered(self) -> bool:
        """Whether an event was not taken yet."""
        return self._offered is not None

    def offer(self, invocation: Invocation) -> None:
        """Gives the runtime an event: now, or as soon as it asks. There is one at a time."""
        assert self._writer is not None  # noqa: S101 - a process that began has one
        self._offered = self._current = invocation
        head = {"request_id": invocation.request_id, "deadline": invocation.deadline}
        self._writer.write(frames.frame(head, invocation.event))

    async def close(self) -> None:
        """Tells the launcher that it is to end everything."""
        if self._writer is not None:
            self._writer.close()  # which the launcher takes for the end
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def followed(self) -> None:
        """Ends when the launcher has said its last word."""
        if self._watching is not None:
            await self._watching

    async def _watch(self, reader: asyncio.StreamReader, missing: Callable[[str], None]) -> None:
        ended = Ended("signal: killed")  # nobody but the system ends a launcher without a word
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            while True:
                head, body = await _read(reader)
                if head["word"] == "started":
                    self.pid = head["pid"]
                    if head["missing"]:
                        missing(head["missing"])
                elif head["word"] in ("failed", "exited", "killed"):
                    ended = _ended(head)
                else:
                    self._hear(head, body)
        self.ended.set_result(ended)

    def _hear(self, head: Mapping[str, Any], body: bytes) -> None:
        word = head["word"]
        if word == "ready":
            if not self.ready.done():
                self.ready.set_result(None)
        elif word == "init-error":
            self.init_error = body
        elif word == "taken":
            self._offered = None
        elif word == "answered":
            current, self._current = self._current, None
            if current is not None and not current.outcome.done():
                current.outcome.set_result(Outcome(body, failed=head["failed"]))
        elif word == "refused":
            log.warning(
                "event=function-peer-refused function=%s pid=%s peer=%s uid=%d count=%d cause='not "
                "a connection of the process of the function: it was closed unheard'",
                *(self._name, self.pid, head["peer"], head["uid"], head["count"]),
            )
        elif word == "misbehaved":
            log.warning(
                "event=function-ended function=%s pid=%s cause=%r",
                *(self._name, self.pid, head["why"]),
            )


async def _read(reader: asyncio.StreamReader) -> frames.Frame:
    head, body = frames.sizes(await reader.readexactly(frames.SIZES.size), MAX_ANSWER)
    return json.loads(await reader.readexactly(head)), await reader.readexactly(body)


def _ended(head: Mapping[str, Any]) -> Ended:
    if head["word"] == "failed":
        return Ended(failed=head["why"])
    number, peak = head["number"], head["peak"]
    if head["word"] == "exited":
        return Ended(f"exit status {number}" if number else "", peak_kilobytes=peak)
    name = signal.strsignal(number) or str(number)
    return Ended(f"signal: {name.lower()}", peak_kilobytes=peak)
