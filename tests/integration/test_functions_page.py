"""The part of docs/functions.md about uploaded functions is typed as it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.server import Server, run
from tests.integration.typed import blocks_of, write_files


@pytest.mark.needs("curl")
def test_everything_the_section_shows_runs(tmp_path: Path) -> None:
    page = blocks_of("functions.md")
    begin = next(at for at, each in enumerate(page) if "## Uploaded functions" in each.before)
    others = (at for at in range(begin + 1, len(page)) if "\n## " in page[at].before)
    section = page[begin : next(others, None)]
    write_files(section, tmp_path)
    (source,) = (each.code for each in section if each.language == "python")
    (tmp_path / "hook.py").write_text(source)
    commands = [each.code for each in section if each.language == "sh"]
    with Server(tmp_path / "fleetgate-data"):
        script = "\n".join(["set -e -o pipefail", *commands])
        done = run("bash", "-c", script, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert '"Sid":"iot"' in said
    assert "asked about 0042" in said
    assert '{"allowProvisioning":true,"parameterOverrides":{"Line":"1"}}' in said.replace(" ", "")
    assert json.loads((tmp_path / "answer.json").read_text())["allowProvisioning"] is True
    assert (tmp_path / "in-force.zip").read_bytes() == (tmp_path / "hook.zip").read_bytes()
    assert "hook\t" in said
