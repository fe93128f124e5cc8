"""What the process of a function runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


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
