from __future__ import annotations

import json

import pytest

from fleetgate.domain import template
from fleetgate.domain.template import CERTIFICATE_ID
from fleetgate.errors import InvalidTemplate

ID = "0123456789abcdef" * 4


def configuration(values: dict[str, object], **parameters: str) -> dict[str, str]:
    """The device configuration that a template with these values renders to."""
    body = {
        "Mappings": {"Lists": {"a": {"b": ["x", "y"], "c": "z"}}},
        "Resources": {
            "c": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": CERTIFICATE_ID}},
            }
        },
        "DeviceConfiguration": values,
    }
    rendered = template.render(template.parse(json.dumps(body)), {CERTIFICATE_ID: ID, **parameters})
    return dict(rendered.device_configuration)


def configured(value: object, **parameters: str) -> str:
    return configuration({"v": value}, **parameters)["v"]


# AWS IoT Developer Guide, "Provisioning templates", and AWS CloudFormation User Guide, "Intrinsic
# function reference".
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain ${SerialNumber}", "plain ${SerialNumber}"),
        ({"Ref": "P"}, "p"),
        ({"Ref": CERTIFICATE_ID}, ID),
        ({"Fn::Join": ["-", ["a", {"Ref": "P"}, "c"]]}, "a-p-c"),
        ({"Fn::Join": ["-", []]}, ""),
        ({"Fn::Join": ["/", {"Fn::Split": [",", "a,b"]}]}, "a/b"),
        ({"Fn::Join": ["/", {"Fn::FindInMap": ["Lists", "a", "b"]}]}, "x/y"),
        ({"Fn::Select": [1, ["a", "b"]]}, "b"),
        ({"Fn::Select": ["1", ["a", "b"]]}, "b"),
        ({"Fn::Select": [{"Ref": "N"}, ["a", "b"]]}, "b"),
        ({"Fn::Select": [2, {"Fn::Split": [":", {"Ref": "C"}]}]}, "three"),
        ({"Fn::FindInMap": ["Lists", "a", "c"]}, "z"),
        ({"Fn::FindInMap": ["Lists", {"Ref": "A"}, "c"]}, "z"),
        ({"Fn::FindInMap": [{"Ref": "L"}, "a", "c"]}, "z"),
        ({"Fn::Sub": "a-${P}-${P}"}, "a-p-p"),
        ({"Fn::Sub": ["${P}-${V}", {"V": {"Ref": "N"}}]}, "p-1"),
        ({"Fn::Sub": ["${P}", {"P": "nearer"}]}, "nearer"),
        ({"Fn::Sub": "${!P}-${P}"}, "${P}-p"),
        ({"Fn::Sub": "${iot:ClientId}/${aws:SourceIp}"}, "${iot:ClientId}/${aws:SourceIp}"),
        ({"Fn::Sub": "${*}${?}${$}"}, "${*}${?}${$}"),
        ({"Fn::Sub": f"${{{CERTIFICATE_ID}}}"}, ID),
        ({"Fn::Sub": "${unfinished"}, "${unfinished"),
        ({"Fn::Sub": "${D}"}, "${P}"),
    ],
)
def test_functions(value: object, expected: str) -> None:
    parameters = {"P": "p", "N": "1", "C": "one:two:three", "A": "a", "L": "Lists", "D": "${P}"}
    assert configured(value, **parameters) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"Ref": "AWS::Region"},
        {"Fn::Sub": "${AWS::Region}"},
        {"Fn::Sub": ["${A}", {"A": {"Ref": "AWS::Region"}}]},
        {"Fn::Join": ["", [{"Fn::Select": [0, [{"Ref": "AWS::Region"}]]}]]},
    ],
)
def test_an_unresolved_reference_has_the_words_of_aws(value: object) -> None:
    with pytest.raises(InvalidTemplate) as caught:
        configured(value)
    assert caught.value.rule == "Cannot resolve reference value: AWS::Region"
    assert caught.value.path.startswith("DeviceConfiguration.v.")


def test_a_device_cannot_supply_a_pseudo_parameter() -> None:
    name = "AWS::IoT::Certificate::CommonName"
    with pytest.raises(InvalidTemplate, match=f"Cannot resolve reference value: {name}"):
        configured({"Ref": name}, **{name: "root"})


