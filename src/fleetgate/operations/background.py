"""Work nobody waits for, bounded in number, and ended with the server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Background:
    """Tasks that go on after the call that began them was answered; `room` of them at a time."""

    def __init__(self, room: int = 100) -> None:
        self._room = room
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """No further task may be started now."""
        return len(self._tasks) >= self._room

    def start(self, work: Coroutine[object, object, None]) -> None:
        """Carries it out; what it raises is its own business."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ends what is still going on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
