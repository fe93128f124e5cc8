"""What operators do with allow-lists: see who is on them and who was, add, remove, give back.

A list is named by its function. It can be worked on when the configuration has that function: the
uses of a file's serial numbers too, but what is on it only the file says.

Rights are those on the function: `lambda:GetFunction` to look, `lambda:UpdateFunctionConfiguration`
to change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from fleetgate.domain.document import printable
from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from fleetgate.operations import pages
from fleetgate.operations.allow_list import AllowList
from fleetgate.operations.allow_list_file import (
    MAX_SERIAL_BYTES,
    UNLIMITED,
    Entry,
    FileError,
    SerialFile,
    cannot_be_listed,
    uses_of,
)
from fleetgate.operations.authorization import require
from fleetgate.operations.call import Call
from fleetgate.store import allow_lists
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.functions")

MAX_BATCH = 1000
"""Serial numbers of one request: what a transaction does without being noticed."""

MAX_PAGE = 1000
"""Serial numbers of one page."""

MAX_OVERRIDES = 4096
"""Characters of a serial number's overrides as JSON."""

_USES_SHOWN = 100
_LOOK = "lambda:GetFunction"
_CHANGE = "lambda:UpdateFunctionConfiguration"


@dataclass(frozen=True, slots=True)
class New:
    """A serial number to be put on a list; `uses` as `allow_list_file.uses_of` takes it."""

    serial: str
    uses: object = None
    overrides: Mapping[str, str] = field(default_factory=dict)


async def list_serials(
    call: Call, name: str, limit: int, token: str | None, *, used: bool
) -> dict[str, Any]:
    """A page of a list, by serial number; with `used` only those that were used.

    Of a list in a file it has what is in the file, and what of it was used.
    """
    found = await _require(call, name, _LOOK)
    call = replace(call, listing=pages.asked_for({"name": name, "used": used}))
    operation = "allow-list"
    after = pages.start_after_name(call, operation, token)
    if found.file is None:
        kept = await call.read(allow_lists.list_serials, name, after, limit + 1, used=used)
        shown = [_shown(found, each) for each in kept]
    else:
        shown = await _of_file(call, found, found.file, after, limit + 1, used=used)
    items, following = pages.page(
        call, operation, shown, limit, lambda each: (each["serialNumber"],)
    )
    return {"serialNumbers": items, "nextToken": following}


async def describe_serial(call: Call, name: str, serial: str) -> dict[str, Any]:
    """A serial number with its last uses; raises ResourceNotFoundException."""
    found = await _require(call, name, _LOOK)
    kept = uses = None
    if not cannot_be_listed(serial):
        kept = await call.read(allow_lists.find_serial, name, serial)
        uses = await call.read(allow_lists.list_uses, name, serial, _USES_SHOWN)
    shown = None if kept is None else _shown(found, kept)
    if found.file is not None:
        try:
            entry = (await found.file.contents()).find(serial)
        except FileError as error:
            raise _unusable(error) from None
        shown = _shown_of_file(found, serial, entry, kept)
    if shown is None:
        raise ResourceNotFoundException(
            f"serial number `{printable(serial, 200)}` is not on the allow-list `{name}`"
        )
    return {
        **shown,
        "usedBy": [
            {
                "certificateId": use.certificate_id,
                "thingName": use.thing_name,
                "usedAt": use.used_at,
            }
            for use in uses or ()
        ],
    }


async def add_serials(call: Call, name: str, new: Sequence[New]) -> dict[str, Any]:
    """Puts serial numbers on a list, or changes how often they may be used; all of them or none."""
    await _require_changeable(call, name)
    rows = [_row(at, each) for at, each in enumerate(_batch(new))]

    def change(tx: Tx) -> None:
        for serial, uses, overrides in rows:
            allow_lists.add_serial(tx, name, serial, uses, overrides, call.now)

    await call.write(change)
    _tell(call, "added", name, [serial for serial, _, _ in rows])
    return {"serialNumbers": len(rows)}


async def remove_serials(call: Call, name: str, serials: Sequence[str]) -> dict[str, Any]:
    """Takes serial numbers from a list; those that are not on it are left out in the answer."""
    await _require_changeable(call, name)
    asked = [each for each in _batch(serials) if not cannot_be_listed(each)]

    def change(tx: Tx) -> list[str]:
        return [each for each in asked if allow_lists.remove_serial(tx, name, each)]

    removed = await call.write(change)
    _tell(call, "removed", name, removed)
    return {"removed": removed}


async def release_serial(
    call: Call, name: str, serial: str, certificate_id: str | None, *, every: bool
) -> dict[str, Any]:
    """Gives back the last use of a serial number, that by a certificate, or every one.

    Raises ResourceNotFoundException when there is no such use.
    """
    await _require(call, name, _CHANGE)

    def change(tx: Tx) -> int:
        if every:
            return allow_lists.remove_uses(tx, name, serial)
        by = certificate_id
        if by is None:
            last = allow_lists.list_uses(tx, name, serial, 1)
            by = last[0].certificate_id if last else ""
        return int(allow_lists.remove_use(tx, name, serial, by))

    released = 0 if cannot_be_listed(serial) else await call.write(change)
    if not released:
        by = "" if certificate_id is None else f" by certificate {certificate_id[:80]}"
        raise ResourceNotFoundException(
            f"there is no use of serial number `{printable(serial, 200)}` of the allow-list "
            f"`{name}`{by}"
        )
    _tell(call, "released", name, [serial])
    return {"released": released}


