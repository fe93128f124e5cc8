"""docs/templates.md is typed as it stands: its files, its commands, and what they print."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.server import Server, run
from tests.integration.typed import blocks_of, write_files


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """With nothing in it, so that what the page says of it is true."""
    with Server(tmp_path / "fleetgate-data") as running:
        yield running


@pytest.mark.needs("openssl")
def test_everything_the_page_shows_runs(own_server: Server, tmp_path: Path) -> None:
    page = blocks_of("templates.md")
    write_files(page, tmp_path)
    script = 'eval "$(fleetgate env)"\n'
    shown = 0
    for block, following in zip(page, [*page[1:], None], strict=True):
        if block.language == "sh":
            done = run("bash", "-c", block.code, cwd=tmp_path)
            if following is not None and following.language == "text":
                shown += 1
                assert (done.stdout, done.stderr) == (following.code, "")
            else:
                assert done.returncode == 0, done.stderr
        elif block.language == "python":
            (tmp_path / "page.py").write_text(block.code)
            done = run("bash", "-c", f"{script}{sys.executable} page.py", cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines()[-1] == "lamp-0042"
    assert shown == 5
