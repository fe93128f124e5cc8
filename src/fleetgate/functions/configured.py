"""The functions of the configuration: ``[functions]`` in fleetgate.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """``python:package.module:function``, run in a process of its own."""

    module: str
    function: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 5.0
    memory_megabytes: int = 512
    concurrency: int = 8


@dataclass(frozen=True, slots=True)
class Webhook:
    """A signed POST to an HTTPS server.

    `secret_file` holds the key of the HMAC. `allow_networks` are the networks of private or
    loopback addresses that may be called; `ca_file` verifies the server instead of the system's
    certificates.
    """

    url: str
    secret_file: Path
    allow_networks: tuple[str, ...] = ()
    ca_file: Path | None = None
    timeout_seconds: float = 5.0
    concurrency: int = 32


@dataclass(frozen=True, slots=True)
class LambdaEndpoint:
    """A function of any service that answers Lambda's Invoke: AWS, SAM local, LocalStack, ..."""

    endpoint_url: str
    function_name: str
    region: str
    timeout_seconds: float = 5.0
    concurrency: int = 32


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A function that is part of Fleetgate; its options are checked by its own module."""

    kind: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


Configured = PythonFunction | Webhook | LambdaEndpoint | BuiltIn
