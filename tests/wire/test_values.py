"""wire.values: what is of another type than the model says is refused, with its place."""

from __future__ import annotations

import math

import msgspec
import pytest

from fleetgate.errors import SerializationException
from fleetgate.wire import restjson
from fleetgate.wire.model import Operation, Service
from fleetgate.wire.values import from_document
from tests.wire.every_kind import deep


def _refused(operation: Operation, body: bytes) -> str:
    with pytest.raises(SerializationException) as caught:
        restjson.decode_request(operation, {}, (), {}, body)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not a JSON document"),
        (b"\xff", "not a JSON document"),
        (b'{"thingTypeName":"\xff"}', "not a JSON document"),
        (b'{"thingTypeName":"\\ud800"}', "not a JSON document"),
        (b"{} {}", "not a JSON document"),
        (b"[" * 100_000, "not a JSON document"),
        (b'{"x":' * 100_000, "not a JSON document"),
        (b'{"x":1e999}', "not a JSON document"),
        (deep(65, b"[", b"]"), "nested more than 64 levels deep"),
        (deep(300, b'{"x":', b"}"), "nested more than 64 levels deep"),
        (b"[]", "the body is START_ARRAY, not a structure"),
        (b"null", "the body is NULL, not a structure"),
        (b'{"thingTypeName":1}', "thingTypeName: NUMBER_VALUE can not be converted to a string"),
        (b'{"thingTypeName":[]}', "thingTypeName: START_ARRAY can not be converted to a string"),
        (b'{"thingTypeName":true}', "thingTypeName: TRUE_VALUE can not be converted to a string"),
        (
            b'{"attributePayload":"x"}',
            "attributePayload: STRING_VALUE can not be converted to a structure",
        ),
        (
            b'{"attributePayload":{"attributes":{"a":1.5}}}',
            "attributePayload.attributes.a: DECIMAL_VALUE can not be converted to a string",
        ),
        (
            b'{"attributePayload":{"attributes":{"a":null}}}',
            "attributePayload.attributes.a: NULL can not be converted to a string",
        ),
        (
            b'{"attributePayload":{"merge":"true"}}',
            "attributePayload.merge: STRING_VALUE can not be converted to a boolean",
        ),
    ],
)
def test_a_wrong_body_is_refused_with_its_place(iot: Service, body: bytes, message: str) -> None:
    assert message in _refused(iot.operation("CreateThing"), body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"tags":[{"Key":"a"},7]}', "tags[1]: NUMBER_VALUE can not be converted to a structure"),
        (b'{"tags":[null]}', "tags[0]: NULL can not be converted to a structure"),
        (b'{"tags":[{"Key":{}}]}', "tags[0].Key: START_OBJECT can not be converted to a string"),
        (b'{"tags":{}}', "tags: START_OBJECT can not be converted to a list"),
    ],
)
def test_a_place_in_a_list_is_numbered(iot: Service, body: bytes, message: str) -> None:
    assert message in _refused(iot.operation("CreateThingGroup"), body)


@pytest.mark.parametrize("number", [b"1.0", b"2147483648", b"-2147483649", b'"1"', b"true", b"1e3"])
def test_an_integer_is_a_whole_number_of_32_bits(iot: Service, number: bytes) -> None:
    operation = iot.operation("SearchIndex")
    assert "maxResults: " in _refused(operation, b'{"maxResults":' + number + b"}")


@pytest.mark.parametrize("text", ["x", "1.0", "+1", " 1", "", "2147483648", "１", "1" * 5000, "-"])
def test_an_integer_in_the_query_is_a_whole_number_of_32_bits(iot: Service, text: str) -> None:
    with pytest.raises(SerializationException, match=r"maxResults: .* can not be converted to an"):
        restjson.decode_request(iot.operation("ListThings"), {}, [("maxResults", text)], {}, b"")


@pytest.mark.parametrize("text", ["True", "1", "", "yes"])
def test_a_boolean_in_the_query_is_true_or_false(iot: Service, text: str) -> None:
    query = [("recursive", text)]
    with pytest.raises(
        SerializationException, match=r"recursive: .* can not be converted to a bool"
    ):
        restjson.decode_request(iot.operation("ListThingGroups"), {}, query, {}, b"")


def test_a_single_field_is_not_there_twice(iot: Service) -> None:
    query = [("maxResults", "1"), ("maxResults", "2")]
    with pytest.raises(SerializationException, match="maxResults: 2 values can not be converted"):
        restjson.decode_request(iot.operation("ListThings"), {}, query, {}, b"")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e", "nan"),
        ("e", "1e300"),
        ("e", "2026-01-02T03:04:05Z"),
        ("t", "1767323045"),
        ("t", "2026-02-30T00:00:00Z"),
        ("r", "inf"),
        ("r", "1_0"),
        ("r", ""),
        ("l", "x"),
    ],
)
def test_a_wrong_text_in_the_query_is_refused(small: Service, name: str, text: str) -> None:
    with pytest.raises(SerializationException, match=" can not be converted to "):
        restjson.decode_request(small.operation("Put"), {}, [(name, text)], {}, b"")


@pytest.mark.parametrize("body", [b'{"BodyBlob":"*"}', b'{"BodyBlob":1}', b'{"BodyReal":"nan"}'])
def test_a_wrong_value_in_the_body_is_refused(small: Service, body: bytes) -> None:
    assert "can not be converted to" in _refused(small.operation("Put"), body)


def test_a_number_of_any_size_is_refused_or_read(small: Service) -> None:
    big = 10**5000
    with pytest.raises(SerializationException, match="BodyReal: a number out of range"):
        restjson.decode_document(small.operation("Put"), {}, {"BodyReal": big})
    epoch = small.shape("Epoch")
    for value in (big, -big, math.inf, math.nan, 1e300, True, "1", None, [1]):
        with pytest.raises(SerializationException, match="when: "):
            from_document(epoch, value, "when")


def test_as_many_brackets_as_one_likes_fit_in_a_flat_body(iot: Service) -> None:
    document = '{"Statement":[' + "{}," * 500 + "]}"
    body = msgspec.json.encode({"policyDocument": document, "tags": [{"Key": "k"}] * 100})
    decoded = restjson.decode_request(
        iot.operation("CreatePolicy"), {"policyName": "p"}, (), {}, body
    )
    assert decoded["policy_document"] == document
    assert (
        restjson.decode_request(iot.operation("CreateThing"), {}, (), {}, deep(64, b"[", b"]"))
        == {}
    )
