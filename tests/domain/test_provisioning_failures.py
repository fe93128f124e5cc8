"""What a plan that fails says: the place in the template, what it wants, and what would settle it.

What the registry knows of a thing that exists is a note of the error, never in its message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.domain.provisioning import Existing, ExistingThing, plan
from fleetgate.domain.provisioning_failures import certificate_path
from fleetgate.domain.resources import Certificate, Override, Overrides, Policy, Resources, Thing
from fleetgate.errors import ResourceRegistrationFailureException

ID = "c" * 64
LAMP = ExistingThing(
    {"site": "seattle", "floor": "3"}, "lamp", frozenset({"north", "south"}), "retail"
)
REGISTRY = Existing(
    thing=LAMP,
    certificate_id=ID,
    certificate_status="ACTIVE",
    thing_types=frozenset({"lamp", "bulb"}),
    deprecated_thing_types=frozenset({"candle"}),
    thing_groups={"north": "north", "south": "south", "east": "south", "west": "west"},
    billing_groups=frozenset({"retail", "trade"}),
)
AT = "Resources.d.Properties"
WOULD = "(DO_NOTHING or REPLACE or MERGE would settle it)"


def failed(
    wanted: Thing | None = None,
    certificate: Certificate | None = None,
    policies: Sequence[Policy] = (),
    existing: Existing = REGISTRY,
) -> tuple[str, list[str]]:
    """Message and notes of the plan's failure."""
    with pytest.raises(ResourceRegistrationFailureException) as caught:
        plan(Resources(wanted, certificate, tuple(policies), {}), existing, Limits())
    return caught.value.message, getattr(caught.value, "__notes__", [])


def thing(**members: Any) -> Thing:
    return Thing("d", "d7", **members)


@pytest.mark.parametrize(
    ("wanted", "message", "note"),
    [
        (
            thing(attributes={"site": "dublin", "floor": "3"}),
            (
                f"{AT}.AttributePayload.site: thing `d7` exists with other attributes than the "
                "template's: `site` is to be `dublin`; there is no "
                f"OverrideSettings.AttributePayload in the template {WOULD}"
            ),
            "the thing has `site` `seattle`",
        ),
        (
            thing(
                attributes={"room": "1", "site": "dublin"},
                overrides=Overrides(attributes=Override.FAIL),
            ),
            (
                f"{AT}.AttributePayload: thing `d7` exists with other attributes than the "
                "template's: `room` is to be `1`, `site` is to be `dublin`, `floor` is to be "
                f"absent; OverrideSettings.AttributePayload is FAIL in the template {WOULD}"
            ),
            "the thing has `room` absent, `site` `seattle`, `floor` `3`",
        ),
        (
            thing(attributes={"site": "seattle"}),
            (
                f"{AT}.AttributePayload: thing `d7` exists with other attributes than the "
                "template's: `floor` is to be absent; there is no "
                f"OverrideSettings.AttributePayload in the template {WOULD}"
            ),
            "the thing has `floor` `3`",
        ),
        (
            thing(type_name="bulb"),
            (
                f"{AT}.ThingTypeName: thing `d7` exists with other thing type than the template's "
                "`bulb`; there is no OverrideSettings.ThingTypeName in the template (DO_NOTHING or "
                "REPLACE would settle it)"
            ),
            "the thing has thing type `lamp`",
        ),
        (
            thing(groups=("west", "south")),
            (
                f"{AT}.ThingGroups: thing `d7` exists with other groups than the template's: "
                "it is to be in `west`, and it is to be in no other; there is no "
                f"OverrideSettings.ThingGroups in the template {WOULD}"
            ),
            "the thing has the groups `north`, `south`",
        ),
        (
            thing(groups=(), overrides=Overrides(groups=Override.FAIL)),
            (
                f"{AT}.ThingGroups: thing `d7` exists with other groups than the template's: "
                "it is to be in no group; "
                f"OverrideSettings.ThingGroups is FAIL in the template {WOULD}"
            ),
            "the thing has the groups `north`, `south`",
        ),
        (
            thing(groups=("east",), overrides=Overrides(groups=Override.MERGE)),
            (
                f"{AT}.ThingGroups: thing `d7` is in another thing group of the same hierarchy "
                "as one of `east`, and a thing cannot be in more than one; REPLACE as "
                "OverrideSettings.ThingGroups would take it out"
            ),
            (
                "thing `d7` would be in thing groups `east` and `south`: a thing cannot be in more "
                "than one group in the same hierarchy (root `south`)"
            ),
        ),
        (
            thing(billing_group="trade"),
            (
                f"{AT}.BillingGroup: thing `d7` is in another billing group than the template's "
                "`trade`, and a template does not move it; RemoveThingFromBillingGroup first"
            ),
            "the thing is in billing group `retail`",
        ),
    ],
)
def test_a_thing_that_differs(wanted: Thing, message: str, note: str) -> None:
    assert failed(wanted) == (message, [note])


