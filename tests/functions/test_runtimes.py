"""Functions of each runtime, in processes of their own: answers, context, errors, log.

Source of names and words: AWS Lambda developer guide, "Using the Lambda context object", "Defined
runtime environment variables", and AWS's runtime interface client, which is one of those tested.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetgate.functions.target import MAX_ANSWER, Run
from tests.functions.programs import (
    ARN,
    Bench,
    ask,
    bench,
    error,
    pool,
    value,
    write_code,
)

EACH = pytest.mark.parametrize("runtime", ["awslambdaric", "python", "node"])
PYTHONS = pytest.mark.parametrize("runtime", ["awslambdaric", "python"])


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_code(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="module")
def running() -> Iterator[Bench]:
    with bench() as made:
        yield made


def script(runtime: str, python: str, node: str) -> str:
    return node if runtime.startswith("node") else python


@EACH
def test_an_event_is_answered(running: Bench, code: Path, runtime: str) -> None:
    event: dict[str, Any] = {"text": "größer\u2028", "number": 1.5, "list": [None, True]}
    target = running.pool(code, runtime, "echo")
    assert running.runner.run(value(target, **event)) == {"event": event}


@EACH
def test_the_context_and_the_environment_are_lambdas(
    running: Bench, code: Path, runtime: str
) -> None:
    python = """
import os
result = {"environment": dict(os.environ), "context": [
    context.aws_request_id, context.function_name, context.function_version,
    context.invoked_function_arn, context.memory_limit_in_mb, context.log_group_name,
    context.log_stream_name, context.client_context, context.identity.cognito_identity_id],
    "remaining": context.get_remaining_time_in_millis(), "directory": os.getcwd()}"""
    node = """
return {environment: process.env, context: [
    context.awsRequestId, context.functionName, context.functionVersion,
    context.invokedFunctionArn, context.memoryLimitInMB, context.logGroupName,
    context.logStreamName, null, null],
    remaining: context.getRemainingTimeInMillis(), directory: process.cwd()}"""
    # reserved ones are refused where functions are made; they do not get through here either
    own = {"STAGE": "test", "AWS_REGION": "elsewhere", "PATH": "/mine"}
    target = running.pool(code, runtime, memory_megabytes=256, environment=own, timeout_seconds=3.0)
    answer: dict[str, Any] = running.runner.run(value(target, script(runtime, python, node)))
    environment = answer["environment"]
    stream = environment.pop("AWS_LAMBDA_LOG_STREAM_NAME")
    assert answer["context"] == [
        *("request-1", "f", "$LATEST", ARN, "256", "/aws/lambda/f", stream, None, None)
    ]
    assert 2000 < answer["remaining"] <= 3000
    assert answer["directory"] == str(code)
    assert stream.count("/") == 3
    for name in ("HOME", "TMPDIR", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_RUNTIME_DIR", "LC_CTYPE"):
        environment.pop(name, None)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "_X_AMZN_TRACE_ID"):
        environment.pop(name, None)
    identifier = "nodejs20.x" if runtime == "node" else "python3.12"
    # its own, Lambda's, and not one of the server's
    assert environment == {
        "STAGE": "test",
        "PATH": "/mine",
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{identifier}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
        "LAMBDA_TASK_ROOT": str(code),
        "_HANDLER": f"{'index' if runtime == 'node' else 'app'}.run",
    }


@EACH
def test_variables_that_are_not_reserved_are_the_functions_own(
    running: Bench, code: Path, runtime: str
) -> None:
    own = {"TZ": "Asia/Tokyo", "HOME": "/var", "TMPDIR": "/srv", "LANG": "C"}
    own |= {"PATH": "/usr/bin", "SSL_CERT_FILE": "/var/roots.pem"}
    target = running.pool(code, runtime, environment=own)
    names = json.dumps(list(own))
    asked = script(
        runtime,
        f"import os; result = [os.environ[name] for name in {names}]",
        f"return {names}.map((name) => process.env[name])",
    )
    assert running.runner.run(value(target, asked)) == list(own.values())
    hour = script(
        runtime,
        "import time; result = time.localtime(0).tm_hour",
        "return new Date(0).getHours()",
    )
    assert running.runner.run(value(target, hour)) == 9


@EACH
def test_an_exception_is_described_and_the_process_goes_on(
    running: Bench, code: Path, runtime: str
) -> None:
    target = running.pool(code, runtime)
    failing = script(runtime, "raise ValueError('no such serial')", "throw new TypeError('no')")
    running.runner.run(value(target, script(runtime, "result = 1", "return 1")))
    before = target.pids
    run = running.runner.run(ask(target, failing))
    described = json.loads(run.payload)
    kind, message = ("TypeError", "no") if runtime == "node" else ("ValueError", "no such serial")
    assert run.error == "Unhandled"
    assert (described["errorType"], described["errorMessage"]) == (kind, message)
    assert message in run.log
    assert described["trace" if runtime == "node" else "stackTrace"]
    running.runner.run(value(target, script(runtime, "result = 1", "return 1")))
    assert target.pids == before


@EACH
def test_what_cannot_be_json_is_an_error(running: Bench, code: Path, runtime: str) -> None:
    failing = script(runtime, "result = {1, 2}", "return 1n")
    kind, message = running.runner.run(error(running.pool(code, runtime), failing))
    if runtime == "node":
        assert (kind, message) == ("Error", "Unable to stringify response body")
    else:
        assert kind == "Runtime.MarshalError"
        assert message.startswith("Unable to ")


@PYTHONS
def test_bytes_are_answered_as_they_are(running: Bench, code: Path, runtime: str) -> None:
    run = running.runner.run(ask(running.pool(code, runtime), "result = b'no JSON {'"))
    assert (run.payload, run.error) == (b"no JSON {", "")


@PYTHONS
def test_a_decimal_is_a_number_as_it_is_written(running: Bench, code: Path, runtime: str) -> None:
    made = """
