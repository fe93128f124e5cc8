"""Lambda functions through boto3: botocore's own parser and waiters are the judges."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from fleetgate.functions.runner import runtimes
from tests.integration.fleet import create_role
from tests.integration.refusal import members, refusal
from tests.integration.server import ACCOUNT, REGION, Server
from tests.integration.server import http as plain

SOURCE = """
import os
import sys


def handler(event, context):
    print("asked by", context.function_name)
    if event.get("fail"):
        raise ValueError("no such device")
    return {"got": event, "level": os.environ.get("LEVEL")}
"""


def zipped(files: dict[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


CODE = zipped({"hook.py": SOURCE})


@pytest.fixture(scope="module")
def functions(server: Server) -> Iterator[Any]:
    client = server.client("lambda")
    yield client
    client.close()


@pytest.fixture(scope="module")
def role(server: Server) -> str:
    return create_role(server, "Lambda", trust="lambda.amazonaws.com")


def create(functions: Any, role: str, name: str, **more: Any) -> dict[str, Any]:
    wanted = {
        "FunctionName": name,
        "Role": role,
        "Runtime": runtimes()[0],
        "Handler": "hook.handler",
        "Code": {"ZipFile": CODE},
    }
    made: dict[str, Any] = members(functions.create_function(**(wanted | more)))
    return made


def arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def test_a_function_from_its_zip_to_its_end(functions: Any, role: str, name: str) -> None:
    made = create(functions, role, name, Tags={"team": "fleet"})
    assert made["FunctionArn"] == arn(name)
    for waiter in ("function_exists", "function_active", "function_active_v2"):
        functions.get_waiter(waiter).wait(FunctionName=name)
    functions.update_function_configuration(
        FunctionName=name, Timeout=5, Environment={"Variables": {"LEVEL": "debug"}}
    )
    other = zipped({"hook.py": SOURCE + "\n# another one\n"})
    changed = functions.update_function_code(FunctionName=name, ZipFile=other)
    assert changed["CodeSha256"] == base64.b64encode(hashlib.sha256(other).digest()).decode()
    for waiter in ("function_updated", "function_updated_v2"):
        functions.get_waiter(waiter).wait(FunctionName=name)
    found = functions.get_function(FunctionName=arn(name))
    assert found["Configuration"] == members(changed)
    assert found["Tags"] == {"team": "fleet"}
    downloaded = plain(found["Code"]["Location"])
    assert (downloaded.status, downloaded.body) == (200, other)
    assert downloaded.headers["content-type"] == "application/zip"
    for changed_link in ("Signature=0", "Expires=9999999999"):
        link = found["Code"]["Location"] + changed_link
        assert plain(link).status == 403
    answer = functions.delete_function(FunctionName=name)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert plain(found["Code"]["Location"]).status == 404
    assert refusal(functions.get_function, FunctionName=name).kind == (
        404,
        "ResourceNotFoundException",
    )


def test_a_resource_policy_comes_and_goes(functions: Any, role: str, name: str) -> None:
    create(functions, role, name)
    added = functions.add_permission(
        FunctionName=name,
        StatementId="iot",
        Action="lambda:InvokeFunction",
        Principal="iot.amazonaws.com",
        SourceAccount=ACCOUNT,
        SourceArn=f"arn:aws:iot:{REGION}:{ACCOUNT}:provisioningtemplate/fleet",
    )
    assert added["ResponseMetadata"]["HTTPStatusCode"] == 201
    policy = functions.get_policy(FunctionName=name)
    assert json.loads(policy["Policy"])["Statement"] == [json.loads(added["Statement"])]
    assert (
        policy["RevisionId"]
        == functions.get_function_configuration(FunctionName=name)["RevisionId"]
    )
    removed = functions.remove_permission(FunctionName=name, StatementId="iot")
    assert removed["ResponseMetadata"]["HTTPStatusCode"] == 204
    gone = refusal(functions.get_policy, FunctionName=name)
    assert gone.kind == (404, "ResourceNotFoundException")
    assert gone.message == "The resource you requested does not exist."


def test_listings_have_pages(functions: Any, role: str, name: str) -> None:
    for number in range(3):
        create(functions, role, f"{name}-{number}")
    pages = functions.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    listed = [each["FunctionName"] for page in pages for each in page["Functions"]]
    assert listed == sorted(listed)
    assert {f"{name}-{number}" for number in range(3)} <= set(listed)
    versions = functions.get_paginator("list_versions_by_function").paginate(
        FunctionName=f"{name}-0"
    )
    assert [each["Version"] for page in versions for each in page["Versions"]] == ["$LATEST"]


@pytest.mark.parametrize(
    ("operation", "parameters", "kind", "message"),
    [
        ("get_function", {}, (404, "ResourceNotFoundException"), "Function not found: arn:aws:"),
        ("invoke", {}, (404, "ResourceNotFoundException"), "Function not found: arn:aws:lambda"),
        (
            "invoke",
            {"Payload": b"{"},
            (400, "InvalidRequestContentException"),
            "Could not parse request body into json",
        ),
        (
            "invoke",
            {"Payload": b" " * 6_291_457},
            (413, "RequestEntityTooLargeException"),
            "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
        ),
        (
            "invoke",
            {"Payload": b" " * 1_048_577, "InvocationType": "Event"},
            (413, "RequestEntityTooLargeException"),
            "1048577 byte payload is too large for the Event invocation type",
        ),
        ("publish_version", {}, (501, "NotImplementedException"), "functions have one version"),
        (
            "put_function_concurrency",
            {"ReservedConcurrentExecutions": 1},
            (501, "NotImplementedException"),
            "function_concurrency",
        ),
        (
            "update_function_configuration",
            {"Layers": [f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:l:1"]},
            (400, "InvalidParameterValueException"),
            "`Layers` of UpdateFunctionConfiguration is not offered by this server",
        ),
    ],
)
def test_what_is_refused(
    functions: Any,
    name: str,
    operation: str,
    parameters: dict[str, Any],
    kind: tuple[int, str],
    message: str,
) -> None:
    refused = refusal(getattr(functions, operation), FunctionName=name, **parameters)
    assert refused.kind == kind
    assert message in refused.message
    # as AWS: the type of the error beside its message
    assert refused.response.get("Type", "User") == "User"


def test_errors_are_shaped_as_lambda_does(server: Server, functions: Any) -> None:
    path = "/2015-03-31/functions/absent"
    unsigned = plain(server.http_url + path)
    assert unsigned.status == 403
    assert set(unsigned.json()) == {"message", "Type"}
    refused = refusal(functions.get_function, FunctionName="absent")
    assert refused.response["Message"] == refused.message
    assert refused.response["Type"] == "User"


def test_large_code_is_taken_and_what_is_larger_is_not(
    functions: Any, role: str, name: str, server: Server
) -> None:
    """Of 50 MB as Lambda's; here a twelfth of it, which is what one server body may not have."""
    data = os.urandom(4_000_000)
    code = zipped({"hook.py": SOURCE, "data.bin": data})
    made = create(functions, role, name, Code={"ZipFile": code})
    assert made["CodeSize"] == len(code) > 4_000_000
    assert plain(functions.get_function(FunctionName=name)["Code"]["Location"]).body == code
    # the same body for somebody nobody knows is not read
    connection = http.client.HTTPConnection(urlsplit(server.http_url).netloc, timeout=10)
    connection.putrequest("POST", "/2015-03-31/functions")
    connection.putheader("Content-Length", "70000000")
    connection.putheader("Content-Type", "application/json")
    connection.endheaders()
    connection.send(b"{" * 2_000_000)
    assert connection.getresponse().status == 403
    connection.close()


