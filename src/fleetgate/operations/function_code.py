"""The code of functions: checked, stored in parts, read again, run.

A part is stored by a transaction of its own (store/functions.py). What is left of an upload that
was not finished is removed when the next one begins, an hour later at the earliest.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetgate.errors import (
    CodeStorageExceededException,
    InvalidParameterValueException,
    RequestEntityTooLargeException,
    ResourceConflictException,
    ServiceException,
)
from fleetgate.functions import unpacking
from fleetgate.operations.call import Call
from fleetgate.store import functions
from fleetgate.store.engine import Tx

ABANDONED = 3600.0
"""Seconds after which parts that belong to no function are taken for left over."""

_NOT_A_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."


@dataclass(frozen=True, slots=True)
class Code:
    """A zip that was uploaded; `sha256` is its hash in base64."""

    zip_file: bytes = field(repr=False)
    sha256: str

    @property
    def parts(self) -> int:
        """How many parts it is stored in."""
        return -(-len(self.zip_file) // functions.PART)


async def checked_code(call: Call, members: Mapping[str, Any]) -> Code:
    """The code of a request; `members` are those of FunctionCode.

    Raises InvalidParameterValueException for what is no zip that can be unpacked, or lies
    elsewhere, and RequestEntityTooLargeException.
    """
    for name in ("S3Bucket", "S3Key", "ImageUri", "SourceKMSKeyArn"):
        if members.get(name):
            raise InvalidParameterValueException(
                f"`{name}` is not offered by this server; give the code as `ZipFile`"
            )
    zip_file: bytes = members.get("ZipFile") or b""
    if not zip_file:
        raise InvalidParameterValueException("Please provide a source for function code.")
    limits = call.services.limits
    if len(zip_file) > limits.function_code:
        raise RequestEntityTooLargeException(
            f"the zip of the function has {len(zip_file)} bytes; the limit `function_code` is "
            f"{limits.function_code}"
        )
    # hundreds of milliseconds for the largest there may be
    return await asyncio.to_thread(_checked, zip_file, limits.function_code_unzipped)


def _checked(zip_file: bytes, most: int) -> Code:
    try:
        unpacking.check(zip_file, most)
    except unpacking.UnpackError as error:
        raise InvalidParameterValueException(f"{_NOT_A_ZIP} ({error.message})") from None
    return Code(zip_file, base64.b64encode(hashlib.sha256(zip_file).digest()).decode())


def check_storage(tx: Tx, call: Call, code: Code, *, instead_of: int = 0) -> None:
    """Raises CodeStorageExceededException when all code together would take too much room.

    `instead_of` are the bytes of the code that is replaced.
    """
    _, stored = functions.count_functions(tx)
    limit = call.services.limits.function_storage
    if stored - instead_of + len(code.zip_file) > limit:
        raise CodeStorageExceededException(
            f"Code storage limit exceeded. ({stored} bytes are stored; the limit "
            f"`function_storage` is {limit})"
        )


async def store_code(call: Call, code: Code) -> str:
    """Stores code in the registry; returns its id. A function has to refer to it at once."""
    code_id = call.services.new_id()
    await call.write(functions.remove_abandoned_code, call.now - ABANDONED)
    for part in range(code.parts):
        await call.write(_add_part, code, code_id, part, call.services.now())
    return code_id


def _add_part(tx: Tx, code: Code, code_id: str, part: int, now: float) -> None:
    at = part * functions.PART
    piece = memoryview(code.zip_file)[at : at + functions.PART]
    functions.add_code(tx, code_id, part, base64.b64encode(piece).decode(), now)


def require_stored(tx: Tx, code: Code, code_id: str) -> None:
    """Raises ResourceConflictException when the parts of some code are not all there any more."""
    if functions.count_code(tx, code_id) != code.parts:
        raise ResourceConflictException("the registry was emptied during the upload; try again")


async def read_code(call: Call, stored: functions.UploadedFunction) -> bytes:
    """The zip of a function. Raises ServiceException when it was replaced meanwhile."""
    pieces: list[bytes] = []
    at = 0
    while at < stored.code_bytes:
        text = await call.read(functions.find_code, stored.code_id, len(pieces))
        if text is None:
            raise ServiceException(
                f"the code of function `{stored.function_name}` was replaced meanwhile; try again"
            )
        pieces.append(base64.b64decode(text))
        at += len(pieces[-1])
    return b"".join(pieces)
