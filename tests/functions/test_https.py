"""One outgoing HTTPS request: what is called, what is believed, and what bounds it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from fleetgate.functions.https import MAX_BODY, HttpsServer, Response, shown
from fleetgate.functions.target import Failure, FunctionError
from fleetgate.functions.urls import parse_url
from tests.functions.https_server import NAME, Asked, Authority, local, response, serving

T = TypeVar("T")
LOOPBACK = ("127.0.0.0/8",)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, T]], T]:
    def run(work: Coroutine[Any, Any, T]) -> T:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return run


def server_of(port: int, authority: Authority, **options: Any) -> HttpsServer:
    given: dict[str, Any] = {
        "allow_networks": LOOPBACK,
        "ca_file": authority.file,
        "resolve": local,
    }
    return HttpsServer(f"https://{NAME}:{port}/hook?key=hush", **(given | options))


async def refused(work: Awaitable[object], kind: Failure, *words: str) -> str:
    with pytest.raises(FunctionError) as caught:
        await work
    assert caught.value.kind == kind, caught.value.message
    for word in words:
        assert word in caught.value.message
    assert "hush" not in caught.value.message
    return caught.value.message


# --- what is sent and what comes back ------------------------------------------------------------


def test_a_request_is_answered(run: Callable[..., Any], authority: Authority) -> None:
    async def work() -> None:
        async with serving(response(b"{}", head="X-A: 1\r\n"), authority.issue(NAME)) as at:
            got = await server_of(at.port, authority).post({"X-B": "2"}, b"[1]", seconds=5)
            assert got == Response(200, {"content-length": "2", "x-a": "1"}, b"{}")
            [asked] = at.asked
            assert asked.line == "POST /hook?key=hush HTTP/1.1"
            assert asked.headers == {
                "host": f"{NAME}:{at.port}",
                "accept-encoding": "identity",
                "connection": "close",
                "content-length": "3",
                "x-b": "2",
            }
            assert asked.body == b"[1]"
            assert asked.certificate is None

    run(work())


def test_another_path_and_method_of_the_same_server(authority: Authority) -> None:
    async def work() -> None:
        async with serving(response(b"", "204 No Content"), authority.issue(NAME)) as at:
            server = server_of(at.port, authority)
            got = await server.request("GET", {}, seconds=5, target="/v1/sys/health?a=b")
            assert got.status == 204
            assert at.asked[0].line == "GET /v1/sys/health?a=b HTTP/1.1"

    asyncio.run(work())


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n{}",  # ends with the connection
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + response(b"{}"),
        response(b"{}", head="Connection: keep-alive\r\n") + b"HTTP/1.1 200 more",
    ],
)
def test_a_response_may_be_framed_in_any_way(sent: bytes, authority: Authority) -> None:
    async def work() -> None:
        async with serving(sent, authority.issue(NAME)) as at:
            got = await server_of(at.port, authority).post({}, b"", seconds=5)
            assert (got.status, got.body) == (200, b"{}")

    asyncio.run(work())


def test_proxies_of_the_environment_are_not_asked(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    async def work() -> None:
        async with serving(response(b"{}"), authority.issue(NAME)) as at:
            assert (await server_of(at.port, authority).post({}, b"", seconds=5)).status == 200

    asyncio.run(work())


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        (["127.0.0.1"], "127.0.0.1, which is not called (loopback"),
        (["169.254.169.254"], "instance metadata"),
        (["fd00:ec2::254"], "instance metadata"),
        (["8.8.8.8", "10.0.0.1"], "10.0.0.1, which is not called (private"),
        (["::ffff:192.168.1.1"], "private"),
        (["0.0.0.0"], "unspecified"),  # noqa: S104 - an answer, not bound
    ],
)
def test_addresses_that_may_not_be_called(
    addresses: list[str], words: str, authority: Authority
) -> None:
    """Nothing is sent anywhere, not even to the public ones of the answer."""

    async def work() -> None:
        server = server_of(1, authority, allow_networks=(), resolve=lambda *_: addresses)
        await refused(server.post({}, b"", seconds=5), Failure.ADDRESS_REFUSED, words, NAME)

    asyncio.run(work())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433"])
def test_loopback_by_any_other_name(host: str, authority: Authority) -> None:
    """With the resolver of the system."""

    async def work() -> None:
        server = HttpsServer(f"https://{host}:1/", ca_file=authority.file)
        await refused(server.post({}, b"", seconds=5), Failure.ADDRESS_REFUSED, "loopback")

    asyncio.run(work())


def test_the_address_that_was_looked_at_is_the_one_that_is_called(authority: Authority) -> None:
    """The name is resolved once: one that answers differently the next time gains nothing."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async def work() -> None:
        async with serving(response(b"{}"), authority.issue(NAME)) as at:
            server = server_of(at.port, authority, resolve=resolve)
            assert (await server.post({}, b"", seconds=5)).status == 200
            assert asked == [NAME]
            await refused(server.post({}, b"", seconds=5), Failure.ADDRESS_REFUSED, "10.0.0.1")
            assert at.connections == 1

    asyncio.run(work())


