"""The directory of an identity while it is written to: who may use it, what is never touched."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest

from fleetgate.device import journal as journals
from fleetgate.device.directory import IdentityDirectory, open_directory
from fleetgate.device.disk import Disk
from fleetgate.device.errors import StorageRefused
from fleetgate.device.identity import load
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


@pytest.mark.parametrize("wrong", [0o777, 0o1777, 0o775])
def test_also_one_that_others_may_write_to(wrong: int, out: Path) -> None:
    out.chmod(wrong)
    with opened(out):
        assert mode(out) == wrong & ~0o077
    out.chmod(wrong)
    (out / "file").touch()
    with pytest.raises(StorageRefused, match=rf"\(mode {wrong:04o}\)"), opened(out):
        pass
    assert mode(out) == wrong


def test_but_not_when_somebody_puts_something_into_it_meanwhile(out: Path) -> None:
    class Raced(Disk):
        def change_mode(self, descriptor: int, mode: int) -> None:
            (out / "identity-1").mkdir(exist_ok=True)
            super().change_mode(descriptor, mode)

    out.chmod(0o777)
    with pytest.raises(StorageRefused, match=r"\(mode 0777\)"), opened(out, Raced()):
        pass
    assert mode(out) == 0o777  # which the next run refuses, too


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


@pytest.mark.parametrize("folder", [".", "identity-1"])
def test_the_claim_s_files_are_not_cleared_away(folder: str, out: Path, tmp_path: Path) -> None:
    with opened(out) as directory:
        directory.write_journal(ASKING)
        directory.make(1)
    claim = out / folder / f".private.key.{'0a' * 8}.tmp"
    claim.write_text("claim")
    (tmp_path / "link").symlink_to(claim)
    for each in (claim, tmp_path / "link"):
        assert f"`{each}` would be overwritten" in refusal(out, each)
    assert claim.read_text() == "claim"


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


@pytest.mark.parametrize("name", ["a", "a/b"])
@pytest.mark.parametrize("mode", [0o777, 0o757, 0o702])
def test_a_directory_above_that_others_may_write_to_is_refused(
    mode: int, name: str, tmp_path: Path
) -> None:
    """They could put another directory into its place. Nothing is made there."""
    above = tmp_path / name
    (tmp_path / "a" / "b").mkdir(parents=True)
    above.chmod(mode)
    message = rf"others may write to `{above}` \(mode {mode:04o}\), .* `chmod go-w {above}`"
    with pytest.raises(StorageRefused, match=message), opened(tmp_path / "a/b/c/out"):
        pass
    assert not list((tmp_path / "a/b").iterdir())
    with pytest.raises(StorageRefused, match=message):
        load(tmp_path / "a/b/c/out")
    above.chmod(mode | 0o1000)  # as /tmp: entries are their owners'
    with opened(tmp_path / "a/b/c/out"):
        pass


def test_a_group_of_its_own_may_write_above(tmp_path: Path) -> None:
    """Where each user has one, and the umask is 002, as OpenSSH of Debian has it."""
    tmp_path.chmod(0o775)
    user = pwd.getpwuid(os.geteuid())
    own = grp.getgrgid(user.pw_gid)
    harmless = own.gr_name == user.pw_name and not own.gr_mem
    if harmless:
        with opened(tmp_path / "out"):
            pass
    for other in () if os.geteuid() else (10, 54321):  # one of several, and one without a name
        os.chown(tmp_path, -1, other)
        with pytest.raises(StorageRefused, match=r"\(mode 0775\)"), opened(tmp_path / "out"):
            pass


@pytest.mark.parametrize("umask", [0o000, 0o002])
def test_directories_above_that_are_made_are_not_for_others_to_write(
    umask: int, tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):
            with opened(tmp_path / "a" / "b" / "out"):
                assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o755
    finally:
        os.umask(before)


def test_links_above_are_followed_and_looked_at(tmp_path: Path) -> None:
    with chdir(tmp_path):
        _links(tmp_path)


def _links(tmp_path: Path) -> None:
    (tmp_path / "real" / "open").mkdir(parents=True)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "link").symlink_to("../real/open")
    (tmp_path / "link").symlink_to(tmp_path / "shared" / "link")
    (tmp_path / "loop").symlink_to("loop")
    out = tmp_path / "link" / ".." / "open" / "out"
    for path in (out, Path("link/out"), Path("real/open/out")):
        with opened(path):
            pass
    for name in ("shared", "real/open"):
        (tmp_path / name).chmod(0o777)
        for path in (out, Path("link/out")):
            with pytest.raises(StorageRefused, match=f"{name}` .mode 0777"), opened(path):
                pass
        (tmp_path / name).chmod(0o755)
    with pytest.raises(StorageRefused, match="Too many levels of symbolic links"):
        load(tmp_path / "loop" / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_above_that_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "theirs"
    above.mkdir()
    (tmp_path / "link").symlink_to(above)
    os.chown(above, 12345, -1)
    message = rf"`{above}` belongs to user 12345, who could put another directory into the place "
    for path in (above / "out", tmp_path / "link" / "out"):
        with pytest.raises(StorageRefused, match=message), opened(path):
            pass
    os.chown(above, 0, -1)
    os.chown(tmp_path / "link", 12345, -1, follow_symlinks=False)
    tmp_path.chmod(0o1777)
    message = rf"the link `{tmp_path / 'link'}` belongs to user 12345"
    with pytest.raises(StorageRefused, match=message), opened(tmp_path / "link" / "out"):
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
