"""The device library's operations against a running server: awaited, refused, and after errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fleetgate.device import operations, paho_client
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import BadAnswer, NotAuthorized, Rejected, Status
from fleetgate.device.exchange import Terms
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.protocol import PayloadFormat, Registered
from fleetgate.mqtt.packets import Version
from tests.integration.fleet import Fleet, signing_request
from tests.integration.server import Server


@pytest.fixture(params=[4, 5])
def version(request: pytest.FixtureRequest) -> Version:
    return 4 if request.param == 4 else 5


@pytest.fixture
def client(
    server: Server, shared_fleet: Fleet, name: str, version: Version
) -> Iterator[MqttClient]:
    endpoint = Endpoint("localhost", server.mqtt_port, server.ca_file, mqtt_version=version)
    claim = Credentials(shared_fleet.claim.certificate, shared_fleet.claim.key)
    made = paho_client.connect(endpoint, claim, f"claim-{name}")
    yield made
    made.disconnect().result(10)


@pytest.mark.parametrize("payload_format", ["json", "cbor"])
def test_a_device_is_registered_awaiting(
    client: MqttClient, shared_fleet: Fleet, name: str, payload_format: PayloadFormat
) -> None:
    async def onboard() -> Registered:
        terms = Terms(payload_format)
        request = signing_request("device")
        keys, issued = await asyncio.gather(
            operations.create_keys_and_certificate_async(client, terms),
            operations.create_certificate_from_csr_async(client, request.csr, terms),
        )
        assert keys.certificate_id != issued.certificate_id
        return await operations.register_thing_async(
            client, shared_fleet.template, issued.ownership_token, {"SerialNumber": name}, terms
        )

    assert asyncio.run(onboard()).thing_name == shared_fleet.thing(name)


def test_what_the_policy_does_not_allow_is_named(client: MqttClient) -> None:
    with pytest.raises(NotAuthorized) as caught:
        operations.register_thing(client, "another", "token")
    topic = "$aws/provisioning-templates/another/provision/json/accepted"
    assert (caught.value.step, caught.value.topic) == ("subscribe", topic)
    assert (caught.value.action, caught.value.retry) == ("iot:Subscribe", False)
    assert f"iot:Subscribe on `topicfilter/{topic}`" in caught.value.message


def test_the_connection_serves_on_after_errors(client: MqttClient, shared_fleet: Fleet) -> None:
    with pytest.raises(Rejected) as caught:
        operations.register_thing(client, shared_fleet.template, "no token", {"SerialNumber": "x"})
    assert (caught.value.step, caught.value.status) == ("register", Status.SERVER_REFUSED)
    assert not caught.value.retry
    with pytest.raises(BadAnswer, match="more than the 100 that this device takes"):
        operations.create_certificate_from_csr(
            client, signing_request("device").csr, Terms(max_answer_size=100)
        )
    assert operations.create_keys_and_certificate(client).private_key