# --- which list ------------------------------------------------------------------------------


async def _require(call: Call, name: str, action: str) -> AllowList:
    """The list; raises AccessDeniedException and ResourceNotFoundException."""
    await call.read(_allow, call, name, action)
    built_in = call.services.built_in
    found = built_in.get(name)
    if not isinstance(found, AllowList):
        names = [f"`{each}`" for each, other in built_in.items() if isinstance(other, AllowList)]
        raise ResourceNotFoundException(
            f"the configuration has no function `{name[:80]}` that is an allow-list; "
            f"those are: {', '.join(names) or 'none'}"
        )
    return found


async def _require_changeable(call: Call, name: str) -> None:
    found = await _require(call, name, _CHANGE)
    if found.file is not None:
        raise InvalidRequestException(
            f"the serial numbers of the allow-list `{name}` are in `{found.file.path}`: "
            "change the file"
        )


def _allow(tx: Tx, call: Call, name: str, action: str) -> None:
    ask: Callable[[str, str, Mapping[str, tuple[str, ...]]], None] = require(tx, call)
    ask(action, call.account.lambda_arn(name), {})


# --- what is asked and answered --------------------------------------------------------------


def _batch(given: Sequence[Any]) -> Sequence[Any]:
    if not 1 <= len(given) <= MAX_BATCH:
        raise InvalidRequestException(
            f"a request has 1 to {MAX_BATCH} serial numbers, not {len(given)}"
        )
    return given


def _row(at: int, new: New) -> tuple[str, int | None, str | None]:
    """What is stored of a new serial number; raises InvalidRequestException."""
    serial = new.serial.strip()
    where = f"serial number {at + 1} (`{printable(serial, 80)}`)"
    if not serial:
        raise InvalidRequestException(f"serial number {at + 1} is empty")
    if cannot_be_listed(serial):
        raise InvalidRequestException(
            f"{where}: at most {MAX_SERIAL_BYTES} bytes of text without U+0000 are allowed"
        )
    try:
        uses = None if new.uses is None else uses_of(new.uses)
    except ValueError as error:
        raise InvalidRequestException(f"{where}: {error}") from None
    overrides = msgspec.json.encode(dict(new.overrides)).decode() if new.overrides else None
    if overrides is not None and len(overrides) > MAX_OVERRIDES:
        raise InvalidRequestException(
            f"{where}: the overrides have {len(overrides)} characters as JSON, "
            f"at most are {MAX_OVERRIDES}"
        )
    return serial, uses, overrides


def _shown(found: AllowList, each: allow_lists.Serial) -> dict[str, Any]:
    uses = found.uses if each.uses is None else each.uses
    return {
        "serialNumber": each.serial,
        "listed": each.listed,
        "uses": _uses(uses) if each.listed else None,
        "used": each.used,
        "overrides": msgspec.json.decode(each.overrides or "{}"),
        "addedAt": each.added_at,
    }


async def _of_file(
    call: Call, found: AllowList, file: SerialFile, after: str, limit: int, *, used: bool
) -> list[dict[str, Any]]:
    """The serial numbers behind `after` that a file has, or that were used of it, in order."""
    kept = {
        each.serial: each
        for each in await call.read(allow_lists.list_serials, found.name, after, limit, used=True)
    }
    try:
        contents, there = await file.page(after, 0 if used else limit)
    except FileError as error:
        raise _unusable(error) from None
    told = (
        _shown_of_file(found, serial, contents.find(serial), kept.get(serial))
        for serial in sorted({*kept, *there})[:limit]
    )
    return [each for each in told if each is not None]


def _shown_of_file(
    found: AllowList, serial: str, entry: Entry | None, kept: allow_lists.Serial | None
) -> dict[str, Any] | None:
    """What a file says of a serial number, and how often it was used; None when neither is."""
    used = 0 if kept is None else kept.used
    if entry is None and not used:
        return None
    uses = None
    if entry is not None:
        uses = _uses(found.uses if entry.uses is None else entry.uses)
    return {
        "serialNumber": serial,
        "listed": entry is not None,
        "uses": uses,
        "used": used,
        "overrides": {} if entry is None else dict(entry.overrides),
    }


def _unusable(error: FileError) -> InvalidRequestException:
    return InvalidRequestException(f"the file cannot be used: {error.message}")


def _uses(uses: int) -> int | str:
    return "unlimited" if uses == UNLIMITED else uses


def _tell(call: Call, what: str, name: str, serials: Sequence[str]) -> None:
    log.info(
        "event=allow-list-%s list=%s serials=%d first=%r caller=%s request=%s",
        *(what, name, len(serials), printable(serials[0], 200) if serials else None),
        *(call.caller and call.caller.arn, call.request_id),
    )
