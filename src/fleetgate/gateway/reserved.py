"""The MQTT door of the provisioning operations: reserved topics in, one reply out.

A request topic names the operation and the format of payload and reply; the reply goes to the
request's topic with ``/accepted`` or ``/rejected`` behind it. Source: AWS IoT developer guide,
"Device provisioning MQTT API".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fleetgate.errors import (
    AccessDeniedException,
    InternalErrorException,
    InvalidParametersException,
    InvalidPayloadException,
    InvalidRequestException,
    SerializationException,
    ServiceError,
    ServiceUnavailableException,
    TooManyRequestsException,
)
from fleetgate.gateway.services import ProvisioningRequest, Reply
from fleetgate.operations.call import Call, Services
from fleetgate.operations.dispatch import invoke
from fleetgate.wire import payload
from fleetgate.wire.model import Service
from fleetgate.wire.restjson import decode_document

log = logging.getLogger("fleetgate.provisioning")

METHOD = "PUBLISH"

# what the common code raises, as the MQTT API calls it
_AS_MQTT: dict[type[ServiceError], type[ServiceError]] = {
    InvalidRequestException: InvalidParametersException,
    SerializationException: InvalidPayloadException,
    ServiceUnavailableException: TooManyRequestsException,
}


@dataclass(frozen=True, slots=True)
class Reserved:
    """The provisioning operations by topic; `model` is that of ``data/provisioning.json``."""

    services: Services
    model: Service

    def is_request(self, topic: str) -> bool:
        """Whether a topic is the request topic of a provisioning operation."""
        found = self.model.route(METHOD, topic)
        return found is not None and found[1]["payloadFormat"] in payload.FORMATS

    async def provision(self, request: ProvisioningRequest) -> Reply:
        """Carries out one request; what fails is a ``rejected`` reply, never an exception."""
        found = self.model.route(METHOD, request.topic)
        if found is None:
            raise ValueError(f"{request.topic} is no request topic")
        operation, labels = found
        payload_format = labels["payloadFormat"]
        services = self.services
        call = Call(
            *(services, services.new_id(), services.now() + request.clock_skew),
            *(request.client_id, request.identity),
            topic=request.topic,
            peer=request.peer,
            aside=request.aside,
        )
        try:
            document = (
                payload.decode(payload_format, request.payload)
                if operation.input is not None and operation.input.reads_body
                else None
            )
            params = decode_document(operation, labels, document)
            result = await invoke(call, "provisioning", operation, params)
            body = payload.encode(payload_format, result)
        except Exception as error:
            rejected = _rejected(error)
            if not isinstance(error, ServiceError):
                log.exception("event=defect request=%s", call.request_id)
            log.warning(
                "event=rejected operation=%s client=%r certificate=%s request=%s status=%d "
                "code=%s message=%r",
                operation.name,
                request.client_id,
                request.identity.logged,
                call.request_id,
                rejected.status,
                error_code(rejected),
                "; ".join((rejected.message, *getattr(error, "__notes__", ()))),
            )
            return Reply(f"{request.topic}/rejected", encode_rejected(payload_format, rejected))
        log.info(
            "event=accepted operation=%s client=%r certificate=%s request=%s",
            operation.name,
            request.client_id,
            request.identity.logged,
            call.request_id,
        )
        return Reply(f"{request.topic}/accepted", body)


def error_code(error: ServiceError) -> str:
    """The ``errorCode`` of an error: its AWS code without ``Exception``."""
    return error.code().removesuffix("Exception")


def encode_rejected(payload_format: str, error: ServiceError) -> bytes:
    """The payload of a ``rejected`` reply: ``statusCode``, ``errorCode``, ``errorMessage``."""
    return payload.encode(payload_format, _members(error))


def refusal(error: ServiceError) -> dict[str, object]:
    """The members of the ``rejected`` reply that an operation ends with by this error."""
    return _members(_rejected(error))


def _members(error: ServiceError) -> dict[str, object]:
    return {
        "statusCode": error.status,
        "errorCode": error_code(error),
        "errorMessage": error.message,
    }


def _rejected(error: Exception) -> ServiceError:
    """Any failure as an error of the MQTT API."""
    if not isinstance(error, ServiceError):
        return InternalErrorException("internal error")
    known = _AS_MQTT.get(type(error))
    if known is not None:
        return known(error.message)
    if error.status == 403:
        return AccessDeniedException(error.message)
    return error
