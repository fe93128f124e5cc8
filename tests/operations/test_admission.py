"""The values that policies of a connection can use, and what makes them count.

Sources: AWS IoT Developer Guide, "AWS IoT Core policy variables", "Associating an AWS IoT thing to
an MQTT client connection", "Thing groups".
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509

from fleetgate.domain.policy import Policies
from fleetgate.operations.admission import admit, connection_policies
from fleetgate.operations.identity import Identity, Peer
from fleetgate.pki import pem
from tests.operations.conftest import START, Registry


def statement(effect: str = "Allow", **others: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": "iot:*", "Resource": "*", **others}


def policy(registry: Registry, name: str, target: str, *statements: dict[str, Any]) -> None:
    text = json.dumps({"Version": "2012-10-17", "Statement": statements})
    registry.call("CreatePolicy", policy_name=name, policy_document=text)
    registry.call("AttachPolicy", policy_name=name, target=target)


class Device:
    """A certificate, and a thing `lamp` that it may be attached to."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        made = registry.certificate(set_as_active=True)
        self.arn = made["certificateArn"]
        self.der = pem.decode(made["certificatePem"], "CERTIFICATE")
        self.identity = Identity(made["certificateId"], None, START * 2)
        registry.call("CreateThingType", thing_type_name="light")
        registry.call(
            "CreateThing",
            thing_name="lamp",
            thing_type_name="light",
            attribute_payload={"attributes": {"room": "kitchen", "Room": "hall", "odd": "a#b"}},
        )

    def attach(self, kind: str = "NON_EXCLUSIVE_THING") -> None:
        self.registry.call(
            "AttachThingPrincipal",
            thing_name="lamp",
            principal=self.arn,
            thing_principal_type=kind,
        )

    def policies(self, client_id: str = "lamp", server_name: str = "gate.example") -> Policies:
        peer = Peer("192.0.2.7", server_name, self.der)
        connection = connection_policies(self.registry.services, self.identity, client_id, peer)
        return self.registry.runner.run(connection)


@pytest.fixture
def device(registry: Registry) -> Device:
    return Device(registry)


def resource(registry: Registry, variable: str) -> dict[str, Any]:
    return statement(Resource=registry.arn(f"topic/${{{variable}}}"))


def allows(device: Device, topic: str, client_id: str = "lamp", **options: str) -> bool:
    policies = device.policies(client_id, **options)
    return policies.evaluate("iot:Publish", device.registry.arn(f"topic/{topic}")).allowed


THING = "iot:Connection.Thing."


@pytest.mark.parametrize(
    ("variable", "topic"),
    [
        ("iot:ClientId", "lamp"),
        ("aws:SourceIp", "192.0.2.7"),
        ("iot:DomainName", "gate.example"),
        (f"{THING}ThingName", "lamp"),
        (f"{THING}ThingTypeName", "light"),
        (f"{THING}Attributes[room]", "kitchen"),
        (f"{THING}Attributes[Room]", "hall"),
        (f"{THING}IsAttached", "true"),
        ("iot:Certificate.Subject.CommonName", "device"),
        ("iot:Certificate.Issuer.OrganizationalUnit", "Fleetgate device provisioning CA"),
    ],
)
def test_every_value_reaches_the_policies(
    registry: Registry, device: Device, variable: str, topic: str
) -> None:
    device.attach()
    policy(registry, "p", device.arn, resource(registry, variable))
    condition = {"StringEquals": {variable: topic}}
    policy(
        registry,
        "q",
        device.arn,
        statement(Resource=registry.arn("topic/q"), Condition=condition),
    )
    assert allows(device, topic)
    assert allows(device, "q")
    assert not allows(device, "other")


@pytest.mark.parametrize(
    ("variable", "topic"),
    [(f"{THING}Attributes[odd]", "a#b"), (f"{THING}Attributes[none]", ""), ("iot:Nothing", "")],
)
def test_what_is_special_or_unknown_matches_nothing(
    registry: Registry, device: Device, variable: str, topic: str
) -> None:
    device.attach()
    policy(registry, "p", device.arn, resource(registry, variable))
    assert not allows(device, topic)
    assert not allows(device, f"${{{variable}}}")


