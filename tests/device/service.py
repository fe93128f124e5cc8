"""The provisioning operations on one connection at a time, made to misbehave where a test says so.

Enough of a server to see what the device does; the real one is tested with it elsewhere.
"""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetgate.mqtt.connection import Connection, Role, State
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
)
from fleetgate.names import certificate_id
from fleetgate.pki import csr, issue, keys, pem
from tests.device.conftest import Issuer


def accept(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "accepted", values


@dataclass
class Service:
    """A script for the `scripted` server. What was asked is kept in `connects` and `requests`."""

    issuer: Issuer
    thing_name: str | None = "lamp-1"
    # CONNACK codes for the connections to come; then 0
    codes: list[int] = field(default_factory=list)
    refused_filters: set[str] = field(default_factory=set)
    # what is done to an answer, by the operation: (suffix of the topic, values), None for silence
    create: Callable[[dict[str, Any]], tuple[str, dict[str, Any]] | None] = accept
    register: Callable[[dict[str, Any]], tuple[str, dict[str, Any]] | None] = accept

    connects: list[Connect] = field(default_factory=list)
    requests: list[tuple[str, Any]] = field(default_factory=list)
    rsa_key: rsa.RSAPrivateKey | None = None

    def __call__(self, stream: ssl.SSLSocket) -> None:
        mqtt = Connection(Role.SERVER)
        while mqtt.state is not State.CLOSED and (data := stream.recv(16384)):
            for packet in mqtt.receive(data):
                for answer in self._answers(packet):
                    stream.sendall(mqtt.send(answer))

    def _answers(self, packet: Packet) -> Iterator[Packet]:
        match packet:
            case Connect():
                self.connects.append(packet)
                yield Connack(False, self.codes.pop(0) if self.codes else 0)
            case Subscribe():
                yield Suback(
                    packet.packet_id,
                    tuple(
                        0x87 if each.topic_filter in self.refused_filters else 1
                        for each in packet.subscriptions
                    ),
                )
            case Pingreq():
                yield Pingresp()
            case Publish(packet_id=int(packet_id)):
                yield Puback(packet_id)
                yield from self._serve(packet)

    def _serve(self, packet: Publish) -> Iterator[Packet]:
        cbor = packet.topic.endswith("/cbor")
        request = cbor2.loads(packet.payload) if cbor else json.loads(packet.payload)
        self.requests.append((packet.topic, request))
        if packet.topic.startswith("$aws/certificates/"):
            answer = self.create(self._create(request))
        else:
            answer = self.register(
                {"thingName": self.thing_name, "deviceConfiguration": {"mode": "bright"}}
            )
        if answer is not None:
            suffix, values = answer
            payload = cbor2.dumps(values) if cbor else json.dumps(values).encode()
            yield Publish(f"{packet.topic}/{suffix}", payload, 1, packet_id=1)

    def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = {"certificateOwnershipToken": "the token"}
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
        subject = None
        if "certificateSigningRequest" in request:
            signing_request = csr.parse(request["certificateSigningRequest"])
            key, subject = signing_request.public_key, signing_request.subject
        else:
            assert self.rsa_key is not None
            key = self.rsa_key.public_key()
            answer["privateKey"] = keys.rsa_private_pem(self.rsa_key)
        der = issue.issue(
            issue.DEVICE,
            self.issuer.authority,
            key,
            subject,
            now=datetime.now(UTC),
            serial=secrets.randbits(158) + 1,
        )
        answer["certificateId"] = certificate_id(der)
        answer["certificatePem"] = pem.encode("CERTIFICATE", der)
        return answer
