"""RegisterThing and the Create operations of the MQTT API: outcomes, errors, all or nothing.

Source of the rules: AWS IoT developer guide, "Device provisioning MQTT API" and "Provisioning
templates".
"""

import asyncio
import json
from typing import Any

import pytest

from fleetgate.errors import (
    AccessDeniedException,
    InvalidCertificateOwnershipTokenException,
    InvalidCsrException,
    InvalidParametersException,
    InvalidRequestException,
    ResourceNotFoundException,
    ResourceRegistrationFailureException,
    ServiceError,
)
from fleetgate.operations.identity import Identity
from fleetgate.operations.sweep import Swept, sweep
from fleetgate.store import certificates
from tests.operations.conftest import ALLOW, START, Registry, csr, elsewhere
from tests.operations.roles import add_provisioning_role

TEMPLATE: dict[str, Any] = {
    "Parameters": {"SerialNumber": {"Type": "String"}, "Site": {"Type": "String", "Default": "A"}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Fn::Join": ["", ["dev-", {"Ref": "SerialNumber"}]]},
                "AttributePayload": {"site": {"Ref": "Site"}},
                "ThingGroups": ["fleet"],
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {
                "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"},
                "Status": "Active",
            },
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}},
    },
    "DeviceConfiguration": {"site": {"Ref": "Site"}},
}


def set_up(registry: Registry, template: dict[str, Any] | None = None, name: str = "T") -> None:
    if name == "T":
        add_provisioning_role(registry)
        registry.call("CreatePolicy", policy_name="device", policy_document=ALLOW)
        registry.call("CreateThingGroup", thing_group_name="fleet")
    registry.call(
        "CreateProvisioningTemplate",
        template_name=name,
        template_body=json.dumps(template or TEMPLATE),
        provisioning_role_arn="arn:aws:iam::123456789012:role/provisioning",
        enabled=True,
    )


def create(registry: Registry) -> dict[str, Any]:
    return registry.device("CreateCertificateFromCsr", certificate_signing_request=csr())


def register(registry: Registry, created: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {
        "template_name": "T",
        "certificate_ownership_token": created["certificateOwnershipToken"],
        "parameters": {"SerialNumber": "1"},
        **more,
    }
    return registry.device("RegisterThing", **given)


def status(registry: Registry, created: dict[str, Any]) -> str:
    found = registry.call("DescribeCertificate", certificate_id=created["certificateId"])
    return str(found["certificateDescription"]["status"])


def swept(registry: Registry, now: float) -> Swept:
    services = registry.services
    return registry.runner.run(services.store.write(sweep, services.account, now))


def things(registry: Registry) -> list[str]:
    return [thing["thingName"] for thing in registry.call("ListThings")["things"]]


def test_a_device_gets_everything_the_template_says(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    assert status(registry, created) == "PENDING_ACTIVATION"
    answer = register(registry, created, parameters={"SerialNumber": "7", "Site": "B"})
    assert answer == {"deviceConfiguration": {"site": "B"}, "thingName": "dev-7"}
    assert status(registry, created) == "ACTIVE"
    arn = registry.arn(f"cert/{created['certificateId']}")
    assert registry.call("ListThingPrincipals", thing_name="dev-7")["principals"] == [arn]
    attached = registry.call("ListAttachedPolicies", target=arn)["policies"]
    assert [policy["policyName"] for policy in attached] == ["device"]
    thing = registry.call("DescribeThing", thing_name="dev-7")
    assert thing["attributes"] == {"site": "B"}
    members = registry.call("ListThingsInThingGroup", thing_group_name="fleet")
    assert members["things"] == ["dev-7"]


def test_keys_come_with_a_pkcs1_private_key(registry: Registry) -> None:
    created = registry.device("CreateKeysAndCertificate")
    assert set(created) == {
        "certificateId",
        "certificatePem",
        "privateKey",
        "certificateOwnershipToken",
    }
    assert created["privateKey"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert len(created["certificateOwnershipToken"]) <= 512


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "Certificate ownership token cannot be empty."),
        ("", "Certificate ownership token cannot be empty."),
        ("garbage", "malformed"),
    ],
)
def test_a_token_that_is_none_is_refused(registry: Registry, token: str | None, words: str) -> None:
    set_up(registry)
    params: dict[str, Any] = {} if token is None else {"certificate_ownership_token": token}
    with pytest.raises(InvalidCertificateOwnershipTokenException) as caught:
        registry.device("RegisterThing", template_name="T", **params)
    assert words in caught.value.message


