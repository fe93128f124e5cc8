"""What a device remembers, in ``pending.json``, of a provisioning that is not finished.

``pending.json`` holds what was asked for (endpoint, port, template, and a digest of the parameters,
which may be secret), the certificate id and the ownership token. When RegisterThing was accepted it
holds ``"registered": true`` and the answer as well. From then on the certificate is valid and stays
so on the server: a provisioning that fails afterwards is not started again but finished, by the
next run that asks for the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleetgate.device import identity
from fleetgate.device.errors import StorageRefused
from fleetgate.device.identity import IdentityDirectory
from fleetgate.device.protocol import Issued

# members of pending.json that tell what was asked for, and how a message calls another one
_GOAL = {
    "endpoint": "another endpoint",
    "port": "another port",
    "template": "another template",
    "parametersSha256": "other parameters",
}


@dataclass(frozen=True, slots=True)
class Goal:
    """What a provisioning is for: the server, the template and its parameters."""

    endpoint: str
    port: int
    template: str
    parameters: Mapping[str, str]

    def members(self) -> dict[str, Any]:
        """Its members of ``pending.json``."""
        parameters = json.dumps(dict(self.parameters), sort_keys=True).encode("ascii")
        return {
            "endpoint": self.endpoint,
            "port": self.port,
            "template": self.template,
            "parametersSha256": hashlib.sha256(parameters).hexdigest(),
        }


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered device: its certificate, the client id it connects with, and the answer.

    ``thing_name`` is None when the template makes no thing.
    """

    thing_name: str | None
    certificate_id: str
    client_id: str
    device_configuration: dict[str, str]

    def __str__(self) -> str:
        thing = "" if self.thing_name is None else f"thing `{self.thing_name}`, "
        return f"{thing}certificate {self.certificate_id}"


def begin(directory: IdentityDirectory, goal: Goal, issued: Issued) -> None:
    """Remember a certificate that is not registered yet. Raises StorageRefused."""
    directory.write_json(
        identity.PENDING,
        {
            **goal.members(),
            "certificateId": issued.certificate_id,
            "certificateOwnershipToken": issued.ownership_token,
        },
    )


def remember(directory: IdentityDirectory, registration: Registration) -> None:
    """Remember that the certificate of :func:`begin` is registered. Raises StorageRefused."""
    try:
        directory.write_json(
            identity.PENDING,
            {
                **directory.pending(),
                "registered": True,
                "thingName": registration.thing_name,
                "clientId": registration.client_id,
                "deviceConfiguration": registration.device_configuration,
            },
        )
    except StorageRefused as error:
        raise StorageRefused(
            f"the device is registered ({registration}) and stays so, but the next provisioning "
            f"will not know and make another certificate: {error.message}"
        ) from error


def recall(directory: IdentityDirectory, goal: Goal) -> Registration | None:
    """The registered but unfinished device in `directory`; None when there is none.

    Raises StorageRefused when it is there for another `goal`: it is neither what is asked for
    now, nor may it be thrown away, because its certificate is valid.
    """
    values = directory.pending()
    if values.get("registered") is not True:
        return None
    registration = Registration(
        None if values.get("thingName") is None else _text(directory, values, "thingName"),
        _text(directory, values, "certificateId"),
        _text(directory, values, "clientId"),
        _configuration(directory, values),
    )
    members = goal.members()
    differences = [words for name, words in _GOAL.items() if values.get(name) != members[name]]
    if differences:
        raise StorageRefused(
            f"`{directory.path}` holds a registered device that was not finished "
            f"({registration}), with {' and '.join(differences)}: ask for the same as then to "
            "finish it, choose another directory, or remove this one"
        )
    return registration


def _text(directory: IdentityDirectory, values: Mapping[str, Any], member: str) -> str:
    value = values.get(member)
    if not isinstance(value, str) or not value:
        raise _damaged(directory, member)
    return value


def _configuration(directory: IdentityDirectory, values: Mapping[str, Any]) -> dict[str, str]:
    value = values.get("deviceConfiguration")
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise _damaged(directory, "deviceConfiguration")
    return value


def _damaged(directory: IdentityDirectory, member: str) -> StorageRefused:
    return StorageRefused(
        f"`{member}` in `{directory.path / identity.PENDING}` is damaged: remove the directory "
        "to start again"
    )
