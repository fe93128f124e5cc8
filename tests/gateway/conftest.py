"""A gateway per test: it costs some milliseconds, and no test sees what another one did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.running import Running, log_lines


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as gateway:
        yield gateway


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What the gateway logs during the test."""
    with log_lines() as lines:
        yield lines