def test_a_token_of_another_server_account_or_region_is_refused(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    own = registry.services
    registry.services = elsewhere(own, token_key=b"x" * 32)
    with pytest.raises(InvalidCertificateOwnershipTokenException, match="not made by this"):
        register(registry, created)
    for account in ("123456789013", "eu-west-2"):
        changed = (
            elsewhere(own, account=type(own.account)(account, own.account.region))
            if account.isdigit()
            else elsewhere(own, account=type(own.account)(own.account.id, account))
        )
        registry.services = changed
        with pytest.raises(InvalidCertificateOwnershipTokenException, match="another account"):
            register(registry, created)


def test_a_token_ends_after_an_hour(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    registry.clock.now = START + 3599
    late = create(registry)
    registry.clock.now = START + 3600
    with pytest.raises(InvalidCertificateOwnershipTokenException, match="expired"):
        register(registry, created)
    register(registry, late)


def test_a_certificate_id_beside_the_token_has_to_match(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    with pytest.raises(InvalidCertificateOwnershipTokenException, match="another certificate"):
        register(registry, created, certificate_id="0" * 64)
    register(registry, created, certificate_id=created["certificateId"])


def test_the_sweeper_deletes_what_nobody_registered_in_time(registry: Registry) -> None:
    set_up(registry)
    forgotten, used = create(registry), create(registry)
    register(registry, used)

    def sweep(now: float) -> list[str]:
        return swept(registry, now).certificates

    assert sweep(START + 3599) == []
    assert sweep(START + 3600) == [forgotten["certificateId"]]
    assert sweep(START + 1e9) == []
    with pytest.raises(ResourceNotFoundException):
        status(registry, forgotten)
    assert status(registry, used) == "ACTIVE"
    with pytest.raises(InvalidCertificateOwnershipTokenException, match="does not exist any more"):
        register(registry, forgotten)


def test_unknown_disabled_and_foreign_templates_are_refused(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    with pytest.raises(ResourceNotFoundException, match="`nope` does not exist"):
        register(registry, created, template_name="nope")
    claim = Identity("d" * 64, "other", START * 2)
    with pytest.raises(AccessDeniedException, match="for template `other`, not `T`"):
        register(registry, created, identity=claim)
    registry.call("UpdateProvisioningTemplate", template_name="T", enabled=False)
    with pytest.raises(AccessDeniedException, match="`T` is disabled"):
        register(registry, created)
    assert status(registry, created) == "PENDING_ACTIVATION"


def test_a_missing_parameter_is_named_in_the_words_of_aws(registry: Registry) -> None:
    set_up(registry)
    with pytest.raises(InvalidParametersException) as caught:
        register(registry, create(registry), parameters={})
    assert caught.value.message == "Cannot resolve reference value: SerialNumber"


def test_the_pseudo_parameter_of_a_device_is_not_believed(registry: Registry) -> None:
    set_up(registry)
    victim, created = create(registry), create(registry)
    pseudo = {"SerialNumber": "1", "AWS::IoT::Certificate::Id": victim["certificateId"]}
    register(registry, created, parameters=pseudo)
    assert status(registry, created) == "ACTIVE"
    assert status(registry, victim) == "PENDING_ACTIVATION"


def changed(path: str, value: Any) -> dict[str, Any]:
    template: dict[str, Any] = json.loads(json.dumps(TEMPLATE))
    *parents, last = path.split(".")
    node = template["Resources"]
    for name in parents:
        node = node[name]
    node[last] = value
    return template


@pytest.mark.parametrize(
    ("template", "error", "words"),
    [
        (
            changed("policy.Properties.PolicyName", "absent"),
            ResourceRegistrationFailureException,
            "policy `absent` does not exist",
        ),
        (
            changed("thing.Properties.ThingTypeName", "absent"),
            ResourceRegistrationFailureException,
            "thing type `absent` does not exist",
        ),
        (
            changed("thing.Properties.ThingGroups", ["fleet", "absent"]),
            ResourceRegistrationFailureException,
            "thing group `absent` does not exist",
        ),
        (
            changed("thing.Properties.BillingGroup", "absent"),
            ResourceRegistrationFailureException,
            "billing group `absent` does not exist",
        ),
        (
            changed("thing.Properties.ThingName", {"Ref": "Name"}),
            InvalidParametersException,
            "Cannot resolve reference value: Name",
        ),
    ],
)
def test_what_fails_half_way_leaves_nothing(
    registry: Registry, template: dict[str, Any], error: type[ServiceError], words: str
) -> None:
    set_up(registry, template)
    created = create(registry)
    with pytest.raises(error) as caught:
        register(registry, created)
    assert words in caught.value.message
    assert things(registry) == []
    assert status(registry, created) == "PENDING_ACTIVATION"
    arn = registry.arn(f"cert/{created['certificateId']}")
    assert registry.call("ListAttachedPolicies", target=arn)["policies"] == []


def test_a_template_without_a_certificate_would_leave_half_a_device(registry: Registry) -> None:
    template = json.loads(json.dumps(TEMPLATE))
    del template["Resources"]["certificate"]
    set_up(registry, template)
    with pytest.raises(ResourceRegistrationFailureException, match="never be activated"):
        register(registry, create(registry))
    assert things(registry) == []


def test_a_thing_with_other_attributes_is_not_taken_over(registry: Registry) -> None:
    set_up(registry)
    registry.call(
        "CreateThing", thing_name="dev-1", attribute_payload={"attributes": {"site": "Z"}}
    )
    with pytest.raises(ResourceRegistrationFailureException, match="exists with other attributes"):
        register(registry, create(registry))


def test_a_replaced_device_joins_its_thing_with_a_second_certificate(registry: Registry) -> None:
    set_up(registry)
    for _ in range(2):
        register(registry, create(registry))
    assert len(registry.call("ListThingPrincipals", thing_name="dev-1")["principals"]) == 2


def test_inactive_templates_leave_the_certificate_inactive(registry: Registry) -> None:
    set_up(registry, changed("certificate.Properties.Status", "INACTIVE"))
    created = create(registry)
    first = register(registry, created)
    assert status(registry, created) == "INACTIVE"
    assert register(registry, created) == first
    assert swept(registry, START + 1e9).certificates == []


def test_identical_policy_documents_share_one_policy(registry: Registry) -> None:
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["iot:Publish"],
                "Resource": ["arn:aws:iot:us-east-1:504350838278:topic/foo/bar"],
            }
        ],
    }
    set_up(registry, changed("policy.Properties", {"PolicyDocument": document}))
    for serial in ("1", "2"):
        register(registry, create(registry), parameters={"SerialNumber": serial})
    names = [each["policyName"] for each in registry.call("ListPolicies")["policies"]]
    assert len(names) == 2
    made = next(name for name in names if name != "device")
    assert len(made) == 40
    assert made == made.upper()
    assert len(registry.call("ListTargetsForPolicy", policy_name=made)["targets"]) == 2


def test_a_hundred_devices_racing_for_one_thing_end_in_one_state(registry: Registry) -> None:
    set_up(registry)
    tokens = [create(registry)["certificateOwnershipToken"] for _ in range(100)]

    async def race() -> list[dict[str, Any]]:
        return await asyncio.gather(
            *(
                registry.start(
                    "provisioning",
                    "RegisterThing",
                    {
                        "payload_format": "json",
                        "template_name": "T",
                        "certificate_ownership_token": token,
                        "parameters": {"SerialNumber": "1"},
                    },
                )
                for token in tokens
            )
        )

    answers = registry.runner.run(race())
    assert {answer["thingName"] for answer in answers} == {"dev-1"}
    assert things(registry) == ["dev-1"]
    principals = registry.call("ListThingPrincipals", thing_name="dev-1")["principals"]
    assert len(principals) == 100


def test_a_csr_that_is_none_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidCsrException):
        registry.device("CreateCertificateFromCsr", certificate_signing_request="gibberish")


