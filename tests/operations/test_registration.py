"""RegisterThing over HTTP: every kind of certificate, the caller's rights, all or nothing.

Sources: AWS IoT API reference, RegisterThing; AWS IoT developer guide, "Provisioning devices that
have device certificates" and "Provisioning templates".
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fleetgate.domain.policy import Dialect, compile_policies, parse
from fleetgate.errors import (
    AccessDeniedException,
    ConflictingResourceUpdateException,
    InvalidRequestException,
    ResourceRegistrationFailureException,
)
from fleetgate.operations import registration
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.dispatch import invoke
from fleetgate.store.engine import Tx
from tests.operations.conftest import ALLOW, START, Registry, csr

EXISTING = {"CertificateId": {"Ref": "Id"}}
BY_CSR = {"CertificateSigningRequest": {"Ref": "CSR"}}
BY_PEM = {"CertificatePem": {"Ref": "Pem"}}
Certificate = dict[str, Any] | None


def body(certificate: Certificate, **thing: Any) -> str:
    properties = {"ThingName": {"Ref": "ThingName"}, "AttributePayload": {"site": "A"}, **thing}
    resources = {
        "device": {"Type": "AWS::IoT::Thing", "Properties": properties},
        "rights": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}},
        "identity": {"Type": "AWS::IoT::Certificate", "Properties": certificate},
    }
    if certificate is None:
        del resources["identity"]
    return json.dumps({"Resources": resources})


def register(registry: Registry, certificate: Certificate, **parameters: str) -> dict[str, Any]:
    given = {"ThingName": "t", **parameters}
    return registry.call("RegisterThing", template_body=body(certificate), parameters=given)


def policy(registry: Registry) -> None:
    registry.call("CreatePolicy", policy_name="device", policy_document=ALLOW)


def certificates(registry: Registry) -> list[str]:
    return [each["certificateId"] for each in registry.call("ListCertificates")["certificates"]]


def things(registry: Registry) -> list[str]:
    return [each["thingName"] for each in registry.call("ListThings")["things"]]


def described(registry: Registry, arn: str) -> dict[str, Any]:
    found = registry.call("DescribeCertificate", certificate_id=arn.rpartition("/")[2])
    description: dict[str, Any] = found["certificateDescription"]
    return description


# --- authorities of somebody else ----------------------------------------------------------------


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def signed(
    subject: str,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey | None = None,
    *,
    ca: bool = False,
) -> str:
    now = datetime.fromtimestamp(START, UTC)
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def register_authority(registry: Registry, name: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """A registered, active CA: its key and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = signed(name, name, key, key, ca=True)
    registry.call(
        "RegisterCACertificate", ca_certificate=pem, certificate_mode="SNI_ONLY", set_as_active=True
    )
    return key, pem


# --- every kind of certificate -------------------------------------------------------------------


def test_a_signing_request_gets_a_certificate(registry: Registry) -> None:
    policy(registry)
    answer = register(registry, {**BY_CSR, "Status": "Active"}, CSR=csr("lamp"))
    [certificate_id] = certificates(registry)
    arn = registry.arn(f"cert/{certificate_id}")
    assert answer["resourceArns"] == {
        "device": registry.arn("thing/t"),
        "rights": registry.arn("policy/device"),
        "identity": arn,
    }
    found = described(registry, arn)
    assert found["status"] == "ACTIVE"
    assert found["certificatePem"] == answer["certificatePem"]
    subject = x509.load_pem_x509_certificate(answer["certificatePem"].encode()).subject
    assert subject == named("lamp")
    assert registry.call("ListThingPrincipals", thing_name="t")["principals"] == [arn]
    attached = registry.call("ListAttachedPolicies", target=arn)["policies"]
    assert [each["policyName"] for each in attached] == ["device"]
    # a further certificate each time, as for CreateCertificateFromCsr
    again = register(registry, BY_CSR, CSR=csr("lamp"))
    assert again["resourceArns"]["identity"] != arn
    assert len(registry.call("ListThingPrincipals", thing_name="t")["principals"]) == 2


def test_an_existing_certificate_is_used(registry: Registry) -> None:
    policy(registry)
    made = registry.certificate(set_as_active=True)
    for _ in range(2):
        answer = register(registry, EXISTING, Id=made["certificateId"])
        assert answer["certificatePem"] == made["certificatePem"]
        assert answer["resourceArns"]["identity"] == made["certificateArn"]
    assert registry.call("DescribeThing", thing_name="t")["version"] == 1
    assert described(registry, made["certificateArn"])["customerVersion"] == 1


