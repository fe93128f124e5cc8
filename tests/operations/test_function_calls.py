"""Invoke: what it answers when a function does, does not, or may not be asked.

Sources: Lambda API reference, Invoke; Lambda developer guide, "Lambda quotas".
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from typing import Any

import pytest

from fleetgate.errors import (
    InvalidParameterValueException,
    InvalidRequestContentException,
    RequestEntityTooLargeException,
    ResourceNotFoundException,
    ServiceError,
    TooManyRequestsException,
    ValidationException,
)
from fleetgate.functions.configured import LambdaEndpoint
from fleetgate.functions.target import LOG_TAIL, Failure, FunctionError, Run, Usage
from fleetgate.operations.background import Background
from tests.operations.conftest import Registry
from tests.operations.lambda_functions import Answering, Lambda, configure

EXECUTED = {"ExecutedVersion": "$LATEST"}


@pytest.fixture
def aws(registry: Registry) -> Lambda:
    return Lambda(registry)


def test_what_a_function_answers_is_answered(aws: Lambda) -> None:
    function = configure(aws.registry, "allow", Answering(Run(b'{"a": 1}')))
    asked: dict[str, Any] = {"FunctionName": aws.arn("allow"), "Payload": b' {"x": "\xc3\xa9"} '}
    expected = {"StatusCode": 200, "Payload": b'{"a": 1}', **EXECUTED}
    assert aws("Invoke", **asked) == expected
    assert aws("Invoke", FunctionName="allow", Qualifier="$LATEST") == expected
    assert function.events == [asked["Payload"], b"{}"]


START = "START RequestId: request Version: $LATEST\n"
END = "END RequestId: request\nREPORT RequestId: request\t"
USAGE = Usage(0.0321, None, 128, 40)
SAID = b'{"errorType": "E", "errorMessage": "no"}'


def log_of(aws: Lambda, **members: Any) -> str:
    answer = aws("Invoke", FunctionName="allow", LogType="Tail", **members)
    return base64.b64decode(answer["LogResult"]).decode()


@pytest.mark.parametrize(
    ("run", "log"),
    [
        (
            Run(b"1", log="one\ntwo\n", usage=USAGE),
            (
                f"{START}one\ntwo\n{END}Duration: 32.10 ms\tBilled Duration: 33 ms\t"
                "Memory Size: 128 MB\tMax Memory Used: 40 MB\t\n"
            ),
        ),
        (
            Run(b"1", log="no end", usage=Usage(0.0321, 0.1, 128, 40)),
            (
                f"{START}no end\n{END}Duration: 32.10 ms\tBilled Duration: 133 ms\t"
                "Memory Size: 128 MB\tMax Memory Used: 40 MB\tInit Duration: 100.00 ms\t\n"
            ),
        ),
        (
            Run(SAID, "Unhandled", "leaving\n", "Error: it ended\nRuntime.ExitError\n", USAGE),
            (
                f"{START}leaving\nError: it ended\nRuntime.ExitError\n{END}Duration: 32.10 ms\t"
                "Billed Duration: 33 ms\tMemory Size: 128 MB\tMax Memory Used: 40 MB\t\n"
            ),
        ),
    ],
)
def test_the_log_has_lambdas_lines(aws: Lambda, run: Run, log: str) -> None:
    """Lambda developer guide, "Viewing CloudWatch logs for Lambda functions"."""
    configure(aws.registry, "allow", Answering(run))
    assert log_of(aws) == log


def test_the_log_of_what_has_no_process_says_how_long_it_took(aws: Lambda) -> None:
    configure(aws.registry, "allow", Answering(Run(b"1")))
    took = re.escape(START + END) + r"Duration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t\n"
    assert re.fullmatch(took, log_of(aws))


def test_the_log_ends_with_its_end(aws: Lambda) -> None:
    configure(aws.registry, "allow", Answering(Run(b"1", log="ö" * 2048, usage=USAGE)))
    log = log_of(aws)
    assert len(log.encode()) in (LOG_TAIL, LOG_TAIL - 1)
    assert log.startswith("ööö")
    assert log.endswith("Max Memory Used: 40 MB\t\n")


def test_what_kept_a_function_from_answering_is_in_the_log(aws: Lambda) -> None:
    configure(aws.registry, "allow", Answering(FunctionError(Failure.UNREACHABLE, "no route")))
    expected = f"{START}RequestId: request Error: no route\nRuntime.Unknown\n{END}Duration: "
    assert log_of(aws).startswith(expected)


def test_the_log_of_another_lambda_is_its_own(aws: Lambda) -> None:
    log = "START RequestId: there Version: 7\nEND RequestId: there\n"
    configure(aws.registry, "allow", Answering(Run(b"1", log=log)))
    endpoint = LambdaEndpoint("https://lambda.eu-west-1.amazonaws.com", "f", "eu-west-1")
    aws.registry.services.functions.configured["allow"] = endpoint
    assert log_of(aws) == log


def test_a_dry_run_runs_nothing(aws: Lambda) -> None:
    function = configure(aws.registry, "allow")
    answer = aws("Invoke", FunctionName="allow", InvocationType="DryRun")
    assert answer == {"StatusCode": 204, **EXECUTED}
    assert function.events == []


def test_a_function_that_failed_is_an_answer(aws: Lambda) -> None:
    said = b'{"errorType": "ValueError", "errorMessage": "no"}'
    configure(aws.registry, "allow", Answering(Run(said, error="Unhandled", log="it failed")))
    answer = aws("Invoke", FunctionName="allow")
    assert answer == {
        "StatusCode": 200,
        "FunctionError": "Unhandled",
        "Payload": said,
        **EXECUTED,
    }


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Failure.TIMED_OUT, "Sandbox.Timedout"),
        (Failure.NOT_STARTED, "Runtime.InvalidEntrypoint"),
        (Failure.TOO_LARGE, "Function.ResponseSizeTooLarge"),
        (Failure.UNREACHABLE, "Runtime.Unknown"),
        (Failure.ADDRESS_REFUSED, "Runtime.Unknown"),
    ],
)
def test_what_kept_a_function_from_answering_is_told_as_its_failure(
    aws: Lambda, kind: Failure, told: str
) -> None:
    configure(aws.registry, "allow", Answering(FunctionError(kind, "the reason")))
    answer = aws("Invoke", FunctionName="allow")
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert json.loads(answer["Payload"]) == {"errorType": told, "errorMessage": "the reason"}


def test_a_function_that_is_busy_asks_to_come_again(aws: Lambda) -> None:
    configure(aws.registry, "allow", Answering(FunctionError(Failure.THROTTLED, "10 runs")))
    with pytest.raises(TooManyRequestsException, match=r"Rate Exceeded. \(10 runs\)") as refused:
        aws("Invoke", FunctionName="allow")
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert refused.value.members == {"Reason": reason}


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ({"FunctionName": "x"}, ResourceNotFoundException, "Function not found: arn:aws:lambda"),
        ({"Qualifier": "live"}, ResourceNotFoundException, "function:allow:live"),
        ({"Qualifier": "a b"}, ValidationException, "at 'qualifier' failed"),
        ({"FunctionName": "allow:x", "Qualifier": "y"}, InvalidParameterValueException, "derived"),
        ({"Payload": b"{"}, InvalidRequestContentException, "Could not parse request body"),
        ({"Payload": b'"\xff"'}, InvalidRequestContentException, "Could not parse request body"),
        ({"Payload": b"[" * 100_000}, InvalidRequestContentException, ""),
        (
            {"Payload": b" " * 6_291_457},
            RequestEntityTooLargeException,
            "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
        ),
        (
            {"Payload": b" " * 1_048_577, "InvocationType": "Event"},
            RequestEntityTooLargeException,
            "Event invocation type (limit 1048576 bytes)",
        ),
        ({"ClientContext": "e30="}, InvalidParameterValueException, "`ClientContext` of Invoke"),
    ],
)
def test_what_is_not_run(
    aws: Lambda, members: dict[str, Any], error: type[ServiceError], message: str
) -> None:
    function = configure(aws.registry, "allow")
    with pytest.raises(error) as refused:
        aws("Invoke", **{"FunctionName": "allow", **members})
    assert message in refused.value.message
    assert function.events == []


def test_nobody_waits_for_an_event(aws: Lambda, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleetgate.functions")
    function = configure(aws.registry, "allow")
    event = {"FunctionName": "allow", "InvocationType": "Event", "Payload": b"[1]"}
    assert aws("Invoke", **event) == {"StatusCode": 202}
    aws.registry.runner.run(asyncio.sleep(0.01))
    assert function.events == [b"[1]"]
    function.run = FunctionError(Failure.THROTTLED, "10 runs")
    aws("Invoke", **event)
    aws.registry.runner.run(asyncio.sleep(0.01))
    assert "event=invoked request=request function=allow" in caplog.text
    assert "event=not-invoked request=request function=allow cause='Rate Exceeded" in caplog.text
    aws.registry.services.background = Background(room=0)
    with pytest.raises(TooManyRequestsException, match="too many asynchronous invocations"):
        aws("Invoke", **event)


def test_uploaded_code_runs(aws: Lambda) -> None:
    aws.create()
    answer = aws("Invoke", FunctionName="hook", Payload=b"{}")
    assert json.loads(answer["Payload"]) == {"allowProvisioning": True}
    assert answer["StatusCode"] == 200
