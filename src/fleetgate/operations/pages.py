"""Pages of listings: authenticated positions instead of offsets.

A page token is the position behind which the next page starts, encrypted and authenticated
(AES-256-GCM), and bound to its operation and to what was asked for: nobody can read or craft one,
and it cannot be used with another filter or order. Listings go by key (``WHERE name > :after``),
never by OFFSET.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetgate.errors import InvalidRequestException, ServiceError
from fleetgate.operations.call import Call

T = TypeVar("T")
Position = Sequence[str | float | int]

PAGE = 250
"""Items of a page when the caller names no size. AWS does not publish its default; 250 is the
most its operations may return."""

PAGING_MEMBERS = frozenset({"marker", "max_items", "max_results", "next_token", "page_size"})
"""What differs between the calls of one listing."""

_NONCE = 12


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
    nonce = call.services.random_bytes(_NONCE)
    sealed = _cipher(call.services.token_key).encrypt(nonce, text, _bound_to(call, operation))
    return items, base64.b64encode(nonce + sealed).decode()


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
    try:
        text = _cipher(call.services.token_key).decrypt(
            sealed[:_NONCE], sealed[_NONCE:], _bound_to(call, operation)
        )
    except (InvalidTag, ValueError):
        raise refusal(
            f"`{token[:80]}` is not a page token of {operation} with these parameters"
        ) from None
    position: list[str | float | int] = msgspec.json.decode(text)
    return position


def start_after_name(call: Call, operation: str, token: str | None) -> str:
    """The same for listings by one name: the empty name for the first page."""
    position = start(call, operation, token)
    return "" if position is None else str(position[0])


def asked_for(params: Mapping[str, Any]) -> bytes:
    """What a listing is about: its members but for those that differ from page to page."""
    kept = [(name, value) for name, value in params.items() if name not in PAGING_MEMBERS]
    return msgspec.json.encode(sorted(kept, key=lambda member: member[0]))


def _bound_to(call: Call, operation: str) -> bytes:
    return operation.encode() + b"\0" + call.listing


@lru_cache(maxsize=4)
def _cipher(token_key: bytes) -> AESGCM:
    return AESGCM(hmac.digest(token_key, b"page\0", hashlib.sha256))
