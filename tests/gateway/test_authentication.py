"""What a request says of itself: its peer, its condition keys, the service it is signed for."""

from __future__ import annotations

from typing import Any

import pytest

from fleetgate.errors import AccessDeniedException
from fleetgate.gateway.authentication import Request, signing_name, speaks_query
from fleetgate.gateway.web_pages import refuse_web_pages

FORM = "application/x-www-form-urlencoded"


def scope(**given: Any) -> dict[str, Any]:
    headers = given.pop("headers", {})
    return {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "scheme": "http",
        "client": ("192.0.2.1", 4000),
        **given,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


def signed(service: str) -> dict[str, str]:
    credential = f"AKIA/20260101/us-east-1/{service}/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={credential}, Signature=x"}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8::1", 1), "2001:db8::1"),
        # a socket for both families shows IPv4 peers like this
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (("fe80::1%eth0", 1), "fe80::1"),
        (("not an address", 1), ""),
        (None, ""),
    ],
)
def test_the_address_of_the_peer(client: Any, expected: str) -> None:
    request = Request(scope(client=client), "/", [], [])
    assert request.source_ip == expected
    assert request.conditions.get("aws:SourceIp", ("",)) == (expected,)


def test_condition_keys() -> None:
    """IAM User Guide, "AWS global condition context keys"."""
    request = Request(scope(headers={"user-agent": "Boto3/1", "referer": "x"}), "/", [], [])
    assert request.conditions == {
        "aws:SourceIp": ("192.0.2.1",),
        "aws:SecureTransport": ("false",),
        "aws:UserAgent": ("Boto3/1",),
        "aws:Referer": ("x",),
    }
    secure = Request(scope(scheme="https"), "/", [], [])
    assert secure.conditions["aws:SecureTransport"] == ("true",)
    assert "aws:UserAgent" not in secure.conditions


@pytest.mark.parametrize(
    ("given", "name", "query"),
    [
        (scope(headers=signed("iot")), "iot", False),
        (scope(headers=signed("iot") | {"content-type": FORM}), "iot", False),
        (scope(headers=signed("iam")), "iam", True),
        (scope(headers=signed("sts"), path="/things"), "sts", True),
        (scope(headers=signed("lambda")), "lambda", False),
        (scope(headers=signed("ec2") | {"content-type": FORM}), "ec2", True),
        (
            scope(query_string=b"X-Amz-Credential=AKIA%2F20260101%2Fx%2Fsts%2Faws4_request&a=b"),
            "sts",
            True,
        ),
        (scope(headers={"content-type": FORM}), "", True),
        (scope(headers={"authorization": "Basic /a/b/iam"}), "", False),
        (scope(), "", False),
    ],
)
def test_the_service_that_is_meant(given: Any, name: str, query: bool) -> None:
    assert signing_name(given) == name
    assert speaks_query(given) is query


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "127.0.0.1:4566"}, True),
        ({"host": "[::1]:4566"}, True),
        ({"host": "localhost"}, True),
        ({"host": "Gate.example"}, True),
        ({"host": "127.0.0.1:4566", "origin": "http://127.0.0.1:4566"}, True),
        ({"host": "127.0.0.1", "sec-fetch-site": "none"}, True),
        ({}, False),
        ({"host": "evil.example"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": "127.0.0.1", "origin": "http://evil.example"}, False),
        ({"host": "127.0.0.1:4566", "origin": "http://127.0.0.1:8080"}, False),
        ({"host": "127.0.0.1", "origin": "null"}, False),
        ({"host": "127.0.0.1", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_what_a_web_page_may_have_sent_is_refused(headers: dict[str, str], allowed: bool) -> None:
    given = scope(headers=headers)
    if allowed:
        refuse_web_pages(given, ("gate.example",))
    else:
        with pytest.raises(AccessDeniedException):
            refuse_web_pages(given, ("gate.example",))
