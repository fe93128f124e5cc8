"""What `lint` says of templates: everything, with its place; and nothing of those that are fine."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.domain import template
from fleetgate.domain.limits import Limits
from fleetgate.domain.resources import Kind
from fleetgate.domain.template import CERTIFICATE_ID
from fleetgate.domain.template_constants import Named
from fleetgate.domain.template_lint import Finding, Linted, lint
from fleetgate.errors import InvalidTemplate
from tests.domain.test_template import EXAMPLE, JSON, PLACES, VALUES, changed, check_rendered
from tests.domain.test_template_examples import BULK, JITP, SUBJECT

STATEMENT = {"Effect": "Allow", "Action": "iot:Publish", "Resource": "*"}
GOOD: dict[str, Any] = {
    "Parameters": {"SerialNumber": {"Type": "String"}, "Site": {"Type": "String", "Default": "s"}},
    "Mappings": {"Sites": {"s": {"Url": "https://s"}, "long": {"Url": "https://long"}}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Fn::Join": ["-", ["lamp", {"Ref": "SerialNumber"}]]},
                "ThingTypeName": "bulb",
                "ThingGroups": ["a", {"Ref": "Site"}, {"Ref": "SerialNumber"}],
                "BillingGroup": "west",
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": CERTIFICATE_ID}},
        },
        "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "lamp"}},
    },
    "DeviceConfiguration": {
        "Url": {"Fn::FindInMap": ["Sites", {"Ref": "Site"}, "Url"]},
        "Id": {"Ref": CERTIFICATE_ID},
    },
}


def good(*path: str, to: Any) -> dict[str, Any]:
    body = copy.deepcopy(GOOD)
    place = body
    for key in path[:-1]:
        place = place.setdefault(key, {})
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return body


def of(body: Any, kind: Kind = Kind.FLEET, limits: Limits | None = None) -> Linted:
    return lint(body if isinstance(body, str) else json.dumps(body), kind, limits or Limits())


def lines(linted: Linted, severity: str) -> list[str]:
    return [each.line for each in linted.findings if each.severity == severity]


def test_of_a_good_template_it_says_what_has_to_be_brought_and_to_exist() -> None:
    path = "Resources.thing.Properties"
    assert of(GOOD) == Linted(
        findings=(),
        names=(
            Named("thingtype", "bulb", f"{path}.ThingTypeName"),
            Named("thinggroup", "a", f"{path}.ThingGroups[0]"),
            Named("thinggroup", "s", f"{path}.ThingGroups[1]"),
            Named("billinggroup", "west", f"{path}.BillingGroup"),
            Named("policy", "lamp", "Resources.policy.Properties.PolicyName"),
        ),
        parameters=("SerialNumber",),
        thing_name="lamp-",
        # a device may choose the longest
        device_configuration={"Url": "https://long", "Id": "0123456789abcdef" * 4},
    )


def test_it_finds_every_error_at_once_in_the_order_of_the_template() -> None:
    body = {
        "Parameters": {"A": {"Type": "Number"}, "B": {"Type": "String", "Default": "x y"}, "C": 7},
        "Mappings": {"M": {"k": {"n": {"Ref": "A"}}}},
        "Resources": {
            "t": {
                "Type": "AWS::IoT::Thing",
                "Properties": {
                    "ThingName": {"Fn::Join": ["", [{"Ref": "AWS::Region"}, {"Fn::Nope": 1}]]},
                    "ThingTypeName": {"Ref": "B"},
                    "AttributePayload": {"a b": "x", "m": {"Fn::Select": [9, ["a"]]}},
                    "ThingGroups": ["bad group", {"Ref": "Zzz"}],
                    "PackageVersions": "x",
                },
                "OverrideSettings": {"ThingTypeName": "MERGE", "BillingGroup": "FAIL"},
            },
            "c": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": "abc", "Status": "on", "CertificatePem": "x"},
            },
            "p": {
                "Type": "AWS::IoT::Policy",
                "Properties": {"PolicyDocument": {"Statement": [{"Fn::Join": ["", ["a"]]}]}},
            },
            "q": {"Type": "AWS::IoT::Policy", "Properties": {}},
            "x": {"Type": "AWS::Foo"},
            "y": 3,
        },
        "DeviceConfiguration": {"a": {"b": "c"}, "d": 5},
    }
    thing, certificate = "Resources.t.Properties", "Resources.c.Properties"
    expected = {
        "Parameters.A.Type": "it must be `String`",
        "Parameters.C": "it must be a JSON object",
        "Mappings.M.k.n": "it must be a string or a list of strings",
        f"{thing}.ThingName.Fn::Join[1][0].Ref": "Cannot resolve reference value: AWS::Region",
        f"{thing}.ThingName.Fn::Join[1][1]": "unknown function `Fn::Nope`",
        f"{thing}.ThingTypeName": "thing type name `x y` does not match",
        f"{thing}.AttributePayload": "attribute name `a b` does not match",
        f"{thing}.AttributePayload.m.Fn::Select": "index 9 is outside a list of 1 elements",
        f"{thing}.ThingGroups[0]": "thing group name `bad group` does not match",
        f"{thing}.ThingGroups[1].Ref": "parameter `Zzz` is not declared in Parameters",
        f"{thing}.PackageVersions": "this server does not offer it",
        "Resources.t.OverrideSettings": "unknown element `BillingGroup`",
        "Resources.t.OverrideSettings.ThingTypeName": "it must be one of DO_NOTHING, REPLACE, FAIL",
        f"{certificate}.CertificateId": "it must be the device's own certificate",
        f"{certificate}.Status": "it must be ACTIVE or INACTIVE, not `on`",
        f"{certificate}.CertificatePem": "a fleet provisioning template takes only `CertificateId`",
        "Resources.p.Properties.PolicyDocument.Statement[0].Fn::Join": "Fn::Join is not supported",
        "Resources.q.Properties": "Neither policyName nor policyDocument is present",
        "Resources.x.Type": "it must be AWS::IoT::Thing, AWS::IoT::Certificate or AWS::IoT::Policy",
        "Resources.y": "it must be a JSON object",
        "DeviceConfiguration.a": "it must be a string, a Ref or a function",
        "DeviceConfiguration.d": "it must be a string, a Ref or a function",
    }
    found = [each for each in of(body).findings if each.severity == "error"]
    assert [each.path for each in found] == list(expected)
    for finding, rule in zip(found, expected.values(), strict=True):
        assert finding.rule.startswith(rule)


THING, POLICY = "Resources.thing.Properties", "Resources.policy.Properties"


def with_policy(resource: object) -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": {**STATEMENT, "Resource": resource}}
    return good("Resources", "policy", "Properties", to={"PolicyDocument": document})


def with_thing(**properties: Any) -> dict[str, Any]:
    """With what is `...` left out."""
    body = copy.deepcopy(GOOD)
    found = {**body["Resources"]["thing"]["Properties"], **properties}
    kept = {name: value for name, value in found.items() if value is not ...}
    body["Resources"]["thing"]["Properties"] = kept
    return body


@pytest.mark.parametrize(
    ("body", "path", "rule"),
    [
        (
            good("Resources", "certificate", to=...),
            "Resources",
            "there is no AWS::IoT::Certificate resource: the certificate would never be activated",
        ),
        (
            with_thing(ThingTypeName=..., AttributePayload=dict.fromkeys("abcd", "x")),
            f"{THING}.AttributePayload",
            "a thing without a thing type has at most 3 attributes, not 4",
        ),
        (
            with_thing(ThingGroups=[f"g{n}" for n in range(11)]),
            f"{THING}.ThingGroups",
            "there are 11 thing groups; a thing may be in 10",
        ),
        (
            with_thing(ThingName={"Ref": "Serialnumber"}),
            f"{THING}.ThingName.Ref",
            "parameter `Serialnumber` is not declared in Parameters",
        ),
        (
            good("DeviceConfiguration", "x", to={"Fn::FindInMap": ["Sites", "s", "Nope"]}),
            "DeviceConfiguration.x.Fn::FindInMap",
            "mapping `Sites`, key `s`, has no `Nope`",
        ),
        (
            good("Parameters", "Site", "Default", to="no such place"),
            f"{THING}.ThingGroups[1]",
            "thing group name `no such place` does not match [a-zA-Z0-9:_-]{1,128}",
        ),
    ],
)
def test_errors_that_reading_alone_does_not_find(
    body: dict[str, Any], path: str, rule: str
) -> None:
    errors = [(each.path, each.rule) for each in of(body).findings if each.severity == "error"]
    assert (path, rule) in errors


@pytest.mark.parametrize(
    ("body", "path", "rule"),
    [
        (good("Parameters", "X", to={"Type": "String"}), "Parameters.X", "nothing refers to it"),
        (good("Mappings", "X", to={}), "Mappings.X", "no Fn::FindInMap looks into it"),
        (good("Conditions", to={}), "Conditions", "it has no effect in a provisioning template"),
        (
            good("Resources", "policy", "DependsOn", to="thing"),
            "Resources.policy.DependsOn",
            "it has no effect: the order of provisioning is fixed",
        ),
        (
            good("Resources", "thing", "OverrideSettings", to={"AttributePayload": "MERGE"}),
            "Resources.thing.OverrideSettings",
            "the setting for `AttributePayload` has no effect: the thing has no such property",
        ),
        (
            with_thing(ThingName="lamp"),
            f"{THING}.ThingName",
            "all devices would be the same thing",
        ),
        (
            good("Resources", "thing", to=...),
            "Resources",
            "there is no AWS::IoT::Thing resource: devices get no thing",
        ),
        (
            good("Resources", "certificate", "Properties", "Status", to="INACTIVE"),
            "Resources.certificate.Properties.Status",
            "devices cannot connect with such a certificate",
        ),
        (
            with_policy({"Fn::Sub": "arn:aws:iot:r:a:topic/${SerialNumber}"}),
            f"{POLICY}.PolicyDocument.Statement.Resource.Fn::Sub",
            (
                "each value of `SerialNumber` makes a policy of its own; a policy variable such as "
                "${iot:Connection.Thing.ThingName} makes one for all devices"
            ),
        ),
        (
            with_policy("arn:aws:iot:r:a:topic/${Site}"),
            f"{POLICY}.PolicyDocument.Statement.Resource",
            "`${Site}` stays as it is: only Fn::Sub puts parameters in",
        ),
        (
            good("Resources", "policy", to=...),
            "Resources",
            (
                "there is no AWS::IoT::Policy resource: unless a thing group has policies, devices "
                "may not even connect"
            ),
        ),
    ],
)
def test_warnings(body: dict[str, Any], path: str, rule: str) -> None:
    linted = of(body)
    warnings = [(each.path, each.rule) for each in linted.findings if each.severity == "warning"]
    assert (path, rule) in warnings
    assert not linted.failed


def test_aws_examples_are_fine_but_for_what_they_do_not_declare() -> None:
    assert of(JITP, Kind.JITP).findings == ()
    assert of(BULK, Kind.INLINE).findings == ()
    rule = "parameter `SerialNumber` is not declared in Parameters"
    assert {each.rule for each in of(EXAMPLE).findings} == {rule}
    declared = changed("Parameters", "SerialNumber", to={"Type": "String"})
    assert of(declared).findings == ()


def test_what_a_kind_does_not_have_is_told_by_kind() -> None:
    bulk = of(BULK, Kind.JITP)
    assert "Parameters.ThingName: Cannot resolve reference value: ThingName" in lines(bulk, "error")
    assert bulk.failed
    assert any("takes only `CertificateId`" in each for each in lines(of(BULK), "error"))
    joined = copy.deepcopy(JITP)
    joined["Resources"]["thing"]["Properties"]["ThingName"] = {"Fn::Join": ["", ["a"]]}
    assert (
        "Resources.thing.Properties.ThingName.Fn::Join: AWS documents functions for fleet "
        "provisioning templates alone"
    ) in lines(of(joined, Kind.JITP), "warning")
    unused = copy.deepcopy(JITP)
    unused["Parameters"]["AWS::IoT::Certificate::StateName"] = {"Type": "String"}
    assert (
        "Parameters.AWS::IoT::Certificate::StateName: nothing refers to it, yet a certificate "
        "without a value for it is refused"
    ) in lines(of(unused, Kind.JITP), "warning")


def test_what_is_refused_refers_to_parameters_and_mappings_too() -> None:
    body = good("Parameters", "CSR", to={"Type": "String"})
    body["Parameters"]["Twice"] = body["Parameters"]["Unused"] = {"Type": "String"}
    body["Mappings"]["More"] = {"a": {"b": "c"}}
    body["Outputs"] = {"x": {"Ref": "Unused"}}
    more = body["Resources"]["certificate"]["Properties"]
    more["CertificateSigningRequest"] = {"Ref": "CSR"}
    more["CertificatePem"] = {"Fn::Sub": ["${Twice}", {}]}
    more["CACertificatePem"] = {"Fn::FindInMap": ["More", "a", "b"]}
    linted = of(body)
    assert len(lines(linted, "error")) == 3
    assert lines(linted, "warning") == [
        "Parameters.Unused: nothing refers to it",
        "Outputs: it has no effect in a provisioning template",
    ]


@pytest.mark.parametrize("parameters", [{}, {CERTIFICATE_ID: {"Type": "String"}}])
def test_the_caller_of_an_inline_template_brings_the_certificate_id(
    parameters: dict[str, Any],
) -> None:
    resources = {"certificate": GOOD["Resources"]["certificate"]}
    body = {"Parameters": parameters, "Resources": resources}
    assert of(body, Kind.INLINE).parameters == (CERTIFICATE_ID,)
    assert of(body, Kind.FLEET).parameters == ()


def test_where_json_ends_to_be_json_is_told_by_line_and_column() -> None:
    (finding,) = of('{"Resources": {},\n\n  "Parameters": }').findings
    assert finding.rule.endswith("it is not JSON: expecting value at line 3, column 17")
    (finding,) = of('{"Resources": }').findings
    assert finding.rule.endswith("it is not JSON: expecting value at column 15")


@pytest.mark.parametrize("body", ["", "{", "[]", "7", '"x"', "{}", "[" * 200_000])
def test_what_is_no_template_is_one_error(body: str) -> None:
    linted = of(body)
    assert [each.severity for each in linted.findings] == ["error"]
    assert linted.names == ()
    assert not linted.readable


def test_a_long_template_is_looked_at_all_the_same() -> None:
    body = good("Description", to="x" * 11_000)
    body["Resources"]["thing"]["Properties"]["ThingName"] = 7
    rules = [each.rule for each in of(body).findings if each.severity == "error"]
    assert len(rules) == 2
    assert rules[0].endswith("the limit is 10240") or rules[1].endswith("the limit is 10240")


def test_the_value_is_shown_once_and_cut() -> None:
    assert Finding("error", "a.b", "it is wrong", "x").line == "a.b: it is wrong, it is `x`"
    assert Finding("error", "", "it is wrong").line == "it is wrong"
    (finding,) = (
        each
        for each in of(good("Resources", "thing", "Type", to="y" * 500)).findings
        if each.path.endswith(".Type")
    )
    assert len(finding.line) < 300


def keys(count: int, value: Any = 0) -> dict[str, Any]:
    return {f"k{number}": value for number in range(count)}


def nested(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = {f"{level:02}" * 40: value}
    return value


def amplified(count: int, *, places: str) -> dict[str, Any]:
    """Functions that make much of little, each of them the full length of a value."""
    long = {"Fn::Join": ["", {"Fn::Split": ["a", {"Fn::Sub": "${A}" * 20}]}]}
    body = good("Parameters", "A", to={"Type": "String", "Default": "a" * 3000})
    body["Mappings"] = {}
    if places == "groups":
        body["Resources"]["thing"]["Properties"]["ThingGroups"] = [long] * count
        body["DeviceConfiguration"] = {}
    else:
        body["DeviceConfiguration"] = keys(count, long)
    return body


@pytest.mark.parametrize(
    "body",
    [
        good("Resources", "thing", "Properties", to={"ThingName": "x", **keys(900)}),
        good("Resources", "thing", "OverrideSettings", to=keys(900)),
        good("Resources", "policy", "Properties", to=keys(900)),
        good("Resources", "thing", "Properties", "ThingGroups", to=[0] * 4000),
        good("Resources", "thing", "Properties", "AttributePayload", to=keys(800, "*")),
        good("Parameters", to=keys(900)),
        good("Parameters", to=keys(350, {"Type": "String"})),
        good("DeviceConfiguration", to=keys(900)),
        good("Resources", to=keys(900)),
        good(
            *("Resources", "policy", "Properties", "PolicyDocument"),
            to=nested([{"Fn::Join": 0}] * 400, 25),
        ),
        good(
            *("Resources", "policy", "Properties"),
            to={"PolicyDocument": nested(["${SerialNumber}"] * 300, 25)},
        ),
    ],
)
def test_there_are_only_so_many_findings_and_only_so_much_of_each(body: dict[str, Any]) -> None:
    text = json.dumps(body, separators=(",", ":"))
    assert len(text) <= template.MAX_BODY
    for kind in Kind:
        findings = of(text, kind).findings
        assert len(findings) <= 101
        assert len(json.dumps([each.line for each in findings])) < 120_000
        rules = [each.rule for each in findings]
        assert (len(findings) == 101) == any("more problems" in rule for rule in rules)


def test_it_says_how_many_more_there_are() -> None:
    body = good("Parameters", to=keys(150, {"Type": "String"}))
    body["Resources"]["thing"]["Properties"] = {"ThingName": {"Ref": CERTIFICATE_ID}}
    body["Mappings"] = body["DeviceConfiguration"] = {}
    *shown, last = of(body).findings
    assert [each.rule for each in shown] == ["nothing refers to it"] * 100
    assert last == Finding("warning", "", "there are 50 more problems")
    # what cannot be made a template of is not read to its end
    *shown, last = of(good("Parameters", to=keys(150))).findings
    assert {each.rule for each in shown} == {"it must be a JSON object"}
    assert len(shown) == 100
    assert last == Finding("error", "", "there are more problems behind these")


@pytest.mark.parametrize("places", ["groups", "configuration"])
def test_what_is_evaluated_is_bounded_as_a_device_would_have_it(places: str) -> None:
    body = json.dumps(amplified(40, places=places), separators=(",", ":"))
    begun = time.process_time()
    rules = [each.rule for each in of(body).findings if each.severity == "error"]
    assert time.process_time() - begun < 0.1
    assert sum("expands to more than 262144" in rule for rule in rules) == 1


def test_a_template_far_too_long_is_not_read() -> None:
    (finding,) = of("[" * 65_536).findings
    assert finding.rule == "the template has 65536 characters; the limit is 10240"


KINDS = st.sampled_from(list(Kind))
GIVEN = st.dictionaries(
    st.sampled_from(["P", "SerialNumber", CERTIFICATE_ID]), st.text("ab-", max_size=4)
)


def first_problem(body: str, kind: Kind) -> InvalidTemplate | None:
    try:
        template.parse(body, kind)
    except InvalidTemplate as error:
        return error
    return None


def check(body: str, kind: Kind) -> None:
    linted = of(body, kind)
    assert of(body, kind) == linted
    error = first_problem(body, kind)
    if error is not None:
        assert linted.failed
        assert (error.path, error.rule) in [(each.path, each.rule) for each in linted.findings]


@given(JSON, KINDS)
def test_of_any_json_it_says_at_least_what_the_parser_says(value: object, kind: Kind) -> None:
    check(json.dumps(value), kind)


@given(PLACES, JSON | VALUES, KINDS)
def test_of_a_changed_template_too(place: tuple[str, ...], value: object, kind: Kind) -> None:
    check(json.dumps(changed(*place, to=value)), kind)


@given(PLACES, VALUES, KINDS, GIVEN)
def test_every_kind_renders_the_same_twice_or_is_an_invalid_template(
    place: tuple[str, ...], value: object, kind: Kind, parameters: dict[str, str]
) -> None:
    body = copy.deepcopy({Kind.FLEET: EXAMPLE, Kind.JITP: JITP, Kind.INLINE: BULK}[kind])
    within = body
    for key in place[:-1]:
        within = within.setdefault(key, {})
    within[place[-1]] = value
    try:
        parsed = template.parse(json.dumps(body), kind)
        first = template.render(parsed, SUBJECT | parameters)
    except InvalidTemplate:
        return
    assert template.render(parsed, dict(reversed((SUBJECT | parameters).items()))) == first
    check_rendered(first)
