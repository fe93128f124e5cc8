"""What the process of a function runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RESERVED = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
    }
)
"""Environment variables no function may set.

Source: Lambda developer guide, "Defined runtime environment variables", "Reserved environment
variables". All others are the function's own, `TZ`, `PATH` and `LANG` too.
"""


@dataclass(frozen=True, slots=True)
class Program:
    """The code of a function and what it may use.

    `runtime` is Lambda's identifier (``python3.12``, ``nodejs20.x``), `handler` Lambda's
    (``module.function``). `directory` holds the unpacked code; without one the handler is
    imported as the server's own Python would (``python:`` functions of the configuration), from
    `search_path` first. `revision` changes with anything here: processes of an older one end.
    """

    name: str
    arn: str
    runtime: str
    handler: str
    description: str
    directory: Path | None
    revision: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    search_path: tuple[Path, ...] = ()
    timeout_seconds: float = 3.0
    memory_megabytes: int = 128
    concurrency: int = 8
