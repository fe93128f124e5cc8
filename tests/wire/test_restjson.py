"""wire.restjson with botocore as the judge: what its serialiser writes is read, and what is
written its parser reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest
from botocore import xform_name
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import (
    ResourceAlreadyExistsException,
    SerializationException,
    ServiceError,
    ThrottlingException,
)
from fleetgate.wire import restjson
from fleetgate.wire.model import Operation, Service
from tests.wire import botocore_judge
from tests.wire.every_kind import EVERYTHING, MOMENT, SMALL

TEXT = "a/b c+%?&=#é\"{}'~☃"
HEADER = 'arn:aws:iot:us-east-1:000000000000:cert/a, "b" %2F'


def _value(shape: Any, *, full: bool, location: str | None = None) -> Any:
    """A value for a botocore shape; only the required members unless `full`."""
    match shape.type_name:
        case "structure":
            return {
                name: _value(member, full=full, location=member.serialization.get("location"))
                for name, member in shape.members.items()
                if full or name in shape.required_members
            }
        case "list":
            return [_value(shape.member, full=full)] * (2 if full else 0)
        case "map":
            return {TEXT: _value(shape.value, full=full)} if full else {}
        case "string":
            return HEADER if location == "header" else TEXT
        case "timestamp":
            return MOMENT
        case "blob":
            return b"\x00\xff\x10"
        case "boolean":
            return full
    return {"integer": -7, "long": 2**53 + 1, "double": 0.1, "float": 0.5}[shape.type_name]


@pytest.mark.parametrize("full", [False, True], ids=["minimal", "full"])
def test_every_request_botocore_writes_is_read(iot: Service, judge: Any, full: bool) -> None:
    for name in judge.operation_names:
        model = judge.operation_model(name)
        params = _value(model.input_shape, full=full) if model.input_shape else {}
        operation, decoded = botocore_judge.received(iot, botocore_judge.sent(model, params))
        assert operation.name == name
        assert decoded == {
            xform_name(key): botocore_judge.inside(value) for key, value in params.items()
        }, name


@pytest.mark.parametrize("as_number", [False, True], ids=["datetime", "seconds"])
@pytest.mark.parametrize("full", [False, True], ids=["minimal", "full"])
def test_every_answer_written_is_what_botocore_reads(
    iot: Service, judge: Any, full: bool, as_number: bool
) -> None:
    for name in judge.operation_names:
        model = judge.operation_model(name)
        result = _value(model.output_shape, full=full) if model.output_shape else {}
        if "statusCode" in result:
            result["statusCode"] = 202
        written = botocore_judge.inside(result) if as_number else result
        status, headers, body = restjson.encode_response(iot.operation(name), written)
        assert status == result.get("statusCode", model.http.get("responseCode", 200))
        parsed = botocore_judge.parsed(model, status, headers, body)
        assert parsed.pop("ResponseMetadata")["HTTPStatusCode"] == status
        if name == "DeleteCommand" and not full:
            parsed.pop("statusCode")
        assert parsed == result, name


def test_every_declared_error_is_what_botocore_reads(iot: Service, judge: Any) -> None:
    for name in iot.names:
        model = judge.operation_model(name)
        for shape in model.error_shapes:
            declared = {"status": shape.metadata["error"]["httpStatusCode"]}
            error = type(shape.name, (ServiceError,), declared)("`é` is wrong")
            status, headers, body = restjson.encode_error(error, "id-1")
            assert status == declared["status"]
            parsed = botocore_judge.parsed(model, status, headers, body)
            assert parsed["Error"] == {"Code": shape.name, "Message": "`é` is wrong"}
            assert parsed["ResponseMetadata"]["RequestId"] == "id-1"
            assert parsed["ResponseMetadata"]["HTTPStatusCode"] == status


def test_what_is_not_utf8_in_an_error_becomes_question_marks() -> None:
    text = b"a\xffb".decode(errors="surrogateescape")
    error = ResourceAlreadyExistsException(text, resourceId=text)
    body = restjson.encode_error(error, "r")[2]
    assert msgspec.json.decode(body) == {"message": "a?b", "resourceId": "a?b"}


def test_the_members_of_an_error_are_in_its_body() -> None:
    error = ResourceAlreadyExistsException("there", resourceId="lamp", resourceArn=None)
    status, headers, body = restjson.encode_error(error, "r")
    assert status == 409
    assert headers["x-amzn-errortype"] == "ResourceAlreadyExistsException"
    assert msgspec.json.decode(body) == {"message": "there", "resourceId": "lamp"}
    assert restjson.encode_error(ThrottlingException("slow"), "r")[0] == 400


# --- a model with a member of every kind -------------------------------------------------------


def test_members_of_every_kind_are_read_from_where_they_lie(small: Service) -> None:
    model = ServiceModel(SMALL, "small").operation_model("Put")
    operation, decoded = botocore_judge.received(small, botocore_judge.sent(model, EVERYTHING))
    assert operation.name == "Put"
    assert decoded == {
        xform_name(key): botocore_judge.inside(value) for key, value in EVERYTHING.items()
    }


def test_members_of_every_kind_are_written_to_where_they_belong(small: Service) -> None:
    model = ServiceModel(SMALL, "small").operation_model("Put")
    result = {key: value for key, value in EVERYTHING.items() if key.startswith(("B", "H", "P"))}
    status, headers, body = restjson.encode_response(small.operation("Put"), result)
    assert headers["x-time"] == "Fri, 02 Jan 2026 03:04:05 GMT"
    parsed = botocore_judge.parsed(model, status, headers, body)
    parsed.pop("ResponseMetadata")
    parsed["HeaderFlag"] = {"false": False}[headers["x-flag"]]
    assert parsed == result


@pytest.mark.parametrize(("name", "value"), [("Blob", b"\x00\xff"), ("Text", "é")])
def test_a_payload_is_the_whole_body(small: Service, name: str, value: Any) -> None:
    model = ServiceModel(SMALL, "small").operation_model(name)
    operation, decoded = botocore_judge.received(small, botocore_judge.sent(model, {"Body": value}))
    assert decoded == {"body": value}
    status, headers, body = restjson.encode_response(operation, {"Body": value})
    assert status == operation.response_code
    assert headers["content-type"] == "application/octet-stream"
    assert body == (value if isinstance(value, bytes) else value.encode())
    assert restjson.encode_response(operation, {})[2] == b""
    assert restjson.decode_request(operation, {}, (), {}, b"") == {}


def test_a_text_payload_must_be_utf8(small: Service) -> None:
    with pytest.raises(SerializationException, match="Body: the body is not utf-8"):
        restjson.decode_request(small.operation("Text"), {}, (), {}, b"\xff")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"thingNam": "a"}, "CreateThingResponse has no member thingNam"),
        ({"thingName": 7}, "CreateThing.thingName: int is not a string"),
    ],
)
def test_a_result_the_model_does_not_know_is_our_defect(
    iot: Service, result: dict[str, Any], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        restjson.encode_response(iot.operation("CreateThing"), result)


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        ("DeletePolicy", {"a": 1}),  # it has no output
        ("DescribeThing", {"version": "7"}),
        ("DescribeThing", {"version": True}),
        ("DescribeThing", {"attributes": []}),
        ("DescribeThing", {"attributes": {"a": 1}}),
        ("ListThings", {"things": {}}),
        ("ListThings", {"things": [{"thing": "a"}]}),
        ("ListThings", {"things": [None]}),
        ("DescribeCertificate", {"certificateDescription": {"creationDate": datetime(2026, 1, 1)}}),
    ],
)
def test_a_result_of_another_type_is_our_defect(
    iot: Service, operation: str, result: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError)):
        restjson.encode_response(iot.operation(operation), result)


def test_a_header_carries_no_line_break(small: Service) -> None:
    with pytest.raises(ValueError, match="control characters"):
        restjson.encode_response(small.operation("Put"), {"Prefixed": {"a": "x\r\nb: c"}})
    with pytest.raises(ValueError, match="control characters"):
        restjson.encode_response(small.operation("Blob"), {"Topic": "a\nb"})


def test_members_that_are_none_are_left_out(iot: Service) -> None:
    result = {"things": [{"thingName": "a", "thingTypeName": None}], "nextToken": None}
    status, headers, body = restjson.encode_response(iot.operation("ListThings"), result)
    assert (status, headers) == (200, {"content-type": "application/json"})
    assert body == b'{"things":[{"thingName":"a"}]}'


def test_a_timestamp_leaves_in_seconds_with_milliseconds(iot: Service) -> None:
    operation = iot.operation("DescribeProvisioningTemplate")
    body = restjson.encode_response(operation, {"creationDate": 1767323045.67849})[2]
    assert body == b'{"creationDate":1767323045.678}'
    body = restjson.encode_response(operation, {"creationDate": 1767323045})[2]
    assert body == b'{"creationDate":1767323045.0}'


def test_an_operation_without_output_answers_nothing(iot: Service) -> None:
    assert restjson.encode_response(iot.operation("DeletePolicy"), {}) == (200, {}, b"")


# --- what is not read -------------------------------------------------------------------------


def test_a_header_must_be_utf8(iot: Service) -> None:
    operation = iot.operation("AttachThingPrincipal")
    headers = {"x-amzn-principal": b"\xff".decode("utf-8", "surrogateescape")}
    with pytest.raises(SerializationException, match="x-amzn-principal is not utf-8"):
        restjson.decode_request(operation, {"thingName": "t"}, (), headers, b"")


def test_what_the_model_does_not_know_and_null_are_ignored(iot: Service) -> None:
    body = b'{"thingTypeName":null,"other":[1],"attributePayload":{"x":1,"merge":null}}'
    decoded = restjson.decode_request(
        iot.operation("CreateThing"), {"thingName": "a"}, [("x", "1")], {"y": "2"}, body
    )
    assert decoded == {"thing_name": "a", "attribute_payload": {}}


def test_a_body_nobody_asked_for_is_not_read(iot: Service) -> None:
    for body in (b"", b"{}", b"garbage\xff"):
        decoded = restjson.decode_request(
            iot.operation("DescribeThing"), {"thingName": "a"}, (), {}, body
        )
        assert decoded == {"thing_name": "a"}


# --- the query ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        ("", []),
        ("a=1&b=%2F+%20&a=2", [("a", "1"), ("b", "/  "), ("a", "2")]),
        ("a&b=&=c", [("a", ""), ("b", ""), ("", "c")]),
        ("a=b=c&%C3%A9=%E2%98%83", [("a", "b=c"), ("é", "☃")]),
    ],
)
def test_a_query_is_its_fields_in_order(raw: str, fields: list[tuple[str, str]]) -> None:
    assert restjson.parse_query(raw) == fields


@pytest.mark.parametrize("raw", ["a=%ff", "%ff=a", "&".join(["a=1"] * 129)])
def test_a_wrong_query_is_refused(raw: str) -> None:
    with pytest.raises(SerializationException, match="the query "):
        restjson.parse_query(raw)


# --- documents of the MQTT operations -----------------------------------------------------------


def test_a_document_is_decoded_as_a_request_is(provisioning: Service) -> None:
    topic = "$aws/provisioning-templates/T/provision/cbor"
    found = provisioning.route("PUBLISH", topic)
    assert found
    document = {
        "certificateOwnershipToken": "t",
        "parameters": {"SerialNumber": "1"},
        "templateName": "other",  # old clients repeat it; the topic decides
        "unknown": 7,
    }
    assert restjson.decode_document(*found, document) == {
        "payload_format": "cbor",
        "template_name": "T",
        "certificate_ownership_token": "t",
        "parameters": {"SerialNumber": "1"},
    }
    assert restjson.decode_document(*found, None) == {
        "payload_format": "cbor",
        "template_name": "T",
    }


@pytest.mark.parametrize("document", [None, {}, [], 7, "x", b"", {1: 2}, {"certificateId": 7}])
def test_create_keys_accepts_any_document(provisioning: Service, document: Any) -> None:
    operation = provisioning.operation("CreateKeysAndCertificate")
    decoded = restjson.decode_document(operation, {"payloadFormat": "json"}, document)
    assert decoded == {"payload_format": "json"}


@pytest.mark.parametrize(
    "document",
    [
        [],
        "x",
        {"parameters": []},
        {"parameters": {"a": 1}},
        {"parameters": {1: "a"}},
        {"parameters": {b"a": "a"}},
        {"parameters": {"a": b"b"}},
        {"certificateOwnershipToken": b"t"},
    ],
)
def test_a_document_of_other_types_is_refused(provisioning: Service, document: Any) -> None:
    with pytest.raises(SerializationException):
        restjson.decode_document(provisioning.operation("RegisterThing"), {}, document)


# --- any bytes ----------------------------------------------------------------------------------


def _operations(service: Service) -> Iterator[Operation]:
    for name in ("CreateThing", "CreateTopicRule", "SearchIndex", "CreateStream", "ListAuditTasks"):
        yield service.operation(name)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["files", "sql", "actions", "thingTypeName", "maxResults", "tags"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(
    body=st.binary(max_size=60) | _JSON.map(msgspec.json.encode),
    query=st.lists(
        st.tuples(st.sampled_from(["startTime", "endTime", "maxResults", "x"]), st.text()),
        max_size=3,
    ),
    header=st.text(alphabet=st.characters()),
    label=st.text(),
)
def test_any_bytes_are_decoded_or_refused(
    iot: Service, body: bytes, query: list[tuple[str, str]], header: str, label: str
) -> None:
    uri = dict.fromkeys(("thingName", "ruleName", "streamId"), label)
    for operation in _operations(iot):
        try:
            decoded = restjson.decode_request(
                operation, uri, query, {"x-amz-tagging": header, "x-amzn-principal": header}, body
            )
        except ServiceError:
            continue
        assert isinstance(decoded, dict)


# --- large documents ------------------------------------------------------------------------------


def _large(**members: Any) -> bytes:
    return msgspec.json.encode({"FunctionName": "f", "padding": "x" * restjson.LARGE, **members})


def test_a_large_document_is_decoded_as_a_small_one(functions: Service) -> None:
    operation = functions.operation("CreateFunction")
    members = {
        "Role": "r",
        "Code": {"ZipFile": "AAEC", "S3Key": None},
        "Timeout": 5,
        "Environment": {"Variables": {"A": "{[b"}},
        "Layers": ["l"],
        "Description": None,
    }
    small = msgspec.json.encode({"FunctionName": "f", **members})
    expected = restjson.decode_request(operation, {}, (), {}, small)
    assert expected["code"] == {"ZipFile": b"\x00\x01\x02"}
    assert restjson.decode_request(operation, {}, (), {}, _large(**members)) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (_large(Code="x"), "Code: STRING_VALUE can not be converted to a structure"),
        (_large(Code={"ZipFile": "A"}), "the body is not a JSON document"),
        (_large(Code={"ZipFile": 1}), "Code.ZipFile: NUMBER_VALUE can not be converted to a blob"),
        (_large(Timeout="x"), "Timeout: STRING_VALUE can not be converted to an integer"),
        (_large()[:-1], "the body is not a JSON document"),
        (b"[" + _large() + b"]", "the body is START_ARRAY, not a structure"),
        (_large(Description="zz").replace(b"zz", b"\xff"), "the body is not a JSON document"),
        (_large(Layers=[[[]]]).replace(b"[[[]]]", b"[" * 99 + b"]" * 99), "nested more than 64"),
    ],
)
def test_a_large_document_is_refused_as_a_small_one(
    functions: Service, body: bytes, message: str
) -> None:
    operation = functions.operation("CreateFunction")
    with pytest.raises(SerializationException) as refused:
        restjson.decode_request(operation, {}, (), {}, body)
    assert message in refused.value.message


def test_errors_of_lambda_have_its_members(functions: Service) -> None:
    assert functions.message_member("ResourceNotFoundException") == "Message"
    assert functions.message_member("InvalidParameterValueException") == "message"
    assert functions.message_member("AccessDeniedException") == "message"
    error = ThrottlingException("slow", Reason="r")
    _, _, body = restjson.encode_error(error, "id", "Message", {"Type": "User"})
    assert msgspec.json.decode(body) == {"Message": "slow", "Type": "User", "Reason": "r"}


def test_an_answer_without_content_has_none(functions: Service) -> None:
    operation = functions.operation("DeleteFunction")
    assert restjson.encode_response(operation, {"StatusCode": 204}) == (204, {}, b"")
