"""What no device can get is told; of what one device can get nothing is said."""

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
from fleetgate.domain.template import CERTIFICATE_ID, MAX_BODY, parse
from fleetgate.domain.template_lint import lint
from fleetgate.domain.template_possibilities import impossible
from fleetgate.errors import InvalidTemplate
from tests.domain.test_template import EXAMPLE, PLACES, VALUES
from tests.domain.test_template_examples import BULK, JITP, SUBJECT
from tests.domain.test_template_lint import GOOD, POLICY, THING, good, with_policy, with_thing

OWN = f"${{{CERTIFICATE_ID}}}"
SERIAL = {"Ref": "SerialNumber"}
SITE = {"Ref": "Site"}
NAME = "does not match [a-zA-Z0-9:_-]{1,128}"
MAPS: dict[str, Any] = {
    "Sites": {
        "s": {"Url": "https://s", "Type": "bad type", "List": ["a", "b"], "Bad": ["a b"]},
        "t": {"Url": "https://t", "Type": "also bad", "List": ["c"], "Bad": ["c d"]},
        "u": {"Some": "good", "Mixed": ["x"]},
        "v": {"Some": "not good", "Mixed": "x"},
    }
}


def found(function: str, *arguments: Any) -> dict[str, Any]:
    return {function: list(arguments)}


def entry(name: Any) -> dict[str, Any]:
    return found("Fn::FindInMap", "Sites", SITE, name)


def errors(body: dict[str, Any], kind: Kind = Kind.FLEET) -> list[tuple[str, str]]:
    body = {**body, "Mappings": MAPS} if kind is Kind.FLEET else body
    body.setdefault("Parameters", {})["Site"] = {"Type": "String"}
    findings = lint(json.dumps(body), kind, Limits()).findings
    return [(each.path, each.rule) for each in findings if each.severity == "error"]


@pytest.mark.parametrize(
    ("properties", "place", "rule"),
    [
        (
            {"ThingName": found("Fn::Join", "-", ["my lamp", SERIAL])},
            "ThingName",
            f"thing name `my lamp-` {NAME}, whatever is brought",
        ),
        (
            {"ThingName": found("Fn::Join", " ", ["lamp", SERIAL])},
            "ThingName",
            f"thing name `lamp ` {NAME}, whatever is brought",
        ),
        (
            {"ThingName": {"Fn::Sub": "my lamp/${SerialNumber}"}},
            "ThingName",
            f"thing name `my lamp/` {NAME}, whatever is brought",
        ),
        (
            {"ThingName": {"Fn::Sub": "${SerialNumber}-" + "x" * 128}},
            "ThingName",
            f"thing name `-{'x' * 79}...` {NAME}, whatever is brought",
        ),
        (
            {"ThingName": {"Fn::Sub": "x" * 65 + OWN}},
            "ThingName",
            f"thing name `{'x' * 65}0123456789abcde...` {NAME}",
        ),
        (
            {"ThingName": found("Fn::Sub", "${V}-${SerialNumber}", {"V": "my lamp"})},
            "ThingName",
            f"thing name `my lamp-` {NAME}, whatever is brought",
        ),
        (
            {"AttributePayload": {"a": found("Fn::Join", "%", ["x", SERIAL])}},
            "AttributePayload.a",
            (
                "value `x%` of attribute `a` does not match [a-zA-Z0-9_.,@/:#=\\[\\]-]{0,800}, "
                "whatever is brought"
            ),
        ),
        (
            {"BillingGroup": {"Fn::Sub": "west coast ${SerialNumber}"}},
            "BillingGroup",
            f"billing group name `west coast ` {NAME}, whatever is brought",
        ),
        (
            {"ThingGroups": ["a", {"Fn::Sub": "all ${SerialNumber}"}]},
            "ThingGroups[1]",
            f"thing group name `all ` {NAME}, whatever is brought",
        ),
        (
            {"ThingGroups": entry("Bad")},
            "ThingGroups[0]",
            f"thing group name `a b` {NAME}, whatever is brought",
        ),
        (
            {"ThingGroups": entry("Url")},
            "ThingGroups.Fn::FindInMap",
            "it gives a string where a list must be",
        ),
        (
            {"ThingTypeName": entry("Type")},
            "ThingTypeName",
            f"thing type name `bad type` {NAME}, whatever is brought",
        ),
        (
            {"ThingTypeName": entry("List")},
            "ThingTypeName.Fn::FindInMap",
            "it gives a list where a string must be",
        ),
        (
            {"ThingTypeName": found("Fn::Select", "0", [entry("Type"), SERIAL])},
            "ThingTypeName",
            f"thing type name `bad type` {NAME}, whatever is brought",
        ),
        (
            {"ThingTypeName": found("Fn::Select", "2", entry("List"))},
            "ThingTypeName.Fn::Select",
            "the index is outside the list",
        ),
        (
            {"ThingTypeName": found("Fn::Join", "/", [found("Fn::Join", "", entry("List")), "x"])},
            "ThingTypeName",
            f"thing type name `ab/x` {NAME}, whatever is brought",
        ),
    ],
)
def test_of_a_thing(properties: dict[str, Any], place: str, rule: str) -> None:
    assert errors(with_thing(**properties)) == [(f"{THING}.{place}", rule)]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (entry("URL"), "no key of mapping `Sites` has `URL`"),
        (
            found("Fn::FindInMap", "Sites", "s", SERIAL),
            None,
        ),
        (found("Fn::FindInMap", SERIAL, SITE, "URL"), "no mapping has such an entry, whatever is"),
        (found("Fn::FindInMap", "Sites", "nowhere", SERIAL), "mapping `Sites` has no such entry"),
        (found("Fn::Select", "0", found("Fn::Split", "-", entry("URL"))), "no key of mapping"),
        (entry("List"), "it gives a list where a string must be"),
    ],
)
def test_of_a_mapping(value: Any, rule: str | None) -> None:
    told = [each for each in errors(good("DeviceConfiguration", "u", to=value)) if rule is not None]
    assert [each[1].startswith(rule or "") for each in told] == [True] * len(told)
    assert bool(told) == (rule is not None)


