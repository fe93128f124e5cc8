"""The whole journey with a claim: what it asks, what it leaves on disk, and how each step fails.

The server is one in memory; the journeys with a real one are in test_journey.py and test_kill.py.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fleetgate.device.disk import Disk
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    InDoubt,
    NoAnswer,
    NotAuthorized,
    ProvisioningError,
    Rejected,
    Step,
    StorageRefused,
)
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import KeyOnToken, load
from fleetgate.device.protocol import PayloadFormat
from fleetgate.device.provision import Provisioned, Retries, abandon, provision, provision_async
from fleetgate.pki import csr, issue, trust
from tests.device.conftest import Files, Issuer
from tests.device.memory_server import (
    HANG_UP,
    IGNORED,
    INVALID,
    SILENCE,
    Clock,
    Fault,
    MemoryServer,
    changed,
    refusal,
)
from tests.device.recorded_disk import UnflushedDisk
from tests.device.scripted_client import ScriptedClient

STEPS = ["prepare", "connect", "create", "store", "register", "reconnect", "finish"]
ONCE = Retries(attempts=1)
QUICK = Terms(timeout=0.05, mqtt_timeout=0.05)

Run = Callable[..., Provisioned]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(issuer: Issuer, claim: Files, clock: Clock) -> MemoryServer:
    return MemoryServer(issuer, claim, clock)


@pytest.fixture
def run(server: MemoryServer, claim: Files, clock: Clock, tmp_path: Path) -> Run:
    """Provision into ``tmp_path / "out"`` at the server."""

    def provision_here(template: str = "lamps", **options: Any) -> Provisioned:
        return provision(
            Endpoint(options.pop("endpoint", "localhost"), 8883, claim.ca),
            Credentials(claim.certificate, claim.key),
            template,
            options.pop("parameters", {"SerialNumber": "1"}),
            tmp_path / "out",
            **{
                "terms": QUICK,
                "retries": ONCE,
                "connect": server.connect,
                "around": clock.around,
                "calls": UnflushedDisk(),
                **options,
            },
        )

    return provision_here


def failure(run: Run, **options: Any) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        run(**options)
    return caught.value


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def journal(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / "journal.json").read_text())
    return values


# --- when all goes well ---


@pytest.mark.parametrize("payload_format", ["json", "cbor"])
def test_a_device_gets_an_identity_for_its_own_key(
    payload_format: PayloadFormat, run: Run, server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    told: list[Step] = []
    done = run(
        terms=Terms(payload_format),
        client_id="claim-7",
        progress=lambda step, _sentence: told.append(step),
    )
    out = tmp_path / "out"
    assert list(dict.fromkeys(told)) == list(done.seconds) == STEPS
    assert done.thing_name == done.client_id == "lamp-1"
    assert done.device_configuration == {"mode": "bright"}
    assert done.identity == load(out)
    assert not done.already

    # on the wire
    (create, request), (register, parameters) = server.requests
    assert create == f"$aws/certificates/create-from-csr/{payload_format}"
    assert csr.parse(request["certificateSigningRequest"]).subject.rfc4514_string() == "CN=claim-7"
    assert register == f"$aws/provisioning-templates/lamps/provision/{payload_format}"
    assert parameters == {
        "certificateOwnershipToken": next(iter(server.tokens)),
        "parameters": {"SerialNumber": "1"},
    }
    assert server.connects == [("claim-7", "claim"), ("lamp-1", done.certificate_id)]
    assert server.active == [done.certificate_id]

    # on disk
    links = ["ca.pem", "certificate.pem", "config.json", "private.key"]
    assert names(out) == sorted([*links, "current", "identity-1"])
    assert done.files == {name: out / name for name in links}
    assert all((out / name).resolve() == out / "identity-1" / name for name in links)
    assert names(out / "identity-1") == links
    assert {name: stat.S_IMODE((out / name).stat().st_mode) for name in links} == {
        "ca.pem": 0o644,
        "certificate.pem": 0o644,
        "config.json": 0o600,
        "private.key": 0o600,
    }
    for each in (out, out / "identity-1"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700
    assert (out / "ca.pem").read_text() == claim.ca.read_text()
    certificate = trust.inspect((out / "certificate.pem").read_text())
    assert certificate.certificate_id == done.certificate_id
    assert isinstance(certificate.public_key, ec.EllipticCurvePublicKey)


def test_the_server_can_make_the_key(run: Run, server: MemoryServer, tmp_path: Path) -> None:
    done = run(key="server")
    assert server.requests[0] == ("$aws/certificates/create/json", {})
    key = tmp_path / "out" / "private.key"
    assert key.read_text().startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert done.identity.key_kind == "RSA-2048"
    certificate = x509.load_pem_x509_certificate((tmp_path / "out/certificate.pem").read_bytes())
    assert isinstance(certificate.public_key(), rsa.RSAPublicKey)


@pytest.mark.parametrize(("kind", "size"), [("P-384", 384), ("RSA-3072", 3072)])
def test_kind_of_key_and_subject_can_be_chosen(
    kind: str, size: int, run: Run, server: MemoryServer
) -> None:
    done = run(key=kind, subject="CN=lamp,O=Example\\, Inc.")
    request = csr.parse(server.requests[0][1]["certificateSigningRequest"])
    assert request.subject.rfc4514_string() == "CN=lamp,O=Example\\, Inc."
    assert request.public_key.key_size == size
    assert done.identity.key_kind == kind


def test_without_a_thing_the_client_id_stays(run: Run, server: MemoryServer) -> None:
    server.thing_name = None
    done = run(client_id="claim-7")
    assert (done.thing_name, done.client_id) == (None, "claim-7")


def test_the_client_id_of_the_new_identity_can_be_chosen(run: Run, server: MemoryServer) -> None:
    assert run(own_client_id="gateway-9").client_id == "gateway-9"
    assert server.connects[-1][0] == "gateway-9"


def test_a_complete_identity_is_returned_for_the_same_and_never_replaced(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    done = run()
    out = tmp_path / "out" / "identity-1"
    before = {each: each.read_bytes() for each in out.iterdir()}
    again = run()
    assert again.already
    assert again.identity == done.identity
    assert list(again.seconds) == ["prepare"]
    for other in ({"template": "doors"}, {"parameters": {"SerialNumber": "2"}}):
        error = failure(run, **other)
        assert isinstance(error, StorageRefused)
        assert error.step == "prepare"
        assert f"(thing `lamp-1`, certificate {done.certificate_id})" in error.message
    assert {each: each.read_bytes() for each in out.iterdir()} == before
    assert len(server.connects) == 2


@pytest.mark.parametrize("registering", [False, True])
def test_a_claim_that_is_not_needed_any_more_may_be_gone(
    registering: bool, issuer: Issuer, server: MemoryServer, tmp_path: Path
) -> None:
    """Many devices remove it when they have their own."""
    server.claim = claim = issuer.write("passing", issue.DEVICE)

    def missing(endpoint: Endpoint, credentials: AnyCredentials, client_id: str) -> ScriptedClient:
        if not Path(credentials.certificate).exists():
            raise ConnectionFailed("cannot read the certificate", retry=False)
        return server.connect(endpoint, credentials, client_id)

    arguments: tuple[Any, ...] = (
        Endpoint("localhost", 8883, claim.ca),
        Credentials(claim.certificate, claim.key),
        "lamps",
        {},
        tmp_path / "out",
    )
    server.only_as = "nobody"
    if registering:
        server.faults["register"].append(SILENCE)
    with pytest.raises(NoAnswer if registering else ConnectionFailed):
        provision(*arguments, connect=server.connect, retries=ONCE, terms=QUICK)
    claim.key.unlink()
    claim.certificate.unlink()
    server.only_as = None
    done = provision(*arguments, connect=missing)
    assert done.identity.answer_lost is registering
    assert provision(*arguments, connect=server.connect).identity == done.identity


def test_the_stored_authorities_may_be_named_when_it_goes_on(
    run: Run, server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    """As the command does, when the claim's file was taken away and the authorities were in it."""
    server.only_as = "nobody"
    failure(run)
    server.only_as = None
    own = tmp_path / "out" / "identity-1" / "ca.pem"
    done = provision(
        Endpoint("localhost", 8883, own),
        Credentials(tmp_path / "gone", tmp_path / "gone"),
        "lamps",
        {"SerialNumber": "1"},
        tmp_path / "out",
        connect=server.connect,
    )
    assert server.active == [done.certificate_id]
    assert own.read_bytes() == claim.ca.read_bytes()


