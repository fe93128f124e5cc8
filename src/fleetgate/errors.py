"""The one error tree.

Everything Fleetgate raises on purpose is an :class:`Error`. Three branches leave it:

* :class:`ServiceError`: an answer of the API. One class per AWS code; the class name is the
  code and ``status`` its HTTP status (botocore's ``iot`` model, checked by a test). Two places
  turn it into bytes: ``wire.restjson`` (HTTP) and ``gateway.reserved`` (MQTT ``rejected``).
* :class:`ProtocolError`: an MQTT peer broke the rules; ``reason`` is the MQTT 5 reason code.
* the errors of the pure core (:class:`InvalidTemplate`, :class:`InvalidCsr`,
  :class:`InvalidToken`): they know what is wrong but not through which door the input came;
  the operation that called turns them into the ``ServiceError`` of its door.

Messages are lower case where they are ours and put back-ticks round what the user sent; where
AWS's own wording is known it is used as it is.
"""

from __future__ import annotations

from typing import Any, ClassVar


def told(error: Exception) -> str:
    """The message of an error with what it says for operators alone (its notes, PEP 678)."""
    message = error.message if isinstance(error, Error) else str(error)
    return "; ".join((message, *getattr(error, "__notes__", ())))


class Error(Exception):
    """Anything Fleetgate raises on purpose. ``message`` is fit to be shown to the caller."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ProtocolError(Error):
    """The MQTT peer broke the protocol; the connection has to be closed.

    ``reason`` is an MQTT 5 reason code (MQTT 5.0 section 2.4), e.g. 0x81 malformed packet,
    0x82 protocol error, 0x95 packet too large.
    """

    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidTemplate(Error):
    """A provisioning template, or its evaluation, breaks a rule.

    ``path`` is the place in the template (``Resources.thing.Properties.ThingName``), ``rule``
    what must hold there; both are part of the message.
    """

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(f"{path}: {rule}" if path else rule)
        self.path = path
        self.rule = rule


class InvalidCsr(Error):
    """A certificate signing request that cannot be honoured."""


class InvalidFaultScript(Error):
    """A fault script breaks a rule; the message names fault, key, rule and value."""


class InputFileError(Error):
    """The input file of a bulk registration cannot be read; the message says why.

    `passing` when it may be there again without anything being asked anew: a service answers, a
    setting is put right. `no_bucket` when the S3 service has no bucket of this name.
    """

    def __init__(self, message: str, *, passing: bool = False, no_bucket: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.no_bucket = no_bucket


class InvalidToken(Error):
    """A certificate ownership token that proves nothing (forged, foreign or expired)."""


class ServiceError(Error):
    """An answer of the API that is not a success. ``members`` are further members of the body."""

    status: ClassVar[int] = 500

    def __init__(self, message: str, **members: Any) -> None:
        super().__init__(message)
        self.members = members

    @classmethod
    def code(cls) -> str:
        """The AWS error code: the name of the class."""
        return cls.__name__


# --- what the iot service model declares ---------------------------------------------------


class InvalidRequestException(ServiceError):
    status = 400


class ThrottlingException(ServiceError):
    status = 400


class Throttling(ServiceError):
    """IAM's own (IAM API Reference, "Common Errors")."""

    status = 400


class MalformedPolicyException(ServiceError):
    status = 400


class CertificateValidationException(ServiceError):
    status = 400


class RegistrationCodeValidationException(ServiceError):
    status = 400


class ResourceRegistrationFailureException(ServiceError):
    status = 400


class ResourceNotFoundException(ServiceError):
    status = 404


class NotConfiguredException(ServiceError):
    status = 404


class CertificateStateException(ServiceError):
    status = 406


class ResourceAlreadyExistsException(ServiceError):
    """Carries ``resourceId`` and ``resourceArn``."""

    status = 409


class CertificateConflictException(ServiceError):
    status = 409


class DeleteConflictException(ServiceError):
    status = 409


class TransferConflictException(ServiceError):
    status = 409


class ConflictingResourceUpdateException(ServiceError):
    status = 409


class VersionConflictException(ServiceError):
    status = 409


class VersionsLimitExceededException(ServiceError):
    status = 409


class LimitExceededException(ServiceError):
    status = 410


class InternalFailureException(ServiceError):
    status = 500


class ServiceUnavailableException(ServiceError):
    status = 503


# --- what the HTTP front door of every AWS service answers -----------------------------------


class MissingAuthenticationTokenException(ServiceError):
    status = 403


class UnrecognizedClientException(ServiceError):
    status = 403


class IncompleteSignatureException(ServiceError):
    status = 400


class InvalidSignatureException(ServiceError):
    status = 403


class AccessDeniedException(ServiceError):
    status = 403


class ExpiredTokenException(ServiceError):
    status = 403


class UnknownOperationException(ServiceError):
    status = 404


class SerializationException(ServiceError):
    status = 400


class RequestEntityTooLargeException(ServiceError):
    status = 413


class NotImplementedException(ServiceError):
    """An operation of the service model that this server does not offer."""

    status = 501


# --- what the iam and sts service models declare ----------------------------------------------


class NoSuchEntity(ServiceError):
    status = 404


class EntityAlreadyExists(ServiceError):
    status = 409


class DeleteConflict(ServiceError):
    status = 409


class LimitExceeded(ServiceError):
    status = 409


class InvalidInput(ServiceError):
    status = 400


class InvalidUserType(ServiceError):
    status = 400


class MalformedPolicyDocument(ServiceError):
    status = 400


class InvalidParameterValue(ServiceError):
    """Of STS: tags of a session that are at odds with one another."""

    status = 400


class PackedPolicyTooLarge(ServiceError):
    """Of STS: policies and tags of a session do not fit into its token."""

    status = 400


class PasswordPolicyViolation(ServiceError):
    status = 400


# --- what the lambda service model declares ----------------------------------------------------


class ValidationException(ServiceError):
    """What breaks a constraint of Lambda's model (recorded from AWS; not declared)."""

    status = 400


class InvalidParameterValueException(ServiceError):
    status = 400


class ResourceConflictException(ServiceError):
    status = 409


class PreconditionFailedException(ServiceError):
    status = 412


class PolicyLengthExceededException(ServiceError):
    status = 400


class CodeStorageExceededException(ServiceError):
    status = 400


class CodeVerificationFailedException(ServiceError):
    status = 400


class InvalidRequestContentException(ServiceError):
    status = 400


class InvalidRuntimeException(ServiceError):
    status = 502


class InvalidZipFileException(ServiceError):
    status = 502


class ServiceException(ServiceError):
    status = 500


# --- what the front door of every service of the Query protocol answers -----------------------
# Source: IAM API Reference, "Common Errors".


class InvalidAction(ServiceError):
    status = 400


class MissingAction(ServiceError):
    status = 400


class MalformedQueryString(ServiceError):
    status = 404


class ValidationError(ServiceError):
    status = 400


# --- what only the MQTT provisioning operations answer (data/provisioning.json) --------------


class InvalidPayloadException(ServiceError):
    status = 400


class InvalidParametersException(ServiceError):
    status = 400


class InvalidCsrException(ServiceError):
    status = 400


class InvalidCertificateOwnershipTokenException(ServiceError):
    status = 400


class TooManyRequestsException(ServiceError):
    status = 429


class InternalErrorException(ServiceError):
    status = 500
