"""The temporary claim of CreateProvisioningClaim: five minutes, one template, nothing else.

Sources: AWS IoT Core developer guide, "Provisioning by trusted user" (the claim expires after five
minutes, does not appear in the account's list of certificates); AWS IoT API reference,
CreateProvisioningClaim.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.domain.policy import compile_policies
from fleetgate.errors import (
    AccessDeniedException,
    CertificateValidationException,
    InvalidRequestException,
    ResourceNotFoundException,
    ResourceRegistrationFailureException,
    ServiceError,
)
from fleetgate.names import Account
from fleetgate.operations.admission import (
    NotAdmitted,
    admit,
    claim_document,
    connection_policies,
)
from fleetgate.operations.call import Call
from fleetgate.operations.dispatch import invoke
from fleetgate.operations.identity import Identity, Peer
from tests.operations.conftest import START, Registry
from tests.operations.iam import Iam, allow
from tests.operations.test_provisioning import create, register, set_up, status, swept

ACCOUNT = Account("123456789012", "eu-west-1")
FIVE_MINUTES = 300


def claim_of(registry: Registry, template: str = "T") -> dict[str, Any]:
    return registry.call("CreateProvisioningClaim", template_name=template)


def peer_of(claim: dict[str, Any]) -> Peer:
    certificate = x509.load_pem_x509_certificate(claim["certificatePem"].encode())
    return Peer("192.0.2.1", "", certificate.public_bytes(Encoding.DER))


def admitted(registry: Registry, claim: dict[str, Any]) -> Identity:
    return registry.runner.run(admit(registry.services, peer_of(claim)))


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.999])
def test_it_lives_five_minutes(registry: Registry, fraction: float) -> None:
    set_up(registry)
    registry.clock.now = START + fraction
    claim = claim_of(registry)
    # the certificate, the answer and the registry agree to the second
    parsed = x509.load_pem_x509_certificate(claim["certificatePem"].encode())
    assert claim["expiration"] == START + FIVE_MINUTES
    assert parsed.not_valid_after_utc.timestamp() == START + FIVE_MINUTES
    identity = admitted(registry, claim)
    assert identity.not_after == START + FIVE_MINUTES
    assert (identity.template_name, identity.is_temporary_claim) == ("T", True)
    registry.clock.now = START + FIVE_MINUTES - 0.001
    admitted(registry, claim)
    for late in (0.0, 1.0, 3600.0):
        registry.clock.now = START + FIVE_MINUTES + late
        with pytest.raises(NotAdmitted, match="expired at"):
            admitted(registry, claim)
    swept(registry, registry.clock.now)
    with pytest.raises(NotAdmitted, match="is not registered"):
        admitted(registry, claim)
    registry.clock.now = START  # the time of day may be set back: what is gone is gone
    with pytest.raises(NotAdmitted, match="is not registered"):
        admitted(registry, claim)


def test_the_log_says_who_made_it_for_what(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fleetgate.provisioning")
    set_up(registry)
    ann = Iam(registry).user("ann", allow("iot:*"))
    operation = registry.models["iot"].operation("CreateProvisioningClaim")
    call = Call(registry.services, "r-1", START, caller=ann)
    claim = registry.runner.run(invoke(call, "iot", operation, {"template_name": "T"}))
    [line] = [each for each in caplog.messages if "event=claim-created" in each]
    assert line == (
        f"event=claim-created template=T certificate={claim['certificateId']} caller={ann.arn} "
        f"expires={datetime.fromtimestamp(claim['expiration'], UTC):%Y-%m-%dT%H:%M:%SZ} request=r-1"
    )


def test_a_refusal_says_that_it_is_a_claim(registry: Registry) -> None:
    set_up(registry)
    claim = claim_of(registry)
    assert admitted(registry, claim).logged == f"{claim['certificateId']} claim-of=T"
    registry.clock.now = START + FIVE_MINUTES
    with pytest.raises(
        NotAdmitted, match=r" expired at \S+ \(a temporary claim for template `T`\)$"
    ):
        admitted(registry, claim)


ALLOWED = [
    ("iot:Connect", "client/anything"),
    *(
        (action, f"{kind}/{topic}/{form}{end}")
        for action, kind, ends in (
            ("iot:Publish", "topic", ("",)),
            ("iot:Subscribe", "topicfilter", ("/accepted", "/rejected", "/+")),
            ("iot:Receive", "topic", ("/accepted", "/rejected")),
        )
        for topic in (
            "$aws/certificates/create",
            "$aws/certificates/create-from-csr",
            "$aws/provisioning-templates/T/provision",
        )
        for form in ("json", "cbor")
        for end in ends
    ),
]
REFUSED = [
    ("iot:Publish", "topic/a"),
    ("iot:Publish", "topic/$aws/provisioning-templates/U/provision/json"),
    ("iot:Publish", "topic/$aws/provisioning-templates/TT/provision/json"),
    ("iot:Publish", "topic/$aws/provisioning-templates/t/provision/json"),
    ("iot:Publish", "topic/$aws/things/dev-1/shadow/update"),
    ("iot:Subscribe", "topicfilter/#"),
    ("iot:Subscribe", "topicfilter/$aws/#"),
    ("iot:Subscribe", "topicfilter/$aws/provisioning-templates/+/provision/json/accepted"),
    ("iot:Subscribe", "topicfilter/$aws/provisioning-templates/U/provision/json/accepted"),
    ("iot:Subscribe", "topicfilter/$aws/events/presence/connected/dev-1"),
    ("iot:Receive", "topic/a"),
    ("iot:Receive", "topic/$aws/provisioning-templates/U/provision/json/accepted"),
    ("iot:RetainPublish", "topic/$aws/certificates/create/json"),
    ("iot:UpdateThingShadow", "thing/dev-1"),
    ("iot:AssumeRoleWithCertificate", "rolealias/any"),
]


@pytest.mark.parametrize(
    ("action", "resource", "expected"),
    [(*each, True) for each in ALLOWED] + [(*each, False) for each in REFUSED],
)
def test_it_may_provision_by_its_template_and_do_nothing_else(
    action: str, resource: str, *, expected: bool
) -> None:
    policies = compile_policies([("claim", claim_document(ACCOUNT, "T"))], {})
    assert policies.evaluate(action, ACCOUNT.arn(resource), {}).allowed is expected


def test_that_is_what_its_connections_have(registry: Registry) -> None:
    set_up(registry)
    claim = claim_of(registry)
    identity, peer = admitted(registry, claim), peer_of(claim)
    loaded = connection_policies(registry.services, identity, "any", peer)
    policies = registry.runner.run(loaded)
    for (action, resource), expected in [(each, True) for each in ALLOWED] + [
        (each, False) for each in REFUSED
    ]:
        assert policies.evaluate(action, registry.arn(resource), {}).allowed is expected


def test_register_thing_asks_for_its_template_too(registry: Registry) -> None:
    """Beside its policy: what is behind the topic does not take the topic's word."""
    set_up(registry)
    set_up(registry, name="U")
    created = create(registry)
    identity = admitted(registry, claim_of(registry, "U"))
    with pytest.raises(AccessDeniedException, match="is for template `U`, not `T`"):
        register(registry, created, identity=identity)
    assert register(registry, created, identity=identity, template_name="U")["thingName"]


