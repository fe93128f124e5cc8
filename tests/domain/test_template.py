from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.domain import template
from fleetgate.domain.resources import (
    Certificate,
    Override,
    Overrides,
    Policy,
    Resources,
    Thing,
)
from fleetgate.domain.template import CERTIFICATE_ID
from fleetgate.errors import InvalidTemplate

ID = "0123456789abcdef" * 4
STATEMENT = {
    "Effect": "Allow",
    "Action": ["iot:Publish"],
    "Resource": ["arn:aws:iot:us-east-1:504350838278:topic/foo/bar"],
}
DOCUMENT = {"Version": "2012-10-17", "Statement": [STATEMENT]}

# AWS IoT Developer Guide, "Provisioning devices that don't have device certificates using fleet
# provisioning": the example template. It refers to a `SerialNumber` that it does not declare.
EXAMPLE: dict[str, Any] = {
    "Parameters": {"DeviceLocation": {"Type": "String"}},
    "Mappings": {"LocationTable": {"Seattle": {"LocationUrl": "https://example.aws"}}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "AttributePayload": {"version": "v1", "serialNumber": "serialNumber"},
                "ThingName": {"Fn::Join": ["", ["ThingPrefix_", {"Ref": "SerialNumber"}]]},
                "ThingTypeName": {"Fn::Join": ["", ["ThingTypePrefix_", {"Ref": "SerialNumber"}]]},
                "ThingGroups": ["widgets", "WA"],
                "BillingGroup": "BillingGroup",
            },
            "OverrideSettings": {
                "AttributePayload": "MERGE",
                "ThingTypeName": "REPLACE",
                "ThingGroups": "DO_NOTHING",
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": CERTIFICATE_ID}, "Status": "Active"},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": DOCUMENT}},
    },
    "DeviceConfiguration": {
        "FallbackUrl": "https://www.example.com/test-site",
        "LocationUrl": {
            "Fn::FindInMap": ["LocationTable", {"Ref": "DeviceLocation"}, "LocationUrl"]
        },
    },
}
PARAMETERS = {CERTIFICATE_ID: ID, "DeviceLocation": "Seattle", "SerialNumber": "42"}


def render(body: dict[str, Any], **parameters: str) -> Resources:
    return template.render(template.parse(json.dumps(body)), {CERTIFICATE_ID: ID, **parameters})


def changed(*path: str, to: object) -> dict[str, Any]:
    """The example with the value at `path` put there, or taken away (`to` is ...)."""
    body = copy.deepcopy(EXAMPLE)
    place = body
    for key in path[:-1]:
        place = place.setdefault(key, {})
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return body


def with_thing(**properties: object) -> dict[str, Any]:
    body = copy.deepcopy(EXAMPLE)
    body["Resources"]["thing"]["Properties"].update(properties)
    return body


def with_certificate(**properties: object) -> dict[str, Any]:
    body = copy.deepcopy(EXAMPLE)
    body["Resources"]["certificate"]["Properties"].update(properties)
    return body


def with_policy(**properties: object) -> dict[str, Any]:
    return changed("Resources", "policy", "Properties", to=properties)


def test_the_example_of_the_developer_guide() -> None:
    text = json.dumps(DOCUMENT, separators=(",", ":"))
    name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().upper()
    assert template.render(template.parse(json.dumps(EXAMPLE)), PARAMETERS) == Resources(
        thing=Thing(
            logical_id="thing",
            name="ThingPrefix_42",
            attributes={"version": "v1", "serialNumber": "serialNumber"},
            type_name="ThingTypePrefix_42",
            groups=("widgets", "WA"),
            billing_group="BillingGroup",
            overrides=Overrides(Override.MERGE, Override.REPLACE, Override.DO_NOTHING),
        ),
        certificate=Certificate("certificate", ID, "ACTIVE"),
        policies=(Policy("policy", name, text),),
        device_configuration={
            "FallbackUrl": "https://www.example.com/test-site",
            "LocationUrl": "https://example.aws",
        },
    )


