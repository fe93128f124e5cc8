"""wire.sigv4: botocore signs, we verify; and every tampering is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from fleetgate.errors import (
    IncompleteSignatureException,
    InvalidSignatureException,
    UnrecognizedClientException,
)
from fleetgate.wire import sigv4
from tests.wire.signed_request import KEY, NOW, SECRET, Request, Signer

PATHS = [
    "/",
    "/things",
    "/things/a%20b",
    "/things/a%2Fb%252F",
    "/things/%C3%BC%E2%98%83",
    "/things/arn%3Aaws%3Aiot",
    "/things/a:b@c,d=e",
    "/things/a~b-c_d.e",
    "/certificate-providers/",
    "/destinations/a/b//c",
    "/a/./b/../c",
    "/things?a=",
    "/things?b=2&a=1&a=0&A=3&c",
    "/things?x=%20%2B%2F%3D%26&%C3%BC=%E2%98%83",
    "/things?a-b=1&a.b=2&a_b=3&a~b=4&aB=5",
]


@pytest.mark.parametrize("token", [None, "FwoGZXIvYXdzE+/=="], ids=["key", "token"])
@pytest.mark.parametrize("url", PATHS)
def test_what_botocore_signs_in_the_header_is_accepted(
    sign: Signer, url: str, token: str | None
) -> None:
    headers = {
        "Content-Type": "application/json",
        "x-amzn-principal": "arn:aws:iot:us-east-1:000000000000:cert/a",
        "X-Padded": "  a   b  ",
        "User-Agent": "unsigned",
        "X-Amzn-Trace-Id": "unsigned",
    }
    signed = sign("POST", url, headers, b'{"a":1}', token=token).verify()
    assert (signed.access_key, signed.security_token) == (KEY, token)
    assert signed.expires is None
    assert sign("GET", url).verify().access_key == KEY


@pytest.mark.parametrize("token", [None, "FwoGZXIvYXdzE+/=="], ids=["key", "token"])
@pytest.mark.parametrize("url", [url for url in PATHS if "a=1&a=0" not in url])
def test_what_botocore_presigns_is_accepted(sign: Signer, url: str, token: str | None) -> None:
    signed = sign("GET", url, presigned=60, token=token).verify()
    assert (signed.access_key, signed.security_token, signed.expires) == (KEY, token, 60)


def test_a_date_header_is_as_good(sign: Signer) -> None:
    request = sign(headers={"Date": "to be replaced"})
    assert request.value("Date") == formatdate(NOW.timestamp())
    assert request.verify().timestamp == "20260102T030405Z"


def test_header_names_are_of_any_case(sign: Signer) -> None:
    request = sign()
    upper = tuple((name.upper(), value) for name, value in request.headers)
    replace(request, headers=upper).verify()


# --- tampering --------------------------------------------------------------------------------

HEADERS = {"x-amzn-principal": "arn:a", "x-other": "a b"}


TAMPERINGS: dict[str, Callable[[Request], Request]] = {
    "method": lambda request: replace(request, method="PUT"),
    "path": lambda request: replace(request, path="/things/b"),
    "encoded slash": lambda request: replace(request, path="/things/a%2f"),
    "trailing slash": lambda request: replace(request, path="/things/a/"),
    "query value": lambda request: replace(request, query="a=1&b=3"),
    "query field left out": lambda request: replace(request, query="a=1"),
    "query left out": lambda request: replace(request, query=""),
    "query field added": lambda request: replace(request, query="a=1&b=2&c="),
    "query field repeated": lambda request: replace(request, query="a=1&a=1&b=2"),
    "query name": lambda request: replace(request, query="A=1&b=2"),
    "body": lambda request: replace(request, body=b"{ }"),
    "body left out": lambda request: replace(request, body=b""),
    "header": lambda request: request.header("x-amzn-principal", "arn:b"),
    "header left out": lambda request: request.header("x-amzn-principal", None),
    "header space": lambda request: request.header("x-other", "ab"),
    "header repeated": lambda request: replace(
        request, headers=(*request.headers, ("x-amzn-principal", "arn:b"))
    ),
    "host": lambda request: request.header("host", "localhost:4567"),
    "host left out": lambda request: request.header("host", None),
    "date": lambda request: request.header("x-amz-date", "20260102T030406Z"),
    "token added": lambda request: request.header("x-amz-security-token", "t"),
    "member added": lambda request: request.header("x-amzn-iot-policy", "p"),
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_changed_request_is_refused(sign: Signer, tamper: Callable[[Request], Request]) -> None:
    request = sign("POST", "/things/a?a=1&b=2", HEADERS, b"{}")
    request.verify()
    with pytest.raises(InvalidSignatureException):
        tamper(request).verify()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=61"),
        ("X-Amz-Date=20260102T030405Z", "X-Amz-Date=20260102T030406Z"),
        ("a=1", "a=2"),
        ("a=1", "a=1&b=1"),
        ("us-east-1", "us-east-2"),
        ("20260102%2F", "20260103%2F"),
        ("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=x"),
        ("AKIDEXAMPLE", "AKIDEXAMPLF"),
    ],
)
def test_a_changed_presigned_request_is_refused(sign: Signer, old: str, new: str) -> None:
    request = sign("GET", "/things?a=1", presigned=60)
    request.verify()
    assert old in request.query
    with pytest.raises(InvalidSignatureException):
        replace(request, query=request.query.replace(old, new, 1)).verify()
    with pytest.raises(InvalidSignatureException):
        replace(request, body=b"x").verify()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Signature=", "Signature=0"),
        ("us-east-1", "us-east-2"),
        ("/iot/", "/iotdata/"),
        ("20260102/", "20260101/"),
        ("aws4_request", "aws5_request"),
        ("SignedHeaders=host;", "SignedHeaders="),
        ("AKIDEXAMPLE", ""),
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"),
    ],
)
def test_a_changed_authorization_is_refused(sign: Signer, old: str, new: str) -> None:
    request = sign()
    said = request.value("Authorization")
    assert old in said
    with pytest.raises((InvalidSignatureException, IncompleteSignatureException)):
        request.header("Authorization", said.replace(old, new, 1)).verify()


def test_another_secret_is_refused(sign: Signer) -> None:
    with pytest.raises(InvalidSignatureException, match="does not match the signature you"):
        sign().verify(secret=SECRET + "x")


def test_an_unknown_access_key_is_refused(sign: Signer) -> None:
    with pytest.raises(UnrecognizedClientException) as caught:
        sign().verify(secret=None)
    assert caught.value.message == "The security token included in the request is invalid."


# --- here and now -----------------------------------------------------------------------------


def test_what_needs_no_body_is_checked_without_one(sign: Signer) -> None:
    signed = sign(body=b"anything").parse()
    here: dict[str, Any] = {"now": NOW.timestamp(), "region": "us-east-1", "service": "iot"}
    assert sigv4.check(signed, SECRET, **here) == SECRET
    with pytest.raises(UnrecognizedClientException):
        sigv4.check(signed, None, **here)
    for other in ({"now": NOW.timestamp() + 901}, {"region": "eu-west-1"}, {"service": "sts"}):
        with pytest.raises(InvalidSignatureException):
            sigv4.check(signed, SECRET, **(here | other))


@pytest.mark.parametrize(
    ("region", "service", "message"),
    [
        ("eu-west-1", "iot", "scoped to a valid region, not 'eu-west-1'"),
        ("us-east-1", "iotdata", "scoped to correct service: 'iot', not 'iotdata'"),
    ],
)
def test_a_signature_for_elsewhere_is_refused(
    sign: Signer, region: str, service: str, message: str
) -> None:
    with pytest.raises(InvalidSignatureException, match=message):
        sign(region=region, service=service).verify()


def test_the_scope_is_of_the_day_of_signing(sign: Signer) -> None:
    request = sign()
    said = request.value("Authorization").replace("/20260102/", "/20260101/")
    with pytest.raises(InvalidSignatureException, match="'20260101' != '20260102', from '2026010"):
        request.header("Authorization", said).verify()


@pytest.mark.parametrize("seconds", [-900, -1, 0, 1, 900])
def test_a_clock_may_be_off_by_15_minutes(sign: Signer, seconds: int) -> None:
    sign().verify(now=NOW.timestamp() + seconds)


def test_an_old_signature_is_refused(sign: Signer) -> None:
    with pytest.raises(InvalidSignatureException) as caught:
        sign().verify(now=NOW.timestamp() + 901)
    assert caught.value.message == (
        "Signature expired: 20260102T030405Z is now earlier than 20260102T030406Z "
        "(20260102T031906Z - 15 min.)"
    )


@pytest.mark.parametrize("presigned", [None, 60])
def test_a_signature_of_the_future_is_refused(sign: Signer, presigned: int | None) -> None:
    with pytest.raises(InvalidSignatureException) as caught:
        sign(presigned=presigned).verify(now=NOW.timestamp() - 901)
    assert caught.value.message == (
        "Signature not yet current: 20260102T030405Z is still later than 20260102T030404Z "
        "(20260102T024904Z + 15 min.)"
    )


@pytest.mark.parametrize(("expires", "late"), [(1, 1), (3600, 3600), (604800, 604800)])
def test_a_presigned_request_holds_until_it_expires(sign: Signer, expires: int, late: int) -> None:
    request = sign(presigned=expires)
    request.verify(now=NOW.timestamp() + late)
    with pytest.raises(InvalidSignatureException, match="Signature expired: "):
        request.verify(now=NOW.timestamp() + late + 1)


@pytest.mark.parametrize("expires", [0, 604801, -1, 10**9])
def test_a_presigned_request_holds_a_week_at_most(sign: Signer, expires: int) -> None:
    with pytest.raises(InvalidSignatureException, match="between 1 and 604800 seconds"):
        sign(presigned=expires).verify()


# --- the hash of the body ---------------------------------------------------------------------


def test_a_stated_hash_of_the_body_must_be_right(sign: Signer) -> None:
    stated = hashlib.sha256(b"{}").hexdigest()
    sign("POST", "/things", {"X-Amz-Content-SHA256": stated}, b"{}").verify()
    for wrong in (hashlib.sha256(b"").hexdigest(), stated.upper(), "", "UNSIGNED-PAYLOAD"):
        request = sign("POST", "/things", {"X-Amz-Content-SHA256": wrong}, b"{}")
        with pytest.raises(InvalidSignatureException, match="x-amz-content-sha256"):
            request.verify()
