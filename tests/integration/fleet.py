"""What an operator sets up before devices come: identities, policies, a template, a claim."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

from tests.integration.server import ACCOUNT, REGION, Server

ROLE = f"arn:aws:iam::{ACCOUNT}:role/Provisioning"
REGISTRATION_POLICY = "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration"

KEYS = "$aws/certificates/create"
CSR = "$aws/certificates/create-from-csr"
ALLOW_ALL = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}


def register_topic(template: str) -> str:
    return f"$aws/provisioning-templates/{template}/provision"


def arn(resource: str) -> str:
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:{resource}"


def policy_document(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as files, as clients want them."""

    certificate: Path
    key: Path
    id: str

    @property
    def arn(self) -> str:
        return arn(f"cert/{self.id}")


@dataclass(frozen=True, slots=True)
class Fleet:
    """A template, the policy its devices get, and a claim certificate that may use it.

    A device with serial number S becomes the thing ``{name}-S``; it may connect as any client
    id that begins with ``{name}-`` and publish and subscribe below ``devices/{client id}/``.
    """

    name: str
    template: str
    device_policy: str
    claim_policy: str
    claim: Identity

    def thing(self, serial: str) -> str:
        return f"{self.name}-{serial}"


def write_identity(directory: Path, name: str, certificate: str, key: str, id_: str) -> Identity:
    directory.mkdir(parents=True, exist_ok=True)
    identity = Identity(directory / f"{name}.pem", directory / f"{name}.key", id_)
    identity.certificate.write_text(certificate)
    identity.key.touch(mode=0o600)
    identity.key.write_text(key)
    return identity


def create_identity(server: Server, directory: Path, name: str, *policies: str) -> Identity:
    """An ACTIVE certificate of a new P-256 key, made through boto3, with `policies` attached."""
    request = signing_request(name)
    made = server.iot.create_certificate_from_csr(
        certificateSigningRequest=request.csr, setAsActive=True
    )
    for policy in policies:
        server.iot.attach_policy(policyName=policy, target=made["certificateArn"])
    return write_identity(
        directory,
        name,
        made["certificatePem"],
        request.key,
        made["certificateId"],
    )


def claim_document(template: str) -> str:
    """AWS's sample claim policy, with the extra resource that CSR users need.

    Source: AWS IoT Core developer guide, "Provisioning devices that don't have device
    certificates using fleet provisioning", step 1 of "Provisioning by claim".
    """
    topics = ["certificates/create/*", "certificates/create-from-csr/*"]
    topics.append(f"provisioning-templates/{template}/provision/*")
    return policy_document(
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": [arn(f"topic/$aws/{topic}") for topic in topics],
        },
        {
            "Effect": "Allow",
            "Action": "iot:Subscribe",
            "Resource": [arn(f"topicfilter/$aws/{topic}") for topic in topics],
        },
    )


def device_document(name: str) -> str:
    own = "devices/${iot:ClientId}/*"
    return policy_document(
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": arn(f"client/{name}-*")},
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Receive"],
            "Resource": arn(f"topic/{own}"),
        },
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": arn(f"topicfilter/{own}")},
    )


def template_body(name: str, policy: str) -> str:
    return json.dumps(
        {
            "Parameters": {
                "SerialNumber": {"Type": "String"},
                "AWS::IoT::Certificate::Id": {"Type": "String"},
            },
            "Resources": {
                "thing": {
                    "Type": "AWS::IoT::Thing",
                    "Properties": {
                        "ThingName": {"Fn::Join": ["-", [name, {"Ref": "SerialNumber"}]]},
                        "AttributePayload": {"serial": {"Ref": "SerialNumber"}},
                    },
                },
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {
                        "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"},
                        "Status": "Active",
                    },
                },
                "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": policy}},
            },
            "DeviceConfiguration": {"greeting": "hello", "serial": {"Ref": "SerialNumber"}},
        }
    )


def trust_document(service: str = "iot.amazonaws.com") -> str:
    return policy_document(
        {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    )


def create_role(
    server: Server,
    name: str = "Provisioning",
    *statements: Mapping[str, Any],
    trust: str = "iot.amazonaws.com",
) -> str:
    """A role for templates, made unless it is there; its ARN.

    It trusts `trust` and has the rights of `statements`, those of AWS's managed policy without.
    """
    iam = server.client("iam")
    try:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust_document(trust))
        if statements:
            document = policy_document(*statements)
            iam.put_role_policy(RoleName=name, PolicyName="rights", PolicyDocument=document)
        else:
            iam.attach_role_policy(RoleName=name, PolicyArn=REGISTRATION_POLICY)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    finally:
        iam.close()
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def create_fleet(server: Server, directory: Path, name: str) -> Fleet:
    """Set up everything a fleet called `name` needs, through boto3."""
    create_role(server)
    iot = server.iot
    template, device, claim = f"{name}-template", f"{name}-device", f"{name}-claim"
    iot.create_policy(policyName=device, policyDocument=device_document(name))
    iot.create_policy(policyName=claim, policyDocument=claim_document(template))
    iot.create_provisioning_template(
        templateName=template,
        templateBody=template_body(name, device),
        provisioningRoleArn=ROLE,
        enabled=True,
    )
    identity = create_identity(server, directory, f"{name}-claim", claim)
    return Fleet(name, template, device, claim, identity)


def key_pem(key: CertificateIssuerPrivateKeyTypes) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@dataclass(frozen=True, slots=True)
class Request:
    """A certificate signing request and the key it was made with, as PEM text."""

    csr: str
    key: str


def signing_request(
    common_name: str = "device",
    *,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    subject: x509.Name | None = None,
) -> Request:
    """A CSR for `subject` (or a common name alone), of a new P-256 key unless one is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    if subject is None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = builder.sign(key, hashes.SHA256())
    return Request(request.public_bytes(serialization.Encoding.PEM).decode(), key_pem(key))


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)
