from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.domain.limits import Limits
from fleetgate.domain.provisioning import Existing, ExistingThing, Lookups, lookups
from fleetgate.domain.provisioning import plan as plan_within
from fleetgate.domain.resources import (
    Certificate,
    Override,
    Overrides,
    Policy,
    PrincipalType,
    Resources,
    Thing,
)
from fleetgate.domain.steps import (
    AddThingToBillingGroup,
    AddThingToGroup,
    AttachPolicy,
    AttachThingPrincipal,
    CreatePolicy,
    CreateThing,
    IssueCertificate,
    RegisterCertificate,
    RemoveThingFromGroup,
    Step,
    UpdateCertificateStatus,
    UpdateThing,
)
from fleetgate.errors import ResourceRegistrationFailureException

ID = "c" * 64
NEW = Existing(
    thing=None,
    certificate_id=ID,
    certificate_status="PENDING_ACTIVATION",
    thing_types=frozenset({"lamp", "bulb"}),
    deprecated_thing_types=frozenset({"candle"}),
    thing_groups={name: name for name in ("a", "b", "c")},
    policies={"named": "{}", "missing": None},
)
CERTIFICATE = Certificate("certificate", ID)


def plan(wanted: Resources, existing: Existing) -> tuple[Step, ...]:
    return plan_within(wanted, existing, Limits())


def resources(
    thing: Thing | None = None,
    certificate: Certificate | None = CERTIFICATE,
    policies: Sequence[Policy] = (),
) -> Resources:
    return Resources(thing, certificate, tuple(policies), {})


def thing(overrides: Overrides | None = None, **members: Any) -> Thing:
    return Thing("thing", "t", overrides=overrides or Overrides(), **members)


def standing(existing: ExistingThing, **members: Any) -> Existing:
    """A thing that has been provisioned before."""
    return dataclasses.replace(
        NEW,
        thing=existing,
        certificate_status="ACTIVE",
        attached_things={"t": False},
        **members,
    )


# AWS IoT Developer Guide, "Just-in-time provisioning": the order of the steps.
def test_everything_new_in_the_order_of_aws() -> None:
    wanted = resources(
        thing(attributes={"x": "1", "empty": ""}, type_name="lamp", groups=("a", "b")),
        policies=[Policy("p", "HASH", "{}"), Policy("q", "named"), Policy("r", "HASH", "{}")],
    )
    assert plan(wanted, NEW) == (
        CreateThing("t", "lamp", {"x": "1"}),
        AddThingToGroup("t", "a"),
        AddThingToGroup("t", "b"),
        CreatePolicy("HASH", "{}"),
        AttachPolicy("HASH", ID),
        AttachPolicy("named", ID),
        AttachThingPrincipal("t", ID),
        UpdateCertificateStatus(ID, "ACTIVE"),
    )


def test_lookups_name_all_that_a_plan_looks_at() -> None:
    wanted = resources(
        thing(type_name="lamp", groups=("a", "b"), billing_group="m"),
        policies=[Policy("p", "HASH", "{}"), Policy("q", "named")],
    )
    assert lookups(wanted) == Lookups(
        thing="t",
        certificate_id=ID,
        thing_types=frozenset({"lamp"}),
        thing_groups=frozenset({"a", "b"}),
        billing_groups=frozenset({"m"}),
        policies=frozenset({"HASH", "named"}),
    )
    nothing: frozenset[str] = frozenset()
    assert lookups(Resources(None, None, (), {})) == Lookups(
        None, None, nothing, nothing, nothing, nothing
    )


def test_without_a_certificate_nothing_is_attached() -> None:
    wanted = resources(thing(), certificate=None, policies=[Policy("p", "HASH", "{}")])
    assert plan(wanted, NEW) == (CreateThing("t", None, {}), CreatePolicy("HASH", "{}"))