def test_a_thing_without_a_type_differs() -> None:
    untyped = dataclasses.replace(REGISTRY, thing=dataclasses.replace(LAMP, type_name=None))
    assert failed(thing(type_name="bulb"), existing=untyped)[1] == ["the thing has no thing type"]


def test_long_values_and_many_attributes_are_cut() -> None:
    existing = ExistingThing({f"a{n}": "s" * 800 for n in range(50)}, "lamp")
    wanted = thing(attributes={f"a{n}": "t" * 800 for n in range(50)})
    message, notes = failed(wanted, existing=dataclasses.replace(REGISTRY, thing=existing))
    cut = "t" * 40 + "..."
    assert f"`a0` is to be `{cut}`, `a1` is to be `{cut}`, `a2` is to be `{cut}`, 47 mo" in message
    assert "s" * 40 not in message
    assert len(message) < 500
    assert len("".join(notes)) < 300


def test_the_names_of_attributes_are_cut() -> None:
    wanted = thing(attributes={"n" * 128: "1", "floor": "3", "site": "seattle"})
    assert failed(wanted)[0].startswith(f"{AT}.AttributePayload.{'n' * 80}...: thing `d7` ")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (thing(type_name="candle"), "ThingTypeName: thing type `candle` is deprecated"),
        (thing(type_name="desk"), "ThingTypeName: thing type `desk` does not exist"),
        (thing(groups=("sky",)), "ThingGroups: thing group `sky` does not exist"),
        (thing(billing_group="none"), "BillingGroup: billing group `none` does not exist"),
        (Thing("d", "a b"), "ThingName: thing name `a b` does not match "),
        (
            thing(attributes={"a": "ä"}),
            "AttributePayload: value `ä` of attribute `a` does not match ",
        ),
        (
            thing(groups=("east", "south")),
            (
                "ThingGroups: thing `d7` would be in thing groups `east` and `south`: a thing "
                "cannot be in more than one group in the same hierarchy (root `south`)"
            ),
        ),
    ],
)
def test_what_a_thing_cannot_have(wanted: Thing, message: str) -> None:
    said, notes = failed(wanted, existing=dataclasses.replace(REGISTRY, thing=None))
    assert said.startswith(f"{AT}.{message}")
    assert notes == []


def test_policies_and_certificates_have_their_places() -> None:
    policies = [Policy("p", "there"), Policy("q", "lump"), Policy("r", "lump")]
    existing = dataclasses.replace(REGISTRY, policies={"there": "{}"})
    assert failed(policies=policies, existing=existing) == (
        "Resources.q.Properties.PolicyName: policy `lump` does not exist",
        [],
    )
    certificate = Certificate("c", ID, "ACTIVE")
    many = [Policy(f"p{n}", f"H{n}", "{}") for n in range(11)]
    assert failed(None, certificate, many)[0] == (
        f"Resources.c: certificate `{ID}` would have 11 policies attached; the limit is 10"
    )
    revoked = dataclasses.replace(REGISTRY, certificate_status="REVOKED")
    assert failed(None, certificate, existing=revoked)[0] == (
        f"Resources.c.Properties.Status: certificate `{ID}` is REVOKED, and the template may not "
        "make it ACTIVE: a certificate that is REVOKED is not changed"
    )
    inactive = dataclasses.replace(REGISTRY, certificate_status="INACTIVE")
    strict = dataclasses.replace(certificate, override=Override.FAIL)
    assert failed(None, strict, existing=inactive)[0] == (
        f"Resources.c.Properties.Status: certificate `{ID}` is INACTIVE, and the template may not "
        "make it ACTIVE: OverrideSettings.Status is FAIL in the template"
    )
    leaving = dataclasses.replace(REGISTRY, certificate_status="PENDING_TRANSFER")
    assert failed(None, certificate, existing=leaving)[0].startswith(
        f"Resources.c.Properties.CertificateId: certificate `{ID}` is PENDING_TRANSFER: "
    )
    absent = dataclasses.replace(REGISTRY, certificate_id=None, certificate_status=None)
    assert failed(None, certificate, existing=absent)[0] == (
        f"Resources.c.Properties.CertificateId: certificate `{ID}` does not exist"
    )
    elsewhere = dataclasses.replace(REGISTRY, attached_things={"u": True})
    assert failed(thing(), certificate, existing=elsewhere)[0].startswith(
        f"Resources.c.Properties.ThingPrincipalType: principal `{ID}` is attached to thing `u` ex"
    )


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (Certificate("c", ID), "CertificateId"),
        (Certificate("c", None, csr="CSR"), "CertificateSigningRequest"),
        (Certificate("c", None, pem="PEM"), "CertificatePem"),
    ],
)
def test_the_place_of_a_certificate(certificate: Certificate, name: str) -> None:
    assert certificate_path(certificate) == f"Resources.c.Properties.{name}"
