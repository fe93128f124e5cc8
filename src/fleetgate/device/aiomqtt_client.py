"""MQTT by aiomqtt 2, for programs that run on asyncio: ``pip install "fleetgate[aiomqtt]"``.

:func:`connect_async` connects within the running event loop; no thread is made, but for what
asyncio's own executor does meanwhile. :func:`connect` blocks, and runs a loop on a thread of its
own. Both give the same :class:`AiomqttClient`, whose methods may be called from anywhere.

Theory of operation. One task holds the connection: it enters aiomqtt's context manager, passes on
messages, and leaves it again when it is cancelled, by ``disconnect`` or with the loop, or when
aiomqtt finds the connection lost. Every operation is a task beside it; aiomqtt does not wake those
when the connection is lost, so the main task cancels them at its end. Messages are delivered while
aiomqtt puts them into its queue, which is one that keeps nothing: else an acknowledgement that came
after a message would be told before it. aiomqtt does not say which PUBACK belongs to which message,
nor what code it has: messages at QoS 1 are therefore given to the paho-mqtt client within it, which
tells the packet's identifier, and PUBACK is seen by :mod:`fleetgate.device.mqtt_socket`. Nothing
reconnects.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from fleetgate.device import client_ids, client_state, extras, tls
from fleetgate.device.client_state import Attempt, ClientState
from fleetgate.device.endpoint import AnyCredentials, Endpoint
from fleetgate.device.errors import ConnectionFailed, ProvisioningError
from fleetgate.device.in_flight import MOST, InFlight, send_with_paho
from fleetgate.device.mqtt_client import OnLost, OnMessage, begun
from fleetgate.device.mqtt_socket import MqttContext
from fleetgate.device.paho_client import agree, connect_options, dial_by, files
from fleetgate.device.paho_endings import failed_opening, how_it_ended, kind_of_end
from fleetgate.mqtt.packets import Puback

logger = logging.getLogger("fleetgate.device")

_inner_logger = logging.getLogger("fleetgate.device.aiomqtt")
_inner_logger.addHandler(logging.NullHandler())  # what it says is in the errors, too

_GOODBYE_SECONDS: Final = 1.0
_TURNS: Final = 20


def connect(
    endpoint: Endpoint, credentials: AnyCredentials, client_id: str, *, clean: bool = True
) -> AiomqttClient:
    """Connect to `endpoint` and wait until the server has agreed, on a thread with a loop.

    As :func:`fleetgate.device.paho_client.connect`; raises ExtraMissing besides.
    """
    client = _client(endpoint, credentials, client_id, clean=clean)
    thread = threading.Thread(target=client.run, name=f"mqtt-{client_id}", daemon=True)
    thread.start()
    try:
        client.opened.result()
    except BaseException as error:
        if not client.opened.done():
            client.disconnect()  # interrupted; it must not stay behind
        if isinstance(error, ProvisioningError):
            thread.join()
        raise
    return client


async def connect_async(
    endpoint: Endpoint, credentials: AnyCredentials, client_id: str, *, clean: bool = True
) -> AiomqttClient:
    """As :func:`connect`, in the running event loop, which runs the callbacks then."""
    client = await asyncio.to_thread(_client, endpoint, credentials, client_id, clean=clean)
    task = client.start()
    try:
        await asyncio.shield(asyncio.wrap_future(client.opened))
    except BaseException:
        if not client.opened.done():
            client.disconnect()  # cancelled; it must not stay behind
        await asyncio.wait([task])
        raise
    return client


def _client(
    endpoint: Endpoint, credentials: AnyCredentials, client_id: str, *, clean: bool
) -> AiomqttClient:
    client_ids.check(client_id)
    aiomqtt = extras.load("aiomqtt", "aiomqtt")
    context = MqttContext.of(endpoint, files(credentials))
    return AiomqttClient(aiomqtt, endpoint, client_id, context, clean=clean)


class AiomqttClient:
    """An :class:`~fleetgate.device.mqtt_client.MqttClient`; made by :func:`connect` and
    :func:`connect_async`. ``opened`` is done when the server has agreed."""

    def __init__(
        self, aiomqtt: Any, endpoint: Endpoint, client_id: str, context: MqttContext, *, clean: bool
    ) -> None:
        self.opened = begun()
        self._closed = begun()
        self._aiomqtt = aiomqtt
        self._endpoint = endpoint
        self._client_id = client_id
        self._context = context
        self._clean = clean
        self._state = ClientState()
        self._why: str | None = None
        self._leaving = False
        self._tasks: set[asyncio.Task[None]] = set()
        # what belongs to the loop
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._mqtt: Any = None
        self._in_flight = InFlight()
        self._ended: asyncio.Event | None = None

    # --- the interface; any thread ---

    def subscribe(self, topic_filter: str, qos: int, on_message: OnMessage) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.subscribe`."""

        async def send() -> tuple[int, str | None]:
            codes = await self._mqtt.subscribe(topic_filter, qos=qos, timeout=math.inf)
            return max(each if isinstance(each, int) else each.value for each in codes), None

        return self._send(self._state.subscribing(topic_filter, qos, on_message), send)

    def unsubscribe(self, topic_filter: str) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.unsubscribe`."""

        async def send() -> tuple[int, str | None]:
            await self._mqtt.unsubscribe(topic_filter, timeout=math.inf)
            return 0, None

        return self._send(self._state.unsubscribing(topic_filter), send)

    def publish(self, topic: str, payload: bytes, qos: int) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.publish`."""
        connack = self._context.watch.connack
        largest = connack.properties.get("maximum_packet_size") if connack else None

        async def send() -> tuple[int, str | None]:
            if qos == 0:
                await self._mqtt.publish(topic, payload, qos=0, timeout=math.inf)
                return 0, None
            return await self._publish_acknowledged(topic, payload)

        version = self._endpoint.mqtt_version
        return self._send(self._state.publishing(topic, payload, qos, version, largest), send)

    async def _publish_acknowledged(self, topic: str, payload: bytes) -> tuple[int, str | None]:
        inner = self._mqtt._client  # noqa: SLF001
        answer: asyncio.Future[tuple[int, str | None]] = asyncio.Future()

        def answered(code: int, said: str | None) -> None:
            if not answer.done():  # cancelled, in the end
                answer.set_result((code, said))

        self._in_flight.publish(lambda: send_with_paho(inner, topic, payload), answered)
        return await answer

    def _on_puback(self, puback: Puback) -> None:
        self._in_flight.acknowledge(puback)
        asyncio.get_running_loop().call_soon(self._in_flight.go_on)

    def disconnect(self) -> Future[None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.disconnect`."""

        def leave() -> None:
            self._why = self._why or "this client disconnected"
            if self._main is not None and not self._main.done() and not self._leaving:
                self._leaving = True
                self._main.cancel()
                # for a peer that takes nothing any more; the context outlives the client
                asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, self._context.hang_up)

        self._in_loop(leave)
        return self._closed

    def on_lost(self, listener: OnLost) -> Callable[[], None]:
        """See :meth:`fleetgate.device.mqtt_client.MqttClient.on_lost`."""
        return self._state.on_lost(listener)

    def _send(
        self, attempt: Attempt, send: Callable[[], Coroutine[Any, Any, tuple[int, str | None]]]
    ) -> Future[None]:
        """`send` returns reason code and reason string of the acknowledgement."""

        async def task() -> None:
            attempt.begin()
            try:
                code, said = await send()
            except self._aiomqtt.MqttError as error:
                # It could not be sent: the connection is lost, which the main task finds out.
                logger.debug("event=mqtt_call_failed error=%s", error)
            except Exception:
                logger.exception("event=mqtt_client_failed client_id=%r", self._client_id)
                self._context.hang_up()
            else:
                attempt.acknowledged(code, said)

        def begin() -> None:
            if self._main is None or self._main.done():
                return
            made = asyncio.get_running_loop().create_task(task())
            self._tasks.add(made)
            made.add_done_callback(self._tasks.discard)

        if not attempt.future.done():
            self._in_loop(begin)
        return attempt.future

    def _in_loop(self, call: Callable[[], None]) -> None:
        with self._lock:  # held so that the loop is not closed meanwhile
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call)

    # --- the loop's side ---

    def run(self) -> None:
        """Run the connection on a loop of this thread, until it ends."""
        try:
            with asyncio.Runner() as runner:
                runner.run(self._wait())
        finally:
            self._end()

    async def _wait(self) -> None:
        await asyncio.wait([self.start(close=False)])

    def start(self, *, close: bool = True) -> asyncio.Task[None]:
        """Begin the connection in the running loop."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._context.watch.on_end = self._ended.set
        self._context.watch.on_puback = self._on_puback
        self._main = self._loop.create_task(self._hold(), name=f"mqtt-{self._client_id}")
        if close:
            self._main.add_done_callback(lambda _task: self._end())
        return self._main

    async def _hold(self) -> None:
        """The main task: connect, pass on messages, disconnect."""
        try:
            self._mqtt = mqtt = self._make()
            await self._enter(mqtt)
            try:
                inner = mqtt._client  # noqa: SLF001
                self._in_flight.most = agree(inner, self._context.watch, self._endpoint)
                self.opened.set_result(None)
                await anext(mqtt.messages)  # none ever comes this way: it is the end
            finally:
                await mqtt.__aexit__(None, None, None)
        except asyncio.CancelledError:
            self._why = self._why or "the event loop stopped"
        except Exception as error:
            self._failed(error)
        finally:
            self._context.hang_up()
            await self._clear()

    async def _enter(self, mqtt: Any) -> None:
        """Enter aiomqtt's client, but notice when the server hangs up instead of agreeing.

        aiomqtt would wait for its time-out. It is cancelled only when its connecting in the
        executor is over, which would go on otherwise, and have a socket that nobody closes.
        """
        assert self._ended is not None  # noqa: S101 - start() made it
        entering = asyncio.ensure_future(mqtt.__aenter__())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait([entering, ended], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._context.give_up()
            await asyncio.wait([entering, ended], return_when=asyncio.FIRST_COMPLETED)
            raise
        finally:
            entering.cancel()
            ended.cancel()
            await asyncio.wait([entering, ended])
            error = None if entering.cancelled() else entering.exception()  # it counts as seen
        if error is not None:
            raise error
        if self._context.watch.refused:
            raise self._aiomqtt.MqttError("the server did not agree")

    def _make(self) -> Any:
        """aiomqtt's client, which connects when it is entered."""
        endpoint = self._endpoint
        host, port = self._context.address
        more = connect_options(endpoint, clean=self._clean)
        if endpoint.mqtt_version == 4:
            more["clean_session"] = self._clean

        def deliver(message: Any) -> None:
            self._state.deliver(
                str(message.topic), bytes(message.payload), retained=bool(message.retain)
            )

        made = self._aiomqtt.Client(
            host,
            port,
            identifier=self._client_id,
            protocol=self._aiomqtt.ProtocolVersion(endpoint.mqtt_version),
            timeout=endpoint.connect_timeout,
            keepalive=endpoint.keep_alive,
            tls_context=self._context,
            max_inflight_messages=MOST,
            queue_type=partial(_Through, deliver),
            logger=_inner_logger,
            **more,
        )
        # Only paho-mqtt's client in it can be told how long TCP may take; otherwise it is 5 s.
        dial_by(made._client, endpoint)  # noqa: SLF001
        return made

    def _failed(self, error: Exception) -> None:
        """aiomqtt has raised `error`: that ends the connection, or it has never begun."""
        watch = self._context.watch
        if self.opened.done():
            if not isinstance(error, self._aiomqtt.MqttError):
                logger.error(
                    "event=mqtt_client_failed client_id=%r", self._client_id, exc_info=error
                )
            return
        endpoint, client_id = self._endpoint, self._client_id
        if isinstance(error, ConnectionFailed):
            self.opened.set_exception(error)
        elif self._context.stream is None:
            # aiomqtt hides the cause, which says more than its text
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            self.opened.set_exception(tls.unreachable(cause, endpoint))
        elif watch.connack is None and watch.ended is None and watch.too_large is None:
            self.opened.set_exception(client_state.no_answer(endpoint, client_id))
        else:
            why = how_it_ended(watch, client_id, endpoint)
            self.opened.set_exception(failed_opening(watch, endpoint, client_id, why))

    async def _clear(self) -> None:
        """End what aiomqtt leaves: the operations' tasks, and its own, which wait for turns."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._mqtt is not None and self.opened.done() and self.opened.exception() is None:
            with contextlib.suppress(self._aiomqtt.MqttError):
                # It has kept an error for whoever asks next, and complains if nobody does.
                while True:
                    await anext(self._mqtt.messages)
        stream = self._context.stream
        for _ in range(_TURNS):  # it sees the end of its socket, which it closes
            await asyncio.sleep(0)
            if stream is None or stream.fileno() < 0:
                break
        for _ in range(3):  # and then ends its own task
            await asyncio.sleep(0)

    def _end(self) -> None:
        with self._lock:
            self._loop = None
        watch = self._context.watch
        inner = None if self._mqtt is None else self._mqtt._client  # noqa: SLF001
        why = how_it_ended(watch, self._client_id, self._endpoint, self._why, inner)
        if self._context.stream is not None:
            self._context.stream.close()
        if not self.opened.done():
            self.opened.set_exception(
                client_state.closed_instead(self._endpoint, self._client_id, why)
            )
        self._mqtt = None
        self._state.lose(why, kind_of_end(watch))
        self._closed.set_result(None)


class _Through(asyncio.Queue[Any]):
    """A queue whose messages are delivered when they are put into it."""

    def __init__(self, deliver: Callable[[Any], None], maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._deliver = deliver

    def put_nowait(self, item: Any) -> None:
        self._deliver(item)
