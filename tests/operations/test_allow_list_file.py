"""Files of serial numbers: what is read, which rule a bad one breaks, where. Source: RFC 4180."""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from fleetgate.operations.allow_list_file import (
    MAX_BYTES,
    MAX_SERIAL_BYTES,
    Entry,
    FileError,
    Rows,
    SerialFile,
)

T = TypeVar("T")


def read(text: str | bytes, column: str | None = None) -> list[tuple[str, int | None]]:
    content = text.encode() if isinstance(text, str) else text
    rows = Rows(io.BytesIO(content), "SerialNumber", column)
    return [(row.serial, row.uses) for row in rows]


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("SerialNumber\n1\n2\n", None, [("1", None), ("2", None)]),
        ("SerialNumber", None, []),
        ("serial\r\n1\r\n", None, [("1", None)]),  # the first column
        ("site,SerialNumber\nA,1\n", None, [("1", None)]),
        ("site,SerialNumber\nA,1\n", "site", [("A", None)]),
        ("\ufeffs,uses\n1,3\n2,\n3,Unlimited\n", None, [("1", 3), ("2", None), ("3", 0)]),
        (' SerialNumber , uses \n" 1 ", 2 \n', None, [("1", 2)]),
        ('s\n"a,b"\n"say ""x"""\n"two\nlines"\n', None, [("a,b", None), ('say "x"', None),
                                                          ("two\nlines", None)]),
        ("s,t\n1,\n\n,\n , \n2,x\n", None, [("1", None), ("2", None)]),
        ("s\nGrüße\n", None, [("Grüße", None)]),
    ],
)  # fmt: skip
def test_what_is_read(
    text: str, column: str | None, expected: list[tuple[str, int | None]]
) -> None:
    assert read(text, column) == expected


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        (b"", None, "line 1: the names of the columns are expected"),
        (b"\n1\n", None, "line 1: the names of the columns are expected"),
        (b"a,b,a\n", None, "line 1: two columns are called `a`"),
        (b"a,b\n", "c", "line 1: there is no column `c` among `a`, `b`"),
        (
            b"SerialNumber;uses\n1;2\n",
            None,
            "line 1: columns are separated by commas, not by `;`: the header is the one column",
        ),
        (b"a\tb\n1\t2\n", "a", "line 1: columns are separated by commas, not by tabs: the header"),
        (b"uses\n1\n", None, "line 1: the column `uses` cannot be the one"),
        (b"a,b\n1,2\n3\n", None, "line 3: it has 1 columns, the header has 2"),
        (b"a,b\n1,2,3\n", None, "line 2: it has 3 columns, the header has 2"),
        (b"a,b\n1,2\n,4\n", None, "line 3: `a` is empty"),
        (b"a,uses\n1,0\n", None, "line 2: `uses`: a whole number from 1 to"),
        (b"a,uses\n1,-1\n", None, "expected, not `-1`"),
        (b"a,uses\n1,99999999999\n", None, "expected, not `99999999999`"),
        (b"a\n1\n\xff\n", None, "line 3: it is not UTF-8 at byte 0"),
        ("a\n1\n".encode("utf-16"), None, "line 1: it is not UTF-8"),
        (b"a\n1\0\n", None, "line 2: it has a U+0000"),
        (b'a\n"1\n', None, "line 2: unexpected end of data"),
        (b'a\n"1"2\n', None, "line 2: ',' expected after '\"'"),
        (b"a\r1\r", None, "line 1: new-line character seen in unquoted field"),
        (b"a\n" + b"x" * 200_000, None, "line 2: field larger than field limit"),
        (b"a\n" + b"x" * (MAX_SERIAL_BYTES + 1), None, "line 2: the serial number has more than"),
    ],
)
def test_a_bad_file_is_refused_by_line_and_rule(
    text: bytes, column: str | None, words: str
) -> None:
    with pytest.raises(ValueError) as caught:
        read(text, column)
    assert words in str(caught.value)


def run(awaitable: Awaitable[T]) -> T:
    async def wait() -> T:
        return await awaitable

    return asyncio.run(wait())


