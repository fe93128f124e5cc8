"""What can go wrong on a device, each with where, what was said and how long was waited.

Every error has two short judgements for programs. ``status`` is one of the ten results of AWS's C
library (see :mod:`fleetgate.device.c_contract`), and ``retry`` says whether the same call may be
made again with a hope of success:

========================  ===================  ==========================================
class                     status               retry
========================  ===================  ==========================================
ConnectionFailed          MQTT_ERROR           yes, unless a file of this device is wrong
ConnectionLost            MQTT_ERROR           yes, on a new connection
PacketTooLarge            BAD_RESPONSE         no
ClientFailed              MQTT_ERROR           no
NotAcknowledged           MQTT_ERROR           yes
NotAuthorized             MQTT_ERROR           no, unless the reason code is one that passes
NoAnswer                  TIMEOUT              yes
InDoubt                   SERVER_REFUSED       no
Rejected                  SERVER_REFUSED       with status code 429 and from 500 on
BadAnswer                 BAD_RESPONSE         no
Unreadable                INTERNAL_FAILURE     no
BadRequest, InProgress    BAD_PARAMETER        no
StorageRefused            INTERNAL_FAILURE     no
NoIdentity                INTERNAL_FAILURE     no
ProvisioningError         INTERNAL_FAILURE     no
========================  ===================  ==========================================

Which statuses there are, and what they mean: ``aws_iot_provisioning_types.h`` of the AWS IoT
Device SDK for Embedded C, v4 beta.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Literal, TypeAlias

from fleetgate.errors import Error
from fleetgate.mqtt.reasons import Reason

Step: TypeAlias = Literal[
    "prepare", "connect", "subscribe", "create", "store", "register", "reconnect", "finish"
]
"""The steps of :func:`fleetgate.device.provision.provision`, in order."""

_PASSING_REASONS = {
    Reason.SERVER_UNAVAILABLE,
    Reason.SERVER_BUSY,
    Reason.PACKET_IDENTIFIER_IN_USE,
    Reason.MESSAGE_RATE_TOO_HIGH,
    Reason.QUOTA_EXCEEDED,
}


class Status(IntEnum):
    """The results of AWS's C library, with its numbers (``AwsIotProvisioningError_t``)."""

    SUCCESS = 1
    INIT_FAILED = 2
    NOT_INITIALIZED = 3
    BAD_PARAMETER = 4
    NO_MEMORY = 5
    BAD_RESPONSE = 6
    TIMEOUT = 7
    SERVER_REFUSED = 8
    INTERNAL_FAILURE = 9
    MQTT_ERROR = 10


class ServerStatusCode(IntEnum):
    """The codes in answers (``AwsIotProvisioningServerStatusCode_t``).

    ACCEPTED is not sent by the service; other numbers may be, and stay numbers.
    """

    ACCEPTED = 202
    INVALID_CSR = 400
    FORBIDDEN = 403
    NOT_FOUND = 404
    TOO_MANY_REQUESTS = 429
    INTERNAL_SERVER_ERROR = 500


class ProvisioningError(Error):
    """A step of the provisioning failed. What is not known or does not apply is None.

    ``step`` is where; ``topic`` the MQTT topic or topic filter concerned; ``waited`` the seconds
    that passed without an answer; ``status_code``, ``error_code`` and ``error_message`` what the
    server said in a ``rejected`` message. ``status`` and ``retry``: see the module; `retry`
    overrides what is usual for the class.
    """

    status: ClassVar[Status] = Status.INTERNAL_FAILURE
    _usually_retry: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        topic: str | None = None,
        waited: float | None = None,
        status_code: int | None = None,
        error_code: str | None = None,
        error_message: str | None = None,
        retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.step: Step | None = None
        self.topic = topic
        self.waited = waited
        self.status_code = status_code
        self.error_code = error_code
        self.error_message = error_message
        self._retry = retry

    @property
    def retry(self) -> bool:
        """Whether the same call may succeed when it is made again later."""
        return self._usually_retry if self._retry is None else self._retry

    def at(self, step: Step) -> None:
        """Say in which step it happened, also in the message; the first one to know it wins."""
        if self.step is None:
            self.step = step
            self.message = f"{step}: {self.message}"
            self.args = (self.message,)


class ConnectionFailed(ProvisioningError):
    """No MQTT connection: TCP, TLS or CONNECT failed, or a file for TLS cannot be used.

    ``refused`` says that the server itself has answered CONNECT with a no that is not for the
    moment only: it does not know the certificate as an active one, or no policy allows it.
    """

    status = Status.MQTT_ERROR
    _usually_retry = True
    refused: bool = False


class ConnectionLost(ProvisioningError):
    """The server closed the connection, or broke the protocol."""

    status = Status.MQTT_ERROR
    _usually_retry = True


class PacketTooLarge(ConnectionLost):
    """The connection was given up: the server sent a packet larger than this device takes.

    Most likely the answer; a packet of that size is not read as far as to know.
    """

    status = Status.BAD_RESPONSE
    _usually_retry = False


class ClientFailed(ProvisioningError):
    """The MQTT client failed in a way that is none of its interface: a defect of the client."""

    status = Status.MQTT_ERROR


class NotAuthorized(ProvisioningError):
    """The server refused a subscription or a message. ``action`` is what a policy has to allow.

    ``reason_code`` is that of SUBACK or PUBACK, if it is known: a few codes (server busy, quota
    exceeded and the like) have another cause, which passes; they alone may be tried again.
    """

    status = Status.MQTT_ERROR

    def __init__(
        self, message: str, *, topic: str, action: str, reason_code: int | None = None
    ) -> None:
        super().__init__(message, topic=topic, retry=reason_code in _PASSING_REASONS)
        self.action = action
        self.reason_code = reason_code


class NoAnswer(ProvisioningError):
    """Nothing arrived in time; ``waited`` says how long that was."""

    status = Status.TIMEOUT
    _usually_retry = True


class NotAcknowledged(NoAnswer):
    """The server did not acknowledge a SUBSCRIBE or PUBLISH packet in time."""

    status = Status.MQTT_ERROR


class Rejected(ProvisioningError):
    """The server rejected the request; see ``status_code`` and ``error_code``."""

    status = Status.SERVER_REFUSED

    @property
    def retry(self) -> bool:
        """Whether the server only was busy (429) or in trouble (500 and above)."""
        code = self.status_code or 0
        return code == ServerStatusCode.TOO_MANY_REQUESTS or 500 <= code < 600


class InDoubt(ProvisioningError):
    """The device may be registered, and neither the server's answers nor its certificate tell.

    Nothing is given up: key, certificate and journal stay as they are until the caller decides.
    """

    status = Status.SERVER_REFUSED


class BadAnswer(ProvisioningError):
    """An answer that is too large, cannot be decoded, or does not fit the request."""

    status = Status.BAD_RESPONSE


class Unreadable(BadAnswer):
    """An answer that does not even begin as JSON or CBOR; it may be empty."""

    status = Status.INTERNAL_FAILURE


class BadRequest(ProvisioningError):
    """An argument that no server can accept, such as the name of a template."""

    status = Status.BAD_PARAMETER


class InProgress(BadRequest):
    """An operation of the same kind is still running on this connection, or was not answered there.

    Answers carry nothing that tells two of them apart, so a second one is never begun.
    """


class StorageRefused(ProvisioningError):
    """The directory for the identity cannot be used, or must not be touched."""


class NoIdentity(StorageRefused):
    """There is no identity in the directory: the device has to be provisioned."""
