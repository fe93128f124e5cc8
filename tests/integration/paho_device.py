"""A device on paho-mqtt, with plain blocking calls around its callbacks."""

from __future__ import annotations

import json
import queue
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import cbor2
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.integration.fleet import (
    CSR,
    KEYS,
    Fleet,
    Identity,
    Request,
    register_topic,
    signing_request,
    write_identity,
)
from tests.integration.server import Server

ANSWER_WITHIN = 10.0

Arrival = TypeVar("Arrival")


class Refused(Exception):
    """The server did not let the client in; ``code`` is the CONNACK's, None for a bare close."""

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool

    @property
    def packet_size(self) -> int:
        """The size of the PUBLISH packet that carried it on MQTT 3.1.1 (section 3.3)."""
        body = 2 + len(self.topic.encode()) + (2 if self.qos else 0) + len(self.payload)
        return 1 + (1 if body < 128 else 2 if body < 16384 else 3) + body


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a provisioning request; ``body`` is decoded."""

    accepted: bool
    body: dict[str, Any]
    message: Message
    seconds: float


def tls_context(server: Server, identity: Identity | None) -> ssl.SSLContext:
    """TLS as Python 3.13 does it by default: also strict about the server's certificates."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def encode(body: Mapping[str, Any] | bytes, form: str) -> bytes:
    if isinstance(body, bytes):
        return body
    return json.dumps(body).encode() if form == "json" else cbor2.dumps(body)


def decode(payload: bytes, form: str) -> dict[str, Any]:
    body = json.loads(payload) if form == "json" else cbor2.loads(payload)
    assert isinstance(body, dict)
    return body


