"""Many devices at once, and what has to hold of the registry whatever they did."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import CSR, Fleet, signing_request
from tests.integration.paho_device import Message, PahoDevice, decode, encode
from tests.integration.refusal import everything
from tests.integration.server import Server
from tests.postgresql import Cluster

AT_ONCE = 16
WITHIN = 30.0

REQUEST = signing_request("racer")
"""The same request each time: every certificate that is made for it is another one."""


def started(tmp_path: Path, database: str, request: pytest.FixtureRequest, **env: str) -> Server:
    """A server of this test's own on the database `database`, not started yet."""
    if database == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        env["FLEETGATE_DATABASE"] = cluster.url(cluster.create_database())
    return Server(tmp_path / "data", env=env)


@contextmanager
def connected(
    server: Server, fleet: Fleet, count: int, name: str = "racer"
) -> Iterator[list[PahoDevice]]:
    """`count` TLS connections of the fleet's claim certificate, subscribed to CSR's replies."""
    with ExitStack() as stack:

        def connect(number: int) -> PahoDevice:
            device = PahoDevice(server, fleet.claim, f"{name}-{number}", keep_alive=600)
            stack.push(device)
            device.__enter__()
            device.listen(CSR)
            return device

        with ThreadPoolExecutor(AT_ONCE) as pool:
            devices = list(pool.map(connect, range(count)))
        yield devices


def ask(
    devices: Sequence[PahoDevice], topic: str, bodies: Sequence[dict[str, Any]]
) -> list[Message]:
    """Each device sends its request, all of them before any looks at its answer."""
    for device, body in zip(devices, bodies, strict=True):
        device.send(f"{topic}/json", encode(body, "json"))
    answers = [device.message(WITHIN) for device in devices]
    assert {each.topic for each in answers} <= {f"{topic}/json/{end}" for end in ENDS}
    return answers


ENDS = ("accepted", "rejected")


def is_accepted(answer: Message) -> bool:
    return answer.topic.endswith("/accepted")


def kinds(answers: Collection[Message]) -> dict[tuple[int, str], int]:
    """How many of the answers are refusals of which kind."""
    found: dict[tuple[int, str], int] = {}
    for each in answers:
        if not is_accepted(each):
            body = decode(each.payload, "json")
            kind = body["statusCode"], body["errorCode"]
            found[kind] = found.get(kind, 0) + 1
    return found


def new_tokens(devices: Sequence[PahoDevice]) -> list[str]:
    """A certificate for each device; their ownership tokens."""
    body = {"certificateSigningRequest": REQUEST.csr}
    answers = ask(devices, CSR, [body] * len(devices))
    assert all(map(is_accepted, answers)), kinds(answers)
    made = [decode(each.payload, "json") for each in answers]
    assert len({each["certificateId"] for each in made}) == len(devices)
    return [str(each["certificateOwnershipToken"]) for each in made]


@dataclass(frozen=True, slots=True)
class Seen:
    """A registry: ids of certificates by status, ids of certificates by thing."""

    active: frozenset[str]
    pending: frozenset[str]
    things: dict[str, frozenset[str]]


def look(iot: Any, *, beside: Collection[str] = ()) -> Seen:
    """The whole registry; asserts that nothing in it is half done.

    A device's certificate is ACTIVE with a policy and exactly one thing, or PENDING_ACTIVATION
    with neither; a thing has a certificate; no attachment leads to a certificate that is gone.
    Certificates `beside` are no devices'.
    """
    listed = everything(iot, "list_certificates", "certificates")
    by_arn = {
        each["certificateArn"]: each["status"]
        for each in listed
        if each["certificateId"] not in beside
    }
    policies = everything(iot, "list_policies", "policies")
    targets = {
        arn
        for policy in policies
        for arn in everything(
            iot, "list_targets_for_policy", "targets", policyName=policy["policyName"]
        )
        if arn.rpartition("/")[2] not in beside
    }
    things = {
        name: everything(iot, "list_thing_principals", "principals", thingName=name)
        for name in (each["thingName"] for each in everything(iot, "list_things", "things"))
    }
    attached = [arn for principals in things.values() for arn in principals]
    active = {arn for arn, status in by_arn.items() if status == "ACTIVE"}
    assert set(by_arn.values()) <= {"ACTIVE", "PENDING_ACTIVATION"}
    assert targets == active
    assert sorted(attached) == sorted(active)
    assert all(things.values())
    return Seen(
        frozenset(arn.rpartition("/")[2] for arn in active),
        frozenset(arn.rpartition("/")[2] for arn in by_arn if arn not in active),
        {
            name: frozenset(arn.rpartition("/")[2] for arn in principals)
            for name, principals in things.items()
        },
    )
