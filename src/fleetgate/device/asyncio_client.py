"""MQTT on a running event loop, by this project's own codec: thousands of connections at once.

An :class:`AsyncioClient` is an :class:`~fleetgate.device.mqtt_client.MqttClient` as those of the
other adapters, without a thread, a task or a library's client of its own: a simulated device costs
little more than its TLS. It is not for devices, which have one connection: it knows no proxy, and
keeps no session.

Theory of operation. Everything happens on the loop; a call from another thread is handed over to
it. :class:`~fleetgate.device.asyncio_tls.TlsLink` gives plain bytes, which
:class:`fleetgate.mqtt.connection.Connection` makes packets of; these complete futures, or are
delivered. The connection ends once, when the link says so.

The server is given a moment to close first, at the end: the side that closes first keeps the port
for a minute (TIME_WAIT, RFC 9293 section 3.4.1), of which a machine has some 28 000.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeAlias

from fleetgate.device import client_ids, client_state, tls
from fleetgate.device.asyncio_tls import OpenTls, TlsLink
from fleetgate.device.client_state import Answered, Attempt, ClientState
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import BadRequest, ConnectionFailed, ConnectionLost, PacketTooLarge
from fleetgate.device.mqtt_client import OnLost, OnMessage, begun
from fleetgate.errors import ProtocolError
from fleetgate.mqtt.connection import Connection, Role, State
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
)
from fleetgate.mqtt.reasons import Reason

logger = logging.getLogger("fleetgate.device")

Address: TypeAlias = tuple[str, int]

_GOODBYE_SECONDS: Final = 1.0


async def connect(
    endpoint: Endpoint, address: Address, open_tls: OpenTls, client_id: str
) -> AsyncioClient:
    """Connect to `address`, one of those that the host of `endpoint` has (see :func:`resolve`).

    Raises ConnectionFailed with what went wrong: TCP, TLS, or what the server said to CONNECT.
    """
    if endpoint.proxy is not None:
        raise BadRequest("this client knows no proxy")
    client_ids.check(client_id)
    loop = asyncio.get_running_loop()
    client = AsyncioClient(endpoint, open_tls, client_id)
    try:
        async with asyncio.timeout(endpoint.connect_timeout):
            await loop.create_connection(lambda: client.link, *address)
    except OSError as error:  # TimeoutError, too
        raise tls.unreachable(_plain(error), endpoint) from error
    try:
        await client.opened
    except BaseException:
        client.abort()
        raise
    return client


async def resolve(endpoint: Endpoint) -> list[Address]:
    """The addresses of the endpoint's host to which TCP connections can be made, at least one.

    Raises ConnectionFailed.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=1)
    except OSError as error:
        raise tls.unreachable(error, endpoint) from error
    usable, failure = [], OSError("the name has no address")
    for address in dict.fromkeys((str(each[4][0]), int(each[4][1])) for each in found):
        try:
            async with asyncio.timeout(endpoint.connect_timeout):
                transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        except OSError as error:
            failure = error
        else:
            transport.close()
            usable.append(address)
    if not usable:
        raise tls.unreachable(_plain(failure), endpoint) from failure
    return usable


def _plain(error: OSError) -> OSError:
    """`error` without asyncio's own words."""
    return error if error.errno is None else OSError(error.errno, os.strerror(error.errno))


