"""What the functions that sign have in common: what they are asked, and how they answer.

Source: AWS IoT Core Developer Guide, "Self-managed certificate signing using AWS IoT Core
certificate provider", sections on the function's input and output.
"""

from __future__ import annotations

import msgspec

from fleetgate.errors import Error
from fleetgate.functions.target import LOG_TAIL, Run


class Refused(Error):
    """A request is not signed. ``error_type`` is what Lambda would name the exception."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


class Request(msgspec.Struct, rename="camel", frozen=True):
    """The event: a request (PEM), the claim certificate's id, the MQTT client id."""

    certificate_signing_request: str
    principal_id: str = ""
    client_id: str = ""


def request_of(event: bytes) -> Request:
    """The request in an event (JSON). Raises Refused."""
    try:
        return msgspec.json.decode(event, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(
            "InvalidEvent",
            f"a certificate provider is given an object with `certificateSigningRequest`: {error}",
        ) from None


def signed(certificate_pem: str, log: str = "") -> Run:
    """The run that ended with a certificate."""
    return Run(msgspec.json.encode({"certificatePem": certificate_pem}), log=_tail(log))


def refused(error: Refused) -> Run:
    """The run that ended without one, as Lambda describes an exception."""
    answer = {"errorType": error.error_type, "errorMessage": error.message}
    log = f"{error.error_type}: {error.message}"
    return Run(msgspec.json.encode(answer), error="Unhandled", log=_tail(log))


def _tail(log: str) -> str:
    return log.encode("utf-8")[-LOG_TAIL:].decode("utf-8", "ignore")
