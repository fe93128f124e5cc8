"""An MQTT client without a network: what the server does is a script, given as arguments."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Any

from fleetgate.device.errors import ConnectionLost
from fleetgate.device.mqtt_client import (
    OnLost,
    OnMessage,
    begun,
    done,
    failed,
    message_refused,
    subscription_refused,
)

Messages = Iterable[tuple[str, bytes]]


def nothing(topic: str, payload: bytes) -> Messages:
    return ()


class ScriptedClient:
    """`answer` gives the messages that a published one brings about, `delay` seconds later.

    Without a delay they arrive before `publish` returns, on the calling thread. What is in
    `refused` (topic filters and topics) the server refuses, what is in `silent` it never
    acknowledges; `broken` is raised by `publish` itself. ``calls`` are the packets, in order.
    """

    def __init__(
        self,
        answer: Callable[[str, bytes], Messages] = nothing,
        *,
        delay: float | None = None,
        refused: Collection[str] = (),
        silent: Collection[str] = (),
        broken: BaseException | None = None,
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self.payloads: list[bytes] = []
        self.qos: list[int] = []
        self.subscribed: dict[str, OnMessage] = {}
        self.listeners: list[OnLost] = []
        self.published = threading.Event()
        self._answer = answer
        self._delay = delay
        self._refused = refused
        self._silent = silent
        self._broken = broken
        self._pending: list[Future[None]] = []
        self._loss: ConnectionLost | None = None
        self._timers: list[threading.Timer] = []

    @property
    def packets(self) -> list[str]:
        """The calls in short, as ``subscribe accepted``."""
        return [f"{what} {topic.rpartition('/')[2]}" for what, topic in self.calls]

    def subscribe(self, topic_filter: str, qos: int, on_message: OnMessage) -> Future[None]:
        assert qos == 1
        self.calls.append(("subscribe", topic_filter))
        if self._loss:
            return failed(self._loss)
        if topic_filter in self._refused:
            return failed(subscription_refused(topic_filter, 0x80))
        self.subscribed[topic_filter] = on_message
        return self._acknowledge(topic_filter)

    def unsubscribe(self, topic_filter: str) -> Future[None]:
        self.calls.append(("unsubscribe", topic_filter))
        if self._loss:
            return failed(self._loss)
        if "unsubscribe" not in self._silent:
            self.subscribed.pop(topic_filter, None)
        return self._acknowledge("unsubscribe")

    def publish(self, topic: str, payload: bytes, qos: int) -> Future[None]:
        self.calls.append(("publish", topic))
        self.payloads.append(payload)
        self.qos.append(qos)
        if self._broken:
            raise self._broken
        if self._loss:
            return failed(self._loss)
        if topic in self._refused:
            return failed(message_refused(topic, 0x87, "no right"))
        if self._delay is None:
            self._bring_about(topic, payload)
        else:
            timer = threading.Timer(self._delay, self._bring_about, (topic, payload))
            self._timers.append(timer)
            timer.start()
        self.published.set()
        return self._acknowledge(topic)

    def disconnect(self) -> Future[None]:
        self.lose()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        return done()

    def on_lost(self, listener: OnLost) -> Callable[[], Any]:
        if self._loss:
            listener(self._loss)
            return lambda: None
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener) if listener in self.listeners else None

    # --- what a test does ---

    def deliver(self, topic: str, payload: bytes) -> None:
        if topic in self.subscribed:
            self.subscribed[topic](topic, payload)

    def lose(self, why: str = "the network went away") -> None:
        self._loss = ConnectionLost(why)
        pending, self._pending = self._pending, []
        self.subscribed.clear()
        for future in pending:
            future.set_exception(self._loss)
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            listener(self._loss)

    def _acknowledge(self, topic: str) -> Future[None]:
        if topic not in self._silent:
            return done()
        future = begun()
        self._pending.append(future)
        return future

    def _bring_about(self, topic: str, payload: bytes) -> None:
        for message in self._answer(topic, payload):
            self.deliver(*message)
