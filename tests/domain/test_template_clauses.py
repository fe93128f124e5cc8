"""Provisioning templates clause by clause: each row is a sentence of AWS's documentation.

Sources of the rows, all of the AWS IoT Core Developer Guide unless said otherwise:

* T  "Provisioning templates" (Parameters, Resources, Override settings)
* F  "Provisioning templates", "Fleet provisioning" (Mappings, Device configuration, functions)
* J  "Just-in-time provisioning"
* M  service model ``iot`` 2015-05-28
* O  seen: an answer of AWS, or AWS's own example, quoted in public
* C  AWS CloudFormation User Guide, "Intrinsic function reference"
* I  not documented; docs/divergences.md says what is done here
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from fleetgate.domain import template
from fleetgate.domain.resources import Kind, Override, Resources
from fleetgate.domain.template import CERTIFICATE_ID
from fleetgate.errors import InvalidTemplate

ID = "0123456789abcdef" * 4
SUBJECT = "AWS::IoT::Certificate::"
FLEET, JITP, INLINE = Kind.FLEET, Kind.JITP, Kind.INLINE
GIVEN = {
    FLEET: {CERTIFICATE_ID: ID, "P": "p"},
    JITP: {CERTIFICATE_ID: ID, f"{SUBJECT}CommonName": "p"},
    INLINE: {"Id": ID, "P": "p"},
}
STATEMENT = {"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"}
DOCUMENT = {"Version": "2012-10-17", "Statement": [STATEMENT]}


def ref(kind: Kind) -> dict[str, str]:
    """The one value that is brought: by the device, by its certificate, by the caller."""
    return {"Ref": f"{SUBJECT}CommonName" if kind is JITP else "P"}


def body(kind: Kind) -> dict[str, Any]:
    identity = {"Ref": "Id" if kind is INLINE else CERTIFICATE_ID}
    return {
        "Parameters": {
            name: {"Type": "String"}
            for name in (ref(kind)["Ref"], *(["Id"] if kind is INLINE else []))
        },
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": ref(kind)}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": identity},
            },
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "lamp"}},
        },
    }


def at(kind: Kind, *path: str, to: Any = ...) -> dict[str, Any]:
    """A template with `to` at `path`, or without anything there."""
    whole = body(kind)
    place = whole
    for key in path[:-1]:
        place = place.setdefault(key, {})
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = copy.deepcopy(to)
    return whole


def rendered(whole: dict[str, Any], kind: Kind, **more: str) -> Resources:
    parsed = template.parse(json.dumps(whole), kind)
    return template.render(parsed, {**GIVEN[kind], **more})


THING = ("Resources", "thing", "Properties")
CERTIFICATE = ("Resources", "certificate", "Properties")
POLICY = ("Resources", "policy", "Properties")
ALL = (FLEET, JITP, INLINE)


# --- what is accepted ----------------------------------------------------------------------------

ACCEPTED: list[tuple[str, tuple[Kind, ...], tuple[str, ...], Any, str, Any]] = [
    # source, kinds, where, what, the attribute of Resources to look at, its value
    ("T ThingName", ALL, (*THING, "ThingName"), "a:_-Z9", "thing.name", "a:_-Z9"),
    ("T AttributePayload", ALL, (*THING, "AttributePayload"), {}, "thing.attributes", {}),
    (
        "T AttributePayload: name-value pairs",
        ALL,
        (*THING, "AttributePayload"),
        {"version": "v1"},
        "thing.attributes",
        {"version": "v1"},
    ),
    ("T AttributePayload optional", ALL, ("Description",), "x", "thing.attributes", None),
    ("T ThingTypeName", ALL, (*THING, "ThingTypeName"), "bulb", "thing.type_name", "bulb"),
    ("T ThingGroups", ALL, (*THING, "ThingGroups"), ["a", "b"], "thing.groups", ("a", "b")),
    ("T BillingGroup", ALL, (*THING, "BillingGroup"), "west", "thing.billing_group", "west"),
    ("T Status optional", ALL, ("Description",), "x", "certificate.status", "ACTIVE"),
    ("T Status", ALL, (*CERTIFICATE, "Status"), "INACTIVE", "certificate.status", "INACTIVE"),
    ("O Status `Active`", ALL, (*CERTIFICATE, "Status"), "Active", "certificate.status", "ACTIVE"),
    (
        "T ThingPrincipalType",
        ALL,
        (*CERTIFICATE, "ThingPrincipalType"),
        "EXCLUSIVE_THING",
        "certificate.principal_type",
        "EXCLUSIVE_THING",
    ),
    ("T CertificateId", ALL, ("Description",), "x", "certificate.certificate_id", ID),
    ("T PolicyName", ALL, (*POLICY, "PolicyName"), "other", "policies.0.name", "other"),
    (
        "T PolicyDocument: an escaped string",
        ALL,
        POLICY,
        {"PolicyDocument": json.dumps(DOCUMENT)},
        "policies.0.document",
        json.dumps(DOCUMENT),
    ),
    (
        "F PolicyDocument: an object in AWS's example",
        ALL,
        POLICY,
        {"PolicyDocument": DOCUMENT},
        "policies.0.document",
        json.dumps(DOCUMENT, separators=(",", ":")),
    ),
    (
        "F Mappings",
        (FLEET,),
        ("Mappings",),
        {"M": {"k": {"n": "v"}}},
        "thing.name",
        "p",
    ),
    (
        "F DeviceConfiguration: flat",
        (FLEET,),
        ("DeviceConfiguration",),
        {"Foo": "Bar"},
        "device_configuration",
        {"Foo": "Bar"},
    ),
    (
        "O DeviceConfiguration: {} in RegisterThing (aws-sdk-js 3617)",
        (JITP, INLINE),
        ("DeviceConfiguration",),
        {},
        "device_configuration",
        {},
    ),
    ("I functions outside fleet templates", ALL, (*THING, "ThingName"), ..., "thing.name", "a-p"),
    ("I DependsOn", ALL, ("Resources", "thing", "DependsOn"), "policy", "thing.name", "p"),
    ("I Conditions", ALL, ("Conditions",), {}, "thing.name", "p"),
    ("I Outputs", ALL, ("Outputs",), {}, "thing.name", "p"),
    ("I a description of a parameter", ALL, ("Description",), "x", "thing.name", "p"),
]


def look(resources: Resources, path: str) -> Any:
    value: Any = resources
    for name in path.split("."):
        value = value[int(name)] if name.isdigit() else getattr(value, name)
    return dict(value) if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("kind", "where", "what", "attribute", "expected"),
    [
        pytest.param(kind, *row, id=f"{source} / {kind}")
        for source, kinds, *row in ACCEPTED
        for kind in kinds
    ],
)
def test_what_is_documented_is_accepted(
    kind: Kind, where: tuple[str, ...], what: Any, attribute: str, expected: Any
) -> None:
    if what is ...:
        what = {"Fn::Join": ["-", ["a", ref(kind)]]}
    assert look(rendered(at(kind, *where, to=what), kind), attribute) == expected


# --- what is refused -----------------------------------------------------------------------------

REFUSED: list[tuple[str, tuple[Kind, ...], tuple[str, ...], Any, str]] = [
    # source, kinds, where, what, message
    ("M TemplateBody", ALL, ("Description",), "x" * 10_241, "the limit is 10240"),
    ("T two sections", ALL, ("Resources",), ..., "`Resources` is missing"),
    ("F `Mapping` in prose", (FLEET,), ("Mapping",), {}, "unknown element `Mapping`"),
    ("T String alone", ALL, ("Parameters", "X"), {"Type": "Number"}, "X.Type: it must be `String`"),
    ("T types", ALL, ("Resources", "x"), {"Type": "AWS::IoT::Role"}, "x.Type: .* `AWS::IoT::Role`"),
    ("T ThingName", ALL, (*THING, "ThingName"), "a b", "ThingName: .* does not match"),
    ("M ThingName", ALL, (*THING, "ThingName"), "a" * 129, "ThingName: .* does not match"),
    ("T ThingName is there", ALL, (*THING, "ThingName"), ..., "`ThingName` is missing"),
    (
        "T flat, not as CreateThing has it",
        ALL,
        (*THING, "AttributePayload"),
        {"attributes": {"a": "b"}},
        "AttributePayload.attributes: it must be a string",
    ),
    ("T ThingGroups: a list", ALL, (*THING, "ThingGroups"), "a", "ThingGroups: it must be a list"),
    (
        "I PackageVersions: shape unknown",
        ALL,
        (*THING, "PackageVersions"),
        "firmware:1",
        "PackageVersions: this server does not offer it",
    ),
    ("T Status", ALL, (*CERTIFICATE, "Status"), "ON", "must be ACTIVE or INACTIVE, not `ON`"),
    (
        "T ThingPrincipalType",
        ALL,
        (*CERTIFICATE, "ThingPrincipalType"),
        "exclusive_thing",
        "must be EXCLUSIVE_THING or NON_EXCLUSIVE_THING",
    ),
    (
        "T fleet: certificate ids alone",
        (FLEET,),
        (*CERTIFICATE, "CertificateSigningRequest"),
        "x",
        "a fleet provisioning template takes only `CertificateId`",
    ),
    (
        "T JIT provisioning: CertificateId",
        (JITP,),
        CERTIFICATE,
        {"CertificatePem": "x"},
        "a JITP template takes only `CertificateId`",
    ),
    (
        "T one of these methods",
        (INLINE,),
        (*CERTIFICATE, "CertificatePem"),
        "x",
        "exactly one of .*; it has `CertificateId` and `CertificatePem`",
    ),
    ("O neither", ALL, POLICY, {}, "Neither policyName nor policyDocument is present in the Templ"),
    (
        "T not both",
        ALL,
        POLICY,
        {"PolicyName": "x", "PolicyDocument": DOCUMENT},
        "exclude each other",
    ),
    (
        "T no override settings for policies",
        ALL,
        ("Resources", "policy", "OverrideSettings"),
        {"PolicyDocument": "REPLACE"},
        "unknown element `PolicyDocument`; known: none",
    ),
    (
        "F DeviceConfiguration: no nested objects",
        (FLEET,),
        ("DeviceConfiguration",),
        {"a": {"b": "c"}},
        "DeviceConfiguration.a: it must be a string",
    ),
    (
        "F DeviceConfiguration: fleet",
        (JITP, INLINE),
        ("DeviceConfiguration",),
        {"a": "b"},
        "DeviceConfiguration: only a fleet provisioning template has one",
    ),
    (
        "F Mappings: fleet",
        (JITP, INLINE),
        ("Mappings",),
        {"M": {"k": {"n": "v"}}},
        "Mappings: only a fleet provisioning template has them",
    ),
    (
        "F no functions in Mappings",
        (FLEET,),
        ("Mappings",),
        {"M": {"k": {"n": {"Ref": "P"}}}},
        "Mappings.M.k.n: .* functions are not evaluated in mappings",
    ),
    (
        "F no Join in policies",
        ALL,
        (*POLICY, "PolicyName"),
        {"Fn::Join": ["", ["a"]]},
        "Fn::Join is not supported in policies",
    ),
    (
        "F no Join in documents, however deep",
        ALL,
        POLICY,
        {"PolicyDocument": {"Version": "2012-10-17", "Statement": [{"Fn::Join": ["", []]}]}},
        "PolicyDocument.Statement.0..Fn::Join: Fn::Join is not supported",
    ),
    (
        "F Select out of bounds",
        ALL,
        (*THING, "ThingName"),
        {"Fn::Select": ["1", ["a"]]},
        "index 1 is outside a list of 1 elements",
    ),
    (
        "F Select of null",
        ALL,
        (*THING, "ThingName"),
        {"Fn::Select": [0, [None]]},
        "must be a string, a Ref or a function",
    ),
    (
        "C FindInMap: an unknown key",
        (FLEET,),
        (*THING, "ThingName"),
        {"Fn::FindInMap": ["M", "a", "b"]},
        "there is no mapping `M`",
    ),
    (
        "I unknown functions",
        ALL,
        (*THING, "ThingName"),
        {"Fn::If": []},
        "unknown function `Fn::If`",
    ),
    ("T JITP: a certificate", (JITP,), ("Resources", "certificate"), ..., "never be activated"),
    (
        "J what no certificate has",
        (JITP,),
        (*THING, "ThingName"),
        {"Ref": "SerialNumber"},
        "ThingName.Ref: Cannot resolve reference value: SerialNumber",
    ),
    (
        "J a declared one without a value",
        (JITP,),
        ("Parameters", "Site"),
        {"Type": "String"},
        "Parameters.Site: Cannot resolve reference value: Site",
    ),
]


@pytest.mark.parametrize(
    ("kind", "where", "what", "message"),
    [
        pytest.param(kind, *row, id=f"{source} / {kind}")
        for source, kinds, *row in REFUSED
        for kind in kinds
    ],
)
def test_what_is_documented_as_wrong_is_refused(
    kind: Kind, where: tuple[str, ...], what: Any, message: str
) -> None:
    with pytest.raises(InvalidTemplate, match=message):
        rendered(at(kind, *where, to=what), kind)


def test_one_thing_one_certificate_and_many_policies() -> None:
    for name, limit in (("thing", 1), ("certificate", 1), ("policy", 10)):
        whole = body(FLEET)
        for number in range(limit):
            whole["Resources"][f"more{number}"] = whole["Resources"][name]
        if name == "policy":
            assert len(rendered(whole, FLEET).policies) == 11
        else:
            with pytest.raises(InvalidTemplate, match=f"there are 2 {name}s; one is the limit"):
                rendered(whole, FLEET)


# --- override settings: T ------------------------------------------------------------------------

BOTH = [
    ("AttributePayload", "ATTRIBUTE_PAYLOAD", "attributes"),
    ("ThingTypeName", "THING_TYPE_NAME", "type_name"),
    ("ThingGroups", "THING_GROUPS", "groups"),
]


@pytest.mark.parametrize("value", list(Override))
@pytest.mark.parametrize(("example", "prose", "attribute"), BOTH)
@pytest.mark.parametrize("kind", ALL)
def test_override_settings_of_things(
    kind: Kind, example: str, prose: str, attribute: str, value: Override
) -> None:
    for spelled in (example, prose):
        whole = at(kind, "Resources", "thing", "OverrideSettings", to={spelled: value})
        if value is Override.MERGE and example == "ThingTypeName":
            with pytest.raises(InvalidTemplate, match="one of DO_NOTHING, REPLACE, FAIL, not `ME"):
                rendered(whole, kind)
        else:
            assert look(rendered(whole, kind), f"thing.overrides.{attribute}") is value


@pytest.mark.parametrize("value", list(Override))
@pytest.mark.parametrize("kind", ALL)
def test_override_settings_of_certificates(kind: Kind, value: Override) -> None:
    for spelled in ("Status", "STATUS"):
        whole = at(kind, "Resources", "certificate", "OverrideSettings", to={spelled: value})
        if value is Override.MERGE:
            with pytest.raises(InvalidTemplate, match="one of DO_NOTHING, REPLACE, FAIL, not `ME"):
                rendered(whole, kind)
        else:
            assert look(rendered(whole, kind), "certificate.override") is value


# --- pseudo parameters: J, F ---------------------------------------------------------------------

OF_THE_SUBJECT = [
    *("Country", "Organization", "OrganizationalUnit", "DistinguishedNameQualifier"),
    *("StateName", "CommonName", "SerialNumber"),
]


@pytest.mark.parametrize("name", [*OF_THE_SUBJECT, "Id"])
@pytest.mark.parametrize("declared", [True, False])
def test_pseudo_parameters_of_just_in_time_provisioning(name: str, declared: bool) -> None:
    whole = at(JITP, *THING, "ThingName", to={"Ref": SUBJECT + name})
    if declared:
        whole["Parameters"][SUBJECT + name] = {"Type": "String"}
    expected = ID if name == "Id" else "value"
    given = {SUBJECT + each: "value" for each in OF_THE_SUBJECT}
    assert look(rendered(whole, JITP, **given), "thing.name") == expected


@pytest.mark.parametrize("name", OF_THE_SUBJECT)
def test_a_fleet_template_knows_nothing_of_the_subject(name: str) -> None:
    whole = at(FLEET, *THING, "ThingName", to={"Ref": SUBJECT + name})
    whole["Parameters"][SUBJECT + name] = {"Type": "String"}
    with pytest.raises(InvalidTemplate, match=f"resolve reference value: {SUBJECT}{name}"):
        rendered(whole, FLEET, **{SUBJECT + name: "sent by the device"})


# Seen: the answer to a template that refers to it.
@pytest.mark.parametrize("name", ["AWS::Region", "AWS::AccountId"])
@pytest.mark.parametrize("kind", [FLEET, JITP])
def test_there_is_no_region_and_no_account(kind: Kind, name: str) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        rendered(at(kind, *THING, "ThingName", to={"Ref": name}), kind, **{name: "x"})
    assert caught.value.rule == f"Cannot resolve reference value: {name}"


# "The certificate must contain values for all of the parameters in the template body."
def test_a_certificate_without_what_is_declared_is_refused() -> None:
    whole = at(JITP, "Parameters", f"{SUBJECT}Country", to={"Type": "String"})
    assert look(rendered(whole, JITP, **{f"{SUBJECT}Country": "DE"}), "thing.name") == "p"
    with pytest.raises(InvalidTemplate) as caught:
        rendered(whole, JITP)
    assert caught.value.rule == f"Cannot resolve reference value: {SUBJECT}Country"
    assert template.registration_message(caught.value) == (
        f"Invalid registration template. Cannot resolve reference value: {{Ref={SUBJECT}Country}}"
    )


# aws-samples/aws-iot-core-device-provisioning-deep-dive, just-in-time-provisioning: a default is
# there "in case the certificate does not contain information on the defined field".
def test_a_default_stands_in_for_what_the_subject_does_not_have() -> None:
    name = f"{SUBJECT}OrganizationalUnit"
    whole = at(JITP, "Parameters", name, to={"Type": "String", "Default": "unclaimed"})
    whole["Resources"]["thing"]["Properties"]["ThingName"] = {"Ref": name}
    assert look(rendered(whole, JITP), "thing.name") == "unclaimed"
    assert look(rendered(whole, JITP, **{name: "lamps"}), "thing.name") == "lamps"


def test_nothing_but_the_certificate_brings_values_to_a_jitp_template() -> None:
    whole = at(JITP, "Parameters", "Site", to={"Type": "String", "Default": "here"})
    whole["Resources"]["thing"]["Properties"]["ThingName"] = {"Ref": "Site"}
    assert look(rendered(whole, JITP, Site="elsewhere"), "thing.name") == "here"


# AWS escapes the values as RFC 2253 does: `a\=b` has been seen as the name of a thing.
def test_values_of_the_subject_do_not_widen_a_policy() -> None:
    for value in ("*", "a\\=b", "${iot:ClientId}", "+", "#", 'x"]'):
        whole = at(
            JITP,
            *POLICY,
            to={
                "PolicyDocument": {**DOCUMENT, "Statement": [{**STATEMENT, "Resource": ref(JITP)}]}
            },
        )
        whole["Resources"]["thing"]["Properties"]["ThingName"] = {"Ref": CERTIFICATE_ID}
        with pytest.raises(InvalidTemplate, match="may not stand in a policy"):
            rendered(whole, JITP, **{f"{SUBJECT}CommonName": value})


@pytest.mark.parametrize("kind", [FLEET, JITP])
@pytest.mark.parametrize("other", ["f" * 64, {"Ref": "X"}])
def test_the_certificate_is_the_devices_own(kind: Kind, other: Any) -> None:
    whole = at(kind, *CERTIFICATE, "CertificateId", to=other)
    whole["Parameters"]["X"] = {"Type": "String", "Default": "e" * 64}
    with pytest.raises(InvalidTemplate, match="it must be the device's own certificate"):
        rendered(whole, kind)


# --- resolution: T "The default value is used when the dictionary ... does not contain a value" ---


@pytest.mark.parametrize("kind", [FLEET, INLINE])
@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        ({"Type": "String"}, {"Q": "sent"}, "sent"),
        ({"Type": "String", "Default": "kept"}, {}, "kept"),
        ({"Type": "String", "Default": "kept"}, {"Q": "sent"}, "sent"),
        ({"Type": "String", "Default": ""}, {}, ""),
        ({"Type": "String"}, {}, None),
        (None, {"Q": "sent"}, "sent"),  # I: AWS's example refers to an undeclared SerialNumber
        (None, {}, None),
    ],
)
def test_where_a_value_comes_from(
    kind: Kind, declared: Any, given: dict[str, str], expected: str | None
) -> None:
    whole = at(kind, *THING, "AttributePayload", to={"a": {"Ref": "Q"}})
    if declared is not None:
        whole["Parameters"]["Q"] = declared
    if expected is not None:
        assert look(rendered(whole, kind, **given), "thing.attributes") == {"a": expected}
        return
    with pytest.raises(InvalidTemplate) as caught:
        rendered(whole, kind, **given)
    assert caught.value.rule == "Cannot resolve reference value: Q"


@pytest.mark.parametrize("kind", [FLEET, INLINE])
def test_a_parameter_nobody_refers_to_may_be_missing(kind: Kind) -> None:
    assert look(rendered(at(kind, "Parameters", "Q", to={"Type": "String"}), kind), "thing.name")


# --- policies made from documents: O --------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_equal_documents_make_one_policy_of_forty_upper_case_digits(kind: Kind) -> None:
    spelled = [DOCUMENT, json.dumps(DOCUMENT), json.dumps(DOCUMENT, indent=3)]
    names = set()
    for document in spelled:
        (policy,) = rendered(at(kind, *POLICY, to={"PolicyDocument": document}), kind).policies
        assert len(policy.name) == 40
        assert set(policy.name) <= set("0123456789ABCDEF")
        names.add(policy.name)
    assert len(names) == 1