def test_a_policy_of_that_name_is_used_as_it_is() -> None:
    existing = dataclasses.replace(NEW, policies={"HASH": '{"edited": 1}'})
    wanted = resources(policies=[Policy("p", "HASH", "{}")])
    assert plan(wanted, existing)[0] == AttachPolicy("HASH", ID)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (resources(thing(type_name="desk")), "thing type `desk` does not exist"),
        (resources(thing(type_name="candle")), "thing type `candle` is deprecated"),
        (resources(thing(groups=("a", "z"))), "thing group `z` does not exist"),
        (resources(thing(billing_group="m")), "billing group `m` does not exist"),
        (resources(policies=[Policy("p", "unknown")]), "policy `unknown` does not exist"),
        (resources(policies=[Policy("p", "missing")]), "policy `missing` does not exist"),
        (resources(certificate=Certificate("c", "d" * 64)), "certificate `d+` does not exist"),
        (resources(thing(attributes=dict.fromkeys("wxyz", "1"))), "at most 3 attributes, not 4"),
        (
            resources(thing(type_name="lamp", attributes={f"a{n}": "1" for n in range(51)})),
            "at most 50 attributes, not 51",
        ),
        (resources(thing(groups=tuple(f"g{n}" for n in range(11)))), "11 thing groups"),
        (resources(policies=[Policy(f"p{n}", f"H{n}", "{}") for n in range(11)]), "11 policies"),
    ],
)
def test_what_cannot_be_registered_fails_by_name(wanted: Resources, message: str) -> None:
    with pytest.raises(ResourceRegistrationFailureException, match=message):
        plan(wanted, NEW)


def test_policies_attached_before_count() -> None:
    existing = dataclasses.replace(NEW, attached_policies=frozenset(f"p{n}" for n in range(10)))
    with pytest.raises(ResourceRegistrationFailureException, match="11 policies"):
        plan(resources(policies=[Policy("q", "named")]), existing)


def test_a_billing_group_that_is_known_is_joined_once() -> None:
    existing = dataclasses.replace(NEW, billing_groups=frozenset({"m", "n"}))
    wanted = resources(thing(billing_group="m"), certificate=None)
    assert plan(wanted, existing)[1] == AddThingToBillingGroup("t", "m")
    member = standing(ExistingThing({}, billing_group="m"), billing_groups=frozenset({"m", "n"}))
    assert plan(wanted, member) == ()
    other = resources(thing(billing_group="n"), certificate=None)
    with pytest.raises(
        ResourceRegistrationFailureException, match="in another billing group"
    ) as caught:
        plan(other, member)
    assert caught.value.message.startswith("Resources.thing.Properties.BillingGroup: thing `t` ")
    assert "`n`" in caught.value.message
    assert "`m`" not in caught.value.message
    assert caught.value.__notes__ == ["the thing is in billing group `m`"]


def test_the_limits_are_those_given() -> None:
    wanted = resources(thing(attributes={"x": "1", "y": "1"}, groups=("a", "b")))
    assert plan_within(wanted, NEW, Limits(attributes_without_type=2, groups_per_thing=2))
    with pytest.raises(ResourceRegistrationFailureException, match="at most 1 attributes, not 2"):
        plan_within(wanted, NEW, Limits(attributes_without_type=1))
    with pytest.raises(ResourceRegistrationFailureException, match="2 thing groups; the limit is"):
        plan_within(wanted, NEW, Limits(groups_per_thing=1))
    two = resources(policies=[Policy("p", "H", "{}"), Policy("q", "named")])
    with pytest.raises(ResourceRegistrationFailureException, match="2 policies attached; the lim"):
        plan_within(two, NEW, Limits(policies_per_principal=1))


# AWS IoT Developer Guide, "Static thing groups": not two groups of the same hierarchy.
@pytest.mark.parametrize("override", [Override.MERGE, Override.REPLACE])
def test_a_thing_is_in_one_group_of_a_hierarchy(override: Override) -> None:
    roots = {"root": "root", "below": "root", "other": "other"}
    existing = dataclasses.replace(NEW, thing_groups=roots)
    with pytest.raises(ResourceRegistrationFailureException, match="the same hierarchy"):
        plan(resources(thing(groups=("root", "below"))), existing)
    member = dataclasses.replace(existing, thing=ExistingThing({}, groups=frozenset({"root"})))
    wanted = resources(thing(Overrides(groups=override), groups=("below", "other")))
    if override is Override.MERGE:
        with pytest.raises(ResourceRegistrationFailureException, match="the same hierarchy"):
            plan(wanted, member)
    else:
        assert plan(wanted, member)[:3] == (
            RemoveThingFromGroup("t", "root"),
            AddThingToGroup("t", "below"),
            AddThingToGroup("t", "other"),
        )


# --- override settings ---------------------------------------------------------------------------

