"""Many devices that are provisioned at once: load, in one process, on one event loop.

Each device does what a real one does, by the same code: connect with the claim, create, register,
disconnect, reconnect with its own certificate, publish (:mod:`fleetgate.device.operations`).
Nothing is tried again, and nothing is written to disk: what fails is counted.

What would make the generator slow is done before the clock starts, or once: keys and signing
requests are made ahead, the server's name is resolved once, and two TLS contexts do for all: one
with the claim, and one that is loaded with a device's certificate at the moment that it connects.

Profiles. In a `burst` all devices begin together, as when a production line is switched on; at a
`steady` rate one begins each 1/rate seconds, whether or not the others are done; in a `storm` all
are provisioned first (at the rate, if there is one), and then all connect together, publish, stay
until everybody is there, and disconnect: as after a power cut, as often as wanted.

Every connection that is made is closed: by its device, and whatever else happens, at the end.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias, TypeVar

from fleetgate.device import asyncio_client, operations, tls
from fleetgate.device.asyncio_client import Address, AsyncioClient
from fleetgate.device.asyncio_tls import OpenTls
from fleetgate.device.disk import Disk
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import NotAcknowledged, ProvisioningError
from fleetgate.device.protocol import Issued
from fleetgate.device.simulate_plan import Device, Plan, fill
from fleetgate.device.simulate_report import Phase, Result

Watch: TypeAlias = Callable[[Phase], None]
"""Called when something has changed."""

_T = TypeVar("_T")


async def simulate(
    plan: Plan, devices: Sequence[Device], watch: Watch, stop: asyncio.Event
) -> Result:
    """Do it, until it is done or `stop` is set; what was counted until then.

    Raises ConnectionFailed when a file for TLS cannot be used (``step`` is ``prepare``), or nobody
    listens (``connect``).
    """
    result = Result()
    with _certificates(plan) as certificates:
        try:
            addresses = await asyncio_client.resolve(plan.endpoint)
        except ProvisioningError as error:
            error.at("connect")
            raise
        simulation = _Simulation(plan, certificates, addresses, result, watch)
        working = asyncio.ensure_future(simulation.run(devices))
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            result.interrupted = not working.done()
            working.cancel()
            await asyncio.wait([working, stopped])
            await simulation.close()
        if not working.cancelled():
            working.result()
    return result


class _Failed(Exception):
    def __init__(self, step: str, error: ProvisioningError) -> None:
        super().__init__(step)
        self.step = step
        self.error = error


class _Simulation:
    def __init__(
        self,
        plan: Plan,
        certificates: _Certificates,
        addresses: Sequence[Address],
        result: Result,
        watch: Watch,
    ) -> None:
        self._plan = plan
        self._certificates = certificates
        self._addresses = addresses
        self._result = result
        self._watch = watch
        self._random = random.Random(plan.seed)  # noqa: S311 - it has to come out the same again
        self._open: set[AsyncioClient] = set()
        self._kept: list[AsyncioClient] = []
        self._dialled = 0

    async def run(self, devices: Sequence[Device]) -> None:
        """All phases."""
        plan = self._plan
        name = "provision" if plan.profile == "storm" else plan.profile
        await self._phase(name, devices, plan.rate, self._onboard)
        if plan.profile != "storm":
            return
        for number in range(1, plan.storms + 1):
            ready = [each for each in devices if each.pem is not None]
            if not ready:
                return  # what there is to say is in the failures
            try:
                await self._phase(f"storm {number}", ready, None, self._come_back)
            finally:
                kept, self._kept = self._kept, []
                await asyncio.gather(*map(self._hang_up, kept))

    def _starts(self, count: int, rate: float | None) -> Iterable[float]:
        """When they begin, in seconds, ascending."""
        if rate is not None:
            return (number / rate for number in range(count))
        spread = self._plan.spread
        return sorted(self._random.uniform(0, spread) for _ in range(count))

    async def _phase(
        self,
        name: str,
        devices: Sequence[Device],
        rate: float | None,
        work: Callable[[Phase, Device], Awaitable[None]],
    ) -> None:
        phase = Phase(name, len(devices))
        self._result.phases.append(phase)
        room = asyncio.Semaphore(self._plan.at_once)
        begun, worked = time.monotonic(), time.process_time()

        async def one(device: Device) -> None:
            try:
                await work(phase, device)
                phase.succeeded += 1
            except _Failed as failed:
                phase.failure(failed.step, failed.error, device.serial)
            finally:
                room.release()
                phase.seconds = time.monotonic() - begun
                self._watch(phase)

        try:
            async with asyncio.TaskGroup() as group:
                for device, due in zip(devices, self._starts(len(devices), rate), strict=True):
                    wait = begun + due - time.monotonic()
                    if wait > 0:
                        await asyncio.sleep(wait)
                    await room.acquire()
                    if rate is not None:
                        phase.late = max(phase.late, time.monotonic() - begun - due)
                    phase.started += 1
                    group.create_task(one(device))
        finally:
            phase.seconds = time.monotonic() - begun
            phase.cpu_seconds = time.process_time() - worked
            self._watch(phase)

    # --- what a device does ---

    async def _onboard(self, phase: Phase, device: Device) -> None:
        plan = self._plan
        begun = time.monotonic()
        values = device.values
        claim_id = fill(plan.claim_client_id, values)
        claim = self._connect(self._certificates.claim, claim_id)
        async with self._connected(phase, "connect", claim) as client:
            issued = await _step(phase, "create", self._create(client, device))
            registered = await _step(
                phase,
                "register",
                operations.register_thing_async(
                    client, plan.template, issued.ownership_token, device.parameters, plan.terms
                ),
            )
        values["thing"] = registered.thing_name or device.serial
        values["client_id"] = fill(plan.client_id, values)
        pem = f"{issued.certificate_pem}\n{device.key or issued.private_key}"
        own = self._connect(self._certificates.of(pem), values["client_id"])
        async with self._connected(phase, "reconnect", own) as client:
            await self._say(phase, client, values)
        device.pem = pem
        phase.took("total", time.monotonic() - begun)

    async def _come_back(self, phase: Phase, device: Device) -> None:
        assert device.pem is not None  # noqa: S101 - run() chose those that have one
        own = self._connect(self._certificates.of(device.pem), device.values["client_id"])
        client = await _step(phase, "reconnect", own)
        try:
            await self._say(phase, client, device.values)
        except BaseException:
            await self._hang_up(client)
            raise
        self._kept.append(client)

    async def _create(self, client: AsyncioClient, device: Device) -> Issued:
        if device.csr is None:
            return await operations.create_keys_and_certificate_async(client, self._plan.terms)
        return await operations.create_certificate_from_csr_async(
            client, device.csr, self._plan.terms
        )

    async def _say(self, phase: Phase, client: AsyncioClient, values: Mapping[str, str]) -> None:
        if self._plan.publish is not None:
            topic = fill(self._plan.publish, values)
            await _step(phase, "publish", self._publish(client, topic))

    async def _publish(self, client: AsyncioClient, topic: str) -> None:
        limit = self._plan.terms.mqtt_timeout
        try:
            async with asyncio.timeout(limit):
                await asyncio.wrap_future(client.publish(topic, b'{"simulated":true}', 1))
        except TimeoutError:
            raise NotAcknowledged(
                f"the server did not acknowledge the message to `{topic}` within {limit:g} s",
                topic=topic,
                waited=limit,
            ) from None

    # --- connections ---

    async def _connect(self, open_tls: OpenTls, client_id: str) -> AsyncioClient:
        self._dialled += 1
        address = self._addresses[self._dialled % len(self._addresses)]
        client = await asyncio_client.connect(self._plan.endpoint, address, open_tls, client_id)
        self._open.add(client)
        return client

    @asynccontextmanager
    async def _connected(
        self, phase: Phase, step: str, connecting: Awaitable[AsyncioClient]
    ) -> AsyncIterator[AsyncioClient]:
        client = await _step(phase, step, connecting)
        try:
            yield client
        finally:
            await self._hang_up(client)

    async def _hang_up(self, client: AsyncioClient) -> None:
        await asyncio.wrap_future(client.disconnect())
        self._open.discard(client)

    async def close(self) -> None:
        """Cut what is still open."""
        for client in self._open:
            client.abort()
        await asyncio.gather(*(asyncio.wrap_future(each.disconnect()) for each in self._open))


async def _step(phase: Phase, step: str, doing: Awaitable[_T]) -> _T:
    begun = time.monotonic()
    try:
        found = await doing
    except ProvisioningError as error:
        raise _Failed(step, error) from error
    phase.took(step, time.monotonic() - begun)
    return found


# --- TLS ---


class _Certificates:
    """Begins TLS with the claim, or with the certificate and key in a text; two contexts in all."""

    def __init__(self, endpoint: Endpoint, claim: Credentials, memory: int) -> None:
        self._host = endpoint.host
        self._memory = memory
        self._disk = Disk()
        self._claim: ssl.SSLContext = tls.context(endpoint.ca, claim.certificate, claim.key)
        self._own: ssl.SSLContext = tls.trusting(endpoint.ca)
        if endpoint.offered_alpn:
            self._claim.set_alpn_protocols([endpoint.offered_alpn])
            self._own.set_alpn_protocols([endpoint.offered_alpn])

    def claim(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """See :data:`~fleetgate.device.asyncio_tls.OpenTls`."""
        return self._claim.wrap_bio(incoming, outgoing, server_hostname=self._host)

    def of(self, pem: str) -> OpenTls:
        """With the certificate and the key in `pem`."""

        def begin(incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
            os.ftruncate(self._memory, 0)
            os.lseek(self._memory, 0, os.SEEK_SET)
            self._disk.write(self._memory, pem.encode())
            # what is made of a context keeps the certificate that the context has now
            self._own.load_cert_chain(f"/proc/self/fd/{self._memory}")
            return self._own.wrap_bio(incoming, outgoing, server_hostname=self._host)

        return begin


@contextmanager
def _certificates(plan: Plan) -> Iterator[_Certificates]:
    memory = os.memfd_create("certificate")
    try:
        try:
            found = _Certificates(plan.endpoint, plan.claim, memory)
        except ProvisioningError as error:
            error.at("prepare")
            raise
        yield found
    finally:
        os.close(memory)
