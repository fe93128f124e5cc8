"""Random sequences of calls of IAM, STS and of the settings of an account break no reference.

Two machines: who may call (users, keys, passwords, roles, policies, sessions), and what the account
keeps beside its fleet (CA certificates and what they signed, transfers, role aliases, domain
configurations, tags). A few names, created, changed and deleted in any order; after every step all
references between rows are followed (tests/operations/references.py), and every access key and
session stands for the one it was given to or for nobody.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fleetgate.errors import ExpiredTokenException, ServiceError
from fleetgate.operations.caller import Caller
from fleetgate.operations.credentials import Found, Keyring
from tests.operations.conftest import ALLOW, Registry
from tests.operations.foreign import ForeignAuthority, authority
from tests.operations.iam import Iam, allow
from tests.operations.references import broken_references
from tests.operations.roles import REGISTRATION, add_provisioning_role, add_role

USERS, ROLES, POLICIES = ("ann", "bob"), ("reader", "writer"), ("policy1", "policy2")
users, roles, policies = st.sampled_from(USERS), st.sampled_from(ROLES), st.sampled_from(POLICIES)
owners = st.sampled_from([("User", name) for name in USERS] + [("Role", name) for name in ROLES])
flag, slots = st.booleans(), st.integers(0, 1)
ROOT = "arn:aws:iam::123456789012:root"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": ROOT},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        },
    }
)
TAGS = [{"Key": "site", "Value": "A"}]
ANYTHING = allow("*")
BODY = (
    '{"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "policy1"}},'
    '"c": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId":'
    '{"Ref": "AWS::IoT::Certificate::Id"}}}}, "Parameters": {"AWS::IoT::Certificate::Id":'
    '{"Type": "String"}}}'
)


class Account(RuleBasedStateMachine):
    """An account, and what holds whatever is done to it."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.registry = registry
        registry.runner.run(registry.services.store.reset())
        registry.services.iam_epoch += 1
        self.iam = Iam(registry)
        self.changed = True
        self.deleted = 0
        """How many calls since `populate` have deleted something."""

    def do(self, operation: str, **params: Any) -> dict[str, Any] | None:
        """The answer of IoT, None when the call is refused."""
        given = {name: value for name, value in params.items() if value is not None}
        try:
            answer = self.registry.call(operation, **given)
        except ServiceError:
            return None
        self.note(operation)
        return answer

    def ask(self, operation: str, **members: Any) -> dict[str, Any] | None:
        """The answer of IAM, None when the call is refused."""
        given = {name: value for name, value in members.items() if value is not None}
        try:
            answer = self.iam(operation, **given)
        except ServiceError:
            return None
        self.note(operation)
        return answer

    def note(self, operation: str) -> None:
        self.changed = True
        self.deleted += operation.startswith("Delete")

    @invariant()
    def no_reference_is_broken(self) -> None:
        if self.changed:
            services = self.registry.services
            look = broken_references(services.store, services.account)
            assert self.registry.runner.run(look) == []
            self.look()
            self.changed = False

    def look(self) -> None:
        """What else has to hold."""


