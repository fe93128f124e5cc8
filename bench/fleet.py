"""The fleet that is provisioned: what its operator sets up, and what one device does."""

from __future__ import annotations

import itertools
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.rig import Fleetgate
from fleetgate.device import protocol, tls
from fleetgate.device.connection import DeviceConnection
from fleetgate.mqtt.connection import MAX_PACKET_SIZE
from fleetgate.mqtt.packets import Connect

TEMPLATE = "bench"
HOST = "localhost"
TIMEOUT = 30.0

_ARN = "arn:aws:iot:us-east-1:000000000000"
CREATE_KEYS = protocol.create_keys_and_certificate("json")
CREATE_FROM_CSR = protocol.create_certificate_from_csr("json")
REGISTER = protocol.register_thing(TEMPLATE, "json")
_numbers = itertools.count()


def _policy(*statements: tuple[str, list[str]]) -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": [f"iot:{action}" for action in actions.split()],
                    "Resource": [f"{_ARN}:{each}" for each in resources],
                }
                for actions, resources in statements
            ],
        }
    )


def claim_policy(template: str) -> str:
    """The policy of a claim certificate for a template."""
    reserved = (
        "$aws/certificates/create/*",
        "$aws/certificates/create-from-csr/*",
        f"$aws/provisioning-templates/{template}/provision/*",
    )
    return _policy(
        ("Connect", ["client/*"]),
        ("Publish Receive", [f"topic/{each}" for each in reserved]),
        ("Subscribe", [f"topicfilter/{each}" for each in reserved]),
    )


_DEVICE_POLICY = _policy(
    ("Connect", ["client/${iot:ClientId}"]),
    ("Publish Receive", ["topic/devices/${iot:ClientId}/*"]),
    ("Subscribe", ["topicfilter/devices/${iot:ClientId}/*"]),
)
_REGISTRATION_POLICY = "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration"


def trust_policy(service: str) -> str:
    """The trust policy of a role for a service."""
    principal = {"Service": f"{service}.amazonaws.com"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


TEMPLATE_BODY = json.dumps(
    {
        "Parameters": {"SerialNumber": {"Type": "String"}},
        "Resources": {
            "thing": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Ref": "SerialNumber"},
                    "AttributePayload": {"serialNumber": {"Ref": "SerialNumber"}},
                },
            },
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "bench-device"}},
        },
        "DeviceConfiguration": {"reportEverySeconds": "60"},
    }
)
DEVICE_POLICY_NAME = "bench-device"
CLAIM_POLICY_NAME = "bench-claim"


@dataclass(frozen=True, slots=True)
class Key:
    """A P-256 key in a file, and the request for its certificate."""

    file: Path
    csr: str


