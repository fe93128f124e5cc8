"""What functions are: one by one, in listings, and all together.

A function of the configuration is shown like any other (operations/configured_functions.py), and
hides an uploaded one of the same name.

Source: Lambda API reference.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fleetgate.errors import (
    AccessDeniedException,
    InvalidParameterValueException,
    ResourceNotFoundException,
)
from fleetgate.operations import function_names, pages
from fleetgate.operations.authorization import authorize
from fleetgate.operations.call import Call
from fleetgate.operations.code_links import CodeOfFunction, link
from fleetgate.operations.configured_functions import configured_names, shown
from fleetgate.operations.function_permissions import is_configured
from fleetgate.operations.function_settings import log_group
from fleetgate.store import functions
from fleetgate.store import tags as stored_tags
from fleetgate.store.engine import Tx
from fleetgate.store.functions import UploadedFunction

MAX_LISTED = 50
"""Functions of a page at most (Lambda API reference, ListFunctions, MaxItems)."""

EVERY_VERSION = "ALL"
"""Asks ListFunctions for versions (Lambda API reference, ListFunctions, FunctionVersion)."""


async def get_function(
    call: Call, function_name: str, qualifier: str | None = None
) -> dict[str, Any]:
    """GetFunction: its configuration, a link to its code, and its tags if they may be listed."""
    name = function_names.latest(call.account, function_name, qualifier)
    described = await get_function_configuration(call, function_name, qualifier)
    if is_configured(call, name):
        return {"Configuration": described, "Code": {"RepositoryType": "configured"}}

    def find(tx: Tx) -> tuple[UploadedFunction, dict[str, str]]:
        found = require_uploaded(tx, call, name)
        return found, stored_tags.list_tags(tx, call.account.lambda_arn(name))

    found, tags = await call.read(find)
    location = link(call.services.token_key, CodeOfFunction(name, found.code_id), call.now)
    error = await _tags_refused(call, name)
    return {
        "Configuration": described,
        "Code": {"RepositoryType": "S3", "Location": call.base_url + location},
        "Tags": None if error else tags or None,
        "TagsError": error,
    }


async def get_function_configuration(
    call: Call, function_name: str, qualifier: str | None = None
) -> dict[str, Any]:
    """GetFunctionConfiguration: what GetFunction says without code and tags."""
    name = function_names.latest(call.account, function_name, qualifier)
    if is_configured(call, name):
        found = await shown(call, name)
    else:
        found = configuration(call, await call.read(require_uploaded, call, name))
    if function_names.parse(call.account, function_name, qualifier).qualifier:
        return _as_version(call, found)
    return found


async def list_functions(
    call: Call,
    function_version: str | None = None,
    marker: str | None = None,
    max_items: int = MAX_LISTED,
) -> dict[str, Any]:
    """ListFunctions: by name, those of the configuration among them.

    Of all versions there is one of each, by its own ARN.
    """
    after = _position(call, "ListFunctions", marker)
    limit = min(max_items, MAX_LISTED)
    hidden = configured_names(call)
    found: dict[str, UploadedFunction | None] = {name: None for name in hidden if name > after}
    # those that are hidden by one of the configuration are passed over
    uploaded = await call.read(functions.list_functions, after, limit + 1 + len(hidden))
    for each in uploaded:
        found.setdefault(each.function_name, each)
    names = sorted(found, key=str.encode)[: limit + 1]
    items, following = pages.page(call, "ListFunctions", names, limit, lambda name: (name,))
    listed = []
    for name in items:
        function = found[name]
        listed.append(
            await shown(call, name) if function is None else configuration(call, function)
        )
    if function_version == EVERY_VERSION:
        listed = [_as_version(call, each) for each in listed]
    return {"Functions": listed, "NextMarker": following}


async def list_versions_by_function(
    call: Call,
    function_name: str,
    marker: str | None = None,
    max_items: int = MAX_LISTED,  # noqa: ARG001 - there is one version
) -> dict[str, Any]:
    """ListVersionsByFunction: ``$LATEST``, since functions are not published."""
    name = function_names.latest(call.account, function_name)
    _position(call, "ListVersionsByFunction", marker)
    found = await get_function_configuration(call, name)
    return {"Versions": [_as_version(call, found)]}


async def get_function_code_signing_config(call: Call, function_name: str) -> dict[str, Any]:
    """GetFunctionCodeSigningConfig: none, code is not signed here."""
    name = function_names.latest(call.account, function_name)
    await get_function_configuration(call, name)
    return {"FunctionName": name}


async def get_account_settings(call: Call) -> dict[str, Any]:
    """GetAccountSettings: the limits of functions, and how much of them is used."""
    limits = call.services.limits
    count, size = await call.read(functions.count_functions)
    return {
        "AccountLimit": {
            "TotalCodeSize": limits.function_storage,
            "CodeSizeUnzipped": limits.function_code_unzipped,
            "CodeSizeZipped": limits.function_code,
            "ConcurrentExecutions": limits.function_concurrency * limits.functions,
            "UnreservedConcurrentExecutions": limits.function_concurrency * limits.functions,
        },
        "AccountUsage": {"TotalCodeSize": size, "FunctionCount": count},
    }


def configuration(call: Call, function: UploadedFunction) -> dict[str, Any]:
    """What an uploaded function is answered as (FunctionConfiguration of the model)."""
    name = function.function_name
    return {
        "FunctionName": name,
        "FunctionArn": call.account.lambda_arn(name),
        "Runtime": function.runtime,
        "Role": function.role_arn,
        "Handler": function.handler,
        "CodeSize": function.code_bytes,
        "Description": function.description,
        "Timeout": function.timeout_seconds,
        "MemorySize": function.memory_megabytes,
        "LastModified": _time(function.modified_at),
        "CodeSha256": function.code_sha256,
        "Version": function_names.LATEST,
        "Environment": {"Variables": function.variables} if function.variables else None,
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": function.revision_id,
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Architectures": [function.architecture],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": log_group(name)},
    }


def require_uploaded(tx: Tx, call: Call, name: str) -> UploadedFunction:
    """The uploaded function; raises ResourceNotFoundException when there is none of this name."""
    found = functions.find_function(tx, name)
    if found is None:
        raise ResourceNotFoundException(f"Function not found: {call.account.lambda_arn(name)}")
    return found


def _as_version(call: Call, described: dict[str, Any]) -> dict[str, Any]:
    """A function as the version it is, which has an ARN of its own."""
    arn = call.account.lambda_arn(f"{described['FunctionName']}:{function_names.LATEST}")
    return {**described, "FunctionArn": arn}


async def _tags_refused(call: Call, name: str) -> dict[str, str] | None:
    """Why the caller does not see the tags of a function (TagsError of the model), if so."""
    try:
        await authorize(call, "lambda", "ListTags", {"resource": call.account.lambda_arn(name)})
    except AccessDeniedException as error:
        return {"ErrorCode": error.code(), "Message": error.message}
    return None


def _position(call: Call, operation: str, marker: str | None) -> str:
    position = pages.start(call, operation, marker, InvalidParameterValueException)
    return "" if position is None else str(position[0])


def _time(seconds: float) -> str:
    """``2026-01-31T12:00:00.000+0000``, Lambda's own form."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"
