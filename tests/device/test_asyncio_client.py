"""The client for thousands of connections, against servers that misbehave; one loop, no threads."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import pytest

from fleetgate.device import asyncio_client, tls
from fleetgate.device.asyncio_client import AsyncioClient
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import (
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    NotAuthorized,
    PacketTooLarge,
)
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Version,
)
from tests.device.clients import Remains, both_versions
from tests.device.conftest import Files, Scripted
from tests.device.test_clients import Peer, acknowledges_late

T = TypeVar("T")


@pytest.fixture(autouse=True)
def nothing_stays(claim: Files) -> Iterator[None]:
    remains = Remains()
    yield
    assert remains.none(), remains


def run(
    files: Files,
    port: int,
    work: Callable[[AsyncioClient], Awaitable[T]],
    version: Version = 5,
    **options: Any,
) -> T:
    """Connect, do it, and disconnect."""
    context: ssl.SSLContext = tls.context(files.ca, files.certificate, files.key)
    endpoint = Endpoint("localhost", port, files.ca, mqtt_version=version, **options)

    async def connected() -> T:
        def begin(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
            return context.wrap_bio(incoming, outgoing, server_hostname="localhost")

        client = await asyncio_client.connect(endpoint, ("127.0.0.1", port), begin, "device")
        try:
            return await work(client)
        finally:
            await done(client.disconnect())

    return asyncio.run(connected())


def refusal(files: Files, port: int, **options: Any) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as caught:
        run(files, port, nothing, **options)
    return caught.value


async def nothing(_: AsyncioClient) -> None: ...


async def done(future: Future[None]) -> None:
    async with asyncio.timeout(5):
        await asyncio.wrap_future(future)


def agreeing(stream: ssl.SSLSocket) -> Peer:
    peer = Peer(stream)
    assert isinstance(peer.next(), Connect)
    peer.send(Connack())
    return peer


def serve_all(stream: ssl.SSLSocket) -> None:
    """A server that agrees to everything but `closed`, and sends messages back."""
    peer = agreeing(stream)
    while True:
        match packet := peer.next():
            case Subscribe():
                refused = packet.subscriptions[0].topic_filter == "closed"
                peer.send(Suback(packet.packet_id, (0x87 if refused else 1,)))
            case Unsubscribe():
                peer.send(Unsuback(packet.packet_id, (0,)))
            case Publish():
                if packet.packet_id is not None:
                    code = 0x87 if packet.topic == "closed" else 0
                    peer.send(Puback(packet.packet_id, code))
                if packet.topic != "closed":
                    peer.send(Publish(packet.topic, packet.payload, 1, packet_id=9))
            case Disconnect():
                return
            case _:
                pass


def test_messages_go_round(claim: Files, scripted: Scripted) -> None:
    async def work(client: AsyncioClient) -> list[tuple[str, bytes]]:
        got: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        await done(client.subscribe("a/#", 1, lambda *message: got.put_nowait(message)))
        await done(client.publish("a/x", b"1", 1))
        messages = [await got.get()]
        await done(client.publish("a/y", bytes(20_000), 0))
        messages.append(await got.get())
        await done(client.unsubscribe("a/#"))
        return messages

    with scripted(serve_all) as port:
        assert run(claim, port, work) == [("a/x", b"1"), ("a/y", bytes(20_000))]


def test_what_the_server_kept_is_no_answer(claim: Files, scripted: Scripted) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        packet = peer.next()
        assert isinstance(packet, Subscribe)
        peer.send(Suback(packet.packet_id, (1,)))
        peer.send(Publish("a", b"old", 1, retain=True, packet_id=1))
        peer.send(Publish("a", b"new", 0))
        assert peer.next() == Puback(1)  # else the server would send it again
        stream.recv(4096)

    async def work(client: AsyncioClient) -> bytes:
        got: asyncio.Queue[bytes] = asyncio.Queue()
        await done(client.subscribe("a", 1, lambda _topic, payload: got.put_nowait(payload)))
        return await got.get()

    with scripted(script) as port:
        assert run(claim, port, work) == b"new"


def test_what_is_refused_names_topic_and_action(claim: Files, scripted: Scripted) -> None:
    async def work(client: AsyncioClient) -> None:
        with pytest.raises(NotAuthorized) as caught:
            await done(client.subscribe("closed", 1, lambda *_: None))
        assert (caught.value.action, caught.value.reason_code) == ("iot:Subscribe", 0x87)
        with pytest.raises(NotAuthorized) as caught:
            await done(client.publish("closed", b"", 1))
        assert (caught.value.topic, caught.value.action) == ("closed", "iot:Publish")
        for future in (client.publish("#", b"", 1), client.subscribe("a#", 1, lambda *_: None)):
            with pytest.raises(BadRequest):
                await done(future)

    with scripted(serve_all) as port:
        run(claim, port, work)


def test_other_threads_may_call(claim: Files, scripted: Scripted) -> None:
    async def work(client: AsyncioClient) -> None:
        await asyncio.to_thread(lambda: client.publish("a", b"", 1).result(5))
        await asyncio.to_thread(lambda: client.disconnect().result(5))

    with scripted(serve_all) as port:
        run(claim, port, work)


@both_versions
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x01\x00"])
def test_a_server_that_answers_something_else(
    answer: bytes, version: Version, claim: Files, scripted: Scripted
) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        stream.recv(4096)
        stream.sendall(answer)

    with scripted(script) as port:
        message = refusal(claim, port, version=version).message
        assert f"`localhost` port {port} did not answer CONNECT" in message
        assert "is the client certificate registered and ACTIVE" in message


def test_a_connack_that_refuses(claim: Files, scripted: Scripted) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = Peer(stream)
        peer.next()
        peer.send(Connack(False, 0x87, {"reason_string": "because"}))
        stream.recv(4096)

    with scripted(script) as port:
        assert "refused the connection (not authorized, 0x87: because)" in str(refusal(claim, port))


def test_a_server_that_says_nothing(claim: Files, scripted: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        error = refusal(claim, port, connect_timeout=0.2)
        assert f"no TLS handshake with `localhost` port {port} within 0.2 s" in error.message
        assert error.waited == 0.2
    over = threading.Event()

    def script(stream: ssl.SSLSocket) -> None:
        over.wait(5)

    with scripted(script) as port:
        error = refusal(claim, port, connect_timeout=0.2)
        over.set()
        assert "did not answer CONNECT within 0.2 s" in error.message


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_hangs_up_during_the_handshake(
    reset: bool, claim: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """It has nothing to do with certificates, and asyncio has nothing to complain about."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            stream, _ = listener.accept()
            with stream:
                stream.recv(4096)
                if reset:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        error = refusal(claim, port)
        thread.join()
    assert error.message == (
        f"the TLS handshake with `localhost` port {port} failed: the server closed the connection "
        "during the handshake; does it speak TLS here?"
    )
    assert error.retry
    assert caplog.messages == []


