"""Errors of the Query protocol, as botocore reads them."""

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