def test_what_it_got_outlives_it(registry: Registry) -> None:
    """The certificate has to be made while the claim lives; its token goes on for its hour."""
    set_up(registry)
    claim = claim_of(registry)
    made = [create_by(registry, admitted(registry, claim)) for _ in range(2)]
    registry.clock.now = START + FIVE_MINUTES
    with pytest.raises(NotAdmitted):
        admitted(registry, claim)
    second = admitted(registry, claim_of(registry))
    assert register(registry, made[0], identity=second)["thingName"] == "dev-1"
    assert register(registry, made[0], identity=second)["thingName"] == "dev-1"
    # a claim certificate for the whole fleet will do
    assert register(registry, made[1], parameters={"SerialNumber": "2"})["thingName"] == "dev-2"
    assert status(registry, made[0]) == status(registry, made[1]) == "ACTIVE"


def create_by(registry: Registry, identity: Identity) -> dict[str, Any]:
    return registry.device("CreateKeysAndCertificate", identity=identity)


def test_two_claims_are_two(registry: Registry) -> None:
    set_up(registry)
    set_up(registry, name="U")
    claims = [claim_of(registry, name) for name in ("T", "T", "U")]
    assert len({each["certificateId"] for each in claims}) == 3
    registry.call("DeleteProvisioningTemplate", template_name="T")
    assert sorted(registry.ended) == sorted(each["certificateId"] for each in claims[:2])
    for claim in claims[:2]:
        with pytest.raises(NotAdmitted, match="is not registered"):
            admitted(registry, claim)
    assert admitted(registry, claims[2]).template_name == "U"


def test_it_is_made_for_templates_that_are_there(registry: Registry) -> None:
    with pytest.raises(ResourceNotFoundException):
        claim_of(registry, "absent")
    set_up(registry)
    registry.call("UpdateProvisioningTemplate", template_name="T", enabled=False)
    # an installer may come before the template is opened
    identity = admitted(registry, claim_of(registry))
    created = create_by(registry, identity)
    with pytest.raises(AccessDeniedException, match="is disabled"):
        register(registry, created, identity=identity)
    registry.call("UpdateProvisioningTemplate", template_name="T", enabled=True)
    register(registry, created, identity=identity)


# --- in no list, and nothing to be done with its id -----------------------------------------------

LISTS: list[tuple[str, dict[str, Any]]] = [
    ("ListCertificates", {}),
    ("ListCertificates", {"ascending_order": True, "page_size": 250}),
    ("ListCertificatesByCA", {"ca_certificate_id": "a" * 64}),
    ("ListOutgoingCertificates", {}),
    ("ListCACertificates", {}),
    ("ListThings", {}),
    ("ListPolicies", {}),
    ("ListTargetsForPolicy", {"policy_name": "device"}),
    ("ListPolicyPrincipals", {"policy_name": "device"}),
    ("ListProvisioningTemplates", {}),
    ("DescribeProvisioningTemplate", {"template_name": "T"}),
]