# --- parameters ----------------------------------------------------------------------------------


def test_a_default_stands_in_for_a_missing_parameter() -> None:
    body = changed("Parameters", "SerialNumber", to={"Type": "String", "Default": "7"})
    body["DeviceConfiguration"] = {}
    thing = render(body).thing
    assert thing is not None
    assert thing.name == "ThingPrefix_7"
    thing = render(body, SerialNumber="8").thing
    assert thing is not None
    assert thing.name == "ThingPrefix_8"


def test_a_declared_parameter_is_missed_only_where_it_is_referred_to() -> None:
    body = changed("DeviceConfiguration", to=...)
    assert render(body, SerialNumber="1").device_configuration == {}
    with pytest.raises(InvalidTemplate, match="Cannot resolve reference value: SerialNumber"):
        render(body)


# --- the grammar ---------------------------------------------------------------------------------

DOCUMENT_TEXT = json.dumps(DOCUMENT)
REFUSED: list[tuple[dict[str, Any], str]] = [
    (changed("Resource", to={}), "unknown element `Resource`"),
    (changed("Mapping", to={}), "unknown element `Mapping`"),
    (changed("Resources", to=...), "`Resources` is missing"),
    (changed("Resources", to={}), "Resources: it must have at least one"),
    (changed("Resources", to=[]), "Resources: it must be a JSON object"),
    (changed("Resources", "thing2", to=EXAMPLE["Resources"]["thing"]), "2 things"),
    (changed("Resources", "c2", to=EXAMPLE["Resources"]["certificate"]), "2 certificates"),
    (changed("Resources", "x", to={"Type": "AWS::S3::Bucket"}), r"Resources\.x\.Type: .*S3"),
    (changed("Resources", "x", to={}), r"Resources\.x\.Type: .*`None`"),
    (changed("Resources", "thing", "Condition", to="x"), "unknown element `Condition`"),
    (changed("Parameters", "P", to={}), r"Parameters\.P\.Type: it must be `String`"),
    (changed("Parameters", "P", to={"Type": "Number"}), "must be `String`"),
    (changed("Parameters", "P", to={"Type": "String", "Default": 1}), "Default: it must be a str"),
    (changed("Parameters", "P", to={"Type": "String", "Default": None}), "Default: it must be"),
    (changed("Parameters", "P", to={"Type": "String", "AllowedValues": []}), "unknown element"),
    (changed("Mappings", "M", to={"a": {"b": {"Ref": "P"}}}), r"Mappings\.M\.a\.b: .*functions"),
    (changed("Mappings", "M", to={"a": "b"}), r"Mappings\.M\.a: it must be a JSON object"),
    (changed("DeviceConfiguration", "a", to={"b": "c"}), r"DeviceConfiguration\.a: it must be a s"),
    (changed("DeviceConfiguration", to={"Ref": "P"}), "not a function"),
    (changed("Resources", "thing", "Properties", "ThingName", to=...), "`ThingName` is missing"),
    (changed("Resources", "thing", "Properties", to=...), "`ThingName` is missing"),
    (with_thing(ThingName="a b"), r"thing\.Properties\.ThingName: thing name `a b` does not"),
    (with_thing(ThingName=""), "thing name `` does not match"),
    (with_thing(ThingName={"Ref": "Bad"}), r"ThingName: thing name `b d` does not match"),
    (with_thing(ThingTypeName="a/b"), "thing type name `a/b`"),
    (with_thing(ThingTypeName={"Ref": "Bad"}), "thing type name `b d`"),
    (with_thing(BillingGroup={"Ref": "Bad"}), "billing group name `b d`"),
    (with_thing(ThingGroups="a"), "ThingGroups: it must be a list"),
    (with_thing(ThingGroups=["a", "b c"]), r"ThingGroups\[1\]: thing group name `b c`"),
    (with_thing(ThingGroups=["a", {"Ref": "Bad"}]), r"ThingGroups\[1\]: thing group name `b d`"),
    (with_thing(AttributePayload={"attributes": {"a": "b"}}), r"AttributePayload\.attributes"),
    (with_thing(AttributePayload={"Ref": "Bad"}), "not a function"),
    (with_thing(AttributePayload={"a b": "c"}), "attribute name `a b`"),
    (with_thing(AttributePayload={"a": "b c"}), r"AttributePayload\.a: value `b c`"),
    (with_thing(AttributePayload={"a": {"Ref": "Bad"}}), r"AttributePayload\.a: value `b d`"),
    (with_thing(AttributePayload={"a": 1}), r"AttributePayload\.a: it must be a string"),
    (with_thing(PackageVersions={}), "PackageVersions: this server does not offer it"),
    (with_thing(Thingname="a"), "unknown element `Thingname`"),
    (with_certificate(CertificatePem="x"), "takes only `CertificateId`"),
    (with_certificate(CertificateSigningRequest="x"), "takes only `CertificateId`"),
    (with_certificate(CACertificatePem="x"), "takes only `CertificateId`"),
    (with_certificate(CertificateId=ID[::-1]), "must be the device's own certificate"),
    (with_certificate(CertificateId={"Ref": "Bad"}), "must be the device's own certificate"),
    (with_certificate(Status="REVOKED"), "Status: it must be ACTIVE or INACTIVE, not `REVOKED`"),
    (with_certificate(Status={"Ref": "Bad"}), "Status: it must be ACTIVE or INACTIVE"),
    (with_certificate(ThingPrincipalType="x"), "it must be EXCLUSIVE_THING or NON_EXCLUSIVE_THING"),
    (with_certificate(ThingPrincipalType={"Ref": "Word"}), "it must be EXCLUSIVE_THING or NON_"),
    (
        changed("Resources", "certificate", "Properties", "CertificateId", to=...),
        "`CertificateId` is missing",
    ),
    (with_policy(), "Neither policyName nor policyDocument is present in the Template."),
    (with_policy(PolicyName="a", PolicyDocument=DOCUMENT), "exclude each other"),
    (with_policy(PolicyName="a:b"), "policy name `a:b`"),
    (with_policy(PolicyName={"Ref": "Bad"}), "policy name `b d`"),
    (with_policy(PolicyName={"Fn::Join": ["", ["a"]]}), "Fn::Join is not supported in policies"),
    (with_policy(PolicyDocument=[]), "JSON object or a string of JSON"),
    (
        with_policy(PolicyDocument="{"),
        r"PolicyDocument: Policy document is Malformed: it is not JSON",
    ),
    (
        with_policy(PolicyDocument={}),
        r"PolicyDocument: Policy document is Malformed: `Version` is missing",
    ),
    (with_policy(PolicyDocument={"Fn::Split": [",", DOCUMENT_TEXT]}), "must give a JSON object"),
    (with_policy(PolicyDocument={"Ref": "Word"}), "Policy document is Malformed: it is not JSON"),
    (
        with_policy(PolicyDocument={"Fn::Sub": ["${A}", {"A": {"Fn::Join": ["", []]}}]}),
        "Fn::Join is not supported in policies",
    ),
    (
        with_policy(PolicyDocument={**DOCUMENT, "Statement": [{"Fn::Join": ["", []]}]}),
        r"Statement\[0\]\.Fn::Join: Fn::Join is not supported",
    ),
    (
        with_policy(
            PolicyDocument={**DOCUMENT, "Statement": [{**STATEMENT, "Condition": {"Is": {}}}]}
        ),
        "`Is` is not a condition operator",
    ),
]


