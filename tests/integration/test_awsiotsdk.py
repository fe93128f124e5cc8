"""AWS's device SDK for Python: both generations of its identity client, both MQTT versions."""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import awsiot
import pytest
from awscrt import mqtt, mqtt5
from awscrt.mqtt_request_response import ClientOptions
from awsiot import iotidentity

from tests.integration.crt_device import WITHIN, Crt5, Crt311, crt_5, crt_311
from tests.integration.fleet import Fleet, Identity, signing_request, write_identity
from tests.integration.paho_device import PahoDevice
from tests.integration.server import Server

Opener = Callable[[Server, Identity, str], AbstractContextManager[Crt311 | Crt5]]

TRANSPORTS = [pytest.param(crt_311, id="mqtt311"), pytest.param(crt_5, id="mqtt5")]
METHODS = pytest.mark.parametrize("keys", [True, False], ids=["keys", "csr"])
QOS = mqtt.QoS.AT_LEAST_ONCE


class Rejected(Exception):
    """The first generation's `rejected` message."""


class FirstGeneration:
    """IotIdentityClient: subscribe, publish, wait for the callback."""

    def __init__(self, transport: Any) -> None:
        self.client = iotidentity.IotIdentityClient(transport)
        self.answers: queue.Queue[Any] = queue.Queue()

    def _subscribe(self, operation: str, request: Any) -> None:
        for end in ("accepted", "rejected"):
            subscribe = getattr(self.client, f"subscribe_to_{operation}_{end}")
            future, _ = subscribe(request=request, qos=QOS, callback=self.answers.put)
            assert future.result(WITHIN) == QOS

    def _answer(self) -> Any:
        answer = self.answers.get(timeout=WITHIN)
        if isinstance(answer, iotidentity.ErrorResponse):
            raise Rejected(f"{answer.status_code} {answer.error_code}: {answer.error_message}")
        assert answer is not None, "the payload could not be decoded"
        return answer

    def create_keys(self) -> Any:
        self._subscribe(
            "create_keys_and_certificate",
            iotidentity.CreateKeysAndCertificateSubscriptionRequest(),
        )
        self.client.publish_create_keys_and_certificate(
            request=iotidentity.CreateKeysAndCertificateRequest(), qos=QOS
        ).result(WITHIN)
        return self._answer()

    def create_from_csr(self, csr: str) -> Any:
        self._subscribe(
            "create_certificate_from_csr",
            iotidentity.CreateCertificateFromCsrSubscriptionRequest(),
        )
        self.client.publish_create_certificate_from_csr(
            request=iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=csr),
            qos=QOS,
        ).result(WITHIN)
        return self._answer()

    def register(self, template: str, token: str, parameters: dict[str, str]) -> Any:
        self._subscribe(
            "register_thing", iotidentity.RegisterThingSubscriptionRequest(template_name=template)
        )
        self.client.publish_register_thing(
            request=iotidentity.RegisterThingRequest(
                template_name=template, certificate_ownership_token=token, parameters=parameters
            ),
            qos=QOS,
        ).result(WITHIN)
        return self._answer()


class SecondGeneration:
    """IotIdentityClientV2: one future per request."""

    def __init__(self, transport: Any) -> None:
        options = ClientOptions(max_request_response_subscriptions=2, max_streaming_subscriptions=1)
        options.operation_timeout_in_seconds = int(WITHIN)
        self.client = iotidentity.IotIdentityClientV2(transport, options)

    def create_keys(self) -> Any:
        request = iotidentity.CreateKeysAndCertificateRequest()
        return self.client.create_keys_and_certificate(request).result(WITHIN)

    def create_from_csr(self, csr: str) -> Any:
        request = iotidentity.CreateCertificateFromCsrRequest(certificate_signing_request=csr)
        return self.client.create_certificate_from_csr(request).result(WITHIN)

    def register(self, template: str, token: str, parameters: dict[str, str]) -> Any:
        request = iotidentity.RegisterThingRequest(
            template_name=template, certificate_ownership_token=token, parameters=parameters
        )
        return self.client.register_thing(request).result(WITHIN)


GENERATIONS = [
    pytest.param(FirstGeneration, id="IotIdentityClient"),
    pytest.param(SecondGeneration, id="IotIdentityClientV2"),
]


@METHODS
@pytest.mark.parametrize("opened", TRANSPORTS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_device_gets_its_identity_and_uses_it(
    server: Server,
    shared_fleet: Fleet,
    observer: PahoDevice,
    name: str,
    tmp_path: Path,
    *,
    generation: type[FirstGeneration | SecondGeneration],
    opened: Opener,
    keys: bool,
) -> None:
    fleet, thing = shared_fleet, shared_fleet.thing(name)
    with opened(server, fleet.claim, f"claim-{thing}") as claim:
        client = generation(claim.transport)
        if keys:
            made = client.create_keys()
            key = made.private_key
            assert key.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
        else:
            request = signing_request(thing)
            made, key = client.create_from_csr(request.csr), request.key
        parameters = {"SerialNumber": name}
        registered = client.register(fleet.template, made.certificate_ownership_token, parameters)
        assert registered.thing_name == thing
        assert registered.device_configuration == {"greeting": "hello", "serial": name}
        del client

    own = write_identity(tmp_path, thing, made.certificate_pem, key, made.certificate_id)
    with opened(server, own, thing) as device:
        assert device.publish(f"devices/{thing}/data", b"hello")
        message = observer.message()
        assert (message.topic, message.payload) == (f"devices/{thing}/data", b"hello")

        assert not device.publish("devices/another/data", b"stray")
        if isinstance(device, Crt5):
            packet = device.disconnects.get(timeout=WITHIN).disconnect_packet
            assert packet.reason_code == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED
    observer.publish("devices/fence", b"")
    assert observer.message().topic == "devices/fence"


@pytest.mark.parametrize("opened", TRANSPORTS)
def test_a_rejection_reaches_the_second_generation_as_a_modeled_error(
    server: Server, shared_fleet: Fleet, name: str, opened: Opener
) -> None:
    with opened(server, shared_fleet.claim, f"claim-{name}") as claim:
        client = SecondGeneration(claim.transport)
        with pytest.raises(awsiot.V2ServiceException) as caught:
            client.register(shared_fleet.template, "", {})
        error = caught.value.modeled_error
        assert (error.status_code, error.error_code, error.error_message) == (
            400,
            "InvalidCertificateOwnershipToken",
            "Certificate ownership token cannot be empty.",
        )
        del client


@pytest.mark.parametrize("opened", TRANSPORTS)
def test_a_rejection_reaches_the_first_generation(
    server: Server, shared_fleet: Fleet, name: str, opened: Opener
) -> None:
    with opened(server, shared_fleet.claim, f"claim-{name}") as claim:
        client = FirstGeneration(claim.transport)
        with pytest.raises(Rejected, match=r"^400 InvalidCsr: "):
            client.create_from_csr("gibberish")
