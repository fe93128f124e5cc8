"""wire.query with botocore as the judge: the forms it writes are read, and what is written its
parser reads; forms that are none are refused, never a defect."""

import contextlib
import gzip
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import botocore
import msgspec
import pytest
from botocore import xform_name
from botocore.model import ServiceModel
from botocore.parsers import QueryParser, create_parser
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import (
    AccessDeniedException,
    InvalidAction,
    MalformedQueryString,
    MissingAction,
    NoSuchEntity,
    NotImplementedException,
    ServiceError,
    ServiceUnavailableException,
    UnrecognizedClientException,
    ValidationError,
)
from fleetgate.operations.dispatch import SERVED
from fleetgate.wire import query
from fleetgate.wire.model import Service

VERSIONS = {"iam": "2010-05-08", "sts": "2011-06-15"}
EVERY = [(service, name) for service in VERSIONS for name in sorted(SERVED[service])]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@cache
def document(service: str) -> Any:
    file = Path(botocore.__file__).parent / f"data/{service}/{VERSIONS[service]}/service-2.json.gz"
    return msgspec.json.decode(gzip.decompress(file.read_bytes()))


@cache
def ours(service: str) -> Service:
    return Service.from_json(document(service), service)


@cache
def judge(service: str) -> Any:
    return ServiceModel(document(service), service)


SMALL: dict[str, Any] = {
    "metadata": {
        "protocol": "query",
        "apiVersion": "1",
        "xmlNamespace": "urn:x",
        "endpointPrefix": "x",
    },
    "operations": {
        "Put": {
            "name": "Put",
            "http": {"method": "POST", "requestUri": "/"},
            "input": {"shape": "All"},
            "output": {"shape": "All", "resultWrapper": "PutResult"},
        }
    },
    "shapes": {
        "All": {
            "type": "structure",
            "members": {
                "Text": {"shape": "String", "locationName": "text"},
                "Blob": {"shape": "Blob"},
                "Real": {"shape": "Double"},
                "Flag": {"shape": "Boolean"},
                "Time": {"shape": "Time"},
                "Epoch": {"shape": "Time", "timestampFormat": "unixTimestamp"},
                "Flat": {"shape": "FlatList"},
                "FlatNamed": {"shape": "FlatNamedList"},
                "Named": {"shape": "NamedList"},
                "Map": {"shape": "Map"},
                "FlatMap": {"shape": "FlatMap"},
                "Inner": {"shape": "Inner"},
            },
        },
        "Inner": {"type": "structure", "members": {"Flat": {"shape": "FlatList"}}},
        "String": {"type": "string"},
        "Blob": {"type": "blob"},
        "Double": {"type": "double"},
        "Boolean": {"type": "boolean"},
        "Time": {"type": "timestamp"},
        "FlatList": {"type": "list", "member": {"shape": "String"}, "flattened": True},
        "FlatNamedList": {
            "type": "list",
            "member": {"shape": "String", "locationName": "item"},
            "flattened": True,
        },
        "NamedList": {"type": "list", "member": {"shape": "String", "locationName": "item"}},
        "Map": {
            "type": "map",
            "key": {"shape": "String", "locationName": "Name"},
            "value": {"shape": "String", "locationName": "Content"},
        },
        "FlatMap": {
            "type": "map",
            "key": {"shape": "String"},
            "value": {"shape": "Inner"},
            "flattened": True,
        },
    },
}
EVERYTHING: dict[str, Any] = {
    "Text": "a&b=c <é>\r\n ",
    "Blob": b"\x00\xff",
    "Real": 0.5,
    "Flag": False,
    "Time": MOMENT,
    "Epoch": MOMENT,
    "Flat": ["a", "", "b"],
    "FlatNamed": ["c", "d"],
    "Named": ["e"],
    "Map": {"k": "v", "l": ""},
    "FlatMap": {"k": {"Flat": ["f"]}},
    "Inner": {"Flat": ["g", "h"]},
}