@pytest.mark.parametrize(
    ("resource", "rule"),
    [
        (
            {"Fn::Sub": "client/${SerialNumber}"},
            "Statement[0].Resource: `client/...` is not an ARN such as `arn:aws:iot:...` or `*`",
        ),
        (
            {"Fn::Sub": "client/${iot:ClientId}/${SerialNumber}"},
            "Statement[0].Resource: `client/${iot:ClientId}/...` is not an ARN such as",
        ),
        (
            ["*", {"Fn::Sub": "arm:aws:iot:r:a:topic/${SerialNumber}"}],
            "Statement[0].Resource: `arm:aws:iot:r:a:topic/...` is not an ARN such as",
        ),
        (entry("Url"), "Statement[0].Resource: `https://s` is not an ARN such as"),
        (
            {"Fn::Sub": "arn:aws:iot:r:a:topic/${SerialNumber}" + "x" * 900},
            None,
        ),
    ],
)
def test_of_the_resource_of_a_policy(resource: Any, rule: str | None) -> None:
    told = errors(with_policy(resource))
    if rule is None:
        assert told == []
        return
    ((path, said),) = told
    assert path == f"{POLICY}.PolicyDocument"
    assert said.startswith(f"Policy document is Malformed: {rule}")


def with_statement(**more: Any) -> dict[str, Any]:
    resource = {"Fn::Sub": "arn:aws:iot:r:a:topic/${SerialNumber}"}
    statement = {"Effect": "Allow", "Action": "iot:Publish", "Resource": resource, **more}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    return good("Resources", "policy", "Properties", to={"PolicyDocument": document})


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"Effect": "allow"}, "Statement[0].Effect: it must be `Allow` or `Deny`, not `allow`"),
        ({"Principal": "*"}, "Statement[0]: an IoT policy has no `Principal`"),
        ({"Action": "publish"}, "Statement[0].Action: `publish` is not an action such as"),
        ({"Action": ["iot:Publish", SERIAL], "Sid": 5}, "Statement[0].Sid: it must be a string"),
        ({"Sid": "x" * 2100}, "it has "),
        ({"Effect": SERIAL, "Sid": SERIAL, "Action": [SERIAL]}, None),
        ({"Condition": {"StringEquals": {"iot:ClientId": SERIAL}}}, None),
        ({"Condition": {"Bool": {"iot:Connection.Thing.IsAttached": SERIAL}}}, None),
    ],
)
def test_of_what_stands_fast_in_a_policy(more: dict[str, Any], rule: str | None) -> None:
    told = errors(with_statement(**more))
    assert bool(told) == (rule is not None)
    assert all(each.startswith(f"Policy document is Malformed: {rule}") for _, each in told)


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        (
            ("policy", "Properties"),
            {"PolicyName": {"Fn::Sub": "lamp policy ${SerialNumber}"}},
            "policy name `lamp policy ` does not match [\\w+=,.@-]{1,128}, whatever is brought",
        ),
        (
            ("certificate", "Properties", "Status"),
            entry("Type"),
            "it must be ACTIVE or INACTIVE, not `bad type`, whatever is brought",
        ),
        (
            ("certificate", "Properties", "CertificateId"),
            {"Fn::Sub": "id-" + OWN},
            (
                f'it must be the device\'s own certificate, {{"Ref": "{CERTIFICATE_ID}"}}, '
                "whatever is brought"
            ),
        ),
    ],
)
def test_of_certificates_and_named_policies(path: tuple[str, ...], value: Any, rule: str) -> None:
    assert [said for _, said in errors(good("Resources", *path, to=value))] == [rule]


