"""docs/templates.md is typed as it stands: its files, its commands, and what they print."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.server import Server, run
from tests.test_docs import FENCE

PAGE = Path(__file__).parents[2] / "docs" / "templates.md"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """With nothing in it, so that what the page says of it is true."""
    with Server(tmp_path / "fleetgate-data") as running:
        yield running


def blocks() -> list[tuple[str, str, str]]:
    """Language, code and the text before it, of every block of the page."""
    text, end, found = PAGE.read_text(), 0, []
    for match in FENCE.finditer(text):
        found.append((match[2], match[3], text[end : match.start()]))
        end = match.end()
    return found


@pytest.mark.needs("openssl")
def test_everything_the_page_shows_runs(own_server: Server, tmp_path: Path) -> None:
    page = blocks()
    for language, code, before in page:
        if language == "json":
            name = before.rpartition(".json`")[0].rpartition("`")[2]
            (tmp_path / f"{name}.json").write_text(code)
    script = 'eval "$(fleetgate env)"\n'
    shown = 0
    for (language, code, _), (following, expected, _) in zip(
        page, [*page[1:], ("", "", "")], strict=True
    ):
        if language == "sh":
            done = run("bash", "-c", code, cwd=tmp_path)
            if following == "text":
                shown += 1
                assert (done.stdout, done.stderr) == (expected, "")
            else:
                assert done.returncode == 0, done.stderr
        elif language == "python":
            (tmp_path / "page.py").write_text(code)
            done = run("bash", "-c", f"{script}{sys.executable} page.py", cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.splitlines()[-1] == "lamp-0042"
    assert shown == 5
