"""Which texts can be MQTT client ids: one rule for all adapters.

The libraries have one each, and fail in ways of their own: awscrt's client for MQTT 3.1.1 keeps a
thread for good.
"""

from __future__ import annotations

import re
from typing import Final

from fleetgate.device.errors import BadRequest
from fleetgate.device.terminal import visible

_LARGEST_TEXT: Final = 0xFFFF
_SHOWN: Final = 64
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check(client_id: str) -> None:
    """Raises BadRequest when this cannot be the client id of a connection.

    It is a UTF-8 string (MQTT 3.1.1 and 5, sections 1.5.3 and 1.5.4) of at most 65535 bytes; U+0000
    and halves of surrogate pairs must not, control characters and noncharacters should not be in
    it, and a server may hang up for those. Which ones a server takes is up to it.
    """
    why = wrong_with(client_id)
    if why is not None:
        shown = client_id if len(client_id) <= _SHOWN else f"{client_id[:_SHOWN]}..."
        raise BadRequest(f"`{visible(shown)}` cannot be an MQTT client id: {why}")


def wrong_with(client_id: str) -> str | None:
    """Which rule of :func:`check` is broken, if any."""
    try:
        size = len(client_id.encode("utf-8"))
    except UnicodeEncodeError:
        return "half a character (a lone surrogate) is in it"
    if size > _LARGEST_TEXT:
        return f"it has {size} bytes, and {_LARGEST_TEXT} are the most"
    if _CONTROL.search(client_id):
        return "a control character is in it"
    if any(ord(each) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(each) <= 0xFDEF for each in client_id):
        return "a noncharacter of Unicode is in it"
    return None
