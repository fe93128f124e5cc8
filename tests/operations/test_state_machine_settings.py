"""Random sequences of calls break no reference of what an account keeps beside its fleet.

CA certificates and what they signed, transfers, policies attached the old way, templates, role
aliases, domain configurations, groups and types with their tags, created, changed and deleted in
any order; after every step all references between rows are followed
(tests/operations/references.py).
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from fleetgate.errors import ServiceError
from tests.operations.account_machine import STEPS, TAGS, Account
from tests.operations.conftest import ALLOW, Registry
from tests.operations.foreign import ForeignAuthority, authority
from tests.operations.roles import add_provisioning_role, add_role

flag, slots = st.booleans(), st.integers(0, 1)
BODY = (
    '{"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "policy1"}},'
    '"c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId":'
    '{"Ref": "AWS::IoT::Certificate::Id"}}}}, "Parameters": {"AWS::IoT::Certificate::Id":'
    '{"Type": "String"}}}'
)
KINDS = {
    "RoleAlias": ("role_alias", "rolealias"),
    "DomainConfiguration": ("domain_configuration_name", "domainconfiguration"),
    "ThingGroup": ("thing_group_name", "thinggroup"),
    "BillingGroup": ("billing_group_name", "billinggroup"),
    "ThingType": ("thing_type_name", "thingtype"),
}
"""Resources with tags: the member with the name, and the word in the ARN."""


class Settings(Account):
    """What the account keeps beside its fleet."""

    def __init__(self, registry: Registry, authorities: list[ForeignAuthority]) -> None:
        super().__init__(registry)
        self.role = add_provisioning_role(registry)
        self.credentials_role = add_role(registry, "creds", "credentials.iot.amazonaws.com")
        self.authorities = authorities
        self.signed = [each.sign(f"lamp{at}") for at, each in enumerate(authorities)]
        self.cas: list[str] = ["0" * 64, "1" * 64]
        """Ids of the two CA certificates, and of the certificate that each of them signed."""
        self.certificates: list[str] = ["0" * 64, "1" * 64]

    @initialize()
    def begin(self) -> None:
        self.populate()

    @precondition(lambda self: self.deleted > 2)
    @rule()
    def populate(self) -> None:
        """Whatever is missing, all of it linked: else most calls would meet nothing."""
        self.deleted = 0
        self.policy("policy1", delete=False)
        for name in ("tmpl1", "tmpl2"):
            self.template(name, delete=False)
        for slot in (0, 1):
            self.register_ca(slot, "tmpl1")
            self.update_ca(slot, "ACTIVE", None)
            self.register(slot)
            self.legacy("policy1", slot, detach=False)
            self.change("RoleAlias", slot, delete=False, tagged=True)
            self.change("DomainConfiguration", slot, delete=False, tagged=True)
            self.change("ThingGroup", slot, delete=False, tagged=True)
            self.change("BillingGroup", slot, delete=False, tagged=True)
            self.change("ThingType", slot, delete=False, tagged=True)

    # --- CA certificates and what they signed -----------------------------------------------------

    @rule(slot=slots, template=st.none() | st.sampled_from(["tmpl1", "tmpl2"]))
    def register_ca(self, slot: int, template: str | None) -> None:
        made = self.do(
            "RegisterCACertificate",
            ca_certificate=self.authorities[slot].pem,
            certificate_mode="SNI_ONLY",
            set_as_active=True,
            registration_config=None if template is None else {"templateName": template},
            tags=TAGS,
        )
        if made is not None:
            self.cas[slot] = made["certificateId"]

    @rule(
        slot=slots,
        status=st.sampled_from(["ACTIVE", "INACTIVE"]),
        template=st.none() | st.sampled_from(["tmpl1", "tmpl2", "body", ""]),
    )
    def update_ca(self, slot: int, status: str, template: str | None) -> None:
        config: dict[str, str] | None = None
        if template == "body":
            config = {"templateBody": BODY, "roleArn": self.role}
        elif template:
            config = {"templateName": template}
        self.do(
            "UpdateCACertificate",
            certificate_id=self.cas[slot],
            new_status=status,
            registration_config=config,
            remove_auto_registration=template == "" or None,
        )

    @rule(slot=slots)
    def delete_ca(self, slot: int) -> None:
        self.update_ca(slot, "INACTIVE", None)
        self.do("DeleteCACertificate", certificate_id=self.cas[slot])

    @rule(slot=slots)
    def register(self, slot: int) -> None:
        made = self.do("RegisterCertificate", certificate_pem=self.signed[slot])
        if made is not None:
            self.certificates[slot] = made["certificateId"]

    @rule(slot=slots, cancel=flag, strip=flag)
    def transfer(self, slot: int, cancel: bool, strip: bool) -> None:
        if strip:
            self.strip_certificate(slot)
        given = {} if cancel else {"target_aws_account": "210987654321"}
        operation = "CancelCertificateTransfer" if cancel else "TransferCertificate"
        self.do(operation, certificate_id=self.certificates[slot], **given)

    @rule(slot=slots, status=st.sampled_from(["ACTIVE", "INACTIVE", "REVOKED"]))
    def update_certificate(self, slot: int, status: str) -> None:
        self.do("UpdateCertificate", certificate_id=self.certificates[slot], new_status=status)

    @rule(slot=slots, strip=flag)
    def delete_certificate(self, slot: int, strip: bool) -> None:
        if strip:
            self.transfer(slot, cancel=True, strip=True)
        self.do("DeleteCertificate", certificate_id=self.certificates[slot], force_delete=not strip)

    def strip_certificate(self, slot: int) -> None:
        """Lets go of everything, so that deleting has a chance."""
        for name in ("policy1", "policy2"):
            self.legacy(name, slot, detach=True)
        self.update_certificate(slot, "INACTIVE")

    # --- policies the old way, and templates ------------------------------------------------------

    @rule(name=st.sampled_from(["policy1", "policy2"]), delete=flag)
    def policy(self, name: str, delete: bool) -> None:
        if delete:
            self.do("DeletePolicy", policy_name=name)
        else:
            self.do("CreatePolicy", policy_name=name, policy_document=ALLOW, tags=TAGS)

    @rule(name=st.sampled_from(["policy1", "policy2"]), slot=slots, detach=flag)
    def legacy(self, name: str, slot: int, detach: bool) -> None:
        self.do(
            "DetachPrincipalPolicy" if detach else "AttachPrincipalPolicy",
            policy_name=name,
            principal=self.registry.arn(f"cert/{self.certificates[slot]}"),
        )

    @rule(name=st.sampled_from(["tmpl1", "tmpl2"]), delete=flag)
    def template(self, name: str, delete: bool) -> None:
        if delete:
            self.do("DeleteProvisioningTemplate", template_name=name)
        else:
            self.do(
                "CreateProvisioningTemplate",
                template_name=name,
                template_body=BODY,
                provisioning_role_arn=self.role,
                type="JITP",
                tags=TAGS,
            )

    # --- what has tags ----------------------------------------------------------------------------

    @rule(kind=st.sampled_from(sorted(KINDS)), slot=slots, delete=flag, tagged=flag)
    def change(self, kind: str, slot: int, delete: bool, tagged: bool) -> None:
        member, word = KINDS[kind]
        name = {member: f"name{slot}"}
        if delete:
            if kind == "DomainConfiguration":
                self.do(f"Update{kind}", **name, domain_configuration_status="DISABLED")
                self.registry.clock.now += 8 * 86400.0
            if kind == "ThingType":
                self.do("DeprecateThingType", **name)
                self.registry.clock.now += 400.0
            self.do(f"Delete{kind}", **name)
            return
        there = self.arn_of(kind, slot) is not None
        role = self.credentials_role if kind == "RoleAlias" else None
        self.do(f"Create{kind}", **name, role_arn=role, tags=TAGS if tagged else [])
        arn = self.arn_of(kind, slot)
        assert arn is not None
        assert f":{word}/" in arn
        if not there:  # those of what had the name before are gone
            got = self.registry.call("ListTagsForResource", resource_arn=arn)["tags"]
            assert got == (TAGS if tagged else [])

    @rule(kind=st.sampled_from(sorted(KINDS)), slot=slots, remove=flag)
    def tag(self, kind: str, slot: int, remove: bool) -> None:
        arn = self.arn_of(kind, slot) or self.registry.arn("policy/policy1")
        if remove:
            self.do("UntagResource", resource_arn=arn, tag_keys=["site"])
        else:
            self.do("TagResource", resource_arn=arn, tags=[{"Key": "more", "Value": "B"}])

    @rule(slot=slots, site=st.sampled_from(["", "A"]), merge=flag)
    def update_groups(self, slot: int, site: str, merge: bool) -> None:
        payload = {"attributes": {"site": site}, "merge": merge}
        properties = {"thingGroupDescription": site, "attributePayload": payload}
        self.do(
            "UpdateThingGroup", thing_group_name=f"name{slot}", thing_group_properties=properties
        )
        self.do(
            "UpdateBillingGroup",
            billing_group_name=f"name{slot}",
            billing_group_properties={"billingGroupDescription": site},
        )

    @rule(slot=slots)
    def update_role_alias(self, slot: int) -> None:
        self.do("UpdateRoleAlias", role_alias=f"name{slot}", role_arn=self.credentials_role)

    def arn_of(self, kind: str, slot: int) -> str | None:
        member, _ = KINDS[kind]
        try:
            found = self.registry.call(f"Describe{kind}", **{member: f"name{slot}"})
        except ServiceError:
            return None
        found = found.get("roleAliasDescription", found)
        arn: str = found[f"{kind[0].lower()}{kind[1:]}Arn"]
        return arn

    # --- what has to hold -------------------------------------------------------------------------

    def look(self) -> None:
        for name in ("tmpl1", "tmpl2"):
            # a template that CA certificates name is there
            users = self.registry.call("ListCACertificates", template_name=name)["certificates"]
            if users:
                self.registry.call("DescribeProvisioningTemplate", template_name=name)
        for each in self.registry.call("ListOutgoingCertificates")["outgoingCertificates"]:
            found = self.registry.call("DescribeCertificate", certificate_id=each["certificateId"])
            assert found["certificateDescription"]["status"] == "PENDING_TRANSFER"


def test_no_sequence_of_calls_breaks_a_reference_of_the_settings(registry: Registry) -> None:
    authorities = [authority("CA one"), authority("CA two")]
    begin: Any = lambda: Settings(registry, authorities)  # noqa: E731
    run_state_machine_as_test(begin, settings=STEPS)
