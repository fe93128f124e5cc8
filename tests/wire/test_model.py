"""wire.model against botocore's reading of the same document."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from botocore import xform_name
from hypothesis import given
from hypothesis import strategies as st

from fleetgate import errors
from fleetgate.wire.model import Service, Shape, python_name


def test_every_name_is_spelled_as_botocore_spells_it(judge: Any) -> None:
    names = set(judge.operation_names)
    for shape in judge.shape_names:
        names.update(getattr(judge.shape_for(shape), "members", {}))
    assert len(names) > 1000
    assert {name: python_name(name) for name in names} == {name: xform_name(name) for name in names}


@pytest.mark.parametrize("name", ["TargetARNs", "AWSThing", "OTAUpdateId", "a_b", "v2Logging", "x"])
def test_acronyms_and_digits_are_spelled_as_botocore_spells_them(name: str) -> None:
    assert python_name(name) == xform_name(name)


def _same(ours: Shape, its: Any, seen: set[str]) -> None:
    """Every attribute botocore knows of a shape, compared."""
    if its.name in seen:
        return
    seen.add(its.name)
    assert (ours.name, ours.type) == (its.name, its.type_name)
    assert ours.minimum == its.metadata.get("min")
    assert ours.maximum == its.metadata.get("max")
    assert ours.pattern == its.metadata.get("pattern")
    assert list(ours.enum) == its.metadata.get("enum", [])
    assert ours.sensitive == its.metadata.get("sensitive", False)
    if its.type_name == "structure":
        required = {name for name, member in ours.members.items() if member.required}
        assert required == set(its.required_members)
        assert list(ours.members) == list(its.members)
        for name, member in ours.members.items():
            serialization = its.members[name].serialization
            assert member.location == serialization.get("location")
            assert member.location_name == serialization.get("name", name)
            _same(member.shape, its.members[name], seen)
        payload = its.serialization.get("payload")
        assert (ours.payload.name if ours.payload else None) == payload
    elif its.type_name == "list":
        assert ours.element
        _same(ours.element, its.member, seen)
    elif its.type_name == "map":
        assert ours.key
        assert ours.element
        _same(ours.key, its.key, seen)
        _same(ours.element, its.value, seen)


def test_every_operation_is_read_as_botocore_reads_it(iot: Service, judge: Any) -> None:
    assert len(iot.names) == len(judge.operation_names)
    seen: set[str] = set()
    for name in iot.names:
        ours, its = iot.operation(name), judge.operation_model(name)
        assert ours.name == its.name
        assert (ours.method, ours.request_uri) == (its.http["method"], its.http["requestUri"])
        assert ours.response_code == its.http.get("responseCode", 200)
        assert ours.errors == {
            shape.name: shape.metadata["error"]["httpStatusCode"] for shape in its.error_shapes
        }
        for shape, reading in ((ours.input, its.input_shape), (ours.output, its.output_shape)):
            assert (shape is None) == (reading is None)
            if shape is not None:
                _same(shape, reading, seen)


def test_error_classes_have_the_status_the_model_gives_them(iot: Service) -> None:
    for name in iot.names:
        for code, status in iot.operation(name).errors.items():
            error = getattr(errors, code, None)
            if error is not None:
                assert error.status == status, code


def test_every_operation_is_routed_to_itself(iot: Service) -> None:
    for name in iot.names:
        operation = iot.operation(name)
        labels = {
            member.location_name: "va lue/ü%"
            for member in (operation.input.members.values() if operation.input else ())
            if member.location == "uri"
        }
        path = operation.request_uri
        for label, value in labels.items():
            path = path.replace(f"{{{label}}}", quote(value, safe=""))
            path = path.replace(f"{{{label}+}}", quote(value))
        found = iot.route(operation.method, path)
        assert found is not None, name
        assert (found[0].name, found[1]) == (name, labels)


# Rows: Smithy specification, "HTTP bindings", uri labels; requestUri of the iot service model.
ROUTES = [
    ("POST", "/things/a%2Fb", "CreateThing", {"thingName": "a/b"}),
    ("GET", "/things/a%20b%C3%BC", "DescribeThing", {"thingName": "a bü"}),
    ("GET", "/things/%2E%2E", "DescribeThing", {"thingName": ".."}),
    ("PUT", "/thing-groups/addThingToThingGroup", "AddThingToThingGroup", {}),
    (
        "GET",
        "/thing-groups/addThingToThingGroup",
        "DescribeThingGroup",
        {"thingGroupName": "addThingToThingGroup"},
    ),
    ("GET", "/certificate-providers/", "ListCertificateProviders", {}),
    (
        "GET",
        "/certificate-providers/p",
        "DescribeCertificateProvider",
        {"certificateProviderName": "p"},
    ),
    ("GET", "/destinations/a/b%2Fc", "GetTopicRuleDestination", {"arn": "a/b/c"}),
    ("GET", "/destinations", "ListTopicRuleDestinations", {}),
]


@pytest.mark.parametrize(("method", "path", "name", "labels"), ROUTES)
def test_a_path_leads_to_its_operation(
    iot: Service, method: str, path: str, name: str, labels: dict[str, str]
) -> None:
    found = iot.route(method, path)
    assert found is not None
    assert (found[0].name, found[1]) == (name, labels)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/things/"),  # a label is never empty
        ("GET", "//things"),
        ("GET", "/things/a/"),
        ("GET", "/certificate-providers"),
        ("GET", "/destinations/a//b"),
        ("GET", "/destinations/a/../b"),  # what a signature does not see
        ("GET", "/things/./a"),
        ("PATCH", "/certificates"),
        ("get", "/things"),
        ("GET", "things"),
        ("GET", ""),
        ("GET", "/"),
        ("GET", "/nowhere"),
        ("GET", "/things" + "/a" * 10_000),
    ],
)
def test_a_path_of_no_operation_leads_nowhere(iot: Service, method: str, path: str) -> None:
    assert iot.route(method, path) is None


def test_a_path_that_is_not_utf8_is_refused(iot: Service) -> None:
    with pytest.raises(errors.SerializationException, match="%ff"):
        iot.route("GET", "/things/%ff")


@given(path=st.text(max_size=60))
def test_any_path_leads_somewhere_nowhere_or_is_refused(iot: Service, path: str) -> None:
    try:
        iot.route("GET", path)
    except errors.SerializationException:
        assert "%" in path


def _small(operations: dict[str, Any], shapes: dict[str, Any]) -> Service:
    document = {"metadata": {"protocol": "rest-json"}, "operations": operations, "shapes": shapes}
    return Service.from_json(document, "small")


def test_a_query_string_in_the_request_uri_must_be_present() -> None:
    service = _small(
        {
            "Get": {"name": "Get", "http": {"method": "GET", "requestUri": "/x/{k+}"}},
            "GetAcl": {"name": "GetAcl", "http": {"method": "GET", "requestUri": "/x/{k+}?acl"}},
            "GetEnd": {"name": "GetEnd", "http": {"method": "GET", "requestUri": "/x/{k+}/end"}},
        },
        {},
    )

    def name(path: str, query: list[tuple[str, str]]) -> str | None:
        found = service.route("GET", path, query)
        return found[0].name if found else None

    assert name("/x/a", []) == "Get"
    assert name("/x/a", [("other", "1"), ("acl", "")]) == "GetAcl"
    assert name("/x/a", [("acl", "1")]) == "Get"
    assert service.route("GET", "/x/a/b/end") == (service.operation("Get"), {"k": "a/b/end"})


def test_a_shape_that_contains_itself_is_refused() -> None:
    service = _small({}, {"Tree": {"type": "list", "member": {"shape": "Tree"}}})
    with pytest.raises(ValueError, match="`Tree` of `small` contains itself"):
        service.shape("Tree")


@pytest.mark.parametrize("document", [{}, {"metadata": {}}, {"metadata": 1}])
def test_what_is_no_service_model_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a service model of `iot`"):
        Service.from_json(document, "iot")


def test_an_unknown_operation_is_a_key_error(iot: Service) -> None:
    with pytest.raises(KeyError):
        iot.operation("MakeTea")


# --- the topics of the provisioning operations (AWS IoT developer guide, "Device provisioning
# MQTT API")

TOPICS = [
    ("$aws/certificates/create/json", "CreateKeysAndCertificate", {"payloadFormat": "json"}),
    (
        "$aws/certificates/create-from-csr/cbor",
        "CreateCertificateFromCsr",
        {"payloadFormat": "cbor"},
    ),
    (
        "$aws/provisioning-templates/T_1/provision/json",
        "RegisterThing",
        {"templateName": "T_1", "payloadFormat": "json"},
    ),
    (
        "$aws/provisioning-templates/T%5F1/provision/json",  # nothing is encoded in a topic
        "RegisterThing",
        {"templateName": "T%5F1", "payloadFormat": "json"},
    ),
]


@pytest.mark.parametrize(("topic", "name", "labels"), TOPICS)
def test_a_topic_leads_to_its_operation(
    provisioning: Service, topic: str, name: str, labels: dict[str, str]
) -> None:
    found = provisioning.route("PUBLISH", topic)
    assert found is not None
    assert (found[0].name, found[1]) == (name, labels)


@pytest.mark.parametrize(
    "topic",
    [
        "$aws/certificates/create/json/accepted",
        "$aws/certificates/create",
        "$aws/certificates/create/",
        "/$aws/certificates/create/json",
        "$AWS/certificates/create/json",
        "$aws/provisioning-templates//provision/json",
        "$aws/provisioning-templates/a/b/provision/json",
    ],
)
def test_other_topics_lead_nowhere(provisioning: Service, topic: str) -> None:
    assert provisioning.route("PUBLISH", topic) is None
    assert provisioning.route("GET", "$aws/certificates/create/json") is None


def test_the_provisioning_errors_are_classes_with_the_same_status(provisioning: Service) -> None:
    codes = set()
    for name in provisioning.names:
        for code, status in provisioning.operation(name).errors.items():
            assert getattr(errors, code).status == status
            codes.add(code)
    assert len(codes) == 9


def test_only_the_operations_with_members_in_the_body_read_one(provisioning: Service) -> None:
    reads = {
        name: shape.reads_body
        for name in provisioning.names
        if (shape := provisioning.operation(name).input)
    }
    assert reads == {
        "CreateKeysAndCertificate": False,
        "CreateCertificateFromCsr": True,
        "RegisterThing": True,
    }
