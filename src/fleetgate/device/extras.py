"""Libraries that are not installed with the device library alone, and how to get them."""

from __future__ import annotations

import importlib
from typing import Any

from fleetgate.errors import Error


class ExtraMissing(Error, ImportError):
    """A library of an extra is not installed; the message says what to install."""


def load(module: str, extra: str) -> Any:
    """The module `module`, which comes with ``fleetgate[extra]``.

    Raises ExtraMissing when its distribution is not there.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != name:
            raise  # it is there, and misses something itself
        raise ExtraMissing(
            f'{name} is not installed; it comes with: pip install "fleetgate[{extra}]"'
        ) from error