@pytest.mark.parametrize(("body", "message"), REFUSED)
def test_a_wrong_template_is_refused_with_its_place(body: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTemplate, match=message):
        render(
            body,
            DeviceLocation="Seattle",
            SerialNumber="42",
            Bad="b d",
            Word="word",
        )


# AWS IoT API Reference, CreateProvisioningTemplate: templateBody has at most 10240 characters.
def test_the_size_of_a_body() -> None:
    body = json.dumps(EXAMPLE)
    template.parse(body.ljust(10_240))
    with pytest.raises(InvalidTemplate, match="10241 characters; the limit is 10240"):
        template.parse(body.ljust(10_241))


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", '{"Resources":{},"Resources":{}}', "[" * 9999]
)
def test_what_is_not_strict_json_is_refused(body: str) -> None:
    with pytest.raises(InvalidTemplate):
        template.parse(body)


def test_what_has_no_effect_is_accepted() -> None:
    body = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "d",
        "Conditions": {},
        "Outputs": {},
        **changed("Resources", "policy", "DependsOn", to=["thing"]),
    }
    assert render(body, SerialNumber="42", DeviceLocation="Seattle") == template.render(
        template.parse(json.dumps(EXAMPLE)), PARAMETERS
    )


def test_a_template_needs_neither_thing_nor_policy() -> None:
    body = {"Resources": {"c": EXAMPLE["Resources"]["certificate"]}}
    assert render(body) == Resources(None, Certificate("c", ID, "ACTIVE"), (), {})


