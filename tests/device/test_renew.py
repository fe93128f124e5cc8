"""Renewal: a new certificate by the present one, which stays in use until the new one is proven."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import (
    BadRequest,
    NoIdentity,
    ProvisioningError,
    Rejected,
    StorageRefused,
)
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import load
from fleetgate.device.provision import (
    Provisioned,
    Retries,
    abandon,
    provision,
    renew,
    renew_async,
)
from tests.device.conftest import Files, Issuer
from tests.device.memory_server import SILENCE, Clock, Fault, MemoryServer, refusal
from tests.device.recorded_disk import UnflushedDisk

Run = Callable[..., Provisioned]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(issuer: Issuer, claim: Files, clock: Clock) -> MemoryServer:
    return MemoryServer(issuer, claim, clock)


@pytest.fixture
def out(tmp_path: Path, server: MemoryServer, claim: Files) -> Path:
    """The directory of a device that has its first identity."""
    provision(
        Endpoint("localhost", 8883, claim.ca, mqtt_version=4),
        Credentials(claim.certificate, claim.key),
        "lamps",
        {},
        tmp_path / "out",
        connect=server.connect,
    )
    server.requests.clear()
    server.connects.clear()
    return tmp_path / "out"


@pytest.fixture
def again(server: MemoryServer, clock: Clock, out: Path) -> Run:
    def renew_here(template: str = "renewal", **options: Any) -> Provisioned:
        return renew(
            out,
            template,
            options.pop("parameters", {}),
            **{
                "terms": Terms(timeout=0.05),
                "retries": Retries(attempts=1),
                "connect": server.connect,
                "around": clock.around,
                "calls": UnflushedDisk(),
                **options,
            },
        )

    return renew_here


def failure(run: Run, **options: Any) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        run(**options)
    return caught.value


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


LINKS = ["ca.pem", "certificate.pem", "config.json", "private.key"]


@pytest.mark.parametrize("keep_key", [False, True])
def test_a_new_identity_takes_the_place_of_the_present_one(
    keep_key: bool, again: Run, server: MemoryServer, out: Path
) -> None:
    before = load(out)
    server.configuration = {"mode": "dim"}
    done = again(keep_key=keep_key)
    assert server.connects == [
        ("lamp-1", before.certificate_id),
        ("lamp-1", done.certificate_id),
    ]
    assert {each.mqtt_version for each in server.endpoints} == {4}
    assert done.certificate_id != before.certificate_id
    assert done.identity == load(out)
    assert done.device_configuration == {"mode": "dim"}
    assert done.identity.template == "renewal"
    assert before.key is not None
    assert ((out / "private.key").read_bytes() == before.key.read_bytes()) is keep_key
    assert (out / "certificate.pem").read_bytes() != before.certificate.read_bytes()
    assert names(out) == sorted([*LINKS, "current", "identity-1", "identity-2"])


@pytest.mark.parametrize("kind", ["P-384", "RSA-2048", "server"])
def test_the_new_key_is_of_the_present_one_s_kind(kind: Any, again: Run, out: Path) -> None:
    again(key=kind)
    before = load(out)
    after = again().identity
    assert after.key_kind == before.key_kind == ("RSA-2048" if kind == "server" else kind)
    assert (after.key or out).read_bytes() != (before.key or out).read_bytes()


def test_a_contradiction_is_refused(again: Run, server: MemoryServer, out: Path) -> None:
    for options in ({"keep_key": True, "key": "P-256"}, {"key": "server", "subject": "CN=x"}):
        assert isinstance(failure(again, **options), BadRequest)
    assert not server.requests
    assert load(out).number == 1


def test_the_client_id_stays(again: Run, server: MemoryServer) -> None:
    assert again(own_client_id="gateway-9").client_id == "gateway-9"
    assert again().client_id == "gateway-9"


def test_one_generation_is_kept(again: Run, out: Path) -> None:
    again()
    again()
    assert load(out).number == 3
    assert names(out) == sorted([*LINKS, "current", "identity-2", "identity-3"])


def test_a_renewed_device_is_still_the_one_that_was_provisioned(
    again: Run, server: MemoryServer, claim: Files, out: Path
) -> None:
    """A boot script that always provisions finds its identity, and no renewal is disturbed."""
    done = again()
    server.faults["register"].append(SILENCE)
    failure(again)
    same = provision(
        Endpoint("localhost", 8883, claim.ca),
        Credentials(claim.certificate, claim.key),
        "lamps",
        {},
        out,
        connect=server.connect,
    )
    assert same.already
    assert same.identity == done.identity
    assert again().certificate_id == server.active[-1]


def test_until_it_is_proven_the_present_identity_is_the_active_one(
    again: Run, server: MemoryServer, out: Path
) -> None:
    before = load(out)
    for step in ("create", "register", "register"):
        server.faults[step].append(SILENCE)
        failure(again)
        assert load(out) == before
    server.only_as = "nobody"
    failure(again, client_id="x")
    assert load(out) == before


def test_an_interrupted_renewal_is_gone_on_with(
    again: Run, server: MemoryServer, clock: Clock
) -> None:
    server.faults["register"].append(SILENCE)
    failure(again)
    clock.now += 60
    done = again()
    asked = ["create", "register", "register"]
    assert server.asked == asked
    assert server.active[-1] == done.certificate_id
    assert len(server.active) == 2


def test_a_lost_answer_is_known_by_the_certificate_s_connecting(
    again: Run, server: MemoryServer, out: Path
) -> None:
    server.token_once = True
    server.only_as = "lamp-1"
    server.faults["register"].append(SILENCE)
    failure(again)
    done = again()
    assert done.identity.answer_lost
    assert done.thing_name == "lamp-1"
    assert done.device_configuration == {"mode": "bright"}
    assert len(server.active) == 2


def test_an_interrupted_renewal_can_be_abandoned(
    again: Run, server: MemoryServer, out: Path
) -> None:
    server.faults["register"].append(SILENCE)
    failure(again)
    error = failure(again, template="other")
    assert isinstance(error, StorageRefused)
    assert "with another template" in error.message
    assert abandon(out)
    assert names(out) == sorted([*LINKS, "current", "identity-1"])
    assert again(template="other").identity.number == 2


def test_a_refused_renewal_leaves_everything_as_it_is(
    again: Run, server: MemoryServer, out: Path
) -> None:
    before = load(out)
    server.faults["create"].append(refusal(403, "AccessDenied"))
    assert isinstance(failure(again), Rejected)
    assert load(out) == before
    assert again(template="other").identity.number == 3


def test_one_that_has_switched_already_is_not_done_twice(
    again: Run, server: MemoryServer, out: Path
) -> None:
    """It was killed when everything but the journal was in order."""
    seen: list[bytes] = []

    def tell(step: str, _sentence: str) -> None:
        if step == "finish":
            seen.append((out / "journal.json").read_bytes())

    done = again(progress=tell)
    for purpose, expected in (("renew", True), ("provision", False)):
        values = json.loads(seen[-1])
        assert values["state"] == "proven"
        (out / "journal.json").touch(0o600)
        (out / "journal.json").write_text(json.dumps({**values, "purpose": purpose}))
        repeated = again()
        assert repeated.already is expected
        assert (repeated.certificate_id == done.certificate_id) is expected
    assert len(server.active) == 3


def test_another_thing_does_not_take_the_place_of_the_present_one_unasked(
    again: Run, server: MemoryServer, out: Path
) -> None:
    """Of a wrong parameter, say."""
    before = load(out)
    server.thing_name = "lamp-OTHER"
    for _ in range(2):
        error = failure(again)
        assert isinstance(error, StorageRefused)
        assert error.step == "reconnect"
        for words in (
            "`lamp-1`",
            "thing `lamp-OTHER`, certificate ",
            "--new-thing",
            f"`fleetgate abandon {out}`",
        ):
            assert words in error.message
        assert load(out) == before
        assert server.asked == ["create", "register"]
    assert {own for _, own in server.connects} == {before.certificate_id}
    assert abandon(out)
    server.thing_name = "lamp-1"
    assert again().thing_name == "lamp-1"


@pytest.mark.parametrize("at_once", [False, True])
def test_it_does_when_that_is_asked_for(at_once: bool, again: Run, server: MemoryServer) -> None:
    """The new thing's name is its client id, as the old one's was."""

    def narrow(answer: Any) -> Any:
        server.only_as = "lamp-OTHER"
        return answer

    server.thing_name = "lamp-OTHER"
    server.faults["register"].append(Fault(narrow))
    if not at_once:
        failure(again)
    done = again(new_thing=True)
    assert done.thing_name == done.client_id == "lamp-OTHER"
    assert server.asked == ["create", "register"]


def test_a_client_id_that_was_chosen_stays_with_another_thing(
    again: Run, server: MemoryServer
) -> None:
    again(own_client_id="gateway-9")
    server.thing_name = "lamp-OTHER"
    done = again(new_thing=True)
    assert (done.thing_name, done.client_id) == ("lamp-OTHER", "gateway-9")


@pytest.mark.parametrize(("before", "after"), [(None, "lamp-2"), ("lamp-2", None)])
def test_a_thing_s_name_that_is_not_known_is_not_compared(
    before: str | None, after: str | None, again: Run, server: MemoryServer
) -> None:
    server.thing_name = before
    again(new_thing=True)
    server.thing_name = after
    assert again().thing_name == after


def test_without_an_identity_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NoIdentity) as caught:
        renew(tmp_path / "none", "renewal", {})
    assert caught.value.step == "prepare"
    assert not (tmp_path / "none").exists()


def test_it_can_be_awaited(out: Path, server: MemoryServer) -> None:
    done = asyncio.run(renew_async(out, "renewal", {}, connect=server.connect))
    assert done.identity.number == 2


def test_a_kept_key_s_pin_is_for_its_owner_alone(again: Run, out: Path, tmp_path: Path) -> None:
    pin = tmp_path / "pin"
    pin.write_text("1234")
    pin.chmod(0o666)
    (out / "current" / "private.key").unlink()
    config = out / "current" / "config.json"
    token = {"module": "/lib/p11.so", "label": "card", "key": "device", "pinFile": str(pin)}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"token": token}))
    with pytest.raises(
        StorageRefused, match=r"others may read the PIN in .* \(mode 0666\)"
    ) as found:
        again()
    assert found.value.step == "prepare"
    assert not (out / "journal.json").exists()


def test_what_fails_after_the_switch_does_not_make_it_undone(
    again: Run, out: Path, server: MemoryServer
) -> None:
    """ "Run the same again" would be another renewal: there is nothing to go on with any more."""

    class FullAtLast(UnflushedDisk):
        def flush_directory(self, at: int, path: str) -> None:
            if self.forgotten:
                raise OSError(errno.ENOSPC, f"No space left on device {path}", at)

        def remove(self, at: int, path: str) -> None:
            super().remove(at, path)
            self.forgotten = path == "journal.json"

        forgotten = False

    done = again(calls=FullAtLast())
    assert load(out).certificate_id == done.certificate_id
    assert not (out / "journal.json").exists()
    assert len(server.requests) == 2  # for a certificate, and to register it


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"out": ""}, "`out` is empty"),
        ({"endpoint": "iot.example"}, "`endpoint` has to be Endpoint, not 'iot.example'"),
        ({"template": None}, "`template` has to be a text, not None"),
        ({"parameters": []}, "`parameters` has to be a mapping, not list"),
        ({"key": 256}, "`key` has to be a text or KeyOnToken, not 256"),
        ({"keep_key": "yes"}, "`keep_key` has to be True or False, not 'yes'"),
        ({"new_thing": 1}, "`new_thing` has to be True or False, not 1"),
        ({"parameters": {"n": "v" * 131_072}}, "the parameters are too large"),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_an_argument_of_another_type_is_told_before_anything_is_done(
    change: dict[str, Any], said: str, out: Path, server: MemoryServer
) -> None:
    connects = len(server.connects)
    given: dict[str, Any] = {"out": out, "template": "lamps", "parameters": None}
    with pytest.raises(BadRequest) as caught:
        renew(**{**given, "connect": server.connect, **change})
    assert said in caught.value.message
    assert caught.value.step == "prepare"
    assert len(server.connects) == connects
    assert not (out / "journal.json").exists()


def test_what_is_no_directory_cannot_be_abandoned() -> None:
    for wrong in ("", None):
        with pytest.raises(BadRequest, match="`out`"):
            abandon(wrong)  # type: ignore[arg-type]
