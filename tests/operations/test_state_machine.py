"""Random sequences of calls never leave a broken reference behind.

A few names, so that calls meet: things, types, groups, billing groups, certificates, policies and
templates are created, changed, attached and deleted in any order, and after every step all that is
listed is looked at from both of its ends. Refusals are fine (the fixture sees to it that only
declared errors are raised), broken references are not.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from fleetgate.errors import ResourceNotFoundException, ServiceError
from tests.operations.conftest import ALLOW, Registry, csr
from tests.operations.references import broken_references
from tests.operations.roles import add_provisioning_role

THINGS, TYPES, GROUPS = ("thing1", "thing2"), ("type1", "type2"), ("group1", "group2", "group3")
BILLING, POLICIES, TEMPLATES = ("bill1", "bill2"), ("policy1", "policy2"), ("tmpl1", "tmpl2")
BODY = '{"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "p"}}}}'
WAIT = 400.0

things, types, groups = st.sampled_from(THINGS), st.sampled_from(TYPES), st.sampled_from(GROUPS)
billing, policies = st.sampled_from(BILLING), st.sampled_from(POLICIES)
templates, flag = st.sampled_from(TEMPLATES), st.booleans()
slots = st.integers(0, 1)
"""Which of the two certificates there are at a time."""
versions = st.integers(1, 7)
CSR = csr()


class Fleet(RuleBasedStateMachine):
    """The account, and what somebody does to it."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.registry = registry
        registry.runner.run(registry.services.store.reset())
        self.role = add_provisioning_role(registry)
        self.certificates: list[str] = [self.missing(0), self.missing(1)]
        self.ever: set[str] = set()
        self.changed = True

    def missing(self, slot: int) -> str:
        return f"{slot}" * 64

    def arn(self, slot: int) -> str:
        return self.registry.arn(f"cert/{self.certificates[slot]}")

    def do(self, operation: str, **params: Any) -> dict[str, Any] | None:
        """The answer, None when the call is refused."""
        given = {name: value for name, value in params.items() if value is not None}
        try:
            answer = self.registry.call(operation, **given)
        except ServiceError:
            return None
        self.changed = True
        return answer

    @initialize()
    def begin(self) -> None:
        self.populate()

    @rule()
    def populate(self) -> None:
        """Whatever is missing, all of it linked: else most calls would meet nothing."""
        self.create_type("type1")
        self.deprecate_type("type1", undo=True)
        self.billing_group("bill1", delete=False)
        self.create_thing("thing1", "type1", "bill1")
        self.create_thing("thing2", None, None)
        for name, parent in (("group1", None), ("group2", "group1"), ("group3", "group2")):
            self.create_group(name, parent)
        self.membership("group2", "thing1", remove=False)
        for name in POLICIES:
            self.policy(name, delete=False)
            self.create_policy_version(name, default=False)
        for name in TEMPLATES:
            self.template(name, delete=False)
            self.create_template_version(name, default=False)
        for slot in (0, 1):
            self.create_certificate(slot, active=False)
            self.principal(slot, "thing1", detach=False, exclusive=False)
            self.attachment("policy1", slot, detach=False)
        self.attachment("policy2", "group1", detach=False)

    # --- things, types, billing groups ------------------------------------------------------------

    @rule(name=things, kind=st.none() | types, group=st.none() | billing)
    def create_thing(self, name: str, kind: str | None, group: str | None) -> None:
        self.do("CreateThing", thing_name=name, thing_type_name=kind, billing_group_name=group)

    @rule(name=things, kind=types, remove=flag)
    def update_thing(self, name: str, kind: str, remove: bool) -> None:
        change: dict[str, Any] = (
            {"remove_thing_type": True} if remove else {"thing_type_name": kind}
        )
        self.do("UpdateThing", thing_name=name, **change)

    @rule(name=things)
    def delete_thing(self, name: str) -> None:
        self.do("DeleteThing", thing_name=name)

    @rule(name=types)
    def create_type(self, name: str) -> None:
        self.do("CreateThingType", thing_type_name=name)

    @rule(name=types, undo=flag)
    def deprecate_type(self, name: str, undo: bool) -> None:
        self.do("DeprecateThingType", thing_type_name=name, undo_deprecate=undo)
        self.registry.clock.now += WAIT

    @rule(name=types)
    def delete_type(self, name: str) -> None:
        self.do("DeleteThingType", thing_type_name=name)

    @rule(name=types)
    def retire_type(self, name: str) -> None:
        for thing in THINGS:
            self.update_thing(thing, name, remove=True)
        self.deprecate_type(name, undo=False)
        self.delete_type(name)

    @rule(name=billing, delete=flag)
    def billing_group(self, name: str, delete: bool) -> None:
        self.do("DeleteBillingGroup" if delete else "CreateBillingGroup", billing_group_name=name)

    @rule(name=billing, thing=things, remove=flag)
    def billing_of_a_thing(self, name: str, thing: str, remove: bool) -> None:
        operation = "RemoveThingFromBillingGroup" if remove else "AddThingToBillingGroup"
        self.do(operation, billing_group_name=name, thing_name=thing)

    # --- groups -----------------------------------------------------------------------------------

    @rule(name=groups, parent=st.none() | groups)
    def create_group(self, name: str, parent: str | None) -> None:
        self.do("CreateThingGroup", thing_group_name=name, parent_group_name=parent)

    @rule(name=groups)
    def delete_group(self, name: str) -> None:
        self.do("DeleteThingGroup", thing_group_name=name)

    @rule(name=groups, thing=things, remove=flag)
    def membership(self, name: str, thing: str, remove: bool) -> None:
        operation = "RemoveThingFromThingGroup" if remove else "AddThingToThingGroup"
        self.do(operation, thing_group_name=name, thing_name=thing)

    @rule(thing=things, add=groups, remove=groups)
    def memberships(self, thing: str, add: str, remove: str) -> None:
        self.do(
            "UpdateThingGroupsForThing",
            thing_name=thing,
            thing_groups_to_add=[add],
            thing_groups_to_remove=[remove],
        )

    # --- certificates -----------------------------------------------------------------------------

    @rule(slot=slots, active=flag)
    def create_certificate(self, slot: int, active: bool) -> None:
        if self.certificates[slot] != self.missing(slot):
            return
        made = self.do(
            "CreateCertificateFromCsr", certificate_signing_request=CSR, set_as_active=active
        )
        assert made is not None
        self.certificates[slot] = made["certificateId"]
        self.ever.add(made["certificateId"])

    @rule(slot=slots, status=st.sampled_from(["ACTIVE", "INACTIVE", "REVOKED"]))
    def update_certificate(self, slot: int, status: str) -> None:
        self.do("UpdateCertificate", certificate_id=self.certificates[slot], new_status=status)

    @rule(slot=slots, force=flag)
    def delete_certificate(self, slot: int, force: bool) -> None:
        done = self.do(
            "DeleteCertificate", certificate_id=self.certificates[slot], force_delete=force
        )
        if done is not None:
            self.certificates[slot] = self.missing(slot)

    @rule(slot=slots, thing=things, detach=flag, exclusive=flag)
    def principal(self, slot: int, thing: str, detach: bool, exclusive: bool) -> None:
        kind = None if detach or not exclusive else "EXCLUSIVE_THING"
        operation = "DetachThingPrincipal" if detach else "AttachThingPrincipal"
        self.do(operation, thing_name=thing, principal=self.arn(slot), thing_principal_type=kind)

    @rule(slot=slots, delete=flag)
    def strip_certificate(self, slot: int, delete: bool) -> None:
        """Lets go of everything, so that deleting has a chance."""
        for name in THINGS:
            self.principal(slot, name, detach=True, exclusive=False)
        for name in POLICIES:
            self.attachment(name, slot, detach=True)
        self.update_certificate(slot, "INACTIVE")
        if delete:
            self.delete_certificate(slot, force=False)

    # --- policies and templates -------------------------------------------------------------------

    @rule(name=policies, delete=flag)
    def policy(self, name: str, delete: bool) -> None:
        if delete:
            self.do("DeletePolicy", policy_name=name)
        else:
            self.do("CreatePolicy", policy_name=name, policy_document=ALLOW)

    @rule(name=policies, default=flag)
    def create_policy_version(self, name: str, default: bool) -> None:
        self.do(
            "CreatePolicyVersion", policy_name=name, policy_document=ALLOW, set_as_default=default
        )

    @rule(name=policies, version=versions, delete=flag)
    def policy_version(self, name: str, version: int, delete: bool) -> None:
        operation = "DeletePolicyVersion" if delete else "SetDefaultPolicyVersion"
        self.do(operation, policy_name=name, policy_version_id=str(version))

    @rule(name=policies, holder=slots | groups, detach=flag)
    def attachment(self, name: str, holder: int | str, detach: bool) -> None:
        arn = (
            self.arn(holder)
            if isinstance(holder, int)
            else self.registry.arn(f"thinggroup/{holder}")
        )
        self.do("DetachPolicy" if detach else "AttachPolicy", policy_name=name, target=arn)

    @rule(name=policies, delete=flag)
    def strip_policy(self, name: str, delete: bool) -> None:
        """Lets go of everything, so that deleting has a chance."""
        for holder in (0, 1, *GROUPS):
            self.attachment(name, holder, detach=True)
        for version in range(1, 8):
            self.policy_version(name, version, delete=True)
        if delete:
            self.policy(name, delete=True)

    @rule(name=templates, delete=flag)
    def template(self, name: str, delete: bool) -> None:
        if delete:
            self.do("DeleteProvisioningTemplate", template_name=name)
        else:
            self.do(
                "CreateProvisioningTemplate",
                template_name=name,
                template_body=BODY,
                provisioning_role_arn=self.role,
            )

    @rule(name=templates, default=flag)
    def create_template_version(self, name: str, default: bool) -> None:
        self.do(
            "CreateProvisioningTemplateVersion",
            template_name=name,
            template_body=BODY,
            set_as_default=default,
        )

    @rule(name=templates, version=versions, delete=flag)
    def template_version(self, name: str, version: int, delete: bool) -> None:
        if delete:
            self.do("DeleteProvisioningTemplateVersion", template_name=name, version_id=version)
        else:
            self.do("UpdateProvisioningTemplate", template_name=name, default_version_id=version)

    # --- what has to hold -------------------------------------------------------------------------

    @invariant()
    def no_reference_is_broken(self) -> None:
        if self.changed:
            self.registry.runner.run(self.look())
            self.changed = False

    async def look(self) -> None:
        services = self.registry.services
        assert await broken_references(services.store, services.account) == []
        listed_groups = await self.check_groups()
        await self.check_things(listed_groups)
        await self.check_policies()
        await self.check_templates()

    async def get(self, operation: str, **params: Any) -> dict[str, Any]:
        return await self.registry.start("iot", operation, params)

    async def is_there(self, operation: str, **params: Any) -> bool:
        try:
            await self.get(operation, **params)
        except ResourceNotFoundException:
            return False
        return True

    async def check_groups(self) -> set[str]:
        found = (await self.get("ListThingGroups"))["thingGroups"]
        listed = {each["groupName"] for each in found}
        for name in GROUPS:
            assert (name in listed) == await self.is_there(
                "DescribeThingGroup", thing_group_name=name
            )
        for name in listed:
            metadata = (await self.get("DescribeThingGroup", thing_group_name=name))[
                "thingGroupMetadata"
            ]
            above = [each["groupName"] for each in metadata.get("rootToParentThingGroups") or ()]
            parent = metadata.get("parentGroupName")
            assert above[-1:] == ([parent] if parent else [])
            assert set(above) <= listed - {name}
        return listed

    async def check_things(self, listed_groups: set[str]) -> None:
        listed = {each["thingName"] for each in (await self.get("ListThings"))["things"]}
        certificates = {
            each["certificateArn"] for each in (await self.get("ListCertificates"))["certificates"]
        }
        assert certificates == {
            self.arn(slot) for slot in (0, 1) if self.certificates[slot] in self.ever
        }
        by_billing: dict[str, set[str]] = {name: set() for name in BILLING}
        by_group: dict[str, set[str]] = {name: set() for name in listed_groups}
        by_certificate: dict[str, set[str]] = {arn: set() for arn in certificates}
        for name in THINGS:
            assert (name in listed) == await self.is_there("DescribeThing", thing_name=name)
        for name in listed:
            described = await self.get("DescribeThing", thing_name=name)
            kind, group = described.get("thingTypeName"), described.get("billingGroupName")
            assert kind is None or await self.is_there("DescribeThingType", thing_type_name=kind)
            if group is not None:
                by_billing[group].add(name)
            of_thing = await self.get("ListThingGroupsForThing", thing_name=name)
            for each in of_thing["thingGroups"]:
                by_group[each["groupName"]].add(name)  # a group that is not there is a KeyError
            for arn in (await self.get("ListThingPrincipals", thing_name=name))["principals"]:
                by_certificate[arn].add(name)
        for name, members in by_billing.items():
            if await self.is_there("DescribeBillingGroup", billing_group_name=name):
                found = await self.get("ListThingsInBillingGroup", billing_group_name=name)
                assert set(found["things"]) == members
            else:
                assert not members
        for name, members in by_group.items():
            params: dict[str, Any] = {"thing_group_name": name}
            direct = (await self.get("ListThingsInThingGroup", **params))["things"]
            below = await self.get("ListThingsInThingGroup", **params, recursive=True)
            # the groups of a thing are those it is a member of and those above them
            assert set(direct) <= members == set(below["things"])
        for arn, members in by_certificate.items():
            found = await self.get("ListPrincipalThings", principal=arn)
            assert set(found["things"]) == members

    async def check_policies(self) -> None:
        found = (await self.get("ListPolicies"))["policies"]
        listed = {each["policyName"] for each in found}
        targets: dict[str, set[str]] = {}
        for name in POLICIES:
            assert (name in listed) == await self.is_there("GetPolicy", policy_name=name)
        for name in listed:
            policy = await self.get("GetPolicy", policy_name=name)
            kept = (await self.get("ListPolicyVersions", policy_name=name))["policyVersions"]
            defaults = [each["versionId"] for each in kept if each["isDefaultVersion"]]
            assert defaults == [policy["defaultVersionId"]]
            targets[name] = set(
                (await self.get("ListTargetsForPolicy", policy_name=name))["targets"]
            )
        for target in [arn async for arn in self.possible_targets()]:
            attached = (await self.get("ListAttachedPolicies", target=target))["policies"]
            names = {each["policyName"] for each in attached}
            assert names == {name for name in listed if target in targets[name]}
            for name in names:
                targets[name].discard(target)
        assert not any(targets.values())  # nothing is attached to what is not there

    async def possible_targets(self) -> Any:
        for each in (await self.get("ListCertificates"))["certificates"]:
            yield each["certificateArn"]
        for each in (await self.get("ListThingGroups"))["thingGroups"]:
            yield each["groupArn"]

    async def check_templates(self) -> None:
        found = (await self.get("ListProvisioningTemplates"))["templates"]
        listed = {each["templateName"] for each in found}
        for name in TEMPLATES:
            assert (name in listed) == await self.is_there(
                "DescribeProvisioningTemplate", template_name=name
            )
        for name in listed:
            described = await self.get("DescribeProvisioningTemplate", template_name=name)
            kept = await self.get("ListProvisioningTemplateVersions", template_name=name)
            defaults = [each["versionId"] for each in kept["versions"] if each["isDefaultVersion"]]
            assert defaults == [described["defaultVersionId"]]
            assert described["templateBody"] == BODY


def test_no_sequence_of_calls_breaks_a_reference(registry: Registry) -> None:
    begin: Any = lambda: Fleet(registry)  # noqa: E731 - whatever makes one, says its documentation
    run_state_machine_as_test(
        begin,
        settings=settings(
            max_examples=8,
            stateful_step_count=40,
            # what fails is a list of calls that reads well enough, and shrinking one takes minutes
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
