"""The adapters for MQTT clients by name, and what they might leave behind."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device import aiomqtt_client, awscrt_client, paho_client
from fleetgate.device.endpoint import AnyCredentials, Endpoint
from fleetgate.device.errors import ConnectionFailed, ConnectionLost
from fleetgate.device.mqtt_client import MqttClient

ADAPTERS: dict[str, Callable[..., MqttClient]] = {
    "paho": paho_client.connect,
    "awscrt": awscrt_client.connect,
    "aiomqtt": aiomqtt_client.connect,
}
WITHIN = 10.0

every_adapter = pytest.mark.parametrize("adapter", list(ADAPTERS))
both_versions = pytest.mark.parametrize("version", [4, 5], ids=["3.1.1", "5"])


def connect(
    adapter: str,
    endpoint: Endpoint,
    credentials: AnyCredentials,
    client_id: str,
    *,
    clean: bool = True,
) -> MqttClient:
    return ADAPTERS[adapter](endpoint, credentials, client_id, clean=clean)


def refusal(
    adapter: str, endpoint: Endpoint, credentials: AnyCredentials, client_id: str = "device"
) -> ConnectionFailed:
    """Why this connection is not made; and that nothing is left of the attempt."""
    with pytest.raises(ConnectionFailed) as caught:
        connect(adapter, endpoint, credentials, client_id)
    return caught.value


class Losses:
    """What a client says when its connection is lost."""

    def __init__(self, client: MqttClient) -> None:
        self._told: queue.Queue[ConnectionLost] = queue.Queue()
        client.on_lost(self._told.put)

    def next(self) -> ConnectionLost:
        return self._told.get(timeout=WITHIN)

    def none_more(self) -> bool:
        return self._told.empty()


class Inbox:
    """Messages of one or several subscriptions, in the order in which they came."""

    def __init__(self) -> None:
        self._messages: queue.Queue[tuple[str, bytes]] = queue.Queue()

    def __call__(self, topic: str, payload: bytes) -> None:
        self._messages.put((topic, payload))

    def next(self) -> tuple[str, bytes]:
        return self._messages.get(timeout=WITHIN)

    def empty(self) -> bool:
        return self._messages.empty()


class Remains:
    """Threads (awscrt's too, which Python does not know) and open files since it was made.

    Its threads end a moment after they have said so; that moment is granted.
    """

    def __init__(self) -> None:
        gc.collect()
        self._before = _counts()

    def none(self, seconds: float = 3.0) -> bool:
        end = time.monotonic() + seconds
        while not all(now <= then for now, then in zip(_counts(), self._before, strict=True)):
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def __repr__(self) -> str:
        return f"threads and files: {self._before} before, {_counts()} now"


def _counts() -> tuple[int, int]:
    files = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            # awscrt opens its source of random bytes once for the process
            files += os.readlink(each) != "/dev/urandom"  # noqa: PTH115 - no file is needed
    return len(list(Path("/proc/self/task").iterdir())), files


def result(future: Any) -> Any:
    return future.result(WITHIN)


@contextlib.contextmanager
def full() -> Iterator[int]:
    """A port at which nobody answers, not even with a refusal: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