from decimal import Decimal
result = [Decimal(text) for text in ("1.50", "7", "1E+2", "0.1234567890123456789", "-NaN")]
"""
    run = running.runner.run(ask(running.pool(code, runtime), made))
    assert run.payload == b"[1.50, 7, 1E+2, 0.1234567890123456789, NaN]"


@pytest.mark.parametrize("client", ["awslambdaric", "python"])
@pytest.mark.parametrize(
    ("version", "sent"), [("", '"größer \u2028"'), (" 3.11", '"gr\\u00f6\\u00dfer \\u2028"')]
)
def test_texts_are_escaped_up_to_python_3_11(
    running: Bench, code: Path, client: str, version: str, sent: str
) -> None:
    run = running.runner.run(ask(running.pool(code, client + version), "result = 'größer \u2028'"))
    assert run.payload.decode() == sent


def test_python_errors_and_contexts_are_those_of_awss_client(running: Bench, code: Path) -> None:
    """The same text, with either client: nothing but the traceback's own columns would differ."""
    found = []
    for runtime in ("awslambdaric", "python"):
        raised = running.runner.run(
            ask(running.pool(code, runtime, "shipped"), code="größer", count=6)
        )
        shown = "result = [repr(context).split('log_stream_name')[0], repr(context.identity), "
        shown += "repr(context).split('$LATEST')[-1], context.tenant_id, context.w3c()]"
        shown = running.runner.run(value(running.pool(code, runtime), shown))
        found.append((raised.payload, shown))
    assert found[0] == found[1]
    described = json.loads(found[0][0])
    assert "^" not in "".join(described["stackTrace"])
    assert described["requestId"] == "request-1"


@EACH
@pytest.mark.parametrize(
    ("module", "function", "kind"),
    [
        ("nowhere", "f", "Runtime.ImportModuleError"),
        ("broken", "f", "Runtime.ImportModuleError"),
        ("syntax", "handler", "Runtime.UserCodeSyntaxError"),
        ("", "missing", "Runtime.HandlerNotFound"),
        ("leaving", "f", "Runtime.ExitError"),
    ],
)
def test_code_that_cannot_start_says_why(
    code: Path, runtime: str, module: str, function: str, kind: str
) -> None:
    async def scenario() -> Run:
        target = pool(code, runtime, function, module=module)
        try:
            return await ask(target)
        finally:
            await target.close()

    run = asyncio.run(scenario())
    described = json.loads(run.payload)
    message = described["errorMessage"]
    assert described["errorType"] == kind
    assert run.usage is not None
    assert run.usage.used_megabytes > 5
    if kind == "Runtime.ExitError":
        words = "RequestId: request-1 Error: Runtime exited with error: exit status 7"
        assert (message, run.cause) == (words, f"{words}\nRuntime.ExitError\n")
        assert "leaving" in run.log
    elif kind == "Runtime.ImportModuleError":
        assert ("nowhere" if module == "nowhere" else "nothing") in message