def test_a_template_may_have_many_policies() -> None:
    body = changed(
        "Resources", "more", to={"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "n"}}
    )
    policies = render(body, SerialNumber="42", DeviceLocation="Seattle").policies
    assert [policy.logical_id for policy in policies] == ["policy", "more"]
    assert policies[1] == Policy("more", "n")


def test_groups_may_be_computed_and_count_once() -> None:
    body = with_thing(ThingGroups={"Fn::Split": [",", {"Ref": "Groups"}]})
    thing = render(body, SerialNumber="1", DeviceLocation="Seattle", Groups="a,b,a").thing
    assert thing is not None
    assert thing.groups == ("a", "b")


# --- the certificate -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [("Active", "ACTIVE"), ("INACTIVE", "INACTIVE"), ("inactive", "INACTIVE"), (..., "ACTIVE")],
)
def test_the_status_is_compared_without_case_and_active_by_default(
    status: object, expected: str
) -> None:
    body = changed("Resources", "certificate", "Properties", "Status", to=status)
    certificate = render(body, SerialNumber="42", DeviceLocation="Seattle").certificate
    assert certificate is not None
    assert certificate.status == expected


def test_the_certificate_is_the_true_one_however_it_is_named() -> None:
    body = with_certificate(
        CertificateId={"Ref": "Claimed"}, ThingPrincipalType="NON_EXCLUSIVE_THING"
    )
    certificate = render(body, SerialNumber="42", DeviceLocation="Seattle", Claimed=ID).certificate
    assert certificate is not None
    assert certificate.certificate_id == ID


def test_without_its_id_there_is_no_certificate() -> None:
    with pytest.raises(InvalidTemplate) as caught:
        template.render(template.parse(json.dumps(EXAMPLE)), {"SerialNumber": "42"})
    assert caught.value.rule == f"Cannot resolve reference value: {CERTIFICATE_ID}"


# --- override settings ---------------------------------------------------------------------------


def overrides(kind: str, settings: object) -> Resources:
    body = changed("Resources", kind, "OverrideSettings", to=settings)
    return render(body, SerialNumber="42", DeviceLocation="Seattle")


# AWS IoT Developer Guide, "Provisioning templates": examples and prose spell them differently.
def test_both_spellings_of_override_settings() -> None:
    for settings in (
        {"AttributePayload": "REPLACE", "ThingTypeName": "FAIL", "ThingGroups": "MERGE"},
        {"ATTRIBUTE_PAYLOAD": "REPLACE", "THING_TYPE_NAME": "FAIL", "THING_GROUPS": "MERGE"},
    ):
        thing = overrides("thing", settings).thing
        assert thing is not None
        assert thing.overrides == Overrides(Override.REPLACE, Override.FAIL, Override.MERGE)
    certificate = overrides("certificate", {"Status": "DO_NOTHING"}).certificate
    assert certificate is not None
    assert certificate.override is Override.DO_NOTHING
    assert overrides("policy", {}).policies


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("thing", {"ThingTypeName": "MERGE"}, r"ThingTypeName: .*DO_NOTHING, REPLACE, FAIL"),
        ("thing", {"ThingGroups": "merge"}, "not `merge`"),
        ("thing", {"ThingGroups": ["MERGE"]}, "ThingGroups"),
        ("thing", {"ThingName": "FAIL"}, "unknown element `ThingName`"),
        ("thing", {"ThingGroups": "FAIL", "THING_GROUPS": "FAIL"}, "the same setting"),
        ("thing", "FAIL", "JSON object"),
        ("certificate", {"Status": "MERGE"}, "not `MERGE`"),
        ("policy", {"PolicyDocument": "FAIL"}, "unknown element"),
    ],
)
def test_other_override_settings_are_refused(kind: str, settings: object, message: str) -> None:
    with pytest.raises(InvalidTemplate, match=message):
        overrides(kind, settings)


