"""The HTTP door itself: signatures, operations that are not served, broken requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.integration.refusal import refusal
from tests.integration.server import REGION, Answer, Server, http


def credentials(server: Server) -> Credentials:
    frozen = server.iot._request_signer._credentials.get_frozen_credentials()
    return Credentials(frozen.access_key, frozen.secret_key)


def signed(
    server: Server, method: str, path: str, body: bytes = b"", *, service: str = "iot"
) -> Answer:
    """A request with a correct signature, however odd the request is."""
    request = AWSRequest(method, f"{server.http_url}{path}", data=body)
    request.headers["Content-Type"] = "application/json"
    botocore.auth.SigV4Auth(credentials(server), service, REGION).add_auth(request)
    return http(request.url, method=method, headers=dict(request.headers), body=body)


def error(answer: Answer) -> tuple[int, str, str]:
    """Status, code (header) and message of an error answer; checks that it is one."""
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-amzn-requestid"]
    body: Mapping[str, Any] = answer.json()
    return answer.status, answer.headers["x-amzn-errortype"].split(":")[0], body["message"]


@pytest.mark.parametrize(
    ("operation", "name", "parameters"),
    [
        (
            "create_topic_rule",
            "CreateTopicRule",
            {"ruleName": "r", "topicRulePayload": {"sql": "SELECT *", "actions": []}},
        ),
        ("list_jobs", "ListJobs", {}),
        ("get_indexing_configuration", "GetIndexingConfiguration", {}),
        ("delete_role_alias", "DeleteRoleAlias", {"roleAlias": "r"}),
    ],
)
def test_an_operation_that_is_not_served_says_so(
    iot: Any, operation: str, name: str, parameters: dict[str, Any]
) -> None:
    refused = refusal(getattr(iot, operation), **parameters)
    assert refused.status == 501
    assert refused.code == "NotImplementedException"
    assert name in refused.message


def test_an_unknown_key_is_refused(server: Server) -> None:
    client = server.client(aws_access_key_id="AKIAUNKNOWNUNKNOWN00", aws_secret_access_key="x" * 40)
    try:
        refused = refusal(client.list_things)
    finally:
        client.close()
    assert refused.kind == (403, "UnrecognizedClientException")


def test_a_wrong_secret_is_refused(server: Server) -> None:
    client = server.client(
        aws_access_key_id=credentials(server).access_key, aws_secret_access_key="x" * 40
    )
    try:
        refused = refusal(client.list_things)
    finally:
        client.close()
    assert refused.kind == (403, "InvalidSignatureException")
    assert credentials(server).secret_key not in json.dumps(refused.response, default=str)


def test_both_signers_of_botocore_are_understood(server: Server) -> None:
    """botocore signs with awscrt where it is installed, else by itself."""
    assert server.iot.list_things(maxResults=1)["ResponseMetadata"]["HTTPStatusCode"] == 200
    for path in (
        "/things",
        "/things?maxResults=2",
        "/things?attributeValue=%5Ba%2Fb%3D%5D&attributeName=a%40b",
    ):
        assert signed(server, "GET", path).status == 200


@pytest.mark.parametrize("offset", [timedelta(minutes=-20), timedelta(minutes=20)])
def test_a_date_outside_the_window_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, offset: timedelta
) -> None:
    """AWS General Reference, "Troubleshooting AWS Signature Version 4": within 15 minutes."""
    moment = datetime.now(UTC) + offset
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
    answer = signed(server, "GET", "/things")
    assert error(answer)[:2] == (403, "InvalidSignatureException")


def test_a_changed_request_is_refused(server: Server) -> None:
    """The signature covers method, path, query, headers and body."""
    request = AWSRequest("POST", f"{server.http_url}/things/a", data=b"{}")
    request.headers["Content-Type"] = "application/json"
    botocore.auth.SigV4Auth(credentials(server), "iot", REGION).add_auth(request)
    headers = dict(request.headers)
    for method, path, body in (
        ("PATCH", "/things/a", b"{}"),
        ("POST", "/things/b", b"{}"),
        ("POST", "/things/a?x=y", b"{}"),
        ("POST", "/things/a", b'{"thingTypeName": "x"}'),
    ):
        answer = http(f"{server.http_url}{path}", method=method, headers=headers, body=body)
        assert error(answer)[:2] == (403, "InvalidSignatureException")


def test_an_unsigned_request_is_refused(server: Server) -> None:
    answer = http(f"{server.http_url}/things")
    assert error(answer)[:2] == (403, "MissingAuthenticationTokenException")


def test_a_path_without_an_operation_is_unknown(server: Server) -> None:
    assert error(signed(server, "GET", "/rockets"))[:2] == (404, "UnknownOperationException")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"text"', b'{"thingTypeName": 5}', b"\xff", b"[" * 100_000],
    ids=["cut", "list", "string", "type", "utf-8", "deep"],
)
def test_a_body_that_cannot_be_read_is_refused(server: Server, body: bytes) -> None:
    status, code, _ = error(signed(server, "POST", "/things/broken", body))
    assert (status, code) in {(400, "SerializationException"), (400, "InvalidRequestException")}


def test_a_body_too_large_is_refused(server: Server) -> None:
    body = b'{"thingTypeName": "%s"}' % (b"x" * 20_000_000)
    try:
        answer = signed(server, "POST", "/things/large", body)
    except OSError:
        pass  # closed before it was all sent: as good
    else:
        assert answer.status == 413
    assert http(f"{server.http_url}/_fleetgate/health").status == 200


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("list_things", {"maxResults": 251}),
        ("list_things", {"maxResults": 0}),
        ("list_certificates", {"pageSize": 251}),
        ("create_thing", {"thingName": "with blank"}),
        ("create_thing", {"thingName": "x" * 129}),
        ("create_policy", {"policyName": "a/b", "policyDocument": "{}"}),
        ("list_things", {"nextToken": "forged"}),
        ("list_certificates", {"marker": "forged"}),
    ],
)
def test_members_outside_the_models_constraints_are_refused(
    unchecked: Any, operation: str, parameters: dict[str, Any]
) -> None:
    refused = refusal(getattr(unchecked, operation), **parameters)
    assert refused.kind == (400, "InvalidRequestException")


def test_health_and_authority_are_open(server: Server) -> None:
    health = http(f"{server.http_url}/_fleetgate/health")
    assert health.status == 200
    authority = http(f"{server.http_url}/_fleetgate/ca.pem")
    assert authority.status == 200
    assert authority.body == server.ca_file.read_bytes()
    assert authority.body.startswith(b"-----BEGIN CERTIFICATE-----\n")


def test_reset_needs_its_option(server: Server) -> None:
    assert http(f"{server.http_url}/_fleetgate/reset", method="POST").status == 403
