"""What ends by itself: ownership tokens, pending certificates and temporary claims."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.databases import settings_of
from tests.integration.fleet import (
    CSR,
    create_fleet,
    register_topic,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.refusal import everything
from tests.integration.server import Server

LIFE = 2.0
SWEPT_WITHIN = 35.0


@pytest.fixture
def short_lived(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server whose tokens and temporary claims live for LIFE seconds."""
    settings = {
        **settings_of(database, request),
        "FLEETGATE_OWNERSHIP_TOKEN_SECONDS": str(LIFE),
        "FLEETGATE_PROVISIONING_CLAIM_SECONDS": str(LIFE),
    }
    with Server(tmp_path / "data", env=settings) as server:
        yield server


def test_expired_things_are_refused_and_swept(short_lived: Server, tmp_path: Path) -> None:
    """AWS IoT Core developer guide, "Device provisioning MQTT API": a certificate that has not
    been activated when its token expires is deleted."""
    server = short_lived
    fleet = create_fleet(server, tmp_path, "short")
    register = register_topic(fleet.template)
    made = server.iot.create_provisioning_claim(templateName=fleet.template)
    temporary = write_identity(
        tmp_path,
        "temporary",
        made["certificatePem"],
        made["keyPair"]["PrivateKey"],
        made["certificateId"],
    )
    with PahoDevice(server, temporary, "temporary"):
        pass
    with PahoDevice(server, fleet.claim, "short") as device:
        device.listen(CSR, register)
        kept, _ = device.create(request=signing_request("kept"))
        lost, _ = device.create(request=signing_request("lost"))

        def body(token: str, serial: str) -> dict[str, object]:
            return {"certificateOwnershipToken": token, "parameters": {"SerialNumber": serial}}

        device.accepted(register, body(kept["certificateOwnershipToken"], "kept"))
        time.sleep(LIFE + 0.5)
        rejected = device.rejected(register, body(lost["certificateOwnershipToken"], "lost"))
        assert rejected["statusCode"] == 400
        assert rejected["errorCode"] == "InvalidCertificateOwnershipToken"
        rejected = device.rejected(register, body(kept["certificateOwnershipToken"], "kept"))
        assert rejected["errorCode"] == "InvalidCertificateOwnershipToken"
    with pytest.raises(Refused), PahoDevice(server, temporary, "temporary"):
        pass

    server.terminate()
    server.start()  # it looks for expired certificates when it starts, and then periodically
    end = time.monotonic() + SWEPT_WITHIN
    while True:
        listed = everything(server.iot, "list_certificates", "certificates")
        ids = {entry["certificateId"] for entry in listed}
        if lost["certificateId"] not in ids:
            break
        assert time.monotonic() < end, "the pending certificate is still there"
        time.sleep(0.1)
    assert ids == {fleet.claim.id, kept["certificateId"]}
