"""Lambda functions: those that are uploaded, and those of the configuration beside them.

A function of the configuration is shown, may be invoked and has a resource policy like any other;
what it is, the configuration says, and nothing here changes it. It hides an uploaded one of the
same name. An uploaded function has one version, ``$LATEST``, is active at once, and is run by
functions/runner.py when it is invoked.

Sources: Lambda API reference; AWS's words in refusals where they are known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fleetgate.errors import (
    InvalidParameterValueException,
    PreconditionFailedException,
    ResourceConflictException,
    ServiceError,
    TooManyRequestsException,
)
from fleetgate.functions.target import FunctionError
from fleetgate.operations import function_names
from fleetgate.operations import function_settings as settings
from fleetgate.operations.call import Call
from fleetgate.operations.function_code import (
    Code,
    check_storage,
    checked_code,
    require_stored,
    store_code,
)
from fleetgate.operations.function_descriptions import configuration, require_uploaded
from fleetgate.operations.function_permissions import UPLOADED, is_configured
from fleetgate.operations.function_tags import add_function_tags, checked_function_tags
from fleetgate.operations.uploaded_functions import uploaded_target
from fleetgate.store import functions
from fleetgate.store import tags as stored_tags
from fleetgate.store.engine import OutcomeUnknown, Tx
from fleetgate.store.functions import UploadedFunction

log = logging.getLogger("fleetgate.functions")

Members = Mapping[str, Any]

T = TypeVar("T")


# --- creating and changing -----------------------------------------------------------------


async def create_function(
    call: Call,
    function_name: str,
    role: str,
    code: Members,
    runtime: str | None = None,
    handler: str | None = None,
    description: str = "",
    timeout: int = settings.TIMEOUT_SECONDS,  # noqa: ASYNC109 - the model's name
    memory_size: int = settings.MEMORY_MEGABYTES,
    vpc_config: Members | None = None,
    package_type: str = "Zip",
    environment: Members | None = None,
    tracing_config: Members | None = None,
    tags: Mapping[str, str] | None = None,
    architectures: Sequence[str] | None = None,
    ephemeral_storage: Members | None = None,
    snap_start: Members | None = None,
    logging_config: Members | None = None,
) -> dict[str, Any]:
    """CreateFunction: from a zip, for one of the runtimes of this server."""
    name = function_names.latest(call.account, function_name)
    _refuse_configured(call, name, "created")
    settings.check_package(package_type)
    settings.check_fixed(
        name,
        VpcConfig=vpc_config,
        TracingConfig=tracing_config,
        EphemeralStorage=ephemeral_storage,
        SnapStart=snap_start,
        LoggingConfig=logging_config,
    )
    checked_tags = checked_function_tags(call, tags)
    function = UploadedFunction(
        function_name=name,
        description=description,
        runtime=settings.check_runtime(runtime),
        handler=settings.check_handler(handler),
        role_arn=await settings.check_role(call, role, name),
        timeout_seconds=settings.check_timeout(timeout),
        memory_megabytes=settings.check_memory(memory_size),
        environment=settings.check_environment(call, environment),
        architecture=settings.check_architecture(architectures),
        code_id="",
        code_sha256="",
        code_bytes=0,
        revision_id=call.services.new_id(),
        created_at=call.now,
        modified_at=call.now,
    )
    checked = await checked_code(call, code)

    def check(tx: Tx) -> None:
        if functions.find_function(tx, name) is not None:
            raise ResourceConflictException(f"Function already exist: {name}")
        count, _ = functions.count_functions(tx)
        limit = call.services.limits.functions
        if count >= limit:
            raise TooManyRequestsException(
                f"the account has {count} functions; the limit `functions` is {limit}"
            )
        check_storage(tx, call, checked)

    await call.read(check)  # before much is stored
    created = await _stored_with(call, function, checked)

    def change(tx: Tx) -> None:
        check(tx)
        require_stored(tx, checked, created.code_id)
        functions.add_function(tx, created)
        add_function_tags(tx, call, call.account.lambda_arn(name), checked_tags)

    await _or_remove_code(call, created, change)
    await _unpack(call, name)
    return configuration(call, created)


async def update_function_code(
    call: Call,
    function_name: str,
    zip_file: bytes | None = None,
    dry_run: bool = False,
    revision_id: str | None = None,
    architectures: Sequence[str] | None = None,
) -> dict[str, Any]:
    """UpdateFunctionCode: another zip, in force as soon as this answers."""
    name = function_names.latest(call.account, function_name)
    _refuse_configured(call, name, "changed")
    checked = await checked_code(call, {"ZipFile": zip_file})

    def check(tx: Tx) -> UploadedFunction:
        found = require_uploaded(tx, call, name)
        _check_revision(found, revision_id)
        check_storage(tx, call, checked, instead_of=found.code_bytes)
        return found

    found = await call.read(check)
    changes: dict[str, Any] = {"revision_id": call.services.new_id(), "modified_at": call.now}
    if architectures:
        changes["architecture"] = settings.check_architecture(architectures)
    if dry_run:
        changes |= {"code_sha256": checked.sha256, "code_bytes": len(checked.zip_file)}
        return configuration(call, replace(found, **changes))
    stored = await _stored_with(call, found, checked)

    def change(tx: Tx) -> UploadedFunction:
        before = check(tx)
        require_stored(tx, checked, stored.code_id)
        after = replace(
            before,
            code_id=stored.code_id,
            code_sha256=stored.code_sha256,
            code_bytes=stored.code_bytes,
            **changes,
        )
        functions.update_function(tx, after)
        functions.remove_code(tx, before.code_id)
        return after

    after = await _or_remove_code(call, stored, change)
    await _unpack(call, name)
    return configuration(call, after)


async def update_function_configuration(
    call: Call,
    function_name: str,
    role: str | None = None,
    handler: str | None = None,
    description: str | None = None,
    timeout: int | None = None,  # noqa: ASYNC109 - the model's name
    memory_size: int | None = None,
    vpc_config: Members | None = None,
    environment: Members | None = None,
    runtime: str | None = None,
    tracing_config: Members | None = None,
    revision_id: str | None = None,
    ephemeral_storage: Members | None = None,
    snap_start: Members | None = None,
    logging_config: Members | None = None,
) -> dict[str, Any]:
    """UpdateFunctionConfiguration: what is left out stays as it is."""
    name = function_names.latest(call.account, function_name)
    _refuse_configured(call, name, "changed")
    settings.check_fixed(
        name,
        VpcConfig=vpc_config,
        TracingConfig=tracing_config,
        EphemeralStorage=ephemeral_storage,
        SnapStart=snap_start,
        LoggingConfig=logging_config,
    )
    changes: dict[str, Any] = {"revision_id": call.services.new_id(), "modified_at": call.now}
    if role is not None:
        changes["role_arn"] = await settings.check_role(call, role, name)
    if handler is not None:
        changes["handler"] = settings.check_handler(handler)
    if description is not None:
        changes["description"] = description
    if timeout is not None:
        changes["timeout_seconds"] = settings.check_timeout(timeout)
    if memory_size is not None:
        changes["memory_megabytes"] = settings.check_memory(memory_size)
    if environment is not None and environment.get("Variables") is not None:
        changes["environment"] = settings.check_environment(call, environment)
    if runtime is not None:
        changes["runtime"] = settings.check_runtime(runtime)

    def change(tx: Tx) -> UploadedFunction:
        before = require_uploaded(tx, call, name)
        _check_revision(before, revision_id)
        after = replace(before, **changes)
        functions.update_function(tx, after)
        return after

    return configuration(call, await call.write(change))


async def delete_function(
    call: Call, function_name: str, qualifier: str | None = None
) -> dict[str, Any]:
    """DeleteFunction: with its code, its resource policy and its tags."""
    named = function_names.parse(call.account, function_name, qualifier)
    if named.qualifier == function_names.LATEST:
        raise InvalidParameterValueException(
            "$LATEST version cannot be deleted without deleting the function."
        )
    name = function_names.latest(call.account, function_name, qualifier)
    _refuse_configured(call, name, "deleted")

    def change(tx: Tx) -> None:
        functions.remove_function(tx, require_uploaded(tx, call, name))
        functions.remove_permissions(tx, name, UPLOADED)
        stored_tags.remove_tags(tx, call.account.lambda_arn(name))

    await call.write(change)
    call.services.functions.forget(name)
    return {"StatusCode": 204}


# --- parts ---------------------------------------------------------------------------------


async def _stored_with(call: Call, function: UploadedFunction, code: Code) -> UploadedFunction:
    """The function with code that is in the store."""
    code_id = await store_code(call, code)
    return replace(
        function, code_id=code_id, code_sha256=code.sha256, code_bytes=len(code.zip_file)
    )


async def _or_remove_code(call: Call, stored: UploadedFunction, change: Callable[[Tx], T]) -> T:
    """Makes a function refer to its new code; what is refused leaves no code behind."""
    try:
        return await call.write(change)
    except Exception as error:
        unknown = isinstance(error.__cause__, OutcomeUnknown)
        if not unknown:
            await call.write(functions.remove_code, stored.code_id)
        raise


async def _unpack(call: Call, name: str) -> None:
    """Unpacks code that was just stored, so that its first run need not wait for that."""
    try:
        await uploaded_target(call, name)
    except (FunctionError, ServiceError) as error:
        log.warning("event=not-unpacked function=%s cause=%r", name, error.message)


def _refuse_configured(call: Call, name: str, verb: str) -> None:
    if is_configured(call, name):
        raise ResourceConflictException(
            f"Function {name} is one of the configuration: [functions] of fleetgate.toml says "
            f"what it is, and it cannot be {verb} here"
        )


def _check_revision(function: UploadedFunction, revision_id: str | None) -> None:
    if revision_id is not None and revision_id != function.revision_id:
        raise PreconditionFailedException(
            "The Revision Id provided does not match the latest Revision Id. Call the "
            "GetFunction/GetAlias API to retrieve the latest Revision Id"
        )