REFUSED_VALUES: list[tuple[object, str]] = [
    (1, "must be a string, a Ref or a function"),
    (None, "must be a string"),
    (["a"], "must be a string"),
    ({"a": "b"}, "must be a string"),
    ({"Fn::Nope": "a"}, "unknown function `Fn::Nope`"),
    ({"Fn::GetAtt": ["a", "b"]}, "unknown function"),
    ({"Ref": "P", "Fn::Sub": ""}, "alone in its object"),
    ({"Ref": "P", "x": ""}, "alone in its object"),
    ({"Ref": 1}, "plain string"),
    ({"Ref": {"Ref": "P"}}, "plain string"),
    ({"Fn::Join": ["a"]}, r"Fn::Join: it must be a list of 2: delimiter, list"),
    ({"Fn::Join": "a"}, "list of 2"),
    ({"Fn::Join": [{"Ref": "P"}, []]}, "a delimiter, a plain string"),
    ({"Fn::Join": ["", "a"]}, "must be a list"),
    ({"Fn::Join": ["", {"Ref": "P"}]}, "must be a list"),
    ({"Fn::Join": ["", ["a", None]]}, r"v\.Fn::Join\[1\]\[1\]: it must be a string"),
    ({"Fn::Join": ["", [{"Fn::Split": [",", "a"]}]]}, "gives a list where a string"),
    ({"Fn::Join": ["", {"Fn::FindInMap": ["Lists", "a", "c"]}]}, "gives a string where a list"),
    ({"Fn::Split": [",", "a,b"]}, "gives a list where a string"),
    ({"Fn::Split": ["", "a,b"]}, "must not be empty"),
    ({"Fn::FindInMap": ["Lists", "a", "b"]}, "gives a list where a string"),
    ({"Fn::FindInMap": ["Lists", "a"]}, "list of 3: mapping, key, name"),
    ({"Fn::FindInMap": ["No", "a", "b"]}, "there is no mapping `No`"),
    ({"Fn::FindInMap": ["No", {"Ref": "P"}, "b"]}, "there is no mapping `No`"),
    ({"Fn::FindInMap": ["Lists", "q", "b"]}, "mapping `Lists` has no key `q`"),
    ({"Fn::FindInMap": ["Lists", {"Ref": "P"}, "b"]}, "mapping `Lists` has no key `p`"),
    ({"Fn::FindInMap": ["Lists", "a", "q"]}, "key `a`, has no `q`"),
    ({"Fn::FindInMap": [{"Ref": "P"}, "a", "b"]}, "there is no mapping `p`"),
    ({"Fn::Select": [2, ["a", "b"]]}, "index 2 is outside a list of 2 elements"),
    ({"Fn::Select": ["2", {"Fn::Split": [",", "a"]}]}, "index 2 is outside a list of 1 elements"),
    ({"Fn::Select": [-1, ["a"]]}, "index `-1` is not a number"),
    ({"Fn::Select": [True, ["a"]]}, "must be a string"),
    ({"Fn::Select": ["²", ["a"]]}, "is not a number"),
    ({"Fn::Select": [{"Ref": "P"}, ["a"]]}, "index `p` is not a number"),
    ({"Fn::Select": [0, ["a", None]]}, "must be a string"),
    ({"Fn::Select": [0, []]}, "outside a list of 0"),
    ({"Fn::Sub": ["a"]}, "list of 2: string, variables"),
    ({"Fn::Sub": [{"Ref": "P"}, {}]}, "plain string"),
    ({"Fn::Sub": ["a", []]}, "object of names and values"),
    ({"Fn::Sub": ["a", {"Ref": "P"}]}, "object of names and values"),
    ({"Fn::Sub": "${}"}, "names nothing"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED_VALUES)
def test_a_wrong_value_is_refused_with_its_place(value: object, message: str) -> None:
    with pytest.raises(InvalidTemplate, match=message) as caught:
        configured(value, P="p")
    assert caught.value.path.startswith("DeviceConfiguration.v")


@pytest.mark.parametrize(
    "value",
    [
        {"Fn::Join": ["", [{"Ref": "Big"}] * 17]},
        {"Fn::Sub": "${Big}" * 100},
        {"Fn::Join": ["x" * 4096, [""] * 100]},
    ],
)
def test_one_value_may_not_explode(value: object) -> None:
    with pytest.raises(InvalidTemplate, match="more than 65536 characters"):
        configured(value, Big="x" * 4096)


def test_all_values_together_may_not_explode() -> None:
    many: dict[str, object] = {str(n): {"Fn::Select": [0, [{"Ref": "Big"}]]} for n in range(100)}
    with pytest.raises(InvalidTemplate, match="expands to more than 262144 characters"):
        configuration(many, Big="x" * 4096)
    few: dict[str, object] = {str(n): {"Ref": "Big"} for n in range(17)}
    with pytest.raises(InvalidTemplate, match=r"DeviceConfiguration: it has \d+ characters"):
        configuration(few, Big="x" * 4096)