def test_invoking(functions: Any, role: str, name: str) -> None:
    create(functions, role, name, Environment={"Variables": {"LEVEL": "debug"}})
    answer = functions.invoke(FunctionName=name, Payload=b'{"a": 1}', LogType="Tail")
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert json.loads(answer["Payload"].read()) == {"got": {"a": 1}, "level": "debug"}
    about = answer["ResponseMetadata"]
    assert about["HTTPHeaders"]["content-type"] == "application/json"
    request = f"RequestId: {about['RequestId']}"
    assert re.fullmatch(
        rf"START {request} Version: \$LATEST\nasked by {name}\nEND {request}\nREPORT {request}\t"
        r"Duration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\t"
        r"Max Memory Used: [1-9]\d+ MB\tInit Duration: \d+\.\d\d ms\t\n",
        base64.b64decode(answer["LogResult"]).decode(),
    )
    assert "FunctionError" not in answer
    failed = functions.invoke(FunctionName=arn(name), Payload=b'{"fail": true}')
    assert (failed["StatusCode"], failed["FunctionError"]) == (200, "Unhandled")
    said = json.loads(failed["Payload"].read())
    assert (said["errorType"], said["errorMessage"]) == ("ValueError", "no such device")
    for kind, status in (("Event", 202), ("DryRun", 204)):
        answer = functions.invoke(FunctionName=name, InvocationType=kind)
        assert (answer["StatusCode"], answer["Payload"].read()) == (status, b"")
        assert ("ExecutedVersion" in answer) is (kind == "DryRun")
        assert "content-type" not in answer["ResponseMetadata"]["HTTPHeaders"]
    large = json.dumps({"x": "y" * 3_000_000}).encode()
    answer = functions.invoke(FunctionName=name, Payload=large)
    assert json.loads(answer["Payload"].read())["got"]["x"] == "y" * 3_000_000
    # another code is what runs next
    other = zipped({"hook.py": "def handler(event, context):\n    return 'another'\n"})
    functions.update_function_code(FunctionName=name, ZipFile=other)
    assert functions.invoke(FunctionName=name)["Payload"].read() == b'"another"'
    functions.delete_function(FunctionName=name)
    assert refusal(functions.invoke, FunctionName=name).kind == (404, "ResourceNotFoundException")