def test_a_pending_certificate_is_activated(registry: Registry) -> None:
    policy(registry)
    made = registry.device("CreateCertificateFromCsr", certificate_signing_request=csr())
    register(registry, EXISTING, Id=made["certificateId"])
    assert described(registry, "/" + made["certificateId"])["status"] == "ACTIVE"


@pytest.mark.parametrize("with_ca", [False, True])
def test_a_certificate_of_a_registered_authority_is_registered(
    registry: Registry, with_ca: bool
) -> None:
    policy(registry)
    key, ca_pem = register_authority(registry, "factory")
    pem = signed("lamp", "factory", key)
    method: dict[str, Any] = {**BY_PEM, "Status": "INACTIVE"}
    if with_ca:
        method["CACertificatePem"] = ca_pem
    first = register(registry, method, Pem=pem)
    found = described(registry, first["resourceArns"]["identity"])
    assert found["status"] == "INACTIVE"
    assert found["caCertificateId"]
    assert found["certificatePem"] == first["certificatePem"]
    # registered by now: the same again is the same
    assert register(registry, method, Pem=pem) == first
    assert len(certificates(registry)) == 1


def test_no_certificate_at_all(registry: Registry) -> None:
    policy(registry)
    answer = register(registry, None)
    assert answer == {
        "certificatePem": None,
        "resourceArns": {
            "device": registry.arn("thing/t"),
            "rights": registry.arn("policy/device"),
        },
    }
    assert register(registry, None) == answer


def test_an_exclusive_attachment(registry: Registry) -> None:
    policy(registry)
    made = registry.certificate(set_as_active=True)
    exclusive = {**EXISTING, "ThingPrincipalType": "EXCLUSIVE_THING"}
    for _ in range(2):
        register(registry, exclusive, Id=made["certificateId"])
    listed = registry.call("ListThingPrincipalsV2", thing_name="t")["thingPrincipalObjects"]
    assert [each["thingPrincipalType"] for each in listed] == ["EXCLUSIVE_THING"]
    with pytest.raises(ResourceRegistrationFailureException, match="attached to thing `t`"):
        register(registry, EXISTING, Id=made["certificateId"], ThingName="u")
    assert things(registry) == ["t"]


def test_what_was_in_use_is_noticed_by_open_connections(registry: Registry) -> None:
    policy(registry)
    services = registry.services
    made = registry.certificate(set_as_active=True)
    epoch = services.policy_epoch
    register(registry, EXISTING, Id=made["certificateId"])
    assert services.policy_epoch > epoch
    epoch = services.policy_epoch
    register(registry, EXISTING, Id=made["certificateId"])
    register(registry, BY_CSR, CSR=csr(), ThingName="u")
    assert services.policy_epoch == epoch
    template = json.loads(body({**EXISTING, "Status": "INACTIVE"}))
    template["Resources"]["identity"]["OverrideSettings"] = {"Status": "REPLACE"}
    registry.call(
        "RegisterThing",
        template_body=json.dumps(template),
        parameters={"ThingName": "t", "Id": made["certificateId"]},
    )
    assert registry.ended == [made["certificateId"]]


# --- what happens meanwhile ----------------------------------------------------------------------


def test_a_certificate_that_is_deleted_while_it_is_registered_again(registry: Registry) -> None:
    """Two pending updates cause a conflict (AWS IoT API Reference, RegisterThing, Errors)."""
    policy(registry)
    key, _ = register_authority(registry, "factory")
    pem = signed("lamp", "factory", key)
    made = registry.call("RegisterCertificate", certificate_pem=pem)
    call = Call(registry.services, "request", registry.clock())
    parsed = registration.inline_template(call, body({**BY_PEM, "Status": "ACTIVE"}))
    wanted = registration.rendered(parsed, {"ThingName": "t", "Pem": pem})

    # it is registered, so it is looked at no further
    wanted, new = registry.runner.run(registration.with_certificate(call, wanted))
    assert new is None
    registry.call("DeleteCertificate", certificate_id=made["certificateId"])

    def store(tx: Tx) -> None:
        plan = registration.plan(tx, call, wanted, None)
        registration.carry_out(tx, call, plan, lambda *_: None, new)

    with pytest.raises(ConflictingResourceUpdateException, match=made["certificateId"]):
        registry.runner.run(registry.services.store.write(store))
    assert (things(registry), certificates(registry)) == ([], [])
    operation = registry.models["iot"].operation("RegisterThing")
    assert operation.errors["ConflictingResourceUpdateException"] == 409
    assert register(registry, {**BY_PEM, "Status": "ACTIVE"}, Pem=pem)["certificatePem"]


