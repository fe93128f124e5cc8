"""What can go wrong on a device, each with where, what was said and how long was waited."""

from __future__ import annotations

from typing import Literal, TypeAlias

from fleetgate.errors import Error

Step: TypeAlias = Literal[
    "prepare", "connect", "subscribe", "create", "store", "register", "reconnect", "finish"
]
"""The steps of :func:`fleetgate.device.provision.provision`, in order."""


class ProvisioningError(Error):
    """A step of the provisioning failed. What is not known or does not apply is None.

    ``step`` is where; ``topic`` the MQTT topic or topic filter concerned; ``waited`` the seconds
    that passed without an answer; ``status_code``, ``error_code`` and ``error_message`` what the
    server said in a ``rejected`` message.
    """

    def __init__(
        self,
        message: str,
        *,
        topic: str | None = None,
        waited: float | None = None,
        status_code: int | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
    ) -> None:
        super().__init__(message)
        self.step: Step | None = None
        self.topic = topic
        self.waited = waited
        self.status_code = status_code
        self.error_code = error_code
        self.error_message = error_message

    def at(self, step: Step) -> None:
        """Say in which step it happened, also in the message; the first one to know it wins."""
        if self.step is None:
            self.step = step
            self.message = f"{step}: {self.message}"
            self.args = (self.message,)


class ConnectionFailed(ProvisioningError):
    """No MQTT connection: TCP, TLS or CONNECT failed, or a file for TLS cannot be used."""


class ConnectionLost(ProvisioningError):
    """The server closed the connection, or broke the protocol."""


class NotAuthorized(ProvisioningError):
    """The server refused a subscription or a message. ``action`` is what a policy has to allow."""

    def __init__(self, message: str, *, topic: str, action: str) -> None:
        super().__init__(message, topic=topic)
        self.action = action


class NoAnswer(ProvisioningError):
    """Nothing arrived in time; ``waited`` says how long that was."""


class Rejected(ProvisioningError):
    """The server rejected the request; see ``status_code`` and ``error_code``."""


class BadAnswer(ProvisioningError):
    """An answer that is too large, cannot be decoded, or does not fit the request."""


class BadRequest(ProvisioningError):
    """An argument that no server can accept, such as the name of a template."""


class StorageRefused(ProvisioningError):
    """The directory for the identity cannot be used, or must not be touched."""