@pytest.mark.parametrize(
    "body",
    [
        with_thing(ThingName=found("Fn::Select", "1", found("Fn::Split", " ", SERIAL))),
        with_thing(ThingName=found("Fn::Sub", "${V}", {"V": entry("Some")})),
        with_thing(ThingName=found("Fn::Select", SERIAL, ["a b", "c"])),
        with_thing(ThingName={"Fn::Sub": "x" * 64 + OWN}),
        with_thing(ThingName={"Fn::Sub": "${SerialNumber}" + "x" * 127}),
        with_thing(ThingGroups=entry("Mixed"), BillingGroup=entry("Mixed")),
        with_thing(ThingGroups=found("Fn::Split", ",", SERIAL)),
        good("Resources", "certificate", "Properties", "Status", to=SERIAL),
        good("Resources", "certificate", "Properties", "Status", to={"Fn::Sub": "${Site}ACTIVE"}),
        good("Resources", "policy", "Properties", "PolicyName", to=SERIAL),
        with_policy({"Fn::Sub": "${SerialNumber}"}),
        with_policy({"Fn::Sub": "a${SerialNumber}"}),
        with_policy({"Fn::Sub": "arn:${SerialNumber}"}),
        with_policy({"Fn::Sub": "*${SerialNumber}"}),
        with_policy({"Fn::Sub": "${iot:${SerialNumber}}"}),
        with_policy({"Fn::Sub": "arn:aws:iot:r:a:client/${iot:ClientId}-${SerialNumber}"}),
        with_policy(entry("List")),
    ],
)
def test_nothing_is_said_of_what_a_device_could_get(body: dict[str, Any]) -> None:
    assert errors(body) == []


def test_it_is_the_same_for_the_other_kinds() -> None:
    body = copy.deepcopy(JITP)
    name = {"Fn::Sub": "my lamp/${AWS::IoT::Certificate::CommonName}"}
    body["Resources"]["thing"]["Properties"]["ThingName"] = name
    said = [rule for _, rule in errors({**body, "Parameters": {**body["Parameters"]}}, Kind.JITP)]
    assert f"thing name `my lamp/` {NAME}, whatever is brought" in said
    body = copy.deepcopy(BULK)
    body["Resources"]["thing"]["Properties"]["ThingName"] = {"Fn::Sub": "my lamp/${ThingName}"}
    said = [rule for _, rule in errors(body, Kind.INLINE)]
    assert said == [f"thing name `my lamp/` {NAME}, whatever is brought"]


KINDS = st.sampled_from(list(Kind))
MORE_VALUES = VALUES | VALUES.map(lambda each: {"Fn::Sub": ["arn:${V}:${P}", {"V": each}]})
IN_A_POLICY = st.sampled_from(["Resource", "Action", "Effect", "Sid", "Condition"])
GIVEN = st.fixed_dictionaries(
    {},
    optional={
        name: st.text("ab-:", max_size=4)
        | st.sampled_from(["arn:aws:iot:r:a:x", "Allow", "Seattle"])
        for name in ("P", "SerialNumber", "DeviceLocation")
    },
)


@given(PLACES, MORE_VALUES, KINDS, GIVEN)
def test_what_renders_for_one_device_is_possible(
    place: tuple[str, ...], value: object, kind: Kind, parameters: dict[str, str]
) -> None:
    body = copy.deepcopy({Kind.FLEET: EXAMPLE, Kind.JITP: JITP, Kind.INLINE: BULK}[kind])
    within = body
    for key in place[:-1]:
        within = within.setdefault(key, {})
    within[place[-1]] = value
    check(body, kind, parameters)


@given(IN_A_POLICY, MORE_VALUES, GIVEN)
def test_and_so_is_a_policy_that_does(
    element: str, value: object, parameters: dict[str, str]
) -> None:
    check(with_statement(**{element: value}), Kind.FLEET, parameters)


def check(body: dict[str, Any], kind: Kind, parameters: dict[str, str]) -> None:
    try:
        parsed = parse(json.dumps(body), kind)
        template.render(parsed, SUBJECT | parameters)
    except InvalidTemplate:
        return
    assert list(impossible(parsed)) == []


def many(count: int, entries: int) -> dict[str, Any]:
    """Functions that may become any of many entries, all of them bad."""
    body = copy.deepcopy(GOOD)
    body["Mappings"] = {"M": {f"{n}": {"n": "* "} for n in range(entries)}}
    one = {"Fn::FindInMap": ["M", {"Ref": "A"}, "n"]}
    body["Resources"]["thing"]["Properties"]["ThingGroups"] = [one] * count
    body["DeviceConfiguration"] = {}
    return body


@pytest.mark.parametrize(
    "body",
    [
        many(90, 250),
        good(
            "DeviceConfiguration",
            to={
                "a": {
                    "Fn::Sub": ["${V}${A}" * 900, {"V": {"Fn::FindInMap": ["Sites", SITE, "Url"]}}]
                }
            },
        ),
        good(
            "DeviceConfiguration",
            to={f"{n}": {"Fn::Split": ["a", {"Fn::Sub": "a" * 100}]} for n in range(50)},
        ),
    ],
)
def test_how_much_is_looked_at_is_bounded(body: dict[str, Any]) -> None:
    text = json.dumps(body, separators=(",", ":"))
    assert len(text) <= MAX_BODY
    examined = template.examine(text)
    assert examined.template is not None
    begun = time.process_time()
    list(impossible(examined.template))
    assert time.process_time() - begun < 0.1
