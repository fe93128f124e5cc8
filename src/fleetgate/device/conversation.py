"""An exchange carried out on a connected MQTT client, for a blocked caller or for asyncio.

Theory of operation. No thread is made. A :class:`_Run` holds the state machine; whoever has news (a
callback on the client's thread, or the caller whose wait has ended) tells it under a lock. The
actions that follow go into a queue, which one of the tellers at a time empties without the lock, so
that they reach the client in the order in which they were decided, although a client may call back
while it is being called. The caller waits for nothing but to be woken or for the next deadline.

A caller that has left (see :mod:`fleetgate.device.operations` about cancelling) tells no time any
more. Whoever wants to begin the next operation of the kind does it then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Generic, TypeVar, cast

from fleetgate.device import reply_topics
from fleetgate.device.errors import ClientFailed, ConnectionLost, InProgress, ProvisioningError
from fleetgate.device.exchange import Action, Exchange, Publish, Subscribe
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.reply_topics import Kind

logger = logging.getLogger("fleetgate.device")

T = TypeVar("T")


def wait(client: MqttClient, kind: Kind, exchange: Exchange[T]) -> T:
    woken = threading.Event()
    run = _Run(client, kind, exchange, woken.set)
    try:
        run.begin()
        while (left := run.seconds_left()) is not None:
            if left > 0:
                woken.wait(left)
                woken.clear()
            else:
                run.tick()
    except BaseException:
        run.tell(exchange.cancelled)
        raise
    return run.outcome()


async def wait_async(client: MqttClient, kind: Kind, exchange: Exchange[T]) -> T:
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        if _running_loop() is loop:
            woken.set()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(woken.set)

    async def until_over() -> None:
        while (left := run.seconds_left()) is not None:
            if left > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await woken.wait()
                woken.clear()
            else:
                run.tick()

    run = _Run(client, kind, exchange, wake)
    try:
        run.begin()
        await until_over()
    except asyncio.CancelledError:
        run.tell(exchange.cancelled)
        await until_over()
        raise
    except BaseException:
        run.tell(exchange.cancelled)
        raise
    return run.outcome()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The one that runs on this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Run(Generic[T]):
    """An exchange on a client; see the module. `wake` is called, on any thread, after news."""

    def __init__(
        self, client: MqttClient, kind: Kind, exchange: Exchange[T], wake: Callable[[], None]
    ) -> None:
        """Raises InProgress; see :mod:`fleetgate.device.reply_topics`."""
        self._client = client
        self._kind = kind
        self._exchange = exchange
        self._wake = wake
        self._lock = threading.Lock()
        self._actions: deque[Action] = deque()
        self._acting = False
        self._forget_loss: Callable[[], Any] | None = None
        self._begun = time.monotonic()
        try:
            reply_topics.occupy(client, kind, exchange.operation, exchange.payload, self.tick)
        except InProgress as error:
            error.at(exchange.step)
            raise

    def begin(self) -> None:
        """Send the first packets."""
        logger.debug("event=operation-begun operation=%s", self._kind)
        self._forget_loss = self._client.on_lost(self._lost)
        self.tell(self._exchange.begin)
        with self._lock:
            over = self._exchange.over
        if over:
            self._forget_loss()

    def seconds_left(self) -> float | None:
        """Until ``tick`` is due; None when it is over."""
        with self._lock:
            deadline = self._exchange.deadline
        return None if deadline is None else deadline - time.monotonic()

    def tick(self) -> None:
        """Time has passed."""
        self.tell(self._exchange.tick)

    def outcome(self) -> T:
        """The result, when it is over. Raises the error."""
        if self._exchange.error is not None:
            raise self._exchange.error
        return cast("T", self._exchange.result)

    def tell(self, event: Callable[[float], list[Action]]) -> None:
        """Let the exchange know, and do what is due then. Never waits, never raises."""
        with self._lock:
            ended, over = self._exchange.ended, self._exchange.over
            self._actions.extend(event(time.monotonic()))
            has_ended = self._exchange.ended and not ended
            is_over = self._exchange.over and not over
            first = not self._acting
            self._acting = True
        if has_ended:
            self._log_ending()
        if is_over:
            self._release()
        if first:
            self._act()
        self._wake()

    def _act(self) -> None:
        try:
            while (action := self._next_action()) is not None:
                self._carry_out(action)
        except BaseException:  # KeyboardInterrupt: the caller will give the subscriptions back
            with self._lock:
                self._acting = False
            raise

    def _next_action(self) -> Action | None:
        with self._lock:
            if self._actions:
                return self._actions.popleft()
            self._acting = False
            return None

    def _carry_out(self, action: Action) -> None:
        try:
            if isinstance(action, Subscribe):
                future = self._client.subscribe(action.topic_filter, 1, self._arrived)
            elif isinstance(action, Publish):
                future = self._client.publish(action.topic, action.payload, action.qos)
            else:
                future = self._client.unsubscribe(action.topic_filter)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(partial(self._done, action))

    # --- callbacks ---

    def _done(self, action: Action, future: Future[None]) -> None:
        exchange = self._exchange
        error = _error_of(future, action)
        if not isinstance(action, Subscribe | Publish):
            if error is not None:
                logger.debug(
                    "event=unsubscribe-failed topic=%s cause=%r", action.topic_filter, error.message
                )
            self.tell(partial(exchange.unsubscribed, action.topic_filter))
        elif error is not None:
            self.tell(partial(exchange.failed, error))
        elif isinstance(action, Subscribe):
            self.tell(partial(exchange.granted, action.topic_filter))
        else:
            self.tell(exchange.acknowledged)

    def _arrived(self, topic: str, payload: bytes) -> None:
        ignored = self._exchange.ignored
        self.tell(lambda now: self._exchange.arrived(topic, payload, now))
        if self._exchange.ignored > ignored:
            logger.info(
                "event=answer-ignored operation=%s topic=%s cause='late, twice or for another'",
                self._kind,
                topic,
            )

    def _lost(self, error: ConnectionLost) -> None:
        self.tell(partial(self._exchange.lost, error))

    # --- the end ---

    def _release(self) -> None:
        exchange = self._exchange
        if exchange.unanswered:
            reply_topics.left_unanswered(self._client, exchange.operation, exchange.payload)
        reply_topics.release(self._client, self._kind)
        if self._forget_loss is not None:
            self._forget_loss()

    def _log_ending(self) -> None:
        error = self._exchange.error
        seconds = time.monotonic() - self._begun
        if error is None:
            logger.info("event=operation-done operation=%s seconds=%.3f", self._kind, seconds)
        else:
            logger.warning(
                "event=operation-failed operation=%s step=%s seconds=%.3f cause=%r",
                self._kind,
                error.step,
                seconds,
                error.message,
            )


def _error_of(future: Future[None], action: Action) -> ProvisioningError | None:
    """Why the action failed; another exception than agreed upon is made one of ours."""
    error = CancelledError() if future.cancelled() else future.exception()
    if error is None or isinstance(error, ProvisioningError):
        return error
    wrapped = ClientFailed(
        f"the MQTT client failed with {type(error).__name__}: {error}",
        topic=action.topic if isinstance(action, Publish) else action.topic_filter,
    )
    wrapped.__cause__ = error
    return wrapped