def test_the_next_address_is_tried(run: Callable[..., Any], authority: Authority) -> None:
    async def work() -> None:
        async with serving(response(b"{}"), authority.issue(NAME)) as at:
            server = server_of(at.port, authority, resolve=lambda *_: ["127.0.0.2", "127.0.0.1"])
            assert (await server.post({}, b"", seconds=5)).status == 200

    run(work())


def test_nobody_listens(run: Callable[..., Any], authority: Authority) -> None:
    async def work() -> None:
        async with serving(b"", None) as at:
            port = at.port
        server = server_of(port, authority, resolve=lambda *_: ["127.0.0.1", "127.0.0.2"])
        await refused(
            server.post({}, b"", seconds=5), Failure.UNREACHABLE, "127.0.0.1: ", "127.0.0.2: "
        )

    run(work())


def test_a_name_that_does_not_exist(authority: Authority) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise OSError(-2, "Name or service not known")

    async def work() -> None:
        server = server_of(1, authority, resolve=resolve)
        await refused(
            server.post({}, b"", seconds=5),
            Failure.UNREACHABLE,
            f"`{NAME}` cannot be resolved: Name or service not known",
        )
        nothing = server_of(1, authority, resolve=lambda *_: [])
        await refused(nothing.post({}, b"", seconds=5), Failure.UNREACHABLE, "no address")

    asyncio.run(work())


def test_names_that_hang_do_not_pile_up(authority: Authority) -> None:
    """Each look-up has a thread, there are four, and the loop's own executor has none of them."""
    going_on, looking = threading.Event(), list[str]()

    def resolve(host: str, port: int) -> list[str]:
        looking.append(host)
        going_on.wait(20)
        return ["127.0.0.1"]

    async def work() -> None:
        server = server_of(1, authority, resolve=resolve)
        calls = [server.post({}, b"", seconds=0.1) for _ in range(20)]
        began = time.monotonic()
        await asyncio.gather(
            *(refused(call, Failure.TIMED_OUT, f"resolving `{NAME}`") for call in calls)
        )
        assert time.monotonic() - began < 10
        assert len(looking) == 4
        assert await asyncio.to_thread(lambda: "free") == "free"
        going_on.set()

    asyncio.run(work())


# --- certificates --------------------------------------------------------------------------------


def test_certificates_that_are_refused(
    run: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "A stranger")

    async def work() -> None:
        for certificate, words in [
            (authority.issue("other.example"), f"certificate is not valid for '{NAME}'"),
            (authority.issue(NAME, days=-1), "certificate has expired"),
            (stranger.issue(NAME), "unable to get local issuer certificate"),
        ]:
            async with serving(response(b"{}"), certificate) as at:
                message = await refused(
                    server_of(at.port, authority).post({}, b"hush", seconds=5),
                    Failure.UNREACHABLE,
                    "the certificate of 127.0.0.1 is refused",
                )
                assert words in message
                assert at.asked == []
        # the authorities of the system do not know ours
        async with serving(response(b"{}"), authority.issue(NAME)) as at:
            server = server_of(at.port, authority, ca_file=None)
            await refused(server.post({}, b"", seconds=5), Failure.UNREACHABLE, "certificate")

    run(work())


def test_the_certificate_may_be_of_an_address(authority: Authority) -> None:
    async def work() -> None:
        async with serving(response(b"{}"), authority.issue("127.0.0.1")) as at:
            url = f"https://127.0.0.1:{at.port}/"
            server = HttpsServer(url, allow_networks=LOOPBACK, ca_file=authority.file)
            assert (await server.post({}, b"", seconds=5)).status == 200

    asyncio.run(work())