def test_nobody_listens_or_somebody_else_does(
    claim: Files, stranger: Files, scripted: Scripted
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = f"no TCP connection to `localhost` port {port}: Connection refused"
    assert refusal(claim, port).message == said
    with pytest.raises(ConnectionFailed) as caught:
        asyncio.run(asyncio_client.resolve(Endpoint("localhost", port)))
    assert caught.value.message == said
    with pytest.raises(ConnectionFailed, match="the name has no address"):
        asyncio.run(asyncio_client.resolve(Endpoint("host.invalid", port)))
    with scripted(serve_all) as port:
        error = refusal(stranger, port)
        assert "the server's certificate is not trusted" in error.message
        assert not error.retry


def test_of_the_addresses_those_that_answer_are_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = asyncio.run(asyncio_client.resolve(Endpoint("localhost", port)))
        assert found == [("127.0.0.1", port)]  # and not ::1


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff\xff", b"\x30\x03\x00\x05a", b""])
def test_what_waits_fails_when_the_connection_ends(
    garbage: bytes, claim: Files, scripted: Scripted
) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        peer.next()
        stream.sendall(garbage)

    async def work(client: AsyncioClient) -> None:
        lost: list[ConnectionLost] = []
        client.on_lost(lost.append)
        with pytest.raises(ConnectionLost, match="before the message to `a` was acknowledged"):
            await done(client.publish("a", b"", 1))
        assert len(lost) == 1
        with pytest.raises(ConnectionLost, match="has ended already"):
            await done(client.publish("a", b"", 1))

    with scripted(script) as port:
        run(claim, port, work)


def test_what_a_server_says_at_the_end_is_told(claim: Files, scripted: Scripted) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        peer.next()
        peer.send(Disconnect(0x8B, {"reason_string": "for a while"}))
        stream.recv(4096)

    async def work(client: AsyncioClient) -> None:
        futures: list[Future[None]] = []

        def again(_: ConnectionLost) -> None:
            futures.append(client.disconnect())
            futures.append(client.publish("a", b"", 1))

        client.on_lost(again)
        with pytest.raises(ConnectionLost) as caught:
            await done(client.publish("a", b"", 1))
        assert "disconnected (server shutting down, 0x8b: for a while)" in caught.value.message
        await done(futures[0])
        with pytest.raises(ConnectionLost):
            await done(futures[1])

    with scripted(script) as port:
        run(claim, port, work)


def test_a_message_and_a_goodbye_in_one_breath(claim: Files, scripted: Scripted) -> None:
    """What a callback does when the server has hung up already, in the same bytes."""

    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        packet = peer.next()
        assert isinstance(packet, Publish)
        assert packet.packet_id is not None
        stream.sendall(encode(Puback(packet.packet_id, 0x87), 5) + encode(Disconnect(0x87), 5))
        stream.recv(4096)

    async def work(client: AsyncioClient) -> None:
        with pytest.raises(NotAuthorized):
            await done(client.publish("a", b"", 1))
        futures = client.disconnect(), client.publish("a", b"", 1)
        await done(futures[0])
        with pytest.raises(ConnectionLost):
            await done(futures[1])

    with scripted(script) as port:
        for _ in range(3):
            run(claim, port, work)


def test_a_late_acknowledgement_does_not_end_the_next_subscription(
    claim: Files, scripted: Scripted
) -> None:
    async def work(client: AsyncioClient) -> tuple[str, bytes]:
        got: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

        def receive(*message: Any) -> None:
            got.put_nowait(message)

        await done(client.subscribe("a", 1, receive))
        unsubscribed = client.unsubscribe("a")
        await done(client.subscribe("a", 1, receive))
        await done(unsubscribed)
        return await asyncio.wait_for(got.get(), 5)

    with scripted(acknowledges_late) as port:
        assert run(claim, port, work) == ("a", b"1")


def test_a_server_that_does_not_answer_pings_is_lost(claim: Files, scripted: Scripted) -> None:
    pings: list[Packet] = []

    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        pings.append(peer.next())
        peer.next()

    async def work(client: AsyncioClient) -> str:
        lost: asyncio.Future[ConnectionLost] = asyncio.get_running_loop().create_future()
        client.on_lost(lost.set_result)
        return (await lost).message

    with scripted(script) as port:
        begun = time.monotonic()
        message = run(claim, port, work, keep_alive=1)
        assert message == "the server did not answer a ping within 0.5 s"
        assert time.monotonic() - begun < 3
    assert isinstance(pings[0], Pingreq)


def test_the_server_says_how_often_to_ping(claim: Files, scripted: Scripted) -> None:
    """Server Keep Alive (MQTT 5 section 3.2.2.3.14); 0 is for not at all."""
    for seconds, expected in ((1, Pingreq), (0, Disconnect)):
        seen: list[Packet] = []

        def script(stream: ssl.SSLSocket, seconds: int = seconds) -> None:
            peer = Peer(stream)
            peer.next()
            peer.send(Connack(properties={"server_keep_alive": seconds}))
            seen.append(peer.next())  # noqa: B023 - it is over before the next one begins

        async def work(client: AsyncioClient) -> None:
            await asyncio.sleep(0.6)

        with scripted(script) as port:
            run(claim, port, work, keep_alive=60 if seconds else 1)
        assert isinstance(seen[0], expected)


def test_what_is_too_large_is_no_fault_of_the_protocol(claim: Files, scripted: Scripted) -> None:
    def script(stream: ssl.SSLSocket) -> None:
        peer = agreeing(stream)
        peer.next()
        peer.send(Publish("a", bytes(20_000), 0))
        stream.recv(4096)

    async def work(client: AsyncioClient) -> None:
        with pytest.raises(PacketTooLarge) as caught:
            await done(client.subscribe("a", 1, lambda *_: None))
        assert caught.value.message.startswith(
            "the server sent more than this device takes: a packet of 20008 bytes is larger than "
            "the limit of 10000 (max_packet_size) before the subscription"
        )

    with scripted(script) as port:
        run(claim, port, work, max_packet_size=10_000)


def test_a_goodbye_is_said_and_waits_for_nobody_for_long(claim: Files, scripted: Scripted) -> None:
    said: list[Packet] = []
    over = threading.Event()

    def script(stream: ssl.SSLSocket) -> None:
        said.append(agreeing(stream).next())
        over.wait(5)

    with scripted(script) as port:
        begun = time.monotonic()
        run(claim, port, nothing)
        assert time.monotonic() - begun < 3
        over.set()
    assert isinstance(said[0], Disconnect)
