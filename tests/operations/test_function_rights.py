"""Rights on functions, whose only version is known by two names.

Source: AWS Lambda developer guide, "Resources and conditions for Lambda actions": a policy names a
function with the qualifier, or without it, as requests do.
"""

from __future__ import annotations

from typing import Any

import pytest

from fleetgate.operations.authorization import require
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.store.tags import update_tags
from tests.operations.conftest import START, Registry
from tests.operations.iam import ACCOUNT
from tests.operations.test_authorization import Asker, caller, statement

PREFIX = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:"
F, LATEST = f"{PREFIX}f", f"{PREFIX}f:$LATEST"
EVERYTHING = statement("lambda:*")
NAMES: list[dict[str, Any]] = [
    {"function_name": "f"},
    {"function_name": "f:$LATEST"},
    {"function_name": "f", "qualifier": "$LATEST"},
    {"function_name": F},
    {"function_name": LATEST},
    {"function_name": f"{ACCOUNT}:f:$LATEST"},
    {"function_name": "function:f", "qualifier": "$LATEST"},
]


def deny(resource: str | list[str], **more: Any) -> Any:
    return {"Effect": "Deny", "Action": "lambda:*", "Resource": resource, **more}


@pytest.fixture
def ask(registry: Registry) -> Asker:
    return Asker(registry)


@pytest.mark.parametrize("denied", [F, LATEST, f"{PREFIX}f*", f"{PREFIX}?:$LATEST"])
@pytest.mark.parametrize("operation", ["Invoke", "GetFunction", "GetFunctionConfiguration"])
def test_who_is_denied_a_function_is_denied_it_by_every_name(
    ask: Asker, denied: str, operation: str
) -> None:
    by_user = caller(EVERYTHING, deny(denied))
    by_session = caller(EVERYTHING, session=[EVERYTHING, deny(denied)])
    for name in NAMES:
        said = ask.refuses(by_user, operation, "lambda", **name)
        assert "with an explicit deny in an identity-based policy" in said
        said = ask.refuses(by_session, operation, "lambda", **name)
        assert "with an explicit deny in a session policy" in said
    for other in ("ff", "g", "g:$LATEST"):
        if denied != f"{PREFIX}f*" and "?" not in denied:
            ask(by_user, operation, "lambda", function_name=other)


@pytest.mark.parametrize(
    ("allowed", "unqualified", "latest"),
    [(F, True, False), (LATEST, False, True), (f"{F}:*", False, True), (f"{F}*", True, True)],
)
def test_what_is_allowed_is_the_name_that_is_asked_for(
    ask: Asker, allowed: str, unqualified: bool, latest: bool
) -> None:
    who = caller(statement("lambda:*", allowed))
    for name in NAMES:
        if latest if "$LATEST" in str(name) else unqualified:
            ask(who, "Invoke", "lambda", **name)
        else:
            said = ask.refuses(who, "Invoke", "lambda", **name)
            assert "because no identity-based policy allows" in said


def test_what_a_denial_spares_is_spared(ask: Asker) -> None:
    """A Deny by NotResource concerns what it does not name, as it is asked for."""
    spare = {"Effect": "Deny", "Action": "lambda:*", "NotResource": F}
    who = caller(EVERYTHING, spare)
    ask(who, "Invoke", "lambda", function_name="f")
    ask.refuses(who, "Invoke", "lambda", function_name="f:$LATEST")
    ask.refuses(who, "Invoke", "lambda", function_name="g")


def test_tags_are_those_of_the_function(registry: Registry, ask: Asker) -> None:
    registry.runner.run(registry.services.store.write(update_tags, F, {"secret": "yes"}))
    tagged = {"StringEquals": {"aws:ResourceTag/secret": "yes"}}
    denied = caller(EVERYTHING, deny("*", Condition=tagged))
    allowed = caller(statement("lambda:*", Condition=tagged))
    for name in NAMES:
        ask.refuses(denied, "Invoke", "lambda", **name)
        ask(allowed, "Invoke", "lambda", **name)
    ask(denied, "Invoke", "lambda", function_name="g:$LATEST")


@pytest.mark.parametrize("denied", [F, LATEST])
def test_so_it_is_at_other_doors(registry: Registry, ask: Asker, denied: str) -> None:
    def asked(who: Caller) -> None:
        call = Call(registry.services, "request", START, caller=who)
        registry.runner.run(call.read(lambda tx: require(tx, call)("lambda:InvokeFunction", F, {})))

    asked(caller(EVERYTHING))
    with pytest.raises(Exception, match="explicit deny"):
        asked(caller(EVERYTHING, deny(denied)))
