"""What a proxy is asked, and what is made of its answers."""

from __future__ import annotations

import socket

import pytest

from fleetgate.device import tunnel
from fleetgate.device.endpoint import Endpoint, Proxy
from fleetgate.device.errors import ConnectionFailed


def ask(answer: bytes, endpoint: Endpoint, *, hang_up: bool = True) -> tuple[bytes, bytes]:
    """The request, and what is left to be read, after the proxy has sent `answer`."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        if hang_up:
            theirs.shutdown(socket.SHUT_WR)
        assert endpoint.proxy is not None
        tunnel.open_through(ours, endpoint, endpoint.proxy)
        return theirs.recv(4096), ours.recv(4096)


@pytest.mark.parametrize(
    ("endpoint", "request_"),
    [
        (
            Endpoint("host", 8883, proxy=Proxy("proxy", 1)),
            b"CONNECT host:8883 HTTP/1.1\r\nHost: host:8883\r\n\r\n",
        ),
        (  # RFC 9110 section 7.2: an IPv6 address is in brackets
            Endpoint("::1", 443, proxy=Proxy("proxy", 1)),
            b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
        ),
        (  # RFC 7617 section 2
            Endpoint("host", 1, proxy=Proxy("proxy", 1, "Aladdin", "open sesame")),
            (
                b"CONNECT host:1 HTTP/1.1\r\nHost: host:1\r\n"
                b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
            ),
        ),
    ],
)
def test_what_is_asked_and_that_nothing_of_the_server_is_taken(
    endpoint: Endpoint, request_: bytes
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nVia: 1.1 proxy\r\n\r\n"
    assert ask(answer + b"server", endpoint) == (request_, b"server")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection instead of answering CONNECT"),
        (b"HTTP/1.1 200 OK\r\n", "closed the connection instead of answering CONNECT"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "something that is not HTTP"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "the proxy does not reach the server: "),
        (b"HTTP/1.1 418 \r\n\r\n", "the proxy refused: "),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000, "longer than 16384 bytes"),
    ],
)
def test_an_answer_that_is_no_tunnel(answer: bytes, said: str) -> None:
    with pytest.raises(ConnectionFailed) as caught:
        ask(answer, Endpoint("host", proxy=Proxy("proxy", 1)))
    assert said in caught.value.message


def test_a_proxy_that_says_nothing() -> None:
    endpoint = Endpoint("host", proxy=Proxy("proxy", 1), connect_timeout=0.05)
    with pytest.raises(ConnectionFailed, match=r"did not answer CONNECT within 0\.05 s"):
        ask(b"HTTP/1.1 200", endpoint, hang_up=False)
