"""The HTTP door itself: signatures, operations that are not served, broken requests."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
        ("delete_stream", "DeleteStream", {"streamId": "s"}),
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


# --- what a caller nobody knows can do -------------------------------------------------------


def raw(server: Server, data: bytes) -> bytes:
    """What the server answers to bytes, until it closes; they say ``Connection: close``."""
    address = urlsplit(server.http_url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 80), 10) as connection:
        connection.sendall(data)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
    return b"".join(parts)


def resident(server: Server) -> int:
    """MiB of memory the server has."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


AUTHORIZATION = (
    b"Authorization: AWS4-HMAC-SHA256 Credential=%s, SignedHeaders=host, Signature=" + b"0" * 64
)
UNKNOWN = AUTHORIZATION % b"AKIAUNKNOWNUNKNOWN00/20260101/us-east-1/iot/aws4_request"


@pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")
@pytest.mark.parametrize("headers", [b"", UNKNOWN + b"\r\nX-Amz-Date: 20260101T000000Z\r\n"])
def test_bodies_of_unknown_callers_are_not_kept(server: Server, headers: bytes) -> None:
    request = b"POST /things/x HTTP/1.1\r\nHost: x\r\n%sContent-Length: 1000000\r\n\r\n" % headers
    before = resident(server)
    address = urlsplit(server.http_url)
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            connection = socket.create_connection((address.hostname or "", address.port or 80), 10)
            stack.callback(connection.close)
            connection.sendall(request + b"a" * 990_000)
        assert http(f"{server.http_url}/_fleetgate/health").status == 200
        assert resident(server) - before < 60


def test_an_unknown_caller_with_a_body_is_told(server: Server) -> None:
    answer = http(f"{server.http_url}/things/x", method="POST", body=b"x" * 900_000)
    assert error(answer)[:2] == (403, "MissingAuthenticationTokenException")


def test_an_unknown_caller_is_not_told_to_continue(server: Server) -> None:
    """RFC 9110 section 10.1.1: a final answer stands in for 100."""
    answer = raw(
        server,
        b"POST /things/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 900000\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"connection: close\r\n" in answer


@pytest.mark.parametrize("header", [b"expect: 100-continue", b"transfer-encoding: chunked"])
def test_a_signed_request_may_send_its_body_in_either_way(
    server: Server, name: str, header: bytes
) -> None:
    request = AWSRequest("POST", f"{server.http_url}/things/{name}", data=b"{}")
    botocore.auth.SigV4Auth(credentials(server), "iot", REGION).add_auth(request)
    lines = [f"{key}: {value}".encode() for key, value in request.headers.items()]
    body = b"2\r\n{}\r\n0\r\n\r\n"
    if header.startswith(b"expect"):
        lines.append(b"content-length: 2")
        body = b"{}"
    host = urlsplit(server.http_url).netloc.encode()
    lines += [b"host: " + host, header, b"connection: close"]
    start = b"POST /things/%s HTTP/1.1\r\n" % name.encode()
    answer = raw(server, start + b"\r\n".join(lines) + b"\r\n\r\n" + body)
    assert b"HTTP/1.1 200 OK\r\n" in answer


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: \xff\xfe\xfd x",
        b"Authorization: AWS4-HMAC-SHA256 \xff\xfe",
        AUTHORIZATION % b"\xff/b/c/d/e",
        AUTHORIZATION % b"a/b/c/d/e" + b"\r\nX-Amz-Date: \xff",
        (AUTHORIZATION % b"a/b/c/d/e").replace(b"=host", b"=host;\xff")
        + b"\r\nX-Amz-Date: 20260101T000000Z",
    ],
    ids=["algorithm", "part", "credential", "date", "names"],
)
@pytest.mark.parametrize("form", [b"", b"Content-Type: application/x-www-form-urlencoded\r\n"])
def test_headers_that_are_not_utf8_are_refused(server: Server, line: bytes, form: bytes) -> None:
    frame = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s%s\r\n\r\n"
    answer = raw(server, frame % (form, line))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))
    # in the Query protocol the same codes have other names (IAM API Reference, "Common Errors")
    codes = (b"IncompleteSignature", b"InvalidSignature", b"SignatureDoesNotMatch")
    assert any(code in answer for code in codes)