def test_what_is_found(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("s,site,uses,\n1,A,,x\n2,,3,\n")

    async def look() -> None:
        plain = await SerialFile(path, "SerialNumber").contents()
        assert plain.find("1") == Entry(None, {})
        assert plain.find("2") == Entry(3, {})
        assert plain.find("3") is plain.find("") is None
        more = await SerialFile(path, "SerialNumber", overrides=True).contents()
        assert more.find("1") == Entry(None, {"site": "A"})
        assert more.find("2") == Entry(3, {})
        assert more.find("3") is None

    asyncio.run(look())


def test_looks_at_once_are_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fleetgate")
    path = tmp_path / "s.csv"
    path.write_text("s\n1\n")

    async def look() -> None:
        file = SerialFile(path, "SerialNumber")
        impatient = asyncio.ensure_future(file.contents())
        await asyncio.sleep(0)
        impatient.cancel()
        found = await asyncio.gather(*(file.contents() for _ in range(20)))
        assert all(each is found[0] for each in found)

    asyncio.run(look())
    assert len([each for each in caplog.messages if "allow-list-read" in each]) == 1


@pytest.mark.parametrize("what", ["directory", "pipe", "nothing", "large", "many"])
def test_what_is_no_file_of_serial_numbers(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.csv"
    words = {
        "directory": "it is no regular file",
        "pipe": "it is no regular file",
        "nothing": "No such file or directory",
        "large": f"it has {MAX_BYTES + 1} bytes, at most are {MAX_BYTES}",
        "many": "line 12: there are more than 10 serial numbers",
    }
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "large":
        with path.open("wb") as file:
            file.truncate(MAX_BYTES + 1)
    elif what == "many":
        path.write_text("s\n" + "".join(f"{number}\n" for number in range(11)))
    with pytest.raises(FileError) as caught:
        run(SerialFile(path, "SerialNumber", most=10).contents())
    assert caught.value.message.startswith(f"`{path}`: {words[what]}")
    (told,) = caplog.messages
    assert told.startswith("event=allow-list-unusable effect='nobody is let in' cause=")


def busy(path: Path, change: Callable[[int], None], look: Callable[[], Awaitable[None]]) -> None:
    """Looks at a file while somebody else does something with it all the time."""
    ended = threading.Event()

    def work() -> None:
        for number in itertools.count():
            change(number)
            if ended.wait(0.001):
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        run(look())
    finally:
        ended.set()
        thread.join()


def reads(caplog: pytest.LogCaptureFixture) -> int:
    return sum("event=allow-list-read" in each for each in caplog.messages)


def test_a_file_that_is_touched_has_not_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fleetgate")
    path = tmp_path / "s.csv"
    path.write_text("s\n" + "".join(f"S-{number}\n" for number in range(20_000)))
    file = SerialFile(path, "SerialNumber")

    async def look() -> None:
        first = await file.contents()
        for _ in range(20):
            assert await file.contents() is first

    busy(path, lambda number: os.utime(path, ns=(number, number)), look)
    same = tmp_path / "same.csv"
    same.write_bytes(path.read_bytes())
    same.rename(path)
    run(file.contents())
    assert reads(caplog) == 1


def test_a_file_that_is_written_all_the_time_is_not_read_all_the_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits gets what it holds: never what it held before."""
    caplog.set_level("INFO", "fleetgate")
    path, new = tmp_path / "s.csv", tmp_path / "new.csv"
    text = "s\n" + "".join(f"S-{number}\n" for number in range(20_000))
    written = [0]

    def change(number: int) -> None:
        new.write_text(f"{text}N-{number}\n")
        new.rename(path)
        written[0] = number

    change(0)
    file = SerialFile(path, "SerialNumber")
    began = time.monotonic()

    async def look() -> None:
        for _ in range(10):
            before = written[0]
            contents = await file.contents()
            now = range(before, written[0] + 2)
            assert any(contents.find(f"N-{number}") for number in now)

    busy(path, change, look)
    assert time.monotonic() - began < 10
    spent = sum(float(each.rpartition("=")[2]) for each in caplog.messages)
    assert spent < 0.7 * (time.monotonic() - began)
