"""The CPU time of RegisterThing with a full registry against a nearly empty one.

Both registries are filled through the store's own functions while no server runs; each thing has
a certificate, a policy and an attribute, as RegisterThing leaves it. Connecting and creating the
certificates is not part of what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import queue
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import rig
from bench.fleet import (
    CREATE_FROM_CSR,
    DEVICE_POLICY_NAME,
    REGISTER,
    TEMPLATE,
    Fleet,
    create,
    make_key,
    register,
    set_up,
    subscribe,
)
from fleetgate.device.connection import DeviceConnection
from fleetgate.names import Account
from fleetgate.store import certificates, policies, things
from fleetgate.store.engine import Tx
from fleetgate.store.sqlite import SqliteStore

FEW = 10_000
TURNS = 24
THREADS = 8
CALLS = 120
_BATCH = 5_000
_ACCOUNT = Account("000000000000", "us-east-1")
_numbers = itertools.count()

Connections = queue.SimpleQueue[DeviceConnection]


def run(options: argparse.Namespace, directory: Path) -> None:
    """Measures and prints."""
    sizes = (FEW, options.things)
    rig.heading(f"registry: RegisterThing in registries of two sizes, {TURNS} turns of {CALLS}")
    with contextlib.ExitStack() as stack:
        fleets = [
            _filled(stack, directory / name, size)
            for name, size in zip(("few", "many"), sizes, strict=True)
        ]
        for fleet in fleets:
            _take_turn(fleet)  # warm up
        turns = [[_take_turn(fleet) for fleet in fleets] for _ in range(TURNS)]
    for number, size in enumerate(sizes):
        rig.line(
            f"server CPU of a call, {size:,} things",
            rig.median(each[number].cost for each in turns),
            "ms",
        )
    pairs = ((many.cost, few.cost) for few, many in turns)
    rig.verdict(f"{sizes[1]:,} / {sizes[0]:,} things", rig.ratio(pairs), most=1.2)


def _filled(stack: contextlib.ExitStack, directory: Path, size: int) -> Fleet:
    """A running server whose registry holds `size` things."""
    directory.mkdir()
    data = directory / "server"
    with rig.fleetgate(data, rig.SERVER_CORE) as server:
        fleet = set_up(server, directory)
    pem = (directory / "claim.pem").read_text()
    asyncio.run(_fill(data / "registry.db", size, pem))
    return replace(fleet, server=stack.enter_context(rig.fleetgate(data, rig.SERVER_CORE)))


async def _fill(file: Path, size: int, pem: str) -> None:
    # in the order of the certificate ids: inserting is much faster so
    ids = sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(size))
    with contextlib.closing(SqliteStore(file)) as store:
        for start in range(0, size, _BATCH):
            await store.write(_add, ids[start : start + _BATCH], start, pem)


def _add(tx: Tx, ids: Sequence[str], start: int, pem: str) -> None:
    for number, certificate_id in enumerate(ids, start):
        name, now = f"filler-{number:09}", 1.7e9 + number
        arn = _ACCOUNT.arn(f"cert/{certificate_id}")
        certificate = certificates.Certificate(
            *(certificate_id, "ACTIVE", pem, "DEFAULT", now, 2.5e9, now, now, 1, "generation"),
            template_name=TEMPLATE,
            thing_name=name,
        )
        certificates.add_certificate(tx, certificate)
        things.add_thing(tx, things.Thing(name, name, None, {"serialNumber": name}, 1, now))
        things.add_thing_principal(tx, name, arn)
        policies.add_policy_attachment(tx, DEVICE_POLICY_NAME, arn)


def _take_turn(fleet: Fleet) -> rig.Turn:
    """CALLS times RegisterThing, over connections that are open and with tokens made before."""
    csr = make_key(fleet.directory, "device").csr
    connections: Connections = queue.SimpleQueue()
    tokens: list[str] = []
    with contextlib.ExitStack() as stack:
        for _ in range(THREADS):
            connection = stack.enter_context(fleet.connect(f"claim-{next(_numbers)}"))
            subscribe(connection, CREATE_FROM_CSR)
            subscribe(connection, REGISTER)
            tokens += [create(connection, csr).ownership_token for _ in range(CALLS // THREADS)]
            connections.put(connection)
        work = [partial(_register, connections, token) for token in tokens]
        return rig.take_turn(fleet.server, work, THREADS)


def _register(connections: Connections, token: str) -> None:
    connection = connections.get()
    register(connection, token, f"device-{next(_numbers)}")
    connections.put(connection)