def make_key(directory: Path, name: str) -> Key:
    """A new P-256 key and its CSR."""
    key = ec.generate_private_key(ec.SECP256R1())
    file = directory / f"{name}.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    csr = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    return Key(file, csr)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A template, its policies and a claim certificate (P-256) on a server; made by `set_up`.

    The claim is in ``claim.pem`` and ``claim.key`` of `directory`, where the devices keep theirs.
    `claim` are the TLS settings with it: made once, to spare the load what devices do at boot.
    """

    server: Fleetgate
    directory: Path
    claim: ssl.SSLContext

    def connect(self, client_id: str, port: int = 0) -> DeviceConnection:
        """A connection with the claim certificate; `port` 0 is that of the server."""
        return _connect(self.claim, port or self.server.port, client_id)

    def onboard(self, name: str, csr: str | None) -> None:
        """One complete onboarding; without `csr` the server makes the key."""
        with self.connect(f"claim-{name}") as connection:
            subscribe(connection, CREATE_KEYS if csr is None else CREATE_FROM_CSR)
            issued = create(connection, csr)
            subscribe(connection, REGISTER)
            register(connection, issued.ownership_token, name)
        (self.directory / f"{name}.pem").write_text(issued.certificate_pem)
        if issued.private_key is not None:
            (self.directory / f"{name}.key").write_text(issued.private_key)
        own = _tls_settings(self.server, self.directory, name)
        with _connect(own, self.server.port, name) as connection:
            connection.publish(f"devices/{name}/hello", b"hello")

    def csr_onboardings(self, count: int) -> Iterator[partial[None]]:
        """So many onboardings by CSR as pieces of work; keys and CSRs are made here and now."""
        for _ in range(count):
            name = f"device-{next(_numbers)}"
            yield partial(self.onboard, name, make_key(self.directory, name).csr)

    def keys_onboardings(self, count: int) -> Iterator[partial[None]]:
        """So many onboardings by CreateKeysAndCertificate as pieces of work."""
        for _ in range(count):
            yield partial(self.onboard, f"device-{next(_numbers)}", None)


def set_up(server: Fleetgate, directory: Path) -> Fleet:
    """Creates everything on a new server, through boto3."""
    claim = make_key(directory, "claim")
    with server.client("iam") as iam:
        role = iam.create_role(RoleName="bench", AssumeRolePolicyDocument=trust_policy("iot"))
        iam.attach_role_policy(RoleName="bench", PolicyArn=_REGISTRATION_POLICY)
    with server.client("iot") as iot:
        iot.create_policy(policyName=CLAIM_POLICY_NAME, policyDocument=claim_policy(TEMPLATE))
        iot.create_policy(policyName=DEVICE_POLICY_NAME, policyDocument=_DEVICE_POLICY)
        iot.create_provisioning_template(
            templateName=TEMPLATE,
            templateBody=TEMPLATE_BODY,
            provisioningRoleArn=role["Role"]["Arn"],
            enabled=True,
        )
        made = iot.create_certificate_from_csr(
            certificateSigningRequest=claim.csr, setAsActive=True
        )
        iot.attach_policy(policyName=CLAIM_POLICY_NAME, target=made["certificateArn"])
    (directory / "claim.pem").write_text(made["certificatePem"])
    return Fleet(server, directory, _tls_settings(server, directory, "claim"))


def _tls_settings(server: Fleetgate, directory: Path, identity: str) -> ssl.SSLContext:
    return tls.context(server.ca, directory / f"{identity}.pem", directory / f"{identity}.key")


def _connect(settings: ssl.SSLContext, port: int, client_id: str) -> DeviceConnection:
    stream = tls.open_(settings, HOST, port, TIMEOUT)
    return DeviceConnection(stream, Connect(client_id), TIMEOUT, MAX_PACKET_SIZE)


def subscribe(connection: DeviceConnection, operation: protocol.Operation) -> None:
    """Subscribes to both answers to an operation."""
    connection.subscribe([operation.accepted, operation.rejected])


def create(connection: DeviceConnection, csr: str | None) -> protocol.Issued:
    """CreateCertificateFromCsr, or CreateKeysAndCertificate without `csr`."""
    if csr is None:
        values = ask(connection, CREATE_KEYS, {})
        return protocol.issued(CREATE_KEYS, values, with_key=True)
    values = ask(connection, CREATE_FROM_CSR, protocol.csr_request(csr))
    return protocol.issued(CREATE_FROM_CSR, values, with_key=False)


def register(connection: DeviceConnection, ownership_token: str, name: str) -> None:
    """RegisterThing as the thing `name`."""
    request = protocol.register_request(ownership_token, {"SerialNumber": name})
    protocol.registered(REGISTER, ask(connection, REGISTER, request))


def ask(
    connection: DeviceConnection, operation: protocol.Operation, request: dict[str, Any]
) -> dict[str, Any]:
    """The accepted answer to a request; raises Rejected."""
    connection.publish(operation.request, protocol.encode("json", request))
    answer = connection.wait([operation.accepted, operation.rejected])
    return protocol.read(operation, answer.topic, answer.payload)
