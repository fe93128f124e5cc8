"""How reports leave over HTTP: in pieces, and the URLs of their links."""

from __future__ import annotations

import asyncio
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from fleetgate.gateway.reports import CHUNK, FileBody, base_url


def sent(body: FileBody) -> list[MutableMapping[str, Any]]:
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(message)

    asyncio.run(body.send(send))
    return messages


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "report"
    path.write_bytes(bytes(range(256)) * 1024)
    return path


@pytest.mark.parametrize(
    ("start", "size"), [(0, 256 * 1024), (0, CHUNK), (1, CHUNK + 1), (262_143, 1)]
)
def test_a_piece_of_a_file_is_sent_in_chunks(file: Path, start: int, size: int) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    body = FileBody(descriptor, start, size)
    assert len(body) == size
    messages = sent(body)
    assert b"".join(each["body"] for each in messages) == file.read_bytes()[start : start + size]
    assert max(len(each["body"]) for each in messages) <= CHUNK
    assert [each["more_body"] for each in messages] == [True] * (len(messages) - 1) + [False]
    with pytest.raises(OSError):
        os.fstat(descriptor)  # it is closed


def test_a_file_that_was_cut_breaks_the_answer(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    with pytest.raises(OSError, match="a report ends at 262144, not at 262145"):
        sent(FileBody(descriptor, 0, 262_145))
    with pytest.raises(OSError):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (
            {"headers": [(b"host", b"gate.example:4566")], "scheme": "http"},
            "http://gate.example:4566",
        ),
        ({"headers": [(b"host", b"gate.example")], "scheme": "https"}, "https://gate.example"),
        ({"headers": [], "server": ("127.0.0.1", 4566)}, "http://127.0.0.1:4566"),
        ({"headers": []}, "http://localhost:80"),
    ],
)
def test_links_begin_as_the_caller_reached_the_server(scope: dict[str, Any], expected: str) -> None:
    assert base_url(scope) == expected
