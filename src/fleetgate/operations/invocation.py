"""The one door through which AWS IoT's side invokes functions: hooks and certificate providers.

Theory of operation. A function is named by its ARN. `resolve` finds what runs it: first the
configuration, then what was uploaded. Whoever invokes it in the name of ``iot.amazonaws.com`` needs
a statement of the function's resource policy for that, wherever the function comes from. Then it
is run on the event, as JSON, and what it answers is read with bounds on size and nesting. All of
this happens outside of any transaction, and while it lasts the caller's turn at the gateway is
given up (`Call.aside`), so that a slow function keeps nobody waiting but those who asked it.

Every way to get no answer is a FunctionError whose message names the function, what ran it, the
rule and the value. It is for the log and for operators; what a device is told is up to the caller.

Sources: AWS IoT developer guide, "Pre-provisioning hooks" and "Self-managed certificate signing";
AWS Lambda developer guide, "Working with resource-based IAM policies in Lambda".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Final

import msgspec

from fleetgate.domain import document as json_document
from fleetgate.domain.document import printable, quoted
from fleetgate.errors import InvalidRequestException, ServiceError
from fleetgate.functions.target import Failure, FunctionError, Run, Target
from fleetgate.names import Account
from fleetgate.operations.built_in import Answer, BuiltInFunction
from fleetgate.operations.call import Call
from fleetgate.operations.function_permissions import CONFIGURED, UPLOADED, invocable
from fleetgate.operations.uploaded_functions import uploaded_target

log = logging.getLogger("fleetgate.functions")

MAX_IOT_ANSWER: Final = 131_072
"""Bytes a hook or a certificate provider may answer: what fits into an MQTT message."""

MAX_DEPTH: Final = 16
"""Nesting of such an answer."""

IOT: Final = "iot.amazonaws.com"

_MARGIN: Final = 0.05  # seconds
_MAX_SHOWN: Final = 500
_NAME: Final = re.compile(r"[a-zA-Z0-9-_]{1,64}")
_LATEST: Final = "$LATEST"

_DESCRIBED: Final = ("errorType", "errorMessage")
# what Lambda calls a run that was ended from outside (Lambda developer guide, "Troubleshoot
# execution issues")
_KINDS: Final = {
    "Sandbox.Timedout": Failure.TIMED_OUT,
    "Function.ResponseSizeTooLarge": Failure.TOO_LARGE,
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A function that can be run, by a `target` or as one of ours.

    `origin` is ``configured`` or ``uploaded``.
    """

    name: str
    arn: str
    origin: str
    target: Target | None = None
    built_in: BuiltInFunction | None = None

    @property
    def description(self) -> str:
        """What operators are told runs it: ``configured python:company.hooks:allow``."""
        runs = self.target or self.built_in
        return self.origin if runs is None else f"{self.origin} {runs.description}"


@dataclass(frozen=True, slots=True)
class Invoked:
    """What a function answered, a JSON object.

    `target` is what ran it and `seconds` how long it took, waiting included; `log` is the end of
    what it wrote. `answer` is there for a function of ours, with what is left to be done.
    """

    value: Mapping[str, Any]
    target: str
    seconds: float
    log: str = ""
    answer: Answer | None = None


def function_name(account: Account, arn: str) -> str:
    """The name in the ARN of a function of this account and region.

    Raises InvalidRequestException for any other ARN, and for a qualifier other than ``$LATEST``.
    """
    prefix = account.lambda_arn("")
    name, _, qualifier = arn.removeprefix(prefix).partition(":")
    rule = ""
    if not arn.startswith(prefix) or not _NAME.fullmatch(name):
        rule = (
            f"is not the ARN of a Lambda function of account {account.id} in {account.region} "
            f"({prefix}NAME)"
        )
    elif arn != prefix + name and qualifier != _LATEST:
        rule = f"names `{qualifier[:80]}`: there are no versions or aliases, {_LATEST} alone"
    if rule:
        raise InvalidRequestException(f"{quoted(printable(arn, 200), 200)} {rule}")
    return name


async def resolve(call: Call, name: str) -> Resolved:
    """What runs the function of this name.

    Raises FunctionError: NO_FUNCTION, or NOT_STARTED for code that cannot be unpacked.
    """
    arn = call.account.lambda_arn(name)
    services = call.services
    if (built_in := services.built_in.get(name)) is not None:
        return Resolved(name, arn, CONFIGURED, built_in=built_in)
    if (target := services.functions.targets.get(name)) is not None:
        return Resolved(name, arn, CONFIGURED, target)
    if (target := await uploaded_target(call, name)) is not None:
        return Resolved(name, arn, UPLOADED, target)
    raise FunctionError(
        Failure.NO_FUNCTION,
        f"there is no function `{name}`: [functions] of the configuration names none, and none "
        "was uploaded",
    )


async def require_permission(call: Call, function: Resolved, source_arn: str) -> None:
    """Returns when AWS IoT may invoke the function on behalf of `source_arn`.

    The policy may name it by either form of its ARN (`Account.known_as`). Raises
    FunctionError(NO_PERMISSION), in the words Lambda refuses a service with.
    """
    asked = (call, function.name, function.origin, IOT)
    decision = await call.read(invocable, *asked, source_arn)
    other_form = call.account.known_as(source_arn)
    if not decision.allowed and other_form != source_arn:
        other = await call.read(invocable, *asked, other_form)
        decision = other if other.allowed else decision
    if not decision.allowed:
        raise FunctionError(
            Failure.NO_PERMISSION,
            f"{IOT} is not authorized to perform: lambda:InvokeFunction on resource: "
            f"{function.arn}: {decision.reason}",
        )