CURRENT = ExistingThing({"x": "1", "y": "2"}, "lamp", frozenset({"a", "b"}))
DIFFERING = thing(attributes={"x": "3"}, type_name="bulb", groups=("b", "c"))
SAME = thing(attributes={"y": "2", "x": "1"}, type_name="lamp", groups=("b", "a"))


def overridden(wanted: Thing, override: Override | None) -> Thing:
    type_override = Override.REPLACE if override is Override.MERGE else override
    return dataclasses.replace(wanted, overrides=Overrides(override, type_override, override))


# AWS IoT Developer Guide, "Provisioning templates", override settings.
@pytest.mark.parametrize(
    ("override", "steps"),
    [
        (Override.DO_NOTHING, ()),
        (
            Override.REPLACE,
            (
                UpdateThing("t", "bulb", {"x": "3"}),
                RemoveThingFromGroup("t", "a"),
                AddThingToGroup("t", "c"),
            ),
        ),
        (
            Override.MERGE,
            (UpdateThing("t", "bulb", {"x": "3", "y": "2"}), AddThingToGroup("t", "c")),
        ),
    ],
)
def test_overrides_of_a_thing_that_differs(override: Override, steps: tuple[Step, ...]) -> None:
    assert plan(resources(overridden(DIFFERING, override)), standing(CURRENT)) == steps


@pytest.mark.parametrize("override", [Override.FAIL, None])
@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (thing(attributes={"x": "3"}), "attributes"),
        (thing(attributes={}), "attributes"),
        (thing(type_name="bulb"), "thing type"),
        (thing(groups=("a",)), "groups"),
        (thing(groups=("a", "b", "c")), "groups"),
    ],
)
def test_a_thing_that_differs_fails_unless_overridden(
    wanted: Thing, what: str, override: Override | None
) -> None:
    with pytest.raises(ResourceRegistrationFailureException, match=f"`t` exists with other {what}"):
        plan(resources(overridden(wanted, override)), standing(CURRENT))


@pytest.mark.parametrize("override", [None, *Override])
def test_a_thing_that_is_as_wanted_is_left_alone(override: Override | None) -> None:
    assert plan(resources(overridden(SAME, override)), standing(CURRENT)) == ()
    silent = overridden(thing(), override)
    assert plan(resources(silent), standing(CURRENT)) == ()


def test_merging_an_empty_value_removes_an_attribute() -> None:
    wanted = overridden(thing(attributes={"x": ""}), Override.MERGE)
    assert plan(resources(wanted), standing(CURRENT)) == (UpdateThing("t", "lamp", {"y": "2"}),)


def test_merged_groups_and_attributes_count_together() -> None:
    crowded = ExistingThing({"x": "1", "y": "2"}, None, frozenset(f"g{n}" for n in range(10)))
    with pytest.raises(ResourceRegistrationFailureException, match="11 thing groups"):
        plan(resources(overridden(thing(groups=("a",)), Override.MERGE)), standing(crowded))
    more = overridden(thing(attributes={"v": "1", "w": "1"}), Override.MERGE)
    with pytest.raises(ResourceRegistrationFailureException, match="not 4"):
        plan(resources(more), standing(crowded))


def test_a_type_deprecated_since_stays() -> None:
    old = ExistingThing({}, "candle")
    wanted = overridden(thing(type_name="candle", attributes={"x": "1"}), Override.REPLACE)
    assert plan(resources(wanted), standing(old)) == (UpdateThing("t", "candle", {"x": "1"}),)


# --- the certificate -----------------------------------------------------------------------------


@pytest.mark.parametrize("override", [None, Override.DO_NOTHING, Override.REPLACE, Override.FAIL])
def test_a_pending_certificate_always_gets_its_status(override: Override | None) -> None:
    certificate = Certificate("c", ID, "INACTIVE", override)
    steps = plan(resources(certificate=certificate), NEW)
    assert steps == (UpdateCertificateStatus(ID, "INACTIVE"),)


