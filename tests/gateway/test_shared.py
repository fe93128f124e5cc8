"""The bounds on what is carried out at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gc

from fleetgate.gateway.shared import Turn, Turns


class Work:
    """Pieces of work, each of which waits for its turn and then for the end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ends: list[asyncio.Event] = []

    async def do(self, name: str, turn: Turn) -> None:
        async with turn:
            self.begun.append(name)
            self.ends.append(end := asyncio.Event())
            await end.wait()


def test_256_are_carried_out_for_all_certificates_together() -> None:
    async def check() -> None:
        turns, work = Turns(), Work()
        names = [f"{certificate}" for certificate in range(5) for _ in range(64)]
        tasks = [asyncio.create_task(work.do(name, turns.of(name))) for name in names]
        await asyncio.sleep(0)
        assert work.begun == names[:256]
        work.ends[0].set()
        await asyncio.sleep(0.01)
        assert work.begun == names[:257]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(check())


def test_a_turn_that_nobody_waits_for_any_more_is_not_lost() -> None:
    async def check() -> None:
        turns, work = Turns(), Work()
        tasks = [
            asyncio.create_task(work.do(str(number // 64), turns.of(str(number // 64))))
            for number in range(321)
        ]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        begun = len(work.begun)
        again = asyncio.create_task(work.do("0", turns.of("0")))
        await asyncio.sleep(0)
        assert len(work.begun) == begun + 1
        again.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await again

    asyncio.run(check())


def test_whoever_waits_for_others_code_steps_aside() -> None:
    async def check() -> None:
        turns, work, waited = Turns(), Work(), asyncio.Event()

        async def ask(turn: Turn) -> None:
            async with turn:
                async with turn.aside():
                    await waited.wait()
                work.begun.append("answered")

        asking = [asyncio.create_task(ask(turns.of("0"))) for _ in range(400)]
        await asyncio.sleep(0.01)
        tasks = [
            asyncio.create_task(work.do(str(number // 64), turns.of(str(number // 64))))
            for number in range(256)
        ]
        await asyncio.sleep(0.01)
        assert len(work.begun) == 256
        # they come back in order, and no more at a time than before
        waited.set()
        await asyncio.sleep(0.01)
        assert "answered" not in work.begun
        for task in (*tasks, *asking[:100]):  # cancelled aside, too, they let go of it once
            task.cancel()
        await asyncio.gather(*tasks, *asking, return_exceptions=True)
        assert work.begun.count("answered") == 300
        further = [asyncio.create_task(work.do("0", turns.of("0"))) for _ in range(65)]
        await asyncio.sleep(0.01)
        assert work.begun.count("0") == 64 + 64
        for task in further:
            task.cancel()
        await asyncio.gather(*further, return_exceptions=True)

    asyncio.run(check())


def test_nothing_is_kept_of_certificates_that_have_gone() -> None:
    turns = Turns()
    turn = turns.of("a")
    assert turns.of("a").own is turn.own
    del turn
    gc.collect()
    assert len(turns._of) == 0
