"""Whether an argument is of the type that it has to be, before anything is done with it."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

from fleetgate.device.errors import BadRequest

PATH = (str, PathLike)
TEXT_OR_NONE = (str, type(None))

_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    PathLike: "a path",
    Mapping: "a mapping",
    type(None): "None",
}


def check(name: str, value: object, *kinds: type, secret: bool = False) -> None:
    """Raises BadRequest naming the argument, what it may be, and what it is.

    For a number (float) a whole one will do, but True is none. Nothing of a `secret` is shown but
    its type.
    """
    accepted = (*kinds, int) if float in kinds else kinds
    if isinstance(value, accepted) and (bool in kinds or not isinstance(value, bool)):
        return
    wanted = " or ".join(_WORDS.get(kind, kind.__name__) for kind in kinds)
    found = type(value).__name__ if secret or value is None else f"{value!r:.80}"
    raise BadRequest(f"`{name}` has to be {wanted}, not {found}")
