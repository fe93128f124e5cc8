"""Pages of the documentation as somebody types them: their files, their blocks of code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.test_docs import FENCE, ROOT


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code: its language, and the text between it and the one before."""

    language: str
    code: str
    before: str


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in `docs`."""
    text, end, found = (ROOT / "docs" / page).read_text(), 0, []
    for match in FENCE.finditer(text):
        found.append(Block(match[2], match[3], text[end : match.start()]))
        end = match.end()
    return found


def write_files(page: list[Block], directory: Path) -> None:
    """Writes each JSON block into the file that is the last one named before it."""
    for block in page:
        if block.language == "json":
            name = block.before.rpartition(".json`")[0].rpartition("`")[2]
            (directory / f"{name}.json").write_text(block.code)
