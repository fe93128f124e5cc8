"""Statuses and what may be tried again.

Source of the numbers: aws_iot_provisioning_types.h of the AWS IoT Device SDK for Embedded C
(v4 beta).
"""

from __future__ import annotations

import pytest

from fleetgate.device import errors
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ClientFailed,
    ConnectionFailed,
    ConnectionLost,
    InDoubt,
    InProgress,
    NoAnswer,
    NotAcknowledged,
    NotAuthorized,
    PacketTooLarge,
    ProvisioningError,
    Rejected,
    ServerStatusCode,
    Status,
    StorageRefused,
    Unreadable,
)
from fleetgate.mqtt.reasons import Reason


def refused(reason: int | None) -> NotAuthorized:
    return NotAuthorized("no", topic="t", action="iot:Subscribe", reason_code=reason)


def rejected(code: int) -> Rejected:
    return Rejected("no", status_code=code, error_code="X", error_message="x")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (ConnectionFailed("no"), Status.MQTT_ERROR, True),
        (ConnectionFailed("no such file", retry=False), Status.MQTT_ERROR, False),
        (ConnectionLost("no"), Status.MQTT_ERROR, True),
        (PacketTooLarge("no"), Status.BAD_RESPONSE, False),
        (ClientFailed("no"), Status.MQTT_ERROR, False),
        (NotAcknowledged("no"), Status.MQTT_ERROR, True),
        (refused(None), Status.MQTT_ERROR, False),
        (refused(Reason.UNSPECIFIED_ERROR), Status.MQTT_ERROR, False),
        (refused(Reason.NOT_AUTHORIZED), Status.MQTT_ERROR, False),
        (refused(Reason.QUOTA_EXCEEDED), Status.MQTT_ERROR, True),
        (InDoubt("no"), Status.SERVER_REFUSED, False),
        (NoAnswer("no"), Status.TIMEOUT, True),
        (rejected(400), Status.SERVER_REFUSED, False),
        (rejected(403), Status.SERVER_REFUSED, False),
        (rejected(404), Status.SERVER_REFUSED, False),
        (rejected(409), Status.SERVER_REFUSED, False),
        (rejected(429), Status.SERVER_REFUSED, True),
        (rejected(500), Status.SERVER_REFUSED, True),
        (rejected(503), Status.SERVER_REFUSED, True),
        (rejected(0), Status.SERVER_REFUSED, False),
        (BadAnswer("no"), Status.BAD_RESPONSE, False),
        (Unreadable("no"), Status.INTERNAL_FAILURE, False),
        (BadRequest("no"), Status.BAD_PARAMETER, False),
        (InProgress("no"), Status.BAD_PARAMETER, False),
        (StorageRefused("no"), Status.INTERNAL_FAILURE, False),
        (ProvisioningError("no"), Status.INTERNAL_FAILURE, False),
    ],
)
def test_status_and_retry(error: ProvisioningError, status: Status, retry: bool) -> None:
    assert error.status is status
    assert error.retry is retry


def test_the_table_in_the_documentation_has_every_class() -> None:
    classes: list[type] = [ProvisioningError, *ProvisioningError.__subclasses__()]
    for one in ProvisioningError.__subclasses__():
        classes += one.__subclasses__()
    assert errors.__doc__ is not None
    for each in classes:
        if each.__module__ == errors.__name__:
            assert each.__name__ in errors.__doc__, each


def test_the_numbers_are_those_of_the_c_library() -> None:
    assert {each.name: each.value for each in Status} == {
        "SUCCESS": 1,
        "INIT_FAILED": 2,
        "NOT_INITIALIZED": 3,
        "BAD_PARAMETER": 4,
        "NO_MEMORY": 5,
        "BAD_RESPONSE": 6,
        "TIMEOUT": 7,
        "SERVER_REFUSED": 8,
        "INTERNAL_FAILURE": 9,
        "MQTT_ERROR": 10,
    }
    assert {each.name: each.value for each in ServerStatusCode} == {
        "ACCEPTED": 202,
        "INVALID_CSR": 400,
        "FORBIDDEN": 403,
        "NOT_FOUND": 404,
        "TOO_MANY_REQUESTS": 429,
        "INTERNAL_SERVER_ERROR": 500,
    }


def test_the_first_step_to_be_named_stays() -> None:
    error = NoAnswer("silence", topic="t", waited=2)
    error.at("create")
    error.at("register")
    assert (error.step, error.message, str(error)) == (
        "create",
        "create: silence",
        "create: silence",
    )
    assert (error.topic, error.waited) == ("t", 2)
