"""What runs a function that was uploaded: its code and settings as the store has them now."""

from __future__ import annotations

import hashlib
import logging

import msgspec

from fleetgate.functions.program import Program
from fleetgate.functions.target import Target
from fleetgate.operations.call import Call, Services
from fleetgate.operations.function_code import read_code
from fleetgate.store.functions import UploadedFunction, find_function

log = logging.getLogger("fleetgate.functions")


async def uploaded_target(call: Call, name: str) -> Target | None:
    """What runs the uploaded function of this name, None when there is none.

    Raises FunctionError(NOT_STARTED) for code that cannot be unpacked, and ServiceException for
    code that was replaced at this very moment.
    """
    stored = await call.read(find_function, name)
    if stored is None:
        return None
    runner, limits = call.services.functions, call.services.limits

    async def read() -> bytes:
        return await read_code(call, stored)

    directory = await runner.code(
        stored.code_sha256, read, limits.function_code_unzipped, limits.function_unpacked
    )
    return runner.uploaded(
        Program(
            name=name,
            arn=call.account.lambda_arn(name),
            runtime=stored.runtime,
            handler=stored.handler,
            description=f"{stored.runtime} {stored.handler}",
            directory=directory,
            revision=_revision(stored, limits.function_concurrency),
            environment=stored.variables,
            timeout_seconds=stored.timeout_seconds,
            memory_megabytes=stored.memory_megabytes,
            concurrency=limits.function_concurrency,
        )
    )


async def tell_hidden(services: Services) -> None:
    """Warns of uploaded functions under whose name the configuration has another one."""
    for name in sorted({*services.functions.configured, *services.built_in}):
        stored = await services.store.read(find_function, name)
        if stored is not None:
            log.warning(
                "event=function-hidden function=%s uploaded=%r cause='[functions] of the "
                "configuration has one of this name, which is run instead'",
                *(name, f"{stored.runtime} {stored.handler}"),
            )


def _revision(stored: UploadedFunction, concurrency: int) -> str:
    """The same for what is run the same way: a new permission ends no warm process."""
    run_by = (
        *(stored.code_sha256, stored.runtime, stored.handler, stored.environment),
        *(stored.timeout_seconds, stored.memory_megabytes, concurrency),
    )
    return hashlib.sha256(msgspec.json.encode(run_by)).hexdigest()
