"""Tags of uploaded functions, by the operations of the Lambda API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleetgate.errors import (
    InvalidParameterValueException,
    InvalidRequestException,
    LimitExceededException,
    ResourceNotFoundException,
)
from fleetgate.operations import function_names
from fleetgate.operations.call import Call
from fleetgate.operations.function_permissions import is_configured
from fleetgate.operations.tags import add_tags, checked_tags
from fleetgate.store import functions
from fleetgate.store import tags as stored_tags
from fleetgate.store.engine import Tx


async def tag_resource(call: Call, resource: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """TagResource: a key the function has already gets the new value."""
    name = _name(call, resource)
    checked = checked_function_tags(call, tags)

    def change(tx: Tx) -> None:
        _require(tx, call, name)
        add_function_tags(tx, call, call.account.lambda_arn(name), checked)

    await call.write(change)
    return {}


async def untag_resource(call: Call, resource: str, tag_keys: Sequence[str]) -> dict[str, Any]:
    """UntagResource: keys the function does not have are passed over."""
    name = _name(call, resource)

    def change(tx: Tx) -> None:
        _require(tx, call, name)
        stored_tags.remove_tags(tx, call.account.lambda_arn(name), tag_keys)

    await call.write(change)
    return {}


async def list_tags(call: Call, resource: str) -> dict[str, Any]:
    """ListTags: all tags of a function; those of the configuration have none."""
    name = _name(call, resource)

    def find(tx: Tx) -> dict[str, str]:
        if is_configured(call, name):
            return {}
        _require(tx, call, name)
        return stored_tags.list_tags(tx, call.account.lambda_arn(name))

    return {"Tags": await call.read(find)}


def checked_function_tags(call: Call, tags: Mapping[str, str] | None) -> dict[str, str]:
    """The tags of a request. Raises InvalidParameterValueException."""
    try:
        return checked_tags(call, [{"Key": k, "Value": v} for k, v in (tags or {}).items()])
    except InvalidRequestException as error:
        raise InvalidParameterValueException(error.message) from None


def add_function_tags(tx: Tx, call: Call, arn: str, checked: Mapping[str, str]) -> None:
    """Gives a function tags beside those it has. Raises InvalidParameterValueException."""
    try:
        add_tags(tx, call, arn, checked)
    except LimitExceededException as error:
        raise InvalidParameterValueException(error.message) from None


def _name(call: Call, resource: str) -> str:
    """The function a resource ARN names. Raises InvalidParameterValueException."""
    prefix = call.account.lambda_arn("")
    if not resource.startswith(prefix):
        raise InvalidParameterValueException(
            f"`{resource[:200]}` is not the ARN of a function of account {call.account.id} in "
            f"{call.account.region} ({prefix}NAME); nothing else takes tags"
        )
    found = function_names.parse(call.account, resource)
    if found.qualifier:
        raise InvalidParameterValueException(
            "Tags on function aliases and versions are not supported. Please specify either a "
            "function ARN without a qualifier."
        )
    return found.name


def _require(tx: Tx, call: Call, name: str) -> None:
    arn = call.account.lambda_arn(name)
    if is_configured(call, name):
        raise InvalidParameterValueException(
            f"{arn} is a function of the configuration, which takes no tags"
        )
    if functions.find_function(tx, name) is None:
        raise ResourceNotFoundException(f"Function not found: {arn}")