# --- what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            # the text is AWS's: aws-iot-device-management-workshop, issue 1
            {"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {}}}},
            "Neither policyName nor policyDocument is present in the Template.",
        ),
        (
            {"Resources": {"t": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": "a b"}}}},
            "Resources.t.Properties.ThingName: thing name `a b` does not match",
        ),
        ("[]", "it must be a JSON object"),
        ("nonsense", "the template cannot be read"),
    ],
)
def test_a_template_that_is_wrong(registry: Registry, template: Any, message: str) -> None:
    text = template if isinstance(template, str) else json.dumps(template)
    with pytest.raises(InvalidRequestException) as caught:
        registry.call("RegisterThing", template_body=text)
    assert caught.value.message.startswith(f"Invalid registration template. {message}")


def test_a_reference_nothing_resolves_is_named_in_the_words_of_aws(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException) as caught:
        register(registry, EXISTING)
    assert caught.value.message == (
        "Invalid registration template. Cannot resolve reference value: {Ref=Id}"
    )


@pytest.mark.parametrize(
    ("certificate", "parameters", "message"),
    [
        (EXISTING, {"Id": "0" * 64}, "certificate `0+` does not exist"),
        (BY_CSR, {"CSR": "gibberish"}, "signing request"),
        (BY_CSR, {"CSR": csr("gate.example")}, "the server's name `gate.example`"),
        (BY_PEM, {"Pem": "gibberish"}, "certificate"),
    ],
)
def test_a_certificate_that_cannot_be_used(
    registry: Registry, certificate: Certificate, parameters: dict[str, str], message: str
) -> None:
    policy(registry)
    with pytest.raises(ResourceRegistrationFailureException, match=message):
        register(registry, certificate, **parameters)
    assert things(registry) == certificates(registry) == []


def test_a_certificate_of_an_unknown_authority_is_not_registered(registry: Registry) -> None:
    policy(registry)
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ResourceRegistrationFailureException, match="No CA certificate exists"):
        register(registry, BY_PEM, Pem=signed("lamp", "nobody", key))
    register_authority(registry, "factory")
    with pytest.raises(ResourceRegistrationFailureException, match="not signed by the CA"):
        register(registry, BY_PEM, Pem=signed("lamp", "factory", key))
    assert things(registry) == certificates(registry) == []


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ({"ThingTypeName": "absent"}, "thing type `absent` does not exist"),
        ({"ThingGroups": ["absent"]}, "thing group `absent` does not exist"),
        ({"BillingGroup": "absent"}, "billing group `absent` does not exist"),
        ({}, "policy `device` does not exist"),
    ],
)
def test_what_fails_half_way_leaves_nothing(
    registry: Registry, thing: dict[str, Any], message: str
) -> None:
    if thing:
        policy(registry)
    with pytest.raises(ResourceRegistrationFailureException, match=message):
        registry.call(
            "RegisterThing",
            template_body=body(BY_CSR, **thing),
            parameters={"ThingName": "t", "CSR": csr()},
        )
    assert things(registry) == certificates(registry) == []


# --- whose rights --------------------------------------------------------------------------------


def as_user(
    registry: Registry, statements: list[dict[str, Any]], template: str, **parameters: str
) -> dict[str, Any]:
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    rights = compile_policies([("rights", parse(document, Dialect.IDENTITY))], {})
    arn = "arn:aws:iam::123456789012:user/ann"
    caller = Caller("123456789012", arn, "AIDAANN", "AKIAANN", rights)
    call = Call(registry.services, "request", registry.clock(), caller=caller)
    operation = registry.models["iot"].operation("RegisterThing")
    params = {
        "template_body": template,
        "parameters": {"ThingName": "t", "CSR": csr()} | parameters,
    }
    return registry.runner.run(invoke(call, "iot", operation, params))


NEEDED = [
    "iot:RegisterThing",
    "iot:DescribeThing",
    "iot:CreateCertificateFromCsr",
    "iot:CreateThing",
    "iot:AttachPolicy",
    "iot:AttachThingPrincipal",
]


def test_the_callers_own_rights_count(registry: Registry) -> None:
    policy(registry)
    enough = {"Effect": "Allow", "Action": NEEDED, "Resource": "*"}
    assert as_user(registry, [enough], body(BY_CSR))["certificatePem"]