# --- policies ------------------------------------------------------------------------------------


def policy_of(value: object, **parameters: str) -> Policy:
    body = with_policy(PolicyDocument=value)
    return render(body, SerialNumber="42", DeviceLocation="Seattle", **parameters).policies[0]


def test_a_document_as_a_string_stays_as_it_is_and_shares_its_name() -> None:
    written = json.dumps(DOCUMENT, indent=2)
    assert policy_of(written).document == written
    assert policy_of(written).name == policy_of(DOCUMENT).name
    assert len(policy_of(written).name) == 40
    assert policy_of(written).name == policy_of(written).name.upper()


def test_functions_in_a_document_are_resolved() -> None:
    resource = "arn:aws:iot:us-east-1:000000000000:topic/"
    as_object = policy_of(
        {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Action": "iot:Publish",
                "Resource": [
                    {"Fn::Sub": resource + "${SerialNumber}/${iot:ClientId}/*"},
                    {"Ref": "Topic"},
                ],
            },
        },
        Topic=resource + "t",
    )
    expected = (
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish",'
        f'"Resource":["{resource}42/${{iot:ClientId}}/*","{resource}t"]}}}}'
    )
    assert as_object.document == expected
    template_text = expected.replace("42", "${SerialNumber}").replace(resource + "t", "${Topic}")
    as_text = policy_of({"Fn::Sub": template_text}, Topic=resource + "t")
    assert (as_text.document, as_text.name) == (expected, as_object.name)


# A device chooses its parameters: they must not be able to widen the policy it gets.
@pytest.mark.parametrize(
    "value",
    ["*", "a?", "+", "a/#", "{iot:ClientId}", "${iot:ClientId}", "$", 'a","*', "a\\", "a\n"],
)
@pytest.mark.parametrize(
    "document",
    [
        {
            **DOCUMENT,
            "Statement": [{**STATEMENT, "Resource": {"Fn::Sub": "arn:aws:iot:r:a:topic/${P}"}}],
        },
        {**DOCUMENT, "Statement": [{**STATEMENT, "Resource": {"Ref": "P"}}]},
        {"Fn::Sub": DOCUMENT_TEXT.replace("foo", "${P}")},
        {"Fn::Sub": [DOCUMENT_TEXT.replace("foo", "${Q}"), {"Q": {"Ref": "P"}}]},
    ],
)
def test_a_parameter_cannot_widen_a_policy(document: object, value: str) -> None:
    with pytest.raises(InvalidTemplate, match="parameter `P` may not stand in a policy"):
        policy_of(document, P=value)


def test_a_default_may_hold_wildcards_for_a_policy() -> None:
    body = with_policy(PolicyDocument={"Fn::Sub": DOCUMENT_TEXT.replace("foo", "${P}")})
    body["Parameters"]["P"] = {"Type": "String", "Default": "*"}
    document = render(body, SerialNumber="42", DeviceLocation="Seattle").policies[0].document
    assert document is not None
    assert "topic/*/bar" in document


