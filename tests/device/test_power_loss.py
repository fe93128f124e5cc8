"""The power goes at every call to the file system: in the end there is one working identity."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fleetgate.device.disk import Disk
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import InDoubt, NoIdentity
from fleetgate.device.identity import Identity, load
from fleetgate.device.provision import Progress, Provisioned, Retries, provision, renew
from tests.device.conftest import Files, Issuer
from tests.device.memory_server import MemoryServer, refusal
from tests.device.recorded_disk import Left, RecordedDisk, UnflushedDisk

WAYS: list[Left] = ["nothing", "names", "content", "removals"]


@pytest.fixture
def server(issuer: Issuer, claim: Files) -> MemoryServer:
    return MemoryServer(issuer, claim)


def provisioned(
    server: MemoryServer,
    out: Path,
    calls: Disk,
    progress: Progress | None = None,
    *,
    begin_anew: bool = False,
) -> Provisioned:
    return provision(
        Endpoint("localhost", 8883, server.claim.ca),
        Credentials(server.claim.certificate, server.claim.key),
        "lamps",
        {},
        out,
        connect=server.connect,
        calls=calls,
        progress=progress,
        begin_anew=begin_anew,
        retries=Retries(first_pause=0.001),
    )


def active(out: Path) -> Identity | None:
    try:
        return load(out)
    except NoIdentity:
        return None


def works(server: MemoryServer, identity: Identity) -> bool:
    server.connect(identity.endpoint(), identity.credentials, identity.client_id)
    return server.certificates[identity.certificate_id] == "ACTIVE"


@pytest.mark.parametrize("left", WAYS)
def test_while_provisioning(left: Left, server: MemoryServer, tmp_path: Path) -> None:
    disk = RecordedDisk()
    first = provisioned(server, tmp_path / "out", disk)
    server.only_as = "lamp-1"
    states = set()
    for calls in range(len(disk.calls) + 1):
        out = tmp_path / "left"
        disk.after_power_loss(calls, left, out)
        found = active(out)
        assert found is None or works(server, found), calls
        before = len(server.active)
        done = provisioned(server, out, UnflushedDisk())
        assert works(server, done.identity), calls
        # A certificate that was registered is never lost: it goes on with the first one from when
        # RegisterThing was sent, and registers no second one.
        resumed = done.certificate_id == first.certificate_id
        assert len(server.active) == before + (not resumed), calls
        states.add((found is not None, resumed))
        shutil.rmtree(out)
    assert states == {(False, False), (False, True), (True, True)}


@pytest.mark.parametrize("left", WAYS)
def test_no_registered_certificate_is_lost(
    left: Left, server: MemoryServer, tmp_path: Path
) -> None:
    """The power goes right when the server has registered the device, and afterwards."""
    disk = RecordedDisk()
    done: list[int] = []

    def tell(step: str, _sentence: str) -> None:
        if step == "reconnect":
            done.append(len(disk.calls))

    first = provisioned(server, tmp_path / "out", disk, tell)
    journal = 5  # create, write, flush, rename, flush_directory
    for calls in range(done[0] - journal, len(disk.calls) + 1):
        disk.after_power_loss(calls, left, tmp_path / f"left-{calls}")
        again = provisioned(server, tmp_path / f"left-{calls}", UnflushedDisk())
        assert again.certificate_id == first.certificate_id
    assert server.active == [first.certificate_id]


@pytest.mark.parametrize("left", WAYS)
def test_while_beginning_anew_because_the_token_was_refused(
    left: Left, server: MemoryServer, tmp_path: Path
) -> None:
    """In doubt is only what had been sent, and was not known to be answered."""
    disk = RecordedDisk()
    server.faults["register"].append(refusal(400, "InvalidCertificateOwnershipToken"))
    first = provisioned(server, tmp_path / "out", disk)
    server.only_as = "lamp-1"
    token = next(iter(server.tokens))
    server.tokens[token] = ("", -1.0)
    doubts = []
    for calls in range(len(disk.calls) + 1):
        out = tmp_path / "left"
        disk.after_power_loss(calls, left, out)
        before = len(server.active)
        try:
            done = provisioned(server, out, UnflushedDisk())
        except InDoubt:
            doubts.append(calls)
            done = provisioned(server, out, UnflushedDisk(), begin_anew=True)
        assert works(server, done.identity), calls
        resumed = done.certificate_id == first.certificate_id
        assert len(server.active) == before + (not resumed), calls
        shutil.rmtree(out)
    journal = 5  # create, write, flush, rename, flush_directory
    assert 0 < len(doubts) <= 2 * journal
    assert doubts == list(range(doubts[0], doubts[-1] + 1))


@pytest.mark.parametrize("left", WAYS)
def test_no_key_is_lost_whose_certificate_was_asked_for(
    left: Left, server: MemoryServer, tmp_path: Path
) -> None:
    disk = RecordedDisk()
    asked: list[int] = []

    def tell(step: str, _sentence: str) -> None:
        if step == "create":
            asked.append(len(disk.calls))

    provisioned(server, tmp_path / "out", disk, tell)
    disk.after_power_loss(asked[0], left, tmp_path / "left")
    keys = [(tmp_path / out / "identity-1/private.key").read_bytes() for out in ("out", "left")]
    assert keys[0] == keys[1]


@pytest.mark.parametrize("left", WAYS)
def test_while_renewing(left: Left, server: MemoryServer, tmp_path: Path) -> None:
    disk = RecordedDisk()
    first = provisioned(server, tmp_path / "out", disk)
    begin = len(disk.calls)
    second = renew(tmp_path / "out", "renewal", {}, connect=server.connect, calls=disk)
    seen = []
    for calls in range(begin, len(disk.calls) + 1):
        out = tmp_path / "left"
        disk.after_power_loss(calls, left, out)
        found = load(out)  # there is an active identity at every instant
        assert works(server, found), calls
        seen.append(found.certificate_id)
        done = renew(out, "renewal", {}, connect=server.connect, calls=UnflushedDisk())
        assert works(server, done.identity), calls
        shutil.rmtree(out)
    assert seen[0] == first.certificate_id
    assert seen[-1] == second.certificate_id
    assert seen == sorted(seen, key=[first.certificate_id, second.certificate_id].index)
