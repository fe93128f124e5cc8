"""What the operations of IAM share: ids, ARNs, who is meant, pages and documents."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from fleetgate.errors import (
    InvalidInput,
    LimitExceeded,
    NoSuchEntity,
    ServiceError,
    ValidationError,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.store import iam_roles, iam_users
from fleetgate.store.engine import Tx

T = TypeVar("T")

PAGE = 100
"""Items of a page when the caller names no size (IAM API Reference, ``MaxItems``)."""


# --- ids and ARNs --------------------------------------------------------------------------


def new_id(call: Call, prefix: str) -> str:
    """A random id: ``AIDA`` of a user, ``AROA`` of a role, ``ANPA`` of a policy, 21 characters,
    or ``AKIA`` of an access key, 20 characters.

    Source: IAM User Guide, "IAM identifiers", "Unique identifiers".
    """
    characters = 16 if prefix == "AKIA" else 17
    text = base64.b32encode(call.services.random_bytes(15)).decode("ascii")
    return prefix + text[:characters]


def user_arn(account: Account, user: iam_users.User) -> str:
    """``arn:aws:iam::123456789012:user/path/name``"""
    return account.iam_arn(f"user{user.path}{user.user_name}")


def role_arn(account: Account, role: iam_roles.Role) -> str:
    """``arn:aws:iam::123456789012:role/path/name``"""
    return account.iam_arn(f"role{role.path}{role.role_name}")


def session_arn(account: Account, resource: str) -> str:
    """``arn:aws:sts::123456789012:assumed-role/role/session`` for ``assumed-role/role/session``"""
    return f"arn:{account.partition}:sts::{account.id}:{resource}"


def seconds(moment: float) -> float:
    """A time as IAM tells it: in whole seconds."""
    return float(int(moment))


# --- who is meant --------------------------------------------------------------------------


def is_root(call: Call) -> bool:
    """Whether the root user of the account makes the call."""
    return call.caller is None or call.caller.is_root


def own_user_name(call: Call) -> str | None:
    """The name of the user who makes the call; None for the root user and for sessions of roles."""
    if call.caller is None or not call.caller.arn.startswith(call.account.iam_arn("user/")):
        return None
    return call.caller.arn.rpartition("/")[2]


def named_user(call: Call, user_name: str | None) -> str:
    """The user an operation is about: the one that is named, else the one who calls.

    Raises ValidationError when none is named and no user calls.
    """
    meant = user_name or own_user_name(call)
    if meant is None:
        raise ValidationError("Must specify userName when calling with non-User credentials")
    return meant


def require_user(tx: Tx, user_name: str) -> iam_users.User:
    """The user; raises NoSuchEntity when there is none of this name."""
    user = iam_users.find_user(tx, user_name)
    if user is None:
        raise NoSuchEntity(f"The user with name {user_name} cannot be found.")
    return user


def require_role(tx: Tx, role_name: str) -> iam_roles.Role:
    """The role; raises NoSuchEntity when there is none of this name."""
    role = iam_roles.find_role(tx, role_name)
    if role is None:
        raise NoSuchEntity(f"The role with name {role_name} cannot be found.")
    return role


# --- documents, tags, limits ---------------------------------------------------------------


def encoded(document: str) -> str:
    """A policy document as IAM answers it: percent-encoded (RFC 3986)."""
    return quote(document, safe="")


def described_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as the API has them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def within(quota: str, limit: int, count: int) -> None:
    """Raises LimitExceeded when there would be more than `limit`; `quota` is AWS's name of it."""
    if count > limit:
        raise LimitExceeded(f"Cannot exceed quota for {quota}: {limit}")


def checked_tags(
    call: Call, given: Sequence[Mapping[str, str]] | None, *, case_counts: bool = False
) -> dict[str, str]:
    """The tags of a request as key to value; None is none.

    Raises InvalidInput as `read_tags` does, and LimitExceeded for too many.
    """
    found = read_tags(given or (), InvalidInput, case_counts=case_counts)
    within_tags(call, len(found))
    return found


def read_tags(
    given: Sequence[Mapping[str, str]], refusal: type[ServiceError], *, case_counts: bool = False
) -> dict[str, str]:
    """The same without a limit.

    Raises `refusal` for a key given twice or reserved for AWS. Keys do not differ in case alone,
    but where `case_counts`: with policies. Source: IAM User Guide, "Tags for IAM resources".
    """
    found: dict[str, str] = {}
    keys = set()
    for tag in given:
        key = tag["Key"]
        if key.lower().startswith("aws:"):
            raise refusal(f"tag key `{key}` begins with `aws:`, which is reserved for AWS")
        compared = key if case_counts else key.lower()
        if compared in keys:
            note = "" if case_counts else " Please note that Tag keys are case insensitive."
            raise refusal(f"Duplicate tag keys found.{note}")
        keys.add(compared)
        found[key] = tag["Value"]
    return found


def listed_tags(found: Mapping[str, str]) -> list[dict[str, str]] | None:
    """Tags as they stand in the description of an entity: left out when there are none."""
    return described_tags(found) or None


def within_tags(call: Call, count: int) -> None:
    """Raises LimitExceeded when an entity would have more tags than it may."""
    limit = call.services.limits.tags_per_resource
    if count > limit:
        raise LimitExceeded(f"The number of tags has reached the maximum limit: {limit}")


# --- pages ---------------------------------------------------------------------------------


def start(call: Call, operation: str, marker: str | None) -> list[str | float | int] | None:
    """The position inside a marker, None for the first page; raises ValidationError."""
    return pages.start(call, operation, marker, ValidationError)


def start_after(call: Call, operation: str, marker: str | None) -> str:
    """The same for positions that are one text: empty for the first page."""
    position = start(call, operation, marker)
    return "" if position is None else str(position[0])


def page(
    call: Call,
    operation: str,
    found: Sequence[T],
    limit: int,
    position: Callable[[T], pages.Position],
) -> tuple[Sequence[T], dict[str, Any]]:
    """Cuts `found` to a page, and returns the members of the answer that say what follows."""
    items, marker = pages.page(call, operation, found, limit, position)
    return items, {"IsTruncated": marker is not None, "Marker": marker}


def page_of_all(
    call: Call,
    operation: str,
    every: Sequence[T],
    marker: str | None,
    limit: int,
    position: Callable[[T], pages.Position],
) -> tuple[Sequence[T], dict[str, Any]]:
    """A page of a listing that is at hand as a whole, because its length is bounded."""
    after = start(call, operation, marker)
    ordered = sorted(every, key=lambda item: list(position(item)))
    if after is not None:
        ordered = [item for item in ordered if list(position(item)) > after]
    return page(call, operation, ordered, limit, position)