@EACH
def test_an_answer_that_is_too_large_is_refused(running: Bench, code: Path, runtime: str) -> None:
    target = running.pool(code, runtime)
    # two quotes make the most that is allowed
    most = MAX_ANSWER - 2
    made = script(runtime, "result = 'x' * {}", "return 'x'.repeat({})")
    assert len(running.runner.run(ask(target, made.format(most))).payload) == MAX_ANSWER
    assert running.runner.run(error(target, made.format(most + 1))) == (
        "Function.ResponseSizeTooLarge",
        "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    )
    assert running.runner.run(value(target, script(runtime, "result = 1", "return 1"))) == 1


# --- Node: what AWS's runtime interface client does, for each runtime by its name -----------------


def test_what_a_node_handler_returns_counts_if_it_is_a_promise(running: Bench, code: Path) -> None:
    """Up to Node.js 22; otherwise it is to call back, and null is the answer if it does not."""
    for function in ("returned", "silent"):
        assert running.runner.run(ask(running.pool(code, "node", function), a=1)).payload == b"null"
    called_back = running.runner.run(value(running.pool(code, "node", "callback"), a=1))
    assert called_back == {"event": {"a": 1}}
    returned = running.runner.run(value(running.pool(code, "node 24", "returned"), a=1))
    assert returned == {"event": {"a": 1}}


def test_node_24_takes_no_callbacks(running: Bench, code: Path) -> None:
    kind, message = running.runner.run(error(running.pool(code, "node 24", "callback")))
    assert kind == "Runtime.CallbackHandlerDeprecated"
    assert message.startswith("ERROR: AWS Lambda has removed support for callback-based function")
    members = "return ['succeed', 'fail', 'done', 'callbackWaitsForEmptyEventLoop']"
    asked = f"{members}.filter((name) => name in context)"
    assert len(running.runner.run(value(running.pool(code, "node"), asked))) == 4
    assert running.runner.run(value(running.pool(code, "node 24"), asked)) == []


@pytest.mark.parametrize("waits", [True, False])
def test_a_callback_waits_for_an_empty_event_loop_unless_told_not_to(
    running: Bench, code: Path, waits: bool
) -> None:
    run = running.runner.run(ask(running.pool(code, "node", "early"), waits=waits))
    assert json.loads(run.payload) is waits
    assert ("later" in run.log) is waits


def test_a_node_promise_that_is_never_settled_is_an_error(running: Bench, code: Path) -> None:
    kind, message = running.runner.run(error(running.pool(code, "node", "unsettled")))
    assert kind == "Runtime.NodeJsExit"
    assert "caused by a Promise that was never settled" in message
    assert running.runner.run(error(running.pool(code, "node 24", "unsettled"))) == (
        "Runtime.ExitError",
        "RequestId: request-1 Error: Runtime exited without providing a reason",
    )


@pytest.mark.parametrize(
    ("runtime", "thrown", "described"),
    [
        ("node", "no", ("string", "no")),
        ("node", {"message": "no"}, ("object", "[object Object]")),
        ("node", {"name": "N", "message": "no", "stack": "at"}, ("N", "no")),
        ("node 24", {"name": "N", "message": "no", "stack": "at"}, ("object", "[object Object]")),
    ],
)
def test_what_is_thrown_in_node_is_described(
    running: Bench, code: Path, runtime: str, thrown: object, described: tuple[str, str]
) -> None:
    target = running.pool(code, runtime, "thrown")
    assert running.runner.run(error(target, thrown=thrown)) == described


def test_node_24_names_what_cannot_be_json_itself(running: Bench, code: Path) -> None:
    assert running.runner.run(error(running.pool(code, "node 24"), "return 1n")) == (
        "Runtime.JSONStringifyError",
        "Unable to stringify response body",
    )


def test_node_handlers_may_use_the_context_to_answer(running: Bench, code: Path) -> None:
    assert running.runner.run(value(running.pool(code, "node", "succeeding"))) == "done"
    failing = running.pool(code, "node", "failing")
    assert running.runner.run(error(failing)) == ("RangeError", "called back")


def test_node_handlers_may_be_modules(running: Bench, code: Path) -> None:
    answer = running.runner.run(value(running.pool(code, "node", "echo", module="module"), a=1))
    assert answer["event"] == {"a": 1}
    assert "fleetgate-function-" in answer["tmpdir"]


def test_an_error_nobody_catches_ends_a_node_process_and_is_told(
    running: Bench, code: Path
) -> None:
    target = running.pool(code, "node")
    thrown = "setTimeout(() => { throw new EvalError('later') }, 1); await new Promise(() => {})"
    assert running.runner.run(error(target, thrown)) == ("EvalError", "later")
    rejected = "Promise.reject(new Error('left alone')); await new Promise(() => {})"
    assert running.runner.run(error(target, rejected)) == (
        "Runtime.UnhandledPromiseRejection",
        "Error: left alone",
    )
    assert running.runner.run(value(target, "return 1")) == 1


@PYTHONS
def test_logging_names_the_request(running: Bench, code: Path, runtime: str) -> None:
    logged = "import logging; logging.getLogger('x').warning('low stock')"
    run = running.runner.run(ask(running.pool(code, runtime), logged))
    assert run.log.startswith("[WARNING]\t")
    assert run.log.endswith("Z\trequest-1\tlow stock\n")
