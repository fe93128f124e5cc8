"""Whose answers come on the reply topics of a connection: one request's at a time.

Answers carry nothing but their topic, so two requests that await theirs on the same topics cannot
be told apart. There are two ways to get there, and both end in InProgress, before anything is sent:

* Another operation of the kind is running on the connection. It may have been left by its caller,
  with its UNSUBSCRIBE not acknowledged yet; so it is told the time before it counts.
* One has ended without its answer (it timed out, or was cancelled). The server may answer yet, at
  any time; on whichever subscription is there then. From that on, until the connection ends, its
  reply topics are for the same request alone. That may be asked again and again, because a late
  answer to it is as good as another: RegisterThing repeats what it has said before, a certificate
  for the same CSR is for the same key, and of CreateKeysAndCertificate every answer is complete.

What is left is a copy of an answer to RegisterThing that was counted, when it comes so late that
another RegisterThing waits. MQTT copies messages when a session is resumed, which clients here do
not unless they are asked to.

The state is that of the process: who is connected, by the ``id()`` of the client, which is referred
to as long as it is in here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

from fleetgate.device.errors import InProgress
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.protocol import Operation

Kind: TypeAlias = Literal["CreateKeysAndCertificate", "CreateCertificateFromCsr", "RegisterThing"]

_lock = threading.Lock()
_running: dict[tuple[int, Kind], Callable[[], None]] = {}
_unanswered: dict[int, tuple[MqttClient, dict[str, bytes]]] = {}
"""By client and topic the payload of the request."""


def occupy(
    client: MqttClient,
    kind: Kind,
    operation: Operation,
    payload: bytes,
    tick: Callable[[], None],
) -> None:
    """From now on until :func:`release`, `kind` is running on `client`; `tick` tells it the time.

    Raises InProgress.
    """
    topic = operation.request
    running = _running.get((id(client), kind))
    if running is not None:
        running()
    with _lock:
        if (id(client), kind) in _running:
            raise InProgress(
                f"another {kind} is running on this connection: answers cannot be told apart, "
                "wait for it or use another connection",
                topic=topic,
            )
        if id(client) in _unanswered:
            _, requests = _unanswered[id(client)]
            if requests.get(topic, payload) != payload:
                raise InProgress(
                    f"another request on `{topic}` was not answered in time on this connection, "
                    "and its answer could not be told from that to this one: use another "
                    "connection, or ask the same again",
                    topic=topic,
                )
        _running[id(client), kind] = tick


def release(client: MqttClient, kind: Kind) -> None:
    """It is over."""
    with _lock:
        _running.pop((id(client), kind), None)


def left_unanswered(client: MqttClient, operation: Operation, payload: bytes) -> None:
    """An answer to this request may come yet, as long as `client` is connected."""
    with _lock:
        known = id(client) in _unanswered
        _, requests = _unanswered.setdefault(id(client), (client, {}))
        requests.setdefault(operation.request, payload)
    if not known:
        client.on_lost(lambda _error: _forget(client))


def _forget(client: MqttClient) -> None:
    with _lock:
        _unanswered.pop(id(client), None)
