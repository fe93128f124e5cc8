"""Requests of a runtime as they are read: what is taken, and every bound on what is not.

Source: RFC 9112 for the syntax; the bounds are our own.
"""

from __future__ import annotations

import pytest

from fleetgate.functions import runtime_http
from fleetgate.functions.runtime_http import Reading, Refused, Request, response

LIMIT = 1000
POST = b"POST /p HTTP/1.1\r\nHost: x\r\n"


def limit(_method: str, _path: str) -> int:
    return LIMIT


def read(data: bytes, piece: int = 1 << 20) -> Request | None:
    """Feeds the data in pieces, as a connection does."""
    reading = Reading(limit)
    request = None
    for at in range(0, len(data), piece):
        request = reading.feed(data[at : at + piece])
    return request


@pytest.mark.parametrize("piece", [1 << 20, 1])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", Request("GET", "/a", b"", 0, True)),
        (b"GET /a HTTP/1.0\r\n\r\n", Request("GET", "/a", b"", 0, False)),
        (b"GET /a HTTP/1.1\r\nConnection: Close\r\n\r\n", Request("GET", "/a", b"", 0, False)),
        (POST + b"content-length:3\r\n\r\nabc", Request("POST", "/p", b"abc", 3, True)),
        (
            POST
            + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0A;x=y\r\n0123456789\r\n0\r\n\r\n",
            Request("POST", "/p", b"ab0123456789", 12, True),
        ),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: 1\r\n\r\n",
            Request("POST", "/p", b"a", 1, True),
        ),
        # one too large is read to its end, and not kept
        (
            POST + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
            Request("POST", "/p", None, 1001, True),
        ),
    ],
)
def test_requests(data: bytes, expected: Request, piece: int) -> None:
    assert read(data, piece) == expected
    assert read(data[:-1], piece) is None


@pytest.mark.parametrize(
    ("data", "status", "rule"),
    [
        (b"GET\r\n\r\n", 400, "the first line is none of an HTTP/1.1 request"),
        (b"GET  /a HTTP/1.1\r\n\r\n", 400, "the first line"),
        (b"GET /\xe4 HTTP/1.1\r\n\r\n", 400, "the first line"),
        (b"GET /a HTTP/2\r\n\r\n", 400, "the first line"),
        (b"GET /a HTTP/1.1\r\nno header\r\n\r\n", 400, "a line of the head is no header"),
        (b"GET /a HTTP/1.1\r\nA: b\r\n folded: c\r\n\r\n", 400, "a line of the head"),
        (b"GET /a HTTP/1.1\r\nA : b\r\n\r\n", 400, "a line of the head"),
        (b"GET /a HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400, "a line of the head"),
        (POST + b"Content-Length: -1\r\n\r\n", 400, "Content-Length is not one number"),
        (POST + b"Content-Length: 1" + b"0" * 15 + b"\r\n\r\n", 400, "Content-Length"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "Content-Length"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 400, "Transfer-Encoding is not `chunked`"),
        (
            POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            400,
            "Content-Length beside Transfer-Encoding",
        ),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, "the size of a chunk"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400, "a chunk is longer"),
        # all at once: nothing is kept for later
        (b"GET /a HTTP/1.1\r\n\r\n" * 2, 400, "a request before the one before was answered"),
    ],
)
def test_requests_that_are_none(data: bytes, status: int, rule: str) -> None:
    with pytest.raises(Refused, match=rule) as raised:
        read(data)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("data", "status", "rule"),
    [
        (b"GET /a HTTP/1.1\r\n" + b"a:\r\n" * (1 << 18) + b"\r\n", 431, "a head of 262145 lines"),
        (b"GET /a HTTP/1.1\r\n" + b"a:\r\n" * 64 + b"\r\n", 431, "a head of 65 lines"),
        (b"GET /a HTTP/1.1\r\na: " + b"a" * runtime_http.MAX_HEAD, 431, "a head of more than"),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 20_000,
            400,
            "bytes of framing for a body of",
        ),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 1024,
            400,
            "a line between chunks",
        ),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 20_000,
            400,
            "bytes of framing for a body of",
        ),
    ],
)
def test_bounds(data: bytes, status: int, rule: str) -> None:
    with pytest.raises(Refused, match=rule) as raised:
        read(data, 1 << 16)
    assert raised.value.status == status


def test_a_body_without_end_is_not_read_for_ever() -> None:
    reading = Reading(limit)
    reading.feed(POST + b"Content-Length: 1000000000000\r\n\r\n")
    piece = bytes(1 << 20)
    with pytest.raises(Refused, match="a body of more than 268435456 bytes"):
        for _ in range(257):
            reading.feed(piece)


def test_short_chunks_are_taken() -> None:
    body = b"".join(b"8\r\n1234567\n\r\n" for _ in range(20_000)) + b"0\r\n\r\n"
    request = read(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body, 1 << 16)
    assert request is not None
    assert request.size == 160_000


def test_a_stack_trace_of_one_mebibyte_in_a_header_is_taken() -> None:
    cause = b"Lambda-Runtime-Function-XRay-Error-Cause: " + b"x" * ((1 << 20) - 1) + b"\r\n"
    request = read(POST + cause + b"Content-Length: 2\r\n\r\n{}", 1 << 16)
    assert request is not None
    assert request.body == b"{}"


def test_who_waits_for_it_is_told_to_continue() -> None:
    reading = Reading(limit)
    assert reading.feed(POST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n") is None
    assert reading.expects


def test_an_answer() -> None:
    assert response(202, [("A", "b")], b"{}", keep=True) == (
        b"HTTP/1.1 202 Accepted\r\nA: b\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert b"\r\nConnection: close\r\n" in response(404, [], b"", keep=False)
