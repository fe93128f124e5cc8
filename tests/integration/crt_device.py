"""Connections of AWS's own device SDK (awsiotsdk on awscrt), opened and closed properly."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from awscrt import mqtt, mqtt5
from awsiot import mqtt5_client_builder, mqtt_connection_builder

from tests.integration.fleet import Identity
from tests.integration.server import Server

WITHIN = 15.0


def _arguments(server: Server, identity: Identity, client_id: str) -> dict[str, Any]:
    return {
        "cert_filepath": str(identity.certificate),
        "pri_key_filepath": str(identity.key),
        "ca_filepath": str(server.ca_file),
        "endpoint": "localhost",
        "port": server.mqtt_port,
        "client_id": client_id,
    }


@dataclass(slots=True)
class Crt311:
    """An MQTT 3.1.1 connection; ``transport`` is what the service clients take."""

    transport: Any
    interrupted: threading.Event

    def publish(self, topic: str, payload: bytes) -> bool:
        """PUBLISH at QoS 1; whether it was acknowledged (else the server hung up)."""
        future, _ = self.transport.publish(topic=topic, payload=payload, qos=mqtt.QoS.AT_LEAST_ONCE)
        acknowledged = threading.Event()
        future.add_done_callback(lambda _done: acknowledged.set())
        for _ in range(int(WITHIN / 0.02)):
            if acknowledged.wait(0.02):
                future.result()
                return True
            if self.interrupted.is_set():
                return False
        raise TimeoutError(topic)


@contextmanager
def crt_311(server: Server, identity: Identity, client_id: str, **more: Any) -> Iterator[Crt311]:
    interrupted = threading.Event()
    connection = mqtt_connection_builder.mtls_from_path(
        **_arguments(server, identity, client_id),
        on_connection_interrupted=lambda **_event: interrupted.set(),
        reconnect_min_timeout_secs=1,  # disconnect() waits for a pending attempt to reconnect
        **more,
    )
    connection.connect().result(WITHIN)
    try:
        yield Crt311(connection, interrupted)
    finally:
        connection.disconnect().result(WITHIN)


@dataclass(slots=True)
class Crt5:
    """An MQTT 5 client; ``transport`` is what the service clients take."""

    transport: Any
    disconnects: queue.Queue[Any]

    def publish(self, topic: str, payload: bytes) -> bool:
        """PUBLISH at QoS 1; whether the server took it (PUBACK 0x00)."""
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE)
        reason = self.transport.publish(packet).result(WITHIN).puback.reason_code
        if reason == mqtt5.PubackReasonCode.NOT_AUTHORIZED:
            return False
        assert reason == mqtt5.PubackReasonCode.SUCCESS, reason
        return True


@contextmanager
def crt_5(server: Server, identity: Identity, client_id: str, **more: Any) -> Iterator[Crt5]:
    connected, stopped = threading.Event(), threading.Event()
    failures: list[Any] = []
    disconnects: queue.Queue[Any] = queue.Queue()

    def failed(event: Any) -> None:
        failures.append(event)
        connected.set()

    client = mqtt5_client_builder.mtls_from_path(
        **_arguments(server, identity, client_id),
        on_lifecycle_connection_success=lambda _event: connected.set(),
        on_lifecycle_connection_failure=failed,
        on_lifecycle_disconnection=disconnects.put,
        on_lifecycle_stopped=lambda _event: stopped.set(),
        **more,
    )
    client.start()
    try:
        assert connected.wait(WITHIN), "no CONNACK"
        assert not failures, failures
        yield Crt5(client, disconnects)
    finally:
        client.stop()
        assert stopped.wait(WITHIN)