class PahoDevice:
    """One MQTT client (`version` 4 = 3.1.1, 5 = 5). Use it as a context manager.

    Entering connects and raises Refused when the server will not have it.
    """

    def __init__(
        self,
        server: Server,
        identity: Identity,
        client_id: str,
        *,
        version: int = 4,
        clean: bool = True,
        keep_alive: int = 60,
        username: str | None = None,
        context: ssl.SSLContext | None = None,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self.server = server
        self.version = version
        self.clean = clean
        self.keep_alive = keep_alive
        self.session_present = False
        self.granted: Any = None  # the properties of the CONNACK
        self.disconnected = threading.Event()
        self.disconnect_code: int | None = None
        self.messages: queue.Queue[Message] = queue.Queue()
        self._connack: queue.Queue[tuple[int | None, str]] = queue.Queue()
        self._subacks: queue.Queue[list[int]] = queue.Queue()
        self._unsubacks: queue.Queue[int] = queue.Queue()
        self._pubacks: queue.Queue[tuple[int, int]] = queue.Queue()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion(version),
            clean_session=clean if version == 4 else None,
            reconnect_on_failure=False,
        )
        client.tls_set_context(context or tls_context(server, identity))
        if username is not None:
            client.username_pw_set(username)
        if will is not None:
            client.will_set(will[0], will[1], qos=1)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_publish = self._on_publish
        self._client = client

    # --- callbacks, on paho's thread ---------------------------------------------------------

    def _on_connect(
        self, _client: Any, _data: Any, flags: paho.ConnectFlags, reason: ReasonCode, more: Any
    ) -> None:
        self.session_present = flags.session_present
        self.granted = more
        self._connack.put((reason.value if reason.is_failure else 0, str(reason)))

    def _on_disconnect(
        self, _client: Any, _data: Any, flags: paho.DisconnectFlags, reason: ReasonCode, _more: Any
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self.disconnect_code = reason.value
        self.disconnected.set()
        self._connack.put((None, f"closed: {reason}"))

    def _on_message(self, _client: Any, _data: Any, got: paho.MQTTMessage) -> None:
        self.messages.put(Message(got.topic, bytes(got.payload), got.qos, got.retain))

    def _on_subscribe(
        self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _more: Any
    ) -> None:
        self._subacks.put([reason.value for reason in reasons])

    def _on_unsubscribe(
        self, _client: Any, _data: Any, mid: int, _reasons: list[ReasonCode], _more: Any
    ) -> None:
        self._unsubacks.put(mid)

    def _on_publish(
        self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _more: Any
    ) -> None:
        self._pubacks.put((mid, reason.value))

    # --- life --------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self.close()
            raise
        return self

    def _connect(self) -> None:
        options: dict[str, Any] = {}
        if self.version == 5:
            options["clean_start"] = self.clean
            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            if not self.clean:
                properties.SessionExpiryInterval = 3600
            options["properties"] = properties
        try:
            self._client.connect("localhost", self.server.mqtt_port, self.keep_alive, **options)
        except (OSError, ValueError) as error:  # TLS refused, reset, or ended
            raise Refused(None, f"{type(error).__name__}: {error}") from error
        self._client.loop_start()
        code, text = self._connack.get(timeout=ANSWER_WITHIN)
        if code != 0:
            raise Refused(code, text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # paho leaves these two to the garbage collector

    def drop(self) -> None:
        """Cut the connection without DISCONNECT, as a lost network does."""
        socket = self._client.socket()
        assert socket is not None
        socket.shutdown(2)  # type: ignore[attr-defined] # paho's protocol names only what it uses
        assert self.disconnected.wait(ANSWER_WITHIN)
        self._client.loop_stop()

    # --- MQTT --------------------------------------------------------------------------------

    def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        """One SUBSCRIBE with all `filters`; the SUBACK's codes."""
        if self.version == 5:
            self._client.subscribe([(f, SubscribeOptions(qos)) for f in filters])
        else:
            self._client.subscribe([(f, qos) for f in filters])
        return self._next(self._subacks)

    def unsubscribe(self, *filters: str) -> None:
        self._client.unsubscribe(list(filters))
        self._next(self._unsubacks)

    def send(self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False) -> int:
        """PUBLISH and do not wait; the packet id."""
        return self._client.publish(topic, payload, qos, retain).mid

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """PUBLISH at QoS 1; the PUBACK's code (0 on 3.1.1), None if the server closed instead."""
        mid = self.send(topic, payload, 1, retain=retain)
        acknowledged, code = 0, 0
        while acknowledged != mid:
            try:
                acknowledged, code = self._next(self._pubacks)
            except TimeoutError:
                if not self.disconnected.is_set():
                    raise
                return None
        return code

    def message(self, seconds: float = ANSWER_WITHIN) -> Message:
        """The next message; TimeoutError when none comes, at once if the connection is gone."""
        return self._next(self.messages, seconds)

    def _next(self, arrivals: queue.Queue[Arrival], seconds: float = ANSWER_WITHIN) -> Arrival:
        end = time.monotonic() + seconds
        while True:
            try:
                return arrivals.get(timeout=min(0.1, max(0.0, end - time.monotonic())))
            except queue.Empty:
                if self.disconnected.is_set() and arrivals.empty():
                    raise TimeoutError("disconnected, and nothing came") from None
                if time.monotonic() >= end:
                    raise TimeoutError(f"nothing came within {seconds:g} s") from None

    # --- provisioning ------------------------------------------------------------------------

    def listen(self, *topics: str, form: str = "json", qos: int = 1) -> None:
        """Subscribe to the replies of the operations `topics`."""
        filters = [f"{t}/{form}/{end}" for t in topics for end in ("accepted", "rejected")]
        assert self.subscribe(*filters, qos=qos) == [qos] * len(filters)

    def request(
        self, topic: str, body: Mapping[str, Any] | bytes, *, form: str = "json", qos: int = 1
    ) -> Reply:
        """Send one provisioning request and wait for its reply (see `listen`)."""
        begun = time.monotonic()
        self.send(f"{topic}/{form}", encode(body, form), qos)
        message = self.message()
        seconds = time.monotonic() - begun
        assert message.topic in {f"{topic}/{form}/accepted", f"{topic}/{form}/rejected"}
        accepted = message.topic.endswith("/accepted")
        return Reply(accepted, decode(message.payload, form), message, seconds)

    def accepted(
        self, topic: str, body: Mapping[str, Any] | bytes, *, form: str = "json", qos: int = 1
    ) -> dict[str, Any]:
        reply = self.request(topic, body, form=form, qos=qos)
        assert reply.accepted, reply.body
        return reply.body

    def rejected(
        self, topic: str, body: Mapping[str, Any] | bytes, *, form: str = "json", qos: int = 1
    ) -> dict[str, Any]:
        reply = self.request(topic, body, form=form, qos=qos)
        assert not reply.accepted, reply.body
        assert set(reply.body) == {"statusCode", "errorCode", "errorMessage"}
        assert isinstance(reply.body["statusCode"], int)
        assert isinstance(reply.body["errorCode"], str)
        assert isinstance(reply.body["errorMessage"], str)
        return reply.body

    def create(
        self, *, form: str = "json", keys: bool = False, request: Request | None = None
    ) -> tuple[dict[str, Any], str]:
        """A new certificate, by keys or by CSR: the accepted reply and the private key's PEM."""
        if keys:
            made = self.accepted(KEYS, {}, form=form)
            return made, made["privateKey"]
        request = request or signing_request()
        made = self.accepted(CSR, {"certificateSigningRequest": request.csr}, form=form)
        return made, request.key


def onboard(
    server: Server,
    fleet: Fleet,
    serial: str,
    directory: Path,
    *,
    version: int = 4,
    form: str = "json",
    keys: bool = False,
) -> Identity:
    """Provision one device from the fleet's claim certificate; its own identity.

    Asserts what every accepted reply has to carry.
    """
    register = register_topic(fleet.template)
    with PahoDevice(server, fleet.claim, f"claim-{fleet.thing(serial)}", version=version) as device:
        device.listen(KEYS if keys else CSR, register, form=form)
        made, key = device.create(form=form, keys=keys)
        expected = {"certificateId", "certificatePem", "certificateOwnershipToken"}
        assert set(made) == expected | ({"privateKey"} if keys else set())
        assert all(isinstance(value, str) for value in made.values())
        body = {
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": {"SerialNumber": serial},
        }
        assert device.accepted(register, body, form=form) == {
            "deviceConfiguration": {"greeting": "hello", "serial": serial},
            "thingName": fleet.thing(serial),
        }
    return write_identity(
        directory, fleet.thing(serial), made["certificatePem"], key, made["certificateId"]
    )
