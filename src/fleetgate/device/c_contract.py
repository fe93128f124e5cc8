"""The contract of AWS's C provisioning library: statuses returned, answers handed to a callback.

For who ports a device program from C: the functions of ``aws_iot_provisioning.h`` are methods of
:class:`Provisioning` with the same order of steps, time-outs, statuses and answers. New programs
use :mod:`fleetgate.device.operations`, where the same operations return values and raise errors.

Every operation is synchronous: it checks its arguments, subscribes to both answers, publishes,
waits, and takes both subscriptions back. A readable answer, accepted or rejected, is handed to the
callback before the call returns, in the thread of the caller. What comes out is:

===================  ===============================================================  ========
Status               When                                                             callback
===================  ===============================================================  ========
SUCCESS              accepted                                                         yes
SERVER_REFUSED       rejected                                                         yes
NOT_INITIALIZED      ``init`` was not called, or it failed                            no
BAD_PARAMETER        an argument cannot be; found before anything is sent. Also a     no
                     second operation of a kind while one is running
MQTT_ERROR           SUBSCRIBE or PUBLISH refused or not acknowledged in time, or     no
                     the connection ended
TIMEOUT              no answer in time; one at that very moment still counts          no
BAD_RESPONSE         no map, a member missing or of the wrong type, larger than       no
                     128 KiB, an answer that breaks off
INTERNAL_FAILURE     what came does not even begin as CBOR (or JSON); it may be empty  no
NO_MEMORY            there was none for the request                                   no
INIT_FAILED          ``init`` only: the time-out is none                              no
===================  ===============================================================  ========

What differs from the C library: JSON is offered too; no lengths are passed, no memory is freed and
a closure takes the place of the user parameter; methods may be called from any thread; the CSR
call checks ``init`` like the others; subscriptions are taken back after every failure; a duplicate
or late answer calls nothing and is not taken for that to another request: after a TIMEOUT the same
may be asked again on the connection, anything else on its topics is BAD_PARAMETER there; a failed
``init`` has not initialized anything; ``strerror`` knows all ten. An empty text in an accepted
answer is a BAD_RESPONSE, and so is anything behind the map; what a callback raises leaves the call
after the subscriptions were given back; ``null`` in place of ``thingName`` or
``deviceConfiguration`` is none.

Source: AWS IoT Device SDK for Embedded C, branch v4_beta_deprecated, libraries/aws/provisioning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

from fleetgate.device import operations
from fleetgate.device.errors import (
    BadRequest,
    ProvisioningError,
    Rejected,
    ServerStatusCode,
    Status,
)
from fleetgate.device.exchange import MAX_SECONDS, MQTT_TIMEOUT, Terms
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.protocol import Issued, PayloadFormat, Registered

FLAG_ENCRYPT_CREDENTIALS = 0x1
"""The only flag there is; it has no effect."""

MAX_TEMPLATE_NAME_LENGTH = 36

_MAX_UINT32 = 2**32 - 1
_CLIENT = ("subscribe", "unsubscribe", "publish", "disconnect", "on_lost")

logger = logging.getLogger("fleetgate.device")

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RejectedResponse:
    """Why the server refused, in its words."""

    error_code: str
    error_message: str


@dataclass(frozen=True, slots=True)
class AcceptedKeysAndCertificate:
    """A certificate (PEM) with its id, the private key (PEM), and the token that proves both."""

    certificate_pem: str
    certificate_id: str
    private_key: str = field(repr=False)
    certificate_ownership_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AcceptedCertificateFromCsr:
    """A certificate (PEM) with its id, and the token that proves that it was issued here."""

    certificate_pem: str
    certificate_id: str
    certificate_ownership_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AcceptedRegisterThing:
    """``thing_name`` is None when there is none; the configuration may be empty."""

    thing_name: str | None
    device_configuration: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CreateKeysAndCertificateResponse:
    """Exactly one of ``accepted`` and ``rejected`` is there. ``status_code`` is a
    ServerStatusCode, or the plain number when it is another."""

    status_code: int
    accepted: AcceptedKeysAndCertificate | None = None
    rejected: RejectedResponse | None = None


@dataclass(frozen=True, slots=True)
class CreateCertificateFromCsrResponse:
    """As :class:`CreateKeysAndCertificateResponse`, without a private key."""

    status_code: int
    accepted: AcceptedCertificateFromCsr | None = None
    rejected: RejectedResponse | None = None


@dataclass(frozen=True, slots=True)
class RegisterThingResponse:
    """As :class:`CreateKeysAndCertificateResponse`, for a registration."""

    status_code: int
    accepted: AcceptedRegisterThing | None = None
    rejected: RejectedResponse | None = None


@dataclass(frozen=True, slots=True)
class RegisterThingRequest:
    """What is registered. ``parameters`` None leaves the member out of the request."""

    template_name: str
    certificate_id: str
    certificate_ownership_token: str = field(repr=False)
    parameters: Mapping[str, str] | None = field(default=None, repr=False)


KeysCallback: TypeAlias = Callable[[CreateKeysAndCertificateResponse], object]
CsrCallback: TypeAlias = Callable[[CreateCertificateFromCsrResponse], object]
RegisterCallback: TypeAlias = Callable[[RegisterThingResponse], object]

_STRINGS = {
    Status.SUCCESS: "SUCCESS",
    Status.INIT_FAILED: "INIT FAILED",
    Status.NOT_INITIALIZED: "NOT INITIALIZED",
    Status.BAD_PARAMETER: "BAD PARAMETER",
    Status.NO_MEMORY: "NO MEMORY",
    Status.BAD_RESPONSE: "BAD RESPONSE",
    Status.TIMEOUT: "TIMEOUT",
    Status.SERVER_REFUSED: "SERVER REFUSED",
    Status.INTERNAL_FAILURE: "FAILED: INTERNAL FAILURE",
    Status.MQTT_ERROR: "MQTT ERROR",
}


def strerror(status: int) -> str:
    """The C library's words for a status, ``INVALID STATUS`` for what is none."""
    try:
        return _STRINGS[Status(status)]
    except ValueError:
        return "INVALID STATUS"