class Callers(Account):
    """Who may call."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.ring = Keyring(registry.services, "AKIAROOT", "secret")
        self.ids: dict[str, str] = {}
        """The ids of the users and roles there are, by kind and name."""
        self.keys: dict[str, str] = {}
        """Access keys, with the id of their user; also of those that are gone."""
        self.sessions: dict[tuple[str, str], tuple[str, float]] = {}
        """Key and token of sessions, with the id of whose they are and when they end."""

    @initialize()
    def begin(self) -> None:
        self.populate()

    @precondition(lambda self: self.deleted > 2)
    @rule()
    def populate(self) -> None:
        """Whatever is missing, all of it linked: else most calls would meet nothing."""
        self.deleted = 0
        for name in USERS:
            self.create("User", name, tagged=True)
            self.create_key(name)
        self.login_profile("ann", delete=False)
        for name in ROLES:
            self.create("Role", name, tagged=True)
        for name in POLICIES:
            self.policy(name, delete=False, tagged=True)
            self.create_version(name, default=False)
        for owner in (("User", "ann"), ("Role", "reader")):
            self.inline_policy(owner, "own", delete=False)
            self.attachment(owner, "policy1", detach=False)
            self.attachment(owner, "", detach=False)
        self.assume("ann", "reader")

    # --- users and roles --------------------------------------------------------------------------

    @rule(name=users, tagged=flag)
    def create_user(self, name: str, tagged: bool) -> None:
        self.create("User", name, tagged=tagged)

    @rule(name=roles, tagged=flag)
    def create_role(self, name: str, tagged: bool) -> None:
        self.create("Role", name, tagged=tagged)

    def create(self, kind: str, name: str, *, tagged: bool) -> None:
        more = {"AssumeRolePolicyDocument": TRUST} if kind == "Role" else {}
        tags = TAGS if tagged else []
        made = self.ask(f"Create{kind}", **{f"{kind}Name": name}, **more, Tags=tags)
        if made is not None:
            self.ids[f"{kind} {name}"] = made[kind][f"{kind}Id"]
            got = self.iam(f"List{kind}Tags", **{f"{kind}Name": name})["Tags"]
            assert got == tags  # those of one who had the name before are gone

    @rule(owner=owners)
    def delete(self, owner: tuple[str, str]) -> None:
        kind, name = owner
        if self.ask(f"Delete{kind}", **{f"{kind}Name": name}) is not None:
            del self.ids[f"{kind} {name}"]

    @rule(owner=owners)
    def strip(self, owner: tuple[str, str]) -> None:
        """Lets go of everything, so that deleting has a chance."""
        for name in ("own", "other"):
            self.inline_policy(owner, name, delete=True)
        for policy in ("", *POLICIES):
            self.attachment(owner, policy, detach=True)
        if owner[0] == "User":
            self.login_profile(owner[1], delete=True)
            for key in list(self.keys):
                self.ask("DeleteAccessKey", UserName=owner[1], AccessKeyId=key)
        self.delete(owner)

    @rule(name=users, path=st.sampled_from(["/", "/team/"]))
    def move_user(self, name: str, path: str) -> None:
        self.ask("UpdateUser", UserName=name, NewPath=path)

    @rule(name=users, new=users)
    def rename_user(self, name: str, new: str) -> None:
        if self.ask("UpdateUser", UserName=name, NewUserName=new) is not None:
            self.ids[f"User {new}"] = self.ids.pop(f"User {name}")

    @rule(owner=owners, remove=flag)
    def tags(self, owner: tuple[str, str], remove: bool) -> None:
        kind, name = owner
        given: dict[str, Any] = {"TagKeys": ["site"]} if remove else {"Tags": TAGS}
        self.ask(f"{'Untag' if remove else 'Tag'}{kind}", **{f"{kind}Name": name}, **given)

    @rule(name=roles, user=st.none() | users)
    def trust(self, name: str, user: str | None) -> None:
        who = ROOT if user is None else f"arn:aws:iam::123456789012:user/{user}"
        self.ask("UpdateAssumeRolePolicy", RoleName=name, PolicyDocument=TRUST.replace(ROOT, who))

    # --- keys, passwords, sessions ----------------------------------------------------------------

    @rule(name=users)
    def create_key(self, name: str) -> None:
        made = self.ask("CreateAccessKey", UserName=name)
        if made is not None:
            self.keys[made["AccessKey"]["AccessKeyId"]] = self.ids[f"User {name}"]

    @rule(name=users, at=st.integers(0, 5), change=st.sampled_from(["Active", "Inactive", ""]))
    def change_key(self, name: str, at: int, change: str) -> None:
        key = list(self.keys)[at % len(self.keys)]
        operation = "UpdateAccessKey" if change else "DeleteAccessKey"
        self.ask(operation, UserName=name, AccessKeyId=key, Status=change or None)

    @rule(name=users, delete=flag)
    def login_profile(self, name: str, delete: bool) -> None:
        if delete:
            self.ask("DeleteLoginProfile", UserName=name)
        elif self.ask("GetLoginProfile", UserName=name) is None:  # hashing takes its time
            self.ask("CreateLoginProfile", UserName=name, Password="correct horse 1 Battery")

    @rule(name=users, role=roles)
    def assume(self, name: str, role: str) -> None:
        caller = self.caller(name)
        if caller is None:
            return
        try:
            made = self.iam.sts(
                "AssumeRole",
                caller,
                RoleArn=f"arn:aws:iam::123456789012:role/{role}",
                RoleSessionName="session",
                DurationSeconds=900,
            )
        except ServiceError:
            return
        self.keep(made["Credentials"], self.ids[f"Role {role}"], 900)

    @rule(name=users)
    def session_token(self, name: str) -> None:
        caller = self.caller(name)
        if caller is not None:
            made = self.iam.sts("GetSessionToken", caller, DurationSeconds=1800)
            self.keep(made["Credentials"], caller.user_id, 1800)

    def caller(self, name: str) -> Caller | None:
        """The user by one of their active keys."""
        for key, who in self.keys.items():
            if who == self.ids.get(f"User {name}"):
                found = self.find(key)
                if found is not None:
                    return found.caller
        return None

    def keep(self, given: dict[str, Any], who: str, seconds: float) -> None:
        ends = self.registry.clock.now + seconds
        self.sessions[given["AccessKeyId"], given["SessionToken"]] = who, ends
        if len(self.sessions) > 5:
            del self.sessions[next(iter(self.sessions))]
        self.changed = True

    @rule()
    def time_passes(self) -> None:
        self.registry.clock.now += 500
        self.changed = True

    def find(self, key: str, token: str | None = None) -> Found | None:
        now = self.registry.clock.now
        return self.registry.runner.run(self.ring.find(key, token, now))

    # --- policies ---------------------------------------------------------------------------------

    def arn(self, name: str) -> str:
        return f"arn:aws:iam::123456789012:policy/{name}" if name else REGISTRATION

    @rule(name=policies, delete=flag, tagged=flag)
    def policy(self, name: str, delete: bool, tagged: bool) -> None:
        if delete:
            self.ask("DeletePolicy", PolicyArn=self.arn(name))
            return
        tags = TAGS if tagged else []
        made = self.ask("CreatePolicy", PolicyName=name, PolicyDocument=ANYTHING, Tags=tags)
        if made is not None:
            assert self.iam("ListPolicyTags", PolicyArn=self.arn(name))["Tags"] == tags

    @rule(name=policies, default=flag)
    def create_version(self, name: str, default: bool) -> None:
        self.ask(
            "CreatePolicyVersion",
            PolicyArn=self.arn(name),
            PolicyDocument=ANYTHING,
            SetAsDefault=default,
        )

    @rule(name=policies, version=st.integers(1, 6), delete=flag)
    def version(self, name: str, version: int, delete: bool) -> None:
        operation = "DeletePolicyVersion" if delete else "SetDefaultPolicyVersion"
        self.ask(operation, PolicyArn=self.arn(name), VersionId=f"v{version}")

    @rule(name=policies)
    def strip_policy(self, name: str) -> None:
        """Lets go of everything, so that deleting has a chance."""
        for owner in (*(("User", name) for name in USERS), *(("Role", name) for name in ROLES)):
            self.attachment(owner, name, detach=True)
        for version in range(1, 7):
            self.version(name, version, delete=True)
        self.policy(name, delete=True, tagged=False)

    @rule(owner=owners, name=st.sampled_from(["own", "other"]), delete=flag)
    def inline_policy(self, owner: tuple[str, str], name: str, delete: bool) -> None:
        kind, of = owner
        document = None if delete else ANYTHING
        self.ask(
            f"{'Delete' if delete else 'Put'}{kind}Policy",
            **{f"{kind}Name": of},
            PolicyName=name,
            PolicyDocument=document,
        )

    @rule(owner=owners, policy=st.sampled_from(["", *POLICIES]), detach=flag)
    def attachment(self, owner: tuple[str, str], policy: str, detach: bool) -> None:
        kind, of = owner
        operation = f"{'Detach' if detach else 'Attach'}{kind}Policy"
        self.ask(operation, **{f"{kind}Name": of}, PolicyArn=self.arn(policy))

    # --- what has to hold -------------------------------------------------------------------------

    def look(self) -> None:
        there = set(self.ids.values())
        listed = {each["UserId"] for each in self.iam("ListUsers")["Users"]}
        listed |= {each["RoleId"] for each in self.iam("ListRoles")["Roles"]}
        assert listed == there
        active = {
            each["AccessKeyId"]
            for name in USERS
            if f"User {name}" in self.ids
            for each in self.iam("ListAccessKeys", UserName=name)["AccessKeyMetadata"]
            if each["Status"] == "Active"
        }
        for key, who in self.keys.items():
            found = self.find(key)
            assert (found is not None) == (key in active)
            assert found is None or (found.caller.user_id == who and who in there)
        for (key, token), (who, ends) in self.sessions.items():
            if self.registry.clock.now >= ends:
                with pytest.raises(ExpiredTokenException):
                    self.find(key, token)
                continue
            # one of the same name that was made anew is somebody else
            found = self.find(key, token)
            assert (found is not None) == (who in there)
            assert found is None or found.caller.user_id.partition(":")[0] == who


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


STEPS = settings(
    max_examples=7,
    stateful_step_count=40,
    # what fails is a list of calls that reads well enough, and shrinking one takes minutes
    phases=(Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def test_no_sequence_of_calls_breaks_a_reference_of_iam(registry: Registry) -> None:
    begin: Any = lambda: Callers(registry)  # noqa: E731 - whatever makes one, says its documentation
    run_state_machine_as_test(begin, settings=STEPS)


def test_no_sequence_of_calls_breaks_a_reference_of_the_settings(registry: Registry) -> None:
    authorities = [authority("CA one"), authority("CA two")]
    begin: Any = lambda: Settings(registry, authorities)  # noqa: E731
    run_state_machine_as_test(begin, settings=STEPS)