async def invoke_for_iot(
    call: Call,
    function_arn: str,
    source_arn: str,
    event: Mapping[str, Any],
    *,
    seconds: float,
) -> Invoked:
    """Invokes a function as AWS IoT does, on behalf of the resource `source_arn`.

    `seconds` is all there is, everything included. Raises FunctionError.
    """
    began = monotonic()
    resolved: Resolved | None = None
    try:
        async with call.aside(), asyncio.timeout(seconds):
            resolved = await resolve(call, _name(call.account, function_arn))
            await require_permission(call, resolved, source_arn)
            remaining = seconds - (monotonic() - began)
            invoked = await _invoked(call, resolved, event, remaining)
        return replace(invoked, seconds=monotonic() - began)
    except FunctionError as error:
        failure = error
    except TimeoutError:
        failure = FunctionError(
            Failure.TIMED_OUT,
            f"{_named(function_arn, resolved)} did not answer within {seconds:g} s, waiting for "
            "its turn included",
        )
    except ServiceError as error:
        failure = FunctionError(
            Failure.FAILED, f"{_named(function_arn, resolved)} cannot be asked: {error.message}"
        )
    except Exception as error:
        log.exception("event=defect request=%s function=%s", call.request_id, function_arn)
        failure = FunctionError(
            Failure.FAILED,
            f"{_named(function_arn, resolved)} cannot be asked: {type(error).__name__}",
        )
    failure.target = "" if resolved is None else resolved.description
    raise failure from None


async def run_on(call: Call, function: Resolved, event: bytes, *, seconds: float) -> Run:
    """Runs a function on an event (JSON), whoever asked for it. Raises FunctionError.

    A target is given a moment less than `seconds`: it tells best at which step the time ended.
    One of ours only answers: what it would do inside a registration is not done.
    """
    if function.target is not None:
        seconds = max(seconds - _MARGIN, 0.0)
        return await function.target.invoke(event, request_id=call.request_id, seconds=seconds)
    value: Any = None
    with contextlib.suppress(ValueError):
        value = json_document.read(event.decode(), max_depth=MAX_DEPTH)
    if not isinstance(value, dict) or function.built_in is None:
        rule = f"{_shown(function)} takes a JSON object, not {quoted(_excerpt(event))}"
        raise FunctionError(Failure.MALFORMED, rule)
    answer = await function.built_in.answer(call, value)
    return Run(msgspec.json.encode(answer.value))


def answered(function: Resolved, run: Run) -> dict[str, Any]:
    """The JSON object a run answered; raises FunctionError for anything else."""
    if run.error:
        raise _failed(function, run)
    if len(run.payload) > MAX_IOT_ANSWER:
        raise FunctionError(
            Failure.TOO_LARGE,
            f"{_shown(function)} answered {len(run.payload)} bytes; the limit is {MAX_IOT_ANSWER}",
        )
    try:
        value = json_document.read(run.payload.decode(), max_depth=MAX_DEPTH)
    except UnicodeDecodeError as error:
        rule = f"it is not UTF-8 at byte {error.start}"
    except ValueError as error:
        rule = str(error)
    else:
        if isinstance(value, dict):
            return value
        rule = f"it must be a JSON object, not {quoted(_excerpt(run.payload))}"
    raise FunctionError(
        Failure.MALFORMED,
        f"the answer of {_shown(function)} cannot be used: {printable(rule, _MAX_SHOWN)}",
    )


async def _invoked(
    call: Call, function: Resolved, event: Mapping[str, Any], seconds: float
) -> Invoked:
    if function.built_in is not None:
        answer = await function.built_in.answer(call, event)
        return Invoked(answer.value, function.description, 0.0, answer=answer)
    run = await run_on(call, function, msgspec.json.encode(event), seconds=seconds)
    try:
        value = answered(function, run)
    except FunctionError as error:
        error.run = run
        raise
    return Invoked(value, function.description, 0.0, run.log)


def _name(account: Account, function_arn: str) -> str:
    try:
        return function_name(account, function_arn)
    except InvalidRequestException as error:
        raise FunctionError(Failure.NO_FUNCTION, error.message) from None


def _failed(function: Resolved, run: Run) -> FunctionError:
    """What Lambda's description of an error says: errorType and errorMessage."""
    said: Any = None
    with contextlib.suppress(ValueError):
        said = json_document.read(run.payload.decode(), max_depth=MAX_DEPTH)
    if not isinstance(said, dict):
        said = {"errorMessage": _excerpt(run.payload)}
    kind = said.get("errorType")
    words = [printable(str(said[name]), _MAX_SHOWN) for name in _DESCRIBED if said.get(name)]
    return FunctionError(
        _KINDS.get(kind, Failure.FAILED) if isinstance(kind, str) else Failure.FAILED,
        f"{_shown(function)} failed ({printable(run.error, 80)}): "
        f"{': '.join(words) or 'it does not say why'}",
    )


def _excerpt(payload: bytes) -> str:
    return printable(payload[: 4 * _MAX_SHOWN].decode(errors="replace"), 80)


def _shown(function: Resolved) -> str:
    return f"function `{function.name}` ({function.description})"


def _named(function_arn: str, function: Resolved | None) -> str:
    return _shown(function) if function else f"function {quoted(printable(function_arn, 200), 200)}"
