"""The five system tests of AWS's C library, by its contract, against a running server.

Source: AWS IoT Device SDK for Embedded C, v4 beta, libraries/aws/provisioning/test/system: group
Provisioning_System; CBOR, a time-out of 60 000 ms, and keep-alive of as many seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from cryptography import x509

from fleetgate.device import paho_client
from fleetgate.device.c_contract import (
    CreateCertificateFromCsrResponse,
    CreateKeysAndCertificateResponse,
    Provisioning,
    RegisterThingRequest,
    RegisterThingResponse,
    RejectedResponse,
)
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import ServerStatusCode, Status
from fleetgate.device.mqtt_client import MqttClient
from tests.integration.fleet import Fleet, signing_request
from tests.integration.server import Server

TIMEOUT_MS = 60_000


@pytest.fixture
def connection(server: Server, shared_fleet: Fleet, name: str) -> Iterator[MqttClient]:
    """A claim's connection on MQTT 3.1.1; afterwards no thread of it is left."""
    before = threading.active_count()
    endpoint = Endpoint(
        "localhost", server.mqtt_port, server.ca_file, mqtt_version=4, keep_alive=60_000
    )
    claim = Credentials(shared_fleet.claim.certificate, shared_fleet.claim.key)
    client = paho_client.connect(endpoint, claim, f"SystemTestClientID-{name}")
    yield client
    client.disconnect().result(10)
    assert threading.active_count() == before


@pytest.fixture
def provisioning(connection: MqttClient) -> Iterator[Provisioning]:
    made = Provisioning(connection)
    assert made.init(0) == Status.SUCCESS
    yield made
    made.cleanup()


def keys(provisioning: Provisioning) -> CreateKeysAndCertificateResponse:
    given: list[CreateKeysAndCertificateResponse] = []
    status = provisioning.create_keys_and_certificate(0, TIMEOUT_MS, given.append)
    assert (status, len(given)) == (Status.SUCCESS, 1), provisioning.error
    assert given[0].status_code == ServerStatusCode.ACCEPTED
    return given[0]


def from_csr(provisioning: Provisioning, csr: str) -> CreateCertificateFromCsrResponse:
    given: list[CreateCertificateFromCsrResponse] = []
    status = provisioning.create_certificate_from_csr(1, csr, TIMEOUT_MS, given.append)
    assert (status, len(given)) == (Status.SUCCESS, 1), provisioning.error
    return given[0]


def register(
    provisioning: Provisioning, fleet: Fleet, serial: str, certificate_id: str, token: str
) -> None:
    given: list[RegisterThingResponse] = []
    request = RegisterThingRequest(fleet.template, certificate_id, token, {"SerialNumber": serial})
    status = provisioning.register_thing(request, TIMEOUT_MS, given.append)
    assert status == Status.SUCCESS, provisioning.error
    (response,) = given
    assert response.status_code == ServerStatusCode.ACCEPTED
    assert response.accepted is not None
    assert response.accepted.thing_name == fleet.thing(serial)
    assert response.accepted.device_configuration == {"greeting": "hello", "serial": serial}


def test_create_keys_and_certificate_nominal_case(provisioning: Provisioning) -> None:
    accepted = keys(provisioning).accepted
    assert accepted is not None
    assert "PRIVATE KEY" in accepted.private_key
    x509.load_pem_x509_certificate(accepted.certificate_pem.encode())
    assert len(accepted.certificate_id) == 64
    assert accepted.certificate_ownership_token


def test_create_cert_from_csr_nominal_case(provisioning: Provisioning) -> None:
    accepted = from_csr(provisioning, signing_request("device").csr).accepted
    assert accepted is not None
    x509.load_pem_x509_certificate(accepted.certificate_pem.encode())
    assert len(accepted.certificate_id) == 64


def test_create_cert_from_csr_with_invalid_csr(provisioning: Provisioning) -> None:
    given: list[CreateCertificateFromCsrResponse] = []
    status = provisioning.create_certificate_from_csr(1, "GibberishCsr", TIMEOUT_MS, given.append)
    assert status == Status.SERVER_REFUSED
    assert [each.status_code for each in given] == [ServerStatusCode.INVALID_CSR]
    assert isinstance(given[0].rejected, RejectedResponse)
    assert given[0].rejected.error_code == "InvalidCsr"


def test_register_thing_with_keys_and_cert_nominal_case(
    provisioning: Provisioning, shared_fleet: Fleet, name: str
) -> None:
    made = keys(provisioning).accepted
    assert made is not None
    token = made.certificate_ownership_token
    register(provisioning, shared_fleet, f"{name}-keys", made.certificate_id, token)


def test_register_thing_with_cert_from_csr_nominal_case(
    provisioning: Provisioning, shared_fleet: Fleet, name: str
) -> None:
    made = from_csr(provisioning, signing_request("device").csr).accepted
    assert made is not None
    token = made.certificate_ownership_token
    register(provisioning, shared_fleet, f"{name}-csr", made.certificate_id, token)