class Provisioning:
    """The C library, on one connection. The connection stays the caller's, shared and open.

    ``error`` is what the last operation in this object failed with, for its words, or None.
    """

    def __init__(
        self, connection: MqttClient | None, payload_format: PayloadFormat = "cbor"
    ) -> None:
        """Without a `connection`, or with what is none, every operation is a BAD_PARAMETER.

        Raises BadRequest unless `payload_format` is ``cbor`` or ``json``.
        """
        Terms(payload_format)
        self._connection = connection
        self._payload_format: PayloadFormat = payload_format
        self._mqtt_timeout: float | None = None
        self.error: ProvisioningError | None = None

    def init(self, mqtt_timeout_ms: int = 0) -> Status:
        """Begin. Each packet's acknowledgement may take `mqtt_timeout_ms`; 0 means 5000.

        SUCCESS, also when it was called before (which changes nothing); INIT_FAILED for a time-out
        that is no unsigned 32-bit number.
        """
        if self._mqtt_timeout is not None:
            logger.warning("event=initialized-before")
            return Status.SUCCESS
        if not _is_uint32(mqtt_timeout_ms):
            return Status.INIT_FAILED
        self._mqtt_timeout = mqtt_timeout_ms / 1000 or MQTT_TIMEOUT
        return Status.SUCCESS

    def cleanup(self) -> None:
        """End; the default time-out applies again. Harmless before ``init``, and twice."""
        self._mqtt_timeout = None

    @property
    def mqtt_timeout_ms(self) -> int:
        """What an acknowledgement may take, in milliseconds."""
        seconds = MQTT_TIMEOUT if self._mqtt_timeout is None else self._mqtt_timeout
        return round(seconds * 1000)

    @staticmethod
    def strerror(status: int) -> str:
        """As :func:`strerror`."""
        return strerror(status)

    def create_keys_and_certificate(
        self,
        flags: int,
        timeout_ms: int,
        callback: KeysCallback | None,
    ) -> Status:
        """A certificate for a key that the server makes. Published at QoS 0.

        As in C no flag has an effect, and one that is not known does no harm.
        """

        def operation(client: MqttClient, terms: Terms) -> Issued:
            if not _is_uint32(flags):
                raise BadRequest(f"the flags are no unsigned 32-bit number: {flags!r:.80}")
            return operations.create_keys_and_certificate(client, terms)

        def accepted(issued: Issued) -> CreateKeysAndCertificateResponse:
            return CreateKeysAndCertificateResponse(
                ServerStatusCode.ACCEPTED,
                AcceptedKeysAndCertificate(
                    issued.certificate_pem,
                    issued.certificate_id,
                    issued.private_key or "",
                    issued.ownership_token,
                ),
            )

        def rejected(code: int, why: RejectedResponse) -> CreateKeysAndCertificateResponse:
            return CreateKeysAndCertificateResponse(code, rejected=why)

        return self._run(operation, 0, timeout_ms, callback, accepted, rejected)

    def create_certificate_from_csr(
        self, qos: int, csr: str | None, timeout_ms: int, callback: CsrCallback | None
    ) -> Status:
        """A certificate for the key that signed `csr` (PEM). Published at `qos`, 0 or 1."""

        def operation(client: MqttClient, terms: Terms) -> Issued:
            return operations.create_certificate_from_csr(client, csr or "", terms)

        def accepted(issued: Issued) -> CreateCertificateFromCsrResponse:
            return CreateCertificateFromCsrResponse(
                ServerStatusCode.ACCEPTED,
                AcceptedCertificateFromCsr(
                    issued.certificate_pem, issued.certificate_id, issued.ownership_token
                ),
            )

        def rejected(code: int, why: RejectedResponse) -> CreateCertificateFromCsrResponse:
            return CreateCertificateFromCsrResponse(code, rejected=why)

        return self._run(operation, qos, timeout_ms, callback, accepted, rejected)

    def register_thing(
        self,
        request: RegisterThingRequest | None,
        timeout_ms: int,
        callback: RegisterCallback | None,
    ) -> Status:
        """Register a certificate by a template. Published at QoS 0."""

        def operation(client: MqttClient, terms: Terms) -> Registered:
            if not isinstance(request, RegisterThingRequest):
                raise BadRequest(f"the request is no RegisterThingRequest: {_kind(request)}")
            parameters: object = request.parameters
            if parameters is not None and not isinstance(parameters, Mapping):
                raise BadRequest(f"the parameters are no mapping: {_kind(parameters)}")
            return operations.register_thing(
                client,
                request.template_name,
                request.certificate_ownership_token,
                request.parameters,
                terms,
                certificate_id=request.certificate_id or "",
            )

        def accepted(registered: Registered) -> RegisterThingResponse:
            return RegisterThingResponse(
                ServerStatusCode.ACCEPTED,
                AcceptedRegisterThing(registered.thing_name, registered.device_configuration),
            )

        def rejected(code: int, why: RejectedResponse) -> RegisterThingResponse:
            return RegisterThingResponse(code, rejected=why)

        return self._run(operation, 0, timeout_ms, callback, accepted, rejected)

    def _run(
        self,
        operation: Callable[[MqttClient, Terms], A],
        qos: int,
        timeout_ms: int,
        callback: Callable[[R], object] | None,
        accepted: Callable[[A], R],
        rejected: Callable[[int, RejectedResponse], R],
    ) -> Status:
        """Do it, hand the answer to `callback`, and say how it went."""
        self.error = None
        if self._mqtt_timeout is None:
            return Status.NOT_INITIALIZED
        try:
            response = accepted(self._answer(operation, qos, timeout_ms, callback))
            status = Status.SUCCESS
        except Rejected as error:
            self.error = error
            code = _server_status(error.status_code or 0)
            response = rejected(
                code, RejectedResponse(error.error_code or "", error.error_message or "")
            )
            status = Status.SERVER_REFUSED
        except ProvisioningError as error:
            self.error = error
            return error.status
        except MemoryError:
            return Status.NO_MEMORY
        if callback is not None:
            callback(response)
        return status

    def _answer(
        self,
        operation: Callable[[MqttClient, Terms], A],
        qos: int,
        timeout_ms: int,
        callback: object,
    ) -> A:
        if not all(callable(getattr(self._connection, name, None)) for name in _CLIENT):
            raise BadRequest(f"the connection is no MQTT client: {_kind(self._connection)}")
        if not callable(callback):
            raise BadRequest(f"the callback cannot be called: {_kind(callback)}")
        if not _is_uint32(timeout_ms):
            raise BadRequest(f"the time-out is no number of milliseconds: {timeout_ms!r:.80}")
        if not _is_uint32(qos):
            raise BadRequest(f"the QoS is no number: {qos!r:.80}")
        terms = Terms(
            self._payload_format,
            qos,
            _seconds(timeout_ms / 1000),
            _seconds(self._mqtt_timeout or MQTT_TIMEOUT),
        )
        return operation(cast("MqttClient", self._connection), terms)


def _seconds(given: float) -> float:
    """Nearest to `given` that terms may have: C has 0 and 49 days among its milliseconds."""
    return min(max(given, 0.001), MAX_SECONDS)


def _is_uint32(value: object) -> bool:
    # a bool is an int, too
    return isinstance(value, int) and type(value) is not bool and 0 <= value <= _MAX_UINT32


def _kind(value: object) -> str:
    return f"{value!r:.80}" if value is None else f"a {type(value).__name__}"


def _server_status(code: int) -> int:
    try:
        return ServerStatusCode(code)
    except ValueError:
        return code
