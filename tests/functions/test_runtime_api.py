"""The runtime API: who may connect, and what it answers to what it does not know.

Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes".
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleetgate.functions.runtime_api import Invocation, Outcome, RuntimeApi

NEXT = "/2018-06-01/runtime/invocation/next"
CLIENT = """
import encodings.idna, http.client, os, sys
if sys.argv[2] != "-":
    os.setgroups([])
    os.setuid(int(sys.argv[2]))
connection = http.client.HTTPConnection(sys.argv[1], timeout=5)
try:
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    print(connection.getresponse().read().decode())
except OSError as error:
    print("turned away", isinstance(error, ConnectionError))
"""


def with_api(scenario: Callable[[RuntimeApi, str], Awaitable[None]], pid: int = 0) -> None:
    async def run() -> None:
        api = RuntimeApi("f", "arn:f")
        try:
            address = await api.start()
            api.pid.set_result(pid or os.getpid())
            await scenario(api, address)
        finally:
            await api.close()

    asyncio.run(run())


async def offered(api: RuntimeApi, request_id: str = "r") -> asyncio.Future[Outcome]:
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    api.offer(Invocation(request_id, b'{"a": 1}', 1000.5, outcome))
    return outcome


async def asked(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, str], Any]:
    def ask() -> tuple[int, dict[str, str], Any]:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, dict(response.headers), json.loads(response.read())

    return await asyncio.to_thread(ask)


def test_an_event_and_its_answer() -> None:
    async def scenario(api: RuntimeApi, address: str) -> None:
        connection = http.client.HTTPConnection(address)
        outcome = await offered(api)
        assert api.is_offered
        assert not api.ready.done()
        status, headers, event = await asked(connection, "GET", NEXT)
        assert (status, event) == (200, {"a": 1})
        trace = headers.pop("Lambda-Runtime-Trace-Id")
        assert trace.startswith("Root=1-000003e8-")
        assert headers == {
            "Content-Type": "application/json",
            "Content-Length": "8",
            "Lambda-Runtime-Aws-Request-Id": "r",
            "Lambda-Runtime-Deadline-Ms": "1000500",
            "Lambda-Runtime-Invoked-Function-Arn": "arn:f",
        }
        answered = await asked(
            connection, "POST", "/2018-06-01/runtime/invocation/r/response", b"[1]"
        )
        assert answered[0] == 202
        assert await outcome == Outcome(b"[1]", failed=False)
        connection.close()

    with_api(scenario)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/", 404, "NotFound"),
        ("GET", "/2018-06-01/runtime/restore/next", 404, "NotFound"),
        ("PUT", "/2018-06-01/runtime/invocation/r/response", 404, "NotFound"),
        ("POST", "/2018-06-01/runtime/invocation/r/answer", 404, "NotFound"),
        ("POST", "/2018-06-01/runtime/invocation/other/response", 400, "InvalidRequestID"),
        ("POST", "/2018-06-01/runtime/invocation/r/error", 202, ""),
        ("POST", "/2018-06-01/runtime/init/error", 403, "InvalidStateTransition"),
    ],
)
def test_requests_of_other_kinds(method: str, path: str, status: int, kind: str) -> None:
    async def scenario(api: RuntimeApi, address: str) -> None:
        connection = http.client.HTTPConnection(address)
        outcome = await offered(api)
        await asked(connection, "GET", NEXT)
        found, _, answer = await asked(connection, method, path, b"no JSON")
        assert (found, answer.get("errorType", "")) == (status, kind)
        if status == 202:
            described = json.loads((await outcome).payload)
            assert described["errorType"] == "Runtime.Unknown"
        connection.close()

    with_api(scenario)


def test_what_is_no_http_is_turned_away() -> None:
    async def scenario(_api: RuntimeApi, address: str) -> None:
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET\r\n\r\n" * 3)
        assert await reader.read() == b""
        writer.close()

    with_api(scenario)


def test_only_the_process_of_the_function_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    users = ["-", "65534"] if os.geteuid() == 0 else ["-"]

    async def scenario(api: RuntimeApi, address: str) -> None:
        await offered(api)
        for user in users:
            other = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CLIENT, address, user), stdout=subprocess.PIPE
            )
            said, _ = await other.communicate()
            assert said.decode().strip() == "turned away True"
        # not even that it was there changed anything
        assert api.is_offered
        assert not api.ready.done()

    with_api(scenario)
    refused = [each for each in caplog.messages if "event=function-peer-refused" in each]
    assert len(refused) == len(users)


def test_a_runtime_that_is_nobody_is_not_heard() -> None:
    async def scenario(api: RuntimeApi, address: str) -> None:
        await offered(api)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            await asked(http.client.HTTPConnection(address), "GET", NEXT)

    with_api(scenario, pid=1 << 22)
