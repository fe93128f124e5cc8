"""The code of functions over HTTP: links that need no signature of their reader.

Code is read from the store and sent part by part, as the reader takes it.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from fleetgate.errors import ResourceNotFoundException
from fleetgate.gateway.web_pages import Scope
from fleetgate.operations.call import Services
from fleetgate.operations.code_links import check_link
from fleetgate.store import functions
from fleetgate.wire import restjson

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(slots=True)
class StoredBody:
    """The body of an answer: `size` bytes of code in the store."""

    services: Services
    code_id: str
    size: int

    def __len__(self) -> int:
        return self.size

    async def send(self, send: Send) -> None:
        """Sends it; ends early, and so breaks the connection, when the code is gone meanwhile."""
        at = part = 0
        while at < self.size:
            text = await self.services.store.read(functions.find_code, self.code_id, part)
            if text is None:
                raise OSError(f"part {part} of the code {self.code_id} is not there any more")
            piece = base64.b64decode(text)
            at, part = at + len(piece), part + 1
            message = {"type": "http.response.body", "body": piece, "more_body": at < self.size}
            await send(message)


async def open_code(
    services: Services, scope: Scope, path: str
) -> tuple[int, Mapping[str, str], StoredBody]:
    """The answer to `GET` of a link.

    Raises ResourceNotFoundException and AccessDeniedException.
    """
    fields = restjson.parse_query(scope["query_string"].decode("ascii", errors="replace"))
    code = check_link(services.token_key, path, dict(fields), services.now())
    found = await services.store.read(functions.find_function, code.function_name)
    if found is None or found.code_id != code.code_id:
        raise ResourceNotFoundException(
            f"this code of function `{code.function_name}` is not kept any more"
        )
    headers = {
        "content-type": "application/zip",
        "content-disposition": f'attachment; filename="{code.function_name}.zip"',
        "cache-control": "private, no-store",
        "x-content-type-options": "nosniff",
    }
    return 200, headers, StoredBody(services, code.code_id, found.code_bytes)
