"""All functions that can be run: those of the configuration, and uploaded ones as they come.

Theory of operation. Those of the configuration are there from the start to the end of the server.
An uploaded one is known by its Program: whoever invokes it brings the newest, and processes of an
older revision end when they have done their work. Its code lies in a directory named by its hash,
unpacked when it is first needed and removed when no function needs it any more, or when all of it
takes too much room: what was used longest ago first. What a server that was killed left behind is
removed at the next start.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from fleetgate.errors import Error
from fleetgate.functions import removal, surroundings, unpacked, unpacking
from fleetgate.functions.configured import (
    BuiltIn,
    Configured,
    LambdaEndpoint,
    PythonFunction,
    Webhook,
)
from fleetgate.functions.program import Program
from fleetgate.functions.target import Failure, FunctionError, Target

if TYPE_CHECKING:
    from fleetgate.functions.pool import Pool

log = logging.getLogger("fleetgate.functions")

LAST_CALLS: Final = 2.0
"""Seconds a replaced function still takes events from those who looked it up before."""

runtimes = surroundings.runtimes


class Functions:
    """What runs functions, by their names.

    `configured` are those of the configuration; `directory` is where uploaded code is unpacked, a
    temporary one if it is None. `targets` is what runs the functions of the configuration, by name:
    who invokes one finds it there (operations/invocation.py), and a test puts its own there.
    `arn` is the ARN of a function's name. No function reaches the files and directories `hidden`,
    nor the files that others are configured with.
    With `interface_client` AWS's runtime interface client runs Python where it is installed.
    """

    def __init__(
        self,
        configured: Mapping[str, Configured] | None = None,
        directory: Path | None = None,
        *,
        arn: Callable[[str], str] = "arn:aws:lambda:us-east-1:000000000000:function:{}".format,
        hidden: Iterable[Path] = (),
        interface_client: bool = True,
        last_calls: float = LAST_CALLS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.configured = dict(configured or {})
        self.targets: dict[str, Target] = {}
        self._arn = arn
        secret = [path for each in self.configured.values() for path in files_of(each)]
        self._house = surroundings.House((*hidden, *secret), interface_client)
        self._directory = directory
        self._last_calls = last_calls
        self._temporary: Path | None = None
        self._pools: dict[str, Pool] = {}
        self._retiring: dict[Pool, asyncio.Task[None]] = {}
        self._unpacked = unpacked.Unpacked(clock)
        self._unpacking: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def start(self) -> None:
        """Makes what runs the functions of the configuration, but for those in `operations`.

        Raises Error for one that can never work; what may be repaired while the server runs is a
        warning: a module that is not found.
        """
        if self._directory is not None:
            await _removed(self._directory)
        for name, function in self.configured.items():
            try:
                target = await asyncio.to_thread(self._target, name, function)
            except ValueError as error:
                raise Error(f"functions: {error}") from None
            if target is not None:
                self.targets[name] = target
                log.info(
                    "event=function-configured function=%s target=%r", name, target.description
                )
            if isinstance(function, PythonFunction) and (why := not_found(function)):
                log.warning("event=function-not-found function=%s cause=%r", name, why)

    async def code(
        self,
        sha256: str,
        read: Callable[[], Awaitable[bytes]],
        most: int = unpacking.MAX_BYTES,
        most_together: int = unpacked.MAX_BYTES,
    ) -> Path:
        """The directory of some code; `sha256` is the hash of its zip in base64.

        `read` is asked for the zip when it has to be unpacked, to `most` bytes; what it raises
        goes on. Give the directory to `uploaded` at once: code nobody runs is removed. Raises
        FunctionError(NOT_STARTED) for a zip that cannot be unpacked, and FunctionError(THROTTLED)
        when the code that is run already takes `most_together` bytes of the disk.
        """
        place = unpacking.place(self._code(), base64.b64decode(sha256))
        self._unpacked.use(place)
        if place.is_dir():
            return place
        async with self._unpacking.setdefault(place, asyncio.Lock()):
            if place.is_dir():
                return place
            zip_file = await read()
            try:
                await asyncio.to_thread(unpacking.unpack, zip_file, self._code(), most)
                self._unpacked.add(place, await asyncio.to_thread(unpacked.size_of, place))
                await self._make_room(place, most_together)
            except (unpacking.UnpackError, OSError) as error:
                raise FunctionError(
                    Failure.NOT_STARTED, f"the code of the function cannot be unpacked: {error}"
                ) from None
            return place

    def uploaded(self, program: Program) -> Target:
        """What runs an uploaded function; processes of another revision of it come to an end."""
        pool = self._pools.get(program.name)
        if pool is None or pool.program.revision != program.revision:
            self.forget(program.name)
            pool = self._pools[program.name] = self._pool(program)
        return pool

    def forget(self, name: str) -> None:
        """Ends the processes of an uploaded function when they have done their work."""
        pool = self._pools.pop(name, None)
        if pool is not None:
            self._retiring[pool] = asyncio.create_task(self._retire(pool))

    async def reset(self) -> None:
        """Ends everything that was uploaded, at once."""
        pools = [*self._pools.values(), *self._retiring]
        self._pools.clear()
        for task in self._retiring.values():
            task.cancel()
        await asyncio.gather(*self._retiring.values(), return_exceptions=True)
        self._retiring.clear()
        await asyncio.gather(*(pool.close() for pool in pools))
        for place in {*self._unpacked, *(pool.program.directory for pool in pools)}:
            await self._remove(place)

    async def close(self) -> None:
        """Ends everything."""
        await self.reset()
        targets = list(self.targets.values())
        self.targets.clear()
        await asyncio.gather(*(target.close() for target in targets))
        if self._temporary is not None:
            await _removed(self._temporary)
            self._temporary = None

    def _code(self) -> Path:
        if self._directory is not None:
            return self._directory
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="fleetgate-code-"))
        return self._temporary

    def _pool(self, program: Program) -> Pool:
        from fleetgate.functions.pool import Pool  # a server that runs none need not load it

        return Pool(program, self._house)

    def _target(self, name: str, function: Configured) -> Target | None:
        match function:
            case PythonFunction():
                from fleetgate.functions.reloading import Reloading, Sources

                for path in function.search_path:
                    if not path.is_dir():
                        raise ValueError(f"`{name}`: `path`: there is no directory `{path}`")
                program = python_program(name, self._arn(name), function)
                sources = Sources(function.module, program.search_path)
                return Reloading(program, sources, self._pool)
            case Webhook():
                from fleetgate.functions import webhook

                return webhook.target(name, function)
            case LambdaEndpoint():
                from fleetgate.functions import lambda_endpoint

                return lambda_endpoint.target(name, function)
            case BuiltIn():
                from fleetgate.functions import signers

                if function.kind in signers.KINDS:
                    try:
                        return signers.signer(
                            function.kind, name, function.options, function.directory
                        )
                    except ValueError as error:
                        raise ValueError(f"`{name}`: {error}") from None
        return None

    async def _retire(self, pool: Pool) -> None:
        await asyncio.sleep(self._last_calls)
        await pool.drain()
        del self._retiring[pool]
        await self._remove(pool.program.directory)

    async def _make_room(self, newest: Path, most: int) -> None:
        """Removes code that was not used for long, until all takes at most `most` bytes."""
        for place in self._unpacked.disused():
            if self._unpacked.bytes <= most:
                return
            pools = [each for each in self._pools.values() if each.program.directory == place]
            if place == newest or not all(pool.is_quiet for pool in pools):
                continue
            for pool in pools:
                del self._pools[pool.program.name]
            await asyncio.gather(*(pool.close() for pool in pools))
            await self._remove(place)
        if (together := self._unpacked.bytes) > most:
            await self._remove(newest)
            raise FunctionError(
                Failure.THROTTLED,
                f"the unpacked code of the functions that are in use would take {together} bytes; "
                f"the limit `function_unpacked` is {most}",
            )

    async def _remove(self, directory: Path | None) -> None:
        used = {pool.program.directory for pool in (*self._pools.values(), *self._retiring)}
        if directory is None or directory.parent != self._code() or directory in used:
            return
        self._unpacked.discard(directory)
        # out of the way at once, before this waits for anything: nobody shall find half of it
        gone = directory.with_suffix(".gone")
        with contextlib.suppress(OSError):
            directory.rename(gone)  # noqa: ASYNC240
            await _removed(gone)


async def _removed(directory: Path) -> None:
    try:
        await asyncio.to_thread(removal.remove, str(directory))
    except OSError as error:
        log.error(
            "event=function-directory-not-removed directory=%s cause=%r", directory, str(error)
        )


def python_program(name: str, arn: str, function: PythonFunction) -> Program:
    """The program of a ``python:`` function of the configuration."""
    return Program(
        name=name,
        arn=arn,
        runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
        handler=f"{function.module}.{function.function}",
        description=f"python:{function.module}:{function.function}",
        directory=None,
        revision="",
        environment=function.environment,
        search_path=(*(path.absolute() for path in function.search_path), *_python_path()),
        timeout_seconds=function.timeout_seconds,
        memory_megabytes=function.memory_megabytes,
        concurrency=function.concurrency,
    )


def files_of(function: Configured) -> list[Path]:
    """The files a function is configured with, which hold its keys and secrets."""
    match function:
        case Webhook():
            named = [function.secret_file, function.client_certificate, function.client_key]
        case BuiltIn():
            named = [function.directory / text for text in _texts(function.options)]
        case _:
            named = []
    return [path for path in named if path is not None and os.path.isfile(path)]  # noqa: PTH113


def _texts(options: Mapping[str, object]) -> Iterator[str]:
    """The texts that may be the names of files, also those in tables."""
    for value in options.values():
        if isinstance(value, str) and len(value) < 4096:
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value)


def _python_path() -> list[Path]:
    """Where the server's Python was told to look, which its functions are not told by it."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [Path(entry).absolute() for entry in entries if entry]


def not_found(function: PythonFunction) -> str:
    """Why the module of a function cannot be found; empty when it can. Imports nothing."""
    path = [*(str(each) for each in function.search_path), *sys.path]
    above = ""
    for part in function.module.split("."):
        name = f"{above}.{part}".lstrip(".")
        try:
            spec = PathFinder.find_spec(name, path)
        except (ImportError, OSError, ValueError) as error:
            return f"module `{name}`: {error}"
        if spec is None:
            places = ", ".join(f"`{each}`" for each in path if each)
            return f"there is no module `{name}` in {places}"
        above, path = name, list(spec.submodule_search_locations or [])
    return ""