@pytest.mark.parametrize(
    ("status", "override", "steps"),
    [
        ("ACTIVE", None, ()),
        ("INACTIVE", Override.DO_NOTHING, ()),
        ("REVOKED", Override.DO_NOTHING, ()),
        ("INACTIVE", Override.REPLACE, (UpdateCertificateStatus(ID, "ACTIVE"),)),
        # `aws iot register-thing` of the AWS CLI's examples, on a certificate as made by default
        ("INACTIVE", None, (UpdateCertificateStatus(ID, "ACTIVE"),)),
        ("INACTIVE", Override.FAIL, None),
        ("REVOKED", None, None),
        ("REVOKED", Override.REPLACE, None),
        ("PENDING_TRANSFER", Override.REPLACE, None),
    ],
)
def test_the_status_of_a_certificate_that_was_there_is_a_matter_of_override_settings(
    status: str, override: Override | None, steps: tuple[Step, ...] | None
) -> None:
    existing = dataclasses.replace(NEW, certificate_status=status)
    wanted = resources(certificate=Certificate("c", ID, "ACTIVE", override))
    if steps is None:
        with pytest.raises(ResourceRegistrationFailureException, match=f"is {status}"):
            plan(wanted, existing)
    else:
        assert plan(wanted, existing) == steps


@pytest.mark.parametrize(
    ("certificate", "step"),
    [
        (Certificate("c", ID, "INACTIVE", csr="CSR"), IssueCertificate(ID, "INACTIVE")),
        (Certificate("c", ID, "INACTIVE", pem="PEM"), RegisterCertificate(ID, "INACTIVE")),
    ],
)
def test_a_new_certificate_comes_first_with_its_status(
    certificate: Certificate, step: Step
) -> None:
    existing = dataclasses.replace(NEW, certificate_id=None, certificate_status=None)
    wanted = resources(thing(), certificate, [Policy("q", "named")])
    assert plan(wanted, existing) == (
        step,
        CreateThing("t", None, {}),
        AttachPolicy("named", ID),
        AttachThingPrincipal("t", ID),
    )


def test_a_certificate_registered_before_is_used() -> None:
    certificate = Certificate("c", ID, pem="PEM")
    assert plan(resources(certificate=certificate), NEW) == (UpdateCertificateStatus(ID, "ACTIVE"),)


# AWS IoT Developer Guide, "Attach a principal to a thing": an exclusive attachment is the only one.
@pytest.mark.parametrize(
    ("wanted", "attached", "outcome"),
    [
        ("EXCLUSIVE_THING", {}, True),
        ("NON_EXCLUSIVE_THING", {}, False),
        (None, {}, False),
        (None, {"u": False}, False),
        ("EXCLUSIVE_THING", {"t": True}, None),
        ("NON_EXCLUSIVE_THING", {"t": False}, None),
        (None, {"t": True}, None),
        ("EXCLUSIVE_THING", {"t": False}, "is attached to thing `t` non-exclusively"),
        ("NON_EXCLUSIVE_THING", {"t": True}, "is attached to thing `t` exclusively"),
        ("EXCLUSIVE_THING", {"u": False}, "is attached to thing `u` non-exclusively"),
        ("NON_EXCLUSIVE_THING", {"u": True}, "is attached to thing `u` exclusively"),
        (None, {"u": True}, "is attached to thing `u` exclusively"),
    ],
)
def test_exclusive_attachments_stay_exclusive(
    wanted: PrincipalType | None, attached: dict[str, bool], outcome: bool | str | None
) -> None:
    existing = dataclasses.replace(standing(ExistingThing({})), attached_things=attached)
    certificate = Certificate("c", ID, principal_type=wanted)
    if isinstance(outcome, str):
        with pytest.raises(ResourceRegistrationFailureException, match=outcome):
            plan(resources(thing(), certificate), existing)
    else:
        steps = () if outcome is None else (AttachThingPrincipal("t", ID, outcome),)
        assert plan(resources(thing(), certificate), existing) == steps


# --- planning, applying, planning ----------------------------------------------------------------


