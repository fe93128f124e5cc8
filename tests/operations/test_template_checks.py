"""What is said of a template without touching anything: sizes, one device's resources, lookups.

Sources: MQTT 3.1.1 section 3.3 (PUBLISH); AWS IoT Core Developer Guide, "Device provisioning MQTT
API" and "Provisioning templates".
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from fleetgate.domain.limits import Limits
from fleetgate.domain.resources import Kind
from fleetgate.domain.template import CERTIFICATE_ID, parse
from fleetgate.domain.template_constants import SOME_ID, Named
from fleetgate.domain.template_lint import Linted, lint
from fleetgate.errors import InvalidCsr, InvalidRequestException, InvalidTemplate
from fleetgate.mqtt import codec
from fleetgate.mqtt.packets import Publish
from fleetgate.operations import template_checks
from fleetgate.operations.call import Call
from fleetgate.operations.template_checks import reply_sizes, resources_for, shown, too_large
from fleetgate.wire import payload
from tests.domain.test_template_examples import BULK, JITP
from tests.operations.conftest import ALLOW, Registry, csr
from tests.operations.foreign import authority

FLEET: dict[str, Any] = {
    "Parameters": {"SerialNumber": {"Type": "String"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "SerialNumber"},
                "ThingTypeName": "bulb",
                "ThingGroups": ["a", "b"],
                "BillingGroup": "west",
                "AttributePayload": {"v": "1"},
            },
            "OverrideSettings": {"ThingGroups": "MERGE", "THING_TYPE_NAME": "REPLACE"},
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": CERTIFICATE_ID}},
        },
        "named": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "lamp"}},
        "made": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": ALLOW}},
    },
    "DeviceConfiguration": {"id": {"Ref": CERTIFICATE_ID}, "serial": {"Ref": "SerialNumber"}},
}


def seen(
    body: dict[str, Any], kind: Kind, given: dict[str, str], **files: str | None
) -> dict[str, Any]:
    resources = resources_for(parse(json.dumps(body), kind), given, **files)
    return shown(kind, resources, files.get("csr_pem"))


# --- the reply -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 127, 128, 2000, 16_500])
@pytest.mark.parametrize("form", payload.FORMATS)
def test_the_size_of_a_reply_is_that_of_the_packet(size: int, form: str) -> None:
    configuration = {"x": "ü" * size}
    name = "lamps"
    topic = f"$aws/provisioning-templates/{name}/provision/{form}/accepted"
    body = payload.encode(form, {"deviceConfiguration": configuration, "thingName": "t"})
    packet = codec.encode(Publish(topic, body, qos=1, packet_id=7), 4)
    assert reply_sizes("t", configuration, name)[form] == {
        "payload": len(body),
        "packet": len(packet),
    }


def linted(**configuration: str) -> Linted:
    body = {**FLEET, "DeviceConfiguration": configuration}
    return lint(json.dumps(body), Kind.FLEET, Limits())


def test_a_reply_that_exceeds_a_buffer() -> None:
    small = linted(a="b")
    sizes = {form: size["packet"] for form, size in reply_sizes("", {"a": "b"}).items()}
    assert list(too_large(small, sizes["json"])) == []
    (finding,) = too_large(small, sizes["cbor"])
    assert finding.severity == "warning"
    assert finding.rule == (
        f"the reply of RegisterThing as JSON is an MQTT packet of {sizes['json']} bytes, even "
        f"without what devices bring; the device's buffer has {sizes['cbor']}, as CBOR it fits"
    )
    found = list(too_large(small, sizes["cbor"] - 1))
    assert [each.severity for each in found] == ["error", "error"]
    assert [each.path for each in found] == ["DeviceConfiguration"] * 2


# --- one device ----------------------------------------------------------------------------------


def test_what_a_device_of_a_fleet_gets() -> None:
    request = csr("lamp 1")
    found = seen(FLEET, Kind.FLEET, {"SerialNumber": "1"}, csr_pem=request)
    (made,) = (each for each in found["policies"] if "policyDocument" in each)
    assert found["thing"] == {
        "thingName": "1",
        "thingTypeName": "bulb",
        "attributes": {"v": "1"},
        "thingGroups": ["a", "b"],
        "billingGroup": "west",
        "overrideSettings": {"ThingTypeName": "REPLACE", "ThingGroups": "MERGE"},
    }
    assert found["certificate"] == {
        "certificateId": SOME_ID,
        "certificateIdStandsIn": True,
        "status": "ACTIVE",
        "signingRequest": {"subject": "CN=lamp 1", "key": "secp256r1, 256 bits"},
    }
    assert found["policies"][0] == {"policyName": "lamp"}
    assert made["policyDocument"] == json.loads(ALLOW)
    assert found["deviceConfiguration"] == {"id": SOME_ID, "serial": "1"}
    sizes = reply_sizes("1", found["deviceConfiguration"])
    fits = {"json": True, "cbor": True}
    assert found["reply"] == {"bytes": sizes, "fits": {"2048": fits, "4096": fits}}


def test_a_certificate_brings_its_subject_to_a_jitp_template() -> None:
    ca = authority()
    subject = x509.Name.from_rfc4514_string("C=US,2.5.4.5=SN-1,CN=bulb-1")
    pem = ca.issue(subject)
    found = seen(JITP, Kind.JITP, {"AWS::IoT::Certificate::CommonName": "x"}, certificate_pem=pem)
    assert found["thing"]["thingName"] == "bulb-1"
    assert found["thing"]["attributes"] == {"version": "v1", "serialNumber": "SN-1"}
    assert found["thing"]["thingGroups"] == ["v1-lightbulbs", "US"]
    assert "certificateIdStandsIn" not in found["certificate"]
    assert "reply" not in found
    with pytest.raises(InvalidTemplate, match=r"Cannot resolve .*SerialNumber"):
        # what is not in the subject is not there, whoever says so
        more = {"AWS::IoT::Certificate::SerialNumber": "1"}
        seen(JITP, Kind.JITP, more, certificate_pem=ca.sign("bulb-1"))


def test_a_jitp_template_can_be_tried_without_a_certificate() -> None:
    given = {f"AWS::IoT::Certificate::{each}": "x" for each in ("CommonName", "SerialNumber")}
    given["AWS::IoT::Certificate::Country"] = "DE"
    found = seen(JITP, Kind.JITP, given)
    assert found["certificate"]["certificateIdStandsIn"]


def test_a_bulk_template_takes_the_request_as_its_parameter() -> None:
    given = {"ThingName": "bulb-1", "SerialNumber": "SN-1"}
    found = seen(BULK, Kind.INLINE, given, csr_pem=csr("bulb-1"))
    assert found["certificate"] == {
        "certificateId": SOME_ID,
        "certificateIdStandsIn": True,
        "status": "ACTIVE",
        "thingPrincipalType": "EXCLUSIVE_THING",
        "signingRequest": {"subject": "CN=bulb-1", "key": "secp256r1, 256 bits"},
    }


@pytest.mark.parametrize("method", ["CertificatePem", "CertificateId"])
def test_an_inline_template_takes_the_certificate_as_its_parameter(method: str) -> None:
    pem = authority().sign("bulb-1")
    body = {
        "Resources": {
            "c": {"Type": "AWS::IoT::Certificate", "Properties": {method: {"Ref": method}}}
        }
    }
    found = seen(body, Kind.INLINE, {}, certificate_pem=pem)
    known = x509.load_pem_x509_certificate(pem.encode())
    assert found["certificate"] == {
        "certificateId": known.fingerprint(SHA256()).hex(),
        "status": "ACTIVE",
    }


def test_files_that_cannot_be_used() -> None:
    with pytest.raises(InvalidCsr, match="invalid certificate signing request"):
        seen(FLEET, Kind.FLEET, {"SerialNumber": "1"}, csr_pem="gibberish")
    with pytest.raises(InvalidCsr):
        seen(BULK, Kind.INLINE, {"ThingName": "t", "SerialNumber": "1", "CSR": "gibberish"})
    with pytest.raises(InvalidRequestException, match="the certificate cannot be read"):
        seen(FLEET, Kind.FLEET, {"SerialNumber": "1"}, certificate_pem="gibberish")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fleet", Kind.FLEET),
        ("jitp", Kind.JITP),
        ("inline", Kind.INLINE),
        ("bulk", Kind.INLINE),
        ("FLEET_PROVISIONING", Kind.FLEET),
        ("JITP", Kind.JITP),
        ("INLINE", Kind.INLINE),
    ],
)
def test_names_of_kinds(name: str, kind: Kind) -> None:
    assert template_checks.kind_called(name) is kind


def test_another_kind_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestException, match="`fleets` is no type of template; there are"):
        template_checks.kind_called("fleets")


# --- what is there -------------------------------------------------------------------------------


def test_what_the_registry_lacks(registry: Registry) -> None:
    registry.call("CreateThingType", thing_type_name="old")
    registry.call("DeprecateThingType", thing_type_name="old")
    registry.call("CreateThingType", thing_type_name="bulb")
    registry.call("CreateThingGroup", thing_group_name="a")
    registry.call("CreateBillingGroup", billing_group_name="west")
    registry.call("CreatePolicy", policy_name="lamp", policy_document=ALLOW)
    wanted = [
        Named("thingtype", "bulb", "1"),
        Named("thingtype", "old", "2"),
        Named("thingtype", "none", "3"),
        Named("thinggroup", "a", "4"),
        Named("thinggroup", "none", "5"),
        Named("billinggroup", "west", "6"),
        Named("billinggroup", "none", "7"),
        Named("policy", "lamp", "8"),
        Named("policy", "none", "9"),
    ]
    call = Call(registry.services, "request", registry.clock())
    store = registry.services.store
    found = registry.runner.run(store.read(template_checks.missing, call, wanted))
    assert [(each.path, each.rule) for each in found] == [
        ("2", "thing type `old` is deprecated"),
        ("3", "thing type `none` does not exist"),
        ("5", "thing group `none` does not exist"),
        ("7", "billing group `none` does not exist"),
        ("9", "policy `none` does not exist"),
    ]


def test_only_so_many_names_are_looked_up(registry: Registry) -> None:
    wanted = [Named("thinggroup", f"g{number}", "") for number in range(150)]
    wanted.append(Named("thinggroup", "x" * 129, "no group can be called that"))
    call = Call(registry.services, "request", registry.clock())
    store = registry.services.store
    first, *found = registry.runner.run(store.read(template_checks.missing, call, wanted))
    assert first.rule == "50 of the 150 names in it were not looked up"
    assert [each.rule for each in found] == [
        f"thing group `g{number}` does not exist" for number in range(100)
    ]


def test_what_one_device_needs_has_its_place() -> None:
    template = parse(json.dumps(FLEET), Kind.FLEET)
    resources = resources_for(template, {"SerialNumber": "1"})
    path = "Resources.thing.Properties"
    assert list(template_checks.names(template, resources)) == [
        Named("thingtype", "bulb", f"{path}.ThingTypeName"),
        Named("thinggroup", "a", f"{path}.ThingGroups"),
        Named("thinggroup", "b", f"{path}.ThingGroups"),
        Named("billinggroup", "west", f"{path}.BillingGroup"),
        Named("policy", "lamp", "Resources.named.Properties.PolicyName"),
    ]
