"""CA certificates and the registration code.

Sources: AWS IoT API Reference (RegisterCACertificate, UpdateCACertificate, DeleteCACertificate);
AWS IoT Core Developer Guide, "Manage your CA certificates"; the AWS CLI's examples.
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.errors import (
    CertificateStateException,
    CertificateValidationException,
    DeleteConflictException,
    InvalidRequestException,
    LimitExceededException,
    RegistrationCodeValidationException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.pki.trust import Authority
from tests.operations.conftest import START, Registry
from tests.operations.foreign import authority, register
from tests.operations.roles import add_role

ROLE = "arn:aws:iam::123456789012:role/provisioning"
JITP = """{
  "Parameters": {"AWS::IoT::Certificate::Country": {"Type": "String"},
                 "AWS::IoT::Certificate::Id": {"Type": "String"}},
  "Resources": {
    "thing": {"Type": "AWS::IoT::Thing", "Properties": {
      "ThingName": {"Ref": "AWS::IoT::Certificate::Id"},
      "AttributePayload": {"country": {"Ref": "AWS::IoT::Certificate::Country"}}}},
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
      "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
      "OverrideSettings": {"Status": "DO_NOTHING"}},
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "lamps"}}}}"""
"""After the example of the AWS IoT Core Developer Guide, "Just-in-time provisioning"."""


def template(registry: Registry, name: str) -> None:
    """A template, and the role it needs."""
    assert add_role(registry, "provisioning") == ROLE
    registry.call(
        "CreateProvisioningTemplate",
        template_name=name,
        template_body=JITP,
        provisioning_role_arn=ROLE,
        type="JITP",
    )


def describe(registry: Registry, certificate_id: str) -> dict[str, Any]:
    answer = registry.call("DescribeCACertificate", certificate_id=certificate_id)
    description: dict[str, Any] = answer["certificateDescription"]
    return description


def test_the_registration_code_stays_until_it_is_deleted(registry: Registry) -> None:
    with pytest.raises(ResourceNotFoundException):
        registry.call("DeleteRegistrationCode")
    code = registry.call("GetRegistrationCode")["registrationCode"]
    assert re.fullmatch("[0-9a-f]{64}", code)
    assert registry.call("GetRegistrationCode")["registrationCode"] == code
    assert registry.call("DeleteRegistrationCode") == {}
    assert registry.call("GetRegistrationCode")["registrationCode"] != code


def test_a_ca_certificate_is_registered_and_described(registry: Registry) -> None:
    foreign = authority()
    code = registry.call("GetRegistrationCode")["registrationCode"]
    answer = registry.call(
        "RegisterCACertificate",
        ca_certificate=foreign.pem,
        verification_certificate=foreign.sign(code),
    )
    certificate = x509.load_pem_x509_certificate(foreign.pem.encode())
    id_ = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    assert answer == {"certificateId": id_, "certificateArn": registry.arn(f"cacert/{id_}")}
    answer = registry.call("DescribeCACertificate", certificate_id=id_)
    description = answer["certificateDescription"]
    assert re.fullmatch("[0-9a-f-]{36}", description.pop("generationId"))
    assert answer == {
        "certificateDescription": {
            "certificateArn": registry.arn(f"cacert/{id_}"),
            "certificateId": id_,
            "status": "INACTIVE",
            "certificatePem": foreign.pem,
            "ownedBy": "123456789012",
            "creationDate": START,
            "autoRegistrationStatus": "DISABLE",
            "lastModifiedDate": START,
            "customerVersion": 1,
            "validity": {
                "notBefore": certificate.not_valid_before_utc.timestamp(),
                "notAfter": certificate.not_valid_after_utc.timestamp(),
            },
            "certificateMode": "DEFAULT",
        },
        "registrationConfig": None,
    }


def test_the_flags_of_a_registration(registry: Registry) -> None:
    id_ = register(registry, authority(), set_as_active=True, allow_auto_registration=True)
    assert describe(registry, id_)["status"] == "ACTIVE"
    assert describe(registry, id_)["autoRegistrationStatus"] == "ENABLE"


def test_the_servers_own_authority_is_not_registered(registry: Registry) -> None:
    """A device certificate that was deleted would register itself again just in time."""
    own = registry.services.authority
    renewed = Authority.create(
        own.private_key, now=datetime.fromtimestamp(START, UTC), serial=7, issuer="Another name"
    )
    for pem in (own.certificate_pem(), renewed.certificate_pem()):
        with pytest.raises(CertificateValidationException, match="this server's own authority"):
            registry.call("RegisterCACertificate", ca_certificate=pem, certificate_mode="SNI_ONLY")
    assert registry.call("ListCACertificates")["certificates"] == []


def test_sni_only_needs_no_proof_and_takes_none(registry: Registry) -> None:
    foreign = authority()
    with pytest.raises(InvalidRequestException, match="must be empty"):
        register(
            registry,
            foreign,
            certificate_mode="SNI_ONLY",
            verification_certificate=foreign.sign("x"),
        )
    id_ = register(registry, foreign, certificate_mode="SNI_ONLY")
    assert describe(registry, id_)["certificateMode"] == "SNI_ONLY"


@pytest.mark.parametrize("mode", [{}, {"certificate_mode": "DEFAULT"}])
def test_default_mode_needs_proof(registry: Registry, mode: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestException, match="must not be empty"):
        registry.call("RegisterCACertificate", ca_certificate=authority().pem, **mode)


def test_the_proof_names_the_code_of_the_account(registry: Registry) -> None:
    foreign = authority()
    proof = foreign.sign("f" * 64)
    with pytest.raises(RegistrationCodeValidationException, match="no registration code"):
        registry.call(
            "RegisterCACertificate", ca_certificate=foreign.pem, verification_certificate=proof
        )
    old = registry.call("GetRegistrationCode")["registrationCode"]
    registry.call("DeleteRegistrationCode")
    code = registry.call("GetRegistrationCode")["registrationCode"]
    for said in (old, code.upper(), code[:-1], None):
        with pytest.raises(RegistrationCodeValidationException, match=code):
            register(registry, foreign, verification_certificate=foreign.sign(said))
    register(registry, foreign)


def test_the_proof_is_signed_by_the_authority_and_current(registry: Registry) -> None:
    foreign = authority()
    code = registry.call("GetRegistrationCode")["registrationCode"]
    for proof, message in (
        (authority("Other CA").sign(code), "its issuer is `CN=Other CA`"),
        (authority().sign(code), "its signature does not match"),
        (foreign.sign(code, days=-1), "expired"),
        ("gibberish", "could not be parsed"),
    ):
        with pytest.raises(CertificateValidationException, match=message):
            register(registry, foreign, verification_certificate=proof)


def test_what_cannot_be_an_authority_is_refused(registry: Registry) -> None:
    for foreign, message in (
        (authority(is_ca=False), "does not have the basicConstraints extension as true"),
        (authority(days=-1), "expired"),
    ):
        with pytest.raises(CertificateValidationException, match=message):
            register(registry, foreign)
    with pytest.raises(CertificateValidationException, match="could not be parsed"):
        registry.call("RegisterCACertificate", ca_certificate="x", certificate_mode="SNI_ONLY")


def test_a_ca_certificate_is_registered_once(registry: Registry) -> None:
    foreign = authority()
    id_ = register(registry, foreign)
    with pytest.raises(ResourceAlreadyExistsException) as caught:
        register(registry, foreign, certificate_mode="SNI_ONLY")
    assert caught.value.members == {
        "resourceId": id_,
        "resourceArn": registry.arn(f"cacert/{id_}"),
    }


def test_ten_authorities_of_one_subject(registry: Registry) -> None:
    """AWS IoT API Reference: up to 10 with the same subject; there is no limit otherwise."""
    for _ in range(10):
        register(registry, authority("Same"), certificate_mode="SNI_ONLY")
    with pytest.raises(LimitExceededException) as caught:
        register(registry, authority("Same"), certificate_mode="SNI_ONLY")
    assert caught.value.message.startswith(
        "Limit reached for number of CA Certificates with same subject"
    )
    register(registry, authority("Other"), certificate_mode="SNI_ONLY")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "either templateBody or templateName"),
        ({"roleArn": ROLE}, "either templateBody or templateName"),
        ({"templateBody": JITP, "templateName": "x", "roleArn": ROLE}, "not both"),
        ({"templateBody": JITP}, "needs roleArn"),
        ({"templateBody": "{}", "roleArn": ROLE}, "Invalid registration template. .*Resources"),
        ({"templateBody": "", "roleArn": ROLE}, "Invalid registration template"),
        ({"templateBody": JITP, "roleArn": ROLE}, "cannot be assumed by AWS IoT: there is no role"),
    ],
)
def test_a_registration_config_that_cannot_be_used(
    registry: Registry, config: dict[str, str], message: str
) -> None:
    id_ = register(registry, authority())
    with pytest.raises(InvalidRequestException, match=message):
        register(registry, authority(), registration_config=config)
    with pytest.raises(InvalidRequestException, match=message):
        registry.call("UpdateCACertificate", certificate_id=id_, registration_config=config)


def test_a_named_template_has_to_exist(registry: Registry) -> None:
    config = {"templateName": "lamps"}
    id_ = register(registry, authority())
    with pytest.raises(ResourceNotFoundException, match="lamps"):
        register(registry, authority(), registration_config=config)
    with pytest.raises(ResourceNotFoundException, match="lamps"):
        registry.call("UpdateCACertificate", certificate_id=id_, registration_config=config)


def test_a_template_a_ca_names_cannot_be_deleted(registry: Registry) -> None:
    template(registry, "lamps")
    id_ = register(registry, authority(), registration_config={"templateName": "lamps"})
    with pytest.raises(DeleteConflictException, match=id_):
        registry.call("DeleteProvisioningTemplate", template_name="lamps")
    registry.call("UpdateCACertificate", certificate_id=id_, remove_auto_registration=True)
    registry.call("DeleteProvisioningTemplate", template_name="lamps")


def test_a_registration_config_is_kept_replaced_and_removed(registry: Registry) -> None:
    template(registry, "lamps")
    body = {"templateBody": JITP, "roleArn": ROLE}
    id_ = register(registry, authority(), allow_auto_registration=True, registration_config=body)

    def kept() -> tuple[Any, str]:
        answer = registry.call("DescribeCACertificate", certificate_id=id_)
        status = answer["certificateDescription"]["autoRegistrationStatus"]
        return answer["registrationConfig"], status

    def update(**params: Any) -> None:
        assert registry.call("UpdateCACertificate", certificate_id=id_, **params) == {}

    assert kept() == (body, "ENABLE")
    update(new_status="INACTIVE")
    assert kept() == (body, "ENABLE")
    update(registration_config={"templateName": "lamps"})
    assert kept() == ({"templateName": "lamps"}, "ENABLE")
    update(new_auto_registration_status="DISABLE")
    assert kept() == ({"templateName": "lamps"}, "DISABLE")
    update(registration_config=body, new_auto_registration_status="ENABLE")
    assert kept() == (body, "ENABLE")
    with pytest.raises(InvalidRequestException, match="cannot be given together"):
        update(registration_config=body, remove_auto_registration=True)
    update(remove_auto_registration=True)
    assert kept() == (None, "DISABLE")
    update(registration_config=body, new_auto_registration_status="ENABLE")
    update(remove_auto_registration=True, new_auto_registration_status="ENABLE")
    assert kept() == (None, "ENABLE")


def test_an_update_counts_and_leaves_the_rest(registry: Registry) -> None:
    id_ = register(registry, authority())
    before = describe(registry, id_)
    registry.clock.now += 60
    registry.call("UpdateCACertificate", certificate_id=id_, new_status="INACTIVE")
    after = describe(registry, id_)
    assert after == {
        **before,
        "status": "INACTIVE",
        "customerVersion": 2,
        "lastModifiedDate": START + 60,
    }


def test_an_active_one_is_not_deleted(registry: Registry) -> None:
    id_ = register(registry, authority())
    with pytest.raises(CertificateStateException, match="must be deactivated"):
        registry.call("DeleteCACertificate", certificate_id=id_)
    registry.call("UpdateCACertificate", certificate_id=id_, new_status="INACTIVE")
    assert registry.call("DeleteCACertificate", certificate_id=id_) == {}
    with pytest.raises(ResourceNotFoundException):
        registry.call("DescribeCACertificate", certificate_id=id_)


@pytest.mark.parametrize(
    "operation", ["DescribeCACertificate", "DeleteCACertificate", "UpdateCACertificate"]
)
def test_an_unknown_one_is_not_found(registry: Registry, operation: str) -> None:
    with pytest.raises(ResourceNotFoundException, match="a" * 64):
        registry.call(operation, certificate_id="a" * 64)


def test_they_are_listed_by_age_and_template(registry: Registry) -> None:
    template(registry, "lamps")
    made = []
    for number in range(5):
        registry.clock.now += 1
        config = {"registration_config": {"templateName": "lamps"}} if number % 2 else {}
        made.append(
            register(registry, authority(str(number)), certificate_mode="SNI_ONLY", **config)
        )

    def listed(**params: Any) -> list[str]:
        ids: list[str] = []
        marker: dict[str, str] = {}
        while True:
            page = registry.call("ListCACertificates", page_size=2, **params, **marker)
            ids += [each["certificateId"] for each in page["certificates"]]
            assert len(page["certificates"]) <= 2
            if page["nextMarker"] is None:
                return ids
            marker = {"marker": page["nextMarker"]}

    assert listed() == made[::-1]
    assert listed(ascending_order=True) == made
    assert listed(template_name="lamps") == [made[3], made[1]]
    assert listed(template_name="lamps", ascending_order=True) == [made[1], made[3]]
    assert listed(template_name="other") == []
    (first, *_) = registry.call("ListCACertificates")["certificates"]
    assert first == {
        "certificateArn": registry.arn(f"cacert/{made[4]}"),
        "certificateId": made[4],
        "status": "ACTIVE",
        "creationDate": START + 5,
    }


def test_a_page_has_25_when_no_size_is_given(registry: Registry) -> None:
    """AWS IoT API Reference, ListCACertificates: "a default page size of 25"."""
    for number in range(26):
        register(registry, authority(str(number)), certificate_mode="SNI_ONLY")
    assert len(registry.call("ListCACertificates")["certificates"]) == 25


def test_its_tags_live_and_die_with_it(registry: Registry) -> None:
    foreign = authority()
    tags = [{"Key": "site", "Value": "Basel"}]
    id_ = register(registry, foreign, set_as_active=False, tags=tags)
    arn = registry.arn(f"cacert/{id_}")
    assert registry.call("ListTagsForResource", resource_arn=arn)["tags"] == tags
    registry.call("DeleteCACertificate", certificate_id=id_)
    register(registry, foreign)
    assert registry.call("ListTagsForResource", resource_arn=arn)["tags"] == []
