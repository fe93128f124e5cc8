"""Calls that block, each in a thread of its own, and never more of them than a number.

A call that hangs cannot be ended from outside. Whoever waited for it goes on at their deadline;
the thread keeps its place until the call returns, so that hanging ones cannot pile up. The threads
are daemons: they do not keep the server from stopping, as those of an executor would.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """At most `most` threads at a time; used by one event loop."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._free = asyncio.Semaphore(most)
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """How many calls nobody waits for any more are still under way."""
        return self._abandoned

    @property
    def most(self) -> int:
        """How many calls there can be at a time."""
        return self._most

    async def run(self, fn: Callable[[], T], started: Callable[[], None] | None = None) -> T:
        """The result of `fn`, run in a thread; waits for a free place first.

        `started` is called when there is one. Raises what `fn` raises.
        """
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        future: asyncio.Future[T] = loop.create_future()

        def resolve(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if future.done():
                self._abandoned -= 1
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result, failed = None, None
            try:
                result = fn()
            except BaseException as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(resolve, result, failed)

        if started is not None:
            started()
        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except BaseException:
            self._free.release()
            raise
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._abandoned += 1
            raise
