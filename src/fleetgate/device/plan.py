"""What a journey is to do, as its arguments say once they are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography import x509

from fleetgate.device.endpoint import AnyCredentials, Endpoint
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import Identity, KeyOnToken
from fleetgate.device.journal import Goal
from fleetgate.device.keys import KeyKind
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.retry import Retries

Connect: TypeAlias = Callable[[Endpoint, AnyCredentials, str], MqttClient]
"""Connects with an endpoint, credentials and a client id. Raises ConnectionFailed, BadRequest."""

Key: TypeAlias = KeyKind | Literal["server"] | KeyOnToken
"""A kind of key to be made here, the server's own making, or a key on a token."""


ON_TOKEN = "token "  # noqa: S105 - how the names of keys on tokens begin


@dataclass(frozen=True, slots=True)
class Plan:
    """What a journey is to do.

    ``credentials`` are the claim's, or those of the ``present`` identity, which a renewal has;
    ``client_id`` is the one to connect with by them. ``own_client_id`` is the one of the new
    identity; None for the thing's name, or ``client_id`` when there is none. ``authorities`` is
    the content of the endpoint's CA file. ``config_goal`` is what ``config.json`` says of the goal.
    ``begin_anew`` gives up what may be registered, when it can neither be asked for nor connect.
    With ``new_thing`` a renewal may make the device another thing.
    """

    goal: Goal
    config_goal: str
    endpoint: Endpoint
    authorities: bytes | None
    credentials: AnyCredentials
    client_id: str
    own_client_id: str | None
    parameters: Mapping[str, str]
    key: Key | Literal["kept"]
    subject: x509.Name | None
    present: Identity | None
    terms: Terms
    retries: Retries
    token_seconds: float
    begin_anew: bool = False
    new_thing: bool = False

    @property
    def key_name(self) -> str:
        """The key as the journal has it."""
        if isinstance(self.key, KeyOnToken):
            return f"{ON_TOKEN}{self.key.token} {self.key.key} {self.key.module}"
        return self.key