class AsyncioClient:
    """A connection; made by :func:`connect`. ``opened`` is done when the server has agreed."""

    def __init__(self, endpoint: Endpoint, open_tls: OpenTls, client_id: str) -> None:
        self.link = TlsLink(self)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._closed = begun()
        self._endpoint = endpoint
        self._client_id = client_id
        self._open_tls = open_tls
        self._state = ClientState()
        self._mqtt = Connection(Role.CLIENT, max_packet_size=endpoint.max_packet_size)
        self._acknowledging: dict[int, Answered] = {}
        self._why: str | None = None
        self._kind: type[ConnectionLost] = ConnectionLost
        self._ping_seconds = endpoint.keep_alive / 2
        self._failure: ConnectionFailed | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._awaits_pong = False
        self._leaving = False

    # --- the interface; any thread ---

    def subscribe(self, topic_filter: str, qos: int, on_message: OnMessage) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.subscribe`."""
        return self._request(
            self._state.subscribing(topic_filter, qos, on_message),
            lambda: Subscribe(self._mqtt.next_packet_id(), (Subscription(topic_filter, qos),)),
        )

    def unsubscribe(self, topic_filter: str) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.unsubscribe`."""
        return self._request(
            self._state.unsubscribing(topic_filter),
            lambda: Unsubscribe(self._mqtt.next_packet_id(), (topic_filter,)),
        )

    def publish(self, topic: str, payload: bytes, qos: int) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.publish`."""
        version, largest = self._endpoint.mqtt_version, self._mqtt.peer_max_packet_size

        def packet() -> Publish:
            packet_id = self._mqtt.next_packet_id() if qos else None
            return Publish(topic, payload, qos, packet_id=packet_id)

        return self._request(self._state.publishing(topic, payload, qos, version, largest), packet)

    def disconnect(self) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.disconnect`."""

        def run() -> None:
            if self._leaving or self._state.is_lost:
                return
            self._leaving = True
            self._why = self._why or "this client disconnected"
            self._loop.call_later(_GOODBYE_SECONDS, self.link.abort)
            if self._mqtt.state is not State.CLOSED:
                self._send(Disconnect())
            self.link.goodbye()

        self._do(run)
        return self._closed

    def on_lost(self, listener: OnLost) -> Callable[[], None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.on_lost`."""
        return self._state.on_lost(listener)

    def abort(self) -> None:
        """Cut the connection without a word, as a power cut does; on the loop."""
        self._why = self._why or "this client hung up"
        self.link.abort()

    def _request(
        self, attempt: Attempt, packet: Callable[[], Subscribe | Unsubscribe | Publish]
    ) -> Future[None]:
        def run() -> None:
            if attempt.future.done() or self._mqtt.state is State.CLOSED:
                return  # it has failed, or fails with the connection
            attempt.begin()
            try:
                made = packet()
                self._send(made)
            except ProtocolError as error:  # more in flight than the server takes (MQTT 5, 4.9)
                attempt.fail(BadRequest(error.message))
                return
            if made.packet_id is None:
                attempt.acknowledged(0, None)
            else:
                self._acknowledging[made.packet_id] = attempt.acknowledged

        self._do(run)
        return attempt.future

    def _do(self, run: Callable[[], None]) -> None:
        """Run it on the loop."""
        if threading.get_ident() == self._thread:
            run()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(run)

    # --- the life of the connection; the loop's side ---

    def begin(self) -> None:
        """TCP is there: begin TLS."""
        endpoint = self._endpoint
        self._timer = self._loop.call_later(endpoint.connect_timeout, self._no_handshake)
        try:
            self.link.begin_tls(self._open_tls)
        except (OSError, ValueError) as error:
            self.handshake_failed(error)

    def secured(self) -> None:
        """TLS is there: CONNECT."""
        endpoint = self._endpoint
        self._set_timer(self._loop.call_later(endpoint.connect_timeout, self._no_answer))
        version = endpoint.mqtt_version
        self._send(Connect(self._client_id, True, endpoint.keep_alive, version=version))

    def handshake_failed(self, error: Exception) -> None:
        """TLS cannot be."""
        self._failure = self._failure or tls.handshake_failed(error, self._endpoint)
        self.link.abort()

    def _no_handshake(self) -> None:
        self.handshake_failed(TimeoutError())

    def _no_answer(self) -> None:
        self._failure = self._failure or client_state.no_answer(self._endpoint, self._client_id)
        self.link.abort()

    def receive(self, data: bytes) -> None:
        """Plain bytes from the server."""
        try:
            for packet in self._mqtt.receive(data):
                self._handle(packet)
        except ProtocolError as error:
            for packet in self._mqtt.undelivered:
                self._handle(packet)
            if error.reason == Reason.PACKET_TOO_LARGE:
                self._kind = PacketTooLarge
                too_much = "the server sent more than this device takes"
                self._why = self._why or f"{too_much}: {error.message} (max_packet_size)"
            self._why = self._why or f"the server broke the MQTT protocol: {error.message}"
            self.link.write(self._mqtt.closing(error))
            self.link.abort()

    def _handle(self, packet: Packet) -> None:
        match packet:
            case Publish():
                if packet.qos == 1 and packet.packet_id is not None:
                    self._send(Puback(packet.packet_id))
                self._state.deliver(packet.topic, bytes(packet.payload), retained=packet.retain)
            case Suback():
                # more than one code would be against the protocol: one filter was asked for
                self._acknowledge(packet, max(packet.reason_codes))
            case Unsuback():
                self._acknowledge(packet, 0)
            case Puback():
                self._acknowledge(packet, packet.reason_code)
            case Connack():
                self._agreed(packet)
            case Disconnect():
                self._why = self._why or client_state.disconnected(packet, self._client_id)
                self.link.abort()
            case Pingresp():
                self._awaits_pong = False
            case _:
                pass

    def _acknowledge(self, packet: Suback | Unsuback | Puback, code: int) -> None:
        acknowledged = self._acknowledging.pop(packet.packet_id, None)
        if acknowledged is not None:
            said = packet.properties.get("reason_string")
            acknowledged(code, str(said) if said else None)

    def _agreed(self, packet: Connack) -> None:
        self._set_timer(None)
        if packet.reason_code:
            self._failure = client_state.refused(self._endpoint, self._client_id, packet)
            self.link.abort()
        elif not self.opened.done():
            self.opened.set_result(None)
            # the server's word counts more (MQTT 5 section 3.2.2.3.14); 0 is for no pings
            keep_alive = packet.properties.get("server_keep_alive", self._endpoint.keep_alive)
            self._ping_seconds = int(keep_alive) / 2
            if keep_alive:
                self._ping = self._loop.call_later(self._ping_seconds, self._keep_alive)

    def _keep_alive(self) -> None:
        seconds = self._ping_seconds
        if self._mqtt.state is State.CLOSED:
            return
        if self._awaits_pong:
            self._why = self._why or f"the server did not answer a ping within {seconds:g} s"
            self.link.abort()
            return
        self._awaits_pong = True
        self._send(Pingreq())
        self._ping = self._loop.call_later(seconds, self._keep_alive)

    def _send(self, packet: Packet) -> None:
        """Raises ProtocolError, when nothing was sent."""
        self.link.write(self._mqtt.send(packet))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def ended(self, why: str) -> None:
        """The socket is closed."""
        self._set_timer(None)
        if self._ping is not None:
            self._ping.cancel()
        self._acknowledging.clear()
        why = self._why or why
        if not self.opened.done():
            self.opened.set_exception(
                self._failure or client_state.closed_instead(self._endpoint, self._client_id, why)
            )
            self.opened.exception()  # it counts as seen: who waits for it may be gone
        self._state.lose(why, self._kind)
        if not self._closed.done():
            self._closed.set_result(None)
