"""wire.sigv4 against the test suite AWS has published (aws-sig-v4-test-suite)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import InvalidSignatureException
from tests.wire.signed_request import Request

# Rows: the test's name, method, path, query, headers after host and x-amz-date, body, signature.

VECTORS: list[tuple[str, str, str, str, list[tuple[str, str]], str, str]] = [
    (
        "get-vanilla",
        "GET",
        "/",
        "",
        [],
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-vanilla-query-order-key-case",
        "GET",
        "/",
        "Param2=value2&Param1=value1",
        [],
        "",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-vanilla-empty-query-key",
        "GET",
        "/",
        "Param1=value1",
        [],
        "",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    (
        "get-relative",
        "GET",
        "/example/..",
        "",
        [],
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-slash",
        "GET",
        "//",
        "",
        [],
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-space",
        "GET",
        "/example space/",
        "",
        [],
        "",
        "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
    ),
    (
        "get-utf8",
        "GET",
        "/ሴ",
        "",
        [],
        "",
        "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    ),
    (
        "get-vanilla-utf8-query",
        "GET",
        "/",
        "ሴ=bar",
        [],
        "",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    (
        "get-header-key-duplicate",
        "GET",
        "/",
        "",
        [("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")],
        "",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    (
        "get-header-value-order",
        "GET",
        "/",
        "",
        [
            ("My-Header1", "value4"),
            ("My-Header1", "value1"),
            ("My-Header1", "value3"),
            ("My-Header1", "value2"),
        ],
        "",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    ),
    (
        "get-header-value-trim",
        "GET",
        "/",
        "",
        [("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')],
        "",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "post-vanilla",
        "POST",
        "/",
        "",
        [],
        "",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    (
        "post-x-www-form-urlencoded",
        "POST",
        "/",
        "",
        [("Content-Type", "application/x-www-form-urlencoded")],
        "Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
]


VECTOR_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()


def _vector_request(
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: bytes,
    signature: str,
) -> Request:
    headers = [("Host", "example.amazonaws.com"), *headers, ("X-Amz-Date", "20150830T123600Z")]
    names = ";".join(sorted({name.lower() for name, _ in headers}))
    authorization = (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    sent = (*headers, ("Authorization", authorization))
    return Request(method, path, query, sent, body)


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [vector[1:] for vector in VECTORS],
    ids=[vector[0] for vector in VECTORS],
)
def test_the_published_vectors_are_accepted(
    method: str,
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    body: str,
    signature: str,
) -> None:
    request = _vector_request(method, path, query, headers, body.encode(), signature)
    request.verify(now=VECTOR_TIME, service="service")


@given(at=st.integers(0, 63), digit=st.sampled_from("0123456789abcdef"))
def test_no_other_signature_will_do(at: int, digit: str) -> None:
    vanilla = VECTORS[0][6]
    changed = vanilla[:at] + digit + vanilla[at + 1 :]
    request = _vector_request("GET", "/", "", [], b"", changed)
    if changed == vanilla:
        request.verify(now=VECTOR_TIME, service="service")
    else:
        with pytest.raises(InvalidSignatureException, match="does not match"):
            request.verify(now=VECTOR_TIME, service="service")
