"""``/_fleetgate/allow-lists/NAME``: the allow-list of the function NAME, for operators.

* ``GET .../NAME``: a page; query `limit` (1 to 1000), `nextToken`, `used=true` for those in use;
  with `serialNumber` that one alone, with its last uses;
* ``POST .../NAME/add``: `{"serialNumbers": [{"serialNumber", "uses", "overrides"}, ...]}`;
* ``POST .../NAME/remove``: `{"serialNumbers": ["...", ...]}`;
* ``POST .../NAME/release``: `{"serialNumber"}` and perhaps `certificateId` or `all`.

Authenticated like the API, by a signature for ``iot``; the rights are those on the function
(operations/allow_list_serials.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec

from fleetgate.errors import (
    InvalidRequestException,
    ResourceNotFoundException,
    SerializationException,
)
from fleetgate.operations import allow_list_serials
from fleetgate.operations.allow_list_serials import MAX_PAGE, New
from fleetgate.operations.call import Call

PREFIX = "/_fleetgate/allow-lists/"

T = TypeVar("T")


class _New(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    serial_number: str
    uses: int | str | None = None
    overrides: dict[str, str] = {}


class _Add(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    serial_numbers: list[_New]


class _Remove(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    serial_numbers: list[str]


class _Release(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    serial_number: str
    certificate_id: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    all: bool = False


_PATH = re.compile(re.escape(PREFIX) + r"([^/]{1,64})(?:/(add|remove|release))?")


async def answer(
    call: Call, method: str, path: str, fields: Sequence[tuple[str, str]], body: bytes
) -> Mapping[str, Any]:
    """The answer to a request; `fields` are those of the query.

    Raises ResourceNotFoundException for a path or list that is not there,
    SerializationException for what is no JSON, InvalidRequestException for what is wrong in it.
    """
    found = _PATH.fullmatch(path)
    if found is None or method != ("POST" if found[2] else "GET"):
        raise ResourceNotFoundException(f"nothing is at {method} {path[:200]}")
    name, verb = unquote(found[1]), found[2]
    if verb == "add":
        added = _decoded(body, _Add).serial_numbers
        new = [New(each.serial_number, each.uses, each.overrides) for each in added]
        return await allow_list_serials.add_serials(call, name, new)
    if verb == "remove":
        serials = _decoded(body, _Remove).serial_numbers
        return await allow_list_serials.remove_serials(call, name, serials)
    if verb == "release":
        asked = _decoded(body, _Release)
        return await allow_list_serials.release_serial(
            call, name, asked.serial_number, asked.certificate_id, every=asked.all
        )
    query = dict(fields)
    unknown = sorted(query.keys() - {"limit", "nextToken", "used", "serialNumber"})
    if unknown:
        raise InvalidRequestException(f"the query has `{unknown[0][:80]}`, which is unknown")
    serial = query.get("serialNumber")
    if serial is not None:
        return await allow_list_serials.describe_serial(call, name, serial)
    limit = query.get("limit", "250")
    if not re.fullmatch(r"[0-9]{1,4}", limit) or not 1 <= int(limit) <= MAX_PAGE:
        raise InvalidRequestException(
            f"`limit`: a whole number from 1 to {MAX_PAGE} is expected, not `{limit[:80]}`"
        )
    used = query.get("used", "false") == "true"
    return await allow_list_serials.list_serials(
        call, name, int(limit), query.get("nextToken"), used=used
    )


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequestException(f"the request is wrong: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationException(f"the request is no JSON: {error}") from None