def test_no_tls(run: Callable[..., Any], authority: Authority) -> None:
    async def work() -> None:
        async with serving(response(b"{}"), None) as at:
            await refused(
                server_of(at.port, authority).post({}, b"", seconds=0.3),
                Failure.TIMED_OUT,
                "shaking hands with 127.0.0.1",
            )

    async def closing() -> None:
        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(close, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await refused(
                server_of(port, authority).post({}, b"", seconds=5), Failure.UNREACHABLE, "no TLS"
            )

    run(work())
    run(closing())


def test_mutual_tls(run: Callable[..., Any], authority: Authority) -> None:
    own = authority.issue("server.example")

    async def work() -> None:
        certificate = authority.issue(NAME)
        async with serving(response(b"{}"), certificate, clients=authority.file) as at:
            server = server_of(at.port, authority, client_certificate=own)
            assert (await server.post({}, b"", seconds=5)).status == 200
            assert "server.example" in str(at.asked[0].certificate)
            await refused(
                server_of(at.port, authority).post({}, b"", seconds=5), Failure.UNREACHABLE
            )
            assert len(at.asked) == 1

    run(work())


def test_files_are_read_again_when_they_change(authority: Authority, tmp_path: Path) -> None:
    stranger, ca_file = Authority(tmp_path / "stranger", "A stranger"), tmp_path / "trusted.pem"
    ca_file.write_bytes(authority.file.read_bytes())

    async def work() -> None:
        async with serving(response(b"{}"), stranger.issue(NAME)) as at:
            server = server_of(at.port, authority, ca_file=ca_file)
            await refused(server.post({}, b"", seconds=5), Failure.UNREACHABLE, "certificate")
            ca_file.write_bytes(stranger.file.read_bytes())
            os.utime(ca_file, (1, 1))
            assert (await server.post({}, b"", seconds=5)).status == 200
            ca_file.write_text("")
            await refused(
                server.post({}, b"", seconds=5), Failure.NOT_STARTED, "holds no certificates"
            )
            ca_file.unlink()
            await refused(server.post({}, b"", seconds=5), Failure.NOT_STARTED, "No such file")

    asyncio.run(work())


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for options, words in [
        ({"ca_file": tmp_path / "absent.pem"}, "absent.pem` cannot be read: No such file"),
        ({"ca_file": empty}, "empty.pem` holds no certificates in PEM"),
        ({"client_certificate": empty}, "empty.pem`: no certificate in PEM with its private key"),
        ({"client_certificate": authority.file}, "ca.pem`: no certificate in PEM with its"),
        ({"client_key": empty}, "client_key is given without client_cert"),
        ({"allow_networks": ["10.0.0.1/8"]}, "has host bits set"),
    ]:
        with pytest.raises(ValueError, match=words):
            HttpsServer(f"https://{NAME}/", **options)  # type: ignore[arg-type]


# --- redirects, sizes, time ----------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
def test_redirects_are_not_followed(status: int, authority: Authority) -> None:
    async def work() -> None:
        certificate = authority.issue(NAME)
        async with serving(response(b"{}"), certificate) as there:
            location = f"Location: https://{NAME}:{there.port}/there?token=hush\r\n"
            redirect = response(b"", f"{status} Elsewhere", location)
            async with serving(redirect, certificate) as at:
                await refused(
                    server_of(at.port, authority).post({}, b"", seconds=5),
                    Failure.FAILED,
                    f"status {status}",
                    f"location `https://{NAME}:{there.port}/there`",
                    "redirects are not followed",
                )
                assert (len(at.asked), there.connections) == (1, 0)

    asyncio.run(work())


def flood(line: bytes, megabytes: int = 2) -> Callable[[Asked, asyncio.StreamWriter], Any]:
    async def send(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(megabytes * 16):
            writer.write(line * (65536 // len(line)))
            await writer.drain()

    return send


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (response(b"x" * 2_000_000), f"2000000 bytes, more than {MAX_BODY}"),
        (flood(b"\r\n" + b"x" * 1000), f"more than {MAX_BODY} bytes"),  # until the connection ends
        (flood(b"A: " + b"x" * 1000 + b"\r\n"), "a head of more than 16384 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"1\r\nx\r\n" * 40_000, "more than 8192 pieces"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000, "more than 8192 pieces"),
    ],
)
def test_what_comes_back_is_bounded(answer: Any, words: str, authority: Authority) -> None:
    async def work() -> None:
        async with serving(answer, authority.issue(NAME)) as at:
            await refused(
                server_of(at.port, authority).post({}, b"", seconds=5), Failure.TOO_LARGE, words
            )

    asyncio.run(work())


def test_an_answer_may_come_before_everything_was_read(
    run: Callable[..., Any], authority: Authority
) -> None:
    async def work() -> None:
        answer = response(b"too much", "413 Content Too Large")
        async with serving(answer, authority.issue(NAME), reads=False) as at:
            server = server_of(at.port, authority)
            assert (await server.post({}, b"x" * 100_000, seconds=5)).status == 413

    run(work())


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"hello\r\n\r\n", Failure.MALFORMED, "it is no HTTP"),
        (b"", Failure.UNREACHABLE, "ended the connection without an answer"),
        (b"HTTP/1.1 200", Failure.UNREACHABLE, "ended the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", Failure.MALFORMED, "incomplete|closed"),
        (
            response(b"", head="Content-Length: 7\r\n"),
            Failure.MALFORMED,
            "it is no HTTP: conflicting Content-Length",
        ),
        (
            response(b"\x1f\x8b", head="Content-Encoding: gzip\r\n"),
            Failure.MALFORMED,
            "its Content-Encoding is `gzip`, not identity",
        ),
    ],
)
def test_what_is_no_response(
    answer: bytes, kind: Failure, words: str, authority: Authority
) -> None:
    async def work() -> None:
        async with serving(answer, authority.issue(NAME)) as at:
            message = await refused(server_of(at.port, authority).post({}, b"", seconds=5), kind)
            assert any(word in message for word in words.split("|")), message

    asyncio.run(work())


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", response(b"")[:-2] + b"A: b\r\n"])
def test_a_server_that_drips_is_left_at_the_deadline(
    sent: bytes, run: Callable[..., Any], authority: Authority
) -> None:
    async def drip(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        for _ in range(500):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def work() -> None:
        async with serving(drip, authority.issue(NAME)) as at:
            began = time.monotonic()
            await refused(
                server_of(at.port, authority).post({}, b"", seconds=0.3),
                Failure.TIMED_OUT,
                "no answer within 0.3 s; the time ended while waiting for the answer of 127.0.0.1",
            )
            assert 0.25 < time.monotonic() - began < 4

    run(work())


def test_a_server_that_does_not_read_is_left_at_the_deadline(
    run: Callable[..., Any], authority: Authority
) -> None:
    async def never(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    async def work() -> None:
        async with serving(never, authority.issue(NAME), reads=False) as at:
            began = time.monotonic()
            await refused(
                server_of(at.port, authority).post({}, b"x" * 20_000_000, seconds=0.3),
                Failure.TIMED_OUT,
            )
            assert time.monotonic() - began < 4

    run(work())


# --- URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "authority", "target", "told"),
    [
        ("https://a.example", "a.example", "/", "https://a.example/"),
        ("https://A.example:443/x", "a.example", "/x", "https://a.example/x"),
        ("https://a.example:8443/x?y=z", "a.example:8443", "/x?y=z", "https://a.example:8443/x"),
        ("https://[::1]:1/", "[::1]:1", "/", "https://[::1]:1/"),
        ("https://a.example.?q", "a.example", "/?q", "https://a.example/"),
    ],
)
def test_a_url_is_taken_apart(text: str, authority: str, target: str, told: str) -> None:
    url = parse_url(text)
    assert (url.authority, url.target, str(url)) == (authority, target, told)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://a.example/", "https://HOST"),
        ("https:/a.example/", "no host"),
        ("https://", "no host"),
        ("https://u:hush@a.example/", "user name or password"),
        ("https://a.example/#hush", "fragment"),
        ("https://a.example:0/", "port"),
        ("https://a.example:99999/", "[Pp]ort"),
        ("https://a.example:x/", "[Pp]ort"),
        ("https://bücher.example/", "xn--"),
        ("https://a.example/a b", "printable ASCII"),
        ("https://a.example/a\r\nX: y", "printable ASCII"),
        ("https://a_b!.example/", "no host"),
        ("https://[fe80::1%25eth0]/", "zone"),
        ("https://[::g]/", "::g|IPv6"),
    ],
)
def test_a_url_that_cannot_be_called(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_url(text)
    assert "hush" not in str(caught.value)


def test_what_is_shown_of_an_answer_is_one_short_line() -> None:
    assert shown(b"a\r\n\x1b[31mb\xff") == "a   [31mb�"
    assert shown("x" * 300) == "x" * 200 + "..."
