"""RSA keys made ahead of demand, and not before."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fleetgate.operations.rsa_keys import RsaKeys


def children() -> set[str]:
    """The processes that this thread has started and that are still there."""
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


@pytest.mark.parametrize(("stock", "started"), [(0, 0), (1, 1), (8, 2)])
def test_no_more_workers_than_keys_in_stock(stock: int, started: int) -> None:
    async def count() -> int:
        before = children()
        keys = RsaKeys(workers=2, stock=stock)
        keys.start()
        await asyncio.sleep(0.1)
        there = len(children() - before)
        await keys.close()
        return there

    assert asyncio.run(count()) == started


def test_without_a_stock_keys_are_made_when_asked_for() -> None:
    async def take() -> set[str]:
        keys = RsaKeys(stock=0)
        keys.start()
        pairs = await asyncio.gather(keys.take(), keys.take(), keys.take())
        await keys.close()
        return {pair.private_pem for pair in pairs}

    assert len(asyncio.run(take())) == 3
