"""MQTT by AWS's own runtime, awscrt: ``pip install "fleetgate[awscrt]"``.

It is the one client that can use a key on a PKCS#11 token.

Theory of operation. A connection has an event loop group, a resolver and a bootstrap of its own,
so that all of its threads can end with it; awscrt's defaults would live as long as the process.
What happens is told on awscrt's thread. When the connection ends, in whichever way, a thread is
made which waits until awscrt has let go of everything, and then ends itself; until then
``disconnect`` is not done. What awscrt tells of a failed TLS handshake or proxy is not more than
that it failed, and that after 10 to 30 seconds, because its TLS library answers a failure late on
purpose ("blinding"). So :mod:`fleetgate.device.second_look` tries once with Python's TLS, which
knows why, when awscrt has failed, or has not connected within two seconds or half of the time. When
the time is over, what this second attempt did not get beyond is what the error names. The threads
of a connection whose handshake failed end when the delay of the TLS library is over, and only then
is ``disconnect`` done. It is the same on MQTT 3.1.1 with a CONNECT that is not answered, which
awscrt does not give up before its time for that (``ping_timeout_ms``). They do not keep the process
from ending.

On MQTT 3.1.1 awscrt drops the return code of a CONNACK that refuses: it reports a protocol error,
as for any first packet that it does not like. So the second attempt then goes on to CONNECT, and
hears the code.

What is called on awscrt's thread, within a callback, overtakes what another thread has called a
moment before and awscrt has not taken over yet. An UNSUBSCRIBE must not overtake its SUBSCRIBE, or
the subscription stays; so there it waits for the other's end.

A message that is too large is refused when it is there in full: awscrt has no limit of its own, and
shows nothing of a packet before its end. One that does not end lets no answer to a ping through,
and so the connection ends after the keep-alive time and that for a PINGRESP.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Final

from fleetgate.device import client_ids, client_state, credentials, extras, second_look, tls
from fleetgate.device.awscrt_transport import (
    Failed,
    Transport,
    Transport5,
    Transport311,
    words,
)
from fleetgate.device.client_state import Answered, Attempt, ClientState
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import BadRequest, ConnectionFailed, ConnectionLost, PacketTooLarge
from fleetgate.device.mqtt_client import OnLost, OnMessage, begun

logger = logging.getLogger("fleetgate.device")

_GOODBYE_SECONDS: Final = 0.2
_RELEASED_WITHIN: Final = 60.0
_PATIENCE: Final = 2.0

_MAX_MEASURED: Final = 2  # the first byte, and the least that a remaining length takes

_INVALID = {
    "AWS_ERROR_MQTT5_PACKET_VALIDATION",
    "AWS_ERROR_MQTT5_PUBLISH_OPTIONS_VALIDATION",
    "AWS_ERROR_MQTT5_SUBSCRIBE_OPTIONS_VALIDATION",
    "AWS_ERROR_MQTT5_UNSUBSCRIBE_OPTIONS_VALIDATION",
    "AWS_ERROR_MQTT_INVALID_TOPIC",
    "AWS_ERROR_MQTT_BUFFER_TOO_BIG",
}
_ENDING = {
    "AWS_ERROR_MQTT5_OPERATION_FAILED_DUE_TO_OFFLINE_QUEUE_POLICY",
    "AWS_ERROR_MQTT5_USER_REQUESTED_STOP",
    "AWS_ERROR_MQTT5_CLIENT_TERMINATED",
    "AWS_ERROR_MQTT_CANCELLED_FOR_CLEAN_SESSION",
    "AWS_ERROR_MQTT_CONNECTION_DESTROYED",
    "AWS_ERROR_MQTT_CONNECTION_DISCONNECTING",
    "AWS_ERROR_MQTT_CONNECTION_SHUTDOWN",
    "AWS_ERROR_MQTT_NOT_CONNECTED",
    "AWS_ERROR_MQTT_UNEXPECTED_HANGUP",
}


def connect(
    endpoint: Endpoint, credentials: AnyCredentials, client_id: str, *, clean: bool = True
) -> AwscrtClient:
    """Connect to `endpoint` and wait until the server has agreed.

    As :func:`fleetgate.device.paho_client.connect`, but ``endpoint.connect_timeout`` is for name,
    TCP, TLS and MQTT together (TLS has 10 seconds of it at most, and on MQTT 3.1.1 the answer to
    CONNECT half of the keep-alive time), and the key may be on a token. Raises ExtraMissing
    besides.
    """
    client_ids.check(client_id)
    extras.load("awscrt", "awscrt")
    client = AwscrtClient(endpoint, client_id)
    try:
        client.open(credentials, clean=clean)
    except BaseException:
        wait([client.disconnect()], _GOODBYE_SECONDS)
        raise
    return client


class AwscrtClient:
    """An :class:`~fleetgate.device.mqtt_client.MqttClient`; made by :func:`connect`."""

    def __init__(self, endpoint: Endpoint, client_id: str) -> None:
        self._endpoint = endpoint
        self._client_id = client_id
        self._state = ClientState()
        self._opened = begun()
        self._closed = begun()
        self._lock = threading.Lock()
        self._closing = False
        self._transport: Transport | None = None
        self._runtime: list[Any] = []
        self._released: threading.Event | None = None
        self._largest: int | None = None
        self._thread: int | None = None
        self._subscribing: dict[str, Future[None]] = {}

    # --- the interface; any thread ---

    def subscribe(self, topic_filter: str, qos: int, on_message: OnMessage) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.subscribe`."""
        attempt = self._state.subscribing(topic_filter, qos, on_message)
        self._subscribing[topic_filter] = attempt.future
        return self._send(
            attempt, lambda transport, *ends: transport.subscribe(topic_filter, qos, *ends)
        )

    def unsubscribe(self, topic_filter: str) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.unsubscribe`."""
        attempt = self._state.unsubscribing(topic_filter)

        def send(_subscribed: Future[None] | None = None) -> None:
            self._send(attempt, lambda transport, *ends: transport.unsubscribe(topic_filter, *ends))

        before = self._subscribing.pop(topic_filter, None)
        if before is None or before.done() or threading.get_ident() != self._thread:
            send()
        else:
            before.add_done_callback(send)  # it would overtake; see the module
        return attempt.future

    def publish(self, topic: str, payload: bytes, qos: int) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.publish`."""
        version = self._endpoint.mqtt_version
        return self._send(
            self._state.publishing(topic, payload, qos, version, self._largest),
            lambda transport, *ends: transport.publish(topic, payload, qos, *ends),
        )

    def disconnect(self) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.disconnect`."""
        self._close()
        return self._closed

    def on_lost(self, listener: OnLost) -> Callable[[], None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.on_lost`."""
        return self._state.on_lost(listener)

    def _send(
        self, attempt: Attempt, send: Callable[[Transport, Answered, Failed], None]
    ) -> Future[None]:
        transport = self._transport
        if transport is None or attempt.future.done():
            return attempt.future  # nothing to be sent, or the connection has ended

        def not_acknowledged(error: Exception) -> None:
            name = getattr(error, "name", "")
            if name in _INVALID:
                attempt.fail(BadRequest(f"awscrt does not send this: {words(error)}"))
            elif name not in _ENDING:  # of an end it tells separately, and more
                self.lost(f"awscrt failed ({words(error)})")

        try:
            attempt.begin()
            send(transport, attempt.acknowledged, not_acknowledged)
        except Exception as error:
            not_acknowledged(error)
        return attempt.future

    # --- connecting; the caller's thread ---

    def open(self, shown: AnyCredentials, *, clean: bool) -> None:
        """Connect; see :func:`connect`, which is the only one to call it."""
        io = extras.load("awscrt.io", "awscrt")
        endpoint = self._endpoint
        tls_context = _tls_context(io, endpoint, shown)
        group = io.EventLoopGroup(1)
        self._released = group.shutdown_event
        resolver = io.DefaultHostResolver(group)
        bootstrap = io.ClientBootstrap(group, resolver)
        self._runtime = [bootstrap, resolver, group]
        socket_options = io.SocketOptions()
        socket_options.connect_timeout_ms = int(endpoint.connect_timeout * 1000)
        common = {
            "socket_options": socket_options,
            "proxy_options": _proxy(endpoint),
            "disable_metrics": True,  # a user name that nobody asked for
        }
        made = Transport5 if endpoint.mqtt_version == 5 else Transport311
        self._transport = made(
            self, endpoint, self._client_id, bootstrap, tls_context, common, clean=clean
        )
        self._transport.start()
        del group, resolver, bootstrap, tls_context
        deadline = time.monotonic() + endpoint.connect_timeout
        try:
            if not wait([self._opened], min(_PATIENCE, endpoint.connect_timeout / 2)).done:
                found = second_look.diagnose(endpoint, shown, deadline, self._opened)
                if found is not None and not self._opened.done():
                    raise found
            self._opened.result(max(deadline - time.monotonic(), 0.0))
        except TimeoutError:
            raise client_state.no_answer(endpoint, self._client_id) from None
        except ConnectionFailed:
            raise
        except Exception as error:
            raise self._explain(error, shown, deadline, clean=clean) from error

    # --- why there is no connection; the caller's thread ---

    def _explain(
        self, error: Exception, shown: AnyCredentials, deadline: float, *, clean: bool
    ) -> Exception:
        """What awscrt says of a failed connection, in words; by another try if it does not know."""
        endpoint, client_id = self._endpoint, self._client_id
        left = deadline - time.monotonic()
        waited = round(endpoint.connect_timeout - max(left, 0.0), 1)
        name = getattr(error, "name", "")
        if name == "AWS_IO_SOCKET_TIMEOUT":
            return tls.unreachable(TimeoutError(), endpoint)
        if name.startswith("AWS_IO_DNS"):
            return tls.unreachable(socket.gaierror(0, words(error)), endpoint)
        if name == "AWS_IO_TLS_NEGOTIATION_TIMEOUT":
            return tls.handshake_failed(TimeoutError(), endpoint, waited)
        if name in {"AWS_ERROR_MQTT_TIMEOUT", "AWS_ERROR_MQTT5_CONNACK_TIMEOUT"}:
            return client_state.no_answer(endpoint, client_id, waited)
        if name == "AWS_ERROR_MQTT_PROTOCOL_ERROR":
            return second_look.refusal(endpoint, shown, client_id, deadline, clean=clean)
        found = second_look.diagnose(endpoint, shown, deadline, self._opened) if left > 0 else None
        if found is not None and found.waited is None:  # else awscrt knows more than a time-out
            return found
        if "TLS" in name:
            return tls.handshake_failed(OSError(words(error)), endpoint)
        if name.startswith("AWS_IO_SOCKET") and name != "AWS_IO_SOCKET_CLOSED":
            return tls.unreachable(OSError(words(error)), endpoint)
        return client_state.closed_instead(endpoint, client_id, words(error))

    # --- what awscrt tells, on its thread ---

    def agreed(self, largest: int | None) -> None:
        self._thread = threading.get_ident()
        self._largest = largest
        if not self._opened.done():
            self._opened.set_result(None)

    def refused(self, error: ConnectionFailed) -> None:
        self.failed(error)

    def failed(self, error: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)

    def lost(self, why: str) -> None:
        self.failed(client_state.closed_instead(self._endpoint, self._client_id, why))
        self._close(why)

    def message(self, topic: str | None, payload: bytes, *, retained: bool) -> None:
        if topic is None:
            self._close("the server broke the MQTT protocol (a message without a topic)")
            return
        size = _MAX_MEASURED + 2 + len(topic.encode()) + len(payload)
        largest = self._endpoint.max_packet_size
        if size > largest:
            self._close(client_state.too_large(size, largest), PacketTooLarge)
        else:
            self._state.deliver(topic, payload, retained=retained)

    # --- the end ---

    def _close(
        self,
        why: str = "this client disconnected",
        kind: type[ConnectionLost] = ConnectionLost,
    ) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._state.lose(why, kind)
        threading.Thread(
            target=self._release, name=f"mqtt-end-{self._client_id}", daemon=True
        ).start()

    def _release(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.stop()
        del transport
        self._runtime.clear()
        if self._released is not None and not self._released.wait(_RELEASED_WITHIN):
            logger.warning("event=mqtt_threads_left client_id=%r", self._client_id)
            self._released.wait()  # it would be a lie before
        self._closed.set_result(None)


def _tls_context(io: Any, endpoint: Endpoint, shown: AnyCredentials) -> Any:
    """awscrt's TLS. Raises ConnectionFailed naming the file or the key that cannot be used."""
    ca = endpoint.ca
    if isinstance(shown, Credentials):
        files = [shown.certificate, shown.key, *([ca] if ca is not None else [])]
        if not credentials.has_pipe(files):
            tls.context(ca, shown.certificate, shown.key)
        options = io.TlsContextOptions.create_client_with_mtls(
            credentials.read(shown.certificate, "the certificate"),
            credentials.read(shown.key, "the key"),
        )
    else:
        tls.trusting(ca)
        pin = credentials.read(shown.pin_file, "the PIN in").decode(errors="replace")
        certificate = credentials.read(shown.certificate, "the certificate")
        try:
            options = io.TlsContextOptions.create_client_with_mtls_pkcs11(
                pkcs11_lib=io.Pkcs11Lib(file=str(shown.module)),
                user_pin=pin.rstrip("\r\n"),
                token_label=shown.token,
                private_key_label=shown.key,
                cert_file_contents=certificate,
            )
        except Exception as error:
            raise ConnectionFailed(
                f"cannot use the PKCS#11 module `{shown.module}`: {words(error)}", retry=False
            ) from error
    if ca is not None:
        options.override_default_trust_store(credentials.read(ca, "the authorities in"))
    if endpoint.offered_alpn:
        options.alpn_list = [endpoint.offered_alpn]
    try:
        return io.ClientTlsContext(options)
    except Exception as error:
        what = (
            f"the certificate `{shown.certificate}` with the key `{shown.key}`"
            if isinstance(shown, Credentials)
            else f"the key `{shown.key}` on the token `{shown.token}` (`{shown.module}`)"
        )
        raise ConnectionFailed(f"cannot use {what}: {words(error)}", retry=False) from error


def _proxy(endpoint: Endpoint) -> Any:
    proxy = endpoint.proxy
    if proxy is None:
        return None
    http = extras.load("awscrt.http", "awscrt")
    kinds = http.HttpProxyAuthenticationType
    return http.HttpProxyOptions(
        proxy.host,
        proxy.port,
        auth_type=kinds.Nothing if proxy.user is None else kinds.Basic,
        auth_username=proxy.user,
        auth_password=None if proxy.user is None else (proxy.password or ""),
        connection_type=http.HttpProxyConnectionType.Tunneling,
    )
