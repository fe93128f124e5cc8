"""Built-in functions as hooks of the template T."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleetgate.functions.configured import BuiltIn
from fleetgate.operations.built_in_functions import built_in_functions
from tests.operations.conftest import CLAIM, Registry
from tests.operations.hooks import permit
from tests.operations.test_provisioning import set_up


def hooked(registry: Registry, kind: str, directory: Path = Path(), **options: Any) -> Any:
    """The function `gate` of this kind; the template T, set up here, asks it."""
    function = built_in_functions({"gate": BuiltIn(kind, options, directory)})["gate"]
    if not registry.services.built_in:
        set_up(registry)
        permit(registry, "gate")
        registry.call(
            "UpdateProvisioningTemplate",
            template_name="T",
            pre_provisioning_hook={"targetArn": registry.services.account.lambda_arn("gate")},
        )
    registry.services.built_in["gate"] = function
    return function


def register_at_once(
    registry: Registry, created: Sequence[dict[str, Any]], serials: Sequence[str]
) -> list[Any]:
    """RegisterThing for all of these certificates at the same time: answers and errors."""

    async def run() -> list[Any]:
        calls = [
            registry.start(
                "provisioning",
                "RegisterThing",
                {
                    "payload_format": "json",
                    "template_name": "T",
                    "certificate_ownership_token": each["certificateOwnershipToken"],
                    "parameters": {"SerialNumber": serial},
                },
                CLAIM,
            )
            for each, serial in zip(created, serials, strict=True)
        ]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    return registry.runner.run(run())
