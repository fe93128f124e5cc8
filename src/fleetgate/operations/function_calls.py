"""Invoke: the Lambda API's own way to run a function.

Whoever may call lambda:InvokeFunction may run any function there is, those of the configuration
too. This is no call of AWS IoT: a resource policy lets callers in only where it lets everybody
(operations/authorization.py). A run that failed is an answer of its own kind
(``X-Amz-Function-Error``), as with Lambda.

Sources: Lambda API reference, Invoke; Lambda developer guide, "Lambda quotas", "Invoking a function
asynchronously"; AWS's words in refusals.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from typing import Any

import msgspec

from fleetgate.errors import (
    InvalidRequestContentException,
    RequestEntityTooLargeException,
    ResourceNotFoundException,
    TooManyRequestsException,
)
from fleetgate.functions.configured import LambdaEndpoint
from fleetgate.functions.target import Failure, FunctionError, Run
from fleetgate.operations import function_names
from fleetgate.operations.call import Call
from fleetgate.operations.function_logs import log_result
from fleetgate.operations.function_permissions import CONFIGURED
from fleetgate.operations.invocation import Resolved, resolve, run_on
from fleetgate.store import functions

log = logging.getLogger("fleetgate.functions")

MAX_EVENT = 6_291_456
"""Bytes of an event whose answer is awaited (Lambda developer guide, "Lambda quotas")."""

MAX_ASYNCHRONOUS_EVENT = 1_048_576
"""Bytes of an event whose answer is not awaited (the same)."""

START_SECONDS = 10.0
"""What a run may take beside its own time-out: unpacking, starting, waiting for a process."""


async def invoke(
    call: Call,
    function_name: str,
    invocation_type: str = "RequestResponse",
    log_type: str = "None",
    payload: bytes = b"",
    qualifier: str | None = None,
) -> dict[str, Any]:
    """Invoke: runs a function and answers what it answers, or lets it run (``Event``)."""
    name = function_names.latest(call.account, function_name, qualifier)
    event = _event(payload, invocation_type)
    function, seconds = await _resolved(call, name)
    executed = {"ExecutedVersion": function_names.LATEST}
    began = time.monotonic()
    if invocation_type == "DryRun":
        return {"StatusCode": 204, **executed}
    if invocation_type == "Event":
        background = call.services.background
        if background.is_full:
            raise TooManyRequestsException(
                "too many asynchronous invocations are going on; try again later"
            )
        background.start(_unwatched(call, function, event, seconds))
        return {"StatusCode": 202}
    run = await _run(call, function, event, seconds)
    answer: dict[str, Any] = {"StatusCode": 200, "Payload": run.payload, **executed}
    if run.error:
        answer["FunctionError"] = run.error
    if log_type == "Tail":
        log = run.log
        if not isinstance(call.services.functions.configured.get(name), LambdaEndpoint):
            # what runs elsewhere comes with the log of that Lambda
            log = log_result(call.request_id, run, time.monotonic() - began)
        answer["LogResult"] = base64.b64encode(log.encode(errors="replace")).decode()
    return answer


def too_large(limit: int) -> RequestEntityTooLargeException:
    """What Lambda says of an event whose answer is awaited and that has more than `limit` bytes."""
    return RequestEntityTooLargeException(
        f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
    )


def _event(payload: bytes, invocation_type: str) -> bytes:
    """The event, which is JSON: ``{}`` when nothing was sent."""
    if len(payload) > MAX_EVENT:
        raise too_large(MAX_EVENT)
    if invocation_type == "Event" and len(payload) > MAX_ASYNCHRONOUS_EVENT:
        raise RequestEntityTooLargeException(
            f"{len(payload)} byte payload is too large for the Event invocation type "
            f"(limit {MAX_ASYNCHRONOUS_EVENT} bytes)"
        )
    if not payload:
        return b"{}"
    try:
        payload.decode()
        msgspec.json.decode(payload, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestContentException(
            f"Could not parse request body into json: {str(error)[:200]}"
        ) from None
    return payload


async def _resolved(call: Call, name: str) -> tuple[Resolved, float]:
    """What runs the function, and how many seconds it is given."""
    try:
        function = await resolve(call, name)
    except FunctionError as error:
        if error.kind is not Failure.NO_FUNCTION:
            raise ResourceNotFoundException(error.message) from None
        raise ResourceNotFoundException(
            f"Function not found: {call.account.lambda_arn(name)}"
        ) from None
    if function.origin == CONFIGURED:
        configured = call.services.functions.configured.get(name)
        seconds = getattr(configured, "timeout_seconds", call.services.hook_seconds)
        return function, seconds + START_SECONDS
    stored = await call.read(functions.find_function, name)
    return function, (0 if stored is None else stored.timeout_seconds) + START_SECONDS


async def _run(call: Call, function: Resolved, event: bytes, seconds: float) -> Run:
    """Runs a function; what kept it from answering is told as Lambda tells a run that failed.

    Raises TooManyRequestsException.
    """
    try:
        async with asyncio.timeout(seconds):
            run = await run_on(call, function, event, seconds=seconds)
    except TimeoutError:
        run = _failed(call, f"Task timed out after {seconds:.2f} seconds", "Sandbox.Timedout")
    except FunctionError as error:
        if error.kind is Failure.THROTTLED:
            raise TooManyRequestsException(
                f"Rate Exceeded. ({error.message})",
                Reason="ReservedFunctionConcurrentInvocationLimitExceeded",
            ) from None
        run = _failed(call, error.message, _TYPES.get(error.kind, "Runtime.Unknown"))
    log.info(
        "event=invoked request=%s function=%s target=%r error=%r",
        call.request_id,
        function.name,
        function.description,
        run.error and run.payload[:500].decode(errors="replace"),
    )
    return run


async def _unwatched(call: Call, function: Resolved, event: bytes, seconds: float) -> None:
    """A run whose answer nobody awaits: the log has what became of it."""
    try:
        await _run(call, function, event, seconds)
    except TooManyRequestsException as error:
        log.warning(
            "event=not-invoked request=%s function=%s cause=%r",
            call.request_id,
            function.name,
            error.message,
        )
    except Exception:
        log.exception("event=defect request=%s function=%s", call.request_id, function.name)


_TYPES = {
    Failure.TIMED_OUT: "Sandbox.Timedout",
    Failure.NOT_STARTED: "Runtime.InvalidEntrypoint",
    Failure.TOO_LARGE: "Function.ResponseSizeTooLarge",
}


def _failed(call: Call, message: str, kind: str) -> Run:
    described = {"errorType": kind, "errorMessage": message}
    cause = f"RequestId: {call.request_id} Error: {message}\n{kind}\n"
    return Run(msgspec.json.encode(described), error="Unhandled", cause=cause)
