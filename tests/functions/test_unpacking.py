"""Zips that become directories, and those that must not."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import time
import zipfile
from pathlib import Path

import pytest

from fleetgate.functions import unpacking
from fleetgate.functions.unpacking import UnpackError, unpack


def entry(
    name: str, *, mode: int = 0, flags: int = 0, method: int = zipfile.ZIP_DEFLATED
) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    made.flag_bits = flags
    made.compress_type = method
    return made


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in entries:
            archive.writestr(info, content)
    return file.getvalue()


def test_files_directories_and_modes(tmp_path: Path) -> None:
    made = zipped(
        ("app.py", b"code"),
        (entry("./bin//tool", mode=0o100755), b"tool"),
        (entry("empty/", mode=0o040777), b""),
        (entry("set/uid", mode=stat.S_IFREG | 0o4644), b""),
        ("größer.txt", b""),
    )
    found = unpack(made, tmp_path / "deep" / "code")
    assert found == tmp_path / "deep" / "code" / hashlib.sha256(made).hexdigest()
    files = {
        str(path.relative_to(found)): stat.S_IMODE(path.stat().st_mode) for path in found.rglob("*")
    }
    assert files == {
        "app.py": 0o600,
        "bin": 0o700,
        "bin/tool": 0o700,
        "empty": 0o700,
        "set": 0o700,
        "set/uid": 0o600,
        "größer.txt": 0o600,
    }
    assert (found / "app.py").read_bytes() == b"code"
    assert unpack(made, tmp_path / "deep" / "code") == found
    assert [each.name for each in found.parent.iterdir()] == [found.name]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("/etc/passwd", b"")], "entry `/etc/passwd` of the zip: the name is absolute"),
        ([("../up", b"")], "entry `../up` of the zip: the name has `..`"),
        ([("a/../../up", b"")], "the name has `..`"),
        ([("a\\..\\up", b"")], r"entry `a\..\up` of the zip: the name has a backslash"),
        ([("a\nb", b"")], r"entry `a\u000ab` of the zip: the name has control characters"),
        ([("a" * 1025, b"")], "the name has 1025 characters; the limit is 1024"),
        ([("a" * 300, b"")], "the name is too long for a file"),
        ([("a", b""), ("./a", b"")], "entry `./a` of the zip: there is another entry of the same"),
        ([("a", b""), ("a/b", b"")], "entry `a/b` of the zip: there is an entry of this name"),
        ([("a/b", b""), ("a", b"")], "entry `a` of the zip: there is an entry of this name"),
        (
            [(entry("link", mode=stat.S_IFLNK | 0o777), b"/etc/passwd")],
            "entry `link` of the zip: files and directories are allowed, not mode 120777",
        ),
        ([(entry("null", mode=stat.S_IFCHR | 0o666), b"")], "not mode 20666"),
        ([(entry("pipe", mode=stat.S_IFIFO | 0o666), b"")], "not mode 10666"),
        ([(entry("x", method=zipfile.ZIP_LZMA), b"x")], "compression method 14 is not one of 0, 8"),
        ([("a", b"x" * 600), ("b", b"x" * 600)], "entry `b` of the zip: all files together have"),
        ([], "the zip is empty"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]], words: str
) -> None:
    directory = tmp_path / "code"
    made = zipped(*entries)
    if "a\\..\\up" in str(entries):
        made = made.replace(b"a/../up", b"a\\..\\up")
    with pytest.raises(UnpackError) as found:
        unpack(made, directory, most=1000)
    assert words in found.value.message
    # nothing is left, and nothing was written elsewhere
    assert [path.name for path in tmp_path.rglob("*")] == ["code"]


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    made = bytearray(zipped(("a", b"x")))
    for at in (6, made.index(b"PK\x01\x02") + 8):
        made[at] |= 1
    with pytest.raises(UnpackError, match="entry `a` of the zip: it is encrypted"):
        unpack(bytes(made), tmp_path)


def test_what_is_no_zip_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    made = zipped(("a", b"x" * 1000))
    broken = made[:36] + bytes([made[36] ^ 0xFF]) + made[37:]
    for each in (b"", b"no zip", made[:-5], broken):
        with pytest.raises(UnpackError, match="the zip cannot be read: "):
            unpack(each, tmp_path / "code")


def test_sizes_are_counted_not_believed(tmp_path: Path) -> None:
    made = zipped(("bomb", bytes(50_000_000)))
    assert len(made) < 60_000
    # the directory of the zip says that the file has one byte
    at = made.index(b"PK\x01\x02") + 24
    lying = made[:at] + (1).to_bytes(4, "little") + made[at + 4 :]
    for each in (made, lying):
        with pytest.raises(UnpackError):
            unpack(each, tmp_path / "code", most=1_000_000)
    assert not list((tmp_path / "code").iterdir())


def test_entries_are_counted(tmp_path: Path) -> None:
    made = zipped(("a", b""))
    end = made.index(b"PK\x05\x06")
    central = made[made.index(b"PK\x01\x02") : end]
    many = central * (unpacking.MAX_ENTRIES + 1)
    before = made[: made.index(b"PK\x01\x02")]
    # the number of entries is modulo 2**16 there; zipfile goes by the size
    record = made[end : end + 12] + len(many).to_bytes(4, "little") + made[end + 16 :]
    comment = record[:-2] + b"\x03\x00..."
    # Zip64: the size is said elsewhere (APPNOTE.TXT 4.3.14 to 4.3.16)
    count = len(many) // len(central)
    sizes = struct.pack("<4Q", count, count, len(many), len(before))
    record64 = struct.pack("<4sQ2H2L", b"PK\x06\x06", 44, 45, 45, 0, 0) + sizes
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(before) + len(many), 1)
    at_most = made[end : end + 8] + b"\xff" * 12 + made[end + 20 :]
    for tail in (record, comment, record64 + locator + at_most):
        began = time.process_time()
        with pytest.raises(UnpackError, match="the zip has more than 65535 entries"):
            unpacking.check(before + many + tail)
        # zipfile would make an object of each, which takes ten times as long
        assert time.process_time() - began < 0.2
