"""Reports of bulk registration over HTTP: links that need no signature of their reader.

A report is sent in pieces as the reader takes them: little of it is in memory at a time, however
large it is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from fleetgate.errors import ResourceNotFoundException
from fleetgate.gateway.web_pages import Scope, header
from fleetgate.operations.call import Services
from fleetgate.operations.report_links import check_link
from fleetgate.wire import restjson

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CHUNK = 65536
"""Bytes that are read and sent at a time."""


@dataclass(slots=True)
class FileBody:
    """The body of an answer: `size` bytes of an open file, which is closed behind them."""

    descriptor: int
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    async def send(self, send: Send) -> None:
        """Sends it; ends early, and so breaks the connection, when the file is shorter."""
        at, end = self.start, self.start + self.size
        try:
            while at < end:
                chunk = os.pread(self.descriptor, min(CHUNK, end - at), at)
                if not chunk:
                    raise OSError(f"a report ends at {at}, not at {end}")
                at += len(chunk)
                message = {"type": "http.response.body", "body": chunk, "more_body": at < end}
                await send(message)
                # what is sent in one turn leaves together, and nobody would hold it back
                await asyncio.sleep(0)
        finally:
            os.close(self.descriptor)


def open_report(services: Services, scope: Scope, path: str) -> tuple[int, Mapping[str, str], Any]:
    """The answer to `GET` of a link, its body a FileBody.

    Raises ResourceNotFoundException and AccessDeniedException.
    """
    fields = restjson.parse_query(scope["query_string"].decode("ascii", errors="replace"))
    piece = check_link(services.token_key, path, dict(fields), services.now())
    reports = services.bulk.reports
    descriptor = None if reports is None else reports.open(piece.task_id, piece.kind)
    if descriptor is None:
        raise ResourceNotFoundException(
            f"the reports of bulk registration task {piece.task_id} are not kept any more"
        )
    name = f"{piece.task_id}-{piece.kind.lower()}-{piece.start}.jsonl"
    headers = {
        "content-type": "application/x-ndjson",
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "private, no-store",
        "x-content-type-options": "nosniff",
    }
    return 200, headers, FileBody(descriptor, piece.start, piece.end - piece.start)


def base_url(scope: Scope) -> str:
    """How a caller reached the server: links in answers begin with it.

    It is the Host header, which every signature covers, and the scheme a trusted proxy names.
    """
    host = header(scope, b"host")
    if not host:  # HTTP/1.0, and nothing is signed
        address = scope.get("server") or ("localhost", 80)
        host = f"{address[0]}:{address[1]}"
    return f"{scope.get('scheme', 'http')}://{host}"
