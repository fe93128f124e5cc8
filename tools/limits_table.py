"""Writes the table of limits of docs/configuration.md from the text beside each limit.

Run it (``.venv/bin/python tools/limits_table.py``) when a limit was added; a test compares.
"""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/fleetgate/domain/limits.py"
PAGE = ROOT / "docs/configuration.md"
BEGIN, END = "<!-- limits -->\n", "<!-- end of limits -->"


def table(source: str) -> str:
    """The rows: name, default and meaning of each field of the one class in `source`."""
    (described,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    rows = ["| Limit | Default | Meaning |", "|---|---|---|"]
    for field, text in itertools.pairwise(described.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=limit), value=ast.Constant(value=int(default))),
                ast.Expr(value=ast.Constant(value=str(meaning))),
            ):
                rows.append(f"| `{limit}` | {default} | {meaning.rstrip('.')} |")
    return "\n".join(rows) + "\n"


def page(text: str, rows: str) -> str:
    """The page with `rows` between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{rows}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), table(SOURCE.read_text())))
