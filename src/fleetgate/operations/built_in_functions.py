"""The functions that are part of Fleetgate and look into the registry, by their kinds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from fleetgate.errors import Error
from fleetgate.functions.configured import BuiltIn, Configured
from fleetgate.operations import public_keys
from fleetgate.operations.allow_list import AllowList
from fleetgate.operations.built_in import BuiltInFunction
from fleetgate.operations.call import Services
from fleetgate.operations.key_reuse_audit import KeyReuseAudit

log = logging.getLogger("fleetgate.functions")

KINDS: Mapping[str, Callable[[str, Mapping[str, object], Path], BuiltInFunction]] = {
    "allow-list": AllowList.from_options,
    "key-reuse-audit": KeyReuseAudit.from_options,
}
"""What makes one from its name, its options, and the directory that its files are relative to."""


def built_in_functions(configured: Mapping[str, Configured]) -> dict[str, BuiltInFunction]:
    """Those of the configuration, by name; raises Error for options that cannot be used.

    Built-in functions of other kinds need no registry: they are left out.
    """
    found: dict[str, BuiltInFunction] = {}
    for name, function in configured.items():
        if isinstance(function, BuiltIn) and function.kind in KINDS:
            make = KINDS[function.kind]
            try:
                found[name] = make(name, function.options, function.directory)
            except ValueError as error:
                raise Error(f"functions `{name}`: {error}") from None
            log.info(
                "event=function-configured function=%s target=%r", name, found[name].description
            )
    return found


async def prepare(services: Services) -> None:
    """What they need before devices come: files are read, keys of older releases looked at.

    Nothing waits for it: until it is done they refuse what they cannot decide on.
    """
    try:
        for function in services.built_in.values():
            if isinstance(function, AllowList):
                await function.check()
        await public_keys.look_until_done(services)
    except Exception:
        log.exception("event=built-in-functions-unprepared")
