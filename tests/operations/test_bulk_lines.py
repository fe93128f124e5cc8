"""Lines of an input file: where they begin and end, and what is wrong with them.

Sources: AWS IoT Developer Guide, "Bulk registration" (newline-delimited JSON); AWS General
Reference, "AWS IoT Core endpoints and quotas" (256 000 characters of a line); RFC 8259.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import InvalidRequestException
from fleetgate.operations import bulk_lines
from fleetgate.operations.bulk_lines import Line, Lines, parse_line

LIMIT = 256_000


@dataclass
class Kept:
    """An input file in memory, read in pieces of at most `most` bytes."""

    content: bytes
    most: int = bulk_lines.PIECE
    version: str = "1"
    read_bytes: int = 0

    @property
    def size(self) -> int:
        return len(self.content)

    async def read(self, offset: int, count: int) -> bytes:
        found = self.content[offset : offset + min(count, self.most)]
        self.read_bytes += len(found)
        return found

    def close(self) -> None:
        """There is nothing to close."""


def read(
    content: bytes, most: int = 7, limit: int = LIMIT, start: int = 0, number: int = 0
) -> list[Line]:
    async def all_lines() -> list[Line]:
        lines = Lines(Kept(content, most), start, number, limit)
        found = []
        while (line := await lines.next()) is not None:
            found.append(line)
        assert lines.offset == len(content)
        return found

    return asyncio.run(all_lines())


def only(content: bytes, limit: int = LIMIT) -> dict[str, str]:
    (line,) = read(content, len(content) + 1, limit)
    return parse_line(line, limit)


@given(st.lists(st.binary(max_size=30).filter(lambda b: b"\n" not in b)), st.integers(1, 50))
def test_lines_are_those_between_line_feeds(texts: list[bytes], most: int) -> None:
    content = b"\n".join(texts)
    expected = texts if content else []
    if expected and not expected[-1]:
        expected = expected[:-1]  # behind the last line feed there is no line
    found = read(content, most)
    assert [line.text for line in found] == expected
    assert [line.number for line in found] == list(range(1, len(expected) + 1))
    for line in found:
        assert content[line.offset : line.end].removesuffix(b"\n") == line.text
        # whoever goes on from here reads the same
        assert read(content, most, start=line.end, number=line.number) == found[line.number :]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a":"b"}\n', {"a": "b"}),
        (b'{"a":"b"}', {"a": "b"}),
        (b'{"a":"b"}\r\n', {"a": "b"}),
        (b' {"a" : "b"}\t\n', {"a": "b"}),
        (b'\xef\xbb\xbf{"a":"b"}\n', {"a": "b"}),
        (b"{}\n", {}),
        ('{"a":"ü\\u00fc"}\n'.encode(), {"a": "üü"}),
    ],
)
def test_what_is_read(content: bytes, expected: dict[str, str]) -> None:
    assert only(content) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense\n", "the line cannot be read: it is not JSON: expecting value at column 1"),
        (b'{"a":"b"} {"a":"c"}\n', "it is not JSON: extra data at column 11"),
        (b'["a"]\n', "the line has to be a JSON object of parameters, not a list"),
        (b'"a"\n', "the line has to be a JSON object of parameters, not a string"),
        (b"null\n", "the line has to be a JSON object of parameters, not null"),
        (b'{"a":5}\n', "the parameter `a` has to be a string, not a number"),
        (b'{"a":1.5}\n', "the parameter `a` has to be a string, not a number"),
        (b'{"a":true}\n', "the parameter `a` has to be a string, not a boolean"),
        (b'{"a":null}\n', "the parameter `a` has to be a string, not null"),
        (b'{"a":{"b":"c"}}\n', "the parameter `a` has to be a string, not an object"),
        (b'{"a":["b"]}\n', "the parameter `a` has to be a string, not a list"),
        (b'{"a":"b","a":"c"}\n', "`a` occurs twice in one object"),
        (b'{"a":"\\ud800"}\n', "it holds half of a surrogate pair"),
        (b"[" * 1000 + b"\n", "it is nested more than 2 deep"),
        (b'{"a":NaN}\n', "`NaN` is not JSON"),
        (b'{"a":"\xff"}\n', "the line is not UTF-8: byte 0xFF at byte 6"),
        ('{"a":"b"}\n'.encode("utf-16"), "byte 0xFF at byte 0: is the file UTF-16\\?"),
    ],
)
def test_what_is_wrong_is_told(content: bytes, message: str) -> None:
    line = read(content, len(content))[0]
    with pytest.raises(InvalidRequestException, match=message):
        parse_line(line, LIMIT)


def test_a_byte_order_mark_is_passed_over_at_the_beginning_alone() -> None:
    first, second = read(b'{}\n\xef\xbb\xbf{"a":"b"}\n')
    assert parse_line(first, LIMIT) == {}
    with pytest.raises(InvalidRequestException, match="not JSON"):
        parse_line(second, LIMIT)


@pytest.mark.parametrize("text", [b"", b" ", b"\t \r", b"\xef\xbb\xbf"])
def test_blank_lines(text: bytes) -> None:
    assert read(text + b"\n")[0].is_blank
    assert not read(b"{}\n" + b"x" + text + b"\n")[1].is_blank


@pytest.mark.parametrize(
    ("character", "count", "fits"),
    [("x", 92, True), ("x", 93, False), ("ü", 92, True), ("ü", 93, False), ("🙂", 93, False)],
)
def test_the_limit_counts_characters(character: str, count: int, fits: bool) -> None:
    text = f'{{"a":"{character * count}"}}'
    content = text.encode() + b"\n"
    if fits:
        assert only(content, 100) == {"a": character * count}
        return
    with pytest.raises(InvalidRequestException, match=r"has 101 characters; .* is 100"):
        only(content, 100)


def test_a_line_without_end_is_not_kept_in_memory() -> None:
    content = b'{"a":"b"}\n' + b"x" * 5_000_000 + b'\n{"c":"d"}'
    found = read(content, bulk_lines.PIECE, 1000)
    assert [line.number for line in found] == [1, 2, 3]
    assert found[1] == Line(2, 10, 5_000_011, None)
    with pytest.raises(InvalidRequestException, match="more than 1000 characters"):
        parse_line(found[1], 1000)
    assert parse_line(found[2], 1000) == {"c": "d"}


def test_nothing_is_read_twice() -> None:
    async def run() -> int:
        file = Kept(b'{"a":"b"}\n' * 1000, 64)
        lines = Lines(file, 0, 0, LIMIT)
        while await lines.next() is not None:
            pass
        return file.read_bytes

    assert asyncio.run(run()) == 10_000
