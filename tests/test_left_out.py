"""The marker `needs`: a test that cannot run is named, never passed over in silence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_pytest(directory: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in its own process on one test file under this project's tests/conftest.py."""
    (directory / "tests").mkdir()
    (directory / "tools").mkdir()
    shutil.copy(ROOT / "pyproject.toml", directory)
    shutil.copy(ROOT / "tests" / "conftest.py", directory / "tests")
    (directory / "tools" / "debian-packages.txt").write_text(
        "# a comment\nsh dash\nno-such-command absent-package\n"
    )
    (directory / "tests" / "test_sample.py").write_text(f"import pytest\n{source}\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_test_without_its_command_is_left_out_and_named_with_the_package(tmp_path: Path) -> None:
    result = run_pytest(
        tmp_path,
        "@pytest.mark.needs('sh', 'no-such-command')\n"
        "def test_lacks(): raise AssertionError\n"
        "@pytest.mark.needs('sh')\n"
        "def test_has(): pass\n",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "LEFT OUT tests/test_sample.py::test_lacks (needs absent-package)" in result.stdout
    assert "apt-get install absent-package" in result.stdout
    assert "1 passed, 1 deselected" in result.stdout


def test_nothing_is_said_when_nothing_is_left_out(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, "@pytest.mark.needs('sh')\ndef test_has(): pass\n")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "left out" not in result.stdout


def test_a_command_of_no_listed_package_is_a_usage_error(tmp_path: Path) -> None:
    result = run_pytest(tmp_path, "@pytest.mark.needs('typo')\ndef test_has(): pass\n")
    assert result.returncode == 4
    assert "needs `typo`, which tools/debian-packages.txt does not list" in result.stderr