def test_the_serial_number_is_decimal(registry: Registry, device: Device) -> None:
    serial = x509.load_der_x509_certificate(device.der).serial_number
    policy(registry, "p", device.arn, resource(registry, "iot:Certificate.SerialNumber"))
    assert allows(device, str(serial))


def test_a_client_that_names_no_server_has_no_domain_name(
    registry: Registry, device: Device
) -> None:
    condition = {"Null": {"iot:DomainName": "true"}}
    policy(registry, "p", device.arn, statement(Condition=condition))
    assert allows(device, "x", server_name="")
    assert not allows(device, "x")


# attached, exclusively, client id: is it the thing's connection?
@pytest.mark.parametrize(
    ("attached", "client_id", "bound"),
    [
        ("", "lamp", False),
        ("NON_EXCLUSIVE_THING", "lamp", True),
        ("NON_EXCLUSIVE_THING", "other", False),
        ("EXCLUSIVE_THING", "lamp", True),
        ("EXCLUSIVE_THING", "other", True),
    ],
)
def test_the_thing_of_a_connection(
    registry: Registry, device: Device, attached: str, client_id: str, bound: bool
) -> None:
    if attached:
        device.attach(attached)
    registry.call("CreateThingGroup", thing_group_name="root")
    registry.call("CreateThingGroup", thing_group_name="child", parent_group_name="root")
    registry.call("AddThingToThingGroup", thing_group_name="child", thing_name="lamp")
    is_attached = {"Bool": {f"{THING}IsAttached": "true"}}
    of_certificate = (
        resource(registry, f"{THING}ThingName"),
        statement(Resource=registry.arn("topic/attached"), Condition=is_attached),
    )
    policy(registry, "p", device.arn, *of_certificate)
    group = registry.arn("thinggroup/root")
    policy(registry, "g", group, statement(Resource=registry.arn("topic/group")))
    for topic in ("lamp", "attached", "group"):
        assert allows(device, topic, client_id) is bound


def test_a_deny_of_a_group_above_wins(registry: Registry, device: Device) -> None:
    device.attach()
    registry.call("CreateThingGroup", thing_group_name="root")
    registry.call("CreateThingGroup", thing_group_name="child", parent_group_name="root")
    registry.call("AddThingToThingGroup", thing_group_name="child", thing_name="lamp")
    policy(registry, "p", device.arn, statement())
    policy(registry, "g", registry.arn("thinggroup/root"), statement("Deny", Sid="No"))
    decision = device.policies().evaluate("iot:Publish", registry.arn("topic/x"))
    assert decision.explicit_deny
    assert (decision.policy, decision.statement) == ("g", "No")
    assert allows(device, "x", "other")


def test_changed_attributes_make_compiled_policies_stale(
    registry: Registry, device: Device
) -> None:
    device.attach()
    policy(registry, "p", device.arn, resource(registry, f"{THING}Attributes[room]"))
    assert allows(device, "kitchen")
    before = registry.services.policy_epoch
    payload = {"attributes": {"room": "attic"}, "merge": True}
    registry.call("UpdateThing", thing_name="lamp", attribute_payload=payload)
    assert registry.services.policy_epoch > before
    assert not allows(device, "kitchen")
    assert allows(device, "attic")


def test_a_document_longer_than_the_limit_of_today_is_read(
    registry: Registry, device: Device
) -> None:
    registry.services.limits = replace(registry.services.limits, policy_document_characters=5000)
    policy(registry, "p", device.arn, statement(Sid="s" * 4000))
    registry.services.limits = replace(registry.services.limits, policy_document_characters=2048)
    assert allows(device, "x")


# --- who it is ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"), [(None, None), ("NON_EXCLUSIVE_THING", None), ("EXCLUSIVE_THING", "lamp")]
)
def test_the_thing_a_certificate_is_attached_to_exclusively(
    registry: Registry, kind: str | None, expected: str | None
) -> None:
    device = Device(registry)
    if kind is not None:
        device.attach(kind)
    peer = Peer("192.0.2.7", "gate.example", device.der)
    identity = registry.runner.run(admit(registry.services, peer))
    assert identity.certificate_id == device.identity.certificate_id
    assert identity.exclusive_thing == expected