# --- values of botocore's shapes ------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)


def values(shape: Any) -> st.SearchStrategy[Any]:
    """Anything the model's types allow; a form can not tell an empty structure or map."""
    match shape.type_name:
        case "structure":
            optional = {
                name: values(member)
                for name, member in shape.members.items()
                if name not in shape.required_members
            }
            required = {name: values(shape.members[name]) for name in shape.required_members}
            return st.fixed_dictionaries(required, optional=optional)
        case "list":
            return st.lists(values(shape.member).filter(lambda each: each != {}), max_size=3)
        case "map":
            return st.dictionaries(TEXT, values(shape.value), min_size=1, max_size=3)
        case "timestamp":
            return st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(
                lambda at: at.replace(microsecond=0, tzinfo=UTC)
            )
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(-(2**31), 2**31 - 1)
        case "blob":
            return st.binary(max_size=9)
    return TEXT


def inside(value: Any) -> Any:
    """A parameter as it is inside the server."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, dict):
        return {name: inside(entry) for name, entry in value.items()}
    return [inside(entry) for entry in value] if isinstance(value, list) else value


def told(value: Any) -> Any:
    """What a form can tell of a value: an empty structure leaves no trace."""
    if isinstance(value, dict):
        return {name: told(entry) for name, entry in value.items() if told(entry) != {}}
    return [told(entry) for entry in value] if isinstance(value, list) else value


def form(model: Any, params: dict[str, Any]) -> bytes:
    serializer = create_serializer("query", include_validation=False)
    sent = serializer.serialize_to_request(params, model)["body"]
    return urlencode(sent).encode()


def parsed(model: Any, status: int, headers: dict[str, str], body: bytes) -> Any:
    response = {"status_code": status, "headers": headers, "body": body}
    return create_parser("query").parse(response, model.output_shape)


@given(st.sampled_from(EVERY), st.data())
def test_every_form_botocore_writes_is_read(which: tuple[str, str], data: st.DataObject) -> None:
    service, name = which
    model = judge(service).operation_model(name)
    shape = model.input_shape
    params = data.draw(values(shape)) if shape is not None else {}
    operation, decoded = query.decode_request(ours(service), form(model, params))
    assert operation.name == name
    assert decoded == {xform_name(key): inside(value) for key, value in told(params).items()}


@given(st.sampled_from(EVERY), st.booleans(), st.data())
def test_every_answer_written_is_what_botocore_reads(
    which: tuple[str, str], as_number: bool, data: st.DataObject
) -> None:
    service, name = which
    model = judge(service).operation_model(name)
    shape = model.output_shape
    result = data.draw(values(shape)) if shape is not None else {}
    answer = query.encode_response(
        ours(service).operation(name), inside(result) if as_number else result, "r-1"
    )
    assert answer[:2] == (200, {"content-type": "text/xml", "x-amzn-requestid": "r-1"})
    found = parsed(model, *answer)
    assert found.pop("ResponseMetadata")["RequestId"] == "r-1"
    assert found == result


def test_every_operation_can_be_read_from_the_models() -> None:
    for service in VERSIONS:
        for name in ours(service).names:
            operation = ours(service).operation(name)
            if operation.output is not None:
                assert operation.result_wrapper == f"{name}Result"
                assert operation.xml_namespace.startswith("https://")


def test_members_of_every_kind_are_read() -> None:
    model = ServiceModel(SMALL, "small").operation_model("Put")
    _, decoded = query.decode_request(Service.from_json(SMALL, "small"), form(model, EVERYTHING))
    assert decoded == {xform_name(key): inside(value) for key, value in EVERYTHING.items()}


def test_members_of_every_kind_are_written() -> None:
    model = ServiceModel(SMALL, "small").operation_model("Put")
    operation = Service.from_json(SMALL, "small").operation("Put")
    found = parsed(model, *query.encode_response(operation, EVERYTHING, "r-1"))
    found.pop("ResponseMetadata")
    assert found == EVERYTHING


def test_empty_lists_are_told_from_absent_ones() -> None:
    """Smithy specification, "AWS query protocol": an empty list is a field without a value."""
    service = ours("iam")
    body = b"Action=UntagUser&Version=2010-05-08&UserName=u&TagKeys="
    assert query.decode_request(service, body)[1] == {"user_name": "u", "tag_keys": []}


def test_entries_are_ordered_by_number() -> None:
    body = "&".join(f"TagKeys.member.{at}=k{at}" for at in (10, 2, 1))
    body = f"Action=UntagUser&Version=2010-05-08&UserName=u&{body}"
    params = query.decode_request(ours("iam"), body.encode())[1]
    assert params["tag_keys"] == ["k1", "k2", "k10"]


def test_what_the_model_does_not_know_is_left_behind() -> None:
    body = b"Action=GetUser&Version=2010-05-08&UserName=u&Colour=red&X-Amz-Date=now"
    assert query.decode_request(ours("iam"), body)[1] == {"user_name": "u"}


USER = "Action=CreateUser&Version=2010-05-08&UserName=u"


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("", MissingAction, "no Action"),
        ("Version=2010-05-08", MissingAction, "no Action"),
        ("Action=&Version=2010-05-08", MissingAction, "no Action"),
        ("Action=GetUser", InvalidAction, "`GetUser` for version `NO_VERSION_SPECIFIED`"),
        ("Action=GetUser&Version=1", InvalidAction, "`GetUser` for version `1`"),
        ("Action=Nothing&Version=2010-05-08", InvalidAction, "find operation `Nothing`"),
        (f"{USER}&UserName=v", MalformedQueryString, "`UserName` is given twice"),
        (f"{USER}&UserName=%FF", MalformedQueryString, "not percent-encoded utf-8"),
        (f"{USER}&{'a=1&' * 1100}", MalformedQueryString, "more than 1024 fields"),
        (f"{USER}&{'.'.join('a' * 17)}=1", MalformedQueryString, "more than 16 parts"),
        (f"{USER}&UserName.member.1=x", ValidationError, "UserName: a string has nothing below"),
        (f"{USER}&Tags.member.one.Key=x", ValidationError, "Tags: `one` is not the number"),
        (f"{USER}&Tags.member.01.Key=x", ValidationError, "Tags: `01` is not the number"),
        (f"{USER}&Tags.member.0.Key=x", ValidationError, "Tags: `0` is not the number"),
        (f"{USER}&Tags=x", ValidationError, "Tags: `x` can not be converted to a list"),
        (f"{USER}&Tags.member.1.Key.a=x", ValidationError, "Tags.1.Key: a string has nothing"),
        ("Action=ListUsers&Version=2010-05-08&MaxItems=ten", ValidationError, "MaxItems: `ten`"),
        ("Action=ListUsers&Version=2010-05-08&MaxItems=", ValidationError, "MaxItems: ``"),
    ],
)
def test_a_form_that_is_wrong_is_refused_with_what_is_wrong(
    body: str, error: type[ServiceError], message: str
) -> None:
    """IAM API Reference, "Common Errors"."""
    with pytest.raises(error, match=message):
        query.decode_request(ours("iam"), body.encode())


def test_another_media_type_is_refused() -> None:
    with pytest.raises(MalformedQueryString, match="`application/json`"):
        query.decode_request(ours("iam"), USER.encode(), "application/json")
    assert query.decode_request(ours("iam"), USER.encode(), f"{query.FORM}; charset=utf-8")


NAMES = st.sampled_from(
    ["UserName", "Tags", "Tags.member.1", "Tags.member.1.Key", "Tags.1", "Tags.entry.1.key", "."]
)


@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(st.tuples(NAMES | st.text(max_size=9), st.text(max_size=9)), max_size=6).map(
            lambda fields: f"{USER}&{urlencode(fields, errors='replace')}".encode()
        ),
    )
)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ServiceError):
        query.decode_request(ours("iam"), body)


# --- errors ---------------------------------------------------------------------------------------

NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"


@given(st.text(max_size=60))
def test_botocore_reads_code_and_message(message: str) -> None:
    status, headers, body = query.encode_error(
        NotImplementedException(f"a<b>&{message}"), "r-1", NAMESPACE
    )
    found = QueryParser().parse({"status_code": status, "headers": headers, "body": body}, None)
    assert found["Error"]["Code"] == "NotImplementedException"
    assert found["Error"]["Message"].startswith("a<b>&")
    assert found["ResponseMetadata"]["RequestId"] == "r-1"


@pytest.mark.parametrize(
    ("error", "status", "code", "side"),
    [
        (NoSuchEntity, 404, "NoSuchEntity", "Sender"),
        (AccessDeniedException, 403, "AccessDenied", "Sender"),
        (UnrecognizedClientException, 403, "InvalidClientTokenId", "Sender"),
        (ServiceUnavailableException, 503, "ServiceUnavailable", "Receiver"),
    ],
)
def test_errors_have_the_codes_of_this_protocol(
    error: type[ServiceError], status: int, code: str, side: str
) -> None:
    """IAM API Reference, "Common Errors"."""
    found, _, body = query.encode_error(error("x"), "r-1", NAMESPACE)
    assert found == status
    assert f"<Type>{side}</Type><Code>{code}</Code>".encode() in body
    assert body.startswith(f'<ErrorResponse xmlns="{NAMESPACE}"><Error>'.encode())


def test_control_characters_and_line_ends_survive_or_are_replaced() -> None:
    """XML 1.0 sections 2.2 and 2.11."""
    body = query.encode_error(NoSuchEntity("a\x00\x1f\ufffe\tb\r\nc"), "r-1", "")[2].decode()
    assert "<Message>a\ufffd\ufffd\ufffd\tb&#13;\nc</Message>" in body


@pytest.mark.parametrize(
    "result",
    [{"User": {"Colour": "red"}}, {"User": {"UserName": 1}}, {"User": {"Tags": "x"}}, {"x": 1}],
)
def test_a_result_the_model_does_not_know_is_a_defect(result: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        query.encode_response(ours("iam").operation("GetUser"), result, "r-1")


def test_a_result_without_an_output_is_a_defect() -> None:
    with pytest.raises(ValueError, match="DeleteUser has no output"):
        query.encode_response(ours("iam").operation("DeleteUser"), {"a": 1}, "r-1")


def test_what_is_not_utf8_becomes_question_marks() -> None:
    error = NotImplementedException(b"a\xffb".decode(errors="surrogateescape"))
    assert b"<Message>a?b</Message>" in query.encode_error(error, "r-1", "")[2]


CREDENTIAL = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/{}/aws4_request, "


@pytest.mark.parametrize(
    ("path", "fields", "content_type", "authorization", "spoken"),
    [
        ("/", "", f"{query.FORM}; charset=utf-8", CREDENTIAL.format("sts"), True),
        ("/", "", query.FORM, "", True),
        ("/", "", query.FORM, CREDENTIAL.format("iot"), False),
        ("/", "X-Amz-Credential=k%2F20260102%2Fr%2Fiot%2Faws4_request", query.FORM, "", False),
        ("/", "X-Amz-Credential=k%2F20260102%2Fr%2Fsts%2Faws4_request", query.FORM, "", True),
        ("/things/a", "", query.FORM, "", False),
        ("/", "", "application/json", CREDENTIAL.format("sts"), False),
    ],
)
def test_a_request_of_the_protocol_is_a_form_for_another_service(
    path: str, fields: str, content_type: str, authorization: str, spoken: bool
) -> None:
    """Smithy specification, "AWS query protocol": POST of a form to ``/``."""
    assert query.is_spoken(path, fields, content_type, authorization, ["iot"]) is spoken