def apply(step: Step, existing: Existing) -> Existing:
    replace = dataclasses.replace
    now = existing.thing
    match step:
        case IssueCertificate(certificate_id, status) | RegisterCertificate(certificate_id, status):
            assert existing.certificate_id is None
            return replace(existing, certificate_id=certificate_id, certificate_status=status)
        case CreateThing(_, type_name, attributes):
            assert now is None
            return replace(existing, thing=ExistingThing(attributes, type_name))
        case UpdateThing(_, type_name, attributes):
            assert now is not None
            return replace(existing, thing=replace(now, attributes=attributes, type_name=type_name))
        case RemoveThingFromGroup(_, group):
            assert now is not None
            return replace(existing, thing=replace(now, groups=now.groups - {group}))
        case AddThingToGroup(_, group):
            assert now is not None
            groups = now.groups | {group}
            assert len(groups) <= 10
            return replace(existing, thing=replace(now, groups=groups))
        case AddThingToBillingGroup(_, group):
            assert now is not None
            return replace(existing, thing=replace(now, billing_group=group))
        case CreatePolicy(name, document):
            assert existing.policies.get(name) is None
            return replace(existing, policies={**existing.policies, name: document})
        case AttachPolicy(name, _):
            assert existing.policies.get(name) is not None
            return replace(existing, attached_policies=existing.attached_policies | {name})
        case AttachThingPrincipal(name, _, exclusive):
            assert now is not None
            return replace(existing, attached_things={**existing.attached_things, name: exclusive})
        case UpdateCertificateStatus(_, status):
            return replace(existing, certificate_status=status)


ATTRIBUTES = st.dictionaries(st.sampled_from("vwxyz"), st.sampled_from(["", "1", "2"]), max_size=5)
GROUPS = st.sampled_from("abcd")
OVERRIDE = st.none() | st.sampled_from(Override)
THINGS = st.builds(
    Thing,
    st.just("thing"),
    st.just("t"),
    st.none() | ATTRIBUTES,
    st.sampled_from([None, "lamp", "bulb", "candle", "desk"]),
    st.none() | st.lists(GROUPS, unique=True).map(tuple),
    st.sampled_from([None, "m", "n"]),
    st.builds(
        Overrides,
        OVERRIDE,
        st.none() | st.sampled_from(["DO_NOTHING", "REPLACE", "FAIL"]).map(Override),
        OVERRIDE,
    ),
)
POLICIES = st.sampled_from([Policy("p", "H", "{}"), Policy("q", "named"), Policy("r", "missing")])
WANTED = st.builds(
    Resources,
    st.none() | THINGS,
    st.none()
    | st.builds(
        Certificate,
        st.just("c"),
        st.just(ID),
        st.sampled_from(["ACTIVE", "INACTIVE"]),
        st.none() | st.sampled_from(["DO_NOTHING", "REPLACE", "FAIL"]).map(Override),
        st.sampled_from([None, "EXCLUSIVE_THING", "NON_EXCLUSIVE_THING"]),
        st.sampled_from([None, "CSR"]),
        st.sampled_from([None, "PEM"]),
    ),
    st.lists(POLICIES, max_size=3).map(tuple),
    st.just({}),
)
REGISTERED = st.builds(
    Existing,
    thing=st.none()
    | st.builds(
        ExistingThing,
        ATTRIBUTES.map(lambda each: {name: value for name, value in each.items() if value}),
        st.sampled_from([None, "lamp", "candle"]),
        st.frozensets(GROUPS),
        st.sampled_from([None, "m"]),
    ),
    certificate_id=st.just(ID),
    certificate_status=st.sampled_from(["PENDING_ACTIVATION", "ACTIVE", "INACTIVE", "REVOKED"]),
    thing_types=st.just(frozenset({"lamp", "bulb"})),
    deprecated_thing_types=st.just(frozenset({"candle"})),
    thing_groups=st.sampled_from([{"a": "a", "b": "b", "c": "c"}, {"a": "a", "b": "b", "c": "a"}]),
    billing_groups=st.frozensets(st.sampled_from("mn")),
    policies=st.sampled_from([{}, {"named": "{}"}, {"named": "{}", "H": "{}"}]),
    attached_policies=st.frozensets(st.sampled_from(["H", "named"])),
    attached_things=st.dictionaries(st.sampled_from("tu"), st.booleans()),
)
EXISTING = REGISTERED | REGISTERED.map(
    lambda each: dataclasses.replace(
        each,
        certificate_id=None,
        certificate_status=None,
        attached_policies=frozenset(),
        attached_things={},
    )
)


@given(WANTED, EXISTING)
def test_planning_again_after_applying_finds_nothing_to_do(
    wanted: Resources, existing: Existing
) -> None:
    try:
        steps = plan(wanted, existing)
    except ResourceRegistrationFailureException:
        return
    after = existing
    for step in steps:
        after = apply(step, after)
    assert plan(wanted, after) == ()
    assert len(set(map(repr, steps))) == len(steps)
