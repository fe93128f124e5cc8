"""Pages of listings: authenticated positions instead of offsets.

A page token is the position behind which the next page starts, bound to its operation and
sealed with a MAC, so that nobody can read or craft one into something else. Listings go by key
(``WHERE name > :after``), never by OFFSET.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from fleetgate.errors import InvalidRequestException, ServiceError
from fleetgate.operations.call import Call

T = TypeVar("T")
Position = Sequence[str | float | int]

PAGE = 250
"""Items of a page when the caller names no size. AWS does not publish its default; 250 is the
most its operations may return."""

_TAG = 16


def page(
    call: Call,
    operation: str,
    found: Sequence[T],
    limit: int,
    position: Callable[[T], Position],
) -> tuple[Sequence[T], str | None]:
    """Cuts `found`, listed with a limit of ``limit + 1``, to a page and the token of the next."""
    if len(found) <= limit:
        return found, None
    items = found[:limit]
    text = msgspec.json.encode(position(items[-1]))
    tag = _seal(call, operation, text)
    return items, base64.b64encode(tag + text).decode()


def start(
    call: Call,
    operation: str,
    token: str | None,
    refusal: type[ServiceError] = InvalidRequestException,
) -> list[str | float | int] | None:
    """The position inside a page token, None for the first page.

    Raises `refusal` for a token that this operation did not give out.
    """
    if not token:
        return None
    try:
        sealed = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        sealed = b""
    tag, text = sealed[:_TAG], sealed[_TAG:]
    if not hmac.compare_digest(tag, _seal(call, operation, text)):
        raise refusal(f"`{token[:80]}` is not a page token of {operation}")
    position: list[str | float | int] = msgspec.json.decode(text)
    return position


def start_after_name(call: Call, operation: str, token: str | None) -> str:
    """The same for listings by one name: the empty name for the first page."""
    position = start(call, operation, token)
    return "" if position is None else str(position[0])


def _seal(call: Call, operation: str, text: bytes) -> bytes:
    message = operation.encode() + b"\0" + text
    return hmac.digest(call.services.token_key, b"page\0" + message, hashlib.sha256)[:_TAG]
