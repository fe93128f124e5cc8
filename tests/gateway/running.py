"""A gateway on a loop of its own, with plain functions behind it, and a client to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetgate.domain.policy import Policies, compile_policies, parse
from fleetgate.gateway.faults import Faults
from fleetgate.gateway.mqtt import Gateway
from fleetgate.gateway.services import ProvisioningRequest, Reply, Services
from fleetgate.gateway.tls_context import server_context
from fleetgate.mqtt.connection import Connection
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Packet,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from fleetgate.mqtt.state import Role
from fleetgate.names import Account, certificate_id
from fleetgate.operations.admission import NotAdmitted
from fleetgate.operations.identity import Identity, Peer

ACCOUNT = Account("000000000000", "us-east-1")
ALLOW_ALL = (
    '{"Version": "2012-10-17", "Statement": '
    '[{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}'
)
CREATE = "$aws/certificates/create/json"
PATIENCE = 5.0

P = TypeVar("P", bound=Packet)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and a certificate in files, as `ssl` wants them."""

    certificate_file: Path
    key_file: Path
    der: bytes

    @property
    def certificate_id(self) -> str:
        return certificate_id(self.der)


def make_credentials(directory: Path, name: str, days: float = 1) -> Credentials:
    """A self-signed EC P-256 certificate for `name`, localhost and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Credentials(
        directory / f"{name}.crt",
        directory / f"{name}.key",
        certificate.public_bytes(serialization.Encoding.DER),
    )
    made.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


class Running:
    """A gateway that is listening. What stands behind it is set by the test, at any time.

    `registry` maps certificate ids to identities, `documents` certificate ids to policy
    documents; `answer` is the provisioning operation; `ahead` is how far the clock is ahead.
    `chains` has what clients sent behind their certificates, `peers` for whom policies were loaded.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        self.registry: dict[str, Identity] = {}
        self.documents: dict[str, str] = {}
        self.epoch = 0
        self.loads = 0
        self.chains: dict[str, tuple[bytes, ...]] = {}
        self.peers: list[Peer] = []
        self.ahead = 0.0
        self.before_admission: Callable[[], Awaitable[None]] | None = None
        self.before_policies: Callable[[], Awaitable[None]] | None = None
        self.faults: Faults | None = None
        self.answer: Callable[[ProvisioningRequest], Awaitable[Reply]] = _accept
        self.server = make_credentials(directory, "server")
        self.device = make_credentials(directory, "device")
        self.directory = directory
        self.register(self.device)
        self._options = options
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self.gateway: Gateway
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),))
        self.errors: list[dict[str, Any]] = []

    def register(self, credentials: Credentials, document: str = ALLOW_ALL) -> None:
        """Admit `credentials` under a policy."""
        name = credentials.certificate_id
        self.registry[name] = Identity(name, None, time.time() + 86400)
        self.documents[name] = document

    def allow(self, *statements: str) -> None:
        """Replace the policy of `device`: each statement is ``Action Resource``."""
        listed = ", ".join(
            f'{{"Effect": "{effect}", "Action": "iot:{action}", '
            f'"Resource": "{ACCOUNT.arn(resource)}"}}'
            for effect, action, resource in (statement.split() for statement in statements)
        )
        self.documents[self.device.certificate_id] = (
            f'{{"Version": "2012-10-17", "Statement": [{listed}]}}'
        )
        self.epoch += 1

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self.stop()
        assert self.errors == []

    def stop(self) -> None:
        """Stop the gateway, cleanly."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE * 2)
        assert not self._thread.is_alive()

    def listen(self, host: str) -> None:
        """Listen at one more address, which becomes `address`."""
        listening = asyncio.run_coroutine_threadsafe(self.gateway.listen(host, 0), self._loop)
        self.address = listening.result(PATIENCE)

    def listen_on(self, sock: socket.socket) -> None:
        """The same with a socket."""
        listening = asyncio.run_coroutine_threadsafe(self.gateway.listen_on(sock), self._loop)
        self.address = listening.result(PATIENCE)

    def do(self, function: Callable[[], T]) -> T:
        """Call `function` on the gateway's loop."""

        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def advance(self, seconds: float) -> None:
        """Let time pass."""

        def pass_by() -> None:
            self.ahead += seconds
            self.gateway.tick(self._clock())

        self.do(pass_by)

    def eventually(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds on the gateway's loop."""
        until = time.monotonic() + PATIENCE
        while not self.do(condition):
            assert time.monotonic() < until
            time.sleep(0.005)

    def connect(self, client_id: str = "lamp", version: Version = 4, **options: Any) -> Device:
        """A connected client; `options` are those of CONNECT, or ``credentials``."""
        credentials = options.pop("credentials", self.device)
        device = Device(self.address, credentials, self.server)
        device.send(Connect(client_id, version=version, **options))
        device.connack = device.expect(Connack)
        assert device.connack.reason_code == 0, device.connack
        return device

    def raw(self, credentials: Credentials | None = None) -> Device:
        """A client that has finished the TLS handshake and sent nothing."""
        return Device(self.address, credentials or self.device, self.server)

    def _clock(self) -> float:
        return time.monotonic() + self.ahead

    async def _admit(self, peer: Peer) -> Identity:
        if self.before_admission is not None:
            await self.before_admission()
        id_ = certificate_id(peer.certificate)
        self.chains[id_] = peer.chain
        identity = self.registry.get(id_)
        if identity is None:
            raise NotAdmitted(f"certificate {id_} is not registered")
        return identity

    async def _policies(self, identity: Identity, client_id: str, peer: Peer) -> Policies:
        document = parse(self.documents[identity.certificate_id])
        self.loads += 1
        self.peers.append(peer)
        if self.before_policies is not None:
            await self.before_policies()
        values = {"iot:ClientId": (client_id,), "aws:SourceIp": (peer.address,)}
        if peer.server_name:
            values["iot:DomainName"] = (peer.server_name,)
        return compile_policies([("test", document)], values)

    async def _provision(self, request: ProvisioningRequest) -> Reply:
        return await self.answer(request)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self._stop = asyncio.Event()
        services = Services(
            account=ACCOUNT,
            admit=self._admit,
            readmit=self._admit,
            policies=self._policies,
            policy_epoch=lambda: self.epoch,
            is_request=lambda topic: (
                topic.startswith(("$aws/certificates/create", "$aws/provisioning-templates/t/"))
                and topic.endswith(("/json", "/cbor"))
            ),
            provision=self._provision,
            faults=self.faults,
            clock=self._clock,
            wall=lambda: time.time() + self.ahead,
        )
        context = server_context(self.server.certificate_file, self.server.key_file)
        self.gateway = Gateway(services, context, **self._options)
        self.address = await self.gateway.listen("127.0.0.1", 0)
        self._ready.set()
        await self._stop.wait()
        await self.gateway.close(2.0)


async def _accept(request: ProvisioningRequest) -> Reply:
    return Reply(request.topic + "/accepted", b"for " + request.client_id.encode())


def client_context(credentials: Credentials | None, server: Credentials) -> ssl.SSLContext:
    """The TLS side of a client."""
    context = ssl.create_default_context(cafile=str(server.certificate_file))
    if credentials is not None:
        context.load_cert_chain(credentials.certificate_file, credentials.key_file)
    return context


class Device:
    """A client with the MQTT core behind a blocking socket: one packet at a time."""

    def __init__(
        self,
        address: tuple[str, int],
        credentials: Credentials | None,
        server: Credentials,
    ) -> None:
        self.begin(address, client_context(credentials, server))

    def begin(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        *,
        delay: bool = False,
        **options: Any,
    ) -> None:
        """Connect with a context of one's own; `options` are those of `wrap_socket`.

        With `delay` Nagle's algorithm is left on.
        """
        plain = socket.create_connection(address, PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not delay)
        self.take(context.wrap_socket(plain, server_hostname="localhost", **options))

    def take(self, connection: ssl.SSLSocket) -> None:
        """Speak MQTT over `connection`."""
        self.socket = connection
        self.core = Connection(Role.CLIENT)
        self.connack = Connack()
        self._packets: list[Packet] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, *packets: Packet) -> None:
        """Send packets in one go."""
        self.socket.sendall(b"".join(self.core.send(packet) for packet in packets))

    def expect(self, kind: type[P]) -> P:
        """The next packet, which has to be of this kind."""
        packet = self.next()
        assert isinstance(packet, kind), packet
        return packet

    def next(self) -> Packet | None:
        """The next packet; None when the server has closed the connection."""
        while not self._packets:
            try:
                data = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLEOFError):
                return None
            if not data:
                return None
            self._packets += self.core.receive(data)
        return self._packets.pop(0)

    def is_closed(self) -> bool:
        """The server closes without another packet."""
        return self.next() is None

    def silent(self, seconds: float = 0.1) -> bool:
        """Nothing comes for a while."""
        if self._packets:
            return False
        self.socket.settimeout(seconds)
        try:
            return self.next() is None
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def subscribe(self, *topic_filters: str, qos: int = 1, **options: Any) -> tuple[int, ...]:
        """Subscribe; the codes of SUBACK."""
        wanted = tuple(Subscription(each, qos, **options) for each in topic_filters)
        self.send(Subscribe(self.core.next_packet_id(), wanted))
        return self.expect(Suback).reason_codes

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, **properties: Any) -> None:
        """Publish, and wait for PUBACK at QoS 1."""
        packet_id = self.core.next_packet_id() if qos else None
        self.send(Publish(topic, payload, qos, packet_id=packet_id, properties=properties))
        if qos:
            assert self.expect(Puback).reason_code == 0

    def message(self, *, acknowledge: bool = True) -> Publish:
        """The next packet, a message."""
        message = self.expect(Publish)
        if acknowledge and message.packet_id is not None:
            self.send(Puback(message.packet_id))
        return message


@contextlib.contextmanager
def log_lines(name: str = "fleetgate.gateway") -> Iterator[list[str]]:
    """The lines logged meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
