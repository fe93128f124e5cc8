"""The directory of an identity while it is written to: who may use it, what is never touched."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetgate.device import journal as journals
from fleetgate.device.directory import IdentityDirectory, open_directory
from fleetgate.device.disk import Disk
from fleetgate.device.errors import StorageRefused
from fleetgate.device.journal import Goal

ASKING = journals.begun(Goal("provision", "iot.example", 8883, "lamps", "0"), 1, None, "P-256", "x")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir(0o700)
    return path


@contextmanager
def opened(path: Path, calls: Disk | None = None) -> Iterator[IdentityDirectory]:
    with open_directory(path, calls or Disk()) as directory:
        yield directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(out: Path, *strangers: Path) -> str:
    with opened(out) as directory, pytest.raises(StorageRefused) as caught:
        directory.check(strangers)
    return caught.value.message


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_have_their_modes_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    out.parent.mkdir()
    before = os.umask(umask)
    try:
        with opened(out) as directory:
            directory.write_journal(ASKING)
            directory.make(1)
            directory.write(
                1, {"private.key": "text\n", "certificate.pem": b"text\n", "ca.pem": b"text\n"}
            )
            directory.write_configuration(1, {"ä": 1})
    finally:
        os.umask(before)
    home = out / "identity-1"
    assert mode(out) == mode(home) == 0o700
    assert {each.name: mode(each) for each in [*home.iterdir(), out / "journal.json"]} == {
        "private.key": 0o600,
        "certificate.pem": 0o644,
        "ca.pem": 0o644,
        "config.json": 0o600,
        "journal.json": 0o600,
    }
    assert (home / "private.key").read_text() == "text\n"
    assert (home / "config.json").read_text() == '{\n  "ä": 1\n}\n'


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with opened(out):
        assert mode(out) == 0o700


def test_an_empty_directory_becomes_its_owner_s_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    for name, expected in (("empty", 0o700), ("used", 0o755)):
        (tmp_path / name).chmod(0o755)
        with opened(tmp_path / name):
            assert mode(tmp_path / name) == expected


@pytest.mark.parametrize("call", ["write", "flush", "rename"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(call: str, out: Path) -> None:
    class Full(Disk):
        pass

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(out) as directory:
        directory.make(1)
        directory.write(1, {"private.key": "old"})
    calls = Full()
    setattr(calls, call, fail)
    with (
        opened(out, calls) as directory,
        pytest.raises(StorageRefused, match=r"identity-1/private.key`: No space left on device"),
    ):
        directory.write(1, {"private.key": "new"})
    assert [each.name for each in (out / "identity-1").iterdir()] == ["private.key"]
    assert (out / "identity-1" / "private.key").read_text() == "old"


def test_an_empty_directory_and_other_files_are_fine(out: Path) -> None:
    (out / "notes.txt").write_text("mine")
    (out / "identity-1.bak").mkdir()
    with opened(out) as directory:
        directory.check([out / "notes.txt", out / "missing"])
        directory.remove_identities(but=())
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "identity-1.bak").exists()


@pytest.mark.parametrize("name", ["private.key", "certificate.pem", "ca.pem", "config.json"])
def test_files_of_somebody_else_are_refused(name: str, out: Path, tmp_path: Path) -> None:
    (out / name).write_text("precious")
    assert f"{name}` is there already, and not a link to `current/{name}`" in refusal(out)
    (out / name).unlink()
    (out / name).symlink_to(tmp_path / "elsewhere")
    assert f"{name}` is there already" in refusal(out)


def test_an_identity_that_nothing_leads_to_is_refused(out: Path) -> None:
    """Such as one that was copied without its links."""
    with opened(out) as directory:
        directory.make(1)
    assert "identity-1` is there already, and neither is it in use nor" in refusal(out)


@pytest.mark.parametrize("target", ["../elsewhere", "identity-0", "identity-01", "/identity-1"])
def test_a_pointer_to_somewhere_else_is_refused(target: str, out: Path) -> None:
    (out / "current").symlink_to(target)
    assert f"current` leads to `{target}`, which is no identity here" in refusal(out)


def test_a_pointer_that_is_no_link_or_leads_nowhere_is_refused(out: Path) -> None:
    (out / "current").symlink_to("identity-7")
    assert "which is missing" in refusal(out)
    (out / "current").unlink()
    (out / "current").mkdir()
    assert "is not a link to an identity" in refusal(out)


def test_temporary_files_of_a_former_run_are_cleared_away(out: Path) -> None:
    with opened(out) as directory:
        directory.write_journal(ASKING)
        directory.make(1)
    leftovers = [
        out / f".journal.json.{'0a' * 8}.tmp",
        out / "identity-1" / f".private.key.{'0a' * 8}.tmp",
    ]
    other = out / ".private.key.tmp"
    for each in (*leftovers, other):
        each.write_text("half a k")
    (out / f".current.{'0a' * 8}.tmp").symlink_to("identity-1")
    with opened(out) as directory:
        directory.check([])
    assert sorted(each.name for each in out.iterdir()) == [
        *(".private.key.tmp", "identity-1", "journal.json")
    ]
    assert list((out / "identity-1").iterdir()) == []


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("name", ["identity-1/private.key", "journal.json"])
def test_the_claim_s_files_are_refused_by_any_name(
    name: str, link: object, out: Path, tmp_path: Path
) -> None:
    claim = tmp_path / "claim.key"
    with opened(out) as directory:
        directory.write_journal(ASKING)
        directory.make(1)
        directory.write(1, {"private.key": "claim"})
    assert callable(link)
    link(out / name, claim)
    assert f"`{claim}` would be overwritten" in refusal(out, claim)


@pytest.mark.parametrize("name", ["identity-1/private.key", "identity-1/config.json"])
def test_a_symbolic_link_is_not_followed(name: str, out: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    with opened(out) as directory:
        directory.write_journal(ASKING)
        directory.make(1)
        (out / name).symlink_to(tmp_path / "target")
        with pytest.raises(StorageRefused, match="is not a regular file"):
            directory.check([])
        with pytest.raises(StorageRefused, match="is not a regular file"):
            directory.read(1, Path(name).name)
        directory.write(1, {Path(name).name: "new"})
    assert (tmp_path / "target").read_text() == "precious"


def test_a_directory_that_is_a_link_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for each in (tmp_path / "link", tmp_path / "dangling"):
        with pytest.raises(StorageRefused, match="is a symbolic link"), opened(each):
            pass
    with opened(out) as directory:
        directory.write_journal(ASKING)
        (out / "identity-1").symlink_to(tmp_path)
        with pytest.raises(StorageRefused, match="identity-1` is not a directory"):
            directory.check([])


def test_what_others_may_write_to_or_read_is_refused(out: Path) -> None:
    with opened(out) as directory:
        directory.write_journal(ASKING)
        directory.make(1)
        directory.write(1, {"private.key": "key"})
        for path, wrong, right in (
            (out / "identity-1" / "private.key", 0o640, 0o600),
            (out / "identity-1" / "private.key", 0o602, 0o600),
            (out / "identity-1", 0o770, 0o700),
        ):
            path.chmod(wrong)
            with pytest.raises(StorageRefused, match=rf"\(mode {wrong:04o}\).*`chmod "):
                directory.check([])
            path.chmod(right)
        (out / "journal.json").chmod(0o644)
        with pytest.raises(StorageRefused, match=r"chmod 600 .*journal.json`"):
            directory.journal()
    out.chmod(0o770)
    with pytest.raises(StorageRefused, match=r"\(mode 0770\)"), opened(out):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", [".", "identity-1", "identity-1/private.key"])
def test_what_belongs_to_another_user_is_refused(name: str, out: Path) -> None:
    """Its owner may replace the key at any time, whatever the mode."""
    with opened(out) as directory:
        directory.write_journal(ASKING)
        directory.make(1)
        directory.write(1, {"private.key": "key"})
    os.chown(out / name, 12345, -1)
    with (
        pytest.raises(StorageRefused, match="belongs to user 12345, not to 0"),
        opened(out) as directory,
    ):
        directory.check([])


def test_a_file_for_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for each in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageRefused, match="cannot use the directory"), opened(each):
            pass


def test_two_provisionings_cannot_share_a_directory(out: Path) -> None:
    with (
        opened(out),
        pytest.raises(StorageRefused, match="another provisioning works in"),
        opened(out),
    ):
        pass
    with opened(out):
        pass
