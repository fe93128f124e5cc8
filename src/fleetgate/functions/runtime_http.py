"""Requests of a runtime, read as they arrive: as much of HTTP/1.1 as the runtime API takes.

Theory of operation. Whoever writes a function writes these bytes, so that all that is kept or
done for them is bounded before it is: the head by its size and its lines, the body by what the
API takes for that path, chunks by the bytes their framing takes, and there is one request at a
time: what comes before the answer to the one before ends the connection. Nothing is looked at
twice: a head is split when it is complete, the body goes to where it stays.

This is not the server's HTTP: the launcher reads it (functions/runtime_api.py), which is the
standard library alone and has to start in a moment.

Source: RFC 9112.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

MAX_HEAD: Final = (1 << 20) + (1 << 16)
"""Bytes of a head: awslambdaric puts up to 1 MiB of stack trace in a header."""

MAX_LINES: Final = 64
"""Lines of a head; runtimes have some ten."""

MAX_FRAMING: Final = 1 << 16
"""Bytes of a body that are sizes of chunks and the like, beyond as many as there are of content:
chunks of one byte take five more."""

MAX_THROWN_AWAY: Final = 1 << 28
"""Bytes read of a body that is too large, so that the runtime hears so."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_MAX_LINE = 1 << 10  # of a chunk's size, with what HTTP calls its extensions
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    413: "Payload Too Large",
    431: "Request Header Fields Too Large",
}


class Refused(Exception):
    """Not a request that is taken; the connection ends with this answer."""

    def __init__(self, status: int, rule: str) -> None:
        super().__init__(rule)
        self.status = status


class Request(NamedTuple):
    """A whole request. `body` is None when it was larger than may be; it had `size` bytes."""

    method: str
    path: str
    body: bytes | None
    size: int
    keep: bool
    """Whether the connection stays for another one."""


class Reading:
    """Reads one request; `limit` tells how many bytes its body may have, by method and path."""

    def __init__(self, limit: Callable[[str, str], int]) -> None:
        self.expects = False
        """Whether the other end waits for CONTINUE before it sends the body."""
        self._limit_of = limit
        self._buffer = bytearray()
        self._searched = 0
        self._step: Callable[[], bool] = self._head
        self._method = self._path = ""
        self._keep = True
        self._limit = self._left = self._size = self._framing = 0
        self._body = bytearray()
        self._whole = False

    def feed(self, data: bytes) -> Request | None:
        """Takes what has arrived; returns the request when it is complete. Raises Refused."""
        self._buffer += data
        while not self._whole and self._step():
            pass
        if not self._whole:
            return None
        if self._buffer:
            raise Refused(400, "a request before the one before was answered")
        body = None if self._size > self._limit else bytes(self._body)
        return Request(self._method, self._path, body, self._size, self._keep)

    # --- the head ---------------------------------------------------------------------------------

    def _head(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", max(self._searched - 3, 0))
        self._searched = len(buffer)
        if (len(buffer) if end < 0 else end) > MAX_HEAD:
            raise Refused(431, f"a head of more than {MAX_HEAD} bytes")
        if end < 0:
            return False
        lines = buffer.count(b"\n", 0, end) + 1
        if lines > MAX_LINES:
            raise Refused(431, f"a head of {lines} lines; at most {MAX_LINES}")
        request, *headers = bytes(buffer[:end]).split(b"\r\n")
        del buffer[: end + 4]
        method, path, version = self._request_line(request)
        self._keep = version != b"HTTP/1.0"
        self._method, self._path = method, path
        length, chunked = self._headers(headers)
        self._limit = self._limit_of(method, path)
        self._left = length
        self._step = self._chunk_size if chunked else self._fixed
        return True

    def _request_line(self, line: bytes) -> tuple[str, str, bytes]:
        words = line.split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0") or not line.isascii():
            raise Refused(400, "the first line is none of an HTTP/1.1 request")
        return words[0].decode(), words[1].decode(), words[2]

    def _headers(self, lines: list[bytes]) -> tuple[int, bool]:
        """The size of the body, and whether it comes in chunks."""
        length: int | None = None
        chunked = False
        for line in lines:
            name, colon, value = line.partition(b":")
            value = value.strip(b" \t").lower() if len(name) < 32 else b""
            # what is folded onto the next line begins with a space
            if not colon or not name or name != name.strip() or b"\n" in line:
                raise Refused(400, "a line of the head is no header")
            name = name.lower()
            if name == b"content-length":
                if not value.isdigit() or len(value) > 15 or length not in (None, int(value)):
                    raise Refused(400, "Content-Length is not one number")
                length = int(value)
            elif name == b"transfer-encoding":
                if value != b"chunked" or chunked:
                    raise Refused(400, "Transfer-Encoding is not `chunked`")
                chunked = True
            elif name == b"connection" and value == b"close":
                self._keep = False
            elif name == b"expect" and value == b"100-continue":
                self.expects = True
        if chunked and length is not None:
            raise Refused(400, "Content-Length beside Transfer-Encoding")
        return length or 0, chunked

    # --- the body ---------------------------------------------------------------------------------

    def _fixed(self) -> bool:
        if not self._take():
            return False
        self._whole = True
        return True

    def _take(self) -> bool:
        """Moves what there is of `_left` bytes to the body; returns whether that was all."""
        if self._left:
            count = min(self._left, len(self._buffer))
            self._size += count
            if self._size <= self._limit:
                self._body += self._buffer if count == len(self._buffer) else self._buffer[:count]
            elif self._body:
                self._body = bytearray()
            if self._size > MAX_THROWN_AWAY:
                raise Refused(413, f"a body of more than {MAX_THROWN_AWAY} bytes")
            del self._buffer[:count]
            self._left -= count
        return not self._left

    def _line(self) -> bytes | None:
        """A line of framing, without its end."""
        end = self._buffer.find(b"\r\n", 0, _MAX_LINE + 2)
        if end < 0:
            if len(self._buffer) > _MAX_LINE:
                raise Refused(400, f"a line between chunks of more than {_MAX_LINE} bytes")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        self._framing += end + 2
        if self._framing > self._size + MAX_FRAMING:
            rule = f"{self._framing} bytes of framing for a body of {self._size} bytes in chunks"
            raise Refused(400, rule)
        return line

    def _chunk_size(self) -> bool:
        line = self._line()
        if line is None:
            return False
        digits = line.partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > 12 or digits.strip(b"0123456789abcdefABCDEF"):
            raise Refused(400, "the size of a chunk is no number")
        self._left = int(digits, 16)
        self._step = self._chunk if self._left else self._trailer
        return True

    def _chunk(self) -> bool:
        if not self._take():
            return False
        self._step = self._chunk_end
        return True

    def _chunk_end(self) -> bool:
        line = self._line()
        if line:
            raise Refused(400, "a chunk is longer than it says")
        if line is None:
            return False
        self._step = self._chunk_size
        return True

    def _trailer(self) -> bool:
        line = self._line()
        self._whole = line == b""
        return line is not None


def response(status: int, headers: list[tuple[str, str]], body: bytes, *, keep: bool) -> bytes:
    """An answer as it is sent."""
    length = ("Content-Length", str(len(body)))
    lines = [*headers, length, *([] if keep else [("Connection", "close")])]
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\n{head}\r\n".encode() + body
