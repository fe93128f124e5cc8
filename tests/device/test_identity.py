"""The directory of an identity: who may use it, and that files are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from fleetgate.device import identity
from fleetgate.device.errors import StorageRefused
from fleetgate.device.identity import open_directory


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir(0o700)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_have_their_modes_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    out.parent.mkdir()
    before = os.umask(umask)
    try:
        with open_directory(out) as directory:
            for name in ("private.key", "certificate.pem", "ca.pem"):
                assert directory.write(name, "text\n") == out / name
            for name in ("pending.json", "config.json"):
                directory.write_json(name, {"ä": 1})
    finally:
        os.umask(before)
    assert mode(out) & 0o077 == 0
    assert {each.name: mode(each) for each in out.iterdir()} == {
        "private.key": 0o600,
        "certificate.pem": 0o644,
        "ca.pem": 0o644,
        "pending.json": 0o600,
        "config.json": 0o600,
    }
    assert (out / "private.key").read_text() == "text\n"
    assert (out / "config.json").read_text() == '{\n  "ä": 1\n}\n'


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with open_directory(out):
        assert mode(out) == 0o700


def test_writing_replaces_a_file_at_once(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new content is on disk under another name before the old one goes."""
    calls: list[str] = []
    with open_directory(out) as directory:
        directory.write("private.key", "old")
        rename, fsync = os.rename, os.fsync

        def spy_rename(source: str, target: str, **descriptors: int) -> None:
            assert (out / source).read_text() == "new"
            assert mode(out / source) == 0o600
            assert (out / target).read_text() == "old"
            calls.append("rename")
            rename(source, target, **descriptors)

        def spy_fsync(descriptor: int) -> None:
            kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            calls.append(f"fsync {kind}")
            fsync(descriptor)

        monkeypatch.setattr(os, "rename", spy_rename)
        monkeypatch.setattr(os, "fsync", spy_fsync)
        directory.write("private.key", "new")
    assert calls == ["fsync file", "rename", "fsync directory"]
    assert (out / "private.key").read_text() == "new"


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    call: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_directory(out) as directory:
        directory.write("private.key", "old")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(StorageRefused, match=r"private.key`: No space left on device"):
                directory.write("private.key", "new")
    assert [each.name for each in out.iterdir()] == ["private.key"]
    assert (out / "private.key").read_text() == "old"


def refusal(out: Path, *strangers: Path) -> str:
    with open_directory(out) as directory, pytest.raises(StorageRefused) as caught:
        directory.check(strangers)
    return caught.value.message


def test_an_empty_directory_and_other_files_are_fine(out: Path) -> None:
    (out / "notes.txt").write_text("mine")
    with open_directory(out) as directory:
        directory.check([out / "notes.txt", out / "missing"])
    assert (out / "notes.txt").read_text() == "mine"


def test_a_complete_identity_is_refused_and_named(out: Path) -> None:
    (out / "config.json").write_text(json.dumps({"thingName": "lamp", "certificateId": "ab"}))
    assert "already holds a complete identity (thing `lamp`, certificate ab)" in refusal(out)
    (out / "pending.json").write_text("{}")
    assert "already holds a complete identity" in refusal(out)
    (out / "config.json").write_text("gibberish")
    assert "already holds a complete identity; it is never replaced" in refusal(out)


@pytest.mark.parametrize("name", ["private.key", "certificate.pem", "ca.pem"])
def test_files_of_somebody_else_are_refused(name: str, out: Path) -> None:
    (out / name).write_text("precious")
    assert f"{name}` is there already" in refusal(out)


def test_a_half_finished_identity_may_be_replaced(out: Path) -> None:
    for name in ("private.key", "certificate.pem", "pending.json"):
        (out / name).write_text("left behind")
    leftover = out / f".private.key.{'0a' * 8}.tmp"
    other = out / ".private.key.tmp"
    leftover.write_text("half a k")
    other.write_text("somebody's")
    with open_directory(out) as directory:
        directory.check([])
        directory.write_json("pending.json", {})
        directory.finish()
        directory.finish()
    assert not leftover.exists()
    assert other.exists()
    assert not (out / "pending.json").exists()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_claim_s_files_are_refused_by_any_name(link: object, out: Path, tmp_path: Path) -> None:
    claim = tmp_path / "claim.key"
    (out / "pending.json").write_text("{}")
    (out / "private.key").write_text("claim")
    assert callable(link)
    link(out / "private.key", claim)
    assert f"`{claim}` would be overwritten" in refusal(out, claim)


@pytest.mark.parametrize("name", ["private.key", "config.json", "pending.json"])
def test_a_symbolic_link_is_not_followed(name: str, out: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (out / name).symlink_to(tmp_path / "target")
    assert f"{name}` is not a regular file" in refusal(out)
    with open_directory(out) as directory:
        directory.write(name, "new")
    assert (tmp_path / "target").read_text() == "precious"


def test_a_directory_that_is_a_link_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for each in (tmp_path / "link", tmp_path / "dangling"):
        with pytest.raises(StorageRefused, match="is a symbolic link"), open_directory(each):
            pass


def test_a_directory_that_others_may_write_to_is_refused(out: Path) -> None:
    out.chmod(0o770)
    with pytest.raises(StorageRefused, match=r"\(mode 0770\)"), open_directory(out):
        pass


def test_a_directory_of_another_user_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner may replace the key at any time, whatever the mode."""
    out.chmod(0o755)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with (
        pytest.raises(StorageRefused, match=f"`{out}` belongs to user {own}, not to {own + 1}"),
        open_directory(out),
    ):
        pass


@pytest.mark.parametrize("name", ["pending.json", "private.key", "certificate.pem"])
def test_a_file_of_another_user_is_refused(
    name: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was planted while the directory was open to others."""
    (out / "pending.json").write_text("{}")
    (out / name).write_text("{}")
    own = os.geteuid()
    with open_directory(out) as directory:
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(StorageRefused, match=f"belongs to user {own}, not to {own + 1}"):
            directory.check([])


def test_what_is_pending_can_be_read_back(out: Path) -> None:
    with open_directory(out) as directory:
        assert directory.pending() == {}
        directory.write_json("pending.json", {"a": "ä"})
        assert directory.pending() == {"a": "ä"}
        for text in ("[]", "gibberish", "[" * 100_000):
            directory.write("pending.json", text)
            assert directory.pending() == {}


def test_a_file_for_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for each in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageRefused, match="cannot use the directory"), open_directory(each):
            pass


def test_two_provisionings_cannot_share_a_directory(out: Path) -> None:
    with (
        open_directory(out),
        pytest.raises(StorageRefused, match="another provisioning works in"),
        open_directory(out),
    ):
        pass
    with open_directory(out):
        pass


def test_all_names_have_a_mode() -> None:
    listed = {identity.PRIVATE_KEY, identity.CERTIFICATE, identity.CA}
    assert listed | {identity.CONFIGURATION, identity.PENDING} == set(identity._MODES)
