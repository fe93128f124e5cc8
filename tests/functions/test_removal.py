"""Directories are removed, whatever is in them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetgate.functions import removal

FILL = """
import os, sys
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
os.chdir(sys.argv[1])
os.mkdir("closed")
open("closed/file", "w").close()
os.chmod("closed", 0)
os.symlink("/", "link")
os.mkfifo("fifo")
for number in range(1200):
    open(f"file-{number}", "w").close()
for depth in range(1200):
    os.mkdir("d" * 200)
    os.chdir("d" * 200)
open("deep", "w").close()
os.chmod(sys.argv[1], 0)
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory another user can get to."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made).resolve()


@pytest.mark.parametrize("name", ["removal", "removal as another user"])
def test_a_directory_is_removed_however_it_was_filled(root: Path, name: str) -> None:
    place = root / "place"
    place.mkdir(mode=0o777)
    outside = root / "outside"
    outside.touch()
    if os.geteuid() == 0:
        os.chown(place, 65534, 65534)
        os.chown(root, 65534, 65534)
    subprocess.run([sys.executable, "-c", FILL, str(place)], check=True)
    if name == "removal":
        removal.remove(str(place))
    else:
        # root may do anything: try it as the one who filled it
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                removal.remove(str(place))
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    assert not place.exists()
    assert outside.exists()
    assert Path("/etc").exists()
    removal.remove(str(place))
