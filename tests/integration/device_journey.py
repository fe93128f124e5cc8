"""The whole journey of one device, in a test's process or in one of its own (keys on tokens).

``python -m tests.integration.device_journey`` reads :class:`Device` as JSON from its arguments.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fleetgate.device import provision
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import KeyOnToken
from fleetgate.device.protocol import PayloadFormat
from fleetgate.device.provision import Provisioned
from fleetgate.mqtt.packets import Version

WITHIN = 10.0


@dataclass(frozen=True)
class Device:
    """A device to be, and how it goes about it; `key` are the arguments of a KeyOnToken.

    `fleet` is the name of its template and of what its certificate may do, which is everything.
    """

    adapter: str
    version: Version
    form: PayloadFormat
    awaiting: bool
    port: int
    ca: str
    claim: tuple[str, str]
    fleet: str
    out: str
    key: tuple[str, str, str, str] | None = None

    @property
    def serial(self) -> str:
        """Its serial number, which tells what it is."""
        return "-".join(
            [
                *(self.adapter, str(self.version), self.form),
                *(["async"] if self.awaiting else []),
                *(["token"] if self.key else []),
            ]
        )


def journey(device: Device) -> dict[str, Any]:
    """Provision it, publish under the new identity, and renew that; what came of it."""
    connect = import_module(f"fleetgate.device.{device.adapter}_client").connect
    parameters = {"SerialNumber": device.serial}
    terms = Terms(device.form)
    first = _call(
        device,
        provision.provision,
        Endpoint("localhost", device.port, device.ca, mqtt_version=device.version),
        Credentials(*device.claim),
        device.fleet,
        parameters,
        device.out,
        key=_key_on_token(device.key) if device.key else "P-256",
        terms=terms,
        connect=connect,
    )
    heard = _publish(connect, first, f"devices/{device.serial}/up")
    second = _call(
        device,
        provision.renew,
        device.out,
        device.fleet,
        parameters,
        terms=terms,
        connect=connect,
    )
    return {
        "thing": second.thing_name,
        "certificates": [first.certificate_id, second.certificate_id],
        "reconnected": ["reconnect" in each.seconds for each in (first, second)],
        "version": second.identity.mqtt_version,
        "on token": [each.identity.token is not None for each in (first, second)],
        "configuration": second.device_configuration,
        "heard": heard.decode(),
    }


def _key_on_token(names: tuple[str, str, str, str]) -> KeyOnToken:
    module, token, label, pin_file = names
    return KeyOnToken(Path(module), token, label, Path(pin_file))


def _call(
    device: Device, blocking: Callable[..., Provisioned], *arguments: Any, **options: Any
) -> Provisioned:
    if not device.awaiting:
        return blocking(*arguments, **options)
    awaited = getattr(provision, f"{blocking.__name__}_async")
    done: Provisioned = asyncio.run(awaited(*arguments, **options))
    return done


def _publish(connect: Callable[..., Any], done: Provisioned, topic: str) -> bytes:
    """Say something under the new identity, and hear it."""
    identity, inbox = done.identity, queue.Queue[bytes]()
    client = connect(identity.endpoint(), identity.credentials, identity.client_id)
    client.subscribe(topic, 1, lambda _topic, payload: inbox.put(payload)).result(WITHIN)
    client.publish(topic, b"here I am", 1).result(WITHIN)
    heard = inbox.get(timeout=WITHIN)
    client.disconnect().result(WITHIN)
    return heard


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        sys.stdout.write(json.dumps(journey(Device(**json.loads(argument)))) + "\n")