def test_it_appears_in_no_list(registry: Registry) -> None:
    set_up(registry)
    claim = claim_of(registry)
    for operation, params in LISTS:
        assert claim["certificateId"] not in json.dumps(registry.call(operation, **params))


ON_ITS_ID: list[tuple[str, dict[str, Any], type[ServiceError]]] = [
    ("DescribeCertificate", {"certificate_id": "ID"}, ResourceNotFoundException),
    (
        "UpdateCertificate",
        {"certificate_id": "ID", "new_status": "INACTIVE"},
        ResourceNotFoundException,
    ),
    ("DeleteCertificate", {"certificate_id": "ID"}, ResourceNotFoundException),
    (
        "TransferCertificate",
        {"certificate_id": "ID", "target_aws_account": "210987654321"},
        ResourceNotFoundException,
    ),
    ("CancelCertificateTransfer", {"certificate_id": "ID"}, ResourceNotFoundException),
    ("AttachPolicy", {"policy_name": "device", "target": "ARN"}, ResourceNotFoundException),
    ("DetachPolicy", {"policy_name": "device", "target": "ARN"}, InvalidRequestException),
    (
        "AttachPrincipalPolicy",
        {"policy_name": "device", "principal": "ARN"},
        ResourceNotFoundException,
    ),
    ("ListAttachedPolicies", {"target": "ARN"}, ResourceNotFoundException),
    (
        "AttachThingPrincipal",
        {"thing_name": "spare", "principal": "ARN"},
        ResourceNotFoundException,
    ),
    ("ListPrincipalThings", {"principal": "ARN"}, ResourceNotFoundException),
    ("GetEffectivePolicies", {"principal": "ARN"}, ResourceNotFoundException),
    (
        "TestAuthorization",
        {"principal": "ARN", "auth_infos": [{"actionType": "CONNECT", "resources": ["ARN"]}]},
        ResourceNotFoundException,
    ),
    (
        "RegisterCertificateWithoutCA",
        {"certificate_pem": "PEM", "status": "ACTIVE"},
        CertificateValidationException,
    ),
]


def test_nothing_can_be_done_with_its_id(registry: Registry) -> None:
    set_up(registry)
    registry.call("CreateThing", thing_name="spare")
    claim = claim_of(registry)
    names = {
        "ID": claim["certificateId"],
        "ARN": registry.arn(f"cert/{claim['certificateId']}"),
        "PEM": claim["certificatePem"],
    }
    for operation, params, error in ON_ITS_ID:
        given = {
            key: names.get(value, value) if isinstance(value, str) else value
            for key, value in params.items()
        }
        with pytest.raises(error):
            registry.call(operation, **given)
    assert registry.call("ListCertificates")["certificates"] == []
    assert registry.call("ListTargetsForPolicy", policy_name="device")["targets"] == []
    assert admitted(registry, claim).template_name == "T"


def refused_as_certificate(registry: Registry, claim: dict[str, Any], why: str) -> None:
    with pytest.raises(CertificateValidationException, match=why):
        registry.call(
            "RegisterCertificateWithoutCA",
            certificate_pem=claim["certificatePem"],
            status="ACTIVE",
        )
    with pytest.raises(NotAdmitted, match="is not registered"):
        admitted(registry, claim)


def test_nor_when_its_template_is_gone(registry: Registry) -> None:
    set_up(registry)
    claim = claim_of(registry)
    registry.call("DeleteProvisioningTemplate", template_name="T")
    refused_as_certificate(registry, claim, "temporary provisioning claim")
    registry.clock.now = START + FIVE_MINUTES - 0.001
    swept(registry, registry.clock.now)
    refused_as_certificate(registry, claim, "temporary provisioning claim")
    assert registry.call("ListCertificates")["certificates"] == []


@pytest.mark.parametrize("deleted", [True, False])
def test_nor_when_it_has_ended_and_was_swept(registry: Registry, deleted: bool) -> None:
    set_up(registry)
    claim = claim_of(registry)
    if deleted:
        registry.call("DeleteProvisioningTemplate", template_name="T")
    registry.clock.now = START + FIVE_MINUTES
    swept(registry, registry.clock.now)
    refused_as_certificate(registry, claim, "expired at")


@pytest.mark.parametrize("by", ["CertificateId", "CertificatePem"])
def test_it_becomes_no_thing_over_http(registry: Registry, by: str) -> None:
    set_up(registry)
    claim = claim_of(registry)
    value = claim["certificateId"] if by == "CertificateId" else claim["certificatePem"]
    template = {
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "dev-1"}},
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {by: value}},
        }
    }
    with pytest.raises(ResourceRegistrationFailureException):
        registry.call("RegisterThing", template_body=json.dumps(template))
    assert registry.call("ListThings")["things"] == []