# --- the two names of the service, the two forms of an error ---------------------------------


def test_the_name_older_command_line_tools_sign_with_is_accepted(server: Server) -> None:
    assert signed(server, "GET", "/things", service="execute-api").status == 200
    assert error(signed(server, "GET", "/things", service="s3"))[:2] == (
        501,
        "NotImplementedException",
    )
    assert signed(server, "GET", "/things", service="sts").status == 404
    # where ListFunctions was in older models
    assert signed(server, "GET", "/2015-03-31/functions/", service="lambda").status == 200


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("service", "path", "content_type"),
    [
        ("iot", "/", "application/json"),
        ("execute-api", "/", "application/json"),
        ("iot", "/things/a b", "application/json"),
        ("sts", "/", "text/xml"),
        ("iam", "/", "text/xml"),
    ],
)
def test_an_error_has_the_form_of_the_service_meant(
    server: Server, service: str, path: str, content_type: str
) -> None:
    """curl sends any body as a form; clients of IAM and STS read XML."""
    url = f"{server.http_url}{path.replace(' ', '%20')}"
    request = AWSRequest("POST", url, data=b"Action=GetCallerIdentity")
    request.headers["Content-Type"] = FORM
    botocore.auth.SigV4Auth(credentials(server), service, REGION).add_auth(request)
    headers = dict(request.headers)
    answer = http(request.url, method="POST", headers=headers, body=b"Action=GetCallerIdentity")
    assert answer.status >= 400
    assert answer.headers["content-type"] == content_type
    query_auth = botocore.auth.SigV4QueryAuth(credentials(server), service, REGION)
    request = AWSRequest("POST", url, headers={"Content-Type": FORM})
    query_auth.add_auth(request)
    headers = {"Content-Type": FORM}
    answer = http(request.prepare().url, method="POST", headers=headers, body=b"changed")
    assert answer.status == 403
    assert answer.headers["content-type"] == content_type


def test_a_log_line_has_what_a_caller_sent_in_quotes(server: Server) -> None:
    path = "/_fleetgate/x%20status=200%20code=forged"
    raw_path = "/_fleetgate/x%0acode=forged"
    assert http(f"{server.http_url}{path}").status == 404
    assert http(f"{server.http_url}{raw_path}").status == 404
    lines = [line for line in server.output().splitlines() if "code=forged" in line]
    assert len(lines) == 2
    for line in lines:
        assert " path='/_fleetgate/x" in line
        assert "forged' code=ResourceNotFoundException" in line


# --- emptying the registry -------------------------------------------------------------------


@pytest.fixture(scope="module")
def resettable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("resettable") / "data"
    with Server(data, "--allow-reset", "--host-name", "fleet.example") as running:
        yield running


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:1"},
        {"Host": "LOCALHOST"},
        {"Host": "127.0.0.1:4566"},
        {"Host": "[::1]:4566"},
        {"Host": "192.0.2.7"},
        {"Host": "fleet.example:80"},
        {"Host": "localhost:80", "Origin": "http://localhost:80"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_the_registry_is_emptied_for_callers_of_ours(
    resettable: Server, headers: dict[str, str]
) -> None:
    answer = http(f"{resettable.http_url}/_fleetgate/reset", method="POST", headers=headers)
    assert (answer.status, answer.json()) == (200, {"status": "empty"})


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Host": "localhost:4566"},
        {"Origin": "http://evil.example", "Host": "evil.example"},
        {"Host": "evil.example:4566"},
        {"Host": "fleet.example.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": "1.2.3.4.evil.example"},
        {"Host": "[::1"},
        {"Host": "[evil.example]"},
        {"Host": "localhost:80@evil.example"},
        {"Host": "localhost:80, evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_the_registry_is_not_emptied_for_web_pages(
    resettable: Server, headers: dict[str, str]
) -> None:
    """Fetch standard, "Origin header"; Fetch Metadata, "Sec-Fetch-Site"; DNS rebinding by Host."""
    answer = http(f"{resettable.http_url}/_fleetgate/reset", method="POST", headers=headers)
    assert error(answer)[:2] == (403, "AccessDeniedException")
