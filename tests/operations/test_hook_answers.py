"""The answers of hooks that are no, or none at all, and what is said of them.

Sources: AWS IoT developer guide, "Pre-provisioning hooks"; AWS Lambda developer guide, "AWS Lambda
function errors in Python".
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleetgate.errors import AccessDeniedException
from fleetgate.functions.target import FunctionError, Run
from fleetgate.operations import hooks
from fleetgate.operations.invocation import Resolved, answered
from tests.operations.conftest import Registry
from tests.operations.hooks import (
    ALLOW,
    ARN,
    FAILED,
    REFUSED,
    Here,
    answer,
    hook,
    lines,
    over,
    run_of,
)
from tests.operations.test_provisioning import create, register, set_up, status
from tests.operations.test_register_again import picture

MALFORMED = "the answer of the hook cannot be used: "
MISSING = MALFORMED + "`allowProvisioning` is missing; it has "
TEXT = "the answer of function `f` (configured python:test:here) cannot be used: "

NO: dict[str, tuple[Any, str, str]] = {
    # answer, kind, reason
    "false": ({"allowProvisioning": False}, "denied", "`allowProvisioning` is `false`"),
    "false-text": ({"allowProvisioning": "false"}, "denied", '`allowProvisioning` is `"false"`'),
    "empty": ({}, "malformed", MISSING + "no members"),
    "other-case": ({"AllowProvisioning": True}, "malformed", MISSING + "`AllowProvisioning`"),
    # what API Gateway wants of a function
    "proxy": ({"statusCode": 200, "body": "{}"}, "malformed", MISSING + "`body`, `statusCode`"),
    "True-text": (
        {"allowProvisioning": "True"},
        "malformed",
        MALFORMED + '`allowProvisioning` must be true or "true", not `"True"`',
    ),
    "one": ({"allowProvisioning": 1}, "malformed", MALFORMED + "`allowProvisioning` must be true"),
    "one-text": ({"allowProvisioning": "1"}, "malformed", 'must be true or "true", not `"1"`'),
    "null": ({"allowProvisioning": None}, "malformed", 'must be true or "true", not `null`'),
    "list": ({"allowProvisioning": [True]}, "malformed", 'must be true or "true", not `[true]`'),
    "no-object": (None, "malformed", TEXT + "it must be a JSON object, not `null`"),
    "boolean": (True, "malformed", TEXT + "it must be a JSON object, not `true`"),
    "text": ("true", "malformed", TEXT + 'it must be a JSON object, not `"true"`'),
    "array": ([ALLOW], "malformed", TEXT + "it must be a JSON object, not `[{"),
    "nothing": (b"", "malformed", TEXT + "it is not JSON: expecting value at column 1"),
    "python": (
        b"{'allowProvisioning': True}",
        "malformed",
        TEXT + "it is not JSON: expecting prop",
    ),
    "twice": (
        b'{"allowProvisioning": false, "allowProvisioning": true}',
        "malformed",
        TEXT + "`allowProvisioning` occurs twice in one object",
    ),
    "not-utf-8": (b'{"allowProvisioning": true, "\xff": 1}', "malformed", "not UTF-8 at byte 29"),
    "deep": (b'{"allowProvisioning":true,"a":' + b"[" * 20_000, "malformed", "nested more than 16"),
    "surrogate": (
        b'{"allowProvisioning": true, "parameterOverrides": {"k": "\\ud800"}}',
        "malformed",
        TEXT + "it holds half of a surrogate pair",
    ),
    "NaN": (b'{"allowProvisioning": true, "x": NaN}', "malformed", TEXT + "`NaN` is not JSON"),
    "large": (
        {**ALLOW, "x": "y" * 1_000_000},
        "too-large",
        "function `f` (configured python:test:here) answered 1000036 bytes; the limit is 131072",
    ),
    "overrides-list": (
        over(["k"]),
        "malformed",
        '`parameterOverrides` must be an object, not `["k"]`',
    ),
    "overrides-text": (
        over("{}"),
        "malformed",
        '`parameterOverrides` must be an object, not `"{}"`',
    ),
    "override-number": (
        over({"n": 1}),
        "malformed",
        "`parameterOverrides`.`n` must be a string, not `1`",
    ),
    "override-null": (
        over({"n": None}),
        "malformed",
        "`parameterOverrides`.`n` must be a string, not `null`",
    ),
    "override-object": (
        over({"n": {"a": "b"}}),
        "malformed",
        '`n` must be a string, not `{"a":"b"}`',
    ),
    "override-long": (over({"n": "x" * 4097}), "malformed", "not 1 and 4097"),
    "override-name": (over({"": "x"}), "malformed", "not 0 and 1"),
    # what Lambda says of a run that came to no answer
    "exception": (
        Run(
            b'{"errorMessage": "no\\nsuch \\u001b[31mserial", "errorType": "KeyError", '
            b'"stackTrace": ["secret"]}',
            error="Unhandled",
        ),
        "failed",
        "here) failed (Unhandled): KeyError: no\\u000asuch \\u001b[31mserial",
    ),
    "exit": (
        Run(
            b'{"errorMessage": "RequestId: 1 Error: Runtime exited with error: exit status 1", '
            b'"errorType": "Runtime.ExitError"}',
            error="Unhandled",
        ),
        "failed",
        "Runtime.ExitError: RequestId: 1 Error: Runtime exited with error: exit status 1",
    ),
    "own-time-out": (
        Run(
            b'{"errorMessage": "Task timed out", "errorType": "Sandbox.Timedout"}',
            error="Unhandled",
        ),
        "timed-out",
        "Sandbox.Timedout: Task timed out",
    ),
    "says-nothing": (Run(b"null", error="Unhandled"), "failed", "failed (Unhandled): "),
    "long-message": (
        Run(json.dumps({"errorMessage": "x" * 9000}).encode(), error="Unhandled"),
        "failed",
        "x" * 500,
    ),
}


F = Resolved("f", ARN, "configured", Here(str))


@pytest.mark.parametrize(("value", "kind", "reason"), NO.values(), ids=NO)
def test_these_answers_are_no(value: Any, kind: str, reason: str) -> None:
    if kind == "denied":
        assert hooks.verdict(answered(F, run_of(value))) == (reason, {})
        return
    with pytest.raises(FunctionError) as caught:
        hooks.verdict(answered(F, run_of(value)))
    assert caught.value.kind == kind
    assert reason in caught.value.message
    assert len(caught.value.message) < 700


TOLD = ("false", "proxy", "large", "override-number", "exception")


@pytest.mark.parametrize(("value", "kind", "reason"), [NO[name] for name in TOLD], ids=TOLD)
def test_such_an_answer_builds_nothing(
    registry: Registry,
    caplog: pytest.LogCaptureFixture,
    value: Any,
    kind: str,
    reason: str,
) -> None:
    set_up(registry)
    hook(registry, answer(value))
    created = create(registry)
    before = picture(registry)
    with pytest.raises(AccessDeniedException) as caught:
        register(registry, created)
    assert caught.value.message == (REFUSED if kind == "denied" else FAILED)
    assert picture(registry) == before
    assert status(registry, created) == "PENDING_ACTIVATION"
    [said] = lines(caplog)
    outcome = "refused" if kind == "denied" else "failed"
    assert said.startswith(
        f"event=hook-{outcome} template=T certificate={created['certificateId']} client='client' "
        f"function={ARN} request=request target='configured python:test:here' kind={kind} "
    )
    assert repr(reason)[1:-1] in said
    assert "\n" not in said
    assert "secret" not in said
    # the token is as good as before
    remove = {"template_name": "T", "remove_pre_provisioning_hook": True}
    registry.call("UpdateProvisioningTemplate", **remove)
    assert register(registry, created)["thingName"] == "dev-1"


def test_a_verdict_names_member_and_value() -> None:
    assert hooks.verdict({"allowProvisioning": "true"}) == ("", {})
    with pytest.raises(FunctionError) as caught:
        hooks.verdict({"allowProvisioning": "x" * 900})
    assert len(caught.value.message) < 300