@pytest.mark.parametrize("missing", NEEDED)
def test_a_right_the_caller_lacks_undoes_everything(registry: Registry, missing: str) -> None:
    policy(registry)
    others = [action for action in NEEDED if action != missing]
    rights = {"Effect": "Allow", "Action": others, "Resource": "*"}
    with pytest.raises(AccessDeniedException) as caught:
        as_user(registry, [rights], body(BY_CSR))
    assert f"user/ann is not authorized to perform: {missing} on resource: " in caught.value.message
    assert things(registry) == certificates(registry) == []


def test_a_denied_resource_is_denied(registry: Registry) -> None:
    policy(registry)
    allow = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
    deny = {"Effect": "Deny", "Action": "iot:*", "Resource": registry.arn("thing/t")}
    with pytest.raises(AccessDeniedException, match="explicit deny"):
        as_user(registry, [allow, deny], body(BY_CSR))
    assert things(registry) == certificates(registry) == []


ALLOW_ALL = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}


@pytest.mark.parametrize(
    ("action", "condition"),
    [
        ("iot:AddThingToThingGroup", {"StringEquals": {"aws:ResourceTag/env": "prod"}}),
        ("iot:AddThingToThingGroup", {"StringNotEquals": {"aws:ResourceTag/env": "test"}}),
        ("iot:AttachThingPrincipal", {"StringLike": {"iot:thingArn": "*:thing/t"}}),
        ("iot:CreateThing", {"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}),
        ("iot:CreateThing", {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}),
    ],
)
def test_conditions_of_a_denial_hold_for_each_step(
    registry: Registry, action: str, condition: dict[str, Any]
) -> None:
    policy(registry)
    tags = [{"Key": "env", "Value": "prod"}]
    registry.call("CreateThingGroup", thing_group_name="g", tags=tags)
    deny = {"Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition}
    with pytest.raises(AccessDeniedException) as caught:
        as_user(registry, [ALLOW_ALL, deny], body(BY_CSR, ThingGroups=["g"]))
    assert f"to perform: {action} on resource: " in caught.value.message
    assert "explicit deny" in caught.value.message
    assert things(registry) == certificates(registry) == []


def test_conditions_of_what_is_allowed_hold_for_each_step(registry: Registry) -> None:
    policy(registry)
    tags = [{"Key": "env", "Value": "test"}]
    registry.call("CreateThingGroup", thing_group_name="g", tags=tags)
    [needed] = [{"Effect": "Allow", "Action": NEEDED, "Resource": "*"}]
    add = {
        "Effect": "Allow",
        "Action": "iot:AddThingToThingGroup",
        "Resource": registry.arn("thinggroup/*"),
        "Condition": {"StringEquals": {"aws:ResourceTag/env": "test"}},
    }
    thing = {**add, "Resource": registry.arn("thing/*")}
    del thing["Condition"]
    template = body(BY_CSR, ThingGroups=["g"])
    assert as_user(registry, [needed, add, thing], template)["certificatePem"]


def test_nothing_is_told_to_who_may_only_register(registry: Registry) -> None:
    """Neither the certificate of an id, nor whether there is a thing, nor what it is like."""
    policy(registry)
    made = registry.certificate(set_as_active=True)
    registry.call("CreateThing", thing_name="t", attribute_payload={"attributes": {"site": "A"}})
    only = [{"Effect": "Allow", "Action": "iot:RegisterThing", "Resource": "*"}]
    certificate = {"c": {"Type": "AWS::IoT::Certificate", "Properties": EXISTING}}
    words = set()
    for known in (made["certificateId"], "0" * 64):
        with pytest.raises(AccessDeniedException, match="iot:DescribeCertificate") as caught:
            as_user(registry, only, json.dumps({"Resources": certificate}), Id=known)
        words.add(caught.value.message.replace(known, "ID"))
    for name, site in (("t", "A"), ("t", "B"), ("u", "A")):
        template = body(None, AttributePayload={"site": site})
        with pytest.raises(AccessDeniedException, match="iot:DescribeThing") as caught:
            as_user(registry, only, template, ThingName=name)
        words.add(caught.value.message.replace(f"thing/{name}", "NAME"))
    assert len(words) == 2
    reading = {"Effect": "Allow", "Action": "iot:Describe*", "Resource": "*"}
    answer = as_user(
        registry, [*only, reading], json.dumps({"Resources": certificate}), Id=made["certificateId"]
    )
    assert answer["certificatePem"] == made["certificatePem"]
