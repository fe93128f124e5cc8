"""The built-in functions that sign certificates, by their kinds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fleetgate.functions.target import Target

KINDS = ("local-ca", "step-ca", "vault")


def signer(kind: str, name: str, options: Mapping[str, object], directory: Path) -> Target:
    """The function called `name`, one of KINDS; relative paths are relative to `directory`.

    Opens files and, with `local-ca`, lets the key sign once; blocks. Raises ValueError naming
    option, rule and value.
    """
    # each brings libraries that a server without it need not load
    match kind:
        case "local-ca":
            from fleetgate.functions import local_ca

            return local_ca.from_options(name, options, directory)
        case "step-ca":
            from fleetgate.functions import step_ca

            return step_ca.from_options(name, options, directory)
        case "vault":
            from fleetgate.functions import vault

            return vault.from_options(name, options, directory)
    raise ValueError(f"`{kind}` signs no certificates; there are {', '.join(KINDS)}")
