"""Errors of the Query protocol, as botocore reads them."""

import pytest
from botocore.parsers import QueryParser
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import NotImplementedException
from fleetgate.wire import query


@given(st.text(max_size=60))
def test_botocore_reads_code_and_message(message: str) -> None:
    status, headers, body = query.encode_error(NotImplementedException(f"a<b>&{message}"), "r-1")
    parsed = QueryParser().parse({"status_code": status, "headers": headers, "body": body}, None)
    assert parsed["Error"]["Code"] == "NotImplementedException"
    assert parsed["Error"]["Message"].startswith("a<b>&")
    assert parsed["ResponseMetadata"]["RequestId"] == "r-1"


def test_what_is_not_utf8_becomes_question_marks() -> None:
    error = NotImplementedException(b"a\xffb".decode(errors="surrogateescape"))
    assert b"<Message>a?b</Message>" in query.encode_error(error, "r-1")[2]


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
