"""A tunnel through an HTTP proxy, by CONNECT (RFC 9110 section 9.3.6), on a plain socket."""

from __future__ import annotations

import base64
import re
import socket
import time

from fleetgate.device import tls
from fleetgate.device.endpoint import Endpoint, Proxy
from fleetgate.device.errors import ConnectionFailed

_MAX_ANSWER = 16 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: ([^\r\n]*))?\r?\n")  # RFC 9112 section 4

_MEANING = {
    403: "the proxy does not allow this server and port",
    404: "the proxy does not find the server",
    405: "the proxy does not do CONNECT",
    407: "the proxy wants a user and a password",
    502: "the proxy does not reach the server",
    503: "the proxy does not reach the server",
    504: "the proxy does not reach the server in time",
}


def open_through(
    stream: socket.socket, endpoint: Endpoint, proxy: Proxy, deadline: float | None = None
) -> None:
    """Ask `proxy`, to which `stream` is connected, for a tunnel to the server of `endpoint`.

    Afterwards what `stream` carries is the server's. Has :func:`~fleetgate.device.tls.left`
    seconds. Raises ConnectionFailed with the proxy's answer in words; `stream` is then of no use
    any more.
    """
    deadline = time.monotonic() + tls.left(endpoint, deadline)
    target = endpoint.host if ":" not in endpoint.host else f"[{endpoint.host}]"
    request = f"CONNECT {target}:{endpoint.port} HTTP/1.1\r\nHost: {target}:{endpoint.port}\r\n"
    if proxy.user is not None:
        shown = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
        request += f"Proxy-Authorization: Basic {shown}\r\n"
    where = f"`{proxy.host}` port {proxy.port}"
    try:
        _set_deadline(stream, deadline)
        stream.sendall(f"{request}\r\n".encode())
        answer = _answer(stream, deadline)
    except TimeoutError as error:
        raise ConnectionFailed(
            f"the proxy {where} did not answer CONNECT within {endpoint.connect_timeout:g} s",
            waited=endpoint.connect_timeout,
        ) from error
    except OSError as error:
        raise ConnectionFailed(
            f"the proxy {where} closed the connection instead of answering CONNECT "
            f"({tls.explain(error)})"
        ) from error
    status = _STATUS_LINE.match(answer)
    if status is None:
        raise ConnectionFailed(
            f"the proxy {where} answered CONNECT with something that is not HTTP; "
            "is it an HTTP proxy?"
        )
    code = int(status[1])
    if not 200 <= code < 300:
        said = (status[2] or b"").decode("latin-1").strip()
        meaning = _MEANING.get(code, "the proxy refused")
        if code == 407 and proxy.user is not None:
            how = "without a password" if proxy.password is None else "with this password"
            meaning = f"the proxy does not take the user `{proxy.user}` {how}"
        raise ConnectionFailed(
            f"{meaning}: {where} answered CONNECT {target}:{endpoint.port} with {code} {said}",
            # a wrong password stays wrong
            retry=code >= 500,
        )


def _answer(stream: socket.socket, deadline: float) -> bytes:
    """The head of the answer, and not a byte more: what follows is the server's.

    Byte by byte, because nothing can be put back; it is some hundred of them, once.
    """
    answer = bytearray()
    while not answer.endswith((b"\r\n\r\n", b"\n\n")):
        if len(answer) >= _MAX_ANSWER:
            raise OSError(f"its answer is longer than {_MAX_ANSWER} bytes")
        _set_deadline(stream, deadline)
        byte = stream.recv(1)
        if not byte:
            raise OSError("end of the stream")
        answer += byte
    return bytes(answer)


def _set_deadline(stream: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    stream.settimeout(left)
