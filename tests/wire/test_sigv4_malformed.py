"""wire.sigv4: what is incomplete, malformed or contradicts itself is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import (
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    SerializationException,
)
from tests.wire.signed_request import Request, Signer


def test_an_unsigned_request_misses_its_token() -> None:
    with pytest.raises(MissingAuthenticationTokenException, match="Missing Authentication Token"):
        Request("GET", "/things", "a=1", (("host", "h"),)).verify()


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        ("", "Unsupported AWS 'algorithm'"),
        ("Basic YTpi", "Unsupported AWS 'algorithm': 'Basic'"),
        ("AWS4-HMAC-SHA256", "'' not a valid key=value pair"),
        ("AWS4-HMAC-SHA256 x", "'x' not a valid key=value pair"),
        ("AWS4-HMAC-SHA256 Signature=a,Signature=b", "'Signature=b' not a valid"),
        ("AWS4-HMAC-SHA256 Signature=a", "requires 'Credential' parameter"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c,SignedHeaders=host,Signature=a", "exactly 5 slash-"),
        ("AWS4-HMAC-SHA256 Credential=/b/c/d/e,SignedHeaders=host,Signature=a", "exactly 5 slash-"),
        ("AWS4-HMAC-SHA256 Credential=é/b/c/d/e,SignedHeaders=host,Signature=a", "exactly 5 sl"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e,SignedHeaders=host,Signature=é", "64 lower-case"),
    ],
)
def test_a_malformed_authorization_is_incomplete(authorization: str, message: str) -> None:
    headers = (("host", "h"), ("x-amz-date", "20260102T030405Z"), ("authorization", authorization))
    with pytest.raises(IncompleteSignatureException, match=message):
        Request("GET", "/", "", headers).parse()


@pytest.mark.parametrize("date", ["", "2026-01-02T03:04:05Z", "20260231T000000Z", "yesterday"])
def test_a_malformed_date_is_incomplete(sign: Signer, date: str) -> None:
    with pytest.raises(IncompleteSignatureException, match="'basic format'"):
        sign().header("X-Amz-Date", date).parse()
    with pytest.raises(IncompleteSignatureException, match="'basic format'"):
        sign().header("X-Amz-Date", None).header("Date", date).parse()


def test_a_missing_date_is_incomplete(sign: Signer) -> None:
    with pytest.raises(IncompleteSignatureException, match="'X-Amz-Date' or a 'Date'"):
        sign().header("X-Amz-Date", None).parse()


@pytest.mark.parametrize(
    "signed_headers",
    ["host;host", "x-amz-date;host", "Host;x-amz-date", "host;x-amz-date;", ""],
)
def test_signed_headers_are_sorted_and_unique(sign: Signer, signed_headers: str) -> None:
    request = sign()
    said = request.value("Authorization").replace("host;x-amz-date", signed_headers)
    with pytest.raises(IncompleteSignatureException, match="SignedHeaders"):
        request.header("Authorization", said).parse()


@pytest.mark.parametrize("signed_headers", ["host", "x-amz-date", "host;x-amz-date;x-not-there"])
def test_too_few_signed_headers_are_refused(sign: Signer, signed_headers: str) -> None:
    request = sign()
    said = request.value("Authorization").replace("host;x-amz-date", signed_headers)
    with pytest.raises(InvalidSignatureException, match=r"'SignedHeader'|is not there"):
        request.header("Authorization", said).parse()


@pytest.mark.parametrize("name", ["Authorization", "X-Amz-Date", "X-Amz-Content-SHA256"])
def test_a_header_about_the_signature_is_there_once(sign: Signer, name: str) -> None:
    request = sign(headers={"X-Amz-Content-SHA256": hashlib.sha256(b"").hexdigest()})
    twice = replace(request, headers=(*request.headers, (name, request.value(name))))
    with pytest.raises(IncompleteSignatureException, match=f"{name.lower()} is there more than"):
        twice.parse()


def test_a_request_is_signed_once(sign: Signer) -> None:
    presigned = sign(presigned=60)
    with pytest.raises(IncompleteSignatureException, match="signed twice"):
        presigned.header("Authorization", sign().value("Authorization")).parse()


@pytest.mark.parametrize(
    "name",
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"],
)
def test_a_presigned_request_says_everything_once(sign: Signer, name: str) -> None:
    request = sign(presigned=60)
    fields = request.query.split("&")
    without = "&".join(field for field in fields if not field.startswith(f"{name}="))
    with pytest.raises(IncompleteSignatureException, match=f"must include '{name}'"):
        replace(request, query=without).parse()
    with pytest.raises(IncompleteSignatureException, match=f"{name} is in the query more than"):
        replace(request, query=f"{request.query}&{name}=x").parse()


def test_a_presigned_request_names_the_algorithm(sign: Signer) -> None:
    request = sign(presigned=60)
    with pytest.raises(IncompleteSignatureException, match="Unsupported AWS 'algorithm'"):
        replace(request, query=request.query.replace("SHA256", "SHA1", 1)).parse()


TEXT = st.text(max_size=30) | st.binary(max_size=20).map(
    lambda raw: raw.decode(errors="surrogateescape")
)
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential={}/{}/{}/iot/aws4_request,SignedHeaders={},Signature={}"
)
REFUSALS = (InvalidSignatureException, IncompleteSignatureException, SerializationException)


@given(
    path=TEXT,
    query=st.text(max_size=40),
    authorization=TEXT
    | st.builds(
        AUTHORIZATION.format,
        TEXT,
        TEXT | st.just("20260102"),
        TEXT | st.just("us-east-1"),
        TEXT | st.sampled_from(["host", "host;x-amz-date", "host;x-amz-date;x-other"]),
        TEXT | st.just("0" * 64),
    ),
    other=TEXT,
)
def test_any_request_nobody_signed_is_refused(
    path: str, query: str, authorization: str, other: str
) -> None:
    headers = (
        ("host", "h"),
        ("x-amz-date", "20260102T030405Z"),
        ("x-other", other),
        ("authorization", authorization),
    )
    with pytest.raises(REFUSALS):
        Request("GET", path, query, headers).verify()
