"""``/_fleetgate/faults``: fault scripts of a running server, for tests.

* ``PUT /_fleetgate/faults/NAME``: takes the script in the body, TOML or JSON, in the place of the
  one of that name; what it did so far is forgotten;
* ``GET /_fleetgate/faults/NAME``: the script and what it has done (`Faults.describe`);
* ``GET /_fleetgate/faults``: all of them, `{"scripts": [...]}`;
* ``DELETE /_fleetgate/faults/NAME``, ``DELETE /_fleetgate/faults``: `{"removed": ["NAME", ...]}`.

Authenticated like the API, by a signature for ``iot``; they are for the root user. The server has
to have been started with ``--faults`` or ``--allow-faults``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from fleetgate.errors import (
    AccessDeniedException,
    InvalidFaultScript,
    InvalidRequestException,
    ResourceNotFoundException,
    SerializationException,
)
from fleetgate.gateway.fault_reading import parse_script
from fleetgate.gateway.faults import Faults
from fleetgate.operations.call import Call

PATH: Final = "/_fleetgate/faults"

_NAME: Final = re.compile(r"[^/\x00-\x1f\x7f]{1,128}")


def is_path(path: str) -> bool:
    """Whether a path is one of those here."""
    return path == PATH or path.startswith(PATH + "/")


def answer(
    call: Call, faults: Faults | None, method: str, path: str, body: bytes
) -> Mapping[str, Any]:
    """The answer to a request.

    Raises AccessDeniedException when there are no faults on this server or they are not for the
    caller, ResourceNotFoundException for what is not there, SerializationException and
    InvalidRequestException for a body that is no script.
    """
    if faults is None:
        raise AccessDeniedException(
            "fault scripts are taken only when the server was started with --allow-faults or "
            "--faults"
        )
    if call.caller is None or not call.caller.is_root:
        raise AccessDeniedException("fault scripts are for the root user of the account alone")
    name = unquote(path.removeprefix(PATH).removeprefix("/"))
    if not name and method == "GET":
        return {"scripts": [faults.describe(each) for each in faults.names]}
    if not name and method == "DELETE":
        return {"removed": [each for each in faults.names if faults.remove(each)]}
    if not _NAME.fullmatch(name) or method not in ("GET", "PUT", "DELETE"):
        raise ResourceNotFoundException(f"nothing is at {method} {path[:200]}")
    if method == "PUT":
        _put(faults, name, body)
    found = faults.describe(name)
    if found is None:
        raise ResourceNotFoundException(f"there is no fault script `{name}`")
    if method == "DELETE":
        faults.remove(name)
        return {"removed": [name]}
    return found


def _put(faults: Faults, name: str, body: bytes) -> None:
    try:
        faults.put(name, parse_script(body.decode()))
    except UnicodeDecodeError as error:
        raise SerializationException(f"the fault script is not UTF-8: {error}") from None
    except InvalidFaultScript as error:
        raise InvalidRequestException(f"the fault script `{name}`: {error.message}") from None