def test_everything_is_on_disk_before_the_device_is_registered(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def look(answer: Any) -> Any:
        seen["names"] = names(tmp_path / "out" / "identity-1")
        seen["journal"] = journal(tmp_path / "out")
        return answer

    server.faults["register"].append(Fault(look))
    done = run()
    assert seen["names"] == ["ca.pem", "certificate.pem", "private.key"]
    assert seen["journal"]["state"] == "registering"
    assert seen["journal"]["certificateOwnershipToken"] in server.tokens
    assert seen["journal"]["certificateId"] == done.certificate_id


def test_neither_parameters_nor_a_used_token_are_left_on_disk(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.faults["register"].append(refusal(400))
    failure(run, parameters={"Secret": "open sesame"})
    assert "sesame" not in (tmp_path / "out" / "journal.json").read_text()
    server.unreachable = 0
    server.only_as = "somebody else"
    failure(run, parameters={"Secret": "open sesame"})
    assert journal(tmp_path / "out")["certificateOwnershipToken"] == ""


def test_it_can_be_awaited(server: MemoryServer, claim: Files, tmp_path: Path) -> None:
    async def main() -> Provisioned:
        return await provision_async(
            Endpoint("localhost", 8883, claim.ca),
            Credentials(claim.certificate, claim.key),
            "lamps",
            {},
            tmp_path / "out",
            connect=server.connect,
        )

    assert asyncio.run(main()).thing_name == "lamp-1"


def test_cancelling_stops_it_before_the_next_step(
    server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    asked = threading.Event()

    def tell(step: Step, _sentence: str) -> None:
        if step == "register":
            asked.set()
            cancelled.wait(5)

    cancelled = threading.Event()
    arguments: tuple[Any, ...] = (
        Endpoint("localhost", 8883, claim.ca),
        Credentials(claim.certificate, claim.key),
        "lamps",
        {},
        tmp_path / "out",
    )

    async def main() -> None:
        journey = asyncio.create_task(
            provision_async(*arguments, connect=server.connect, progress=tell)
        )
        await asyncio.to_thread(asked.wait, 5)
        journey.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await journey

    asyncio.run(main())
    assert journal(tmp_path / "out")["state"] == "registered"
    assert provision(*arguments, connect=server.connect).thing_name == "lamp-1"
    assert server.asked == ["create", "register"]


# --- trying again ---


@pytest.mark.parametrize(
    "fault", [SILENCE, HANG_UP, IGNORED, refusal(429), refusal(500), refusal(503)]
)
@pytest.mark.parametrize("step", ["create", "register"])
def test_what_may_pass_is_tried_again(
    step: str, fault: Fault, run: Run, server: MemoryServer, clock: Clock
) -> None:
    server.faults[step].extend([fault, fault])
    done = run(retries=Retries(attempts=3))
    assert (
        server.asked
        == {
            "create": ["create", "create", "create", "register"],
            "register": ["create", "register", "register", "register"],
        }[step]
    )
    assert clock.slept == [1.0, 2.0]
    assert server.active == [done.certificate_id]
    # an answer leaves the connection as it is; anything else is followed by a new one
    rejected = fault not in (SILENCE, HANG_UP, IGNORED)
    assert len(server.connects) == (2 if rejected else 4)


def test_all_requests_for_a_certificate_are_for_one_key(run: Run, server: MemoryServer) -> None:
    """A lost answer leaves a pending certificate for it, not an active one without a key."""
    server.faults["create"].extend([SILENCE, HANG_UP])
    run(retries=Retries(attempts=3))
    requests = [values["certificateSigningRequest"] for _, values in server.requests[:3]]
    assert len({csr.parse(each).public_key.public_numbers().x for each in requests}) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("step", ["create", "register"])
@pytest.mark.parametrize("status", [400, 403, 404, 409])
def test_other_refusals_are_not(
    status: int, step: str, run: Run, server: MemoryServer, clock: Clock
) -> None:
    server.faults[step].append(refusal(status, "AccessDenied"))
    error = failure(run, retries=Retries(attempts=9))
    assert isinstance(error, Rejected)
    assert (error.step, error.status_code, error.error_code) == (step, status, "AccessDenied")
    assert clock.slept == []


def test_connecting_is_tried_again_with_jitter_until_the_attempts_are_over(
    run: Run, server: MemoryServer, clock: Clock
) -> None:
    server.unreachable = 100
    told: list[str] = []
    error = failure(
        run,
        retries=Retries(attempts=5, first_pause=2.0, longest_pause=10.0),
        progress=lambda step, sentence: told.append(f"{step}: {sentence}"),
    )
    assert isinstance(error, ConnectionFailed)
    assert error.step == "connect"
    assert len(server.connects) == 5
    assert clock.slept == [2.0, 4.0, 8.0, 10.0]
    assert "connect: connect: nobody is there (trying again in 4.0 s)" in told


def test_it_ends_when_the_time_is_over(run: Run, server: MemoryServer, clock: Clock) -> None:
    server.unreachable = 1000
    failure(run, retries=Retries(attempts=1000, seconds=60.0, first_pause=10.0, longest_pause=15))
    assert sum(clock.slept) == 55.0


def test_attempts_are_counted_for_each_step(run: Run, server: MemoryServer) -> None:
    server.unreachable = 1
    server.faults["create"].append(refusal(429))
    server.faults["register"].append(refusal(429))
    assert run(retries=Retries(attempts=3)).thing_name == "lamp-1"


def test_it_can_be_stopped_while_it_waits(run: Run, server: MemoryServer) -> None:
    stop = threading.Event()
    server.unreachable = 1000

    def tell(_step: Step, sentence: str) -> None:
        if "trying again" in sentence:
            stop.set()

    patient = Retries(attempts=100, first_pause=60, longest_pause=60)
    assert failure(run, retries=patient, stop=stop, progress=tell).step == "connect"
    assert len(server.connects) == 1
    assert "stopped" in failure(run, stop=stop).message


# --- going on ---


def test_a_refused_registration_is_repeated_with_the_same_certificate(
    run: Run, server: MemoryServer
) -> None:
    server.faults["register"].append(refusal(403))
    failure(run)
    done = run()
    assert server.asked == ["create", "register", "register"]
    assert server.active == [done.certificate_id]


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_in_trouble_does_not_say_that_nothing_was_registered(
    status: int, run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.faults["register"].append(refusal(403))
    failure(run, retries=Retries(attempts=2))
    assert journal(tmp_path / "out")["state"] == "issued"
    server.faults["register"].extend([refusal(status), refusal(403)])
    failure(run, retries=Retries(attempts=2))
    assert journal(tmp_path / "out")["state"] == "registering"


@pytest.mark.parametrize("fault", [SILENCE, HANG_UP, IGNORED, refusal(500)])
def test_an_unknown_registration_is_repeated_also_when_the_clock_says_it_is_too_late(
    fault: Fault, run: Run, server: MemoryServer, clock: Clock
) -> None:
    server.token_seconds = 1e9
    server.faults["register"].append(fault)
    failure(run)
    clock.now += 5000
    done = run()
    assert server.asked == ["create", "register", "register"]
    assert server.active == [done.certificate_id]


@pytest.mark.parametrize("seconds", [60.0, 3600.0])
def test_a_certificate_that_was_not_registered_while_its_token_lived_is_forgotten(
    seconds: float, run: Run, server: MemoryServer, clock: Clock, tmp_path: Path
) -> None:
    server.faults["register"].append(refusal(403))
    failure(run, token_seconds=seconds)
    clock.now += seconds
    done = run(token_seconds=seconds)
    assert server.asked == ["create", "register", "create", "register"]
    assert server.active == [done.certificate_id]
    assert names(tmp_path / "out") == [
        *("ca.pem", "certificate.pem", "config.json", "current", "identity-2", "private.key")
    ]


def test_a_token_that_is_over_leads_to_a_new_start(
    run: Run, server: MemoryServer, clock: Clock
) -> None:
    """The server's clock counts: the device's stood still while it was off."""
    server.faults["register"].append(refusal(403))
    failure(run)
    server.tokens = dict.fromkeys(server.tokens, ("", 0.0))
    done = run()
    assert server.asked == ["create", "register", "register", "create", "register"]
    assert server.active == [done.certificate_id]


def test_a_token_that_is_refused_at_once_leads_to_a_new_start(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    """One request was sent, and it was answered: nothing is in doubt."""
    server.faults["register"].append(refusal(400, "InvalidCertificateOwnershipToken"))
    told: list[str] = []
    done = run(progress=lambda _step, sentence: told.append(sentence))
    assert server.asked == ["create", "register", "create", "register"]
    assert server.active == [done.certificate_id]
    assert not done.identity.answer_lost
    first = next(iter(server.certificates))
    assert first in {own for _, own in server.connects}  # tried before it was given up
    assert any(each.endswith("; beginning anew") for each in told), told
    assert "identity-1" not in names(tmp_path / "out")


def test_a_certificate_that_was_registered_in_spite_of_such_an_answer_is_found(
    run: Run, server: MemoryServer
) -> None:
    server.faults["register"].append(INVALID)
    done = run()
    assert server.asked == ["create", "register"]
    assert server.active == [done.certificate_id]
    assert done.identity.answer_lost


def test_it_is_kept_while_it_cannot_be_tried(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.faults["register"].append(INVALID)
    server.busy = 1
    error = failure(run)
    assert isinstance(error, ConnectionFailed)
    assert error.retry
    assert journal(tmp_path / "out")["state"] == "issued"
    assert journal(tmp_path / "out")["rejected"] is True
    server.token_once = True
    done = run()
    assert server.active == [done.certificate_id]


def test_a_certificate_that_was_never_registered_is_not_tried(
    run: Run, server: MemoryServer, clock: Clock
) -> None:
    stop = threading.Event()

    def tell(step: Step, _sentence: str) -> None:
        if step == "store":
            stop.set()

    failure(run, stop=stop, progress=tell)
    clock.now += 5000
    done = run()
    assert server.active == [done.certificate_id]
    assert {own for _, own in server.connects} == {"claim", done.certificate_id}


def test_a_token_that_is_over_twice_is_an_error(run: Run, server: MemoryServer) -> None:
    server.faults["register"].append(refusal(403))
    failure(run)
    invalid = refusal(400, "InvalidCertificateOwnershipToken")
    server.faults["register"].extend([invalid, invalid])
    error = failure(run)
    assert isinstance(error, Rejected)
    assert error.error_code == "InvalidCertificateOwnershipToken"
    assert server.asked == ["create", "register", "register", "create", "register"]
    done = run()
    assert server.active == [done.certificate_id]


def test_a_token_that_seems_over_as_soon_as_it_is_there_is_asked_for_twice_at_most(
    run: Run, server: MemoryServer, clock: Clock, tmp_path: Path
) -> None:
    """The device's clock jumps, or `token_seconds` is too short."""

    def tell(_step: Step, sentence: str) -> None:
        clock.now += 100 * sentence.startswith("storing")

    error = failure(run, token_seconds=50, progress=tell, retries=Retries(attempts=9))
    assert "does the clock jump, or is token_seconds too short?" in error.message
    assert server.asked == ["create", "create"]
    assert run().thing_name == "lamp-1"


def test_a_token_that_has_done_its_duty_is_believed_when_the_certificate_connects(
    run: Run, server: MemoryServer
) -> None:
    """A server that does not repeat its answer, after the answer was lost."""
    server.token_once = True
    server.only_as = "lamp-1"
    server.faults["register"].append(SILENCE)
    done = run(retries=Retries(attempts=2), own_client_id="lamp-1")
    assert server.asked == ["create", "register", "register"]
    assert server.active == [done.certificate_id]
    assert done.identity.answer_lost
    assert (done.thing_name, done.client_id) == (None, "lamp-1")


@pytest.mark.parametrize("fault", [SILENCE, IGNORED, refusal(500)])
def test_a_certificate_that_is_refused_is_kept_until_the_caller_gives_it_up(
    fault: Fault, run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    """It may be registered, with a policy that names another client id."""
    server.token_once = True
    server.only_as = "somewhere"
    server.faults["register"].extend([fault, refusal(400, "InvalidCertificateOwnershipToken")])
    error = failure(run, retries=Retries(attempts=2))
    (identifier,) = server.certificates
    assert isinstance(error, InDoubt)
    assert (error.step, error.retry) == ("register", False)
    assert "a request was sent, and no answer says whether it was carried out" in error.message
    for words in (identifier, "--own-client-id", "--begin-anew", f"abandon {tmp_path / 'out'}"):
        assert words in error.message
    assert journal(tmp_path / "out")["state"] == "registering"
    assert "private.key" in names(tmp_path / "out" / "identity-1")
    server.token_seconds = -1e10
    server.tokens = dict.fromkeys(server.tokens, ("", 0.0))
    assert isinstance(failure(run), InDoubt)
    if fault is not SILENCE:
        server.token_seconds = 3600
        server.only_as = None
        done = run(begin_anew=True)
        assert server.active == [done.certificate_id] != [identifier]
        assert not done.identity.answer_lost
    else:
        done = run(own_client_id="somewhere")
        assert server.active == [done.certificate_id] == [identifier]
        assert done.identity.answer_lost


@pytest.mark.parametrize("name", ["serial-1", "CERTIFICATE"])
def test_likely_client_ids_are_tried(name: str, run: Run, server: MemoryServer) -> None:
    def used(answer: Any) -> Any:
        server.only_as = server.active[0] if name == "CERTIFICATE" else name

    server.token_once = True
    server.faults["register"].append(Fault(used))
    parameters = {"Place": "hall", "SerialNumber": "serial-1"}
    done = run(parameters=parameters, retries=Retries(attempts=2))
    assert server.active == [done.certificate_id]
    assert done.client_id == server.only_as
    assert "hall" not in {client_id for client_id, _ in server.connects}


@pytest.mark.parametrize("times", [2, 100])
def test_a_certificate_that_cannot_be_tried_for_a_moment_is_tried_again(
    times: int, run: Run, server: MemoryServer, clock: Clock, tmp_path: Path
) -> None:
    server.token_once = True
    server.busy = times
    server.faults["register"].append(SILENCE)
    options: dict[str, Any] = {"retries": Retries(attempts=5), "begin_anew": True}
    if times == 100:
        error = failure(run, **options)
        assert isinstance(error, ConnectionFailed)
        assert error.retry
        assert journal(tmp_path / "out")["state"] == "registering"
        server.busy = 0
    done = run(**options)
    assert server.active == [done.certificate_id]
    assert server.asked.count("create") == 1
    assert clock.slept[:3] == [1.0, 2.0, 4.0]


def test_a_certificate_that_is_registered_does_not_need_the_claim(
    run: Run, server: MemoryServer
) -> None:
    server.faults["register"].append(SILENCE)
    failure(run)
    server.claim_refused = True
    done = run()
    assert server.active == [done.certificate_id]
    assert done.identity.answer_lost


def test_one_that_is_not_does(run: Run, server: MemoryServer, tmp_path: Path) -> None:
    server.faults["register"].append(IGNORED)
    failure(run)
    server.claim_refused = True
    assert "the certificate is over" in failure(run).message
    assert journal(tmp_path / "out")["state"] == "registering"


def test_the_client_id_may_be_chosen_until_it_is_proven(run: Run, server: MemoryServer) -> None:
    server.only_as = "gateway-9"
    failure(run)
    done = run(own_client_id="gateway-9")
    assert server.asked == ["create", "register"]
    assert done.client_id == load(done.identity.directory).client_id == "gateway-9"


@pytest.mark.parametrize("member", ["thingName", "deviceConfiguration"])
def test_half_a_character_in_an_answer_is_refused(
    member: str, run: Run, server: MemoryServer
) -> None:
    value: Any = "\ud800" if member == "thingName" else {"a": "\ud800"}
    server.faults["register"].append(changed(**{member: value}))
    assert isinstance(failure(run), BadAnswer)
    assert run().thing_name == "lamp-1"


def test_half_a_character_in_an_argument_is_refused(run: Run, claim: Files, tmp_path: Path) -> None:
    for change in (
        {"client_id": "\ud800"},
        {"own_client_id": "\ud800"},
        {"parameters": {"a": "\ud800"}},
        {"parameters": {"\ud800": "a"}},
    ):
        assert isinstance(failure(run, **change), BadRequest)
    for name, why in (
        ("\ud800", "there is no such name"),
        ("a\0b", "there is no such name"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(StorageRefused, match=why):
            load(tmp_path / name)
        with pytest.raises(StorageRefused, match=why):
            abandon(tmp_path / name)
        with pytest.raises(StorageRefused, match=why):
            provision(
                Endpoint("localhost", 1, claim.ca),
                Credentials(claim.certificate, claim.key),
                "lamps",
                {},
                tmp_path / name,
            )


def test_a_registered_identity_that_does_not_connect_stays_until_it_does(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.only_as = "nobody"
    first = failure(run, retries=Retries(attempts=3))
    assert isinstance(first, ConnectionFailed)
    assert first.step == "reconnect"
    (identifier,) = server.active
    assert f"the device is registered (thing `lamp-1`, certificate {identifier})" in first.message
    assert f"`fleetgate abandon {tmp_path / 'out'}`" in first.message
    assert len(server.connects) == 4
    key = (tmp_path / "out" / "identity-1" / "private.key").read_bytes()
    failure(run)
    server.only_as = None
    told: list[Step] = []
    done = run(progress=lambda step, _sentence: told.append(step))
    assert list(dict.fromkeys(told)) == ["prepare", "reconnect", "finish"]
    assert done.certificate_id == identifier
    assert server.asked == ["create", "register"]
    assert (tmp_path / "out" / "private.key").read_bytes() == key


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"template": "doors"}, "another template"),
        ({"parameters": {"SerialNumber": "2"}}, "other parameters"),
    ],
)
@pytest.mark.parametrize("registered", [False, True])
def test_what_is_or_may_be_registered_is_not_taken_for_another_until_abandoned(
    registered: bool,
    change: dict[str, Any],
    differs: str,
    run: Run,
    server: MemoryServer,
    tmp_path: Path,
) -> None:
    if registered:
        server.only_as = "nobody"
    else:
        server.faults["register"].append(SILENCE)
    failure(run)
    server.only_as = None
    error = failure(run, **change)
    assert isinstance(error, StorageRefused)
    assert error.step == "prepare"
    assert f"with {differs}" in error.message
    assert ("was registered" if registered else "may have been registered") in error.message
    assert abandon(tmp_path / "out")
    assert not abandon(tmp_path / "out")
    assert names(tmp_path / "out") == []
    assert run(**change).thing_name == "lamp-1"


@pytest.mark.parametrize(
    "change", [{"template": "doors"}, {"parameters": {}}, {"key": "P-384"}, {"key": "server"}]
)
def test_what_is_not_registered_is_given_up_for_something_else(
    change: dict[str, Any], run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.faults["register"].append(refusal(403))
    failure(run)
    done = run(**change)
    assert server.asked == ["create", "register", "create", "register"]
    assert server.active == [done.certificate_id]
    assert "identity-1" not in names(tmp_path / "out")


REJECTED = replace(refusal(400, "ResourceRegistrationFailure"), carried_out=True)
"""As of a server that gave up after it had activated the certificate."""


@pytest.mark.parametrize("known_by", ["clock", "server"])
def test_what_was_rejected_is_tried_before_it_is_given_up(
    known_by: str, run: Run, server: MemoryServer, clock: Clock
) -> None:
    server.faults["register"].append(REJECTED)
    failure(run)
    if known_by == "clock":
        clock.now += 5000
    server.tokens = dict.fromkeys(server.tokens, ("", 0.0))
    done = run()
    assert server.active == [done.certificate_id]
    assert done.identity.answer_lost


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"template": "doors"}, "another template"),
        ({"parameters": {"SerialNumber": "2"}}, "other parameters"),
        ({"endpoint": "other.example"}, "another endpoint"),
    ],
)
def test_also_before_something_else_is_begun(
    change: dict[str, Any], differs: str, run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.faults["register"].append(REJECTED)
    failure(run)
    error = failure(run, **change)
    assert isinstance(error, StorageRefused)
    assert f"a device that was registered and was not finished ({cert(server)})" in error.message
    assert f"with {differs}" in error.message
    assert journal(tmp_path / "out")["state"] == "registered"
    assert {each.host for each in server.endpoints} == {"localhost"}  # where it may be registered
    done = run()
    assert server.active == [done.certificate_id]
    assert server.asked == ["create", "register"]


def cert(server: MemoryServer) -> str:
    (own,) = server.active
    return f"certificate {own}"


def test_another_kind_of_key_is_not_worth_a_second_certificate(
    run: Run, server: MemoryServer
) -> None:
    server.faults["register"].append(REJECTED)
    failure(run)
    done = run(key="P-384")
    assert server.active == [done.certificate_id]
    assert done.identity.key_kind == "P-256"


def test_what_was_rejected_is_kept_until_it_could_be_tried(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.faults["register"].append(REJECTED)
    failure(run)
    server.busy = 3
    error = failure(run, template="doors", retries=Retries(attempts=2))
    assert isinstance(error, ConnectionFailed)
    assert error.retry
    assert error.step == "reconnect"
    assert f"abandon {tmp_path / 'out'}" in error.message
    assert journal(tmp_path / "out")["state"] == "issued"
    server.thing_name = "door-1"
    with pytest.raises(StorageRefused):
        run(template="doors", retries=Retries(attempts=2))
    assert abandon(tmp_path / "out")
    assert run(template="doors").thing_name == "door-1"


def test_a_journal_of_an_earlier_version_is_gone_on_with(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    """It does not say whether anything was rejected."""
    server.faults["register"].append(refusal(403))
    failure(run)
    path = tmp_path / "out" / "journal.json"
    values = journal(tmp_path / "out")
    assert values.pop("rejected") is True
    path.write_text(json.dumps(values))
    done = run()
    assert server.active == [done.certificate_id]
    assert server.asked == ["create", "register", "register"]


def test_a_key_on_a_token_is_asked_for_again_to_go_on(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.only_as = "nobody"
    failure(run)
    path = tmp_path / "out" / "journal.json"
    path.write_text(json.dumps({**journal(tmp_path / "out"), "key": "token card key /lib.so"}))
    error = failure(run)
    assert isinstance(error, StorageRefused)
    assert "with another key" in error.message


def test_a_damaged_journal_is_told(run: Run, server: MemoryServer, tmp_path: Path) -> None:
    server.faults["register"].append(SILENCE)
    failure(run)
    path = tmp_path / "out" / "journal.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "number": "x"}))
    error = failure(run)
    assert isinstance(error, StorageRefused)
    assert f"`number` in `{path}` is damaged" in error.message


# --- how it fails ---


def test_a_rejection_says_what_the_server_said(run: Run, server: MemoryServer) -> None:
    server.faults["register"].append(refusal(403, "AccessDenied"))
    error = failure(run)
    assert isinstance(error, Rejected)
    topic = "$aws/provisioning-templates/lamps/provision/json"
    assert error.topic == f"{topic}/rejected"
    assert str(error) == f"register: the server rejected `{topic}` with 403 AccessDenied: no"


def test_silence_ends_in_time(run: Run, server: MemoryServer) -> None:
    server.faults["create"].append(SILENCE)
    error = failure(run)
    assert isinstance(error, NoAnswer)
    assert (error.step, error.waited) == ("create", 0.05)


def test_a_refused_subscription_is_named(run: Run, server: MemoryServer) -> None:
    topic = "$aws/certificates/create-from-csr/json/rejected"
    server.refused = [topic]
    error = failure(run, retries=Retries(attempts=3))
    assert isinstance(error, NotAuthorized)
    assert (error.step, error.topic, error.action) == ("subscribe", topic, "iot:Subscribe")
    assert not server.requests


def test_a_refused_subscription_to_the_answer_leaves_nothing_in_doubt(
    run: Run, server: MemoryServer, tmp_path: Path
) -> None:
    server.refused = ["$aws/provisioning-templates/lamps/provision/json/accepted"]
    assert isinstance(failure(run), NotAuthorized)
    assert journal(tmp_path / "out")["state"] == "issued"


def test_a_server_that_hangs_up_is_no_mystery(run: Run, server: MemoryServer) -> None:
    server.faults["create"].append(HANG_UP)
    error = failure(run)
    assert isinstance(error, ConnectionLost)
    assert error.step == "create"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certificateId": "ab" * 32}, "`certificateId` in the answer is `abab"),
        ({"certificateId": None}, "`certificateId` in the answer is missing"),
        ({"certificateOwnershipToken": 7}, "is not a text with characters in it"),
        ({"certificatePem": "gibberish"}, "cannot be read"),
    ],
)
@pytest.mark.parametrize("key", ["P-256", "server"])
def test_an_answer_that_does_not_fit_is_refused(
    key: str, change: dict[str, Any], message: str, run: Run, server: MemoryServer
) -> None:
    server.faults["create"].append(changed(**change))
    error = failure(run, key=key)
    assert isinstance(error, BadAnswer)
    assert error.step == "create"
    assert message in error.message


def test_a_certificate_for_another_key_is_refused(
    run: Run, server: MemoryServer, claim: Files
) -> None:
    server.faults["create"].append(changed(certificatePem=claim.certificate.read_text()))
    error = failure(run, key="server")
    assert isinstance(error, BadAnswer)
    assert "is for another key" in error.message


def test_a_registration_that_cannot_be_remembered_is_reported(
    run: Run, server: MemoryServer
) -> None:
    class Full(Disk):
        """There is no place for the journal once the device is registered."""

        def rename(self, at: int, old: str, new: str) -> None:
            if server.active:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().rename(at, old, new)

    error = failure(run, calls=Full())
    assert isinstance(error, StorageRefused)
    assert error.step == "register"
    assert "the device is registered (thing `lamp-1`, certificate " in error.message
    assert "No space left on device" in error.message
    assert run().certificate_id == server.active[0]


@pytest.mark.parametrize("name", ["config.json", "journal.json", "current"])
def test_a_full_disk_after_the_registration_says_what_is_left_to_do(
    name: str, run: Run, server: MemoryServer
) -> None:
    class Full(Disk):
        """There is no place for a file once the new certificate has connected."""

        def rename(self, at: int, old: str, new: str) -> None:
            if Path(new).name == name and len(server.connects) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().rename(at, old, new)

    error = failure(run, calls=Full())
    assert isinstance(error, StorageRefused)
    assert error.step == "finish"
    assert f"{name}`: No space left on device" in error.message
    assert "the device is registered (thing `lamp-1`, certificate " in error.message
    assert "run the same again, which ends it" in error.message
    assert run().certificate_id == server.active[0]
    assert server.asked == ["create", "register"]


def test_arguments_are_checked_before_anything_is_done(
    server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    readable = tmp_path / "readable.key"
    readable.write_bytes(claim.key.read_bytes())
    readable.chmod(0o640)
    pair = Credentials(claim.certificate, claim.key)
    arguments: dict[str, Any] = {
        "endpoint": Endpoint("localhost", 1, claim.ca),
        "claim": pair,
        "template": "lamps",
        "parameters": {},
        "out": tmp_path / "out",
        "connect": server.connect,
    }
    for change, kind, message in (
        ({"template": "a/b"}, BadRequest, "`a/b` cannot be the name"),
        ({"parameters": {"n": 1}}, BadRequest, "the parameter `n` is not a text: int"),
        ({"subject": "lamp"}, BadRequest, "`lamp` is no subject"),
        ({"client_id": ""}, BadRequest, "`client_id` is ''"),
        ({"key": "DSA"}, BadRequest, "`DSA` is no kind of key: P-256, "),
        ({"token_seconds": 0.0}, BadRequest, "a token lives longer than"),
        (
            {"endpoint": Endpoint("localhost", 1, tmp_path / "none")},
            ConnectionFailed,
            f"^prepare: cannot read the authorities in `{tmp_path}/none`: No such file",
        ),
        (
            {"claim": Credentials(tmp_path / "none", claim.key)},
            ConnectionFailed,
            f"^prepare: cannot read the certificate `{tmp_path}/none`: No such file",
        ),
        (
            {"claim": Credentials(claim.certificate, claim.certificate)},
            StorageRefused,
            r"others may read the private key .*\(mode 0644\): take that right away with `chmod",
        ),
        (
            {"claim": Credentials(claim.certificate, readable)},
            StorageRefused,
            rf"\(mode 0640\): take that right away with `chmod 600 {readable}`",
        ),
        (
            {"key": KeyOnToken(tmp_path / "lib.so", "card", "key", readable)},
            StorageRefused,
            rf"others may read the PIN in `{readable}` \(mode 0640\)",
        ),
        (
            {"claim": Credentials(claim.key, claim.key)},
            ConnectionFailed,
            "are certificate and key exchanged",
        ),
    ):
        with pytest.raises(kind, match=message) as caught:
            provision(**{**arguments, **change})
        assert caught.value.step == "prepare"
    assert not (tmp_path / "out").exists()
    assert not server.connects


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"endpoint": "iot.example"}, "`endpoint` has to be Endpoint, not 'iot.example'"),
        ({"claim": ("c", "k")}, "`claim` has to be Credentials or TokenKey, not ('c', 'k')"),
        ({"template": None}, "`template` has to be a text, not None"),
        ({"parameters": []}, "`parameters` has to be a mapping, not list"),
        ({"out": ""}, "`out` is empty: it has to be the path of a directory"),
        ({"out": None}, "`out` has to be a text or a path, not None"),
        ({"key": ["P-256"]}, "`key` has to be a text or KeyOnToken, not ['P-256']"),
        ({"key": KeyOnToken("m", "t", "k", "pin")}, "`pin_file` has to be Path, not 'pin'"),  # type: ignore[arg-type]
        ({"subject": 5}, "`subject` has to be a text or None, not 5"),
        ({"client_id": 5}, "`client_id` is 5"),
        ({"terms": None}, "`terms` has to be Terms, not None"),
        ({"retries": 3}, "`retries` has to be Retries, not 3"),
        ({"token_seconds": "x"}, "`token_seconds` has to be a number, not 'x'"),
        ({"token_seconds": float("inf")}, "and ends, not inf"),
        ({"begin_anew": 1}, "`begin_anew` has to be True or False, not 1"),
        ({"connect": "paho"}, "`connect` has to be Callable or None, not 'paho'"),
        ({"progress": 1}, "`progress` has to be Callable or None, not 1"),
        (
            {"parameters": {"n": "v" * 200_000}},
            "the request has 204150 bytes, more than the 131072",
        ),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_an_argument_of_another_type_is_told_before_anything_is_done(
    change: dict[str, Any], said: str, server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {
        "endpoint": Endpoint("localhost", 1, claim.ca),
        "claim": Credentials(claim.certificate, claim.key),
        "template": "lamps",
        "parameters": {},
        "out": tmp_path / "out",
        "connect": server.connect,
    }
    with pytest.raises(BadRequest) as caught:
        provision(**{**arguments, **change})
    assert said in caught.value.message
    assert caught.value.step == "prepare"
    assert not (tmp_path / "out").exists()
    assert not server.connects


def test_what_fits_into_a_message_with_the_longest_token_is_asked_for(
    run: Run, server: MemoryServer
) -> None:
    around = len(json.dumps({"certificateOwnershipToken": "", "parameters": {"n": ""}})) - 4
    room = 128 * 1024 - 4096 - around  # without the spaces
    assert isinstance(failure(run, parameters={"n": "v" * (room + 1)}), BadRequest)
    assert isinstance(failure(run, parameters={"n": "\u00e9" * (room // 2 + 1)}), BadRequest)
    assert not server.connects
    assert run(parameters={"n": "v" * room}).thing_name == "lamp-1"


def test_no_parameters_are_empty_ones(run: Run, server: MemoryServer) -> None:
    assert run(parameters=None).certificate_id == run(parameters={}).certificate_id
    assert server.asked == ["create", "register"]


def test_the_files_of_the_claim_are_not_overwritten(
    run: Run, server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    """Even when they lie where an interrupted provisioning would leave its own."""
    server.faults["register"].append(refusal(403))
    failure(run)
    out = tmp_path / "out"
    for name in ("identity-1/private.key", "certificate.pem"):
        own = out / name
        own.unlink(missing_ok=True)
        own.write_bytes(claim.key.read_bytes())
        own.chmod(0o600)
        with pytest.raises(StorageRefused, match=r"overwritten|is there already"):
            provision(
                Endpoint("localhost", 1, claim.ca),
                Credentials(claim.certificate, own),
                "lamps",
                {},
                out,
                connect=server.connect,
            )
        assert own.read_bytes() == claim.key.read_bytes()
        own.unlink()


def test_a_claim_in_the_same_directory_is_left_alone(
    server: MemoryServer, claim: Files, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir(0o700)
    (out / "claim.key").touch(0o600)
    (out / "claim.key").write_bytes(claim.key.read_bytes())
    provision(
        Endpoint("localhost", 1, claim.ca),
        Credentials(claim.certificate, out / "claim.key"),
        "lamps",
        {},
        out,
        connect=server.connect,
    )
    assert (out / "claim.key").read_bytes() == claim.key.read_bytes()


def test_a_claim_by_a_pipe_is_read_once(server: MemoryServer, claim: Files, tmp_path: Path) -> None:
    """There is nothing in it for a second attempt."""
    pipe = tmp_path / "key"
    os.mkfifo(pipe, 0o600)

    def connect(endpoint: Endpoint, credentials: AnyCredentials, client_id: str) -> ScriptedClient:
        assert isinstance(credentials, Credentials)
        assert credentials.key == pipe
        return server.connect(endpoint, Credentials(claim.certificate, claim.key), client_id)

    server.unreachable = 3
    with pytest.raises(ConnectionFailed):
        provision(
            Endpoint("localhost", 1, claim.ca),
            Credentials(claim.certificate, pipe),
            "lamps",
            {},
            tmp_path / "out",
            connect=connect,
        )
    assert len(server.connects) == 1