@pytest.mark.parametrize("name", ["gate.example", "GATE.example.", "*.example", "10.0.0.1", "*"])
def test_a_device_does_not_get_a_certificate_in_the_servers_name(
    registry: Registry, name: str
) -> None:
    # clients that find no subjectAltName compare the common name (RFC 6125 section 6.4.4)
    with pytest.raises(InvalidCsrException, match="the server's name"):
        registry.device("CreateCertificateFromCsr", certificate_signing_request=csr(name))
    with pytest.raises(InvalidRequestException, match="the server's name"):
        registry.call("CreateCertificateFromCsr", certificate_signing_request=csr(name))
    registry.call("CreateCertificateFromCsr", certificate_signing_request=csr("my-gate.example"))


def test_a_new_certificate_is_admitted_only_after_registration(registry: Registry) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from fleetgate.operations.admission import NotAdmitted, admit
    from fleetgate.operations.identity import Peer

    set_up(registry)
    created = create(registry)
    certificate = x509.load_pem_x509_certificate(created["certificatePem"].encode())
    der = certificate.public_bytes(Encoding.DER)
    peer = Peer("192.0.2.1", "", der)
    with pytest.raises(NotAdmitted, match="PENDING_ACTIVATION"):
        registry.runner.run(admit(registry.services, peer))
    register(registry, created)
    identity = registry.runner.run(admit(registry.services, peer))
    assert identity.certificate_id == created["certificateId"]
    registry.clock.now = identity.not_after
    with pytest.raises(NotAdmitted, match="expired at 2049-12-31T23:59:59Z"):
        registry.runner.run(admit(registry.services, peer))
    with pytest.raises(NotAdmitted, match="is not registered"):
        registry.runner.run(admit(registry.services, Peer("192.0.2.1", "", der + b"\0")))


def test_a_temporary_claim_lives_five_minutes_and_is_not_listed(registry: Registry) -> None:
    set_up(registry)
    claim = registry.call("CreateProvisioningClaim", template_name="T")
    assert claim["expiration"] == START + 300
    assert registry.call("ListCertificates")["certificates"] == []
    with pytest.raises(ResourceNotFoundException):
        registry.call("DescribeCertificate", certificate_id=claim["certificateId"])

    def standing() -> certificates.Standing | None:
        store = registry.services.store
        return registry.runner.run(store.read(certificates.find_standing, claim["certificateId"]))

    found = standing()
    assert found is not None
    assert found.template_name == "T"
    swept(registry, START + 300)
    assert standing() is None


def test_deleting_a_template_ends_its_temporary_claims(registry: Registry) -> None:
    set_up(registry)
    claim = registry.call("CreateProvisioningClaim", template_name="T")
    registry.call("DeleteProvisioningTemplate", template_name="T")
    assert registry.ended == [claim["certificateId"]]