# --- properties ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
VALUES = st.recursive(
    st.sampled_from(["a", "${P}", "${iot:ClientId}", "${!P}", ""])
    | st.sampled_from(["P", "SerialNumber", "Nobody", CERTIFICATE_ID]).map(
        lambda name: {"Ref": name}
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: {"Fn::Join": ["-", items]}),
        st.tuples(st.integers(-1, 2), st.lists(inner, max_size=3)).map(
            lambda both: {"Fn::Select": list(both)}
        ),
        inner.map(lambda source: {"Fn::Select": [0, {"Fn::Split": ["-", source]}]}),
        inner.map(lambda value: {"Fn::Sub": ["${V}/${P}", {"V": value}]}),
        inner.map(lambda key: {"Fn::FindInMap": ["LocationTable", key, "LocationUrl"]}),
        inner.map(lambda value: {"Fn::Join": ["-", {"Fn::Split": ["a", value]}]}),
    ),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [
        ("Parameters", "P"),
        ("Mappings", "LocationTable"),
        ("Resources", "thing"),
        ("Resources", "thing", "Properties", "ThingName"),
        ("Resources", "thing", "Properties", "AttributePayload", "a"),
        ("Resources", "thing", "Properties", "ThingGroups"),
        ("Resources", "thing", "OverrideSettings"),
        ("Resources", "certificate", "Properties", "Status"),
        ("Resources", "certificate", "Properties", "CertificateId"),
        ("Resources", "policy", "Properties", "PolicyName"),
        ("Resources", "policy", "Properties", "PolicyDocument"),
        ("DeviceConfiguration",),
        ("DeviceConfiguration", "v"),
    ]
)
TEXT_PARAMETERS = st.fixed_dictionaries(
    {"P": st.text("ab-", max_size=4) | st.text(max_size=8)},
    optional={"SerialNumber": st.text("ab-", max_size=4) | st.text(max_size=8)},
)


def attempt(body: str, parameters: dict[str, str]) -> Resources | None:
    try:
        return template.render(template.parse(body), parameters)
    except InvalidTemplate:
        return None


def check_resolved(value: object) -> None:
    if isinstance(value, dict):
        assert all(type(key) is str and type(each) is str for key, each in value.items())
    elif isinstance(value, tuple):
        assert all(type(each) is str for each in value)
    else:
        assert value is None or isinstance(value, str)


def check_rendered(resources: Resources | None) -> None:
    if resources is None:
        return
    if resources.thing is not None:
        thing = resources.thing
        for value in (thing.name, thing.attributes, thing.type_name, thing.groups):
            check_resolved(value)
    if resources.certificate is not None:
        assert resources.certificate.status in ("ACTIVE", "INACTIVE")
    for policy in resources.policies:
        check_resolved(policy.name)
        assert policy.document is None or '"Ref"' not in policy.document
    check_resolved(resources.device_configuration)


@given(JSON, TEXT_PARAMETERS)
def test_any_json_renders_or_is_an_invalid_template(
    value: object, parameters: dict[str, str]
) -> None:
    check_rendered(attempt(json.dumps(value), parameters))


@given(st.text(), TEXT_PARAMETERS)
def test_any_text_renders_or_is_an_invalid_template(body: str, parameters: dict[str, str]) -> None:
    check_rendered(attempt(body, parameters))


@given(PLACES, JSON | VALUES, TEXT_PARAMETERS)
def test_anything_at_any_place_renders_the_same_twice_and_leaves_no_reference(
    place: tuple[str, ...], value: object, parameters: dict[str, str]
) -> None:
    body = json.dumps(changed(*place, to=value))
    first = attempt(body, {**PARAMETERS, **parameters})
    check_rendered(first)
    assert attempt(body, dict(reversed({**PARAMETERS, **parameters}.items()))) == first


@given(VALUES, st.text("ab-", max_size=5))
def test_what_renders_needs_nothing_it_was_not_given(value: object, parameter: str) -> None:
    body = json.dumps(changed("DeviceConfiguration", "v", to=value))
    if '"Nobody"' in body:
        assert attempt(body, {**PARAMETERS, "P": parameter}) is None
    else:
        check_rendered(attempt(body, {**PARAMETERS, "P": parameter}))
