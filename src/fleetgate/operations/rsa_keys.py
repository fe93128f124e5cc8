"""RSA key pairs for CreateKeysAndCertificate, made ahead of demand.

Theory of operation. An RSA-2048 key costs about 35 ms of CPU, fifty times the rest of a
provisioning, and must not hold up the event loop. Worker processes of lower priority make keys
and write them to a pipe; a reader task moves them into a bounded queue. When queue and pipe are
full the workers block in ``write``: the stock is bounded without any bookkeeping. A worker whose
server is gone gets EPIPE at its next key and ends, so even ``kill -9`` of the server leaves
nobody behind. A worker that dies is replaced, with a pause, so that a broken machine does not
spin.

With a stock of 0 nothing is made ahead: one worker starts when the first key is asked for. Nor
are there ever more workers than keys in stock.

The keys exist in the memory of this process and of the workers alone. Keys in stock are used
once and in order of arrival.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from fleetgate.errors import ServiceUnavailableException

log = logging.getLogger("fleetgate.keys")

STOCK = 32
"""Keys kept ready in this process unless a setting says otherwise; the workers' pipes hold a few
more."""

PATIENCE = 30.0
"""Seconds a call waits for a key before it is told that the service is overloaded."""

_F_SETPIPE_SZ = 1031
_LINE_LIMIT = 1 << 12  # a line has some 2700 bytes, and twice this much is read ahead


@dataclass(frozen=True, slots=True)
class RsaKeyPair:
    """A key pair: the private key as PKCS#1 PEM, the public key as SubjectPublicKeyInfo DER."""

    private_pem: str
    public_der: bytes

    def __repr__(self) -> str:
        return "RsaKeyPair(...)"


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a worker: it makes keys, and needs none of ours."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("FLEETGATE_", "AWS_"))
    }


class RsaKeys:
    """The stock of RSA-2048 key pairs (see the module's theory of operation)."""

    def __init__(self, workers: int = 0, stock: int = STOCK) -> None:
        """`workers` 0 means one per processor; `stock` 0 that none starts before it is needed."""
        self._workers = min(workers or os.cpu_count() or 1, max(stock, 1))
        self._ahead = stock > 0
        self._ready: asyncio.Queue[RsaKeyPair] = asyncio.Queue(max(stock, 1))
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the workers, unless nothing is to be made ahead."""
        if self._ahead:
            self._begin()

    def _begin(self) -> None:
        self._tasks = [
            asyncio.create_task(self._tend(), name=f"rsa-keys-{number}")
            for number in range(self._workers)
        ]

    async def take(self) -> RsaKeyPair:
        """A fresh key pair.

        Raises ServiceUnavailableException when none could be made within PATIENCE seconds.
        """
        if not self._tasks:
            self._begin()
        try:
            return await asyncio.wait_for(self._ready.get(), PATIENCE)
        except TimeoutError:
            raise ServiceUnavailableException(
                f"no RSA key could be made within {PATIENCE:.0f} s"
            ) from None

    async def close(self) -> None:
        """Stops the workers and forgets the stock."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tend(self) -> None:
        """Keeps one worker running for as long as the server does."""
        while True:
            read_end, write_end = os.pipe()
            fcntl.fcntl(write_end, _F_SETPIPE_SZ, 4096)
            worker = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fleetgate.operations.rsa_worker",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                env=_without_secrets(os.environ),
            )
            os.close(write_end)
            try:
                await self._collect(read_end)
                log.error("event=key-worker-ended pid=%d", worker.pid)
                await asyncio.sleep(1.0)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    worker.kill()
                await worker.wait()

    async def _collect(self, read_end: int) -> None:
        """Moves key pairs from a worker's pipe into the stock until the pipe ends."""
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
        )
        try:
            while line := await reader.readline():
                private, public = line.split()
                pair = RsaKeyPair(
                    base64.b64decode(private).decode("ascii"), base64.b64decode(public)
                )
                await self._ready.put(pair)
        finally:
            transport.close()
