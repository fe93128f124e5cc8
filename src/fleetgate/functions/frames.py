"""What a server and a launcher say to each other: frames over a socket pair.

A frame is a JSON object and bytes that go with it, each preceded by its size: two numbers of four
bytes, then both. Neither end is in a function's hands. The launcher imports this: it is the
standard library, and little of it.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

SIZES: Final = struct.Struct(">II")
MAX_HEAD: Final = 1 << 20
"""Bytes of the JSON; a plan names every file its function may not reach."""

Frame = tuple[dict[str, Any], bytes]


def frame(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """A frame as it is sent."""
    text = json.dumps(head).encode()
    return SIZES.pack(len(text), len(body)) + text + body


def sizes(prefix: bytes, max_body: int) -> tuple[int, int]:
    """The two sizes a frame begins with. Raises ValueError for more than there may be."""
    head, body = SIZES.unpack(prefix)
    if head > MAX_HEAD or body > max_body:
        raise ValueError(f"a frame of {head} and {body} bytes; at most {MAX_HEAD} and {max_body}")
    return head, body


def receive(sock: socket.socket) -> Frame | None:
    """The next frame of a blocking socket; None when the other end is gone."""
    prefix = _exactly(sock, SIZES.size)
    if prefix is None:
        return None
    head, body = SIZES.unpack(prefix)
    text, rest = _exactly(sock, head), _exactly(sock, body)
    if text is None or rest is None:
        return None
    return json.loads(text), rest


def _exactly(sock: socket.socket, count: int) -> bytes | None:
    received = bytearray(count)
    left = memoryview(received)
    while left:
        try:
            size = sock.recv_into(left)
        except OSError:
            return None
        if not size:
            return None
        left = left[size:]
    return bytes(received)
