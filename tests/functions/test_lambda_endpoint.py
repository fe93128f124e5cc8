"""Functions at other Lambda endpoints, called with boto3."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from typing import Any

import pytest
from moto.core.config import default_user_config
from moto.server import ThreadedMotoServer

from fleetgate.functions import lambda_endpoint
from fleetgate.functions.configured import LambdaEndpoint
from fleetgate.functions.target import MAX_ANSWER, Failure, FunctionError, Run
from tests.functions.https_server import Answer, Asked, response, serving

EVENT = b'{"parameters": {"SerialNumber": "1"}}'


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in the environment, in files, or of the machine's metadata service."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)


def endpoint(port: int, **options: Any) -> lambda_endpoint.LambdaTarget:
    given = {"endpoint_url": f"http://127.0.0.1:{port}", "function_name": "decide"} | options
    return lambda_endpoint.target("cloud", LambdaEndpoint(region="eu-west-1", **given))


def invoked(answer: Answer, *, seconds: float = 5, **options: Any) -> tuple[Run, list[Asked]]:
    async def work() -> tuple[Run, list[Asked]]:
        async with serving(answer, None) as at:
            target = endpoint(at.port, **options)
            return await target.invoke(EVENT, request_id="r", seconds=seconds), at.asked

    return asyncio.run(work())


def failed(answer: Answer, **options: Any) -> FunctionError:
    with pytest.raises(FunctionError) as caught:
        invoked(answer, **options)
    assert caught.value.message.startswith("function `cloud` (lambda:http")
    return caught.value


def refusal(code: str, status: str, message: str = "no") -> bytes:
    return response(
        json.dumps({"Message": message}).encode(), status, f"x-amzn-ErrorType: {code}\r\n"
    )


def test_a_function_is_invoked() -> None:
    log = base64.b64encode(b"START\nEND\n").decode()
    run, [asked] = invoked(response(b'{"a": 1}', head=f"X-Amz-Log-Result: {log}\r\n"))
    assert run == Run(b'{"a": 1}', log="START\nEND\n")
    assert asked.line == "POST /2015-03-31/functions/decide/invocations HTTP/1.1"
    assert asked.headers["x-amz-invocation-type"] == "RequestResponse"
    assert asked.headers["x-amz-log-type"] == "Tail"
    assert asked.body == EVENT
    # no credentials anywhere: an emulator is shown a key that was made up
    assert "Credential=fleetgate/" in asked.headers["authorization"]
    assert "/eu-west-1/lambda/aws4_request" in asked.headers["authorization"]


def test_credentials_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    _, [asked] = invoked(response(b"{}"))
    assert "Credential=AKIDEXAMPLE/" in asked.headers["authorization"]


def test_amazon_is_not_shown_an_invented_key() -> None:
    async def work() -> None:
        target = endpoint(0, endpoint_url="https://lambda.eu-west-1.amazonaws.com")
        with pytest.raises(FunctionError, match="Unable to locate credentials") as caught:
            await target.invoke(EVENT, request_id="r", seconds=5)
        assert caught.value.kind == Failure.NOT_STARTED

    asyncio.run(work())


def test_a_function_that_failed() -> None:
    error = b'{"errorType": "KeyError", "errorMessage": "1"}'
    run, _ = invoked(response(error, head="X-Amz-Function-Error: Unhandled\r\n"))
    assert run == Run(error, error="Unhandled")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        # Lambda API reference, Invoke, Errors
        (
            refusal("ResourceNotFoundException", "404 Not Found", "Function not found: x"),
            Failure.NO_FUNCTION,
            "Function not found: x",
        ),
        (refusal("AccessDeniedException", "403 Forbidden"), Failure.NO_PERMISSION, "AccessDenied"),
        (refusal("SomethingElse", "403 Forbidden"), Failure.NO_PERMISSION, "SomethingElse"),
        (refusal("TooManyRequestsException", "429 No"), Failure.THROTTLED, "TooManyRequests"),
        (refusal("ServiceException", "500 No"), Failure.FAILED, "ServiceException"),
        (response(b"<html>", "502 Bad Gateway"), Failure.FAILED, "502"),
        (response(b"", "307 Away", "Location: http://169.254.169.254/\r\n"), Failure.FAILED, "307"),
        (b"", Failure.UNREACHABLE, "Connection was closed"),
        (b"hello\r\n\r\n", Failure.UNREACHABLE, "Connection"),
        (response(b"{}")[:-1], Failure.UNREACHABLE, "1 read, but total bytes expected is 2"),
    ],
)
def test_an_endpoint_that_does_not_answer_as_it_should(
    answer: bytes, kind: Failure, words: str
) -> None:
    error = failed(answer)
    assert error.kind == kind, error.message
    assert words in error.message


def test_failed_calls_are_not_made_again() -> None:
    async def work() -> None:
        async with serving(refusal("ServiceException", "500 No"), None) as at:
            with pytest.raises(FunctionError):
                await endpoint(at.port).invoke(EVENT, request_id="r", seconds=5)
            assert at.connections == 1

    asyncio.run(work())


def test_nobody_listens() -> None:
    async def work() -> None:
        with pytest.raises(FunctionError, match="Could not connect") as caught:
            await endpoint(1).invoke(EVENT, request_id="r", seconds=5)
        assert caught.value.kind == Failure.UNREACHABLE

    asyncio.run(work())


def test_an_answer_of_any_size_is_bounded() -> None:
    error = failed(response(b"x" * (MAX_ANSWER + 1)))
    assert error.kind == Failure.TOO_LARGE
    assert f"more than {MAX_ANSWER} bytes" in error.message


def test_calls_that_hang_do_not_pile_up() -> None:
    """Two hang, which is all there may be: the third is told so, and no thread is added."""
    ended = asyncio.Event()

    async def never(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.write(response(b"{}"))

    async def work() -> None:
        async with serving(never, None) as at:
            target = endpoint(at.port, concurrency=2, timeout_seconds=5)
            while not target.ready:  # noqa: ASYNC110 - it becomes so in a thread
                await asyncio.sleep(0.01)
            before = threading.active_count()
            began = time.monotonic()
            calls = [target.invoke(EVENT, request_id="r", seconds=0.3) for _ in range(6)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert time.monotonic() - began < 4
            errors = [each for each in results if isinstance(each, FunctionError)]
            assert [each.kind for each in errors] == [Failure.TIMED_OUT] * 2 + [
                Failure.THROTTLED
            ] * 4
            assert "2 calls (concurrency) are under way" in errors[-1].message
            assert threading.active_count() <= before + 2
            with pytest.raises(FunctionError, match="2 are waited for by nobody any more"):
                await target.invoke(EVENT, request_id="r", seconds=0.1)
            ended.set()
            assert (await target.invoke(EVENT, request_id="r", seconds=5)).payload == b"{}"

    asyncio.run(work())


def test_an_emulator_that_others_wrote() -> None:
    """moto's Lambda without Docker, which answers what it is asked."""
    default_user_config["lambda"]["use_docker"] = False
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()

        async def work() -> None:
            assert await endpoint(port).invoke(EVENT, request_id="r", seconds=5) == Run(EVENT)

        asyncio.run(work())
    finally:
        server.stop()
        default_user_config["lambda"]["use_docker"] = True
