"""Which requests may have a large body: those that carry the code of a function, or an event.

A signature covers the body, so that nobody is known for sure before all of it is there. What can
be told earlier is asked earlier: the access key is one of ours and in force (authentication.py),
and some policy of its owner allows the action on something. How much of such bodies there may be at
a time is bounded too (bodies.py).
"""

from __future__ import annotations

from fleetgate.domain.limits import Limits
from fleetgate.errors import RequestEntityTooLargeException
from fleetgate.gateway.bodies import MAX_BODY
from fleetgate.operations.caller import Caller
from fleetgate.operations.function_calls import MAX_EVENT, too_large

_ACTIONS = {
    "CreateFunction": "lambda:CreateFunction",
    "Invoke": "lambda:InvokeFunction",
    "UpdateFunctionCode": "lambda:UpdateFunctionCode",
}


def room(limits: Limits, caller: Caller, operation: str) -> int:
    """Bytes the body of an operation of Lambda may have, sent by this caller."""
    action = _ACTIONS.get(operation)
    if action is None or not all(policies.may_allow(action) for policies in caller.held):
        return MAX_BODY
    if operation == "Invoke":
        return MAX_EVENT
    return 4 * ((limits.function_code + 2) // 3) + MAX_BODY  # base64, and the other members


def told(error: RequestEntityTooLargeException, limit: int) -> RequestEntityTooLargeException:
    """The refusal of a body that may have `limit` bytes, in Lambda's words for an event."""
    return too_large(limit) if limit == MAX_EVENT else error
