"""What a function writes: its end comes back with the answer, its lines go to the log.

Theory of operation. Standard output and error of a function's processes are one pipe, read when
there is something. A function decides how much it writes, so three bounds hold: a line is cut, so
many lines a second are logged and the others counted, and so many bytes a second are read at all:
beyond, the pipe is full and the function waits in ``write``. A runtime writes before it posts an
answer, so that what belongs to a run is in the pipe when the answer is there.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Final

from fleetgate.functions.target import LOG_TAIL

log = logging.getLogger("fleetgate.functions")

LINE: Final = 1024
"""Characters of a line that are logged."""

BURST: Final = 200
"""Lines that are logged at once..."""

RATE: Final = 50
"""... and a second in the long run."""

TELL_SECONDS: Final = 10.0
"""Between two times it is told how many were left out."""

_PIECE: Final = 1 << 16
_WINDOW, _WINDOW_BYTES = 0.1, 1 << 18


class Output:
    """The reading end of the pipe of one process; `request` is the event that is worked on."""

    def __init__(self, descriptor: int, function: str) -> None:
        self.request = "-"
        self._descriptor = descriptor
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._tail = b""
        self._line = b""
        self._left = float(BURST)
        self._counted = self._loop.time()
        self._dropped = 0
        self._told = self._loop.time()
        self._window = 0.0
        self._in_window = 0
        self._open = True
        self._resuming: asyncio.TimerHandle | None = None
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._readable)

    def begin(self, request: str) -> None:
        """What is written from now on belongs to this request."""
        self.request = request
        self._tail = b""

    def finish(self) -> str:
        """The end of what was written for the request, LOG_TAIL bytes at most."""
        for _ in range(4):
            if not self._open or not self._read():
                break
        return self._tail.decode(errors="ignore")

    def close(self) -> None:
        """Reads what is left and lets go of the pipe."""
        if not self._open:
            return
        self.finish()
        if self._open:
            self._end()

    def _end(self) -> None:
        self._open = False
        self._loop.remove_reader(self._descriptor)
        if self._resuming is not None:
            self._resuming.cancel()
        os.close(self._descriptor)
        if self._line:
            self._log(self._line)
            self._line = b""
        self._tell_dropped()

    def _readable(self) -> None:
        now = self._loop.time()
        if now > self._window + _WINDOW:
            self._window, self._in_window = now, 0
        if self._in_window >= _WINDOW_BYTES:
            self._loop.remove_reader(self._descriptor)
            self._resuming = self._loop.call_later(_WINDOW, self._resume)
        else:
            self._in_window += self._read()

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._descriptor, self._readable)

    def _read(self) -> int:
        """Takes a piece of the pipe; returns its size."""
        try:
            piece = os.read(self._descriptor, _PIECE)
        except BlockingIOError:
            return 0
        if not piece:
            self._end()
            return 0
        self._tail = (self._tail + piece)[-LOG_TAIL:]
        *lines, rest = (self._line + piece).split(b"\n")
        for line in lines:
            self._log(line)
        # of a line without end no more is kept than is logged
        self._line = rest[: 4 * LINE]
        return len(piece)

    def _log(self, line: bytes) -> None:
        if not line:
            return
        now = self._loop.time()
        self._left = min(BURST, self._left + (now - self._counted) * RATE)
        self._counted = now
        if self._left < 1:
            self._dropped += 1
            return
        self._left -= 1
        self._tell_dropped()
        # what devices send may be in it: quoted, so that it passes for no other field
        log.info(
            "event=function-log function=%s request=%s line=%r",
            self._function,
            self.request,
            line[: 4 * LINE].decode(errors="replace")[:LINE],
        )

    def _tell_dropped(self) -> None:
        now = self._loop.time()
        if self._dropped and (not self._open or now >= self._told + TELL_SECONDS):
            log.warning(
                "event=function-log-dropped function=%s lines=%d cause='more than %d lines a "
                "second'",
                self._function,
                self._dropped,
                RATE,
            )
            self._dropped = 0
            self._told = now
