"""``python:`` functions of the configuration whose code changes while the server runs.

Theory of operation. A process imports the code once and keeps it. Before an event is given to a
function, the files its code is in are looked at: that of its module, those of the packages above
it, and what they import that lies in the search path as well. The imports are read from the source;
nothing of it is run here. When one of the files is another than it was (inode, size, times), the
function's processes are exchanged: those of the old code end after the events they work on, those
in line go to them too, and new ones start for the events that come.

The look is a thread's, since a file server may hang; events that come meanwhile wait for the same
one, and for none longer than a moment.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from fleetgate.functions.pool import Pool
from fleetgate.functions.program import Program
from fleetgate.functions.target import Run
from fleetgate.functions.threads import Threads

log = logging.getLogger("fleetgate.functions")

MAX_FILES: Final = 500
"""Files of one function that are looked at."""

LOOK_SECONDS: Final = 1.0
"""An event waits for a look no longer."""

_MAX_BYTES = 1 << 20  # of a file whose imports are followed

_State = tuple[int, ...]


class Sources:
    """The files that the code of `module` is in, as it is found in `search_path`, or by Python."""

    def __init__(self, module: str, search_path: Sequence[Path], *, most: int = MAX_FILES) -> None:
        self.files: dict[Path, _State] = {}
        """What was looked at last."""
        self.changed: Path | None = None
        """The file whose change made the last look another one."""
        self._module = module
        self._search_path = [str(each) for each in search_path]
        self._package = module.partition(".")[0]
        self._most = most

    def look(self) -> str:
        """What stands for the code as it is now: another text for other code, "" for none.

        Opens files; blocks.
        """
        for path, known in self.files.items():
            if _state(path) != known:
                self.changed = path
                break
        else:
            if self.files:
                return self._revision()
        self.files = dict(self._found())
        if self.changed is None:
            self.changed = next(iter(self.files), None)
        return self._revision()

    def _revision(self) -> str:
        return ";".join(f"{path}:{state}" for path, state in self.files.items())

    def _found(self) -> Iterator[tuple[Path, _State]]:
        """The files, with the state they had before they were read."""
        seen: set[str] = set()
        names = [*_with_parents(self._module)]
        count = 0
        for name in names:
            if name in seen or count >= self._most:
                continue
            seen.add(name)
            path = self._file(name)
            state = None if path is None else _state(path)
            if path is None or state is None:
                continue
            count += 1
            yield path, state
            names += _imports(path, name)

    def _file(self, name: str) -> Path | None:
        """Where a module is: a file of the search path, and of all Python's for its own package."""
        places = self._search_path
        if name.partition(".")[0] == self._package:
            places = [*places, *sys.path]
        relative = name.replace(".", os.sep)
        for place in places:
            for each in (f"{relative}{os.sep}__init__.py", f"{relative}.py"):
                path = os.path.join(place, each)  # noqa: PTH118 - many of them
                if os.path.isfile(path):  # noqa: PTH113
                    return Path(path)
        return None


class Reloading:
    """A Target that runs a Program whose code is `sources`; `pool` makes what runs it."""

    def __init__(self, program: Program, sources: Sources, pool: Callable[[Program], Pool]) -> None:
        self._program = program
        self._sources = sources
        self._make = pool
        self._pool = pool(program)
        self._revision: str | None = None
        self._retiring: dict[Pool, asyncio.Task[None]] = {}
        self._threads = Threads("fleetgate-sources", 1)
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def description(self) -> str:
        """What is told to operators."""
        return self._program.description

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        """Runs the function on an event, with the code there is now; see Target."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.wait({self._looking}, timeout=min(seconds, LOOK_SECONDS))
        return await self._pool.invoke(event, request_id=request_id, seconds=end - loop.time())

    async def close(self) -> None:
        """Ends all processes, and what runs in them."""
        self._closed = True
        pools, tasks = [self._pool, *self._retiring], list(self._retiring.values())
        await asyncio.gather(*(pool.close() for pool in pools))
        await asyncio.gather(*tasks)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        revision = await self._threads.run(self._sources.look)
        if self._closed:
            return
        if self._revision is not None and revision != self._revision:
            log.info(
                "event=function-changed function=%s target=%r file=%r",
                *(self._program.name, self.description, str(self._sources.changed)),
            )
            old, self._pool = self._pool, self._make(replace(self._program, revision=revision))
            self._retiring[old] = asyncio.create_task(self._retire(old))
        self._revision = revision

    async def _retire(self, pool: Pool) -> None:
        await pool.drain()
        del self._retiring[pool]


def _with_parents(name: str) -> Iterator[str]:
    """The packages above a module, then the module."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])


def _imports(path: Path, name: str) -> Iterator[str]:
    """The modules that the source of the module `name` may import."""
    try:
        with path.open("rb") as file:
            source = file.read(_MAX_BYTES + 1)
        if len(source) > _MAX_BYTES:
            return
        tree = ast.parse(source, str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # whoever runs it tells
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            if node.level > len(package):
                continue
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
